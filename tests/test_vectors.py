"""The example exchanges of the protocol sheets: replayed whole, cut at every size, and over real HTTP by both clients."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from servers.http import Cut, Server, exchange_answer, exchange_writes, json_answer
from servers.vertex import VertexService, write_service_account
from toolkit import AsyncClient, Client
from toolkit.errors import ContentFilterError, ProviderError, StreamInterrupted
from toolkit.providers.azure import Azure
from toolkit.providers.cohere import Cohere
from toolkit.providers.huggingface import HuggingFace
from toolkit.providers.lmstudio import LMStudio
from toolkit.providers.ollama import Ollama
from toolkit.providers.openai_compatible import OpenAICompatible
from toolkit.providers.openrouter import OpenRouter
from toolkit.providers.replicate import Replicate
from toolkit.providers.vertex import Vertex
from toolkit.types import ChatRequest, ImagePart, ImageRequest, Message, PullProgress, TextPart, ToolCall, Usage
from toolkit.wire.retry import NO_RETRY
from toolkit.wire.steps import Emit, Send

FOLDER = Path(__file__).parent / "vectors"
ALL = {exchange["name"]: exchange for path in sorted(FOLDER.glob("*.json")) for exchange in json.loads(path.read_text("utf-8"))}
STEPS = sorted(name for name, exchange in ALL.items() if "steps" in exchange or name.startswith("replicate"))
SINGLE = {name: exchange for name, exchange in ALL.items() if name not in STEPS}
PULLS = {name for name, exchange in SINGLE.items() if exchange["request"]["path"] == "/api/pull"}
LISTS = {name for name, exchange in SINGLE.items() if "models" in exchange["expect"] and not name.startswith("vertex")}
PICTURES = {name for name, exchange in SINGLE.items() if exchange["request"]["path"].endswith("/images/generations")}
CHAT_PATHS = ("/chat/completions", "/api/v1/chat", "/api/chat", "/api/generate", "/v2/chat", ":generateContent", ":streamGenerateContent")
CHATS = sorted(name for name, exchange in SINGLE.items() if exchange["request"]["path"].partition("?")[0].endswith(CHAT_PATHS))
SPEAKERS = {"lms": LMStudio, "or": OpenRouter, "hf": HuggingFace}  # by the first word of a name; the others speak the bare dialect
STREAMS = [name for name in CHATS if "frames" in ALL[name]["response"]]


@pytest.fixture(scope="session")
def service_account(tmp_path_factory):
    with VertexService(tokens=["ya29.demo"] * 1000).serve() as server:
        yield write_service_account(tmp_path_factory.mktemp("google") / "account.json", f"{server.url}/token")


@pytest.fixture(autouse=True)
def signed_in(service_account, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.001")


def provider_of(exchange, origin="http://127.0.0.1:9"):
    kind, path = kind_and_path(exchange)
    return kind(base_url=origin if kind is Vertex else origin + path)  # without a project, nobody has to sign in


def kind_and_path(exchange):
    """The provider that speaks an exchange, and the path of its base URL."""
    name, path = exchange["name"], exchange["request"]["path"]
    if name.startswith("azure"):
        return Azure, path  # it reads whole addresses
    if name.startswith("cohere"):
        return Cohere, ""
    if name.startswith("vertex"):
        return Vertex, path.partition("/publishers/")[0]  # where a project is named in the address
    if name.startswith("replicate"):
        return Replicate, "/v1"
    if path == "/api/v1/chat":
        return LMStudio, "/api/v1"
    if path.endswith("/chat/completions"):
        return SPEAKERS.get(name.partition("-")[0], OpenAICompatible), path.removesuffix("/chat/completions")
    return Ollama, ""


def model_of(exchange):
    name, path, body = exchange["name"], exchange["request"]["path"], exchange["request"]["json"]
    if name.startswith("vertex"):
        return path.partition("/models/")[2].partition(":")[0]
    if name.startswith("replicate"):
        return body.get("version") or path.removeprefix("/v1/models/").removesuffix("/predictions")
    deployment = re.search("/deployments/([^/]+)/", path)
    return deployment[1] if deployment else body["model"]


def request_of(exchange):
    return ChatRequest(model=model_of(exchange), messages=(Message(role="user", content="hi"),))


def body_of(exchange):
    return b"".join(write for write in exchange_writes(exchange) if not isinstance(write, Cut))


def check(expected, end, streamed_text=None):
    """Compare how a call ended, a reply or an error, with what the sheet says a correct client must conclude."""
    if expected["outcome"] == "complete":
        assert not isinstance(end, ProviderError), end
        check_reply(expected, end)
        text = end.text
    else:
        assert isinstance(end, ProviderError)
        check_error(expected, end)
        text = end.partial
    if streamed_text is not None and "text" in expected:
        assert streamed_text == text


def check_reply(expected, reply):
    assert reply.text == expected["text"]
    assert reply.reasoning == expected.get("reasoning", "")
    assert reply.finish_reason == (expected["finish_reason"] or "unknown")
    check_usage(expected, reply)
    calls = [ToolCall(**call) for call in expected.get("tool_calls", [])]
    assert list(reply.tool_calls) == calls
    for name, ours in {
        "tokens_per_second": "tokens_per_second",
        "load_s": "load_s",
        "predict_time_s": "predict_s",
        "hops": "requests",
    }.items():
        if name in expected:
            assert reply.reported[ours] == pytest.approx(expected[name])
    for citation, found in zip(expected.get("citations", []), json.loads(reply.reported.get("citations", "[]")), strict=True):
        assert citation.items() <= found.items()
    if "detail" in expected:
        told = reply.reported
        assert told["content_filter"] == expected["detail"] if "content_filter" in told else expected["detail"] in told["finish"]
    if "deployment" in expected:
        assert reply.served_model == expected["model"]


def check_usage(expected, reply):
    names = {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens}
    names |= {"prompt_tokens": reply.usage.input_tokens, "completion_tokens": reply.usage.output_tokens}
    names |= {"reasoning_tokens": reply.usage.reasoning_tokens, "cost": reply.cost_usd}
    names |= {name: reply.reported.get(name) for name in ("raw_input_tokens", "raw_output_tokens")}
    told = expected.get("usage", {})
    assert told == {name: names[name] for name in told}


def check_error(expected, error):
    assert isinstance(error, StreamInterrupted) == (expected["outcome"] == "truncated")
    assert expected.get("error", "") in str(error)
    assert expected.get("detail", "") in str(error)
    assert error.partial == expected.get("text", "")
    assert error.status == expected.get("status", error.status)
    assert error.retryable == expected.get("retryable", error.retryable)
    assert error.retry_after == expected.get("retry_after_s")
    for word in [*expected.get("hint", "").split(), expected.get("detail", "")]:
        assert word in str(error)
    assert isinstance(error, ContentFilterError) == (expected.get("finish_reason") == "content_filter")


def read_stream(exchange, chunks):
    reader = provider_of(exchange).reader(request_of(exchange))
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    try:
        end = reader.close()
    except ProviderError as error:
        end = error
    return "".join(event.text for event in [*events, *reader.tail] if event.kind == "text"), end


def answered(steps, response):
    """Carry out steps of one exchange with a given response."""
    assert isinstance(next(steps), Send)
    try:
        steps.send(response)
    except StopIteration as done:
        return done.value
    except ProviderError as error:
        return error
    raise AssertionError("one exchange was not enough")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_read_as_the_sheet_says_in_its_own_writes(name):
    exchange = ALL[name]
    text, end = read_stream(exchange, [write for write in exchange_writes(exchange) if isinstance(write, bytes)])
    check(exchange["expect"], end, text)


@pytest.mark.parametrize("name", STREAMS)
def test_where_the_network_cuts_does_not_matter(name):
    exchange, body = ALL[name], body_of(ALL[name])
    for size in range(1, len(body) + 1):
        text, end = read_stream(exchange, [body[at : at + size] for at in range(0, len(body), size)])
        check(exchange["expect"], end, text)


@pytest.mark.parametrize("name", sorted(set(CHATS) - set(STREAMS)))
def test_a_whole_answer_is_read_as_the_sheet_says(name):
    exchange = ALL[name]
    provider, request = provider_of(exchange), request_of(exchange)
    response = httpx.Response(exchange["response"]["status"], headers=exchange["response"]["headers"], content=body_of(exchange))
    check(exchange["expect"], answered(provider.answer(request, provider.wire(request)), response))


@pytest.mark.parametrize("name", [name for name in sorted(set(CHATS) - set(STREAMS)) if ALL[name]["response"]["status"] == 200])
def test_a_whole_answer_that_comes_where_a_stream_was_asked_for_is_read_all_the_same(name):
    exchange, body = ALL[name], body_of(ALL[name])
    for size in (1, 7, len(body)):
        text, end = read_stream(exchange, [body[at : at + size] for at in range(0, len(body), size)])
        check(exchange["expect"], end, text)


# --- over real HTTP ----------------------------------------------------------------------------------------------------------


def facts(exchange, server):
    kind, path = kind_and_path(exchange)
    options = {"base_urls": {kind.name: server.url + path}, "cache": False, "journal": False, "retry": NO_RETRY}
    return options, f"{kind.name}/{model_of(exchange)}"


def ask_in_a_thread(options, model, stream):
    with Client(**options) as client:
        if not stream:
            return None, caught(lambda: client.generate_text(model, "hi"))
        events = []
        end = caught(lambda: events.extend(client.stream_text(model, "hi")))
        return events, end or events[-1].completion


def caught(ask):
    try:
        return ask()
    except ProviderError as error:
        return error


def ask_on_a_loop(options, model, stream):
    async def main():
        async with AsyncClient(**options) as client:
            if not stream:
                return None, await client.generate_text(model, "hi")
            events = []
            try:
                async for event in client.stream_text(model, "hi"):
                    events.append(event)
            except ProviderError as error:
                return events, error
            return events, events[-1].completion

    async def guarded():
        try:
            return await main()
        except ProviderError as error:
            return None, error

    return asyncio.run(guarded())


@pytest.mark.parametrize("ask", [ask_in_a_thread, ask_on_a_loop])
@pytest.mark.parametrize("name", CHATS)
def test_an_exchange_over_real_http_ends_as_the_sheet_says(name, ask):
    exchange = ALL[name]
    stream = exchange["request"]["json"].get("stream", "frames" in exchange["response"])
    with Server(lambda _request: exchange_answer(exchange)) as server:
        options, model = facts(exchange, server)
        events, end = ask(options, model, stream)
    text = "".join(event.text for event in events if event.kind == "text") if events else None
    check(exchange["expect"], end, text)
    assert server.requests[0].path == exchange["request"]["path"].replace("/api/generate", "/api/chat")


@pytest.fixture
def elsewhere():
    """The hosts that a service sends us to."""
    waiting = []
    with Server(lambda _request: exchange_answer(waiting.pop(0))) as server:
        server.waiting = waiting
        yield server


def serve_steps(name, elsewhere):
    """Serve the exchanges of a row, in their order, and what belongs to none of them: a model's description, a cancellation."""
    text = json.dumps(ALL[name])
    for host in ("https://stream.replicate.com", "https://replicate.delivery"):
        text = text.replace(host, elsewhere.url)
    exchange = json.loads(text)
    steps = exchange.get("steps", [exchange])
    elsewhere.waiting += [step for step in steps if step["request"]["path"].startswith(elsewhere.url)]
    here = [step for step in steps if step not in elsewhere.waiting]
    description = json_answer({"is_official": True, "latest_version": {"id": "x", "openapi_schema": {}}})

    def serve(request):
        if request.path.endswith("/cancel"):
            return json_answer({})
        is_model = request.method == "GET" and "/models/" in request.path
        return description if is_model else exchange_answer(here.pop(0))

    return {"name": name, **steps[0]}, steps, exchange["expect"], Server(serve)


