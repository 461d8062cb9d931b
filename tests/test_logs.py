"""The logger, with real handlers, real streams, real threads and forks."""

import contextlib
import importlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog

from toolkit import monitor
from toolkit.errors import ConfigError
from toolkit.monitor.logs import LEVELS, Logger

CANARY = "sk-Canary7731Canary7731"


@pytest.fixture
def log(request):
    """A logger of this test's own, without output."""
    made = Logger(f"toolkit.test.{request.node.name}", level="DEBUG", output="none", clock=lambda: 1_750_000_000.25)
    yield made
    logging.getLogger(made.name).handlers.clear()


@contextlib.contextmanager
def handler(log, emit, level=logging.NOTSET):
    """A user's handler, listening to a logger."""
    made = logging.Handler(level)
    made.emit = emit
    logging.getLogger(log.name).addHandler(made)
    yield made
    logging.getLogger(log.name).removeHandler(made)


def alone(log):
    """Cut a logger off from pytest's handlers, as in a program where nobody has set any up."""
    logging.getLogger(log.name).propagate = False
    return log


# What listeners see


@pytest.mark.parametrize(("level", "number"), LEVELS.items())
def test_each_level_reaches_the_standard_library_with_its_number(log, caplog, level, number):
    getattr(log, level.lower())("it happened")
    assert [(record.levelno, record.getMessage(), record.name) for record in caplog.records] == [(number, "it happened", log.name)]
    assert log.entries()[0].level == level


def test_the_fields_are_in_the_message_and_on_the_record(log, caplog):
    log.info("answered 100% of %s", model="m/x", note="two words", n=3)
    record = caplog.records[0]
    assert record.getMessage() == 'answered 100% of %s model=m/x note="two words" n=3'
    assert record.msg == "answered 100%% of %%s model=%s note=%s n=%s"  # one group, whatever the values
    assert record.context == {"model": "m/x", "note": "two words", "n": 3}


def test_the_record_names_the_line_that_logged(log, caplog):
    log.warn("here")
    assert caplog.records[0].funcName == "test_the_record_names_the_line_that_logged"
    assert caplog.records[0].filename == Path(__file__).name


def test_an_error_comes_with_its_type_message_and_stack(log, caplog):
    try:
        {}["x"]
    except KeyError as error:
        log.error("no such row", error=error, row=7)
        assert caplog.records[0].exc_info[1] is error
    entry = log.entries()[0]
    assert (entry.error_type, entry.error_message, entry.context) == ("KeyError", "'x'", {"row": 7})
    assert '{}["x"]' in entry.stack


@pytest.mark.parametrize("name", ["message", "self", "args", "name", "event", "msg", "exc_info", "level", "_level", "method_name"])
def test_a_field_may_have_any_name(log, caplog, name):
    log.info("m", **{name: "value"})
    assert log.entries()[0].context == {name: "value"}
    assert caplog.records[0].context == {name: "value"}


def test_fields_bound_with_structlog_are_added_and_the_call_s_own_win(log):
    with structlog.contextvars.bound_contextvars(run="r-1", model="bound"):
        log.info("m", model="own")
    assert log.entries()[0].context == {"run": "r-1", "model": "own"}


def test_a_user_s_configuration_of_structlog_is_neither_used_nor_changed(log):
    mine = [lambda *_: 1 / 0]
    structlog.configure(processors=mine)
    try:
        log.info("m")
        assert structlog.get_config()["processors"] is mine
    finally:
        structlog.reset_defaults()
    assert [entry.message for entry in log.entries()] == ["m"]


def test_secrets_reach_neither_memory_nor_handlers_nor_the_terminal(log, caplog):
    alone(log).stream = stream = io.StringIO()
    log.output = "text"
    printed = io.StringIO()
    listener = logging.StreamHandler(printed)
    logging.getLogger(log.name).addHandler(listener)
    try:
        raise ValueError(f"refused: {CANARY}")
    except ValueError as error:
        log.error(f"failed with {CANARY}", error, headers={"authorization": CANARY}, api_key="abc123")
    log.output = "json"
    log.info(f"again {CANARY}")
    seen = repr(log.entries()) + stream.getvalue() + printed.getvalue()
    assert "Canary" not in seen
    assert "abc123" not in seen
    assert "ValueError: refused: [redacted]" in printed.getvalue()


# Thresholds


