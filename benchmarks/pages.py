"""How long the dashboard takes over many calls: on the server and in a browser. ``dashboard.py`` writes the journal and measures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from .measure import Column, Contestant, Goal, Place, Reading, Run, Table

CALLS = int(os.environ.get("DASHBOARD_CALLS", "300000"))
WINDOWS = ("24h", "7d", "all")
CHROMIUM = Path("/usr/bin/chromium")

Measure = Callable[[Path], dict[str, float]]


def figures(found: Mapping[str, float]) -> dict[str, float]:
    """The slowest change of a filter in each window, whichever page it is on, and the first look."""
    changes = {window: [value for name, value in found.items() if f", {window}, another" in name] for window in WINDOWS}
    first = next(value for name, value in found.items() if name.endswith("cold"))
    return {"first": first} | {window: max(values) for window, values in changes.items()}


def over_calls(measure: Measure, place: Place, calls: int) -> Iterator[Run]:
    from .dashboard import write_journal

    journal = Path(place.folder, f"pages-{os.getpid()}.sqlite")
    write_journal(journal, calls, time.time())

    def run(n: int) -> Reading:
        cpu, wall = time.process_time(), time.perf_counter()
        found = measure(journal)
        return Reading(time.process_time() - cpu, time.perf_counter() - wall, figures(found))

    yield run


def on_server(place: Place, calls: int) -> Iterator[Run]:
    from . import dashboard

    return over_calls(dashboard.measure_server, place, calls)


def in_browser(place: Place, calls: int) -> Iterator[Run]:
    import playwright  # noqa: F401 - says who is missing

    from . import dashboard

    if not CHROMIUM.exists():
        raise ImportError(CHROMIUM.name, name=CHROMIUM.name)
    return over_calls(dashboard.measure_browser, place, calls)


def nothing_to_see(place: Place, memory: bool) -> None:
    """A profile of this process would show it waiting for the browser."""


SERVER, BROWSER = "dashboard's server, the slowest page", "dashboard in headless Chromium, latency page"


def tables(calls: int = CALLS) -> tuple[Table, ...]:
    return (
        Table(
            title="How long does the dashboard take?",
            reference=SERVER,
            timed=False,
            cold=True,
            rounds=1,
            columns=(
                Column("first", "first look, cold", "s"),
                *(Column(window, f"another filter, {window}", "ms", 1e3) for window in WINDOWS),
            ),
            drawn=("all",),
            about=(
                f"{calls:,} invented calls of thirty days, all but today's archived (`DASHBOARD_CALLS` takes another number). The server's time is that of "
                "a rerun after another model was chosen; in the browser it is the time until the chart has changed. Both are the median of "
                "several changes, once."
            ),
            contestants=(
                Contestant(SERVER, partial(on_server, calls=calls), ("streamlit", "polars")),
                Contestant(BROWSER, partial(in_browser, calls=calls), ("playwright",), explain=nothing_to_see),
            ),
            goals=(
                *(Goal(f"warm rerun, {window}", SERVER, None, 0.15, of=window) for window in WINDOWS),
                *(Goal(f"another filter in the browser, {window}", BROWSER, None, 1.0, of=window) for window in WINDOWS),
                Goal("first chart in the browser", BROWSER, None, 6.0, of="first"),
            ),
        ),
    )
