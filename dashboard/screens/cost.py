"""What the models cost: by day and by model, and where a month like this ends."""

from __future__ import annotations

import time

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.page import ask, download, empty, header, nothing_here, panel, shown, table, timeline


def tiles() -> None:
    found = ask(views.cost_by_model)
    now, was = ask(views.summary)
    saved, live, unpriced = float(found["saved_usd"].sum()), int(found["n"].sum()), int(found["unpriced"].sum())
    priced = live - unpriced
    per_1k = None if now.cost_usd is None or not priced else now.cost_usd / priced * 1e3
    row = iter(st.columns(4))
    next(row).metric(
        "Cost",
        words.escape(words.dollars(now.cost_usd)),
        words.change(now.cost_usd, was.cost_usd),
        delta_color="inverse",
        border=True,
        height="stretch",
    )
    next(row).metric("Per 1,000 live calls", words.escape(words.dollars(per_1k)), border=True, height="stretch")
    next(row).metric("Saved by the cache", words.escape(words.dollars(saved)), border=True, height="stretch")
    next(row).metric(
        "Live calls of unknown price", words.count(unpriced), border=True, height="stretch", help="Their cost is in no sum on this page."
    )


def budget() -> float | None:
    """The budget of a month, which lives in the address."""
    usd = st.number_input(
        "Budget a month ($)", min_value=0.0, value=None, step=10.0, key="budget", bind="query-params", width=220, placeholder="none"
    )
    return usd or None


def forecast(month_usd: float | None) -> None:
    days = views.days_before(shown().selection, time.time())
    found = data.ask(views.cost_forecast, shown().version, days)
    if found.usd is None:
        st.caption(f"No forecast: {found.note}.")
        return
    said = f"At the rate of the last {words.plural(found.days, 'whole day')}, {views.MONTH_DAYS} days cost **{words.escape(words.dollars(found.usd))}**"
    if found.low_usd is not None and found.high_usd is not None:
        ends = f"{words.dollars(found.low_usd)} to {words.dollars(found.high_usd)}"
        said += f" (95 % prediction interval {words.escape(ends)}, as if days were alike)"
    if month_usd is not None:
        high = found.high_usd or found.usd
        verdict = "within" if high <= month_usd else "above" if (found.low_usd or found.usd) > month_usd else "possibly above"
        said += f": {verdict} the budget of {words.escape(words.dollars(month_usd))}"
    st.markdown(f"{said}. {found.note}".strip())


def by_day(month_usd: float | None) -> None:
    found = ask(views.cost_by_day)
    if not found["cost_usd"].sum():
        empty(
            "No call in this window cost anything that is known. Local models are free; prices of others come with their answers or the price table."
        )
        return
    a_day = None if month_usd is None else month_usd / views.MONTH_DAYS
    timeline(figures.cost_by_day(found, shown().models, a_day), "by-day", "Dollars by day, stacked by model")
    st.caption("Days are UTC. A pale day is cut by the window's edge and holds only part of its calls.")


def by_model() -> None:
    found = ask(views.cost_by_model)
    drawn = found.select(
        pl.col("label").alias("model"),
        pl.col("n").alias("live calls"),
        pl.col("cost_usd").alias("cost ($)"),
        pl.col("usd_per_1k_calls").alias("per 1k calls ($)"),
        pl.col("usd_per_1m_tokens").alias("per 1M tokens ($)"),
        pl.col("input_tokens").alias("prompt tokens"),
        pl.col("output_tokens").alias("completion tokens"),
        pl.col("saved_usd").alias("saved ($)"),
        pl.col("unpriced").alias("of unknown price"),
    )
    money = {name: st.column_config.NumberColumn(format="$%.4f") for name in drawn.columns if name.endswith("($)")}
    counts = {name: st.column_config.NumberColumn(format="localized") for name in drawn.columns if name not in money and name != "model"}
    table(
        drawn,
        "by-model",
        "Cost by model: live calls, dollars, dollars per 1,000 calls and per million tokens, tokens, savings",
        money | counts,
    )
    st.caption(
        "Live calls; tokens of prompt and completion together in the price per million. The journal keeps one cost a call, so it is not split into "
        "prompt and completion; the tokens are."
    )


header("Cost", tiles)
if not nothing_here():
    with panel("By day"):
        month = budget()
        by_day(month)
        forecast(month)
    with panel("By model"):
        by_model()
        download("cost", lambda: ask(views.cost_by_model))
