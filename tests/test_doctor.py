"""``toolkit doctor``: for each provider whether it is configured, reachable and allowed, and the next step for what is missing."""

import json

import pytest

from servers.chat_completions import ChatService
from servers.http import page_answer
from servers.ollama import OllamaService
from toolkit import Client
from toolkit.cli import main
from toolkit.doctor import examine
from toolkit.providers.registry import known_providers


def found(name, url=None, key=None):
    options = {"base_urls": {name: url} if url else None, "api_keys": {name: key} if key else None}
    with Client(**options, cache=False, journal=False) as client:
        (one,) = examine(client, [name])
    return one


def states(one):
    return one.configured, one.reachable, one.allowed, one.ok


def test_what_works_needs_nothing():
    with ChatService(key="sk-right").serve() as server:
        one = found("openai_compatible", f"{server.url}/v1", "sk-right")
    assert states(one) == (True, True, True, True)
    assert (one.next_step, one.latency_s > 0) == ("", True)


def test_a_wrong_key_is_reached_and_not_allowed():
    with ChatService(key="sk-right").serve() as server:
        one = found("openai_compatible", f"{server.url}/v1", "sk-wrong")
    assert states(one) == (True, True, False, False)
    assert "OPENAI_API_KEY" in one.next_step
    assert "sk-wrong" not in str(one)


@pytest.mark.parametrize(("name", "step"), [("ollama", "start the server, or set OLLAMA_BASE_URL"), ("cohere", "check the network")])
def test_a_server_that_is_down_is_configured_and_not_reachable(name, step):
    with OllamaService().serve() as server:
        url = server.url
    one = found(name, url, "k")
    assert states(one) == (True, False, None, False)
    assert step in one.next_step


@pytest.mark.parametrize("name", ["azure", "cohere", "huggingface", "openai_compatible", "openrouter", "replicate", "vertex"])
def test_what_lacks_a_key_is_not_configured_and_says_which_variable_to_set(name):
    one = found(name)
    assert states(one) == (False, None, None, False)
    assert "set " in one.next_step


def test_a_service_that_fails_is_neither_allowed_nor_refused():
    with ChatService(fault=lambda *_: page_answer("Gone")).serve() as server:
        server.handler = lambda _request: page_answer("Gone")
        one = found("openai_compatible", f"{server.url}/v1", "k")
    assert states(one) == (True, True, None, False)
    assert "try again later" in one.next_step


def test_every_provider_that_can_not_be_used_has_a_next_step():
    with Client(cache=False, journal=False, base_urls={"openai_compatible": "http://127.0.0.1:9/v1"}) as client:
        all_of_them = examine(client)
    assert [one.provider for one in all_of_them] == known_providers()
    assert [one.provider for one in all_of_them if one.ok == bool(one.next_step)] == []


def test_the_command_shows_providers_places_and_the_date_of_prices(capsys, own_home):
    assert main(["doctor", "scripted", "cohere"]) == 1
    out = capsys.readouterr().out
    for shown in ("configured", "reachable", "allowed", "CO_API_KEY", str(own_home / "journal.sqlite"), "disk works", "genai-prices"):
        assert shown in out


def test_the_command_tells_machines_the_same(capsys):
    assert main(["doctor", "scripted", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["providers"][0]["allowed"] is True
    assert told["cache"] == {"memory": True, "disk": True}
    assert told["prices"][0]["models"] > 500


def test_an_unknown_provider_is_wrong_usage(capsys):
    assert main(["doctor", "nowhere"]) == 2
    assert "embedded" in "".join(capsys.readouterr())
