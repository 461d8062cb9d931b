"""The cache key: it changes with everything that is sent, and with nothing else."""

import os
import subprocess
import sys
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from toolkit.keys import LEFT_OUT_BODY, LEFT_OUT_HEADERS, Wire, canonical, key_of

BODY = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}],
    "temperature": 0.7,
    "max_tokens": 50,
    "top_p": None,
    "stop": ["\n"],
    "seed": 1,
    "response_format": {"type": "json_schema", "schema": {"type": "object", "required": ["river"]}},
}
WIRE = Wire("POST", "http://127.0.0.1:11434/v1/chat/completions", BODY, {"X-Title": "demo", "Authorization": "Bearer secret"})
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=5)
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8
)
NAMES = st.text(max_size=5).filter(lambda name: name not in LEFT_OUT_BODY)


def body(**changes):
    return replace(WIRE, body=BODY | changes)


@pytest.mark.parametrize(
    "other",
    [
        replace(WIRE, method="PUT"),
        replace(WIRE, url="http://127.0.0.1:11435/v1/chat/completions"),
        replace(WIRE, headers={"X-Title": "another"}),
        replace(WIRE, headers={}),
        body(model="n"),
        body(messages=BODY["messages"][1:]),
        body(messages=BODY["messages"][::-1]),
        body(messages=[BODY["messages"][0], {"role": "user", "content": "Name a river"}]),
        body(temperature=0.70001),
        body(temperature=1),
        body(max_tokens=51),
        body(top_p=0),
        body(stop=[]),
        body(stop=["\r"]),
        body(seed=None),
        body(seed="1"),
        body(seed=True),
        body(response_format={"type": "json_schema", "schema": {"type": "object", "required": []}}),
        body(new_field=1),
        replace(WIRE, body={name: value for name, value in BODY.items() if name != "top_p"}),
    ],
    ids=lambda wire: (
        f"{wire.method} {wire.url[17:22]} {[n for n in wire.body if BODY.get(n, '') != wire.body[n]]} {len(wire.body)} {len(wire.headers)}"
    ),
)
def test_changing_any_single_thing_changes_the_key(other):
    assert key_of(other) != key_of(WIRE)


def test_the_repeat_number_changes_the_key():
    assert len({key_of(WIRE, repeat) for repeat in range(5)}) == 5


@given(body=st.dictionaries(NAMES, JSON, min_size=1, max_size=4), data=st.data())
def test_changing_one_field_of_any_body_changes_the_key(body, data):
    name = data.draw(st.sampled_from(sorted(body)))
    value = data.draw(JSON.filter(lambda new: canonical(new) != canonical(body[name])))
    assert key_of(Wire("POST", "u", body)) != key_of(Wire("POST", "u", body | {name: value}))


@given(content=st.binary(min_size=1, max_size=50), data=st.data())
def test_changing_one_uploaded_byte_changes_the_key(content, data):
    place = data.draw(st.integers(0, len(content) - 1))
    other = bytearray(content)
    other[place] ^= data.draw(st.integers(1, 255))
    first, second = ({"image": part.hex()} for part in (content, bytes(other)))
    assert key_of(body(**first)) != key_of(body(**second))


def shuffled(value, order):
    if isinstance(value, dict):
        return {name: shuffled(value[name], order) for name in order(list(value))}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(body=st.dictionaries(NAMES, JSON, max_size=5), random=st.randoms(use_true_random=False))
def test_the_order_of_properties_does_not_matter(body, random):
    def order(names):
        random.shuffle(names)
        return names

    assert key_of(Wire("POST", "u", shuffled(body, order))) == key_of(Wire("POST", "u", body))


def test_using_one_message_twice_is_the_same_as_using_two_equal_ones():
    message = {"role": "user", "content": "hi"}
    assert key_of(body(messages=[message, message])) == key_of(body(messages=[dict(message), dict(message)]))


@pytest.mark.parametrize("name", sorted(LEFT_OUT_BODY))
def test_how_an_answer_travels_is_left_out_of_the_key(name):
    assert key_of(body(**{name: "anything"})) == key_of(WIRE)


@pytest.mark.parametrize("name", sorted(LEFT_OUT_HEADERS))
def test_secrets_and_transport_headers_are_left_out_of_the_key_however_they_are_written(name):
    for written in (name, name.title(), name.upper()):
        assert key_of(replace(WIRE, headers={"X-Title": "demo", written: "anything"})) == key_of(WIRE)


def test_a_left_out_name_counts_where_it_is_inside_something_else():
    assert key_of(body(response_format={"stream": True})) != key_of(body(response_format={"stream": False}))


def test_header_names_are_equal_in_every_case_and_order():
    one = replace(WIRE, headers={"X-A": "1", "X-B": "2"})
    other = replace(WIRE, headers={"x-b": "2", "x-a": "1"})
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_what_is_no_json_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        key_of(body(odd=value))


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_key_is_the_same_in_every_process_and_under_every_hash_seed(seed):
    script = "import sys, json; from toolkit.keys import Wire, key_of; print(key_of(Wire(*json.loads(sys.stdin.read())), 3))"
    sent = canonical([WIRE.method, WIRE.url, BODY, dict(WIRE.headers)])
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", script], input=sent, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key_of(WIRE, 3)
