import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ConfigError
from toolkit.providers.ngram import tokenise
from toolkit.providers.scripted import Answer, Failure, Scripted, script
from toolkit.types import ChatRequest, Message, ToolCall, Usage

URL = Scripted.base_url + "/chat/completions"


def body_of(model, prompt="Name a river.", **options):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **options}


def ask(body, provider=None):
    with httpx.Client(transport=(provider or Scripted()).transport()) as client:
        return client.post(URL, json=body)


def text_of(response):
    return response.json()["choices"][0]["message"]["content"]


def frames_of(body, provider=None, kind="blocking"):
    """The frames of a stream, and the transport error that ended it."""
    return blocking_frames(body, provider or Scripted()) if kind == "blocking" else asyncio.run(loop_frames(body, provider or Scripted()))


def blocking_frames(body, provider):
    frames = []
    with httpx.Client(transport=provider.transport()) as client, client.stream("POST", URL, json=body | {"stream": True}) as response:
        try:
            for frame in response.iter_raw():
                frames.append(frame)
        except httpx.ReadError as error:
            return frames, error
    return frames, None


async def loop_frames(body, provider):
    frames = []
    transport = provider.transport()
    async with httpx.AsyncClient(transport=transport) as client, client.stream("POST", URL, json=body | {"stream": True}) as response:
        try:
            async for frame in response.aiter_raw():
                frames.append(frame)
        except httpx.ReadError as error:
            return frames, error
    return frames, None


def chunk(frame):
    return json.loads(frame.removeprefix(b"data: "))


def delta(frame):
    return chunk(frame)["choices"][0]["delta"]


def streamed_text(frames):
    return "".join(delta(frame).get("content", "") for frame in frames if b'"delta"' in frame)


def provider_that_naps():
    naps = []

    async def nap(seconds):
        naps.append(seconds)

    return Scripted(sleep=naps.append, async_sleep=nap), naps


both_drivers = pytest.mark.parametrize("kind", ["blocking", "loop"])


# --- the built-in models -------------------------------------------------------------------------------------------------


def test_echo_gives_back_the_last_user_message():
    messages = [
        {"role": role, "content": text} for role, text in [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "4")]
    ]
    assert text_of(ask({"model": "echo", "messages": messages})) == "three"


@given(st.text(min_size=1))
def test_an_echo_is_streamed_whatever_the_text_is(text):
    frames, error = frames_of(body_of("echo", text))
    assert (streamed_text(frames), error) == (text, None)
    assert frames[-1] == b"data: [DONE]\n\n"


def test_an_echo_is_streamed_word_by_word():
    frames, _ = frames_of(body_of("echo", "Name a river."))
    assert [delta(frame).get("content") for frame in frames[:-1]] == ["", "Name", " a", " river", ".", None]


@both_drivers
def test_slow_waits_before_each_token(kind):
    provider, naps = provider_that_naps()
    frames, _ = frames_of(body_of("slow", "Name a river."), provider, kind)
    assert streamed_text(frames) == "Name a river."
    assert naps == [0.4, 0.04, 0.04, 0.04]


def test_slow_takes_as_long_when_it_is_not_streamed():
    provider, naps = provider_that_naps()
    assert text_of(ask(body_of("slow"), provider)) == "Name a river."
    assert sum(naps) == pytest.approx(0.52)


def test_nothing_is_waited_for_before_somebody_reads():
    provider, naps = provider_that_naps()
    request = httpx.Request("POST", URL, json=body_of("slow", stream=True))
    response = provider.transport().handle_request(request)
    assert naps == [0.4]
    response.close()
    assert naps == [0.4]


def test_flaky_fails_on_the_first_attempt_of_each_prompt_only():
    provider = Scripted()
    told = [ask(body_of("flaky", prompt), provider).status_code for prompt in ("a", "b", "a", "b", "a")]
    assert told == [503, 503, 200, 200, 200]


@pytest.mark.parametrize("streamed", [False, True])
def test_broken_always_fails(streamed):
    provider = Scripted()
    responses = [ask(body_of("broken", stream=streamed), provider) for _ in range(3)]
    assert [response.status_code for response in responses] == [500, 500, 500]
    assert responses[0].json()["error"]["message"] == "this model always fails"


