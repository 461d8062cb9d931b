"""How long models take: percentiles over time and by model, the distribution, and the slow calls behind a number."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st
from pandas.io.formats.style import Styler

from dashboard import data, figures, views, words
from dashboard.cells import EXACT_ROWS
from dashboard.detail import list_calls
from dashboard.page import (
    ask,
    ask_rows,
    chart,
    choose_row,
    clickable,
    download,
    drawn_models,
    empty,
    header,
    nothing_here,
    panel,
    say_left_out,
    shown,
    table,
)
from toolkit import stats

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def over_time(name: str) -> tuple[str, float, float] | None:
    """Draw the lines of a percentile; return the model and bucket of the chosen point."""
    q = PERCENTILES[name]
    table, enough = ask(views.latency_over_time, q).filter(pl.col("label").is_in(drawn_models())), stats.percentile_min_n(q)
    if table.is_empty():
        empty(f"No time bucket holds the {enough} live calls that a {name} needs. Choose a lower percentile or a wider window.")
        return None
    figure = figures.percentile_lines(table, name, shown().models, limits(name))
    point = clickable(
        figure, f"lines-{name}", f"{name} latency of live calls over time, a line for each of {table['label'].n_unique()} models"
    )
    st.caption(
        f"Buckets with fewer than {enough} live calls, or cut by the window's edge, are left out. Click on a point for its calls; with Box Select, above the chart, drag to see only that time."
    )
    say_left_out()
    return (str(point[0]), float(point[1]), float(point[2])) if point else None


def limits(name: str) -> list[tuple[str, float]]:
    """The alert rules about this percentile of what is shown, and where they fire."""
    chosen = shown().selection
    return [
        (rule.name, limit)
        for rule, limit in data.limits(f"{name}_s")
        if (rule.model is None or rule.model in drawn_models())
        and (rule.provider is None or not chosen.providers or rule.provider in chosen.providers)
    ]


def distribution() -> None:
    before = ask(views.ecdf_before)
    table = ask(views.ecdf).filter(pl.col("label").is_in(drawn_models()))
    figure = figures.ecdf(table, shown().models, before)
    chart(
        figure, "ecdf", "Cumulative share of live calls by latency, one step line a model, logarithmic axis; pale: the calls compared with"
    )
    if before.height:
        st.caption("Pale: the calls compared with.")


def spread() -> None:
    table = ask(views.heatmap)
    if table.is_empty():
        empty("No whole time bucket holds a live call. Choose a wider window.")
        return
    chart(
        figures.heatmap(table), "heatmap", "Heat map of latency over time: each column shows how a time bucket's calls spread over latency"
    )


def by_model() -> str | None:
    """Draw the table; return the chosen model."""
    table = ask(views.latency_by_model)
    drawn = table.select(
        pl.col("label").alias("model"),
        pl.col("n"),
        _ms("p50_s", "p50 (ms)"),
        _interval(table, "p50"),
        _ms("p95_s", "p95 (ms)"),
        _interval(table, "p95"),
        _ms("p99_s", "p99 (ms)"),
        _ms("ttft_p50_s", "TTFT p50 (ms)"),
        pl.col("tokens_per_s").round_sig_figs(3).alias("tokens/s"),
        pl.col("note").replace("", None).alias("too few calls"),
    )
    drawn = drawn.select(column for column in drawn if column.null_count() < drawn.height)
    alt = "Latency by model: live calls, percentiles with intervals, time to first token, tokens a second"
    row = choose_row(greyed(drawn, table), "models", alt, table["label"].to_list(), _numbers(drawn))
    st.caption(
        "Live calls that succeeded; 95 % intervals; medians of time to first token and of tokens a second. Choose a row for its calls."
    )
    return None if row is None else str(table["label"][row])


def by_size(name: str) -> None:
    """Draw a percentile by model and class of prompt length."""
    found = ask(views.latency_by_size, PERCENTILES[name])
    figure = figures.prompt_sizes(found.filter(pl.col("label").is_in(drawn_models())), name, shown().models, views.SIZES)
    if figure.data:
        chart(figure, "sizes", f"{name} latency of live calls by how many tokens the prompt has, with intervals, a line a model")
    else:
        empty(f"No model has the {stats.percentile_min_n(PERCENTILES[name])} live calls of one length that a {name} needs.")
    drawn = found.select(
        pl.col("label").alias("model"),
        pl.col("size").alias("prompt tokens"),
        pl.col("n"),
        _ms("p50_s", "p50 (ms)"),
        _interval(found, "p50"),
        _ms("p95_s", "p95 (ms)"),
        _interval(found, "p95"),
        _ms("ttft_p50_s", "TTFT p50 (ms)"),
        pl.col("note").replace("", None).alias("too few calls"),
    )
    drawn = drawn.select(column for column in drawn if column.null_count() < drawn.height)
    alt = "Latency by model and length of the prompt: live calls, percentiles with intervals, time to first token"
    table(greyed(drawn, found), "by-size", alt, _numbers(drawn))
    st.caption("Live calls that succeeded; 95 % intervals. Tokens as the service counted them, unknown where it did not.")
    download("latency-by-prompt-length", lambda: ask(views.latency_by_size, PERCENTILES[name]))


def prompt_lengths(name: str) -> None:
    """Draw the panel where there is something to tell apart, or say why it can't be told."""
    if not ask(views.is_exact):
        with panel("By prompt length"):
            most = words.count(EXACT_ROWS)
            st.caption(f"Windows of up to {most} calls tell long prompts from short ones; this one has more. Choose a shorter window.")
    elif ask(views.latency_by_size, PERCENTILES[name]).height:
        with panel("By prompt length"):
            by_size(name)


