"""The journal with real files, real second processes and real faults."""

import itertools
import logging
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.events import CALL_COLUMNS, CallRecord, ErrorRecord, RunRecord, VoteRecord
from toolkit.monitor.journal.database import reading
from toolkit.monitor.journal import read_address, SCHEMA_VERSION, Journal, JournalReader, flush_shared, open_journal

EMPTY_CALL = CallRecord(**dict.fromkeys(CALL_COLUMNS))
CALL_NUMBERS = itertools.count()


def call(**fields):
    defaults = {
        "at": 1_750_000_000.0,
        "call_id": f"call-{os.getpid()}-{next(CALL_NUMBERS)}",
        "provider": "scripted",
        "model": "scripted/echo",
    }
    return EMPTY_CALL._replace(**(defaults | {"status": "ok", "attempts": 1, "repeat": 0} | fields))


def error(**fields):
    record = ErrorRecord(1_750_000_000.0, "e-1", None, None, "p", "ServerError", "f-1", "it broke", "", "{}")
    return record._replace(**fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "journal.sqlite"


@pytest.fixture
def journal(path):
    journal = Journal(path)
    yield journal
    journal.close()


@pytest.fixture
def warnings_said(caplog):
    caplog.set_level(logging.WARNING, logger="toolkit.journal")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "toolkit.journal"]


