"""Against servers that we did not write: what they answer is read, and one of them judges how we behave when it fails."""

import httpx
import pytest

from servers import foreign
from toolkit import Client, Message, compare
from toolkit.errors import NotFoundError, RateLimitError, ReplyError, RequestError, ServerError, StreamInterrupted
from toolkit.types import ToolCall
from toolkit.wire.retry import NO_RETRY, Retry

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
QUICK = Retry(first_s=0.15)  # what our clients do by default, only shorter


def asked(client, model, prompt, stream, **options):
    if not stream:
        return client.generate_text(model, prompt, **options)
    *pieces, end = client.stream_text(model, prompt, **options)
    assert "".join(event.text for event in pieces if event.kind == "text") == end.completion.text
    return end.completion


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


# --- llmock, which judges --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llmock(tmp_path_factory):
    with foreign.llmock(tmp_path_factory.mktemp("llmock")) as address:
        yield address


class Judged:
    """A client of llmock, and what llmock makes of it."""

    MODEL = "openai_compatible/gpt-4o"

    def __init__(self, address, retry=QUICK):
        self.control = f"{address}/_llmock"
        httpx.post(f"{self.control}/reset").raise_for_status()
        urls = {"openai_compatible": f"{address}/v1", "cohere": f"{address}/cohere"}
        keys = {"openai_compatible": "sk-x", "cohere": "sk-y"}
        self.client = Client(base_urls=urls, api_keys=keys, cache=False, journal=False, retry=retry)

    def will(self, *behaviours):
        httpx.post(f"{self.control}/scenario", json={"behaviors": list(behaviours)}).raise_for_status()

    def ask(self, prompt="Say something", stream=False, model=MODEL, **options):
        return asked(self.client, model, prompt, stream, **options)

    def verdict(self):
        return httpx.get(f"{self.control}/verdict").raise_for_status().json()

    def passes(self, calls, attempts):
        found = self.verdict()
        assert found["findings"] == []
        assert (found["passed"], found["calls"], found["attempts"]) == (True, calls, attempts)


@pytest.fixture
def judged(llmock):
    found = Judged(llmock)
    with found.client:
        yield found


def fail(status, **fields):
    return {"type": "fail", "status": status, **fields}


def breaks(kind, after_chunks):
    return {"type": "stream_fault", "kind": kind, "after_chunks": after_chunks}


@pytest.mark.parametrize("model", [Judged.MODEL, "cohere/command-r"])
def test_answers_are_read(judged, stream, model):
    done = judged.ask(stream=stream, model=model)
    assert done.text
    assert done.finish_reason == "stop"
    assert done.usage.input_tokens > 0 and done.usage.output_tokens > 0
    judged.passes(calls=1, attempts=1)


def test_a_tool_is_called_and_its_result_is_answered(judged, stream):
    done = judged.ask("What is the weather in Oslo?", stream, extra={"tools": [WEATHER]})
    (call,) = done.tool_calls
    assert (call.name, done.finish_reason) == ("weather", "tool_calls")
    talk = [
        Message(role="user", content="What is the weather in Oslo?"),
        Message(role="assistant", tool_calls=done.tool_calls),
        Message(role="tool", content="4 degrees", tool_call_id=call.id),
    ]
    assert judged.ask(talk, stream, extra={"tools": [WEATHER]}).text
    judged.passes(calls=2, attempts=2)


def test_a_schema_is_answered(judged, stream):
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"], "additionalProperties": False}
    assert isinstance(judged.ask(schema=schema, stream=stream).parsed["sure"], bool)


def test_the_verdict_on_our_retries_of_a_busy_service_is_good(judged, stream):
    judged.will(fail(429, retry_after=0.4), fail(429, retry_after=0.2))
    assert judged.ask(stream=stream).attempts == 3
    judged.passes(calls=1, attempts=3)


@pytest.mark.parametrize("status", [408, 503])
def test_the_verdict_on_our_retries_of_a_failing_service_is_good(judged, stream, status):
    judged.will(fail(status, times=2))
    assert judged.ask(stream=stream).attempts == 3
    found = judged.verdict()
    assert (found["passed"], found["attempts"]) == (True, 3)


def test_the_verdict_on_giving_up_is_good(judged, stream):
    judged.will(fail(503, times=None))
    with pytest.raises(ServerError):
        judged.ask(stream=stream)
    assert (judged.verdict()["errors"], judged.verdict()["attempts"]) == (0, 4)


