"""What is peculiar about Replicate: jobs with an end, models with inputs of their own, tokens that stay at home."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from servers.http import CUT, Gate, Server, exchange_answer, json_answer
from servers.replicate import METRICS, PNG, ReplicateService, event, piece
from toolkit import AsyncClient, Client
from toolkit.cache import ResponseCache
from toolkit.drive import ThreadDriver
from toolkit.errors import ConfigError, ProviderTimeoutError, ReplyError, ServerError, StreamInterrupted, UnreachableError
from toolkit.providers.replicate import Replicate, read_pause
from toolkit.providers.replicate_answers import read_addresses
from toolkit.transports import ThreadTransports
from toolkit.types import ChatRequest, Image, ImagePart, ImageRequest, Message, TextPart, ToolCall
from toolkit.wire.retry import NO_RETRY, Retry

KEY = "r8_secret0123456789"
ALL = {each["name"]: each for each in json.loads((Path(__file__).parent / "vectors" / "replicate.json").read_text("utf-8"))}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.001")


def client_of(server, **options):
    options = {"base_urls": {"replicate": server.url}, "api_keys": {"replicate": KEY}, "retry": NO_RETRY, "cache": False, **options}
    return Client(journal=False, **options)


def ask(service, stream=False, model="acme/alpine", prompt="hi", **arguments):
    with service.serve() as server, client_of(server) as client:
        if stream:
            return list(client.stream_text(f"replicate/{model}", prompt, **arguments))[-1].completion
        return client.generate_text(f"replicate/{model}", prompt, **arguments)


def images(service, server, **wish):
    provider = Replicate(base_url=server.url, api_key=KEY)
    request = ImageRequest(**{"model": "acme/alpine", "prompt": "a teal teapot", **wish})
    return ThreadDriver(transports=ThreadTransports()).run(provider.make_images(request, provider.image_wire(request)))


# --- jobs --------------------------------------------------------------------------------------------------------------------


def test_a_job_that_outlasts_the_wait_is_asked_for_until_it_is_over():
    service = ReplicateService(polls=("starting", "processing"))
    with service.serve() as server:
        naps = []
        with client_of(server, sleep=naps.append) as client:
            completion = client.generate_text("replicate/acme/alpine", "hi")
    assert (completion.text, completion.attempts, len(naps)) == ("Blue gentiané😀", 1, 3)
    assert service.cancelled == []


def test_the_metrics_of_a_job_are_reported_with_its_queue_apart():
    completion = ask(ReplicateService(), stream=True)
    assert completion.usage.output_tokens == METRICS["output_token_count"]
    expected = {"predict_s": 0.775, "server_total_s": 1.297, "ttft_s": 0.31, "queue_s": 0.5}
    assert completion.reported == pytest.approx(expected)
    assert (completion.request_id, completion.served_model) == ("job1", "acme/alpine")


def test_a_job_has_a_deadline_at_our_own_limit_and_at_most_half_an_hour():
    for timeout_s, deadline in ((None, "600s"), (42.2, "43s"), (1.0, "5s"), (9999.0, "1800s")):
        with ReplicateService().serve() as server, client_of(server) as client:
            client.generate_text("replicate/acme/alpine", "hi", timeout_s=timeout_s)
        assert server.requests[-1].headers["cancel-after"] == deadline


def test_a_job_that_is_never_over_is_cancelled_at_the_limit():
    service = ReplicateService(polls=("processing",) * 10_000)
    with pytest.raises(ProviderTimeoutError, match="cancelled") as caught:
        ask(service, timeout_s=0.5)
    assert service.cancelled == ["job1"]
    assert not caught.value.retryable


def test_an_interrupt_while_a_job_runs_cancels_it():
    service = ReplicateService(polls=("processing",) * 10)

    def interrupt(_seconds):
        raise KeyboardInterrupt

    with service.serve() as server, client_of(server, sleep=interrupt) as client, pytest.raises(KeyboardInterrupt):
        client.generate_text("replicate/acme/alpine", "hi")
    assert service.cancelled == ["job1"]


def test_a_cancelled_task_cancels_its_job():
    service = ReplicateService(polls=("processing",) * 100)

    async def main(server):
        asleep = asyncio.Event()

        async def sleep(_seconds):
            asleep.set()
            await asyncio.Event().wait()

        urls, keys = {"replicate": server.url}, {"replicate": KEY}
        async with AsyncClient(base_urls=urls, api_keys=keys, cache=False, journal=False, sleep=sleep) as client:
            task = asyncio.create_task(client.generate_text("replicate/acme/alpine", "hi"))
            await asleep.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with service.serve() as server:
        asyncio.run(main(server))
    assert service.cancelled == ["job1"]


def held_stream(gate):
    return lambda request, good: (
        type(good)(200, good.headers, [piece("Blue"), gate, piece(" gentian")]) if request.method == "GET" else good
    )


def test_a_reader_who_leaves_a_stream_cancels_its_job():
    gate = Gate()
    service = ReplicateService(fault=held_stream(gate))
    with service.serve() as server, client_of(server) as client:
        events = client.stream_text("replicate/acme/alpine", "hi")
        assert next(events).text == "Blue"
        events.close()
        assert service.cancelled == ["job1"]
        gate.opened.set()


def test_a_reader_who_leaves_a_stream_on_a_loop_cancels_its_job():
    gate = Gate()
    service = ReplicateService(fault=held_stream(gate))

    async def main(server):
        urls, keys = {"replicate": server.url}, {"replicate": KEY}
        async with AsyncClient(base_urls=urls, api_keys=keys, cache=False, journal=False) as client:
            events = client.stream_text("replicate/acme/alpine", "hi")
            assert (await anext(events)).text == "Blue"
            await events.aclose()

    with service.serve() as server:
        asyncio.run(main(server))
        gate.opened.set()
    assert service.cancelled == ["job1"]


def test_a_stream_that_breaks_off_cancels_its_job_and_one_that_ends_does_not():
    broken = ReplicateService(
        fault=lambda request, good: type(good)(200, good.headers, [piece("Blue"), CUT]) if request.method == "GET" else good
    )
    with pytest.raises(StreamInterrupted):
        ask(broken, stream=True)
    assert broken.cancelled == ["job1"]
    whole = ReplicateService()
    ask(whole, stream=True)
    assert whole.cancelled == []


def test_a_creation_whose_fate_is_unknown_is_not_repeated():
    service = ReplicateService(fault=lambda _request, good: type(good)(201, {}, [], before=(CUT,)))
    with service.serve() as server, client_of(server, retry=Retry(random=lambda: 0.0)) as client:
        with pytest.raises(UnreachableError, match="may be running"):
            client.generate_text("replicate/v1", "hi")
    assert len(server.requests) == 1


def test_a_poll_that_fails_now_and_then_does_not_lose_the_job():
    service = ReplicateService(polls=("processing", "processing"))
    failures = iter([json_answer({"detail": "oops"}, 502), json_answer({"detail": "oops"}, 429)])

    def flaky(request):
        return next(failures, None) or service(request) if request.path == "/v1/predictions/job1" else service(request)

    with service.serve(), Server(flaky) as server, client_of(server) as client:
        assert client.generate_text("replicate/acme/alpine", "hi").text == "Blue gentiané😀"


def test_the_words_of_a_stream_are_kept_where_its_metrics_cannot_be_had():
    service = ReplicateService()
    gone = json_answer({"detail": "gone"}, 404)
    with (
        service.serve(),
        Server(lambda request: gone if request.path == "/v1/predictions/job1" else service(request)) as server,
        client_of(server) as client,
    ):
        completion = list(client.stream_text("replicate/acme/alpine", "hi"))[-1].completion
    assert (completion.text, completion.finish_reason, completion.usage.output_tokens) == ("Blue gentiané😀", "stop", None)
    assert completion.request_id == "job1"


def test_a_model_that_does_not_stream_answers_in_one_piece():
    assert ask(ReplicateService(streams=False, polls=("processing",)), stream=True).text == "Blue gentiané😀"


def test_the_limit_of_a_text_is_told_by_its_tokens():
    assert ask(ReplicateService(), max_tokens=3).finish_reason == "length"
    assert ask(ReplicateService(), max_tokens=4, stream=True).finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_begins_like_an_address_is_a_text(stream):
    service = ReplicateService(output="https://example.org is a place", streams=False)
    assert ask(service, stream=stream).text == "https://example.org is a place"


@pytest.mark.parametrize("output", [{"text": "a"}, 7, [1]])
def test_an_output_that_is_no_text_is_an_error(output):
    with pytest.raises(ReplyError, match="no text"):
        ask(ReplicateService(output=output))


@pytest.mark.parametrize(("change", "words"), [({"output": None}, "without an output"), ({"data_removed": True}, "deleted")])
def test_a_job_that_succeeded_without_its_output_is_an_error(change, words):
    service = ReplicateService()
    service.fault = lambda _request, _good: json_answer(service.job("succeeded") | change, 201)
    with pytest.raises(ReplyError, match=words):
        ask(service)


@pytest.mark.parametrize("last", [event("done", '{"reason":"error"}'), event("error", "It broke"), event("done", '{"reason":"canceled"}')])
def test_a_stream_that_ends_badly_is_an_error_without_another_try(last):
    service = ReplicateService(fault=lambda request, good: type(good)(200, good.headers, [piece("Half"), last]))
    with pytest.raises(ServerError) as caught:
        ask(service, stream=True)
    assert (caught.value.partial, caught.value.retryable) == ("Half", False)


@pytest.mark.parametrize(("error", "retryable"), [({"message": "It broke"}, False), ({"message": "slow down", "code": 429}, True)])
def test_an_answer_that_tells_of_an_error_is_worth_another_try_only_where_a_status_in_it_says_so(error, retryable):
    assert Replicate(api_key=KEY).told_error({"error": error}, "acme/alpine").retryable == retryable


def test_a_last_event_without_its_blank_line_ends_the_job():
    service = ReplicateService(fault=lambda _request, good: type(good)(200, good.headers, [piece("a"), event("done", "{}").rstrip()]))
    completion = ask(service, stream=True)
    assert (completion.text, completion.usage.output_tokens, service.cancelled) == ("a", 3, [])


def test_events_that_are_unknown_empty_or_without_an_id_do_no_harm():
    writes = [event("logs", "step 1"), event("novelty", "?"), b"event: output\ndata: a\n\n", piece(""), piece("\nb"), event("done", "")]
    service = ReplicateService(fault=lambda _request, good: type(good)(200, good.headers, writes))
    assert ask(service, stream=True).text == "a\nb"


# --- the token ---------------------------------------------------------------------------------------------------------------


def test_the_token_stays_at_the_api():
    service = ReplicateService(key=KEY)
    with service.serve() as server, client_of(server) as client:
        list(client.stream_text("replicate/acme/alpine", "hi"))
        service.output = [f"{server.files.url}/out-0.png"]
        assert images(service, server).images[0].data == PNG
    assert [request.path for request in server.files.requests] == ["/stream", "/out-0.png"]
    assert not any(KEY in str(request.headers) for request in server.files.requests)
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://api.replicate.com/v1/files/x", True),
        ("https://stream.replicate.com/v1/files/x", False),
        ("http://api.replicate.com/v1/files/x", False),
        ("https://api.replicate.com:8443/v1/files/x", False),
        ("https://api.replicate.com.evil.example/x", False),
        ("https://api.replicate.com@evil.example/x", False),
        ("https://replicate.delivery/x", False),
    ],
)
def test_only_the_apis_own_address_gets_the_token(address, told):
    assert ("authorization" in Replicate(api_key=KEY).follow(address, None).headers) == told


def test_the_address_that_a_job_names_for_itself_is_not_asked():
    with ReplicateService(polls=("processing",)).serve() as server, client_of(server) as client:
        client.generate_text("replicate/acme/alpine", "hi")  # its urls.get is on another host
    assert server.requests[-1].path == "/v1/predictions/job1"


# --- models and their inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "official", "path", "version"),
    [
        ("acme/alpine", True, "/v1/models/acme/alpine/predictions", None),
        ("acme/alpine", False, "/v1/predictions", "v1"),
        ("acme/alpine:v1", True, "/v1/predictions", "v1"),
        ("v1", True, "/v1/predictions", "v1"),
    ],
)
def test_official_models_and_versions_have_their_own_addresses(model, official, path, version):
    service = ReplicateService(official=official)
    with service.serve() as server, client_of(server) as client:
        client.generate_text(f"replicate/{model}", "hi")
        client.generate_text(f"replicate/{model}", "hi")
    created = [request for request in server.requests if request.method == "POST"]
    assert [(request.path, request.json.get("version")) for request in created] == [(path, version)] * 2
    assert sum(request.method == "GET" for request in server.requests) <= 1


def test_a_deployment_has_its_address():
    steps = Replicate(api_key=KEY).target("deployments/acme/fast")
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value.path == "/deployments/acme/fast/predictions"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"temperature": 1.0}, "temperature="),
        ({"system": "Be brief."}, "system="),
        ({"extra": {"top_q": 1}}, "'top_q'"),
        ({"stop": "."}, "stop="),
    ],
)
def test_an_option_that_a_model_does_not_have_is_refused_with_those_that_it_has(arguments, word):
    with pytest.raises(ConfigError, match=r"it has prompt, seed") as caught:
        ask(ReplicateService(inputs={"prompt": {}, "seed": {}}), **arguments)
    assert word in str(caught.value)


def test_images_and_lists_are_shaped_as_the_model_wants_them():
    prompt = [Message(role="user", content=(TextPart(text="what?"), ImagePart(data=PNG)))]
    one, many = ReplicateService(), ReplicateService(inputs={"prompt": {}, "images": {"type": "array"}, "stop": {"type": "array"}})
    ask(one, prompt=prompt, stop=["a", "b"])
    ask(many, prompt=prompt, stop=["a,", "b"])
    assert one.asked["input"]["image"] == many.asked["input"]["images"][0] == "data:image/png;base64,iVBORw0KGgo="
    assert (one.asked["input"]["stop_sequences"], many.asked["input"]["stop"]) == ("a,b", ["a,", "b"])
    with pytest.raises(ConfigError, match="comma"):
        ask(one, stop=["a,", "b"])
    with pytest.raises(ConfigError, match="one image, not 2"):
        ask(one, prompt=[Message(role="user", content=(ImagePart(data=PNG), ImagePart(data=PNG)))])


def test_a_conversation_is_put_to_models_that_take_one():
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    service = ReplicateService(inputs={"prompt": {}, "messages": {"type": "array"}})
    ask(service, prompt=talk)
    assert service.asked["input"] == {"messages": talk}
    with pytest.raises(ConfigError, match="several turns"):
        ask(ReplicateService(), prompt=talk)


@pytest.mark.parametrize("role", ["system", "user"])
def test_an_image_within_a_conversation_is_refused_and_not_left_out(role):
    talk = [Message(role=role, content=(TextPart(text="look"), ImagePart(data=PNG))), Message(role="user", content="what is it?")]
    service = ReplicateService(inputs={"prompt": {}, "messages": {"type": "array"}, "system_prompt": {}, "image": {}})
    with pytest.raises(ConfigError, match="one user message"):
        ask(service, prompt=talk)
    assert service.asked == {}


def test_what_replicate_cannot_do_is_said():
    with pytest.raises(ConfigError, match="schema="):
        ask(ReplicateService(), schema={"type": "object"})
    with pytest.raises(ConfigError, match="no tools"):
        Replicate().wire(
            ChatRequest(model="a/b", messages=(Message(role="assistant", tool_calls=(ToolCall(id="", name="f", arguments=""),)),))
        )


def test_a_model_is_read_with_its_name():
    service = ReplicateService(models=["meta/meta-llama-3-70b-instruct"])
    with service.serve() as server, client_of(server) as client:
        assert [model.id for model in client.list_models("replicate")] == ALL["replicate-model"]["expect"]["models"]


# --- pictures --------------------------------------------------------------------------------------------------------------------


def test_pictures_are_downloaded_with_the_job():
    service = ReplicateService(polls=("processing",))
    with service.serve() as server:
        service.output = [f"{server.files.url}/out-0.png", "data:image/webp;base64,AAAA"]
        reply = images(service, server, n=2, size=(768, 512), seed=7, extra={"top_k": 1})
    assert [(image.mime, len(image.data)) for image in reply.images] == [("image/png", 8), ("image/webp", 3)]
    assert service.asked["input"] == {"prompt": "a teal teapot", "num_outputs": 2, "width": 768, "height": 512, "seed": 7, "top_k": 1}
    assert (reply.request_id, reply.reported["predict_s"]) == ("job1", 0.775)


def test_a_client_makes_pictures_once_and_keeps_them():
    service = ReplicateService()
    with service.serve() as server, client_of(server, cache=ResponseCache()) as client:
        service.output = [f"{server.files.url}/out-0.png"]
        first, again = (client.generate_image("replicate/acme/alpine", "a teal teapot", size="768x512", seed=7) for _ in range(2))
        assert [request.path for request in server.files.requests] == ["/out-0.png"]
    assert first.images == again.images == (Image(data=PNG, mime="image/png"),)
    assert (first.provenance, again.provenance, again.cache_tier) == ("live", "replayed", "memory")
    assert (first.served_model, first.request_id, first.cost_usd) == ("acme/alpine", "job1", None)
    assert service.asked["input"] == {"prompt": "a teal teapot", "width": 768, "height": 512, "seed": 7}


def test_a_picture_is_made_as_in_the_sheet():
    create, download = ALL["replicate-image-out"]["steps"]
    with Server(lambda _request: exchange_answer(download)) as files:
        job = json.loads(json.dumps(create["response"]).replace("https://replicate.delivery", files.url))
        service = ReplicateService(
            models=["black-forest-labs/flux-schnell"], inputs={"prompt": {}, "seed": {}, "num_outputs": {}, "output_format": {}}
        )
        service.fault = lambda *_: json_answer(job["json"], 201)
        with service.serve() as server:
            extra = {"num_outputs": 1, "output_format": "png"}
            reply = images(service, server, model=service.models[0], seed=7, extra=extra)
    expected = ALL["replicate-image-out"]["expect"]["images"]
    assert [{"mime_type": image.mime, "bytes": len(image.data)} for image in reply.images] == expected
    assert service.asked == create["request"]["json"]
    assert (server.requests[-1].path, files.requests[0].path) == (create["request"]["path"], "/xezq/EXAMPLE0000/out-0.png")


def test_a_size_is_a_ratio_where_the_model_knows_only_those():
    service = ReplicateService(inputs={"prompt": {}, "aspect_ratio": {}}, output="data:image/png,x")
    with service.serve() as server:
        images(service, server, size=(1920, 1080))
        assert service.asked["input"]["aspect_ratio"] == "16:9"
        service.inputs = {"prompt": {}}
        with pytest.raises(ConfigError, match="size="):
            images(service, server, size=(1, 1))


def test_a_picture_that_is_gone_or_missing_is_an_error():
    service = ReplicateService(output=[])
    with service.serve() as server:
        with pytest.raises(ReplyError, match="no pictures"):
            images(service, server)
        service.output = [f"{server.files.url}/expired.png"]
        with pytest.raises(Exception, match="404"):
            images(service, server)


def test_a_job_that_failed_makes_no_pictures():
    service = ReplicateService()
    service.fault = lambda *_: json_answer(service.job("failed") | {"error": "CUDA out of memory. (E1001)"}, 201)
    with service.serve() as server, pytest.raises(ServerError, match="E1001"):
        images(service, server)


def test_addresses_are_found_in_whatever_an_output_is():
    assert read_addresses({"image": "https://a/x", "seed": 7}) == read_addresses("https://a/x") == read_addresses(["https://a/x", "text"])


# --- settings --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "pause"),
    [
        ({"detail": "x", "retry_after": 12}, {"ratelimit-reset": "9"}, 12),
        ({"detail": "Your rate limit resets in ~30s."}, {"ratelimit-reset": "9"}, 9),
        ({"detail": "Request was throttled. Your rate limit resets in ~30s."}, {}, 30),
        ({"detail": "x", "retry_after": "nan"}, {}, 20),
        ([], {}, 20),
    ],
)
def test_every_form_of_a_pause_is_read(body, headers, pause):
    assert read_pause(httpx.Response(429, json=body, headers=headers)) == pause


@pytest.mark.parametrize("text", ["http://box", "http://box/", "http://box/v1", "http://box/v1/"])
def test_the_base_url_may_leave_out_the_version(text):
    assert Replicate(base_url=text).base_url == "http://box/v1"


@pytest.mark.parametrize("text", ["0", "-1", "often", "inf", "nan"])
def test_a_poll_interval_that_is_none_is_told(text, monkeypatch):
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", text)
    with pytest.raises(ConfigError, match="REPLICATE_POLL_INTERVAL"):
        Replicate()


def test_the_token_comes_from_its_variable(monkeypatch):
    monkeypatch.setenv("REPLICATE_API_TOKEN", KEY)
    with ReplicateService(key=KEY).serve() as server:
        monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
        with Client(cache=False, journal=False) as client:
            health = client.health_check("replicate")
    assert health.ok and "as demo" in health.detail
