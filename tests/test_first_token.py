"""A stream that brings no token ends, whatever it sends instead; over every provider that streams, and both drivers."""

import asyncio
import dataclasses
import itertools
import json

import httpx
import pytest

from servers.http import Answer, Gate, Pause, Server
from test_providers_contract import CASES, TEXT, Loop, Threads
from toolkit import Client
from toolkit.drive import AsyncDriver, ThreadDriver
from toolkit.errors import ConfigError, ProviderTimeoutError
from toolkit.transports import AsyncTransports, ThreadTransports
from toolkit.wire.retry import NO_RETRY, Retry
from toolkit.wire.steps import Send

LIMIT_S = 0.06


@pytest.fixture(params=CASES, ids=lambda case: case.provider)
def case(request):
    return request.param


@pytest.fixture(params=[Threads, Loop], ids=["threads", "loop"])
def driver(request):
    return request.param


def nothing(case):
    """What a service sends to keep a connection open: comments, or blank lines where the stream is lines of JSON."""
    return b"\n" if case.provider == "ollama" else b": still here\n\n"


def nothing_for_ever(case):
    def fault(_request, good):
        return dataclasses.replace(good, writes=(step for _ in itertools.count() for step in (nothing(case), Pause(0.005))))

    return fault


def ask(driver, case, fault, *, retry=NO_RETRY, transport="own", first_token_timeout_s=LIMIT_S, **arguments):
    naps = []
    with case.service(fault=fault).serve() as server:
        client = {
            "base_urls": {case.provider: server.url + case.path}, "cache": False, "journal": False, "retry": retry, "transport": transport,
            "first_token_timeout_s": first_token_timeout_s,
        }  # fmt: skip
        return driver({"client": client, "naps": naps})(f"{case.provider}/{case.model}", True, **arguments)


def refused(driver, case, fault, **options):
    with pytest.raises(ProviderTimeoutError, match=r"no token within 0\.06 s.*first_token_timeout_s=") as caught:
        ask(driver, case, fault, **options)
    return caught.value


def test_keep_alive_for_ever_is_no_answer(driver, case):
    error = refused(driver, case, nothing_for_ever(case))
    assert error.retryable
    assert (error.provider, error.attempts, error.partial) == (case.provider, 1, "")


@pytest.mark.parametrize("where", ["before", "after_headers"])
def test_silence_before_the_first_token_is_no_answer_either(driver, case, where):
    gate = Gate()
    refused(driver, case, lambda _request, good: dataclasses.replace(good, **{where: (gate,)}))
    gate.opened.set()


def test_it_is_an_attempt_that_failed_and_the_next_may_do_better(driver, case):
    faults = iter([nothing_for_ever(case)])
    done = ask(driver, case, lambda *what: next(faults, lambda _request, good: good)(*what), retry=Retry(random=lambda: 0.0))
    assert done.text == TEXT
    assert done.attempts >= 2  # a busy machine may be too late for the good answer as well
    assert done.timing.failed_attempts_s + done.timing.loop_stall_s >= LIMIT_S


def test_after_the_first_token_a_pause_may_be_longer(driver, case):
    def pauses(_request, good):
        return dataclasses.replace(good, writes=[case.piece("Well: "), Pause(2 * LIMIT_S), *good.writes])

    assert ask(driver, case, pauses).text == f"Well: {TEXT}"


def test_the_limit_holds_with_the_transports_of_httpx(driver):
    refused(driver, CASES[0], nothing_for_ever(CASES[0]), transport="httpx")


def test_a_shorter_limit_for_the_whole_attempt_comes_first(driver):
    with pytest.raises(ProviderTimeoutError, match=r"see timeout_s=|still streaming after 0\.03 s"):
        ask(driver, CASES[0], nothing_for_ever(CASES[0]), timeout_s=0.03)


@pytest.mark.parametrize("where", ["before", "after_headers"])
def test_a_shorter_limit_holds_in_silence_too(driver, where):
    gate = Gate()
    with pytest.raises(ProviderTimeoutError, match=r"did not answer in time.*see timeout_s="):
        ask(driver, CASES[0], lambda _request, good: dataclasses.replace(good, **{where: (gate,)}), timeout_s=0.05, first_token_timeout_s=9)
    gate.opened.set()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "soon"])
def test_a_limit_that_is_no_time_is_told(wrong):
    with pytest.raises(ConfigError, match="first_token_timeout_s"):
        Client(first_token_timeout_s=wrong, cache=False, journal=False)


# --- answers that come whole -------------------------------------------------------------------------------------------------------


def test_blanks_for_ever_in_place_of_a_whole_answer_run_into_its_limit(driver, case):
    def blanks(_request, good):
        return Answer(200, good.headers, (step for _ in itertools.count() for step in (b" ", Pause(0.005))), framing="chunked")

    options = {"base_urls": {}, "cache": False, "journal": False, "retry": NO_RETRY}
    with case.service(fault=blanks).serve() as server, pytest.raises(ProviderTimeoutError, match=r"still sending|timed out"):
        options["base_urls"][case.provider] = server.url + case.path
        driver({"client": options, "naps": []})(f"{case.provider}/{case.model}", False, timeout_s=LIMIT_S)


def test_blanks_before_a_whole_answer_are_waited_for(driver):
    body = json.dumps({"choices": [{"message": {"content": "Late"}, "finish_reason": "stop"}]}).encode()
    options = {"cache": False, "journal": False, "retry": NO_RETRY, "first_token_timeout_s": 0.001}
    with Server(lambda _request: Answer(200, {}, [b" ", Pause(0.02), b" ", Pause(0.02), body], framing="chunked")) as server:
        options["base_urls"] = {"openai_compatible": server.url}
        assert driver({"client": options, "naps": []})("openai_compatible/m", False).text == "Late"


class Drip(httpx.BaseTransport, httpx.AsyncBaseTransport, httpx.SyncByteStream, httpx.AsyncByteStream):
    """A server that sends a byte each four seconds of its own clock."""

    def __init__(self, size):
        self.size = size
        self.now = 0.0

    def handle_request(self, _request):
        return httpx.Response(200, stream=self)

    async def handle_async_request(self, _request):
        return httpx.Response(200, stream=self)

    def __iter__(self):
        for _ in range(self.size):
            self.now += 4.0
            yield b"x"

    async def __aiter__(self):
        for byte in self:
            yield byte


def carry_out(kind, drip):
    def steps():
        response = yield Send(httpx.Request("GET", "http://one.invalid/", extensions={"timeout": {"read": 10.0}}))
        return response.content

    if kind is ThreadDriver:
        return ThreadDriver(transports=ThreadTransports(lambda: drip), clock=lambda: drip.now).run(steps())
    return asyncio.run(AsyncDriver(transports=AsyncTransports(lambda: drip), clock=lambda: drip.now).run(steps()))


@pytest.mark.parametrize("kind", [ThreadDriver, AsyncDriver])
def test_a_dripping_answer_has_the_limit_of_one_read_for_all_of_it(kind):
    assert carry_out(kind, Drip(2)) == b"xx"
    with pytest.raises(httpx.ReadTimeout, match="still sending"):
        carry_out(kind, Drip(3))
