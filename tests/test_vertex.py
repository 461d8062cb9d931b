"""What is peculiar about Gemini on Vertex AI: signing in, parts, thoughts with signatures, answers over several requests."""

import asyncio
import base64
import dataclasses
import json
import logging
import threading
from pathlib import Path

import httpx
import pytest

from servers.http import Answer, Server, exchange_answer, json_answer, page_answer, sse
from servers.vertex import USAGE, VertexService, chunk, failure, write_service_account
from toolkit import AsyncClient, Client
from toolkit.cache import ResponseCache
from toolkit.cache.codec import decode, encode
from toolkit.drive import ThreadDriver
from toolkit.errors import (
    AuthError,
    ConfigError,
    ContentFilterError,
    NotFoundError,
    ReplyError,
    ServerError,
    StreamInterrupted,
    UnreachableError,
)
from toolkit.providers.gemini_answers import FINISH_REASONS, GeminiDecoder
from toolkit.providers.google_tokens import GoogleTokens
from toolkit.providers.vertex import Vertex
from toolkit.transports import ThreadTransports
from toolkit.types import ChatRequest, Image, ImagePart, ImageRequest, Kept, Message, TextPart, TokenLogprob, ToolCall, Usage
from toolkit.wire.retry import NO_RETRY

KEY = "AQ.secret0123456789"
PROJECT = "/v1beta1/projects/demo-proj/locations/global"
ALL = {each["name"]: each for each in json.loads((Path(__file__).parent / "vectors" / "vertex.json").read_text("utf-8"))}
PNG = base64.b64decode(ALL["vertex-image-out"]["response"]["json"]["candidates"][0]["content"]["parts"][1]["inlineData"]["data"])


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Write a service account's file for a token service; making its key takes a moment, so once."""
    path = write_service_account(tmp_path_factory.mktemp("google") / "account.json", "")

    def at(url):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"token_uri": f"{url}/token"}))
        return str(path)

    return at


def client_of(server, place=PROJECT, **options):
    return Client(**{"base_urls": {"vertex": server.url + place}, "cache": False, "journal": False, "retry": NO_RETRY, **options})


def run(steps):
    return ThreadDriver(transports=ThreadTransports()).run(steps)


def body(messages="hi", provider=None, **fields):
    messages = (Message(role="user", content=messages),) if isinstance(messages, str) else messages
    return (provider or Vertex(api_key=KEY)).wire(ChatRequest(model="m", messages=messages, **fields)).body


def reply_of(*chunks, request=None):
    reader = Vertex(api_key=KEY).reader(request or ChatRequest(model="m", messages=()))
    events = [event for each in chunks for event in reader.feed(each if isinstance(each, bytes) else sse(each))]
    return events, reader.close()


# --- addresses -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        (
            {"GOOGLE_CLOUD_PROJECT": "p"},
            "https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global/publishers/google/models/m:x",
        ),
        (
            {"GCLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "europe-west4"},
            "https://europe-west4-aiplatform.googleapis.com/v1beta1/projects/p/locations/europe-west4/publishers/google/models/m:x",
        ),
        (
            {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "eu", "GOOGLE_GENAI_API_VERSION": "v1"},
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google/models/m:x",
        ),
        ({"GEMINI_API_KEY": "k", "GOOGLE_CLOUD_LOCATION": "eu"}, "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/m:x"),
        (
            {"GOOGLE_API_KEY": "k", "GOOGLE_GENAI_API_VERSION": "beta"},
            "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/m:x",
        ),
    ],
)
def test_the_address_follows_the_variables(variables, url, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Vertex().model_url("m", "x") == url


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("anthropic/claude-x", "publishers/anthropic/models/claude-x:x"),
        ("publishers/a/models/b@1", "publishers/a/models/b@1:x"),
        ("a?b#c", "publishers/google/models/a%3Fb%23c:x"),
        ("projects/q/locations/l/endpoints/7", "projects/q/locations/l/endpoints/7:x"),
    ],
)
def test_models_of_others_have_their_paths(model, path):
    assert Vertex(api_key=KEY).model_url(model, "x") == f"https://aiplatform.googleapis.com/v1beta1/{path}"


def test_without_a_project_or_a_key_it_is_said_what_to_set():
    with Client(cache=False, journal=False) as client:
        health = client.health_check("vertex")
    assert not health.configured
    assert "GOOGLE_CLOUD_PROJECT" in health.detail and "GOOGLE_API_KEY" in health.detail


