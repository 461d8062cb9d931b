"""What is peculiar to Hugging Face: suffixes, routes to pictures, tokens, models that are loading, limits told in headers of its own."""

import dataclasses
import json

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from servers.http import Answer, json_answer
from servers.huggingface import JPEG, MAPPING, PNG, WEBP, HuggingFaceService, offer
from toolkit import Client
from toolkit.errors import (
    AuthError,
    ConfigError,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    ReplyError,
    RequestError,
    ServerError,
)
from toolkit.providers.huggingface import HuggingFace
from toolkit.providers.huggingface_images import ROUTES as IMAGE_ROUTES
from toolkit.types import Image, ImageRequest, Usage
from toolkit.wire.retry import NO_RETRY, Retry
from toolkit.wire.steps import Send

KEY = "hf_secret0123456789"
PAINTER = "huggingface/acme/painter"


@pytest.fixture
def run(monkeypatch):
    """Serves a fake as router and Hub at once, and gives a client of it to a function."""

    def serve(service, ask, **options):
        with service.serve() as server:
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            options = {"cache": False, "journal": False, "retry": NO_RETRY, "api_keys": {"huggingface": KEY}, **options}
            with Client(base_urls={"huggingface": f"{server.url}/v1"}, **options) as client:
                return ask(client), server

    return serve


def drawing(model=PAINTER, **arguments):
    return lambda client: client.generate_image(model, "a stone bridge", **arguments)


# --- pictures ----------------------------------------------------------------------------------------------------------------------

ROUTES = {
    "hf-inference": (PNG, {"inputs": "a stone bridge", "parameters": {"width": 64, "height": 32, "seed": 3, "steps": 4}}),
    "together": (
        WEBP,
        {
            "model": "acme/painter-t",
            "prompt": "a stone bridge",
            "width": 64,
            "height": 32,
            "seed": 3,
            "steps": 4,
            "response_format": "base64",
        },
    ),
    "nscale": (
        WEBP,
        {"model": "acme/painter-n", "prompt": "a stone bridge", "size": "64x32", "seed": 3, "steps": 4, "response_format": "b64_json"},
    ),
    "fal-ai": (JPEG, {"prompt": "a stone bridge", "image_size": {"width": 64, "height": 32}, "seed": 3, "steps": 4}),
    "replicate": (JPEG, {"input": {"prompt": "a stone bridge", "width": 64, "height": 32, "seed": 3, "steps": 4}}),
    "wavespeed": (JPEG, {"prompt": "a stone bridge", "width": 64, "height": 32, "seed": 3, "steps": 4}),
    "zai-org": (JPEG, {"model": "painter-z", "prompt": "a stone bridge", "size": "64x32", "seed": 3, "steps": 4}),
}


@pytest.mark.parametrize("slug", ROUTES)
def test_each_provider_is_asked_by_its_own_route(run, slug):
    data, body = ROUTES[slug]
    service = HuggingFaceService(key=KEY, mapping={**MAPPING, "together": offer("acme/painter-t")})
    naps = []
    result, _ = run(service, drawing(f"{PAINTER}:{slug}", size=(64, 32), seed=3, extra={"steps": 4}), sleep=naps.append)
    assert (result.images[0].data, result.reported["upstream_provider"]) == (data, slug)
    asked = next(request for request in service.seen if request.method == "POST")
    assert asked.path.startswith(f"/{slug}/")
    assert asked.json == body
    assert naps == {"wavespeed": [0.5] * 2, "zai-org": [5.0] * 2}.get(slug, [])


@pytest.mark.parametrize("slug", ["fal-ai", "replicate", "wavespeed", "zai-org"])
def test_the_storage_of_somebody_else_never_sees_the_token(run, slug):
    service = HuggingFaceService()
    run(service, drawing(f"{PAINTER}:{slug}"), sleep=lambda _s: None)
    *ours, theirs = service.seen
    assert theirs.path.startswith("/cdn/")
    assert "authorization" not in theirs.headers
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in ours)


