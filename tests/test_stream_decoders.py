"""Bytes to events and lines: wherever the network cuts, whatever it sends."""

import json
from itertools import combinations_with_replacement, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ReplyError, ToolkitError
from toolkit.providers.azure import Azure
from toolkit.providers.cohere import Cohere
from toolkit.providers.lmstudio import LMStudio
from toolkit.providers.ollama import Ollama
from toolkit.providers.openai_compatible import OpenAICompatible
from toolkit.types import ChatRequest, Message
from toolkit.wire import fastjson
from toolkit.wire.stream import LineDecoder, SSEDecoder, Surrogates

REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
PROVIDERS = {
    "azure": Azure(base_url="https://r.invalid"),
    "chat": OpenAICompatible(),
    "cohere": Cohere(),
    "lmstudio": LMStudio(base_url="http://localhost:1234/api/v1"),  # its native chat
    "ollama": Ollama(),
}

NASTY = {
    "line feeds": b"data: {}\n\ndata: 2\n\n",
    "carriage returns and line feeds": b"data: {}\r\n\r\ndata: 2\r\n\r\n",
    "carriage returns": b"data: {}\r\rdata: 2\r\r",
    "a mixture": b"data: {}\r\n\rdata: 2\n\r\ndata: 3\r\n\n",
    "a byte-order mark": b"\xef\xbb\xbfdata: {}\n\n",
    "no blank line at the end": b"data: {}\n\ndata: 2",
    "no space, one space, two spaces": b"data:1\n\ndata: 2\n\ndata:  3\n\n",
    "line ends that are none": 'data: "a\u0085b\u2028c\u2029d\x0be\x0cf😀"\n\n'.encode(),
    "data of several lines": b"data: 1\ndata: 2\ndata\n\ndata: 3\n\n",
    "comments and other fields": b": hi\n\nid: 7\nevent: delta\ndata: 1\nretry: 3\n\nevent: lost\n\ndata: 2\n\n",
    "a field named like data": b"datax: 1\ndata : 2\ndata: 3\n\n",
}
EXPECTED = {
    "line feeds": [("message", b"{}"), ("message", b"2")],
    "carriage returns and line feeds": [("message", b"{}"), ("message", b"2")],
    "carriage returns": [("message", b"{}"), ("message", b"2")],
    "a mixture": [("message", b"{}"), ("message", b"2"), ("message", b"3")],
    "a byte-order mark": [("message", b"{}")],
    "no blank line at the end": [("message", b"{}"), ("message", b"2")],
    "no space, one space, two spaces": [("message", b"1"), ("message", b"2"), ("message", b" 3")],
    "line ends that are none": [("message", '"a\u0085b\u2028c\u2029d\x0be\x0cf😀"'.encode())],
    "data of several lines": [("message", b"1\n2\n"), ("message", b"3")],
    "comments and other fields": [("delta", b"1"), ("message", b"2")],
    "a field named like data": [("message", b"3")],
}


def decoded(decoder, chunks):
    return [item for chunk in chunks for item in decoder.feed(chunk)] + decoder.close()


def two_cuts(data):
    return [(data[:a], data[a:b], data[b:]) for a, b in combinations_with_replacement(range(len(data) + 1), 2)]


