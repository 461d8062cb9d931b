"""The verdict: for each two models, which is better, by how much, how sure that is, and how many prompts would settle it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from .. import stats
from ..errors import ConfigError
from ..render import DASH, escape, html_page, html_table, seconds, usd
from .stopping import of_live_calls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Verdict", "verdict"]

COLUMNS = ["a", "b", "metric", "effect", "low", "high", "p", "p_adjusted", "n", "decided", "n_needed", "sentence"]
Kind = Literal["auto", "mean", "mcnemar", "wilcoxon", "sequential"]
Correction = Literal["holm", "bh", "bonferroni"]


class Verdict(pd.DataFrame):
    """A row a pair: a data frame that says its sentences before its numbers."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        sentences = [f"<div>{escape(line)}</div>" for line in self["sentence"]]
        table = self.drop(columns="sentence")
        rows = [[shown_cell(cell) for cell in row] for row in table.itertuples(index=False, name=None)]
        return html_page(*sentences, html_table(list(table.columns), rows))


def shown_cell(cell: Any) -> object:  # of a frame
    if pd.isna(cell):
        return DASH
    return f"{cell:.3g}" if isinstance(cell, float) else cell if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def verdict(
    frame: pd.DataFrame,
    labels: Sequence[str],
    metric: str,
    *,
    known: Sequence[str],
    correction: Correction,
    alpha: float,
    kind: Kind,
    order: Sequence[str],
) -> Verdict:
    """See ``Comparison.verdict``; ``known`` are the metrics there are, ``order`` that in which a sequential test takes the prompts."""
    if metric not in known:
        raise ConfigError(f"unknown metric {metric!r}; this comparison has {', '.join(known)}")
    if len(labels) < 2:
        raise ConfigError("a verdict needs at least two models; compare this one with another")
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha={alpha!r} is not between 0 and 1")
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown kind {kind!r}; known: {', '.join(get_args(Kind))}")
    by_prompt = prompt_means(frame, metric, order)
    pairs = list(combinations(labels, 2))
    strictest = alpha if correction == "bh" else alpha / len(pairs)
    tests = [pair(by_prompt, a, b, kind, alpha=alpha, strictest=strictest) for a, b in pairs]
    told = [test.p for test, *_ in tests if not math.isnan(test.p)]
    adjusted = iter(stats.adjust(told, method=correction)) if told else iter(())
    rows = []
    for (a, b), (test, needed, left_out) in zip(pairs, tests):
        p = math.nan if math.isnan(test.p) else float(next(adjusted))
        words = sentence(a, b, metric, test, decided=p < alpha, needed=needed, left_out=left_out, confidence=1 - alpha)
        rows.append([a, b, metric, test.effect, test.low, test.high, test.p, p, test.n, p < alpha, needed, words])
    return Verdict(pd.DataFrame(rows, columns=COLUMNS).astype({"n_needed": "Int64"}))


def prompt_means(frame: pd.DataFrame, metric: str, order: Sequence[str]) -> pd.DataFrame:
    """One value a prompt and model: repeats of a prompt are not independent, so their mean counts once. Prompts down, in this order."""
    good = frame[frame["status"] == "ok"]
    if of_live_calls(metric):
        good = good[good["provenance"] == "live"]
    means = good.groupby(["prompt_id", "label"])[metric].mean().astype("float64").unstack("label")
    there = set(means.index)
    return means.loc[[prompt for prompt in order if prompt in there]]


def pair(
    by_prompt: pd.DataFrame, a: str, b: str, kind: Kind, *, alpha: float, strictest: float
) -> tuple[stats.PairedTest, int | None, int]:
    """Test two models on the prompts that both have a value for; how many prompts would settle what was seen, and how many only one has.

    ``strictest`` is what ``alpha`` may come down to when several pairs are tested.
    """
    asked = by_prompt.reindex(columns=[a, b]).dropna(how="all")
    both = asked.dropna()
    first, second = both[a].to_numpy(), both[b].to_numpy()
    test = tested(first, second, kind, 1 - alpha)
    return test, needed(first - second, test, strictest), len(asked) - len(both)


def needed(differences: NDArray[np.float64], test: stats.PairedTest, alpha: float) -> int | None:
    """How many prompts would settle a difference like this one with 80 % power; ``None`` where there is none."""
    if differences.size < 2 or test.effect == 0:
        return None
    spread = float(differences.std(ddof=1))
    if test.kind == "sequential":
        return stats.sequential_needed_n(test.effect, spread, alpha=alpha)
    # However large the difference, each of so many prompts has to show it: the p-value of a sign test comes no lower.
    least = 2 if test.kind == "mean" and spread > 0 else math.floor(1 - math.log2(alpha)) + 1
    return max(least, stats.needed_n(test.effect, spread, alpha=alpha))


def tested(first: NDArray[np.float64], second: NDArray[np.float64], kind: Kind, confidence: float) -> stats.PairedTest:
    if kind == "sequential":
        return stats.sequential_test(first, second, confidence=confidence)
    return stats.paired_test(first, second, kind=kind, confidence=confidence)


def sentence(
    a: str,
    b: str,
    metric: str,
    test: stats.PairedTest,
    *,
    decided: bool,
    needed: int | None,
    confidence: float,
    left_out: int = 0,
) -> str:
    """The row in words."""
    n = f"n = {test.n} prompt{'s' * (test.n != 1)}"
    lacking = f"; {left_out} more {'has' if left_out == 1 else 'have'} a value for one of the two only" if left_out else ""
    if math.isnan(test.effect):
        return f"{a} and {b} can't be compared on {metric}: {n} with a value for both{lacking}"
    if not decided:
        settle = f"; about {needed:,} prompts would settle a difference like this one" if needed else ""
        return f"no difference in {metric} between {a} and {b} is decided at {n}{lacking}{settle}"
    if test.effect == 0:  # the middle of the differences: most of them are nothing
        return f"{a} and {b} differ in {metric} where they differ at all, which is on few of {n}{lacking}"
    show, verb = words_for(metric)
    more, less = (a, b) if test.effect > 0 else (b, a)
    return f"{more} {verb} than {less} by {show(abs(test.effect))} ({interval_words(test, show, confidence)}), {n}{lacking}"


def interval_words(test: stats.PairedTest, show: Callable[[float], str], confidence: float) -> str:
    """The interval of a difference's size; a side that so few prompts can't bound is left open."""
    low, high = (test.low, test.high) if test.effect > 0 else (-test.high, -test.low)
    if low == high:
        return "the same on every prompt"
    if math.isnan(low):
        return "no interval yet"
    reach = f"at least {show(low)}" if math.isnan(high) else f"{show(low)} to {show(high)}"
    return f"{confidence:.0%} interval {reach}"


def words_for(metric: str) -> tuple[Callable[[float], str], str]:
    """How to show a difference of a metric, and the verb for having more of it."""
    if metric.endswith("_per_s"):
        return lambda value: f"{value:,.3g}/s", "writes faster"
    if metric.endswith("_s"):
        return seconds, "takes longer"
    if metric.endswith("_usd"):
        return usd, "costs more"
    return lambda value: f"{value:.3g}", f"has more {metric}"
