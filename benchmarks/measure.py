"""Measures contestants in turn: each in a process of its own, A B C A B C…, CPU time first and wall time beside it.

A process of its own keeps one library's threads, patches and garbage out of another's figures. The server is one process for all.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

Quantity = Literal["cpu_s", "wall_s", "rss_bytes", "over_ideal"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where contestants work: the server's address and a folder for what they write."""

    url: str
    folder: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one operation took in one round."""

    cpu_s: float
    wall_s: float
    rss_bytes: float | None = None
    over_ideal: float | None = None  # wall time over the best that any client could reach


Run = Callable[[int], Reading | None]
"""Does its work n times; gives a reading of its own where the clock around it would measure the wrong thing."""

Setup = Callable[[Place], Iterator[Run]]
"""Sets up, yields what is to be measured, and tidies up."""


@dataclass(frozen=True, slots=True)
class Contestant:
    name: str
    setup: Setup
    packages: tuple[str, ...] = ()  # distributions whose versions the page names
    per: int = 1  # operations in one run of what ``setup`` yields


@dataclass(frozen=True, slots=True)
class Goal:
    """What a contestant is to reach beside another; ``figure`` names it, also in the ``NOTES`` of its question."""

    figure: str
    ours: str
    than: str
    at_most: float
    of: Quantity = "cpu_s"
    difference: bool = False  # ours minus theirs rather than ours over theirs


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    reference: str
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...]
    operation: str = "call"
    unit: Literal["µs", "ms"] = "µs"
    about: str = ""
    fixed: bool = False  # one run a round, however short


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(low, middle, high)


@dataclass(slots=True)
class Result:
    """The readings of a table's contestants, round by round, and who could not take part."""

    table: Table
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def spread(self, name: str, quantity: Quantity) -> Spread:
        return Spread.of(getattr(reading, quantity) for reading in self.readings[name])

    def compared(self, name: str, than: str, quantity: Quantity, *, difference: bool = False) -> Spread:
        """Compare two contestants round by round: what disturbs the machine for a while disturbs both."""
        pairs = [(getattr(a, quantity), getattr(b, quantity)) for a, b in zip(self.readings[name], self.readings[than])]
        return Spread.of(a - b if difference else a / b for a, b in pairs)

    def reached(self, goal: Goal) -> Spread | None:
        """Return the figure of a goal, or ``None`` where one of the two did not take part."""
        if goal.of == "over_ideal":
            return self.spread(goal.ours, "over_ideal") if goal.ours in self.readings else None
        if not {goal.ours, goal.than} <= self.readings.keys():
            return None
        return self.compared(goal.ours, goal.than, goal.of, difference=goal.difference)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int = 9
    round_s: float = 0.2


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; processes started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def calibrated(run: Run, round_s: float) -> int:
    """Warm up, and return how many runs fill a round."""
    n = 1
    while True:
        start = time.perf_counter()
        run(n)
        passed = time.perf_counter() - start
        if passed > round_s / 4:
            return max(1, round(n * round_s / passed))
        n *= 2 if passed > round_s / 32 else 8


def read(run: Run, n: int, per: int) -> Reading:
    """Measure one round; the threads a library started count as its own."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    own = run(n)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return own or Reading(cpu_s / (n * per), wall_s / (n * per))


class Here:
    """Measures a contestant in this process: quick to start, for trying a benchmark out and for tests."""

    def __init__(self, contestant: Contestant, place: Place, table: Table, effort: Effort) -> None:
        self.contestant = contestant
        self.stack = contextlib.ExitStack()
        self.run = self.stack.enter_context(contextlib.contextmanager(contestant.setup)(place))
        self.run(1)
        self.n = 1 if table.fixed else calibrated(self.run, effort.round_s)

    def read(self) -> Reading:
        return read(self.run, self.n, self.contestant.per)

    def close(self) -> None:
        self.stack.close()


def work(pipe: Connection, contestant: Contestant, place: Place, table: Table, effort: Effort) -> None:
    """What a contestant's process does: set up, warm up, say so, and run a round whenever told."""
    try:
        here = Here(contestant, place, table, effort)
    except ImportError as exc:
        pipe.send(exc.name or str(exc))
        return
    gc.collect()
    gc.freeze()  # what a library keeps for ever must not be walked again in each round
    pipe.send(None)
    while pipe.recv():
        pipe.send(here.read())
    here.close()


class Apart:
    """Measures a contestant in a process of its own.

    Raises
    ------
    ImportError
        If its library is not installed.
    """

    def __init__(self, contestant: Contestant, place: Place, table: Table, effort: Effort) -> None:
        context = multiprocessing.get_context("spawn")
        self.contestant = contestant
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, contestant, place, table, effort), daemon=True)
        self.process.start()
        theirs.close()
        missing = self.receive()
        if missing is not None:
            self.process.join()
            raise ImportError(missing, name=str(missing))

    def receive(self) -> Reading | str | None:
        try:
            got: Reading | str | None = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.contestant.name} gave up; its error is above") from None
        return got

    def read(self) -> Reading:
        self.pipe.send(True)
        got = self.receive()
        assert isinstance(got, Reading)
        return got

    def close(self) -> None:
        self.pipe.send(False)
        self.process.join(10)
        self.process.terminate()


def measured(table: Table, place: Place, effort: Effort, *, within: type[Here] | type[Apart] = Apart) -> Result:
    """Run a table's contestants in turn, round after round; who is not installed is left out."""
    result = Result(table)
    desks: dict[str, Here | Apart] = {}
    try:
        for contestant in table.contestants:
            try:
                desks[contestant.name] = within(contestant, place, table, effort)
            except ImportError as exc:
                result.absent[contestant.name] = exc.name or str(exc)
        for _ in range(effort.rounds):
            for name, desk in desks.items():
                result.readings.setdefault(name, []).append(desk.read())
    finally:
        for desk in desks.values():
            desk.close()
    return result
