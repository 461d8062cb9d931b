"""Lines of a log, newest first, with a level, to be searched: the logger's entries, and calls."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from dashboard.cells import FAILED, LEFT
from dashboard.views.slices import Rows
from toolkit.monitor.marks import MARK

__all__ = ["LEVELS", "call_lines", "entry_lines", "export_rows", "marks", "newest_lines"]

LEVELS = ("fatal", "error", "warn", "info", "debug")
EXPORT_ROWS = 200_000
MOST_MARKS = 12


def entry_lines(entries: pl.DataFrame, levels: tuple[str, ...], search: str, limit: int = 500) -> pl.DataFrame:
    """Return ``at level source line id`` of the logger's entries, newest first; ``source`` is the process.

    ``search`` is looked for, as it is and in any case, in the line (which has the fields and the error), the process and the error's id.
    """
    fields = pl.when(pl.col("context") == "{}").then(pl.lit("")).otherwise(pl.concat_str(pl.lit(" "), pl.col("context")))
    failure = pl.format(" · {}: {}", _text("error_type", ""), _text("error_message", ""))
    error = pl.when(pl.col("error_type").is_null()).then(pl.lit("")).otherwise(failure)
    line = pl.concat_str(pl.col("message"), error, fields)
    keep = [pl.col("level").str.to_lowercase().is_in(list(levels))] if levels else []
    if search:
        words = pl.concat_str(line, pl.col("process"), _text("error_id", ""), separator=" ")
        keep.append(words.str.to_lowercase().str.contains(search.lower(), literal=True))
    found = entries.filter(*keep).top_k(limit, by=["at", "row"]).sort("at", "row", descending=True)
    return found.select(
        "at", pl.col("level").str.to_lowercase(), pl.col("process").alias("source"), line.alias("line"), pl.col("log_id").alias("id")
    )


def marks(entries: pl.DataFrame, limit: int = MOST_MARKS) -> list[tuple[float, str]]:
    """Return when and what of the newest annotations among the logger's entries, oldest first."""
    found = entries.filter(pl.col("context") == MARK).top_k(limit, by="at").sort("at")
    return found.select("at", "message").rows()


def newest_lines(entries: pl.DataFrame, calls: pl.DataFrame, limit: int = 500) -> pl.DataFrame:
    """Return the newest lines of both, with ``of``: ``logger`` or ``call``."""
    both = pl.concat([entries.with_columns(of=pl.lit("logger")), calls.with_columns(of=pl.lit("call"))])
    return both.top_k(limit, by="at").sort("at", descending=True)


def call_lines(part: Rows, levels: tuple[str, ...], search: str, limit: int = 500) -> pl.DataFrame:
    """Return ``at level source line id`` of calls, newest first; ``source`` is the model.

    An error is a failed call; a warning one that was retried, or whose reader left its stream; everything else is information.
    ``search`` is looked for, as it is and in any case, in the line, the model, the prompt's id, the run and the call's id.
    """
    keep = [_LEVEL.is_in(list(levels))] if levels else []
    if search:
        words = pl.concat_str(_line(), *(_text(column, "") for column in ("label", "call_id", "run_id", "prompt_id")), separator=" ")
        keep.append(words.str.to_lowercase().str.contains(search.lower(), literal=True))
    found = newest(part, lambda rows: rows.filter(*keep).select(_READ), limit)
    return found.select(
        "at", _LEVEL.alias("level"), pl.col("label").cast(pl.String).alias("source"), _line().alias("line"), pl.col("call_id").alias("id")
    )


_READ = (
    "at",
    "call_id",
    "label",
    "status",
    "error_type",
    "error_message",
    "provenance",
    "cache_tier",
    "attempts",
    "total_s",
    "output_tokens",
)
_LEVEL = (
    pl.when(FAILED).then(pl.lit("error")).when(LEFT | (pl.col("attempts") > 1)).then(pl.lit("warn")).otherwise(pl.lit("info"))
)  # fmt: skip


def newest(part: Rows, choose: Callable[[pl.LazyFrame], pl.LazyFrame], limit: int) -> pl.DataFrame:
    """Return the newest rows, newest first, looking at the end of the window first: it is often enough, and old days are slow to read."""
    window = part.selection
    for since_s in (window.hi_s - window.width_s / 256, window.hi_s - window.width_s / 16, window.lo_s):
        found = choose(part.read(since_s)).collect()
        if found.height >= limit:
            break
    return found.top_k(limit, by="at").sort("at", descending=True)


def _line() -> pl.Expr:
    failed = pl.format("{}: {}", _text("error_type", "Error"), _text("error_message", "(no message)"))
    replayed = pl.format("replayed from {}", _text("cache_tier", "cache"))
    answered = pl.when(pl.col("provenance") == "replayed").then(replayed).otherwise(_text("provenance", "answered"))
    total_ms = (pl.col("total_s") * 1e3).fill_null(0.0)
    whole = total_ms.round().cast(pl.Int64).cast(pl.String)
    took = pl.format(" in {} ms", pl.when(total_ms >= 100).then(whole).otherwise(total_ms.round_sig_figs(3).cast(pl.String)))
    tries = pl.when(pl.col("attempts") > 1).then(pl.format(", {} attempts", pl.col("attempts"))).otherwise(pl.lit(""))
    tokens = (
        pl.when(pl.col("output_tokens").is_not_null()).then(pl.format(", {} tokens out", pl.col("output_tokens"))).otherwise(pl.lit(""))
    )
    left = pl.concat_str(pl.lit("the reader left the stream"), took, tokens)
    return pl.when(FAILED).then(pl.concat_str(failed, tries)).when(LEFT).then(left).otherwise(pl.concat_str(answered, took, tries, tokens))


def _text(column: str, otherwise: str) -> pl.Expr:
    return pl.col(column).cast(pl.String).fill_null(otherwise)


def export_rows(part: Rows, limit: int = EXPORT_ROWS) -> pl.DataFrame:
    """Return the newest calls with every column that the pages know, for a file."""
    return (
        newest(part, lambda rows: rows, limit)
        .with_columns(pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC"))
        .sort("at")
    )
