"""What breaks: failures in groups by fingerprint, over time, and the calls behind them."""

from __future__ import annotations

import numpy as np
import polars as pl

from dashboard.cells import FAILED
from dashboard.views.latency import CALL_COLUMNS
from dashboard.views.slices import BUCKETS, Failures, Rows, Slice, bucketed, step_of

__all__ = ["ERROR_KINDS", "UNKNOWN_ERROR", "affected_calls", "error_groups", "error_messages", "errors_over_time", "retries"]

UNKNOWN_ERROR = "(no fingerprint)"
_KINDS = {"RateLimitError": "rate limit (429)", "ProviderTimeoutError": "timeout"}
OTHER = "other"
ERROR_KINDS = (*_KINDS.values(), OTHER)


def errors_over_time(part: Slice) -> pl.DataFrame:
    """Return ``start_s partial kind n``: failed calls a bucket, with rate limits and timeouts apart from the rest."""
    kind = pl.col("error_type").cast(pl.String).replace_strict(_KINDS, default=OTHER)
    failed = bucketed(part, part.calls.counts.filter(FAILED), step_of(part, BUCKETS // 2))
    return failed.group_by("start_s", "partial", kind.alias("kind")).agg(pl.col("n").sum()).sort("start_s", "kind")


def retries(part: Slice) -> tuple[int, int]:
    """Return how many attempts came after a call's first, and how many calls failed all the same."""
    asked = part.calls.counts.filter(pl.col("attempts_known") > 0, pl.col("attempts") > 0)
    again = int(asked["attempts"].sum()) - int(asked["n"].sum())
    return max(again, 0), int(part.calls.counts.filter(FAILED)["n"].sum())


def error_groups(part: Failures, points: int = 24) -> pl.DataFrame:
    """Return one row a fingerprint, the window's most frequent first: type, state, counts, models, first and last seen, trend.

    The state is ``new`` where the first one ever fell into the window, ``ongoing`` where there were some before and in it,
    ``quiet`` where there were only some before, and ``seen`` where the window is everything there is. ``trend`` counts the window's
    errors in equal parts.
    """
    window = part.selection
    inside = pl.col("at").is_between(window.lo_s, window.hi_s, closed="left")
    state = (
        pl.when(pl.lit(window.whole)).then(pl.lit("seen"))
        .when(pl.col("first_s") >= window.lo_s).then(pl.lit("new"))
        .when(pl.col("n") > 0).then(pl.lit("ongoing"))
        .otherwise(pl.lit("quiet"))
    )  # fmt: skip
    groups = (
        part.counts.filter(pl.col("at") < window.hi_s)
        .group_by(_fingerprint())
        .agg(
            pl.col("n").filter(inside).sum(),
            type=pl.col("error_type").cast(pl.String).last(),
            total=pl.col("n").sum(),
            models=pl.col("label").n_unique(),
            first_s=pl.col("first_s").min(),
            last_s=pl.col("last_s").max(),
            times=pl.col("at").filter(inside),
            weights=pl.col("n").filter(inside),
        )
        .with_columns(state=state)
        .sort("n", "last_s", descending=True)
    )
    edges = np.linspace(window.lo_s, window.hi_s, points + 1)
    trends = [np.histogram(times, edges, weights=n)[0].astype(int).tolist() for times, n in groups.select("times", "weights").iter_rows()]
    return groups.drop("times", "weights").with_columns(pl.Series("trend", trends, dtype=pl.List(pl.Int64)))


def _fingerprint() -> pl.Expr:
    return pl.col("error_fingerprint").cast(pl.String).fill_null(UNKNOWN_ERROR).alias("fingerprint")


def _of_group(part: Rows, fingerprint: str) -> pl.LazyFrame:
    mark = pl.col("error_fingerprint")
    return part.rows.filter(FAILED, mark.is_null() if fingerprint == UNKNOWN_ERROR else mark == fingerprint)


def error_messages(part: Rows, fingerprint: str, limit: int = 20) -> pl.DataFrame:
    """Return the wordings of one group, most frequent first: ``message n last_s``."""
    return (
        _of_group(part, fingerprint)
        .group_by(pl.col("error_message").fill_null("(no message)").alias("message"))
        .agg(n=pl.len(), last_s=pl.col("at").max())
        .sort("n", "last_s", descending=True)
        .head(limit)
        .collect()
    )


def affected_calls(part: Rows, fingerprint: str, limit: int = 200) -> pl.DataFrame:
    """Return the newest calls that failed with one fingerprint."""
    return _of_group(part, fingerprint).select(CALL_COLUMNS).collect().top_k(limit, by="at").sort("at", descending=True)