def slices(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("name", NASTY)
def test_events_are_the_same_wherever_the_network_cuts_twice(name):
    for chunks in two_cuts(NASTY[name]):
        assert decoded(SSEDecoder(), chunks) == EXPECTED[name], chunks


@pytest.mark.parametrize("name", NASTY)
def test_events_after_a_first_one_are_the_same_wherever_the_network_cuts_twice(name):
    data = NASTY[name].removeprefix(b"\xef\xbb\xbf")
    for chunks in two_cuts(data):
        assert decoded(SSEDecoder(), [b"data: 0\n\n", *chunks]) == [("message", b"0"), *EXPECTED[name]], chunks


def test_a_byte_order_mark_in_the_middle_is_part_of_a_field_name():
    assert decoded(SSEDecoder(), [b"data: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n"]) == [("message", b"1"), ("message", b"3")]


def test_many_events_in_one_read_and_one_in_many_reads_are_the_same():
    data = b"".join(b'data: {"n": %d}\n\n' % n for n in range(50))
    expected = [("message", b'{"n": %d}' % n) for n in range(50)]
    for size in (1, 2, 3, 7, 64, 1000, len(data)):
        assert decoded(SSEDecoder(), slices(data, size)) == expected


def test_a_large_event_in_small_reads_is_joined_once():
    """Work is counted, not time: joining at every read would copy the beginning 65,536 times."""
    event = b"data: " + b"x" * 2**22 + b"\n\n"
    decoder = SSEDecoder()
    for chunk in slices(event[:-2], 64):
        assert decoder.feed(chunk) == []
    assert len(decoder._parts) == len(slices(event[:-2], 64))
    assert decoder.feed(b"\n\n") == [("message", event[6:-2])]


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("make", "data"),
    [
        (SSEDecoder, b"data: 1\n\ndata: " + b"x" * 100 + b"\n\n"),
        (SSEDecoder, b"data: 1\n\n" + b"data: 123456\n" * 12 + b"\n"),
        (SSEDecoder, b"data: 1\n\n:" + b"x" * 100),
        (LineDecoder, b"1\n" + b"x" * 100 + b"\n"),
        (LineDecoder, b"1\n" + b"x" * 100),
    ],
)
def test_too_large_an_event_is_our_error_after_the_events_before_it(make, data, size):
    decoder, items = make(max_bytes=64), []
    with pytest.raises(ReplyError, match="64 bytes"):
        for chunk in slices(data, size):
            items += decoder.feed(chunk)
        decoder.close()
    assert len(items) == 1


@pytest.mark.parametrize("make", [SSEDecoder, LineDecoder])
def test_an_event_as_large_as_allowed_is_let_through_however_it_is_cut(make):
    line = b"data: " + b"x" * 58
    for size in (1, 10, 1000):
        assert len(decoded(make(max_bytes=64), slices(line + b"\n\n", size))) == 1


LINES = '{"a": "x\u0085y\u2028z"}\r\n\n{"b": 1}\n\r\n{"c": 😀}'.encode()


def test_lines_are_the_same_wherever_the_network_cuts_twice():
    for chunks in two_cuts(LINES):
        assert decoded(LineDecoder(), chunks) == ['{"a": "x\u0085y\u2028z"}'.encode(), b'{"b": 1}', '{"c": 😀}'.encode()], chunks


def test_a_carriage_return_inside_a_line_stays():
    assert decoded(LineDecoder(), [b"a\rb\n"]) == [b"a\rb"]


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60) | st.text("\r\n: data{}é", max_size=40).map(str.encode), st.lists(st.integers(0, 60), max_size=6))
@pytest.mark.parametrize("make", [SSEDecoder, LineDecoder])
def test_any_bytes_give_the_same_items_however_they_are_cut(make, data, cuts):
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    chunks = [data[a:b] for a, b in pairwise(places)]
    assert decoded(make(), chunks) == decoded(make(), [data])


# --- JSON --------------------------------------------------------------------------------------------------------------------

ODD = [
    b'{"a": NaN, "b": [Infinity, -Infinity], "c": 1.5}',
    b'{"text": "\xff\xfe ok"}',
    b'"\\ud83d"',
    b" \n\t{} ",
    b'{"a": 1, "a": 2}',
    b'"\\u0000"',
    b"-0.0",
    "{}",
    '"é"',
]


@pytest.mark.parametrize("text", ODD)
def test_json_reads_the_same_with_and_without_orjson(text):
    assert fastjson.loads(text) == fastjson.loads_leniently(text)


def test_numbers_that_json_does_not_have_are_unknown():
    assert fastjson.loads(b"[NaN, Infinity, -Infinity, 1]") == [None, None, None, 1]


@pytest.mark.parametrize("text", [b"", b"nul", b"[1,]", b"{", b"[" * 100_000, b"\xff", "\ufeff{}"])
def test_what_is_not_json_is_a_value_error(text):
    for loads in (fastjson.loads, fastjson.loads_leniently):
        with pytest.raises(ValueError):
            loads(text)