# --- scripts -------------------------------------------------------------------------------------------------------------


def test_a_script_is_served_in_turn_and_begins_again():
    assert script("turns", ["one", Answer("two"), Failure(503)]) == "scripted/turns"
    told = [ask(body_of("turns")) for _ in range(4)]
    assert [response.status_code for response in told] == [200, 200, 503, 200]
    assert [text_of(told[n]) for n in (0, 1, 3)] == ["one", "two", "one"]


def test_a_script_that_does_not_cycle_says_when_it_is_over():
    script("once", ["one"], cycle=False)
    assert ask(body_of("once")).status_code == 200
    over = ask(body_of("once"))
    assert over.status_code == 400
    assert "'once' is over: it has 1 answers" in over.json()["error"]["message"]


def test_threads_share_a_script_without_losing_a_turn():
    script("shared", [str(n) for n in range(10)])
    provider = Scripted()
    with ThreadPoolExecutor(8) as pool:
        told = Counter(pool.map(lambda _: text_of(ask(body_of("shared"), provider)), range(200)))
    assert told == {str(n): 20 for n in range(10)}


def test_a_script_can_be_a_function_of_the_prompt_and_the_body():
    script("function", lambda prompt, body: Answer(f"{prompt.upper()} at {body['temperature']}"))
    assert text_of(ask(body_of("function", "hot", temperature=0.5))) == "HOT at 0.5"


def test_a_later_script_of_the_same_name_takes_its_place():
    script("again", ["old"])
    script("again", ["new"])
    assert text_of(ask(body_of("again"))) == "new"


def test_reasoning_tool_calls_and_usage_are_told_as_scripted():
    call = ToolCall(id="call_1", name="weather", arguments='{"city":"Oslo"}')
    usage = Usage(input_tokens=5, output_tokens=7, reasoning_tokens=2, cached_input_tokens=3)
    script("rich", [Answer("Let me see.", reasoning="Hm, weather.", tool_calls=(call,), finish_reason="tool_calls", usage=usage)])
    provider = Scripted()
    request = ChatRequest(model="rich", messages=(Message(role="user", content="Oslo?"),))
    wire = provider.wire(request)
    with httpx.Client(transport=provider.transport()) as client:
        whole = provider.read_chat(client.send(provider.build(wire, stream=False)), request)
        reader = provider.reader(request)
        kinds = {event.kind for event in reader.feed(client.send(provider.build(wire, stream=True)).content)}
    assert kinds >= {"text", "reasoning", "tool_call"}
    for reply in (whole, reader.close()):
        assert (reply.text, reply.reasoning, reply.finish_reason) == ("Let me see.", "Hm, weather.", "tool_calls")
        assert (reply.tool_calls, reply.usage) == ((call,), usage)


def test_tokens_are_counted_where_the_script_does_not_say():
    script("counted", [Answer("It is here.", reasoning="Hm.")])
    usage = ask(body_of("counted", "Where is it?")).json()["usage"]
    expected = (len(tokenise("Where is it?")), len(tokenise("It is here.")) + len(tokenise("Hm.")))
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == expected
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_an_empty_answer_streams_no_text_and_ends():
    script("silent", [""])
    frames, error = frames_of(body_of("silent"))
    assert (streamed_text(frames), frames[-1], error) == ("", b"data: [DONE]\n\n", None)


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_a_failure_asks_for_patience_in_the_header(streamed):
    script("limited", [Failure(429, "slow down", retry_after_s=1.25)])
    response = ask(body_of("limited", stream=streamed))
    assert (response.status_code, response.headers["retry-after"], response.headers["retry-after-ms"]) == (429, "2", "1250")
    assert response.json()["error"]["message"] == "slow down"


@both_drivers
def test_a_failure_inside_a_stream_is_an_error_event(kind):
    script("breaks", [Failure(message="out of memory", after_tokens=2)])
    frames, error = frames_of(body_of("breaks", "Name a river."), kind=kind)
    assert streamed_text(frames) == "Name a"
    assert chunk(frames[-1])["error"]["message"] == "out of memory"
    assert error is None


