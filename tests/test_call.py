"""One call, whichever driver carries it out: cache, retries, single flight, timing."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from toolkit import errors
from toolkit.cache import ResponseCache
from toolkit.client import AsyncClient, Client
from toolkit.pricing import Price
from toolkit.providers.scripted import Answer, Failure, script
from toolkit.wire.retry import Retry

MODEL = "openai_compatible/m"


def reply(text="yes", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return {"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


class Service:
    """Speaks chat completions through httpx.MockTransport; scripted responses come first."""

    def __init__(self, *first):
        self.left = list(first)
        self.seen = []

    def __call__(self, request):
        self.seen.append(json.loads(request.content))
        if self.left:
            answer = self.left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return httpx.Response(200, json=reply())


class Threads:
    """Asks through the thread driver."""

    def __init__(self, service, cache, **options):
        self.naps = []
        self.client = Client(
            base_urls={"openai_compatible": "http://one.invalid/v1"},
            cache=cache,
            journal=False,
            transport=lambda: httpx.MockTransport(service),
            sleep=self.naps.append,
            **options,
        )

    def generate(self, *args, **options):
        return self.client.generate_text(*args, **options)

    def stream(self, *args, **options):
        return list(self.client.stream_text(*args, **options))


class Loop(Threads):
    """Asks through the event-loop driver."""

    def __init__(self, service, cache, **options):
        self.naps = []

        async def nap(seconds):
            self.naps.append(seconds)

        self.client = AsyncClient(
            base_urls={"openai_compatible": "http://one.invalid/v1"},
            cache=cache,
            journal=False,
            transport=lambda: httpx.MockTransport(service),
            sleep=nap,
            **options,
        )

    def generate(self, *args, **options):
        return asyncio.run(self.client.generate_text(*args, **options))

    def stream(self, *args, **options):
        async def collect():
            return [event async for event in self.client.stream_text(*args, **options)]

        return asyncio.run(collect())


@pytest.fixture(params=[Threads, Loop])
def asker(request, tmp_path):
    def make(service, **options):
        return request.param(service, ResponseCache(tmp_path / "cache"), **options)

    return make


def test_a_second_equal_call_is_replayed_and_says_so(asker):
    service = Service()
    ask = asker(service)
    first, second = ask.generate(MODEL, "hi"), ask.generate(MODEL, "hi")
    assert len(service.seen) == 1
    assert (first.provenance, first.cache_tier, first.attempts) == ("live", None, 1)
    assert (second.provenance, second.cache_tier, second.attempts) == ("replayed", "memory", 0)
    assert second.text == first.text == "yes"
    assert second.timing.latency_s is None
    assert second.saved_s == first.timing.latency_s
    assert first.call_id != second.call_id


def test_an_answer_outlives_the_process_on_disk(asker, tmp_path):
    asker(Service()).generate(MODEL, "hi")
    service = Service()
    again = asker(service).generate(MODEL, "hi")
    assert (again.cache_tier, service.seen) == ("disk", [])


def test_two_servers_never_share_an_answer(tmp_path):
    cache, answers = ResponseCache(tmp_path), []
    for address in ("http://one.invalid/v1", "http://two.invalid/v1"):
        service = Service(httpx.Response(200, json=reply(address)))
        client = Client(
            base_urls={"openai_compatible": address}, cache=cache, journal=False, transport=lambda s=service: httpx.MockTransport(s)
        )
        answers.append(client.generate_text(MODEL, "hi").text)
    assert answers == ["http://one.invalid/v1", "http://two.invalid/v1"]


def test_refresh_asks_again_and_keeps_the_new_answer(asker):
    service = Service(httpx.Response(200, json=reply("old")), httpx.Response(200, json=reply("new")))
    ask = asker(service)
    ask.generate(MODEL, "hi")
    assert ask.generate(MODEL, "hi", cache="refresh").text == "new"
    assert ask.generate(MODEL, "hi").text == "new"


def test_cache_false_asks_each_time_and_keeps_nothing(asker):
    service = Service()
    ask = asker(service)
    ask.generate(MODEL, "hi", cache=False)
    ask.generate(MODEL, "hi", cache=False)
    assert len(service.seen) == 2
    with pytest.raises(errors.CacheMiss):
        ask.generate(MODEL, "hi", cache="only")
    assert len(service.seen) == 2


@pytest.mark.parametrize("finish", ["content_filter", "error"])
def test_a_filtered_or_failed_answer_is_not_kept(asker, finish):
    service = Service(httpx.Response(200, json=reply("half", finish_reason=finish)))
    ask = asker(service)
    try:
        assert ask.generate(MODEL, "hi").finish_reason == finish
    except errors.ProviderError:
        assert finish == "error"
    assert ask.generate(MODEL, "hi").text == "yes"


def test_waits_as_told_by_the_service(asker):
    ask = asker(Service(httpx.Response(429, headers={"retry-after": "2"})), retry=Retry(random=lambda: 0.0))
    assert ask.generate(MODEL, "hi").attempts == 2
    assert ask.naps == [2.0]


def test_gives_up_after_the_attempts_are_used_up_and_says_how_many(asker):
    service = Service(*[httpx.Response(503)] * 9)
    with pytest.raises(errors.ServerError) as caught:
        asker(service, retry=Retry(attempts=3)).generate(MODEL, "hi")
    assert (caught.value.attempts, len(service.seen)) == (3, 3)


def test_a_refused_request_is_not_asked_again(asker):
    service = Service(httpx.Response(400, json={"error": {"message": "no such field"}}))
    with pytest.raises(errors.RequestError, match="no such field"):
        asker(service).generate(MODEL, "hi")
    assert len(service.seen) == 1


def test_the_key_is_in_no_error_even_when_the_service_echoes_it(asker):
    echo = httpx.Response(401, json={"error": {"message": "Incorrect API key provided: sk-canary-123456"}})
    with pytest.raises(errors.AuthError) as caught:
        asker(Service(echo), api_keys={"openai_compatible": "sk-canary-123456"}).generate(MODEL, "hi")
    assert "canary" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


def test_a_server_that_is_down_is_named_with_its_address(asker):
    service = Service(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(errors.UnreachableError, match=r"http://one\.invalid/v1"):
        asker(service).generate(MODEL, "hi")


def test_the_parts_of_the_time_add_up_to_the_total(asker):
    ask = asker(Service(httpx.Response(503), httpx.ReadError("lost")))
    time = ask.generate(MODEL, "hi").timing
    parts = (time.lookup_s, time.limiter_wait_s, time.retry_sleep_s, time.failed_attempts_s, time.latency_s, time.consumer_s)
    assert time.total_s == pytest.approx(sum(parts), abs=1e-9)
    assert time.failed_attempts_s + time.loop_stall_s > 0 and time.latency_s + time.loop_stall_s > 0  # a busy loop may take all of either


def test_what_a_slow_reader_takes_is_not_the_model_s_time():
    script("slow-reader", [Answer("one two three")])
    now = [0.0]
    client = Client(cache=False, journal=False)
    client._tools.policy = client._tools.policy.__class__(clock=lambda: now[0])
    for event in client.stream_text("scripted/slow-reader", "go"):
        now[0] += 5.0
    assert event.completion.timing.consumer_s == 15.0
    assert event.completion.timing.latency_s == 0.0


def test_a_stream_ends_with_its_completion(asker):
    script("poem", [Answer("roses are red")])
    *pieces, end = asker(Service()).stream("scripted/poem", "go", cache=False)
    assert "".join(event.text for event in pieces) == end.completion.text == "roses are red"
    assert (end.kind, end.text) == ("end", "")
    assert end.completion.timing.ttft_s is not None


def test_a_stream_is_replayed_as_a_stream(asker):
    script("replayed", [Answer("roses are red", reasoning="hm")], cycle=False)
    ask = asker(Service())
    first, second = ask.stream("scripted/replayed", "go"), ask.stream("scripted/replayed", "go")
    assert [event[:2] for event in first] == [event[:2] for event in second]
    assert second[-1].completion.provenance == "replayed"


def test_a_replay_can_keep_the_pauses_of_the_first_time(asker):
    script("paused", [Answer("a b c", per_token_s=0.01)], cycle=False)
    ask = asker(Service())
    ask.stream("scripted/paused", "go")
    ask.naps.clear()
    end = ask.stream("scripted/paused", "go", replay="recorded")[-1]
    assert sum(ask.naps) == pytest.approx(end.completion.saved_s, abs=0.02)


def test_an_answer_kept_from_a_plain_call_is_found_by_a_stream_and_the_other_way_round(asker):
    service = Service()
    ask = asker(service)
    ask.generate(MODEL, "hi")
    assert ask.stream(MODEL, "hi")[-1].completion.provenance == "replayed"
    assert len(service.seen) == 1


def test_a_stream_is_asked_again_only_before_its_first_event(asker):
    script("late", [Failure(503), Answer("fine")])
    assert asker(Service()).stream("scripted/late", "go", cache=False)[-1].completion.attempts == 2
    script("broken-off", [Failure(after_tokens=2, drop=True), Answer("never seen")])
    with pytest.raises(errors.ProviderError) as caught:
        asker(Service()).stream("scripted/broken-off", "go", cache=False)
    assert caught.value.partial


def test_an_unknown_cost_is_none_and_a_known_one_is_counted(asker):
    assert asker(Service()).generate(MODEL, "hi").cost_usd is None
    priced = asker(Service(), prices={MODEL: Price(input=1.0, output=2.0, date="2026-11-01")})
    done = priced.generate(MODEL, "other")
    assert (done.cost_usd, done.price_date) == (7e-6, "2026-11-01")
    again = priced.generate(MODEL, "other")
    assert (again.cost_usd, again.saved_usd) == (0.0, 7e-6)


def test_a_schema_gives_the_parsed_value_and_a_broken_answer_is_not_kept(asker):
    service = Service(httpx.Response(200, json=reply("no json")), httpx.Response(200, json=reply('{"a": 1}')))
    ask = asker(service)
    with pytest.raises(errors.ReplyError) as caught:
        ask.generate(MODEL, "hi", schema={"type": "object"})
    assert caught.value.partial == "no json"
    assert ask.generate(MODEL, "hi", schema={"type": "object"}).parsed == {"a": 1}


def test_equal_calls_at_once_make_one_request(tmp_path):
    gate, calls = threading.Event(), []

    def answer(prompt, _body):
        calls.append(prompt)
        gate.wait(10)
        return "shared"

    script("gated", answer)
    client = Client(cache=ResponseCache(tmp_path), journal=False)
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.generate_text, "scripted/gated", "same") for _ in range(16)]
        while not calls or len(client.cache.flights) != 1:
            pass
        gate.set()
        done = [future.result(10) for future in asked]
    assert len(calls) == 1
    assert {completion.text for completion in done} == {"shared"}
    assert [completion.provenance for completion in done].count("live") == 1


def test_when_the_leader_is_cancelled_one_of_the_waiting_takes_over(tmp_path):
    started, calls = [], []

    async def main():
        client = AsyncClient(cache=ResponseCache(tmp_path), journal=False)
        release = asyncio.Event()

        class Gate(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request):
                calls.append(request)
                started.append(asyncio.current_task())
                await release.wait()
                return httpx.Response(200, json=reply())

        client = AsyncClient(
            base_urls={"openai_compatible": "http://one.invalid/v1"}, cache=ResponseCache(tmp_path), journal=False, transport=Gate
        )
        tasks = [asyncio.create_task(client.generate_text(MODEL, "same")) for _ in range(5)]
        while not started:
            await asyncio.sleep(0)
        started[0].cancel()
        while len(started) < 2:
            await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    done = asyncio.run(main())
    assert len(calls) == 2
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) == 1
    provenances = [one.provenance for one in done if not isinstance(one, BaseException)]
    assert provenances.count("live") == 1
    assert set(provenances) <= {"live", "coalesced", "replayed"}


def test_an_error_of_the_leader_reaches_everyone_who_waits(tmp_path):
    gate, calls = threading.Event(), []

    def answer(prompt, _body):
        calls.append(prompt)
        gate.wait(10)
        return Failure(400, "not like this")

    script("gated-failure", answer)
    client = Client(cache=ResponseCache(tmp_path), journal=False)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.generate_text, "scripted/gated-failure", "same") for _ in range(4)]
        while not calls:
            pass
        gate.set()
        caught = [future.exception(10) for future in asked]
    assert all(isinstance(error, errors.RequestError) for error in caught)


def test_a_changed_answer_does_not_change_what_is_kept(asker):
    ask = asker(Service())
    ask.generate(MODEL, "hi").reported["x"] = 1.0
    assert ask.generate(MODEL, "hi").reported == {}


def test_offline_refuses_every_other_machine(monkeypatch):
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    client = Client(base_urls={"openai_compatible": "http://models.example/v1"}, cache=False, journal=False)
    with pytest.raises(errors.ConfigError, match="TOOLKIT_OFFLINE"):
        client.generate_text(MODEL, "hi")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"cache": "maybe"}, "refresh"),
        ({"schema": "text"}, "JSON Schema"),
        ({"extra": {"x": {1, 2}}}, "JSON"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_sent(asker, wrong, told):
    service = Service()
    with pytest.raises(errors.ConfigError, match=told):
        asker(service).generate(MODEL, "hi", **wrong)
    assert service.seen == []


@pytest.mark.parametrize("prompt", ["", [], [{"role": "user", "content": ""}], [{"role": "robot", "content": "x"}], [7], {"role": "user"}])
def test_a_wrong_prompt_is_told_before_anything_is_sent(asker, prompt):
    service = Service()
    with pytest.raises(errors.ConfigError):
        asker(service).generate(MODEL, prompt)
    assert service.seen == []


def test_a_missing_key_names_its_variable():
    with pytest.raises(errors.ConfigError, match="OPENAI_API_KEY"):
        Client(cache=False, journal=False).generate_text(MODEL, "hi")


def test_a_misspelt_provider_in_the_settings_is_told():
    with pytest.raises(errors.ConfigError, match="ollama"):
        Client(base_urls={"olama": "http://127.0.0.1:1"}, journal=False)


def test_the_journal_knows_how_many_bytes_were_answered():
    with Client(cache=False) as client:
        client.generate_text("scripted/echo", "größer")
        assert client.journal.flush()
    from toolkit import monitor

    assert monitor.calls()["answer_bytes"].tolist() == [8]
