"""A comparison set up, before the first call: what ``compare`` and its awaitable twin have in common."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..client import AsyncClient, Client
from ..errors import ConfigError, ToolkitError
from ..monitor.events import RunRecord
from ..monitor.journal import Journal
from ..monitor.outcomes import process_name
from ..types import CacheMode
from .grid import Model, Plan, build_plan
from .judge import Judge, read_judge
from .pictures import Kind, check_pictures, draws, wanted_options
from .progress import Progress
from .resuming import FormerRun, find_stopped_run, mark_under_way
from .resuming import resume as resume_from
from .run import Rule, Run
from .scorers import Scorer, read_scorers
from .stopping import Decided, ErrorRate, read_budget, read_until, spent_usd
from .warming import warm_up_cells
from .workers import FanOut, find_fan_out

if TYPE_CHECKING:
    from .comparison import Comparison

__all__ = ["Begun", "Scorers", "begin", "unjudged_at_worst"]

Scorers = Sequence[str | Scorer] | Mapping[str, Scorer]

_log = logging.getLogger(__name__)

AskerT = TypeVar("AskerT", Client, AsyncClient)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(Generic[AskerT]):
    """A comparison that is set up: what ``compare`` carries out with threads and ``acompare`` on a loop."""

    asker: AskerT
    state: Run
    name: str | None
    fan_out: FanOut | None
    judge: Judge | None
    concurrency: int
    budget_usd: float | None
    cache: CacheMode
    stream: bool
    progress: Progress

    @property
    def how(self) -> dict[str, Any]:  # each argument has its own type
        return {"concurrency": self.concurrency, "cache": self.cache, "stream": self.stream}

    @property
    def may_judge(self) -> bool:
        """Whether a judge is asked: not after an interrupt, nor when the money is spent."""
        return self.state.decided or not self.state.stopped

    @property
    def judging(self) -> dict[str, Any]:  # each argument has its own type
        """How a judge is asked, with what the answers left of a budget; that may be nothing, which the judge's own first look tells."""
        left = None if self.budget_usd is None else max(self.budget_usd - spent_usd(self.state.rows), math.ulp(0.0))
        return {"concurrency": self.concurrency, "budget_usd": left, "cache": self.cache, "progress": self.progress}

    def end(self) -> Comparison:
        from .comparison import Comparison  # pandas comes with it

        if self.asker.journal is not None:
            self.asker.journal.flush()
        return Comparison(self.state, name=self.name, journal=self.asker.journal, client=self.asker)


def begin(
    asker: AskerT,
    models: Sequence[str | Model],
    prompts: Any,  # see read_prompts
    *,
    template: str | None,
    repeats: int,
    name: str | None,
    scorers: Scorers,
    judge: str | Model | Judge | None,
    concurrency: int,
    budget_usd: float | None,
    until: str | None,
    metric: str | None,
    alpha: float,
    cache: CacheMode,
    stream: bool,
    order_seed: int | None,
    warmup: int,
    max_error_rate: float | None,
    resume: bool,
    n_jobs: int | None,
    progress: Progress,
    kind: Kind,
    **options: Any,  # those of a call: see wanted_options
) -> Begun[AskerT]:
    """Check what a comparison is asked to do and set it up; what a stopped run had finished is in it.

    Raises
    ------
    ConfigError
        For a wrong argument; nothing has been asked then.
    """
    plan = build_plan(
        models, prompts, repeats=repeats, options=wanted_options(kind, options), template=template, order_seed=order_seed
    )  # fmt: skip
    read = None if judge is None else read_judge(judge, plan.labels, scorers=read_scorers(scorers))
    fan_out = find_fan_out(n_jobs)
    check_pictures(plan, scorers=scorers, fan_out=fan_out)
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency={concurrency!r}: at least one call at a time")
    former = stopped_run(resume, cache, plan, name, asker.journal)
    if former is not None and order_seed is None:
        plan = replace(plan, order_seed=former.order_seed)
    rules = stopping_rules(plan, scorers, max_error_rate, budget_usd, until, metric, alpha)
    import_module(f"{__package__}.comparison")  # pandas takes half a second to load: not after an interrupt
    state = Run(
        plan=plan,
        run_id=uuid.uuid4().hex[:16] if former is None else former.run_id,
        scorers=read_scorers(scorers),
        rules=rules,
        warmup=warm_up_cells(plan, warmup),
        operation="image" if draws(plan) else "text",
        until_metric=next((rule.metric for rule in rules if isinstance(rule, Decided)), None),
    )
    mark_under_way(state)
    if former is not None:
        resume_from(state, former)
    elif asker.journal is not None:
        row = RunRecord(run_id=state.run_id, at=time.time(), process=process_name(), name=name or "", plan=plan.describe())
        asker.journal.append(row)
    return Begun(
        asker=asker, state=state, name=name, fan_out=fan_out, judge=read, concurrency=concurrency, budget_usd=budget_usd, cache=cache,
        stream=stream, progress=progress,
    )  # fmt: skip


def stopping_rules(
    plan: Plan,
    scorers: Scorers,
    max_error_rate: float | None,
    budget_usd: float | None,
    until: str | None,
    metric: str | None,
    alpha: float,
) -> list[Rule]:
    failing: list[Rule] = [] if max_error_rate is None else [ErrorRate(max_error_rate)]
    return [*failing, *read_budget(budget_usd), *read_until(until, metric, alpha, plan, list(read_scorers(scorers)))]


def stopped_run(resume: bool, cache: CacheMode, plan: Plan, name: str | None, journal: Journal | None) -> FormerRun | None:
    """Return the run to go on with. With the cache none is needed: it has the answers."""
    return find_stopped_run(journal, plan, name or "") if resume and journal is not None and cache in (False, "refresh") else None


@contextlib.contextmanager
def unjudged_at_worst() -> Iterator[None]:
    """Let no trouble with the judge cost the answers, which are there and paid for."""
    try:
        yield
    except ToolkitError as exc:
        _log.warning("the answers were not judged (%s); all else is there, and result.judge(model) tries again", exc)
