"""Redaction: what must never be seen, what must stay readable, and what it may cost."""

import dataclasses
import io
import json
import logging
import math
import time
import timeit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ServerError
from toolkit.monitor.outcomes import CallContext, Outcome
from toolkit.monitor.redaction import MAX_VALUES, REDACTED, SecretFilter, guard_httpx, is_secret_name, redact, redact_text
from toolkit.types import ChatRequest, Message, Timing

SHAPES = [
    "sk-proj-AbCdEf0123456789_-xyz",
    "sk-ant-api03-AbCdEf0123456789",
    "sk-or-v1-0123456789abcdef0123",
    "sk_live_0123456789abcdef",
    "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "gsk_AbCdEfGhIjKlMnOpQrStUvWx",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "xai-AbCdEfGhIjKlMnOpQrStUvWx",
    "r8_AbCdEfGhIjKlMnOpQrStUvWx",
    "nvapi-AbCdEfGhIjKlMnOpQrSt",
    "ghp_AbCdEfGhIjKlMnOpQrStUvWx012345",
    "github_pat_AbCdEfGhIjKlMnOpQrStUvWx",
    "glpat-AbCdEfGhIjKlMnOpQrSt",
    "xoxb-0123456789-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "ya29.AbCdEfGhIjKlMnOpQrSt",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s5Fd-_x",
]
CANARY = "Canary7731"


@pytest.mark.parametrize("secret", SHAPES)
@pytest.mark.parametrize("around", ["{}", "the key {} is wrong", "('{}',)", '{{"x": "{}"}}', "a\\n{}", "next=%20{}", "({})"])
def test_a_key_of_a_known_shape_is_taken_out_wherever_it_stands(secret, around):
    clean = redact_text(around.format(secret))
    assert secret[-8:] not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {CANARY}",
        f"authorization: Basic {CANARY}==",
        f"bearer {CANARY}",
        f"api_key={CANARY}",
        f"OPENAI_API_KEY={CANARY} set",
        f"x-goog-api-key: {CANARY}",
        f'{{"api_key": "{CANARY}"}}',
        f"{{'password': 'two words {CANARY}'}}",
        f'{{"password": "with \\" inside {CANARY}"}}',
        f'"{{\\"client_secret\\": \\"{CANARY}\\"}}"',
        f"[('authorization', 'Bearer {CANARY}')]",
        f"[(b'set-cookie', b'session={CANARY}; Path=/')]",
        f"Cookie: a=1; session={CANARY}",
        f"cookie: theme=dark; sid={CANARY}\nnext",
        f"https://user:{CANARY}@example.org/v1",
        f"redis://:{CANARY}@localhost:6379/0",
        f"https://{CANARY}@example.org",
        f"GET https://example.org/v1?alt=sse&key={CANARY} failed",
        f"https://bucket.example.org/x?X-Amz-Signature={CANARY}&X-Amz-Date=1",
        f"https://example.org/?access_token={CANARY}#top",
        f"grant_type=x&client_secret={CANARY}&scope=y",
        f"aws_secret_access_key = {CANARY}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
        f"token={CANARY}",
        f"password=not-{CANARY}",
        f"api_key: none.{CANARY}",
        f'{{"token": "{CANARY}"}}',
        f"[('token', '{CANARY}')]",
    ],
)
def test_a_secret_that_its_surroundings_give_away_is_taken_out(text):
    assert CANARY not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "answered in 0.31 s by ollama/llama3.2",
        "max_tokens: 512, input_tokens=17, time to first token: 0.31 s",
        "OPENAI_API_KEY: missing; set it",
        "OPENAI_API_KEY is not set",
        "Bearer authentication is required.",
        "the cookie was refused",
        "task-skipping risk-adjusted-identifiers",
        "hf_hub_download of sk-learn",
        "http://127.0.0.1:11434/api/chat?stream=true&model=llama3",
        "write to me@example.org",
        "the secretary's password policy",
        "tokenizer=bpe",
        '["row", "token", "orientation", "top_p"]',
    ],
)
def test_words_that_only_sound_secret_stay_readable(text):
    assert redact_text(text) == text


def test_a_pair_that_names_a_token_gives_it_away_however_plain_it_is():
    assert redact_text("[('accept', 'json'), ('token', 'hunter')]") == "[('accept', 'json'), ('token', '[redacted]')]"


def test_the_rest_of_a_line_with_a_secret_stays_as_it_was():
    assert redact_text('{"model": "m", "api_key": "abc", "n": 1}') == '{"model": "m", "api_key": "[redacted]", "n": 1}'
    assert redact_text("https://a:b@host/p?key=1&q=2") == "https://[redacted]@host/p?key=[redacted]&q=2"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*SHAPES, "api_key", "=", ": ", '"', "'", "\\", "Bearer ", "cookie", "?key", "&", "://", "@", "x", " ", "\n", "[", "]"]
        )
    )
)
def test_doing_it_twice_changes_nothing_more(parts):
    once = redact_text(" ".join(parts))
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "piece", ["://", "eyJaaaaaa.", "api_key", "sk-", "&a=", "'", '"api_key": ', "\\\\", "cookie", "-----BEGIN PRIVATE KEY-----"]
)
def test_a_hostile_text_takes_time_in_proportion_to_its_length(piece):
    def seconds(length):
        text = piece * (length // len(piece))
        return min(timeit.repeat(lambda: redact_text(text), number=1, repeat=3, timer=time.thread_time))

    assert seconds(40_000) < 40 * seconds(4_000) + 0.01  # ten times as long; a square would be a hundred times


def test_a_short_clean_message_costs_three_microseconds_at_most():
    message = "answered in 0.31 s by ollama/llama3.2 after 2 attempts, stop"
    own = min(timeit.repeat(lambda: redact_text(message), number=200, repeat=50, timer=time.thread_time))
    loop = min(timeit.repeat(lambda: [piece in message for piece in SHAPES * 2], number=200, repeat=50, timer=time.thread_time))
    assert own < 3 * loop  # the same in units of this machine: 36 searches of a word take 1.5 to 2 µs on a plain one


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "X-API-Key", "Authorization", "refresh_token", "DB_PASSWORD", "client-secret", "Set-Cookie", "auth"]
)
def test_fields_with_these_names_are_secret(name):
    assert is_secret_name(name)
    assert redact({name: "x", "n": {name: ["y"]}}) == {name: REDACTED, "n": {name: REDACTED}}


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokens", "author", "tokenizer", "key_count", "keyboard", "model", "monkey", "cached_input_tokens"]
)
def test_fields_with_these_names_are_not(name):
    assert redact({name: 5}) == {name: 5}


