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
    rounds: int | None = None  # where not as many as elsewhere


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

    def __init__(self, contestant: Contestant, place: Place) -> None:
        self.contestant, self.n = contestant, 1
        self.stack = contextlib.ExitStack()
        self.run = self.stack.enter_context(contextlib.contextmanager(contestant.setup)(place))

    def wait(self) -> None:
        """Say whether the set-up went well; here it has, or it would have raised."""

    def warm_up(self, round_s: float | None) -> None:
        self.run(1)
        if round_s is not None:
            self.n = calibrated(self.run, round_s)
        gc.collect()

    def read(self) -> Reading:
        return read(self.run, self.n, self.contestant.per)

    def close(self) -> None:
        self.stack.close()


class Apart:
    """Measures a contestant in a process of its own, which is setting itself up when this returns."""

    def __init__(self, contestant: Contestant, place: Place) -> None:
        context = multiprocessing.get_context("spawn")
        self.contestant = contestant
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, contestant, place), daemon=True)
        self.process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait for the end of the set-up.

        Raises
        ------
        ImportError
            If the contestant's library is not installed.
        """
        missing = self.receive()
        if missing is not None:
            raise ImportError(missing, name=str(missing))

    def warm_up(self, round_s: float | None) -> None:
        self.pipe.send(("warm_up", round_s))
        self.receive()

    def read(self) -> Reading:
        self.pipe.send(("read", None))
        got = self.receive()
        assert isinstance(got, Reading)
        return got

    def receive(self) -> Reading | str | None:
        try:
            got: Reading | str | None = self.pipe.recv()
        except EOFError:
            raise BrokenError(f"{self.contestant.name} gave up; its error is above") from None
        return got

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(("close", None))
        self.process.join(10)
        self.process.terminate()


class BrokenError(RuntimeError):
    """A contestant's process has ended before its time."""


def work(pipe: Connection, contestant: Contestant, place: Place) -> None:
    """What a contestant's process does: set up, and do as it is told."""
    try:
        here = Here(contestant, place)
    except ImportError as exc:
        pipe.send(exc.name or str(exc))
        return
    pipe.send(None)
    while (order := pipe.recv())[0] != "close":
        if order[0] == "read":
            pipe.send(here.read())
            continue
        here.warm_up(order[1])
        gc.freeze()  # what a library keeps for ever must not be walked again in each round
        pipe.send(None)
    here.close()


def measured(table: Table, place: Place, effort: Effort, *, within: type[Here] | type[Apart] = Apart) -> Result:
    """Run a table's contestants in turn, round after round; a peer that is not installed, or fails, is left out."""
    result = Result(table)
    desks: dict[str, Here | Apart] = {}
    try:
        for contestant in table.contestants:
            with taking_part(result, contestant.name):
                desks[contestant.name] = within(contestant, place)
        for name, desk in desks.items():
            with taking_part(result, name):
                desk.wait()
                desk.warm_up(None if table.fixed else effort.round_s)
        result.readings = {name: [] for name in desks if name not in result.absent}
        for _ in range(table.rounds or effort.rounds):
            for name, readings in result.readings.items():
                readings.append(desks[name].read())
    finally:
        for desk in desks.values():
            desk.close()
    return result


@contextlib.contextmanager
def taking_part(result: Result, name: str) -> Iterator[None]:
    """Note who can't take part. A peer's trouble must not end the run, ours must."""
    try:
        yield
    except ImportError as exc:
        result.absent[name] = f"`{exc.name or exc}` is not installed"
    except BrokenError:
        if any(goal.ours == name for goal in result.table.goals):
            raise
        result.absent[name] = "it failed"
