"""The journal to write to: a buffer that a thread empties in batches."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from ... import settings
from ...errors import JournalError
from ..events import Row
from .address import Address, ServerAddress, read_address
from .database import Database, open_for_writing
from .reader import JournalReader
from .tables import TABLES

__all__ = ["Journal", "Rows", "flush_shared", "open_journal", "opened_journal"]

BATCH_ROWS = 500
EVERY_S = 0.1
RETRY_S = 1.0
"""Pauses between attempts to write what can't be written now grow from ``EVERY_S`` to this."""
KEEP_ROWS = 100_000
LOOK_EVERY_S = 30.0
"""How often what is watched is asked for its rows, while something else is written too."""

_RECORDS = {record.__name__ for record in TABLES}
_log = logging.getLogger("toolkit.journal")


class Rows(Protocol):
    """Something that knows its rows; the journal asks on its own thread, so that the caller's does not pay for them."""

    def rows(self) -> Iterable[Row]: ...


class Journal:
    """A journal to write to. ``append`` only puts into a buffer; a thread writes, at least every tenth of a second.

    What can't be written now (full disk, locked or damaged file, a server that is away) waits in memory, up to ``keep`` rows, and is written when that
    works again; ``lost`` counts what had to be dropped. One warning in the log ``toolkit.journal`` tells of each such time.

    Parameters
    ----------
    url : str or path
        A SQLite file, which is made on the first write, readable by its owner alone; or ``postgresql://…`` (extra ``postgres``).
    keep : int
        Rows that may wait in memory.

    Raises
    ------
    JournalError
        If ``url`` is not understood.
    ConfigError
        If it is that of a PostgreSQL server and psycopg is missing.

    Examples
    --------
    >>> import tempfile
    >>> from toolkit.monitor.events import RunRecord
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(f"{folder}/journal.sqlite")
    ...     journal.append(RunRecord(run_id="r-1", at=0.0, process="me", name="a first try", plan="{}"))
    ...     journal.close()
    ...     JournalReader(f"{folder}/journal.sqlite").runs()["name"]
    ['a first try']
    """

    def __init__(self, url: str | os.PathLike[str], *, keep: int = KEEP_ROWS) -> None:
        self.address = read_address(url)
        if isinstance(self.address, ServerAddress):
            from .postgres import import_psycopg

            import_psycopg()
        self.keep = keep
        self._watched: list[tuple[weakref.ref[Any], Rows]] = []
        self._begin()
        _journals.add(self)
        _survive_forks()

    def _begin(self) -> None:
        self.lost = 0
        self._items: deque[Row | Rows] = deque()
        self._rows: deque[Row] = deque()  # built from items, not yet in a batch; like all of the following only touched under _writing
        self._batch: list[Row] = []
        self._unsure: int | None = None  # the transaction that may or may not have written the batch before the connection was lost
        self._database: Database | None = None
        self._writing = threading.Lock()
        self._starting = threading.RLock()
        self._writer: threading.Thread | None = None
        self._asleep = True
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._failures = 0
        self._unlooked = False  # whether something was written since the last look at what is watched
        self._next_look_s = 0.0

    def append(self, item: Row | Rows) -> None:
        """Put a record, or something that will know its records, into the buffer. Never blocks, never raises."""
        self._items.append(item)
        if self._asleep:
            self._rouse()

    def watch(self, thing: object, rows: Rows) -> None:
        """Ask for the rows of a thing as long as it lives: at every flush, and in the writer's thread now and then, if something else was written.

        A thing is watched once, by what was given first.
        """
        if all(known() is not thing for known, _ in self._watched):
            self._watched.append((weakref.ref(thing), rows))

    def reader(self) -> JournalReader:
        """Return what reads this journal."""
        return JournalReader.at(self.address)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Write what was appended before; return whether all of it is in the journal.

        ``timeout_s`` is how long to wait for the writer's thread. A database locked by another program is waited for 5 s.
        """
        if not self._writing.acquire(timeout=timeout_s):
            return False
        try:
            return self._write(len(self._items), look=True)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Flush, stop the thread and let go of the database; a later append opens it again."""
        with self._starting:
            self._closing.set()
            self._wake.set()
            if self._writer is not None:
                self._writer.join()
            self._writer = None
            self._asleep = True
            self._closing.clear()
            atexit.unregister(self.flush)
        self.flush()
        with self._writing:
            self._let_go()

    def _rouse(self) -> None:
        with self._starting:
            self._asleep = False
            self._wake.set()
            if self._writer is None:
                self._start_writer()

    def _start_writer(self) -> None:
        writer = threading.Thread(target=self._keep_writing, name="toolkit-journal", daemon=True)
        atexit.register(self.flush)
        try:
            writer.start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down: the next append tries again, or the flush at exit
            self._asleep = True
            return
        self._writer = writer
        if (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
            # Worker processes leave without running atexit callbacks, but they do run these.
            multiprocessing.Finalize(None, self.flush, exitpriority=0)

    def _keep_writing(self) -> None:
        while not self._closing.is_set():
            self._sleep_until_appended()
            self._closing.wait(self._pause_s())
            with self._writing:
                self._write(len(self._items))

    def _pause_s(self) -> float:
        """How long a batch gathers: the first one does while the database is opened, which takes long enough."""
        if self._failures:
            return min(RETRY_S, EVERY_S * 2.0**self._failures)
        return EVERY_S if self._database is not None else 0.0

    def _sleep_until_appended(self) -> None:
        self._wake.clear()
        # The flag first and the buffer second; append() does it the other way round, so one of the two sees the other.
        self._asleep = True
        if not self._items and not self._rows and not self._batch and not self._closing.is_set():
            self._wake.wait(self._until_look_s())
        self._asleep = False

    def _until_look_s(self) -> float | None:
        return max(0.0, self._next_look_s - time.monotonic()) if self._watched and self._unlooked else None

    def _look(self) -> None:
        self._unlooked = False
        self._next_look_s = time.monotonic() + LOOK_EVERY_S
        for watched in list(self._watched):
            thing, rows = watched
            if thing() is None:
                self._watched.remove(watched)
                continue
            try:
                self._rows.extend(_rows_of(rows))
            except Exception:  # noqa: BLE001 - a cache's store may be anyone's
                _log.warning("the state of something watched could not be read and is missing from the journal", exc_info=True)

    def _write(self, items: int, *, look: bool = False) -> bool:
        """Write what waits, of the items as many as are named, and what is watched if it is time; return whether that went well."""
        self._unlooked = self._unlooked or items > 0
        if self._watched and self._unlooked and (look or time.monotonic() >= self._next_look_s):
            self._look()
        while items or self._rows or self._batch:
            taken = min(items, BATCH_ROWS)
            items -= taken
            self._build_rows(taken)
            if not self._write_batches():
                self._drop_excess()
                return False
        return True

    def _build_rows(self, items: int) -> None:
        for _ in range(items):
            try:
                self._rows.extend(_rows_of(self._items[0]))
            except Exception:  # noqa: BLE001 - it is the caller's object: whatever it raises must not stop the journal
                self.lost += 1
                _log.warning("a record could not be built and is missing from the journal", exc_info=True)
            self._items.popleft()

    def _write_batches(self) -> bool:
        while self._rows or self._batch:
            self._batch = self._batch or [self._rows.popleft() for _ in range(min(BATCH_ROWS, len(self._rows)))]
            try:
                self._write_batch(self._connected())
            except (sqlite3.Error, OSError, JournalError) as error:
                self._let_go()
                self._say_trouble(error)
                if self._unsure is None:  # otherwise it has to stay what it was
                    self._rows.extendleft(reversed(self._batch))
                    self._batch = []
                return False
            self._batch = []
        self._failures = 0
        return True

    def _write_batch(self, database: Database) -> None:
        if self._unsure is None or not database.has_committed(self._unsure):
            try:
                database.write(self._batch)
            except JournalError:
                self._unsure = database.transaction_number
                raise
        self._unsure = None

    def _connected(self) -> Database:
        if self._database is not None and self._database.replaced():
            self._let_go()
        if self._database is None:
            self._database = open_for_writing(self.address)
        return self._database

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _say_trouble(self, error: Exception) -> None:
        if not self._failures:
            _log.warning(
                "can't write the journal %s: %s; up to %d rows wait in memory until that works again", self.address, error, self.keep
            )
        self._failures = min(self._failures + 1, 10)

    def _drop_excess(self) -> None:
        while self._rows and len(self._batch) + len(self._rows) + len(self._items) > self.keep:
            self._rows.popleft()
            self.lost += 1
        while len(self._items) > self.keep:
            self._items.popleft()
            self.lost += 1

    def _forked(self) -> None:
        """Start afresh in a child process: what waits here is the parent's, who will write it."""
        if self._database is not None:
            _inherited.append(self._database)
        self._begin()


def _rows_of(item: Row | Rows) -> list[Row]:
    rows = [item] if isinstance(item, tuple) else list(item.rows())
    if strangers := {type(row).__name__ for row in rows} - _RECORDS:
        raise TypeError(f"a journal keeps {', '.join(sorted(_RECORDS))}, not {', '.join(sorted(strangers))}")
    return rows


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_held: list[threading.Lock] = []
_inherited: list[Database] = []  # a child must never close its parent's connection: it would tidy up under the parent's feet


@functools.cache
def _survive_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_writers, after_in_parent=_release_writers, after_in_child=_begin_afresh)


