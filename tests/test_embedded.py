import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ConfigError, NotFoundError, RequestError
from toolkit.providers.embedded import Embedded
from toolkit.providers.ngram import tokenise
from toolkit.types import ChatRequest, ImagePart, Message, TextPart
from toolkit.wire.steps import Send

URL = Embedded.base_url + "/chat/completions"
MODELS = [f"ngram-{order}" for order in range(1, 6)]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "models"


@pytest.fixture(scope="module")
def provider(models_dir):
    return Embedded(models_dir=models_dir)


def body_of(model="ngram-3", prompt="The value of", **options):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **options}


def ask(provider, body):
    with httpx.Client(transport=provider.transport()) as client:
        return client.post(URL, json=body)


def stream(provider, body):
    return events(ask(provider, body | {"stream": True}).content)


def events(content):
    lines = content.decode().split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def text_of(chunks):
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def request_of(**fields):
    return ChatRequest(**({"model": "ngram-3", "messages": (Message(role="user", content="The value of"),), "seed": 1} | fields))


def drive(provider, steps):
    """Carry out the steps of a call that only sends."""
    response = None
    with httpx.Client(transport=provider.transport()) as client:
        while True:
            try:
                step = steps.send(response)
            except StopIteration as end:
                return end.value
            assert isinstance(step, Send)
            response = client.send(step.request)


# --- answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers(provider, model):
    reply = drive(provider, provider.answer(request_of(model=model), provider.wire(request_of(model=model))))
    assert reply.text
    assert reply.served_model == model
    assert reply.finish_reason in ("stop", "length")
    assert reply.request_id.startswith("embedded-")
    assert reply.usage.input_tokens == 3
    assert 0 < reply.usage.output_tokens <= 64


def test_the_dialect_reads_a_stream_to_the_same_reply(provider):
    request = request_of(extra={"logprobs": True, "top_logprobs": 2})
    wire = provider.wire(request)
    whole = drive(provider, provider.answer(request, wire))
    reader = provider.reader(request)
    with httpx.Client(transport=provider.transport()) as client:
        pieces = [event.text for event in reader.feed(client.send(provider.build(wire, stream=True)).content)]
    reply = reader.close()
    assert "".join(pieces) == reply.text == whole.text
    assert (reply.usage, reply.finish_reason, reply.logprobs) == (whole.usage, whole.finish_reason, whole.logprobs)
    assert len(whole.logprobs[0].top) == 2


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    model=st.sampled_from(MODELS),
    stop=st.lists(st.sampled_from([" the", "e", ". ", "is a", '"', ",", "\n", " of the"]), max_size=3),
    options=st.sampled_from([{}, {"temperature": 0.6}, {"top_p": 0.7}, {"temperature": 0}, {"max_tokens": 9}]),
)
def test_streamed_and_whole_text_are_the_same(provider, seed, model, stop, options):
    body = body_of(model, seed=seed, stop=stop, **options)
    chunks = stream(provider, body)
    [choice] = ask(provider, body).json()["choices"]
    assert text_of(chunks) == choice["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert not any(text in choice["message"]["content"] for text in stop)


def test_a_stream_has_one_chunk_per_token_and_the_usage_at_its_end(provider):
    first, *middle, finish, last = stream(provider, body_of(seed=3, stream_options={"include_usage": True}))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert finish["choices"][0]["delta"] == {}
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": len(middle), "total_tokens": 3 + len(middle)}
    assert {chunk["usage"] for chunk in (first, *middle, finish)} == {None}
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["id"] == first["id"] for chunk in (*middle, finish, last))


def test_usage_is_streamed_only_when_asked_for(provider):
    assert not any("usage" in chunk for chunk in stream(provider, body_of(seed=3)))


