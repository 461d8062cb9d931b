"""The journal as a file and on a server: what is appended in any process comes back, once, in order."""

import logging
import multiprocessing
import signal
import threading
from decimal import Decimal

import polars as pl
import pytest

from journals import call, error, finish, in_another_process, written_by_itself
from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.events import CALL_COLUMNS, RunRecord, VoteRecord
from toolkit.monitor.journal import SCHEMA_VERSION, Journal, JournalReader, flush_shared, open_journal, read_address
from toolkit.monitor.journal.database import changing


@pytest.fixture
def journal(journal_url):
    journal = Journal(journal_url)
    yield journal
    journal.close()


@pytest.fixture
def warnings_said(caplog):
    caplog.set_level(logging.WARNING, logger="toolkit.journal")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "toolkit.journal"]


# Writing and reading


def test_a_call_comes_back_as_it_was_written(journal, journal_url):
    written = call(call_id="c", latency_s=0.25, input_tokens=7, text="Grüße\n\t\\N", cost_usd=None)
    journal.append(written)
    assert journal.flush()
    read = JournalReader(journal_url).call("c")
    assert read.pop("row") == 1
    assert read == written._asdict()


def test_records_of_every_kind_have_their_table(journal, journal_url):
    journal.append(call())
    journal.append(error())
    journal.append(RunRecord("r", 1.0, "p", "a run", "{}"))
    assert journal.flush()
    reader = JournalReader(journal_url)
    assert [reader.last_row(table) for table in ("call", "error", "run")] == [1, 1, 1]
    assert reader.errors()["message"] == ["it broke"]
    assert reader.runs()["name"] == ["a run"]


def test_an_item_may_build_its_rows_on_the_writers_thread(journal, journal_url):
    class Late:
        def rows(self):
            yield call(call_id="late", process=threading.current_thread().name)
            yield error(call_id="late")

    journal.append(Late())
    with_thread = JournalReader(journal_url)
    written_by_itself(with_thread, 1)
    assert with_thread.calls()["process"] == ["toolkit-journal"]
    assert with_thread.errors()["call_id"] == ["late"]


def test_the_writer_wakes_up_again_after_it_ran_out_of_work(journal, journal_url):
    for burst in range(1, 4):
        journal.append(call())
        written_by_itself(JournalReader(journal_url), burst)


def test_the_same_call_is_written_once(journal, journal_url):
    for _ in range(3):
        journal.append(call(call_id="twice"))
    assert journal.flush()
    assert JournalReader(journal_url).calls()["call_id"] == ["twice"]


def test_more_than_a_batch_keeps_its_order(journal, journal_url):
    for number in range(1234):
        journal.append(call(call_id=f"{number}"))
    assert journal.flush()
    assert JournalReader(journal_url).calls(columns=["call_id"])["call_id"] == [f"{number}" for number in range(1234)]


def test_a_closed_journal_opens_again_when_something_is_appended(journal, journal_url):
    journal.append(call())
    journal.close()
    journal.append(call())
    written_by_itself(JournalReader(journal_url), 2)


@pytest.mark.parametrize(("field", "value", "in_sqlite", "in_postgres"), [
    ("text", "half \ud83d of a pair", "half \\ud83d of a pair", "half \\ud83d of a pair"),
    ("text", "before\0after", "before\0after", "before\\x00after"),
    ("latency_s", Decimal("0.5"), 0.5, 0.5),
    ("latency_s", 3, 3.0, 3.0),
    ("latency_s", float("nan"), None, None),
    ("output_tokens", 2**80, float(2**80), None),
])  # fmt: skip
def test_a_value_that_the_database_refuses_is_kept_as_well_as_can_be(journal, journal_url, field, value, in_sqlite, in_postgres):
    journal.append(call(call_id="odd", **{field: value}))
    journal.append(call(call_id="next"))
    assert journal.flush()
    reader = JournalReader(journal_url)
    assert reader.call("odd")[field] == (in_postgres if journal_url.startswith("postgresql") else in_sqlite)
    assert reader.call("next") is not None


def test_an_item_that_cannot_build_its_rows_is_counted_and_stops_nothing(journal, journal_url, warnings_said):
    class Broken:
        def rows(self):
            raise RuntimeError("no")

    class Foreign:
        def rows(self):
            return [(1, 2, 3)]

    for item in (Broken(), Foreign(), 17, call()):
        journal.append(item)
    assert journal.flush()
    assert journal.lost == 3
    assert len(warnings_said()) == 3
    assert JournalReader(journal_url).last_row() == 1


# Looking


