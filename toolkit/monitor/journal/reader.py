"""The journal to look at, while any process writes it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import settings
from ...errors import ConfigError, JournalError
from ..events import CacheRecord, CallRecord, ErrorRecord, LogRecord, RunRecord, VoteRecord
from .address import Address, FileAddress, read_address
from .database import Database, reading
from .tables import ARCHIVED, TABLES, Table, known_columns, known_table

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JournalReader", "JournalVersion", "MissingFileError", "Part", "Wanted", "hot_rows", "last_row", "parts", "with_polars"]


class JournalVersion(NamedTuple):
    """What a journal holds, for the keys of caches: equal versions of a table hold equal rows.

    While ``journal`` and ``removals`` stay the same, rows were only added, and those above the old ``row`` are the new ones.
    Otherwise the journal was made anew, or old days were removed. Moving days to the archive changes nothing here.
    """

    journal: str
    removals: int
    row: int


class MissingFileError(JournalError):
    """A file that the journal listed a moment ago is not in the archive."""


class Part(NamedTuple):
    """A Parquet file of the archive, as the journal lists it; ``file`` is relative to the archive's folder."""

    file: str
    rows: int
    first_row: int
    last_row: int
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows of a table: those above a number, of a span of time, of some runs."""

    table: Table
    after_row: int = 0
    since: float | None = None
    until: float | None = None
    run: str | None = None
    call_id: str | None = None

    def conditions(self) -> dict[str, tuple[Any, ...]]:
        """Return SQL conditions with their values."""
        all_of_them = {
            '"row" > ?': (self.after_row or None,),
            '"at" >= ?': (self.since,),
            '"at" < ?': (self.until,),
            '"call_id" = ?': (self.call_id,),
            '("run_id" = ? OR "run_id" IN (SELECT "run_id" FROM "run" WHERE "name" = ?))': (self.run, self.run),
        }
        return {sql: values for sql, values in all_of_them.items() if values[0] is not None}


def hot_rows(db: Database, wanted: Wanted, columns: Sequence[str], limit: int | None = None) -> dict[str, list[Any]]:
    """Return the rows in the database as column lists, in the order of their numbers."""
    present = db.columns(wanted.table.name)
    if not present:
        return {name: [] for name in columns}
    # A journal written by an older program lacks columns, and a reader may not add them.
    selected = ", ".join(f'"{name}"' if name in present else f'NULL AS "{name}"' for name in columns)
    asked = wanted.conditions()
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    most = "" if limit is None else f"LIMIT {int(limit)}"
    sql = f'SELECT {selected} FROM "{wanted.table.name}" {where} ORDER BY "row" {most}'  # noqa: S608 - known names; values are bound
    rows = db.fetch(sql, list(itertools.chain.from_iterable(asked.values())))
    return dict(zip(columns, map(list, zip(*rows)))) if rows else {name: [] for name in columns}


def parts(db: Database, wanted: Wanted) -> list[Part]:
    """Return the files of the archive that may hold rows that are wanted."""
    if wanted.table not in ARCHIVED or not db.columns("part"):
        return []
    conditions = {
        "source = ?": wanted.table.name,
        "last_row > ?": wanted.after_row,
        "last_at >= ?": wanted.since,
        "first_at < ?": wanted.until,
    }
    asked = {sql: value for sql, value in conditions.items() if value is not None}
    sql = "SELECT file, rows, first_row, last_row, first_at, last_at FROM part WHERE "
    return [Part(*row) for row in db.fetch(f"{sql}{' AND '.join(asked)} ORDER BY first_row, file", list(asked.values()))]


def last_row(db: Database, table: Table) -> int:
    """Return the highest number ever given to a row that was not removed as too old."""
    if not db.columns(table.name):
        return 0
    hot = int(db.fetch(f'SELECT coalesce(max("row"), 0) FROM "{table.name}"')[0][0])  # noqa: S608 - a known name
    return max([hot, *(part.last_row for part in parts(db, Wanted(table=table)))])


def with_polars(module: str) -> ModuleType:
    """Return a module of this package that works on polars frames.

    Raises
    ------
    ConfigError
        If polars is not installed.
    """
    try:
        return import_module(f"{__package__}.{module}")
    except ImportError as error:
        raise ConfigError(f"this needs {error.name}, which is not installed: pip install 'model-comparison-toolkit[notebook]'") from error


class JournalReader:
    """A journal to look at, while any process writes it. It never makes or changes it; where there is none it is empty.

    Days that were moved to the archive (``toolkit journal prune``) are read along: each row comes once.

    Parameters
    ----------
    url : str or path, optional
        A SQLite file, or ``postgresql://…`` (extra ``postgres``); by default that of the settings.

    Raises
    ------
    JournalError
        If ``url`` is not understood; from every method, if the journal can't be read or is newer than this program.
    ConfigError
        From every method, if the journal is in PostgreSQL and psycopg is missing, or partly in Parquet and polars is missing.

    Examples
    --------
    >>> JournalReader("no-such-journal.sqlite").last_row()
    0
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        self.address = read_address(url or settings.journal_url())

    @classmethod
    def at(cls, address: Address) -> JournalReader:
        """Return the reader of an address that was read before: its text may leave out a password."""
        reader = cls.__new__(cls)
        reader.address = address
        return reader

    @property
    def exists(self) -> bool:
        """Whether there is a journal."""
        if isinstance(self.address, FileAddress):  # also where it can't be read
            return self.address.path.exists()
        with reading(self.address) as db:
            return db is not None

    def last_row(self, table: str = "call") -> int:
        """Return the number of the newest row of ``call``, ``error``, ``run``, ``vote``, ``log`` or ``cache``; 0 where there is none."""
        known = known_table(table)
        with reading(self.address) as db:
            return 0 if db is None else last_row(db, known)

    def version(self, table: str = "call") -> JournalVersion:
        """Return what tells one state of a table from another: cheap, and made for the keys of caches."""
        known = known_table(table)
        with reading(self.address) as db:
            if db is None:
                return JournalVersion("", 0, 0)
            state = dict(db.fetch("SELECT name, value FROM state")) if db.columns("state") else {}
            return JournalVersion(state.get("id", ""), int(state.get("removals", 0)), last_row(db, known))

    def parts(self, table: str = "call") -> list[Part]:
        """Return the files of the archive, oldest first. They never change: what was worked out from one stays true of it."""
        known = known_table(table)
        with reading(self.address) as db:
            return [] if db is None else parts(db, Wanted(table=known))

    def scan_part(self, part: Part, table: str = "call") -> pl.LazyFrame:
        """Return a lazy polars frame over one file of the archive; columns as in ``scan``."""
        lazy: pl.LazyFrame = with_polars("scanning").scan_files([self.address.archive / part.file], known_table(table))
        return lazy

    def scan(
        self,
        table: str = "call",
        *,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        besides: Sequence[Part] = (),
    ) -> pl.LazyFrame:
        """Return a lazy polars frame over the archive and the database together, each row once, in no particular order.

        Only the columns that the query uses are read, and of the archive only the days in the window. The rows in the database
        are read when the frame is collected.

        Parameters
        ----------
        table : str
            ``call``, ``error``, ``run``, ``vote``, ``log`` or ``cache``.
        after_row, since, until, run
            As in ``calls``.
        besides : sequence of Part
            Files whose rows are left out, because they are known already.

        Returns
        -------
        polars.LazyFrame
            ``row`` and the fields of the record; ``at`` in seconds since 1970.

        Raises
        ------
        ConfigError
            If there is no such table, it knows nothing of runs, or polars is not installed.

        Examples
        --------
        >>> JournalReader("no-such-journal.sqlite").scan().select("model", "latency_s").collect().shape
        (0, 2)
        """
        wanted = Wanted(table=known_table(table), after_row=after_row, since=since, until=until, run=run)
        if run is not None and "run_id" not in wanted.table.columns:
            raise ConfigError(f"the rows of the journal's table {table!r} belong to no run: leave run out")
        lazy: pl.LazyFrame = with_polars("scanning").scan(self.address, wanted, frozenset(besides))
        return lazy

    def calls(
        self,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> dict[str, list[Any]]:
        """Return calls as column lists, in the order in which they were written, with their row numbers in ``row``.

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
        wanted = Wanted(table=TABLES[CallRecord], after_row=after_row, since=since, until=until, run=run)
        return self._select(wanted, limit, columns)

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
        wanted = Wanted(table=TABLES[ErrorRecord], after_row=after_row, since=since, until=until, run=run)
        return self._select(wanted, limit, columns)

    def logs(
        self,
        after_row: int = 0,
        since: float | None = None,
        until: float | None = None,
        run: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> dict[str, list[Any]]:
        """Return entries of the logger as column lists; parameters as in ``calls``."""
        wanted = Wanted(table=TABLES[LogRecord], after_row=after_row, since=since, until=until, run=run)
        return self._select(wanted, limit, columns)

    def cache_states(self, since: float | None = None, until: float | None = None) -> dict[str, list[Any]]:
        """Return what the tiers of caches did, and how full they were, as column lists; parameters as in ``calls``."""
        return self._select(Wanted(table=TABLES[CacheRecord], since=since, until=until))

    def runs(self) -> dict[str, list[Any]]:
        """Return the comparisons as column lists."""
        return self._select(Wanted(table=TABLES[RunRecord]))

    def votes(self, run: str | None = None) -> dict[str, list[Any]]:
        """Return votes as column lists; ``run`` is the id or the name of a comparison."""
        return self._select(Wanted(table=TABLES[VoteRecord], run=run))

    def call(self, call_id: str) -> dict[str, Any] | None:
        """Return one call as a dict, ``None`` where the journal does not have it."""
        found = self._select(Wanted(table=TABLES[CallRecord], call_id=call_id))
        return {name: values[0] for name, values in found.items()} if found["row"] else None

    def _select(self, wanted: Wanted, limit: int | None = None, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
        names = known_columns(wanted.table, columns)
        removals = -1
        while True:
            try:
                return self._select_once(wanted, limit, names)
            except MissingFileError:  # perhaps because its day was removed after the list of files had been read
                if removals == (removals := self.version(wanted.table.name).removals):
                    raise

    def _select_once(self, wanted: Wanted, limit: int | None, names: Sequence[str]) -> dict[str, list[Any]]:
        with reading(self.address) as db:
            if db is None:
                return {name: [] for name in names}
            hot = hot_rows(db, wanted, names, limit)
            archived = parts(db, wanted)
            if not archived or (wanted.call_id is not None and hot["row"]):
                return hot
            found: dict[str, list[Any]] = with_polars("scanning").merged(self.address, db, archived, wanted, hot, limit)
            return found
