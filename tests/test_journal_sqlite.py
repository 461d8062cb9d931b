"""The journal as a file: who may read it, and what happens when the file or its disk is in trouble."""

import logging
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from journals import call, finish, in_another_process
from toolkit.errors import JournalError
from toolkit.monitor.events import CALL_COLUMNS
from toolkit.monitor.journal import Journal, JournalReader, read_address
from toolkit.monitor.journal.database import reading


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


@pytest.fixture
def five_calls(journal, path):
    for number in range(5):
        journal.append(call(call_id=f"c{number}"))
    assert journal.flush()
    return JournalReader(path)


def test_the_file_and_its_folder_are_for_their_owner_alone(journal, path):
    journal.append(call())
    assert journal.flush()
    wal = path.with_name(f"{path.name}-wal")
    modes = {name: stat.S_IMODE(name.stat().st_mode) for name in (path.parent, path, wal)}
    assert modes == {path.parent: 0o700, path: 0o600, wal: 0o600}


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