def test_a_project_goes_before_a_key_of_the_environment_and_not_before_a_given_one(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    assert Vertex(api_key=KEY).tokens is not None
    assert Vertex(api_key="another").auth_headers() == {"x-goog-api-key": "another"}


def test_an_api_key_alone_lists_no_models():
    with (
        VertexService(key=KEY).serve() as server,
        Client(base_urls={"vertex": server.url}, api_keys={"vertex": KEY}, cache=False) as client,
    ):
        assert client.health_check("vertex").ok
        with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
            client.list_models("vertex")


# --- signing in ------------------------------------------------------------------------------------------------------------------


def test_a_token_is_fetched_once_and_used_until_it_is_about_to_expire(account, monkeypatch):
    service = VertexService(tokens=["ya29.one", "ya29.two"])
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server) as client:
            texts = {client.generate_text("vertex/gemini-demo", "hi").text for _ in range(3)}
    assert texts == {"Blue gentiané😀"}
    assert [request.path for request in server.requests].count("/token") == 1
    assert server.requests[1].headers["authorization"] == "Bearer ya29.one"


def test_a_token_that_is_about_to_expire_is_replaced_first(account, monkeypatch):
    service = VertexService(tokens=["ya29.one", "ya29.two"], lifetime_s=200)
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server) as client:
            client.generate_text("vertex/gemini-demo", "hi")
            list(client.stream_text("vertex/gemini-demo", "hi"))
    assert [request.path for request in server.requests].count("/token") == 2


def test_a_token_that_is_not_accepted_is_replaced_once(account, monkeypatch):
    service = VertexService(tokens=["ya29.one", "ya29.two", "ya29.three"])
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server) as client:
            client.generate_text("vertex/gemini-demo", "hi")
            service.token = "revoked"
            assert client.generate_text("vertex/gemini-demo", "hi").attempts == 1
            service.lets_in = lambda _request: False
            with pytest.raises(AuthError, match="gcloud auth") as caught:
                client.generate_text("vertex/gemini-demo", "hi")
    assert "ya29" not in str(caught.value)
    assert service.tokens == []


def test_calls_at_the_same_time_fetch_one_token_and_the_loop_goes_on(account, monkeypatch):
    """The token service answers only once the loop has run: a refresh that blocked the loop would wait for ever."""
    may_answer = threading.Event()
    service = VertexService(tokens=["ya29.one"])

    def answer(request):
        if request.path == "/token":
            assert may_answer.wait(20)
        return service(request)

    async def main(server):
        async with AsyncClient(base_urls={"vertex": server.url + PROJECT}, cache=False, journal=False) as client:
            asking = [asyncio.create_task(client.generate_text("vertex/gemini-demo", f"{n}")) for n in range(4)]
            while not server.requests:
                await asyncio.sleep(0.001)
            may_answer.set()
            return await asyncio.gather(*asking)

    with Server(answer) as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        assert len(asyncio.run(main(server))) == 4
    assert [request.path for request in server.requests].count("/token") == 1


def test_credentials_that_are_missing_refused_or_unreachable_are_told_apart(account, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/account.json")
    with pytest.raises(ConfigError, match="gcloud auth application-default login"):
        GoogleTokens().refresh()
    refusal = json_answer({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
    with Server(lambda _request: refusal) as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with pytest.raises(AuthError, match="Invalid JWT Signature"):
            GoogleTokens().refresh()
    with pytest.raises(UnreachableError, match="token service"):
        GoogleTokens().refresh()


def test_a_token_is_not_fetched_offline(account, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account("https://oauth2.example"))
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"refuses oauth2\.example"):
        GoogleTokens().refresh()


def test_models_are_listed_page_by_page_in_the_name_of_the_project(account, monkeypatch):
    service = VertexService(tokens=["ya29.one"], models=["a", "b", "c", "d", "e"])
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server) as client:
            assert [model.id for model in client.list_models("vertex")] == ["a", "b", "c", "d", "e"]
    assert server.requests[-1].path == "/v1beta1/publishers/google/models?pageSize=100&pageToken=4"
    assert server.requests[-1].headers["x-goog-user-project"] == "demo-proj"


def test_the_listing_of_the_sheet_is_read():
    exchange = ALL["vertex-models"]
    with Server(lambda _request: exchange_answer(exchange)) as server:
        assert [model.id for model in run(Vertex(base_url=server.url).list_models())] == exchange["expect"]["models"]
    assert server.requests[0].path == exchange["request"]["path"]


# --- requests --------------------------------------------------------------------------------------------------------------------


def test_a_request_is_the_one_of_the_sheet():
    expected = ALL["vertex-stream"]["request"]["json"]
    messages = (
        Message(role="system", content="Answer as a terse geologist."),
        Message(role="user", content=expected["contents"][0]["parts"][0]["text"]),
    )
    extra = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}}, "labels": {"run": "r-0042"}}
    assert body(messages, max_tokens=512, seed=7, extra=extra) == expected


