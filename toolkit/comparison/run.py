"""A comparison under way: what is finished, what to ask next, and when to stop. Who carries it out is in ``loop``, ``threads``, ``workers``."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..monitor.events import CallRecord
from ..monitor.outcomes import Outcome
from ..types import Completion, Image, ImageResult
from ..wire.waits import Waits
from .grid import Cell, Plan
from .scorers import Scorer, score

__all__ = ["JOIN_S", "TICK_S", "Rule", "Run", "Watcher"]

TICK_S = 0.1
"""How often a waiting cell looks up: an interrupt is not seen in between (ipykernel issues 881 and 1239)."""

BACKLOG = 8
"""Answers that may wait for scores that can end the run."""

JOIN_S = 0.3
"""How long an interrupted run waits for calls that are just ending."""

_log = logging.getLogger(__name__)

Watcher = Callable[["Run"], None]
"""Told at every tick; draws a bar or a table, and may call ``run.stop()``."""

Rule = Callable[["Run"], str | None]
"""Looked at whenever a row or a score has arrived, one thread at a time; a reason, in words for the user, stops the run.

No further call is begun then, so that at most what was under way goes beyond a limit; those calls are left to end and are rows.
"""

Asked = Callable[[Outcome], None]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Run:
    """A comparison under way: what is finished so far, by cell index.

    ``fatal`` is what is wrong with the comparison itself (a missing key, say); a failed call is a row like any other.
    """

    plan: Plan
    run_id: str
    done: dict[int, CallRecord] = field(default_factory=dict)
    rows: list[CallRecord] = field(default_factory=list)
    """The same rows as they came in, so that a watcher can go on from where it was."""
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    rules: Sequence[Rule] = ()
    operation: str = "text"
    """As the journal calls what is asked."""
    arrivals: dict[int, array[float]] = field(default_factory=dict)
    """When the pieces of each answer came, in seconds since its request: four bytes each."""
    pictures: dict[int, tuple[Image, ...]] = field(default_factory=dict)
    warmup: Sequence[Cell] = ()
    """Asked first; see ``warming``."""
    stopped: bool = False
    stopped_because: str | None = None
    """The reason that a rule gave."""
    decided: bool = False
    """Whether it was stopped because there is nothing more to find out."""
    until_metric: str | None = None
    """What a rule looks at after every prompt, so that a test for one look would claim too much."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about how it went: shown with the result."""
    over: bool = False
    """Whether nobody asks for it any more, but for calls that an interrupt did not wait for."""
    fatal: BaseException | None = None
    waits: Waits = field(default_factory=Waits)
    """Of the client that asks: which calls wait now, and for what."""
    started: float = field(default_factory=time.perf_counter)
    _order: Iterator[int] = field(init=False)
    _ordering: threading.Lock = field(default_factory=threading.Lock)
    _ruling: threading.Lock = field(default_factory=threading.Lock)
    _unscored: deque[tuple[Cell, Completion | ImageResult]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._order = self.plan.order()
        if self.warmup:
            self.notes.append(f"{len(self.warmup)} warm-up calls are left out")

    def stop(self, because: str | None = None) -> None:
        """Start no further call."""
        self.stopped_because = self.stopped_because or because
        self.stopped = True

    def fail(self, error: BaseException) -> None:
        """Note what keeps every call from being made, and stop."""
        self.fatal = self.fatal or error
        self.stop()

    @property
    def finished(self) -> bool:
        return len(self.done) == len(self.plan)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    # --- what to ask ---------------------------------------------------------------------------------------------------

    def next_cell(self) -> Cell | None:
        """Return the next cell to ask; ``None`` when there is none or the run was stopped."""
        with self._ordering:
            index = None if self.stopped else next((index for index in self._order if index not in self.done), None)
        return None if index is None else self.plan.cell(index)

    def cells(self, number: int) -> list[Cell]:
        """Return up to so many of the next cells."""
        return list(itertools.islice(iter(self.next_cell, None), number))

    def begin_again(self) -> None:
        """Go through the order once more: what is not done by then is asked."""
        self._order = self.plan.order()

    def context(self, cell: Cell) -> dict[str, str | int]:
        return {**cell.context(self.run_id), "operation": self.operation}

    # --- what came back ------------------------------------------------------------------------------------------------

    def note(self, cell: Cell) -> Asked:
        """Return what takes down the outcome of a cell's call."""

        def take(outcome: Outcome) -> None:
            flow = outcome.timing.flow
            if flow is not None and flow.pieces:
                self.arrivals[cell.index] = array("f", dict.fromkeys(at for at, _, _ in flow.pieces))
            self.add(cell.index, outcome.call_row(content=True))

        return take

    def add(self, index: int, row: CallRecord) -> None:
        """Take down the row of a cell's call."""
        self.done[index] = row
        self.rows.append(row)
        self.check_rules()

    def replace(self, index: int, place: int, row: CallRecord) -> None:
        """Put a fuller row of a call in the place, in ``rows``, of that which was taken down before; it was counted then."""
        self.done[index] = row
        self.rows[place] = row

    def answered(self, cell: Cell, completion: Completion | ImageResult) -> None:
        """Put an answer where the scorers find it: they may take long, and nobody who asks should wait for them."""
        if isinstance(completion, ImageResult):
            self.pictures[cell.index] = completion.images
        if self.scorers:
            self._unscored.append((cell, completion))

    @property
    def waiting(self) -> bool:
        """Whether answers wait for the scorers."""
        return bool(self._unscored)

    @property
    def decides_by_score(self) -> bool:
        """Whether a score can end the run, so that asking should not run far ahead of it."""
        return self.until_metric in self.scorers

    @property
    def behind(self) -> bool:
        """Whether the next call had better wait for the scores of earlier ones: they may make it needless."""
        return self.decides_by_score and not self.stopped and len(self._unscored) >= BACKLOG

    def score_waiting(self, until: float = math.inf) -> None:
        """Let the scorers judge the answers that wait for them, as far as they come by a time of ``time.monotonic``."""
        while self._unscored and time.monotonic() < until:
            self.score(*self._unscored.popleft())

    def score(self, cell: Cell, completion: Completion | ImageResult) -> None:
        """Let the scorers judge an answer. One that fails gives no score and says so: the answer is paid for and must not be lost."""
        scores = self.scores[cell.index] = {}
        for name, scorer in self.scorers.items():
            try:
                scores[name] = score(name, scorer, completion, cell.question.reference)
            except Exception as exc:  # noqa: BLE001 - a user's code
                scores[name] = math.nan
                _log.warning("the scorer %s failed on prompt %s: %s: %s", name, cell.question.prompt_id, type(exc).__name__, exc)
        self.check_rules()

    def check_rules(self) -> None:
        """Stop the run where a rule says so; the first reason counts."""
        if not self.rules:
            return
        with self._ruling:
            if self.stopped_because is None:
                self.stopped_because = first_reason(rule(self) for rule in self.rules)
        if self.stopped_because is not None:
            self.stop()

    # --- the end -------------------------------------------------------------------------------------------------------

    def end(self, watch: Watcher) -> Run:
        """Tell the watcher for the last time, and the caller what went wrong."""
        self.over = True
        watch(self)
        if self.fatal is not None:
            raise self.fatal
        return self

    def end_early(self) -> None:
        """Stop after an interrupt; what is not scored within the time that a waiting user notices stays without a score."""
        self.stop()
        self.score_waiting(time.monotonic() + JOIN_S)
        if self._unscored:
            self.notes.append(f"{len(self._unscored)} answers have no score yet; run it again, they come from the cache")


def first_reason(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
