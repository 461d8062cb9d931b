"""What workers have finished counts once, whether the journal or the batch tells of it first."""

import itertools
import logging
import uuid

import pytest

import toolkit as tk
from toolkit.client import Options
from toolkit.comparison.grid import build_plan
from toolkit.comparison.intake import Intake
from toolkit.comparison.run import Run
from toolkit.comparison.scorers import read_scorers
from toolkit.monitor.journal import Journal
from toolkit.testing import script

PROMPTS = ["a b", "c d", "e f"]


@pytest.fixture
def rows():
    """What the calls of a comparison came to, by cell index."""
    script("words", lambda prompt, body: f"{prompt} and so on")
    return tk.compare(["scripted/words"], PROMPTS, client=tk.Client(cache=False, journal=False))._records


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def leaps():
    """A clock by which it is always time for the next look."""
    return map((100.0).__pow__, itertools.count()).__next__


def begin(journal, timer=None):
    plan = build_plan(["scripted/words"], PROMPTS, repeats=1, options=Options(), template=None, order_seed=1)
    run = Run(plan=plan, run_id=uuid.uuid4().hex, scorers=read_scorers({"length": lambda completion, _: len(completion.text)}))
    return run, Intake(run, journal, timer=timer or leaps())


def write(journal, run, *rows):
    for row in rows:
        journal.append(row._replace(run_id=run.run_id, call_id=row.call_id + run.run_id))
    journal.flush()


def test_a_row_of_the_journal_counts_once_and_gives_way_to_the_batch_s(journal, rows):
    run, intake = begin(journal)
    write(journal, run, rows[0], rows[1])
    intake.look()
    assert set(run.done) == {0, 1} and not run.waiting  # scores are given to what comes home
    intake.take([(2, rows[2]), (0, rows[0])], [(2, "answer 2"), (0, "answer 0")])
    assert len(run.rows) == 3 and [cell.index for cell, _ in run._unscored] == [2, 0]
    assert run.done[0] is rows[0] and any(row is rows[0] for row in run.rows)


def test_a_row_that_came_home_is_no_news_in_the_journal_nor_a_second_time(journal, rows):
    run, intake = begin(journal)
    intake.take([(0, rows[0])], [(0, "answer")])
    write(journal, run, rows[0])
    intake.look()
    intake.take([(0, rows[0])], [(0, "answer")])
    assert run.rows == [rows[0]] and len(run._unscored) == 1


def test_a_look_goes_on_where_the_last_one_was_and_leaves_other_runs_alone(journal, rows):
    former, _ = begin(journal)
    write(journal, former, rows[0])
    run, intake = begin(journal)
    run.run_id = former.run_id  # gone on with: what was there before is no news
    intake.look()
    assert not run.done
    other, _ = begin(journal)
    for row in (rows[1], rows[2]):
        write(journal, run, row)
        write(journal, other, row)
        intake.look()
    assert list(run.done) == [1, 2] and {row.run_id for row in run.rows} == {run.run_id}


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.001, 0.25), (2.0, 20.0)])
def test_looks_are_a_quarter_of_a_second_apart_and_a_slow_journal_s_further(took_s, pause_s, journal, rows):
    end = 1.0 + took_s
    times = [1.0, end, end + pause_s - 0.01, end + pause_s + 0.01, end + pause_s + 0.02]
    run, intake = begin(journal, timer=iter(times).__next__)
    intake.look()
    write(journal, run, rows[0])
    intake.look()
    assert not run.done
    intake.look()
    assert list(run.done) == [0]


def test_an_answer_without_its_text_is_left_to_its_batch_and_a_failure_counts(journal, rows):
    run, intake = begin(journal)
    write(journal, run, rows[0]._replace(text=None), rows[1]._replace(status="error", error_type="ServerError"))
    write(journal, run, rows[2]._replace(status="error", error_type="CancelledError"))
    intake.look()
    assert list(run.done) == [1]


def test_what_was_seen_and_never_came_home_is_recovered_once_and_scored(journal, rows):
    run, intake = begin(journal)
    write(journal, run, rows[0])
    intake.look()
    write(journal, run, rows[1])
    intake.recover()
    intake.recover()
    run.score_waiting()
    assert len(run.rows) == len(run.done) == 2
    assert run.scores == {0: {"length": len("a b and so on")}, 1: {"length": len("c d and so on")}}


def test_a_journal_that_can_t_be_read_is_told_once_and_costs_no_more(tmp_path, rows, caplog):
    journal = Journal(tmp_path / "journal.sqlite")
    tmp_path.joinpath("journal.sqlite").write_bytes(b"no database at all" * 100)
    with caplog.at_level(logging.WARNING):
        run, intake = begin(journal)
        intake.look()
    intake.take([(0, rows[0])], [])
    assert [record.message.partition(",")[0] for record in caplog.records] == ["progress shows batch by batch"]
    assert list(run.done) == [0]
