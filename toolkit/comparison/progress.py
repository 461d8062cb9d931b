"""Showing how a comparison goes: a bar in a terminal, a live table in a notebook, a line a model in CI and in a log file."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .. import settings
from ..monitor.events import CallRecord
from ..render import DASH, escape, html_bar, html_page, html_table, html_voice, plain, seconds, usd
from ..wire.waits import Wait
from .run import Run, Watcher

if TYPE_CHECKING:
    from ..widgets.live_table import LiveTable

__all__ = ["Progress", "in_notebook", "interrupted_in_notebook", "watcher_for"]

Progress = bool | Watcher | None

RECENT = 2_000
"""The live percentiles look at this many latencies of a model at most; the result's look at all."""


@dataclass(slots=True)
class Tally:
    """How one model stands."""

    label: str
    total: int
    ok: int = 0
    cached: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    waited_s: float = 0.0
    waiting: str = ""
    """Of its calls under way, those that wait now: how many, how long, for what."""
    latencies_s: list[float] = field(default_factory=list)
    first_tokens_s: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    """Output tokens a second."""

    @property
    def done(self) -> int:
        return self.ok + self.failed

    def percentile(self, q: float) -> float | None:
        recent = self.latencies_s[-RECENT:]
        return statistics.quantiles(recent, n=100, method="inclusive")[round(q * 100) - 1] if len(recent) > 1 else next(iter(recent), None)

    def left_s(self, elapsed_s: float) -> float | None:
        """How long the rest takes if it goes on like this."""
        return elapsed_s / self.done * (self.total - self.done) if 0 < self.done < self.total else None

    def cells(self, left_s: float | None) -> tuple[str, ...]:
        speed = middle(self.speeds)
        return (
            self.label,
            html_bar(self.done, self.total, f"{self.label}: {self.done} of {self.total}"),
            f"{self.ok:,}",
            f"{self.cached:,}",
            f"{self.failed:,}",
            seconds(self.percentile(0.5)),
            seconds(self.percentile(0.95)),
            seconds(middle(self.first_tokens_s)),
            DASH if speed is None else f"{speed:,.1f}",
            usd(self.cost_usd),
            f"{seconds(self.waited_s or None)} · {self.waiting}" if self.waiting else seconds(self.waited_s or None),
            seconds(left_s),
        )

    def line(self) -> str:
        """The same for a log: what is finished, and how fast."""
        parts = (
            f"{self.ok:,} of {self.total:,} ok",
            f"{self.cached:,} cached",
            f"{self.failed:,} failed",
            f"p50 {seconds(self.percentile(0.5))}",
            f"p95 {seconds(self.percentile(0.95))}",
            usd(self.cost_usd),
        )
        return plain(f"{self.label}: {', '.join(parts)}")


def middle(values: list[float]) -> float | None:
    return statistics.median(values[-RECENT:]) if values else None


HEAD = ("model", "progress", "ok", "cached", "failed", "p50", "p95", "first token", "tokens/s", "cost", "waited", "left")


class Tallies:
    """Counts what is new since the last look, so that a look costs the same at the end as at the start."""

    def __init__(self, run: Run) -> None:
        self.run = run
        total = len(run.plan) // len(run.plan.variants)
        self.by_label = {label: Tally(label, total) for label in run.plan.labels}
        self._seen = 0

    def update(self) -> list[Tally]:
        fresh = self.run.rows[self._seen :]
        self._seen += len(fresh)
        for row in fresh:
            count(row, self.by_label[row.label])
        waits = waits_now(self.run)
        for label, tally in self.by_label.items():
            tally.waiting = waiting_words([wait for wait in waits if wait.label == label], self.run.waits.timer())
        return list(self.by_label.values())


def waits_now(run: Run) -> list[Wait]:
    return [] if run.finished or run.stopped else run.waits.of_run(run.run_id)


def waiting_words(waits: Sequence[Wait], now: float) -> str:
    """How many calls wait, how long the longest of them does, and for what."""
    return f"{len(waits):,} waiting {seconds(now - waits[0].since)}: {waits[0].reason}" if waits else ""


def count(row: CallRecord, tally: Tally) -> None:
    tally.waited_s += (row.limiter_wait_s or 0.0) + (row.retry_sleep_s or 0.0)
    if row.status != "ok":
        tally.failed += 1
        return
    tally.ok += 1
    tally.cost_usd += row.cost_usd or 0.0
    if row.provenance != "live":
        tally.cached += 1
        return
    for value, values in (
        (row.latency_s, tally.latencies_s),
        (row.ttft_s, tally.first_tokens_s),
        (row.output_tokens_per_s, tally.speeds),
    ):
        if value is not None:
            values.append(value)


@contextlib.contextmanager
def watcher_for(progress: Progress, run: Run, *, stoppable: bool = False) -> Iterator[Watcher]:
    """Choose what shows the progress and clean up after it.

    ``stoppable``: the caller's event loop runs on, so a Stop button would be heard.
    """
    if callable(progress):
        yield progress
        return
    if progress is False:
        yield silent
        return
    shown = display_for(progress, run, stoppable=stoppable)
    try:
        yield shown
    finally:
        shown.finish()


