"""Asks the cells of a comparison on an event loop: the caller's for ``acompare``, one in a thread of its own for ``compare``.

Threads queue for the interpreter's lock at each look-up, write and exchange, and tasks of one loop do not; which of the two is faster on an
idle machine is for ``benchmarks/grid.py`` to say.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..client import AsyncClient, Client
from ..errors import ToolkitError
from ..monitor.outcomes import Outcome
from ..types import CacheMode, Completion, ImageResult
from .grid import Cell
from .run import JOIN_S, TICK_S, Asked, Run, Watcher
from .threads import run_in_threads
from .warming import WarmUp

__all__ = ["Asker", "arun", "ask_all", "run"]


HOLD_S = 0.005
"""How soon a call that was held back, or a score that others wait for, is looked at again."""


class Asker(Protocol):
    """Who knows what to ask, and takes what comes back."""

    def next_cell(self) -> Cell | None: ...

    def context(self, cell: Cell) -> dict[str, str | int]: ...

    def note(self, cell: Cell) -> Asked: ...

    def answered(self, cell: Cell, completion: Completion | ImageResult) -> None: ...

    def fail(self, error: BaseException) -> None: ...


async def ask_all(
    client: AsyncClient, asker: Asker, *, concurrency: int, cache: CacheMode, stream: bool, hold: Callable[[], bool] = lambda: False
) -> None:
    """Ask cell after cell, so many at a time, until there is none left. A failed call is a row; any other error goes to the asker.

    While ``hold`` says so, no further call is begun.
    """

    async def work() -> None:
        try:
            while True:
                while hold():
                    await asyncio.sleep(HOLD_S)
                if (cell := asker.next_cell()) is None:
                    return
                await ask_cell(client, asker, cell, cache, stream)
        except Exception as exc:  # noqa: BLE001 - it stops the whole run, and the others may end their calls
            asker.fail(exc)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())


async def ask_run(client: AsyncClient, state: Run, *, concurrency: int, cache: CacheMode, stream: bool) -> None:
    """Ask the warm-up calls of a run, then its cells."""
    if state.warmup:
        await ask_all(client, WarmUp(state.warmup, state), concurrency=concurrency, cache=False, stream=stream)
    await ask_all(client, state, concurrency=concurrency, cache=cache, stream=stream, hold=lambda: state.behind)


async def ask_cell(client: AsyncClient, asker: Asker, cell: Cell, cache: CacheMode, stream: bool) -> None:
    """Make one call. Its failure is a row; what keeps every call from being made (a wrong setting) goes on."""
    variant, note, noted = cell.variant, asker.note(cell), False

    def observe(outcome: Outcome) -> None:
        nonlocal noted
        if not isinstance(outcome.error, asyncio.CancelledError):  # stopped by us: as if never asked
            note(outcome)
            noted = True

    try:
        completion = await client.ask(
            variant.name,
            cell.question.prompt,
            variant.options,
            cache=cache,
            stream=stream,
            context=asker.context(cell),
            observe=observe,
        )
    except ToolkitError:
        if not noted:  # not an outcome of the call: it was never made
            raise
    else:
        asker.answered(cell, completion)


# --- in a thread of its own ------------------------------------------------------------------------------------------------


class LoopThread:
    """Carries out a coroutine on an event loop of its own, beside whatever runs in the calling thread.

    A daemon: a call under way at an interrupt is not waited for, yet what it brings is still cached and journaled.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, None],  # Any: what nobody sends or yields
        *,
        threads: int,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._work = work
        self._threads = threads
        self._loop_factory = loop_factory
        self._over = threading.Event()
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name="toolkit-compare", daemon=True).start()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                # For the few steps that block: a token's refreshing, a Redis. The default has six threads on two cores.
                runner.get_loop().set_default_executor(ThreadPoolExecutor(self._threads, thread_name_prefix="toolkit-compare"))
                runner.run(self._work)
        except BaseException as exc:  # noqa: BLE001 - a thread's error must reach the caller
            self.error = exc
        finally:
            self._over.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; say whether it has come."""
        return self._over.wait(timeout_s)


def run(client: Client, state: Run, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher) -> Run:
    """Ask every cell; come back when all is done, or at once when interrupted.

    Scorers run in the calling thread, where they hold up no call, and where an interrupt reaches them.
    """
    state.waits = client.waits
    at_a_time = min(concurrency, len(state.plan))
    twin = client.on_loop()
    if twin is None:
        return run_in_threads(client, state, concurrency=at_a_time, cache=cache, stream=stream, watch=watch)

    async def ask() -> None:
        async with twin:
            await ask_run(twin, state, concurrency=at_a_time, cache=cache, stream=stream)

    thread = LoopThread(ask(), threads=at_a_time, loop_factory=client.loop_factory())
    try:
        while not thread.wait(0 if state.waiting else HOLD_S if state.decides_by_score else TICK_S):
            state.score_waiting(time.monotonic() + TICK_S)
            watch(state)
        state.score_waiting()
    except KeyboardInterrupt:
        state.stop()
        thread.wait(JOIN_S)
        state.end_early()
    except BaseException:  # a watcher's: nobody will look at what else would be asked
        state.stop()
        raise
    if thread.error is not None:
        state.fail(thread.error)
    return state.end(watch)


# --- on the caller's loop --------------------------------------------------------------------------------------------------


async def arun(client: AsyncClient, state: Run, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher) -> Run:
    """Ask every cell on the running event loop; a cancellation (the kernel's interrupt) stops the calls and goes on to the caller."""
    state.waits = client.waits
    asking = asyncio.create_task(
        ask_run(client, state, concurrency=min(concurrency, len(state.plan)), cache=cache, stream=stream), name="toolkit-compare"
    )
    try:
        # A rule's stop lets the calls under way end, the user's does not.
        while not asking.done() and (not state.stopped or state.stopped_because is not None or state.fatal is not None):
            await asyncio.wait([asking], timeout=HOLD_S if state.decides_by_score else TICK_S)
            if state.waiting:  # in a thread: scorers may take long, and this is the loop that calls are measured on
                await asyncio.to_thread(state.score_waiting, time.monotonic() + TICK_S)
            watch(state)
        await asyncio.to_thread(state.score_waiting)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        if not state.finished:
            state.end_early()
        watch(state)
    return state.end(watch)
