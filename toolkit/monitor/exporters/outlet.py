"""One exporter with a queue before it and a thread of its own, so that whatever it does cannot stall or break a call."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from ..events import ErrorRecord
from ..outcomes import Outcome
from .base import CallExport, Exporter, export_of

__all__ = ["Outlet", "Told"]

KEEP_RECORDS = 10_000
BATCH_RECORDS = 500
EVERY_S = 0.1

_log = logging.getLogger("toolkit.exporters")


class Told:
    """A call or an error that the outlets were told of; its record is built once, by whichever thread needs it first."""

    __slots__ = ("_built", "outcome", "parent")

    def __init__(self, outcome: Outcome | ErrorRecord, parent: object = None) -> None:
        self.outcome = outcome
        self.parent = parent
        self._built: CallExport | None = None

    def record(self) -> CallExport | ErrorRecord:
        if not isinstance(self.outcome, Outcome):
            return self.outcome
        if self._built is None:  # two threads may build it at once: twice the same
            self._built = export_of(self.outcome, self.parent)
        return self._built


class Errand:
    """Something to be done on the outlet's thread, once what came before it is exported."""

    __slots__ = ("act", "done", "result")

    def __init__(self, act: Callable[[], bool]) -> None:
        self.act = act
        self.done = threading.Event()
        self.result = False

    def wait(self, timeout_s: float) -> bool:
        """Return whether it went well in time."""
        return self.done.wait(timeout_s) and self.result


class Outlet:
    """Hands records to an exporter. ``put`` never blocks and never raises; ``lost`` counts what could not be handed over.

    Parameters
    ----------
    name : str
        What to call the exporter in warnings.
    exporter : Exporter
        Where records go.
    keep : int
        Records that may wait; what comes while so many do is lost.
    """

    def __init__(self, name: str, exporter: Exporter, *, keep: int = KEEP_RECORDS) -> None:
        self.name = name
        self.exporter = exporter
        self.keep = keep
        self._begin()
        _outlets.add(self)

    def _begin(self) -> None:
        self.lost = 0
        self._items: deque[Told | Errand] = deque()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._asleep = True
        self._closed = False
        self._complained: set[str] = set()

    def put(self, told: Told) -> None:
        """Put a record into the queue."""
        if len(self._items) >= self.keep:
            self._lose(1, "is slower than the calls; what comes while %d records wait is not exported", self.keep)
            return
        self._items.append(told)
        if self._asleep:
            self._rouse()

    def flush(self, timeout_s: float) -> Errand:
        """Begin to export what was put before and to have the exporter send it; the errand that comes back can be waited for."""
        return self._order(lambda: self.exporter.flush(timeout_s))

    def close(self, timeout_s: float) -> Errand:
        """Begin to flush and then to close the exporter; the errand that comes back can be waited for."""
        return self._order(lambda: self._close_exporter(timeout_s))

    def _close_exporter(self, timeout_s: float) -> bool:
        try:
            return self.exporter.flush(timeout_s)
        finally:
            self._closed = True
            self.exporter.close()

    def _order(self, act: Callable[[], bool]) -> Errand:
        errand = Errand(act)
        self._items.append(errand)
        self._hurry.set()
        self._rouse()
        if self._thread is None and not self._closed:  # none can be started: the interpreter is shutting down, say, and it is now or never
            self._export_waiting()
        return errand

    def _rouse(self) -> None:
        with self._starting:
            self._asleep = False
            self._wake.set()
            if self._thread is None and not self._closed:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._keep_exporting, name=f"toolkit-export-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down: the next record tries again
            self._asleep = True
            return
        self._thread = thread

    def _keep_exporting(self) -> None:
        while not self._closed:
            self._wake.clear()
            # The flag first and the queue second; put() does it the other way round, so one of the two sees the other.
            self._asleep = True
            if not self._items:
                self._wake.wait()
            self._asleep = False
            self._hurry.wait(EVERY_S)  # a batch gathers
            self._hurry.clear()
            self._export_waiting()

    def _export_waiting(self) -> None:
        batch: list[CallExport | ErrorRecord] = []
        for _ in range(len(self._items)):
            item = self._items.popleft()
            if isinstance(item, Told):
                self._build(item, batch)
                if len(batch) < BATCH_RECORDS:
                    continue
            self._export(batch)
            batch = []
            if isinstance(item, Errand):
                self._carry_out(item)
        self._export(batch)

    def _build(self, told: Told, batch: list[CallExport | ErrorRecord]) -> None:
        try:
            batch.append(told.record())
        except Exception:  # noqa: BLE001 - it is the caller's object: whatever it raises must not stop the others
            self._lose(1, "was given a record that can't be built", exc_info=True)

    def _export(self, batch: list[CallExport | ErrorRecord]) -> None:
        if not batch:
            return
        try:
            self.exporter.export(batch)
        except Exception:  # noqa: BLE001 - a sink: whatever it raises must not reach the work
            self._lose(len(batch), "failed, and what it was given is not exported; this is said once", exc_info=True)

    def _carry_out(self, errand: Errand) -> None:
        try:
            errand.result = errand.act()
        except Exception:  # noqa: BLE001 - a sink, as above
            self._lose(0, "could not be flushed or closed", exc_info=True)
        errand.done.set()

    def _lose(self, records: int, trouble: str, *arguments: object, exc_info: bool = False) -> None:
        with self._starting:
            self.lost += records
            known = trouble in self._complained
            self._complained.add(trouble)
        if not known:
            _log.warning(f"the exporter %s {trouble}", self.name, *arguments, exc_info=exc_info)


_outlets: weakref.WeakSet[Outlet] = weakref.WeakSet()


def _begin_afresh() -> None:
    """In a forked child: the threads are the parent's, and so is what waits in the queues."""
    for outlet in list(_outlets):
        closed = outlet._closed
        outlet._begin()
        outlet._closed = closed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_afresh)
