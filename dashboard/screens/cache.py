"""What the cache answers, and what that saves."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.page import ask, chart, download, drawn_models, header, nothing_here, panel, say_left_out, shown, table


def tiles() -> None:
    totals = ask(views.cache_totals)
    row = iter(st.columns(5))
    moved = words.points(totals.hits.value, totals.hits_before.value)
    help_ = "Replayed answers among replayed and live ones."
    next(row).metric("Cache hits", words.percent(totals.hits.value), moved, border=True, help=help_)
    next(row).metric("Replayed", words.count(totals.replayed), border=True)
    next(row).metric(
        "Coalesced", words.count(totals.coalesced), border=True, help="Joined an equal call already under way; in no share on this page."
    )
    next(row).metric(
        "Money saved",
        words.escape(words.dollars(totals.saved_usd)),
        border=True,
        help="What the replayed answers cost when they were live.",
    )
    next(row).metric(
        "Time saved", words.duration(totals.saved_s), border=True, help="How long the replayed answers took when they were live."
    )
    st.caption(words.escape("; ".join(_said(totals)) + "."))


def _said(totals: views.CacheTotals) -> Iterator[str]:
    live = words.plural(totals.live, "live answer")
    yield live if totals.live_p50_s.value is None else f"{live}, half of them within {words.duration(totals.live_p50_s.value)}"
    if totals.lookup_p50_s.value is not None:
        yield f"half of the look-ups that hit within {words.duration(totals.lookup_p50_s.value)}"
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


def size() -> None:
    """What is known of the cache itself: the journal has its hits, the disk its size."""
    totals = ask(views.cache_totals)
    held = data.cache_size_bytes()
    on_disk = f"{words.size(held)} on disk" if held is not None else "nothing on disk"
    served = words.size(totals.replayed_bytes) if totals.replayed_bytes is not None else "an unknown amount"
    st.caption(
        f"The cache of this machine holds {on_disk}; it replayed {served} of answers in the window. Entries and evictions are counted by each "
        "process and are not in the journal:"
    )
    st.code("toolkit cache stats", language=None)


header("Cache", tiles)
if not nothing_here():
    left, right = st.columns(2)
    with left, panel("Hit share by model"):
        chart(
            figures.hit_share(ask(views.hit_share_over_time).filter(pl.col("label").is_in(drawn_models())), shown().models),
            "hits",
            "Cache hit share over time, one line a model",
        )
        say_left_out()
    with right, panel("Where answers came from"):
        sources = ("live", *views.TIERS)
        chart(
            figures.cache_sources(ask(views.cache_over_time), sources),
            "sources",
            "Share of answers over time by source: live, memory, disk, redis",
        )
    left, right = st.columns(2)
    with left, panel("Hits against misses"):
        found = ask(views.hits_against_misses)
        chart(figures.hits_against_misses(found), "hit-times", "Cumulative share of look-ups that hit, and of live answers, by time taken")
    with right, panel("Size and evictions"):
        size()
    with panel("By model"):
        by_model()
        download("cache", lambda: ask(views.cache_by_model))
