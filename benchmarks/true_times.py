"""How true the measured times are: what a client says about a stream, beside what its server knows of it.

Each token is the moment at which it was sent, by the monotonic clock that client and server share.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .measure import Column, Contestant, Goal, Place, Reading, Run, Table
from .one_call import MESSAGES, journal_in
from .streamed_token import STREAMED

WIDTH, TOKENS, PAUSE_S, WAIT_S = 64, 60, 0.02, 0.1
STAGGER_S = 0.01
BUSY_WIDTH, BLOCKED_S, FREE_S, SLOW_S = 8, 0.03, 0.07, 0.03

STAMP = re.compile(rb"\d{12,}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a client says of one stream, and the stamps it carried: the request's arrival at the server, then each token's sending."""

    ttft_s: float
    latency_s: float
    at_s: list[float]  # when each token came, by the clock of the stamps
    stamps_s: list[float]
    booked_s: float = 0.0  # to the client, not to the model


def told_by_clock(begun_s: float, chunks: Sequence[tuple[float, bytes]], ended_s: float) -> Told:
    """What a user's own clock says who looks at it whenever something has come."""
    found = [(at_s, int(stamp) / 1e9) for at_s, data in chunks for stamp in STAMP.findall(data)]
    at_s, stamps_s = [at for at, _ in found], [stamp for _, stamp in found]
    return Told(at_s[0] - begun_s, ended_s - begun_s, at_s[1:], stamps_s)


def told_by_toolkit(begun_s: float, completion: Any) -> Told:
    """What a completion says by itself."""
    timing, text = completion.timing, completion.text
    booked_s = timing.total_s - timing.latency_s + timing.loop_stall_s
    sent_s = begun_s + timing.lookup_s + timing.limiter_wait_s + timing.retry_sleep_s + timing.failed_attempts_s
    ends = list(accumulate(size for _, _, size in timing.flow.pieces))
    tokens = list(STAMP.finditer(text.encode()))
    at_s = [sent_s + timing.flow.pieces[next(i for i, end in enumerate(ends) if end >= token.end())][0] for token in tokens]
    return Told(timing.ttft_s, timing.latency_s, at_s[1:], [int(token[0]) / 1e9 for token in tokens], booked_s)


def percentile(values: Iterable[float], q: float) -> float:
    found = sorted(values)
    return found[min(len(found) - 1, int(q * len(found)))]


def reading(cpu_s: float, wall_s: float, told: Sequence[Told]) -> Reading:
    ttft = [stream.ttft_s - (stream.stamps_s[1] - stream.stamps_s[0]) for stream in told]
    latency = [stream.latency_s - (stream.stamps_s[-1] - stream.stamps_s[0]) for stream in told]
    lag = [at - sent for stream in told for at, sent in zip(stream.at_s, stream.stamps_s[1:])]
    figures = {
        "ttft_p50": percentile(map(abs, ttft), 0.5), "ttft_p99": percentile(map(abs, ttft), 0.99),
        "lag_p50": percentile(map(abs, lag), 0.5), "lag_p99": percentile(map(abs, lag), 0.99),
        "too_long": percentile((max(0.0, error) for error in latency), 0.99), "too_short": percentile((max(0.0, -error) for error in latency), 0.99),
        "booked": sum(stream.booked_s for stream in told) / len(told),
    }  # fmt: skip
    return Reading(cpu_s / len(lag), wall_s / len(lag), figures)


@dataclass(frozen=True, slots=True)
class Scene:
    """What goes on while the streams come."""

    width: int = WIDTH
    tokens: int = TOKENS
    blocked: bool = False  # the program keeps its event loop busy now and then
    slow: bool = False  # the reader takes its time over each piece

    @property
    def path(self) -> str:
        return f"/stamped/{WAIT_S * 1000:.0f}/{self.tokens}/{PAUSE_S * 1e6:.0f}"

    def look_at_piece(self) -> None:
        if self.slow:
            time.sleep(SLOW_S)


Streaming = Callable[[Place, Scene], Iterator[Callable[[], Told]]]
AsyncStreaming = Callable[[Place, Scene], AsyncIterator[Callable[[], Awaitable[Told]]]]


def by_threads(stream: Streaming, scene: Scene, place: Place) -> Iterator[Run]:
    with contextlib.contextmanager(stream)(place, scene) as ask, ThreadPoolExecutor(scene.width) as pool:

        def begin_later(i: int) -> Told:
            time.sleep(i * STAGGER_S)
            return ask()

        def run(n: int) -> Reading:
            cpu, wall = time.process_time(), time.perf_counter()
            told = [stream for _ in range(n) for stream in pool.map(begin_later, range(scene.width))]
            return reading(time.process_time() - cpu, time.perf_counter() - wall, told)

        yield run


