"""What a server that means harm can send, through every provider: an answer that is shown letter by letter or one of our errors, and never
a crash, a hang or a full memory."""

import dataclasses
import itertools
import json
import tracemalloc
import zlib

import pytest

from servers.http import CUT, Answer, json_answer
from test_providers_contract import CASES, TEXT, Loop, Threads, ask
from toolkit.errors import ProviderError, ReplyError, ServerError, UnreachableError
from toolkit.types import Completion
from toolkit.wire.size import MAX_ANSWER_BYTES
from toolkit.wire.stream import MAX_EVENT_BYTES, MAX_STREAM_BYTES

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\x00\r"
OBEYED = set("\x1b\x07\x9b\u202e\x00\r")  # by a terminal
PROTOTYPES = '{"__proto__": {"admin": true}, "constructor": {"prototype": 1}, "__class__": "os.system", "__reduce__": []}'
HOSTILE = MARKUP + STEERING + PROTOTYPES
MAX_MEMORY_BYTES = 2 * MAX_STREAM_BYTES + 2**24  # the pieces of a text and, for a moment, the text
ENDLESS = itertools.repeat


@pytest.fixture(params=CASES, ids=lambda case: case.provider)
def case(request):
    return request.param


@pytest.fixture(params=[Threads, Loop], ids=["threads", "loop"])
def driver(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


def saying(words):
    """The good answer, with other words in it."""

    def replaced(value):
        if isinstance(value, dict):
            return {name: replaced(each) for name, each in value.items()}
        if isinstance(value, list):
            return [words] if "".join(map(str, value)) == TEXT else [replaced(each) for each in value]
        return words if value == TEXT else value

    return lambda _request, good: json_answer(replaced(json.loads(b"".join(good.writes))))


def sending(body, **fields):
    return lambda _request, _good: Answer(writes=body if isinstance(body, itertools.repeat) else [body], **fields)


def refused(driver, case, stream, fault, kinds=ReplyError):
    """Ask, get one of our errors, and see that little memory was used on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(kinds) as caught:
            ask(driver, case, stream, fault=fault)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, ProviderError)
    assert len(str(caught.value)) < 5_000
    return caught.value


# --- what is shown ---------------------------------------------------------------------------------------------------------------


def first_piece(case, words):
    return lambda _request, good: dataclasses.replace(good, writes=[case.piece(words), *good.writes])


def test_words_that_would_be_markup_or_steer_a_terminal_are_only_words(case, stream):
    words = HOSTILE.replace("\x00\r", "") if stream and not case.json_pieces else HOSTILE
    completion, _ = ask(Threads, case, stream, fault=first_piece(case, words) if stream else saying(words))
    assert completion.text.startswith(words)
    assert "<script" not in completion._repr_html_()
    assert "<img" not in completion._repr_html_()
    assert not set(repr(completion)) & OBEYED


def test_words_of_an_error_are_only_words_too(case, stream):
    with pytest.raises(ServerError) as caught:
        ask(Threads, case, stream, fault=lambda *_: json_answer({"error": {"message": HOSTILE}}, 500))
    assert not set("".join(caught.value._render_traceback_())) & OBEYED


@pytest.mark.parametrize("half", ["\ud83d", "\ude00 \ud83d"])
def test_half_a_character_can_be_printed(case, half):
    completion, _ = ask(Threads, case, False, fault=saying(f"so {half}"))
    assert completion.text == f"so {half}".encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- names that mean something to a program ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize("schema", [{"type": "object"}, dict])
def test_names_of_prototypes_in_an_answer_are_names_like_others(schema):
    case = CASES[0]
    completion, _ = ask(Threads, case, False, fault=saying(PROTOTYPES), arguments={"schema": schema})
    assert completion.parsed == json.loads(PROTOTYPES)
    assert type(completion.parsed).__name__ in ("dict", "FrozenDict")


def test_names_of_prototypes_do_not_reach_an_object():
    answer = '{"x": 1, "__class__": "Other", "__dict__": {"x": 2}, "__init__": null}'
    try:
        completion, _ = ask(Threads, CASES[0], False, fault=saying(answer), arguments={"schema": Point})
    except ReplyError:
        return
    assert (type(completion.parsed), completion.parsed.x) == (Point, 1)


def test_names_of_prototypes_as_tools_and_as_fields_are_names_like_others(case, stream):
    call = {"index": 0, "id": "__proto__", "function": {"name": "__class__", "arguments": PROTOTYPES}}
    odd = {"__proto__": {"error": 1}, "__class__": "x", "constructor": [], "tool_calls": [call]}
    fault = sending(json.dumps({**odd, "message": odd, "choices": [{"message": odd, "delta": odd}], "candidates": [odd]}).encode())
    try:
        completion, _ = ask(Threads, case, stream, fault=fault)
    except ProviderError:
        return
    assert isinstance(completion, Completion)
    assert all(call.name == "__class__" for call in completion.tool_calls)


# --- depth -------------------------------------------------------------------------------------------------------------------------


def nested(depth, front, end, core):
    return front * depth + core + end * depth


@pytest.mark.parametrize("depth", [300, 1010, 100_000])
@pytest.mark.parametrize(
    ("front", "end", "core"),
    [
        ("[", "]", ""),
        ('{"error":', "}", '"deep"'),
        ('{"message":', "}", '"deep"'),
        ('{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":', "}}]}}]}", "1"),
    ],
)
def test_an_answer_nested_without_end_is_an_error_of_ours(case, stream, front, end, core, depth):
    shape = nested(depth, front, end, core)
    deep = '{"choices":[{"message":{"content":"x","tool_calls":[{"function":{"name":"f","arguments":%s}}]}}],"message":%s,"error":%s}'
    for body in (shape, deep % (shape, "1", "null"), deep % ("1", shape, shape)):
        with pytest.raises(ProviderError):
            ask(Threads, case, stream, fault=sending(f"data: {body}\n\n".encode() if stream else body.encode()))
    with pytest.raises(ServerError):
        ask(Threads, case, stream, fault=sending(shape.encode(), status=500))


@pytest.mark.parametrize("depth", [300, 1010, 100_000])
def test_a_parsed_answer_nested_without_end_is_an_error_of_ours(depth):
    words = nested(depth, '{"a":', "}", "1")
    with pytest.raises(ReplyError, match=r"nested too deeply|recursion"):
        ask(Threads, CASES[0], False, fault=saying(words), arguments={"schema": {"type": "object"}})


# --- size ------------------------------------------------------------------------------------------------------------------------


def packed(chunk, times, layers=1):
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join([*(packer.compress(chunk) for _ in range(times)), packer.flush()])
    return body if layers == 1 else packed(body, 1, layers - 1)


BOMB = packed(b" " * 2**20, 200)  # 200 MB in 200 kB, and all of it blank, which JSON may begin with


def test_a_packed_answer_is_unpacked_no_further_than_to_the_limit(driver, case, stream):
    refused(driver, case, stream, sending(BOMB, headers={"content-encoding": "gzip"}))


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "rot13"])
def test_a_packing_that_nobody_asked_for_is_refused(driver, case, stream, encoding):
    error = refused(driver, case, stream, sending(BOMB[:1000], headers={"content-encoding": encoding}))
    assert encoding in str(error)


@pytest.mark.parametrize("wbits", [31, 15, -15], ids=["gzip", "deflate", "bare deflate"])
def test_packed_answers_of_the_usual_kinds_are_read(driver, stream, wbits):
    def fault(_request, good):
        packer = zlib.compressobj(wbits=wbits)
        body = packer.compress(b"".join(good.writes)) + packer.flush()
        return dataclasses.replace(good, writes=[body], headers={"content-encoding": "gzip" if wbits == 31 else "deflate"})

    assert ask(driver, CASES[0], stream, fault=fault)[0].text == TEXT


def test_a_packed_answer_that_is_damaged_is_an_error_of_ours(driver, case, stream):
    refused(driver, case, stream, sending(b"\x1f\x8b\x08" + b"\x00" * 7 + b"\xff" * 99, headers={"content-encoding": "gzip"}))


def test_an_answer_without_end_is_read_no_further_than_to_the_limit(driver):
    error = refused(driver, CASES[0], False, sending(ENDLESS(b" " * 2**20)))
    assert str(MAX_ANSWER_BYTES) in str(error)


def test_a_line_without_end_is_read_no_further_than_to_the_limit(case):
    error = refused(Threads, case, True, sending(ENDLESS(b"data: " + b"x" * 2**20)))
    assert str(MAX_EVENT_BYTES) in str(error)


def test_a_line_of_50_mb_is_an_error_that_keeps_what_had_come(case):
    def fault(_request, good):
        return dataclasses.replace(good, writes=[case.piece("Half "), b"data: ", *[b"x" * 2**20] * 50, b"\n\n"])

    assert refused(Threads, case, True, fault).partial == "Half "


@pytest.mark.parametrize("case", [CASES[0], CASES[6], CASES[8]], ids=lambda case: case.provider)
def test_a_stream_without_end_is_read_no_further_than_to_the_limit(case):
    words = "x" * 2**16
    error = refused(Threads, case, True, lambda _request, good: dataclasses.replace(good, writes=ENDLESS(case.piece(words))))
    assert error.partial == words * (len(error.partial) // len(words))
    assert str(MAX_STREAM_BYTES) in str(error)


def test_the_body_of_an_error_without_end_is_read_no_further_than_its_words(driver, case, stream):
    fault = sending(ENDLESS(b"So it is. " * 10_000), status=500)
    if stream:
        assert "So it is" in str(refused(driver, case, stream, fault, ServerError))
    else:
        refused(driver, case, stream, fault)


@pytest.mark.parametrize("head", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x: y\r\n", b"x" * 1000])
def test_a_head_without_end_is_an_error_of_ours(driver, stream, head):
    fault = lambda *_: Answer(before=(b"HTTP/1.1 100 Continue\r\n", *[head] * 1000, CUT))  # noqa: E731
    refused(driver, CASES[0], stream, fault, UnreachableError)
