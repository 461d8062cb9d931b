"""A key shows up in the header that carries it and nowhere else, however often the service repeats it."""

import asyncio
import copy
import dataclasses
import json
import logging
import pickle
import traceback
import zipfile
from pathlib import Path

import joblib
import pytest
from google.oauth2.credentials import Credentials

import toolkit as tk
from servers.http import CUT, Answer, Server, json_answer
from test_providers_contract import CASES
from toolkit import AsyncClient, Client
from toolkit.errors import AuthError, ConfigError, ToolkitError
from toolkit.providers.google_tokens import GoogleTokens
from toolkit.providers.key import KeySource
from toolkit.providers.registry import PROVIDERS
from toolkit.wire.retry import Retry

KEY = "canary-3f9d2c7e8b1a-do-not-show"
TESTS = Path(__file__).parent
HEAD = KEY[:10]  # a part that is long enough to be looked for
BY_NAME = {case.provider: case for case in CASES}
LOCAL = {"embedded": "ngram-2", "scripted": "echo"}  # they answer in this process and send nothing
REMOTE = sorted(PROVIDERS.keys() - LOCAL)
EVERY_HEADER = ("openai_compatible", "azure", "vertex")
"""One provider for each header that carries a key: on httpx's transport the others differ in nothing."""


def echoed(status=200, text="no"):
    """An answer of a service that repeats the key wherever it can."""
    body = {"error": {"message": f"{text}: {KEY}", "code": KEY, "type": KEY, "param": KEY}, "message": KEY, "id": KEY}
    return json_answer(body, status, HEADERS)


HEADERS = {
    "x-request-id": KEY, "apim-request-id": KEY, "x-debug-trace-id": KEY, "x-generation-id": KEY, "retry-after": KEY, "www-authenticate": KEY,
    "set-cookie": f"session={KEY}", "location": f"https://elsewhere.invalid/{KEY}", "x-ratelimit-reset-tokens": KEY,
}  # fmt: skip

BAD = {
    "unauthorized": echoed(401),
    "bad request": echoed(400),
    "not found": echoed(404),
    "busy": echoed(429),
    "broken": echoed(500),
    "error with status 200": echoed(200),
    "page": Answer(502, {"content-type": f"text/html; {KEY}"}, [f"<html><title>{KEY}</title>{KEY}</html>".encode()], framing="length"),
    "text": Answer(403, {"content-type": "text/plain"}, [KEY.encode()], framing="length"),
    "text that is no answer": Answer(200, {"content-type": KEY}, [f"hello {KEY}".encode()], framing="length"),
    "broken event": Answer(200, {}, [b'data: {"id": "x"}\n\n', f'data: {{"x": "{KEY}\n\n'.encode(), b'data: {"id": "x"}\n\n']),
    "reason": Answer(f"500 {KEY}", {}, [b""], framing="length"),
    "redirect": Answer(307, HEADERS, [b""], framing="length"),
    "illegal header": Answer(before=(f"HTTP/1.1 200 OK\r\n{KEY} \x01\r\n\r\n".encode(), CUT)),
    "illegal status line": Answer(before=(f"{KEY} HTTP/1.1\r\n\r\n".encode(), CUT)),
    "illegal chunk": Answer(200, {"transfer-encoding": "chunked"}, [f"{KEY}\r\n".encode(), CUT], framing="close"),
    "illegal encoding": Answer(200, {"content-encoding": "gzip", **HEADERS}, [KEY.encode()], framing="length"),
    **{f"cut at {size}": echoed(500, "x" * size) for size in (170, 190, 1970, 1990)},
    **{f"cut at {size} of a bad answer": Answer(200, {}, [b"x" * size + KEY.encode()], framing="length") for size in (170, 190)},
}


