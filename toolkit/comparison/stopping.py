"""Rules that end a comparison before all is asked: too much fails, the money is spent, the question is answered. See ``run.Rule``."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from .. import stats
from ..errors import ConfigError
from ..monitor.events import CallRecord
from ..monitor.frames import METRICS
from ..render import usd
from ..stats.sequential import FIRST_LOOK
from .grid import Plan

if TYPE_CHECKING:
    from .run import Run

__all__ = ["Budget", "Decided", "ErrorRate", "of_live_calls", "read_budget", "read_until", "spent_usd"]

OF_LIVE_CALLS = ("_s", "_per_s")
"""Endings of the metrics that only a call made now can have."""

LOOKS_PER_DOUBLING = 70
"""With many prompts a look at each would cost the square of their number; skipping looks never harms the error rate."""


class ErrorRate:
    """Stops a run when more than a share of a model's calls has failed.

    Parameters
    ----------
    limit : float
        From 0 (one failure is too many) to 1.

    Raises
    ------
    ConfigError
        If it is no share.

    Notes
    -----
    A model is looked at from its tenth call on: the first of four may fail by chance. Retries are not failures; a call fails when its
    last attempt has.
    """

    MIN_CALLS = 10

    def __init__(self, limit: float) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit <= 1:
            raise ConfigError(f"max_error_rate={limit!r}: it is a share of the calls, from 0 to 1")
        self.limit = limit
        self._seen = 0
        self._calls: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def __call__(self, run: Run) -> str | None:
        fresh = run.rows[self._seen :]
        self._seen += len(fresh)
        for row in fresh:
            self._calls[row.label] += 1
            self._failed[row.label] += row.status == "error"
        for label in dict.fromkeys(row.label for row in fresh):
            failed, calls = self._failed[label], self._calls[label]
            if calls >= self.MIN_CALLS and failed > self.limit * calls:
                return f"{failed} of {calls} calls of {label} failed, more than max_error_rate={self.limit:g} allows"
        return None


class Budget:
    """Stops a run when the calls made now have cost so much; what was under way then still ends and counts.

    A call whose cost is not known ends the run too: a budget that can't be kept must not pretend to be.
    """

    def __init__(self, limit_usd: float) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        self._seen = 0
        self._run: Run | None = None

    def __call__(self, run: Run) -> str | None:
        if run is not self._run:
            self._run, self._seen = run, 0
        new = run.rows[self._seen :]
        self._seen += len(new)
        live = [row for row in new if row.provenance == "live"]
        self.spent_usd += spent_usd(live)
        if self.spent_usd >= self.limit_usd:
            return f"the budget of {usd(self.limit_usd)} is spent ({usd(self.spent_usd)})"
        if unpriced := next((row.model for row in live if row.status == "ok" and row.cost_usd is None), None):
            return f"the cost of {unpriced} is not known, so the budget can't be kept; give Client(prices={{{unpriced!r}: tk.Price(...)}})"
        return None


class Decided:
    """Stops a run when every two models differ in a metric, by a test that allows a look after every prompt.

    A prompt counts when all its calls have ended, and those of the prompts that were to be asked before it: else the first looks would see
    the quickly answered ones alone. The values of its repeats are averaged, as in the verdict.
    """

    def __init__(self, plan: Plan, metric: str, alpha: float) -> None:
        self.metric, self.alpha = metric, alpha
        self._of_live_calls = of_live_calls(metric)
        self._labels = plan.labels
        self._number = {question.prompt_id: number for number, question in enumerate(plan.questions)}
        self._block = len(plan.variants) * plan.repeats
        self._missing = dict.fromkeys(self._number, self._block)
        self._seen = 0
        self._to_come = deque(plan.prompts_in_order())
        self._values: dict[str, list[float]] = {label: [] for label in self._labels}
        self._next_look = FIRST_LOOK

    def __call__(self, run: Run) -> str | None:
        self._read(run)
        n = len(self._values[self._labels[0]])
        if n < self._next_look:
            return None
        self._next_look = n + 1 + n // LOOKS_PER_DOUBLING
        if not self._decided():
            return None
        run.decided = True
        saved = len(run.plan) - len(run.done)
        return f"every difference in {self.metric} is decided after {n} of {len(self._number)} prompts (alpha {self.alpha:g}; {saved} calls saved)"

    def _read(self, run: Run) -> None:
        new = run.rows[self._seen :]
        self._seen += len(new)
        for row in new:
            if row.prompt_id is None:
                continue
            self._missing[row.prompt_id] -= 1
        while self._to_come and not self._missing[self._to_come[0]] and self._take(run, self._to_come[0]):
            self._to_come.popleft()

    def _take(self, run: Run, prompt_id: str) -> bool:
        """Take down a prompt's values; return whether they are all there (an answer may still wait for its scores)."""
        start = self._number[prompt_id] * self._block
        by_label: dict[str, list[float]] = {label: [] for label in self._labels}
        for index in range(start, start + self._block):
            row = run.done[index]
            if row.status != "ok" or (self._of_live_calls and row.provenance != "live"):
                continue
            if self.metric in run.scorers and index not in run.scores:
                return False
            value = run.scores[index].get(self.metric, math.nan) if self.metric in run.scorers else number_of(row, self.metric)
            if not math.isnan(value):
                by_label[row.label].append(value)
        for label, values in by_label.items():
            self._values[label].append(sum(values) / len(values) if values else math.nan)
        return True

    def _decided(self) -> bool:
        p_values = [self._p(a, b) for a, b in combinations(self._labels, 2)]
        return bool((stats.adjust(p_values, method="holm") < self.alpha).all())

    def _p(self, a: str, b: str) -> float:
        differences = (first - second for first, second in zip(self._values[a], self._values[b]))
        return stats.sequential_p([difference for difference in differences if not math.isnan(difference)])


