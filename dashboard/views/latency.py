"""How long live calls take: percentiles over time and by model, the distribution, and where one call's time went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from dashboard.cells import LIVE, quantile, with_clusters
from dashboard.views.slices import BUCKETS, POINTS, Rows, Slice, bucketed, by_label, percentile, step_of
from toolkit import stats
from toolkit.stats.checks import t_quantile

__all__ = [
    "CALL_COLUMNS",
    "SIZES",
    "ecdf",
    "ecdf_before",
    "heatmap",
    "latency_by_model",
    "latency_by_size",
    "latency_over_time",
    "slowest_calls",
    "thin",
    "timing_parts",
]

CALL_COLUMNS = (
    "at", "call_id", "label", "status", "provenance", "attempts", "latency_s", "ttft_s", "total_s", "input_tokens", "output_tokens",
    "cost_usd", "error_type",
)  # fmt: skip
SIZES = ("up to 100", "100 to 1k", "1k to 10k", "10k to 100k", "over 100k", "unknown")
"""Classes of prompts by how many tokens the service counted in them."""

HEAT_ROWS = 30
_SIZE_EDGES = (100, 1_000, 10_000, 100_000)
_Z = 1.959964  # of a 95 % interval


def latency_by_model(part: Slice) -> pl.DataFrame:
    """Return one row a model, slowest first: live calls ``n``, percentiles with intervals in seconds, and why one is missing."""
    ttft, speed = by_label(part.calls.levels("ttft_s")), by_label(part.calls.levels("output_tokens_per_s"))
    rows = [
        _latency_row(model, values, ttft.get(model), speed.get(model)) for model, values in by_label(part.calls.levels("latency_s")).items()
    ]
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


def _latency_row(model: str, values: pl.DataFrame, ttft: pl.DataFrame | None, speed: pl.DataFrame | None) -> tuple[Any, ...]:
    p50, p95, p99 = (percentile(values, q) for q in (0.5, 0.95, 0.99))
    note = "; ".join(estimate.note for estimate in (p50, p95, p99) if estimate.note)
    first = None if ttft is None else percentile(ttft, 0.5).value
    tokens = None if speed is None else speed.select(quantile(0.5)).item()
    return (model, p50.n, p50.value, p50.low, p50.high, p95.value, p95.low, p95.high, p99.value, first, tokens, note)


def latency_by_size(part: Slice, q: float) -> pl.DataFrame:
    """Return one row a model and class of prompt length: live calls ``n``, percentiles with intervals in seconds, and why one is missing.

    ``value_s low_s high_s`` are those of the percentile asked for. There are no rows where calls are not counted one by one, for cells know
    nothing of prompts, nor where all prompts are of one class.
    """
    if not part.calls.exact:
        return pl.DataFrame(schema=_SIZE_SCHEMA)
    live = with_clusters(part.calls.counts.filter(LIVE, pl.col("latency_s").is_not_null())).with_columns(size=_SIZE).sort("latency_s")
    if live.filter(pl.col("input_tokens").is_not_null())["size"].n_unique() < 2:
        return pl.DataFrame(schema=_SIZE_SCHEMA)
    # These medians all at once: one by one they would take as long as a percentile with its interval.
    enough = pl.col("ttft_s").count() >= stats.percentile_min_n(0.5)
    ttft = live.group_by("label", "size").agg(pl.when(enough).then(pl.col("ttft_s").median()))
    firsts = {(model, size): first_s for model, size, first_s in ttft.iter_rows()}
    parts = live.select("label", "size", "n", pl.col("^cluster$"), value="latency_s").partition_by("label", "size", as_dict=True)
    rows = [_size_row(model, size, values, q, firsts[model, size]) for (model, size), values in sorted(parts.items())]
    return pl.DataFrame(rows, schema=_SIZE_SCHEMA, orient="row")


_SIZE_SCHEMA: dict[str, Any] = {
    "label": pl.String, "size": pl.String, "n": pl.Int64, "p50_s": pl.Float64, "p50_low_s": pl.Float64, "p50_high_s": pl.Float64, "p95_s": pl.Float64,
    "p95_low_s": pl.Float64, "p95_high_s": pl.Float64, "ttft_p50_s": pl.Float64, "note": pl.String, "value_s": pl.Float64, "low_s": pl.Float64,
    "high_s": pl.Float64,
}  # fmt: skip


_PASSED = pl.sum_horizontal((pl.col("input_tokens") > edge).cast(pl.Int64) for edge in _SIZE_EDGES)
_SIZE = pl.when(pl.col("input_tokens").is_null()).then(len(_SIZE_EDGES) + 1).otherwise(_PASSED)  # the number of a class in SIZES


def _size_row(model: str, size: int, values: pl.DataFrame, q: float, ttft_s: float | None) -> tuple[Any, ...]:
    found = {level: percentile(values, level) for level in {0.5, 0.95, q}}
    note = "; ".join(found[level].note for level in (0.5, 0.95) if found[level].note)
    return (model, SIZES[size], values.height, *found[0.5][:3], *found[0.95][:3], ttft_s, note, *found[q][:3])


def latency_over_time(part: Slice, q: float) -> pl.DataFrame:
    """Return ``label start_s end_s n value_s low_s high_s`` of one percentile, leaving out buckets with too few live calls to have it.

    The step grows until the middle model's buckets hold enough calls. The interval's ends are values whose ranks lie as far out as the
    normal approximation of the binomial says, and no less than the prompts say where several calls asked the same; an end beyond the values
    is missing.
    """
    live, enough = part.calls.values("latency_s"), stats.percentile_min_n(q)
    per_model = live.group_by("label").agg(pl.col("n").sum())["n"]
    points = int(min(BUCKETS, POINTS // max(1, len(per_model)), max(4, float(per_model.median() or 0) / enough / 2)))  # type: ignore[arg-type]
    step_s = step_of(part, points)
    n = pl.col("n").sum().cast(pl.Float64)
    reach = pl.max_horizontal(_Z * (n * q * (1 - q)).sqrt(), pl.col("reach").first())
    low, high = (n * q - reach).floor(), (n * q + reach).ceil() + 1
    upto = pl.col("n").cum_sum()
    return (
        _with_reach(bucketed(part, live, step_s).filter(~pl.col("partial")), q)
        .group_by("label", "start_s")
        .agg(
            pl.col("n").sum(),
            value_s=quantile(q),
            low_s=pl.when(low >= 1).then(pl.col("value").filter(upto >= low).first()),
            high_s=pl.when(high <= n).then(pl.col("value").filter(upto >= high).first()),
        )
        .filter(pl.col("n") >= enough)
        .with_columns(pl.col("label").cast(pl.String), (pl.col("start_s") + step_s).alias("end_s"))
        .select("label", "start_s", "end_s", "n", "value_s", "low_s", "high_s")
        .sort("label", "start_s")
    )


def _with_reach(live: pl.DataFrame, q: float) -> pl.DataFrame:
    """Add ``reach``: how many ranks to both sides of a bucket's percentile its interval goes for the prompts' sake; 0 where each is asked once."""
    bucket = ("label", "start_s")
    if "cluster" not in live.columns:
        return live.with_columns(reach=0.0)
    below = (pl.col("value") <= quantile(q).over(bucket)).cast(pl.Float64)
    prompts = (
        live.with_columns(off=below)
        .with_columns(pl.col("off") - pl.col("off").mean().over(bucket))
        .group_by(*bucket, "cluster")
        .agg(pl.col("off").sum(), pl.len().alias("calls"))
        .group_by(bucket)
        .agg(pl.len().alias("prompts"), pl.col("calls").sum(), (pl.col("off") ** 2).sum().alias("squares"))
    )
    g = pl.col("prompts")
    # As stats.percentile_interval has it, but that one prompt alone bounds nothing.
    t = {number: t_quantile(0.95, number - 1) if number > 1 else math.inf for number in prompts["prompts"].unique()}
    wide = g.replace_strict(t, return_dtype=pl.Float64) * (g / (g - 1) * pl.col("squares")).sqrt()
    reach = pl.when(g == pl.col("calls")).then(0.0).when(g < 2).then(math.inf).otherwise(wide)
    return live.join(prompts.select(*bucket, reach=reach), on=bucket, how="left", maintain_order="left")


def ecdf(part: Slice) -> pl.DataFrame:
    """Return ``label latency_s share``: which share of a model's live calls took at most so long; at most 750 points in all."""
    return _distribution(part.calls.levels("latency_s"))


