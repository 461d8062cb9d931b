"""What the cache answers, and what that saves."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.page import ask, chart, download, drawn_models, empty, header, nothing_here, panel, say_left_out, shown, table, timeline


def tiles() -> None:
    totals = ask(views.cache_totals)
    row = iter(st.columns(5))
    moved = words.points(totals.hits.value, totals.hits_before.value)
    help_ = "Replayed answers among replayed and live ones."
    next(row).metric("Cache hits", words.percent(totals.hits.value), moved, border=True, height="stretch", help=help_)
    next(row).metric("Replayed", words.count(totals.replayed), border=True, height="stretch")
    next(row).metric(
        "Coalesced",
        words.count(totals.coalesced),
        border=True,
        height="stretch",
        help="Joined an equal call already under way; in no share on this page.",
    )
    next(row).metric(
        "Money saved",
        words.escape(words.dollars(totals.saved_usd)),
        border=True,
        height="stretch",
        help="What the replayed answers cost when they were live.",
    )
    next(row).metric(
        "Time saved",
        words.duration(totals.saved_s),
        border=True,
        height="stretch",
        help="How long the replayed answers took when they were live.",
    )
    st.caption(words.escape("; ".join(_said(totals)) + "."))


def _said(totals: views.CacheTotals) -> Iterator[str]:
    live = words.plural(totals.live, "live answer")
    yield live if totals.live_p50_s.value is None else f"{live}, half of them within {words.duration(totals.live_p50_s.value)}"
    if totals.lookup_p50_s.value is not None:
        yield f"half of the look-ups that hit within {words.duration(totals.lookup_p50_s.value)}"
    if totals.replayed_bytes is not None:
        yield f"{words.size(totals.replayed_bytes)} of answers replayed"
    if totals.hits.value is not None:
        yield f"95 % interval of the hit share {_interval(totals.hits.low, totals.hits.high)}"


def by_model() -> None:
    found = ask(views.cache_by_model)
    used = [tier for tier in views.TIERS if found[tier].sum()]
    drawn = found.select(
        pl.col("label").alias("model"),
        "hit_share",
        pl.Series("interval", [_interval(*ends) for ends in found.select("hit_low", "hit_high").rows()], dtype=pl.String),
        "live", *used, "coalesced",
        pl.col("saved_usd").alias("saved ($)"),
        pl.col("saved_s").round_sig_figs(3).alias("saved (s)"),
        (pl.col("live_p50_s") * 1e3).round_sig_figs(3).alias("live p50 (ms)"),
        (pl.col("lookup_p50_s") * 1e3).round_sig_figs(3).alias("look-up p50 (ms)"),
    )  # fmt: skip
    share = st.column_config.ProgressColumn("hit share", format="percent", min_value=0, max_value=1)
    money = st.column_config.NumberColumn(format="$%.4f")
    table(drawn, "by-model", "Cache by model: hit share, answers by tier, savings, latency", {"hit_share": share, "saved ($)": money})


def _interval(low: float | None, high: float | None) -> str:
    return words.UNKNOWN if low is None else f"{words.percent(low)} to {words.percent(high)}"


def tiers() -> None:
    """How full caches are and what they had to let go: what the processes that write the journal say of theirs."""
    found = data.ask_cache_states(views.cache_tiers, shown().selection)
    if found.is_empty():
        held = data.cache_size_bytes()
        on_disk = f"The cache of this machine holds {words.size(held)} on disk. " if held is not None else ""
        empty(
            f"{on_disk}No process that writes this journal said in this window how full its caches are: they do so when calls end, at most every 30 s. "
            "This command looks now:",
            "toolkit cache stats",
        )
        return
    left, right = st.columns(2)
    with left, panel("Entries"):
        fill = data.ask_cache_states(views.cache_fill_over_time, shown().selection, shown().selection)
        newest = ", ".join(f"{name} {words.count(rows['entries'][-1])}" for (name,), rows in fill.group_by("name", maintain_order=True))
        timeline(figures.cache_fill(fill), "fill", f"Entries of each cache and tier over time, newest: {newest}")
        st.caption("The fullest state in each time bucket. A memory tier is each process's own; the disk is shared on its machine.")
    with right, panel("Evictions and expirations"):
        losses = data.ask_cache_states(views.cache_losses_over_time, shown().selection, shown().selection)
        if losses.is_empty():
            st.caption("Nothing was evicted and nothing expired in this window.")
        else:
            timeline(figures.cache_losses(losses), "losses", "Entries evicted and expired over time")
            st.caption("Evicted: the tier was full. Expired: their time was over.")
    with panel("By cache and tier"):
        tier_table(found)


def tier_table(found: pl.DataFrame) -> None:
    drawn = found.select(
        "cache",
        "tier",
        "full",
        "entries",
        pl.col("max_entries").alias("entries at most"),
        (pl.col("size_bytes") / 1e6).round_sig_figs(3).alias("size (MB)"),
        (pl.col("max_bytes") / 1e6).alias("size at most (MB)"),
        pl.col("evictions").alias("evicted"),
        pl.col("expirations").alias("expired"),
        "hits",
        "misses",
        "processes",
        pl.from_epoch(pl.col("last_s") * 1e6, time_unit="us").dt.replace_time_zone("UTC").alias("last look (UTC)"),
    )
    columns = {
        "full": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        "last look (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
        **{
            name: st.column_config.NumberColumn(format="localized")
            for name, kind in drawn.schema.items()
            if kind.is_numeric() and name != "full"
        },
    }
    alt = "Caches and their tiers: how full, entries, size, evicted, expired, hits and misses"
    table(drawn.select(column for column in drawn if column.null_count() < drawn.height), "tiers", alt, columns)
    st.caption(
        "Entries and size as the process that looked last found them; evicted, expired, hits and misses are those of the window, of all processes. "
        "Filters of calls don't apply here: an entry belongs to no call."
    )


header("Cache", tiles)
if not nothing_here():
    left, right = st.columns(2)
    with left, panel("Where answers came from"):
        sources = ("live", *views.TIERS)
        timeline(
            figures.cache_sources(ask(views.cache_over_time), sources),
            "sources",
            "Share of answers over time by source: live, memory, disk, redis",
        )
    with right, panel("Hits against misses"):
        found = ask(views.hits_against_misses)
        chart(figures.hits_against_misses(found), "hit-times", "Cumulative share of look-ups that hit, and of live answers, by time taken")
    with panel("Hit share by model"):
        timeline(
            figures.hit_share(ask(views.hit_share_over_time).filter(pl.col("label").is_in(drawn_models())), shown().models),
            "hits",
            "Cache hit share over time, one line a model",
        )
        say_left_out()
    with panel("Size, evictions and expirations"):
        tiers()
    with panel("By model"):
        by_model()
        download("cache", lambda: ask(views.cache_by_model))
