"""Numbers in words: three significant digits, a unit, and never a 0 where nothing is known."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

__all__ = ["age", "change", "count", "dollars", "duration", "escape", "local", "percent", "plural", "points", "size", "three", "utc"]

UNKNOWN = "–"
_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")


def count(n: float) -> str:
    return f"{n:,.0f}" if n == round(n) or abs(n) >= 1000 else f"{n:.3g}"


def plural(n: int, noun: str) -> str:
    """Return ``"1 call"``, ``"2,000 calls"``."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {noun}s"


def duration(seconds: float | None) -> str:
    """Return seconds in the unit that reads best: ``"812 µs"``, ``"43.2 ms"``, ``"1.9 s"``, ``"4 min 10 s"``, ``"3 h 5 min"``."""
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if seconds >= 90:
        return _long(round(seconds))
    if seconds >= 1:
        return f"{three(seconds)} s"
    return f"{three(seconds * 1e3)} ms" if seconds >= 1e-3 else f"{three(seconds * 1e6)} µs"


def _long(seconds: int) -> str:
    for (large, name), (small, small_name) in pairwise(_UNITS):
        if seconds >= large:
            rest = seconds % large // small
            return f"{seconds // large} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds} s"


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def age(seconds: float) -> str:
    """Return how old something is, to the second and never negative: two machines' clocks may differ."""
    whole = max(0, math.floor(seconds))
    return _long(whole) if whole >= 60 else f"{whole} s"


def dollars(usd: float | None) -> str:
    if usd is None:
        return UNKNOWN
    if usd == 0 or abs(usd) >= 0.1:
        return f"${usd:,.2f}"
    return f"${three(usd)}"


def size(n_bytes: float) -> str:
    """Return ``"812 B"``, ``"43.2 kB"``, ``"1.9 GB"``."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{three(n_bytes)} {unit}"
        n_bytes /= 1000
    return f"{three(n_bytes)} GB"


def percent(share: float | None) -> str:
    if share is None:
        return UNKNOWN
    return f"{three(100 * share)} %"


def change(now: float | None, before: float | None) -> str | None:
    """Return how much a number moved, in percent of what it was; ``None`` where that says nothing."""
    if now is None or not before:
        return None
    return f"{100 * (now - before) / before:+z.1f} %"


def points(now: float | None, before: float | None) -> str | None:
    """Return how much a share moved, in percentage points."""
    return None if now is None or before is None else f"{100 * (now - before):+z.1f} points"


def utc(at: float | None, *, date: bool = True) -> str:
    if at is None:
        return UNKNOWN
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC" if date else "%H:%M:%S UTC")


def local(at: float | None, zone: str | None) -> str | None:
    """Return a moment in the viewer's own zone, ``None`` where that is not known or says nothing new."""
    try:
        here = ZoneInfo(zone or "UTC")
    except (ValueError, OSError):  # the browser names what this machine does not know
        return None
    return None if at is None or here.key == "UTC" else f"{datetime.fromtimestamp(at, here):%Y-%m-%d %H:%M:%S} {here.key}"


def escape(text: str) -> str:
    """Return text for a Markdown field with every sign of Markdown disarmed: a model's name may hold an image's address."""
    return _MARKDOWN.sub(r"\\\1", text)


def three(value: float) -> str:
    """Three significant digits, without an exponent and without zeros that say nothing."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{round(value, digits):,.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
