"""Our fakes are good ones: the services' own clients work against them, and read what ours read."""

import ollama
import openai
import pytest

from servers.chat_completions import USAGE, ChatService
from servers.ollama import OllamaService
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
