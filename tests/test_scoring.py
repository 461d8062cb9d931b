"""Scores and verdicts: how good the answers are, and which model is better."""

import math
import random

import pandas as pd
import pytest

import toolkit as tk
from toolkit import stats
from toolkit.comparison.scorers import SCORERS, read_scorers, score
from toolkit.errors import ConfigError
from toolkit.testing import Failure, script
from toolkit.types import Completion


@pytest.mark.parametrize(
    ("name", "text", "reference", "expected"),
    [
        ("exact_match", " Paris\n", "Paris", 1.0),
        ("exact_match", "paris", "Paris", 0.0),
        ("contains", "It is PARIS.", "paris", 1.0),
        ("contains", "It is Rome.", "paris", 0.0),
        ("regex", "It is 42.", r"\d+", 1.0),
        ("regex", "It is.", r"\d+", 0.0),
        ("json_valid", '{"a": 1}', None, 1.0),
        ("json_valid", "{a: 1}", None, 0.0),
        ("json_schema", '{"a": 1}', {"type": "object", "required": ["a"]}, 1.0),
        ("json_schema", '{"b": 1}', '{"type": "object", "required": ["a"]}', 0.0),
        ("json_schema", "no json", {"type": "object"}, 0.0),
        ("similarity", "the cat sat", "the cat sat", 1.0),
        ("similarity", "the cat", "a dog", 0.0),
        # Lin's own example: police killed the gunman / police kill the gunman / the gunman kill police
        ("rouge_l", "police kill the gunman", "police killed the gunman", 0.75),
        ("rouge_l", "the gunman kill police", "police killed the gunman", 0.5),
    ],
)
def test_a_built_in_scorer_gives_the_number_expected(name, text, reference, expected):
    assert score(name, SCORERS[name], Completion(text=text), reference) == pytest.approx(expected)


def test_without_a_reference_there_is_nothing_to_compare_with():
    assert math.isnan(score("exact_match", SCORERS["exact_match"], Completion(text="x"), None))


@pytest.mark.parametrize(
    ("scorers", "told"),
    [(["exact"], "exact_match"), ("contains", "into a list"), ([lambda c, r: 1], "name"), (["contains", "contains"], "twice")],
)
def test_a_wrong_scorer_is_told(scorers, told):
    with pytest.raises(ConfigError, match=told):
        read_scorers(scorers)


def answers():
    script("knows", lambda prompt, _body: prompt.upper())
    script("guesses", lambda prompt, _body: prompt.upper() if prompt < "p4" else "?")
    return pd.DataFrame({"prompt": [f"p{i}" for i in range(10)], "reference": [f"P{i}" for i in range(10)]})


def test_scores_are_columns_of_the_frame_and_survive_a_replay():
    def length(completion, _reference):
        return len(completion.text)

    prompts = answers()
    for _ in range(2):
        result = tk.compare(["scripted/knows", "scripted/guesses"], prompts, scorers=["exact_match", length])
        assert result.frame.groupby("label")["exact_match"].mean().to_dict() == {"scripted/knows": 1.0, "scripted/guesses": 0.4}
        assert result.summary()["length"].to_dict() == {"scripted/knows": 2.0, "scripted/guesses": 1.4}
        assert result.polars()["exact_match"].sum() == 14.0


def test_a_scorer_that_fails_costs_no_answer(caplog):
    def broken(completion, _reference):
        raise KeyError("oops")

    result = tk.compare(["scripted/echo"], ["a"], scorers=[broken])
    assert result.frame["text"].tolist() == ["a"]
    assert math.isnan(result.frame["broken"].iloc[0])
    assert "oops" in caplog.text


def test_a_verdict_pairs_the_models_prompt_by_prompt():
    result = tk.compare(["scripted/knows", "scripted/guesses"], answers(), scorers=["exact_match"])
    row = result.verdict("exact_match").iloc[0]
    test = stats.paired_test([1] * 10, [1] * 4 + [0] * 6)
    assert (row["n"], row["effect"], row["p"]) == (10, pytest.approx(test.effect), pytest.approx(test.p))
    assert row["decided"]
    assert row["sentence"].startswith("scripted/knows has more exact_match than scripted/guesses by 0.6")


def test_repeats_of_a_prompt_count_once():
    result = tk.compare(["scripted/knows", "scripted/guesses"], answers(), repeats=5, scorers=["exact_match"], cache=False)
    assert result.verdict("exact_match")["n"].tolist() == [10]


