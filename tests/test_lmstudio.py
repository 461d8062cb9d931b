"""LM Studio's own: three APIs at one address, models that are listed with their state, loaded, unloaded and downloaded."""

import pytest

from servers.chat_completions import ChatService, error_event
from servers.http import json_answer, sse
from servers.lmstudio import STATS, LMStudioService
from toolkit import Client, Message
from toolkit.errors import AuthError, ConfigError, NotFoundError, ProviderError, ServerError, StreamInterrupted
from toolkit.types import ImagePart, TextPart
from toolkit.wire.retry import NO_RETRY

MODEL = "lmstudio/demo-small"


@pytest.fixture
def naps():
    return []


@pytest.fixture
def client_of(naps):
    """A client of a service at a path."""
    opened = []

    def start(service, path="/v1", **options):
        server = service.serve()
        client = Client(base_urls={"lmstudio": server.url + path}, cache=False, journal=False, retry=NO_RETRY, sleep=naps.append, **options)
        opened.extend((client, server))
        client.server = server
        return client

    yield start
    for each in opened:
        each.__exit__(None, None, None)


def paths(client):
    return [f"{request.method} {request.path}" for request in client.server.requests]


# --- models ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/v1", "/api/v0", "/api/v1"])
@pytest.mark.parametrize("age", ["/api/v1", "/api/v0"])
def test_models_are_listed_with_their_state_and_the_context_they_are_loaded_with(client_of, path, age):
    service = LMStudioService(age=age)
    client = client_of(service, path)
    (model,) = client.list_models("lmstudio")
    assert (model.id, model.loaded, model.context_tokens, model.detail["max_context_length"]) == ("demo-small", False, None, 131_072)
    service.windows += [8192]
    (model,) = client.list_models("lmstudio")
    assert (model.loaded, model.context_tokens) == (True, 8192)


def test_a_server_that_has_only_chat_completions_lists_its_models_all_the_same(client_of):
    client = client_of(ChatService())
    (model,) = client.list_models("lmstudio")
    assert (model.id, model.loaded) == ("demo-small", None)
    assert paths(client) == ["GET /api/v1/models", "GET /api/v0/models", "GET /v1/models"]


def test_a_wrong_token_is_told_and_not_taken_for_an_old_server(client_of):
    client = client_of(LMStudioService(key="sk-lm-right"), api_keys={"lmstudio": "sk-lm-wrong"})
    with pytest.raises(AuthError, match="LM_API_TOKEN"):
        client.list_models("lmstudio")
    assert len(paths(client)) == 1


def test_health_counts_what_is_loaded(client_of):
    assert client_of(LMStudioService(windows=[4096])).health_check("lmstudio").detail.startswith("1 models, 1 loaded, at http")


def test_one_model_is_shown_and_an_unknown_one_is_not(client_of):
    client = client_of(LMStudioService(windows=[4096]))
    assert client.show_model(MODEL).context_tokens == 4096
    with pytest.raises(NotFoundError, match="list_models"):
        client.show_model("lmstudio/nowhere")


# --- loading -----------------------------------------------------------------------------------------------------------------------


def test_a_model_is_loaded_once(client_of):
    service = LMStudioService()
    client = client_of(service)
    assert client.load_model(MODEL) == 3.5
    assert client.load_model(MODEL) == 0.0
    assert client.load_model(MODEL, context_tokens=4096) == 0.0
    assert service.windows == [4096]


def test_another_context_replaces_the_loaded_instance(client_of):
    service = LMStudioService(windows=[4096])
    assert client_of(service).load_model(MODEL, context_tokens=8192) == 3.5
    assert service.windows == [8192]


def test_all_instances_of_a_model_are_unloaded_by_their_ids(client_of):
    service = LMStudioService(windows=[4096, 8192])
    client = client_of(service)
    client.unload_model(MODEL)
    assert service.windows == []
    sent = [request.json for request in client.server.requests if request.path.endswith("/unload")]
    assert sent == [{"instance_id": "demo-small"}, {"instance_id": "demo-small:2"}]


def test_other_providers_say_that_they_do_not_load():
    with Client(cache=False, journal=False) as client:
        for ask in (client.load_model, client.unload_model):
            with pytest.raises(ConfigError, match="ollama and lmstudio do"):
                ask("scripted/echo")


# --- downloads ---------------------------------------------------------------------------------------------------------------------


def job(status, **fields):
    return {"job_id": "job-1", "status": status, "total_size_bytes": 700, **fields}


def test_a_download_is_looked_at_until_it_has_ended(client_of, naps):
    jobs = [job("downloading"), job("downloading", downloaded_bytes=300), job("completed")]
    client = client_of(LMStudioService(jobs=jobs))
    shown = [(step.status, step.completed_bytes, step.total_bytes, step.done) for step in client.pull_model(MODEL)]
    assert shown == [("downloading", 0, 700, False), ("downloading", 300, 700, False), ("completed", 700, 700, True)]
    assert naps == [1.0, 1.0]
    assert client.server.requests[0].json == {"model": "demo-small"}


def test_a_model_that_is_there_is_not_downloaded_again(client_of, naps):
    (step,) = client_of(LMStudioService(jobs=[{"status": "already_downloaded"}])).pull_model(MODEL)
    assert (step.done, naps) == (True, [])


