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
    level = pl.when(FAILED).then(pl.lit("error")).when(LEFT | (pl.col("attempts") > 1)).then(pl.lit("warn")).otherwise(pl.lit("info"))
    lines = part.rows.select(
        "at", level.alias("level"), pl.col("label").cast(pl.String), _line().alias("line"), "call_id", "run_id", "prompt_id"
    )
    if levels:
        lines = lines.filter(pl.col("level").is_in(list(levels)))
    if search:
        everything = pl.concat_str(pl.col("line", "label", "call_id", "run_id", "prompt_id").cast(pl.String).fill_null(""), separator=" ")
        lines = lines.filter(everything.str.to_lowercase().str.contains(search.lower(), literal=True))
    found = lines.top_k(limit, by="at").collect()
    return found.select("at", "level", "label", "line", "call_id").sort("at", descending=True)


def _line() -> pl.Expr:
    failed = pl.format("{}: {}", _text("error_type", "Error"), _text("error_message", "(no message)"))
    replayed = pl.format("replayed from {}", _text("cache_tier", "cache"))
    answered = pl.when(pl.col("provenance") == "replayed").then(replayed).otherwise(_text("provenance", "answered"))
    took = pl.format(" in {} ms", (pl.col("total_s") * 1e3).round_sig_figs(3).fill_null(0.0))
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
        part.rows.top_k(limit, by="at")
        .collect()
        .with_columns(pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC"))
        .sort("at")
    )
