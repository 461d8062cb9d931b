"""One suite over providers, both clients, whole answers and streams, and what can go wrong between us and them; on real HTTP."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from servers import cohere, replicate, vertex
from servers.azure import AzureService
from servers.chat_completions import ChatService, changed, chunk, error_event
from servers.http import CUT, RESET_CONNECTION, Answer, Gate, Pause, Server, json_answer, nd, page_answer, sse
from servers.huggingface import HuggingFaceService
from servers.ollama import OllamaService
from servers.openrouter import OpenRouterService
from servers.replicate import ReplicateService
from servers.vertex import VertexService
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
    StreamInterrupted,
    UnreachableError,
)
from toolkit.providers.lmstudio import LMStudio
from toolkit.providers.ollama import Ollama, read_host
from toolkit.providers.openai_compatible import OpenAICompatible
from toolkit.types import ChatRequest, ImagePart, Message, TextPart, TokenLogprob, ToolCall, Usage
from toolkit.wire.retry import NO_RETRY, Retry

TEXT, THOUGHT = "Blue gentiané😀", "Alpine?"
KEY = "sk-secret-0123456789"


@dataclass(frozen=True)
class Case:
    """A provider, its fake, and how that one frames things."""

    provider: str
    service: type
    path: str  # of the base URL
    model: str
    piece: Any  # a text to the bytes of one piece of a stream
    error: bytes  # in the middle of a stream
    key_var: str
    thought: str = THOUGHT
    key_header: tuple[str, str] = ("authorization", "Bearer {}")
    fields: frozenset[str] = frozenset({"model", "messages", "stream"})  # of a plain question
    sampling: Callable[[Any], Any] = lambda body: body  # where options are
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # what they are called, if not as ours
    unstreamed: Callable[[Any], Any] = lambda request: dataclasses.replace(
        request, body=json.dumps(request.json | {"stream": False}).encode()
    )
    streams: Callable[[Any], bool] = lambda request: request.json.get("stream") is True
    json_pieces: bool = True
    stream_bytes: int = 400  # so many bytes of a stream are not its end yet
    repeatable: bool = True  # whether a question may be sent again when its fate is unknown
    untold_wish: float | None = None  # how long a service wants us to wait that doesn't say
    no_models: Any = None

    def asked(self, server):
        """The questions among the requests that came in."""
        if self.service is not ReplicateService:
            return server.requests
        return [request for request in server.requests if request.method == "POST" and request.path.endswith("/predictions")]


CASES = [
    Case(
        "openai_compatible", ChatService, "/v1", "demo-small", lambda text: sse(chunk({"content": text})), error_event("It broke"),
        "OPENAI_API_KEY",
    ),
    Case("lmstudio", ChatService, "/v1", "demo-small", lambda text: sse(chunk({"content": text})), error_event("It broke"), "LM_API_TOKEN"),
    Case(
        "openrouter", OpenRouterService, "/api/v1", "demo-small", lambda text: sse(chunk({"content": text})), error_event("It broke"),
        "OPENROUTER_API_KEY",
    ),
    Case(
        "huggingface", HuggingFaceService, "/v1", "demo-small", lambda text: sse(chunk({"content": text})), sse({"error": "It broke"}),
        "HF_TOKEN",
    ),
    Case(
        "azure", AzureService, "/openai/v1", "demo-small", lambda text: sse(chunk({"content": text})), error_event("It broke"),
        "AZURE_OPENAI_API_KEY",
        key_header=("api-key", "{}"),
        names={"max_tokens": "max_completion_tokens"},
    ),
    Case(
        "cohere", cohere.CohereService, "", "demo-small", cohere.piece, cohere.end_event("ERROR", error="It broke"), "CO_API_KEY",
        names={"top_p": "p", "stop": "stop_sequences"},
    ),
    Case(
        "ollama", OllamaService, "", "alpine:4b", lambda text: nd({"message": {"content": text}, "done": False}), nd({"error": "It broke"}),
        "OLLAMA_API_KEY",
        sampling=lambda body: body["options"] | {"top_k": body["top_k"]},
        names={"max_tokens": "num_predict"},
        no_models={},
    ),
    Case(
        "vertex", VertexService, "", "gemini-demo", lambda text: sse(vertex.chunk([{"text": text}])),
        sse({"error": {"code": 500, "message": "It broke", "status": "INTERNAL"}}), "GOOGLE_API_KEY",
        key_header=("x-goog-api-key", "{}"),
        fields=frozenset({"contents"}),
        sampling=lambda body: body["generationConfig"] | {"top_k": body["top_k"]},
        names={"max_tokens": "maxOutputTokens", "top_p": "topP", "stop": "stopSequences"},
        unstreamed=vertex.unstreamed,
        streams=lambda request: request.path.endswith(":streamGenerateContent?alt=sse"),
    ),
    Case(
        "replicate", ReplicateService, "", "acme/alpine", replicate.piece, replicate.failed_event(), "REPLICATE_API_TOKEN",
        thought="",
        fields=frozenset({"input"}),
        sampling=lambda body: body["input"] | {"stop_sequences": [body["input"]["stop_sequences"]]},
        names={"max_tokens": "max_new_tokens", "stop": "stop_sequences"},
        unstreamed=replicate.unstreamed,
        streams=lambda request: "prefer" not in request.headers,
        json_pieces=False,
        stream_bytes=150,
        repeatable=False,
        untold_wish=20.0,
        no_models=[],
    ),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.provider)
def case(request):
    return request.param


class Threads:
    """Asks with ``Client``."""

    def __init__(self, options):
        self.options = options

    def __call__(self, model, stream, **arguments):
        with Client(sleep=self.options["naps"].append, **self.options["client"]) as client:
            if not stream:
                return client.generate_text(model, "hi", **arguments)
            *pieces, end = client.stream_text(model, "hi", **arguments)
            assert "".join(event.text for event in pieces if event.kind == "text") == end.completion.text
            return end.completion

    def do(self, name, *arguments, **options):
        with Client(**self.options["client"]) as client:
            done = getattr(client, name)(*arguments, **options)
            return list(done) if name == "pull_model" else done


class Loop:
    """Asks with ``AsyncClient``."""

    def __init__(self, options):
        self.options = options

    async def nap(self, seconds):
        self.options["naps"].append(seconds)

    def __call__(self, model, stream, **arguments):
        async def main():
            async with AsyncClient(sleep=self.nap, **self.options["client"]) as client:
                if not stream:
                    return await client.generate_text(model, "hi", **arguments)
                *pieces, end = [event async for event in client.stream_text(model, "hi", **arguments)]
                assert "".join(event.text for event in pieces if event.kind == "text") == end.completion.text
                return end.completion

        return asyncio.run(main())

    def do(self, name, *arguments, **options):
        async def main():
            async with AsyncClient(**self.options["client"]) as client:
                if name == "pull_model":
                    return [step async for step in client.pull_model(*arguments)]
                return await getattr(client, name)(*arguments, **options)

        return asyncio.run(main())


@pytest.fixture(params=[Threads, Loop], ids=["threads", "loop"])
def driver(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


def asker(driver, case, server, *, retry=NO_RETRY, key=None):
    client = {"base_urls": {case.provider: server.url + case.path}, "api_keys": {case.provider: key} if key else None}
    return driver({"client": {**client, "cache": False, "journal": False, "retry": retry}, "naps": []})


def ask(driver, case, stream, *, fault=None, retry=NO_RETRY, key=None, arguments=None, **options):
    """Ask a fake once; return the completion and the server with its requests."""
    service = case.service(**({"fault": fault} if fault else {}), key=key)
    with service.serve(**options) as server:
        completion = asker(driver, case, server, retry=retry, key=key)(f"{case.provider}/{case.model}", stream, **(arguments or {}))
    return completion, server


def failing(kind, driver, case, stream, fault, **options):
    with pytest.raises(kind) as caught:
        ask(driver, case, stream, fault=fault, **options)
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.model) == (case.provider, case.model)
    return error


# --- what works ----------------------------------------------------------------------------------------------------------------


def test_an_answer_is_read_whole(driver, case, stream):
    completion, server = ask(driver, case, stream, key=KEY)
    assert (completion.text, completion.reasoning, completion.finish_reason) == (TEXT, case.thought, "stop")
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (11, 3)
    assert completion.provenance == "live"
    assert completion.attempts == 1
    (request,) = case.asked(server)
    header, value = case.key_header
    assert request.headers[header] == value.format(KEY)
    assert all(KEY not in request.path for request in server.requests)
    assert case.streams(request) == stream


def test_options_reach_the_service(driver, case, stream):
    arguments = {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "stop": ["\n"], "seed": 3, "extra": {"top_k": 5}}
    _, server = ask(driver, case, stream, arguments=arguments)
    sampling = case.sampling(case.asked(server)[0].json)
    sent = {name: sampling[case.names.get(name, name)] for name in ("temperature", "top_p", "stop", "seed", "max_tokens", "top_k")}
    assert sent == {"temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 3, "max_tokens": 9, "top_k": 5}


def test_only_what_was_asked_for_is_sent(driver, case):
    _, server = ask(driver, case, False)
    assert case.asked(server)[0].json.keys() <= case.fields


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_the_framing_does_not_matter(driver, case, stream, framing):
    completion, _ = ask(driver, case, stream, fault=changed(framing=framing))
    assert completion.text == TEXT


def test_a_compressed_answer_is_read(driver, case, stream):
    completion, _ = ask(driver, case, stream, fault=changed(compress=True, framing="chunked"))
    assert completion.text == TEXT


def test_a_slow_drip_of_single_bytes_is_read(driver, case, stream):
    def drip(_request, good):
        body = b"".join(good.writes)
        return dataclasses.replace(good, writes=[body[at : at + 1] for at in range(len(body))], framing="chunked")

    assert ask(driver, case, stream, fault=drip)[0].text == TEXT


def test_a_wrong_content_type_does_not_matter(driver, case, stream):
    headers = {"content-type": "text/plain; charset=iso-8859-1"}
    assert ask(driver, case, stream, fault=changed(headers=headers))[0].text == TEXT


def test_delays_in_every_phase_are_only_delays(driver, case, stream):
    def slow(_request, good):
        writes = [each for write in good.writes for each in (Pause(0.001), write)]
        return dataclasses.replace(good, before=(Pause(0.001),), after_headers=(Pause(0.001),), writes=writes)

    assert ask(driver, case, stream, fault=slow)[0].text == TEXT


def test_a_first_token_is_timed_by_words_and_not_by_headers(driver, case):
    completion, _ = ask(driver, case, True)
    assert 0 < completion.timing.ttft_s <= completion.timing.ttfa_s <= completion.timing.latency_s


def test_connections_are_used_again(driver, case, stream):
    with case.service().serve() as server:
        options = asker(driver, case, server).options["client"]
        several(driver, options, f"{case.provider}/{case.model}", stream, 5)
        assert (len(case.asked(server)), server.connections) == (5, 1)


def test_a_connection_closed_while_keep_alive_was_promised_is_replaced_silently(driver, case, stream):
    with case.service().serve(closes_reused=True) as server:
        options = asker(driver, case, server).options["client"]
        answers = several(driver, options, f"{case.provider}/{case.model}", stream, 4)
        assert [(answer.text, answer.attempts) for answer in answers] == [(TEXT, 1)] * 4
        assert len(case.asked(server)) == 4


def test_a_service_that_hangs_up_after_each_answer_is_connected_to_again(driver, case, stream):
    with case.service(fault=changed(hang_up=True)).serve() as server:
        options = asker(driver, case, server).options["client"]
        answers = several(driver, options, f"{case.provider}/{case.model}", stream, 3)
    assert [(answer.text, answer.attempts) for answer in answers] == [(TEXT, 1)] * 3


def several(driver, options, model, stream, times):
    """Ask several times with one client."""
    if driver is Threads:
        with Client(**options) as client:
            return [
                list(client.stream_text(model, "hi"))[-1].completion if stream else client.generate_text(model, "hi") for _ in range(times)
            ]

    async def main():
        async with AsyncClient(**options) as client:
            if stream:
                return [[event async for event in client.stream_text(model, "hi")][-1].completion for _ in range(times)]
            return [await client.generate_text(model, "hi") for _ in range(times)]

    return asyncio.run(main())


# --- what goes wrong before an answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError), (401, AuthError), (402, RequestError), (403, AuthError), (404, NotFoundError), (408, ProviderTimeoutError),
        (409, RequestError), (413, RequestError), (422, RequestError), (429, RateLimitError), (500, ServerError), (502, ServerError),
        (503, ServerError), (504, ProviderTimeoutError), (529, ServerError),
    ],
)  # fmt: skip
def test_a_status_becomes_its_error_with_the_services_words(driver, case, stream, status, kind):
    fault = lambda *_: json_answer({"error": {"message": "So it is"}}, status, {"x-request-id": "req_9"})  # noqa: E731
    error = failing(kind, driver, case, stream, fault)
    assert "So it is" in str(error)
    assert (error.status, error.request_id, error.attempts) == (status, "req_9", 1)
    assert error.retryable == (status in (409, 429) or ((status == 408 or status >= 500) and (case.repeatable or stream)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page_answer("502 Bad Gateway"), "502 Bad Gateway"),
        (Answer(502, {}, [b""], framing="length"), "502"),
        (json_answer({"detail": "no such thing"}, 502), "no such thing"),
        (json_answer({"message": "no such thing"}, 502), "no such thing"),
        (json_answer({"error": "no such thing"}, 502), "no such thing"),
        (json_answer(["odd"], 502), "odd"),
        (Answer(502, {"content-type": "application/json"}, [b'{"error": '], framing="length"), '{"error":'),
        (json_answer({"error": "packed"}, 502, compress=True), "packed"),
        (Answer(502, {}, [b"x" * 100_000], framing="chunked"), "xxx"),
    ],
)
def test_whatever_an_error_body_is_made_of_its_words_are_found(driver, case, stream, answer, words):
    error = failing(ServerError, driver, case, stream, lambda *_: answer)
    assert words in str(error)
    assert len(str(error)) < 5_000


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, pytest.approx(2.3e9, rel=0.2)),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wish_of_a_busy_service_is_told(driver, case, stream, headers, wish):
    error = failing(RateLimitError, driver, case, stream, lambda *_: json_answer({"error": "busy"}, 429, headers))
    assert error.retry_after == (case.untold_wish if wish is None else wish)


def test_a_busy_service_is_asked_again_after_the_time_it_wants(driver, case, stream):
    answers = iter([json_answer({"error": "busy"}, 429, {"retry-after": "3"})])
    with case.service(fault=lambda _request, good: next(answers, good)).serve() as server:
        asking = asker(driver, case, server, retry=Retry(random=lambda: 0.0))
        completion = asking(f"{case.provider}/{case.model}", stream)
    assert (completion.text, completion.attempts, len(case.asked(server))) == (TEXT, 2, 2)
    assert asking.options["naps"] == [3.0]


def test_a_quota_that_is_used_up_is_not_asked_again(driver, case, stream):
    body = {"error": {"message": "pay", "code": "insufficient_quota"}}
    assert not failing(RateLimitError, driver, case, stream, lambda *_: json_answer(body, 429)).retryable


def test_a_refusal_for_content_is_told_apart(driver, case, stream):
    body = {"error": {"message": "no", "code": "content_filter"}}
    failing(ContentFilterError, driver, case, stream, lambda *_: json_answer(body, 400))


@pytest.mark.parametrize(("word", "retryable"), [("true", True), ("false", False)])
def test_the_services_own_word_on_asking_again_counts(driver, case, stream, word, retryable):
    status = 400 if retryable else 500
    fault = lambda *_: json_answer({"error": "x"}, status, {"x-should-retry": word})  # noqa: E731
    assert failing(RequestError if retryable else ServerError, driver, case, stream, fault).retryable == retryable


def test_a_wrong_key_names_the_variable_and_is_not_shown(driver, case, stream):
    with case.service(key="sk-another").serve() as server, pytest.raises(AuthError) as caught:
        asker(driver, case, server, key=KEY)(f"{case.provider}/{case.model}", stream)
    assert case.key_var in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_that_the_service_repeats_is_not_shown(driver, case, stream):
    fault = lambda *_: json_answer({"error": f"the key {KEY} is no good"}, 400)  # noqa: E731
    error = failing(RequestError, driver, case, stream, fault, key=KEY)
    assert KEY not in str(error)
    assert "[key]" in str(error)


def test_an_unknown_model_says_what_to_do(driver, case, stream):
    with (
        case.service().serve() as server,
        pytest.raises(NotFoundError, match=r"pull_model\('ollama/nowhere'\)|list_models|deployment name"),
    ):
        asker(driver, case, server)(f"{case.provider}/nowhere", stream)


def test_a_server_that_is_down_is_named_with_its_address(driver, case, stream):
    with case.service().serve() as server:
        asking = asker(driver, case, server)
    with pytest.raises(UnreachableError, match=server.url):
        asking(f"{case.provider}/{case.model}", stream)


@pytest.mark.parametrize("cut", [CUT, RESET_CONNECTION])
def test_a_connection_cut_before_the_answer_is_unreachable(driver, case, stream, cut):
    assert failing(UnreachableError, driver, case, stream, changed(before=(cut,))).retryable == (case.repeatable or stream)


def test_a_service_that_stays_silent_runs_into_the_limit(driver, case, stream):
    gate = Gate()
    error = failing(ProviderTimeoutError, driver, case, stream, changed(before=(gate,)), arguments={"timeout_s": 0.05})
    gate.opened.set()
    assert error.retryable == (case.repeatable or stream)


# --- what goes wrong with status 200 ---------------------------------------------------------------------------------------------


def test_an_error_where_the_answer_should_be_is_an_error(driver, case, stream):
    fault = lambda *_: json_answer({"error": {"message": "It broke", "type": "server_error"}})  # noqa: E731
    assert "It broke" in str(failing(ServerError, driver, case, stream, fault))


def test_an_in_band_code_becomes_its_error(driver, case, stream):
    failing(RateLimitError, driver, case, stream, lambda *_: json_answer({"error": {"message": "slow down", "code": 429}}))
    failing(NotFoundError, driver, case, stream, lambda *_: json_answer({"error": {"message": "who?", "code": "model_not_found"}}))


@pytest.mark.parametrize("body", [b"", b"<html><title>Welcome</title></html>", b"OK", b"[1]", b"{}", b"null"])
def test_a_200_without_an_answer_is_no_answer(driver, case, stream, body):
    fault = lambda *_: Answer(200, {"content-type": "text/html"}, [body], framing="length")  # noqa: E731
    with pytest.raises((ReplyError, StreamInterrupted)) as caught:
        ask(driver, case, stream, fault=fault)
    assert body != b"<html><title>Welcome</title></html>" or "Welcome" in str(caught.value)


def test_a_whole_answer_where_a_stream_was_asked_for_is_taken(driver, case):
    service = case.service()

    def ignore_stream(request, _good):
        return service.good(case.unstreamed(request))

    with service.serve():
        completion, _ = ask(driver, case, True, fault=ignore_stream)
    assert (completion.text, completion.reasoning, completion.finish_reason) == (TEXT, case.thought, "stop")


# --- what goes wrong in the middle of a stream -------------------------------------------------------------------------------------


def cut_after(case, *ends):
    return lambda _request, good: dataclasses.replace(good, writes=[case.piece("Half "), case.piece("an ans"), *ends])


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("cut", [CUT, b""], ids=["cut", "end"])
def test_a_truncated_stream_keeps_what_had_come(driver, case, framing, cut):
    def fault(_request, good):
        return dataclasses.replace(good, writes=[case.piece("Half "), case.piece("an ans"), cut], framing=framing)

    assert failing(StreamInterrupted, driver, case, True, fault).partial == "Half an ans"


@pytest.mark.parametrize("kept", range(0, 400, 23))
def test_a_stream_cut_after_any_byte_is_an_error_with_a_beginning_of_the_text(case, kept):
    with pytest.raises((StreamInterrupted, UnreachableError)) as caught:
        ask(Threads, case, True, fault=changed(cut_after=kept * case.stream_bytes // 400))
    assert TEXT.startswith(caught.value.partial)


def test_an_error_in_the_middle_keeps_what_had_come(driver, case):
    error = failing(ServerError, driver, case, True, cut_after(case, case.error))
    assert error.partial == "Half an ans"
    assert "It broke" in str(error)


@pytest.mark.parametrize("case", [case for case in CASES if case.json_pieces], ids=lambda case: case.provider)
def test_garbage_in_the_middle_is_an_error_and_not_a_gap(driver, case):
    broken = case.piece("lost").replace(b"}", b"")
    assert failing(ReplyError, driver, case, True, cut_after(case, broken, case.piece("er"))).partial == "Half an ans"


def test_silence_in_the_middle_runs_into_the_limit_and_keeps_what_had_come(driver, case):
    gate = Gate()
    error = failing(ProviderTimeoutError, driver, case, True, cut_after(case, gate), arguments={"timeout_s": 0.3})
    gate.opened.set()
    assert error.partial == "Half an ans"


def test_a_stream_is_not_asked_for_again_once_words_have_come(driver, case):
    with case.service(fault=cut_after(case, CUT)).serve() as server, pytest.raises(StreamInterrupted):
        asker(driver, case, server, retry=Retry(random=lambda: 0.0))(f"{case.provider}/{case.model}", True)
    assert len(case.asked(server)) == 1


def test_a_stream_that_breaks_before_its_first_word_is_asked_for_again(driver, case):
    faults = iter([changed(before=(CUT,)), changed(writes=[CUT])])

    def twice(request, good):
        fault = next(faults, None)
        return fault(request, good) if fault else good

    completion, server = ask(driver, case, True, fault=twice, retry=Retry(random=lambda: 0.0))
    assert (completion.text, completion.attempts, len(case.asked(server))) == (TEXT, 3, 3)


def test_a_reader_who_leaves_hangs_up_on_the_service(case):
    gate = Gate()
    service = case.service(fault=cut_after(case, gate, *[case.piece("x" * 10_000)] * 500))
    with service.serve() as server, Client(**asker(Threads, case, server).options["client"]) as client:
        events = client.stream_text(f"{case.provider}/{case.model}", "hi")
        assert next(events).text == "Half "
        events.close()
        gate.opened.set()
        assert getattr(server, "files", server).hang_ups.acquire(timeout=10)


# --- models --------------------------------------------------------------------------------------------------------------------


def test_models_are_listed(driver, case):
    with case.service().serve() as server:
        (model,) = asker(driver, case, server).do("list_models", case.provider)
    assert (model.id, model.provider) == (case.model, case.provider)


def test_no_models_at_all_is_an_empty_list(driver, case):
    with case.service(models=case.no_models).serve() as server:
        assert asker(driver, case, server).do("list_models", case.provider) == []


def test_a_healthy_service_says_so(driver, case):
    with case.service().serve() as server:
        health = asker(driver, case, server).do("health_check", case.provider)
    assert health.ok and health.configured and health.latency_s > 0 and server.url in health.detail


@pytest.mark.parametrize(
    "answer", [json_answer({"error": "Unexpected endpoint or method."}), page_answer("Welcome", 200), page_answer("Gone", 502)]
)
def test_a_status_of_200_alone_is_not_health(driver, case, answer):
    with Server(lambda _request: answer) as server:
        assert not asker(driver, case, server).do("health_check", case.provider).ok


def test_a_service_that_is_down_is_unhealthy_and_not_an_exception(driver, case):
    with case.service().serve() as server:
        asking = asker(driver, case, server)
    health = asking.do("health_check", case.provider)
    assert not health.ok and server.url in health.detail


# --- Ollama's own --------------------------------------------------------------------------------------------------------------

OLLAMA = next(case for case in CASES if case.provider == "ollama")


def test_a_model_is_pulled_and_deleted(driver):
    with OllamaService().serve() as server:
        asking = asker(driver, OLLAMA, server)
        steps = asking.do("pull_model", "ollama/new:1b")
        assert (steps[-1].done, steps[-1].completed_bytes, steps[-1].total_bytes) == (True, 1200, 1200)
        assert "new:1b" in [model.id for model in asking.do("list_models", "ollama")]
        assert asking.do("delete_model", "ollama/new:1b") is None
        assert "new:1b" not in [model.id for model in asking.do("list_models", "ollama")]
        with pytest.raises(NotFoundError, match="new:1b"):
            asking.do("delete_model", "ollama/new:1b")


def test_a_model_is_loaded_shown_and_unloaded(driver):
    with OllamaService().serve() as server:
        asking = asker(driver, OLLAMA, server)
        assert [model.loaded for model in asking.do("list_models", "ollama")] == [False]
        assert asking.do("load_model", "ollama/alpine:4b", context_tokens=8192) == pytest.approx(1.203)
        (model,) = asking.do("list_models", "ollama")
        assert (model.loaded, model.context_tokens) == (True, 8192)
        shown = asking.do("show_model", "ollama/alpine:4b")
        assert (shown.context_tokens, shown.detail["capabilities"]) == (131_072, ["completion", "tools"])
        asking.do("unload_model", "ollama/alpine:4b")
        assert [model.loaded for model in asking.do("list_models", "ollama")] == [False]


@pytest.mark.parametrize("name", ["load_model", "show_model", "unload_model"])
def test_a_model_that_is_not_there_can_be_pulled_first(driver, name):
    with OllamaService().serve() as server, pytest.raises(NotFoundError, match=r"pull_model\('ollama/nowhere'\)"):
        asker(driver, OLLAMA, server).do(name, "ollama/nowhere")


def test_an_old_ollama_does_not_tell_what_is_loaded(driver):
    with OllamaService(old=True).serve() as server:
        assert [model.loaded for model in asker(driver, OLLAMA, server).do("list_models", "ollama")] == [None]


@pytest.mark.parametrize("lines", [[{"status": "pulling manifest"}], []])
def test_a_download_that_ends_without_success_is_interrupted(driver, lines):
    with (
        Server(lambda _request: Answer(200, {}, [nd(line) for line in lines])) as server,
        pytest.raises(StreamInterrupted, match="pull again"),
    ):
        asker(driver, OLLAMA, server).do("pull_model", "ollama/new:1b")


def test_other_providers_say_that_they_do_not_pull(driver):
    with ChatService().serve() as server, pytest.raises(ConfigError, match="ollama and lmstudio do"):
        asker(driver, CASES[0], server).do("pull_model", "openai_compatible/x")


def test_ollamas_durations_are_seconds(driver, stream):
    completion, _ = ask(driver, OLLAMA, stream)
    expected = {"load_s": 1.203, "prompt_s": 0.091, "generation_s": 0.06, "server_total_s": 1.820345, "tokens_per_second": 50.0}
    assert completion.reported == pytest.approx(expected)


def test_an_empty_403_of_ollama_points_to_the_host_name(driver, stream):
    error = failing(AuthError, driver, OLLAMA, stream, lambda *_: Answer(403, {}, [b""], framing="length"))
    assert "127.0.0.1" in str(error)


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_is_not_an_answer(driver, stream, reason):
    fault = lambda *_: json_answer({"model": "m", "message": {"content": ""}, "done": True, "done_reason": reason})  # noqa: E731
    assert f"{reason}ed" in str(failing(ReplyError, driver, OLLAMA, stream, fault))


def test_a_whole_answer_of_ollama_that_is_not_done_is_cut(driver, stream):
    fault = lambda *_: json_answer({"model": "m", "message": {"content": "la la"}, "done": False})  # noqa: E731
    assert failing(StreamInterrupted, driver, OLLAMA, stream, fault).partial == "la la"


def test_counts_that_ollama_leaves_out_are_unknown(driver, stream):
    fault = lambda *_: json_answer({"model": "m", "message": {"content": "x"}, "done": True, "done_reason": "length"})  # noqa: E731
    completion, _ = ask(driver, OLLAMA, stream, fault=fault)
    assert (completion.usage, completion.finish_reason, completion.reported) == (Usage(), "length", {})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("box", "http://box:11434"),
        ("box:8080", "http://box:8080"),
        (" 'box' ", "http://box:11434"),
        ("http://box", "http://box"),
        ("https://box/", "https://box"),
        ("https://box:1/ollama/", "https://box:1/ollama"),
        ("box/ollama", "http://box:11434/ollama"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("ollama.com", "https://ollama.com"),
        ("http://user:pw@box:1", "http://user:pw@box:1"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(text, url):
    assert read_host(text) == url
    assert read_host(url) == url


@pytest.mark.parametrize("text", ["box:port", "http://[::1", "a:b:c"])
def test_an_address_that_is_none_is_told(text):
    with pytest.raises(ConfigError, match="no address"):
        read_host(text)


def test_a_wrong_end_of_ollamas_base_url_is_pointed_out(driver, stream):
    with OllamaService().serve() as server, pytest.raises(NotFoundError, match="must not end in 'v1'"):
        asker(driver, dataclasses.replace(OLLAMA, path="/v1"), server)("ollama/alpine:4b", stream)


def test_a_base_url_of_lm_studio_without_v1_is_pointed_out(driver, stream):
    case = dataclasses.replace(CASES[1], path="")
    answer = json_answer({"error": "Unexpected endpoint or method. (POST /chat/completions)"})
    with Server(lambda _request: answer) as server, pytest.raises(NotFoundError, match="must end in /v1"):
        asker(driver, case, server)("lmstudio/demo-small", stream)


# --- what is sent ------------------------------------------------------------------------------------------------------------------

PICTURE = ImagePart(data=b"\x89PNG", mime="image/png")
TALK = (
    Message(role="developer", content="Be brief."),
    Message(role="user", content=(TextPart(text="What is it?"), PICTURE)),
    Message(role="assistant", tool_calls=(ToolCall(id="c1", name="zoom", arguments='{"by": 2}'),)),
    Message(role="tool", content="done", tool_call_id="c1"),
)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


def body(provider, **fields):
    return provider.wire(ChatRequest(model="m", **{"messages": TALK, **fields})).body


def test_messages_with_pictures_and_tools_are_chat_completions():
    system, user, assistant, tool = body(OpenAICompatible())["messages"]
    assert system == {"role": "developer", "content": "Be brief."}
    assert user["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]
    function = {"name": "zoom", "arguments": '{"by": 2}'}
    assert assistant == {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    assert tool == {"role": "tool", "content": "done", "tool_call_id": "c1"}


def test_messages_with_pictures_and_tools_are_ollamas():
    system, user, assistant, tool = body(Ollama())["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "What is it?", "images": ["iVBORw=="]}
    assert assistant["tool_calls"] == [{"id": "c1", "function": {"name": "zoom", "arguments": {"by": 2}}}]
    assert tool == {"role": "tool", "content": "done", "tool_call_id": "c1"}


def test_an_image_by_address_is_refused_where_the_service_does_not_fetch():
    messages = (Message(role="user", content=(ImagePart(url="https://example.org/a.png"),)),)
    assert body(OpenAICompatible(), messages=messages)["messages"][0]["content"][0]["image_url"] == {"url": "https://example.org/a.png"}
    with pytest.raises(ConfigError, match="data="):
        body(Ollama(), messages=messages)


def test_tool_arguments_that_are_not_json_are_refused_for_ollama():
    with pytest.raises(ConfigError, match="zoom"):
        body(Ollama(), messages=(Message(role="assistant", tool_calls=(ToolCall(id="", name="zoom", arguments="{"),)),))


def test_a_schema_is_sent_in_each_dialects_way():
    assert body(LMStudio(), schema=SCHEMA)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }
    assert body(Ollama(), schema=SCHEMA)["format"] == SCHEMA


def test_extra_comes_last_and_options_are_merged():
    assert body(OpenAICompatible(), seed=1, extra={"seed": 2, "top_k": 3})["seed"] == 2
    merged = body(Ollama(), seed=1, temperature=0, extra={"options": {"seed": 2, "num_ctx": 4096}, "think": False})
    assert (merged["options"], merged["think"]) == ({"seed": 2, "temperature": 0, "num_ctx": 4096}, False)


@pytest.mark.parametrize("provider", [OpenAICompatible(), Ollama()])
@pytest.mark.parametrize("field", ["model", "messages", "stream"])
def test_extra_cannot_take_the_place_of_an_argument(provider, field):
    with pytest.raises(ConfigError, match=field):
        body(provider, extra={field: None})


def test_openai_itself_gets_the_new_name_of_the_limit():
    assert body(OpenAICompatible(), max_tokens=5)["max_completion_tokens"] == 5
    assert body(OpenAICompatible(base_url="http://127.0.0.1:1/v1"), max_tokens=5)["max_tokens"] == 5


def test_half_a_character_in_a_prompt_does_not_stop_the_request():
    provider = OpenAICompatible()
    wire = provider.wire(ChatRequest(model="m", messages=(Message(role="user", content="a\ud83d"),)))
    assert json.loads(provider.build(wire, stream=False).content)["messages"][0]["content"] == "a?"


# --- traps of chat completions -------------------------------------------------------------------------------------------------------


def reply_of(*chunks, done=True, provider=OpenAICompatible()):  # noqa: B008 - it has no state
    reader = provider.reader(ChatRequest(model="m", messages=()))
    events = [event for each in chunks for event in reader.feed(each if isinstance(each, bytes) else sse(each))]
    events += reader.feed(b"data: [DONE]\n\n") if done else []
    return events, reader.close()


STOP = chunk({}, "stop")


def test_the_last_usage_counts_wherever_it_stands():
    early, late = {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 5, "completion_tokens": 2}
    _, reply = reply_of(chunk({"content": "a"}) | {"usage": early}, STOP | {"usage": late}, {"choices": [], "usage": None})
    assert reply.usage == Usage(input_tokens=5, output_tokens=2)
    _, reply = reply_of(chunk({"content": "a"}), STOP, {"choices": [{"delta": {}, "finish_reason": None}], "usage": late})
    assert reply.usage == Usage(input_tokens=5, output_tokens=2)


def test_details_of_the_usage_are_read():
    usage = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}, "completion_tokens": True}
    assert reply_of(STOP | {"usage": usage})[1].usage == Usage(reasoning_tokens=1, cached_input_tokens=4)


def test_chunks_without_choices_or_delta_are_passed_over():
    events, reply = reply_of({"choices": [], "prompt_filter_results": []}, {"choices": [{"index": 0}]}, chunk({"content": "a"}), STOP)
    assert (len(events), reply.text) == (1, "a")


def test_the_role_alone_is_not_a_token():
    assert reply_of(chunk({"role": "assistant", "content": ""}), chunk({"content": None}), chunk({"content": "a"}), STOP)[0][0].text == "a"


def test_reasoning_in_two_fields_is_taken_once_and_inline_thoughts_stay_in_the_text():
    _, reply = reply_of(chunk({"reasoning": "hm", "reasoning_content": "hm"}), chunk({"content": "<think>x</think>y"}), STOP)
    assert (reply.reasoning, reply.text) == ("hm", "<think>x</think>y")


def test_the_choices_beside_the_first_are_not_mixed_in():
    other = {"choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}]}
    assert reply_of(chunk({"content": "a"}), other, STOP)[1].text == "a"


@pytest.mark.parametrize(
    ("reason", "read"), [("function_call", "tool_calls"), ("length", "length"), ("content_filter", "content_filter"), ("odd", "unknown")]
)
def test_finish_reasons_are_read(reason, read):
    assert reply_of(chunk({"content": "a"}, reason), done=False)[1].finish_reason == read


@pytest.mark.parametrize("reason", ["", None])
def test_an_empty_finish_reason_is_none(reason):
    with pytest.raises(StreamInterrupted):
        reply_of(chunk({"content": "a"}, reason), done=False)
    assert reply_of(chunk({"content": "a"}, reason))[1].finish_reason == "unknown"


@pytest.mark.parametrize(
    "event",
    [
        sse({"error": {"message": "It broke", "code": None}}),
        sse({"error": {"message": "It broke", "code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
        sse({"error": {"message": "It broke"}, "message": "It broke"}, event="error"),
        sse({"message": "It broke"}, event="error"),
        b"event: error\ndata: It broke\n\n",
        sse({"error": "It broke", "error_type": "generation"}),
        sse({"error_type": "overloaded", "error_message": "It broke"}),
        sse({"error": "It broke"}),
        sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"message": "It broke"}}]}),
    ],
)
def test_every_shape_of_an_error_in_a_stream_is_an_error(event):
    with pytest.raises(ServerError, match="It broke") as caught:
        reply_of(chunk({"content": "so far"}), event)
    assert caught.value.partial == "so far"
    assert caught.value.retryable


def test_a_comment_that_a_proxy_wrapped_as_data_and_bare_values_are_passed_over():
    assert reply_of(b"data: : PROCESSING\n\ndata: NaN\n\ndata: 7\n\n", chunk({"content": "a"}), STOP)[1].text == "a"


def test_the_message_of_a_last_chunk_does_not_repeat_the_deltas():
    whole = {"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]}
    assert reply_of(chunk({"content": "a"}), chunk({"content": "b"}), whole)[1].text == "ab"


def fragments(*each):
    return [chunk({"tool_calls": [fragment]}) for fragment in each]


def call(index=None, id_=None, name=None, arguments=None):
    return {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "sent",
    [
        [call(0, "a", "f", ""), call(0, arguments="{1"), call(1, "b", "g", "{2}"), call(0, arguments="}")],
        [call(0, "a", "f", "{1}"), call(0, "b", "g", "{2}")],  # the index is always 0
        [call(None, "a", "f", "{1}"), call(None, "b", "g", "{2}")],  # there is none
        [call(None, "a", "f", "{"), call(None, None, "", "1}"), call(None, "b", "g", "{2}")],
        [call(0, "a", "f", "{1"), call(0, "a", "", "}"), call(1, "b", "g", "{2}"), call(1, "b", None, "")],  # the id comes each time
        [call(None, "a", "f", "{1"), call(None, "b", "g", "{2"), call(None, "a", None, "}"), call(None, "b", None, "}")],
        [call(0, "", "f", "{1}"), call(0, "a"), call(1, "b", "g", "{2}")],  # the id comes late
    ],
)
def test_tool_calls_are_put_together_from_fragments(sent):
    events, reply = reply_of(*fragments(*sent), chunk({}, "stop"))
    assert reply.tool_calls == (ToolCall(id="a", name="f", arguments="{1}"), ToolCall(id="b", name="g", arguments="{2}"))
    assert reply.finish_reason == "tool_calls"
    assert {event.kind for event in events} == {"tool_call"}


def test_log_probabilities_are_read():
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -9999.0}]
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": top}]}
    sent = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": logprobs, "finish_reason": None}]}
    assert reply_of(sent, STOP)[1].logprobs == (TokenLogprob("a", -0.1, (("a", -0.1), ("b", -9999.0))),)


def test_a_refusal_is_shown_and_not_kept():
    _, reply = reply_of(chunk({"refusal": "I would rather not."}), STOP)
    assert (reply.text, reply.finish_reason, reply.keepable) == ("I would rather not.", "content_filter", False)


def test_a_character_cut_in_two_escapes_comes_out_whole():
    events, reply = reply_of(b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', chunk({"content": "x"}), STOP)
    assert reply.text == "\ufffdx"
    events, reply = reply_of(*[b'data: {"choices":[{"delta":{"content":"\\u%s"}}]}\n\n' % half for half in (b"d83d", b"de00")], STOP)
    assert [event.text for event in events] == [reply.text] == ["😀"]


def test_words_in_a_last_event_without_its_blank_line_are_events_too():
    reader = OpenAICompatible().reader(ChatRequest(model="m", messages=()))
    assert reader.feed(sse(chunk({"content": "a"}, "stop")).rstrip()) == []
    assert reader.close().text == "a"
    assert [event.text for event in reader.tail] == ["a"]


def test_the_model_that_answered_is_named(driver, stream):
    assert ask(driver, CASES[0], stream)[0].served_model == "demo-small-0711"


def test_the_request_id_is_kept(driver, stream):
    assert ask(driver, CASES[0], stream)[0].request_id == "req_1"


def test_every_error_of_a_provider_survives_a_process_border(case):
    import pickle

    error = failing(ServerError, Threads, case, False, lambda *_: json_answer({"error": "x"}, 500))
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, ProviderError)
    assert (str(twin), twin.status) == (str(error), error.status)