@pytest.mark.parametrize("ask", [ask_in_a_thread, ask_on_a_loop])
@pytest.mark.parametrize(
    "name", [name for name in STEPS if name not in {"replicate-model", "replicate-image-out", "vertex-tool-round-trip"}]
)
def test_a_row_of_exchanges_ends_as_the_sheet_says(name, ask, elsewhere):
    first, steps, expected, server = serve_steps(name, elsewhere)
    with server:
        options, model = facts(first, server)
        events, end = ask(options | {"api_keys": {"replicate": "r8_demo"}}, model, any("frames" in step["response"] for step in steps))
    text = "".join(event.text for event in events if event.kind == "text") if events else None
    check(expected, end, text)
    asked = [
        f"{request.method} {request.path}" for request in server.requests if (request.method, "/models/") != ("GET", request.path[3:11])
    ]
    assert asked == [
        f"{step['request']['method']} {step['request']['path']}" for step in steps if not step["request"]["path"].startswith("http")
    ]
    assert len(elsewhere.requests) == len(steps) - len(asked)
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    tokens = [request.json.get("continuationToken") for request in server.requests if request.path.endswith("alt=sse")]
    assert tokens == [step["request"]["json"].get("continuationToken") for step in steps if step["request"]["path"].endswith("alt=sse")]


