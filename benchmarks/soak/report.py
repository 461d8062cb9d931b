"""A run as a page, and its gauges as a chart."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from importlib import metadata

from ..report import machine, row
from .checks import MEGABYTE, WARM_UP, Check, Soaked
from .load import KINDS

PACKAGES = ("model-comparison-toolkit", "httpx", "orjson")
PAGE = """# Soak

Written by `make soak` (`python -m benchmarks.soak`) on {date}.

- Machine: {machine}
- Python {python}; {versions}
- {minutes:.0f} minutes at {rate:,.0f} calls a second: {calls:,} calls
{note}
{verdict}

One process asks with threads and with event loops, which are replaced {shift}: {kinds}. The service, in a process of its own, answers each
prompt in its own way, and now and then does what services do: it is busy (429 with `Retry-After`, in storms too), breaks, sends pages,
drops connections, cuts answers, drips, hangs. Answers are cached in memory and on disk, where they are forgotten after half a minute and pushed out for
lack of room; every call is in a SQLite journal, which a second process reads meanwhile. Gauges are read {readings} times, after a
garbage collection and when the C library has given back what is free; the first {warm_up:.0f} % are the warm-up. Growth is the slope between all
pairs of readings (Theil and Sen) times the calls, with its 95 % interval: the upper end has to stay below the limit. Of threads, sockets
and files the least of five readings in a row counts.

{checks}

![Memory, pieces of memory, handles and waiting calls over the run]({chart})

## What went wrong, and what callers saw

{faults}

{ends}
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    return "\n".join([row(head), row(["---", *(["---:" if numbers else "---"] * (len(head) - 1))]), *map(row, rows)])


def checks_table(found: Sequence[Check]) -> str:
    return table(("what has to hold", "", "seen"), [(each.what, "yes" if each.holds else "**no**", each.seen) for each in found])


def page(run: Soaked, found: Sequence[Check], *, chart: str, shift_s: float, note: str) -> str:
    broken = [each.what for each in found if not each.holds]
    kinds = ", ".join(f"{percent} % {kind}" for kind, percent in KINDS.items())
    return PAGE.format(
        date=datetime.date.today().isoformat(),
        machine=machine(),
        python=platform.python_version(),
        versions=", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES),
        minutes=run.seconds / 60,
        rate=run.rate,
        calls=run.ledger.ended,
        note=f"- {note}\n" if note else "",
        verdict=f"**Not held: {'; '.join(broken)}.**" if broken else f"All {len(found)} checks hold.",
        shift=f"every {shift_s:.0f} seconds",
        kinds=kinds,
        readings=len(run.readings),
        warm_up=100 * WARM_UP,
        checks=checks_table(found),
        chart=chart,
        faults=table(("the service", "times"), [(name, f"{n:,}") for name, n in sorted(run.faults.items())], numbers=True),
        ends=table(("the caller", "times"), [(name, f"{n:,}") for name, n in sorted(run.ledger.ends.items())], numbers=True),
    )


# --- the chart -----------------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, GAP = 720, 92, 60, 34
INK = "#808a94"
COLOURS = ("#4c78a8", "#e4803a", "#3f9c6a")


def chart(run: Soaked) -> str:
    """Small multiples over minutes; grey stands on dark pages as on light ones."""
    readings = run.readings
    panels: list[tuple[str, dict[str, list[float]]]] = [
        (
            "memory, MB",
            {"asking": [each.rss_bytes / MEGABYTE for each in readings], "reading": [each.reader_bytes / MEGABYTE for each in readings]},
        ),
        ("pieces of memory, thousands", {"": [each.blocks / 1000 for each in readings]}),
        ("handles", {name: [float(getattr(each, name)) for each in readings] for name in ("threads", "sockets", "files")}),
        (
            "most that waited",
            {"calls": [float(each.under_way) for each in readings], "records": [float(each.waiting) for each in readings]},
        ),
    ]
    minutes = [each.at_s / 60 for each in readings]
    height = len(panels) * (HEIGHT + GAP) + 24
    parts = [panel(i * (HEIGHT + GAP) + 22, title, minutes, lines) for i, (title, lines) in enumerate(panels)]
    ticks = [
        f'<text x="{place(at, minutes[-1]):.0f}" y="{height - 10}" text-anchor="middle">{at:.3g}</text>' for at in tick_marks(minutes[-1])
    ]
    warm = place(minutes[round(len(minutes) * WARM_UP)], minutes[-1])
    shade = f'<rect x="{LEFT}" y="22" width="{warm - LEFT:.0f}" height="{height - 58}" fill="{INK}" opacity="0.12"/>'
    style = f'font-family="sans-serif" font-size="11" fill="{INK}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {style} role="img">'
        f"<title>Gauges over the minutes of the soak; the warm-up is shaded</title>{shade}{''.join(parts)}{''.join(ticks)}</svg>\n"
    )


def tick_marks(minutes: float) -> list[float]:
    return [minutes * part for part in (0, 0.25, 0.5, 0.75, 1)]


def place(minute: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - 16) * minute / last


def panel(top: float, title: str, minutes: Sequence[float], lines: dict[str, list[float]]) -> str:
    most = max(max(values) for values in lines.values()) or 1.0

    def points(values: Sequence[float]) -> str:
        return " ".join(f"{place(at, minutes[-1]):.1f},{top + HEIGHT * (1 - value / most):.1f}" for at, value in zip(minutes, values))

    drawn = [
        f'<polyline points="{points(values)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for values, colour in zip(lines.values(), COLOURS)
    ]
    names = "".join(f'<tspan fill="{colour}"> {name}</tspan>' for name, colour in zip(lines, COLOURS))
    return (
        f'<text x="{LEFT}" y="{top - 7}">{title}{names}</text>'
        f'<path d="M{LEFT} {top}V{top + HEIGHT}H{WIDTH - 16}" fill="none" stroke="{INK}" opacity="0.6"/>'
        f'<text x="{LEFT - 6}" y="{top + 8}" text-anchor="end">{most:,.0f}</text><text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>{"".join(drawn)}'
    )
