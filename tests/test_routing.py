"""Aliases, and models that stand in for one that fails."""

import asyncio

import pytest

import toolkit as tk
from toolkit.errors import ConfigError, ProviderError, ServerError
from toolkit.testing import Answer, Failure, script

ONCE = tk.Retry(attempts=1)


def client_of(**options):
    return tk.Client(cache=False, retry=ONCE, **options)


def test_an_alias_stands_for_a_model():
    with client_of(aliases={"parrot": "scripted/echo"}) as client:
        answer = client.generate_text("parrot", "hi")
    assert (answer.text, answer.model) == ("hi", "scripted/echo")


def test_the_next_model_is_asked_when_one_fails_and_the_answer_says_which_gave_it():
    with client_of(fallbacks={"scripted/broken": ["scripted/none", "scripted/echo"]}) as client:
        answer = client.generate_text("scripted/broken", "hi")
        assert (answer.text, answer.model) == ("hi", "scripted/echo")
        assert client.journal.flush()
    rows = tk.monitor.calls()
    assert rows["model"].tolist() == ["scripted/broken", "scripted/none", "scripted/echo"]
    assert rows["status"].tolist() == ["error", "error", "ok"]


def test_the_last_error_is_raised_when_all_fail():
    with client_of(fallbacks={"scripted/none": ["scripted/broken"]}) as client, pytest.raises(ServerError):
        client.generate_text("scripted/none", "hi")


def test_a_stream_that_has_begun_is_not_begun_again_by_another_model():
    script("stops", [Failure(after_tokens=1, text="one two three")])
    with client_of(fallbacks={"scripted/stops": ["scripted/echo"], "scripted/broken": ["scripted/echo"]}) as client:
        with pytest.raises(ProviderError) as caught:
            list(client.stream_text("scripted/stops", "hi"))
        assert caught.value.emitted
        assert list(client.stream_text("scripted/broken", "hi"))[-1].completion.text == "hi"


def test_the_twin_for_event_loops_does_the_same():
    async def main():
        options = {"aliases": {"best": "scripted/broken"}, "fallbacks": {"best": ["scripted/echo"]}}
        async with tk.AsyncClient(cache=False, retry=ONCE, **options) as client:
            streamed = [event async for event in client.stream_text("best", "hi")]
            return (await client.generate_text("best", "hi")).text, streamed[-1].completion.model

    assert asyncio.run(main()) == ("hi", "scripted/echo")


def test_a_comparison_asks_the_models_it_names_and_no_others():
    script("fine", [Answer("fine")])
    with client_of(fallbacks={"scripted/broken": ["scripted/echo"]}) as client:
        result = tk.compare(["scripted/broken", "scripted/fine"], ["hi"], client=client)
    assert result.frame["status"].tolist() == ["error", "ok"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"aliases": {"a/b": "scripted/echo"}}, "slash"),
        ({"aliases": {"a": "nowhere/x"}}, "nowhere"),
        ({"fallbacks": {"scripted/echo": "scripted/slow"}}, "list"),
        ({"fallbacks": {"scripted/echo": ["nowhere/x"]}}, "nowhere"),
    ],
)
def test_a_wrong_route_is_told_at_once(wrong, told):
    with pytest.raises(ConfigError, match=told):
        client_of(**wrong)
