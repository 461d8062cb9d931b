"""Where a contestant's time or memory goes: looked at where a figure was missed, and printed beside it."""

from __future__ import annotations

import contextlib
import linecache
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PROFILE_S = 1.5
PAUSE_S = 0.001
SHARE_OF_LOOKING = 0.2
"""Looking may take so much of the time: with many threads the looks are further apart."""

TASKS = Path("/proc/self/task")
MOST = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of a whole: by part of the program, and the single places with the largest."""

    whole: str
    parts: tuple[tuple[str, float], ...]
    places: tuple[tuple[str, float], ...]


def shares(spent: Counter[str]) -> tuple[tuple[str, float], ...]:
    total = sum(spent.values())
    return tuple((name, value / total) for name, value in spent.most_common(MOST)) if total else ()


def part_of(module: str) -> str:
    """Name the part of the program that a module belongs to: one of ours by its layer, others by their package."""
    names = module.split(".")
    if names[0] == "benchmarks":
        return "the benchmark itself"
    depth = 3 if names[:3] == ["toolkit", "monitor", "journal"] else 2 if names[0] == "toolkit" else 1
    return ".".join(names[:depth])


class Sampler(threading.Thread):
    """Looks every millisecond or so at what each thread does, and books to it the CPU time that the thread took since the last look."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.parts: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.before: dict[int, int] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        pause_s = PAUSE_S
        while not self.ended.wait(pause_s):
            start = time.perf_counter()
            self.look()
            pause_s = max(PAUSE_S, (time.perf_counter() - start) / SHARE_OF_LOOKING)

    def look(self) -> None:
        frames = sys._current_frames()
        threads = {thread.native_id: frames.get(thread.ident or 0) for thread in threading.enumerate() if thread is not self}
        for task in TASKS.iterdir():
            native_id = int(task.name)
            with contextlib.suppress(OSError):  # it has just ended
                if native_id != self.native_id and (spent := self.newly_spent(native_id, task)):
                    self.book(threads.get(native_id), spent, task)

    def newly_spent(self, native_id: int, task: Path) -> int:
        now = int((task / "schedstat").read_text().split()[0])
        before = self.before.get(native_id, now)
        self.before[native_id] = now
        return now - before

    def book(self, frame: FrameType | None, spent: int, task: Path) -> None:
        if frame is None:
            name = f"threads that are not Python's ({(task / 'comm').read_text().strip()})"
            self.parts[name] += spent
            self.places[name] += spent
            return
        module = str(frame.f_globals.get("__name__"))
        self.parts[part_of(module)] += spent
        self.places[f"{module}.{name_of(frame.f_code)}"] += spent


def name_of(code: CodeType) -> str:
    return code.co_qualname.replace(".<locals>", "")


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(PAUSE_S / 2)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def profiled(run: Callable[[int], object], n: int, *, memory: bool) -> Profile | None:
    """Run again and see where the CPU time of all threads goes, or the memory that is left; ``None`` where the system does not tell."""
    return memory_of(run, n) if memory else cpu_of(run, n) if TASKS.exists() else None


def cpu_of(run: Callable[[int], object], n: int) -> Profile:
    sampler, until = Sampler(), time.perf_counter() + PROFILE_S
    with switching_often():
        sampler.start()
        while time.perf_counter() < until:
            run(n)
        sampler.ended.set()
        sampler.join()
    return Profile("CPU time of all threads", shares(sampler.parts), shares(sampler.places))


def memory_of(run: Callable[[int], object], n: int) -> Profile:
    parts: Counter[str] = Counter()
    places: Counter[str] = Counter()
    peak: list[Any] = []
    tracemalloc.start()
    try:
        run(n)
        peak.append(tracemalloc.take_snapshot())
    finally:
        tracemalloc.stop()
    for found in peak[0].statistics("lineno"):
        frame = found.traceback[0]
        parts[file_name(frame.filename)] += found.size
        places[f"{file_name(frame.filename)}: {linecache.getline(frame.filename, frame.lineno).strip()}"] += found.size
    return Profile("memory that Python allocated", shares(parts), shares(places))


def file_name(path: str) -> str:
    """A file by its place in its package, without the machine's folders."""
    names = Path(path).parts
    for folder in ("site-packages", "toolkit", "benchmarks"):
        if folder in names:
            at = len(names) - 1 - names[::-1].index(folder)
            return "/".join(names[at + (folder == "site-packages") :])
    return Path(path).name


def of_shares(whole: str, spent: Iterable[tuple[str, float]]) -> Profile:
    """A profile of what was measured in another way: modules, and what each took."""
    parts: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for module, value in spent:
        parts[part_of(module)] += value  # type: ignore[assignment]  # a Counter of floats is a Counter
        places[module] += value  # type: ignore[assignment]
    return Profile(whole, shares(parts), shares(places))