def test_several_pairs_are_corrected_for_their_number():
    script("shrugs", lambda _prompt, _body: "?")
    models = ["scripted/knows", "scripted/guesses", "scripted/shrugs"]
    table = tk.compare(models, answers(), scorers=["exact_match"]).verdict("exact_match")
    assert table["p_adjusted"].tolist() == pytest.approx(stats.adjust(table["p"].to_numpy(), "holm").tolist())
    assert len(table) == 3


def test_a_time_is_judged_by_live_calls_alone():
    models = ["embedded/ngram-2", "embedded/ngram-3"]
    first = tk.compare(models, ["The for statement", "A class is", "An object"], seed=1, max_tokens=4)
    assert first.verdict("latency_s")["n"].tolist() == [3]
    again = tk.compare(models, ["The for statement", "A class is", "An object"], seed=1, max_tokens=4)
    row = again.verdict("latency_s").iloc[0]
    assert (row["n"], row["decided"]) == (0, False)
    assert "can't be compared" in row["sentence"]


def test_a_verdict_says_how_many_prompts_only_one_model_has_a_value_for():
    long, short = script("long", lambda prompt, body: "word " * 9), script("short", lambda prompt, body: "word")
    script("long", lambda prompt, body: Failure(400) if prompt in ("p1", "p2") else "word " * (8 + len(prompt) % 2))
    row = tk.compare([long, short], [f"p{i}" for i in range(12)]).verdict("output_tokens").iloc[0]
    assert row["n"] == 10
    assert row["sentence"].endswith("n = 10 prompts; 2 more have a value for one of the two only")


def test_several_pairs_need_more_prompts_than_one():
    rng = random.Random(4)
    names = [script(f"m{i}", lambda prompt, body, i=i: "word " * (5 + i + rng.randrange(6))) for i in range(3)]
    result = tk.compare(names, [f"p{i}" for i in range(30)], cache=False)
    three, two = (
        table.set_index(["a", "b"])["n_needed"]
        for table in (result.verdict("output_tokens"), result.verdict("output_tokens", correction="bh"))
    )
    assert (three > two).all()


def test_a_constant_difference_needs_as_many_prompts_as_its_signs_do():
    one, two = script("one", lambda prompt, body: "word"), script("two", lambda prompt, body: "word word")
    row = tk.compare([one, two], ["a", "b", "c"]).verdict("output_tokens").iloc[0]
    assert (row["decided"], row["n_needed"]) == (False, 6)
    assert row["sentence"].endswith("is decided at n = 3 prompts; about 6 prompts would settle a difference like this one")
    settled = tk.compare([one, two], [f"p{i}" for i in range(6)]).verdict("output_tokens").iloc[0]
    assert settled["decided"]
    assert settled["sentence"].endswith("by 1 (the same on every prompt), n = 6 prompts")


def test_a_difference_on_few_prompts_is_not_given_a_direction_that_its_middle_lacks():
    words = {f"p{i}": 3 for i in range(8)}
    one = script("one", lambda prompt, body: "word " * words.get(prompt, 1))
    two = script("two", lambda prompt, body: "word ")
    row = tk.compare([one, two], [f"p{i}" for i in range(40)]).verdict("output_tokens", kind="wilcoxon").iloc[0]
    assert (row["decided"], row["effect"]) == (True, 0.0)
    assert "differ in output_tokens where they differ at all" in row["sentence"]


def test_a_wrong_verdict_is_told():
    result = tk.compare(["scripted/echo"], ["a"])
    with pytest.raises(ConfigError, match="at least two models"):
        result.verdict()
    with pytest.raises(ConfigError, match="latency_s"):
        result.verdict("speed")
    with pytest.raises(ConfigError, match="wilcoxon, sequential"):
        tk.compare(["scripted/echo", "scripted/slow"], ["a"]).verdict(kind="guess")


def test_prompts_without_a_score_are_left_out_of_a_verdict_and_n_says_so():
    one, two = script("yes", lambda prompt, body: "yes"), script("no", lambda prompt, body: "no, never")
    prompts = [f"p{i}" for i in range(8)]
    scores = {"some": lambda completion, reference: math.nan if "5" in str(completion.text) else float(len(completion.text))}
    script("yes", lambda prompt, body: f"yes {prompt}")
    row = tk.compare([one, two], prompts, scorers=scores).verdict("some").iloc[0]
    assert row["n"] == 7
    nothing = tk.compare([one, two], prompts, scorers={"none": lambda completion, reference: None}).verdict("none").iloc[0]
    assert (nothing["n"], nothing["decided"]) == (0, False)
    assert "can't be compared" in nothing["sentence"]
