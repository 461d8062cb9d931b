"""What shows how a comparison goes: figures, pace, voice, and one line a model where nobody watches."""

import asyncio
import io
import json
import re
import sys
import threading

import pytest

import toolkit as tk
from toolkit.comparison.progress import HEAD, Lines, NotebookTable, Tallies, TerminalBar, announcement
from toolkit.testing import Answer, Failure, script


@pytest.fixture
def seen():
    """A run as a watcher sees it at its end."""
    script("good", lambda prompt, body: Answer(f"a few words on {prompt}", per_token_s=0.001))
    script("bad<i>", [Failure(status=400)] * 50)
    runs = []
    tk.compare(["scripted/good", "scripted/bad<i>"], ["a", "b", "c"], progress=runs.append)
    return runs[-1]


def cells(run, model):
    tallies = {tally.label: tally for tally in Tallies(run).update()}
    return dict(zip(HEAD, tallies[model].cells(None)))


def test_a_model_has_its_progress_times_speed_and_cost(seen):
    good = cells(seen, "scripted/good")
    assert (good["ok"], good["cached"], good["failed"], good["cost"]) == ("3", "0", "0", "$0")
    assert 'value="3" max="3"' in good["progress"]
    assert all(good[name].endswith("s") for name in ("p50", "p95", "first token"))
    assert float(good["tokens/s"].replace(",", "")) > 0
    assert cells(seen, "scripted/bad<i>")["failed"] == "3"


def test_what_came_from_the_cache_is_counted_apart_and_has_no_latency(seen):
    again = []
    tk.compare(["scripted/good"], ["a", "b", "c"], progress=again.append)
    good = cells(again[-1], "scripted/good")
    assert (good["ok"], good["cached"], good["p50"]) == ("3", "3", "–")


def test_waits_for_a_service_s_limits_are_shown_as_such():
    script("limited", [Failure(status=429), Answer("there")])
    runs, client = [], tk.Client(retry=tk.Retry(first_s=0.02, random=lambda: 1.0))
    tk.compare(["scripted/limited"], ["a"], progress=runs.append, client=client)
    assert cells(runs[-1], "scripted/limited")["waited"].endswith("ms")


class Lookout:
    """Watches a run; ``sleep`` lasts until a call was seen waiting."""

    def __init__(self):
        self.seen, self.shown, self.bars, self.last = threading.Event(), [], [], None

    def __call__(self, run):
        self.last = run
        cell = cells(run, "scripted/limited")["waited"]
        if "waiting" in cell:
            bar = TerminalBar(run, io.StringIO())
            bar.draw()
            self.shown.append(cell)
            self.bars.append(bar.out.getvalue())
            self.seen.set()

    def sleep(self, _seconds):
        assert self.seen.wait(60)

    async def asleep(self, _seconds):
        await asyncio.to_thread(self.sleep, 0)


WAITS = pytest.mark.parametrize(("status", "reason"), [(429, "rate limit"), (503, "retry after ServerError")])


def check_waiting(lookout, reason):
    assert re.fullmatch(rf"– · 1 waiting [\d.]+ (s|ms|µs): {reason}", lookout.shown[0])
    assert re.search(rf", 1 waiting [\d.]+ (s|ms|µs): {reason}$", lookout.bars[0])
    assert "waiting" not in cells(lookout.last, "scripted/limited")["waited"]


@WAITS
def test_who_waits_for_another_attempt_is_told_while_it_waits(status, reason):
    script("limited", [Failure(status=status), Answer("there")])
    lookout = Lookout()
    tk.compare(["scripted/limited"], ["a"], progress=lookout, client=tk.Client(sleep=lookout.sleep))
    check_waiting(lookout, reason)


@WAITS
def test_on_the_callers_loop_too(status, reason):
    script("limited", [Failure(status=status), Answer("there")])
    lookout = Lookout()
    asyncio.run(tk.acompare(["scripted/limited"], ["a"], progress=lookout, client=tk.AsyncClient(sleep=lookout.asleep)))
    check_waiting(lookout, reason)


def test_who_is_not_let_in_by_the_limiter_waits_for_the_rate_limit():
    script("limited", [Answer("there")])
    lookout = Lookout()

    def sleep(_seconds):
        lookout.sleep(0)
        limiter.limit = 1

    client = tk.Client(sleep=sleep)
    limiter = client._tools.limiter("scripted")
    limiter.limit = 0
    tk.compare(["scripted/limited"], ["a"], progress=lookout, client=client)
    check_waiting(lookout, "rate limit")


def test_the_rest_takes_as_long_as_the_pace_says(seen):
    (tally, _) = Tallies(seen).update()
    tally.total = 9
    assert tally.left_s(6.0) == pytest.approx(12.0)
    assert tally.cells(12.0)[-1] == "12.0 s"


def test_a_log_has_one_line_a_model_in_their_order_at_the_end(seen):
    out = io.StringIO()
    lines = Lines(seen, out)
    lines(seen)
    assert out.getvalue() == ""
    lines.finish()
    first, second = out.getvalue().splitlines()
    assert first.startswith("scripted/good: 3 of 3 ok, 0 cached, 0 failed, p50 ")
    assert second.startswith("scripted/bad<i>: 0 of 3 ok, 0 cached, 3 failed, p50 –")


@pytest.mark.parametrize("ci", ["1", None])
def test_in_ci_and_in_a_plain_script_the_lines_go_to_standard_error(capsys, monkeypatch, ci):
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", ci)
    tk.compare(["scripted/echo"], ["a"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scripted/echo: 1 of 1 ok") and err.count("\n") == 1
    tk.compare(["scripted/echo"], ["a"], progress=False)
    assert capsys.readouterr().err == ""


class Ticks:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_table_is_drawn_at_most_eight_times_a_second(seen):
    clock = Ticks()
    table = NotebookTable(seen, stoppable=True, clock=clock)
    drawn = []
    table.live.observe(lambda change: drawn.append(change["new"]), "table")
    for tick in range(1000):
        clock.now = tick / 100
        table(seen)  # the seconds it has taken are in it: each drawing differs
    assert 1 < len(drawn) <= 80


def test_a_screen_reader_hears_of_quarters_and_of_the_end(seen):
    assert announcement(seen).startswith("done: 6 of 6")
    heard = set()
    rows = list(seen.done.items())
    for count in range(len(rows)):
        seen.done = dict(rows[:count])
        heard.add(announcement(seen))
    assert heard == {f"{share} % of 6 calls are done" for share in (0, 25, 50, 75)}


def test_the_stop_button_stops_the_run_and_what_stays_is_html(seen):
    seen.done.pop(0)
    table = NotebookTable(seen, stoppable=True)
    table.live._handle_custom_msg({"type": "stop"}, [])
    assert seen.stopped and table.live.stopped
    live = table.live
    table.finish()
    assert "stopped, what is finished is kept: 5 of 6" in live.left_behind()
    assert "bad&lt;i&gt;" in live.left_behind() and "<i>" not in live.left_behind()
    assert "<i>" not in json.dumps({name: value for name, value in live.get_state().items() if name != "_esm"})


def test_without_the_extra_the_table_has_no_button(seen, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("toolkit.widgets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    table = NotebookTable(seen, stoppable=True)
    assert table.live is None
    assert 'role="status"' in table._repr_html_()
