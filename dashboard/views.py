"""What the pages show: frames of calls in, numbers and tables out. Nothing here knows Streamlit.

Latency is that of live calls that succeeded: a replayed answer says nothing about a model, and a failure has no answer to time.
Every function takes a ``Slice``: the calls of the window, those of the window before, and everything that passes the filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dashboard import words
from dashboard.selection import Selection, step_for
from toolkit import stats

__all__ = [
    "ERROR_KINDS",
    "SCHEMA",
    "TIERS",
    "Estimate",
    "Slice",
    "Summary",
    "affected_calls",
    "biggest_change",
    "cache_by_model",
    "cache_over_time",
    "cache_totals",
    "count_calls",
    "cut",
    "ecdf",
    "error_groups",
    "error_messages",
    "errors_over_time",
    "hit_share_over_time",
    "latency_by_model",
    "latency_over_time",
    "percentile",
    "share",
    "slowest_calls",
    "summary",
    "timing_parts",
    "traffic",
]

SCHEMA: dict[str, Any] = {  # values are polars data types, classes and instances alike
    "at": pl.Float64,
    "call_id": pl.String,
    "run_id": pl.Categorical,
    "provider": pl.Categorical,
    "label": pl.Categorical,
    "operation": pl.Categorical,
    "prompt_id": pl.String,
    "status": pl.Categorical,
    "error_type": pl.Categorical,
    "error_fingerprint": pl.Categorical,
    "error_message": pl.String,
    "provenance": pl.Categorical,
    "cache_tier": pl.Categorical,
    "attempts": pl.Int32,
    "lookup_s": pl.Float64,
    "limiter_wait_s": pl.Float64,
    "retry_sleep_s": pl.Float64,
    "failed_attempts_s": pl.Float64,
    "latency_s": pl.Float64,
    "total_s": pl.Float64,
    "ttft_s": pl.Float64,
    "output_tokens_per_s": pl.Float64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "saved_usd": pl.Float64,
    "saved_s": pl.Float64,
}
UNKNOWN_ERROR = "(no fingerprint)"
BUCKETS = 96
POINTS = 1500  # more than that in one chart is slow to draw, and no screen shows it
TIERS = ("memory", "disk", "redis")

OK = pl.col("status") == "ok"
FAILED = pl.col("status") == "error"
LIVE = OK & (pl.col("provenance") == "live")
REPLAYED = OK & (pl.col("provenance") == "replayed")
COALESCED = OK & (pl.col("provenance") == "coalesced")


@dataclass(frozen=True, slots=True)
class Slice:
    """The calls a page is about; ``before`` is empty where the window is everything there is."""

    calls: pl.DataFrame
    before: pl.DataFrame
    everything: pl.DataFrame
    selection: Selection


class Estimate(NamedTuple):
    """A number with its 95 % interval; what can't be had is ``None``, with the reason in ``note``."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One window in a few numbers. ``cost_usd`` is of the calls whose price is known; ``unpriced`` counts the other live ones."""

    calls: int
    per_minute: float
    errors: Estimate
    p50_s: Estimate
    p95_s: Estimate
    cost_usd: float | None
    unpriced: int
    hits: Estimate


_NO_CALLS = Estimate(None, None, None, 0, "no calls")


def cut(frame: pl.DataFrame, selection: Selection) -> Slice:
    """Return the part of a journal's calls that a selection is about."""
    everything = _filtered(frame, selection)
    before = everything.clear() if selection.whole else _between(everything, selection.before())
    return Slice(_between(everything, selection), before, everything, selection)


def count_calls(part: Slice) -> int:
    """Return how many calls the window holds."""
    return part.calls.height


