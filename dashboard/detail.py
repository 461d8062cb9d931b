"""From a list of calls to one of them: the table to choose from, and everything known about the chosen one."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.page import chart, choose_row

__all__ = ["CALL_PAGE", "TIME", "list_calls", "open_call", "show_call"]

CALL_PAGE = "screens/call.py"


def list_calls(calls: pl.DataFrame, key: str, alt: str) -> None:
    """Draw calls as a table and, under it, the chosen one."""
    drawn = calls.select(
        pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC").alias("time (UTC)"),
        pl.col("label").cast(pl.String).alias("model"),
        (pl.col("latency_s") * 1e3).round_sig_figs(3).alias("latency (ms)"),
        (pl.col("ttft_s") * 1e3).round_sig_figs(3).alias("first token (ms)"),
        (pl.col("total_s") * 1e3).round_sig_figs(3).alias("total (ms)"),
        pl.col("attempts"),
        pl.col("output_tokens").alias("tokens out"),
        pl.col("cost_usd").alias("cost ($)"),
        pl.col("error_type").cast(pl.String).alias("error"),
    )
    drawn = drawn.select(column for column in drawn if column.null_count() < drawn.height)
    row = choose_row(drawn, key, alt, calls["call_id"].to_list(), TIME)
    if row is None:
        st.caption("Choose a row to see the call.")
        return
    open_call(calls["call_id"][row])


def open_call(call_id: str) -> None:
    """Draw one call in a frame, with a link to its own page."""
    with st.container(border=True):
        show_call(call_id)
        st.page_link(CALL_PAGE, label="This call on a page of its own", icon=":material/open_in_new:", query_params={"call": call_id})


TIME = {"time (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC")}


def show_call(call_id: str) -> None:
    """Draw one call: what it was, where its time went, what was asked and answered."""
    call = data.call(call_id)
    if call is None:
        st.warning("There is no such call in this journal. It may have been pruned, or the address was cut.", icon=":material/search_off:")
        return
    st.text(f"{call['label']} · {words.utc(call['at'])} · {_outcome(call)}", help=words.local(call["at"], st.context.timezone))
    _numbers(call)
    parts = views.timing_parts(call)
    if parts:
        said = ", ".join(f"{name.lower()} {words.duration(seconds)}" for name, seconds in parts)
        chart(figures.timing(parts), f"timing-{call_id}", f"Where the time went: {said}")
        st.caption(f"{words.duration(call['total_s'])} in all: {said}.")
    _text("Prompt", call["prompt"], call["prompt_chars"])
    if call["status"] == "error":
        _text("Error", f"{call['error_type']}: {call['error_message']}", None)
    else:
        _text("Answer", call["text"], call["text_chars"])
    with st.expander("Everything in the journal about this call"):
        st.json({name: value for name, value in call.items() if name not in {"prompt", "text"}}, expanded=True)


def _outcome(call: dict[str, Any]) -> str:
    if call["status"] == "left":
        return "left by the reader of its stream"
    if call["status"] == "error":
        return f"failed: {call['error_type']}"
    tier = f" from {call['cache_tier']}" if call["cache_tier"] else ""
    return f"{call['provenance']}{tier}"


def _numbers(call: dict[str, Any]) -> None:
    tokens = "–" if call["output_tokens"] is None else f"{words.count(call['output_tokens'])}"
    cells = {
        "Latency": words.duration(call["latency_s"]),
        "First token": words.duration(call["ttft_s"]),
        "Attempts": str(call["attempts"]),
        "Tokens out": tokens,
        "Cost": words.dollars(call["cost_usd"]),
    }
    for column, (label, value) in zip(st.columns(len(cells)), cells.items()):
        column.metric(label, value.replace("$", "\\$"))


def _text(title: str, text: str | None, size: int | None) -> None:
    """Draw what a person or a model wrote, as it is: never as Markdown or HTML."""
    st.caption(title if size is None else f"{title} ({words.count(size)} characters)")
    if text is None:
        st.caption("Not kept: the journal records content only where TOOLKIT_RECORD_CONTENT is not 0.")
    else:
        st.code(text, language=None, wrap_lines=True)
