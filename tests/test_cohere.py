"""What is peculiar about Cohere: its names and scales, billed units, events with single objects, citations, plans, errors."""

import json

import httpx
import pytest

from servers.cohere import USAGE, CohereService, end_event, event, piece
from servers.http import Server, json_answer
from toolkit import Client
from toolkit.errors import (
    ConfigError,
    ContentFilterError,
    ProviderTimeoutError,
    RateLimitError,
    ReplyError,
    RequestError,
    ServerError,
    StreamInterrupted,
)
from toolkit.providers.cohere import Cohere
from toolkit.types import ChatRequest, ImagePart, Message, TextPart, TokenLogprob, ToolCall, Usage
from toolkit.wire.retry import NO_RETRY

PROVIDER = Cohere()
HI = (Message(role="user", content="hi"),)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def body(**fields):
    return PROVIDER.wire(ChatRequest(model="m", **{"messages": HI, **fields})).body


def reply_of(*chunks):
    reader = PROVIDER.reader(ChatRequest(model="m", messages=HI))
    events = [each for chunk in chunks for each in reader.feed(chunk)]
    return events, reader.close()


def whole_reply(**fields):
    answer = {"id": "c-1", "finish_reason": "COMPLETE", "message": {"content": [{"type": "text", "text": "Lima."}]}, **fields}
    return PROVIDER.read_chat(httpx.Response(200, json=answer), ChatRequest(model="m", messages=HI))


def asking(server, **options):
    return Client(base_urls={"cohere": server.url}, api_keys={"cohere": "co-1234"}, cache=False, journal=False, retry=NO_RETRY, **options)


# --- what is sent ----------------------------------------------------------------------------------------------------------------


def test_a_request_without_a_stream_is_the_one_of_the_sheet(exchange):
    expected = exchange("cohere-image-in")
    picture = expected["messages"][1]["content"][1]
    messages = (
        Message(role="developer", content="Be terse."),
        Message(role="user", content=(TextPart(text="Name this colour."), ImagePart(url=picture["image_url"]["url"]))),
    )
    ours = ("model", "messages", "temperature", "p", "max_tokens", "seed", "stop_sequences", "stream")
    extra = {name: value for name, value in expected.items() if name not in ours}
    options = {"temperature": 0.3, "top_p": 0.75, "max_tokens": 300, "seed": 7, "stop": ("###",), "extra": extra}
    sent = body(messages=messages, **options)
    del picture["image_url"]["detail"], expected["stream"]
    assert sent == {**expected, "model": "m"}


def test_a_tool_result_travels_as_a_document_and_the_words_beside_a_call_as_its_plan(exchange):
    expected = exchange("cohere-tool-follow-up")
    call = ToolCall(id="lookup_hardness_k3v9s1", name="lookup_hardness", arguments='{"mineral":"fluorite"}')
    messages = (
        Message(role="user", content="How hard is fluorite?"),
        Message(role="assistant", content="I will look the hardness up.", tool_calls=(call,)),
        Message(role="tool", content='{"mohs": 4}', tool_call_id=call.id, name="lookup_hardness"),
    )
    assert body(messages=messages)["messages"] == expected["messages"]
    assert "tool_plan" not in body(messages=(Message(role="assistant", tool_calls=(call,)),))["messages"][0]


def test_a_schema_is_sent_under_the_name_that_the_service_documents():
    assert body(schema=SCHEMA)["response_format"] == {"type": "json_object", "json_schema": SCHEMA}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 1.2}, "temperature of 1.2"),
        ({"top_p": 1.0}, "top_p of 1: its scale is 0.01 to 0.99"),
        ({"top_p": 0.0}, "top_p of 0"),
        ({"seed": -1}, "seed -1"),
        ({"stop": tuple("abcdef")}, "6 stop sequences"),
        ({"schema": SCHEMA, "extra": {"tools": []}}, "schema= beside tools"),
        ({"schema": SCHEMA, "extra": {"documents": []}}, "schema= beside documents"),
    ],
)
def test_what_the_service_would_refuse_is_refused_with_a_reason(options, words):
    with pytest.raises(ConfigError, match=words):
        body(**options)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1}, {"top_p": 0.01}, {"top_p": 0.99}, {"seed": 2**64 - 1}])
def test_the_ends_of_a_scale_belong_to_it(options):
    assert set(options.values()) <= {value for value in body(**options).values() if not isinstance(value, list)}


@pytest.mark.parametrize("variable", ["CO_API_KEY", "COHERE_API_KEY"])
def test_both_conventional_variables_hold_the_key(monkeypatch, variable):
    monkeypatch.setenv(variable, "co-from-env")
    with CohereService(key="co-from-env").serve() as server:
        monkeypatch.setenv("CO_API_URL", server.url)
        with Client(cache=False, journal=False) as client:
            assert client.health_check("cohere").ok


