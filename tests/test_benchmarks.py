"""The benchmarks measure what they say and write it down: tiny sizes, whoever is installed, no figure asserted."""

import contextlib
import dataclasses
import re
import sys
import time
import types
from importlib import import_module
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report
from benchmarks.__main__ import QUESTIONS, main, quiet
from benchmarks.grid import ideal_s
from benchmarks.measure import Apart, Column, Contestant, Effort, Goal, Here, Place, Reading, Result, Table, environment, measured
from benchmarks.pages import figures
from benchmarks.profile import part_of, profiled
from benchmarks.server import drawn_delay_s, running
from benchmarks.true_times import reading as reading_of
from benchmarks.true_times import told_by_clock

SHORT = Effort(rounds=1, round_s=0.0, explain=False)
SMALL = {
    "imports": {"peers": ()},
    "one_call": {"width": 2},
    "streamed_token": {"tokens": 40},
    "true_times": {"width": 2, "tokens": 3, "busy_width": 2},
    "width": {"sizes": (1, 2)},
    "cache_hit": {"entries": 20},
    "cache_growth": {"sizes": (20, 40)},
    "percentiles": {"values": 100},
    "journal": {"rows": 300},
    "journal_growth": {"sizes": (10, 20)},
    "grid": {"prompts": 3},
    "growth": {"sizes": (8, 16)},
}
QUICK_QUESTIONS = [name for name in QUESTIONS if name != "pages"]  # the dashboard's own tests measure it, in a browser


@pytest.fixture(scope="module")
def url():
    with running() as address:
        yield address


@pytest.fixture
def place(url, tmp_path):
    with environment(quiet(str(tmp_path))):
        yield Place(url, str(tmp_path))


def tables_of(question):
    return import_module(f"benchmarks.{question}").tables(**SMALL.get(question, {}))


def ours_in(table):
    return {c.name for c in table.contestants if "toolkit" in c.name} | {goal.ours for goal in table.goals}


@pytest.mark.parametrize("question", QUICK_QUESTIONS)
def test_we_and_the_reference_give_a_row_each_and_a_chart(question, place):
    for table in tables_of(question):
        contestants = tuple(c for c in table.contestants if c.name in ours_in(table) or c.name == table.reference)
        result = measured(dataclasses.replace(table, contestants=contestants, rounds=1, cold=True, fixed=True), place, SHORT, within=Here)
        written, drawn = report.section(result), ElementTree.fromstring(chart.drawn(result))
        for contestant in contestants:
            assert (contestant.name in result.readings) != (contestant.name in result.absent)
            assert contestant.name in written
            if contestant.name in ours_in(table):
                assert result.readings[contestant.name][0].wall_s > 0
        assert table.title in "".join(drawn.itertext())


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_goal_is_of_a_contestant_and_a_quantity_that_are_there_and_has_a_name_of_its_own(question):
    goals = [(goal, table) for table in tables_of(question) for goal in table.goals]
    for goal, table in goals:
        assert {goal.ours, goal.than} <= {c.name for c in table.contestants} | {None}
        assert table.column(goal.of)
    assert len({goal.figure for goal, _ in goals}) == len(goals)


def test_every_question_has_a_chart_of_its_own():
    names = [chart.file_name(table) for question in QUESTIONS for table in tables_of(question)]
    assert len(set(names)) == len(names)


def busy(place):
    def run(n):
        for _ in range(n):
            sum(range(2_000))

    yield run


def sleepy(place):
    yield lambda n: time.sleep(0.001 * n)


def missing_library(place):
    import no_such_library_at_all  # noqa: F401

    yield None


def failing(place):
    raise ValueError("this one fails on purpose")
    yield None


def table_of(*setups, ours="busy"):
    contestants = tuple(Contestant(setup.__name__, setup) for setup in setups)
    return Table(title="What?", reference="sleepy", contestants=contestants, goals=(Goal("busy or not", ours, "sleepy", 1.0),))