@pytest.mark.parametrize("mapping", [MAPPING, [{"provider": slug, **entry} for slug, entry in MAPPING.items()]], ids=["object", "list"])
def test_without_a_suffix_the_first_live_provider_with_a_known_route_draws(run, mapping):
    result, _ = run(HuggingFaceService(mapping=mapping), drawing())
    assert (result.reported["upstream_provider"], result.served_model) == ("fal-ai", "acme/painter-fal")


@pytest.mark.parametrize(
    "mapping", [{}, [], None, {"groq": MAPPING["groq"], "somebody-new": MAPPING["somebody-new"], "together": MAPPING["together"], "odd": 7}]
)
def test_a_model_that_nobody_draws_with_says_what_it_is_for(run, mapping):
    with pytest.raises(NotFoundError, match=r"groq \(conversational, live\)" if mapping else "nobody"):
        run(HuggingFaceService(mapping=mapping), drawing())


def test_an_unknown_provider_and_several_pictures_are_refused(run):
    with pytest.raises(ConfigError, match="fal-ai"):
        run(HuggingFaceService(), drawing(f"{PAINTER}:somebody-new"))
    with pytest.raises(ConfigError, match="one picture a call"):
        run(HuggingFaceService(), drawing(n=2))


def test_pictures_need_the_router():
    options = {"cache": False, "journal": False, "base_urls": {"huggingface": "http://127.0.0.1:9"}}
    with Client(**options) as client, pytest.raises(ConfigError, match="router"):
        client.generate_image(PAINTER, "x")


@pytest.mark.parametrize("status", [200, 400])
def test_json_where_a_picture_should_be_is_an_error(run, status):
    service = HuggingFaceService(fault=lambda *_: json_answer({"error": ["`width` is too large"]}, status))
    with pytest.raises((ServerError, RequestError), match="too large"):
        run(service, drawing(f"{PAINTER}:hf-inference"))


def test_a_page_where_a_picture_should_be_is_an_error(run):
    service = HuggingFaceService(
        fault=lambda *_: Answer(200, {"content-type": "text/html"}, [b"<html><title>Hi</title></html>"], framing="length")
    )
    with pytest.raises(ReplyError, match="Hi"):
        run(service, drawing(f"{PAINTER}:hf-inference"))


def test_a_picture_is_what_its_bytes_say(run):
    result, _ = run(HuggingFaceService(image=WEBP), drawing(f"{PAINTER}:hf-inference"))
    assert result.images[0].mime == "image/webp"


@pytest.mark.parametrize("slug", ["wavespeed", "zai-org"])
def test_a_job_that_fails_ends_the_polling(run, slug):
    with pytest.raises(ServerError, match="out of paint"):
        run(HuggingFaceService(fails=True), drawing(f"{PAINTER}:{slug}"), sleep=lambda _s: None)


@pytest.mark.parametrize(("slug", "polls"), [("wavespeed", 600), ("zai-org", 60)])
def test_a_job_that_never_ends_is_given_up_and_not_begun_again(run, slug, polls):
    naps = []
    with pytest.raises(ProviderTimeoutError, match="five minutes") as caught:
        run(HuggingFaceService(polls=10_000), drawing(f"{PAINTER}:{slug}"), sleep=naps.append, retry=Retry())
    assert len(naps) == polls
    assert not caught.value.retryable


