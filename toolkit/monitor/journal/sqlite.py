"""The journal as a SQLite file, with a write-ahead log. That needs a local disk: on a network share it may be damaged."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ...errors import JournalError
from ..events import Row
from .database import Database, migrate
from .schema import refuse_newer
from .tables import Table, by_table

__all__ = ["SqliteDatabase", "look_into_file", "open_file"]

BUSY_S = 5.0
POLL_S = 0.02
"""How long SQLite itself waits for a lock. Its pauses grow to 100 ms, and beside writers that come back every few milliseconds it
may find none of the gaps in between: so writers ask again and again, at short intervals, until ``BUSY_S`` has passed."""

STATEMENT_ROWS = (64, 8, 1)
"""Rows written by one statement. ``executemany`` lets go of the interpreter's lock once a row, and beside a busy thread waits 5 ms
each time to get it back: 2 s for 1,000 rows, against 0.15 s in blocks of 64."""

T = TypeVar("T")
_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}
_UNSTORABLE = (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError)
"""A number beyond 64 bits, half of a surrogate pair (models do write those), a Decimal."""


class SqliteDatabase(Database):
    """An open journal file."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self.db = db
        self.inode = path.stat().st_ino

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.db.execute(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self.db.execute(sql, values).rowcount

    def columns(self, table: str) -> set[str]:
        return {column for _, column, *_ in self.db.execute(f'PRAGMA table_info("{table}")')}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        _patiently(lambda: self.db.execute("BEGIN IMMEDIATE"))
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        names, rows = _filled(columns, rows)
        start = 0
        for size in STATEMENT_ROWS:
            while len(rows) - start >= size:
                values = list(itertools.chain.from_iterable(rows[start : start + size]))
                self.db.execute(_insertion(table.name, names, size), values)
                start += size

    def write(self, rows: Sequence[Row]) -> None:
        try:
            self._transact(by_table(rows))
        except _UNSTORABLE:
            cleaned = {table: [tuple(map(_storable, row)) for row in same] for table, same in by_table(rows).items()}
            self._transact(cleaned)

    def _transact(self, tables: dict[Table, list[tuple[Any, ...]]]) -> None:
        with self.transaction():
            for table, rows in tables.items():
                self.insert(table, table.columns, rows)

    def make_table(self, table: Table) -> None:
        columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in table.kinds.items())
        self.change(
            f'CREATE TABLE IF NOT EXISTS "{table.name}" (row INTEGER PRIMARY KEY AUTOINCREMENT, {columns}, UNIQUE ("{table.unique}"))'
        )
        present = self.columns(table.name)
        for column in table.columns:
            if column not in present:
                self.change(f'ALTER TABLE "{table.name}" ADD COLUMN "{column}" {_TYPES[table.kinds[column]]}')
        for column in table.indexed:
            self.change(f'CREATE INDEX IF NOT EXISTS "{table.name}_{column}" ON "{table.name}" ("{column}")')

    def version(self) -> int:
        return int(self.fetch("PRAGMA user_version")[0][0])

    def set_version(self, version: int) -> None:
        self.change(f"PRAGMA user_version = {version}")

    def replaced(self) -> bool:
        """Whether somebody removed or moved the file: SQLite would go on writing to what nobody can find."""
        try:
            return self.path.stat().st_ino != self.inode
        except OSError:
            return True

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.db.close()


def _filled(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[str, ...], Sequence[tuple[Any, ...]]]:
    """Leave out the columns that no row has a value for: nearly half of a call's, and naming them doubles what an insertion takes."""
    filled = [i for i, values in enumerate(zip(*rows)) if values.count(None) < len(values)]
    if len(filled) < 2:  # itemgetter would give no rows
        return tuple(columns), rows
    return tuple(columns[i] for i in filled), list(map(operator.itemgetter(*filled), rows))


@functools.lru_cache(maxsize=256)
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    one = f"({', '.join('?' * len(columns))})"
    names = ", ".join(f'"{name}"' for name in columns)
    return f'INSERT OR IGNORE INTO "{table}" ({names}) VALUES {", ".join([one] * rows)}'  # noqa: S608 - known names


def _storable(value: Any) -> Any:  # any value of a record
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()  # a column of numbers makes a number of it again


def open_file(path: Path) -> SqliteDatabase:
    """Open a journal to write to: tables made, columns complete."""
    return _patiently(lambda: _open_file(path))


def _open_file(path: Path) -> SqliteDatabase:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable by everyone
    db = SqliteDatabase(path, sqlite3.connect(path, timeout=POLL_S, isolation_level=None, check_same_thread=False))
    try:
        refuse_newer(db.version(), path)
        db.change("PRAGMA auto_vacuum = INCREMENTAL")  # works on an empty file only: what is pruned is given back to the disk
        db.change("PRAGMA journal_mode = WAL")
        db.change("PRAGMA synchronous = NORMAL")
        with db.transaction():
            migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _patiently(attempt: Callable[[], T]) -> T:
    """Do what another program's lock may prevent, until it goes well; the switch to the write-ahead log does not wait by itself."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S / 4)


@contextlib.contextmanager
def look_into_file(path: Path) -> Iterator[SqliteDatabase | None]:
    """Open a journal as it is now, without ever making or changing it."""
    if not path.exists():
        yield None
        return
    try:
        uri = f"file:{quote(str(path))}?mode=ro"
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        ) as connection:
            db = SqliteDatabase(path, connection)
            refuse_newer(db.version(), path)
            db.change("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise JournalError(
            f"can't read the journal {path} ({error}); if it is damaged, `toolkit journal check --repair` saves what can be read, "
            "or move it away, or name another in TOOLKIT_JOURNAL"
        ) from error
