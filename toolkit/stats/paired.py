"""Whether two differ on the same items, and what many such tests together may claim."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError
from .checks import check_open_unit, numbers, t_quantile, z_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["PairedTest", "adjust", "hodges_lehmann", "paired_test"]

_EXACT_SIGNED_RANKS = 50
"""Up to this many pairs the distribution of the signed ranks is counted out; beyond it a normal curve is as good."""
_ALL_PAIRS = 1_000
"""Up to this many values all means of two are made (half a million); beyond it they would not fit into memory for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Whether ``a`` and ``b`` differ on the same items.

    Attributes
    ----------
    effect : float
        How much larger ``a`` is: the mean difference (mean, sequential), the difference of the shares (mcnemar), or the
        Hodges-Lehmann median of the differences (wilcoxon); in the units of the data.
    low, high : float
        Its confidence interval.
    p : float
        Two-sided p-value.
    n : int
        Pairs.
    kind : str
        The test that was made: ``mean``, ``mcnemar``, ``wilcoxon`` or ``sequential``.
    statistic : float
        Student's t; McNemar's chi-square without correction; the sum of the positive ranks; the smaller of two fortunes.
    note : str
        What the sample is too small, or too even, to tell.
    """

    effect: float
    low: float
    high: float
    p: float
    n: int
    kind: str
    statistic: float
    note: str = ""


def paired_test(
    a: ArrayLike, b: ArrayLike, kind: Literal["auto", "mean", "mcnemar", "wilcoxon"] = "auto", confidence: float = 0.95
) -> PairedTest:
    """Test whether ``a`` and ``b`` differ, item by item.

    Parameters
    ----------
    a, b : array of float or bool
        The two values of each item, in the same order.
    kind : str
        ``mean`` (Student on the differences), ``mcnemar`` (right or wrong: zeros and ones), ``wilcoxon`` (signed ranks, for
        differences with a heavy tail), or ``auto``: mcnemar for zeros and ones, mean for everything else.
    confidence : float
        Of the interval of the effect.

    Raises
    ------
    ConfigError
        If the lengths differ, a value is NaN, or ``mcnemar`` is given anything but zeros and ones.

    Notes
    -----
    mcnemar: mid-p of Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013), with the interval of
    Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012). wilcoxon: pairs without a difference are
    left out of the p-value and stay in the estimate; Hodges-Lehmann estimate and Tukey's interval as in Hollander, Wolfe and
    Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014), section 3.

    Examples
    --------
    >>> test = paired_test([1, 1, 1, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1, 0, 0])
    >>> test.kind, test.effect, round(test.p, 3)
    ('mcnemar', 0.625, 0.031)
    """
    import numpy as np

    first, second = numbers(a, "a"), numbers(b, "b")
    check_open_unit(confidence, "confidence")
    if first.size != second.size:
        raise ConfigError(f"a paired test needs both values of every item: a has {first.size}, b has {second.size}")
    binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    chosen = ("mcnemar" if binary else "mean") if kind == "auto" else kind
    if chosen == "mcnemar" and not binary:
        raise ConfigError('kind="mcnemar" compares right with wrong: every value must be 0 or 1 (or False and True)')
    if chosen not in _PAIRED:
        raise ConfigError(f"unknown kind {kind!r}; known: auto, {', '.join(_PAIRED)}")
    if first.size < 2:
        return _undecided(chosen, int(first.size))
    return _PAIRED[chosen](first, second, confidence)


def _undecided(kind: str, n: int) -> PairedTest:
    return PairedTest(
        effect=math.nan, low=math.nan, high=math.nan, p=math.nan, n=n, kind=kind, statistic=math.nan, note=f"not estimable at n={n}"
    )


def _student(a: Floats, b: Floats, confidence: float) -> PairedTest:
    from scipy import special

    difference = a - b
    n, effect = int(difference.size), float(difference.mean())
    if float(difference.min()) == float(difference.max()):
        return _no_spread(effect, n)
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    t = effect / error
    half = t_quantile(confidence, n - 1) * error
    p = float(2 * special.stdtr(n - 1, -abs(t)))
    return PairedTest(effect=effect, low=effect - half, high=effect + half, p=p, n=n, kind="mean", statistic=t)


def _no_spread(effect: float, n: int) -> PairedTest:
    """Every pair differs by the same amount: t is 0/0 or infinite, and the sign test still has something to say."""
    p = 1.0 if effect == 0 else 2.0 ** (1 - n)
    note = "every pair differs by the same amount: p is the sign test's"
    t = 0.0 if effect == 0 else math.copysign(math.inf, effect)
    return PairedTest(effect=effect, low=effect, high=effect, p=p, n=n, kind="mean", statistic=t, note=note)


def _mcnemar(a: Floats, b: Floats, confidence: float) -> PairedTest:
    from scipy import special

    n = int(a.size)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    split, fewer = only_a + only_b, min(only_a, only_b)
    p = float(special.bdtr(fewer, split, 0.5) + (special.bdtr(fewer - 1, split, 0.5) if fewer else 0.0))
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    middle = share_a - share_b
    half = z_quantile(confidence) * math.sqrt((share_a + share_b - middle * middle) / (n + 2))
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    chi_square = (only_a - only_b) ** 2 / split if split else 0.0
    effect = (only_a - only_b) / n
    return PairedTest(effect=effect, low=low, high=high, p=min(1.0, p), n=n, kind="mcnemar", statistic=chi_square)


def _wilcoxon(a: Floats, b: Floats, confidence: float) -> PairedTest:
    import numpy as np
    from scipy import stats

    difference = np.sort(a - b)
    n, pairs = int(difference.size), int(difference.size) * (int(difference.size) + 1) // 2
    moved = difference[difference != 0]
    ranks = stats.rankdata(np.abs(moved))
    positive = float(ranks[moved > 0].sum())
    rank = _signed_rank_bound(n, (1 - confidence) / 2)
    ends = (rank, pairs + 1 - rank) if rank else ()
    below, above, *bounds = _walsh_averages(difference, ((pairs + 1) // 2, pairs // 2 + 1, *ends))
    effect, (low, high) = (below + above) / 2, bounds or (math.nan, math.nan)
    note = "" if rank else f"interval not estimable at n={n}"
    return PairedTest(
        effect=effect, low=low, high=high, p=_signed_rank_p(ranks, positive), n=n, kind="wilcoxon", statistic=positive, note=note
    )


def hodges_lehmann(differences: ArrayLike) -> float:
    """Return the median of all means of two values (each with itself too): where a symmetric distribution has its middle.

    Raises
    ------
    ConfigError
        If there is no value, or one is NaN.

    References
    ----------
    J. Hodges, E. Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34, 1963.

    Examples
    --------
    >>> hodges_lehmann([1.0, 2.0, 30.0])
    8.75
    """
    import numpy as np

    ordered = np.sort(numbers(differences, "differences"))
    pairs = int(ordered.size) * (int(ordered.size) + 1) // 2
    if not pairs:
        raise ConfigError("differences is empty; give at least one")
    below, above = _walsh_averages(ordered, ((pairs + 1) // 2, pairs // 2 + 1))
    return (below + above) / 2


_PAIRED = {"mean": _student, "mcnemar": _mcnemar, "wilcoxon": _wilcoxon}


def _walsh_averages(ordered: Floats, ranks: Sequence[int]) -> list[float]:
    """Return the means of two values (each with itself too) that have these ranks."""
    import numpy as np

    if ordered.size > _ALL_PAIRS:
        return [_bisect_walsh(ordered, rank) for rank in ranks]
    means = (ordered[:, None] + ordered)[np.triu_indices(ordered.size)] / 2
    places = [rank - 1 for rank in ranks]
    return [float(mean) for mean in np.partition(means, places)[places]]


def _bisect_walsh(ordered: Floats, rank: int) -> float:
    """Find one such mean by its value, counting those below with one search per value: right to the last bit or two."""
    import numpy as np

    place = np.arange(ordered.size)
    low, high = float(ordered[0]), float(ordered[-1])
    while (middle := low + (high - low) / 2) not in (low, high):
        reached = np.searchsorted(ordered, 2 * middle - ordered, side="right")
        if int(np.maximum(reached - place, 0).sum()) >= rank:
            high = middle
        else:
            low = middle
    return high if rank > 1 else float(ordered[0])


def _signed_rank_p(ranks: Floats, positive: float) -> float:
    import numpy as np
    from scipy import special

    n = int(ranks.size)
    fewer = min(positive, float(ranks.sum()) - positive)
    repeats = np.unique(ranks, return_counts=True)[1]
    if n <= _EXACT_SIGNED_RANKS:
        untied = (repeats == 1).all()
        return min(1.0, 2 * float(_signed_rank_cdf(n)[int(fewer)] if untied else _tied_rank_cdf(ranks)[round(2 * fewer)]))
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((repeats**3 - repeats).sum()) / 48
    return 2 * float(special.ndtr((fewer - n * (n + 1) / 4) / math.sqrt(variance)))


def _signed_rank_bound(n: int, tail: float) -> int:
    """Return which Walsh average bounds the median with this risk, counted from either end; 0 where none does."""
    import numpy as np

    if n > _EXACT_SIGNED_RANKS:
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(n * (n + 1) / 4 - z_quantile(1 - 2 * tail) * spread)
    return int(np.searchsorted(_signed_rank_cdf(n), tail, side="right"))


@functools.cache
def _signed_rank_cdf(n: int) -> Floats:
    """Return the chance that the positive ranks of ``n`` differences sum to at most 0, 1, 2, ... when signs are even odds."""
    import numpy as np

    return _sum_cdf(np.arange(1, n + 1))


def _tied_rank_cdf(ranks: Floats) -> Floats:
    """The same for ranks that are shared, by halves: a normal curve is far too sure of a few of them."""
    import numpy as np

    return _sum_cdf(np.rint(2 * ranks).astype(int))


def _sum_cdf(ranks: NDArray[np.int64]) -> Floats:
    import numpy as np

    ways = np.ones(1)
    for rank in ranks.tolist():
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return np.cumsum(ways) / 2.0**ranks.size


def adjust(p_values: ArrayLike, method: Literal["holm", "bh", "bonferroni"] = "holm") -> Floats:
    """Adjust p-values for having been looked at together; compare the result with alpha.

    Parameters
    ----------
    p_values : array of float
        Between 0 and 1, in any order; the result has the same order.
    method : str
        ``holm`` and ``bonferroni`` keep the chance of a single false alarm below alpha, ``bh`` the share of false alarms
        among the alarms.

    Raises
    ------
    ConfigError
        If a p-value is NaN or outside 0 to 1, or the method is unknown.

    Notes
    -----
    Holm, Scandinavian Journal of Statistics 6 (1979); Benjamini and Hochberg, JRSS B 57 (1995).

    Examples
    --------
    >>> adjust([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    import numpy as np

    p = numbers(p_values, "p_values")
    if not np.all((p >= 0) & (p <= 1)):
        raise ConfigError("p_values lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    rank = np.arange(1, p.size + 1)
    if method == "bonferroni":
        return np.minimum(p * p.size, 1.0)
    if method == "holm":
        stepped = np.maximum.accumulate(p[order] * (p.size + 1 - rank))
    elif method == "bh":
        stepped = np.minimum.accumulate((p[order] * p.size / rank)[::-1])[::-1]
    else:
        raise ConfigError(f"unknown method {method!r}; known: holm, bh, bonferroni")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
