"""Single flight: of several equal calls under way, one asks and the others take what it brought.

Works across threads and event loops of one process. There is no lock around the table of flights: a leader that is dropped
ends its flight from ``__del__``, which the garbage collector may run at any point, also while a lock is held.
"""

from __future__ import annotations

import copy
import enum
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["ABANDONED", "Abandoned", "Failed", "Flight", "Flights", "Landed", "Outcome"]

T = TypeVar("T")

_NAP_S = 0.1 if os.name == "nt" else 60.0
"""Ctrl-C does not interrupt a waiting lock on Windows, so a waiter there comes up for air."""


class Abandoned(enum.Enum):
    """The type of ``ABANDONED``: the leader gave up without an answer or an error; join again."""

    ABANDONED = enum.auto()

    def __repr__(self) -> str:
        return "ABANDONED"

    __str__ = __repr__


ABANDONED: Final = Abandoned.ABANDONED


@dataclass(frozen=True, slots=True)
class Landed(Generic[T]):
    """The leader's answer."""

    kept: T


@dataclass(frozen=True, slots=True)
class Failed:
    """A copy of the leader's error, for this waiter alone."""

    error: Exception


Outcome = Landed[T] | Failed | Abandoned


class _Course(Generic[T]):
    """What the leader and the followers of one flight share."""

    __slots__ = ("_latch", "bells", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome[T] | None = None
        self.bells: dict[Callable[[], None], None] = {}  # a set in order, of which tuple() makes a copy in one go
        self._latch = threading.Lock()  # taken once, by whoever ends the flight, and never given back

    def end(self, outcome: Outcome[T]) -> bool:
        if not self._latch.acquire(blocking=False):
            return False
        self.outcome = outcome
        for ring in tuple(self.bells):
            ring()
        return True

    def hang(self, bell: Callable[[], None]) -> None:
        """Have a bell rung at the end. Look at ``outcome`` afterwards: the end may have come before the bell hung."""
        self.bells[bell] = None

    @property
    def over(self) -> bool:
        return self.outcome is not None


class Flight(Generic[T]):
    """A place in a flight: its leader's, who must end it, or a follower's, who waits.

    Attributes
    ----------
    leader : bool
        Whether this caller is the one who asks. It ends the flight by ``land``, ``fail`` or ``abandon``; the first of
        them counts. A leader that is garbage-collected has abandoned its flight.
    """

    __slots__ = ("_course", "_flights", "_key", "leader")

    def __init__(self, flights: Flights[T], key: Hashable, course: _Course[T], *, leader: bool) -> None:
        self._flights = flights
        self._key = key
        self._course = course
        self.leader = leader

    def land(self, kept: T) -> None:
        """Give the answer to everyone who waits. Put it into the cache first: who joins from now on starts a new flight."""
        self._end(Landed(kept))

    def fail(self, error: Exception) -> None:
        """Give the error to everyone who waits."""
        self._end(Failed(error))

    def abandon(self) -> None:
        """End without an answer: one of those who wait takes over."""
        self._end(ABANDONED)

    def wait(self) -> Outcome[T]:
        """Block until the flight is over and return what came of it (followers only, from a thread).

        ``KeyboardInterrupt`` gets through and leaves the flight as it is for the others.
        """
        signal = threading.Lock()
        signal.acquire()
        self._course.hang(signal.release)
        try:
            while not self._course.over and not signal.acquire(timeout=_NAP_S):
                pass
        finally:
            self._unhang(signal.release)
        return self._outcome()

    async def wait_async(self) -> Outcome[T]:
        """Wait until the flight is over, on whichever event loop runs (followers only). Cancelling it disturbs nobody."""
        from asyncio import get_running_loop  # imported here: a program without an event loop need not pay for one

        loop = get_running_loop()
        over = loop.create_future()

        def ring() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, over)
            except RuntimeError:  # the waiter's loop was closed meanwhile, so nobody waits there any more
                return

        self._course.hang(ring)
        try:
            if not self._course.over:
                await over
        finally:
            self._unhang(ring)
        return self._outcome()

    def _end(self, outcome: Outcome[T]) -> None:
        if not self.leader:
            raise RuntimeError("only the leader of a flight can end it; a follower waits")
        self._flights._forget(self._key, self._course)
        self._course.end(outcome)

    def _unhang(self, bell: Callable[[], None]) -> None:
        self._course.bells.pop(bell, None)

    def _outcome(self) -> Outcome[T]:
        outcome = self._course.outcome
        if isinstance(outcome, Landed):
            return Landed(self._flights._take(outcome.kept))
        if isinstance(outcome, Failed):
            return Failed(_own_copy(outcome.error))
        return ABANDONED

    def __del__(self) -> None:
        if self.leader and not self._course.over:
            self.abandon()


class Flights(Generic[T]):
    """The calls under way in this process, by key.

    Parameters
    ----------
    share : callable, optional
        Applied to the leader's answer for each follower, so that none can change what another one holds.
    taken : callable, optional
        Told of every answer that a follower took: what was saved is counted there.

    Examples
    --------
    >>> flights = Flights()
    >>> first, second = flights.join("a question"), flights.join("a question")
    >>> first.leader, second.leader
    (True, False)
    >>> first.land("an answer")
    >>> second.wait()
    Landed(kept='an answer')
    """

    def __init__(self, *, share: Callable[[T], T] | None = None, taken: Callable[[T], None] | None = None) -> None:
        self._airborne: dict[Hashable, _Course[T]] = {}
        self._share = share
        self._taken = taken
        _every_flights.add(self)

    def join(self, key: Hashable) -> Flight[T]:
        """Lead the flight for a key if there is none under way, follow it otherwise."""
        mine: _Course[T] = _Course()
        course = self._airborne.setdefault(key, mine)  # atomic: exactly one caller finds its own
        return Flight(self, key, course, leader=course is mine)

    def __len__(self) -> int:
        return len(self._airborne)

    def _forget(self, key: Hashable, course: _Course[T]) -> None:
        if self._airborne.get(key) is course:
            self._airborne.pop(key, None)

    def _take(self, kept: T) -> T:
        if self._taken is not None:
            self._taken(kept)
        return kept if self._share is None else self._share(kept)

    def _after_fork(self) -> None:
        self._airborne = {}  # their leaders are threads that only the parent has


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _own_copy(error: Exception) -> Exception:
    """Return a copy without traceback: raised in several threads, one object would collect the frames of all of them."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - an exception class of a user's function that can't be rebuilt: better shared than hidden
        return error
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin


_every_flights: weakref.WeakSet[Flights[Any]] = weakref.WeakSet()  # of whatever T


def _forget_all() -> None:
    for flights in list(_every_flights):
        flights._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
