"""One window in a few numbers, against the calls compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from dashboard import words
from dashboard.cells import COALESCED, FAILED, LEFT, LIVE, OK, REPLAYED, Calls, quantile
from dashboard.views.slices import BUCKETS, Estimate, Slice, bucketed, by_label, every_bucket, percentile, share, step_of, total
from toolkit import stats
from toolkit.monitor.alerts import Tally

__all__ = ["Summary", "biggest_change", "busiest_models", "count_calls", "count_models", "is_exact", "summary", "tally", "traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One window in a few numbers. ``cost_usd`` is of the calls whose price is known; ``unpriced`` counts the other live ones.

    ``errors`` is the share of failed calls among those that ended one way or the other: a stream that its reader left is in neither.
    """

    calls: int
    per_minute: float
    errors: Estimate
    left: int
    p50_s: Estimate
    p95_s: Estimate
    cost_usd: float | None
    cost_per_hour: float | None
    unpriced: int
    hits: Estimate


def count_calls(part: Slice) -> int:
    """Return how many calls the window holds."""
    return part.calls.n


def count_models(part: Slice) -> int:
    """Return how many models the window's calls name."""
    return part.calls.counts["label"].drop_nulls().n_unique()


def busiest_models(part: Slice, most: int = 7) -> tuple[str, ...]:
    """Return the models with the most calls, by name."""
    counts = part.calls.counts.drop_nulls("label").group_by(pl.col("label").cast(pl.String)).agg(pl.col("n").sum())
    return tuple(counts.sort("n", "label", descending=[True, False]).head(most)["label"].sort())


def is_exact(part: Slice) -> bool:
    """Return whether every call is counted by itself."""
    return part.calls.exact


def summary(part: Slice) -> tuple[Summary, Summary]:
    """Return the window and what it is compared with in a few numbers."""
    other = part.selection.other() or part.selection
    return _summary(part.calls, part.selection.width_s), _summary(part.before, other.width_s)


def _summary(calls: Calls, width_s: float) -> Summary:
    return _told(calls.counts, calls.levels("latency_s"), width_s)


def _told(counts: pl.DataFrame, latency: pl.DataFrame, width_s: float) -> Summary:
    n = pl.col("n")
    found = counts.select(
        calls=n.sum(),
        ended=n.filter(OK | FAILED).sum(),
        failed=n.filter(FAILED).sum(),
        left=n.filter(LEFT).sum(),
        live=n.filter(LIVE).sum(),
        replayed=n.filter(REPLAYED).sum(),
        unpriced=(n - pl.col("cost_usd_known")).filter(LIVE).sum(),
        cost_usd=total("cost_usd"),
    ).row(0, named=True)
    cost_usd = found["cost_usd"]
    return Summary(
        calls=found["calls"],
        per_minute=found["calls"] / width_s * 60,
        errors=share(found["failed"], found["ended"]),
        left=found["left"],
        p50_s=percentile(latency, 0.5),
        p95_s=percentile(latency, 0.95),
        cost_usd=cost_usd,
        cost_per_hour=None if cost_usd is None else cost_usd / width_s * 3600,
        unpriced=found["unpriced"],
        hits=share(found["replayed"], found["replayed"] + found["live"]),
    )


class Change(NamedTuple):
    """How one number of one model moved; ``size`` orders changes of different kinds: the logarithm of the ratio."""

    size: float
    sentence: str


def biggest_change(part: Slice) -> str:
    """Return one sentence on what moved most, counting only moves beyond chance (intervals apart)."""
    if part.selection.against is None:
        reason = "it is everything there is" if part.selection.whole else "nothing was chosen to compare with"
        return f"What changed most can't be said: {reason}."
    name = part.selection.against.name
    if part.before.counts.is_empty():
        return f"There are no calls in {name} to compare with."
    now, then = _by_model(part.calls), _by_model(part.before)
    changes = [change for model in now.keys() & then.keys() for change in _changes(model, now[model], then[model])]
    if not changes:
        return f"No model's p95 latency, error share or cache hit share moved beyond chance against {name}."
    return max(changes).sentence