def test_what_is_below_the_level_is_nowhere(log, caplog):
    log.level = "WARN"
    log.debug("a")
    log.info("b")
    log.warn("c")
    assert [entry.message for entry in log.entries()] == ["c"]
    assert [record.getMessage() for record in caplog.records] == ["c"]
    assert log.level == "WARN"


def test_a_lower_level_is_seen_although_the_root_logger_has_a_higher_one(log, caplog):
    log.debug("fine detail")
    assert logging.getLogger().level == logging.WARNING
    assert [record.getMessage() for record in caplog.records] == ["fine detail"]


@pytest.mark.parametrize(
    "call", [lambda log: log.entries("LOUD"), lambda log: setattr(log, "level", "LOUD"), lambda log: Logger("t", level="LOUD")]
)
def test_an_unknown_level_is_refused_with_the_known_ones(log, call):
    with pytest.raises(ConfigError, match="DEBUG, INFO, WARN, ERROR, FATAL"):
        call(log)


def test_an_unknown_output_is_refused_with_the_known_ones(log):
    with pytest.raises(ConfigError, match="auto, text, json, none"):
        log.output = "xml"


# Memory


def test_the_newest_thousand_entries_are_kept(log):
    for number in range(1005):
        log.debug(str(number))
    assert [entry.message for entry in log.entries()] == [str(number) for number in range(5, 1005)]


def test_entries_can_be_asked_for_by_level_and_number(log):
    for level in ("debug", "error", "info", "fatal"):
        getattr(log, level)(level)
    assert [entry.message for entry in log.entries("warn")] == ["error", "fatal"]
    assert [entry.message for entry in log.entries(limit=2)] == ["info", "fatal"]
    assert log.entries(limit=0) == []
    with pytest.raises(ConfigError, match="limit=-1"):
        log.entries(limit=-1)


def test_an_entry_does_not_change_with_what_was_passed(log):
    mine = {"a": [1]}
    log.info("m", mine=mine)
    mine["a"].append(2)
    assert log.entries()[0].context == {"mine": {"a": [1]}}


def test_a_frame_has_a_row_an_entry_and_the_same_types_when_empty(log):
    empty = log.frame().dtypes
    log.info("m", n=1)
    frame = log.frame()
    assert list(frame.dtypes) == list(empty)
    assert frame.loc[0, "at"].isoformat() == "2025-06-15T15:06:40.250000+00:00"
    assert frame.loc[0, ["level", "message", "context"]].tolist() == ["INFO", "m", '{"n": 1}']


def test_the_polars_frame_has_the_same_rows_and_its_types_when_empty(log):
    empty = log.frame.polars().schema
    log.info("a")
    log.error("b")
    assert log.frame.polars().schema == empty
    assert log.frame.polars("ERROR")["message"].to_list() == log.frame("ERROR")["message"].tolist() == ["b"]


# Faults


def test_a_handler_that_fails_does_not_break_the_caller_and_is_noted_once(log):
    def fail(record):
        raise OSError("disk full")

    with handler(log, fail):
        log.info("first")
        log.info("second")
    assert [(entry.message, entry.error_message) for entry in log.entries()] == [
        ("first", None),
        ("a log handler failed", "disk full"),
        ("second", None),
    ]


def test_a_handler_that_logs_does_not_go_round_in_circles(log):
    with handler(log, lambda record: log.info("from the handler")):
        log.info("from outside")
    assert [entry.message for entry in log.entries()] == ["from outside", "from the handler"]


def test_an_interrupt_in_a_handler_reaches_the_caller(log):
    def interrupt(record):
        raise KeyboardInterrupt

    with handler(log, interrupt), pytest.raises(KeyboardInterrupt):
        log.info("m")


def test_a_closed_stream_does_not_break_the_caller(log):
    log.output, log.stream = "text", io.StringIO()
    log.stream.close()
    log.info("m")
    assert len(log.entries()) == 1


def test_what_has_no_text_is_logged_all_the_same(log):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    log.error("m", error=Mute(), thing=Mute())
    assert log.entries()[0].error_message == "<Mute without a text>"


def test_a_stream_that_can_t_write_a_letter_gets_its_number(log):
    log.output, log.stream = "text", io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    log.info("Grüße")
    assert b"Gr\\xfc\\xdfe" in log.stream.buffer.getvalue()


# The terminal


