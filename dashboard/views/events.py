"""Calls as lines of a log: newest first, with a level, to be searched."""

from __future__ import annotations

import polars as pl

from dashboard.cells import FAILED, LEFT
from dashboard.views.slices import Rows

__all__ = ["LEVELS", "export_rows", "log_lines"]

LEVELS = ("error", "warn", "info")
EXPORT_ROWS = 200_000


def log_lines(part: Rows, levels: tuple[str, ...], search: str, limit: int = 500) -> pl.DataFrame:
    """Return ``at level label line call_id``, newest first.

    An error is a failed call; a warning one that was retried, or whose reader left its stream; everything else is information.
    ``search`` is looked for, as it is and in any case, in the line, the model, the prompt's id, the run and the call's id.
    """
    keep = [_LEVEL.is_in(list(levels))] if levels else []
    if search:
        words = pl.concat_str(_line(), *(_text(column, "") for column in ("label", "call_id", "run_id", "prompt_id")), separator=" ")
        keep.append(words.str.to_lowercase().str.contains(search.lower(), literal=True))
    found = newest(part, part.rows.filter(*keep).select(_READ), limit)
    return found.select("at", _LEVEL.alias("level"), pl.col("label").cast(pl.String), _line().alias("line"), "call_id")


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


def newest(part: Rows, rows: pl.LazyFrame, limit: int) -> pl.DataFrame:
    """Return the newest rows, newest first, looking at the end of the window first: it is often enough, and old days are slow to read."""
    window = part.selection
    for share in (1 / 256, 1 / 16):
        found = rows.filter(pl.col("at") >= window.hi_s - share * window.width_s).collect()
        if found.height >= limit:
            break
    else:
        found = rows.collect()
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
        newest(part, part.rows, limit)
        .with_columns(pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC"))
        .sort("at")
    )