@pytest.mark.parametrize(("status", "kind"), [(400, RequestError), (404, NotFoundError), (422, RequestError)])
def test_what_no_retry_can_fix_is_asked_once(judged, stream, status, kind):
    judged.will(fail(status, times=None))
    with pytest.raises(kind):
        judged.ask(stream=stream)
    judged.passes(calls=1, attempts=1)


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
def test_a_stream_that_breaks_before_its_first_word_is_asked_for_again(judged, kind):
    judged.will(breaks(kind, 0))
    assert judged.ask(stream=True).attempts == 2
    judged.passes(calls=1, attempts=2)


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_the_verdict_on_asking_again_is_good(judged, kind):
    judged.will(breaks(kind, 3))
    with pytest.raises(StreamInterrupted) as caught:
        judged.ask(stream=True)
    assert caught.value.partial
    assert judged.ask(stream=True).text.startswith(caught.value.partial)
    judged.passes(calls=1, attempts=2)


def test_a_broken_piece_in_a_stream_is_an_error_and_no_gap_in_the_answer(judged):
    judged.will(breaks("malformed", 3))
    with pytest.raises(ReplyError) as caught:
        judged.ask(stream=True)
    assert caught.value.partial
    assert judged.verdict()["errors"] == 0  # it can't see that we raised, and warns of what we might have overlooked


def test_a_comparison_asks_again_by_itself_where_no_reader_has_seen_the_beginning(judged):
    judged.will(breaks("truncate", 3))
    result = compare([Judged.MODEL], ["Say something"], client=judged.client, progress=False)
    assert result.frame[["status", "attempts"]].to_numpy().tolist() == [["ok", 2]]
    judged.passes(calls=1, attempts=2)


# --- aimock, which speaks most dialects --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aimock(tmp_path_factory):
    with foreign.aimock(tmp_path_factory.mktemp("aimock")) as address:
        yield address


PATHS = {"openai_compatible": "/v1", "ollama": "", "cohere": "", "azure": "/openai/v1", "openrouter": "/api/v1"}
PATHS["vertex"] = "/v1/projects/acme/locations/global"


@pytest.fixture
def client(aimock):
    urls = {name: aimock + path for name, path in PATHS.items()}
    with Client(base_urls=urls, api_keys=dict.fromkeys(PATHS, "k"), cache=False, journal=False, retry=NO_RETRY) as client:
        yield client


@pytest.fixture(params=PATHS)
def model(request):
    return f"{request.param}/gpt-4o"


def test_every_dialect_of_aimock_is_read(client, model, stream):
    done = asked(client, model, "hello", stream)
    assert (done.text, done.finish_reason, done.attempts) == ("Blue gentian é😀", "stop", 1)


@pytest.mark.parametrize("model", ["openai_compatible/m", "azure/m", "openrouter/m", "vertex/m"])
def test_thoughts_are_kept_apart_from_the_answer(client, model, stream):
    done = asked(client, model, "think", stream)
    assert (done.text, done.reasoning) == ("Alpine.", "A plant?")


def test_tool_calls_are_read(client, model, stream):
    done = asked(client, model, "weather", stream)
    assert [(call.name, call.arguments.replace(" ", "")) for call in done.tool_calls] == [
        ("weather", '{"city":"Oslo"}'),
        ("weather", '{"city":"Turin"}'),
    ]
    assert all(isinstance(call, ToolCall) for call in done.tool_calls)
    assert done.finish_reason == "tool_calls"


def test_a_schema_is_parsed(client, model, stream):
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
    assert asked(client, model, "json", stream, schema=schema).parsed == {"sure": True}


def test_an_error_keeps_its_words_and_its_kind(client, stream):
    with pytest.raises(NotFoundError, match="No fixture matched"):
        asked(client, "openai_compatible/m", "nobody knows this", stream)


def test_a_rate_limit_is_told(client, stream):
    with pytest.raises(RateLimitError, match="Slow down"):
        asked(client, "openai_compatible/m", "busy", stream)


def test_a_stream_that_is_cut_is_an_error_with_what_had_come(client):
    with pytest.raises(StreamInterrupted) as caught:
        asked(client, "openai_compatible/m", "cut", True)
    assert "one two three four".startswith(caught.value.partial) and caught.value.partial


@pytest.mark.parametrize("provider", ["openai_compatible", "ollama"])
def test_models_are_listed_and_the_server_is_well(client, provider):
    assert "gpt-4o" in [model.id for model in client.list_models(provider)]
    assert client.health_check(provider).ok or provider == "ollama"