@given(st.text("ab\ud83d\ude00\udc00é", max_size=12), st.lists(st.integers(1, 12), max_size=4))
def test_halves_of_characters_come_together_and_never_come_out_alone(text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    halves = Surrogates()
    mended = "".join([halves.mend(text[a:b]) for a, b in pairwise(places)] + [halves.close()])
    assert mended == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    mended.encode()


# --- readers against anything --------------------------------------------------------------------------------------------------


def read(provider, chunks):
    """Feed a reader; return its events' text and what it ended with: a reply or one of our errors."""
    reader = provider.reader(REQUEST)
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    try:
        end = reader.close()
    except ToolkitError as error:
        end = error
    return "".join(event.text for event in events + reader.tail if event.kind == "text"), end


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["message.delta", "chat.end"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "choices",
    "delta",
    "message",
    "content",
    "reasoning",
    "reasoning_content",
    "refusal",
    "tool_calls",
    "index",
    "id",
    "function",
    "name",
    "arguments",
    "finish_reason",
    "usage",
    "error",
    "error_type",
    "error_message",
    "code",
    "type",
    "model",
    "logprobs",
    "token",
    "logprob",
    "top_logprobs",
    "prompt_tokens",
    "completion_tokens_details",
    "response",
    "thinking",
    "done",
    "done_reason",
    "eval_count",
    "eval_duration",
    "text",
    "timings",
    "system_fingerprint",
    "tool_plan",
    "citations",
    "sources",
    "billed_units",
    "content_filter_results",
    "prompt_filter_results",
    "filtered",
    "result",
    "output",
    "stats",
    "model_instance_id",
]
LIKELY_JSON = st.recursive(
    ANY_JSON, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4), max_leaves=12
)


@settings(max_examples=120, deadline=None)
@given(st.lists(LIKELY_JSON | st.dictionaries(st.sampled_from(FIELDS), LIKELY_JSON, max_size=6), max_size=4), st.integers(1, 80))
@pytest.mark.parametrize("name", PROVIDERS)
def test_any_json_gives_a_reply_or_our_error_and_the_same_however_it_is_cut(name, values, size):
    frame = "%s\n" if name == "ollama" else "data: %s\n\n"
    data = "".join(frame % json.dumps(value) for value in values).encode()
    whole, cut = read(PROVIDERS[name], [data]), read(PROVIDERS[name], slices(data, size))
    for text, end in (whole, cut):
        assert text == (end.partial if isinstance(end, ToolkitError) else end.text)
        text.encode()
    assert whole[0] == cut[0]
    assert str(whole[1]) == str(cut[1])


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
@pytest.mark.parametrize("name", PROVIDERS)
def test_any_bytes_give_a_reply_or_our_error(name, data, size):
    text, end = read(PROVIDERS[name], slices(data, size))
    assert text == (end.partial if isinstance(end, ToolkitError) else end.text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), st.integers(1, 200), st.booleans(), st.booleans())
@pytest.mark.parametrize("name", PROVIDERS)
def test_no_text_is_lost_wherever_the_network_cuts(name, words, size, ascii_only, crlf):
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in stream_of(name, words)]
    if name != "ollama":
        lines = [f"data: {line}\n" for line in lines] + ["data: [DONE]\n"]
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    data = data.replace(b"\n", b"\r\n") if crlf else data
    text, end = read(PROVIDERS[name], slices(data, size))
    assert text == end.text == "".join(words)
    assert end.finish_reason == ("unknown" if name == "lmstudio" else "stop")


def stream_of(name, words):
    if name == "cohere":
        deltas = [{"message": {"content": {"text": word}}} for word in words]
        return [
            *({"type": "content-delta", "delta": delta} for delta in deltas),
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
        ]
    if name == "lmstudio":
        return [
            *({"type": "message.delta", "content": word} for word in words),
            {"type": "chat.end", "result": {"output": [], "stats": {}}},
        ]
    if name != "ollama":
        return [*({"choices": [{"delta": {"content": word}}]} for word in words), {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    return [*({"message": {"content": word}, "done": False} for word in words), {"done": True, "done_reason": "stop"}]