def ecdf_before(part: Slice) -> pl.DataFrame:
    """Return the same of the calls compared with."""
    return _distribution(part.before.levels("latency_s"))


def _distribution(values: pl.DataFrame) -> pl.DataFrame:
    models = by_label(values)
    frames = [thin(model, rows, POINTS // 2 // len(models)) for model, rows in models.items()]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"label": pl.String, "latency_s": pl.Float64, "share": pl.Float64})


def thin(model: str, values: pl.DataFrame, points: int) -> pl.DataFrame:
    """Thin a distribution to steps that are about equally high, its ends kept."""
    upto = values["n"].cum_sum().to_numpy()
    ranks = np.unique(np.linspace(1, upto[-1], min(int(upto[-1]), points)).round())
    rows = np.unique(np.searchsorted(upto, ranks))
    steps = pl.DataFrame({"latency_s": values["value"].gather(rows), "share": upto[rows] / upto[-1]})
    return steps.select(pl.lit(model).alias("label"), "latency_s", "share")


def heatmap(part: Slice) -> pl.DataFrame:
    """Return ``start_s low_s high_s n share``: how a time bucket's live calls spread over logarithmic classes of latency."""
    values = part.calls.values("latency_s")
    schema = {"start_s": pl.Float64, "low_s": pl.Float64, "high_s": pl.Float64, "n": pl.UInt32, "share": pl.Float64}
    if values.is_empty():
        return pl.DataFrame(schema=schema)
    step_s = step_of(part, BUCKETS // 2)
    low, high = (max(1e-6, float(edge)) for edge in values.select(low=pl.col("value").min(), high=pl.col("value").max()).row(0))
    width = max(math.log(high / low), 0.1) / HEAT_ROWS
    level = ((pl.col("value").clip(1e-6) / low).log() / width).floor().clip(0, HEAT_ROWS - 1)
    return (
        bucketed(part, values, step_s)
        .filter(~pl.col("partial"))
        .group_by("start_s", level.alias("level"))
        .agg(pl.col("n").sum())
        .with_columns(
            low_s=low * (pl.col("level") * width).exp(),
            high_s=low * ((pl.col("level") + 1) * width).exp(),
            share=pl.col("n") / pl.col("n").sum().over("start_s"),
        )
        .select(*schema)
        .sort("start_s", "low_s")
    )


def slowest_calls(part: Rows, model: str, lo_s: float | None = None, hi_s: float | None = None, limit: int = 200) -> pl.DataFrame:
    """Return a model's slowest live calls, slowest first, of the whole window or of one bucket."""
    low = part.selection.lo_s if lo_s is None else lo_s
    high = part.selection.hi_s if hi_s is None else hi_s
    of_model = (pl.col("status") == "ok", pl.col("provenance") == "live", pl.col("label") == model)
    chosen = part.rows.filter(*of_model, pl.col("at").is_between(low, high, closed="left"))
    slow_s = chosen.select("latency_s").collect()["latency_s"].top_k(limit).min()  # first one column of all, then all columns of few
    found = chosen.filter(pl.col("latency_s") >= (slow_s or 0.0)).select(CALL_COLUMNS).collect()
    return found.top_k(limit, by="latency_s").sort("latency_s", descending=True)


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
