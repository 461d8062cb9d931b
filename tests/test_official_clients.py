"""Our fakes are good ones: the services' own clients work against them, and read what ours read."""

import huggingface_hub
import ollama
import openai
import pytest

from servers.chat_completions import USAGE, ChatService
from servers.huggingface import PNG, HuggingFaceService
from servers.ollama import OllamaService
from servers.openrouter import COST, OpenRouterService
from toolkit import Client

ASK = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}
CHAT = {"model": "alpine:4b", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def chat_server():
    with ChatService(key="k").serve() as server:
        yield server


@pytest.fixture
def ollama_server():
    with OllamaService().serve() as server:
        yield server


@pytest.fixture
def theirs(chat_server):
    with openai.OpenAI(base_url=f"{chat_server.url}/v1", api_key="k", max_retries=0) as client:
        yield client


def ours(server, provider, model, path=""):
    with Client(base_urls={provider: server.url + path}, api_keys={provider: "k"}, cache=False, journal=False) as client:
        return list(client.stream_text(f"{provider}/{model}", "hi"))[-1].completion


def test_the_openai_client_reads_a_whole_answer(theirs, chat_server):
    answer = theirs.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == ours(chat_server, "openai_compatible", "demo-small", "/v1").text
    assert answer.usage.completion_tokens == USAGE["completion_tokens"]


def test_the_openai_client_reads_a_stream(theirs, chat_server):
    chunks = list(theirs.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    completion = ours(chat_server, "openai_compatible", "demo-small", "/v1")
    assert text == completion.text
    assert chunks[-1].usage.prompt_tokens == completion.usage.input_tokens


def test_the_openai_client_understands_the_fakes_errors_and_models(theirs):
    with pytest.raises(openai.NotFoundError, match="nowhere"):
        theirs.chat.completions.create(**ASK | {"model": "nowhere"})
    with pytest.raises(openai.AuthenticationError):
        theirs.with_options(api_key="wrong").models.list()
    assert [model.id for model in theirs.models.list()] == ["demo-small"]


def test_the_ollama_client_reads_a_whole_answer(ollama_server):
    answer = ollama.Client(host=ollama_server.url).chat(**CHAT)
    completion = ours(ollama_server, "ollama", "alpine:4b")
    assert (answer.message.content, answer.message.thinking) == (completion.text, completion.reasoning)
    assert (answer.prompt_eval_count, answer.eval_count) == (completion.usage.input_tokens, completion.usage.output_tokens)


def test_the_ollama_client_reads_a_stream(ollama_server):
    pieces = list(ollama.Client(host=ollama_server.url).chat(**CHAT, stream=True))
    assert "".join(piece.message.content for piece in pieces) == ours(ollama_server, "ollama", "alpine:4b").text
    assert pieces[-1].done_reason == "stop"


def test_the_ollama_client_manages_models(ollama_server):
    client = ollama.Client(host=ollama_server.url)
    assert [step.status for step in client.pull("new:1b", stream=True)][-1] == "success"
    assert {model.model for model in client.list().models} == {"alpine:4b", "new:1b"}
    assert client.delete("new:1b").status == "success"
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.delete("new:1b")
    with pytest.raises(ollama.ResponseError, match="does not exist"):
        list(client.pull("no/such", stream=True))


@pytest.fixture
def hub_server(monkeypatch):
    with HuggingFaceService(key="hf_k").serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def hub_client(server, path, **options):
    return huggingface_hub.InferenceClient(base_url=server.url + path, api_key="hf_k", **options)


def our_hub_client(server):
    return Client(base_urls={"huggingface": f"{server.url}/v1"}, api_keys={"huggingface": "hf_k"}, cache=False, journal=False)


def test_the_hugging_face_client_reads_a_whole_answer(hub_server):
    answer = hub_client(hub_server, "/v1").chat_completion(messages=ASK["messages"], model="demo-small")
    with our_hub_client(hub_server) as client:
        completion = client.generate_text("huggingface/demo-small", "hi")
    assert (answer.choices[0].message.content, answer.usage.completion_tokens) == (completion.text, completion.usage.output_tokens)


def test_the_hugging_face_client_reads_a_stream(hub_server):
    with hub_client(hub_server, "/v1") as theirs:
        chunks = theirs.chat_completion(messages=ASK["messages"], model="demo-small", stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    with our_hub_client(hub_server) as client:
        assert list(client.stream_text("huggingface/demo-small", "hi"))[-1].completion.text == text


def test_the_hugging_face_client_draws_what_ours_draws(hub_server):
    theirs = hub_client(hub_server, "/hf-inference/models/acme/painter")
    theirs.text_to_image("a stone bridge", width=64, height=32, seed=3, guidance_scale=2.0)
    with our_hub_client(hub_server) as client:
        result = client.generate_image(
            "huggingface/acme/painter:hf-inference", "a stone bridge", size=(64, 32), seed=3, extra={"guidance_scale": 2.0}
        )
    assert result.images[0].data == PNG
    asked_by_them, asked_by_us = hub_server.requests
    assert (asked_by_us.path, asked_by_us.json) == (asked_by_them.path, asked_by_them.json)


def test_the_hugging_face_client_understands_the_fakes_errors(hub_server):
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="nowhere"):
        hub_client(hub_server, "/v1").chat_completion(messages=ASK["messages"], model="nowhere")


def test_the_openai_client_reads_openrouters_stream():
    with OpenRouterService(key="k").serve() as server:
        with openai.OpenAI(base_url=f"{server.url}/api/v1", api_key="k", max_retries=0) as client:
            chunks = list(client.chat.completions.create(**ASK, stream=True))
        completion = ours(server, "openrouter", "demo-small", "/api/v1")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == completion.text
    assert chunks[-1].usage.cost == completion.cost_usd == COST
