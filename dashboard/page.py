"""What every page is made of: the line under the title, panels that fail alone, tables to choose from, charts with words."""

from __future__ import annotations

import functools
import io
import logging
import time
import zlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import polars as pl
import streamlit as st
from pandas.io.formats.style import Styler
from plotly.graph_objects import Figure

from dashboard import data, figures, views, words
from dashboard.marks import with_marks
from dashboard.selection import CUSTOM, DEFAULT_WINDOW, Selection, Wanted
from toolkit.errors import ToolkitError

__all__ = [
    "Choice",
    "Shown",
    "ask",
    "ask_failures",
    "ask_rows",
    "chart",
    "choose_row",
    "clickable",
    "download",
    "drawn_models",
    "empty",
    "header",
    "nothing_here",
    "panel",
    "say_left_out",
    "show",
    "shown",
    "table",
    "timeline",
]

P = ParamSpec("P")
T = TypeVar("T")

REFRESH_S = 2
REDRAW_S = 10  # with new calls
STALE_S = 30  # without new calls the window still moves on
log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What this run of the app shows: fixed at its start, so that all panels speak of the same calls."""

    version: data.Version
    wanted: Wanted
    selection: Selection
    models: tuple[str, ...]
    newest_s: float
    at_s: float
    runs: dict[str, str]


def show(version: data.Version, wanted: Wanted, offered: data.Choices) -> None:
    """Set what the page that runs next shows."""
    now_s = time.time()
    selection = wanted.at(now_s, offered.first_s, offered.last_s)
    st.session_state["shown"] = Shown(version, wanted, selection, offered.models, offered.last_s, now_s, offered.runs)


def shown() -> Shown:
    now: Shown = st.session_state["shown"]
    return now


def ask(view: Callable[Concatenate[views.Slice, P], T], *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about the calls shown."""
    return data.ask(view, shown().version, shown().selection, *options, **named)


def ask_failures(view: Callable[[views.Failures], T]) -> T:
    """Return what a function of ``views`` says about the failed calls, those before the window too."""
    return data.ask_failures(view, shown().version, shown().selection)


