"""Blind votes: what a rater sees, where the votes go, and that none is lost."""

import logging
from collections import Counter

import pytest

import toolkit as tk
from toolkit.comparison.votes import Paper
from toolkit.errors import ConfigError
from toolkit.monitor.journal import Journal, JournalReader
from toolkit.testing import script

SAYS = {"red": "crimson", "blue": "azure", "green": "olive"}


def compared(client=None, prompts=6, models=("red", "blue", "green"), **options):
    for name, word in SAYS.items():
        script(name, lambda prompt, _body, word=word: f"{word} {prompt}")
    return tk.compare([f"scripted/{name}" for name in models], [f"p{i}" for i in range(prompts)], client=client, name="colours", **options)


def papers(ballot, choice="a"):
    seen = []
    while (paper := ballot.current) is not None:
        seen.append(paper)
        ballot.cast(choice)
    return seen


def test_a_paper_shows_a_prompt_and_two_answers_and_no_trace_of_the_models():
    ballot = compared().ballot(rater="ann", seed=3)
    paper = ballot.current
    assert Paper._fields == ("prompt", "left", "right", "position", "total", "left_images", "right_images")
    assert (paper.position, paper.total) == (1, 18)
    assert {paper.left.split()[1], paper.right.split()[1]} == {paper.prompt}
    assert not any(name in f"{paper} {ballot!r}" for name in ("red", "blue", "green", "scripted"))


def test_each_two_models_meet_equally_often_and_as_often_on_either_side():
    seen = papers(compared().ballot(rater="ann", seed=1))
    sides = Counter((paper.left.split()[0], paper.right.split()[0]) for paper in seen)
    assert sides == {(a, b): 3 for a in SAYS.values() for b in SAYS.values() if a != b}


def test_a_short_ballot_is_fair_to_all_models():
    seen = papers(compared().ballot(rater="ann", seed=1, n=6))
    assert set(Counter(frozenset((p.left.split()[0], p.right.split()[0])) for p in seen).values()) == {2}


def test_prompts_and_sides_come_in_an_order_made_of_the_seed():
    result = compared()
    first, same, other = (papers(result.ballot(rater=rater, seed=seed)) for rater, seed in (("ann", 1), ("bob", 1), ("cleo", 2)))
    assert first == same
    assert [paper[:3] for paper in first] != [paper[:3] for paper in other]


def test_a_vote_is_on_disk_when_cast_returns():
    result = compared()
    ballot = result.ballot(rater="ann", seed=1)
    paper = ballot.current
    ballot.cast("a")
    stored = JournalReader().votes(run="colours")
    assert (stored["choice"], stored["rater"], stored["comparison"]) == (["a"], ["ann"], ["colours"])
    assert SAYS[stored["model_a"][0].removeprefix("scripted/")] == paper.left.split()[0]
    assert stored["seconds"][0] >= 0


def test_a_rater_who_comes_back_is_not_asked_again_though_the_run_is_another():
    ballot = compared(repeats=2).ballot(rater="ann", n=10)
    before = [ballot.current]
    ballot.cast("b")
    before.append(ballot.current)
    ballot.cast("skip")
    unseen = ballot.current
    again = compared(repeats=2)
    back = again.ballot(rater="ann", n=10)
    assert back.progress == (2, 10)
    assert back.current == unseen
    assert not {paper[:3] for paper in papers(back)} & {paper[:3] for paper in before}
    assert again.ballot(rater="bob", n=10).progress == (0, 10)


def test_repeats_with_the_same_two_answers_are_asked_once():
    assert compared(repeats=3, models=("red", "blue")).ballot(rater="ann").progress.total == 6


def test_a_vote_taken_back_is_replaced_by_the_next_one():
    result = compared(models=("red", "blue"))
    ballot = result.ballot(rater="ann")
    shown = ballot.current
    ballot.cast("a")
    ballot.undo()
    assert ballot.current == shown
    ballot.cast("b")
    assert result.votes()["choice"].tolist() == ["b"]
    assert JournalReader().votes()["choice"] == ["a", "b"]
    assert compared(models=("red", "blue")).votes()["choice"].tolist() == ["b"]


def test_votes_come_as_a_frame_with_the_winner():
    result = compared(models=("red", "blue"), prompts=5)
    ballot = result.ballot(rater="ann", seed=5)
    for choice in ("a", "b", "tie", "both_bad", "skip"):
        ballot.cast(choice)
    votes = result.votes()
    assert votes["kind"].tolist() == ["person"] * 5
    assert votes["winner"].tolist()[:2] == [votes["model_a"][0], votes["model_b"][1]]
    assert votes["winner"].isna().tolist() == [False, False, True, True, True]
    assert str(votes["at"].dtype) == "datetime64[us, UTC]"
    assert compared(models=("red", "green"), prompts=5).votes().empty


def test_a_journal_that_cannot_be_written_loses_no_vote_and_says_so_once(tmp_path, caplog):
    place = tmp_path / "journal.sqlite"
    journal = Journal(place)
    with tk.Client(journal=journal) as client:
        result = compared(client)
        journal.close()
        place.unlink()
        place.mkdir()
        with caplog.at_level(logging.WARNING):
            ballot = result.ballot(rater="ann", n=3)
            papers(ballot)
        assert sum("can't write the journal" in record.getMessage() for record in caplog.records) == 1
        assert result.votes()["choice"].tolist() == ["a"] * 3
        place.rmdir()
        assert journal.flush()
    assert JournalReader(place).votes()["choice"] == ["a"] * 3


def test_without_a_journal_votes_stay_in_memory_and_one_warning_says_so(caplog):
    with tk.Client(journal=False) as client:
        result = compared(client)
    papers(result.ballot(rater="ann", n=3))
    assert len(result.votes()) == 3
    assert result.ballot(rater="ann", n=3).progress == (3, 3)
    assert sum("no journal" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rater": " "}, "who votes"),
        ({"rater": "judge:x"}, "for models"),
        ({"rater": "ann", "n": 0}, "at least one"),
        ({"rater": "ann", "models": ["scripted/red"]}, "at least two models"),
        ({"rater": "ann", "models": ["scripted/red", "scripted/pink"]}, "no model 'scripted/pink'"),
    ],
)
def test_a_wrong_ballot_is_told(wrong, told):
    with pytest.raises(ConfigError, match=told):
        compared().ballot(**wrong)


def test_answers_that_are_all_alike_leave_nothing_to_vote_on():
    script("first", lambda prompt, _body: prompt), script("second", lambda prompt, _body: f"{prompt} ")
    with pytest.raises(ConfigError, match="nothing to vote on"):
        tk.compare(["scripted/first", "scripted/second"], ["a"]).ballot(rater="ann")


def test_a_wrong_choice_counts_as_nothing_and_a_ballot_that_is_over_says_so():
    ballot = compared(models=("red", "blue"), prompts=1).ballot(rater="ann")
    with pytest.raises(ConfigError, match="both_bad"):
        ballot.cast("left")
    with pytest.raises(ConfigError, match="no vote to take back"):
        ballot.undo()
    assert ballot.progress.done == 0
    ballot.cast("a")
    with pytest.raises(ConfigError, match="over"):
        ballot.cast("a")
