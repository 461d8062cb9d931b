"""The journal: one SQLite file of what happened, written by a thread in batches, readable by other processes meanwhile.

Columns are the fields of the records in ``events``; a file made before a field existed gets the column when it is next written.
SQLite's write-ahead log needs a local disk: a journal on a network share may be damaged.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import os
import sqlite3
import sys
import threading
import time
import typing
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from .. import settings
from ..errors import ConfigError, JournalError
from .events import CallRecord, ErrorRecord, Row, RunRecord, VoteRecord

__all__ = ["SCHEMA_VERSION", "Journal", "JournalReader", "Rows", "flush_shared", "open_journal", "opened_journal", "path_of"]

SCHEMA_VERSION = 1
"""Raised when a program that knows only the last version would misread the file; a new column does not need that."""

BATCH_ROWS = 500
STATEMENT_ROWS = (64, 8, 1)
"""Rows written by one statement. ``executemany`` lets go of the interpreter's lock once a row, and beside a busy thread waits 5 ms
each time to get it back: 2 s for 1,000 rows, against 0.15 s in blocks of 64."""

EVERY_S = 0.1
RETRY_S = 1.0
BUSY_S = 5.0
KEEP_ROWS = 100_000

_log = logging.getLogger("toolkit.journal")


class Rows(Protocol):
    """Something that knows its rows; the journal asks on its own thread, so that the caller's does not pay for them."""

    def rows(self) -> Iterable[Row]: ...


