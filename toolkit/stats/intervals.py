"""Percentiles and intervals of one sample."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from ..errors import ConfigError
from .checks import check_open_unit, numbers, t_quantile, z_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Interval",
    "ecdf_margin",
    "mean_interval",
    "percentile",
    "percentile_interval",
    "percentile_min_n",
    "percentile_ranks",
    "wilson_interval",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; a side that ``n`` values can't bound is NaN, and ``note`` says so."""

    low: float
    high: float
    confidence: float
    n: int
    note: str = ""


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

    values = numbers(x, "x")
    wanted = np.asarray(q, dtype=float)
    for level in wanted.flat:
        _check_level(float(level))
    if not values.size:
        return np.full(np.shape(wanted), math.nan) if np.ndim(q) else math.nan
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


def percentile_interval(x: ArrayLike, q: float, confidence: float = 0.95, clusters: ArrayLike | None = None) -> Interval:
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
    clusters : array, optional
        Which values belong together, such as the prompt of each repeat, as for ``mean_interval``; the interval is never narrower for it.

    Raises
    ------
    ConfigError
        If ``x`` holds NaN, ``q`` or ``confidence`` is out of range, or ``clusters`` is not as long as ``x``.

    Notes
    -----
    David and Nagaraja, "Order Statistics", 3rd ed. (2003), section 7.1. With clusters, the interval of the share of values up to the
    percentile, by ``mean_interval``, is turned into one of the percentile: Woodruff, JASA 47 (1952).

    Examples
    --------
    >>> interval = percentile_interval(range(1, 21), 0.5)
    >>> interval.low, interval.high
    (6.0, 15.0)
    >>> percentile_interval(range(12), 0.95).note
    'upper bound not estimable at n=12'
    """
    import numpy as np

    unsorted = numbers(x, "x")
    values, n = np.sort(unsorted), int(unsorted.size)
    low_rank, high_rank = alone = percentile_ranks(n, q, confidence)
    if clusters is not None and n:
        sums = _cluster_sums((unsorted <= percentile(unsorted, q)).astype(float), clusters)
        low_rank, high_rank = percentile_ranks(n, q, confidence, sums)
    what = f"n={n}"
    if clusters is not None and (bool(low_rank), bool(high_rank)) != (bool(alone[0]), bool(alone[1])):
        what += f" in {np.unique(np.asarray(clusters).astype(str)).size} clusters"
    return Interval(
        low=float(values[low_rank - 1]) if low_rank else math.nan,
        high=float(values[high_rank - 1]) if high_rank else math.nan,
        confidence=confidence,
        n=n,
        note=_unbounded(low_rank, high_rank, what),
    )


def _rank(place: float, n: int) -> int:
    """A place among ``n`` sorted values as a rank; 0 where it is outside of them."""
    return math.floor(place) if 1 <= place <= n else 0


def percentile_ranks(n: int, q: float, confidence: float = 0.95, cluster_sums: ArrayLike | None = None) -> tuple[int, int]:
    """Return the ranks (from 1, the smallest value) that bound a percentile of ``n`` values; 0 for a side that can't be bounded.

    They are those of ``percentile_interval``, for values that are known only by how many lie in each bucket of a histogram.

    Parameters
    ----------
    n : int
        How many values there are.
    q, confidence : float
        Between 0 and 1, both excluded.
    cluster_sums : array of float, optional
        Where values belong together, such as the repeats of a prompt: for each cluster, how many of its values are at most the percentile,
        less how many would be if each cluster had the same share of them.

    Raises
    ------
    ConfigError
        If ``q`` or ``confidence`` lies outside 0 to 1, both excluded.

    Examples
    --------
    >>> percentile_ranks(20, 0.5)
    (6, 15)
    """
    check_open_unit(q, "q")
    check_open_unit(confidence, "confidence")
    low_rank, high_rank = _order_statistics(n, q, confidence)
    if cluster_sums is None:
        return low_rank, high_rank
    reach = n * _cluster_half(numbers(cluster_sums, "cluster_sums"), n, confidence)
    if reach == math.inf:
        return 0, 0
    return _rank(min(low_rank, n * q - reach), n), _rank(max(high_rank, math.ceil(n * q + reach)), n) if high_rank else 0


@functools.lru_cache(maxsize=1024)
def _order_statistics(n: int, q: float, confidence: float) -> tuple[int, int]:
    """Return the ranks (from 1) that bound the percentile; 0 for a side that can't be bounded."""
    import numpy as np
    from scipy import special

    if n == 0:
        return 0, 0
    # The ends lie where a normal distribution has them, give or take far less than this: so few ranks are looked at, however many values there are.
    reach = (z_quantile(confidence) + 2) * math.sqrt(n * q * (1 - q)) + 10
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