def ask_rows(view: Callable[Concatenate[views.Rows, P], T], *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about the single calls shown."""
    return data.ask_rows(view, shown().version, shown().selection, *options, **named)


def header(title: str, tiles: Callable[[], None] | None = None) -> None:
    """Draw the title and, under it, what the page is about, how fresh it is, and its tiles.

    This part ticks by itself and reads what is new; the charts below follow at a slower pace, or a busy journal would redraw them all the time.
    """
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(title, anchor=False, width="content")
        st.html(_COPY + _read_chart_code(), width="content", unsafe_allow_javascript=True)
    every = REFRESH_S if st.session_state.get("live") else None
    _chips()
    st.fragment(_pulse, run_every=every)(tiles, shown().at_s)


def _chips() -> None:
    """Draw what is filtered by, each to be taken away with a click."""
    with st.container(horizontal=True, gap="xsmall"):
        for key, value, label in chips(st.session_state, shown().runs):
            st.button(
                words.escape(label),
                key=f"chip-{key}-{value}",  # its own: a chip that moves up when another goes is there twice until the page is done
                icon=":material/close:",
                on_click=_drop,
                args=(key, value),
                help="Take this filter away",
            )


def chips(state: Mapping[Any, Any], runs: Mapping[str, str]) -> Iterator[tuple[str, str | None, str]]:
    """Yield the key, the value and the words of each filter that is set."""
    if state.get("window") == CUSTOM:
        ends = [
            f"{at:%Y-%m-%d %H:%M}" if (at := state.get(key)) else open_end for key, open_end in (("from", "the first call"), ("to", "now"))
        ]
        yield "window", None, f"{ends[0]} to {ends[1]} UTC"
    for key in ("provider", "model", "run", "provenance", "status"):
        for value in state.get(key) or ():
            yield key, value, f"{key}: {runs.get(value, value) if key == 'run' else value}"


def _drop(key: str, value: str | None) -> None:
    if value is None:
        st.session_state.update({key: DEFAULT_WINDOW, "from": None, "to": None})
    else:
        st.session_state[key] = [other for other in st.session_state[key] if other != value]


_COPY = """
<span id="copied" role="status" style="font-size:.875rem"></span>
<button id="copy-link" type="button" style="font:inherit;font-size:.875rem;color:inherit;background:none;border:1px solid rgba(128,128,128,.4);
border-radius:.25rem;padding:.25rem .75rem;min-height:2.5rem;cursor:pointer;white-space:nowrap">Copy link</button>
<script>
document.getElementById("copy-link").onclick = async () => {
  const said = document.getElementById("copied");
  try { await navigator.clipboard.writeText(window.location.href); said.textContent = "Copied"; }
  catch { said.textContent = window.location.href; }
  setTimeout(() => { said.textContent = ""; }, 8000);
};
</script>
"""
"""Where a browser forbids the clipboard, as it does away from this machine without TLS, the address is shown instead."""


@functools.cache
def _read_chart_code() -> str:
    """Return the HTML that makes a browser read Plotly's code, which takes it a second, while the server still counts the first page's calls.

    By itself Streamlit has it read when the first chart arrives, and so it is where another version keeps that code elsewhere.
    """
    code = next((Path(st.__file__).parent / "static" / "static" / "js").glob("PlotlyChart.*.js"), None)
    if code is None:
        return ""
    return f"<script>import(new URL('{code.name}', document.querySelector('script[type=module][src]').src));</script>"


def _pulse(tiles: Callable[[], None] | None, drawn_s: float) -> None:
    if st.session_state.get("live"):
        _look_again(drawn_s)
    now = shown()
    with panel():
        for alert in data.alerts_firing():
            st.error(f"**{words.escape(alert.name)}**: {words.escape(alert.message)}.", icon=":material/notifications_active:")
        rows = ask(views.count_calls)
        accuracy = "exact" if ask(views.is_exact) else "percentiles ±2 %"
        fresh = f"newest call {words.age(time.time() - now.newest_s)} old" if now.newest_s else "no call yet"
        st.caption(f"{words.plural(rows, 'call')} in the window · {fresh} · {accuracy} · {_compared(now.selection)}")
        if tiles is not None and rows:
            tiles()


def _compared(selection: Selection) -> str:
    return f"compared with {words.escape(selection.against.name)}" if selection.against else "compared with nothing"


def _look_again(drawn_s: float) -> None:
    """Move this part of the page to now; have all of it drawn again when that was long enough ago."""
    now = shown()
    try:
        version = data.refresh()
    except ToolkitError:
        st.rerun()  # the page drawn again will say what is wrong
    age_s = time.time() - drawn_s
    if age_s > STALE_S or (version != now.version and age_s > REDRAW_S):
        st.rerun()
    if version != now.version:
        show(version, now.wanted, data.choices(version))


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
    if not shown().newest_s:
        empty("No call yet, only lines of the logger. This command asks the built-in models a few questions:", "toolkit demo")
        return True
    old = words.age(time.time() - shown().newest_s)
    empty(
        f"No call passes the filters in this window. The newest one in the journal is {old} old: choose a wider window, or fewer filters."
    )
    return True


def chart(figure: Figure, key: str, alt: str) -> None:
    """Draw a figure; ``alt`` says in words what it shows."""
    st.plotly_chart(_finished(figure), key=key, alt=alt, config=_CHART)


def _finished(figure: Figure) -> Figure:
    return figures.with_room_for_legend(figures.with_local_time(figure, st.context.timezone))


def drawn_models() -> tuple[str, ...]:
    """Return the models that a chart of lines shows: more than a few can't be told apart."""
    return ask(views.busiest_models)


def say_left_out() -> None:
    """Say which lines a chart does not have, where that is so."""
    drawn, every = len(drawn_models()), ask(views.count_models)
    if drawn < every:
        st.caption(f"Lines of the {drawn} busiest of {every} models; the table has all. Filter by model to see the lines of others.")


def timeline(figure: Figure, key: str, alt: str) -> None:
    """Draw a figure over time; who drags over a part of it makes that the window of all pages."""
    figure.update_layout(dragmode="select", selectdirection="h")
    _selectable(figure, key, alt, ("box",))


def clickable(figure: Figure, key: str, alt: str) -> list[Any] | None:
    """Draw a figure whose points can be chosen; return the chosen point's ``customdata``.

    A click means a point only while a drag does not select: here that is a tool beside the chart.
    """
    figure.update_layout(selectdirection="h")
    points = _selectable(figure, key, alt, ("points", "box"))
    return list(points[0]["customdata"]) if len(points) == 1 else None


def _selectable(figure: Figure, key: str, alt: str, modes: Sequence[Literal["points", "box"]]) -> list[Any]:
    marks = data.marks(shown().selection)
    with_marks(figure, marks)
    # After a drag it is another chart, which has nothing selected.
    place = f"{key}-{st.session_state.get('drags', 0)}"
    drawn = st.plotly_chart(
        _finished(figure),
        key=place,
        alt=_alt_with_marks(alt, marks),
        config=_SELECTABLE,
        on_select=partial(_look_closer, place),
        selection_mode=modes,
    )
    return list(drawn.selection.points)


def _alt_with_marks(alt: str, marks: Sequence[tuple[float, str]]) -> str:
    return "; ".join([alt, *(f"marked at {words.utc(at_s)}: {text}" for at_s, text in marks)])


def _look_closer(place: str) -> None:
    boxes = st.session_state[place]["selection"]["box"]
    if boxes:
        from_, to = span_of(boxes[0]["x"])
        st.session_state.update({"window": CUSTOM, "from": from_, "to": to, "drags": st.session_state.get("drags", 0) + 1})


def span_of(ends: Sequence[str]) -> tuple[datetime, datetime]:
    """Return the whole minutes that a box on an axis of time covers."""
    first, last = sorted(datetime.fromisoformat(end).replace(second=0, microsecond=0) for end in ends)
    return first, last + timedelta(minutes=1)


_SELECTABLE = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "autoScale2d"]}
_CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def table(frame: pl.DataFrame | Styler, key: str, alt: str, columns: Mapping[str, Any] | None = None) -> None:
    """Draw a table."""
    st.dataframe(frame, key=key, hide_index=True, column_config=_columns(frame.columns, columns), placeholder=words.UNKNOWN, alt=alt)


