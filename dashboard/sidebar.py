"""The filters beside every page. Their values live in the URL, so that a copied address shows the same calls."""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st

from dashboard.data import Choices
from dashboard.selection import DEFAULT_WINDOW, WINDOWS_S, Selection, window

__all__ = ["choose"]

PROVENANCES = ("live", "replayed", "coalesced")
STATUSES = ("ok", "error", "left")


def choose(offered: Choices) -> Selection:
    """Draw the filters and return what they say."""
    with st.sidebar:
        chosen = st.segmented_control("Window", list(WINDOWS_S), default=DEFAULT_WINDOW, required=True, key="window", bind="query-params")
        within = window(chosen or DEFAULT_WINDOW, now_s=time.time(), first_s=offered.first_s, last_s=offered.last_s)
        selection = within._replace(
            providers=_several("Provider", "provider", offered.providers),
            models=_several("Model", "model", offered.models),
            runs=_run(offered.runs),
            provenances=_several("Provenance", "provenance", PROVENANCES),
            statuses=_several("Status", "status", STATUSES),
        )
        st.toggle("Auto refresh", value=True, key="live", bind="query-params", help="Look for new calls every 2 seconds.")
    return selection


def _several(label: str, key: str, options: Sequence[str]) -> tuple[str, ...]:
    return tuple(st.multiselect(label, options, key=key, bind="query-params", placeholder="all"))


def _run(runs: dict[str, str]) -> tuple[str, ...]:
    named = {run: f"{name} ({run[:8]})" if name != run else run for run, name in runs.items()}
    return tuple(st.multiselect("Run", list(runs), key="run", format_func=lambda run: named[run], bind="query-params", placeholder="all"))
