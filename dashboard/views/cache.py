"""What the cache answers, how fast, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from dashboard.cells import COALESCED, LIVE, OK, REPLAYED, quantile
from dashboard.selection import Selection, step_for
from dashboard.views.latency import thin
from dashboard.views.slices import BUCKETS, POINTS, Estimate, Slice, bucketed, edge_cuts, percentile, share, step_of, total

__all__ = [
    "TIERS", "CacheTotals", "cache_by_model", "cache_fill_over_time", "cache_losses_over_time", "cache_over_time", "cache_tiers", "cache_totals",
    "hit_share_over_time", "hits_against_misses",
]  # fmt: skip

TIERS = ("memory", "disk", "redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTotals:
    """Answers by where they came from; hits are replayed answers among replayed and live ones."""

    live: int
    replayed: int
    coalesced: int
    hits: Estimate
    hits_before: Estimate
    saved_usd: float | None
    saved_s: float | None
    replayed_bytes: int | None
    live_p50_s: Estimate
    lookup_p50_s: Estimate


def cache_totals(part: Slice) -> CacheTotals:
    """Return the window's answers by provenance and what replaying saved."""
    n = pl.col("n")
    found = part.calls.counts.select(
        live=n.filter(LIVE).sum(),
        replayed=n.filter(REPLAYED).sum(),
        coalesced=n.filter(COALESCED).sum(),
        saved_usd=total("saved_usd", REPLAYED),
        saved_s=total("saved_s", REPLAYED),
        replayed_bytes=total("answer_bytes", REPLAYED),
    ).row(0, named=True)
    then = part.before.counts.select(live=n.filter(LIVE).sum(), replayed=n.filter(REPLAYED).sum()).row(0, named=True)
    return CacheTotals(
        **found,
        hits=share(found["replayed"], found["replayed"] + found["live"]),
        hits_before=share(then["replayed"], then["replayed"] + then["live"]),
        live_p50_s=percentile(part.calls.levels("latency_s"), 0.5),
        lookup_p50_s=percentile(part.calls.levels("lookup_s"), 0.5),
    )


def cache_by_model(part: Slice) -> pl.DataFrame:
    """Return one row a model: answers by tier, hit share with interval, what was saved, live latency against lookup time (medians)."""
    n = pl.col("n")
    counts = (
        part.calls.counts.filter(OK)
        .group_by("label")
        .agg(
            live=n.filter(LIVE).sum(),
            replayed=n.filter(REPLAYED).sum(),
            coalesced=n.filter(COALESCED).sum(),
            **{tier: n.filter(REPLAYED & (pl.col("cache_tier") == tier)).sum() for tier in TIERS},
            saved_usd=total("saved_usd", REPLAYED),
            saved_s=pl.col("saved_s").filter(REPLAYED).sum(),
        )
        .join(_median(part, "latency_s", "live_p50_s"), on="label", how="left")
        .join(_median(part, "lookup_s", "lookup_p50_s"), on="label", how="left")
        .with_columns(pl.col("label").cast(pl.String))
        .sort("replayed", "label", descending=[True, False])
    )
    hits = [share(replayed, replayed + live) for replayed, live in counts.select("replayed", "live").rows()]
    columns = {"hit_share": [hit.value for hit in hits], "hit_low": [hit.low for hit in hits], "hit_high": [hit.high for hit in hits]}
    return counts.with_columns(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items())


def _median(part: Slice, measure: str, name: str) -> pl.DataFrame:
    return part.calls.levels(measure).group_by("label").agg(quantile(0.5).alias(name))


def hits_against_misses(part: Slice) -> pl.DataFrame:
    """Return ``source latency_s share``: how long look-ups that hit took, and live answers."""
    sources = {"cache hit (look-up)": part.calls.levels("lookup_s"), "miss (live answer)": part.calls.levels("latency_s")}
    frames = [
        thin(name, rows.filter(pl.col("value") > 0), POINTS // 4).rename({"label": "source"})
        for name, rows in sources.items()
        if rows.filter(pl.col("value") > 0).height
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"source": pl.String, "latency_s": pl.Float64, "share": pl.Float64})


def cache_over_time(part: Slice) -> pl.DataFrame:
    """Return ``start_s partial source n share``: what share of a bucket's live and replayed answers came from where."""
    source = pl.when(REPLAYED).then(pl.coalesce(pl.col("cache_tier").cast(pl.String), pl.lit("memory"))).otherwise(pl.lit("live"))
    return (
        bucketed(part, part.calls.counts.filter(LIVE | REPLAYED), step_of(part, BUCKETS // 2))
        .group_by("start_s", "partial", source.alias("source"))
        .agg(pl.col("n").sum())
        .with_columns(share=pl.col("n") / pl.col("n").sum().over("start_s"))
        .sort("start_s", "source")
    )


def hit_share_over_time(part: Slice) -> pl.DataFrame:
    """Return ``label start_s n share``: cache hits of a model among its live and replayed answers."""
    models = max(1, part.calls.counts["label"].n_unique())
    step_s = step_of(part, min(BUCKETS // 2, POINTS // models))
    n = pl.col("n")
    return (
        bucketed(part, part.calls.counts.filter(LIVE | REPLAYED), step_s)
        .filter(~pl.col("partial"))
        .group_by("label", "start_s")
        .agg(n.sum(), share=n.filter(REPLAYED).sum() / n.sum())
        .with_columns(pl.col("label").cast(pl.String))
        .sort("label", "start_s")
    )


# States of caches


def cache_tiers(states: pl.DataFrame) -> pl.DataFrame:
    """Return one row a cache and tier: how full it was when a process last looked, and what happened to it in the window.

    ``full`` is the share of the limit that is used, of entries or of bytes, whichever is limited.
    """
    full = pl.coalesce(pl.col("entries") / pl.col("max_entries"), pl.col("size_bytes") / pl.col("max_bytes"))
    return (
        states.sort("at", "row")
        .group_by("cache", "tier", maintain_order=True)
        .agg(
            pl.col("entries", "max_entries", "size_bytes", "max_bytes").last(),
            pl.col("hits", "misses").sum(),
            *(pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in ("evictions", "expirations")),
            processes=pl.col("process").n_unique(),
            last_s=pl.col("at").max(),
        )
        .with_columns(full=full)
        .sort("cache", "tier")
    )


def cache_fill_over_time(states: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return ``name start_s entries size_bytes``: the fullest state of a tier in each time bucket."""
    placed = _placed(states, selection).filter(pl.col("entries").is_not_null())
    return placed.group_by("name", "start_s").agg(pl.col("entries", "size_bytes").max()).sort("name", "start_s")


def cache_losses_over_time(states: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return ``kind start_s partial n``: entries evicted and expired in each time bucket, where there were any."""
    found = _placed(states, selection).group_by("start_s", "partial").agg(pl.col("evictions", "expirations").sum())
    kinds = found.rename({"evictions": "evicted", "expirations": "expired"}).unpivot(
        index=["start_s", "partial"], variable_name="kind", value_name="n"
    )
    return kinds.filter(pl.col("n") > 0).sort("start_s", "kind")


def _placed(states: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return states with the name of their tier, and the bucket of time they fall into."""
    low, high = states.select(low=pl.col("at").min(), high=pl.col("at").max()).row(0)
    step_s = step_for((high or 0.0) - (low or 0.0), BUCKETS // 2)
    start = (pl.col("at") / step_s).floor() * step_s
    return states.with_columns(name=pl.format("{} · {}", "cache", "tier"), start_s=start).with_columns(partial=edge_cuts(selection, step_s))