def in_another_process(code, *arguments, **options):
    """Run code in a new interpreter that knows this module's helpers."""
    setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_journal import *\n"
    program = [sys.executable, "-c", setup + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def finish(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


# Writing and reading


def test_a_call_comes_back_as_it_was_written(journal, path):
    written = call(call_id="c", latency_s=0.25, input_tokens=7, text="Grüße\n\x00", cost_usd=None)
    journal.append(written)
    assert journal.flush()
    read = JournalReader(path).call("c")
    assert read.pop("row") == 1
    assert read == written._asdict()


def test_records_of_every_kind_have_their_table(journal, path):
    journal.append(call())
    journal.append(error())
    journal.append(RunRecord("r", 1.0, "p", "a run", "{}"))
    assert journal.flush()
    reader = JournalReader(path)
    assert [reader.last_row(table) for table in ("call", "error", "run")] == [1, 1, 1]
    assert reader.errors()["message"] == ["it broke"]
    assert reader.runs()["name"] == ["a run"]


def test_an_item_may_build_its_rows_on_the_writers_thread(journal, path):
    class Late:
        def rows(self):
            yield call(call_id="late", process=threading.current_thread().name)
            yield error(call_id="late")

    journal.append(Late())
    with_thread = JournalReader(path)
    written_by_itself(with_thread, 1)
    assert with_thread.calls()["process"] == ["toolkit-journal"]
    assert with_thread.errors()["call_id"] == ["late"]


def written_by_itself(reader, rows):
    """Wait, up to half a minute, until the writer's thread has done this much without being asked."""
    waiting = threading.Event()
    for _ in range(3000):
        if reader.last_row() >= rows:
            return
        waiting.wait(0.01)
    raise AssertionError(f"{reader.last_row()} rows after half a minute, {rows} expected")


def test_the_writer_wakes_up_again_after_it_ran_out_of_work(journal, path):
    for burst in range(1, 4):
        journal.append(call())
        written_by_itself(JournalReader(path), burst)


def test_the_same_call_is_written_once(journal, path):
    for _ in range(3):
        journal.append(call(call_id="twice"))
    assert journal.flush()
    assert JournalReader(path).calls()["call_id"] == ["twice"]


def test_more_than_a_batch_keeps_its_order(journal, path):
    for number in range(1234):
        journal.append(call(call_id=f"{number}"))
    assert journal.flush()
    assert JournalReader(path).calls(columns=["call_id"])["call_id"] == [f"{number}" for number in range(1234)]


def test_a_closed_journal_opens_again_when_something_is_appended(journal, path):
    journal.append(call())
    journal.close()
    journal.append(call())
    written_by_itself(JournalReader(path), 2)


@pytest.mark.parametrize(("field", "value", "kept"), [
    ("text", "half \ud83d of a pair", "half \\ud83d of a pair"),
    ("latency_s", Decimal("0.5"), 0.5),
    ("output_tokens", 2**80, float(2**80)),
])  # fmt: skip
def test_a_value_that_sqlite_refuses_is_kept_as_well_as_can_be(journal, path, field, value, kept):
    journal.append(call(call_id="odd", **{field: value}))
    journal.append(call(call_id="next"))
    assert journal.flush()
    reader = JournalReader(path)
    assert reader.call("odd")[field] == kept
    assert reader.call("next") is not None


def test_an_item_that_cannot_build_its_rows_is_counted_and_stops_nothing(journal, path, warnings_said):
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
    assert JournalReader(path).last_row() == 1


def test_the_file_and_its_folder_are_for_their_owner_alone(journal, path):
    journal.append(call())
    assert journal.flush()
    wal = path.with_name(f"{path.name}-wal")
    modes = {name: stat.S_IMODE(name.stat().st_mode) for name in (path.parent, path, wal)}
    assert modes == {path.parent: 0o700, path: 0o600, wal: 0o600}


# Looking


@pytest.fixture
def five_calls(journal, path):
    """Calls at 0, 10, 20, 30 and 40 s; the last two belong to a run named "evening"."""
    journal.append(RunRecord("r-1", 1.0, "p", "evening", "{}"))
    for number in range(5):
        journal.append(call(call_id=f"c{number}", at=10.0 * number, run_id="r-1" if number > 2 else None))
    assert journal.flush()
    return JournalReader(path)


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


def test_only_the_columns_asked_for_come_back_with_their_row(five_calls):
    assert five_calls.calls(columns=["model", "at"], limit=1) == {"row": [1], "model": ["scripted/echo"], "at": [0.0]}


def test_an_unknown_column_or_table_lists_the_known_ones(five_calls):
    with pytest.raises(ConfigError, match="no column 'speed'; it has at, call_id"):
        five_calls.calls(columns=["speed"])
    with pytest.raises(ConfigError, match="there are call, error, run, vote"):
        five_calls.last_row("calls")


def test_a_call_that_is_not_there_is_none(five_calls):
    assert five_calls.call("c9") is None


def test_where_there_is_no_journal_the_reader_is_empty_and_makes_no_file(path):
    reader = JournalReader(path)
    assert not reader.exists
    assert reader.last_row() == 0
    assert reader.calls() == {"row": [], **{name: [] for name in CALL_COLUMNS}}
    assert reader.call("c") is None
    assert not path.parent.exists()


def test_a_file_whose_tables_are_not_made_yet_is_empty(tmp_path):
    path = tmp_path / "new.sqlite"
    path.touch()
    assert JournalReader(path).calls()["row"] == []
    assert JournalReader(path).last_row("error") == 0


def test_a_reader_never_writes(five_calls, journal, path):
    journal.close()
    before = path.read_bytes()
    five_calls.calls()
    assert path.read_bytes() == before
    with pytest.raises(JournalError, match="readonly"), reading(read_address(path)) as db:
        db.change("DELETE FROM call")


def test_a_path_may_hold_what_means_something_in_an_address(tmp_path):
    path = tmp_path / "what? 100% #1.sqlite"
    journal = Journal(path)
    journal.append(call(call_id="c"))
    journal.close()
    assert JournalReader(path).call("c") is not None


# Which journal


def test_a_process_has_one_journal_for_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(tmp_path / "j.sqlite"))
    assert open_journal() is open_journal(tmp_path / "j.sqlite")
    assert open_journal(str(tmp_path / "other.sqlite")) is not open_journal()


def test_what_the_own_process_appended_can_be_flushed_by_address(tmp_path):
    path = tmp_path / "j.sqlite"
    flush_shared(path)
    assert not path.exists()
    open_journal(path).append(call())
    flush_shared(path)
    assert JournalReader(path).last_row() == 1
    open_journal(path).close()


@pytest.mark.parametrize("opening", [Journal, JournalReader, open_journal])
def test_the_address_of_a_server_is_refused_without_showing_its_password(opening):
    with pytest.raises(JournalError, match="got postgresql://") as caught:
        opening("postgresql://me:secret@db.example/toolkit")
    assert "secret" not in str(caught.value)


# Versions


def test_a_file_from_before_a_column_existed_is_read_and_gets_the_column_when_written(journal, path):
    journal.append(call(call_id="old"))
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE call DROP COLUMN text_chars")
    db.close()
    assert JournalReader(path).call("old")["text_chars"] is None
    journal.append(call(call_id="new", text_chars=5))
    assert journal.flush()
    assert JournalReader(path).calls()["text_chars"] == [None, 5]


def test_a_journal_of_a_newer_program_says_to_upgrade(journal, path, warnings_said):
    journal.append(call())
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(JournalError, match="upgrade"):
        JournalReader(path).calls()
    journal.append(call())
    assert not journal.flush()
    assert "upgrade" in warnings_said()[0]


# Faults


def test_rows_wait_in_memory_until_the_folder_can_be_made(journal, path, warnings_said):
    path.parent.write_text("a file where the folder should be")
    for _ in range(3):
        journal.append(call())
    assert not journal.flush()
    assert not journal.flush()
    assert len(warnings_said()) == 1
    path.parent.unlink()
    assert journal.flush()
    assert (JournalReader(path).last_row(), journal.lost) == (3, 0)


def test_the_oldest_rows_are_dropped_and_counted_when_too_many_wait(path):
    journal = Journal(path, keep=10)
    path.parent.write_text("a file where the folder should be")
    for number in range(25):
        journal.append(call(call_id=f"{number}"))
    assert not journal.flush()
    path.parent.unlink()
    journal.close()
    assert journal.lost == 15
    assert JournalReader(path).calls()["call_id"] == [f"{number}" for number in range(15, 25)]


def append_as_an_ordinary_user(path, pipe):
    if os.getuid() == 0:
        os.setuid(65534)
    journal = Journal(path)
    journal.append(call(call_id="c"))
    pipe.send(journal.flush())
    pipe.recv()
    pipe.send(journal.flush())


def test_a_read_only_folder_stops_nobody_and_rows_are_written_once_it_can_be():
    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, which an ordinary user can't enter where tests run as root
        path = Path(folder, "journal.sqlite")
        path.parent.chmod(0o555)
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=append_as_an_ordinary_user, args=(path, there))
        child.start()
        assert here.recv() is False
        path.parent.chmod(0o777)
        here.send("now")
        assert here.recv() is True
        child.join(60)
        assert JournalReader(path).call("c") is not None


