"""Reading a journal as polars frames: the Parquet files of old days and the rows in the database, each row once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from ...errors import JournalError
from .address import Address
from .database import Database, reading
from .reader import MissingFileError, Part, Wanted, hot_rows, parts
from .tables import Table

__all__ = ["merged", "scan", "scan_files", "schema_of"]

CHUNK_ROWS = 50_000
"""Rows of the database turned into a frame at a time: as Python objects they take ten times the room."""

_TYPES = {int: pl.Int64(), float: pl.Float64(), str: pl.String()}


def schema_of(table: Table) -> dict[str, pl.DataType]:
    return {"row": pl.Int64(), **{name: _TYPES[kind] for name, kind in table.kinds.items()}}


def scan(address: Address, wanted: Wanted, besides: frozenset[Part] = frozenset()) -> pl.LazyFrame:
    """Return a lazy frame over the archive's files, some left out, and the rows in the database."""
    with reading(address) as db:
        known = [] if db is None else [part for part in parts(db, wanted) if part not in besides]
        runs = _runs(db, wanted)
    rest = _lazy_rest(address, wanted, besides.union(known), runs)
    if not known:
        return rest
    return pl.concat([scan_files(_files(address, known), wanted.table).filter(*_filters(wanted, runs)), rest])


def merged(
    address: Address, db: Database, archived: Sequence[Part], wanted: Wanted, hot: dict[str, list[Any]], limit: int | None
) -> dict[str, list[Any]]:
    """Return archived rows and those of the database as column lists, in the order of their numbers."""
    schema = {name: schema_of(wanted.table)[name] for name in hot}
    filters = _filters(wanted, _runs(db, wanted))

    def read(some: Sequence[Part]) -> pl.DataFrame:
        return scan_files(_files(address, some), wanted.table).filter(*filters).select(*schema).collect()

    found = pl.DataFrame(hot, schema=schema, strict=False)
    with _named(address):
        if wanted.call_id is not None:
            found = next((frame for part in reversed(archived) if (frame := read([part])).height), found)
        elif limit is not None:
            found = _first_rows(found, archived, limit, read)
        else:
            found = pl.concat([read(archived), found]).sort("row")
    return found.to_dict(as_series=False)


def _first_rows(found: pl.DataFrame, archived: Sequence[Part], limit: int, read: Callable[[Sequence[Part]], pl.DataFrame]) -> pl.DataFrame:
    """Return the rows with the lowest numbers; files come by their first row, and are read only up to the last row that is needed."""
    for part in archived:
        if found.height >= limit and (limit == 0 or part.first_row > found["row"][limit - 1]):
            break
        found = pl.concat([found, read([part])]).sort("row").head(limit)
    return found


def scan_files(files: Sequence[Path], table: Table) -> pl.LazyFrame:
    """Return a lazy frame over Parquet files; what an older program did not know is null, what only a newer one knows is left out."""
    schema = schema_of(table)
    return pl.scan_parquet(
        list(files), schema=schema, hive_partitioning=False, glob=False, missing_columns="insert", extra_columns="ignore"
    )


def _lazy_rest(address: Address, wanted: Wanted, known: frozenset[Part], runs: tuple[str, ...]) -> pl.LazyFrame:
    """What is in the database when the frame is collected, and in files that were archived in between."""
    schema = schema_of(wanted.table)

    def rest(columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch: int | None) -> Iterator[pl.DataFrame]:
        left = n_rows
        names = columns or list(schema)
        for frame in _frames(address, wanted, known, runs, _needed(names, predicate, schema)):
            kept = frame if predicate is None else frame.filter(predicate)
            kept = kept.select(names) if left is None else kept.select(names).head(left)
            yield kept
            if left is not None:
                left -= kept.height
                if left <= 0:
                    return

    return register_io_source(rest, schema=schema)


def _needed(names: Sequence[str], predicate: pl.Expr | None, schema: dict[str, pl.DataType]) -> list[str]:
    asked = {*names, *([] if predicate is None else predicate.meta.root_names()), "row"}
    return [name for name in schema if name in asked]


def _frames(address: Address, wanted: Wanted, known: frozenset[Part], runs: tuple[str, ...], names: list[str]) -> Iterator[pl.DataFrame]:
    schema = {name: schema_of(wanted.table)[name] for name in names}
    with reading(address) as db:
        if db is None:
            return
        if since_then := [part for part in parts(db, wanted) if part not in known]:
            yield scan_files(_files(address, since_then), wanted.table).filter(*_filters(wanted, runs)).select(names).collect()
        after_row = wanted.after_row
        while True:
            hot = hot_rows(db, _continued(wanted, after_row), names, CHUNK_ROWS)
            if not hot["row"]:
                return
            after_row = hot["row"][-1]
            yield pl.DataFrame(hot, schema=schema, strict=False)


def _continued(wanted: Wanted, after_row: int) -> Wanted:
    return Wanted(table=wanted.table, after_row=after_row, since=wanted.since, until=wanted.until, run=wanted.run)


def _runs(db: Database | None, wanted: Wanted) -> tuple[str, ...]:
    """Return the ids of the runs that a name may mean."""
    if wanted.run is None or db is None or not db.columns("run"):
        return () if wanted.run is None else (wanted.run,)
    return (wanted.run, *(run for (run,) in db.fetch('SELECT "run_id" FROM "run" WHERE "name" = ?', [wanted.run])))


def _filters(wanted: Wanted, runs: tuple[str, ...]) -> list[pl.Expr]:
    return [
        *([pl.col("row") > wanted.after_row] if wanted.after_row else []),
        *([pl.col("at") >= wanted.since] if wanted.since is not None else []),
        *([pl.col("at") < wanted.until] if wanted.until is not None else []),
        *([pl.col("run_id").is_in(runs)] if wanted.run is not None else []),
        *([pl.col("call_id") == wanted.call_id] if wanted.call_id is not None else []),
    ] or [pl.lit(True)]


def _files(address: Address, archived: Sequence[Part]) -> list[Path]:
    return [address.archive / part.file for part in archived]


@contextlib.contextmanager
def _named(address: Address) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = MissingFileError if isinstance(error, FileNotFoundError) else JournalError
        raise kind(
            f"can't read the archive {address.archive} of the journal {address} ({error}); `toolkit journal check` says what is wrong with it"
        ) from error
