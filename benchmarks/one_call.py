"""What one call costs: the whole of it, recorded and written to the journal, beside the clients one would use instead."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from .asking import AsyncCaller, Caller, by_tasks, by_threads, in_turn
from .measure import Contestant, Goal, Place, Table

MESSAGES = [{"role": "user", "content": "hi"}]
WIDTH = 64
BODY = {"model": "bench", "messages": MESSAGES}


def journal_in(place: Place, name: str) -> str:
    return str(Path(place.folder, f"{name}-{os.getpid()}.sqlite"))


def ours(place: Place, transport: str = "own") -> Iterator[Caller]:
    import toolkit as tk

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    urls = {"openai_compatible": place.url + "/v1"}
    with tk.Client(base_urls=urls, cache=False, journal=journal_in(place, transport), transport=transport) as client:
        yield Caller(lambda: client.generate_text("openai_compatible/bench", "hi", cache=False), client.journal.flush)


def httpx_post(place: Place) -> Iterator[Caller]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=WIDTH)
    with httpx.Client(limits=limits) as client:
        url = place.url + "/v1/chat/completions"
        yield Caller(lambda: client.post(url, json=BODY).json()["choices"][0]["message"]["content"])


def transport_alone(place: Place, kind: str) -> Iterator[Caller]:
    """Below every client: the request given to httpx's transport, nothing but the answer read."""
    import json

    import httpx

    if kind == "fast":
        from pyreqwest.compatibility.httpx.transport import SyncHttpxTransport as Transport
    else:
        Transport = httpx.HTTPTransport  # noqa: N806 - a class
    url, headers = place.url + "/v1/chat/completions", {"content-type": "application/json"}
    mine = threading.local()  # one each: they are not made to be shared

    def call() -> object:
        if not hasattr(mine, "transport"):
            mine.transport = Transport()
        response = mine.transport.handle_request(httpx.Request("POST", url, content=json.dumps(BODY), headers=headers))
        answer = json.loads(response.read())["choices"][0]["message"]["content"]
        response.close()
        return answer

    yield Caller(call)


def openai_client(place: Place) -> Iterator[Caller]:
    import openai

    with openai.OpenAI(base_url=place.url + "/v1", api_key="x") as client:
        yield Caller(lambda: client.chat.completions.create(model="bench", messages=MESSAGES).choices[0].message.content)


def ollama_client(place: Place) -> Iterator[Caller]:
    import ollama

    client = ollama.Client(host=place.url)
    yield Caller(lambda: client.chat(model="bench", messages=MESSAGES).message.content)


def litellm_completion(place: Place) -> Iterator[Caller]:
    import litellm

    def call() -> object:
        answer = litellm.completion(model="openai/bench", messages=MESSAGES, api_base=place.url + "/v1", api_key="x")
        return answer.choices[0].message.content

    yield Caller(call)


async def ours_async(place: Place, transport: str = "own") -> AsyncIterator[AsyncCaller]:
    import toolkit as tk

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    urls = {"openai_compatible": place.url + "/v1"}
    async with tk.AsyncClient(base_urls=urls, cache=False, journal=journal_in(place, f"async-{transport}"), transport=transport) as client:
        yield AsyncCaller(lambda: client.generate_text("openai_compatible/bench", "hi", cache=False), client.journal.flush)


async def httpx_async(place: Place, kept_alive: int = 20) -> AsyncIterator[AsyncCaller]:
    import httpx

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=100, max_keepalive_connections=kept_alive)) as client:
        url = place.url + "/v1/chat/completions"

        async def call() -> object:
            return (await client.post(url, json=BODY)).json()["choices"][0]["message"]["content"]

        yield AsyncCaller(call)


async def openai_async(place: Place) -> AsyncIterator[AsyncCaller]:
    import openai

    async with openai.AsyncOpenAI(base_url=place.url + "/v1", api_key="x") as client:

        async def call() -> object:
            return (await client.chat.completions.create(model="bench", messages=MESSAGES)).choices[0].message.content

        yield AsyncCaller(call)


OURS, FAST, REFERENCE = "toolkit", "toolkit, transport fast", "httpx.Client.post + json"
OPENAI, LITELLM = "openai", "litellm"
REFERENCE_ASYNC = "httpx.AsyncClient.post, default limits"

SYNC = (
    (REFERENCE, httpx_post, ("httpx",)),
    (OURS, ours, ("model-comparison-toolkit",)),
    (FAST, functools.partial(ours, transport="fast"), ("pyreqwest", "orjson")),
    ("httpx.HTTPTransport alone", functools.partial(transport_alone, kind="httpx"), ()),
    ("pyreqwest's transport alone", functools.partial(transport_alone, kind="fast"), ()),
    ("ollama", ollama_client, ("ollama",)),
    (OPENAI, openai_client, ("openai",)),
    (LITELLM, litellm_completion, ("litellm",)),
)
ASYNC = (
    (REFERENCE_ASYNC, httpx_async),
    ("httpx.AsyncClient.post, 64 kept alive", functools.partial(httpx_async, kept_alive=WIDTH)),
    (OURS, ours_async),
    (FAST, functools.partial(ours_async, transport="fast")),
    (OPENAI, openai_async),
)


def goals(what: str) -> tuple[Goal, ...]:
    return (
        Goal(what, OURS, REFERENCE, 0.9),
        Goal(f"{what}, fast", FAST, REFERENCE, 0.5),
        Goal(f"{what} beside openai", OURS, OPENAI, 1 / 5),
        Goal(f"{what} beside litellm", OURS, LITELLM, 1 / 15),
    )


def tables(width: int = WIDTH) -> tuple[Table, ...]:
    return (
        Table(
            title="What does a call cost, one at a time?",
            reference=REFERENCE,
            about="An answer of 50 tokens, not streamed, no cache; the toolkit records the call and writes its journal within the round. "
            "A transport alone is what is left when there is no client at all.",
            contestants=tuple(Contestant(name, functools.partial(in_turn, client), packages) for name, client, packages in SYNC),
            goals=goals("one call"),
        ),
        Table(
            title=f"What does a call cost, {width} at a time by threads?",
            reference=REFERENCE,
            about="Clients are shared by all threads, as their authors recommend; httpx keeps 64 connections alive.",
            contestants=tuple(Contestant(name, functools.partial(by_threads, client, width=width), per=width) for name, client, _ in SYNC),
            goals=goals("64 threads"),
        ),
        Table(
            title=f"What does a call cost, {width} at a time on an event loop?",
            reference=REFERENCE_ASYNC,
            contestants=tuple(Contestant(name, functools.partial(by_tasks, client, width=width), per=width) for name, client in ASYNC),
            goals=(
                Goal("64 tasks", OURS, REFERENCE_ASYNC, 0.5),
                Goal("64 tasks, fast", FAST, REFERENCE_ASYNC, 0.5),
            ),
        ),
    )