def test_a_schema_and_a_picture_are_sent_as_in_the_sheet():
    exchange = ALL["vertex-json-and-image-in"]
    messages = (Message(role="user", content=(TextPart(text="Which colour? Answer as JSON."), ImagePart(data=PNG))),)
    schema = exchange["request"]["json"]["generationConfig"]["responseJsonSchema"]
    with (
        Server(lambda _request: exchange_answer(exchange)) as server,
        Client(base_urls={"vertex": server.url}, api_keys={"vertex": "AQ.demo"}, cache=False, journal=False) as client,
    ):
        completion = client.generate_text("vertex/gemini-3.8-flash", messages, schema=schema, max_tokens=200)
    assert completion.parsed == {"colour": "blue"}
    assert (server.requests[0].json, server.requests[0].path) == (exchange["request"]["json"], exchange["request"]["path"])
    assert server.requests[0].headers["x-goog-api-key"] == "AQ.demo"


def test_a_tool_call_goes_there_and_back_with_its_signature_as_in_the_sheet():
    first, second = ALL["vertex-tool-round-trip"]["steps"]
    provider, question = Vertex(api_key=KEY), Message(role="user", content="How hard is fluorite? Use the tool.")
    response = httpx.Response(200, json=first["response"]["json"])
    reply = provider.read_chat(response, ChatRequest(model="m", messages=()))
    expected = ALL["vertex-tool-round-trip"]["expect"]["first_step"]
    assert reply.finish_reason == expected["finish_reason"]
    assert [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in reply.tool_calls] == expected["tool_calls"]
    kept = decode(encode(Kept(reply=reply, at=0.0, latency_s=1.0))).reply  # from a cache, too
    messages = (
        question,
        Message(role="assistant", tool_calls=kept.tool_calls),
        Message(role="tool", content='{"output": {"mohs": 4}}', tool_call_id="fc-71"),
    )
    assert body(messages, extra={"tools": second["request"]["json"]["tools"]}) == second["request"]["json"]


def test_results_of_calls_side_by_side_share_a_turn_and_need_a_name():
    calls = tuple(ToolCall(id=id_, name=f"f{id_}", arguments="{}") for id_ in "ab")
    results = tuple(Message(role="tool", content="done", tool_call_id=id_) for id_ in "ab")
    contents = body((Message(role="user", content="x"), Message(role="assistant", tool_calls=calls), *results))["contents"]
    assert [part["functionResponse"] for part in contents[2]["parts"]] == [
        {"id": id_, "name": f"f{id_}", "response": {"output": "done"}} for id_ in "ab"
    ]
    with pytest.raises(ConfigError, match="name="):
        body((Message(role="tool", content="done", tool_call_id="z"),))
    with pytest.raises(ConfigError, match="not JSON"):
        body((Message(role="assistant", tool_calls=(ToolCall(id="", name="f", arguments="{"),)),))


def test_pictures_by_address_are_googles_own():
    image = ImagePart(url="gs://bucket/a.jpg", mime="image/jpeg")
    sent = body((Message(role="user", content=(image,)),))["contents"][0]["parts"]
    assert sent == [{"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://bucket/a.jpg"}}]
    with pytest.raises(ConfigError, match="data="):
        body((Message(role="user", content=(ImagePart(url="https://example.org/a.png"),)),))


@pytest.mark.parametrize("extra", [{"contents": []}, {"continuationToken": "x"}, {"generation_config": {}}])
def test_extra_cannot_say_twice_what_is_said(extra):
    with pytest.raises(ConfigError, match="extra="):
        body(extra=extra)


