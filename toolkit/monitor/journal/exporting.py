"""Rows of a journal as one file: Parquet, CSV or JSON lines."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ...errors import ConfigError, JournalError
from .reader import JournalReader

__all__ = ["SUFFIXES", "export"]

SUFFIXES: dict[str, Callable[[pl.LazyFrame, Path], None]] = {
    ".parquet": lambda rows, path: rows.sink_parquet(path),
    ".csv": lambda rows, path: rows.sink_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ", check_extension=False),
    ".jsonl": lambda rows, path: rows.sink_ndjson(path, check_extension=False),
    ".ndjson": lambda rows, path: rows.sink_ndjson(path, check_extension=False),
}


def export(
    reader: JournalReader,
    file: Path,
    *,
    table: str = "call",
    since: float | None = None,
    until: float | None = None,
    run: str | None = None,
) -> int:
    """Write rows to a file, by its ending, and return how many; the file appears when it is complete, readable by its owner alone.

    Raises
    ------
    ConfigError
        If the ending or the table is unknown.
    JournalError
        If the journal can't be read, or the file can't be written.
    """
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file.name}: a journal is exported to a file that ends in {', '.join(SUFFIXES)}")
    rows = reader.scan(table, since=since, until=until, run=run).sort("row")
    moments = (pl.col("at") * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(4)}{file.suffix}")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        SUFFIXES[file.suffix](rows.with_columns(moments).drop("row"), unfinished)
        count = _count(unfinished, file.suffix)
        unfinished.replace(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise JournalError(f"can't export to {file}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _count(path: Path, suffix: str) -> int:
    if suffix == ".parquet":
        rows = pl.scan_parquet(path)
    elif suffix == ".csv":
        rows = pl.scan_csv(path, infer_schema=False)
    else:
        with path.open("rb") as lines:
            return sum(1 for _ in lines)
    return int(rows.select(pl.len()).collect().item())
