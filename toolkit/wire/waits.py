"""Who is waiting right now, for what, and since when: told by the calls themselves, looked at by whoever shows how a run goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Wait", "Waits"]


class Wait(NamedTuple):
    """A call that is not being made: it waits for its turn or for its next attempt."""

    run_id: str | None
    label: str
    reason: str
    since: float


class Waits:
    """The calls of a client that wait; a call that need not wait never comes here.

    Examples
    --------
    >>> waits = Waits(timer=lambda: 7.0)
    >>> with waits.noted("run", "model", "rate limit"):
    ...     waits.of_run("run")
    [Wait(run_id='run', label='model', reason='rate limit', since=7.0)]
    >>> waits.of_run("run")
    []
    """

    def __init__(self, *, timer: Callable[[], float] = time.monotonic) -> None:
        self.timer = timer
        self._under_way: dict[object, Wait] = {}

    @contextlib.contextmanager
    def noted(self, run_id: str | None, label: str, reason: str) -> Iterator[None]:
        """Note a wait as long as it lasts."""
        key = object()
        self._under_way[key] = Wait(run_id, label, reason, self.timer())
        try:
            yield
        finally:
            del self._under_way[key]

    def of_run(self, run_id: str) -> list[Wait]:
        """Return the waits under way of a run's calls, the longest first."""
        return [wait for wait in list(self._under_way.values()) if wait.run_id == run_id]