def by_tasks(stream: AsyncStreaming, scene: Scene, place: Place) -> Iterator[Run]:
    with asyncio.Runner() as runner:
        manager = contextlib.asynccontextmanager(stream)(place, scene)
        ask = runner.run(manager.__aenter__())

        async def begin_later(i: int) -> Told:
            await asyncio.sleep(i * STAGGER_S)
            return await ask()

        async def keep_busy() -> None:
            while True:
                await asyncio.sleep(FREE_S)
                time.sleep(BLOCKED_S)

        async def all_of() -> list[Told]:
            busy = [asyncio.create_task(keep_busy())] if scene.blocked else []
            told = await asyncio.gather(*map(begin_later, range(scene.width)))
            for task in busy:
                task.cancel()
            return told

        def run(n: int) -> Reading:
            cpu, wall = time.process_time(), time.perf_counter()
            told = [stream for _ in range(n) for stream in runner.run(all_of())]
            return reading(time.process_time() - cpu, time.perf_counter() - wall, told)

        yield run
        runner.run(manager.__aexit__(None, None, None))


def ours(place: Place, scene: Scene, transport: str = "own") -> Iterator[Callable[[], Told]]:
    import toolkit as tk

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    urls = {"openai_compatible": f"{place.url}{scene.path}/v1"}
    with tk.Client(base_urls=urls, cache=False, journal=journal_in(place, f"true-{transport}"), transport=transport) as client:

        def ask() -> Told:
            begun, completion = time.perf_counter(), None
            for event in client.stream_text("openai_compatible/bench", "hi", cache=False):
                completion = event.completion
                scene.look_at_piece()
            return told_by_toolkit(begun, completion)

        yield ask


async def ours_async(place: Place, scene: Scene, transport: str = "own") -> AsyncIterator[Callable[[], Awaitable[Told]]]:
    import toolkit as tk

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    urls = {"openai_compatible": f"{place.url}{scene.path}/v1"}
    async with tk.AsyncClient(
        base_urls=urls, cache=False, journal=journal_in(place, f"true-async-{transport}"), transport=transport
    ) as client:

        async def ask() -> Told:
            begun, completion = time.perf_counter(), None
            async for event in client.stream_text("openai_compatible/bench", "hi", cache=False):
                completion = event.completion
                scene.look_at_piece()
            return told_by_toolkit(begun, completion)

        yield ask


def httpx_bytes(place: Place, scene: Scene) -> Iterator[Callable[[], Told]]:
    import httpx

    with httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=WIDTH)) as client:

        def ask() -> Told:
            begun, chunks = time.perf_counter(), []
            with client.stream("POST", f"{place.url}{scene.path}/v1/chat/completions", json=STREAMED) as response:
                for data in response.iter_bytes():
                    chunks.append((time.perf_counter(), data))
                    scene.look_at_piece()
            return told_by_clock(begun, chunks, time.perf_counter())

        yield ask


async def httpx_bytes_async(place: Place, scene: Scene) -> AsyncIterator[Callable[[], Awaitable[Told]]]:
    import httpx

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=WIDTH)) as client:

        async def ask() -> Told:
            begun, chunks = time.perf_counter(), []
            async with client.stream("POST", f"{place.url}{scene.path}/v1/chat/completions", json=STREAMED) as response:
                async for data in response.aiter_bytes():
                    chunks.append((time.perf_counter(), data))
            return told_by_clock(begun, chunks, time.perf_counter())

        yield ask


async def timed(begun: float, texts: AsyncIterator[str | None]) -> Told:
    chunks = [(time.perf_counter(), (text or "").encode()) async for text in texts]
    return told_by_clock(begun, chunks, time.perf_counter())


async def openai_async(place: Place, scene: Scene) -> AsyncIterator[Callable[[], Awaitable[Told]]]:
    import openai

    async with openai.AsyncOpenAI(base_url=f"{place.url}{scene.path}/v1", api_key="x") as client:

        async def ask() -> Told:
            begun = time.perf_counter()
            chunks = await client.chat.completions.create(model="bench", messages=MESSAGES, stream=True)
            return await timed(begun, (chunk.choices[0].delta.content async for chunk in chunks))

        yield ask


async def ollama_async(place: Place, scene: Scene) -> AsyncIterator[Callable[[], Awaitable[Told]]]:
    import ollama

    client = ollama.AsyncClient(host=place.url + scene.path)

    async def ask() -> Told:
        begun = time.perf_counter()
        chunks = await client.chat(model="bench", messages=MESSAGES, stream=True)
        return await timed(begun, (chunk.message.content async for chunk in chunks))

    yield ask


async def litellm_async(place: Place, scene: Scene) -> AsyncIterator[Callable[[], Awaitable[Told]]]:
    import litellm

    async def ask() -> Told:
        begun, address = time.perf_counter(), f"{place.url}{scene.path}/v1"
        chunks = await litellm.acompletion(model="openai/bench", messages=MESSAGES, stream=True, api_base=address, api_key="x")
        return await timed(begun, (chunk.choices[0].delta.content async for chunk in chunks if chunk.choices))

    yield ask


