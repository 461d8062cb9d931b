"""One SQLite file of entries: what the disk tier and the joblib store both keep their things in.

An entry has a path (``answers/<key>``, or joblib's ``<function>/<hash>``), a value with its checksum, the time of its last use, a
size, and an end if it has one. Many threads and processes may use a file at once (SQLite's write-ahead log). Running totals are
kept by triggers and the order of last use by an index, so neither a full store nor pruning one walks over all of it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import CacheError
from .base import MISS, Miss, StoreInfo

__all__ = ["FILE_NAME", "Entries", "Entry", "Listed"]

FILE_NAME = "entries-v1.sqlite"
"""The version of the tables is in the name: two versions of the toolkit side by side keep to their own file."""

USE_STEP_S = 60.0
"""A use is noted when the one noted before is older than this, so that a hit is a read and not a write."""

USES_AT_ONCE = 64
ROWS_AT_ONCE = 500
"""Writers take turns; nobody holds the file for longer than it takes to delete so many rows."""

PAGES_KB = 8_000
"""What a thread may keep of the file in memory: the inner pages of a million entries. With SQLite's 2 MB a hit takes up to twice as long there."""

BUSY_S = 10.0
_CORRUPT, _NOT_A_DATABASE = 11, 26  # https://www.sqlite.org/rescode.html

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, checksum INTEGER, size INTEGER NOT NULL,
    written_at REAL NOT NULL, used_at REAL NOT NULL, expires_at REAL, metadata BLOB, value BLOB);
