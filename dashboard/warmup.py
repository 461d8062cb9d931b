"""What the first page would wait for, done while a browser still loads the app: imports, and the calls of the window that pages begin with."""

from __future__ import annotations

import contextlib
import importlib
import time

from dashboard.selection import DEFAULT_WINDOW, Selection, Wanted
from toolkit.errors import ToolkitError

__all__ = ["warm_up"]


def warm_up() -> None:
    """Import what pages draw with, and count the calls of the first window. A journal that can't be read is the page's to tell."""
    importlib.import_module("dashboard.page")
    importlib.import_module("scipy.special")
    from dashboard import data, views

    with contextlib.suppress(ToolkitError):
        version = data.refresh()
        if version.rows:
            offered = data.choices(version)
            first = Wanted(DEFAULT_WINDOW, Selection(0.0, 0.0)).at(time.time(), offered.first_s, offered.last_s)
            data.ask(views.count_calls, version, first)
            data.marks(first)
