"""Comparisons that end early: the money is spent, or the question is answered. And what one will cost."""

import itertools
import threading

import pytest

import toolkit as tk
from servers.chat_completions import ChatService
from toolkit import stats
from toolkit.comparison.run import Run
from toolkit.comparison.stopping import Decided
from toolkit.errors import ConfigError
from toolkit.testing import Answer, Failure, script

PROMPTS = [f"question {i}" for i in range(40)]
DEAR = tk.Price(input=0.0, output=1_000_000.0)  # a dollar a token


def priced(**prices):
    return tk.Client(prices={f"scripted/{name}": price for name, price in prices.items()}, cache=False)


def test_no_call_begins_once_the_budget_is_spent():
    script("dear", lambda prompt, body: "word")
    result = tk.compare(["scripted/dear"], PROMPTS, budget_usd=5, concurrency=1, client=priced(dear=DEAR), cache=False)
    spent = result.frame["cost_usd"].sum()
    each = result.frame["cost_usd"].iloc[0]
    assert 5 <= spent < 5 + each
    assert result.missing > 0
    assert "the budget of $5" in result.stopped_because


def test_a_budget_is_overshot_by_at_most_what_was_under_way():
    script("dear", lambda prompt, body: "word")
    result = tk.compare(["scripted/dear"], PROMPTS, budget_usd=5, concurrency=4, client=priced(dear=DEAR), cache=False)
    each = result.frame["cost_usd"].iloc[0]
    assert 5 <= result.frame["cost_usd"].sum() < 5 + 4 * each


def test_replays_cost_nothing_of_a_budget(tmp_path):
    script("dear", lambda prompt, body: "word")
    client = tk.Client(prices={"scripted/dear": DEAR}, cache=True)
    first = tk.compare(["scripted/dear"], PROMPTS, client=client)
    again = tk.compare(["scripted/dear"], PROMPTS, budget_usd=0.5, client=client)
    assert len(again) == len(first) == len(PROMPTS)
    assert again.stopped_because is None


def test_a_budget_that_can_not_be_kept_is_told_at_the_first_answer():
    with ChatService().serve() as server:
        client = tk.Client(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=False)
        result = tk.compare(["openai_compatible/m"], PROMPTS, budget_usd=5, concurrency=1, cache=False, client=client)
    assert len(result) == 1
    assert "the cost of openai_compatible/m is not known" in result.stopped_because


@pytest.mark.parametrize("budget", [0, -1, True, float("nan"), float("inf"), "5"])
def test_a_budget_is_a_positive_number(budget):
    with pytest.raises(ConfigError, match="budget_usd"):
        tk.compare(["scripted/echo"], ["a"], budget_usd=budget)


def test_a_comparison_ends_when_every_pair_is_decided():
    script("one", lambda prompt, body: "word")
    script("many", lambda prompt, body: "word " * (5 + len(prompt) % 3))
    result = tk.compare(
        ["scripted/one", "scripted/many"], PROMPTS, until="decided", metric="output_tokens", concurrency=2, cache=False
    )  # fmt: skip
    assert len(result) < 40
    assert "every difference in output_tokens is decided" in result.stopped_because
    row = result.verdict("output_tokens").iloc[0]
    assert row["decided"] and row["p"] < 0.05
    assert row["effect"] <= row["high"] < 0
    assert "scripted/many has more output_tokens than scripted/one by" in row["sentence"]
    assert "nan" not in row["sentence"]


def test_models_that_are_alike_are_asked_everything():
    script("one", lambda prompt, body: "word")
    script("same", lambda prompt, body: "word")
    result = tk.compare(["scripted/one", "scripted/same"], PROMPTS, until="decided", metric="output_tokens", cache=False)
    assert result.missing == 0
    assert result.stopped_because is None
    assert not result.verdict("output_tokens")["decided"].any()


def test_the_only_scorer_is_what_is_to_be_decided():
    script("right", lambda prompt, body: "yes")
    script("wrong", lambda prompt, body: "no")
    result = tk.compare(
        ["scripted/right", "scripted/wrong"],
        PROMPTS,
        scorers={"yes": lambda completion, reference: completion.text == "yes"},
        until="decided",
        cache=False,
        concurrency=2,
    )
    assert result.missing > 0
    assert result.verdict("yes")["decided"].all()


def test_a_prompt_that_failed_for_one_model_tells_nothing_about_the_pair():
    calls = itertools.count()
    script("steady", lambda prompt, body: "word " * 8)
    script("shaky", lambda prompt, body: Failure(400) if next(calls) % 2 else Answer("word"))
    result = tk.compare(["scripted/steady", "scripted/shaky"], PROMPTS, until="decided", metric="output_tokens", cache=False, concurrency=2)
    assert result.verdict("output_tokens")["decided"].all()
    both = (result.frame["status"] == "ok").groupby(result.frame["prompt_id"]).sum().eq(2).sum()
    assert result.verdict("output_tokens")["n"].iloc[0] == both


