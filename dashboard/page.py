"""What every page is made of: the line under the title, panels that fail alone, tables to choose from, charts with words."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import polars as pl
import streamlit as st
from plotly.graph_objects import Figure

from dashboard import data, views, words
from dashboard.selection import Selection
from toolkit.errors import ToolkitError

__all__ = [
    "Choice",
    "Shown",
    "ask",
    "chart",
    "choose_row",
    "clickable",
    "empty",
    "header",
    "nothing_here",
    "panel",
    "show",
    "shown",
    "table",
]

P = ParamSpec("P")
T = TypeVar("T")

REFRESH_S = 2
STALE_S = 30  # without new calls the window still moves on
log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What this run of the app shows: fixed at its start, so that all panels speak of the same calls."""

    version: data.Version
    selection: Selection
    models: tuple[str, ...]
    newest_s: float
    at_s: float


def show(now: Shown) -> None:
    """Set what the page that runs next shows."""
    st.session_state["shown"] = now


def shown() -> Shown:
    now: Shown = st.session_state["shown"]
    return now


def ask(view: Callable[Concatenate[views.Slice, P], T], *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about the calls shown."""
    return data.ask(view, shown().version, shown().selection, *options, **named)


def header(title: str) -> None:
    """Draw the title and, under it, what the page is about and how fresh it is."""
    st.title(title, anchor=False)
    every = REFRESH_S if st.session_state.get("live") else None
    st.fragment(_pulse, run_every=every)(shown())


def _pulse(now: Shown) -> None:
    """The line under the title. It ticks by itself, and has the whole page drawn again when there is something new."""
    rows = ask(views.count_calls)
    st.caption(f"{words.plural(rows, 'call')} in the window · newest call {words.age(time.time() - now.newest_s)} old · exact")
    if st.session_state.get("live") and (time.time() - now.at_s > STALE_S or _something_new(now.version)):
        st.rerun()


def _something_new(version: data.Version) -> bool:
    try:
        return data.refresh() != version
    except ToolkitError:
        return True  # the page drawn again will say what is wrong


@contextmanager
def panel(title: str | None = None) -> Iterator[None]:
    """Keep the failure of one part of a page to that part."""
    if title:
        st.subheader(title, anchor=False)
    try:
        yield
    except ToolkitError as error:
        st.error(f"This part can't be shown: {words.escape(str(error))}")
    except Exception as error:  # whatever went wrong here, the other panels still have something to say
        log.exception("a panel failed")
        st.error(f"This part failed with {type(error).__name__}; the server's log has the details. The rest of the page is not affected.")


def empty(message: str, command: str | None = None) -> None:
    """Say what would be here, and the command that makes it."""
    st.info(message, icon=":material/inbox:")
    if command:
        st.code(command, language=None)


def nothing_here() -> bool:
    """Say so where no call passes the filters, with the way out; return whether that is so."""
    if ask(views.count_calls):
        return False
    old = words.age(time.time() - shown().newest_s)
    empty(
        f"No call passes the filters in this window. The newest one in the journal is {old} old: choose a wider window, or fewer filters."
    )
    return True


def chart(figure: Figure, key: str, alt: str) -> None:
    """Draw a figure; ``alt`` says in words what it shows."""
    st.plotly_chart(figure, key=key, alt=alt, config=_CHART)


def clickable(figure: Figure, key: str, alt: str) -> list[Any] | None:
    """Draw a figure whose points can be chosen; return the chosen point's ``customdata``."""
    event = st.plotly_chart(figure, key=key, alt=alt, config=_CHART, on_select="rerun", selection_mode="points")
    points = event.selection.points
    return list(points[0]["customdata"]) if points else None


_CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def table(frame: pl.DataFrame, key: str, alt: str, columns: Mapping[str, Any] | None = None) -> None:
    """Draw a table."""
    st.dataframe(frame, key=key, hide_index=True, column_config=_columns(frame, columns), placeholder=words.UNKNOWN, alt=alt)


def choose_row(frame: pl.DataFrame, key: str, alt: str, identity: Sequence[str], columns: Mapping[str, Any] | None = None) -> int | None:
    """Draw a table with one row to choose; return its number.

    The browser remembers a row's number, and new data could put another row there. So the widget's key holds a mark of ``identity``,
    which is what the rows are: when that changes, a new widget starts with the choice moved to where its row is now.
    """
    mark = zlib.crc32("\n".join(identity).encode("utf-8", "backslashreplace"))
    was: Choice = st.session_state.get(f"{key}-choice", Choice(mark, None, None))
    start = was.start if was.mark == mark else _place(was.chosen, identity)
    event = st.dataframe(
        frame,
        key=f"{key}-{mark}",
        hide_index=True,
        column_config=_columns(frame, columns),
        placeholder=words.UNKNOWN,
        alt=alt,
        on_select="rerun",
        selection_mode="single-row",
        selection_default=None if start is None else {"selection": {"rows": [start]}},
    )
    row = next((row for row in event.selection.rows if row < frame.height), None)
    st.session_state[f"{key}-choice"] = Choice(mark, start, None if row is None else identity[row])
    return row


class Choice(NamedTuple):
    """Which row is chosen: ``start`` is the one its widget began with, ``chosen`` what it is now."""

    mark: int
    start: int | None
    chosen: str | None


def _place(chosen: str | None, identity: Sequence[str]) -> int | None:
    return identity.index(chosen) if chosen in identity else None


def _columns(frame: pl.DataFrame, columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keep the models' names in view, and to a width that leaves room for the numbers."""
    names = {"model": st.column_config.TextColumn(width=200, pinned=True)} if "model" in frame.columns else {}
    return {**names, **(columns or {})}