def test_the_documented_variable_goes_first_and_a_missing_key_names_it(monkeypatch):
    with pytest.raises(ConfigError, match="CO_API_KEY"):
        Client(cache=False, journal=False).generate_text("cohere/m", "hi")
    monkeypatch.setenv("COHERE_API_KEY", "second")
    monkeypatch.setenv("CO_API_KEY", "first")
    with CohereService(key="first").serve() as server, Client(base_urls={"cohere": server.url}, cache=False, journal=False) as client:
        assert client.list_models("cohere")


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v2/"])
def test_an_address_may_end_in_a_version(end):
    assert Cohere(base_url="https://api.cohere.com" + end).wire(ChatRequest(model="m", messages=HI)).url == "https://api.cohere.com/v2/chat"


def test_the_address_of_the_other_dialect_is_pointed_out():
    with pytest.raises(ConfigError, match="openai_compatible"):
        Cohere(base_url="https://api.cohere.ai/compatibility/v1")


# --- what is read ------------------------------------------------------------------------------------------------------------------


def test_usage_is_what_is_billed_and_the_preamble_is_told_apart():
    reply = whole_reply(usage=USAGE | {"billed_units": {"input_tokens": 11.0, "output_tokens": 3.0, "search_units": 1}})
    assert reply.usage == Usage(input_tokens=11, output_tokens=3, cached_input_tokens=0)
    assert reply.reported == {"raw_input_tokens": 511.0, "raw_output_tokens": 9.0, "search_units": 1.0}


def test_all_tokens_do_not_stand_in_for_billed_ones():
    assert whole_reply(usage={"tokens": {"input_tokens": 511, "output_tokens": 9}}).usage == Usage()


@pytest.mark.parametrize(
    ("reason", "read"), [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls")]
)
def test_finish_reasons_are_read(reason, read):
    assert whole_reply(finish_reason=reason).finish_reason == read
    assert reply_of(piece("a"), end_event(reason))[1].finish_reason == read


def test_an_unknown_finish_reason_keeps_its_name():
    reply = whole_reply(finish_reason="USER_CANCEL")
    assert (reply.finish_reason, reply.reported["finish_reason"]) == ("unknown", "USER_CANCEL")


@pytest.mark.parametrize(("reason", "kind"), [("ERROR", ServerError), ("TIMEOUT", ProviderTimeoutError)])
def test_a_failed_generation_is_an_error_that_keeps_its_text(reason, kind):
    for ask in (lambda: whole_reply(finish_reason=reason), lambda: reply_of(piece("Lima."), end_event(reason, error="worker lost"))):
        with pytest.raises(kind) as caught:
            ask()
        assert type(caught.value) is kind
        assert (caught.value.partial, caught.value.retryable) == ("Lima.", True)
    assert "worker lost" in str(caught.value)


def test_a_stream_without_its_end_was_cut_even_where_done_was_said():
    with pytest.raises(StreamInterrupted):
        reply_of(piece("Li"), b"data: [DONE]\n\n")


def test_the_first_words_may_be_in_the_start_of_the_content():
    events, reply = reply_of(event("content-start", {"content": {"type": "text", "text": "Li"}}, index=0), piece("ma."), end_event())
    assert ([each.text for each in events], reply.text) == (["Li", "ma."], "Lima.")


def test_events_need_no_name_and_unknown_ones_are_passed_over():
    nameless = piece("a").partition(b"\n")[2]
    odd = event("hologram-delta", {"hologram": "x"}) + event("debug", prompt="p") + b": keep-alive\n\n"
    assert reply_of(nameless, odd, end_event())[1].text == "a"


def test_an_unreadable_event_is_an_error_and_not_a_gap():
    with pytest.raises(ReplyError) as caught:
        reply_of(piece("a"), piece("lost").replace(b"}", b""), piece("c"), end_event())
    assert caught.value.partial == "a"


@pytest.mark.parametrize("index", [0, None])
def test_calls_of_a_stream_and_of_a_whole_answer_are_the_same(index):
    def call(id_, name, arguments):
        return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}

    def more(at, arguments):
        return event("tool-call-delta", {"tool_calls": {"function": {"arguments": arguments}}}, index=at)

    streamed = reply_of(
        event("tool-plan-delta", {"tool_plan": "Both at "}), event("tool-plan-delta", {"tool_plan": "once."}),
        event("tool-call-start", {"tool_calls": call("a", "f", "")}, index=0), more(0, "{1"), more(0, "}"), event("tool-call-end", index=0),
        event("tool-call-start", {"tool_calls": call("b", "f", "")}, index=1), more(1, "{2}"), event("tool-call-end", index=1),
        end_event("TOOL_CALL"),
    )[1]  # fmt: skip
    message = {"tool_plan": "Both at once.", "tool_calls": [call("a", "f", "{1}"), call("b", "f", "{2}")]}
    whole = whole_reply(finish_reason="TOOL_CALL", message=message, usage=USAGE)
    assert streamed == whole
    assert whole.tool_calls == (ToolCall(id="a", name="f", arguments="{1}"), ToolCall(id="b", name="f", arguments="{2}"))
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("", "Both at once.", "tool_calls")


