"""What stops a comparison before its end, and what is kept then."""

import asyncio
import uuid

import pytest

from toolkit import AsyncClient, Client
from toolkit.client import Options
from toolkit.comparison.comparison import Comparison
from toolkit.comparison.grid import build_plan
from toolkit.comparison.loop import arun, run
from toolkit.comparison.run import Run
from toolkit.comparison.scorers import read_scorers
from toolkit.testing import script

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
