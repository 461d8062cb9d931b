"""Rate, errors, duration, cost and cache at a glance, each against the window before."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import figures, views, words
from dashboard.page import ask, chart, header, nothing_here, panel
from dashboard.views import Estimate, Summary


def tiles() -> None:
    now, was = ask(views.summary)
    name, latency, latency_was = _latency(now, was)
    row = iter(st.columns(6))
    next(row).metric("Calls", words.count(now.calls), words.change(now.calls, was.calls), delta_color="off", border=True)
    next(row).metric(
        "Calls a minute", f"{now.per_minute:.3g}", words.change(now.per_minute, was.per_minute), delta_color="off", border=True
    )
    next(row).metric(
        "Errors", words.percent(now.errors.value), words.points(now.errors.value, was.errors.value), delta_color="inverse", border=True
    )
    next(row).metric(
        name, words.duration(latency.value), words.change(latency.value, latency_was.value), delta_color="inverse", border=True
    )
    next(row).metric(
        "Cost", words.escape(words.dollars(now.cost_usd)), words.change(now.cost_usd, was.cost_usd), delta_color="inverse", border=True
    )
    next(row).metric("Cache hits", words.percent(now.hits.value), words.points(now.hits.value, was.hits.value), border=True)
    st.caption(words.escape(_intervals(now, name, latency)))
    st.text(ask(views.biggest_change))  # plain text, not Markdown: a model's name is in it


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
    notes = [
        note
        for note in (now.p95_s.note, f"cost leaves out {words.plural(now.unpriced, 'live call')} of unknown price" if now.unpriced else "")
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
    left, middle, right = st.columns(3)
    with left, panel("Rate"):
        chart(figures.traffic(table), "rate", "Calls a minute over time, stacked by outcome: live, replayed, coalesced, failed")
    with middle, panel("Errors"):
        chart(figures.share(table, "errors"), "error-share", "Share of failed calls over time")
    with right, panel("Duration"):
        chart(figures.series(table, {"p50_s": "p50", "p95_s": "p95"}), "duration", "p50 and p95 latency of live calls over time")
    st.caption(
        "Times are UTC. Pale bars reach over the window's edge and hold only part of their calls; lines leave those out. Duration is that of "
        "live calls that succeeded; a p95 needs 20 of them in a time bucket."
    )


header("Overview")
if not nothing_here():
    with panel():
        tiles()
    with panel():
        trends()
