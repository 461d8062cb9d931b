"""A comparison: its plan, its rows, its tables."""

import asyncio
import threading

import pandas as pd
import polars as pl
import pytest

import toolkit as tk
from servers.chat_completions import ChatService
from toolkit import stats
from toolkit.client import Options
from toolkit.comparison.grid import build_plan, read_prompts
from toolkit.comparison.progress import TerminalBar
from toolkit.errors import ConfigError
from toolkit.testing import Answer, Failure, script

TWO = ["embedded/ngram-2", "embedded/ngram-3"]
QUICK = tk.Retry(attempts=1)


def plan_of(models=TWO, prompts=("a", "b", "c"), repeats=2, order_seed=1):
    return build_plan(models, list(prompts), repeats=repeats, options=Options(), template=None, order_seed=order_seed)


def test_every_cell_is_asked_once_and_models_alternate():
    plan = plan_of()
    order = list(plan.order())
    assert sorted(order) == list(range(len(plan)))
    for first, second in zip(order[::2], order[1::2]):
        one, other = plan.cell(first), plan.cell(second)
        assert (one.question, one.repeat) == (other.question, other.repeat)
        assert one.variant != other.variant


def test_the_order_is_shuffled_by_its_seed():
    assert list(plan_of(order_seed=1).order()) == list(plan_of(order_seed=1).order())
    assert list(plan_of(order_seed=1).order()) != list(plan_of(order_seed=2).order())


def test_rows_are_tidy_and_in_the_order_of_the_table():
    result = tk.compare(TWO, ["The for statement", "A class is"], repeats=2, seed=1, max_tokens=8)
    frame = result.frame
    assert len(frame) == 8
    assert frame["prompt_id"].tolist() == ["001"] * 4 + ["002"] * 4
    assert frame["label"].tolist() == TWO * 4
    assert frame["repeat"].tolist() == [0, 0, 1, 1] * 2
    assert (frame["status"] == "ok").all()
    assert frame["ttft_s"].notna().all()
    assert isinstance(result.polars(), pl.DataFrame)


def test_with_the_extra_fast_a_comparison_asks_on_uvloop():
    loops = set()

    def key():
        loops.add(type(asyncio.get_running_loop()).__module__)
        return "a key"

    with (
        ChatService().serve() as server,
        tk.Client(
            base_urls={"openai_compatible": f"{server.url}/v1"},
            api_keys={"openai_compatible": key},
            transport="fast",
            cache=False,
            journal=False,
        ) as client,
    ):
        result = tk.compare(["openai_compatible/demo-small"], ["hi", "ho"], client=client)
    assert result.frame["status"].tolist() == ["ok", "ok"]
    assert loops == {"uvloop"}


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_second_run_replays_everything_and_has_no_latency(repeats):
    first = tk.compare(TWO, ["The for statement"], repeats=repeats, seed=1, max_tokens=8)
    again = tk.compare(TWO, ["The for statement"], repeats=repeats, seed=1, max_tokens=8)
    assert set(again.frame["provenance"]) == {"replayed"}
    assert again.latency()["n"].tolist() == [0] * 6
    assert again.latency()["value"].isna().all()
    assert "no live call" in again.latency()["note"].iloc[0]
    assert again.side_by_side().equals(first.side_by_side())
    assert f"{2 * repeats} of {2 * repeats} answers were replayed" in again.cached_sentence()


def test_each_repeat_is_a_question_of_its_own():
    drawn = tk.compare(["embedded/ngram-2"], ["The for statement"], repeats=6, temperature=1.5, max_tokens=20)
    assert drawn.frame["text"].nunique() > 1


def test_a_failed_call_is_a_row_and_the_others_go_on():
    script("refuses", [Failure(status=400, message="not <b>that</b>")])
    result = tk.compare(["scripted/refuses", "scripted/echo"], ["x", "y"], client=tk.Client(retry=QUICK))
    assert result.frame["status"].value_counts().to_dict() == {"error": 2, "ok": 2}
    errors = result.errors()
    assert (errors["error_type"].tolist(), errors["count"].tolist()) == (["RequestError"], [2])
    assert "RequestError" in result.side_by_side().loc[("001", "x"), "scripted/refuses"]
    assert result.summary().loc["scripted/refuses", "errors"] == 2


def test_side_by_side_can_leave_out_what_all_answered_alike():
    script("shouts", lambda prompt, _body: prompt.upper())
    result = tk.compare(["scripted/echo", "scripted/shouts"], ["SAME", "other"])
    assert result.side_by_side(only="different").index.get_level_values("prompt").tolist() == ["other"]
    with pytest.raises(ConfigError, match="different"):
        result.side_by_side(only="same")


