"""Takes down what workers have finished, each call once: as the journal tells of it while its batch is out, and as the batch brings it home.

A row is in the journal a tenth of a second after its call, and seen there at the next look: about half a second late at most.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable

from .. import settings
from ..errors import ToolkitError
from ..monitor.events import CallRecord
from ..monitor.journal import Journal, JournalReader
from ..types import Completion, ImageResult
from .resuming import finished_rows, journaled_rows, read_completion
from .run import TICK_S, Run, Watcher

__all__ = ["Intake", "Ticker"]

LOOK_EVERY_S = 0.25

LOOK_SHARE = 0.1
"""Looks take at most this share of the time: a server's journal may be far away, and a busy machine has other work."""

LOOK_ROWS = 2_000

_log = logging.getLogger(__name__)


class Intake:
    """What comes in of a run that workers carry out. A row of the journal is replaced by that which its batch brings: the journal's may be shorter."""

    def __init__(self, run: Run, journal: Journal | None, *, timer: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.journal = journal
        self._timer = timer
        self._taking = threading.Lock()
        self._early: dict[int, int] = {}  # where in run.rows a row of the journal is, by cell index
        self._index_of = run.plan.indices()
        self._last_row = 0
        self._next_look = 0.0
        self._reader: JournalReader | None = None
        if journal is not None and settings.record_content():  # else the journal's rows are no answers
            self._reader = journal.reader()
            self._skip_what_is_there(self._reader)

    def _skip_what_is_there(self, reader: JournalReader) -> None:
        """A run that is gone on with has rows already."""
        try:
            self._last_row = reader.last_row()
        except ToolkitError as exc:
            self._look_no_more(exc)

    def _look_no_more(self, error: ToolkitError) -> None:
        self._reader = None
        _log.warning("progress shows batch by batch, for the journal can't be read: %s", error)

    def look(self) -> None:
        """Take down what is new in the journal, if it is time for a look; for one thread."""
        began = self._timer()
        if self._reader is None or began < self._next_look:
            return
        try:
            columns = self._reader.calls(after_row=self._last_row, run=self.run.run_id, limit=LOOK_ROWS)
        except ToolkitError as exc:
            self._look_no_more(exc)
            return
        if columns["row"]:
            self._last_row = columns["row"][-1]
            self._take_early(finished_rows(columns, self._index_of, self.run.run_id))
        now = self._timer()
        self._next_look = now + max(LOOK_EVERY_S, (now - began) / LOOK_SHARE)

    def _take_early(self, rows: Iterable[tuple[int, CallRecord]]) -> None:
        with self._taking:
            for index, row in rows:
                # An answer without its text is for its batch to bring: from the journal it could not be recovered.
                if index not in self.run.done and (row.status != "ok" or row.text is not None):
                    self._early[index] = len(self.run.rows)
                    self.run.add(index, row)

    def take(self, rows: Iterable[tuple[int, CallRecord]], answers: Iterable[tuple[int, Completion | ImageResult]]) -> None:
        """Take down what a batch brought home."""
        with self._taking:
            taken = {index for index, row in rows if self._take(index, row)}
            for index, completion in answers:
                if index in taken:
                    self.run.answered(self.run.plan.cell(index), completion)

    def recover(self) -> None:
        """Take from the journal what workers had finished and could not bring home; what it told before counts as it is."""
        if self.journal is None:
            return
        rows = journaled_rows(self.journal, self.run.plan, self.run.run_id)
        with self._taking:
            for index, row in rows.items():
                if self._take(index, row):
                    cell = self.run.plan.cell(index)
                    self.run.answered(cell, read_completion(row, cell.variant.options.schema))
            self._early.clear()

    def _take(self, index: int, row: CallRecord) -> bool:
        """Return whether this is news."""
        place = self._early.pop(index, None)
        if place is not None:
            self.run.replace(index, place, row)
        elif index not in self.run.done:
            self.run.add(index, row)
        else:
            return False
        return True


class Ticker:
    """Looks into the journal and tells the watcher, on a thread of its own: the caller's waits for batches."""

    def __init__(self, intake: Intake, watch: Watcher) -> None:
        self._intake = intake
        self._watch = watch
        self._over = threading.Event()
        self._error: BaseException | None = None
        # In the caller's context: a notebook knows by it which cell the output belongs to.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._tick,), name="toolkit-ticker", daemon=True)
        self._thread.start()

    def _tick(self) -> None:
        try:
            while not self._over.wait(TICK_S):
                self._intake.look()
                self._watch(self._intake.run)
        except BaseException as exc:  # noqa: BLE001 - a watcher's: for the caller
            self._error = exc
            self._intake.run.stop()

    def check(self) -> None:
        """Raise what the watcher raised."""
        if self._error is not None:
            raise self._error

    def stop(self, timeout_s: float | None = None) -> None:
        self._over.set()
        self._thread.join(timeout_s)