def test_contestants_are_measured_in_processes_of_their_own_and_sleep_is_not_cpu(place):
    result = measured(table_of(busy, sleepy), place, Effort(rounds=2, round_s=0.02), within=Apart)
    assert [len(readings) for readings in result.readings.values()] == [2, 2]
    sleeping = result.readings["sleepy"][0]
    assert sleeping.cpu_s < sleeping.wall_s / 2


def test_a_peer_that_is_missing_or_fails_is_left_out_and_named(place):
    result = measured(table_of(busy, missing_library, failing), place, SHORT, within=Apart)
    assert list(result.readings) == ["busy"]
    written = report.section(result)
    assert "missing_library (`no_such_library_at_all` is not installed)" in written
    assert "failing (it failed)" in written
    assert "not measured, a peer was left out" in written


def test_our_own_failure_ends_the_run(place):
    with pytest.raises(RuntimeError, match="failing gave up"):
        measured(table_of(failing, sleepy, ours="failing"), place, SHORT, within=Apart)


def result_with(ours_s, theirs_s):
    result = Result(table_of(busy, sleepy))
    result.readings = {"busy": [Reading(s, s) for s in ours_s], "sleepy": [Reading(s, s) for s in theirs_s]}
    return result


def test_a_ratio_is_the_median_of_the_ratios_round_by_round():
    slow_second_round = result_with([1e-6, 10e-6, 2e-6], [2e-6, 20e-6, 2e-6])
    assert slow_second_round.compared("busy", "sleepy", "cpu_s").middle == pytest.approx(0.5)


@pytest.mark.parametrize(("ours_s", "said"), [(0.5e-6, "| met |"), (3e-6, "**not met**")])
def test_a_figure_is_met_or_not(ours_s, said):
    assert said in report.section(result_with([ours_s], [1e-6]))


@pytest.mark.parametrize("within", [Here, Apart])
def test_a_missed_figure_shows_where_the_time_goes_and_a_met_one_does_not(place, within):
    table = dataclasses.replace(table_of(busy, sleepy), fixed=True, rounds=1, goals=(Goal("impossible", "busy", None, 0.0),))
    written = report.section(measured(table, place, Effort(round_s=0.0), within=within))
    assert re.search(r"- and by place: .*`test_benchmarks\.busy\.run`", written)
    easy = dataclasses.replace(table, goals=(Goal("easy", "busy", None, 60.0),))
    assert "Where it goes" not in report.section(measured(easy, place, Effort(round_s=0.0), within=Here))


def test_a_profile_of_memory_names_who_allocated_it():
    kept = []
    found = profiled(lambda n: kept.append(bytearray(5_000_000)), 1, memory=True)
    assert found.places[0][0].endswith("kept.append(bytearray(5_000_000)), 1, memory=True)")


def test_parts_of_the_toolkit_are_told_by_their_layer_and_others_by_package():
    names = ("toolkit.monitor.journal.sqlite", "toolkit.wire.http1", "httpx._client", "benchmarks.grid")
    assert [part_of(name) for name in names] == ["toolkit.monitor.journal", "toolkit.wire", "httpx", "the benchmark itself"]


def test_the_page_names_machine_versions_and_what_was_missed_and_its_charts_replace_those_of_before(tmp_path):
    old = tmp_path / report.IMAGES / "of-a-question-that-is-gone.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    report.write_page(tmp_path / "page.md", [result_with([3e-6], [1e-6])], Effort(), "The machine was shared.")
    page = (tmp_path / "page.md").read_text()
    assert "The machine was shared." in page
    assert "0 of 1 figures are met. Not met: busy or not." in page
    assert report.processor() in page
    assert sorted(tmp_path.glob("images/benchmarks/*")) == [tmp_path / image for image in re.findall(r"\]\((images/.*?)\)", page)]


def test_a_question_that_breaks_leaves_what_the_others_found(tmp_path, monkeypatch, capfd):
    broken = types.SimpleNamespace(tables=lambda: [*import_module("benchmarks.percentiles").tables(values=100)[:1], None])
    monkeypatch.setitem(sys.modules, "benchmarks.width", broken)
    monkeypatch.setitem(sys.modules, "benchmarks.journal", types.SimpleNamespace(tables=lambda: [table_of(busy, sleepy)]))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--out", str(tmp_path / "page.md"), "width", "journal"])
    assert main() == 1
    page = (tmp_path / "page.md").read_text()
    assert "Not measured to its end, for it broke: width." in page
    assert "percentiles" in page and "sleepy" in page
    assert "AttributeError" in capfd.readouterr().err


