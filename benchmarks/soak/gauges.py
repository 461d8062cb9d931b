"""What a process holds on to, and whether that grows. Linux only: it is read from ``/proc``."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All gauges at one moment, when what is free has been given back; ``waiting`` and ``under_way`` are the most since the last reading."""

    at_s: float
    calls: int
    rss_bytes: int
    blocks: int  # pieces of memory that Python has handed out: far finer than pages
    threads: int
    sockets: int
    files: int
    journal_bytes: int
    waiting: int  # records that the journal has not written yet
    under_way: int  # calls that are due and have not ended
    reader_bytes: int


def rss_of(pid: int | str) -> int:
    """The resident memory of a process; 0 where there is none (any more)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def open_handles() -> tuple[int, int]:
    """How many sockets this process has open, and how many other handles."""
    sockets = others = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            is_socket = str(entry.readlink()).startswith("socket:")
        except OSError:  # the one that lists them
            continue
        sockets += is_socket
        others += not is_socket
    return sockets, others


def size_of(path: Path) -> int:
    """The size of a database with its log."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


@dataclass(slots=True)
class Gauges:
    """Reads them all, so many times during a run; the lengths of queues in between as well."""

    journal: Path
    calls: Callable[[], int]
    waiting: Callable[[], int]
    under_way: Callable[[], int]
    reader_pid: int

    @staticmethod
    def tidy_up() -> None:
        """Give back what is free: garbage, and memory that the C library keeps for later."""
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc's
            trim(0)

    def read(self, start: float, waiting: int, under_way: int) -> Reading:
        self.tidy_up()
        sockets, files = open_handles()
        return Reading(
            at_s=time.monotonic() - start,
            calls=self.calls(),
            rss_bytes=rss_of("self"),
            blocks=sys.getallocatedblocks(),
            threads=threading.active_count(),
            sockets=sockets,
            files=files,
            journal_bytes=size_of(self.journal),
            waiting=waiting,
            under_way=under_way,
            reader_bytes=rss_of(self.reader_pid),
        )

    def keep_reading(self, readings: list[Reading], every_s: float, stop: threading.Event) -> None:
        start = time.monotonic()
        waiting = under_way = 0
        while not stop.wait(min(0.2, every_s / 4)):
            waiting, under_way = max(waiting, self.waiting()), max(under_way, self.under_way())
            if time.monotonic() - start >= every_s * (len(readings) + 1):
                readings.append(self.read(start, waiting, under_way))
                waiting = under_way = 0


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a gauge grew while the calls were made, with a 95 % interval, in all and for each call."""

    low: float
    middle: float
    high: float
    calls: int

    @property
    def high_per_call(self) -> float:
        return self.high / self.calls


def growth(calls: Sequence[int], values: Sequence[float]) -> Growth:
    """Fit a line that outliers do not bend, and say how much it climbs from the first reading to the last.

    Notes
    -----
    The median of the slopes between all pairs, and its interval by Kendall's statistic: P. K. Sen, "Estimates of the Regression
    Coefficient Based on Kendall's Tau", JASA 63 (1968).

    Examples
    --------
    >>> growth(range(10), [5, 6, 5, 6, 5, 60, 5, 6, 5, 6]).middle
    0.0
    """
    n, span = len(calls), calls[-1] - calls[0]
    slopes = sorted((values[j] - values[i]) / (calls[j] - calls[i]) for i in range(n) for j in range(i + 1, n) if calls[j] > calls[i])
    middle = (slopes[(len(slopes) - 1) // 2] + slopes[len(slopes) // 2]) / 2
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = slopes[max(0, math.floor((len(slopes) - spread) / 2))]
    high = slopes[min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))]
    return Growth(low * span, middle * span, high * span, span)
