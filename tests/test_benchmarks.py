"""The benchmarks measure what they say and write it down: tiny sizes, whoever is installed, no figure asserted."""

import contextlib
import dataclasses
import time
from importlib import import_module

import pytest

from benchmarks import report
from benchmarks.__main__ import QUESTIONS, quiet
from benchmarks.grid import ideal_s
from benchmarks.measure import Apart, Contestant, Effort, Goal, Here, Place, Reading, Result, Table, environment, measured
from benchmarks.server import drawn_delay_s, running

SHORT = Effort(rounds=1, round_s=0.0)
SMALL = {
    "imports": {"peers": ()},
    "one_call": {"width": 2},
    "streamed_token": {"tokens": 40},
    "cache_hit": {"entries": 20},
    "journal": {"rows": 300},
    "grid": {"prompts": 3},
    "growth": {"sizes": (8, 16)},
}
OUR_NAMES = ("toolkit", "tk.", "journal")


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


def is_ours(contestant):
    return any(name in contestant.name for name in OUR_NAMES)


@pytest.mark.parametrize("question", QUESTIONS)
def test_we_and_the_reference_give_a_row_each(question, place):
    notes = import_module(f"benchmarks.{question}").NOTES
    for table in tables_of(question):
        contestants = tuple(c for c in table.contestants if is_ours(c) or c.name == table.reference)
        result = measured(dataclasses.replace(table, contestants=contestants, rounds=1, fixed=True), place, SHORT, within=Here)
        written = report.section(result, notes)
        for contestant in contestants:
            assert (contestant.name in result.readings) != (contestant.name in result.absent)
            assert contestant.name in written
            if is_ours(contestant):
                assert result.readings[contestant.name][0].wall_s > 0


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_figure_compares_two_contestants_and_can_explain_a_miss(question):
    notes = import_module(f"benchmarks.{question}").NOTES
    goals = [(goal, {c.name for c in table.contestants}) for table in tables_of(question) for goal in table.goals]
    for goal, names in goals:
        assert {goal.ours, goal.than} <= names | {"ideal"}
    assert {goal.figure for goal, _ in goals} == notes.keys()
    assert len(goals) == len(notes)


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
    written = report.section(result, {})
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


@pytest.mark.parametrize(("ours_s", "said", "explained"), [(0.5e-6, "| met |", False), (3e-6, "**not met**", True)])
def test_a_figure_is_explained_only_where_it_is_missed(ours_s, said, explained):
    written = report.section(result_with([ours_s], [1e-6]), {"busy or not": "because of this"})
    assert said in written
    assert ("because of this" in written) == explained


def test_the_page_names_machine_versions_and_what_was_missed():
    result = result_with([3e-6], [1e-6])
    page = report.page([(result, {"busy or not": "because of this"})], Effort(), "The machine was shared.")
    assert "The machine was shared." in page
    assert "0 of 1 figures are met. Not met: busy or not." in page
    assert report.processor() in page


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
