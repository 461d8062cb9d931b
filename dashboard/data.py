"""The only seam to the journal: reads what is new, keeps it as one growing frame, and remembers answers to questions about it.

Cached functions are keyed on scalars (journal, version, selection), never on frames: Streamlit hashes only a sample of a large frame,
so two different ones could share an answer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import polars as pl
import streamlit as st

from dashboard import views
from dashboard.selection import Selection
from toolkit import settings
from toolkit.monitor.journal import JournalReader, JournalVersion

__all__ = ["CallLog", "Choices", "Version", "ask", "call", "choices", "error_of", "journal", "journal_exists", "refresh"]

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_ROWS = 50_000  # a row costs far more as Python objects than in the frame, so few are in between at a time
_CALL_LOGS = 4


class Version(NamedTuple):
    """Which rows are known: frames only grow, so a number of rows names one state; a journal made anew starts a generation."""

    generation: int
    rows: int


class Choices(NamedTuple):
    """What the filters offer, and the span of time; ``runs`` maps ids to names."""

    providers: tuple[str, ...]
    models: tuple[str, ...]
    runs: dict[str, str]
    first_s: float
    last_s: float


class CallLog:
    """The calls of a journal as one frame; ``refresh`` reads only rows written since the last one, unless some were removed."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._generation = 0
        self._known = JournalVersion("", 0, 0)
        self._frame = pl.DataFrame(schema=views.SCHEMA)

    def refresh(self) -> Version:
        """Read what is new and return the version that holds it.

        Raises
        ------
        JournalError
            If the journal is there but can't be read.
        """
        with self._lock:
            reader = JournalReader(self._journal)
            now = reader.version("call")
            if now._replace(row=self._known.row) != self._known or now.row < self._known.row:
                self._forget(now)
            while self._known.row < now.row:
                found = reader.calls(after_row=self._known.row, limit=CHUNK_ROWS, columns=list(views.SCHEMA))
                if not found["row"]:  # removed in between; the next look sees that
                    break
                self._append(found)
            return Version(self._generation, self._frame.height)

    def frame(self, version: Version) -> pl.DataFrame:
        """Return the rows that a version knows; a slice, not a copy."""
        return self._frame.head(version.rows)

    def _append(self, columns: dict[str, list[Any]]) -> None:
        self._known = self._known._replace(row=columns.pop("row")[-1])
        self._frame = pl.concat([self._frame, pl.DataFrame(columns, schema=views.SCHEMA)], rechunk=False)

    def _forget(self, now: JournalVersion) -> None:
        """Start anew: the journal is another one, or old days were removed from it."""
        self._generation += 1
        self._known = now._replace(row=0)
        self._frame = pl.DataFrame(schema=views.SCHEMA)


def journal() -> str:
    """Where the journal is: ``TOOLKIT_JOURNAL``, which ``dashboard.serve`` sets."""
    return settings.journal_url()


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


@st.cache_resource(max_entries=_CALL_LOGS, show_spinner=False)
def _call_log(journal: str) -> CallLog:
    return CallLog(journal)


@st.cache_data(max_entries=8, show_spinner=False)
def _choices(journal: str, version: Version) -> Choices:
    frame = _call_log(journal).frame(version)
    known = JournalReader(journal).runs()
    names = dict(zip(known["run_id"], known["name"]))
    runs = frame.drop_nulls("run_id").group_by("run_id").agg(pl.col("at").max()).sort("at", descending=True)
    return Choices(
        providers=_distinct(frame["provider"]),
        models=_distinct(frame["label"]),
        runs={run: names.get(run) or run for run in runs["run_id"].cast(pl.String)},
        first_s=frame["at"].min() or 0.0,  # type: ignore[arg-type]  # polars can't say that it is a number
        last_s=frame["at"].max() or 0.0,  # type: ignore[arg-type]
    )


def _distinct(values: pl.Series) -> tuple[str, ...]:
    return tuple(values.drop_nulls().unique().cast(pl.String).sort())


@st.cache_resource(max_entries=6, show_spinner=False)
def _slice(journal: str, version: Version, selection: Selection) -> views.Slice:
    return views.cut(_call_log(journal).frame(version), selection)


@st.cache_data(max_entries=256, show_spinner=False)
def _answer(
    view: str, journal: str, version: Version, selection: Selection, options: tuple[Any, ...], named: tuple[tuple[str, Any], ...]
) -> Any:  # whatever the view returns
    return getattr(views, view)(_slice(journal, version, selection), *options, **dict(named))
