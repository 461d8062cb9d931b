"""Old days as Parquet files: ``<journal>.archive/call/day=2026-11-22/part-<first row>-<last row>-<random>.parquet``, sorted by time.

A file counts from the moment at which the journal's table ``part`` lists it, and in the same transaction its rows leave the database. So
every reader sees each row exactly once, wherever a program was killed: a file that is not listed yet is not read, and the next ``tidy``
removes it. Files are never changed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...errors import JournalError
from .address import Address
from .database import Database, changing, reading
from .reader import Part
from .scanning import schema_of
from .tables import ARCHIVED, Table

__all__ = ["FileFacts", "archive_days", "day_of", "facts_of", "first_second", "hand_over", "next_piece", "tidy", "unlisted", "write_file"]

FILE_ROWS = 100_000
"""Rows of a file. They leave the database in one transaction, for which writers wait: about a second."""
FILE_BYTES = 256_000_000
CHUNK_ROWS = 5_000
GROUP_ROWS = 50_000


class Piece(NamedTuple):
    """The first rows of a day, by time, as they were when the journal's newest row was ``newest_row``."""

    table: Table
    day: date
    frame: pl.DataFrame
    newest_row: int
    journal: str


class FileFacts(NamedTuple):
    """What a file of the archive says about itself."""

    journal: str
    rows: int
    first_row: int
    last_row: int


def day_of(at: float) -> date:
    """Return the day, in UTC, of a moment."""
    return datetime.fromtimestamp(at, UTC).date()