def test_models_take_options_of_their_own_and_are_told_apart():
    cold, warm = tk.Model("embedded/ngram-3", temperature=0.0), tk.Model("embedded/ngram-3", temperature=1.5, label="warm")
    result = tk.compare([cold, warm], ["The for statement"], seed=3, max_tokens=16)
    assert result.models == ["embedded/ngram-3 (temperature=0.0)", "warm"]
    assert set(result.frame["model"]) == {"embedded/ngram-3"}
    assert result.frame["label"].tolist() == result.models


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_prompts_come_from_a_frame_and_a_template(make):
    frame = make({"prompt_id": ["p", "q"], "topic": ["for", "if"], "reference": ["loop", None]})
    questions = read_prompts(frame, "The {topic} statement")
    assert [(q.prompt_id, q.prompt, q.reference) for q in questions] == [
        ("p", "The for statement", "loop"),
        ("q", "The if statement", None),
    ]


def test_messages_are_prompts_too():
    result = tk.compare(["scripted/echo"], [[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]])
    assert result.frame["text"].tolist() == ["hi"]
    assert result.frame["prompt"].tolist() == ["system: be brief\nuser: hi"]


@pytest.mark.parametrize(
    ("models", "prompts", "more", "told"),
    [
        ([], ["x"], {}, "models= is empty"),
        ("embedded/ngram-2", ["x"], {}, "list of models"),
        (["embedded/ngram-2", "embedded/ngram-2"], ["x"], {}, "listed twice"),
        (["nowhere/x"], ["x"], {}, "embedded"),
        (TWO, [], {}, "prompts= is empty"),
        (TWO, "x", {}, "into a list"),
        (TWO, ["x", ""], {}, "prompt 2"),
        (TWO, ["x", None], {}, "prompt 2"),
        (TWO, pd.DataFrame({"question": ["x"]}), {}, "question"),
        (TWO, pd.DataFrame({"a": ["x"]}), {"template": "{b}"}, "'b'"),
        (TWO, pd.DataFrame({"a": ["x"]}), {"template": "{a.__class__}"}, "a.__class__"),
        (TWO, pd.DataFrame({"a": ["x"]}), {"template": "{a"}, "template"),
        (TWO, pd.DataFrame({"a": ["x"]}), {"template": "constant"}, "no column"),
        (TWO, ["x"], {"template": "{a}"}, "frame"),
        (TWO, pd.DataFrame({"prompt": ["x", "y"], "prompt_id": [1, 1]}), {}, "twice"),
        (TWO, pd.DataFrame({"prompt": ["x", float("nan")]}), {}, "prompt 2"),
        (TWO, pd.DataFrame({"prompt": ["x", "y"], "prompt_id": ["1", None]}), {}, "prompt_id of prompt 2 is missing"),
        (TWO, pd.DataFrame({"a": ["x", float("nan")]}), {"template": "Say {a}"}, "a of prompt 2 is missing"),
        (TWO, ["x"], {"repeats": 0}, "repeats"),
        (TWO, ["x"], {"concurrency": 0}, "concurrency"),
        (TWO, ["x"], {"temperature": -1}, "temperature"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(models, prompts, more, told):
    with pytest.raises(ConfigError, match=told):
        tk.compare(models, prompts, **more)
    assert tk.monitor.calls().empty


def test_a_missing_key_is_told_and_is_no_row():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        tk.compare(["openai_compatible/gpt", "scripted/echo"], ["x"])


def test_an_interrupt_returns_what_is_finished(monkeypatch):
    release = threading.Event()
    answered = []

    def answer(prompt, _body):
        if len(answered) >= 3:
            release.wait(20)
        answered.append(prompt)
        return prompt

    script("stalls", answer)

    def interrupt(run):
        if len(run.done) >= 3:
            raise KeyboardInterrupt

    try:
        result = tk.compare(["scripted/stalls"], [f"p{i}" for i in range(9)], concurrency=2, progress=interrupt_once(interrupt))
    finally:
        release.set()
    assert result.stopped
    assert len(result) == 3 and result.missing == 6
    assert "6 not asked" in repr(result)
    assert "6 calls are missing" in result._repr_html_()


def interrupt_once(interrupt):
    """A watcher that interrupts a single time, as a user who presses the button once."""
    done = []

    def watch(run):
        if not done:
            try:
                interrupt(run)
            except KeyboardInterrupt:
                done.append(True)
                raise

    return watch


def test_the_awaitable_twin_gives_the_same_answers():
    plain = tk.compare(TWO, ["The for statement", "A class is"], seed=5, max_tokens=8)
    tk.defaults.reset()
    awaited = asyncio.run(tk.acompare(TWO, ["The for statement", "A class is"], seed=5, max_tokens=8, cache="refresh"))
    assert awaited.frame["text"].tolist() == plain.frame["text"].tolist()
    assert set(awaited.frame["provenance"]) == {"live"}


def test_stop_ends_the_awaitable_twin_and_keeps_what_is_finished():
    script("endless", [Answer("x", first_token_s=0.0), Answer("y", first_token_s=60.0)], cycle=False)

    def stop(run):
        if run.done:
            run.stop()

    result = asyncio.run(tk.acompare(["scripted/endless"], ["a", "b"], concurrency=1, progress=stop))
    assert (len(result), result.stopped) == (1, True)


def test_equal_prompts_in_one_comparison_are_asked_once():
    asked = []
    script("counted", lambda prompt, _body: asked.append(prompt) or "answer")
    result = tk.compare(["scripted/counted"], ["same", "same", "same"])
    assert len(asked) == 1
    assert sorted(set(result.frame["provenance"])) != ["live"]


def test_what_a_model_wrote_is_escaped_wherever_it_is_shown():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    script("hostile", [hostile])
    result = tk.compare(["scripted/hostile"], [f"{hostile} prompt"], name=hostile)
    for shown in (result._repr_html_(), result.side_by_side()._repr_html_(), tk.generate_text("scripted/hostile", "x")._repr_html_()):
        assert "<script" not in shown and "<img" not in shown
    assert "&lt;script&gt;" in result.side_by_side()._repr_html_()


def test_a_terminal_is_sent_no_control_characters_of_a_model(capsys):
    from toolkit.cli import main

    script("escapes", ["\x1b[31mred\x07"])
    assert main(["ask", "scripted/escapes", "x"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_terminal_bar_tells_how_far_it_is():
    import io

    out = io.StringIO()
    bars = []

    def watch(run):
        if not bars:
            bars.append(TerminalBar(run, out, clock=lambda: 0.0))
        bars[0].draw()

    tk.compare(["scripted/echo"], ["a", "b"], progress=watch)
    assert "done: 2 of 2" in out.getvalue()


def test_a_comparison_without_recorded_content_still_has_its_answers(monkeypatch):
    monkeypatch.setenv("TOOLKIT_RECORD_CONTENT", "0")
    tk.defaults.reset()
    result = tk.compare(["scripted/echo"], ["a secret prompt"])
    assert result.frame["text"].tolist() == ["a secret prompt"]
    row = tk.monitor.calls().iloc[0]
    assert pd.isna(row["text"]) and pd.isna(row["prompt"]) and row["prompt_chars"] == 15


def test_what_an_embedded_model_computes_is_its_latency_and_no_stall_of_the_loop():
    frame = tk.compare(
        ["embedded/ngram-4"], ["The for statement", "A class is"], repeats=10, max_tokens=60, temperature=0.8, cache=False
    ).frame
    alone = tk.generate_text("embedded/ngram-4", "The for statement", max_tokens=60, temperature=0.8, cache=False).timing.latency_s
    assert frame["loop_stall_s"].max() == 0.0
    assert frame["latency_s"].median() > alone / 20
    assert frame["latency_s"].sum() > frame["total_s"].max() / 2


def test_repeats_do_not_make_a_latency_surer_than_its_prompts_do():
    script("paced", lambda prompt, body: "word")
    result = tk.compare(["scripted/paced"], [f"p{i}" for i in range(12)], repeats=6, cache=False)
    row = result.latency((0.5,)).iloc[0]
    live = result.frame
    expected = stats.percentile_interval(live["latency_s"], 0.5, clusters=live["prompt_id"])
    alone = stats.percentile_interval(live["latency_s"], 0.5)
    assert (row["low"], row["high"], row["n"]) == (expected.low, expected.high, 72)
    assert row["low"] <= alone.low and row["high"] >= alone.high
    assert "not estimable" in stats.percentile_interval([1.0, 2.0, 3.0], 0.5, clusters=["a", "a", "a"]).note


def test_a_bound_that_clusters_cost_names_them():
    values, four = [float(i) for i in range(4) for _ in range(20)], [prompt for prompt in "abcd" for _ in range(20)]
    assert stats.percentile_interval(values, 0.5, clusters=four).note == "not estimable at n=80 in 4 clusters"
    assert stats.percentile_interval(values, 0.5).note == ""
