"""What stops a comparison before its end, and what is kept then."""

import asyncio
import threading
import uuid

import httpx
import pytest

import toolkit as tk
from toolkit import AsyncClient, Client
from toolkit.client import Options
from toolkit.comparison.comparison import Comparison
from toolkit.comparison.grid import build_plan
from toolkit.comparison.loop import arun, run
from toolkit.comparison.run import Run
from toolkit.comparison.scorers import read_scorers
from toolkit.errors import ConfigError
from toolkit.testing import Failure, script

PROMPTS = [f"p{i}" for i in range(40)]


def a_run(*rules, scorers=()):
    plan = build_plan(["scripted/echo"], PROMPTS, repeats=1, options=Options(), template=None, order_seed=1)
    return Run(plan=plan, run_id=uuid.uuid4().hex, scorers=read_scorers(scorers), rules=rules)


def carry_out(state, *, awaited, concurrency=4):
    how = {"concurrency": concurrency, "cache": False, "stream": False, "watch": lambda _run: None}
    if awaited:
        asyncio.run(arun(AsyncClient(journal=False), state, **how))
    else:
        run(Client(journal=False), state, **how)
    return state


def after(rows):
    return lambda run: f"{rows} rows are enough" if len(run.done) >= rows else None


@pytest.mark.parametrize("awaited", [False, True])
def test_a_rule_stops_the_run_and_calls_under_way_are_rows(awaited):
    state = carry_out(a_run(after(5)), awaited=awaited)
    assert 5 <= len(state.done) < 5 + 4
    assert state.stopped_because == "5 rows are enough"
    assert "because 5 rows are enough: " in Comparison(state)._repr_html_()


def test_the_first_reason_counts():
    state = carry_out(a_run(after(9), after(3), after(4)), awaited=False, concurrency=1)
    assert (state.stopped_because, len(state.done)) == ("3 rows are enough", 3)


def test_a_rule_sees_the_scores():
    script("says", lambda prompt, _body: prompt)

    def good_enough(run):
        good = sum(scores["short"] for scores in run.scores.values() if "short" in scores)
        return "two are short" if good == 2 else None

    state = a_run(good_enough, scorers={"short": lambda completion, _reference: len(completion.text) == 2})
    carry_out(state, awaited=False, concurrency=1)
    assert state.stopped_because == "two are short"


def test_too_many_failures_of_a_model_stop_the_run_and_say_whose():
    script("refuses every third", lambda prompt, _body: Failure(status=400) if int(prompt[1:]) % 3 == 0 else prompt)
    result = tk.compare(["scripted/refuses every third", "scripted/echo"], PROMPTS, max_error_rate=0.2, concurrency=1, cache=False)
    assert result.stopped and "of scripted/refuses every third failed, more than max_error_rate=0.2" in result.stopped_because
    rows = result.frame[result.frame["label"] == "scripted/refuses every third"]
    assert len(rows) >= 10 and (rows["status"] == "error").mean() > 0.2


def test_a_rate_that_is_not_passed_stops_nothing():
    script("refuses one", lambda prompt, _body: Failure(status=400) if prompt == "p7" else prompt)
    assert not tk.compare(["scripted/refuses one"], PROMPTS, max_error_rate=0.1).stopped


@pytest.mark.parametrize("more", [{"max_error_rate": 1.5}, {"max_error_rate": True}, {"warmup": -1}, {"warmup": 0.5}])
def test_a_rate_that_is_no_share_and_a_warm_up_that_is_no_number_are_told(more):
    with pytest.raises(ConfigError, match=next(iter(more))):
        tk.compare(["scripted/echo"], PROMPTS, **more)


@pytest.mark.parametrize("awaited", [False, True])
def test_warm_up_calls_are_in_the_journal_and_in_no_statistics(awaited):
    asked = []
    script("counts", lambda prompt, _body: asked.append(prompt) or prompt)
    how = {"models": ["scripted/counts", "scripted/echo"], "prompts": ["a", "b", "c"], "warmup": 2, "cache": False}
    result = asyncio.run(tk.acompare(**how)) if awaited else tk.compare(**how)
    assert sorted(asked[:2]) == ["a", "b"] and sorted(asked[2:]) == ["a", "b", "c"]
    assert len(result) == 6 and "4 warm-up calls are left out" in result.text()
    calls = tk.monitor.calls()
    assert calls["provenance"].value_counts().to_dict() == {"live": 6, "warmup": 4}
    assert tk.monitor.percentiles("model", q=0.5)["n"].tolist() == [3, 3]


def test_a_client_with_a_transport_of_its_own_is_asked_by_threads_with_the_same_result():
    seen = set()

    def answer(request):
        seen.add(threading.current_thread().name)
        return httpx.Response(200, json={"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]})

    client = tk.Client(base_urls={"openai_compatible": "http://127.0.0.1:9/v1"}, transport=lambda: httpx.MockTransport(answer))
    result = tk.compare(["openai_compatible/x"], PROMPTS[:6], client=client, stream=False, warmup=1, cache=False)
    assert result.frame["text"].tolist() == ["yes"] * 6
    assert all(name.startswith("toolkit-compare-") or name == "MainThread" for name in seen)
