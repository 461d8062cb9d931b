"""The voting widget without a browser: what goes to the page, and what comes back from it."""

import json

import pytest

import toolkit as tk
from toolkit.testing import script

NAMES = ("red", "blue", "scripted")


@pytest.fixture
def compared():
    models = [script("red", lambda prompt, body: f"<b>one</b> {prompt}"), script("blue", lambda prompt, body: f"two {prompt}")]
    return tk.compare(models, ["p1", "p2", "p3"], name="a vote", progress=False)


def press(widget, choice, position=None):
    widget._handle_custom_msg({"choice": choice, "position": widget.position if position is None else position}, [])


def state(widget):
    return json.dumps(widget.get_state())


def test_no_name_of_a_model_is_in_what_the_page_is_sent(compared):
    widget = compared.vote(rater="ann", seed=1)
    while not widget.over:
        assert [name for name in NAMES if name in state(widget) + repr(widget) + widget.left_behind()] == []
        press(widget, "a")
    assert "Done: 3 of 3" in widget.said


def test_each_button_is_a_vote_and_it_is_in_the_journal_at_once(compared):
    widget = compared.vote(rater="ann")
    for choice in ("b", "tie", "both_bad"):
        press(widget, choice)
        assert compared.votes()["choice"].tolist()[-1] == choice
    assert widget.over


def test_a_key_pressed_twice_does_not_vote_on_the_next_paper(compared):
    widget = compared.vote(rater="ann")
    press(widget, "a", position=1)
    press(widget, "a", position=1)
    assert len(compared.votes()) == 1
    assert widget.said.startswith("1 of 3")


@pytest.mark.parametrize("sent", ["c", None, "", "__class__"])
def test_what_is_no_choice_is_no_vote(compared, sent):
    widget = compared.vote(rater="ann")
    press(widget, sent)
    assert (len(compared.votes()), widget.position) == (0, 1)


def test_back_goes_to_the_paper_before_and_the_later_vote_counts(compared):
    widget = compared.vote(rater="ann")
    shown = (widget.left, widget.right)
    press(widget, "a")
    press(widget, "undo")
    assert (widget.left, widget.right) == shown
    press(widget, "b")
    assert compared.votes()["choice"].tolist() == ["b"]


def test_a_rater_who_comes_back_goes_on_and_another_begins_anew(compared):
    press(compared.vote(rater="ann"), "a")
    assert compared.vote(rater="ann").position == 2
    assert compared.vote(rater="bob").position == 1


def test_what_it_leaves_behind_is_plain_and_holds_no_answer(compared):
    widget = compared.vote(rater="<i>ann</i>")
    for _ in range(3):
        press(widget, "skip")
    left = widget.left_behind()
    assert "Done: 3 of 3 voted on, as &lt;i&gt;ann&lt;/i&gt;" in left
    assert "p1" not in left and "<i>" not in left
    assert repr(widget) == "<blind vote of <i>ann</i>: 3 of 3 voted on>"
