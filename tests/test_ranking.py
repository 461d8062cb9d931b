"""Rankings: abilities from votes, recovered within their intervals, and what is said where votes can't tell."""

import numpy as np
import pandas as pd
import pytest

import toolkit as tk
from toolkit.comparison.ranking import ranking, win_shares
from toolkit.errors import ConfigError

LABELS = ["a", "b", "c", "d"]
TRUE = np.array([0.9, 0.3, -0.2, -1.0])


def votes_of(rows):
    columns = ["prompt_id", "model_a", "model_b", "choice", "rater"]
    return pd.DataFrame([(*row, "ann")[:5] if len(row) == 4 else row for row in rows], columns=columns)


def ranked(votes, labels=LABELS, raters=None):
    return ranking(votes, labels, raters=raters, confidence=0.95).set_index("model")


def simulated(chance, prompts, *, of_prompt=0.0, ties=0.0):
    """Votes on every two models for each prompt; a prompt can suit a model better or worse (``of_prompt``)."""
    first, second = np.triu_indices(len(TRUE), 1)
    first, second = np.tile(first, prompts), np.tile(second, prompts)
    prompt = np.repeat(np.arange(prompts), len(TRUE) * (len(TRUE) - 1) // 2)
    ability = TRUE + of_prompt * chance.standard_normal((prompts, len(TRUE)))
    wins = chance.random(len(prompt)) < 1 / (1 + np.exp(ability[prompt, second] - ability[prompt, first]))
    choice = np.where(chance.random(len(prompt)) < ties, "tie", np.where(wins, "a", "b"))
    names = np.array(LABELS)
    return pd.DataFrame(
        {"prompt_id": prompt.astype(str), "model_a": names[first], "model_b": names[second], "choice": choice, "rater": "r"}
    )


def covered(votes):
    table = ranked(votes).loc[LABELS]
    centred = TRUE - TRUE.mean()
    return (table["low"] <= centred) & (centred <= table["high"])


def test_simulated_raters_recover_known_abilities_within_their_intervals():
    chance = np.random.default_rng(1)
    share = np.mean([covered(simulated(chance, 60)) for _ in range(120)])
    assert 0.93 <= share <= 0.98


def test_the_order_of_the_abilities_is_found():
    assert ranked(simulated(np.random.default_rng(2), 400)).index.tolist() == LABELS


def test_votes_on_one_prompt_that_hang_together_widen_the_intervals():
    votes = simulated(np.random.default_rng(3), 40)
    copied = pd.concat([votes] * 5)  # five raters who always agree know no more than one
    apart = copied.assign(prompt_id=[str(i) for i in range(len(copied))])
    width = {
        name: (ranked(frame)["high"] - ranked(frame)["low"]).mean()
        for name, frame in (("once", votes), ("copied", copied), ("apart", apart))
    }
    assert width["apart"] < 0.5 * width["once"]
    assert width["copied"] > 0.75 * width["once"]


def test_it_agrees_with_the_published_abilities_of_the_statistics_journals():
    won = {("Biometrika", "Comm"): (730, 33), ("Biometrika", "JASA"): (498, 320), ("Biometrika", "JRSS-B"): (221, 284),
           ("Comm", "JASA"): (68, 813), ("Comm", "JRSS-B"): (17, 276), ("JASA", "JRSS-B"): (142, 325)}  # fmt: skip
    rows = [(f"{a}{b}{i}", a, b, "a" if i < k else "b") for (a, b), (k, m) in won.items() for i in range(k + m)]
    table = ranked(votes_of(rows), ["Biometrika", "Comm", "JASA", "JRSS-B"])
    from_first = table["ability"] - table.loc["Biometrika", "ability"]
    assert from_first.to_dict() == pytest.approx({"Biometrika": 0, "Comm": -2.94907, "JASA": -0.47957, "JRSS-B": 0.26895}, abs=1e-5)


def test_ties_and_two_bad_answers_are_half_a_win_each_and_skips_are_left_out():
    rows = [("1", "a", "b", "tie"), ("2", "a", "b", "both_bad"), ("3", "a", "b", "skip"), ("4", "b", "a", "a"), ("5", "a", "b", "a")]
    table = ranked(votes_of(rows), ["a", "b"])
    assert table.loc["a", ["wins", "ties", "losses", "n"]].tolist() == [1, 2, 1, 4]
    assert table["ability"].tolist() == pytest.approx([0, 0])


def test_a_model_that_never_lost_has_no_ability_and_a_note():
    rows = [("1", "a", "b", "a"), ("2", "b", "c", "a"), ("3", "b", "c", "b"), ("4", "c", "a", "b"), ("5", "c", "d", "a")]
    table = ranked(votes_of(rows))
    assert table.index.tolist() == ["a", "b", "c", "d"]
    assert table["ability"].isna().tolist() == [True, False, False, True]
    assert "never lost" in table.loc["a", "note"]
    assert "never won" in table.loc["d", "note"]
    assert np.isfinite(table.loc[["b", "c"], ["ability", "low", "high"]].to_numpy(dtype=float)).all()


def test_votes_that_link_nothing_give_notes_and_no_infinity():
    table = ranked(votes_of([("1", "a", "b", "a"), ("2", "c", "d", "a")]))
    assert table["ability"].isna().all()
    assert (table["note"] != "").all()


def test_two_groups_that_never_met_are_not_ranked_against_each_other():
    rows = [
        (str(i), *pair, choice)
        for i, (pair, choice) in enumerate([(("a", "b"), "a"), (("a", "b"), "b"), (("c", "d"), "a"), (("c", "d"), "b")])
    ]
    table = ranked(votes_of(rows))
    assert table["ability"].notna().sum() == 2
    assert table.loc[table["ability"].isna(), "note"].str.contains("more votes between them").all()


def test_a_model_without_votes_is_there():
    table = ranked(votes_of([("1", "a", "b", "a"), ("2", "a", "b", "b")]), ["a", "b", "c"])
    assert (table.loc["c", "n"], table.loc["c", "note"]) == (0, "no votes on it yet")
    assert table.index.tolist()[-1] == "c"


def test_people_judges_and_single_raters_can_be_ranked_alone():
    rows = [("1", "a", "b", "a", "ann"), ("2", "a", "b", "b", "bob"), ("3", "a", "b", "a", "judge:x")]
    votes = votes_of(rows)
    counts = {raters: ranked(votes, ["a", "b"], raters).loc["a", "n"] for raters in (None, "people", "judges", "ann")}
    assert counts == {None: 3, "people": 2, "judges": 1, "ann": 1}


@pytest.mark.parametrize(
    ("votes", "labels", "told"),
    [
        (votes_of([]), ["a", "b"], "no votes to rank by"),
        (votes_of([("1", "a", "b", "skip")]), ["a", "b"], "no votes to rank by"),
        (votes_of([("1", "a", "b", "a")]), ["a"], "at least two models"),
        (votes_of([("1", "a", "b", "left")]), ["a", "b"], "'left'"),
        (votes_of([("1", "a", "b", "a")]).drop(columns="rater"), ["a", "b"], "'rater'"),
    ],
)
def test_what_cannot_be_ranked_is_told(votes, labels, told):
    with pytest.raises(ConfigError, match=told):
        ranking(votes, labels, raters=None, confidence=0.95)


def test_shares_are_of_the_row_against_the_column():
    shares, met = win_shares(votes_of([("1", "a", "b", "a"), ("2", "b", "a", "b"), ("3", "a", "b", "tie")]), ["a", "b", "c"])
    assert shares[0, 1] == pytest.approx(2.5 / 3)
    assert shares[1, 0] == pytest.approx(0.5 / 3)
    assert met[0, 1] == 3
    assert np.isnan(shares[0, 2])


def test_a_comparison_ranks_by_its_own_votes():
    from toolkit.testing import script

    one, two = script("yes", lambda prompt, body: "yes"), script("no", lambda prompt, body: "no")
    result = tk.compare([one, two], [f"p{i}" for i in range(8)])
    ballot = result.ballot(rater="ann")
    while (paper := ballot.current) is not None:
        ballot.cast("a" if (paper.left == "yes") == (paper.prompt != "p3") else "b")
    table = result.ranking()
    assert table["model"].tolist() == [one, two]
    assert table["wins"].tolist() == [7, 1]
    assert result.ranking(raters="people").equals(table)
    with pytest.raises(ConfigError, match="no votes"):
        result.ranking(raters="judges")
