"""The playground without a browser: answers stream on a thread of their own, and what is kept is a comparison."""

import sys
import threading

import pytest

import toolkit as tk
from toolkit.errors import ConfigError
from toolkit.testing import Answer, Failure, script


@pytest.fixture
def play():
    script("first", lambda prompt, body: f"first on {prompt}")
    script("second", lambda prompt, body: f"<b>second</b> on {prompt}")
    script("endless", [Answer("word " * 2000, per_token_s=0.05)])
    script("down", [Failure(status=400)] * 9)
    made = []

    def open_one(*models, **options):
        made.append(tk.playground([f"scripted/{name}" for name in models], **options))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


def panes(playground):
    return [pane.value for pane in playground.board.panes.children]


def test_answers_stand_side_by_side_escaped_with_their_figures(play):
    board = play("first", "second")
    board.ask("tea")
    assert board.wait(20)
    first, second = panes(board)
    assert "first on tea" in first
    assert "&lt;b&gt;second&lt;/b&gt; on tea" in second and "<b>second" not in second
    assert all("first token" in pane and "tokens/s" in pane and "cost $0" in pane for pane in (first, second))


def test_only_the_ticked_models_are_asked_with_the_sliders_values(play):
    board = play("first", "second")
    board.board.models[0].value = False
    board.board.temperature.value, board.board.max_tokens.value = 0.2, 9
    board.ask("tea")
    board.wait(20)
    board.keep()
    (kept,) = board.kept()
    assert (kept.model, kept.options.temperature, kept.options.max_tokens) == ("scripted/second", 0.2, 9)


def test_stop_ends_a_stream_and_what_has_come_stays(play):
    board = play("endless")
    begun = threading.Event()
    board.ask("go")
    board.board.panes.children[0].observe(lambda change: begun.set() if "word" in change["new"] else None, "value")
    assert begun.wait(20)
    stopped = threading.Event()
    board.board.note.observe(lambda change: stopped.set(), "value")
    board.board.stop.click()
    assert stopped.wait(20)
    assert not board.running
    assert "stopped" in panes(board)[0] and "word" in panes(board)[0]
    assert board.keep() == 0


def test_closing_it_stops_the_streams_and_ends_its_thread(play):
    board, before = play("endless"), set(threading.enumerate())
    board.ask("go")
    (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "toolkit-playground")
    board.board.close_button.click()
    thread.join(20)
    assert not thread.is_alive()
    assert not board.running
    with pytest.raises(ConfigError, match="closed"):
        board.ask("again")


def test_a_model_that_fails_says_what_to_do_and_does_not_disturb_the_others(play):
    board = play("down", "first")
    board.ask("tea")
    board.wait(20)
    down, first = panes(board)
    assert "RequestError" in down and "which field" in down
    assert "first on tea" in first
    assert board.keep() == 1


def test_what_is_kept_is_a_comparison_of_the_very_answers_and_asks_nothing_again(play):
    board = play("first", "second")
    for prompt in ("tea", "coffee"):
        board.ask(prompt)
        board.wait(20)
        assert board.keep() == 2
    assert board.keep() == 0, "the same answers are kept once"
    calls = len(tk.monitor.calls())
    result = board.comparison()
    assert len(tk.monitor.calls()) == calls
    assert result.side_by_side()["scripted/first"].tolist() == ["first on tea", "first on coffee"]
    assert set(result.frame["call_id"]) == {kept.completion.call_id for kept in board.kept()}
    assert result.frame["latency_s"].notna().all()


def test_a_model_asked_with_two_settings_is_two_columns(play):
    board = play("first")
    for temperature in (0.1, 0.9):
        board.board.temperature.value = temperature
        board.ask("tea")
        board.wait(20)
        board.keep()
    assert board.comparison().models == [f"scripted/first (temperature={t:g}, max_tokens=256)" for t in (0.1, 0.9)]


@pytest.mark.parametrize(("prompt", "word"), [("  ", "empty"), ("tea", "no model is chosen")])
def test_the_ask_button_says_what_is_missing(play, prompt, word):
    board = play("first", prompt=prompt)
    board.board.models[0].value = prompt == "  "
    board.board.ask.click()
    assert word in board.board.note.value


def test_nothing_kept_is_no_comparison(play):
    with pytest.raises(ConfigError, match="press Keep"):
        play("first").comparison()


@pytest.mark.parametrize("make", [lambda: tk.playground(["scripted/echo"]), lambda: two_answers().vote(rater="ann")])
def test_without_its_extra_the_error_names_it(make, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("toolkit.widgets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ConfigError, match=r"model-comparison-toolkit\[notebook\]"):
        make()


def two_answers():
    models = [script("first", lambda prompt, body: "first"), script("second", lambda prompt, body: "second")]
    return tk.compare(models, ["a", "b"], progress=False)
