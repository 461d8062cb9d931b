"""What live calls cost: by model, by day, and what a month of such days would."""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl

from dashboard.cells import LIVE, REPLAYED
from dashboard.selection import Selection
from dashboard.views.slices import Slice, bucketed, total
from toolkit import stats

__all__ = ["DAY_S", "MONTH_DAYS", "Forecast", "cost_by_day", "cost_by_model", "cost_forecast", "days_before"]

DAY_S = 86_400.0
MONTH_DAYS = 30
_MOST_DAYS = 28
_FEWEST_DAYS = 3


class Forecast(NamedTuple):
    """What the next 30 days would cost if they were like the last ``days``; the interval is one for such a sum, not for a mean."""

    usd: float | None
    low_usd: float | None
    high_usd: float | None
    days: int
    note: str = ""


def cost_by_model(part: Slice) -> pl.DataFrame:
    """Return one row a model, dearest first: cost in dollars, live calls, and the prices per 1,000 calls and per million tokens.

    Both prices are over live calls whose cost is known; ``unpriced`` counts the others.
    """
    live = part.calls.counts.filter(LIVE).with_columns(
        priced_in=pl.when(pl.col("cost_usd_known") > 0).then(pl.col("input_tokens")),
        priced_out=pl.when(pl.col("cost_usd_known") > 0).then(pl.col("output_tokens")),
    )
    saved = part.calls.counts.filter(REPLAYED).group_by("label").agg(saved_usd=total("saved_usd"))
    known = pl.col("priced")
    tokens = pl.col("input_tokens") + pl.col("output_tokens")
    return (
        live.group_by("label")
        .agg(
            pl.col("n").sum(),
            priced=pl.col("cost_usd_known").sum(),
            cost_usd=total("cost_usd"),
            input_tokens=pl.col("priced_in").sum(),
            output_tokens=pl.col("priced_out").sum(),
        )
        .join(saved, on="label", how="left")
        .with_columns(
            pl.col("label").cast(pl.String),
            unpriced=pl.col("n") - known,
            usd_per_1k_calls=pl.when(known > 0).then(pl.col("cost_usd") / known * 1e3),
            usd_per_1m_tokens=pl.when(tokens > 0).then(pl.col("cost_usd") / tokens * 1e6),
        )
        .sort("cost_usd", "label", descending=[True, False], nulls_last=True)
    )


def cost_by_day(part: Slice) -> pl.DataFrame:
    """Return ``label start_s partial cost_usd n``: one row a model and day (UTC)."""
    days = bucketed(part, part.calls.counts.filter(LIVE), DAY_S)
    return (
        days.group_by("label", "start_s", "partial")
        .agg(pl.col("n").sum(), cost_usd=total("cost_usd"))
        .with_columns(pl.col("label").cast(pl.String))
        .sort("start_s", "label")
    )


def days_before(selection: Selection, now_s: float) -> Selection:
    """Return the whole days that a forecast is made from: at most 28, up to the last midnight (UTC)."""
    midnight = math.floor(now_s / DAY_S) * DAY_S
    return selection._replace(lo_s=midnight - _MOST_DAYS * DAY_S, hi_s=midnight, whole=False, against=None)


def cost_forecast(part: Slice) -> Forecast:
    """Return what 30 days cost that are like the window's, from the first day with a call on.

    The interval is Student's prediction interval of a sum of future days that are independent and alike (Hahn and Meeker, "Statistical
    Intervals", 1991, section 4.8): a weekly rhythm or a trend is not in it.
    """
    daily = part.calls.counts.filter(LIVE).group_by((pl.col("at") / DAY_S).floor().alias("day")).agg(total("cost_usd").alias("usd"))
    if not daily["usd"].count():
        return Forecast(None, None, None, 0, "no call of known price on a whole day before today")
    first, last = int(daily["day"].min()), int(part.selection.hi_s // DAY_S)  # type: ignore[arg-type]  # polars can't say that it is a number
    known = dict(daily.select("day", "usd").rows())
    days = [known.get(float(day)) or 0.0 for day in range(first, last)]
    usd = math.fsum(days) / len(days) * MONTH_DAYS
    if len(days) < _FEWEST_DAYS:
        return Forecast(usd, None, None, len(days), f"an interval needs {_FEWEST_DAYS} whole days")
    mean = stats.mean_interval(days)
    # The half-width of a mean is t·s/√n; that of a sum of m future days t·s·√(m + m²/n).
    half = (mean.high - mean.low) / 2 * math.sqrt(len(days)) * math.sqrt(MONTH_DAYS + MONTH_DAYS**2 / len(days))
    return Forecast(usd, max(0.0, usd - half), usd + half, len(days))
