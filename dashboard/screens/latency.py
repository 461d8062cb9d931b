"""How long models take: percentiles over time and by model, the distribution, and the slow calls behind a number."""

from __future__ import annotations

import polars as pl
import streamlit as st

from dashboard import figures, views, words
from dashboard.detail import list_calls
from dashboard.page import ask, chart, choose_row, clickable, empty, header, nothing_here, panel, shown
from toolkit import stats

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def over_time() -> tuple[str, float, float] | None:
    """Draw the lines; return the model and bucket of the chosen point."""
    name = st.segmented_control("Percentile", list(PERCENTILES), default="p50", required=True, key="q", bind="query-params") or "p50"
    q = PERCENTILES[name]
    table = ask(views.latency_over_time, q)
    if table.is_empty():
        empty(
            f"No time bucket holds the {stats.percentile_min_n(q)} live calls that a {name} needs. Choose a lower percentile or a wider window."
        )
        return None
    figure = figures.percentile_lines(table, name, shown().models)
    point = clickable(
        figure, f"lines-{name}", f"{name} latency of live calls over time, a line for each of {table['label'].n_unique()} models"
    )
    st.caption(
        f"Time buckets with fewer than {stats.percentile_min_n(q)} live calls, and those cut by the window's edge, are left out. Click on a point for its slowest calls."
    )
    return (str(point[0]), float(point[1]), float(point[2])) if point else None


def distribution() -> None:
    table = ask(views.ecdf)
    chart(figures.ecdf(table, shown().models), "ecdf", "Cumulative share of live calls by latency, one step line a model, logarithmic axis")


def by_model() -> str | None:
    """Draw the table; return the chosen model."""
    table = ask(views.latency_by_model)
    drawn = table.select(
        pl.col("label").alias("model"),
        pl.col("n"),
        _ms("p50_s", "p50 (ms)"),
        pl.Series("p50 interval (ms)", [_range(*ends) for ends in table.select("p50_low_s", "p50_high_s").rows()], dtype=pl.String),
        _ms("p95_s", "p95 (ms)"),
        pl.Series("p95 interval (ms)", [_range(*ends) for ends in table.select("p95_low_s", "p95_high_s").rows()], dtype=pl.String),
        _ms("p99_s", "p99 (ms)"),
        _ms("ttft_p50_s", "first token p50 (ms)"),
        pl.col("tokens_per_s").round_sig_figs(3).alias("tokens/s p50"),
        pl.col("note").alias("what n can't support"),
    )
    row = choose_row(
        drawn, "models", "Latency by model: live calls, percentiles with intervals, first token, tokens a second", table["label"].to_list()
    )
    st.caption("Live calls that succeeded. Intervals are at 95 %. Choose a row for the model's slowest calls.")
    return None if row is None else table["label"][row]


def _ms(column: str, name: str) -> pl.Expr:
    return (pl.col(column) * 1e3).round_sig_figs(3).alias(name)


def _range(low_s: float | None, high_s: float | None) -> str:
    if low_s is None or high_s is None:
        return "–"
    return f"{words.three(low_s * 1e3)} to {words.three(high_s * 1e3)}"


def slowest(model: str, lo_s: float | None = None, hi_s: float | None = None) -> None:
    when = "in the window" if lo_s is None else f"from {words.utc(lo_s)} to {words.utc(hi_s, date=False)}"
    st.text(f"{model}, {when}")
    list_calls(ask(views.slowest_calls, model, lo_s, hi_s), "slowest", "Slowest live calls, slowest first")


header("Latency")
if not nothing_here():
    point = model = None
    if ask(views.latency_by_model).is_empty():
        empty("No live call succeeded in this window, so there is no latency to show: replayed answers and failures are not timed.")
    else:
        left, right = st.columns([3, 2])
        with left, panel("Over time"):
            point = over_time()
        with right, panel("Distribution"):
            distribution()
        with panel("By model"):
            model = by_model()
    if point or model:
        with panel("Slowest calls"):
            slowest(*point) if point else slowest(str(model))
