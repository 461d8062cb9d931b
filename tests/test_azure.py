"""What is peculiar about Azure: two surfaces, deployments, Entra ID tokens, and a filter that has its say in everything."""

import asyncio
import itertools
import json
import logging

import httpx
import pytest

from servers.azure import SAFE, AzureService
from servers.chat_completions import USAGE, chunk
from servers.http import Answer, Server, json_answer, sse
from toolkit import AsyncClient, Client
from toolkit.errors import AuthError, ConfigError, ContentFilterError, NotFoundError, RateLimitError, ReplyError, ServerError
from toolkit.pricing import Price
from toolkit.providers.azure import Azure
from toolkit.types import ChatRequest, ImagePart, ImageRequest, Message, TextPart
from toolkit.wire.retry import NO_RETRY, Retry

V1, OLD, GA = "/openai/v1", "/openai?api-version=2024-06-01", "/openai?api-version=2024-10-21"
MODEL = "azure/demo-small"
HI = (Message(role="user", content="hi"),)
TOKEN = "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJhaSJ9.c2lnbmF0dXJl"


def asking(server, path=V1, *, key="az-1234567890", **options):
    options = {"cache": False, "journal": False, "retry": NO_RETRY, **options}
    return Client(base_urls={"azure": server.url + path}, api_keys={"azure": key} if key else None, **options)


def wire(address="https://r.openai.azure.com", **fields):
    return Azure(base_url=address).wire(ChatRequest(model="prod", **{"messages": HI, **fields}))


def streamed(*chunks):
    reader = Azure(base_url="https://r.openai.azure.com").reader(ChatRequest(model="prod", messages=HI))
    for each in chunks:
        reader.feed(sse(each))
    reader.feed(b"data: [DONE]\n\n")
    return reader.close()


# --- addresses -------------------------------------------------------------------------------------------------------------------

DATED = "https://r.openai.azure.com/openai/deployments/prod/chat/completions?api-version="
NEW = "https://r.openai.azure.com/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://r.openai.azure.com", NEW),
        ("https://r.openai.azure.com/", NEW),
        ("r.openai.azure.com", NEW),
        ("https://r.openai.azure.com/openai", NEW),
        ("https://r.openai.azure.com/openai/v1/", NEW),
        ("https://r.openai.azure.com/openai/v1/chat/completions", NEW),
        ("https://r.openai.azure.com?api-version=preview", NEW + "?api-version=preview"),
        ("https://r.openai.azure.com/openai/v1?api-version=2024-10-21", NEW + "?api-version=2024-10-21"),
        ("https://r.openai.azure.com?api-version=2024-10-21", DATED + "2024-10-21"),
        ("https://r.openai.azure.com/openai/?api-version=2025-04-01-preview", DATED + "2025-04-01-preview"),
        ("https://r.openai.azure.com/openai/deployments/x/chat/completions?api-version=2024-10-21", DATED + "2024-10-21"),
        ("https://r.services.ai.azure.com/api/projects/p/openai/v1", "https://r.services.ai.azure.com/api/projects/p/openai/v1/chat/completions"),
        ("https://gate.azure-api.net/llm", "https://gate.azure-api.net/llm/openai/v1/chat/completions"),
        ("http://openai/openai/v1", "http://openai/openai/v1/chat/completions"),
    ],
)  # fmt: skip
def test_every_address_that_the_portal_shows_is_understood(address, url):
    assert wire(address).url == url
    assert wire(Azure.read_address(address)).url == url


@pytest.mark.parametrize(
    ("version", "url"), [("2024-10-21", DATED + "2024-10-21"), ("preview", NEW + "?api-version=preview"), ("v1", NEW + "?api-version=v1")]
)
def test_the_version_of_the_environment_chooses_the_surface(monkeypatch, version, url):
    monkeypatch.setenv("OPENAI_API_VERSION", version)
    assert wire("https://r.openai.azure.com").url == url
    assert wire("https://r.openai.azure.com/openai/v1").url == NEW


