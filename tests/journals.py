"""What the journal's tests share: rows, and programs in other processes that write or read a journal."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from toolkit.monitor.events import CALL_COLUMNS, CacheRecord, CallRecord, ErrorRecord, LogRecord

EMPTY_CALL = CallRecord(**dict.fromkeys(CALL_COLUMNS))
CALL_NUMBERS = itertools.count()
TESTS = Path(__file__).parent
PROLOGUE = f"""
import sys, threading
sys.path[:0] = [{str(TESTS.parent)!r}, {str(TESTS)!r}]
from journals import *
from toolkit.monitor.journal import Journal, JournalReader
"""


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


def entry(**fields):
    record = LogRecord(1_750_000_000.0, "l-1", None, None, "p", "WARN", "the shelf is full", None, None, None, None, '{"shelf": 2}')
    return record._replace(**fields)


def cache_state(**fields):
    record = CacheRecord(1_750_000_000.0, "s-1", "p", "answers", "memory", 3, 2, 1, 0, 10, 1000, None, None)
    return record._replace(**fields)


def in_another_process(code, *arguments, **options):
    """Run code in a new interpreter that knows this module's helpers."""
    program = [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def finish(process, timeout_s=120):
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0
    return output


def written_by_itself(reader, rows, table="call"):
    """Wait, up to half a minute, until the writer's thread has done this much without being asked."""
    waiting = threading.Event()
    for _ in range(3000):
        if reader.last_row(table) >= rows:
            return
        waiting.wait(0.01)
    raise AssertionError(f"{reader.last_row(table)} rows after half a minute, {rows} expected")