def test_a_look_waits_for_the_slow_answers_to_the_prompts_that_were_asked_first():
    many = script("many", lambda prompt, body: "word " * 5)
    one = script("one", lambda prompt, body: "word")
    whole = tk.compare([one, many], PROMPTS, cache=False)
    plan, rows = whole._plan, whole._records
    rule, run = Decided(plan, "output_tokens", 0.05), Run(plan=plan, run_id="r")
    first, *others = list(plan.order())
    said = [add(run, rule, index, rows[index]) for index in others]
    assert said == [None] * len(others)
    assert "is decided after" in add(run, rule, first, rows[first])


def add(run, rule, index, row):
    run.add(index, row)
    return rule(run)


def test_a_verdict_does_not_depend_on_which_answers_came_first():
    script("one", lambda prompt, body: Answer("word", first_token_s=0.001 * (len(prompt) % 7)))
    script("many", lambda prompt, body: "word " * (1 + len(prompt) % 5))
    options = {"until": "decided", "metric": "output_tokens", "alpha": 1e-9, "order_seed": 5, "cache": False}
    tables = [tk.compare(["scripted/one", "scripted/many"], PROMPTS, concurrency=n, **options).verdict("output_tokens") for n in (1, 16)]
    assert tables[0]["p"].tolist() == tables[1]["p"].tolist()


@pytest.mark.parametrize("write", ["save", "to_capsule"])
def test_a_file_remembers_what_it_was_stopped_by(write, tmp_path):
    script("one", lambda prompt, body: "word")
    script("many", lambda prompt, body: "word " * (5 + len(prompt) % 3))
    result = tk.compare(["scripted/one", "scripted/many"], PROMPTS, until="decided", metric="output_tokens", cache=False)
    getattr(result, write)(tmp_path / "x.zip")
    read = tk.load_comparison(tmp_path / "x.zip").verdict("output_tokens")
    assert read["p"].tolist() == result.verdict("output_tokens")["p"].tolist()
    assert read["n_needed"].tolist() == result.verdict("output_tokens")["n_needed"].tolist()


def test_a_test_for_one_look_is_there_for_those_who_ask_for_it():
    script("one", lambda prompt, body: "word")
    script("many", lambda prompt, body: "word " * 5)
    result = tk.compare(["scripted/one", "scripted/many"], PROMPTS, until="decided", metric="output_tokens", cache=False)
    assert result.verdict("output_tokens", kind="wilcoxon")["p"].iloc[0] != result.verdict("output_tokens")["p"].iloc[0]


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"until": "sure"}, "until='sure'"),
        ({"until": "decided"}, "needs metric="),
        ({"until": "decided", "metric": "beauty"}, "unknown metric 'beauty'; this comparison has"),
        ({"until": "decided", "metric": "latency_s", "alpha": 1.5}, "alpha=1.5"),
        ({"metric": "latency_s"}, "until='decided'"),
    ],
)
def test_what_is_to_be_decided_is_checked_before_anything_is_asked(wrong, word):
    with pytest.raises(ConfigError, match=word):
        tk.compare(["scripted/echo", "embedded/ngram-2"], ["a"], **wrong)
    with pytest.raises(ConfigError, match="at least two"):
        tk.compare(["scripted/echo"], ["a"], until="decided", metric="latency_s")


def test_the_sequential_test_refuses_what_it_can_not_use():
    for wrong in ([1.0], [1.0, float("nan")]):
        with pytest.raises(ConfigError):
            stats.sequential_test(wrong, [1.0, 2.0])
    assert stats.sequential_p([]) == 1.0
    assert stats.sequential_test([], []).note == "no items"
    assert "not estimable" in stats.sequential_test([1.0, 2.0], [0.0, 0.0]).note
    assert "not estimable" in stats.sequential_test([4.0] * 20, [4.0] * 20).note
    with pytest.raises(ConfigError, match="an effect other than 0"):
        stats.sequential_needed_n(0.0, 1.0)


def test_answers_that_are_all_right_or_all_wrong_still_leave_some_doubt():
    test = stats.sequential_test([1] * 20, [0] * 20)
    assert test.p < 0.001 and 0.4 < test.low < 0.7 and test.effect == 1.0
    same = stats.sequential_test([1] * 20, [1] * 20)
    assert same.p == 1.0 and same.low < 0 < same.high


