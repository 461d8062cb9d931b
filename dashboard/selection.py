"""What the reader of a page has chosen: a half-open window of time and the filters, as plain values that can key a cache."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["DEFAULT_WINDOW", "STEPS_S", "WINDOWS_S", "Selection", "step_for", "window"]

WINDOWS_S: dict[str, float | None] = {"15m": 900.0, "1h": 3600.0, "6h": 21600.0, "24h": 86400.0, "7d": 604800.0, "all": None}
DEFAULT_WINDOW = "24h"
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800)
_GRAINS = 360  # a window moves in 360ths of its width, so that answers stay cached while nothing new is written


class Selection(NamedTuple):
    """Calls with ``lo_s <= at < hi_s`` that pass every filter; an empty filter lets everything through.

    ``whole`` says that the window is everything there is, so that nothing lies before it.
    """

    lo_s: float
    hi_s: float
    whole: bool = False
    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    provenances: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()

    @property
    def width_s(self) -> float:
        return self.hi_s - self.lo_s

    def before(self) -> Selection:
        """The window of the same width that ends where this one starts."""
        return self._replace(lo_s=self.lo_s - self.width_s, hi_s=self.lo_s)


def window(choice: str, *, now_s: float, first_s: float, last_s: float) -> Selection:
    """Return the window that a choice stands for; ``all`` spans the first call to the last."""
    width_s = WINDOWS_S[choice]
    if width_s is None:
        return Selection(math.floor(first_s), math.floor(last_s) + 1.0, whole=True)
    grain_s = width_s / _GRAINS
    hi_s = (math.floor(now_s / grain_s) + 1) * grain_s
    return Selection(hi_s - width_s, hi_s)


def step_for(span_s: float, points: int) -> float:
    """Return the finest round step that cuts ``span_s`` into at most ``points`` buckets."""
    return next((step for step in STEPS_S if span_s / step <= points), STEPS_S[-1])
