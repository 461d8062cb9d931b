"""What was logged and what was called, as lines, newest first: to search, to filter by level, and to open."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import streamlit as st

from dashboard import data, views, words
from dashboard.detail import CALL_PAGE, TIME, open_call
from dashboard.page import ask_rows, choose_row, download, empty, header, panel, shown

MOST = 500
LEVEL_COLOURS = ["violet", "red", "orange", "blue", "gray"]
KINDS = {"all": "Everything", "logger": "Logger", "calls": "Calls"}


def lines() -> pl.DataFrame:
    """Draw what can be chosen and return the lines that match."""
    left, middle, right = st.columns([4, 3, 3], vertical_alignment="bottom")
    search = left.text_input(
        "Search", key="search", bind="query-params", placeholder="words of a message, a field, an error, a model, an id"
    )
    levels = tuple(middle.multiselect("Level", list(views.LEVELS), key="level", bind="query-params", placeholder="all"))
    kind = right.segmented_control(
        "Lines of", list(KINDS), default="all", required=True, key="of", bind="query-params", format_func=KINDS.__getitem__
    )
    wanted = (search or "").strip()
    calls = ask_rows(views.call_lines, levels, wanted, 0 if kind == "logger" else MOST)
    entries = data.ask_entries(views.entry_lines, shown().selection, levels, wanted, 0 if kind == "calls" or of_calls_alone() else MOST)
    return views.newest_lines(entries, calls, MOST)


def of_calls_alone() -> bool:
    """Whether a filter asks for something that only calls have."""
    chosen = shown().selection
    return bool(chosen.providers or chosen.models or chosen.provenances or chosen.statuses)


def content() -> None:
    found = lines()
    if of_calls_alone():
        st.caption("Entries of the logger have no model, provider, provenance or status: these filters leave only calls.")
    if found.is_empty():
        empty("No line in this window matches. Choose a wider window, fewer filters, or other words.")
        return
    drawn = found.select(
        pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC").alias("time (UTC)"),
        pl.concat_list("level").alias("level"),
        pl.col("source").alias("process or model"),
        pl.col("line"),
    )
    columns = {
        **TIME,
        "line": st.column_config.TextColumn(width="large"),
        "level": st.column_config.MultiselectColumn(width=75, options=list(views.LEVELS), color=LEVEL_COLOURS),
        "process or model": st.column_config.TextColumn(width=200),
    }
    row = choose_row(drawn, "lines", "Log lines: time, level, process or model, what happened", found["id"].to_list(), columns, height=560)
    cut = f", the newest {MOST} of those that match" if found.height == MOST else ""
    st.caption(
        f"{words.plural(found.height, 'line')}{cut}. Lines are the entries of tk.monitor.logger, of every process that writes this journal, and its calls: "
        "error is a failed call, warn one that was retried or whose reader left its stream. Choose a row to open it."
    )
    if row is not None:
        opened(found.row(row, named=True))


def opened(line: dict[str, Any]) -> None:
    if line["of"] == "call":
        open_call(line["id"])
        return
    entry = data.entry(line["id"], line["at"])
    if entry is None:
        st.warning("This entry is not in the journal any more.", icon=":material/search_off:")
        return
    with st.container(border=True):
        st.text(f"{entry['level']} · {words.utc(entry['at'])} · {entry['process']}", help=words.local(entry["at"], st.context.timezone))
        st.code(entry["message"], language=None, wrap_lines=True)
        if entry["context"] != "{}":
            st.caption("Fields")
            st.json(json.loads(entry["context"]))
        if entry["error_type"]:
            st.caption(f"Error{' ' + entry['error_id'] if entry['error_id'] else ''}")
            st.code(entry["stack"] or f"{entry['error_type']}: {entry['error_message']}", language=None, wrap_lines=True, height=260)
        if entry["call_id"]:
            st.page_link(CALL_PAGE, label="The call it belongs to", icon=":material/open_in_new:", query_params={"call": entry["call_id"]})


header("Logs")
with panel():
    content()
with panel():
    download("calls", lambda: ask_rows(views.export_rows))
    st.caption(
        "The files hold all calls in the window that pass the filters, the newest 200,000 at most, with every column of these pages."
    )
