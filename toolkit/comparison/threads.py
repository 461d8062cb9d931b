"""Asks the cells of a comparison with threads: for a transport of the user's own, which blocks whoever calls it."""

from __future__ import annotations

import contextlib
import threading
import time

from ..client import Client
from ..errors import ProviderError, ToolkitError
from ..types import CacheMode
from .grid import Cell
from .run import JOIN_S, TICK_S, Run, Watcher
from .warming import WarmUp

__all__ = ["run_in_threads"]


def run_in_threads(client: Client, state: Run, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher) -> Run:
    """Ask every cell; come back when all is done, or at once when interrupted.

    The threads are daemons: a call under way at an interrupt is not waited for, yet what it brings is still cached and journaled.
    """
    running = concurrency
    idle = threading.Semaphore(0)

    def work() -> None:
        try:
            while (cell := state.next_cell()) is not None:
                ask_cell(client, state, cell, cache, stream)
        except BaseException as exc:  # noqa: BLE001 - a thread's error must reach the caller
            state.fail(exc)
        finally:
            idle.release()

    threads = [threading.Thread(target=work, name=f"toolkit-compare-{i}", daemon=True) for i in range(running)]
    try:
        warm_up(client, state, stream=stream)
        for thread in threads:
            thread.start()
        while running:
            while running and idle.acquire(timeout=0 if state.waiting else TICK_S):
                running -= 1
            state.score_waiting(time.monotonic() + TICK_S)
            watch(state)
        state.score_waiting()
    except KeyboardInterrupt:
        state.stop()
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        state.end_early()
    except BaseException:  # a watcher's: nobody will look at what else would be asked
        state.stop()
        raise
    return state.end(watch)


def warm_up(client: Client, state: Run, *, stream: bool) -> None:
    """Ask the warm-up calls, one after the other: what they failed at, the calls that count will tell."""
    asker = WarmUp(state.warmup, state)
    while (cell := asker.next_cell()) is not None:
        variant, context = cell.variant, asker.context(cell)
        with contextlib.suppress(ProviderError):
            client.ask(variant.name, cell.question.prompt, variant.options, cache=False, stream=stream, context=context)


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
        state.answered(cell, completion)