def _unbounded(low_rank: int, high_rank: int, what: str) -> str:
    if low_rank and high_rank:
        return ""
    side = "" if not (low_rank or high_rank) else "upper bound " if low_rank else "lower bound "
    return f"{side}not estimable at {what}"


def ecdf_margin(n: int, confidence: float = 0.95) -> float:
    """Return how far the true distribution may lie above or below the shares seen in ``n`` values, anywhere along the curve at once.

    The empirical distribution function plus and minus this margin, cut at 0 and 1, is a confidence band of the whole curve. It assumes
    nothing but independent values.

    Raises
    ------
    ConfigError
        If ``n`` is less than 1 or ``confidence`` lies outside 0 to 1, both excluded.

    Notes
    -----
    The inequality of Dvoretzky, Kiefer and Wolfowitz, Annals of Mathematical Statistics 27 (1956) 642-669, with the constant that
    Massart proved the best, Annals of Probability 18 (1990) 1269-1283: ``sqrt(log(2 / (1 - confidence)) / (2 n))``. Valid for every
    ``n``, and a little wider than the exact band of Kolmogorov for a small one.

    Examples
    --------
    >>> round(ecdf_margin(100), 4)
    0.1358
    """
    check_open_unit(confidence, "confidence")
    if n < 1:
        raise ConfigError(f"n is a number of values, at least 1, got {n}")
    return math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))


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
    values = numbers(x, "x")
    check_open_unit(confidence, "confidence")
    n = int(values.size)
    sums = _cluster_sums(values, clusters)
    if sums.size < 2:
        what = f"n={n}" if clusters is None else f"{sums.size} cluster"
        return Interval(low=math.nan, high=math.nan, confidence=confidence, n=n, note=f"not estimable at {what}")
    mean, half = float(values.mean()), _cluster_half(sums, n, confidence)
    return Interval(low=mean - half, high=mean + half, confidence=confidence, n=n)


def _cluster_sums(values: Floats, clusters: ArrayLike | None) -> Floats:
    """Of each cluster, the sum of how far its values lie from the mean of all; without clusters each value is one."""
    import numpy as np

    off = values - values.mean() if values.size else values
    if clusters is None:
        return off
    groups = np.unique(np.asarray(clusters).astype(str), return_inverse=True)[1]
    if groups.size != values.size:
        raise ConfigError(f"clusters names the group of each value: {values.size} values, {groups.size} groups named")
    return np.bincount(groups, weights=off).astype(float)


def _cluster_half(sums: Floats, n: int, confidence: float) -> float:
    """Half the width of a mean's interval, by ``_cluster_sums``; infinite for less than two clusters."""
    g = sums.size
    return t_quantile(confidence, g - 1) * math.sqrt(g / (g - 1) * float(sums @ sums)) / n if g > 1 else math.inf


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
    check_open_unit(confidence, "confidence")
    if not 0 <= k <= n:
        raise ConfigError(f"k counts successes among n trials: 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return Interval(low=math.nan, high=math.nan, confidence=confidence, n=0, note="not estimable at n=0")
    z = z_quantile(confidence)
    share = k / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if k == 0 else (middle - half) / scale
    high = 1.0 if k == n else (middle + half) / scale
    return Interval(low=low, high=high, confidence=confidence, n=int(n))
