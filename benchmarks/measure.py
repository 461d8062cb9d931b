"""Measures contestants in turn: each in a process of its own, A B C A B C…, CPU time first and wall time beside it.

A process of its own keeps one library's threads, patches and garbage out of another's figures. The server is one process for all.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

from .profile import Profile, profiled

MEMORY = "rss_bytes"
SCALE = {"µs": 1e6, "ms": 1e3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Place:
    """Where contestants work: the server's address and a folder for what they write."""

    url: str
    folder: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one operation took in one round, and what else was seen, by name."""

    cpu_s: float
    wall_s: float
    more: Mapping[str, float] = field(default_factory=dict)

    def value(self, quantity: str) -> float:
        """Return a quantity; one that this contestant does not have is NaN."""
        return self.cpu_s if quantity == "cpu_s" else self.wall_s if quantity == "wall_s" else self.more.get(quantity, math.nan)


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
    series: str = ""  # the curve it is a point of, where a table has an axis
    at: float = 0.0  # where on the axis
    explain: Callable[[Place, bool], Profile | None] | None = None  # of time or of memory, where a profile of its process says nothing


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity as tables and charts show it."""

    quantity: str
    name: str
    unit: str
    scale: float = 1.0

    @property
    def head(self) -> str:
        return f"{self.name} {self.unit}"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a contestant is to reach: beside another, or by itself where ``than`` is ``None``."""

    figure: str
    ours: str
    than: str | None
    at_most: float
    of: str = "cpu_s"
    difference: bool = False  # ours minus theirs rather than ours over theirs


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    reference: str
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...]
    operation: str = "call"
    unit: Literal["µs", "ms", "s"] = "µs"
    about: str = ""
    fixed: bool = False  # one run a round, however short
    cold: bool = False  # nor a warm-up before
    rounds: int | None = None  # where not as many as elsewhere
    columns: tuple[Column, ...] = ()  # besides CPU and wall time
    timed: bool = True  # whether CPU and wall time of an operation say something
    axis: str = ""  # what grows from contestant to contestant, where the chart is of curves
    drawn: tuple[str, ...] = ("cpu_s",)  # the quantities in the chart

    @property
    def all_columns(self) -> tuple[Column, ...]:
        scale = SCALE[self.unit]
        cpu = Column("cpu_s", "CPU", f"{self.unit} a {self.operation}", scale)
        wall = Column("wall_s", "wall", f"{self.unit} a {self.operation}", scale)
        return (*((cpu, wall) if self.timed else ()), *self.columns)

    def column(self, quantity: str) -> Column:
        return next(column for column in self.all_columns if column.quantity == quantity)


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
    profiles: dict[str, Profile] = field(default_factory=dict)
    """Of our contestants that missed a goal."""

    def spread(self, name: str, quantity: str) -> Spread:
        return Spread.of(reading.value(quantity) for reading in self.readings[name])

    def has(self, name: str, quantity: str) -> bool:
        return name in self.readings and not math.isnan(self.readings[name][0].value(quantity))

    def compared(self, name: str, than: str, quantity: str, *, difference: bool = False) -> Spread:
        """Compare two contestants round by round: what disturbs the machine for a while disturbs both."""
        pairs = [(a.value(quantity), b.value(quantity)) for a, b in zip(self.readings[name], self.readings[than])]
        return Spread.of(a - b if difference else a / b for a, b in pairs)

    def reached(self, goal: Goal) -> Spread | None:
        """Return the figure of a goal, or ``None`` where one of the two did not take part."""
        if not self.has(goal.ours, goal.of):
            return None
        if goal.than is None:
            return self.spread(goal.ours, goal.of)
        return self.compared(goal.ours, goal.than, goal.of, difference=goal.difference) if self.has(goal.than, goal.of) else None

    def missed(self) -> list[Goal]:
        reached = [(goal, self.reached(goal)) for goal in self.table.goals]
        return [goal for goal, spread in reached if spread is not None and spread.middle > goal.at_most]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int = 9
    round_s: float = 0.2
    explain: bool = True  # where a figure is missed, see where the time goes


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

    def profile(self, memory: bool) -> Profile | None:
        return profiled(self.run, self.n, memory=memory)

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
        if isinstance(missing, str):
            raise ImportError(missing, name=missing)

    def warm_up(self, round_s: float | None) -> None:
        self.pipe.send(("warm_up", round_s))
        self.receive()

    def read(self) -> Reading:
        self.pipe.send(("read", None))
        got = self.receive()
        assert isinstance(got, Reading)
        return got

    def profile(self, memory: bool) -> Profile | None:
        self.pipe.send(("profile", memory))
        got = self.receive()
        assert got is None or isinstance(got, Profile)
        return got

    def receive(self) -> Reading | Profile | str | None:
        try:
            got: Reading | Profile | str | None = self.pipe.recv()
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
        match order:
            case "read", _:
                pipe.send(here.read())
            case "profile", memory:
                pipe.send(here.profile(memory))
            case _, round_s:
                here.warm_up(round_s)
                gc.freeze()  # what a library keeps for ever must not be walked again in each round
                pipe.send(None)
    here.close()


def measured(table: Table, place: Place, effort: Effort, *, within: type[Here] | type[Apart] = Apart) -> Result:
    """Run a table's contestants in turn, round after round; a peer that is not installed, or fails, is left out.

    Ours that miss a goal then show where their time goes.
    """
    result = Result(table)
    desks: dict[str, Here | Apart] = {}
    try:
        for contestant in table.contestants:
            with taking_part(result, contestant.name):
                desks[contestant.name] = within(contestant, place)
        for name, desk in desks.items():
            with taking_part(result, name):
                desk.wait()
                if not table.cold:
                    desk.warm_up(None if table.fixed else effort.round_s)
        result.readings = {name: [] for name in desks if name not in result.absent}
        for _ in range(table.rounds or effort.rounds):
            for name, readings in result.readings.items():
                readings.append(desks[name].read())
        if effort.explain:
            explain_misses(result, desks, place)
    finally:
        for desk in desks.values():
            desk.close()
    return result


def explain_misses(result: Result, desks: Mapping[str, Here | Apart], place: Place) -> None:
    explained = {contestant.name: contestant.explain for contestant in result.table.contestants}
    for goal in result.missed():
        if goal.ours not in result.profiles:
            explain = explained[goal.ours]
            memory = goal.of == MEMORY
            found = explain(place, memory) if explain else desks[goal.ours].profile(memory)
            if found is not None:
                result.profiles[goal.ours] = found


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