@pytest.mark.parametrize("name", sorted(LISTS))
def test_the_models_are_those_of_the_sheet(name):
    exchange = ALL[name]
    key = next(value.removeprefix("Bearer ") for value in exchange["request"]["headers"].values())
    with Server(lambda _request: exchange_answer(exchange)) as server:
        kind, path = kind_and_path(exchange)
        options = {"base_urls": {kind.name: server.url + path}, "api_keys": {kind.name: key}, "cache": False, "journal": False}
        with Client(**options) as client:
            assert [model.id for model in client.list_models(kind.name)] == exchange["expect"]["models"]
    (asked,) = server.requests
    assert asked.path == exchange["request"]["path"]
    assert {name: asked.headers[name.lower()] for name in exchange["request"]["headers"]} == exchange["request"]["headers"]


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_pictures_are_those_of_the_sheet(name):
    exchange = ALL[name]
    provider, asked = provider_of(exchange), exchange["request"]["json"]
    width, height = map(int, asked["size"].split("x"))
    extra = {name: value for name, value in asked.items() if name not in ("model", "prompt", "n", "size")}
    request = ImageRequest(model=asked["model"], prompt=asked["prompt"], n=asked["n"], size=(width, height), extra=extra)
    wire = provider.image_wire(request)
    assert (wire.url, wire.body) == (f"http://127.0.0.1:9{exchange['request']['path']}", asked)
    reply = answered(provider.make_images(request, wire), httpx.Response(exchange["response"]["status"], content=body_of(exchange)))
    expected = exchange["expect"]
    assert [{"mime_type": image.mime, "bytes": len(image.data)} for image in reply.images] == expected["images"]
    assert {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens} == expected["usage"]