def test_a_deployment_is_one_step_of_the_path():
    provider = Azure(base_url="https://r.openai.azure.com?api-version=2024-10-21")
    assert "/deployments/a%2Fb%3Fc/chat" in provider.wire(ChatRequest(model="a/b?c", messages=HI)).url


def test_a_resource_that_nobody_named_is_asked_for():
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT"):
        Client(cache=False, journal=False, api_keys={"azure": "az-1234"}).generate_text(MODEL, "hi")
    health = Client(cache=False, journal=False).health_check("azure")
    assert not health.ok and not health.configured


@pytest.mark.parametrize("path", [V1, OLD, GA])
def test_both_surfaces_answer_and_list_models(path):
    with AzureService(key="az-1234567890").serve() as server, asking(server, path) as client:
        assert client.generate_text(MODEL, "hi").text == list(client.stream_text(MODEL, "hi"))[-1].completion.text == "Blue gentiané😀"
        assert [model.id for model in client.list_models("azure")] == ["demo-small"]
        assert client.health_check("azure").ok


def test_a_redirect_is_not_followed_so_the_key_stays_here():
    with Server(lambda _request: json_answer({})) as elsewhere:
        away = Answer(307, {"location": elsewhere.url}, [b""], framing="length")
        with Server(lambda _request: away) as server, asking(server) as client, pytest.raises(ReplyError, match="azure"):
            client.generate_text(MODEL, "hi")
    assert elsewhere.requests == []


# --- what is sent ------------------------------------------------------------------------------------------------------------------


def test_a_streamed_request_is_the_one_of_the_sheet(exchange):
    expected = exchange("azure-stream")
    picture = expected["messages"][1]["content"][1]["image_url"]
    messages = (
        Message(role="developer", content="Be brief."),
        Message(role="user", content=(TextPart(text="What is in this image?"), ImagePart(url=picture["url"]))),
    )
    provider = Azure(base_url="https://r.openai.azure.com", api_key="demo")
    request = ChatRequest(model="prod-gpt-5-mini", messages=messages, max_tokens=400, seed=7, extra={"reasoning_effort": "low"})
    built = provider.build(provider.wire(request), stream=True)
    del picture["detail"]
    assert json.loads(built.content) == expected
    assert built.headers["api-key"] == "demo"
    assert "authorization" not in built.headers


def test_a_version_is_only_asked_for_what_it_has():
    request = ChatRequest(model="prod", messages=HI, max_tokens=5)
    fields = {}
    for path in (V1, OLD, GA):
        provider = Azure(base_url="https://r.openai.azure.com" + path)
        fields[path] = provider.stream_body(provider.wire(request).body).keys() - {"model", "messages", "stream"}
    assert fields[V1] == fields[GA] == {"max_completion_tokens", "stream_options"}
    assert fields[OLD] == {"max_tokens"}


def test_the_usage_of_a_stream_is_not_asked_for_beside_data_sources():
    provider = Azure(base_url="https://r.openai.azure.com")
    assert provider.stream_body({"data_sources": []}) == {"data_sources": [], "stream": True}


def test_a_schema_is_refused_where_the_version_does_not_know_it():
    assert wire(schema={"type": "object"}).body["response_format"]["type"] == "json_schema"
    with pytest.raises(ConfigError, match="2024-06-01"):
        wire("https://r.openai.azure.com" + OLD, schema={"type": "object"})


# --- Entra ID ------------------------------------------------------------------------------------------------------------------------


def token_maker():
    """Gives a token of its own each time, and a list of what it gave."""
    given = []
    numbers = itertools.count(1)

    def renew():
        given.append(f"entra-token-{next(numbers)}-canary")
        return given[-1]

    return renew, given


