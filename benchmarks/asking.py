"""Ways of asking again and again: one call at a time, many threads, many tasks. A client gives a ``Caller``; the way is the contestant."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .measure import Place, Run


def nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Caller:
    """One call, and what has to end before the round does (a journal's thread, say): work put off is work done."""

    call: Callable[[], object]
    settle: Callable[[], object] = nothing


@dataclass(frozen=True, slots=True)
class AsyncCaller:
    call: Callable[[], Awaitable[object]]
    settle: Callable[[], object] = nothing


Client = Callable[[Place], Iterator[Caller]]
AsyncClient = Callable[[Place], AsyncIterator[AsyncCaller]]


def in_turn(client: Client, place: Place) -> Iterator[Run]:
    """One call at a time."""
    with contextlib.contextmanager(client)(place) as caller:

        def run(n: int) -> None:
            for _ in range(n):
                caller.call()
            caller.settle()

        yield run


def by_threads(client: Client, place: Place, width: int) -> Iterator[Run]:
    """So many threads, n calls each."""
    barrier = threading.Barrier(width)
    with contextlib.contextmanager(client)(place) as caller, ThreadPoolExecutor(width) as pool:

        def work(n: int) -> None:
            barrier.wait()  # all threads take part, none does another's work
            for _ in range(n):
                caller.call()

        def run(n: int) -> None:
            for done in [pool.submit(work, n) for _ in range(width)]:
                done.result()
            caller.settle()

        yield run


def by_tasks(client: AsyncClient, place: Place, width: int) -> Iterator[Run]:
    """So many tasks of an event loop, n calls each."""
    with asyncio.Runner() as runner:
        manager = contextlib.asynccontextmanager(client)(place)
        caller = runner.run(manager.__aenter__())

        async def work(n: int) -> None:
            for _ in range(n):
                await caller.call()

        async def all_of(n: int) -> None:
            await asyncio.gather(*(work(n) for _ in range(width)))

        def run(n: int) -> None:
            runner.run(all_of(n))
            caller.settle()

        yield run
        runner.run(manager.__aexit__(None, None, None))