def test_a_download_shows_a_sum_that_never_shrinks_and_never_passes_the_total():
    exchange = ALL["ollama-pull-ok"]
    with Server(lambda _request: exchange_answer(exchange)) as server:
        options, model = facts(exchange, server)
        with Client(**options) as client:
            shown = list(client.pull_model(model))
    assert server.requests[0].json == exchange["request"]["json"]
    assert all(isinstance(step, PullProgress) and step.completed_bytes <= step.total_bytes for step in shown)
    sums = [step.completed_bytes for step in shown]
    assert sums == sorted(sums)
    assert (shown[-1].completed_bytes, shown[-1].total_bytes) == (exchange["expect"]["pulled_bytes"],) * 2
    assert shown[-1].status == exchange["expect"]["last_status"]
    assert [step.done for step in shown] == [False] * (len(shown) - 1) + [True]


def test_a_download_that_fails_raises_although_its_status_was_200():
    exchange = ALL["ollama-pull-error"]
    with Server(lambda _request: exchange_answer(exchange)) as server:
        options, model = facts(exchange, server)
        with Client(**options) as client, pytest.raises(ProviderError, match=exchange["expect"]["error"]):
            list(client.pull_model(model))


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
@pytest.mark.parametrize("name", sorted(PULLS))
def test_where_the_network_cuts_a_download_does_not_matter(name, size):
    exchange, body = ALL[name], body_of(ALL[name])
    chunks = iter([body[at : at + size] for at in range(0, len(body), size)])
    steps = Ollama().pull_model("alpine:4b")
    next(steps)
    step, shown = steps.send(httpx.Response(200)), []
    try:
        while True:
            if isinstance(step, Emit):
                shown += step.events
                step = steps.send(None)
            else:
                step = steps.send(next(chunks, None))
    except StopIteration as done:
        assert done.value == shown[-1]
        assert shown[-1].completed_bytes == exchange["expect"]["pulled_bytes"]
    except ProviderError as error:
        assert exchange["expect"]["error"] in str(error)


