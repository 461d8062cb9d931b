"""Whether a journal is whole: the database, the archive, and the two together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from ...errors import JournalError
from .address import Address, FileAddress
from .archive import FileFacts, day_of, facts_of, unlisted
from .database import Database, reading
from .reader import Part, Wanted, parts
from .tables import ARCHIVED, BY_NAME, Table

__all__ = ["CheckReport", "Problem", "check"]

REPAIR = "`toolkit journal check --repair` saves what can be read into a new file and keeps this one beside it"
RESTORE = "put the file back from a backup; until then readers of its days raise an error"
MANY = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do about it."""

    what: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a journal holds, and what is wrong with it; ``rows`` are those in the database, ``archived`` those in Parquet."""

    journal: str
    schema_version: int | None
    rows: Mapping[str, int] = field(default_factory=dict)
    archived: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check(address: Address) -> CheckReport:
    """Read all of a journal and say what is wrong with it; nothing is changed.

    Raises
    ------
    JournalError
        If there is no journal, or its server can't be reached.
    ConfigError
        If psycopg is needed and missing.
    """
    examination = _Examination(address)
    try:
        with reading(address) as db:
            if db is None:
                raise JournalError(f"there is no journal at {address}")
            examination.examine(db)
    except JournalError as error:
        if not isinstance(error.__cause__, sqlite3.Error) and "upgrade" not in str(error):
            raise
        cause = error.__cause__
        examination.note(str(cause or error), REPAIR if cause else "upgrade model-comparison-toolkit")
    return examination.report()


class _Examination:
    """Notes problems as they are found: one part of a journal may be damaged and the rest worth a look."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.version: int | None = None
        self.rows: dict[str, int] = {}
        self.archived: dict[str, int] = {}
        self.problems: list[Problem] = []

    def note(self, what: str, next_step: str) -> None:
        if Problem(what, next_step) not in self.problems:
            self.problems.append(Problem(what, next_step))

    def report(self) -> CheckReport:
        return CheckReport(
            journal=str(self.address),
            schema_version=self.version,
            rows=self.rows,
            archived=self.archived,
            problems=tuple(self.problems),
        )

    def examine(self, db: Database) -> None:
        self.version = db.version()
        if isinstance(self.address, FileAddress):
            self._carefully(lambda: self._examine_pages(db))
        for name in BY_NAME:
            self._carefully(lambda name=name: self._count(db, name))  # type: ignore[misc]  # mypy knows no lambda's default
        for table in ARCHIVED:
            self._carefully(lambda table=table: self._examine_archive(db, table))  # type: ignore[misc]
        self._carefully(lambda: self._examine_folder(db))

    def _carefully(self, examine: Callable[[], None]) -> None:
        try:
            examine()
        except sqlite3.DatabaseError as error:
            self.note(str(error), REPAIR)

    def _examine_pages(self, db: Database) -> None:
        found = [str(line) for (line,) in db.fetch(f"PRAGMA integrity_check({MANY})")]
        for line in found if found != ["ok"] else []:
            self.note(line, REPAIR)

    def _count(self, db: Database, name: str) -> None:
        self.rows[name] = int(db.fetch(f'SELECT count(*) FROM "{name}"')[0][0]) if db.columns(name) else 0  # noqa: S608 - known names

    def _examine_archive(self, db: Database, table: Table) -> None:
        listed = parts(db, Wanted(table=table))
        self.archived[table.name] = sum(part.rows for part in listed)
        sound = [part for part in listed if self._is_sound(part)]
        if doubled := _doubled_ids(db, table, [self.address.archive / part.file for part in sound]):
            shown = ", ".join(doubled[:3])
            self.note(
                f"{len(doubled)} rows of table {table.name} are there twice ({table.unique} {shown}{', …' if len(doubled) > 3 else ''})",
                "figures count them twice; remove one of each from the archive's files, or tell us how that came about",
            )

    def _is_sound(self, part: Part) -> bool:
        path = self.address.archive / part.file
        before = len(self.problems)
        if not path.exists():
            self.note(f"the archive's file {path} is missing ({part.rows} rows)", RESTORE)
        else:
            try:
                facts = _read_wholly(path)
            except (pl.exceptions.PolarsError, OSError) as error:
                self.note(f"the archive's file {path} can't be read ({part.rows} rows): {str(error).splitlines()[0]}", RESTORE)
            else:
                for what in _contradictions(part, facts, path):
                    self.note(f"the archive's file {path} {what}", RESTORE)
        return len(self.problems) == before

    def _examine_folder(self, db: Database) -> None:
        for path in unlisted(self.address, db):
            if path.suffix == ".unfinished":
                self.note(f"{path} was never finished", "`toolkit journal prune` removes it")
                continue
            self.note(
                f"{path} is in the archive's folder, but the journal does not list it, and so nobody reads it",
                "`toolkit journal prune` removes it if its rows are in the database; otherwise it is another journal's: move it away",
            )


def _read_wholly(path: Path) -> tuple[FileFacts, set[date]]:
    """Read every column, so that damage anywhere shows, and return what the file holds and of which days."""
    frame = pl.read_parquet(path, hive_partitioning=False)
    return facts_of(path), {day_of(at) for at in frame["at"].unique().to_list()}


def _contradictions(part: Part, found: tuple[FileFacts, set[date]], path: Path) -> Iterator[str]:
    facts, days = found
    if (facts.rows, facts.first_row, facts.last_row) != (part.rows, part.first_row, part.last_row):
        yield (
            f"has {facts.rows} rows ({facts.first_row} to {facts.last_row}), "
            f"where the journal lists {part.rows} ({part.first_row} to {part.last_row})"
        )
    if {day.isoformat() for day in days} != {path.parent.name.removeprefix("day=")}:
        yield "holds rows of another day than its folder says"


def _doubled_ids(db: Database, table: Table, files: list[Path]) -> list[str]:
    """Return the ids that two files have, or a file and the database."""
    if not files:
        return []
    archived = (
        pl.scan_parquet(files, hive_partitioning=False, extra_columns="ignore", missing_columns="insert").select(table.unique).collect()
    )
    hot = [identifier for (identifier,) in db.fetch(f'SELECT "{table.unique}" FROM "{table.name}"')]  # noqa: S608 - known names
    ids = pl.concat([archived[table.unique], pl.Series(table.unique, hot, dtype=pl.String)])
    return [str(identifier) for identifier in ids.filter(ids.is_duplicated()).unique().sort()]