def download(name: str, make: Callable[[], pl.DataFrame]) -> None:
    """Offer a table as a file, CSV or Parquet; it is made when somebody takes it."""
    row = st.container(horizontal=True)
    row.download_button(
        "CSV", lambda: _csv(make()), f"{name}.csv", "text/csv", key=f"{name}-csv", icon=":material/download:", on_click="ignore"
    )
    row.download_button(
        "Parquet", lambda: _parquet(make()), f"{name}.parquet", key=f"{name}-parquet", icon=":material/download:", on_click="ignore"
    )


def _csv(frame: pl.DataFrame) -> bytes:
    """CSV for a spreadsheet: a text that it would take for a formula is led by an apostrophe, for a model may have written it."""
    lists = [pl.col(name).list.eval(pl.element().cast(pl.String)).list.join(" ") for name, kind in frame.schema.items() if kind == pl.List]
    flat = frame.with_columns(lists).with_columns(pl.col(pl.Categorical).cast(pl.String))
    text = pl.col(pl.String)
    return flat.with_columns(pl.when(text.str.contains(r"^[=+\-@\t\r]")).then("'" + text).otherwise(text).name.keep()).write_csv().encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def choose_row(
    frame: pl.DataFrame | Styler,
    key: str,
    alt: str,
    identity: Sequence[str],
    columns: Mapping[str, Any] | None = None,
    height: int | Literal["auto"] = "auto",
) -> int | None:
    """Draw a table with one row to choose; return its number.

    The browser remembers a row's number, and new data could put another row there. So the widget's key holds a mark of ``identity``,
    which is what the rows are: when that changes, a new widget starts with the choice moved to where its row is now.
    """
    plain = frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame.data)  # type: ignore[attr-defined]  # the stubs leave it out
    mark = zlib.crc32("\n".join(identity).encode("utf-8", "backslashreplace"))
    was: Choice = st.session_state.get(f"{key}-choice", Choice(mark, None, None))
    start = was.start if was.mark == mark else _place(was.chosen, identity)
    event = st.dataframe(
        frame,
        key=f"{key}-{mark}",
        height=height,
        hide_index=True,
        column_config=_columns(plain.columns, columns),
        placeholder=words.UNKNOWN,
        alt=alt,
        on_select="rerun",
        selection_mode="single-row",
        selection_default=None if start is None else {"selection": {"rows": [start]}},
    )
    row = next((row for row in event.selection.rows if row < plain.height), None)
    st.session_state[f"{key}-choice"] = Choice(mark, start, None if row is None else identity[row])
    return row


class Choice(NamedTuple):
    """Which row is chosen: ``start`` is the one its widget began with, ``chosen`` what it is now."""

    mark: int
    start: int | None
    chosen: str | None


def _place(chosen: str | None, identity: Sequence[str]) -> int | None:
    return identity.index(chosen) if chosen in identity else None


def _columns(drawn: Container[str], columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keep the models' names in view, and to a width that leaves room for the numbers."""
    names = {"model": st.column_config.TextColumn(width=200, pinned=True)} if "model" in drawn else {}
    return {**names, **(columns or {})}
