"""What the reader of a page has chosen: a half-open window of time, the filters, and what to compare with, as plain values."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["CUSTOM", "DEFAULT_WINDOW", "SHIFTS", "STEPS_S", "WINDOWS_S", "Against", "Selection", "Wanted", "against", "step_for", "window"]

CUSTOM = "custom"
WINDOWS_S: dict[str, float | None] = {"15m": 900.0, "1h": 3600.0, "6h": 21600.0, "24h": 86400.0, "7d": 604800.0, "all": None}
DEFAULT_WINDOW = "24h"
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800)
SHIFTS = {"previous": "the window before", "day": "a day earlier", "week": "a week earlier", "off": "nothing"}
_SHIFTS_S = {"day": 86_400.0, "week": 604_800.0}
_GRAINS = 360  # a window moves in 360ths of its width, so that answers stay cached while nothing new is written


class Against(NamedTuple):
    """The other calls that numbers are compared with: those of another window, or of a run (then at any time)."""

    name: str
    lo_s: float
    hi_s: float
    run: str | None = None


class Selection(NamedTuple):
    """Calls with ``lo_s <= at < hi_s`` that pass every filter; an empty filter lets everything through.

    ``whole`` says that the window is everything there is, so that none of its time buckets is cut.
    """

    lo_s: float
    hi_s: float
    whole: bool = False
    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    provenances: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    against: Against | None = None

    @property
    def width_s(self) -> float:
        return self.hi_s - self.lo_s

    def other(self) -> Selection | None:
        """What to compare with, under the same filters: ``None`` where nothing was chosen, or nothing lies before."""
        if self.against is None:
            return None
        _, lo_s, hi_s, run = self.against
        return self._replace(lo_s=lo_s, hi_s=hi_s, whole=False, runs=self.runs if run is None else (run,), against=None)


def window(choice: str, *, now_s: float, first_s: float, last_s: float) -> Selection:
    """Return the window that a choice stands for; ``all`` spans the first call to the last."""
    width_s = WINDOWS_S[choice]
    if width_s is None:
        return Selection(math.floor(first_s), math.floor(last_s) + 1.0, whole=True)
    grain_s = width_s / _GRAINS
    hi_s = (math.floor(now_s / grain_s) + 1) * grain_s
    return Selection(hi_s - width_s, hi_s)


class Wanted(NamedTuple):
    """What the filters say, before it is known when "now" is. ``run_against`` is the id and the name of a run to compare with."""

    window: str
    filters: Selection
    from_s: float | None = None
    to_s: float | None = None
    compare: str = "previous"
    run_against: tuple[str, str] | None = None

    def at(self, now_s: float, first_s: float, last_s: float) -> Selection:
        """Return the selection that this means at a moment, for a journal with calls from ``first_s`` to ``last_s``."""
        if self.window == CUSTOM:
            lo_s = math.floor(first_s) if self.from_s is None else self.from_s
            hi_s = math.floor(max(now_s, last_s)) + 1.0 if self.to_s is None else self.to_s
            within = Selection(lo_s, max(hi_s, lo_s + 1.0))
        else:
            within = window(self.window, now_s=now_s, first_s=first_s, last_s=last_s)
        chosen = self.filters._replace(lo_s=within.lo_s, hi_s=within.hi_s, whole=within.whole)
        if self.run_against is not None:
            run, name = self.run_against
            return chosen._replace(against=Against(f"run {name}", math.floor(first_s), math.floor(last_s) + 1.0, run))
        return chosen._replace(against=against(self.compare, chosen))


def against(choice: str, chosen: Selection) -> Against | None:
    """Return the window that a choice of ``SHIFTS`` means for this one."""
    if chosen.whole or choice not in SHIFTS or choice == "off":
        return None
    shift_s = _SHIFTS_S.get(choice, chosen.width_s)
    return Against(SHIFTS[choice], chosen.lo_s - shift_s, chosen.hi_s - shift_s)


def step_for(span_s: float, points: int) -> float:
    """Return the finest round step that cuts ``span_s`` into at most ``points`` buckets."""
    return next((step for step in STEPS_S if span_s / step <= points), STEPS_S[-1])