def _numbers(drawn: pl.DataFrame) -> dict[str, Any]:  # Streamlit's own kinds of columns
    numbers = [name for name in drawn.columns if name == "n" or name.endswith(("(ms)", "/s"))]
    return {name: st.column_config.NumberColumn(format="localized") for name in numbers}


def greyed(drawn: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame | Styler:
    """Grey the rows of models with too few calls for some of their numbers; the last column says which and why."""
    few = [bool(note) for note in table["note"]]
    if not any(few):
        return drawn
    return drawn.to_pandas().style.apply(lambda row: ["color: #8C8C8C" if few[row.name] else ""] * len(row), axis=1)


def _ms(column: str, name: str) -> pl.Expr:
    return (pl.col(column) * 1e3).round_sig_figs(3).alias(name)


def _interval(table: pl.DataFrame, name: str) -> pl.Series:
    ends = table.select(f"{name}_low_s", f"{name}_high_s").rows()
    said = [None if low is None or high is None else f"{words.three(low * 1e3)} to {words.three(high * 1e3)}" for low, high in ends]
    return pl.Series(f"{name} interval", said, dtype=pl.String)


def slowest(model: str, lo_s: float | None = None, hi_s: float | None = None) -> None:
    when = "in the window" if lo_s is None else f"from {words.utc(lo_s)} to {words.utc(hi_s, date=False)}"
    st.text(f"{model}, {when}")
    list_calls(ask_rows(views.slowest_calls, model, lo_s, hi_s), "slowest", "Slowest live calls, slowest first")


def percentile() -> str:
    name = st.segmented_control(
        "Percentile", list(PERCENTILES), default="p50", required=True, key="q", bind="query-params", label_visibility="collapsed"
    )
    return name or "p50"


def content() -> None:
    point = model = None
    name = percentile()
    left, right = st.columns([3, 2])
    with left, panel(f"{name} over time"):
        point = over_time(name)
    with right, panel("Distribution"):
        distribution()
    with panel("Latency over time, all models"):
        spread()
    with panel("By model"):
        model = by_model()
        download("latency", lambda: ask(views.latency_by_model))
    prompt_lengths(name)
    if point:
        with panel("Slowest calls of the point"):
            slowest(*point)
    elif model:
        with panel("Slowest calls of the model"):
            slowest(model)


header("Latency")
if not nothing_here():
    if ask(views.latency_by_model).is_empty():
        empty("No live call succeeded in this window, so there is no latency to show: replayed answers and failures are not timed.")
    else:
        content()