def _hold_writers() -> None:
    """Let no thread be inside the database's library during a fork: the child would inherit its locks and nobody to open them."""
    _held.extend(journal._writing for journal in list(_journals) if journal._writing.acquire(timeout=1))


def _release_writers() -> None:
    while _held:
        _held.pop().release()


def _begin_afresh() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    _held.clear()
    for journal in list(_journals):
        journal._forked()


_shared: dict[Address, Journal] = {}
_shared_lock = threading.Lock()


def open_journal(url: str | os.PathLike[str] | None = None) -> Journal:
    """Return the process's journal for an address, the same one each time; by default that of the settings.

    Raises
    ------
    JournalError
        If ``url`` is not understood.
    """
    where = url or settings.journal_url()
    address = read_address(where)
    with _shared_lock:
        if address not in _shared:
            _shared[address] = Journal(where)
        return _shared[address]


def opened_journal(url: str | os.PathLike[str] | None = None) -> Journal | None:
    """Return the process's journal for an address if it has been opened before, by default that of the settings; never opens one."""
    if not _shared:  # finding out the default's place would make its folder
        return None
    address = read_address(url or settings.journal_url())
    with _shared_lock:
        return _shared.get(address)


def flush_shared(url: str | os.PathLike[str] | None = None) -> None:
    """Write what this process has appended to a journal, if it has one open, so that a reader sees it."""
    journal = opened_journal(url)
    if journal is not None:
        journal.flush()