# --- answers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(FINISH_REASONS))
def test_finish_reasons_are_read_and_the_services_word_is_kept(reason):
    _, reply = reply_of(chunk([{"text": "a"}], reason))
    assert reply.finish_reason == FINISH_REASONS[reason]
    assert reply.reported.get("finish", reason) == reason
    assert reply.keepable == (reply.finish_reason in ("stop", "length"))


def test_an_unknown_reason_is_unknown_and_none_at_all_is_a_cut():
    assert reply_of(chunk([{"text": "a"}], "NOVEL"))[1].finish_reason == "unknown"
    with pytest.raises(StreamInterrupted):
        reply_of(chunk([{"text": "a"}]))


def test_thinking_that_used_up_the_budget_is_an_empty_answer_and_not_an_error():
    _, reply = reply_of(
        chunk([], "MAX_TOKENS") | {"usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 99, "totalTokenCount": 104}}
    )
    assert (reply.text, reply.finish_reason, reply.usage.output_tokens, reply.keepable) == ("", "length", 99, False)


def test_the_last_usage_counts_and_tool_prompts_are_input():
    running = chunk([{"text": "a"}]) | {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 6}}
    last = {
        "promptTokenCount": 5,
        "toolUsePromptTokenCount": 3,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 7,
    }
    _, reply = reply_of(running, chunk([], "STOP") | {"usageMetadata": last})
    assert reply.usage == Usage(input_tokens=8, output_tokens=9, reasoning_tokens=7, cached_input_tokens=4)


def test_log_probabilities_are_read():
    result = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.1}],
        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.1}, {"token": "b", "logProbability": -2}]}],
    }
    data = chunk([{"text": "a"}], "STOP")
    data["candidates"][0]["logprobsResult"] = result
    assert reply_of(data)[1].logprobs == (TokenLogprob("a", -0.1, (("a", -0.1), ("b", -2.0))),)


@pytest.mark.parametrize(
    "writes",
    [
        [b": keepalive\n\n", b"event: message\n", sse(chunk([{"text": "a"}], "STOP")), b"data: [DONE]\n\n"],
        [sse(chunk([{"text": "a"}], "STOP")).replace(b"data: ", b"data:")],
        [sse(chunk([{"text": "a"}], "STOP")).rstrip()],
        [b"[" + json.dumps(chunk([{"text": "a"}], "STOP"), indent=2).encode() + b"\n]\n"],
    ],
)
def test_what_breaks_googles_own_client_is_read(writes):
    assert reply_of(*writes)[1].text == "a"


@pytest.mark.parametrize(
    "error",
    [
        b'data: [{"error":{"code":503,"message":"It broke"}}]\n\n',
        b'event: error\ndata: {"error":{"code":503,"message":"It broke"}}\n\n',
        b'{"error":{"code":503,"message":"It broke"}}',
        b'[{"error":{"code":503,"message":"It broke"}}]\n',
    ],
)
def test_every_shape_of_an_error_in_a_stream_is_an_error(error):
    with pytest.raises(ServerError, match="It broke") as caught:
        reply_of(chunk([{"text": "so far"}]), error)
    assert (caught.value.partial, caught.value.status) == ("so far", 503)


def test_bare_lines_that_are_no_json_do_not_fill_the_memory():
    decoder = GeminiDecoder()
    for _ in range(40):
        decoder.feed(b"{" + b"x" * 2**20 + b"\n")
    assert decoder._bare_bytes <= 17 * 2**20


def test_arguments_in_pieces_are_an_error_and_not_a_gap():
    with pytest.raises(ReplyError, match="streamFunctionCallArguments"):
        reply_of(chunk([{"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a", "stringValue": "b"}]}}]))


def test_an_error_in_a_list_and_a_page_are_read(account):
    listed = json_answer([{"error": {"code": 400, "message": "It broke", "status": "INVALID_ARGUMENT"}}], 400)
    with Server(lambda _request: listed) as server, pytest.raises(Exception, match="It broke"):
        run(Vertex(base_url=server.url).answer(request := ChatRequest(model="m", messages=()), Vertex(base_url=server.url).wire(request)))
    with Server(lambda _request: page_answer("Error 404 (Not Found)", 404)) as server, pytest.raises(NotFoundError, match="list_models"):
        run(Vertex(base_url=server.url).answer(request, Vertex(base_url=server.url).wire(request)))