def first_second(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def archive_days(address: Address, before: date) -> Iterator[tuple[Table, int]]:
    """Move the days before a day to the archive, and yield the table and the number of rows of each file.

    Raises
    ------
    JournalError
        If the journal or the archive can't be written. What was moved before stays moved; nothing is lost.
    """
    for table in ARCHIVED:
        while (piece := next_piece(address, table, before)) is not None:
            file = write_file(address, piece)
            if hand_over(address, piece, file):
                yield table, piece.frame.height


def next_piece(address: Address, table: Table, before: date) -> Piece | None:
    """Return the oldest rows in the database that belong into one file; ``None`` where all days before a day are moved."""
    with reading(address) as db:
        if db is None or not db.columns("state"):
            return None
        name = f'"{table.name}"'
        oldest, newest_row = db.fetch(  # "at" below 0 is nonsense, and stays
            f'SELECT (SELECT min("at") FROM {name} WHERE "at" >= 0), (SELECT max("row") FROM {name})'  # noqa: S608 - a known name
        )[0]
        if oldest is None or oldest >= first_second(before):
            return None
        day = day_of(oldest)
        frame = pl.concat(_chunks(db, table, day))
        return Piece(table, day, frame, newest_row, journal_id(db))


def journal_id(db: Database) -> str:
    found = db.fetch("SELECT value FROM state WHERE name = 'id'")
    return str(found[0][0]) if found else ""


def _chunks(db: Database, table: Table, day: date) -> Iterator[pl.DataFrame]:
    schema = schema_of(table)
    present = db.columns(table.name)
    selected = ", ".join(f'"{name}"' if name in present else f'NULL AS "{name}"' for name in schema)
    sql = (
        f'SELECT {selected} FROM "{table.name}" WHERE ("at", "row") > (?, ?) AND "at" >= ? AND "at" < ? '  # noqa: S608 - known names
        f'ORDER BY "at", "row" LIMIT {CHUNK_ROWS}'
    )
    start = first_second(day)
    after, rows, size = (start, 0), 0, 0
    while rows < FILE_ROWS and size < FILE_BYTES:
        found = db.fetch(sql, [*after, start, start + 86_400])
        if not found:
            return
        chunk = pl.DataFrame(found, schema=schema, orient="row", strict=False)
        yield chunk
        rows, size = rows + chunk.height, size + int(chunk.estimated_size())
        after = (chunk["at"][-1], chunk["row"][-1])


def write_file(address: Address, piece: Piece) -> Path:
    """Write a piece's file, complete and on disk before it has its name."""
    folder = address.archive / piece.table.name / f"day={piece.day.isoformat()}"
    first, last = _row_numbers(piece.frame)
    name = f"part-{first:012d}-{last:012d}-{secrets.token_hex(4)}.parquet"
    try:
        _make_private(folder, address.archive)
        unfinished = folder / f".{name}.unfinished"
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            facts = {"toolkit.journal": piece.journal, "toolkit.table": piece.table.name}
            piece.frame.write_parquet(file, compression="zstd", row_group_size=GROUP_ROWS, metadata=facts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(folder / name)
        _sync_folder(folder)
    except OSError as error:
        with contextlib.suppress(OSError, UnboundLocalError):
            unfinished.unlink(missing_ok=True)
        raise JournalError(f"can't write the archive {address.archive} ({error}); no row was moved to this file") from error
    return folder / name


def _row_numbers(frame: pl.DataFrame) -> tuple[int, int]:
    """Return the lowest and the highest."""
    lowest, highest = frame.select(pl.col("row").min().alias("lowest"), pl.col("row").max().alias("highest")).row(0)
    return lowest, highest


def _make_private(folder: Path, top: Path) -> None:
    top.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in (top, folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder can't be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hand_over(address: Address, piece: Piece, file: Path) -> bool:
    """List a file in the journal, and in the same transaction delete its rows; ``False`` where somebody else has moved them by now."""
    times = piece.frame["at"]
    part = Part(file.relative_to(address.archive).as_posix(), len(times), *_row_numbers(piece.frame), times[0], times[-1])
    with changing(address) as db:
        try:
            with db.transaction():
                _move(db, piece, part, file)
        except _OvertakenError:
            file.unlink(missing_ok=True)
            return False
    return True


class _OvertakenError(Exception):
    """Another program has moved rows of this piece, or taken its file for a leftover."""


def _move(db: Database, piece: Piece, part: Part, file: Path) -> None:
    # A row that was written since has a higher number, also where its time lies in between.
    last = (piece.frame["at"][-1], piece.frame["row"][-1])
    deleted = db.change(
        f'DELETE FROM "{piece.table.name}" WHERE "at" >= ? AND ("at", "row") <= (?, ?) AND "row" <= ?',  # noqa: S608 - a known name
        [first_second(piece.day), *last, piece.newest_row],
    )
    if deleted != part.rows or not file.exists():
        raise _OvertakenError
    list_part(db, piece.table, piece.day.isoformat(), part)


def list_part(db: Database, table: Table, day: str, part: Part) -> None:
    db.change(
        "INSERT INTO part (file, rows, first_row, last_row, first_at, last_at, source, day) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [*part, table.name, day],
    )


def unlisted(address: Address, db: Database) -> list[Path]:
    """Return the files in the archive's folder that the journal does not list."""
    listed = {file for (file,) in db.fetch("SELECT file FROM part")} if db.columns("part") else set()
    found = [path for pattern in ("*.parquet", ".*.unfinished") for path in address.archive.glob(f"*/day=*/{pattern}")]
    return sorted(path for path in found if path.relative_to(address.archive).as_posix() not in listed)


def tidy(address: Address) -> None:
    """Remove what a killed program left: unfinished files, and files whose rows are still in the database or were removed as too old."""
    with changing(address) as db, db.transaction():  # within which nobody can list one of them
        for path in unlisted(address, db):
            if path.suffix == ".unfinished" or _is_leftover(db, path):
                path.unlink(missing_ok=True)


def _is_leftover(db: Database, path: Path) -> bool:
    try:
        facts = facts_of(path)
    except (pl.exceptions.PolarsError, OSError):
        return False  # whoever can read it may want it
    if facts.journal != journal_id(db):
        return False
    removed_before = db.fetch("SELECT value FROM state WHERE name = 'removed_before'")
    if removed_before and path.parent.name.removeprefix("day=") < removed_before[0][0]:
        return True
    table = path.parent.parent.name
    rows = set(pl.read_parquet(path, columns=["row"], hive_partitioning=False)["row"].to_list())
    known = db.fetch(f'SELECT "row" FROM "{table}" WHERE "row" BETWEEN ? AND ?', [facts.first_row, facts.last_row])  # noqa: S608 - a folder of ours
    return rows <= {row for (row,) in known}


def facts_of(path: Path) -> FileFacts:
    """Read what a file says about itself.

    Raises
    ------
    polars.exceptions.PolarsError, OSError
        If it can't be read.
    """
    metadata = pl.read_parquet_metadata(path)
    rows, first, last = (
        pl.scan_parquet(path, hive_partitioning=False)
        .select(pl.len(), pl.col("row").min().alias("first"), pl.col("row").max().alias("last"))
        .collect()
        .row(0)
    )
    return FileFacts(metadata.get("toolkit.journal", ""), rows, first or 0, last or 0)