CREATE INDEX IF NOT EXISTS entry_use ON entry (used_at, size);
CREATE INDEX IF NOT EXISTS entry_end ON entry (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS code (path TEXT PRIMARY KEY, source BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS damaged (path TEXT NOT NULL, found_at REAL NOT NULL, checksum INTEGER, value BLOB);
CREATE TABLE IF NOT EXISTS total (only INTEGER PRIMARY KEY CHECK (only = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO total VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS entry_in AFTER INSERT ON entry
    BEGIN UPDATE total SET entries = entries + 1, bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS entry_out AFTER DELETE ON entry
    BEGIN UPDATE total SET entries = entries - 1, bytes = bytes - old.size; END;
CREATE TRIGGER IF NOT EXISTS entry_resized AFTER UPDATE OF size ON entry
    BEGIN UPDATE total SET bytes = bytes + new.size - old.size; END;
PRAGMA user_version = 1;
COMMIT;
"""
_READ = "SELECT value, checksum, kind, used_at, expires_at, id FROM entry WHERE path = ?"
_WRITE = """
INSERT INTO entry (path, kind, checksum, size, written_at, used_at, expires_at, value) VALUES {values}
ON CONFLICT (path) DO UPDATE SET kind = excluded.kind, checksum = excluded.checksum, size = excluded.size + ifnull(length(metadata), 0),
    written_at = excluded.written_at, used_at = excluded.used_at, expires_at = excluded.expires_at, value = excluded.value
"""
_ONE_ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
_STATEMENT_ROWS = (32, 8, 1)
"""Rows written by one statement: with ``executemany`` a thread gives the interpreter's lock away once a row, and has to wait for it again."""
_WRITES = {rows: _WRITE.format(values=", ".join([_ONE_ROW] * rows)) for rows in _STATEMENT_ROWS}
_DESCRIBE = """
INSERT INTO entry (path, kind, size, written_at, used_at, metadata) VALUES (?, '', ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET size = size - ifnull(length(metadata), 0) + length(excluded.metadata), metadata = excluded.metadata
"""
_HAS = "SELECT 1 FROM entry WHERE path = ? AND value IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)"
# Below a path is what sorts between "path/" and "path0": "0" is the character after "/".
_HAS_UNDER = """
SELECT 1 FROM entry WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0'
UNION ALL SELECT 1 FROM code WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0' LIMIT 1
"""
_DELETE_CODE_UNDER = "DELETE FROM code WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0'"
_DELETE_UNDER = """
DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0' LIMIT ?2)
"""
_DELETE_SOME = "DELETE FROM entry WHERE id IN (SELECT id FROM entry LIMIT ?)"
_DELETE_EXPIRED = "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE expires_at <= ? LIMIT ?)"
_DELETE_UNUSED = "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE used_at < ? ORDER BY used_at LIMIT ?)"
_LONGEST_UNUSED = "SELECT id, size FROM entry ORDER BY used_at LIMIT ?"

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A value and what it is: ``"json"`` text or a ``"pickle"``."""

    value: bytes
    kind: str


class Listed(NamedTuple):
    """An entry without its value; ``used_at`` in seconds since 1970."""

    path: str
    size_bytes: int
    used_at: float


class _Handle:
    """One thread's connection, and which file it is connected to."""

    __slots__ = ("__weakref__", "closed", "connection", "file_id", "pid")

    def __init__(self, connection: sqlite3.Connection, file_id: tuple[int, int]) -> None:
        self.connection = connection
        self.file_id = file_id
        self.pid = os.getpid()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        if self.pid == os.getpid():
            self.connection.close()
        else:
            _inherited.append(self.connection)

    def __del__(self) -> None:
        if not self.closed:
            self.close()


_inherited: list[sqlite3.Connection] = []
"""Connections that a fork brought along. SQLite says neither to use nor to close those, so they stay here."""

_opening = threading.Lock()
"""Closing any descriptor of a file gives up this process's locks on it; so a file is made while no other thread opens one."""


class Entries:
    """The entries in a folder.

    Parameters
    ----------
    folder : Path
        Made, with mode 0700, when something is first read or written.
    clock : callable
        Gives seconds since 1970.

    Raises
    ------
    CacheError
        From every method, if the file can't be opened, read or written. A damaged file raises nothing: it is moved aside, with
        one warning, and a new one begun.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.file = folder / FILE_NAME
        self._file_name = str(self.file)
        self._clock = clock
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()
        self._uses: dict[int, float] = {}
        self.evictions = self.expirations = 0
        """What this process removed because there was too much, and because its time was over."""
        self._writing = threading.Lock()
        """Threads queue here: SQLite would let them try again and again, asleep in between for longer than a write takes."""
        _every_entries.add(self)

    def __reduce__(self) -> tuple[Callable[..., Entries], tuple[Path, Callable[[], float]]]:
        return _rebuild, (self.folder, self._clock)

    def read(self, path: str) -> Entry | Miss:
        """Return the entry at a path. One that is damaged or whose time is over is a miss."""
        try:  # written out: a hit costs little more than SQLite does
            row = self._local.execute(_READ, (path,)).fetchone()
        except (AttributeError, sqlite3.Error):  # nothing open in this thread, closed, busy or damaged: the long way
            row = self._run(lambda connection: connection.execute(_READ, (path,)).fetchone())
        if row is None:
            self._drop_stale_handle()
            return MISS
        value, checksum, kind, used_at, expires_at, entry_id = row
        if value is None:
            return MISS
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            self._drop_expired(entry_id, now)
            return MISS
        if type(value) is not bytes or _checksum(path, value) != checksum:
            self._set_entry_aside(path, entry_id)
            return MISS
        if now - used_at > USE_STEP_S:
            self._note_use(entry_id, now)
        return Entry(value, kind)

    def write(self, path: str, value: bytes, *, kind: str, ttl_s: float | None = None) -> None:
        """Put a value at a path, whole or not at all."""
        self.write_all([(path, value, ttl_s)], kind=kind)

    def write_all(self, values: Sequence[tuple[str, bytes, float | None]], *, kind: str) -> None:
        """Put values, each with its seconds to live, at their paths: all of them or none. Several cost little more than one."""
        self._drop_stale_handle()
        now = self._clock()
        rows = [
            (path, kind, _checksum(path, value), len(path) + len(value), now, now, None if ttl_s is None else now + ttl_s, value)
            for path, value, ttl_s in values
        ]
        with self._writing:
            self._run(lambda connection: _write_rows(connection, rows))

    def describe(self, path: str, metadata: bytes) -> None:
        """Put a description beside the value at a path."""
        now = self._clock()
        self._run(lambda connection: connection.execute(_DESCRIBE, (path, len(path) + len(metadata), now, now, metadata)))

    def description(self, path: str) -> bytes | None:
        """Return the description at a path."""
        return self._run(lambda connection: _one_value(connection, "SELECT metadata FROM entry WHERE path = ?", path))

    def write_code(self, path: str, source: bytes) -> None:
        """Keep the source of a function whose results are kept under a path."""
        self._run(lambda connection: connection.execute("INSERT OR REPLACE INTO code VALUES (?, ?)", (path, source)))

    def code(self, path: str) -> bytes | None:
        """Return the source of the function whose results are kept under a path."""
        return self._run(lambda connection: _one_value(connection, "SELECT source FROM code WHERE path = ?", path))

    def has(self, path: str) -> bool:
        """Whether a value is kept at a path, not looking at whether it is whole."""
        return self._run(lambda connection: connection.execute(_HAS, (path, self._clock())).fetchone()) is not None

    def has_under(self, path: str) -> bool:
        """Whether anything is kept at a path or below it."""
        return self._run(lambda connection: connection.execute(_HAS_UNDER, (path,)).fetchone()) is not None

    def delete(self, path: str) -> bool:
        """Remove the entry at a path; say whether there was one."""
        return self._run(lambda connection: connection.execute("DELETE FROM entry WHERE path = ?", (path,)).rowcount) > 0

    def delete_under(self, path: str) -> None:
        """Remove what is at a path and below it."""
        self._delete_batches(_DELETE_UNDER, path)
        self._run(lambda connection: connection.execute(_DELETE_CODE_UNDER, (path,)))
        self._give_back_space()

    def clear(self) -> None:
        """Remove everything, damaged entries that were set aside too."""
        self._delete_batches(_DELETE_SOME)
        self._run(lambda connection: connection.executescript("DELETE FROM code; DELETE FROM damaged;"))
        self._give_back_space()

    def listed(self) -> list[Listed]:
        """Return every entry that has a value, the one unused for longest first."""
        query = "SELECT path, size, used_at FROM entry WHERE value IS NOT NULL ORDER BY used_at"
        return self._run(lambda connection: [Listed(*row) for row in connection.execute(query)])

    def info(self) -> StoreInfo:
        """Return how many entries there are and how many bytes they have; from the running totals."""
        entries, size = self._run(_totals)
        return StoreInfo(entries=entries, size_bytes=size)

    def damaged(self) -> list[str]:
        """Return the paths of the entries that were found damaged and set aside."""
        return self._run(lambda connection: [path for (path,) in connection.execute("SELECT path FROM damaged ORDER BY found_at")])

    def prune(
        self,
        *,
        max_bytes: float | None = None,
        max_entries: float | None = None,
        older_than_s: float | None = None,
        give_back: bool = True,
    ) -> int:
        """Remove what has expired, what was not used for ``older_than_s``, and then the longest unused until the limits hold.

        Returns how many entries that were. With ``give_back`` the file gets smaller too; without, later entries use the space.
        """
        self.note_uses()
        now = self._clock()
        gone = self._delete_batches(_DELETE_EXPIRED, now)
        self.expirations += gone
        if older_than_s is not None:
            gone += self._delete_batches(_DELETE_UNUSED, now - older_than_s)
        if max_bytes is not None or max_entries is not None:
            evicted = self._shrink(math.inf if max_bytes is None else max_bytes, math.inf if max_entries is None else max_entries)
            self.evictions += evicted
            gone += evicted
        if gone and give_back:
            self._give_back_space()
        return gone

    def note_uses(self) -> None:
        """Write down the uses that were not yet; nothing is lost but a little of their order if that fails."""
        uses, self._uses = self._uses, {}
        if uses:
            rows = [(used_at, entry_id) for entry_id, used_at in uses.items()]
            self._try(lambda connection: _in_one(connection, "UPDATE entry SET used_at = ? WHERE id = ?", rows))

    def close(self) -> None:
        """Close the connections of all threads. A later use opens a new one."""
        for handle in list(self._handles):
            handle.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return work(self._connection())
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_file_aside(error)
            return work(self._connection())
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"the cache file {self.file} can't be used: {error}") from error

    def _try(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do what may as well be left undone: in a read-only store, or while another process is long at work."""
        with contextlib.suppress(CacheError):
            self._run(work)

    def _connection(self) -> sqlite3.Connection:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or handle.closed or handle.pid != os.getpid():
            handle = self._local.handle = self._open()
        return handle.connection

    def _open(self) -> _Handle:
        with _opening:
            self._make_file()
            connection = sqlite3.connect(self.file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        handle = _Handle(connection, self._file_id())
        self._local.file_id = handle.file_id
        self._local.execute = connection.execute
        self._handles.add(handle)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{PAGES_KB}")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            with self._alone():
                # Order matters: incremental vacuum can't be chosen once there are tables.
                connection.executescript(f"PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; {_SCHEMA}")
        return handle

    def _make_file(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _file_id(self) -> tuple[int, int]:
        status = os.stat(self._file_name)  # noqa: PTH116 - asked at each miss, and a Path's own method takes three times as long
        return status.st_dev, status.st_ino

    def _drop_stale_handle(self) -> None:
        """Let go of a file that is no longer the one under its name: removed by its user, or set aside by another process."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or handle.closed:
            return
        try:
            same = self._file_id() == handle.file_id
        except OSError:
            same = False
        if not same:
            handle.close()

    def _set_entry_aside(self, path: str, entry_id: int) -> None:
        _log.warning("the entry %s of the cache file %s is damaged; it is set aside and counts as missing", path, self.file)
        row = (self._clock(), entry_id)

        def move(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute("INSERT INTO damaged SELECT path, ?, checksum, value FROM entry WHERE id = ?", row)
                connection.execute("DELETE FROM entry WHERE id = ?", row[1:])

        self._try(move)

    def _set_file_aside(self, error: BaseException) -> None:
        self.close()
        with self._alone(), contextlib.suppress(FileNotFoundError):
            if self._file_id() != self._local.file_id:  # another process was quicker
                return
            aside = self.file.with_name(f"{FILE_NAME}.damaged-{int(self._clock())}-{os.getpid()}")
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.file}{end}").replace(f"{aside}{end}")
            _log.warning("the cache file %s is damaged (%s); it is now %s, and a new one is begun", self.file, error, aside.name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making the file, or moving it, at the same time."""
        with (self.folder / f"{FILE_NAME}.lock").open("ab") as lock:
            _lock_file(lock.fileno())
            yield

    def _drop_expired(self, entry_id: int, now: float) -> None:
        def drop(connection: sqlite3.Connection) -> None:
            self.expirations += connection.execute("DELETE FROM entry WHERE id = ? AND expires_at <= ?", (entry_id, now)).rowcount

        self._try(drop)

    def _note_use(self, entry_id: int, now: float) -> None:
        self._uses[entry_id] = now
        if len(self._uses) >= USES_AT_ONCE:
            self.note_uses()

    def _delete_batches(self, statement: str, *values: float | str) -> int:
        gone = 0
        while batch := self._run(lambda connection: connection.execute(statement, (*values, ROWS_AT_ONCE)).rowcount):
            gone += batch
        return gone

    def _shrink(self, max_bytes: float, max_entries: float) -> int:
        gone = 0
        while batch := self._run(lambda connection: _drop_oldest(connection, max_bytes, max_entries)):
            gone += batch
        return gone

    def _give_back_space(self) -> None:
        """Make the file smaller by the pages that nothing is on any more."""
        # A script, because execute() stops after the first page.
        self._try(lambda connection: connection.executescript("PRAGMA incremental_vacuum"))


def _rebuild(folder: Path, clock: Callable[[], float]) -> Entries:
    return Entries(folder, clock=clock)


def _checksum(path: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(path.encode()))  # with the path: a value in the wrong place is damage too


def _write_rows(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    if len(rows) == 1:
        connection.execute(_WRITES[1], rows[0])
        return
    with _transaction(connection):
        start = 0
        for size in _STATEMENT_ROWS:
            while len(rows) - start >= size:
                connection.execute(_WRITES[size], list(itertools.chain.from_iterable(rows[start : start + size])))
                start += size


def _one_value(connection: sqlite3.Connection, query: str, path: str) -> bytes | None:
    row = connection.execute(query, (path,)).fetchone()
    return None if row is None else row[0]


def _totals(connection: sqlite3.Connection) -> tuple[int, int]:
    entries, size = connection.execute("SELECT entries, bytes FROM total").fetchone()
    return entries, size


def _drop_oldest(connection: sqlite3.Connection, max_bytes: float, max_entries: float) -> int:
    """Delete one batch of the longest unused entries, no more than it takes; return how many."""
    with _transaction(connection):
        entries, size = _totals(connection)
        surplus: list[tuple[int]] = []
        for entry_id, entry_size in connection.execute(_LONGEST_UNUSED, (ROWS_AT_ONCE,)):
            if size <= max_bytes and entries <= max_entries:
                break
            surplus.append((entry_id,))
            entries, size = entries - 1, size - entry_size
        connection.executemany("DELETE FROM entry WHERE id = ?", surplus)
    return len(surplus)


def _in_one(connection: sqlite3.Connection, statement: str, rows: list[tuple[float, int]]) -> None:
    with _transaction(connection):
        connection.executemany(statement, rows)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has gone back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def _lock_file(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where a file that others have open can't be moved anyway
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


_every_entries: weakref.WeakSet[Entries] = weakref.WeakSet()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # a thread that only the parent has may have held it
    for entries in list(_every_entries):
        entries._local = threading.local()  # the handles in it are let go of, see _inherited
        entries._writing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