def _by_model(calls: Calls) -> dict[str, Summary]:
    latency = by_label(calls.levels("latency_s"))
    nothing = calls.levels("latency_s").clear()
    return {model: _told(counts, latency.get(model, nothing), 60) for model, counts in by_label(calls.counts).items()}


def _changes(model: str, now: Summary, then: Summary) -> Iterable[Change]:
    pairs = (
        (f"p95 latency of {model}", then.p95_s, now.p95_s, words.duration),
        (f"error share of {model}", then.errors, now.errors, words.percent),
        (f"cache hit share of {model}", then.hits, now.hits, words.percent),
    )
    for name, was, is_now, written in pairs:
        if _apart(was, is_now):
            verb = "rose" if (is_now.value or 0) > (was.value or 0) else "fell"
            said = f"The {name} {verb} from {written(was.value)} to {written(is_now.value)} (n = {was.n:,} and {is_now.n:,})."
            yield Change(_ratio(was, is_now), said)


def _apart(a: Estimate, b: Estimate) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.high < b.low or b.high < a.low


def _ratio(a: Estimate, b: Estimate) -> float:
    """Size of a move; a share of 0 is taken as the far end of its interval, or every first error would be infinitely large."""
    return abs(math.log((b.value or b.high or 1) / (a.value or a.high or 1)))


def traffic(part: Slice) -> pl.DataFrame:
    """Return one row a time bucket, quiet buckets too: calls a minute by outcome, error share, p50 and p95 of live calls, dollars an hour."""
    step_s = step_of(part, BUCKETS // 2)
    per_minute, whole, n = 60 / step_s, ~pl.col("partial").first(), pl.col("n")
    counts = (
        bucketed(part, part.calls.counts, step_s)
        .group_by("start_s")
        .agg(
            pl.col("partial").first(),
            live=n.filter(LIVE).sum() * per_minute,
            replayed=n.filter(REPLAYED).sum() * per_minute,
            coalesced=n.filter(COALESCED).sum() * per_minute,
            failed=n.filter(FAILED).sum() * per_minute,
            left=n.filter(LEFT).sum() * per_minute,
            n=n.sum(),
            errors=pl.when(whole & (n.filter(OK | FAILED).sum() > 0)).then(n.filter(FAILED).sum() / n.filter(OK | FAILED).sum()),
            hits=pl.when(whole & (n.filter(LIVE | REPLAYED).sum() > 0)).then(n.filter(REPLAYED).sum() / n.filter(LIVE | REPLAYED).sum()),
            cost_per_hour=pl.when(whole).then(total("cost_usd")) * (3600 / step_s),
        )
    )
    values = bucketed(part, part.calls.values("latency_s"), step_s).filter(~pl.col("partial")).group_by("start_s")
    latency = values.agg(n.sum().alias("n_live"), p50_s=_if_enough(0.5), p95_s=_if_enough(0.95))
    counted = ("live", "replayed", "coalesced", "failed", "left", "n", "n_live")
    found = every_bucket(counts.join(latency, on="start_s", how="left"), step_s)
    return found.with_columns(pl.col(*counted).fill_null(0), pl.col("partial").fill_null(False)).sort("start_s")


def _if_enough(q: float) -> pl.Expr:
    return pl.when(pl.col("n").sum() >= stats.percentile_min_n(q)).then(quantile(q))


def tally(calls: Calls) -> Tally:
    """Return calls in the numbers that alert rules ask for."""
    told, n = _summary(calls, 3600), pl.col("n")
    live, replayed = calls.counts.select(n.filter(LIVE).sum().alias("live"), n.filter(REPLAYED).sum().alias("replayed")).row(0)
    ended, failed = told.errors.n, round((told.errors.value or 0) * told.errors.n)

    def level(q: float) -> float:
        value = percentile(calls.levels("latency_s"), q).value
        return math.nan if value is None else value

    return Tally(ended=ended, failed=failed, live=live, replayed=replayed, cost_usd=told.cost_usd or 0.0, percentile=level)
