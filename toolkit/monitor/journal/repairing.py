"""Saving what can be read of a damaged SQLite file into a new one."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ...errors import ConfigError, JournalError
from .address import Address, FileAddress
from .archive import FileFacts, facts_of, list_part
from .database import Database, open_for_writing
from .reader import Part
from .tables import ARCHIVED, BY_NAME, Table

__all__ = ["Repaired", "repair"]

STEP = 4_096
"""Rows asked for at a time; where that fails, halves of it, down to the row that can't be read."""
HIGHEST = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """How many rows of each table were saved, how many files of the archive are listed again, and where the damaged file is now."""

    saved: dict[str, int]
    files: int
    damaged: Path


class _Source(NamedTuple):
    db: sqlite3.Connection
    table: Table
    columns: tuple[str, ...]


def repair(address: Address) -> Repaired:
    """Put a new file in a damaged one's place, with every row that can be read; the damaged one stays beside it.

    Rows keep their numbers. Programs that write the journal go on in the new file by themselves.

    Raises
    ------
    ConfigError
        If the journal is not a file: a server's database has its own tools.
    JournalError
        If there is no such file, or the new one can't be written.
    """
    if not isinstance(address, FileAddress):
        raise ConfigError(f"{address} is on a server: restore it with PostgreSQL's own tools (pg_amcheck, a backup)")
    if not address.path.exists():
        raise JournalError(f"there is no journal at {address}")
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    new = address.path.with_name(f"{address.path.name}.repaired-{stamp}")
    try:
        saved, files = _save(address, new)
        return Repaired(saved=saved, files=files, damaged=_swap(address.path, new, stamp))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"can't repair {address}: {error}; the file is as it was") from error


def _save(address: FileAddress, new: Path) -> tuple[dict[str, int], int]:
    saved: dict[str, int] = {}
    with contextlib.closing(open_for_writing(FileAddress(new))) as target, contextlib.closing(_open(address.path)) as source:
        for table in BY_NAME.values():
            saved[table.name] = _copy(source, target, table)
        own = _own_files(address, _copied_state(source, target), target)
        files = sum(_relist(address, target, path, facts) for path, facts in own.items())
        target.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
    return saved, files


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = lambda data: data.decode("utf-8", "replace")  # a damaged text is still worth reading
    with contextlib.suppress(sqlite3.DatabaseError):
        db.execute("PRAGMA cell_size_check = ON")
    return db


def _copy(source: sqlite3.Connection, target: Database, table: Table) -> int:
    try:
        present = {column for _, column, *_ in source.execute(f'PRAGMA table_info("{table.name}")')}
    except sqlite3.DatabaseError:  # not even the list of tables can be read
        return 0
    columns = ("row", *(name for name in table.columns if name in present))
    if "row" not in present:
        return 0
    for rows in _readable(_Source(source, table, columns)):
        with target.transaction():
            target.insert(table, columns, rows)
    return int(target.fetch(f'SELECT count(*) FROM "{table.name}"')[0][0])  # noqa: S608 - a known name


def _readable(source: _Source) -> Iterator[list[tuple[Any, ...]]]:
    """Read on from row to row; where the way is blocked, feel for the next row that can be reached."""
    after, stop = 0, _end(source)
    while after < stop:
        rows, failed = _some(source, after)
        if rows:
            yield rows
            after = rows[-1][0]
        if failed:
            after = _next_readable(source, after, stop) - 1
        elif not rows:
            return


def _end(source: _Source) -> int:
    """Return the highest row number as seen from the other end of the table, or one that is beyond it."""
    for sql in (
        f'SELECT max("row") FROM "{source.table.name}"',  # noqa: S608 - a known name
        f"SELECT seq FROM sqlite_sequence WHERE name = '{source.table.name}'",  # noqa: S608 - a known name
    ):
        with contextlib.suppress(sqlite3.DatabaseError):
            found = source.db.execute(sql).fetchone()
            return int(found[0] or 0) if found else 0
    return HIGHEST