# --- long answers ------------------------------------------------------------------------------------------------------------------


def hops(*answers):
    """Answers one after the other; what was sent."""
    waiting = list(answers)
    return Server(lambda _request: waiting.pop(0))


def continuing(text, token):
    data = chunk([{"text": text}], "CONTINUATION") | {"usageMetadata": USAGE}
    data["candidates"][0]["continuationToken"] = token
    return data


LAST = chunk([{"text": "end."}], "STOP") | {"usageMetadata": USAGE}


def test_a_whole_answer_goes_on_where_it_stopped():
    with (
        hops(json_answer(continuing("Half, ", "t1")), json_answer(continuing("", "t2")), json_answer(LAST)) as server,
        client_of(server, "") as client,
    ):
        completion = client.generate_text("vertex/m", "hi")
    assert (completion.text, completion.finish_reason, completion.reported["requests"]) == ("Half, end.", "stop", 3)
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (33, 9)
    assert [request.json.get("continuationToken") for request in server.requests] == [None, "t1", "t2"]
    assert len({json.dumps({**request.json, "continuationToken": ""}, sort_keys=True) for request in server.requests}) == 1


def test_a_streamed_answer_goes_on_even_where_a_blank_line_is_missing():
    first = Answer(200, {}, [sse(continuing("Half, ", "t1")).rstrip()])
    with hops(first, Answer(200, {}, [sse(LAST)])) as server, client_of(server, "") as client:
        *pieces, end = client.stream_text("vertex/m", "hi")
    assert [piece.text for piece in pieces] == ["Half, ", "end."]
    assert end.completion.text == "Half, end."


def test_an_answer_that_never_ends_is_left_at_some_point():
    with Server(lambda _request: json_answer(continuing("x", "t"))) as server, client_of(server, "") as client:
        completion = client.generate_text("vertex/m", "hi")
    assert (len(completion.text), len(server.requests), completion.finish_reason) == (64, 64, "length")


def test_a_plain_request_for_more_than_it_may_ask_is_sent_as_a_stream():
    with VertexService().serve() as server, client_of(server, "") as client:
        completion = client.generate_text("vertex/gemini-demo", "hi", max_tokens=40_000)
    assert (completion.text, "stream" in server.requests[0].path) == ("Blue gentiané😀", True)
    fault = lambda _request, good: dataclasses.replace(good, writes=[sse(chunk([{"text": "so"}])), sse({"error": {"code": 503}})])  # noqa: E731
    with VertexService(fault=fault).serve() as server, client_of(server, "") as client, pytest.raises(ServerError):
        client.generate_text("vertex/gemini-demo", "hi", max_tokens=40_000)


# --- pictures ----------------------------------------------------------------------------------------------------------------------


def make(server, **wish):
    provider = Vertex(base_url=server.url)
    request = ImageRequest(**{"model": "gemini-3.1-flash-image", "prompt": "A teal teapot on white, studio light", **wish})
    return run(provider.make_images(request, provider.image_wire(request)))


def test_a_picture_is_made_as_in_the_sheet():
    exchange = ALL["vertex-image-out"]
    config = exchange["request"]["json"]["generationConfig"]
    with Server(lambda _request: exchange_answer(exchange)) as server:
        reply = make(server, size=(1024, 1024), extra={"generationConfig": {"candidateCount": 1, "imageConfig": config["imageConfig"]}})
    assert (reply.text, reply.usage.output_tokens) == ("Here is the teapot.", 1296)
    assert [(image.mime, len(image.data)) for image in reply.images] == [("image/png", 73)]
    sent = server.requests[0].json
    assert sent["generationConfig"] == {name: value for name, value in config.items() if name != "candidateCount"}
    assert sent["contents"] == exchange["request"]["json"]["contents"]


