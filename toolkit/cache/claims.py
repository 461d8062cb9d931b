"""A claim: the right to ask in the name of every process that shares a cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..types import Kept
from .base import Guard

__all__ = ["Claim"]

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05


class Claim:
    """Takes a key's lock in each tier that has locks, one after the other.

    ``take`` never waits for another process: whoever calls it does, in a thread or on an event loop, and tries again. ``release``
    may come from another thread while ``take`` is at work, as when a task is cancelled.

    Attributes
    ----------
    kept : Kept or None
        After a successful ``take``: the answer, if another process has brought it by now.
    blocks : bool
        Whether taking and giving back may have to wait for a network. Without one they take microseconds: a lock on a file, and a
        look at pages that the look-up before has just read.
    """

    __slots__ = ("_guards", "_held", "_lock", "_look", "_over", "_pause_s", "blocks", "kept")

    def __init__(self, guards: Sequence[Guard], look: Callable[[], Kept | None], *, blocks: bool) -> None:
        self._guards = guards
        self._held = 0  # so many of the first guards are taken
        self._look = look
        self._lock = threading.Lock()
        self._over = False
        self._pause_s = FIRST_PAUSE_S / 2
        self.kept: Kept | None = None
        self.blocks = blocks

    def take(self) -> bool:
        """Try to take what is still missing; then look whether there is an answer already. Say whether this caller is the one."""
        with self._lock:
            while self._held < len(self._guards):
                if self._over or not self._guards[self._held].take():
                    return False
                self._held += 1
        self.kept = self._look()
        return True

    def pause_s(self) -> float:
        """Return how long to wait before the next try: longer each time, up to a twentieth of a second."""
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return self._pause_s

    def release(self) -> None:
        """Give back what was taken, the last first; a ``take`` after this one takes nothing."""
        self._over = True
        with self._lock:
            self._held = 0
            for guard in reversed(self._guards):  # all of them: an interrupt may have come right after one was taken
                guard.release()