def display_for(progress: Literal[True] | None, run: Run, *, stoppable: bool) -> Lines | NotebookTable | TerminalBar:
    notebook = in_notebook()
    if progress is None and settings.in_ci():
        return Lines(run, sys.stdout if notebook else sys.stderr)  # what a notebook has in stderr is red
    if notebook:
        return NotebookTable(run, stoppable=stoppable)
    return TerminalBar(run, sys.stderr) if sys.stderr.isatty() else Lines(run, sys.stderr)


def silent(_run: Run) -> None:
    """Show nothing."""


@contextlib.contextmanager
def interrupted_in_notebook() -> Iterator[None]:
    """In a notebook a cancellation is the kernel's interrupt: it ends what is inside, and what is finished counts."""
    try:
        yield
    except asyncio.CancelledError:
        if not in_notebook():
            raise


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs us."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def eta(run: Run) -> str:
    done, total = len(run.done), len(run.plan)
    if run.stopped or not done or done == total:
        return ""
    return f", about {seconds(run.elapsed_s / done * (total - done))} left"


def status(run: Run) -> str:
    word = "done" if run.finished else "stopped, what is finished is kept" if run.stopped else "running"
    return f"{word}: {len(run.done)} of {len(run.plan)} in {seconds(run.elapsed_s)}{eta(run)}"


class Lines:
    """One line a model, in the order of the models, when all is over: for CI and log files."""

    def __init__(self, run: Run, out: TextIO) -> None:
        self.run, self.out = run, out

    def __call__(self, _run: Run) -> None:
        """Say nothing yet."""

    def finish(self) -> None:
        self.out.write("".join(f"{tally.line()}\n" for tally in Tallies(self.run).update()))
        self.out.flush()


class TerminalBar:
    """One line that is written over; a few times a second."""

    WIDTH = 24

    def __init__(self, run: Run, out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.run, self.out, self.clock = run, out, clock
        self.tallies = Tallies(run)
        self.next_draw = 0.0

    def __call__(self, _run: Run) -> None:
        if self.clock() >= self.next_draw:
            self.next_draw = self.clock() + 0.2
            self.draw()

    def draw(self) -> None:
        rows = self.tallies.update()
        filled = round(self.WIDTH * len(self.run.done) / len(self.run.plan))
        failed, cached = sum(row.failed for row in rows), sum(row.cached for row in rows)
        notes = f"{f', {cached} cached' if cached else ''}{f', {failed} failed' if failed else ''}"
        waiting = waiting_words(waits_now(self.run), self.run.waits.timer())
        notes += f", {waiting}" if waiting else ""
        self.out.write(f"\r\x1b[2K{'█' * filled}{'░' * (self.WIDTH - filled)} {plain(status(self.run))}{notes}")
        self.out.flush()

    def finish(self) -> None:
        self.draw()
        self.out.write("\n")
        self.out.flush()


class NotebookTable:
    """A table that is drawn again up to eight times a second, with a Stop button; at the end it is plain HTML that a saved file keeps."""

    EVERY_S = 0.125

    def __init__(self, run: Run, *, stoppable: bool, clock: Callable[[], float] = time.monotonic) -> None:
        from IPython import display

        self.run, self.clock = run, clock
        self.tallies = Tallies(run)
        self.next_draw = 0.0
        self.live: LiveTable | None = None
        if stoppable:
            self.live = self.live_table()
        self.handle: Any = None  # IPython's
        if self.live is None:
            self.handle = display.display(self, display_id=True)  # type: ignore[no-untyped-call]
        else:
            display.display(self.live)  # type: ignore[no-untyped-call]

    def live_table(self) -> LiveTable | None:
        """A table with a Stop button, or nothing where the extra is not installed: then the output itself is updated."""
        try:
            from ..widgets.live_table import LiveTable
        except ImportError:
            return None
        return LiveTable(self._repr_html_(), on_stop=self.run.stop, name=repr(self))

    def __call__(self, _run: Run) -> None:
        if self.clock() >= self.next_draw:
            self.next_draw = self.clock() + self.EVERY_S
            self.draw()

    def draw(self) -> None:
        if self.live is not None:
            self.live.show(self._repr_html_(), announcement(self.run), name=repr(self))
        else:
            self.handle.update(self)

    def finish(self) -> None:
        """A saved widget would reopen as 'model not found': leave HTML in its place."""
        self.draw()
        if self.live is not None:
            self.live.leave()
            self.live.close()

    def __repr__(self) -> str:
        return f"<comparison of {len(self.run.plan.variants)} models, {len(self.run.done)} of {len(self.run.plan)} calls>"

    def _repr_html_(self) -> str:
        ended = self.run.finished or self.run.stopped
        rows = [tally.cells(None if ended else tally.left_s(self.run.elapsed_s)) for tally in self.tallies.update()]
        spoken = "" if self.live is not None else html_voice(announcement(self.run))
        return html_page(f"<div>{escape(status(self.run))}</div>", html_table(HEAD, rows), spoken)


def announcement(run: Run) -> str:
    """What a screen reader says: a quarter is news, a call is not."""
    if run.finished or run.stopped:
        return status(run)
    return f"{len(run.done) * 4 // len(run.plan) * 25} % of {len(run.plan)} calls are done"