def test_a_duration_named_after_a_token_is_kept():
    assert redact({"time_to_first_token": 0.25, "token": "abc"}) == {"time_to_first_token": 0.25, "token": REDACTED}


@dataclasses.dataclass
class Settings:
    base_url: str
    api_key: str


class Mute:
    def __str__(self):
        raise RuntimeError("no text")


def test_nested_structures_become_plain_data_without_secrets():
    given_ = {
        "headers": httpx.Headers({"x-api-key": CANARY, "accept": "json"}),
        "list": [{"password": CANARY}, ("a", f"Bearer {CANARY}")],
        "settings": Settings("https://x", CANARY),
        "raw": CANARY.encode(),
        "mute": Mute(),
        3: {1},
    }
    clean = redact(given_)
    assert CANARY not in json.dumps(clean, allow_nan=False)
    assert clean["headers"] == {"x-api-key": REDACTED, "accept": "json"}
    assert clean["settings"] == {"base_url": "https://x", "api_key": REDACTED}
    assert clean["mute"] == "<Mute without a text>"
    assert clean["3"] == [1]


def test_a_secret_in_the_name_of_a_field_is_taken_out_too():
    assert SHAPES[0] not in json.dumps(redact({SHAPES[0]: 1}))


def test_numbers_that_json_lacks_become_text_and_numpy_s_become_python_s():
    import numpy as np

    clean = redact({"a": math.nan, "b": -math.inf, "c": np.int64(3), "d": np.float32(0.5)})
    assert clean == {"a": "nan", "b": "-inf", "c": 3, "d": 0.5}
    assert [type(value) for value in clean.values()] == [str, str, int, float]


class Broken(dict):
    def items(self):
        raise RuntimeError("changed while it was read")


def test_what_can_t_be_read_is_named_and_the_rest_is_kept():
    clean = redact({"broken": Broken(a=1), "huge": 10**5000, "fine": 1})
    assert clean == {"broken": "<Broken that can't be read>", "huge": "<integer of 16610 bits>", "fine": 1}
    json.dumps(clean)


def test_a_structure_without_end_is_cut():
    loop = {}
    loop["again"] = [loop]
    assert "…" in json.dumps(redact(loop), ensure_ascii=False)


def test_a_huge_structure_is_cut():
    size = len(json.dumps(redact({"rows": [list(range(10_000)) for _ in range(100)], "text": "x" * 1_000_000})))
    assert size < 10 * MAX_VALUES + 10_000


def test_what_is_given_stays_as_it_is():
    mine = {"headers": {"authorization": CANARY}}
    redact(mine)
    assert mine == {"headers": {"authorization": CANARY}}


@pytest.fixture
def heard():
    """What a user's own handler at the root prints, of everything from INFO on."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(before)


def test_httpx_s_line_about_a_request_has_no_key(heard):
    guard_httpx()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.post(f"https://example.org/v1beta/models/m:generate?key={CANARY}&alt=sse")
    assert "POST https://example.org/v1beta/models/m:generate?key=[redacted]&alt=sse" in heard()
    assert CANARY not in heard()


def test_a_client_of_ours_is_enough_to_guard_httpx(heard):
    from toolkit import Client

    Client(journal=False, cache=False).close()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.get(f"https://me:{CANARY}@example.org/")
    assert "example.org" in heard()
    assert CANARY not in heard()


def test_guarding_twice_filters_once_and_leaves_the_root_logger_alone():
    root = logging.getLogger()
    before = root.level, list(root.handlers), list(root.filters)
    guard_httpx()
    guard_httpx()
    assert len([f for f in logging.getLogger("httpx").filters if isinstance(f, SecretFilter)]) == 1
    assert (root.level, root.handlers, root.filters) == before


def test_a_record_whose_arguments_do_not_fit_goes_on():
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%d and %d", (1,), None)
    assert SecretFilter().filter(record) is True
    assert record.args == (1,)


def test_the_rows_of_a_failed_call_hold_no_secret():
    try:
        raise ServerError(f"refused: Authorization: Bearer {CANARY} at https://x?key={CANARY}", provider="p", status=500)
    except ServerError as error:
        outcome = Outcome(
            at=0.0,
            call_id="c",
            context=CallContext(provider="p", model="p/m", label="p/m"),
            request=ChatRequest(model="m", messages=(Message(role="user", content="hi"),)),
            timing=Timing(),
            error=error,
            base_url=f"https://me:{CANARY}@example.org",
        )
        rows = list(outcome.rows())
    assert len(rows) == 2
    assert CANARY not in repr(rows)
    assert "https://[redacted]@example.org" in rows[1].context
