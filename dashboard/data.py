"""The only seam to the journal: which calls are known, and remembered answers to questions about them.

Cached functions are keyed on scalars (journal, version, selection), never on frames: Streamlit hashes only a sample of a large frame,
so two different ones could share an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import polars as pl
import streamlit as st

from dashboard import views
from dashboard.calllog import CallLog, Choices, Version
from dashboard.cells import FAILED, Calls
from dashboard.selection import Selection
from toolkit import settings
from toolkit.errors import ConfigError
from toolkit.monitor import alerts
from toolkit.monitor.journal import FileAddress, JournalReader, JournalVersion, read_address

__all__ = [
    "Choices",
    "Version",
    "alert_rules",
    "alerts_firing",
    "answers_of",
    "archived_rows",
    "ask",
    "ask_cache_states",
    "ask_entries",
    "ask_failures",
    "ask_rows",
    "cache_size_bytes",
    "call",
    "choices",
    "entry",
    "error_of",
    "has_entries",
    "journal",
    "journal_exists",
    "journal_file",
    "limits",
    "marks",
    "refresh",
    "votes",
]

P = ParamSpec("P")
T = TypeVar("T")

ALERTS_EVERY_S = 15.0
_CALL_LOGS = 4


def journal() -> str:
    """Where the journal is: ``TOOLKIT_JOURNAL``, which ``dashboard.serve`` sets."""
    return settings.journal_url()


def journal_file() -> str | None:
    """The journal's file from the root on, ``None`` where it is on a server."""
    address = read_address(journal())
    return str(address.path) if isinstance(address, FileAddress) else None


def journal_exists() -> bool:
    return JournalReader(journal()).exists


def refresh() -> Version:
    """Read what is new in the journal."""
    return _call_log(journal()).refresh()


def choices(version: Version) -> Choices:
    """Return what the filters offer."""
    return _choices(journal(), version)


