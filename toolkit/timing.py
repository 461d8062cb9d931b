"""Where the time of a call goes: every second is booked to exactly one part, so the parts add up to the total."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from .rates import TokenFlow
from .types import Kept, Timing

__all__ = ["Ledger", "LoopDelays"]


class LoopDelays(Protocol):
    """How late an event loop was, being busy with something else."""

    def stalled(self) -> float:
        """Seconds in all, so far."""
        ...

    def held_up(self) -> float:
        """Seconds of the delay that has just ended: what comes back now may have been ready that long. Else 0."""
        ...


class Ledger:
    """Books the time of a call: each ``book_*`` takes everything since the one before.

    What a stalled event loop took from a part goes to ``stall_s`` instead, save for the consumer's: a reader that blocks the loop is a
    slow reader.

    Where the transport knows when bytes came, an attempt lasts until the last of them did, whatever else was done meanwhile: what the
    reader took while the model was still at work made nothing later. The rest, until the call goes on, is the reader's as far as it was
    with the reader, and ``stall_s`` beyond.
    """

    __slots__ = (
        "arrived_at", "attempt_s", "began", "clock", "consumer_s", "delays", "failed_s", "last", "limiter_s", "lookup_s", "pieces", "reading_s",
        "sleep_s", "stall_s", "stalled_before", "stamped",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float], delays: LoopDelays | None = None) -> None:
        self.clock = clock
        self.delays = delays
        self.stalled_before = delays.stalled() if delays is not None else 0.0
        self.last = clock()
        self.lookup_s = self.limiter_s = self.sleep_s = self.failed_s = self.attempt_s = self.consumer_s = self.stall_s = 0.0
        self.pieces: list[tuple[float, Any, int]] = []  # seconds into the attempt, channel, characters
        self.stamped = clock is time.perf_counter  # what the times of arrivals are told by
        self.begin_attempt()

    def passed(self) -> float:
        now = self.clock()
        passed, self.last = now - self.last, now
        return passed

    def lap(self) -> float:
        """Seconds since the last booking, without what the loop took of them."""
        passed = self.passed()
        if self.delays is None:
            return passed
        late = self.newly_stalled(self.delays)
        if not late:
            return passed
        self.stall_s += late
        # A stall delays a step only if it ended with it: what was still on its way by then would not have come earlier.
        return passed - min(late, passed, self.delays.held_up())

    def newly_stalled(self, delays: LoopDelays) -> float:
        stalled = delays.stalled()
        late, self.stalled_before = stalled - self.stalled_before, stalled
        return late

    def book_lookup(self) -> None:
        self.lookup_s += self.lap()

    def book_limiter(self) -> None:
        self.limiter_s += self.lap()

    def book_sleep(self) -> None:
        self.sleep_s += self.lap()

    # --- an attempt --------------------------------------------------------------------------------------------------

    def begin_attempt(self) -> None:
        """From now on time is the model's."""
        self.began = self.last
        self.arrived_at: float | None = None
        self.reading_s = 0.0  # what the reader took, where arrivals are known

    def book_attempt(self) -> None:
        self.attempt_s += self.lap()

    def book_arrival(self, arrived_at: float | None) -> None:
        """Book to the attempt all until some bytes came, which is now where nothing better is known."""
        if self.arrived_at is None and (arrived_at is None or not self.stamped):
            self.book_attempt()
            return
        now = self.last = self.clock()
        # Between what came before and now: the system's clock, which the kernel's stamps are made by, may have been set.
        self.arrived_at = min(max(now if arrived_at is None else arrived_at, self.arrived_at or self.began), now)
        self.attempt_s = self.arrived_at - self.began

    def end_attempt(self, *, answered: bool) -> None:
        """Book what is left of an attempt, good or failed."""
        if self.arrived_at is None:
            self.book_attempt()
            return
        now = self.last = self.clock()
        if self.delays is not None:
            self.newly_stalled(self.delays)
        if not answered:  # the silence after the last bytes is the service's
            self.attempt_s = max(self.attempt_s, now - self.began - self.reading_s)
        beyond_s = max(0.0, now - self.began - self.attempt_s)
        reader_s = min(beyond_s, self.reading_s)
        self.consumer_s += reader_s
        self.stall_s += beyond_s - reader_s
        self.arrived_at = None

    def book_consumer(self) -> None:
        passed = self.passed()
        if self.arrived_at is None:
            self.consumer_s += passed
        else:
            self.reading_s += passed
        if self.delays is not None:
            self.newly_stalled(self.delays)

    def discard_attempt(self) -> None:
        """Move the attempt under way to the failed ones."""
        self.failed_s += self.attempt_s
        self.attempt_s = 0.0
        self.pieces.clear()

    def first_s(self, kind: str | None = None) -> float | None:
        """Seconds into the attempt until the first piece, of one channel or of any."""
        return next((at for at, channel, _ in self.pieces if kind in (None, channel)), None)

    def give_up(self) -> None:
        """The call has failed: what its attempt took is of no answer."""
        self.book_lookup()
        self.discard_attempt()

    def timing(self, kept: Kept | None, *, left: bool = False) -> Timing:
        """Sum up; ``kept`` is the answer asked for in this call, ``None`` when there was none.

        Where the reader ``left``, the good attempt is what there was of it, without the counts that rates are made of.
        """
        return Timing(
            total_s=self.lookup_s + self.limiter_s + self.sleep_s + self.failed_s + self.attempt_s + self.consumer_s,
            lookup_s=self.lookup_s,
            limiter_wait_s=self.limiter_s,
            retry_sleep_s=self.sleep_s,
            failed_attempts_s=self.failed_s,
            latency_s=self.attempt_s if kept or left else None,
            consumer_s=self.consumer_s,
            ttft_s=self.first_s(),
            ttfa_s=self.first_s("text"),
            loop_stall_s=self.stall_s,
            flow=flow_of(kept) if kept else None,
        )


def flow_of(kept: Kept) -> TokenFlow:
    usage = kept.reply.usage
    return TokenFlow(
        latency_s=kept.latency_s, pieces=kept.pieces, output_tokens=usage.output_tokens, reasoning_tokens=usage.reasoning_tokens
    )
