"""A paired test that may be looked at after every item: its error does not grow with the number of looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .checks import check_open_unit, numbers
from .paired import PairedTest, hodges_lehmann

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["sequential_p", "sequential_test"]

_STAKES = tuple(2.0**power for power in range(-5, 3))
"""Staked on a difference of typical size: from a thirty-second to four. All are played, each with an equal share of the fortune."""

_HALVINGS = 50
"""Steps of the search for an end of the interval: the 10^15th part of where it began."""


def sequential_test(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedTest:
    """Test whether ``a`` and ``b`` differ, item by item; valid whenever it is looked at, and however often.

    Parameters
    ----------
    a, b : array of float
        The two values of each item, in the order in which the items came.
    confidence : float
        Of the interval of the effect.

    Returns
    -------
    PairedTest
        ``p`` never rises as items come in; ``low`` and ``high`` bound the effect at all looks together; both are wider than those of a
        test that is made once. ``kind`` is ``"sequential"``, ``statistic`` the largest fortune so far.

    Raises
    ------
    ConfigError
        If the lengths differ, a value is NaN, or ``confidence`` lies outside 0 to 1.

    Notes
    -----
    The hypothesis is that the two are interchangeable: a difference is ``+d`` as often as ``-d``. Then it is a fair bet to multiply the
    stake ``s`` by ``exp(s x) / cosh(s x)``, ``x`` being the difference over the root mean square of those so far: the mean of the two signs
    is 1. By Ville's inequality (1939) a fortune ever grows ``1 / alpha`` fold with a probability of at most ``alpha``, so one over the
    largest fortune is a p-value at any time. The interval holds the shifts that are not refuted so. For such bets see Ramdas, Ruf, Larsson
    and Koolen, "Testing exchangeability: fork-convexity, supermartingales and e-processes" (2022), and de la Peña, Annals of Probability
    27 (1999).

    Examples
    --------
    >>> test = sequential_test([3.1, 2.9, 3.4, 3.0, 3.3, 2.8, 3.2, 3.1, 3.5, 3.0], [1.0] * 10)
    >>> test.kind, round(test.effect, 1), test.p < 0.05
    ('sequential', 2.1, True)
    """
    first, second = numbers(a, "a"), numbers(b, "b")
    check_open_unit(confidence, "confidence")
    if first.size != second.size:
        raise ConfigError(f"a paired test needs both values of every item: a has {first.size}, b has {second.size}")
    n = int(first.size)
    if n == 0:
        return PairedTest(
            effect=math.nan, low=math.nan, high=math.nan, p=math.nan, n=0, kind="sequential", statistic=math.nan, note="no items"
        )
    differences = first - second
    effect, best = hodges_lehmann(differences), _log_fortune(differences)
    low, high = _interval(differences, effect, math.log(1 / (1 - confidence)))
    note = f"interval not estimable at n={n}" if math.isnan(low + high) else ""
    return PairedTest(
        effect=effect,
        low=low,
        high=high,
        p=min(1.0, math.exp(-best)),
        n=n,
        kind="sequential",
        statistic=math.exp(min(best, 700.0)),
        note=note,
    )


def sequential_p(differences: ArrayLike) -> float:
    """Return the p-value of ``sequential_test`` for these differences, in the order in which they came; 1 where there are none.

    Raises
    ------
    ConfigError
        If a value is NaN.

    Examples
    --------
    >>> sequential_p([2.1, 1.9, 2.4, 2.0, 2.3, 1.8, 2.2, 2.1, 2.5, 2.0]) < 0.05
    True
    """
    values = numbers(differences, "differences")
    return min(1.0, math.exp(-_log_fortune(values))) if values.size else 1.0


def _log_fortune(differences: Floats) -> float:
    """Return the logarithm of the largest fortune on the way, betting on either sign."""
    import numpy as np

    size = np.sqrt(np.cumsum(differences**2) / np.arange(1, differences.size + 1))
    x = np.divide(differences, size, out=np.zeros_like(differences), where=size > 0)
    stakes = np.array([*_STAKES, *(-stake for stake in _STAKES)])
    # exp(z) / cosh(z) = 2 / (1 + exp(-2 z))
    fortunes = np.cumsum(math.log(2) - np.logaddexp(0, -2 * np.outer(x, stakes)), axis=0)
    together = np.logaddexp.reduce(fortunes, axis=1) - math.log(stakes.size)
    return float(together.max())


def _interval(differences: Floats, effect: float, limit: float) -> tuple[float, float]:
    """Return the ends of the shifts that are not refuted; NaN where there are too few items to refute any."""

    def refuted(shift: float) -> bool:
        return _log_fortune(differences - shift) >= limit

    if refuted(effect):  # too skewed for any middle
        return effect, effect
    spread = float(differences.max() - differences.min()) or abs(effect) or 1.0
    return _end(refuted, effect, -spread), _end(refuted, effect, spread)


def _end(refuted: Callable[[float], bool], inside: float, step: float) -> float:
    """Walk until a shift is refuted and halve what lies between; beyond 1,000 times the spread there is no end."""
    outside = inside + step
    while not refuted(outside):
        if abs(outside - inside) > 1000 * abs(step):
            return math.nan
        outside = inside + 2 * (outside - inside)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
