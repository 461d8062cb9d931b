"""Our fakes are good ones: the services' own clients work against them, and read what ours read."""

import base64

import ollama
import openai
import pytest
import replicate
from google import genai
from google.genai import errors as genai_errors
from replicate.exceptions import ReplicateError

from servers.chat_completions import USAGE, ChatService
from servers.ollama import OllamaService
from servers.replicate import PNG, ReplicateService
from servers.vertex import VertexService
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
def vertex_server():
    with VertexService(key="k").serve() as server:
        yield server


@pytest.fixture
def gemini(vertex_server):
    options = {"base_url": vertex_server.url, "api_version": "v1beta1"}
    with genai.Client(enterprise=True, api_key="k", http_options=options) as client:
        yield client


def test_googles_client_reads_a_whole_answer(gemini, vertex_server):
    answer = gemini.models.generate_content(model="gemini-demo", contents="hi")
    completion = ours(vertex_server, "vertex", "gemini-demo")
    assert (answer.text, answer.model_version) == (completion.text, completion.served_model)
    thoughts = [part.text for part in answer.candidates[0].content.parts if part.thought]
    assert "".join(thoughts) == completion.reasoning
    assert answer.usage_metadata.prompt_token_count == completion.usage.input_tokens


def test_googles_client_reads_a_stream(gemini, vertex_server):
    pieces = list(gemini.models.generate_content_stream(model="gemini-demo", contents="hi"))
    completion = ours(vertex_server, "vertex", "gemini-demo")
    assert "".join(piece.text or "" for piece in pieces) == completion.text
    usage = pieces[-1].usage_metadata
    assert usage.candidates_token_count + usage.thoughts_token_count == completion.usage.output_tokens


def test_googles_client_sends_what_we_send(gemini, vertex_server):
    gemini.models.generate_content(model="gemini-demo", contents="hi")
    ours(vertex_server, "vertex", "gemini-demo")
    theirs, mine = vertex_server.requests
    assert theirs.json["contents"] == mine.json["contents"]
    assert (theirs.path, theirs.headers["x-goog-api-key"]) == (
        mine.path.replace("streamGenerateContent?alt=sse", "generateContent"),
        mine.headers["x-goog-api-key"],
    )


def test_googles_client_understands_the_fakes_errors(gemini):
    with pytest.raises(genai_errors.ClientError, match="nowhere") as caught:
        gemini.models.generate_content(model="nowhere", contents="hi")
    assert caught.value.code == 404


@pytest.fixture
def replicate_server():
    with ReplicateService(key="k").serve() as server:
        yield server


@pytest.fixture
def replicas(replicate_server):
    return replicate.Client(api_token="k", base_url=replicate_server.url)


def test_replicates_client_reads_a_job(replicas, replicate_server):
    pieces = replicas.run("acme/alpine", input={"prompt": "hi"})
    assert "".join(pieces) == ours(replicate_server, "replicate", "acme/alpine").text
    theirs, mine = [request for request in replicate_server.requests if request.method == "POST"]
    assert (theirs.json["input"], theirs.path) == (mine.json["input"], mine.path)


def test_replicates_client_reads_a_stream(replicas, replicate_server):
    events = [event for event in replicas.stream("acme/alpine", input={"prompt": "hi"}) if event.event.value == "output"]
    assert "".join(event.data for event in events) == ours(replicate_server, "replicate", "acme/alpine").text


def test_replicates_client_reads_files_and_cancels_jobs(replicas, replicate_server):
    replicate_server.handler.output = [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]  # of addresses it takes only https
    (file,) = replicas.run("acme/alpine", input={"prompt": "hi"})
    assert file.read() == PNG
    assert replicas.predictions.cancel("job1").status == "canceled"


def test_replicates_client_understands_the_fakes_errors_and_models(replicas):
    with pytest.raises(ReplicateError, match="404"):
        replicas.run("acme/nowhere", input={})
    assert replicas.models.get("acme/alpine").name == "alpine"