class Table:
    """One kind of record as a table: columns and types are those of its NamedTuple."""

    def __init__(self, name: str, record: type[Row], unique: str, indexed: Sequence[str]) -> None:
        self.name = name
        self.unique = unique
        self.indexed = indexed
        self.columns: tuple[str, ...] = record._fields
        hints = typing.get_type_hints(record)
        self.types = {column: _sql_type(hints[column]) for column in self.columns}
        self.statements = {size: self._statement(size) for size in STATEMENT_ROWS}

    def make(self, db: sqlite3.Connection) -> None:
        """Make the table, or add the columns that the file's table lacks."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.types.items())
        db.execute(f"CREATE TABLE IF NOT EXISTS {self.name} (row INTEGER PRIMARY KEY AUTOINCREMENT, {columns}, UNIQUE ({self.unique}))")
        present = self.present(db)
        for column in self.columns:
            if column not in present:
                db.execute(f"ALTER TABLE {self.name} ADD COLUMN {column} {self.types[column]}")
        for column in self.indexed:
            db.execute(f"CREATE INDEX IF NOT EXISTS {self.name}_{column} ON {self.name} ({column})")

    def present(self, db: sqlite3.Connection) -> set[str]:
        """Return the columns that the file's table has; none where there is no table yet."""
        return {column for _, column, *_ in db.execute(f"PRAGMA table_info({self.name})")}

    def insert(self, db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        start = 0
        for size, statement in self.statements.items():
            while len(rows) - start >= size:
                db.execute(statement, list(itertools.chain.from_iterable(rows[start : start + size])))
                start += size

    def _statement(self, rows: int) -> str:
        one = f"({', '.join('?' * len(self.columns))})"
        return f"INSERT OR IGNORE INTO {self.name} ({', '.join(self.columns)}) VALUES {', '.join([one] * rows)}"  # noqa: S608


def _sql_type(hint: Any) -> str:  # a type or a union of one with None
    kinds = set(typing.get_args(hint) or (hint,))
    return "REAL" if float in kinds else "INTEGER" if int in kinds else "TEXT"


TABLES: dict[type, Table] = {
    CallRecord: Table("call", CallRecord, "call_id", ("at", "run_id", "error_fingerprint")),
    ErrorRecord: Table("error", ErrorRecord, "error_id", ("at", "run_id", "fingerprint")),
    RunRecord: Table("run", RunRecord, "run_id", ("at",)),
    VoteRecord: Table("vote", VoteRecord, "vote_id", ("at", "run_id")),
}
_RECORDS = {record.__name__ for record in TABLES}
_BY_NAME = {table.name: table for table in TABLES.values()}


def path_of(url: str | os.PathLike[str]) -> Path:
    """Return the file that a journal's address means.

    Raises
    ------
    JournalError
        If it is the address of a server.
    """
    text = os.fspath(url)
    scheme, separator, _ = text.partition("://")
    if separator:  # whatever follows may hold a password
        raise JournalError(f"a journal lives in a SQLite file; got {scheme}://…, give the path of a file")
    return Path(text).expanduser().absolute()


class Journal:
    """A journal to write to. ``append`` only puts into a buffer; a thread writes, at least every tenth of a second.

    What can't be written now (full disk, locked or damaged file) waits in memory, up to ``keep`` rows, and is written when that
    works again; ``lost`` counts what had to be dropped. One warning in the log ``toolkit.journal`` tells of each such time.

    Parameters
    ----------
    url : str or path
        The SQLite file. It is made on the first write, readable by its owner alone.
    keep : int
        Rows that may wait in memory.

    Raises
    ------
    JournalError
        If ``url`` is the address of a server.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(f"{folder}/journal.sqlite")
    ...     journal.append(RunRecord(run_id="r-1", at=0.0, process="me", name="a first try", plan="{}"))
    ...     journal.close()
    ...     JournalReader(f"{folder}/journal.sqlite").runs()["name"]
    ['a first try']
    """

    def __init__(self, url: str | os.PathLike[str], *, keep: int = KEEP_ROWS) -> None:
        self.path = path_of(url)
        self.keep = keep
        self._begin()
        _journals.add(self)
        _survive_forks()

    def _begin(self) -> None:
        self.lost = 0
        self._items: deque[Row | Rows] = deque()
        self._rows: deque[Row] = deque()  # built from items, not yet on disk; only touched under _writing
        self._file: _File | None = None
        self._writing = threading.Lock()
        self._starting = threading.RLock()
        self._writer: threading.Thread | None = None
        self._asleep = True
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._in_trouble = False

    def append(self, item: Row | Rows) -> None:
        """Put a record, or something that will know its records, into the buffer. Never blocks, never raises."""
        self._items.append(item)
        if self._asleep:
            self._rouse()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Write what was appended before; return whether all of it is on disk.

        ``timeout_s`` is how long to wait for the writer's thread. A file locked by another program is waited for 5 s.
        """
        if not self._writing.acquire(timeout=timeout_s):
            return False
        try:
            return self._write(len(self._items))
        finally:
            self._writing.release()

    def close(self) -> None:
        """Flush, stop the thread and let go of the file; a later append opens it again."""
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
            self._closing.wait(RETRY_S if self._in_trouble else EVERY_S)  # a batch gathers
            with self._writing:
                self._write(len(self._items))

    def _sleep_until_appended(self) -> None:
        self._wake.clear()
        # The flag first and the buffer second; append() does it the other way round, so one of the two sees the other.
        self._asleep = True
        if not self._items and not self._rows and not self._closing.is_set():
            self._wake.wait()
        self._asleep = False

    def _write(self, items: int) -> bool:
        """Write what waits, of the items as many as are named; return whether that went well."""
        while items or self._rows:
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
        while self._rows:
            batch = list(itertools.islice(self._rows, BATCH_ROWS))
            try:
                self._connected().write(batch)
            except (sqlite3.Error, OSError, JournalError) as error:
                self._let_go()
                self._say_trouble(error)
                return False
            for _ in batch:
                self._rows.popleft()
        self._in_trouble = False
        return True

    def _connected(self) -> _File:
        if self._file is not None and self._file.replaced():
            self._let_go()
        if self._file is None:
            self._file = _File(self.path)
        return self._file

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _say_trouble(self, error: Exception) -> None:
        if not self._in_trouble:
            _log.warning("can't write the journal %s: %s; up to %d rows wait in memory until that works again", self.path, error, self.keep)
        self._in_trouble = True

    def _drop_excess(self) -> None:
        while self._rows and len(self._rows) + len(self._items) > self.keep:
            self._rows.popleft()
            self.lost += 1
        while len(self._items) > self.keep:
            self._items.popleft()
            self.lost += 1

    def _forked(self) -> None:
        """Start afresh in a child process: what waits here is the parent's, who will write it."""
        if self._file is not None:
            _inherited.append(self._file)
        self._begin()


def _rows_of(item: Row | Rows) -> list[Row]:
    rows = [item] if isinstance(item, CallRecord | ErrorRecord | RunRecord | VoteRecord) else list(item.rows())
    if strangers := {type(row).__name__ for row in rows} - _RECORDS:
        raise TypeError(f"a journal keeps {', '.join(sorted(_RECORDS))}, not {', '.join(sorted(strangers))}")
    return rows


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_held: list[threading.Lock] = []
_inherited: list[_File] = []  # a child must never close its parent's connection: SQLite would tidy up under the parent's feet


@functools.cache
def _survive_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_writers, after_in_parent=_release_writers, after_in_child=_begin_afresh)