def test_a_client_makes_pictures_once_and_keeps_them():
    with Server(lambda _request: exchange_answer(ALL["vertex-image-out"])) as server:
        with client_of(server, "", api_keys={"vertex": KEY}, cache=ResponseCache()) as client:
            model = "vertex/gemini-3.1-flash-image"
            first, again = (client.generate_image(model, "A teal teapot", size="1024x1024", seed=7) for _ in range(2))
    assert first.images == again.images == (Image(data=PNG, mime="image/png"),)
    assert (first.text, first.usage.output_tokens, first.request_id) == ("Here is the teapot.", 1296, "rB2")
    assert (first.provenance, again.provenance, again.cache_tier) == ("live", "replayed", "memory")
    (asked,) = server.requests
    assert asked.headers["x-goog-api-key"] == KEY
    assert asked.json["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "1:1"}, "seed": 7}


def test_pictures_are_paid_at_their_own_rate():
    exchange = ALL["vertex-image-out"]
    named = {**exchange["response"]["json"], "modelVersion": "gemini-3.1-flash-image"}
    with Server(lambda _request: json_answer(named)) as server:
        with client_of(server, "", api_keys={"vertex": KEY}, cache=ResponseCache()) as client:
            one, two = (client.generate_image("vertex/gemini-3.1-flash-image", "A teal teapot", n=n) for n in (1, 2))
    assert one.cost_usd == pytest.approx((9 * 0.5 + 6 * 3.0 + 1290 * 60.0) / 1e6)
    assert two.cost_usd == pytest.approx(2 * one.cost_usd)
    uncounted = {**named, "usageMetadata": {**named["usageMetadata"], "candidatesTokensDetails": []}}
    with Server(lambda _request: json_answer(uncounted)) as server:
        with client_of(server, "", api_keys={"vertex": KEY}, cache=ResponseCache()) as client:
            assert client.generate_image("vertex/gemini-3.1-flash-image", "A teal teapot").cost_usd is None


def test_several_pictures_are_several_requests_with_seeds_that_count_up():
    with Server(lambda _request: exchange_answer(ALL["vertex-image-out"])) as server:
        reply = make(server, n=3, seed=7, size=(2048, 1152))
    assert (len(reply.images), reply.usage.output_tokens) == (3, 3 * 1296)
    configs = [request.json["generationConfig"] for request in server.requests]
    assert [config["seed"] for config in configs] == [7, 8, 9]
    assert configs[0]["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "2K"}


def test_how_many_pictures_are_wanted_is_part_of_the_question():
    provider, wish = Vertex(api_key=KEY), {"model": "m", "prompt": "p"}
    assert provider.image_wire(ImageRequest(**wish, n=2)) != provider.image_wire(ImageRequest(**wish))


def test_a_size_that_no_model_makes_is_refused():
    with pytest.raises(ConfigError, match="16:9"):
        Vertex(api_key=KEY).image_wire(ImageRequest(model="m", prompt="p", size=(1000, 999)))


@pytest.mark.parametrize(("reason", "kind"), [("IMAGE_SAFETY", ContentFilterError), ("NO_IMAGE", ReplyError), ("STOP", ReplyError)])
def test_no_picture_is_an_error_with_the_reason(reason, kind):
    with Server(lambda _request: json_answer(chunk([{"text": "I would rather not."}], reason))) as server:
        with pytest.raises(kind, match="rather not"):
            make(server)


def test_a_picture_that_is_not_base64_is_an_error():
    with (
        Server(lambda _request: json_answer(chunk([{"inlineData": {"data": "?"}}], "STOP"))) as server,
        pytest.raises(ReplyError, match="base64"),
    ):
        make(server)


# --- secrets -------------------------------------------------------------------------------------------------------------------------


def test_a_token_that_the_service_repeats_is_not_shown(account, monkeypatch):
    service = VertexService(tokens=["ya29.one"], fault=lambda *_: failure(400, "INVALID_ARGUMENT", "no use for ya29.one"))
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server) as client, pytest.raises(Exception, match=r"no use for \[key\]"):
            client.generate_text("vertex/gemini-demo", "hi")


def test_a_token_that_the_service_repeats_in_a_header_is_not_logged(account, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")
    echo = {"x-debug-trace-id": "ya29.one"}
    service = VertexService(tokens=["ya29.one"], fault=lambda _request, good: dataclasses.replace(good, headers={**good.headers, **echo}))
    with service.serve() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account(server.url))
        with client_of(server, transport="httpx") as client:
            client.generate_text("vertex/gemini-demo", "hi")
    assert "x-debug-trace-id', b'[key]" in caplog.text
    assert "ya29.one" not in caplog.text


def test_a_function_may_give_the_key():
    with VertexService(key=KEY).serve() as server, client_of(server, "", api_keys={"vertex": lambda: KEY}) as client:
        assert client.generate_text("vertex/gemini-demo", "hi").text == "Blue gentiané😀"