@both_drivers
def test_a_dropped_connection_ends_a_stream_with_a_transport_error(kind):
    script("drops", [Failure(after_tokens=3, drop=True, text="one two three four")])
    frames, error = frames_of(body_of("drops"), kind=kind)
    assert streamed_text(frames) == "one two three"
    assert isinstance(error, httpx.ReadError)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_dropped_before_the_answer_is_a_transport_error(streamed):
    script("gone", [Failure(drop=True)])
    with pytest.raises(httpx.ReadError):
        ask(body_of("gone", stream=streamed))


def test_a_failure_after_some_tokens_is_a_status_where_nothing_is_streamed():
    script("late", [Failure(502, "gone", after_tokens=2)])
    assert ask(body_of("late")).status_code == 502


def test_an_error_of_the_script_s_own_function_reaches_the_caller():
    script("buggy", lambda prompt, body: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(body_of("buggy"))


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        ("echo", ["x"], "a name of its own, not 'echo'"),
        ("", ["x"], "a name of its own"),
        ("empty", [], "has no answers"),
        ("text", "just a text", "is a list of answers"),
        ("numbers", [1], "says str, Answer or Failure; got int"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(name, answers, message):
    with pytest.raises(ConfigError, match=message):
        script(name, answers)


def test_a_function_that_answers_nonsense_is_a_config_error():
    script("nonsense", lambda prompt, body: None)
    with pytest.raises(ConfigError, match="got NoneType"):
        ask(body_of("nonsense"))


@pytest.mark.parametrize("status", [200, 99, 600])
def test_a_failure_needs_the_status_of_one(status):
    with pytest.raises(ConfigError, match="400 to 599"):
        Failure(status)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["first_token_s", "per_token_s"])
def test_a_delay_is_zero_or_more(name, delay):
    with pytest.raises(ConfigError, match="delays"):
        Answer("x", **{name: delay})


# --- the server ----------------------------------------------------------------------------------------------------------


def test_the_models_are_the_built_in_ones_and_the_scripts():
    script("listed", ["x"])
    with httpx.Client(transport=Scripted().transport()) as client:
        listed = {model["id"] for model in client.get(Scripted.base_url + "/models").json()["data"]}
    assert listed >= {"broken", "echo", "flaky", "slow", "listed"}


def test_an_unknown_script_is_a_404_that_lists_the_known_ones():
    response = ask(body_of("nobody"))
    assert response.status_code == 404
    assert "no script is called 'nobody'; there are" in response.json()["error"]["message"]
    assert "echo" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json", "the body is not JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "the body is not JSON"),
        (b'{"messages": [{}]}', "model must be a string"),
        (b'{"model": "echo"}', "messages must be a list"),
        (b'{"model": "echo", "messages": ["hi"]}', "messages must be a list"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400(content, message):
    with httpx.Client(transport=Scripted().transport()) as client:
        response = client.post(URL, content=content)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/chat/completions"), ("POST", "/models"), ("POST", "/embeddings")])
def test_other_routes_are_a_404(method, path):
    with httpx.Client(transport=Scripted().transport()) as client:
        response = client.request(method, Scripted.base_url + path, json={})
    assert response.status_code == 404
    assert path in response.json()["error"]["message"]


def test_every_answer_has_an_id_of_its_own_in_the_header_too():
    provider = Scripted()
    told = [ask(body_of("echo"), provider) for _ in range(3)]
    assert len({response.headers["x-request-id"] for response in told}) == 3
    assert all(response.json()["id"] == response.headers["x-request-id"] for response in told)


@pytest.mark.parametrize("ended", [False, True])
def test_a_half_of_a_character_is_echoed_as_it_is(ended):
    content = json.dumps(body_of("echo", "a\ud800" + ("" if ended else "b"))).encode()
    with httpx.Client(transport=Scripted().transport()) as client:
        response = client.post(URL, content=content)
    assert text_of(response) == "a\ud800" + ("" if ended else "b")