class Threads:
    """Asks with ``Client``; every method gives what there is to look at afterwards."""

    transport = "own"

    def __init__(self, url, provider, key=KEY):
        self.options = {"base_urls": {provider: url} if url else None, "api_keys": {provider: key}, "transport": self.transport}
        self.provider = provider

    def __call__(self, model, stream):
        with Client(**self.options, retry=Retry(attempts=2, random=lambda: 0.0), sleep=lambda _s: None) as client:
            seen = [lambda: repr(client), lambda: repr(client._tools.provider(self.provider))]
            ask = (lambda: list(client.stream_text(model, "hi"))) if stream else (lambda: client.generate_text(model, "hi"))
            return [
                outcome(ask),
                outcome(lambda: client.list_models(self.provider)),
                client.health_check(self.provider),
                *map(outcome, seen),
            ]


class Loop(Threads):
    """Asks with ``AsyncClient``."""

    def __call__(self, model, stream):
        async def nap(_seconds):
            pass

        async def main():
            async with AsyncClient(**self.options, retry=Retry(attempts=2, random=lambda: 0.0), sleep=nap) as client:
                try:
                    if stream:
                        answer = [event async for event in client.stream_text(model, "hi")]
                    else:
                        answer = await client.generate_text(model, "hi")
                except ToolkitError as error:
                    answer = error
                return [answer, await client.health_check(self.provider)]

        return asyncio.run(main())


class HttpxThreads(Threads):
    transport = "httpx"


class HttpxLoop(Loop):
    transport = "httpx"


def outcome(ask):
    try:
        return ask()
    except ToolkitError as error:
        return error


def faces(thing):
    """Every text in which a result or an exception can be looked at."""
    if not isinstance(thing, BaseException):
        return [repr(thing), str(thing), getattr(thing, "_repr_html_", str)()]
    texts = ["".join(traceback.format_exception(thing))]
    chain, seen = [thing], set()
    while chain:
        error = chain.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            chain += [error.__cause__, error.__context__]
            texts += [str(error), repr(error), repr(error.args), repr(vars(error)), repr(getattr(error, "__notes__", ""))]
            texts += local_variables(error)
    return texts


def local_variables(error):
    """What debuggers, rich tracebacks and Sentry show of the frames an error came through; those of the tests know the key."""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        if not Path(frame.f_code.co_filename).is_relative_to(TESTS):
            yield from map(repr, frame.f_locals.values())


def look_everywhere(results, caplog, home, server=None):
    texts = [text for thing in results for text in faces(thing)]
    assert not [text for text in texts if HEAD in text]
    assert HEAD not in caplog.text
    assert not [record for record in caplog.records if HEAD in repr(vars(record))]
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("journal") for path in files)
    assert not [path.name for path in files if HEAD.encode() in path.read_bytes() or HEAD in path.name]
    for request in server.requests if server else []:
        assert KEY not in request.path
        assert KEY.encode() not in request.body
        assert [value for value in request.headers.values() if KEY in value], "the key was never in danger"


@pytest.fixture(params=[Threads, Loop, HttpxThreads, HttpxLoop], ids=["threads", "loop", "httpx-threads", "httpx-loop"])
def driver(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


@pytest.fixture(autouse=True)
def every_log(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.DEBUG)
    yield
    logging.getLogger("httpcore").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("provider", "driver"),
    [(name, kind) for name in REMOTE for kind in (Threads, Loop)]
    + [(name, kind) for name in EVERY_HEADER for kind in (HttpxThreads, HttpxLoop)],
)
def test_a_bad_answer_that_repeats_the_key_shows_it_nowhere(provider, driver, stream, caplog, own_home):
    results = []
    with Server(lambda _request: answer) as server:
        for number, answer in enumerate(BAD.values()):
            first, *others = driver(server.url, provider, KEY if number % 2 else lambda: KEY)(f"{provider}/m", stream)
            assert isinstance(first, ToolkitError)
            results += [first, *others]
    assert driver.transport != "httpx" or "httpcore" in {record.name.partition(".")[0] for record in caplog.records}
    look_everywhere(results, caplog, own_home, server)