# --- estimates -------------------------------------------------------------------------------------------------------------


def test_an_estimate_needs_no_call():
    asked = threading.Event()
    script("dear", lambda prompt, body: asked.set() or "word")
    estimate = tk.estimate_cost(["scripted/dear"], PROMPTS, max_tokens=100, client=priced(dear=DEAR))
    assert not asked.is_set()
    assert (estimate.low, estimate.expected, estimate.high) == (400.0, 4000.0, 4000.0)
    assert "a guess" in estimate.models[0].basis


def test_an_estimate_learns_from_earlier_answers_and_holds_the_truth():
    lengths = itertools.cycle([3, 5, 7, 9])
    script("dear", lambda prompt, body: "word " * next(lengths))
    client = tk.Client(prices={"scripted/dear": DEAR}, cache=False)
    tk.compare(["scripted/dear"], PROMPTS, client=client, cache=False)
    estimate = tk.estimate_cost(["scripted/dear"], PROMPTS, cache=False, client=client)
    truth = tk.compare(["scripted/dear"], PROMPTS, client=client, cache=False).frame["cost_usd"].sum()
    assert "40 earlier calls" in estimate.models[0].basis
    assert estimate.low <= truth <= estimate.high
    assert estimate.high - estimate.low < truth


def test_answers_in_the_cache_cost_nothing():
    script("dear", lambda prompt, body: "word")
    client = tk.Client(prices={"scripted/dear": DEAR}, cache=True)
    tk.compare(["scripted/dear"], PROMPTS[:30], client=client)
    estimate = tk.estimate_cost(["scripted/dear"], PROMPTS, client=client)
    assert (estimate.models[0].calls, estimate.models[0].cached) == (40, 30)
    assert tk.estimate_cost(["scripted/dear"], PROMPTS[:30], client=client).high == 0.0


def test_an_unknown_price_is_unknown_and_not_nothing():
    estimate = tk.estimate_cost(["openai_compatible/m"], ["a"], client=tk.Client(base_urls={"openai_compatible": "http://127.0.0.1:9/v1"}))
    assert estimate.low is estimate.expected is estimate.high is None
    assert "unknown" in repr(estimate) and "unknown" in estimate._repr_html_()


def test_the_calls_of_a_judge_count_against_the_budget(caplog):
    script("one", lambda prompt, body: "yes")
    script("two", lambda prompt, body: "no")
    script("arbiter", lambda prompt, body: '{"verdict": "A", "reason": "it is first"}')
    free, prompts = tk.Price(input=0.0, output=0.0), PROMPTS[:10]
    client = priced(one=free, two=free, arbiter=DEAR)
    once = tk.compare(["scripted/one", "scripted/two"], prompts[:1], judge="scripted/arbiter", client=client, cache=False)
    each = once.judgements()["cost_usd"].iloc[0]
    result = tk.compare(
        ["scripted/one", "scripted/two"],
        prompts,
        judge="scripted/arbiter",
        budget_usd=3.5 * each,
        concurrency=1,
        client=client,
        cache=False,
    )
    assert result.missing == 0
    assert result.judgements()["cost_usd"].sum() == 4 * each
    assert "16 of 20 pairs of answers were not judged: the budget of" in caplog.text


def test_what_is_decided_early_is_judged_as_far_as_it_was_asked():
    script("one", lambda prompt, body: "word")
    script("many", lambda prompt, body: "word " * 5)
    script("arbiter", lambda prompt, body: '{"verdict": "tie"}')
    models = ["scripted/one", "scripted/many"]
    result = tk.compare(models, PROMPTS, judge="scripted/arbiter", until="decided", metric="output_tokens", concurrency=2, cache=False)
    assert result.missing > 0
    assert set(result.judgements()["prompt_id"]) <= set(result.frame["prompt_id"])
    assert len(result.judgements()) > 10


def test_what_was_asked_tells_what_more_of_it_will_cost():
    lengths = itertools.cycle([3, 5, 7, 9])
    script("dear", lambda prompt, body: "word " * next(lengths))
    client = tk.Client(prices={"scripted/dear": DEAR}, cache=True)
    first = tk.compare(["scripted/dear"], PROMPTS, client=client)
    replayed = tk.compare(["scripted/dear"], PROMPTS, client=client)
    spent = first.frame["cost_usd"].sum()
    estimate = first.estimate_cost(400)
    assert estimate.expected == pytest.approx(10 * spent)
    assert estimate.low < 10 * spent < estimate.high < 12 * spent
    assert replayed.estimate_cost(400).expected == pytest.approx(estimate.expected)
    with pytest.raises(ConfigError, match="prompts=0"):
        first.estimate_cost(0)
