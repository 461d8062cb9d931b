"""How long to wait before asking again, and whether to. Pure: tested without a clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from ..errors import ProviderError
from ..render import Shown

__all__ = ["NO_RETRY", "Retry", "read_retry_after"]

LONGEST_WISH_S = 120.0
"""A service that wants us to wait longer than this is told no: the error reaches the caller at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Shown):
    """Exponential back-off with full jitter.

    Parameters
    ----------
    attempts : int
        How often to ask at most, the first time included.
    first_s, cap_s : float
        Upper bound of the first pause, and of any pause; the bound doubles from one to the next.
    budget_s : float
        No further pause that would bring the pauses of one call above this.
    random : callable
        Gives a number in [0, 1).

    Notes
    -----
    Full jitter (a pause drawn evenly from zero to the bound) spreads clients best: M. Brooker, "Exponential Backoff And Jitter",
    AWS Architecture Blog, 2015. The service's own wish (``Retry-After``) goes before it, with up to a tenth added so that
    clients told the same second don't all come back in it.

    Examples
    --------
    >>> from toolkit.errors import ServerError
    >>> Retry(random=lambda: 0.5).wait(ServerError("busy"), attempt=3, slept_s=0.0)
    1.0
    """

    attempts: int = 4
    first_s: float = 0.5
    cap_s: float = 30.0
    budget_s: float = 180.0
    random: Callable[[], float] = field(default=random.random, repr=False)

    def wait(self, error: ProviderError, attempt: int, slept_s: float = 0.0) -> float | None:
        """Return the seconds to wait before attempt ``attempt + 1``, or ``None`` to give up."""
        if not error.retryable or attempt >= self.attempts:
            return None
        wish = error.retry_after
        if wish is not None and wish > LONGEST_WISH_S:
            return None
        if wish:
            pause = wish * (1 + 0.1 * self.random())
        else:
            pause = min(self.cap_s, self.first_s * 2.0 ** (attempt - 1)) * self.random()
        return pause if slept_s + pause <= self.budget_s else None


NO_RETRY = Retry(attempts=1)


def read_retry_after(headers: Mapping[str, str], *, now: Callable[[], float] = time.time) -> float | None:
    """Read the service's wish in seconds: ``retry-after-ms``, ``retry-after`` as seconds or as a date; ``None`` without a usable one."""
    try:
        return positive(float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    text = headers.get("retry-after", "")
    try:
        return positive(float(text))
    except ValueError:
        pass
    try:
        return positive(parsedate_to_datetime(text).timestamp() - now())
    except (TypeError, ValueError, OverflowError):
        return None


def positive(seconds: float) -> float | None:
    """NaN, negative and infinite wishes are none."""
    return seconds if 0 <= seconds < float("inf") else None