def _some(source: _Source, after: int) -> tuple[list[tuple[Any, ...]], bool]:
    """Return rows that follow a number, and whether an error ended them."""
    with contextlib.suppress(sqlite3.DatabaseError):
        return _following(source, after, STEP), False
    rows: list[tuple[Any, ...]] = []
    try:  # sqlite3 keeps back the last good row before an error, so they are asked for one by one
        while len(rows) < STEP and (next_one := _following(source, rows[-1][0] if rows else after, 1)):
            rows += next_one
    except sqlite3.DatabaseError:
        return rows, True
    return rows, False


def _following(source: _Source, after: int, count: int) -> list[tuple[Any, ...]]:
    selected = ", ".join(f'"{name}"' for name in source.columns)
    sql = f'SELECT {selected} FROM "{source.table.name}" NOT INDEXED WHERE "row" > ? ORDER BY "row" LIMIT ?'  # noqa: S608 - a known name
    return source.db.execute(sql, [after, count]).fetchall()


def _next_readable(source: _Source, after: int, stop: int) -> int:
    """Return a row number behind the damage, from which reading goes on; ``stop`` + 1 where there is none.

    Steps double until a row can be read, and then halve back to the first one.
    """
    step, bad = 1, after + 1
    while bad <= stop and not _can_start(source, bad):
        bad, step = bad + step, step * 2
    low, high = max(after + 1, bad - step // 2), min(bad, stop + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _can_start(source, middle) else (middle + 1, high)
    return low


def _can_start(source: _Source, row: int) -> bool:
    try:
        _following(source, row - 1, 1)
    except sqlite3.DatabaseError:
        return False
    return True


def _copied_state(source: sqlite3.Connection, target: Database) -> str | None:
    """Take over what the journal says about itself, but caches have to begin anew; return its id, ``None`` where that can't be read."""
    try:
        state = dict(source.execute("SELECT name, value FROM state").fetchall())
    except sqlite3.DatabaseError:
        return None
    with target.transaction():
        for name, value in (state | {"removals": str(int(state.get("removals", 0)) + 1)}).items():
            target.change(
                "INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", [name, value]
            )
    return state.get("id")


def _own_files(address: FileAddress, journal: str | None, target: Database) -> dict[Path, FileFacts]:
    """Return the files that say they are this journal's; where it can't be known which that was, those of the only one there is."""
    facts: dict[Path, FileFacts] = {}
    for path in sorted(address.archive.glob("*/day=*/*.parquet")):
        with contextlib.suppress(pl.exceptions.PolarsError, OSError):
            facts[path] = facts_of(path)
    owners = {each.journal for each in facts.values()}
    if journal is None and len(owners) == 1:
        (journal,) = owners
        target.change("UPDATE state SET value = ? WHERE name = 'id'", [journal])
    return {path: each for path, each in facts.items() if each.journal == journal}


def _relist(address: FileAddress, target: Database, path: Path, facts: FileFacts) -> bool:
    """List a file of the archive, unless its rows were saved from the database: then a killed program left it."""
    table = BY_NAME.get(path.parent.parent.name)
    if table not in ARCHIVED or table is None:
        return False
    try:
        frame = pl.read_parquet(path, columns=["row", "at", table.unique], hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError):
        return False
    known = {
        identifier
        for (identifier,) in target.fetch(
            f'SELECT "{table.unique}" FROM "{table.name}" WHERE "row" BETWEEN ? AND ?',  # noqa: S608 - known names
            [facts.first_row, facts.last_row],
        )
    }
    if known & set(frame[table.unique]):
        return False
    times = frame["at"].sort()
    name = path.relative_to(address.archive).as_posix()
    with target.transaction():
        part = Part(name, facts.rows, facts.first_row, facts.last_row, times[0], times[-1])
        list_part(target, table, path.parent.name.removeprefix("day="), part)
    return True


def _swap(path: Path, new: Path, stamp: str) -> Path:
    """Move the damaged file and its log out of the way first: SQLite would apply an old log to the new file."""
    damaged = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(f"{path.name}{suffix}")
        if part.exists():
            part.rename(f"{damaged}{suffix}")
    new.rename(path)
    return damaged