def test_a_function_gives_a_token_for_each_request():
    renew, given = token_maker()
    with Server(AzureService()) as server, asking(server, key=renew) as client:
        assert given == []
        client.generate_text(MODEL, "hi")
        list(client.stream_text(MODEL, "hi"))
        client.list_models("azure")
    sent = [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
    assert sent == given == [f"entra-token-{number}-canary" for number in (1, 2, 3)]
    assert all("api-key" not in request.headers for request in server.requests)


def test_another_attempt_gets_another_token():
    renew, given = token_maker()
    busy = iter([json_answer({"error": {"message": "busy"}}, 503)])
    service = AzureService(fault=lambda _request, good: next(busy, good))
    retry = Retry(random=lambda: 0.0)
    with Server(service) as server, asking(server, key=renew, retry=retry, sleep=lambda _s: None) as client:
        client.generate_text(MODEL, "hi")
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {token}" for token in given]
    assert len(given) == 2


def test_a_loop_asks_the_function_too():
    renew, given = token_maker()

    async def main(url):
        async with AsyncClient(base_urls={"azure": url}, api_keys={"azure": renew}, cache=False, journal=False) as client:
            return await client.generate_text(MODEL, "hi")

    with Server(AzureService(tokens=("entra-token-1-canary",), key="another")) as server:
        assert asyncio.run(main(server.url)).text == "Blue gentiané😀"
    assert len(given) == 1


def test_a_new_token_is_not_a_new_question_to_the_cache():
    first, second = (Azure(base_url="https://r.openai.azure.com", api_key=key) for key in (token_maker()[0], "az-key"))
    assert first.wire(ChatRequest(model="m", messages=HI)) == second.wire(ChatRequest(model="m", messages=HI))


def test_no_token_appears_in_an_error_a_repr_or_a_log(caplog):
    caplog.set_level(logging.DEBUG)
    renew, given = token_maker()
    repeat = lambda request: json_answer({"error": {"message": f"bad {request.headers['authorization']}"}}, 401)  # noqa: E731
    with Server(repeat) as server, asking(server, key=renew) as client:
        for _ in range(3):
            with pytest.raises(AuthError, match="Cognitive Services OpenAI User") as caught:
                client.generate_text(MODEL, "hi")
        shown = [repr(client), repr(client._tools.provider("azure")), str(vars(caught.value)), caplog.text]
    assert len(given) == 3
    assert "[key]" in str(caught.value)
    assert not [token for token in given for text in [*shown, str(caught.value)] if token in text]


def test_a_function_that_fails_is_an_error_of_access_and_is_not_asked_again():
    def renew():
        raise LookupError("nobody is signed in")

    with Server(AzureService()) as server, asking(server, key=renew, retry=Retry()) as client:
        with pytest.raises(AuthError, match="nobody is signed in") as caught:
            client.generate_text(MODEL, "hi")
        assert not client.health_check("azure").ok
    assert isinstance(caught.value.__cause__, LookupError)
    assert server.requests == []


@pytest.mark.parametrize("given", [("token", 3600), None, "two\nlines", "sch\u00f6n"])
def test_a_function_that_gives_no_token_is_told_so_without_showing_it(given):
    with Server(AzureService()) as server, asking(server, key=lambda: given) as client, pytest.raises(ConfigError) as caught:
        client.generate_text(MODEL, "hi")
    assert str(given) not in str(caught.value) or given is None


@pytest.mark.parametrize("key", ["two\nlines", "sch\u00f6n"])
def test_a_key_that_no_header_can_carry_is_told_so_without_showing_it(key):
    with Server(AzureService()) as server, asking(server, key=key) as client, pytest.raises(ConfigError, match="header") as caught:
        client.generate_text(MODEL, "hi")
    assert key not in str(caught.value)


def test_the_environments_token_goes_before_its_key_and_what_is_given_in_code_before_both(monkeypatch):
    with Server(AzureService()) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "az-env")
        ask = lambda **options: Client(cache=False, journal=False, **options).generate_text(MODEL, "hi")  # noqa: E731
        ask()
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKEN)
        ask()
        ask(api_keys={"azure": "az-code"})
    sent = [(request.headers.get("api-key"), request.headers.get("authorization")) for request in server.requests]
    assert sent == [("az-env", None), (None, f"Bearer {TOKEN}"), ("az-code", None)]