@pytest.mark.parametrize("provider", sorted(PROVIDERS.keys() & BY_NAME.keys()))
def test_a_good_answer_whose_headers_repeat_the_key_shows_it_nowhere(provider, driver, stream, caplog, own_home):
    case = BY_NAME[provider]
    service = case.service(fault=lambda _request, good: dataclasses.replace(good, headers={**good.headers, **HEADERS}))
    with service.serve() as server:
        results = driver(server.url + case.path, provider)(f"{provider}/{case.model}", stream)
    assert not isinstance(results[0], Exception)
    look_everywhere(results, caplog, own_home, server)


@pytest.mark.parametrize("provider", sorted(PROVIDERS.keys() & BY_NAME.keys()))
def test_a_stream_that_breaks_off_with_the_key_shows_it_nowhere(provider, driver, caplog, own_home):
    case = BY_NAME[provider]
    writes = [b"%x\r\n%s\r\n" % (len(case.piece("Half")), case.piece("Half")), f"{KEY}\r\n".encode(), CUT]
    answer = Answer(200, {"transfer-encoding": "chunked", **HEADERS}, writes, framing="close")
    with case.service(fault=lambda *_: answer).serve() as server:
        results = driver(server.url + case.path, provider)(f"{provider}/{case.model}", True)
    assert isinstance(results[0], ToolkitError)
    look_everywhere(results, caplog, own_home, server)


@pytest.mark.parametrize("provider", REMOTE)
def test_a_service_that_is_down_shows_no_key_and_no_password(provider, driver, stream, caplog, own_home):
    with Server(lambda _request: json_answer({})) as server:
        url = server.url.replace("http://", f"http://user:{KEY}@")
    results = driver(url, provider)(f"{provider}/m", stream)
    assert isinstance(results[0], ToolkitError)
    look_everywhere(results, caplog, own_home)


@pytest.mark.parametrize("provider", sorted(LOCAL))
def test_a_provider_of_this_process_shows_no_key(provider, driver, stream, caplog, own_home):
    results = driver(None, provider)(f"{provider}/{LOCAL[provider]}", stream)
    assert not isinstance(results[0], Exception)
    look_everywhere(results, caplog, own_home)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_a_client_is_made_of_names_no_key_and_no_password(kind):
    client = kind(base_urls={"ollama": f"http://me:{KEY}@127.0.0.1:9"}, api_keys={"ollama": KEY}, cache=False, journal=False)
    public = [repr(getattr(client, name)) for name in dir(client) if not name.startswith("_")]
    assert not [text for text in (repr(vars(client)), repr(vars(client._tools)), *public) if HEAD in text]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy, joblib.hash])
def test_a_client_with_its_keys_can_not_be_written_down(kind, copied):
    client = kind(api_keys={"ollama": KEY}, cache=False, journal=False)
    client._tools.provider("ollama")
    with pytest.raises((TypeError, pickle.PicklingError), match="make one where it is needed"):
        copied(client)


def bad_key():
    return f"{KEY}\nand what was copied with it"


@pytest.mark.parametrize("key", [bad_key, bad_key()], ids=["function", "text"])
@pytest.mark.parametrize("provider", REMOTE)
def test_a_key_that_no_header_can_carry_is_told_without_it(provider, key, driver, stream, caplog):
    error = driver("http://127.0.0.1:9", provider, key)
    with pytest.raises(ConfigError, match="characters that a header can't carry") as caught:
        raise outcome(lambda: error(f"{provider}/m", stream)[0]) if driver in (Loop, HttpxLoop) else error(f"{provider}/m", stream)[0]
    assert not [text for text in faces(caught.value) if HEAD in text]
    assert HEAD not in caplog.text


