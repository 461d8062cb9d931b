"""Our fakes are good ones: the services' own clients work against them, and read what ours read."""

import base64

import cohere
import huggingface_hub
import ollama
import openai
import pytest
import replicate
from google import genai
from google.genai import errors as genai_errors
from replicate.exceptions import ReplicateError

from servers.azure import AzureService
from servers.chat_completions import USAGE, ChatService
from servers.cohere import USAGE as COHERE_USAGE
from servers.cohere import CohereService
from servers.huggingface import PNG, HuggingFaceService
from servers.ollama import OllamaService
from servers.openrouter import COST, OpenRouterService
from servers.replicate import ReplicateService
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


# --- Azure, by both of its surfaces --------------------------------------------------------------------------------------------


@pytest.fixture
def azure_server():
    with AzureService(key="k", tokens=("token-1",)).serve() as server:
        yield server


def dated_client(server, **login):
    return openai.AzureOpenAI(azure_endpoint=server.url, api_version="2024-10-21", max_retries=0, **login)


def v1_client(server, **login):
    return openai.OpenAI(base_url=f"{server.url}/openai/v1", default_headers={"api-key": "k"}, api_key="unused", max_retries=0)


@pytest.mark.parametrize(
    ("make", "path"), [(dated_client, "/openai?api-version=2024-10-21"), (v1_client, "/openai/v1")], ids=["dated", "v1"]
)
def test_the_openai_client_reads_azure(azure_server, make, path):
    with make(azure_server, api_key="k") as client:
        whole = client.chat.completions.create(**ASK)
        chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
        theirs = azure_server.requests[0]
        models = [model.id for model in client.models.list()]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices and chunk.choices[0].delta)
    completion = ours(azure_server, "azure", "demo-small", path)
    assert whole.choices[0].message.content == text == completion.text
    assert (whole.model, models) == (completion.served_model, ["demo-small"])
    assert chunks[0].choices == [] and chunks[0].model_extra["prompt_filter_results"]
    assert (azure_server.requests[-1].path, azure_server.requests[-1].headers["api-key"]) == (theirs.path, theirs.headers["api-key"])


def test_the_openai_client_signs_in_to_azure_as_we_do(azure_server):
    with dated_client(azure_server, azure_ad_token_provider=lambda: "token-1") as client:
        client.chat.completions.create(**ASK)
    url = f"{azure_server.url}/openai?api-version=2024-10-21"
    with Client(base_urls={"azure": url}, api_keys={"azure": lambda: "token-1"}, cache=False, journal=False) as client:
        client.generate_text("azure/demo-small", "hi")
    theirs, mine = azure_server.requests
    assert mine.headers["authorization"] == theirs.headers["authorization"] == "Bearer token-1"
    assert mine.path == theirs.path


def test_the_openai_client_understands_azures_errors(azure_server):
    with dated_client(azure_server, api_key="k") as client, pytest.raises(openai.NotFoundError, match="No deployment"):
        client.chat.completions.create(**ASK | {"model": "gpt-5-mini"})
    with dated_client(azure_server, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**ASK)


# --- Cohere ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohere_server():
    with CohereService(key="k").serve() as server:
        yield server


@pytest.fixture(scope="module")
def cohere_client(cohere_server):
    return cohere.ClientV2(api_key="k", base_url=cohere_server.url)


def test_the_cohere_client_reads_a_whole_answer(cohere_client, cohere_server):
    answer = cohere_client.chat(**ASK)
    completion = ours(cohere_server, "cohere", "demo-small")
    thought, text = answer.message.content
    assert (thought.thinking, text.text, answer.finish_reason) == (completion.reasoning, completion.text, "COMPLETE")
    billed = answer.usage.billed_units
    assert (billed.input_tokens, billed.output_tokens) == (completion.usage.input_tokens, completion.usage.output_tokens)


def test_the_cohere_client_reads_a_stream(cohere_client, cohere_server):
    *events, end = cohere_client.chat_stream(**ASK)
    contents = [event.delta.message.content for event in events if event.type == "content-delta"]
    completion = ours(cohere_server, "cohere", "demo-small")
    assert "".join(content.text or "" for content in contents) == completion.text
    assert "".join(content.thinking or "" for content in contents) == completion.reasoning
    assert (end.type, end.delta.usage.billed_units.input_tokens) == ("message-end", COHERE_USAGE["billed_units"]["input_tokens"])


def test_the_cohere_client_sends_what_we_send(cohere_client, cohere_server):
    sampling = {"temperature": 0.5, "max_tokens": 9, "seed": 3}
    cohere_client.chat(**ASK, **sampling, p=0.9, stop_sequences=["."])
    with Client(base_urls={"cohere": cohere_server.url}, api_keys={"cohere": "k"}, cache=False, journal=False) as client:
        client.generate_text("cohere/demo-small", "hi", **sampling, top_p=0.9, stop=".")
    theirs, mine = cohere_server.requests[-2:]
    assert (mine.path, mine.headers["authorization"]) == (theirs.path, theirs.headers["authorization"])
    assert mine.json == {name: value for name, value in theirs.json.items() if name != "stream"}


def test_the_cohere_client_understands_the_fakes_errors_and_models(cohere_client, cohere_server):
    with pytest.raises(cohere.NotFoundError, match="nowhere"):
        cohere_client.chat(**ASK | {"model": "nowhere"})
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="wrong", base_url=cohere_server.url).chat(**ASK)
    assert [model.name for model in cohere_client.models.list(endpoint="chat").models] == ["demo-small"]


# --- Vertex AI and Replicate ------------------------------------------------------------------------------------------------------


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
