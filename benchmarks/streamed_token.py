"""What a streamed token costs: 2,000 of them in an answer, each written by the server on its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from .asking import Caller, in_turn
from .measure import Contestant, Goal, Place, Table
from .one_call import BODY, MESSAGES, journal_in

TOKENS = 2_000
STREAMED = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def ours(path: str, place: Place, transport: str = "own") -> Iterator[Caller]:
    import toolkit as tk

    if transport == "fast":
        import pyreqwest  # noqa: F401 - says who is missing
    urls = {"openai_compatible": place.url + path}
    with tk.Client(base_urls=urls, cache=False, journal=journal_in(place, f"stream-{transport}"), transport=transport) as client:

        def call() -> object:
            return "".join(event.text for event in client.stream_text("openai_compatible/bench", "hi", cache=False))

        yield Caller(call, client.journal.flush)


def httpx_bytes(path: str, place: Place) -> Iterator[Caller]:
    import httpx

    with httpx.Client() as client:

        def call() -> object:
            with client.stream("POST", place.url + path + "/chat/completions", json=STREAMED) as response:
                return sum(len(chunk) for chunk in response.iter_bytes())

        yield Caller(call)


def httpx_events(path: str, place: Place) -> Iterator[Caller]:
    import json

    import httpx
    import httpx_sse

    def text(data: str) -> str:
        choices = json.loads(data)["choices"]
        return choices[0]["delta"].get("content", "") if choices else ""

    with httpx.Client() as client:

        def call() -> object:
            with httpx_sse.connect_sse(client, "POST", place.url + path + "/chat/completions", json=STREAMED) as source:
                return "".join(text(event.data) for event in source.iter_sse() if event.data != "[DONE]")

        yield Caller(call)


def openai_stream(path: str, place: Place) -> Iterator[Caller]:
    import openai

    with openai.OpenAI(base_url=place.url + path, api_key="x") as client:

        def call() -> object:
            chunks = client.chat.completions.create(model="bench", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

        yield Caller(call)


def litellm_stream(path: str, place: Place) -> Iterator[Caller]:
    import litellm

    def call() -> object:
        chunks = litellm.completion(model="openai/bench", messages=MESSAGES, stream=True, api_base=place.url + path, api_key="x")
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    yield Caller(call)


OURS, FAST, REFERENCE, OPENAI, LITELLM = "toolkit", "toolkit, transport fast", "httpx iter_bytes, unread", "openai", "litellm"


def contestants(path: str, tokens: int) -> tuple[Contestant, ...]:
    def contestant(name: str, client: Callable[..., Iterator[Caller]], *packages: str) -> Contestant:
        return Contestant(name, functools.partial(in_turn, functools.partial(client, path)), packages, per=tokens)

    return (
        contestant(REFERENCE, httpx_bytes, "httpx"),
        contestant(OURS, ours, "model-comparison-toolkit"),
        contestant(FAST, functools.partial(ours, transport="fast"), "pyreqwest"),
        contestant("httpx-sse + json", httpx_events, "httpx-sse"),
        contestant(OPENAI, openai_stream, "openai"),
        contestant(LITELLM, litellm_stream, "litellm"),
    )


def tables(tokens: int = TOKENS) -> tuple[Table, ...]:
    slow = tokens // 4
    return (
        Table(
            title="What does a streamed token cost as fast as it comes?",
            operation="token",
            reference=REFERENCE,
            about=f"{tokens:,} tokens, written one by one without a pause; who reads slowly finds several in one read and pays less for each.",
            contestants=contestants(f"/stream/{tokens}/v1", tokens),
            goals=(
                Goal("token as fast as it comes", OURS, REFERENCE, 1.2),
                Goal("token as fast as it comes, beside openai", OURS, OPENAI, 1 / 8),
                Goal("token as fast as it comes, beside litellm", OURS, LITELLM, 1 / 25),
            ),
        ),
        Table(
            title="What does a streamed token cost at a model's pace?",
            operation="token",
            reference=REFERENCE,
            about=(
                f"{slow:,} tokens, one each 0.2 ms or a little more, so that a client that is quick enough is woken for each. Being woken "
                "costs everybody the same and most of the reference; wall time is the server's."
            ),
            contestants=contestants(f"/paced/{slow}/200/v1", slow),
            goals=(Goal("token at a model's pace", OURS, REFERENCE, 1.2),),
        ),
    )
