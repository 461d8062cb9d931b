"""The cache key: it changes with everything that is sent, and with nothing else."""

import os
import subprocess
import sys
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from toolkit.keys import LEFT_OUT_BODY, LEFT_OUT_HEADERS, Wire, canonical, key_of
from toolkit.providers.lmstudio import LMStudio
from toolkit.providers.ollama import Ollama
from toolkit.providers.openai_compatible import OpenAICompatible
from toolkit.types import ChatRequest, ImagePart, Message, TextPart

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


# --- whole requests, as each dialect writes them -------------------------------------------------------------------------------

PROVIDERS = {"openai_compatible": OpenAICompatible, "ollama": Ollama, "lmstudio": LMStudio}
TEXTS = st.text(min_size=1, max_size=20)
SCHEMAS = st.dictionaries(TEXTS, JSON, min_size=1, max_size=3)
CHANGES = {
    "model": TEXTS,
    "temperature": st.floats(0, 2),
    "max_tokens": st.integers(1, 10_000),
    "top_p": st.floats(0, 1),
    "stop": st.lists(TEXTS, max_size=3).map(tuple),
    "seed": st.integers(0, 2**31),
    "schema": SCHEMAS,
    "extra": st.dictionaries(TEXTS.map("x_".__add__), JSON, max_size=3),
}
IMAGES = st.binary(min_size=1, max_size=100)


def request(image=b"\x89PNG", text="Name a river.", **fields):
    content = (TextPart(text=text), ImagePart(data=image))
    return ChatRequest(
        messages=(Message(role="system", content="Be brief."), Message(role="user", content=content)), **{"model": "m"} | fields
    )


def key_at(provider, asked, repeat=0, base_url="http://127.0.0.1:1234/v1"):
    return key_of(PROVIDERS[provider](base_url=base_url, api_key="secret").wire(asked), repeat)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@pytest.mark.parametrize("field", sorted(CHANGES))
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_changing_one_field_of_a_request_changes_its_key_in_every_dialect(provider, field, data):
    fields = data.draw(st.fixed_dictionaries({}, optional=CHANGES))
    one, other = (fields | {field: data.draw(CHANGES[field])} for _ in range(2))
    same = canonical(one[field]) == canonical(other[field])
    assert (key_at(provider, request(**one)) == key_at(provider, request(**other))) == same


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@given(image=IMAGES, data=st.data())
@settings(max_examples=25, deadline=None)
def test_changing_one_byte_of_an_image_changes_the_key_in_every_dialect(provider, image, data):
    other = bytearray(image)
    other[data.draw(st.integers(0, len(image) - 1))] ^= data.draw(st.integers(1, 255))
    assert key_at(provider, request(image)) != key_at(provider, request(bytes(other)))


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@given(
    texts=st.lists(TEXTS, min_size=2, max_size=2, unique=True), repeats=st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)
)
@settings(max_examples=25, deadline=None)
def test_words_roles_addresses_and_repeats_all_count_in_every_dialect(provider, texts, repeats):
    one, other = (request(text=text) for text in texts)
    base = key_at(provider, one)
    variants = [
        key_at(provider, other),
        key_at(provider, one, base_url="http://127.0.0.1:1235/v1"),
        key_at(provider, replace(one, messages=one.messages[1:])),
        key_at(provider, replace(one, messages=(replace(one.messages[0], role="user"), one.messages[1]))),
        *(key_at(provider, one, repeat) for repeat in repeats if repeat),
    ]
    assert base not in variants
    assert key_at(provider, request(text=texts[0]), 0) == base


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@given(schema=SCHEMAS, random=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_a_schemas_properties_does_not_matter_in_any_dialect(provider, schema, random):
    def order(names):
        random.shuffle(names)
        return names

    assert key_at(provider, request(schema=schema)) == key_at(provider, request(schema=shuffled(schema, order)))


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_a_time_limit_and_a_key_of_the_service_do_not_count(provider):
    asked = replace(request(), timeout_s=5.0)
    assert key_at(provider, asked) == key_at(provider, request())
    wire = PROVIDERS[provider](base_url="http://127.0.0.1:1234/v1", api_key="another").wire(asked)
    assert key_of(wire) == key_at(provider, asked)


def test_the_key_is_the_same_under_every_version_of_python():
    """Written down once: a change of this value makes everybody's cache useless, so it goes with a new schema version."""
    assert key_of(WIRE, 3) == "eb2133e096ed94da3681c70641314cb08b2296be7a68acfbd4d089931c6c2a7b"
