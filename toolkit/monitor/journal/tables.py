"""What a journal keeps: a table for each kind of record, whose columns are the fields of its NamedTuple."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import ConfigError
from ..events import CacheRecord, CallRecord, ErrorRecord, LogRecord, Row, RunRecord, VoteRecord

__all__ = ["ARCHIVED", "BY_NAME", "TABLES", "Table", "by_table", "known_columns", "known_table"]


class Table:
    """One kind of record as a table."""

    def __init__(self, name: str, record: type[Row], unique: str, indexed: Sequence[str]) -> None:
        self.name = name
        self.unique = unique
        self.indexed = indexed
        self.columns: tuple[str, ...] = record._fields
        hints = typing.get_type_hints(record)
        self.kinds = {column: _kind(hints[column]) for column in self.columns}


def _kind(hint: Any) -> type:  # a type or a union of one with None
    kinds = set(typing.get_args(hint) or (hint,))
    return float if float in kinds else int if int in kinds else str


TABLES: dict[type, Table] = {
    CallRecord: Table("call", CallRecord, "call_id", ("at", "run_id", "error_fingerprint")),
    ErrorRecord: Table("error", ErrorRecord, "error_id", ("at", "run_id", "fingerprint")),
    RunRecord: Table("run", RunRecord, "run_id", ("at",)),
    VoteRecord: Table("vote", VoteRecord, "vote_id", ("at", "run_id")),
    LogRecord: Table("log", LogRecord, "log_id", ("at", "run_id")),
    CacheRecord: Table("cache", CacheRecord, "state_id", ("at",)),
}
BY_NAME = {table.name: table for table in TABLES.values()}
ARCHIVED = tuple(TABLES[record] for record in (CallRecord, ErrorRecord, LogRecord, CacheRecord))
"""The tables that grow with use. Runs and votes are few, and votes are people's work: they stay in the database, and are never pruned."""


def by_table(rows: Iterable[Row]) -> dict[Table, list[tuple[Any, ...]]]:
    """Sort rows by their tables."""
    sorted_rows: dict[Table, list[tuple[Any, ...]]] = {}
    for row in rows:
        sorted_rows.setdefault(TABLES[type(row)], []).append(row)
    return sorted_rows


def known_table(name: str) -> Table:
    if name not in BY_NAME:
        raise ConfigError(f"no table {name!r} in a journal; there are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def known_columns(table: Table, columns: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns asked for, ``row`` in front."""
    if columns is None:
        return ("row", *table.columns)
    if unknown := [name for name in columns if name not in table.columns and name != "row"]:
        raise ConfigError(f"the journal's table {table.name!r} has no column {unknown[0]!r}; it has {', '.join(table.columns)}")
    return ("row", *(name for name in columns if name != "row"))
