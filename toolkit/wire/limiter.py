"""How many calls at a time a service bears: found out from its 429s, per address and key. Pure: no clock of its own, no sleeping."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable

__all__ = ["Limiter"]


class Limiter:
    """Lets calls in, as many at a time as the service seems to bear.

    There is no limit until the service first refuses a call for their number (429). Then half of those under way may be, and with
    each round of good answers one more: additive increase and multiplicative decrease, as TCP finds its rate.

    Parameters
    ----------
    timer : callable
        Seconds of a monotonic clock.
    settle_s : float
        Refusals that come within this time of another are of the same crowd and don't halve the limit again.
    random : callable
        Gives a number in [0, 1).

    Notes
    -----
    D.-M. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks",
    Computer Networks and ISDN Systems 17 (1989): of the linear controls, this one converges to fair shares.

    Examples
    --------
    >>> limiter = Limiter(timer=lambda: 0.0)
    >>> [limiter.enter() for _ in range(4)]
    [True, True, True, True]
    >>> limiter.leave(refused=True)
    >>> limiter.limit, limiter.enter()
    (2.0, False)
    """

    PAUSE_S = 0.02
    """How long one who is not let in waits before asking again, as long as few wait."""

    ASKED_PER_S = 2000.0
    """How often all who wait may ask together: thousands of them on an event loop would leave it no time for the calls under way."""

    def __init__(self, *, timer: Callable[[], float], settle_s: float = 1.0, random: Callable[[], float] = random.random) -> None:
        self._timer = timer
        self._settle_s = settle_s
        self._random = random
        self._lock = threading.Lock()
        self._halved_at = -math.inf
        self.limit = math.inf
        self.under_way = 0
        self.waiting = 0

    def enter(self) -> bool:
        """Let a call in, or not now. Who is let in has to leave."""
        with self._lock:
            if self.under_way >= self.limit:
                return False
            self.under_way += 1
            return True

    def queue_up(self) -> None:
        """Count one who was not let in, until ``step_out``."""
        with self._lock:
            self.waiting += 1

    def step_out(self) -> None:
        """Count one out who was let in after all, or gave up."""
        with self._lock:
            self.waiting -= 1

    def pause_s(self) -> float:
        """How long one who waits does so before asking again: drawn, so that a crowd that came at once does not ask at once.

        Examples
        --------
        >>> limiter = Limiter(timer=lambda: 0.0, random=lambda: 0.5)
        >>> limiter.waiting = 4000
        >>> limiter.pause_s()
        2.0
        """
        return max(self.PAUSE_S, 2 * self._random() * self.waiting / self.ASKED_PER_S)

    def leave(self, *, refused: bool = False, answered: bool = False) -> None:
        """Count a call out, and learn from how it went."""
        with self._lock:
            if refused:
                self._halve()
            elif answered and self.limit < math.inf:
                self.limit += 1 / self.limit
            self.under_way -= 1

    def _halve(self) -> None:
        now = self._timer()
        if now - self._halved_at >= self._settle_s:
            self._halved_at = now
            self.limit = max(1.0, min(self.limit, self.under_way) / 2)
