"""What is peculiar to OpenRouter: costs and prices, routing, its key and receipts, pictures in chat, errors that hide their reason."""

import asyncio
import base64
import json

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from servers.http import json_answer, sse
from servers.openrouter import COST, PNG, OpenRouterService
from toolkit import AsyncClient, Client
from toolkit.errors import (
    AuthError,
    ConfigError,
    ContentFilterError,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    ReplyError,
    RequestError,
    ServerError,
)
from toolkit.providers.openrouter import OpenRouter
from toolkit.providers.openrouter_prices import price_at
from toolkit.types import ChatRequest, Message
from toolkit.wire.retry import NO_RETRY, Retry

MODEL = "openrouter/demo-small"
DAY = 1790000000 - 1790000000 % 86400
RATES = ("prompt", "completion", "request", "input_cache_read", "discount", "min_prompt_tokens")
KEY = "sk-or-v1-secret-0123456789"


def client_of(server, **options):
    options = {"cache": False, "journal": False, "retry": NO_RETRY, **options}
    return Client(base_urls={"openrouter": f"{server.url}/api/v1"}, api_keys={"openrouter": KEY}, **options)


def ask(service, *, stream=False, **arguments):
    with service.serve() as server, client_of(server) as client:
        if stream:
            return list(client.stream_text(MODEL, "hi", **arguments))[-1].completion, server
        return client.generate_text(MODEL, "hi", **arguments), server


def failing(kind, body, status=200, **arguments):
    with pytest.raises(kind) as caught:
        ask(OpenRouterService(fault=lambda *_: json_answer(body, status)), **arguments)
    assert type(caught.value) is kind
    return caught.value


def answering(**changes):
    return lambda _request, _good: json_answer({**OpenRouterService().whole(), **changes})


# --- what is told with an answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_the_cost_and_the_upstream_are_taken_from_the_answer(stream):
    completion, _ = ask(OpenRouterService(), stream=stream)
    assert completion.cost_usd == COST
    assert completion.reported == {"generation_id": "gen-1", "upstream_provider": "Acme Cloud"}
    assert completion.served_model == "demo-small-0711"


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0}, 0.0),
        ({"cost": None}, None),
        ({"cost": -1}, None),
        ({"cost": "0.1"}, None),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 0.021),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0.001, "is_byok": True}, None),
    ],
)
def test_a_cost_is_whole_or_unknown(usage, cost):
    completion, _ = ask(OpenRouterService(fault=answering(usage=usage)))
    assert completion.cost_usd == (cost if cost is None else pytest.approx(cost))


