"""Every call as a line, newest first: to search, to filter by level, and to open."""

from __future__ import annotations

import polars as pl
import streamlit as st

from dashboard import views, words
from dashboard.detail import TIME, open_call
from dashboard.page import ask_rows, choose_row, download, empty, header, nothing_here, panel

MOST = 500


def content() -> None:
    left, right = st.columns([3, 2])
    search = left.text_input(
        "Search", key="search", bind="query-params", placeholder="words of an error, a model, a prompt's or a call's id"
    )
    levels = right.multiselect("Level", list(views.LEVELS), key="level", bind="query-params", placeholder="all")
    found = ask_rows(views.log_lines, tuple(levels), (search or "").strip(), MOST)
    if found.is_empty():
        empty("No line in this window matches. Choose a wider window, fewer filters, or other words.")
        return
    drawn = found.select(
        pl.from_epoch(pl.col("at") * 1e6, time_unit="us").dt.replace_time_zone("UTC").alias("time (UTC)"),
        pl.col("level"),
        pl.col("label").alias("model"),
        pl.col("line"),
    )
    columns = {**TIME, "line": st.column_config.TextColumn(width="large"), "level": st.column_config.TextColumn(width=70)}
    row = choose_row(drawn, "lines", "Calls as log lines: time, level, model, what happened", found["call_id"].to_list(), columns)
    cut = f", the newest {MOST} of those that match" if found.height == MOST else ""
    st.caption(
        f"{words.plural(found.height, 'line')}{cut}. Lines are made of the journal's calls and errors: error is a failed call, warn one that was "
        "retried or whose reader left its stream. Entries of tk.monitor.logger stay in their process and its handlers; they are not in the journal."
    )
    if row is not None:
        open_call(found["call_id"][row])


header("Logs")
if not nothing_here():
    with panel():
        content()
    with panel():
        download("calls", lambda: ask_rows(views.export_rows))
        st.caption(
            "The files hold all calls in the window that pass the filters, the newest 200,000 at most, with every column of these pages."
        )