def test_a_secret_among_the_options_of_a_model_is_no_part_of_its_label(own_home, tmp_path):
    models = [tk.Model("scripted/echo", extra={"user_token": KEY, "top_k": 5}), tk.Model("scripted/echo", extra={"top_k": 7})]
    comparison = tk.compare(models, ["hi"])
    assert comparison.models == ["scripted/echo (extra={'user_token': '[redacted]', 'top_k': 5})", "scripted/echo (extra={'top_k': 7})"]
    comparison.save(tmp_path / "saved.zip")
    comparison.to_capsule(tmp_path / "capsule.zip")
    tk.defaults.reset()
    looks = [comparison.frame.to_json(date_format="iso"), comparison._repr_html_(), comparison._plan.describe()]
    assert not [text for text in looks if HEAD in text]
    for path in [*own_home.rglob("*"), *tmp_path.glob("*.zip")]:
        assert path.is_dir() or HEAD.encode() not in path.read_bytes()
        if path.suffix == ".zip":
            archive = zipfile.ZipFile(path)
            assert HEAD.encode() not in b"".join(map(archive.read, archive.namelist()))


def test_a_key_is_taken_out_also_where_a_limit_cut_it():
    source = KeySource(KEY, "demo")
    for size in range(8, len(KEY) + 1):
        assert source.scrub(f"see {KEY[:size]}' (text/html)") == "see [key]' (text/html)"
    assert source.scrub(f"{KEY}{KEY}, {KEY[:7]}") == f"[key][key], {KEY[:7]}"


def test_every_key_that_a_function_gave_is_taken_out():
    keys = iter([f"{number}-{KEY}" for number in range(5)])
    source = KeySource(lambda: next(keys), "demo")
    given = [source.get() for _ in range(5)]
    assert source.scrub(json.dumps(given)) == json.dumps(["[key]"] * 5)
    assert not [key for key in given if key in repr(source)]


def test_a_function_that_fails_with_an_old_key_on_its_lips_does_not_show_it():
    keys = iter([KEY])

    def renew():
        for key in keys:
            return key
        raise LookupError(f"{KEY} has expired") from ValueError(KEY)

    source = KeySource(renew, "demo")
    assert source.get() == KEY
    with pytest.raises(AuthError, match=r"\[key\] has expired") as caught:
        source.get()
    assert not [text for text in faces(caught.value) if HEAD in text]


def test_a_function_that_fails_with_a_secret_that_nobody_knows_does_not_show_it_either():
    def renew():
        try:
            json.loads('{"client_secret": "' + KEY)
        except ValueError as error:
            error.add_note("while reading the credentials")
            raise LookupError("no new key") from error

    with pytest.raises(AuthError, match="no new key") as caught:
        KeySource(renew, "demo").get()
    assert not [text for text in faces(caught.value) if HEAD in text]


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_a_token_service_that_repeats_what_it_was_sent_shows_it_nowhere(status):
    body = {"error": "invalid_grant", "error_description": f"{KEY} has expired", "sent": [KEY, KEY[::-1]]}
    with Server(lambda _request: json_answer(body, status)) as server:
        credentials = Credentials(
            None, refresh_token=KEY, client_secret=KEY[::-1], client_id="me", token_uri=f"{server.url}/token"
        )  # fmt: skip
        with pytest.raises(AuthError) as caught:
            GoogleTokens(credentials).refresh()
        assert KEY.encode() in server.requests[0].body
    assert not [text for text in faces(caught.value) if HEAD in text or KEY[::-1][:10] in text]


def test_a_broken_file_of_credentials_is_not_quoted(tmp_path, monkeypatch):
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"type": "authorized_user", "refresh_token": KEY, "client_secret": KEY})[:-1])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(ConfigError) as caught:
        GoogleTokens().refresh()
    assert not [text for text in faces(caught.value) if HEAD in text]


def test_a_private_key_that_can_not_be_read_is_not_quoted(tmp_path, monkeypatch):
    secret = f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"
    facts = {"type": "service_account", "client_email": "me@x.invalid", "token_uri": "http://127.0.0.1:9/token", "private_key": secret}
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(facts))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(ConfigError) as caught:
        GoogleTokens().refresh()
    assert not [text for text in faces(caught.value) if HEAD in text]
