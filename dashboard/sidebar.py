"""The filters beside every page. Their values live in the URL, so that a copied address shows the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from dashboard.calllog import Choices
from dashboard.selection import CUSTOM, DEFAULT_WINDOW, SHIFTS, WINDOWS_S, Selection, Wanted

__all__ = ["choose", "run_labels"]

PROVENANCES = ("live", "replayed", "coalesced")
STATUSES = ("ok", "error", "left")
_RUN = "run:"


def choose(offered: Choices) -> Wanted:
    """Draw the filters and return what they say."""
    with st.sidebar:
        windows = [*WINDOWS_S, CUSTOM]
        chosen = st.pills(
            "Window", windows, default=DEFAULT_WINDOW, required=True, key="window", bind="query-params", on_change=_forget_span
        )
        from_s, to_s = _span(seen=chosen == CUSTOM)
        compare = _compare(offered.runs)
        filters = Selection(
            0.0,
            0.0,
            providers=_several("Provider", "provider", offered.providers),
            models=_several("Model", "model", offered.models),
            runs=_run(offered.runs),
            provenances=_several("Provenance", "provenance", PROVENANCES),
            statuses=_several("Status", "status", STATUSES),
        )
        st.toggle("Auto refresh", value=True, key="live", bind="query-params", help="Look for new calls every 2 seconds.")
    run = compare.removeprefix(_RUN) if compare.startswith(_RUN) else None
    against = (run, offered.runs.get(run, run)) if run else None
    return Wanted(chosen or DEFAULT_WINDOW, filters, from_s, to_s, compare, against)


def _span(*, seen: bool) -> tuple[float | None, float | None]:
    """Two moments in UTC; one that is left open means the first call, or now.

    They are always there, if perhaps not seen: a chart may set them, and only a filter that was there before writes that into the address.
    """
    if not seen:
        st.html("<style>.st-key-span {display: none}</style>")
    with st.container(key="span"):
        found = [
            st.datetime_input(label, value=None, key=key, bind="query-params", format="YYYY-MM-DD", step=60, help=help_)
            for label, key, help_ in (("From (UTC)", "from", "Empty: from the first call on."), ("To (UTC)", "to", "Empty: until now."))
        ]
    if not seen:
        return None, None
    from_s, to_s = (None if at is None else _utc(at) for at in found)
    if from_s is not None and to_s is not None and to_s <= from_s:
        st.warning("The window ends before it begins: choose a later end.", icon=":material/schedule:")
    return from_s, to_s


def _forget_span() -> None:
    if st.session_state["window"] != CUSTOM:
        st.session_state.update({"from": None, "to": None})


def _utc(at: datetime) -> float:
    return at.replace(tzinfo=UTC).timestamp()


def _compare(runs: dict[str, str]) -> str:
    named = SHIFTS | {f"{_RUN}{run}": f"run {name}" for run, name in run_labels(runs).items()}
    chosen = st.selectbox("Compare with", list(named), format_func=lambda choice: named[choice], key="vs", bind="query-params")
    return str(chosen or "previous")


def _several(label: str, key: str, options: Sequence[str]) -> tuple[str, ...]:
    return tuple(st.multiselect(label, options, key=key, bind="query-params", placeholder="all"))


def run_labels(runs: dict[str, str]) -> dict[str, str]:
    """Return what runs are called in widgets and in the address: their names, told apart by the start of their ids."""
    return {run: f"{name} ({run[:8]})" if name != run else run for run, name in runs.items()}


def _run(runs: dict[str, str]) -> tuple[str, ...]:
    named = run_labels(runs)
    return tuple(st.multiselect("Run", list(runs), key="run", format_func=lambda run: named[run], bind="query-params", placeholder="all"))
