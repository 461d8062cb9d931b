"""What a call costs, and how true its latency is, from one call at a time to a thousand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .measure import Column, Contestant, Goal, Place, Reading, Run, Table
from .one_call import BODY, journal_in
from .true_times import percentile

SIZES = tuple(10**n for n in range(int(os.environ.get("WIDTH_GROWTH", "3")) + 1))
CALLS_PER_S = 400
"""What the model takes is chosen so that always as many calls come a second, however many wait at a time."""

SHORTEST_S = 0.01
ROUND_S = 1.0


def model_s(width: int) -> float:
    return max(SHORTEST_S, width / CALLS_PER_S)


class Answer(NamedTuple):
    latency_s: float  # as the client tells it
    text: str  # the two moments that the server saw

    @property
    def error_s(self) -> float:
        asked, answered = map(int, self.text.split())
        return abs(self.latency_s - (answered - asked) / 1e9)


def url_of(place: Place, width: int) -> str:
    return f"{place.url}/stamped/{model_s(width) * 1000:.0f}/0/0/v1"


def reading(cpu_s: float, wall_s: float, answers: list[Answer]) -> Reading:
    errors = [answer.error_s for answer in answers]
    figures = {"error_p50": percentile(errors, 0.5), "error_p99": percentile(errors, 0.99)}
    return Reading(cpu_s / len(answers), wall_s / len(answers), figures)


def head_start_s(i: int, width: int) -> float:
    """Calls come evenly, as they do after a while, not all at once."""
    return i / width * model_s(width)


def turns(width: int) -> int:
    """How many calls each has to make for a round."""
    return max(1, round(ROUND_S / model_s(width)))


Asking = Callable[[Place, int], Iterator[Callable[[], Answer]]]
AsyncAsking = Callable[[Place, int], AsyncIterator[Callable[[], Awaitable[Answer]]]]


def by_threads(asking: Asking, width: int, place: Place) -> Iterator[Run]:
    with contextlib.contextmanager(asking)(place, width) as ask, ThreadPoolExecutor(width) as pool:

        def several(i: int) -> list[Answer]:
            time.sleep(head_start_s(i, width))
            return [ask() for _ in range(turns(width))]

        def run(n: int) -> Reading:
            cpu, wall = time.process_time(), time.perf_counter()
            answers = [answer for _ in range(n) for each in pool.map(several, range(width)) for answer in each]
            return reading(time.process_time() - cpu, time.perf_counter() - wall, answers)

        yield run


def by_tasks(asking: AsyncAsking, width: int, place: Place) -> Iterator[Run]:
    with asyncio.Runner() as runner:
        manager = contextlib.asynccontextmanager(asking)(place, width)
        ask = runner.run(manager.__aenter__())

        async def several(i: int) -> list[Answer]:
            await asyncio.sleep(head_start_s(i, width))
            return [await ask() for _ in range(turns(width))]

        async def all_of() -> list[Answer]:
            return [answer for each in await asyncio.gather(*map(several, range(width))) for answer in each]

        def run(n: int) -> Reading:
            cpu, wall = time.process_time(), time.perf_counter()
            answers = [answer for _ in range(n) for answer in runner.run(all_of())]
            return reading(time.process_time() - cpu, time.perf_counter() - wall, answers)

        yield run
        runner.run(manager.__aexit__(None, None, None))


def ours(place: Place, width: int) -> Iterator[Callable[[], Answer]]:
    import toolkit as tk

    urls = {"openai_compatible": url_of(place, width)}
    with tk.Client(base_urls=urls, cache=False, journal=journal_in(place, f"width-{width}")) as client:

        def ask() -> Answer:
            done = client.generate_text("openai_compatible/bench", "hi", cache=False)
            return Answer(done.timing.latency_s or 0.0, done.text)

        yield ask


async def ours_async(place: Place, width: int) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    import toolkit as tk

    urls = {"openai_compatible": url_of(place, width)}
    async with tk.AsyncClient(base_urls=urls, cache=False, journal=journal_in(place, f"width-async-{width}")) as client:

        async def ask() -> Answer:
            done = await client.generate_text("openai_compatible/bench", "hi", cache=False)
            return Answer(done.timing.latency_s or 0.0, done.text)

        yield ask


async def httpx_async(place: Place, width: int) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    import httpx

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=width), timeout=60) as client:

        async def ask() -> Answer:
            begun = time.perf_counter()
            response = await client.post(f"{url_of(place, width)}/chat/completions", json=BODY)
            return Answer(time.perf_counter() - begun, response.json()["choices"][0]["message"]["content"])

        yield ask


HTTPX_MOST = 100
TASKS, THREADS, HTTPX = "toolkit, tasks", "toolkit, threads", "httpx, tasks"
WITHIN_S = 0.003


def tables(sizes: tuple[int, ...] = SIZES) -> tuple[Table, ...]:
    kinds: tuple[tuple[str, Callable[..., Iterator[Run]]], ...] = (
        (HTTPX, functools.partial(by_tasks, httpx_async)),
        (TASKS, functools.partial(by_tasks, ours_async)),
        (THREADS, functools.partial(by_threads, ours)),
    )

    def named(kind: str, size: int) -> str:
        return f"{kind}, {size:,} at a time"

    largest = sizes[-1]
    middle = sizes[len(sizes) // 2]
    return (
        Table(
            title="What does a call cost as more are made at a time?",
            reference=named(HTTPX, sizes[0]),
            fixed=True,
            rounds=4,
            axis="calls at a time",
            columns=(Column("error_p50", "latency error p50", "ms", 1e3), Column("error_p99", "latency error p99", "ms", 1e3)),
            about=(
                f"The model takes the longer the more calls wait for it, so that about {CALLS_PER_S} come a second at any width (at the "
                "smallest fewer). The latency that a client tells is compared to the time between the request's arrival at the server and "
                f"its answer: `completion.timing.latency_s` of the toolkit, a clock around the call for httpx, which is left out beyond {HTTPX_MOST:,} "
                "at a time, where a round takes minutes."
            ),
            contestants=tuple(
                Contestant(named(kind, size), functools.partial(way, size), series=kind, at=size)
                for kind, way in kinds
                for size in sizes
                if kind != HTTPX or size <= HTTPX_MOST
            ),
            goals=tuple(
                goal
                for kind in (TASKS, THREADS)
                for goal in (
                    Goal(f"a call of {largest:,} at a time, {kind}", named(kind, largest), named(kind, middle), 1.5),
                    Goal(f"latency of {largest:,} at a time, {kind}", named(kind, largest), None, WITHIN_S, of="error_p99"),
                )
            ),
        ),
    )
