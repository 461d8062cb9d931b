"""What a streamed token costs: 2,000 of them in an answer, each written by the server on its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from .asking import Caller, in_turn
from .measure import Contestant, Goal, Place, Table
from .one_call import BODY, MESSAGES, journal_in

TOKENS = 2_000
AT_ONCE, PACED = f"/stream/{TOKENS}/v1", f"/paced/{TOKENS}/200/v1"
STREAMED = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def ours(path: str, place: Place, transport: str = "httpx") -> Iterator[Caller]:
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

READING = "httpx's bytes are not even looked at in the reference; the toolkit splits lines, reads JSON, times each token and makes an event of it."
NOTES = {
    "a token at the pace of a model": READING,
    "a token at the pace of a model, beside openai": READING,
    "a token at the pace of a model, beside litellm": READING,
    "a token as fast as it comes": READING + " Here bytes come many tokens at a time, so the reference pays nearly nothing for each.",
    "a token as fast as it comes, beside openai": READING,
    "a token as fast as it comes, beside litellm": READING,
}


def table(path: str, what: str, title: str, about: str) -> Table:
    def contestant(name: str, client: functools.partial, *packages: str) -> Contestant:
        return Contestant(name, functools.partial(in_turn, client), packages, per=TOKENS)

    return Table(
        title=title,
        operation="token",
        reference=REFERENCE,
        about=about,
        contestants=(
            contestant(REFERENCE, functools.partial(httpx_bytes, path), "httpx"),
            contestant(OURS, functools.partial(ours, path), "model-comparison-toolkit"),
            contestant(FAST, functools.partial(ours, path, transport="fast"), "pyreqwest"),
            contestant("httpx-sse + json", functools.partial(httpx_events, path), "httpx-sse"),
            contestant(OPENAI, functools.partial(openai_stream, path), "openai"),
            contestant(LITELLM, functools.partial(litellm_stream, path), "litellm"),
        ),
        goals=(
            Goal(what, OURS, REFERENCE, 1.2),
            Goal(f"{what}, beside openai", OURS, OPENAI, 1 / 8),
            Goal(f"{what}, beside litellm", OURS, LITELLM, 1 / 25),
        ),
    )


def tables() -> tuple[Table, ...]:
    return (
        table(
            PACED,
            "a token at the pace of a model",
            "What does a streamed token cost at the pace of a model?",
            "A token every 0.2 ms or so, so a client that is quick enough wakes up for each; wall time is the server's.",
        ),
        table(
            AT_ONCE,
            "a token as fast as it comes",
            "What does a streamed token cost as fast as it comes?",
            "The server writes token after token without a pause; whoever reads slowly finds many in one read and pays less for each.",
        ),
    )