# --- the content filter ----------------------------------------------------------------------------------------------------------------

VIOLENT = {**SAFE, "violence": {"filtered": True, "severity": "high"}}


@pytest.mark.parametrize("inner", ["innererror", "inner_error"])
@pytest.mark.parametrize("results", ["content_filter_result", "content_filter_results"])
def test_a_blocked_prompt_is_told_with_its_category_in_all_four_spellings(inner, results):
    body = {"error": {"message": "blocked", "code": "content_filter", inner: {"code": "ResponsibleAIPolicyViolation", results: VIOLENT}}}
    with Server(lambda _request: json_answer(body, 400, {"apim-request-id": "7c1f"})) as server, asking(server) as client:
        for ask in (lambda: client.generate_text(MODEL, "x"), lambda: list(client.stream_text(MODEL, "x"))):
            with pytest.raises(ContentFilterError, match=r"blocked.*\[filtered for violence\]") as caught:
                ask()
            assert (caught.value.status, caught.value.retryable, caught.value.request_id) == (400, False, "7c1f")


def test_a_blocked_prompt_without_details_is_one_all_the_same():
    body = {"error": {"message": "blocked", "code": "content_filter"}}
    with Server(lambda _request: json_answer(body, 400)) as server, asking(server) as client, pytest.raises(ContentFilterError):
        client.generate_text(MODEL, "x")


def test_a_blocked_answer_has_its_finish_reason_and_is_not_kept():
    choice = {"index": 0, "finish_reason": "content_filter", "message": {"role": "assistant"}, "content_filter_results": VIOLENT}
    answer = {"model": "gpt-5-mini", "choices": [choice], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]}
    with Server(lambda _request: json_answer(answer)) as server, asking(server, cache=True) as client:
        for _ in range(2):
            completion = client.generate_text(MODEL, "x")
            assert (completion.text, completion.finish_reason, completion.provenance) == ("", "content_filter", "live")
            assert completion.reported == {"content_filter": "violence"}


def test_a_late_judgement_goes_before_an_earlier_stop():
    late = {"id": "", "model": "", "choices": [{"index": 0, "finish_reason": "content_filter", "content_filter_results": VIOLENT}]}
    reply = streamed(chunk({"content": "a sharp edge"}), chunk({}, "stop"), late)
    assert (reply.text, reply.finish_reason, reply.keepable) == ("a sharp edge", "content_filter", False)
    assert reply.served_model == "demo-small-0711"


def test_a_late_judgement_without_objections_changes_nothing():
    late = {"id": "", "model": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": SAFE}]}
    reply = streamed(chunk({"content": "a"}), chunk({}, "stop"), late)
    assert (reply.finish_reason, reply.reported) == ("stop", {})


@pytest.mark.parametrize("name", ["prompt_filter_results", "prompt_annotations"])
def test_what_the_filter_noticed_is_reported(name):
    prompt = {"choices": [], name: [{"prompt_index": 0, "content_filter_results": {"jailbreak": {"filtered": False, "detected": True}}}]}
    results = {
        "protected_material_code": {"filtered": False, "detected": True},
        "odd_new_one": {"filtered": True},
        "custom_blocklists": [{"id": "b", "filtered": True}],
        "violence": {"filtered": False, "severity": "medium"},
        "error": {"code": 503, "message": "the filter was out"},
    }
    judged = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "content_filter_results": results}]}
    assert streamed(prompt, judged).reported == {
        "prompt_detected": "jailbreak",
        "content_detected": "protected_material_code",
        "content_filter": "custom_blocklists, odd_new_one",
        "content_filter_error": "the filter was out",
    }