def test_lines_are_written_where_nobody_listens_and_only_there(log, capsys):
    log.output = "auto"
    alone(log).info("shown", n=1)
    with handler(log, lambda record: None):
        log.info("the handler's")
    assert capsys.readouterr().err.splitlines()[0].endswith(" INFO  shown n=1")
    assert "the handler's" not in capsys.readouterr().err


def test_json_lines_hold_everything(log):
    log.output, log.stream = "json", io.StringIO()
    log.warn("slow", model="m", s=float("nan"))
    log.info("next\nline")
    first, second = map(json.loads, log.stream.getvalue().splitlines())
    assert first == {
        "at": "2025-06-15T15:06:40.250000+00:00",
        "level": "WARN",
        "message": "slow",
        "error_type": None,
        "error_message": None,
        "stack": None,
        "context": {"model": "m", "s": "nan"},
    }
    assert second["message"] == "next\nline"


def test_a_message_can_neither_pose_as_another_line_nor_steer_the_terminal(log):
    log.output, log.stream = "text", io.StringIO()
    log.info("a\n12:00:00 FATAL forged\x1b[2J", answer="b\n12:00:00 FATAL forged")
    lines = log.stream.getvalue().splitlines()
    assert "\x1b" not in log.stream.getvalue()
    assert lines[1].startswith("    12:00:00 FATAL")
    assert len(lines) == 2


def test_a_file_gets_no_colours(log):
    log.output, log.stream = "text", io.StringIO()
    log.fatal("m")
    assert "\x1b" not in log.stream.getvalue()


COLOURS = "from toolkit.monitor import logger; logger.level = 'DEBUG'\nfor name in ('debug', 'info', 'warn', 'error', 'fatal'): getattr(logger, name)(name)"


def on_a_terminal(code, **variables):
    """What a program writes to a real terminal (a pseudo-terminal of the system's)."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    return written.decode()


def test_on_a_terminal_each_level_has_its_colour():
    written = on_a_terminal(COLOURS)
    expected = {"DEBUG": 36, "INFO ": 32, "WARN ": 33, "ERROR": 31, "FATAL": 35}
    assert [f"\x1b[{number}m{level}\x1b[0m" in written for level, number in expected.items()] == [True] * 5


def test_no_color_is_heeded():
    assert "\x1b" not in on_a_terminal(COLOURS, NO_COLOR="1")


# Other threads, processes and programs


def test_threads_lose_no_entry_and_keep_theirs_whole(log, caplog):
    def write(thread):
        for number in range(100):
            log.info("m", thread=thread, number=number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(entry.context["thread"], entry.context["number"]) for entry in log.entries()]
    assert sorted(found) == [(thread, number) for thread in range(8) for number in range(100)]
    assert len(caplog.records) == 800


def log_and_say(log, said):
    log.info("child")
    said.send([entry.message for entry in log.entries()])


def test_a_child_forked_while_another_thread_holds_the_lock_can_log(log):
    log.info("parent")
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    held, done = threading.Event(), threading.Event()

    def hold():
        with log._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait()
    child = context.Process(target=log_and_say, args=(log, its), daemon=True)
    child.start()
    assert mine.poll(30), "the child waits for a lock that nobody holds"
    done.set()
    holder.join()
    child.join()
    assert mine.recv() == ["parent", "child"]


def test_the_process_s_logger_means_the_other_process_s_when_it_is_sent_there(log):
    assert pickle.loads(pickle.dumps(monitor.logger)) is monitor.logger
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(log)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)


def test_importing_brings_no_structlog_and_sets_nothing_up():
    code = "import toolkit as tk, sys, logging; tk.Client(journal=False).close(); log = tk.monitor.logger\n"
    code += "assert 'structlog' not in sys.modules and not logging.getLogger('toolkit.log').handlers\n"
    code += "log.info('now'); assert 'structlog' in sys.modules and not logging.getLogger().handlers"
    assert run_python(code).stderr.endswith("INFO  now\n")


def test_a_warning_is_printed_once():
    assert run_python("from toolkit.monitor import logger; logger.warn('once')").stderr.count("once") == 1


def test_the_public_names_are_the_same_objects_each_time():
    assert monitor.logger is monitor.logger is importlib.import_module("toolkit.monitor.logs").logger
    assert set(monitor.__all__) <= set(dir(monitor))
    for name in monitor.__all__:
        assert getattr(monitor, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        monitor.no_such_name  # noqa: B018
