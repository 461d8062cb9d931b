"""Percentiles, intervals, tests and agreement: arrays in, numbers out. Every docstring names the source of its formula.

Missing values are refused with a ``ConfigError``, never skipped: whoever calls knows why they are missing. What a sample is too
small to tell is NaN, with the reason in ``note``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

from toolkit.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Abilities",
    "Interval",
    "PairedTest",
    "adjust",
    "backfill_omitted",
    "bradley_terry",
    "cohen_kappa",
    "fleiss_kappa",
    "krippendorff_alpha",
    "mean_interval",
    "needed_n",
    "paired_test",
    "pass_at_k",
    "percentile",
    "percentile_interval",
    "percentile_min_n",
    "percentile_ranks",
    "wilson_interval",
]

NAN = float("nan")
_EXACT_SIGNED_RANKS = 50
"""Up to this many pairs the distribution of the signed ranks is counted out; beyond it a normal curve is as good."""
_ALL_PAIRS = 1_000
"""Up to this many values all means of two are made (half a million); beyond it they would not fit into memory for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; a side that ``n`` values can't bound is NaN, and ``note`` says so."""

    low: float
    high: float
    confidence: float
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Whether ``a`` and ``b`` differ on the same items.

    Attributes
    ----------
    effect : float
        How much larger ``a`` is: the mean difference, the difference of the shares (mcnemar), or the Hodges-Lehmann
        median of the differences (wilcoxon); in the units of the data.
    low, high : float
        Its confidence interval.
    p : float
        Two-sided p-value.
    n : int
        Pairs.
    kind : str
        The test that was made: ``mean``, ``mcnemar`` or ``wilcoxon``.
    statistic : float
        Student's t; McNemar's chi-square without correction; the sum of the positive ranks.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Bradley-Terry abilities on the log-odds scale, relative to the first player (0), with standard errors."""

    abilities: tuple[float, ...]
    standard_errors: tuple[float, ...]


@overload
def percentile(x: ArrayLike, q: float) -> float: ...
@overload
def percentile(x: ArrayLike, q: Sequence[float] | Floats) -> Floats: ...
def percentile(x: ArrayLike, q: float | Sequence[float] | Floats) -> float | Floats:
    """Return the percentile of a sample, interpolated between its order statistics; NaN where the sample is empty.

    Parameters
    ----------
    x : array of float
        The values, in any order.
    q : float or sequence of float
        Between 0 and 1: 0.95 is the 95th percentile.

    Raises
    ------
    ConfigError
        If ``x`` holds NaN, or ``q`` lies outside 0 to 1.

    Notes
    -----
    Type 7 of Hyndman and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996): the default
    of NumPy, pandas, R and of spreadsheets.

    Examples
    --------
    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    >>> percentile(range(101), [0.5, 0.95]).tolist()
    [50.0, 95.0]
    """
    import numpy as np

    values = _numbers(x, "x")
    wanted = np.asarray(q, dtype=float)
    for level in wanted.flat:
        _check_level(float(level))
    if not values.size:
        return np.full(np.shape(wanted), NAN) if np.ndim(q) else NAN
    found = np.quantile(values, wanted, method="linear")
    return found if np.ndim(q) else float(found)


def percentile_min_n(q: float) -> int:
    """Return how many values a percentile needs at least: one is expected beyond it, on the side where fewer lie.

    Raises
    ------
    ConfigError
        If ``q`` lies outside 0 to 1.

    Examples
    --------
    >>> [percentile_min_n(q) for q in (0.5, 0.95, 0.99)]
    [2, 20, 100]
    """
    _check_level(q)
    beyond = min(q, 1 - q)
    return math.ceil(round(1 / beyond, 6)) if beyond > 0 else 1


def _check_level(q: float) -> None:
    if not 0 <= q <= 1:
        raise ConfigError(f"q lies between 0 and 1 (0.95 for the 95th percentile), got {q}")


def percentile_interval(x: ArrayLike, q: float, confidence: float = 0.95) -> Interval:
    """Return a confidence interval of a percentile that assumes nothing about the distribution.

    The ends are two of the values themselves: of all pairs of order statistics that hold the percentile with at least the
    wanted confidence (exact binomial), the pair with the fewest values between. Where no value is large enough to bound the
    percentile from above, ``high`` is NaN, ``low`` is a one-sided bound, and ``note`` says so (likewise below).

    Parameters
    ----------
    x : array of float
        The values, in any order.
    q : float
        Between 0 and 1, both excluded.
    confidence : float
        Between 0 and 1.

    Raises
    ------
    ConfigError
        If ``x`` holds NaN, or ``q`` or ``confidence`` is out of range.

    Notes
    -----
    David and Nagaraja, "Order Statistics", 3rd ed. (2003), section 7.1.

    Examples
    --------
    >>> interval = percentile_interval(range(1, 21), 0.5)
    >>> interval.low, interval.high
    (6.0, 15.0)
    >>> percentile_interval(range(12), 0.95).note
    'upper bound not estimable at n=12'
    """
    import numpy as np

    values = np.sort(_numbers(x, "x"))
    _check_open_unit(q, "q")
    _check_open_unit(confidence, "confidence")
    n = int(values.size)
    low_rank, high_rank = percentile_ranks(n, q, confidence)
    return Interval(
        low=float(values[low_rank - 1]) if low_rank else NAN,
        high=float(values[high_rank - 1]) if high_rank else NAN,
        confidence=confidence,
        n=n,
        note=_unbounded(low_rank, high_rank, n),
    )


def percentile_ranks(n: int, q: float, confidence: float = 0.95) -> tuple[int, int]:
    """Return the ranks (from 1, the smallest value) that bound a percentile of ``n`` values; 0 for a side that can't be bounded.

    They are those of ``percentile_interval``, for values that are known only by how many lie in each bucket of a histogram.

    Raises
    ------
    ConfigError
        If ``q`` or ``confidence`` lies outside 0 to 1, both excluded.

    Examples
    --------
    >>> percentile_ranks(20, 0.5)
    (6, 15)
    """
    _check_open_unit(q, "q")
    _check_open_unit(confidence, "confidence")
    return _order_statistics(n, q, confidence)


def _order_statistics(n: int, q: float, confidence: float) -> tuple[int, int]:
    import numpy as np
    from scipy import special

    if n == 0:
        return 0, 0
    # Ranks further out than this hold no probability worth counting, so a million values cost what a hundred do.
    reach = 10 * math.sqrt(n * q * (1 - q)) + 10
    ranks = np.arange(max(1, math.floor(n * q - reach)), min(n, math.ceil(n * q + reach)) + 1)
    below = special.bdtr(ranks - 1, n, q)  # the chance that the percentile lies below the value of this rank
    partner = np.searchsorted(below, below + confidence - 1e-12)
    first = np.flatnonzero(partner < ranks.size)
    if first.size:
        last = partner[first]
        best = np.lexsort((below[first] - below[last], last - first))[0]
        return int(ranks[first[best]]), int(ranks[last[best]])
    risk = 1 - confidence
    low_alone, high_alone = q**n > risk, (1 - q) ** n > risk
    if low_alone and not high_alone:
        return int(ranks[below <= risk][-1]), 0
    if high_alone and not low_alone:
        return 0, int(ranks[below >= confidence][0])
    return 0, 0


def _unbounded(low_rank: int, high_rank: int, n: int) -> str:
    if low_rank and high_rank:
        return ""
    side = "" if not (low_rank or high_rank) else "upper bound " if low_rank else "lower bound "
    return f"{side}not estimable at n={n}"


def mean_interval(x: ArrayLike, confidence: float = 0.95, clusters: ArrayLike | None = None) -> Interval:
    """Return the confidence interval of a mean.

    Parameters
    ----------
    x : array of float
        The values.
    confidence : float
        Between 0 and 1.
    clusters : array, optional
        Which values belong together, such as the prompt of each repeat: answers to one prompt resemble each other, and
        counting them as independent makes an interval too narrow.

    Raises
    ------
    ConfigError
        If ``x`` holds NaN, or ``clusters`` is not as long as ``x``.

    Notes
    -----
    Student's t. With clusters, the cluster-robust variance of Liang and Zeger, Biometrika 73 (1986), with the correction
    G / (G - 1) and t with G - 1 degrees of freedom (Cameron and Miller, Journal of Human Resources 50, 2015).

    Examples
    --------
    >>> interval = mean_interval([4.0, 5.0, 6.0])
    >>> round(interval.low, 3), round(interval.high, 3)
    (2.516, 7.484)
    """
    import numpy as np

    values = _numbers(x, "x")
    _check_open_unit(confidence, "confidence")
    n = int(values.size)
    groups = np.arange(n) if clusters is None else np.unique(np.asarray(clusters).astype(str), return_inverse=True)[1]
    if groups.size != n:
        raise ConfigError(f"clusters names the group of each value: {n} values, {groups.size} groups named")
    g = int(groups.max()) + 1 if n else 0
    if g < 2:
        what = f"n={n}" if clusters is None else f"{g} cluster"
        return Interval(low=NAN, high=NAN, confidence=confidence, n=n, note=f"not estimable at {what}")
    mean = float(values.mean())
    sums = np.bincount(groups, weights=values - mean)
    half = _t_quantile(confidence, g - 1) * math.sqrt(g / (g - 1) * float(sums @ sums)) / n
    return Interval(low=mean - half, high=mean + half, confidence=confidence, n=n)


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the confidence interval of a share: ``k`` of ``n``.

    Raises
    ------
    ConfigError
        Unless ``0 <= k <= n``.

    Notes
    -----
    Wilson's score interval, JASA 22 (1927), without continuity correction: method 3 of Newcombe, Statistics in Medicine 17
    (1998) 857-872.

    Examples
    --------
    >>> interval = wilson_interval(81, 263)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2553, 0.3662)
    """
    _check_open_unit(confidence, "confidence")
    if not 0 <= k <= n:
        raise ConfigError(f"k counts successes among n trials: 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return Interval(low=NAN, high=NAN, confidence=confidence, n=0, note="not estimable at n=0")
    z = _z_quantile(confidence)
    share = k / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if k == 0 else (middle - half) / scale
    high = 1.0 if k == n else (middle + half) / scale
    return Interval(low=low, high=high, confidence=confidence, n=int(n))


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

    first, second = _numbers(a, "a"), _numbers(b, "b")
    _check_open_unit(confidence, "confidence")
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
    return PairedTest(effect=NAN, low=NAN, high=NAN, p=NAN, n=n, kind=kind, statistic=NAN, note=f"not estimable at n={n}")


def _student(a: Floats, b: Floats, confidence: float) -> PairedTest:
    from scipy import special

    difference = a - b
    n, effect = int(difference.size), float(difference.mean())
    if float(difference.min()) == float(difference.max()):
        return _no_spread(effect, n)
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    t = effect / error
    half = _t_quantile(confidence, n - 1) * error
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
    half = _z_quantile(confidence) * math.sqrt((share_a + share_b - middle * middle) / (n + 2))
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
    effect, (low, high) = (below + above) / 2, bounds or (NAN, NAN)
    note = "" if rank else f"interval not estimable at n={n}"
    return PairedTest(
        effect=effect, low=low, high=high, p=_signed_rank_p(ranks, positive), n=n, kind="wilcoxon", statistic=positive, note=note
    )


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
    if n <= _EXACT_SIGNED_RANKS and (repeats == 1).all():
        return min(1.0, 2 * float(_signed_rank_cdf(n)[int(fewer)]))
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((repeats**3 - repeats).sum()) / 48
    return 2 * float(special.ndtr((fewer - n * (n + 1) / 4) / math.sqrt(variance)))


def _signed_rank_bound(n: int, tail: float) -> int:
    """Return which Walsh average bounds the median with this risk, counted from either end; 0 where none does."""
    import numpy as np

    if n > _EXACT_SIGNED_RANKS:
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(n * (n + 1) / 4 - _z_quantile(1 - 2 * tail) * spread)
    return int(np.searchsorted(_signed_rank_cdf(n), tail, side="right"))


@functools.cache
def _signed_rank_cdf(n: int) -> Floats:
    """Return the chance that the positive ranks of ``n`` differences sum to at most 0, 1, 2, ... when signs are even odds."""
    import numpy as np

    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return np.cumsum(ways) / 2.0**n


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

    p = _numbers(p_values, "p_values")
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


def needed_n(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return how many pairs a paired t test needs to see an effect.

    Parameters
    ----------
    effect : float
        Mean difference to be seen, in the units of the data.
    sd : float
        Standard deviation of the differences.
    power : float
        Chance of seeing it.
    alpha : float
        Two-sided risk of seeing what is not there.

    Raises
    ------
    ConfigError
        If the effect is 0 (no sample shows that), ``sd`` is negative, or a chance is not between 0 and 1.

    Notes
    -----
    Power of the noncentral t: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed. (1988), section 2.

    Examples
    --------
    >>> needed_n(0.5, sd=1.0)
    34
    """
    from scipy import special

    _check_open_unit(power, "power")
    _check_open_unit(alpha, "alpha")
    if not (math.isfinite(effect) and effect) or not (math.isfinite(sd) and sd >= 0):
        raise ConfigError(f"needed_n wants an effect other than 0 and an sd of 0 or more, got effect={effect}, sd={sd}")
    size = abs(effect) / sd if sd else math.inf
    n = max(2, math.floor(((_z_quantile(1 - alpha) + float(special.ndtri(power))) / size) ** 2))
    if n > 10_000:  # t and normal agree to the last pair or two, and the noncentral t loses its digits
        return n + 1
    while _power(n, size, alpha) < power:
        n += 1
    return n


def _power(n: int, size: float, alpha: float) -> float:
    from scipy import special

    if math.isinf(size):
        return 1.0
    limit, shift = _t_quantile(1 - alpha, n - 1), size * math.sqrt(n)
    return float(1 - special.nctdtr(n - 1, shift, limit) + special.nctdtr(n - 1, shift, -limit))


def bradley_terry(wins: ArrayLike) -> Abilities:
    """Fit abilities to pairwise wins: the odds of i beating j are ``exp(ability_i - ability_j)``.

    Parameters
    ----------
    wins : square array of float
        ``wins[i][j]`` is how often i beat j; a tie is half a win for each. The diagonal is not looked at.

    Raises
    ------
    ConfigError
        If the table is not square, holds NaN or negative counts, or falls into groups where one never lost to the other: then
        no finite abilities fit best.

    Notes
    -----
    Bradley and Terry, Biometrika 39 (1952); Newton's method on the likelihood; existence after Ford, American Mathematical
    Monthly 64 (1957).

    Examples
    --------
    >>> fit = bradley_terry([[0, 3], [1, 0]])
    >>> [round(ability, 4) for ability in fit.abilities]
    [0.0, -1.0986]
    """
    import numpy as np

    won = _table(wins, "wins")
    players = len(won)
    if won.shape != (players, players) or players < 2:
        raise ConfigError(f"wins is a square table of two players or more, got shape {won.shape}")
    np.fill_diagonal(won, 0)
    _check_connected(won)
    games = won + won.T
    ability = np.zeros(players)
    while True:
        chance = 1 / (1 + np.exp(ability[None, :] - ability[:, None]))
        slope = (won - games * chance).sum(axis=1)[1:]
        weight = games * chance * (1 - chance)
        information = (np.diag(weight.sum(axis=1)) - weight)[1:, 1:]
        step = np.linalg.solve(information, slope)
        step /= max(1.0, float(np.abs(step).max()))  # one unit of log-odds at a time: Newton alone can overshoot
        ability[1:] += step
        if float(np.abs(step).max()) < 1e-10:
            break
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return Abilities(abilities=tuple(ability.tolist()), standard_errors=(0.0, *errors.tolist()))


def _check_connected(won: Floats) -> None:
    from scipy.sparse import csgraph

    groups, member = csgraph.connected_components(won > 0, directed=True, connection="strong")
    if groups > 1:
        apart = [index for index, group in enumerate(member) if group != member[0]]
        raise ConfigError(
            f"no finite abilities fit: players {apart} never won against, or never lost to, the rest; add comparisons or half a tie"
        )


def fleiss_kappa(table: ArrayLike) -> float:
    """Return the agreement of several raters beyond chance.

    Parameters
    ----------
    table : array of int, items by categories
        How many raters put each item into each category; the same number of raters for every item.

    Raises
    ------
    ConfigError
        If the rows do not have the same sum of at least 2.

    Notes
    -----
    Fleiss, Psychological Bulletin 76 (1971). NaN where every rating is the same category: there is no chance to beat.

    Examples
    --------
    >>> fleiss_kappa([[3, 0], [0, 3]])
    1.0
    """
    counts = _table(table, "table")
    raters = counts.sum(axis=1)
    if not counts.size or raters[0] < 2 or (raters != raters[0]).any():
        raise ConfigError("fleiss_kappa needs the same number of ratings, two or more, for every item")
    n = float(raters[0])
    observed = float(((counts**2).sum(axis=1) - n).mean() / (n * (n - 1)))
    share = counts.sum(axis=0) / counts.sum()
    return _beyond_chance(observed, float((share**2).sum()))


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Return the agreement of two raters beyond chance; labels of any kind.

    Raises
    ------
    ConfigError
        If there are no ratings, or one rater rated more items than the other.

    Notes
    -----
    Cohen, Educational and Psychological Measurement 20 (1960). NaN where both gave one and the same label throughout.

    Examples
    --------
    >>> cohen_kappa(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"])
    0.5
    """
    import numpy as np

    first, second = np.asarray(a).astype(str), np.asarray(b).astype(str)
    if first.size != second.size or not first.size:
        raise ConfigError(f"both raters must rate every item: a has {first.size} ratings, b has {second.size}")
    labels = np.union1d(first, second)
    expected = sum(float((first == label).mean() * (second == label).mean()) for label in labels)
    return _beyond_chance(float((first == second).mean()), expected)


def _beyond_chance(observed: float, expected: float) -> float:
    return NAN if expected >= 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(ratings: ArrayLike, level: Literal["nominal", "ordinal", "interval"] = "nominal") -> float:
    """Return the agreement of any number of raters beyond chance, some ratings missing.

    Parameters
    ----------
    ratings : array of float, raters by items
        NaN where a rater did not rate.
    level : str
        What a difference between ratings means: ``nominal`` (just different), ``ordinal`` (by rank), ``interval`` (by value).

    Raises
    ------
    ConfigError
        If no item has two ratings, or the level is unknown.

    Notes
    -----
    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). NaN where every rating is the same.

    Examples
    --------
    >>> krippendorff_alpha([[1, 2, 2], [1, 2, 2]])
    1.0
    """
    import numpy as np

    values = np.atleast_2d(np.asarray(ratings, dtype=float))
    categories = np.unique(values[~np.isnan(values)])
    counts = (values[None, :, :] == categories[:, None, None]).sum(axis=1).astype(float)  # categories by items
    rated = counts.sum(axis=0)
    counts, rated = counts[:, rated >= 2], rated[rated >= 2]
    if not rated.size:
        raise ConfigError("krippendorff_alpha needs at least one item with two ratings")
    coincidences = (counts / (rated - 1)) @ counts.T - np.diag((counts / (rated - 1)).sum(axis=1))
    totals = coincidences.sum(axis=1)
    distance = _distances(categories, totals, level)
    expected = float((np.outer(totals, totals) * distance).sum()) / (totals.sum() - 1)
    return float(1 - (coincidences * distance).sum() / expected) if expected else NAN


def _distances(categories: Floats, totals: Floats, level: str) -> Floats:
    import numpy as np

    if level == "nominal":
        return 1.0 - np.eye(categories.size)
    if level not in ("ordinal", "interval"):
        raise ConfigError(f"unknown level {level!r}; known: nominal, ordinal, interval")
    position = categories if level == "interval" else np.cumsum(totals) - totals / 2
    return np.subtract.outer(position, position) ** 2


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that at least one of ``k`` samples passes, when ``c`` of ``n`` did.

    Raises
    ------
    ConfigError
        Unless ``0 <= c <= n`` and ``1 <= k <= n``.

    Notes
    -----
    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code" (2021), section 2.1.

    Examples
    --------
    >>> round(pass_at_k(n=10, c=3, k=1), 12)
    0.3
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ConfigError(f"pass_at_k wants 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))


def backfill_omitted(latencies_s: ArrayLike, expected_interval_s: float) -> Floats:
    """Add the requests that a stall kept from being sent: those that would have waited for its end.

    A load generator that waits for each answer before it asks again sends nothing during a stall, so a stall of 100 s counts
    once however many users would have met it. Each latency longer than the interval therefore also stands for the requests
    due while it lasted, each one interval shorter than the one before.

    Parameters
    ----------
    latencies_s : array of float
        Seconds.
    expected_interval_s : float
        Seconds between requests, had nothing stalled.

    Raises
    ------
    ConfigError
        If a latency is NaN or the interval is not positive.

    Notes
    -----
    Coordinated omission after Tene, "How NOT to Measure Latency" (2013), as corrected in HdrHistogram.

    Examples
    --------
    >>> backfill_omitted([1.0, 4.0], expected_interval_s=1.0).tolist()
    [1.0, 4.0, 3.0, 2.0, 1.0]
    """
    import numpy as np

    latencies = _numbers(latencies_s, "latencies_s")
    if not expected_interval_s > 0:
        raise ConfigError(f"expected_interval_s is the time between requests and must be positive, got {expected_interval_s}")
    stalls = latencies[latencies > expected_interval_s]
    missed = [stall - expected_interval_s * np.arange(1, _whole(stall / expected_interval_s)) for stall in stalls]
    return np.concatenate([latencies, *missed])


def _whole(intervals: float) -> int:
    """Return the whole intervals in a stall, 100 s / 0.01 s being 10,000 whatever its last bit says."""
    return math.floor(intervals + 1e-9 * intervals)


def _numbers(x: ArrayLike, name: str) -> Floats:
    import numpy as np

    try:
        values = np.array(x, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be numbers: {error}") from error
    _refuse_missing(values, name)
    return values


def _table(x: ArrayLike, name: str) -> Floats:
    import numpy as np

    values = np.atleast_2d(np.array(x, dtype=float))
    _refuse_missing(values, name)
    if (values < 0).any():
        raise ConfigError(f"{name} holds counts, and counts are not negative")
    return values


def _refuse_missing(values: Floats, name: str) -> None:
    import numpy as np

    if missing := int(np.isnan(values).sum()):
        raise ConfigError(
            f"{name} holds {missing} missing values (NaN) of {values.size}: leave those out first, and say how many they were"
        )


def _check_open_unit(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} lies between 0 and 1, got {value}")


def _z_quantile(confidence: float) -> float:
    from scipy import special

    return float(special.ndtri(0.5 + confidence / 2))


def _t_quantile(confidence: float, df: int) -> float:
    from scipy import special

    return float(special.stdtrit(df, 0.5 + confidence / 2))