def test_the_prompt_tokens_of_a_chat_are_those_of_all_its_messages(provider):
    body = body_of() | {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Explain lists, please!"}]}
    expected = len(tokenise("Be brief.")) + len(tokenise("Explain lists, please!"))
    assert ask(provider, body).json()["usage"]["prompt_tokens"] == expected


def test_text_parts_are_read_as_the_text_they_make(provider):
    parts = [{"type": "text", "text": "The value"}, {"type": "text", "text": " of"}]
    answers = {
        ask(provider, body_of(prompt=prompt, seed=1)).json()["choices"][0]["message"]["content"] for prompt in (parts, "The value of")
    }
    assert len(answers) == 1


def test_logprobs_come_with_each_token_and_are_natural_logarithms(provider):
    [choice] = ask(provider, body_of(seed=1, logprobs=True, top_logprobs=3)).json()["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(bytes(token["bytes"]).decode() == token["token"] and len(token["top_logprobs"]) == 3 for token in tokens)
    assert all(token["logprob"] <= token["top_logprobs"][0]["logprob"] <= 0 for token in tokens)
    assert all(math.fsum(math.exp(other["logprob"]) for other in token["top_logprobs"]) <= 1 for token in tokens)


def test_logprobs_are_left_out_unless_asked_for(provider):
    assert ask(provider, body_of(seed=1)).json()["choices"][0]["logprobs"] is None


def test_the_answer_has_64_tokens_at_most_unless_told_otherwise(provider):
    endless = {"model": "ngram-1", "temperature": 0}
    assert ask(provider, body_of(**endless)).json()["usage"]["completion_tokens"] == 64
    assert ask(provider, body_of(**endless, max_tokens=100)).json()["usage"]["completion_tokens"] == 100
    assert ask(provider, body_of(**endless, max_completion_tokens=7)).json()["usage"]["completion_tokens"] == 7


def test_a_stream_is_made_while_it_is_read(provider):
    # Made in advance, a hundred million tokens would take the best part of an hour.
    body = body_of("ngram-1", temperature=0, max_tokens=10**8, stream=True)
    with httpx.Client(transport=provider.transport()) as client, client.stream("POST", URL, json=body) as response:
        frames = response.iter_raw()
        assert sum(b"content" in next(frames) for _ in range(5)) == 5


def test_the_service_lists_its_models(provider):
    assert [model.id for model in drive(provider, provider.list_models())] == MODELS


def test_health_says_how_many_models_there_are(provider):
    assert drive(provider, provider.health()).detail.startswith("5 models")


# --- the event loop ------------------------------------------------------------------------------------------------------


async def ticks_during(work):
    """How often another task of the loop gets its turn meanwhile."""
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    ticks = 0
    result = await work
    ticker.cancel()
    return ticks, result


def test_the_asynchronous_answer_is_the_same(provider):
    async def main():
        async with httpx.AsyncClient(transport=provider.transport()) as client:
            whole = await client.post(URL, json=body_of(seed=4))
            streamed = await client.post(URL, json=body_of(seed=4, stream=True))
        return whole.json()["choices"][0]["message"]["content"], text_of(events(streamed.content))

    expected = ask(provider, body_of(seed=4)).json()["choices"][0]["message"]["content"]
    assert asyncio.run(main()) == (expected, expected)


def test_training_does_not_block_the_event_loop(tmp_path):
    provider = Embedded(models_dir=tmp_path)
    request = httpx.Request("POST", URL, json=body_of(max_tokens=1))
    ticks, response = asyncio.run(ticks_during(provider.transport().handle_async_request(request)))
    assert response.status_code == 200
    assert ticks > 20


@pytest.mark.parametrize("streamed", [True, False])
def test_other_tasks_get_their_turn_between_tokens(provider, streamed):
    body = body_of("ngram-1", temperature=0, max_tokens=200, stream=streamed)
    ask(provider, body)

    async def answer():
        response = await provider.transport().handle_async_request(httpx.Request("POST", URL, json=body))
        return await response.aread()

    ticks, content = asyncio.run(ticks_during(answer()))
    assert content
    assert ticks >= 200 // 8


def test_threads_that_ask_a_fresh_provider_at_once_get_the_same_answer(models_dir):
    provider = Embedded(models_dir=models_dir)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(provider, body_of(seed=9)).json()["choices"], range(16)))
    assert all(answer == answers[0] for answer in answers)


# --- refusals ------------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_a_404_that_lists_the_known_ones(provider):
    with pytest.raises(NotFoundError, match=r"ngram-9.*ngram-1, ngram-2, ngram-3, ngram-4, ngram-5"):
        drive(provider, provider.answer(request_of(), provider.wire(request_of(model="ngram-9"))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number of at least 0; got -0.1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"top_p": 0}, "top_p must be a number above 0 and at most 1; got 0"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1; got 0"),
        ({"max_tokens": 2.5}, "max_tokens must be a whole number"),
        ({"max_completion_tokens": 0}, "max_completion_tokens must be"),
        ({"seed": "one"}, "seed must be a whole number; got 'one'"),
        ({"stop": [""]}, "stop must be"),
        ({"stop": 3}, "stop must be"),
        ({"n": 2}, "n must be 1"),
        ({"logprobs": 5}, "logprobs must be true or false"),
        ({"top_logprobs": 5}, "top_logprobs needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be a whole number from 0 to 20"),
        ({"tools": [{}]}, "there is no option tools"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"messages": []}, "messages must be a list of at least one object"),
        ({"messages": [{"role": "user", "content": 3}]}, "reads text only"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text only"),
        ({"model": 3}, "model must be a string"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_bad_value_is_a_400_that_says_which(provider, options, message, streamed):
    response = ask(provider, body_of() | options | {"stream": streamed})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_a_bad_value_reaches_the_caller_as_a_request_error(provider):
    with pytest.raises(RequestError, match="embedded answered 400: top_p must be"):
        drive(provider, provider.answer(request_of(), provider.wire(request_of(top_p=2.0))))


def test_an_image_is_refused(provider):
    request = request_of(messages=(Message(role="user", content=(TextPart(text="What is it?"), ImagePart(data=b"png"))),))
    with pytest.raises(RequestError, match="reads text only"):
        drive(provider, provider.answer(request, provider.wire(request)))


def test_a_schema_is_refused_before_anything_is_sent(provider):
    with pytest.raises(ConfigError, match="embedded has no schema"):
        provider.wire(request_of(schema={"type": "object"}))


def test_values_of_none_count_as_left_out(provider):
    names = ("temperature", "top_p", "seed", "stop", "max_tokens", "response_format", "tools", "logprobs", "n")
    assert ask(provider, body_of(**dict.fromkeys(names))).status_code == 200