TASKS, TASKS_FAST = "toolkit, tasks", "toolkit, tasks, transport fast"
THREADS, THREADS_FAST = "toolkit, threads", "toolkit, threads, transport fast"
HTTPX, HTTPX_THREADS, OPENAI = "httpx bytes, tasks", "httpx bytes, threads", "openai, tasks"
BLOCKED, SLOW = "toolkit, its event loop blocked", "toolkit, a slow reader"
HTTPX_BLOCKED, HTTPX_SLOW, OPENAI_BLOCKED = (
    "httpx bytes, its event loop blocked",
    "httpx bytes, a slow reader",
    "openai, its event loop blocked",
)
WITHIN_S = 0.003

ERRORS = (
    Column("ttft_p50", "TTFT error p50", "ms", 1e3),
    Column("ttft_p99", "TTFT error p99", "ms", 1e3),
    Column("lag_p50", "token lag p50", "ms", 1e3),
    Column("lag_p99", "token lag p99", "ms", 1e3),
    Column("too_long", "latency told too long p99", "ms", 1e3),
    Column("too_short", "latency told too short p99", "ms", 1e3),
    Column("booked", "booked to the client", "ms a stream", 1e3),
)


def tables(width: int = WIDTH, tokens: int = TOKENS, busy_width: int = BUSY_WIDTH) -> tuple[Table, ...]:
    def tasks(name: str, stream: AsyncStreaming, scene: Scene, *packages: str) -> Contestant:
        return Contestant(name, functools.partial(by_tasks, stream, scene), packages)

    def threads(name: str, stream: Streaming, scene: Scene, *packages: str) -> Contestant:
        return Contestant(name, functools.partial(by_threads, stream, scene), packages)

    many = Scene(width, tokens)
    blocked, slow = Scene(busy_width, tokens, blocked=True), Scene(busy_width, tokens, slow=True)
    return (
        Table(
            title=f"How true are the measured times of {width} streams?",
            operation="token",
            reference=HTTPX,
            fixed=True,
            rounds=4,
            columns=ERRORS,
            drawn=("lag_p99",),
            about=(
                f"{width} streams at a time, begun one after the other, of {tokens} tokens each {PAUSE_S * 1000:.0f} ms. The server writes into each "
                "token when it sent it, by the clock that both processes share. The error of the time to the first token is against the "
                "server's own time between the request and that token; a token's lag is how much later than that it came to be known. "
                "Of the toolkit these are the times that it tells (`completion.timing`), of the others what a clock says beside the loop that reads."
            ),
            contestants=(
                tasks(HTTPX, httpx_bytes_async, many, "httpx"),
                threads(HTTPX_THREADS, httpx_bytes, many),
                tasks(TASKS, ours_async, many, "model-comparison-toolkit"),
                tasks(TASKS_FAST, functools.partial(ours_async, transport="fast"), many, "pyreqwest"),
                threads(THREADS, ours, many),
                threads(THREADS_FAST, functools.partial(ours, transport="fast"), many),
                tasks("ollama, tasks", ollama_async, many, "ollama"),
                tasks(OPENAI, openai_async, many, "openai"),
                tasks("litellm, tasks", litellm_async, many, "litellm"),
            ),
            goals=tuple(
                Goal(f"{figure}, {name}", name, None, WITHIN_S, of=of)
                for name in (TASKS, THREADS)
                for figure, of in (("time to first token", "ttft_p99"), ("lag of a token", "lag_p99"))
            ),
        ),
        Table(
            title="Whose time is it when the program is busy?",
            operation="token",
            reference=HTTPX_BLOCKED,
            fixed=True,
            rounds=4,
            timed=False,
            columns=ERRORS[4:],
            drawn=("too_long",),
            about=(
                f"{busy_width} streams. Either the program blocks the event loop for {BLOCKED_S * 1000:.0f} ms after each {FREE_S * 1000:.0f} ms, or the "
                f"reader takes {SLOW_S * 1000:.0f} ms over each token, longer than the model. What the client delayed must not be told as the model's "
                "latency: the toolkit books it apart (`loop_stall_s`, `consumer_s`)."
            ),
            contestants=(
                tasks(HTTPX_BLOCKED, httpx_bytes_async, blocked),
                tasks(OPENAI_BLOCKED, openai_async, blocked),
                tasks(BLOCKED, ours_async, blocked),
                threads(HTTPX_SLOW, httpx_bytes, slow),
                threads(SLOW, ours, slow),
            ),
            goals=(
                Goal("latency told, event loop blocked", BLOCKED, None, WITHIN_S, of="too_long"),
                Goal("latency told, slow reader", SLOW, None, WITHIN_S, of="too_long"),
            ),
        ),
    )
