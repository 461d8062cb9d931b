"""Which services answer: what the newest calls of each say. Nobody is asked."""

from __future__ import annotations

import polars as pl

from dashboard.cells import FAILED, LIVE
from dashboard.views.slices import Slice

__all__ = ["provider_health"]


def provider_health(part: Slice) -> pl.DataFrame:
    """Return ``provider state models asked failed error_share answered_s failed_s``, those that fail first.

    ``asked`` counts the calls that went to the service and ended, ``answered_s`` and ``failed_s`` are when the newest of either kind began.
    The state is ``fails`` where the newest one failed, ``answers`` where it did not, and ``not asked`` where all came from the cache.
    """
    answered_s, failed_s = (pl.col("last_s").filter(kind).max() for kind in (LIVE, FAILED))
    state = (
        pl.when(pl.col("asked") == 0).then(pl.lit("not asked"))
        .when(pl.col("failed_s").fill_null(0.0) > pl.col("answered_s").fill_null(0.0)).then(pl.lit("fails"))
        .otherwise(pl.lit("answers"))
    )  # fmt: skip
    return (
        part.calls.counts.group_by(pl.col("provider").cast(pl.String))
        .agg(
            models=pl.col("label").n_unique(),
            asked=pl.col("n").filter(LIVE | FAILED).sum(),
            failed=pl.col("n").filter(FAILED).sum(),
            answered_s=answered_s,
            failed_s=failed_s,
        )
        .with_columns(state=state, error_share=pl.when(pl.col("asked") > 0).then(pl.col("failed") / pl.col("asked")))
        .sort(pl.col("state") != "fails", "provider")
        .select("provider", "state", "models", "asked", "failed", "error_share", "answered_s", "failed_s")
    )