@pytest.fixture
def five_calls(journal, journal_url):
    """Calls at 0, 10, 20, 30 and 40 s; the last two belong to a run named "evening"."""
    journal.append(RunRecord("r-1", 1.0, "p", "evening", "{}"))
    for number in range(5):
        journal.append(call(call_id=f"c{number}", at=10.0 * number, run_id="r-1" if number > 2 else None))
    assert journal.flush()
    return JournalReader(journal_url)


@pytest.mark.parametrize(("asked", "found"), [
    ({}, "c0 c1 c2 c3 c4"),
    ({"after_row": 3}, "c3 c4"),
    ({"since": 10, "until": 30}, "c1 c2"),
    ({"run": "r-1"}, "c3 c4"),
    ({"run": "evening"}, "c3 c4"),
    ({"run": "x' OR 1=1 --"}, ""),
    ({"limit": 2}, "c0 c1"),
    ({"limit": 0}, ""),
    ({"after_row": 1, "since": 20.0, "run": "evening", "limit": 1}, "c3"),
])  # fmt: skip
def test_only_the_calls_asked_for_come_back(five_calls, asked, found):
    assert five_calls.calls(**asked)["call_id"] == found.split()


@pytest.mark.parametrize(
    "asked", [{}, {"after_row": 3}, {"since": 10, "until": 30}, {"run": "r-1"}, {"run": "evening"}, {"run": "nobody's"}]
)
def test_a_lazy_frame_finds_what_the_lists_have(five_calls, asked):
    found = five_calls.scan(**asked).collect()
    assert found.to_dict(as_series=False) == five_calls.calls(**asked)


def test_a_lazy_frame_takes_conditions_and_columns_of_the_query(five_calls):
    lazy = five_calls.scan().filter(pl.col("at") > 5, pl.col("run_id").is_null()).select("call_id")
    assert lazy.collect().to_dict(as_series=False) == {"call_id": ["c1", "c2"]}
    assert five_calls.scan().head(2).select(pl.len()).collect().item() == 2


def test_only_the_columns_asked_for_come_back_with_their_row(five_calls):
    assert five_calls.calls(columns=["model", "at"], limit=1) == {"row": [1], "model": ["scripted/echo"], "at": [0.0]}


def test_an_unknown_column_or_table_lists_the_known_ones(five_calls):
    with pytest.raises(ConfigError, match="no column 'speed'; it has at, call_id"):
        five_calls.calls(columns=["speed"])
    with pytest.raises(ConfigError, match="there are call, error, run, vote"):
        five_calls.last_row("calls")


def test_a_call_that_is_not_there_is_none(five_calls):
    assert five_calls.call("c9") is None


# Which journal