# --- pictures and prices -----------------------------------------------------------------------------------------------------

PAINTER = "acme/painter-small:hf-inference"


def ask_for_a_picture(exchange, **fields):
    provider = HuggingFace(base_url="http://127.0.0.1:9/v1", api_key="hf_demo")
    request = ImageRequest(model=PAINTER, prompt="a stone bridge at dawn", **fields)
    steps = provider.make_images(request, provider.image_wire(request))
    sent = next(steps).request
    response = httpx.Response(exchange["response"]["status"], headers=exchange["response"]["headers"], content=body_of(exchange))
    try:
        steps.send(response)
    except StopIteration as done:
        return sent, done.value
    except ProviderError as error:
        return sent, error
    raise AssertionError("one exchange was not enough")


def test_a_picture_is_asked_for_and_read_as_the_sheet_says():
    exchange = ALL["hf-image-ok"]
    extra = {"num_inference_steps": 4, "guidance_scale": 3.5, "negative_prompt": "people"}
    sent, reply = ask_for_a_picture(exchange, size=(512, 512), seed=21, extra=extra)
    assert (sent.method, sent.url.path, sent.headers["accept"]) == ("POST", exchange["request"]["path"], "image/png")
    assert json.loads(sent.content) == exchange["request"]["json"]
    (image,) = reply.images
    assert (len(image.data), image.mime) == (exchange["expect"]["bytes"], f"image/{exchange['expect']['magic']}")


def test_a_model_that_is_loading_says_how_long_as_in_the_sheet():
    exchange = ALL["hf-503-loading"]
    sent, error = ask_for_a_picture(exchange)
    assert json.loads(sent.content) == exchange["request"]["json"]
    check(exchange["expect"], error)


@pytest.mark.parametrize(("name", "kind"), [("or-models", OpenRouter), ("hf-models", HuggingFace)])
def test_listed_prices_are_those_of_the_sheet(name, kind):
    exchange, provider = ALL[name], kind(base_url="http://127.0.0.1:9")
    noon = 1790000000 - 1790000000 % 86400 + 12 * 3600
    answered(provider.list_models(), httpx.Response(200, json=exchange["response"]["json"]))
    for model, expected in exchange["expect"]["prices_per_million"].items():
        price = provider.listed_price(model, Usage(input_tokens=100, output_tokens=1), noon)
        assert (price and {"input": str(price.input), "output": str(price.output)}) == expected


# --- what we send ------------------------------------------------------------------------------------------------------------