@pytest.mark.parametrize("slug", ["fal-ai", "replicate", "wavespeed", "zai-org", "nscale"])
@pytest.mark.parametrize(
    "body", [{}, {"data": 7}, {"images": [7]}, {"output": [7]}, {"id": 7}, {"images": [{"url": "file:///etc/passwd"}]}]
)
def test_an_odd_answer_of_a_provider_is_an_error(run, slug, body):
    with pytest.raises((ReplyError, ProviderTimeoutError)):
        run(HuggingFaceService(fault=lambda *_: json_answer(body)), drawing(f"{PAINTER}:{slug}"))


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(["http://[", "https://a b", "SUCCESS", "completed", "data:x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)
ANSWERS = st.dictionaries(
    st.sampled_from(["data", "images", "output", "id", "task_status", "image_result", "error"]),
    JSON
    | st.lists(st.dictionaries(st.sampled_from(["url", "b64_json"]), JSON), max_size=2)
    | st.fixed_dictionaries({}, optional={"urls": st.fixed_dictionaries({"get": JSON}), "status": JSON, "outputs": JSON}),
)


@given(st.sampled_from(sorted(ROUTES)), st.lists(ANSWERS, min_size=1, max_size=4))
def test_no_answer_whatsoever_of_a_provider_raises_anything_but_our_errors(slug, answers):
    provider, request = HuggingFace(base_url="http://127.0.0.1:9/v1"), ImageRequest(model="m", prompt="x")
    answers = iter(answers)
    steps = IMAGE_ROUTES[slug].read(provider, "http://127.0.0.1:9", response_of(next(answers)), request)
    try:
        step = next(steps)
        while True:
            step = steps.send(response_of(next(answers, {})) if isinstance(step, Send) else None)
    except StopIteration as done:
        assert isinstance(done.value, Image)
    except (ProviderError, httpx.InvalidURL):  # the latter becomes one of ours in a call
        pass


def response_of(answer):
    return httpx.Response(200, content=json.dumps(answer).encode())


# --- loading, limits, permissions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimate", "wish"), [(17.4, 17.4), (0, 1.0), (4000.0, 30.0), ("soon", None), (None, None)])
def test_a_model_that_is_loading_is_waited_for_within_reason(run, estimate, wish):
    service = HuggingFaceService(fault=lambda *_: json_answer({"error": "loading", "estimated_time": estimate}, 503))
    with pytest.raises(ServerError) as caught:
        run(service, drawing(f"{PAINTER}:hf-inference"))
    assert (caught.value.retryable, caught.value.retry_after) == (True, wish)


def test_a_model_that_has_loaded_draws(run):
    faults = iter([json_answer({"error": "loading", "estimated_time": 20.0}, 503)] * 2)
    naps = []
    service = HuggingFaceService(fault=lambda _request, good: next(faults, good))
    result, _ = run(service, drawing(f"{PAINTER}:hf-inference"), sleep=naps.append, retry=Retry(random=lambda: 0.0))
    assert (result.attempts, naps) == (3, [20.0, 20.0])


def asking(model="huggingface/demo-small"):
    return lambda client: client.generate_text(model, "hi")


def failing(run, kind, answer):
    with pytest.raises(kind) as caught:
        run(HuggingFaceService(fault=lambda *_: answer), asking())
    return caught.value


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({"ratelimit": '"api";r=0;t=42'}, 42.0),
        ({"ratelimit": '"api";r=0;t=42', "retry-after": "3"}, 3.0),
        ({"ratelimit": "odd"}, None),
        ({}, None),
    ],
)
def test_the_hubs_own_limit_header_is_read(run, headers, wish):
    assert failing(run, RateLimitError, json_answer({"error": "slow"}, 429, headers)).retry_after == wish


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (402, RequestError, "credit"),
        (403, AuthError, "permission"),
        (410, RequestError, "router.huggingface.co"),
        (504, ProviderTimeoutError, "stream"),
    ],
)
def test_a_status_says_what_to_do(run, status, kind, word):
    error = failing(run, kind, json_answer({"error": "No."}, status))
    assert word in str(error)
    assert error.retryable == (status == 504)


def test_a_model_without_an_enabled_provider_says_where_to_enable_one(run):
    body = {"error": {"message": "not supported", "code": "model_not_supported"}}
    assert "settings/inference-providers" in str(failing(run, RequestError, json_answer(body, 400)))


# --- tokens and addresses ------------------------------------------------------------------------------------------------------------


def test_a_token_is_found_where_its_users_keep_it(monkeypatch, tmp_path):
    assert HuggingFace.find_key() is None
    (tmp_path / "hugging").mkdir()
    (tmp_path / "hugging" / "token").write_text("hf_file\n")
    assert HuggingFace.find_key() == "hf_file"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert HuggingFace.find_key() == "hf_old"
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    assert HuggingFace.find_key() == "hf_new"


