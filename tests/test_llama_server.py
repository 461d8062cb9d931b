"""Against llama.cpp's real server: many streams, none of them failing, and a client that leaves frees its place."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from servers import llama_server
from toolkit import AsyncClient, Client
from toolkit.wire.retry import NO_RETRY

MODEL = "openai_compatible/tiny"
TOKENS = 8
LONG = 4000  # more than the machine writes while we look away


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with llama_server.running(tmp_path_factory.mktemp("llama")) as address:
        yield address


def options(address):
    return {"base_urls": {"openai_compatible": f"{address}/v1"}, "cache": False, "journal": False, "retry": NO_RETRY}


@pytest.fixture
def client(address):
    with Client(**options(address)) as client:
        yield client


def check(events):
    """A stream of the real server: words, usage, times, and its own statistics."""
    completion = events[-1].completion
    assert completion.text == "".join(event.text for event in events[:-1]) != ""
    assert completion.finish_reason == "length"
    assert completion.usage.output_tokens == TOKENS
    assert completion.usage.input_tokens > 0
    assert 0 < completion.timing.ttft_s <= completion.timing.latency_s
    assert completion.attempts == 1
    assert completion.reported["tokens_per_second"] > 0


def test_two_hundred_streams_in_a_row_have_no_error(client):
    """The server closes a connection after a hundred requests, and says so to nobody."""
    for seed in range(200):
        check(list(client.stream_text(MODEL, "the blue river", max_tokens=TOKENS, seed=seed)))


def test_sixty_four_threads_at_once_have_no_error(client):
    def one(seed):
        return [list(client.stream_text(MODEL, f"stone {seed}", max_tokens=TOKENS, seed=seed)) for _ in range(2)]

    with ThreadPoolExecutor(64) as pool:
        for streams in pool.map(one, range(64)):
            for events in streams:
                check(events)


def test_sixty_four_streams_at_once_on_an_event_loop_have_no_error(address):
    async def main():
        async with AsyncClient(**options(address)) as client:

            async def one(seed):
                return [event async for event in client.stream_text(MODEL, f"lake {seed}", max_tokens=TOKENS, seed=seed)]

            return await asyncio.gather(*(one(seed) for seed in range(64)))

    for events in asyncio.run(main()):
        check(events)


def test_a_whole_answer_is_the_same_as_a_stream_with_the_same_seed(client):
    whole = client.generate_text(MODEL, "wind", max_tokens=TOKENS, temperature=0)
    *_, end = client.stream_text(MODEL, "wind", max_tokens=TOKENS, temperature=0)
    assert whole.text == end.completion.text
    assert whole.usage.output_tokens == TOKENS


def test_a_schema_is_obeyed_by_the_servers_grammar(client):
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"], "additionalProperties": False}
    assert client.generate_text(MODEL, "sure?", schema=schema, max_tokens=60).parsed["sure"] in (True, False)


def test_models_are_listed_with_their_context(client):
    (model,) = client.list_models("openai_compatible")
    assert model.context_tokens == llama_server.CONTEXT


def gauge(address, name):
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"llamacpp:{name} "))


def tokens_written_once_idle(address):
    """Look until no request is worked on; then the count of tokens shows whether the last one was broken off or ran to its end."""
    for _ in range(10_000):
        if not gauge(address, "requests_processing"):
            return gauge(address, "tokens_predicted_total")
    raise AssertionError("the server still works for a client that has left")


def test_a_thread_that_stops_reading_frees_the_slot(address, client):
    before = tokens_written_once_idle(address)
    stream = client.stream_text(MODEL, "snow", max_tokens=LONG)
    next(stream)
    stream.close()
    assert 0 < tokens_written_once_idle(address) - before < LONG


def test_a_cancelled_task_frees_the_slot(address):
    before = tokens_written_once_idle(address)

    async def main():
        async with AsyncClient(**options(address)) as client:
            begun = asyncio.Event()

            async def read():
                async for _ in client.stream_text(MODEL, "snow", max_tokens=LONG):
                    begun.set()

            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The client is still open: its pool must not keep the connection of the broken-off stream.
            assert 0 < tokens_written_once_idle(address) - before < LONG

    asyncio.run(main())