def _filtered(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    chosen = {
        "provider": selection.providers,
        "label": selection.models,
        "run_id": selection.runs,
        "provenance": selection.provenances,
        "status": selection.statuses,
    }
    keep = [pl.col(column).is_in(list(values)) for column, values in chosen.items() if values]
    return frame.filter(*keep) if keep else frame


def _between(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    return frame.filter(pl.col("at").is_between(selection.lo_s, selection.hi_s, closed="left"))


# Estimates


def percentile(values: pl.Series, q: float) -> Estimate:
    """Return a percentile with its interval; ``note`` says why the value, or a bound of it, can't be had from so few values."""
    known = values.drop_nulls().to_numpy()
    n, need = len(known), stats.percentile_min_n(q)
    if n < need:
        return Estimate(None, None, None, n, f"p{100 * q:g} needs {need} live calls, has {n}")
    interval = stats.percentile_interval(known, q)
    note = f"p{100 * q:g}: {interval.note}" if interval.note else ""
    return Estimate(stats.percentile(known, q), _bound(interval.low), _bound(interval.high), n, note)


def share(k: int, n: int) -> Estimate:
    """Return ``k / n`` with Wilson's interval."""
    if not n:
        return _NO_CALLS
    interval = stats.wilson_interval(k, n)
    return Estimate(k / n, interval.low, interval.high, n)


def _bound(value: float) -> float | None:
    return None if math.isnan(value) else value


# Overview


def summary(part: Slice) -> tuple[Summary, Summary]:
    """Return the window and the window before it in a few numbers."""
    minutes = part.selection.width_s / 60
    return _summary(part.calls, minutes), _summary(part.before, minutes)


def _summary(calls: pl.DataFrame, minutes: float) -> Summary:
    latency = calls.filter(LIVE)["latency_s"]
    counts = calls.select(
        failed=FAILED.sum(), live=LIVE.sum(), replayed=REPLAYED.sum(), unpriced=(LIVE & pl.col("cost_usd").is_null()).sum()
    ).row(0, named=True)
    return Summary(
        calls=calls.height,
        per_minute=calls.height / minutes,
        errors=share(counts["failed"], calls.height),
        p50_s=percentile(latency, 0.5),
        p95_s=percentile(latency, 0.95),
        cost_usd=_sum(calls["cost_usd"]),
        unpriced=counts["unpriced"],
        hits=share(counts["replayed"], counts["replayed"] + counts["live"]),
    )


def _sum(values: pl.Series) -> float | None:
    known = values.drop_nulls()
    return float(known.sum()) if len(known) else None


class Change(NamedTuple):
    """How one number of one model moved; ``size`` orders changes of different kinds: the logarithm of the ratio."""

    size: float
    sentence: str


def biggest_change(part: Slice) -> str:
    """Return one sentence on what moved most against the window before, counting only moves beyond chance (intervals apart)."""
    if part.selection.whole:
        return "Everything there is, so there is nothing before it to compare with."
    if part.before.is_empty():
        return "There are no calls in the window before this one to compare with."
    changes = [change for model in _models(part.calls) for change in _changes(model, _of(part.calls, model), _of(part.before, model))]
    if not changes:
        return "No model's p95 latency, error share or cache hit share moved beyond chance against the window before."
    return max(changes).sentence


def _models(calls: pl.DataFrame) -> list[str]:
    return calls["label"].drop_nulls().unique().cast(pl.String).sort().to_list()


def _of(calls: pl.DataFrame, model: str) -> pl.DataFrame:
    return calls.filter(pl.col("label") == model)


def _changes(model: str, calls: pl.DataFrame, before: pl.DataFrame) -> Iterable[Change]:
    now, then = _summary(calls, 1), _summary(before, 1)
    pairs = (
        (f"p95 latency of {model}", then.p95_s, now.p95_s, words.duration),
        (f"error share of {model}", then.errors, now.errors, words.percent),
        (f"cache hit share of {model}", then.hits, now.hits, words.percent),
    )
    for name, was, is_now, written in pairs:
        if _apart(was, is_now):
            verb = "rose" if (is_now.value or 0) > (was.value or 0) else "fell"
            said = f"The {name} {verb} from {written(was.value)} to {written(is_now.value)} (n = {was.n} and {is_now.n})."
            yield Change(_ratio(was, is_now), said)


def _apart(a: Estimate, b: Estimate) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.high < b.low or b.high < a.low


def _ratio(a: Estimate, b: Estimate) -> float:
    """Size of a move; a share of 0 is taken as the far end of its interval, or every first error would be infinitely large."""
    return abs(math.log((b.value or b.high or 1) / (a.value or a.high or 1)))


def traffic(part: Slice) -> pl.DataFrame:
    """Return one row a time bucket, quiet buckets too: calls a minute by outcome, error share, p50 and p95 of live calls."""
    step_s = _step(part.calls, part.selection, BUCKETS // 2)
    per_minute, complete = 60 / step_s, ~pl.col("partial").first()
    latency = pl.col("latency_s").filter(LIVE)
    n_live = latency.count()
    found = (
        _bucketed(part, step_s)
        .group_by("start_s")
        .agg(
            pl.col("partial").first(),
            live=LIVE.sum() * per_minute,
            replayed=REPLAYED.sum() * per_minute,
            coalesced=COALESCED.sum() * per_minute,
            failed=FAILED.sum() * per_minute,
            n=pl.len(),
            n_live=n_live,
            errors=pl.when(complete).then(FAILED.mean()),
            p50_s=pl.when(complete & (n_live >= stats.percentile_min_n(0.5))).then(latency.quantile(0.5, "linear")),
            p95_s=pl.when(complete & (n_live >= stats.percentile_min_n(0.95))).then(latency.quantile(0.95, "linear")),
        )
    )
    counted = ("live", "replayed", "coalesced", "failed", "n", "n_live")
    return _every_bucket(found, step_s).with_columns(pl.col(*counted).fill_null(0), pl.col("partial").fill_null(False)).sort("start_s")


# Time buckets


def _step(calls: pl.DataFrame, selection: Selection, points: int) -> float:
    """Return the width of a bucket in seconds: fine enough for the calls' own span, which may be seconds of a day."""
    if calls.is_empty():
        return step_for(selection.width_s, points)
    low, high = calls.select(low=pl.col("at").min(), high=pl.col("at").max()).row(0)
    return step_for(high - low, points)


def _bucketed(part: Slice, step_s: float, keep: pl.Expr | bool = True) -> pl.DataFrame:
    """Return the calls to keep with the start of their bucket, and whether the window's edge cuts that bucket.

    A ``partial`` bucket holds only some of its calls: lines leave it out, bars are drawn pale.
    """
    window, start = part.selection, pl.col("start_s")
    cut_off = (start < window.lo_s) | (start + step_s > window.hi_s) if not window.whole else pl.lit(False)
    return part.calls.filter(keep).with_columns(start_s=(pl.col("at") / step_s).floor() * step_s).with_columns(partial=cut_off)


def _every_bucket(found: pl.DataFrame, step_s: float) -> pl.DataFrame:
    if found.is_empty():
        return found
    low, high = found.select(low=pl.col("start_s").min(), high=pl.col("start_s").max()).row(0)
    numbers = pl.int_range(round(low / step_s), round(high / step_s) + 1, eager=True)
    # The same product as in _bucketed, so that the floats of both sides are equal.
    return pl.DataFrame({"start_s": numbers.cast(pl.Float64) * step_s}).join(found, on="start_s", how="left")


# Latency


def latency_by_model(part: Slice) -> pl.DataFrame:
    """Return one row a model, slowest first: live calls ``n``, percentiles with intervals in seconds, and why one is missing."""
    rows = [_latency_row(model, _of(part.calls.filter(LIVE), model)) for model in _models(part.calls.filter(LIVE))]
    table = pl.DataFrame(rows, schema=_LATENCY_SCHEMA, orient="row")
    return table.sort(pl.coalesce("p95_s", "p50_s"), descending=True, nulls_last=True)


_LATENCY_SCHEMA: dict[str, Any] = {
    "label": pl.String,
    "n": pl.Int64,
    "p50_s": pl.Float64,
    "p50_low_s": pl.Float64,
    "p50_high_s": pl.Float64,
    "p95_s": pl.Float64,
    "p95_low_s": pl.Float64,
    "p95_high_s": pl.Float64,
    "p99_s": pl.Float64,
    "ttft_p50_s": pl.Float64,
    "tokens_per_s": pl.Float64,
    "note": pl.String,
}


def _latency_row(model: str, calls: pl.DataFrame) -> tuple[Any, ...]:
    p50, p95, p99 = (percentile(calls["latency_s"], q) for q in (0.5, 0.95, 0.99))
    ttft = percentile(calls["ttft_s"], 0.5)
    note = "; ".join(estimate.note for estimate in (p50, p95, p99) if estimate.note)
    speed = calls["output_tokens_per_s"].median()
    return (model, p50.n, p50.value, p50.low, p50.high, p95.value, p95.low, p95.high, p99.value, ttft.value, speed, note)


def latency_over_time(part: Slice, q: float) -> pl.DataFrame:
    """Return ``label start_s end_s n value_s`` of one percentile, leaving out buckets with too few live calls to have it.

    The step grows until the middle model's buckets hold enough calls.
    """
    live, enough = part.calls.filter(LIVE), stats.percentile_min_n(q)
    models = max(1, live["label"].n_unique())
    typical = live.group_by("label").len()["len"].median() if live.height else 0
    points = int(min(BUCKETS, POINTS // models, max(4, float(typical or 0) / enough / 2)))  # type: ignore[arg-type]
    step_s = _step(live, part.selection, points)
    return (
        _bucketed(part, step_s, LIVE)
        .filter(~pl.col("partial"))
        .group_by("label", "start_s")
        .agg(n=pl.len(), value_s=pl.col("latency_s").quantile(q, "linear"))
        .filter(pl.col("n") >= enough)
        .select(pl.col("label").cast(pl.String), "start_s", (pl.col("start_s") + step_s).alias("end_s"), "n", "value_s")
        .sort("label", "start_s")
    )


def ecdf(part: Slice) -> pl.DataFrame:
    """Return ``label latency_s share``: which share of a model's live calls took at most so long; at most 1,500 points in all."""
    live = part.calls.filter(LIVE)
    models = _models(live)
    frames = [_steps(model, _of(live, model)["latency_s"].drop_nulls(), POINTS // len(models)) for model in models]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"label": pl.String, "latency_s": pl.Float64, "share": pl.Float64})


def _steps(model: str, values: pl.Series, points: int) -> pl.DataFrame:
    ordered, n = values.sort(), len(values)
    ranks = np.unique(np.linspace(1, n, min(n, points)).round().astype(int)) if n else np.array([], dtype=int)
    return pl.DataFrame({"latency_s": ordered.gather(ranks - 1), "share": ranks / max(n, 1)}).select(
        pl.lit(model).alias("label"), "latency_s", "share"
    )


CALL_COLUMNS = (
    "at", "call_id", "label", "status", "provenance", "attempts", "latency_s", "ttft_s", "total_s", "input_tokens", "output_tokens",
    "cost_usd", "error_type",
)  # fmt: skip


def slowest_calls(part: Slice, model: str, lo_s: float | None = None, hi_s: float | None = None, limit: int = 200) -> pl.DataFrame:
    """Return a model's slowest live calls, slowest first, of the whole window or of one bucket."""
    low = part.selection.lo_s if lo_s is None else lo_s
    high = part.selection.hi_s if hi_s is None else hi_s
    chosen = part.calls.filter(LIVE, pl.col("label") == model, pl.col("at").is_between(low, high, closed="left"))
    return chosen.select(CALL_COLUMNS).top_k(limit, by="latency_s").sort("latency_s", descending=True)


def timing_parts(call: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return where one call's time went, in order, parts of zero left out. The good attempt is split at its first token."""
    latency, ttft = call["latency_s"] or 0.0, call["ttft_s"]
    first = min(ttft, latency) if ttft is not None else 0.0
    parts = (
        ("Cache lookup", call["lookup_s"]),
        ("Waiting for the limiter", call["limiter_wait_s"]),
        ("Failed attempts", call["failed_attempts_s"]),
        ("Waiting to retry", call["retry_sleep_s"]),
        ("To the first token", first),
        ("Rest of the answer" if first else "Answer", latency - first),
        ("Reader of the stream", call["consumer_s"]),
    )
    return [(name, float(seconds)) for name, seconds in parts if seconds and seconds > 0]


# Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTotals:
    """Answers by where they came from; hits are replayed answers among replayed and live ones."""

    live: int
    replayed: int
    coalesced: int
    hits: Estimate
    saved_usd: float | None
    saved_s: float | None
    live_p50_s: Estimate
    lookup_p50_s: Estimate


def cache_totals(part: Slice) -> CacheTotals:
    """Return the window's answers by provenance and what replaying saved."""
    live, replayed = part.calls.filter(LIVE), part.calls.filter(REPLAYED)
    return CacheTotals(
        live=live.height,
        replayed=replayed.height,
        coalesced=part.calls.filter(COALESCED).height,
        hits=share(replayed.height, replayed.height + live.height),
        saved_usd=_sum(replayed["saved_usd"]),
        saved_s=_sum(replayed["saved_s"]),
        live_p50_s=percentile(live["latency_s"], 0.5),
        lookup_p50_s=percentile(replayed["lookup_s"], 0.5),
    )


def cache_by_model(part: Slice) -> pl.DataFrame:
    """Return one row a model: answers by tier, hit share with interval, what was saved, live latency against lookup time (medians)."""
    counts = (
        part.calls.filter(OK)
        .group_by("label")
        .agg(
            live=LIVE.sum(),
            replayed=REPLAYED.sum(),
            coalesced=COALESCED.sum(),
            **{tier: (REPLAYED & (pl.col("cache_tier") == tier)).sum() for tier in TIERS},
            saved_usd=pl.when(pl.col("saved_usd").filter(REPLAYED).count() > 0).then(pl.col("saved_usd").filter(REPLAYED).sum()),
            saved_s=pl.col("saved_s").filter(REPLAYED).sum(),
            live_p50_s=pl.col("latency_s").filter(LIVE).median(),
            lookup_p50_s=pl.col("lookup_s").filter(REPLAYED).median(),
        )
        .with_columns(pl.col("label").cast(pl.String))
        .sort("replayed", "label", descending=[True, False])
    )
    hits = [share(replayed, replayed + live) for replayed, live in counts.select("replayed", "live").rows()]
    columns = {"hit_share": [hit.value for hit in hits], "hit_low": [hit.low for hit in hits], "hit_high": [hit.high for hit in hits]}
    return counts.with_columns(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items())


def cache_over_time(part: Slice) -> pl.DataFrame:
    """Return ``start_s partial source n share``: what share of a bucket's live and replayed answers came from where."""
    source = pl.when(REPLAYED).then(pl.coalesce(pl.col("cache_tier").cast(pl.String), pl.lit("memory"))).otherwise(pl.lit("live"))
    step_s = _step(part.calls, part.selection, BUCKETS // 2)
    return (
        _bucketed(part, step_s, LIVE | REPLAYED)
        .group_by("start_s", "partial", source.alias("source"))
        .agg(n=pl.len())
        .with_columns(share=pl.col("n") / pl.col("n").sum().over("start_s"))
        .sort("start_s", "source")
    )


def hit_share_over_time(part: Slice) -> pl.DataFrame:
    """Return ``label start_s n share``: cache hits of a model among its live and replayed answers."""
    models = max(1, part.calls["label"].n_unique())
    step_s = _step(part.calls, part.selection, min(BUCKETS // 2, POINTS // models))
    return (
        _bucketed(part, step_s, LIVE | REPLAYED)
        .filter(~pl.col("partial"))
        .group_by("label", "start_s")
        .agg(n=pl.len(), share=REPLAYED.mean())
        .with_columns(pl.col("label").cast(pl.String))
        .sort("label", "start_s")
    )


# Errors

_KINDS = {"RateLimitError": "rate limit (429)", "ProviderTimeoutError": "timeout"}
OTHER = "other"
ERROR_KINDS = (*_KINDS.values(), OTHER)


def errors_over_time(part: Slice) -> pl.DataFrame:
    """Return ``start_s partial kind n``: failed calls a bucket, with rate limits and timeouts apart from the rest."""
    kind = pl.col("error_type").cast(pl.String).replace_strict(_KINDS, default=OTHER)
    step_s = _step(part.calls, part.selection, BUCKETS // 2)
    return _bucketed(part, step_s, FAILED).group_by("start_s", "partial", kind.alias("kind")).agg(n=pl.len()).sort("start_s", "kind")


def error_groups(part: Slice, points: int = 24) -> pl.DataFrame:
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
        part.everything.filter(FAILED, pl.col("at") < window.hi_s)
        .group_by(_fingerprint())
        .agg(
            type=pl.col("error_type").cast(pl.String).last(),
            n=inside.sum(),
            total=pl.len(),
            models=pl.col("label").n_unique(),
            first_s=pl.col("at").min(),
            last_s=pl.col("at").max(),
            message=pl.col("error_message").sort_by("at").last(),
            times=pl.col("at").filter(inside),
        )
        .with_columns(state=state)
        .sort("n", "last_s", descending=True)
    )
    edges = np.linspace(window.lo_s, window.hi_s, points + 1)
    trends = [np.histogram(times.to_numpy(), edges)[0].tolist() for times in groups["times"]]
    return groups.drop("times").with_columns(pl.Series("trend", trends, dtype=pl.List(pl.Int64)))


def _fingerprint() -> pl.Expr:
    return pl.col("error_fingerprint").cast(pl.String).fill_null(UNKNOWN_ERROR).alias("fingerprint")


def error_messages(part: Slice, fingerprint: str, limit: int = 20) -> pl.DataFrame:
    """Return the wordings of one group, most frequent first: ``message n last_s``."""
    return (
        part.everything.filter(FAILED, _fingerprint() == fingerprint)
        .group_by(pl.col("error_message").fill_null("(no message)").alias("message"))
        .agg(n=pl.len(), last_s=pl.col("at").max())
        .sort("n", "last_s", descending=True)
        .head(limit)
    )


def affected_calls(part: Slice, fingerprint: str, limit: int = 200) -> pl.DataFrame:
    """Return the newest calls that failed with one fingerprint."""
    return (
        part.everything.filter(FAILED, _fingerprint() == fingerprint).select(CALL_COLUMNS).top_k(limit, by="at").sort("at", descending=True)
    )
