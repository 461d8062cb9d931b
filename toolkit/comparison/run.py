"""Carries out a plan: threads for ``compare``, tasks for ``acompare``. Both stop when told and give back what is finished."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..client import AsyncClient, Client
from ..errors import ToolkitError
from ..monitor.events import CallRecord
from ..monitor.outcomes import Outcome
from ..types import CacheMode, Completion
from .grid import Cell, Plan
from .scorers import Scorer, score

__all__ = ["Run", "Watcher", "arun", "run"]

TICK_S = 0.1
"""How often a waiting cell looks up: an interrupt is not seen in between (ipykernel issues 881 and 1239)."""

JOIN_S = 0.3
"""How long an interrupted run waits for calls that are just ending."""

_log = logging.getLogger(__name__)

Watcher = Callable[["Run"], None]
"""Told at every tick; draws a bar or a table, and may call ``run.stop()``."""


@dataclass(slots=True)
class Run:
    """A comparison under way: what is finished so far, by cell index.

    ``errors`` holds what is wrong with the comparison itself (a missing key, say); a failed call is a row like any other.
    """

    plan: Plan
    run_id: str
    done: dict[int, CallRecord] = field(default_factory=dict)
    rows: list[CallRecord] = field(default_factory=list)
    """The same rows as they came in, so that a watcher can go on from where it was."""
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    operation: str = "text"
    """As the journal calls what is asked."""
    arrivals: dict[int, array[float]] = field(default_factory=dict)
    """When the pieces of each answer came, in seconds since its request: four bytes each."""
    stopped: bool = False
    fatal: BaseException | None = None
    started: float = field(default_factory=time.perf_counter)

    def stop(self) -> None:
        """Start no further call."""
        self.stopped = True

    @property
    def finished(self) -> bool:
        return len(self.done) == len(self.plan)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def note(self, cell: Cell) -> Callable[[Outcome], None]:
        """Return what takes down the outcome of a cell's call."""

        def take(outcome: Outcome) -> None:
            row = outcome.call_row(content=True)
            self.done[cell.index] = row
            self.rows.append(row)
            timing = outcome.timing
            if timing.ttft_s is not None:
                self.arrivals[cell.index] = array("f", itertools.accumulate(timing.inter_token_s, initial=timing.ttft_s))

        return take

    def score(self, cell: Cell, completion: Completion) -> None:
        """Let the scorers judge an answer. One that fails gives no score and says so: the answer is paid for and must not be lost."""
        scores = self.scores[cell.index] = {}
        for name, scorer in self.scorers.items():
            try:
                scores[name] = score(name, scorer, completion, cell.question.reference)
            except Exception as exc:  # noqa: BLE001 - a user's code
                scores[name] = math.nan
                _log.warning("the scorer %s failed on prompt %s: %s: %s", name, cell.question.prompt_id, type(exc).__name__, exc)

    def context(self, cell: Cell) -> dict[str, str | int]:
        where: dict[str, str | int] = {"label": cell.variant.label, "prompt_id": cell.question.prompt_id, "repeat": cell.repeat}
        return {**where, "run_id": self.run_id, "operation": self.operation}


def run(client: Client, state: Run, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher) -> Run:
    """Ask every cell with threads; come back when all is done, or at once when interrupted.

    The threads are daemons: a call under way at an interrupt is not waited for, yet what it brings is still cached and journaled.
    """
    order, lock = state.plan.order(), threading.Lock()
    running = min(concurrency, len(state.plan))
    idle = threading.Semaphore(0)

    def work() -> None:
        try:
            while (cell := next_cell(state, order, lock)) is not None:
                ask_cell(client, state, cell, cache, stream)
        except BaseException as exc:  # noqa: BLE001 - a thread's error must reach the caller
            state.fatal = state.fatal or exc
            state.stop()
        finally:
            idle.release()

    threads = [threading.Thread(target=work, name=f"toolkit-compare-{i}", daemon=True) for i in range(running)]
    try:
        for thread in threads:
            thread.start()
        while running:
            while idle.acquire(timeout=TICK_S):
                running -= 1
                if not running:
                    break
            watch(state)
    except KeyboardInterrupt:
        state.stop()
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    watch(state)
    if state.fatal is not None:
        raise state.fatal
    return state


def next_cell(state: Run, order: Iterator[int], lock: threading.Lock) -> Cell | None:
    with lock:
        index = None if state.stopped else next(order, None)
    return None if index is None else state.plan.cell(index)


def ask_cell(client: Client, state: Run, cell: Cell, cache: CacheMode, stream: bool) -> None:
    """Make one call. Its failure is a row; what keeps every call from being made (a wrong setting) goes on."""
    variant = cell.variant
    try:
        completion = client.ask(
            variant.name,
            cell.question.prompt,
            variant.options,
            cache=cache,
            stream=stream,
            context=state.context(cell),
            observe=state.note(cell),
        )
    except ToolkitError:
        if cell.index not in state.done:  # not an outcome of the call: it was never made
            raise
    else:
        state.score(cell, completion)


async def arun(client: AsyncClient, state: Run, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher) -> Run:
    """Ask every cell on the running event loop; a cancellation (the kernel's interrupt) stops the calls and goes on to the caller."""
    order, lock = state.plan.order(), threading.Lock()

    async def work() -> None:
        while (cell := next_cell(state, order, lock)) is not None:
            await aask_cell(client, state, cell, cache, stream)

    tasks = {asyncio.create_task(work()) for _ in range(min(concurrency, len(state.plan)))}
    try:
        pending = tasks
        while pending and not state.stopped:
            ended, pending = await asyncio.wait(pending, timeout=TICK_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
            watch(state)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not state.finished:
            state.stop()
        watch(state)
    return state


async def aask_cell(client: AsyncClient, state: Run, cell: Cell, cache: CacheMode, stream: bool) -> None:
    variant = cell.variant
    note = state.note(cell)

    def observe(outcome: Outcome) -> None:
        if not isinstance(outcome.error, asyncio.CancelledError):  # stopped by us: as if never asked
            note(outcome)

    try:
        completion = await client.ask(
            variant.name,
            cell.question.prompt,
            variant.options,
            cache=cache,
            stream=stream,
            context=state.context(cell),
            observe=observe,
        )
    except ToolkitError:
        if cell.index not in state.done:
            raise
    else:
        state.score(cell, completion)
