"""Calls before a comparison that don't count: connections are made, models loaded, and nobody's latency holds that."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..errors import ConfigError
from ..monitor.outcomes import Outcome
from ..types import Completion, ImageResult
from .grid import Cell, Plan
from .run import Asked, Run

__all__ = ["WarmUp", "warm_up_cells"]


def warm_up_cells(plan: Plan, calls: int) -> list[Cell]:
    """Return so many cells of each model, on the first prompts; their indices are outside the table.

    Raises
    ------
    ConfigError
        If it is no number of calls.
    """
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 0:
        raise ConfigError(f"warmup={calls!r}: it is a number of calls for each model, 0 or more")
    questions = list(itertools.islice(itertools.cycle(plan.questions), calls))
    return [Cell(-1, variant, question, 0) for question in questions for variant in plan.variants]


class WarmUp:
    """Asks warm-up calls. They are in the journal with the operation and the provenance ``warmup``, and nowhere else.

    One that fails says nothing: the calls that count will tell.
    """

    def __init__(self, cells: Sequence[Cell], run: Run) -> None:
        self._cells = iter(cells)
        self._run = run

    def next_cell(self) -> Cell | None:
        return None if self._run.stopped else next(self._cells, None)

    def context(self, cell: Cell) -> dict[str, str | int]:
        return {**self._run.context(cell), "operation": "warmup"}

    def note(self, cell: Cell) -> Asked:  # noqa: ARG002 - an Asker's
        return keep_nothing

    def answered(self, cell: Cell, completion: Completion | ImageResult) -> None:
        """Keep nothing of it."""

    def fail(self, error: BaseException) -> None:
        self._run.fail(error)


def keep_nothing(_outcome: Outcome) -> None:
    """A warm-up call's outcome is the journal's alone."""
