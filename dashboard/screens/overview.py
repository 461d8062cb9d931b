"""Rate, errors, duration, cost and cache at a glance, each against the window before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import figures, views, words
from dashboard.page import ask, download, header, nothing_here, panel, timeline
from dashboard.views import Estimate, Summary

DeltaColour = Literal["normal", "inverse", "off"]


def tiles() -> None:
    now, was = ask(views.summary)
    table = ask(views.traffic).filter(~pl.col("partial"))
    name, latency, latency_was = _latency(now, was)
    rate = table.select(pl.sum_horizontal("live", "replayed", "coalesced", "failed", "left").alias("all"))["all"]
    row = iter(st.columns(5))
    tile(next(row), "Calls a minute", f"{now.per_minute:.3g}", words.change(now.per_minute, was.per_minute), rate, "off")
    tile(next(row), "Errors", words.percent(now.errors.value), words.points(now.errors.value, was.errors.value), table["errors"], "inverse")
    spark = table["p95_s" if name.startswith("p95") else "p50_s"]
    tile(next(row), name, words.duration(latency.value), words.change(latency.value, latency_was.value), spark, "inverse")
    dollars = words.escape(words.dollars(now.cost_per_hour))
    tile(next(row), "Cost an hour", dollars, words.change(now.cost_per_hour, was.cost_per_hour), table["cost_per_hour"], "inverse")
    tile(next(row), "Cache hits", words.percent(now.hits.value), words.points(now.hits.value, was.hits.value), table["hits"], "normal")
    st.caption(words.escape(_intervals(now, name, latency)))
    st.text(ask(views.biggest_change))  # plain text, not Markdown: a model's name is in it


def tile(column: DeltaGenerator, label: str, value: str, delta: str | None, spark: pl.Series, colour: DeltaColour) -> None:
    points = spark.drop_nulls().to_list()
    column.metric(
        label,
        value,
        delta,
        delta_color=colour,
        border=True,
        height="stretch",
        chart_data=points if len(points) > 1 else None,
        chart_type="area",
    )


def _latency(now: Summary, was: Summary) -> tuple[str, Estimate, Estimate]:
    """The p95, or the median where there are too few calls for a p95."""
    if now.p95_s.value is None:
        return "p50 latency", now.p50_s, was.p50_s
    return "p95 latency", now.p95_s, was.p95_s


def _intervals(now: Summary, name: str, latency: Estimate) -> str:
    said = [
        f"95 % intervals: errors {_range(now.errors, words.percent)}",
        f"{name} {_range(latency, words.duration)}",
        f"cache hits {_range(now.hits, words.percent)}",
    ]
    left = f"{words.plural(now.left, 'stream')} left by the reader, neither answered nor failed" if now.left else ""
    notes = [
        note
        for note in (
            now.p95_s.note,
            left,
            f"cost {words.dollars(now.cost_usd)} in all" if now.cost_usd else "",
            f"cost leaves out {words.plural(now.unpriced, 'live call')} of unknown price" if now.unpriced else "",
        )
        if note
    ]
    return " · ".join(said + notes) + "."


def _range(estimate: Estimate, written: Callable[[float | None], str]) -> str:
    if estimate.low is None and estimate.high is None:
        return f"none (n = {words.count(estimate.n)})"
    ends = f"{written(estimate.low)} to {written(estimate.high)}" if estimate.high is not None else f"at least {written(estimate.low)}"
    return f"{ends} (n = {words.count(estimate.n)})"


def trends() -> None:
    table = ask(views.traffic)
    with panel("Rate"):
        timeline(figures.traffic(table), "rate", "Calls a minute over time, stacked by outcome: live, replayed, coalesced, left, failed")
    left, right = st.columns(2)
    with left, panel("Errors"):
        timeline(figures.share(table, "errors"), "error-share", "Share of failed calls over time")
    with right, panel("Duration"):
        timeline(figures.series(table, {"p50_s": "p50", "p95_s": "p95"}), "duration", "p50 and p95 latency of live calls over time")
    st.caption(
        "Drag over a part of a chart to see only that time, on every page. Times are UTC. Pale bars reach over the window's edge and hold only part of their calls; lines leave those out. Duration is that of "
        "live calls that succeeded; a p95 needs 20 of them in a time bucket."
    )


header("Overview", tiles)
if not nothing_here():
    with panel():
        trends()
    with panel():
        download("overview", lambda: ask(views.traffic))
