"""Ollama's own: a prompt that was cut without a word."""

import json

import pytest

from servers.http import json_answer
from servers.ollama import END, OllamaService
from toolkit import Client


def reported(prompt, read, **options):
    answer = {"model": "m", "message": {"content": "x"}, **END, "prompt_eval_count": read}
    service = OllamaService(fault=lambda *_: json_answer(answer))
    with service.serve() as server, Client(base_urls={"ollama": server.url}, cache=False, journal=False) as client:
        done = client.generate_text("ollama/alpine:4b", prompt, **options)
        return done.reported, json.loads(server.requests[0].body)


@pytest.mark.parametrize(("read", "cut"), [(2048, True), (6000, False), (None, False), (0, False)])
def test_a_prompt_of_which_too_little_was_read_is_reported(read, cut):
    told, _ = reported("word " * 5000, read)
    assert ("prompt_cut" in told) == cut
    assert not cut or ("2048 tokens" in told["prompt_cut"] and "num_ctx" in told["prompt_cut"])


def test_a_short_prompt_is_never_suspected():
    assert "prompt_cut" not in reported("=" * 900, 1)[0]


def test_the_context_and_the_wish_not_to_cut_travel_in_extra():
    _, sent = reported("hi", 1, extra={"options": {"num_ctx": 8192}, "truncate": False})
    assert (sent["options"], sent["truncate"]) == ({"num_ctx": 8192}, False)