def test_a_token_file_of_another_place_is_read(monkeypatch, tmp_path):
    (tmp_path / "elsewhere").write_text("hf_there")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert HuggingFace.find_key() == "hf_there"


def test_the_address_that_was_switched_off_is_told():
    with pytest.raises(ConfigError, match=r"router\.huggingface\.co/v1"):
        HuggingFace(base_url="https://api-inference.huggingface.co/v1")


def test_health_asks_whose_the_token_is_once(run):
    service = HuggingFaceService(key=KEY)
    (first, second), _ = run(service, lambda client: (client.health_check("huggingface"), client.health_check("huggingface")))
    assert first.ok and second.ok and "lena" in second.detail
    assert [request.path for request in service.seen].count("/api/whoami-v2") == 1


def test_a_token_that_is_none_is_unhealthy_although_the_list_came(run):
    class Lax(HuggingFaceService):
        def __call__(self, request):
            if request.path == "/v1/models":
                return json_answer({"object": "list", "data": self.models})
            return super().__call__(request)

    health, _ = run(Lax(key="hf_another"), lambda client: client.health_check("huggingface"))
    assert not health.ok and "HF_TOKEN" in health.detail


# --- models and prices ---------------------------------------------------------------------------------------------------------------

ENTRY = {
    "id": "demo-small",
    "providers": [
        {"provider": "groq", "status": "live", "context_length": 131072, "pricing": {"input": 1.0, "output": 2.0}},
        {"provider": "somebody-new", "status": "live", "context_length": 8192, "pricing": {"input": 1.0, "output": -1}},
        {"provider": "hf-inference", "status": "error", "context_length": 2048},
        7,
    ],
}


def test_the_context_is_that_of_whoever_may_answer(run):
    (model,), _ = run(HuggingFaceService(models=[ENTRY]), lambda client: client.list_models("huggingface"))
    assert model.context_tokens == 8192


def test_a_pinned_provider_has_a_price_once_it_was_listed(run):
    def ask(client):
        before = client.generate_text("huggingface/demo-small:groq", "hi").cost_usd
        client.list_models("huggingface")
        return before, *(
            client.generate_text(f"huggingface/demo-small{suffix}", "hi").cost_usd for suffix in (":groq", "", ":fastest", ":somebody-new")
        )

    costs, _ = run(HuggingFaceService(models=[ENTRY]), ask)
    assert costs == (None, pytest.approx((11 * 1.0 + 3 * 2.0) / 1e6), None, None, None)


@pytest.mark.parametrize(
    "providers", [None, 7, [None], [{"provider": None, "pricing": "free", "context_length": "long", "status": "live"}]]
)
def test_an_odd_offer_is_passed_over(run, providers):
    provider = HuggingFace(base_url="http://127.0.0.1:9/v1")
    (model,), _ = run(HuggingFaceService(models=[{"id": "m", "providers": providers}]), lambda client: client.list_models("huggingface"))
    assert model.context_tokens is None
    assert provider.listed_price("m:groq", Usage(), 0.0) is None


def test_who_pays_is_named(run, monkeypatch):
    monkeypatch.setenv("HF_BILL_TO", "lab")
    _, server = run(HuggingFaceService(), asking())
    assert server.requests[0].headers["x-hf-bill-to"] == "lab"


def test_the_suffix_travels_in_the_name(run):
    completion, server = run(HuggingFaceService(), asking("huggingface/acme/alpine-9b:groq"))
    assert server.requests[0].json["model"] == "acme/alpine-9b:groq"
    assert completion.model == "huggingface/acme/alpine-9b:groq"


def test_the_text_of_a_stream_keeps_the_separators_that_are_no_newlines(run):
    service = dataclasses.replace(HuggingFaceService(), words=("a\u0085b", "\u2028c"))
    completion, _ = run(service, lambda client: list(client.stream_text("huggingface/demo-small", "hi"))[-1].completion)
    assert completion.text == "a\u0085b\u2028c"