def _hold_writers() -> None:
    """Let no thread be inside SQLite during a fork: the child would inherit its locks and nobody to open them."""
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


class _File:
    """An open journal file, ready to write: tables made, columns complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = _patiently(lambda: _open_for_writing(path))
        self.inode = path.stat().st_ino

    def replaced(self) -> bool:
        """Whether somebody removed or moved the file: SQLite would go on writing to what nobody can find."""
        try:
            return self.path.stat().st_ino != self.inode
        except OSError:
            return True

    def write(self, rows: Sequence[Row]) -> None:
        try:
            self._transact(rows)
        except _UNSTORABLE:
            self._transact([tuple(_storable(value) for value in row) for row in rows], kinds=[type(row) for row in rows])

    def _transact(self, rows: Sequence[tuple[Any, ...]], kinds: Sequence[type] | None = None) -> None:
        by_kind: dict[type, list[tuple[Any, ...]]] = {}
        for row, kind in zip(rows, kinds or map(type, rows)):
            by_kind.setdefault(kind, []).append(row)
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for kind, same in by_kind.items():
                TABLES[kind].insert(self.db, same)
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.db.close()


_UNSTORABLE = (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError)
"""A number beyond 64 bits, half of a surrogate pair (models do write those), a Decimal."""


def _storable(value: Any) -> Any:  # any value of a record
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()  # a column of numbers makes a number of it again


def _open_for_writing(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable by everyone
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _check_version(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        for table in TABLES.values():
            table.make(db)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"the journal {path} has schema {version}, this program knows {SCHEMA_VERSION}: upgrade model-comparison-toolkit, "
            "or name another file in TOOLKIT_JOURNAL"
        )


def _patiently(connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    """Open the file, waiting for others who open it too: the switch to the write-ahead log does not wait by itself."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return connect()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


_shared: dict[Path, Journal] = {}
_shared_lock = threading.Lock()


def open_journal(url: str | os.PathLike[str] | None = None) -> Journal:
    """Return the process's journal for a file, the same one each time; by default that of the settings.

    Raises
    ------
    JournalError
        If ``url`` is the address of a server.
    """
    path = path_of(url or settings.journal_url())
    with _shared_lock:
        if path not in _shared:
            _shared[path] = Journal(path)
        return _shared[path]


def opened_journal(url: str | os.PathLike[str] | None = None) -> Journal | None:
    """Return the process's journal for a file if it has been opened before, by default that of the settings; never opens one."""
    if not _shared:  # finding out the default's place would make its folder
        return None
    path = path_of(url or settings.journal_url())
    with _shared_lock:
        return _shared.get(path)


def flush_shared(url: str | os.PathLike[str] | None = None) -> None:
    """Write what this process has appended to a journal, if it has one open, so that a reader sees it."""
    journal = opened_journal(url)
    if journal is not None:
        journal.flush()


