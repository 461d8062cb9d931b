"""What a comparison costs: many prompts, several models, 64 calls at a time, beside the best that any client could do."""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from .measure import Column, Contestant, Goal, Place, Reading, Run, Table
from .one_call import journal_in
from .server import drawn_delay_s

MODELS = [f"bench-{i}" for i in range(4)]
PROMPTS, WIDTH, MEDIAN_MS = 200, 64, 50
CELLS = PROMPTS * len(MODELS)
PATH = f"/lognormal/{MEDIAN_MS}/v1"

Cell = tuple[str, str]
Post = Callable[[str, str], Awaitable[object]]


def prompts_of(turn: int, prompts: int) -> list[str]:
    """The same questions each time as far as the server's delays go, and new ones to every cache."""
    return [f"{i} Tell me about it (round {turn})." for i in range(prompts)]


def ideal_s(order: Iterable[Cell]) -> float:
    """Return how long the calls take in this order if nothing but the model takes time: whoever is free takes the next."""
    free_at = [0.0] * WIDTH
    for model, prompt in order:
        heapq.heapreplace(free_at, free_at[0] + drawn_delay_s(MEDIAN_MS / 1000, model, prompt))
    return max(free_at)


def reading(cpu_s: float, wall_s: float, order: list[Cell]) -> Reading:
    return Reading(cpu_s / len(order), wall_s / len(order), {"over_ideal": wall_s / ideal_s(order)})


def ours(place: Place, transport: str = "own", prompts: int = PROMPTS) -> Iterator[Run]:
    import toolkit as tk
    from toolkit.cache import ResponseCache

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    cache = ResponseCache(Path(place.folder, f"grid-{transport}-{os.getpid()}"))
    urls, turns = {"openai_compatible": place.url + PATH}, itertools.count()
    client = tk.Client(base_urls=urls, cache=cache, journal=journal_in(place, f"grid-{transport}"), transport=transport)
    names = [f"openai_compatible/{model}" for model in MODELS]

    def run(n: int) -> Reading:
        assert n == 1
        questions = prompts_of(next(turns), prompts)
        cpu, wall = time.process_time(), time.perf_counter()
        comparison = tk.compare(names, questions, client=client, concurrency=WIDTH, stream=False, progress=False)
        wall_s = time.perf_counter() - wall
        client.journal.flush()
        cpu_s = time.process_time() - cpu
        rows = comparison.frame.sort_values("at")
        assert (rows["status"] == "ok").all() and (rows["provenance"] == "live").all()
        return reading(cpu_s, wall_s, [(model.partition("/")[2], prompt) for model, prompt in zip(rows["model"], rows["prompt"])])

    with client:
        yield run


def by_gather(post: Callable[[Place], AsyncIterator[Post]], place: Place, prompts: int = PROMPTS) -> Iterator[Run]:
    """All calls at once to ``asyncio.gather``, 64 let through at a time."""
    turns = itertools.count()
    with asyncio.Runner() as runner:
        manager = asynccontextmanager(post)(place)
        ask = runner.run(manager.__aenter__())

        async def all_of(order: list[Cell]) -> None:
            gate = asyncio.Semaphore(WIDTH)

            async def one(cell: Cell) -> None:
                async with gate:
                    await ask(*cell)

            await asyncio.gather(*map(one, order))

        def run(n: int) -> Reading:
            assert n == 1
            order = [(model, prompt) for prompt in prompts_of(next(turns), prompts) for model in MODELS]
            cpu, wall = time.process_time(), time.perf_counter()
            runner.run(all_of(order))
            return reading(time.process_time() - cpu, time.perf_counter() - wall, order)

        yield run
        runner.run(manager.__aexit__(None, None, None))


async def httpx_posts(place: Place) -> AsyncIterator[Post]:
    import httpx

    async with httpx.AsyncClient(timeout=60) as client:

        async def post(model: str, prompt: str) -> object:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            return (await client.post(place.url + PATH + "/chat/completions", json=body)).json()["choices"][0]["message"]["content"]

        yield post


async def openai_posts(place: Place) -> AsyncIterator[Post]:
    import openai

    async with openai.AsyncOpenAI(base_url=place.url + PATH, api_key="x") as client:

        async def post(model: str, prompt: str) -> object:
            answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
            return answer.choices[0].message.content

        yield post


OURS, FAST, OPENAI, HTTPX = "tk.compare", "tk.compare, transport fast", "openai, gather", "httpx, gather"


def tables(prompts: int = PROMPTS) -> tuple[Table, ...]:
    def gathered(name: str, post: Callable[[Place], AsyncIterator[Post]], *packages: str) -> Contestant:
        return Contestant(name, functools.partial(by_gather, post, prompts=prompts), packages)

    return (
        Table(
            title="What does a grid cost?",
            reference=HTTPX,
            fixed=True,
            rounds=7,
            columns=(Column("over_ideal", "wall", "× ideal"),),
            drawn=("over_ideal",),
            about=(
                f"{prompts} prompts × {len(MODELS)} models, {WIDTH} at a time; the server thinks for a log-normal time around {MEDIAN_MS} ms, "
                "drawn from model and prompt. `× ideal` is wall time over that of a client that takes no time at all and asks in the same "
                "order. The toolkit keeps every answer on disk and writes its journal; the others do nothing but ask."
            ),
            contestants=(
                gathered(HTTPX, httpx_posts, "httpx"),
                Contestant(OURS, functools.partial(ours, prompts=prompts), ("model-comparison-toolkit",)),
                Contestant(FAST, functools.partial(ours, transport="fast", prompts=prompts), ("pyreqwest",)),
                gathered(OPENAI, openai_posts, "openai"),
            ),
            goals=(
                Goal("grid against the ideal", OURS, None, 1.15, of="over_ideal"),
                Goal("grid against the ideal, fast", FAST, None, 1.05, of="over_ideal"),
                Goal("grid beside openai", OURS, OPENAI, 0.3),
            ),
        ),
    )