@pytest.mark.parametrize("status", ["failed", "paused", "nonsense"])
def test_a_download_that_stops_is_an_error(client_of, status):
    with pytest.raises(ProviderError, match=status):
        list(client_of(LMStudioService(jobs=[job("downloading"), job(status)])).pull_model(MODEL))


def test_an_old_server_says_that_it_has_no_such_route(client_of):
    with pytest.raises(ProviderError, match="Unexpected endpoint"):
        list(client_of(LMStudioService(age="/api/v0")).pull_model(MODEL))


def test_a_model_cannot_be_deleted_and_the_error_says_where_it_can(client_of):
    with pytest.raises(ConfigError, match="delete it in LM Studio"):
        client_of(LMStudioService()).delete_model(MODEL)


# --- the native chat ---------------------------------------------------------------------------------------------------------------


def asked(client, stream, prompt="hi", **options):
    if not stream:
        return client.generate_text(MODEL, prompt, **options)
    return list(client.stream_text(MODEL, prompt, **options))[-1].completion


@pytest.mark.parametrize("stream", [False, True])
def test_the_native_chat_gives_statistics_and_the_load_time(client_of, stream):
    client = client_of(LMStudioService(), "/api/v1")
    done = asked(client, stream)
    assert (done.text, done.reasoning, done.finish_reason, done.served_model) == ("Blue gentiané😀", "Alpine?", "unknown", "demo-small")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.reasoning_tokens) == (11, 3, 1)
    assert done.reported == {"tokens_per_second": STATS["tokens_per_second"], "ttft_s": 0.38, "load_s": 3.5}
    assert paths(client) == ["POST /api/v1/chat"]


def test_the_native_chat_is_asked_in_its_own_words_and_keeps_no_conversation(client_of):
    client = client_of(LMStudioService(), "/api/v1")
    picture = Message(role="user", content=(TextPart(text="What is it?"), ImagePart(data=b"\x89PNG")))
    prompt = [Message(role="system", content="Be brief."), picture]
    asked(client, False, prompt, temperature=0.0, max_tokens=64, extra={"reasoning": "low"})
    assert client.server.requests[0].json == {
        "model": "demo-small",
        "input": [{"type": "text", "content": "What is it?"}, {"type": "image", "data_url": "data:image/png;base64,iVBORw=="}],
        "system_prompt": "Be brief.",
        "temperature": 0.0,
        "max_output_tokens": 64,
        "reasoning": "low",
        "store": False,
    }


@pytest.mark.parametrize(
    ("prompt", "options", "told"),
    [
        ("hi", {"seed": 3}, "seed"),
        ("hi", {"stop": ["x"]}, "stop"),
        ("hi", {"schema": {"type": "object"}}, "schema"),
        ([Message(role="user", content="a"), Message(role="assistant", content="b"), Message(role="user", content="c")], {}, "history"),
    ],
)
def test_what_the_native_chat_does_not_know_is_refused_and_not_dropped(client_of, prompt, options, told):
    client = client_of(LMStudioService(), "/api/v1")
    with pytest.raises(ConfigError, match=f"no {told}.*ends in /v1"):
        asked(client, False, prompt, **options)
    assert paths(client) == []


def test_a_native_stream_without_its_end_is_interrupted(client_of):
    cut = lambda _request, good: good.__class__(200, good.headers, list(good.writes)[:-1])  # noqa: E731
    with pytest.raises(StreamInterrupted) as caught:
        asked(client_of(LMStudioService(fault=cut), "/api/v1"), True)
    assert caught.value.partial == "Blue gentiané😀"


def test_an_error_event_counts_although_an_end_follows(client_of):
    def fault(_request, good):
        *pieces, end = good.writes
        return good.__class__(200, good.headers, [*pieces, sse({"type": "error", "error": {"message": "crashed"}}, "error"), end])

    with pytest.raises(ServerError, match="crashed") as caught:
        asked(client_of(LMStudioService(fault=fault), "/api/v1"), True)
    assert caught.value.partial == "Blue gentiané😀"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_route_with_status_200_is_an_error_that_shows_the_address(client_of, stream):
    with pytest.raises(NotFoundError, match=r"Unexpected endpoint.*must end in /v1"):
        asked(client_of(LMStudioService(), "/api"), stream)


def test_the_reason_why_a_beta_answer_ended_is_reported(client_of):
    whole = ChatService().whole() | {"stats": {"tokens_per_second": 33.1, "time_to_first_token": 0.12, "stop_reason": "eosFound"}}

    class Beta(LMStudioService):
        def __call__(self, _request):
            return json_answer(whole)

    done = asked(client_of(Beta(), "/api/v0"), False)
    assert done.reported == {"tokens_per_second": 33.1, "ttft_s": 0.12, "stop_reason": "eosFound"}


def test_a_refusal_inside_a_stream_with_status_200_is_an_error(client_of):
    refuse = lambda _request, good: good.__class__(200, good.headers, [error_event("does not fit")])  # noqa: E731
    with pytest.raises(ServerError, match="does not fit"):
        asked(client_of(LMStudioService(fault=refuse)), True)