def test_two_finish_chunks_end_an_answer_once():
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
    chunks = [
        {"choices": [choice]},
        {"choices": [{**choice, "delta": {"content": ""}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    ]

    def fault(_request, good):
        good.writes = [sse(chunk) for chunk in chunks]
        return good

    completion, _ = ask(OpenRouterService(fault=fault), stream=True)
    assert (completion.text, completion.usage.input_tokens) == ("x", 3)


# --- what is sent ----------------------------------------------------------------------------------------------------------------


def test_an_app_is_named_in_ascii_and_changes_no_key(monkeypatch):
    request = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
    plain = OpenRouter()
    monkeypatch.setenv("OPENROUTER_APP_URL", "https://lab.example/ü")
    monkeypatch.setenv("OPENROUTER_APP_TITLE", "Café")
    named = OpenRouter()
    assert plain.wire(request) == named.wire(request)
    headers = named.build(named.wire(request), stream=False).headers
    assert (headers["http-referer"], headers["x-title"], headers["x-openrouter-title"]) == (
        "https://lab.example/%C3%BC",
        "Caf%C3%A9",
        "Caf%C3%A9",
    )
    assert "x-title" not in plain.build(plain.wire(request), stream=False).headers


def test_a_local_app_gets_a_title_or_it_would_not_count(monkeypatch):
    monkeypatch.setenv("OPENROUTER_APP_URL", "http://localhost:3000")
    assert OpenRouter().auth_headers()["x-title"] == "model-comparison-toolkit"


def test_the_services_own_cache_is_off():
    _, server = ask(OpenRouterService())
    assert server.requests[0].headers["x-openrouter-cache"] == "false"


def test_a_schema_goes_only_to_upstreams_that_know_schemas():
    answer = answering(choices=[{"index": 0, "message": {"content": '{"a": 1}'}, "finish_reason": "stop"}])
    completion, server = ask(OpenRouterService(fault=answer), schema={"type": "object"}, extra={"provider": {"only": ["acme"]}})
    assert completion.parsed == {"a": 1}
    assert server.requests[0].json["provider"] == {"require_parameters": True, "only": ["acme"]}
    _, server = ask(OpenRouterService(fault=answer), schema={"type": "object"}, extra={"provider": {"require_parameters": False}})
    assert server.requests[0].json["provider"] == {"require_parameters": False}


def test_routing_is_part_of_the_cache_key():
    with OpenRouterService().serve() as server, client_of(server, cache=True) as client:
        one, two, again = (client.generate_text(MODEL, "hi", extra={"provider": {"only": [slug]}}) for slug in ("a", "b", "a"))
    assert [one.provenance, two.provenance, again.provenance] == ["live", "live", "replayed"]


# --- errors ------------------------------------------------------------------------------------------------------------------------


def error(message="Provider returned error", **more):
    return {"error": {"message": message, **more}, "user_id": "user_demo"}


@pytest.mark.parametrize(
    "raw", ['{"error": {"message": "prompt too long"}}', "prompt too long", "<html><title>prompt too long</title></html>"]
)
def test_the_upstreams_reason_is_found(raw):
    told = failing(RequestError, error(code=400, metadata={"raw": raw, "provider_name": "Acme Cloud"}), 400)
    assert "Acme Cloud: prompt too long" in str(told)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(429, RateLimitError), (504, ProviderTimeoutError), (401, AuthError), (402, RequestError), (502, ServerError), (404, NotFoundError)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_with_status_200_is_what_its_code_says(code, kind, stream):
    told = failing(kind, error(code=code), stream=stream)
    assert told.status == 200


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [
        ("rate_limit_exceeded", RateLimitError),
        ("context_length_exceeded", RequestError),
        ("refusal", ContentFilterError),
        ("timeout", ProviderTimeoutError),
        ("unmapped", ServerError),
    ],
)
def test_an_error_with_a_word_for_a_code_is_what_its_type_says(error_type, kind):
    failing(kind, error(code="server_error", metadata={"error_type": error_type}))


def test_an_error_inside_a_choice_is_one():
    told = {"index": 0, "message": {"content": "Half"}, "finish_reason": "error", "error": {"message": "It broke", "code": 502}}
    assert "It broke" in str(failing(ServerError, {"choices": [told]}))


def test_a_moderator_s_refusal_names_its_reasons():
    body = error("Flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "…", "provider_name": "Acme Cloud"})
    assert "violence" in str(failing(ContentFilterError, body, 403))


def test_a_daily_limit_shows_its_numbers():
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1790035200000"}
    assert "limit 50, remaining 0" in str(failing(RateLimitError, error("Slow", code=429, metadata={"headers": headers}), 429))


def test_missing_credit_says_to_name_a_limit_and_is_not_asked_again():
    told = failing(RequestError, error("Insufficient credits", code=402), 402)
    assert "max_tokens=" in str(told)
    assert not told.retryable


def test_the_services_word_on_when_to_come_back_counts():
    told = failing(ServerError, error("Full", availability={"code": "temporarily_unavailable", "retryable": True, "retry_after": 7}), 503)
    assert (told.retryable, told.retry_after) == (True, 7.0)
    assert not failing(RateLimitError, error("Full", availability={"retryable": False}), 429).retryable


def test_a_404_without_any_reason_passes_and_is_asked_again():
    faults = iter([json_answer(error(code=404, metadata={"raw": "", "provider_name": "Acme Cloud"}), 404)])
    service = OpenRouterService(fault=lambda _request, good: next(faults, good))
    naps = []
    with service.serve() as server, client_of(server, retry=Retry(random=lambda: 0.0), sleep=naps.append) as client:
        assert client.generate_text(MODEL, "hi").attempts == 2
    assert not failing(NotFoundError, error(code=404), 404).retryable


@pytest.mark.parametrize("metadata", [None, [], "x", {"raw": None}, {"raw": 7, "headers": 7, "reasons": "x", "error_type": [1]}])
def test_an_odd_error_is_an_error_all_the_same(metadata):
    failing(RequestError, error(code=400, metadata=metadata, availability=metadata), 400)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["-1", "0.1", "refusal", "server"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FAULTS = st.fixed_dictionaries(
    {},
    optional={
        "code": JSON,
        "message": JSON,
        "availability": JSON | st.fixed_dictionaries({"retryable": JSON, "retry_after": JSON}),
        "metadata": JSON
        | st.fixed_dictionaries({}, optional=dict.fromkeys(("raw", "headers", "reasons", "error_type", "provider_name"), JSON)),
    },
)


@given(FAULTS | JSON, st.sampled_from([400, 404, 500]))
def test_no_error_body_whatsoever_raises_anything_but_its_error(fault, status):
    provider = OpenRouter()
    body = json.dumps({"error": fault}).encode()
    assert isinstance(provider.read_error(httpx.Response(status, content=body), "m"), ProviderError)
    assert isinstance(provider.told_error({"error": fault}, "m"), ProviderError)


@given(
    st.dictionaries(st.sampled_from([*RATES, "overrides"]), JSON | st.lists(st.dictionaries(st.sampled_from([*RATES, "utc_start"]), JSON)))
)
def test_no_pricing_whatsoever_raises_or_is_negative(pricing):
    price = price_at(pricing, 1000, DAY)
    assert price is None or min(price.input, price.output, price.cached_input or 0) >= 0


# --- the key -----------------------------------------------------------------------------------------------------------------------


def health(**options):
    with OpenRouterService(key=KEY, **options).serve() as server, client_of(server) as client:
        return client.health_check("openrouter"), server


def test_a_healthy_key_tells_what_is_left_and_not_its_label():
    found, server = health()
    assert found.ok and "$7.50 left" in found.detail
    assert "abc" not in found.detail
    assert [request.path for request in server.requests] == ["/api/v1/key"]


@pytest.mark.parametrize(
    ("details", "word"),
    [
        ({"is_management_key": True}, "management key"),
        ({"limit_remaining": 0}, "used up"),
        ({"limit_remaining": -0.2}, "used up"),
        ({}, "does not describe"),
    ],
)
def test_a_key_that_can_ask_nothing_is_unhealthy(details, word):
    found, _ = health(details=details)
    assert not found.ok and word in found.detail


def test_a_wrong_key_is_unhealthy():
    with OpenRouterService(key="another").serve() as server, client_of(server) as client:
        found = client.health_check("openrouter")
    assert not found.ok and "OPENROUTER_API_KEY" in found.detail


# --- prices ------------------------------------------------------------------------------------------------------------------------

PRICING = {  # as in the service's documentation
    "prompt": "0.0000001",
    "completion": "0.0000005",
    "request": "0",
    "input_cache_read": "0.00000002",
    "overrides": [
        {"min_prompt_tokens": 128000, "prompt": "0.0000002", "completion": "0.000001"},
        {"utc_start": 2200, "utc_end": 600, "prompt": "0.00000005"},
    ],
}


@pytest.mark.parametrize(
    ("hour", "tokens", "rates"),
    [
        (12, 100, (0.1, 0.5)),
        (12, 128_000, (0.1, 0.5)),
        (12, 128_001, (0.2, 1.0)),
        (22, 100, (0.05, 0.5)),
        (21.99, 100, (0.1, 0.5)),
        (3, 100, (0.05, 0.5)),
        (6, 100, (0.1, 0.5)),
        (23, 200_000, (0.05, 1.0)),
    ],
)
def test_a_price_depends_on_the_length_and_the_hour(hour, tokens, rates):
    price = price_at(PRICING, tokens, DAY + hour * 3600)
    assert (price.input, price.output, price.cached_input) == (*rates, 0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "-1"},
        {"completion": "-1"},
        {"prompt": "free"},
        {"prompt": None},
        {"prompt": "NaN"},
        {"request": "0.01"},
        {"overrides": [{"utc_days": [6], "prompt": "0"}]},
    ],
)
def test_a_price_that_can_t_be_known_is_none(changes):
    assert price_at({**PRICING, **changes}, 100, DAY + 12 * 3600) is None


def test_a_discount_and_a_free_model():
    assert price_at({"prompt": "0.000001", "completion": "0.000002", "discount": 0.25}, 1, DAY).output == 1.5
    free = price_at({"prompt": "0", "completion": "0"}, 1, DAY)
    assert (free.input, free.output) == (0.0, 0.0)


@pytest.mark.parametrize("pricing", [None, [], "0", {}])
def test_odd_pricing_is_unknown(pricing):
    assert price_at(pricing, 1, DAY) is None


def test_a_listed_price_is_used_where_the_answer_states_no_cost_and_only_for_the_exact_name():
    models = [
        {"id": "demo-small", "pricing": {"prompt": "0.000001", "completion": "0.000002"}},
        {"id": "auto", "pricing": {"prompt": "-1", "completion": "-1"}},
    ]
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    service = OpenRouterService(models=models, fault=answering(usage=usage))
    with service.serve() as server, client_of(server) as client:
        assert client.generate_text(MODEL, "hi").cost_usd is None
        client.list_models("openrouter")
        assert client.generate_text(MODEL, "hi").cost_usd == pytest.approx(0.0012)
        assert client.generate_text(f"{MODEL}:nitro", "hi").cost_usd is None
        assert client.generate_text("openrouter/auto", "hi").cost_usd is None


# --- receipts ----------------------------------------------------------------------------------------------------------------------


def receipt(service, generation_id="gen-1"):
    naps = []
    with service.serve() as server, client_of(server, sleep=naps.append) as client:
        try:
            return client.receipt("openrouter", generation_id), naps
        except ProviderError as error:
            return error, naps


def test_a_receipt_is_in_seconds_and_waited_for():
    found, naps = receipt(OpenRouterService(receipts_late=2))
    assert found == {
        "ttft_s": 0.21, "generation_s": 1.53, "input_tokens": 11.0, "output_tokens": 3.0, "cost_usd": COST, "upstream_provider": "Acme Cloud",
    }  # fmt: skip
    assert naps == [0.5, 1.0]


def test_a_receipt_that_never_comes_is_given_up():
    found, naps = receipt(OpenRouterService(), "gen-none")
    assert isinstance(found, NotFoundError)
    assert naps == [0.5, 1.0, 2.0, 4.0]


def test_other_providers_keep_no_receipts_and_both_clients_fetch_them():
    async def main(server):
        addresses = {"base_urls": {"openrouter": f"{server.url}/api/v1"}, "api_keys": {"openrouter": KEY}}
        async with AsyncClient(cache=False, journal=False, **addresses) as client:
            return await client.receipt("openrouter", "gen-1")

    with OpenRouterService().serve() as server:
        assert asyncio.run(main(server))["cost_usd"] == COST
    with Client(cache=False, journal=False) as client, pytest.raises(ConfigError, match="openrouter does"):
        client.receipt("embedded", "gen-1")


# --- pictures ----------------------------------------------------------------------------------------------------------------------


def draw(service, **arguments):
    with service.serve() as server, client_of(server) as client:
        return client.generate_image(MODEL, "a stone bridge", **arguments), server


def test_a_picture_comes_from_the_image_api():
    result, server = draw(OpenRouterService(drawn=2), size="512x256", n=3, seed=4, extra={"quality": "low"})
    assert [(image.data, image.mime) for image in result.images] == [(PNG, "image/png")] * 2  # fewer may come
    assert (result.cost_usd, result.usage.input_tokens, result.request_id) == (0.04, 11, "gen-img-1")
    (request,) = server.requests
    assert request.path == "/api/v1/images"
    assert request.json == {"model": "demo-small", "prompt": "a stone bridge", "n": 3, "size": "512x256", "seed": 4, "quality": "low"}


def drawn_in_chat(**message):
    address = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    told = {"role": "assistant", "content": "Here.", "images": [{"type": "image_url", "image_url": {"url": address}}], **message}
    return answering(choices=[{"index": 0, "message": told, "finish_reason": "stop"}])


def test_a_model_can_draw_in_chat():
    result, server = draw(OpenRouterService(fault=drawn_in_chat()), extra={"modalities": ["image", "text"]})
    assert (result.images[0].data, result.text, result.cost_usd) == (PNG, "Here.", COST)
    assert server.requests[0].path == "/api/v1/chat/completions"
    assert server.requests[0].json["modalities"] == ["image", "text"]


@pytest.mark.parametrize("images", [[], None, [{"image_url": {"url": "https://elsewhere.example/x.png"}}], [7], [{"image_url": "x"}]])
def test_words_without_a_picture_are_an_error_that_shows_them(images):
    with pytest.raises(ReplyError, match="Here"):
        draw(OpenRouterService(fault=drawn_in_chat(images=images)), extra={"modalities": ["image", "text"]})


@pytest.mark.parametrize("arguments", [{"size": "64x64"}, {"n": 2}])
def test_what_chat_can_t_draw_is_refused(arguments):
    with pytest.raises(ConfigError, match="in chat"):
        draw(OpenRouterService(), extra={"modalities": ["image", "text"]}, **arguments)


def test_an_image_api_that_answers_with_an_error_raises_it():
    with pytest.raises(RateLimitError, match="slow down"):
        draw(OpenRouterService(fault=lambda *_: json_answer(error("slow down", code=429))))
    with pytest.raises(ReplyError, match="modalities"):
        draw(OpenRouterService(fault=lambda *_: json_answer({"data": [{"b64_json": "%%%"}, 7]})))


def test_asking_for_words_and_for_pictures_are_two_questions():
    extra = {"modalities": ["image", "text"]}
    with OpenRouterService(fault=drawn_in_chat()).serve() as server, client_of(server, cache=True) as client:
        assert client.generate_text(MODEL, "hi", extra=extra).text == "Here."
        assert client.generate_image(MODEL, "hi", extra=extra).provenance == "live"
        assert client.generate_image(MODEL, "hi", extra=extra).provenance == "replayed"
    assert json.loads(server.requests[0].body) == json.loads(server.requests[1].body)
