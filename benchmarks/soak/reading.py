"""The second process: it reads the journal while the first one writes it, and notes whether rows come once and in order."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from toolkit.monitor.journal import JournalReader

COLUMNS = ("row", "call_id", "status", "total_s")
EVERY_S = 0.5
AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What the reader has seen: rows of calls and of errors, and the first thing that was wrong with them."""

    calls: int
    errors: int
    wrong: str | None


def new_rows(reader: JournalReader, after: int) -> tuple[list[int], str | None]:
    """Return the numbers of rows that came after one, and what is wrong with them."""
    found = reader.calls(after, limit=AT_ONCE, columns=COLUMNS)
    rows = found["row"]
    if rows != sorted(set(rows)) or (rows and rows[0] <= after):
        return rows, f"after row {after} came {rows[:3]} … {rows[-3:]}"
    if len(set(found["call_id"])) < len(rows) or None in found["status"] or None in found["total_s"]:
        return rows, f"the rows after {after} repeat an id or lack a value"
    return rows, None


def read_on(pipe: Connection, url: str) -> None:
    """Read what is new twice a second until told to stop, then what is left; say what was seen."""
    reader, calls, errors, last_call, last_error, wrong = JournalReader(url), 0, 0, 0, 0, None
    stopping = False
    while True:
        rows, trouble = new_rows(reader, last_call)
        failed = reader.errors(last_error, limit=AT_ONCE, columns=["row"])["row"]
        calls, errors, wrong = calls + len(rows), errors + len(failed), wrong or trouble
        last_call, last_error = max([last_call, *rows]), max([last_error, *failed])
        if stopping and not rows and not failed:
            pipe.send(Seen(calls, errors, wrong))
            return
        stopping = stopping or pipe.poll(0 if len(rows) == AT_ONCE else EVERY_S)


class SecondProcess:
    """Runs the reader beside the block."""

    def __init__(self, journal: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=read_on, args=(theirs, str(journal)), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def seen(self, patience_s: float = 120.0) -> Seen:
        """Let it read to the end, and return what it saw."""
        self.pipe.send("stop")
        if not self.pipe.poll(patience_s):
            return Seen(0, 0, "the reader did not come to its end")
        found: Seen = self.pipe.recv()
        self.process.join(10)
        return found

    def __enter__(self) -> SecondProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()