def test_a_streamed_request_is_the_one_of_the_sheet():
    request = ChatRequest(model="demo-small", messages=(Message(role="user", content="Name one alpine flower, in French."),), seed=7)
    provider = OpenAICompatible(base_url="http://127.0.0.1:9", api_key="sk-demo")
    built = provider.build(provider.wire(request), stream=True)
    assert json.loads(built.content) == ALL["sse-full-stream"]["request"]["json"]
    assert built.headers["authorization"] == "Bearer sk-demo"
    assert built.headers["accept-encoding"] == "identity"
    assert "text/event-stream" in built.headers["accept"]


def test_a_streamed_request_to_openrouter_is_the_one_of_the_sheet(monkeypatch):
    monkeypatch.setenv("NEXT_PUBLIC_APP_URL", "https://lab.example")
    monkeypatch.setenv("OPENROUTER_APP_TITLE", "Model lab")
    expected = ALL["or-stream-ok"]["request"]
    picture = ImagePart(data=b"\x89PNG\r\n\x1a\n")
    request = ChatRequest(
        model="acme/alpine-9b",
        messages=(Message(role="user", content=(TextPart(text="What is in the picture?"), picture)),),
        max_tokens=64,
        seed=11,
        extra={"provider": {"only": ["acme-cloud"], "allow_fallbacks": False, "require_parameters": True}},
    )
    provider = OpenRouter(base_url="http://127.0.0.1:9", api_key="sk-or-v1-demo")
    built = provider.build(provider.wire(request), stream=True)
    assert json.loads(built.content) == expected["json"]
    assert {name: built.headers[name] for name in expected["headers"]} == expected["headers"]


def test_a_streamed_request_to_hugging_face_is_the_one_of_the_sheet(monkeypatch):
    monkeypatch.setenv("HF_BILL_TO", "lab")
    expected = ALL["hf-chat-stream"]["request"]
    request = ChatRequest(
        model="acme/alpine-9b:groq",
        messages=(Message(role="user", content="Say ciao"),),
        max_tokens=16,
        seed=4,
        extra={"logprobs": True, "top_logprobs": 1},
    )
    provider = HuggingFace(base_url="http://127.0.0.1:9/v1", api_key="hf_demo")
    built = provider.build(provider.wire(request), stream=True)
    assert json.loads(built.content) == expected["json"]
    assert next(iter(json.loads(built.content))) == "model"  # the router reads it from the beginning of the body
    assert {name: built.headers[name] for name in expected["headers"]} == expected["headers"]


def test_tools_travel_in_extra():
    expected = ALL["sse-tool-calls"]["request"]["json"]
    request = ChatRequest(
        model="demo-small",
        messages=(Message(role="user", content="Weather in Oslo and Turin?"),),
        extra={"tools": expected["tools"], "tool_choice": "auto"},
    )
    assert OpenAICompatible().wire(request).body == {name: value for name, value in expected.items() if name != "stream"}


def test_an_ollama_request_is_the_one_of_the_sheet():
    request = ChatRequest(
        model="alpine:4b",
        messages=(Message(role="user", content="Reply with two lines."),),
        seed=3,
        temperature=0,
        max_tokens=64,
        extra={"think": True, "keep_alive": "10m", "options": {"num_ctx": 8192}},
    )
    provider = Ollama()
    assert json.loads(provider.build(provider.wire(request), stream=True).content) == ALL["ollama-chat-stream"]["request"]["json"]


def test_an_ollama_conversation_with_a_tool_is_the_one_of_the_sheet():
    expected = ALL["ollama-tool-call"]["request"]["json"]
    call = ToolCall(id="call_x1", name="weather", arguments='{"city": "Oslo"}')
    messages = (
        Message(role="user", content="Weather in Oslo?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="4 degrees, rain", tool_call_id="call_x1", name="weather"),
    )
    request = ChatRequest(model="alpine:4b", messages=messages, extra={"tools": expected["tools"]})
    assert Ollama().wire(request).body == expected