def growing(name, at, series=""):
    return Contestant(name, busy, series=series, at=at)


def test_curves_go_up_where_figures_do_and_bars_are_as_long_as_they_are_large():
    table = dataclasses.replace(table_of(busy, sleepy), axis="rows", contestants=(growing("few", 10), growing("many", 1000)), goals=())
    result = Result(table, {"few": [Reading(1e-6, 1e-6)], "many": [Reading(8e-6, 8e-6)]})
    points = [tuple(map(float, point.split(","))) for point in re.search(r'points="(.*?)"', chart.drawn(result))[1].split()]
    assert points[0][0] < points[1][0]
    assert points[0][1] > points[1][1]  # upwards is towards 0
    bars = chart.drawn(result_with([1e-6], [4e-6]))
    widths = [float(width) for width in re.findall(r'class="(?:ours|theirs)" .*? width="([\d.]+)"', bars)]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)


def test_a_quantity_that_a_contestant_does_not_have_is_a_dash_and_no_point():
    columns = (Column("prune", "CPU", "µs an entry pruned", 1e6),)
    table = dataclasses.replace(table_of(busy, sleepy), columns=columns, goals=(Goal("pruning", "busy", "sleepy", 1.0, of="prune"),))
    result = Result(table, {"busy": [Reading(1e-6, 1e-6, {"prune": 2e-6})], "sleepy": [Reading(1e-6, 1e-6)]})
    written = report.section(result)
    assert "| sleepy | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | – |" in written
    assert "not measured" in written


def test_errors_of_a_stream_are_told_by_the_stamps_that_it_carries():
    stamps = [1_000_000_000_000, 1_000_100_000_000, 1_000_120_000_000]  # the request at 1,000 s, a token 100 ms later, another after 20 ms
    chunks = [(1000.102, f"{stamps[0]} {stamps[1]} ".encode()), (1000.125, f"{stamps[2]} ".encode())]
    found = reading_of(0.0, 0.0, [told_by_clock(999.999, chunks, 1000.126)]).more
    assert found["ttft_p99"] == pytest.approx(0.003)
    assert (found["lag_p50"], found["lag_p99"]) == (pytest.approx(0.005), pytest.approx(0.005))
    assert (found["too_long"], found["too_short"]) == (pytest.approx(0.127 - 0.12), 0)


def test_the_dashboards_figures_are_the_slowest_page_of_each_window():
    times = {"overview, 24h, cold": 5.0, "overview, 24h, another model": 0.1, "cost, 24h, another model": 0.2}
    times |= {"cost, 7d, another model": 0.3, "cost, all, another model": 0.4, "memory, MB": 300.0}
    assert figures(times) == {"first": 5.0, "24h": 0.2, "7d": 0.3, "all": 0.4}


def test_the_best_possible_time_follows_from_the_delays_and_the_order():
    cells = [(f"bench-{i % 4}", f"{i} question") for i in range(64)]
    delays = [drawn_delay_s(0.05, *cell) for cell in cells]
    assert ideal_s(cells) == pytest.approx(max(delays))
    assert ideal_s([*cells, cells[0]]) == pytest.approx(max(*delays, min(delays) + delays[0]))


def test_how_long_the_server_thinks_does_not_depend_on_how_the_question_is_spelt():
    assert drawn_delay_s(0.05, "bench-1", "7 of round 1") == drawn_delay_s(0.05, "bench-1", "7 of round 2")
    assert drawn_delay_s(0.05, "bench-1", "7") != drawn_delay_s(0.05, "bench-2", "7")


def test_environment_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("BENCH_KNOWN", "before")
    with contextlib.suppress(KeyError), environment({"BENCH_KNOWN": "meanwhile", "BENCH_NEW": "meanwhile"}):
        raise KeyError
    import os

    assert (os.environ["BENCH_KNOWN"], os.environ.get("BENCH_NEW")) == ("before", None)