def test_citations_are_kept_without_the_callers_documents():
    sources = [{"type": "document", "id": "m1", "document": {"id": "m1", "secret": "long"}}, {"type": "tool", "id": "t:0"}]
    citation = {"start": 0, "end": 4, "text": "Lima", "sources": sources, "content_index": 0, "type": "TEXT_CONTENT"}
    kept = [{"start": 0, "end": 4, "text": "Lima", "content_index": 0, "sources": ["m1", "t:0"]}]
    whole = whole_reply(message={"content": [{"type": "text", "text": "Lima."}], "citations": [citation]})
    streamed = reply_of(piece("Lima."), event("citation-start", {"citations": citation}, index=0), end_event())[1]
    assert json.loads(whole.reported["citations"]) == json.loads(streamed.reported["citations"]) == kept


def test_log_probabilities_are_those_of_pieces():
    entry = {"text": "Lima", "token_ids": [1, 2], "logprobs": [-0.25, -0.5]}
    expected = (TokenLogprob("Lima", -0.75), TokenLogprob(".", -0.5))
    other = {"text": ".", "token_ids": [3], "logprobs": [-0.5]}
    assert whole_reply(logprobs=[entry, other, {"text": "?", "logprobs": [None]}, {"text": "?", "logprobs": []}]).logprobs == expected
    first, second = (event("content-delta", {"content": {"text": e["text"]}}, index=0, logprobs=e) for e in (entry, other))
    assert reply_of(first, second, end_event())[1].logprobs == expected


def test_a_schema_gives_a_parsed_answer():
    with CohereService(words=('{"name": ', '"Lima"}'), thoughts=()).serve() as server, asking(server) as client:
        assert client.generate_text("cohere/demo-small", "In JSON: a capital", schema=SCHEMA).parsed == {"name": "Lima"}


# --- errors --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(402, RequestError, False), (422, RequestError, False), (429, RateLimitError, True), (498, ContentFilterError, False),
     (499, RequestError, False), (500, ServerError, True), (501, ServerError, False), (503, ServerError, True)],
)  # fmt: skip
def test_a_status_of_its_own_becomes_its_error(status, kind, retryable):
    fault = lambda *_: json_answer({"id": "e-1", "message": "so it is"}, status, {"x-debug-trace-id": "9f3a"})  # noqa: E731
    with (
        CohereService(fault=fault).serve() as server,
        asking(
            server,
        ) as client,
        pytest.raises(kind, match="so it is") as caught,
    ):
        client.generate_text("cohere/demo-small", "hi")
    error = caught.value
    assert (type(error), error.status, error.retryable, error.request_id) == (kind, status, retryable, "9f3a")


def test_the_trace_id_is_the_request_id_of_a_good_answer_too():
    with CohereService(key="co-1234").serve() as server, asking(server) as client:
        assert client.generate_text("cohere/demo-small", "hi").request_id == "req_1"
        assert list(client.stream_text("cohere/demo-small", "hi"))[-1].completion.request_id == "req_1"


# --- models ----------------------------------------------------------------------------------------------------------------------------


def test_models_come_in_pages():
    names = [f"command-{number}" for number in range(7)]
    with CohereService(models=names, page=3).serve() as server, asking(server) as client:
        models = client.list_models("cohere")
    assert [model.id for model in models] == names
    assert models[0].context_tokens == 128_000
    assert [request.path.partition("page_token=")[2] for request in server.requests] == ["", "3", "6"]


def test_pages_that_go_in_circles_come_to_an_end():
    page = json_answer({"models": [{"name": "a"}], "next_page_token": "again"})
    with Server(lambda _request: page) as server, asking(server) as client:
        assert len(client.list_models("cohere")) == 2


def test_health_asks_for_a_single_model():
    with CohereService(key="co-1234").serve() as server, asking(server) as client:
        assert client.health_check("cohere").ok
        assert server.requests[-1].path == "/v1/models?page_size=1"
    with CohereService(key="co-other").serve() as server, asking(server) as client:
        health = client.health_check("cohere")
    assert not health.ok and "CO_API_KEY" in health.detail
