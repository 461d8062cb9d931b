"""The entry script: page setup, the selection, and the page that was asked for. ``dashboard.serve`` runs it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import data, page, sidebar, words
from toolkit.errors import ToolkitError
from toolkit.monitor.journal import shown_url

SCREENS = Path(__file__).parent / "screens"
ROOM = "<style>[data-testid=stMainBlockContainer] {padding-left: 2.5rem; padding-right: 2.5rem; padding-top: 3.75rem}</style>"
"""Streamlit's own margins take a fifth of a laptop's screen; there is no setting for them."""


def main() -> None:
    # An emoji: Streamlit fetches a named icon from a font host on every load.
    st.set_page_config(page_title="Model calls", page_icon="📈", layout="wide")
    st.html(ROOM)
    chosen = st.navigation(
        [
            # The default page answers at the root only, whatever its path; a hidden twin answers at /overview.
            st.Page(SCREENS / "overview.py", title="Overview", url_path="home", default=True),
            st.Page(SCREENS / "overview.py", title="Overview", url_path="overview", visibility="hidden"),
            st.Page(SCREENS / "latency.py", title="Latency", url_path="latency"),
            st.Page(SCREENS / "cache.py", title="Cache", url_path="cache"),
            st.Page(SCREENS / "errors.py", title="Errors", url_path="errors"),
            st.Page(SCREENS / "cost.py", title="Cost", url_path="cost"),
            st.Page(SCREENS / "compare.py", title="Compare", url_path="compare"),
            st.Page(SCREENS / "logs.py", title="Logs", url_path="logs"),
            st.Page(SCREENS / "health.py", title="Health", url_path="health"),
            st.Page(SCREENS / "call.py", title="Call", url_path="call", visibility="hidden"),
        ],
        position="top",
    )
    try:
        version = data.refresh()
        offered = data.choices(version) if version.rows or data.has_entries() else None
    except ToolkitError as error:
        _unreadable(error)
        return
    if offered is None:
        _no_calls()
    else:
        page.show(version, sidebar.choose(offered), offered)
        chosen.run()


def _no_calls() -> None:
    st.title("No calls yet", anchor=False)
    page.empty(
        "Here you will see how fast the models answer, how many answers come from the cache, what fails and what it costs. "
        "This command asks the built-in models a few questions, without a key or a network:",
        "toolkit demo",
    )
    st.caption("The journal is looked for here:")
    st.code(shown_url(data.journal()), language=None)
    _look_again()


@st.fragment(run_every=page.REFRESH_S)
def _look_again() -> None:
    if data.journal_exists() and (data.refresh().rows or data.has_entries()):
        st.rerun()


def _unreadable(error: ToolkitError) -> None:
    st.title("The journal can't be read", anchor=False)
    st.error(words.escape(str(error)), icon=":material/broken_image:")


main()
