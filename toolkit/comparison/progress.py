"""Showing how a comparison goes: a bar in a terminal, a live table in a notebook, nothing in CI."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from .. import settings
from ..render import html_page, html_table, plain, seconds, usd
from .run import Run, Watcher

__all__ = ["Progress", "in_notebook", "watcher_for"]

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
    latencies_s: list[float] | None = None
    first_tokens_s: list[float] | None = None

    @property
    def done(self) -> int:
        return self.ok + self.failed

    def percentile(self, q: float) -> float | None:
        recent = (self.latencies_s or [])[-RECENT:]
        return statistics.quantiles(recent, n=100, method="inclusive")[round(q * 100) - 1] if len(recent) > 1 else next(iter(recent), None)

    def cells(self) -> tuple[str, ...]:
        first = statistics.median(self.first_tokens_s[-RECENT:]) if self.first_tokens_s else None
        return (
            self.label,
            f"{self.done}/{self.total}",
            str(self.cached),
            str(self.failed),
            seconds(self.percentile(0.5)),
            seconds(self.percentile(0.95)),
            seconds(first),
            usd(self.cost_usd),
        )


HEAD = ("model", "done", "cached", "failed", "p50", "p95", "first token", "cost")


class Tallies:
    """Counts what is new since the last look, so that a look costs the same at the end as at the start."""

    def __init__(self, run: Run) -> None:
        self.run = run
        total = len(run.plan) // len(run.plan.variants)
        self.by_label = {label: Tally(label, total, latencies_s=[], first_tokens_s=[]) for label in run.plan.labels}
        self._seen = 0

    def update(self) -> list[Tally]:
        fresh = self.run.rows[self._seen :]
        self._seen += len(fresh)
        for row in fresh:
            tally = self.by_label[row.label]
            if row.status != "ok":
                tally.failed += 1
                continue
            tally.ok += 1
            tally.cost_usd += row.cost_usd or 0.0
            if row.provenance != "live":
                tally.cached += 1
            elif row.latency_s is not None and tally.latencies_s is not None and tally.first_tokens_s is not None:
                tally.latencies_s.append(row.latency_s)
                if row.ttft_s is not None:
                    tally.first_tokens_s.append(row.ttft_s)
        return list(self.by_label.values())


@contextlib.contextmanager
def watcher_for(progress: Progress, run: Run, *, stoppable: bool = False) -> Iterator[Watcher]:
    """Choose what shows the progress and clean up after it.

    ``stoppable``: the caller's event loop runs on, so a Stop button would be heard.
    """
    if callable(progress):
        yield progress
    elif progress is False or (progress is None and settings.in_ci()):
        yield silent
    elif in_notebook():
        table = NotebookTable(run, stoppable=stoppable)
        yield table
        table.finish()
    elif progress or sys.stderr.isatty():
        bar = TerminalBar(run, sys.stderr)
        yield bar
        bar.finish()
    else:
        yield silent


def silent(_run: Run) -> None:
    """Show nothing."""


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
        self.widget: Any  # ipywidgets has no types
        self.body: Any
        self.widget, self.body = self.widgets() if stoppable else (None, None)
        self.handle: Any = display.display(self.widget if self.widget is not None else self, display_id=True)  # type: ignore[no-untyped-call]

    def widgets(self) -> tuple[Any, Any]:  # ipywidgets has no types
        """A Stop button over an HTML widget, or nothing where ipywidgets is not installed: then the output itself is updated."""
        try:
            import ipywidgets
        except ImportError:
            return None, None
        stop = ipywidgets.Button(description="Stop", icon="stop", tooltip="Start no further call and keep what is finished")
        stop.on_click(lambda _button: self.run.stop())
        body = ipywidgets.HTML(value=self._repr_html_())
        return ipywidgets.VBox([stop, body]), body

    def __call__(self, _run: Run) -> None:
        if self.clock() < self.next_draw:
            return
        self.next_draw = self.clock() + self.EVERY_S
        if self.body is not None:
            self.body.value = self._repr_html_()
        else:
            self.handle.update(self)

    def finish(self) -> None:
        """A saved widget would reopen as 'model not found': leave HTML in its place."""
        self.handle.update(self)
        if self.widget is not None:
            self.widget.close()

    def __repr__(self) -> str:
        return f"<comparison of {len(self.run.plan.variants)} models, {len(self.run.done)} of {len(self.run.plan)} calls>"

    def _repr_html_(self) -> str:
        table = html_table(HEAD, [row.cells() for row in self.tallies.update()])
        return html_page(f'<div role="status" aria-live="polite">{status(self.run)}</div>', table)
