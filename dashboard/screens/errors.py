"""What breaks: errors in groups, from a group to its messages, its stack, its calls, and what to do."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.detail import list_calls
from dashboard.page import ask, ask_failures, choose_row, download, header, nothing_here, panel, shown, table, timeline
from dashboard.selection import Selection
from toolkit.hints import next_step


def over_time() -> None:
    found = ask(views.errors_over_time)
    counts = {kind: int(found.filter(pl.col("kind") == kind)["n"].sum()) for kind in views.ERROR_KINDS}
    said = ", ".join(f"{kind} {n}" for kind, n in counts.items())
    timeline(figures.errors(found, views.ERROR_KINDS), "errors", f"Failed calls over time: {said}")
    again, failed = ask(views.retries)
    st.caption(
        f"{words.plural(failed, 'call')} failed in the window; services were asked {words.plural(again, 'time')} more after a failed attempt."
    )


def ever() -> Selection:
    """The filters without the window: a group's calls before it belong to the group."""
    return shown().selection._replace(lo_s=-math.inf, against=None)


def groups() -> dict[str, Any] | None:
    """Draw the groups; return the chosen one."""
    found = ask_failures(views.error_groups)
    drawn = found.select(
        "state",
        pl.col("type").alias("error"),
        pl.col("n").alias("in the window"),
        "trend",
        pl.col("total").alias("ever"),
        "models",
        _time("first_s", "first seen (UTC)"),
        _time("last_s", "last seen (UTC)"),
        "fingerprint",
    )
    columns = {"trend": st.column_config.BarChartColumn(y_min=0), **_SEEN}
    row = choose_row(
        drawn, "groups", "Errors by fingerprint: state, type, counts, models, first and last seen", found["fingerprint"].to_list(), columns
    )
    st.caption(
        "New: first seen in this window. Ongoing: before and in it. Quiet: only before it. Choose a row for messages, stack and calls."
    )
    return None if row is None else found.row(row, named=True)


_WHEN = st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC")
_SEEN = {"first seen (UTC)": _WHEN, "last seen (UTC)": _WHEN}


def _time(column: str, name: str) -> pl.Expr:
    return pl.from_epoch(pl.col(column) * 1e6, time_unit="us").dt.replace_time_zone("UTC").alias(name)


def what_to_do(group: dict[str, Any]) -> None:
    st.markdown(f"**{words.escape(group['type'] or 'Unknown error')}**: {next_step(group['type'] or '')}.")


def messages(group: dict[str, Any]) -> None:
    found = data.ask_rows(views.error_messages, shown().version, ever(), group["fingerprint"])
    table(found.select("n", "message", _time("last_s", "last seen (UTC)")), "messages", "Messages of the group, most frequent first", _SEEN)


def stack(calls: pl.DataFrame) -> None:
    found = data.error_of(calls["call_id"][0], calls["at"][0])
    if found is None:
        st.caption("The journal keeps no stack for the newest of these calls.")
        return
    st.code(found["stack"], language=None, wrap_lines=True, height=260)
    with st.expander("Context"):
        st.json(json.loads(found["context"] or "{}"))


header("Errors")
if not nothing_here():
    group = None
    if ask_failures(views.error_groups).is_empty():
        st.success("No call failed, in this window or before it.", icon=":material/check_circle:")
    else:
        with panel("Over time"):
            over_time()
        with panel("Groups"):
            group = groups()
            download("errors", lambda: ask_failures(views.error_groups))
    if group:
        with panel("What to do"):
            what_to_do(group)
        calls = data.ask_rows(views.affected_calls, shown().version, ever(), group["fingerprint"])
        left, right = st.columns(2)
        with left, panel("Messages"):
            messages(group)
        with right, panel("Newest stack"):
            stack(calls)
        with panel("Affected calls"):
            list_calls(calls, "affected", "Calls that failed with this error, newest first")