def test_a_process_has_one_journal_for_an_address(journal_url, tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", journal_url)
    assert open_journal() is open_journal(journal_url)
    assert open_journal(tmp_path / "other.sqlite") is not open_journal()


def test_what_the_own_process_appended_can_be_flushed_by_address(journal_url):
    flush_shared(journal_url)
    assert not JournalReader(journal_url).exists
    open_journal(journal_url).append(call())
    flush_shared(journal_url)
    assert JournalReader(journal_url).exists
    assert JournalReader(journal_url).last_row() == 1
    open_journal(journal_url).close()


def test_where_there_is_no_journal_the_reader_is_empty(journal_url):
    reader = JournalReader(journal_url)
    assert (reader.exists, reader.last_row("error"), reader.version()) == (False, 0, ("", 0, 0))
    assert reader.calls() == {"row": [], **{name: [] for name in CALL_COLUMNS}}
    assert (reader.runs()["row"], reader.votes()["row"], reader.call("c")) == ([], [], None)
    assert reader.scan().collect().shape == (0, len(CALL_COLUMNS) + 1)


# Versions


def test_a_journal_from_before_a_column_existed_is_read_and_gets_the_column_when_written(journal, journal_url):
    journal.append(call(call_id="old"))
    journal.close()
    with changing(read_address(journal_url)) as db:
        db.change("ALTER TABLE call DROP COLUMN text_chars")
    assert JournalReader(journal_url).call("old")["text_chars"] is None
    assert JournalReader(journal_url).scan().select("text_chars").collect()["text_chars"].to_list() == [None]
    journal.append(call(call_id="new", text_chars=5))
    assert journal.flush()
    assert JournalReader(journal_url).calls()["text_chars"] == [None, 5]


def test_a_journal_of_the_first_version_is_read_as_it_is_and_migrated_when_written(journal, journal_url):
    journal.append(call(call_id="old"))
    journal.close()
    with changing(read_address(journal_url)) as db:
        db.change("DROP TABLE part")
        db.change("DELETE FROM state WHERE name = 'id'")
        db.set_version(1)
    assert JournalReader(journal_url).version() == ("", 0, 1)
    assert JournalReader(journal_url).calls()["call_id"] == ["old"]
    assert JournalReader(journal_url).scan().collect()["call_id"].to_list() == ["old"]
    journal.append(call(call_id="new"))
    assert journal.flush()
    with changing(read_address(journal_url)) as db:
        assert db.version() == SCHEMA_VERSION
        assert "file" in db.columns("part")
    assert JournalReader(journal_url).version().journal


def test_a_journal_of_a_newer_program_says_to_upgrade(journal, journal_url, warnings_said):
    journal.append(call())
    journal.close()
    with changing(read_address(journal_url)) as db:
        db.set_version(SCHEMA_VERSION + 1)
    with pytest.raises(JournalError, match=f"schema {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}: upgrade"):
        JournalReader(journal_url).calls()
    journal.append(call())
    assert not journal.flush()
    assert "upgrade" in warnings_said()[0]


def test_the_version_names_a_state(journal, journal_url):
    reader = JournalReader(journal_url)
    journal.append(call())
    assert journal.flush()
    first = reader.version()
    assert reader.version() == first
    journal.append(call())
    assert journal.flush()
    assert reader.version() == first._replace(row=2)
    assert reader.version("error") == first._replace(row=0)


# Processes


def test_another_process_reads_every_row_once_while_this_one_writes(journal, journal_url):
    program = """
        reader, seen, last = JournalReader(sys.argv[1]), [], 0
        print("ready", flush=True)
        while len(seen) < 3000:
            new = reader.calls(after_row=last, columns=["call_id"])
            seen += new["call_id"]
            last = max(new["row"], default=last)
        print(len(seen), len(set(seen)))
    """
    other = in_another_process(program, journal_url)
    assert other.stdout.readline() == "ready\n"
    for _ in range(3000):
        journal.append(call())
    assert finish(other).split() == ["3000", "3000"]


def test_what_was_appended_is_there_after_kill_9(journal_url):
    program = """
        journal = Journal(sys.argv[1])
        for number in range(700):
            journal.append(call())
        print("appended", flush=True)
        threading.Event().wait()
    """
    writer = in_another_process(program, journal_url)
    assert writer.stdout.readline() == "appended\n"
    written_by_itself(JournalReader(journal_url), 700)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    writer.stdin.close()
    assert JournalReader(journal_url).last_row() == 700


def test_a_script_that_just_ends_has_written_everything(journal_url):
    finish(in_another_process("journal = Journal(sys.argv[1])\nfor _ in range(50): journal.append(call())", journal_url))
    assert JournalReader(journal_url).last_row() == 50


def test_four_processes_write_at_once_and_nothing_is_lost_or_doubled(journal_url):
    program = """
        sys.stdin.readline()
        journal = Journal(sys.argv[1])
        for number in range(240):
            journal.append(call())
            if number % 6 == 0:
                journal.append(call(call_id=f"shared-{number}"))
        sys.exit(not journal.flush(60) or journal.lost)
    """
    writers = [in_another_process(program, journal_url) for _ in range(4)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        finish(writer)
    found = JournalReader(journal_url).calls(columns=["call_id"])["call_id"]
    assert len(found) == len(set(found)) == 4 * 240 + 40


def append_five(journal):
    for _ in range(5):
        journal.append(call())


def test_a_forked_child_writes_its_own_rows_and_leaves_the_parents_to_the_parent(journal, journal_url):
    for _ in range(5):
        append_five(journal)
        child = multiprocessing.get_context("fork").Process(target=append_five, args=(journal,))
        child.start()
        append_five(journal)
        child.join(60)
        assert child.exitcode == 0
        assert journal.flush()
    found = JournalReader(journal_url).calls()["call_id"]
    assert len(found) == len(set(found)) == 75


def test_a_vote_is_kept_with_its_run_and_found_by_the_runs_name(journal, journal_url):
    vote = VoteRecord(1.0, "v-1", "r-1", "trial", "001", 0, "a-model", "b-model", "tie", "ann", "d1", 2.5)
    journal.append(RunRecord("r-1", 0.0, "me", "trial", "{}"))
    journal.append(vote)
    assert journal.flush()
    reader = JournalReader(journal_url)
    assert {name: values[0] for name, values in reader.votes(run="trial").items() if name != "row"} == vote._asdict()
    assert reader.votes(run="another")["vote_id"] == []