def spent_usd(rows: Iterable[CallRecord]) -> float:
    """What calls cost that were made now, as far as it is known: a failed one may have cost something nobody tells."""
    return sum(row.cost_usd or 0.0 for row in rows if row.provenance == "live")


def of_live_calls(metric: str) -> bool:
    """Whether only a call made now has this metric: a replay took no time of the model's."""
    return metric.endswith(OF_LIVE_CALLS)


def number_of(row: CallRecord, metric: str) -> float:
    value = getattr(row, metric)
    return math.nan if value is None else float(value)


def read_budget(budget_usd: float | None) -> list[Budget]:
    """Return the rule of a budget, if there is one.

    Raises
    ------
    ConfigError
        If it is no positive number.
    """
    if budget_usd is None:
        return []
    if isinstance(budget_usd, bool) or not isinstance(budget_usd, int | float) or not 0 < budget_usd < math.inf:
        raise ConfigError(f"budget_usd={budget_usd!r}: give the dollars that may be spent, more than 0; None for no limit")
    return [Budget(float(budget_usd))]


def read_until(until: str | None, metric: str | None, alpha: float, plan: Plan, scorers: Sequence[str]) -> list[Decided]:
    """Return the rule that stops when decided, if it was asked for.

    Raises
    ------
    ConfigError
        For an unknown ``until`` or metric, a missing one, fewer than two models, an alpha outside 0 to 1.
    """
    if until is None:
        if metric is not None:
            raise ConfigError(
                f"metric={metric!r} is what until='decided' decides; add until='decided', or ask .verdict({metric!r}) afterwards"
            )
        return []
    if until != "decided":
        raise ConfigError(f"until={until!r}: it is 'decided' or None")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha={alpha!r} is not between 0 and 1")
    if len(plan.variants) < 2:
        raise ConfigError("until='decided' compares models; give at least two")
    chosen = metric or (scorers[0] if len(scorers) == 1 else None)
    known = [*METRICS, *scorers]
    if chosen is None:
        raise ConfigError(f"until='decided' needs metric=; this comparison has {', '.join(known)}")
    if chosen not in known:
        raise ConfigError(f"unknown metric {chosen!r}; this comparison has {', '.join(known)}")
    return [Decided(plan, chosen, alpha)]