@pytest.mark.parametrize("results", [None, 7, "x", [], [7], {"hate": None}, {"hate": [None]}, {"error": {}}])
def test_results_of_an_odd_shape_do_no_harm(results):
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "content_filter_results": results}
    assert streamed({"choices": [], "prompt_filter_results": results}, {"choices": [choice]}).text == "a"


# --- errors and limits -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [V1, GA])
def test_a_model_name_where_a_deployment_is_wanted_is_pointed_out(path):
    with Server(AzureService()) as server, asking(server, path) as client, pytest.raises(NotFoundError, match="deployment name, not"):
        client.generate_text("azure/gpt-5-mini", "hi")


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({"retry-after": "12", "retry-after-ms": "11800", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30"}, 11.8),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30", "x-ratelimit-reset-requests": "50"}, 30.0),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "30"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, None),
    ],
)
def test_a_limit_says_when_to_come_back(headers, wish):
    body = {"statusCode": 429, "message": "Rate limit is exceeded"}  # as gateways say it
    with Server(lambda _request: json_answer(body, 429, headers)) as server, asking(server) as client:
        with pytest.raises(RateLimitError, match="Rate limit is exceeded") as caught:
            client.generate_text(MODEL, "hi")
    assert caught.value.retry_after == wish


def test_a_limit_that_lasts_a_day_is_not_waited_for():
    answer = json_answer({"error": {"code": "429", "message": "quota"}}, 429, {"retry-after": "86400"})
    naps = []
    with Server(lambda _request: answer) as server, asking(server, retry=Retry(), sleep=naps.append) as client:
        with pytest.raises(RateLimitError):
            client.generate_text(MODEL, "hi")
    assert (naps, len(server.requests)) == ([], 1)


def test_an_error_nested_twice_in_a_stream_is_read():
    with pytest.raises(RateLimitError, match="too fast") as caught:
        streamed(chunk({"content": "so far"}), {"error": {"error": {"message": "too fast", "code": "rate_limit_exceeded"}}})
    assert caught.value.partial == "so far"
    with pytest.raises(ServerError, match="gone"):
        streamed({"error": {"message": "gone", "code": None}})


# --- models and prices -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["azure/demo-small", "azure/demo-small-0711"])
def test_a_price_is_found_by_the_deployment_or_by_the_model_behind_it(name):
    with Server(AzureService()) as server, asking(server, prices={name: Price(input=1.0, output=10.0)}) as client:
        completion = client.generate_text(MODEL, "hi")
    assert (completion.model, completion.served_model) == (MODEL, "demo-small-0711")
    assert completion.cost_usd == pytest.approx((USAGE["prompt_tokens"] + 10 * USAGE["completion_tokens"]) / 1e6)


# --- pictures ----------------------------------------------------------------------------------------------------------------------------


def pictured(body, status=200, **fields):
    provider = Azure(base_url="https://r.openai.azure.com")
    request = ImageRequest(model="prod-image", prompt="a teapot", **fields)
    steps = provider.make_images(request, provider.image_wire(request))
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(httpx.Response(status, json=body))
    return done.value.value


def test_a_picture_says_what_it_is():
    reply = pictured({"output_format": "jpeg", "data": [{"b64_json": "/9g="}]})
    assert [(image.data, image.mime) for image in reply.images] == [(b"\xff\xd8", "image/jpeg")]


@pytest.mark.parametrize("status", [200, 400])
def test_a_picture_that_is_refused_is_a_refusal_in_its_own_spelling(status):
    with pytest.raises(ContentFilterError, match="blocked"):
        pictured({"created": 1, "error": {"code": "contentFilter", "message": "blocked"}}, status)


@pytest.mark.parametrize("body", [{"created": 1}, {"data": []}, {"data": [{"b64_json": "x"}]}, {"data": [{"url": "https://x"}]}])
def test_an_answer_without_a_picture_is_none(body):
    with pytest.raises(ReplyError, match="no image"):
        pictured(body)


def test_pictures_take_no_seed():
    with pytest.raises(ConfigError, match="seed"):
        pictured({}, seed=1)
