"""The journal with real files, real second processes and real faults."""

import itertools
import logging
import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from toolkit.errors import ConfigError, JournalError
from toolkit.monitor.events import CALL_COLUMNS, CallRecord, ErrorRecord, RunRecord
from toolkit.monitor.journal import SCHEMA_VERSION, Journal, JournalReader, flush_shared, open_journal

EMPTY_CALL = CallRecord(**dict.fromkeys(CALL_COLUMNS))
CALL_NUMBERS = itertools.count()


def call(**fields):
    defaults = {"at": 1_750_000_000.0, "call_id": f"call-{os.getpid()}-{next(CALL_NUMBERS)}", "provider": "scripted", "model": "scripted/echo"}
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
    setup = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from test_journal import *\n"
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
    ("input_tokens", np.int64(12), 12),
    ("latency_s", np.float32(0.5), 0.5),
    ("output_tokens", 2**80, float(2**80)),
    ("text", np.str_("words"), "words"),
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


@pytest.mark.skipif_never if False else pytest.mark.usefixtures()
def test_the_file_and_its_folder_are_for_their_owner_alone(journal, path):
    journal.append(call())
    assert journal.flush()
    modes = {name: stat.S_IMODE(os.stat(name).st_mode) for name in (path.parent, path, f"{path}-wal")}
    assert modes == {path.parent: 0o700, path: 0o600, f"{path}-wal": 0o600}
