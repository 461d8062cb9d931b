"""Keeping a journal small: closed days go to the archive, old ones away."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from ...errors import JournalError
from .address import Address, FileAddress
from .archive import archive_days, day_of, first_second, tidy
from .database import Database, changing, reading
from .tables import ARCHIVED, Table

__all__ = ["Pruned", "prune"]

REMOVED_AT_ONCE = 50_000
PAGES_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows of each table went where, and how many files were written and removed."""

    archived: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    files_written: int = 0
    files_removed: int = 0


def prune(
    address: Address, *, now: float, archive_after_s: float | None = None, older_than_s: float | None = None, dry_run: bool = False
) -> Pruned:
    """Move whole days (UTC) to the archive, and remove whole days.

    Calls, errors, entries of the logger and states of caches are meant; runs and votes stay.

    Parameters
    ----------
    now : float
        Seconds since 1970.
    archive_after_s : float, optional
        Days that ended at least so many seconds ago go to the archive.
    older_than_s : float, optional
        Days that ended at least so many seconds ago are removed, from the database and from the archive.
    dry_run : bool
        Only say what would happen.

    Raises
    ------
    JournalError
        If there is no journal, or it can't be read or changed.
    ConfigError
        If there is something to archive and polars is not installed.
    """
    with reading(address) as db:
        if db is None:
            raise JournalError(f"there is no journal at {address}")
    oldest_kept = None if older_than_s is None else day_of(max(0.0, now - older_than_s))
    first_hot = None if archive_after_s is None else day_of(max(0.0, now - archive_after_s))
    if dry_run:
        return _foretell(address, oldest_kept, first_hot)
    removed, files_removed = ({}, 0) if oldest_kept is None else _remove_days(address, oldest_kept)
    tidy(address)
    archived: dict[str, int] = {}
    files_written = 0
    for table, rows in archive_days(address, first_hot) if first_hot is not None else ():
        archived[table.name] = archived.get(table.name, 0) + rows
        files_written += 1
    _give_back_room(address)
    return Pruned(archived=archived, removed=removed, files_written=files_written, files_removed=files_removed)


def _foretell(address: Address, oldest_kept: date | None, first_hot: date | None) -> Pruned:
    removed, archived, files = {}, {}, 0
    with reading(address) as db:
        assert db is not None
        for table in ARCHIVED:
            gone = 0 if oldest_kept is None else _hot_before(db, table, oldest_kept)
            old_parts = [] if oldest_kept is None else _parts_before(db, table, oldest_kept)
            removed[table.name] = gone + sum(rows for _, rows in old_parts)
            files += len(old_parts)
            archived[table.name] = 0 if first_hot is None else max(0, _hot_before(db, table, first_hot) - gone)
    return Pruned(archived=_nonzero(archived), removed=_nonzero(removed), files_removed=files)


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _hot_before(db: Database, table: Table, day: date) -> int:
    if not db.columns(table.name):
        return 0
    return int(db.fetch(f'SELECT count(*) FROM "{table.name}" WHERE "at" >= 0 AND "at" < ?', [first_second(day)])[0][0])  # noqa: S608 - known names; values are bound


def _parts_before(db: Database, table: Table, day: date) -> list[tuple[str, int]]:
    if not db.columns("part"):
        return []
    return [
        (file, rows) for file, rows in db.fetch("SELECT file, rows FROM part WHERE source = ? AND day < ?", [table.name, day.isoformat()])
    ]


def _remove_days(address: Address, oldest_kept: date) -> tuple[dict[str, int], int]:
    removed: dict[str, int] = {}
    with changing(address) as db:
        files = _forget_parts(db, oldest_kept, removed)
        for table in ARCHIVED:
            while rows := _remove_hot(db, table, oldest_kept):
                removed[table.name] = removed.get(table.name, 0) + rows
    for file in files:
        path = address.archive / file
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty yet
            path.parent.rmdir()
    return _nonzero(removed), len(files)


def _forget_parts(db: Database, oldest_kept: date, removed: dict[str, int]) -> list[str]:
    with db.transaction():
        old_parts = {table.name: _parts_before(db, table, oldest_kept) for table in ARCHIVED}
        for name, found in old_parts.items():
            removed[name] = sum(rows for _, rows in found)
        if any(removed.values()):
            db.change("DELETE FROM part WHERE day < ?", [oldest_kept.isoformat()])
            _note_removal(db)
        # Should this program be killed before it has removed the files, the next one knows what they are.
        db.change("DELETE FROM state WHERE name = 'removed_before' AND value < ?", [oldest_kept.isoformat()])
        db.change("INSERT INTO state (name, value) VALUES ('removed_before', ?) ON CONFLICT DO NOTHING", [oldest_kept.isoformat()])
    return [file for found in old_parts.values() for file, _ in found]


def _remove_hot(db: Database, table: Table, oldest_kept: date) -> int:
    chosen = f'SELECT "row" FROM "{table.name}" WHERE "at" >= 0 AND "at" < ? LIMIT {REMOVED_AT_ONCE}'  # noqa: S608 - a known name
    with db.transaction():
        rows = db.change(f'DELETE FROM "{table.name}" WHERE "row" IN ({chosen})', [first_second(oldest_kept)])  # noqa: S608 - known names; values are bound
        if rows:
            _note_removal(db)
    return rows


def _note_removal(db: Database) -> None:
    db.change("UPDATE state SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'removals'")


def _give_back_room(address: Address) -> None:
    """Let a SQLite file shrink, in steps that writers hardly notice; PostgreSQL sees to that by itself."""
    if not isinstance(address, FileAddress):
        return
    with changing(address) as db:
        while (free := db.fetch("PRAGMA freelist_count")[0][0]) and db.fetch("PRAGMA auto_vacuum")[0][0] == 2:
            with db.transaction():
                db.fetch(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")
            if db.fetch("PRAGMA freelist_count")[0][0] >= free:
                return
