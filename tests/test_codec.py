"""Kept answers as bytes: what goes in comes out, and what is not one is an error."""

import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from toolkit.cache.codec import VERSION, decode, encode
from toolkit.errors import CacheError
from toolkit.types import Image, ImageReply, Kept, Reply, TokenLogprob, ToolCall, Usage

TEXT = st.text(st.characters(codec=None), max_size=20)  # lone surrogates too: models and services write such things
NUMBER = st.floats(allow_nan=False)
COUNT = st.none() | st.integers(0, 10**9)
MAYBE_TEXT = st.none() | TEXT
LOGPROBS = st.builds(TokenLogprob, TEXT, NUMBER, st.lists(st.tuples(TEXT, NUMBER), max_size=2).map(tuple))
REPLIES = st.builds(
    Reply,
    text=TEXT,
    reasoning=TEXT,
    tool_calls=st.lists(st.builds(ToolCall, id=TEXT, name=TEXT, arguments=TEXT), max_size=2).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "content_filter", "tool_calls", "error", "unknown"]),
    served_model=st.none() | TEXT.filter(bool),
    usage=st.builds(Usage, input_tokens=COUNT, output_tokens=COUNT, reasoning_tokens=COUNT, cached_input_tokens=COUNT),
    logprobs=st.none() | st.lists(LOGPROBS, max_size=3).map(tuple),
    request_id=st.none() | TEXT.filter(bool),
    cost_usd=st.none() | NUMBER,
    reported=st.dictionaries(TEXT, NUMBER | TEXT, max_size=3),
)
IMAGE_REPLIES = st.builds(
    ImageReply,
    images=st.lists(st.builds(Image, data=st.binary(max_size=20), mime=TEXT), max_size=2).map(tuple),
    text=TEXT,
    served_model=st.none() | TEXT.filter(bool),
    usage=st.builds(Usage, input_tokens=COUNT, output_tokens=COUNT),
    request_id=st.none() | TEXT.filter(bool),
    cost_usd=st.none() | NUMBER,
    reported=st.dictionaries(TEXT, NUMBER | TEXT, max_size=3),
)
KEPT = st.builds(
    Kept,
    reply=REPLIES | IMAGE_REPLIES,
    at=NUMBER,
    latency_s=NUMBER,
    ttft_s=st.none() | NUMBER,
    ttfa_s=st.none() | NUMBER,
    pieces=st.lists(st.tuples(NUMBER, st.sampled_from(["text", "reasoning", "tool_call", "end"]), st.integers(0, 99)), max_size=3).map(
        tuple
    ),
    cost_usd=st.none() | NUMBER,
    price_date=st.none() | TEXT.filter(bool),
)


@given(KEPT)
def test_what_goes_in_comes_out(kept):
    assert decode(encode(kept)) == kept


def row(**changes):
    plain = json.loads(encode(Kept(reply=Reply(text="Elbe", finish_reason="stop"), at=1.0, latency_s=0.5)))
    return plain | changes


def reply(**changes):
    return row(reply=row()["reply"] | changes)


def pictures(*images):
    return row(reply={"images": list(images)})


def test_the_bytes_of_a_picture_are_kept_as_text():
    kept = Kept(reply=ImageReply(images=(Image(data=bytes(range(256))),)), at=0.0, latency_s=0.0)
    assert json.loads(encode(kept))["reply"]["images"][0]["data"].startswith("AAEC")
    assert decode(encode(kept)) == kept


def test_fields_of_a_newer_toolkit_are_ignored():
    newer = reply(mood="good") | {"weather": {"wind": 3}}
    assert decode(json.dumps(newer).encode()).reply.text == "Elbe"


def test_a_zero_is_not_taken_for_nothing():
    kept = Kept(reply=Reply(text="x", usage=Usage(output_tokens=0), cost_usd=0.0), at=0.0, latency_s=0.0, cost_usd=0.0, ttft_s=0.0)
    again = decode(encode(kept))
    assert (again.cost_usd, again.reply.cost_usd, again.reply.usage.output_tokens, again.ttft_s) == (0.0, 0.0, 0, 0.0)


def test_no_log_probabilities_and_an_empty_row_of_them_are_two_things():
    empty = Kept(reply=Reply(text="x", logprobs=()), at=0.0, latency_s=0.0)
    assert decode(encode(empty)).reply.logprobs == ()


def test_a_token_the_model_thought_impossible_survives():
    kept = Kept(reply=Reply(text="x", logprobs=(TokenLogprob("x", -math.inf),)), at=0.0, latency_s=0.0)
    assert decode(encode(kept)) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        row(at="now"),
        row(at=None),
        row(latency_s=True),
        row(ttft_s="0.1"),
        row(pieces=[[0.1, "text"]]),
        row(pieces=[[0.1, "song", 3]]),
        row(pieces=[[0.1, ["text"], 3]]),
        row(pieces=[["0.1", "text", 3]]),
        row(pieces=[[0.1, "text", 3.5]]),
        row(pieces=7),
        row(reply=None),
        row(reply=[]),
        reply(text=None),
        reply(text=7),
        reply(finish_reason="tired"),
        reply(finish_reason=["stop"]),
        reply(usage={"input_tokens": "7"}),
        reply(usage={"input_tokens": True}),
        reply(usage=[7]),
        reply(tool_calls=[{"id": "1", "name": "f"}]),
        reply(tool_calls=[{"id": "1", "name": "f", "arguments": {}}]),
        reply(logprobs=[["a"]]),
        reply(logprobs=[["a", "b"]]),
        reply(logprobs=[["a", -1.0, [["b"]]]]),
        reply(reported={"load_s": []}),
        row(reply={"images": None}),
        row(reply={"images": "AAEC"}),
        pictures("AAEC"),
        pictures({"data": "AAEC"}),
        pictures({"data": "no base64!", "mime": "image/png"}),
        pictures({"data": "AAE", "mime": "image/png"}),
        pictures({"data": [1], "mime": "image/png"}),
        pictures({"data": "AAEC", "mime": None}),
        reply(reported=[1]),
        reply(cost_usd="free"),
        row(v=VERSION + 1),
        {},
        [],
        "Elbe",
        None,
        7,
    ],
    ids=lambda wrong: json.dumps(wrong)[-60:],
)
def test_what_is_not_a_kept_answer_is_an_error(wrong):
    with pytest.raises(CacheError):
        decode(json.dumps(wrong).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, encode(Kept(reply=Reply(text="x"), at=0.0, latency_s=0.0))[:-5]])
def test_bytes_that_are_no_json_are_an_error(data):
    with pytest.raises(CacheError):
        decode(data)


def test_another_version_is_named_in_the_error():
    with pytest.raises(CacheError, match="version 99"):
        decode(json.dumps(row(v=99)).encode())


def test_an_answer_that_json_has_no_words_for_is_refused():
    with pytest.raises(CacheError, match="can't be kept as JSON"):
        encode(Kept(reply=Reply(text="x", reported={"odd": object()}), at=0.0, latency_s=0.0))


@given(st.binary(max_size=60))
def test_no_bytes_whatsoever_raise_anything_else(data):
    with pytest.raises(CacheError):
        decode(data)