class JournalReader:
    """A journal to look at, while any process writes it. It never makes or changes the file; where there is none it is empty.

    Parameters
    ----------
    url : str or path, optional
        The SQLite file; by default that of the settings.

    Raises
    ------
    JournalError
        If ``url`` is the address of a server; from every method, if the file can't be read or is newer than this program.

    Examples
    --------
    >>> JournalReader("no-such-journal.sqlite").last_row()
    0
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        self.path = path_of(url or settings.journal_url())

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def last_row(self, table: str = "call") -> int:
        """Return the number of the newest row of ``call``, ``error``, ``run`` or ``vote``; 0 where there is none."""
        if table not in _BY_NAME:
            raise ConfigError(f"no table {table!r} in a journal; there are {', '.join(_BY_NAME)}")
        with self._opened() as db:
            if db is None or not _BY_NAME[table].present(db):
                return 0
            return int(db.execute(f"SELECT coalesce(max(row), 0) FROM {table}").fetchone()[0])  # noqa: S608 - a known name

    def calls(
        self,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> dict[str, list[Any]]:
        """Return calls as column lists, oldest first, with their row numbers in ``row``.

        Parameters
        ----------
        after_row : int
            Only rows with a higher number: what is new since the last look.
        since, until : float, optional
            Seconds since 1970: ``since <= at < until``.
        run : str, optional
            Id or name of a run.
        limit : int, optional
            At most so many rows.
        columns : sequence of str, optional
            Which columns, all by default.

        Raises
        ------
        ConfigError
            If a column is unknown.
        """
        return self._select(TABLES[CallRecord], after_row, since, until, run, limit, columns)

    def errors(
        self,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> dict[str, list[Any]]:
        """Return errors as column lists; parameters as in ``calls``."""
        return self._select(TABLES[ErrorRecord], after_row, since, until, run, limit, columns)

    def runs(self) -> dict[str, list[Any]]:
        """Return the comparisons as column lists."""
        return self._select(TABLES[RunRecord])

    def votes(self, run: str | None = None) -> dict[str, list[Any]]:
        """Return votes as column lists; ``run`` is the id or the name of a comparison."""
        return self._select(TABLES[VoteRecord], run=run)

    def call(self, call_id: str) -> dict[str, Any] | None:
        """Return one call as a dict, ``None`` where the journal does not have it."""
        found = self._select(TABLES[CallRecord], call_id=call_id)
        return {name: values[0] for name, values in found.items()} if found["row"] else None

    def _select(
        self,
        table: Table,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        call_id: str | None = None,
    ) -> dict[str, list[Any]]:
        wanted = _known_columns(table, columns)
        conditions = {
            "row > ?": (after_row or None,),
            "at >= ?": (since,),
            "at < ?": (until,),
            "call_id = ?": (call_id,),
            "run_id IN (SELECT ? UNION SELECT run_id FROM run WHERE name = ?)": (run, run),
        }
        asked = {sql: values for sql, values in conditions.items() if values[0] is not None}
        with self._opened() as db:
            present = table.present(db) if db is not None else set()
            if db is None or not present:
                return {name: [] for name in wanted}
            # A file written by an older program lacks columns, and a reader may not add them.
            selected = ", ".join(name if name in present else f"NULL AS {name}" for name in wanted)
            where = f"WHERE {' AND '.join(asked)}" if asked else ""
            sql = f"SELECT {selected} FROM {table.name} {where} ORDER BY row LIMIT ?"  # noqa: S608 - known names; values are bound
            rows = db.execute(sql, [*itertools.chain.from_iterable(asked.values()), -1 if limit is None else limit]).fetchall()
        return dict(zip(wanted, map(list, zip(*rows)))) if rows else {name: [] for name in wanted}

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        if not self.exists:
            yield None
            return
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=BUSY_S)) as db:
                _check_version(db, self.path)
                yield db
        except sqlite3.Error as error:
            raise JournalError(
                f"can't read the journal {self.path} ({error}); if it is damaged, move it away or name another in TOOLKIT_JOURNAL"
            ) from error


def _known_columns(table: Table, columns: Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return ("row", *table.columns)
    if unknown := [name for name in columns if name not in table.columns and name != "row"]:
        raise ConfigError(f"the journal's table {table.name!r} has no column {unknown[0]!r}; it has {', '.join(table.columns)}")
    return ("row", *(name for name in columns if name != "row"))