def test_a_full_disk_costs_no_row_once_there_is_room_again(path):
    program = """
        import resource
        limit, hard = 200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        journal = Journal(sys.argv[1])
        for number in range(1000):
            journal.append(call(text="x" * 1000))
        before = journal.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print(before, journal.flush(), journal.lost)
    """
    assert finish(in_another_process(program, path, stderr=subprocess.DEVNULL)).split() == ["False", "True", "0"]
    assert JournalReader(path).last_row() == 1000


def test_a_damaged_file_is_named_to_readers_and_costs_no_row_once_moved_away(journal, path, warnings_said):
    path.parent.mkdir()
    path.write_bytes(b"this was a journal " * 1000)
    with pytest.raises(JournalError, match=r"file is not a database.*move it away"):
        JournalReader(path).calls()
    journal.append(call())
    assert not journal.flush()
    assert "file is not a database" in warnings_said()[0]
    path.rename(path.with_suffix(".damaged"))
    assert journal.flush()
    assert JournalReader(path).last_row() == 1


def test_a_journal_removed_under_the_writer_begins_anew(journal, path):
    journal.append(call(call_id="before"))
    assert journal.flush()
    for name in path.parent.iterdir():
        name.unlink()
    journal.append(call(call_id="after"))
    assert journal.flush()
    assert JournalReader(path).calls()["call_id"] == ["after"]


def test_a_locked_journal_is_waited_for(journal, path):
    journal.append(call())
    assert journal.flush()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    journal.append(call())
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()
    assert journal.flush()
    release.join()
    other.close()
    assert JournalReader(path).last_row() == 2


# Processes


def test_another_process_reads_every_row_once_while_this_one_writes(journal, path):
    program = """
        reader, seen, last = JournalReader(sys.argv[1]), [], 0
        print("ready", flush=True)
        while len(seen) < 3000:
            new = reader.calls(after_row=last, columns=["call_id"])
            seen += new["call_id"]
            last = max(new["row"], default=last)
        print(len(seen), len(set(seen)))
    """
    other = in_another_process(program, path)
    assert other.stdout.readline() == "ready\n"
    for _ in range(3000):
        journal.append(call())
    assert finish(other).split() == ["3000", "3000"]


def test_what_was_appended_is_there_after_kill_9(path):
    program = """
        journal = Journal(sys.argv[1])
        for number in range(700):
            journal.append(call())
        print("appended", flush=True)
        threading.Event().wait()
    """
    writer = in_another_process(program, path)
    assert writer.stdout.readline() == "appended\n"
    written_by_itself(JournalReader(path), 700)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    writer.stdin.close()
    assert JournalReader(path).last_row() == 700
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_script_that_just_ends_has_written_everything(path):
    finish(in_another_process("journal = Journal(sys.argv[1])\nfor _ in range(50): journal.append(call())", path))
    assert JournalReader(path).last_row() == 50


def test_four_processes_write_at_once_and_nothing_is_lost_or_doubled(path):
    program = """
        sys.stdin.readline()
        journal = Journal(sys.argv[1])
        for number in range(600):
            journal.append(call())
            if number % 6 == 0:
                journal.append(call(call_id=f"shared-{number}"))
        sys.exit(not journal.flush(60) or journal.lost)
    """
    writers = [in_another_process(program, path) for _ in range(4)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        finish(writer)
    found = JournalReader(path).calls(columns=["call_id"])["call_id"]
    assert len(found) == len(set(found)) == 4 * 600 + 100


def append_five(journal):
    for _ in range(5):
        journal.append(call())


def test_a_forked_child_writes_its_own_rows_and_leaves_the_parents_to_the_parent(journal, path):
    for _ in range(5):
        append_five(journal)
        child = multiprocessing.get_context("fork").Process(target=append_five, args=(journal,))
        child.start()
        append_five(journal)
        child.join(60)
        assert child.exitcode == 0
        assert journal.flush()
    found = JournalReader(path).calls()["call_id"]
    assert len(found) == len(set(found)) == 75


def test_a_vote_is_kept_with_its_run_and_found_by_the_runs_name(tmp_path):
    vote = VoteRecord(1.0, "v-1", "r-1", "trial", "001", 0, "a-model", "b-model", "tie", "ann", "d1", 2.5)
    journal = Journal(tmp_path / "j.sqlite")
    journal.append(RunRecord("r-1", 0.0, "me", "trial", "{}"))
    journal.append(vote)
    assert journal.flush()
    journal.close()
    reader = JournalReader(tmp_path / "j.sqlite")
    assert {name: values[0] for name, values in reader.votes(run="trial").items() if name != "row"} == vote._asdict()
    assert reader.votes(run="another")["vote_id"] == []