def ask(view: Callable[Concatenate[views.Slice, P], T], version: Version, selection: Selection, *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about a selection, remembered as long as nothing new is written."""
    return _answer(view.__name__, journal(), version, selection, options, tuple(named.items()))  # type: ignore[no-any-return]


def ask_failures(view: Callable[[views.Failures], T], version: Version, selection: Selection) -> T:
    """Return what a function of ``views`` says about the failed calls, those before the window too."""
    return _failed(view.__name__, journal(), version, selection)  # type: ignore[no-any-return]


def ask_rows(
    view: Callable[Concatenate[views.Rows, P], T], version: Version, selection: Selection, *options: P.args, **named: P.kwargs
) -> T:
    """Return what a function of ``views`` says about single calls; where the journal is large they are read now."""
    return _told(view.__name__, journal(), version, selection, options, tuple(named.items()))  # type: ignore[no-any-return]


def ask_entries(view: Callable[Concatenate[pl.DataFrame, P], T], selection: Selection, *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about the logger's entries in the window, of the runs chosen."""
    version = JournalReader(journal()).version("log")
    return _entry_answer(view.__name__, journal(), version, _span(selection), selection.runs, options, tuple(named.items()))  # type: ignore[no-any-return]


def ask_cache_states(view: Callable[Concatenate[pl.DataFrame, P], T], selection: Selection, *options: P.args, **named: P.kwargs) -> T:
    """Return what a function of ``views`` says about the states of caches in the window."""
    version = JournalReader(journal()).version("cache")
    return view(_rows_of("cache", journal(), version, _span(selection)), *options, **named)


def marks(selection: Selection) -> list[tuple[float, str]]:
    """Return when and what of the annotations in the window, whichever run is chosen."""
    return ask_entries(views.marks, selection._replace(runs=()))


def _span(selection: Selection) -> tuple[float, float]:
    """The window; everything there is where it is all calls, for something may have been written before the first and after the last."""
    return (-math.inf, math.inf) if selection.whole else (selection.lo_s, selection.hi_s)


def has_entries() -> bool:
    """Whether anybody has logged anything."""
    return JournalReader(journal()).last_row("log") > 0


def entry(log_id: str, at: float) -> dict[str, Any] | None:
    """Return everything about one entry of the logger."""
    rows = JournalReader(journal()).scan("log", since=at, until=math.nextafter(at, math.inf)).filter(pl.col("log_id") == log_id).collect()
    return rows.row(0, named=True) if rows.height else None


def archived_rows() -> int:
    """Return how many calls are in the archive."""
    return sum(part.rows for part in JournalReader(journal()).parts())


def call(call_id: str) -> dict[str, Any] | None:
    """Return everything known about one call, prompt and answer too where they were kept."""
    return JournalReader(journal()).call(call_id)


def error_of(call_id: str, at: float) -> dict[str, Any] | None:
    """Return the error, with its stack and context, that ended the call that began at ``at``; the two rows carry the same time."""
    found = JournalReader(journal()).errors(since=at, until=math.nextafter(at, math.inf))
    for number, of in enumerate(found["call_id"]):
        if of == call_id:
            return {name: values[number] for name, values in found.items()}
    return None


def answers_of(run: str) -> pl.DataFrame:
    """Return ``prompt_id label prompt text`` of a run's answers, oldest first."""
    columns = ("prompt_id", "label", "status", "prompt", "text")
    found = JournalReader(journal()).calls(run=run, columns=columns)
    frame = pl.DataFrame({name: found[name] for name in columns}, schema=dict.fromkeys(columns, pl.String))
    return frame.filter(pl.col("status") == "ok", pl.col("prompt_id").is_not_null())


def votes(run: str | None) -> dict[str, list[Any]]:
    """Return votes as column lists, of one run or of all."""
    return JournalReader(journal()).votes(run=run)


def alerts_firing() -> list[alerts.Alert]:
    """Return the alert rules that fire, looked at anew every 15 seconds."""
    path = settings.alerts_file()
    if not path.exists():
        return []
    return _alerts(journal(), str(path), path.stat().st_mtime_ns, math.floor(time.time() / ALERTS_EVERY_S))


def alert_rules() -> list[alerts.Rule]:
    """Return the alert rules; none where their file can't be read, which ``alerts_firing`` tells."""
    try:
        return alerts.read_rules(settings.alerts_file())
    except ConfigError:
        return []


def limits(metric: str) -> list[tuple[alerts.Threshold, float]]:
    """Return the alert rules that set an upper limit to a metric, each with that limit."""
    rules = [rule for rule in alert_rules() if isinstance(rule, alerts.Threshold) and rule.metric == metric]
    return [(rule, rule.above) for rule in rules if rule.above is not None]


@st.cache_data(max_entries=8, show_spinner=False)
def _alerts(journal: str, path: str, changed: int, tick: int) -> list[alerts.Alert]:  # noqa: ARG001 - the file's time is part of the key
    log = _call_log(journal)
    version, now_s = log.refresh(), (tick + 1) * ALERTS_EVERY_S

    def tally(span: alerts.Span) -> alerts.Tally:
        scope = Selection(span.lo_s, span.hi_s, providers=_only(span.provider), models=_only(span.model))
        return views.tally(log.window(version, span.lo_s, span.hi_s).filter(*views.filters(scope)))

    return alerts.firing(alerts.read_rules(Path(path)), tally, now_s)


def _only(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def cache_size_bytes() -> int | None:
    """Return what this machine's answer cache takes on disk, ``None`` where there is none."""
    folder = settings.cache_folder()
    files = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    return sum(files) or None


@st.cache_data(max_entries=64, show_spinner=False)
def _entry_answer(
    view: str,
    journal: str,
    version: JournalVersion,
    span: tuple[float, float],
    runs: tuple[str, ...],
    options: tuple[Any, ...],
    named: tuple[tuple[str, Any], ...],
) -> Any:  # whatever the view returns
    entries = _rows_of("log", journal, version, span)
    return getattr(views, view)(entries.filter(pl.col("run_id").is_in(runs)) if runs else entries, *options, **dict(named))


@st.cache_resource(max_entries=4, show_spinner=False)
def _rows_of(table: str, journal: str, version: JournalVersion, span: tuple[float, float]) -> pl.DataFrame:
    since, until = (None if math.isinf(end) else end for end in span)
    rows = JournalReader(journal).scan(table, since=since, until=until).filter(pl.col("row") <= version.row)
    return rows.select(pl.exclude("stack")).collect()


@st.cache_resource(max_entries=_CALL_LOGS, show_spinner=False)
def _call_log(journal: str) -> CallLog:
    return CallLog(journal)


@st.cache_data(max_entries=8, show_spinner=False)
def _choices(journal: str, version: Version) -> Choices:  # noqa: ARG001 - the version is part of the key
    return _call_log(journal).choices()


@st.cache_resource(max_entries=6, show_spinner=False)
def _window(journal: str, version: Version, lo_s: float, hi_s: float) -> Calls:
    return _call_log(journal).window(version, lo_s, hi_s)


def _part(journal: str, version: Version, selection: Selection) -> Calls:
    calls = _window(journal, version, selection.lo_s, selection.hi_s)
    return calls.filter(*views.filters(selection))


@st.cache_resource(max_entries=6, show_spinner=False)
def _slice(journal: str, version: Version, selection: Selection) -> views.Slice:
    calls, other = _part(journal, version, selection), selection.other()
    before = calls.filter(pl.lit(False)) if other is None else _part(journal, version, other)
    return views.Slice(calls, before, selection)


@st.cache_data(max_entries=512, show_spinner=False)
def _answer(
    view: str, journal: str, version: Version, selection: Selection, options: tuple[Any, ...], named: tuple[tuple[str, Any], ...]
) -> Any:  # whatever the view returns
    return getattr(views, view)(_slice(journal, version, selection), *options, **dict(named))


@st.cache_data(max_entries=16, show_spinner=False)
def _failed(view: str, journal: str, version: Version, selection: Selection) -> Any:  # whatever the view returns
    inside = pl.col("at").is_between(selection.lo_s, selection.hi_s, closed="left")
    earlier = _call_log(journal).failures(version).filter(~inside, *views.filters(selection))
    # Those of the window as the page counts them everywhere else: an hour's cell is too wide for a short window.
    now = _part(journal, version, selection).counts.filter(FAILED)
    both = [column for column in earlier.columns if column in now.columns]  # either may be rows, or cells of them
    return getattr(views, view)(views.Failures(pl.concat([earlier.select(both), now.select(both)], how="vertical_relaxed"), selection))


@st.cache_data(max_entries=64, show_spinner=False)
def _told(
    view: str, journal: str, version: Version, selection: Selection, options: tuple[Any, ...], named: tuple[tuple[str, Any], ...]
) -> Any:  # whatever the view returns
    log, keep = _call_log(journal), (pl.col("row") <= version.rows, *views.filters(selection))

    def read(since_s: float) -> pl.LazyFrame:
        return log.rows(since_s, selection.hi_s).filter(*keep)

    return getattr(views, view)(views.Rows(read, selection), *options, **dict(named))
