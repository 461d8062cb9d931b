"""A paired test that may be looked at after every item: its error does not grow with the number of looks."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError
from .checks import check_open_unit, numbers, z_quantile
from .paired import PairedTest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["FIRST_LOOK", "sequential_needed_n", "sequential_p", "sequential_test"]

FIRST_LOOK = 10
"""Nothing is decided with fewer items: the spread of a handful of values is hardly known."""

_STAKES = tuple(2.0**power for power in range(-5, 3))
"""Staked on a difference of typical size: from a thirty-second to four. All are played, each with an equal share of the fortune."""

_EFFECTS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""How large a mean difference may be, in standard deviations: the spreads of the mixture, each with an equal share."""

_IMAGINED = 2
"""Two items are added in thought, one for each side, whose difference is the largest seen: no sample is taken for free of spread."""

_SKEW_FACTOR = 2.0
"""A sample shows less skewness than there is, since the far end of a long tail is rarely in it; chosen by simulation."""

_HALVINGS = 40
"""Steps of the search for a bound: the 10^12th part of where it began."""


def sequential_test(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedTest:
    """Test whether ``a`` and ``b`` differ on average, item by item; valid whenever it is looked at, and however often.

    Parameters
    ----------
    a, b : array of float
        The two values of each item, in the order in which the items came.
    confidence : float
        Of the interval of the effect.

    Returns
    -------
    PairedTest
        ``effect`` is the mean difference; ``p`` never rises as items come in, and ``low`` and ``high`` bound the mean at all looks
        together; both are wider than those of a test that is made once. ``kind`` is ``"sequential"``, ``statistic`` the smaller of the
        two fortunes. If the bounds of earlier and of later items exclude each other, the difference has changed on the way: ``p`` is 1
        then, the bounds are those of the last look, and ``note`` says so.

    Raises
    ------
    ConfigError
        If the lengths differ, a value is NaN, or ``confidence`` lies outside 0 to 1.

    Notes
    -----
    Two hypotheses have to fall, and ``p`` is the larger of their p-values.

    That the two are interchangeable, so that a difference is ``+d`` as often as ``-d``, is tested exactly: it is a fair bet then to multiply
    the stake ``s`` by ``exp(s x) / cosh(s x)``, ``x`` being the difference over the root mean square of those so far. By Ville's inequality
    (1939) a fortune ever grows ``1 / alpha`` fold with a probability of at most ``alpha``. For such bets see Ramdas, Ruf, Larsson and
    Koolen, "Testing exchangeability: fork-convexity, supermartingales and e-processes" (2022), and de la Peña, Annals of Probability 27
    (1999).

    That the means are equal, whatever the shapes, is tested by an asymptotic confidence sequence: Robbins' normal mixture as in
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 52 (2024), in the form for an unknown variance of Wang and Ramdas,
    "Anytime-valid t-tests and confidence sequences" (2023), from the tenth item on. For small samples two imagined items are added, as
    Bonett and Price do for shares (Journal of Educational and Behavioral Statistics 37, 2012), and the bound on the side away from a
    long tail is moved out by Hall's transformation (JRSS B 54, 1992) at twice the sample's skewness.

    No test of means holds for every distribution (Bahadur and Savage, Annals of Mathematical Statistics 27, 1956): what is rare
    and huge and did not occur yet can't be allowed for.

    Examples
    --------
    >>> test = sequential_test([3.1, 2.9, 3.4, 3.0, 3.3, 2.8, 3.2, 3.1, 3.5, 3.0], [1.0] * 10)
    >>> test.kind, round(test.effect, 2), test.p < 0.05
    ('sequential', 2.13, True)
    """
    import numpy as np

    first, second = numbers(a, "a"), numbers(b, "b")
    check_open_unit(confidence, "confidence")
    if first.size != second.size:
        raise ConfigError(f"a paired test needs both values of every item: a has {first.size}, b has {second.size}")
    n = int(first.size)
    if n == 0:
        return PairedTest(
            effect=math.nan, low=math.nan, high=math.nan, p=math.nan, n=0, kind="sequential", statistic=math.nan, note="no items"
        )
    right_or_wrong = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    differences = first - second
    looks = _looks(differences, least=1.0 if right_or_wrong else 0.0)
    fortune, note = min(_log_sign_fortune(differences), _log_mean_fortune(looks)), ""
    lows, highs = _bounds(looks, confidence)
    low, high = float(lows.max(initial=-math.inf)), float(highs.min(initial=math.inf))
    if low > high:
        low, high, fortune = float(lows[-1]), float(highs[-1]), 0.0
        note = "earlier and later items contradict each other: the difference changed on the way"
    elif math.isinf(low) or math.isinf(high):
        low, high, note = math.nan, math.nan, f"interval not estimable at n={n}"
    return PairedTest(
        effect=float(differences.mean()),
        low=low,
        high=high,
        p=min(1.0, math.exp(-fortune)),
        n=n,
        kind="sequential",
        statistic=math.exp(min(fortune, 700.0)),
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
    if values.size < FIRST_LOOK:
        return 1.0
    return min(1.0, math.exp(-min(_log_sign_fortune(values), _log_mean_fortune(_looks(values)))))


def sequential_needed_n(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return after how many pairs ``sequential_test`` will have seen an effect, about.

    Parameters
    ----------
    effect : float
        Mean difference to be seen, in the units of the data.
    sd : float
        Standard deviation of the differences.
    power : float
        Chance of having seen it by then.
    alpha : float
        Two-sided risk of seeing what is not there.

    Raises
    ------
    ConfigError
        If the effect is 0 (no sample shows that), ``sd`` is negative, or a chance is not between 0 and 1.

    Notes
    -----
    Where the bound of a normal sample is expected ``z(power)`` standard errors from the effect. It may be crossed earlier, so the true
    number is a little smaller for small effects.

    Examples
    --------
    >>> 34 < sequential_needed_n(0.5, sd=1.0) < 90
    True
    """
    import numpy as np
    from scipy import special

    check_open_unit(power, "power")
    check_open_unit(alpha, "alpha")
    if not (math.isfinite(effect) and effect) or not (math.isfinite(sd) and sd >= 0):
        raise ConfigError(f"sequential_needed_n wants an effect other than 0 and an sd of 0 or more, got effect={effect}, sd={sd}")
    few, many = FIRST_LOOK - 1, FIRST_LOOK
    reach = float(special.ndtri(power))

    def enough(n: int) -> bool:
        items = n + _IMAGINED
        largest = abs(effect) + sd * float(special.ndtri(1 - 0.5 / n))
        centre = n * abs(effect) / items
        spread = (n * (sd**2 + effect**2) + _IMAGINED * largest**2) / items - centre**2
        limit = float(_limits(np.array([float(items)]), 1 - alpha)[0])
        return centre >= (limit + reach) * math.sqrt(spread / (items - 1))

    while not enough(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


# --- that the two are interchangeable ------------------------------------------------------------------------------------------


def _log_sign_fortune(differences: Floats) -> float:
    """Return the logarithm of the largest fortune on the way, betting on either sign."""
    import numpy as np

    scaled = differences / (float(np.abs(differences).max()) or 1.0)
    size = np.sqrt(np.cumsum(scaled**2) / np.arange(1, scaled.size + 1))
    x = np.divide(scaled, size, out=np.zeros_like(scaled), where=size > 0)
    stakes = np.array([*_STAKES, *(-stake for stake in _STAKES)])
    # exp(z) / cosh(z) = 2 / (1 + exp(-2 z))
    fortunes = np.cumsum(math.log(2) - np.logaddexp(0, -2 * np.outer(x, stakes)), axis=0)
    together = np.logaddexp.reduce(fortunes, axis=1) - math.log(stakes.size)
    return float(together.max())


# --- that the means are equal ---------------------------------------------------------------------------------------------------


class _Looks(NamedTuple):
    """What each look from the first on sees: the items with the imagined ones, centre and standard error, and twice the skewness over the
    root of the items."""

    n: Floats
    centre: Floats
    error: Floats
    skew: Floats


def _looks(differences: Floats, *, least: float = 0.0) -> _Looks:
    """``least`` is the size that a difference can have in any case."""
    import numpy as np

    scale = max(float(np.abs(differences).max()), least) or 1.0
    middle = float((differences / scale).mean())
    y = differences / scale - middle  # moments about a value close by lose no digits
    n = np.arange(1, y.size + 1, dtype=float)
    off = np.cumsum(y) / n
    square = np.cumsum(y**2) / n
    variance = np.maximum(square - off**2, 0.0)
    third = np.cumsum(y**3) / n - 3 * off * square + 2 * off**3
    skewness = np.divide(third, variance**1.5, out=np.zeros_like(y), where=variance > 1e-12)
    mean = off + middle
    largest = np.maximum(np.maximum.accumulate(np.abs(differences)), least) / scale
    centre = n * mean / (n + _IMAGINED)
    spread = (n * (variance + mean**2) + _IMAGINED * largest**2) / (n + _IMAGINED) - centre**2
    error = np.sqrt(np.maximum(spread, 0.0) / (n + _IMAGINED - 1))
    skew = np.clip(_SKEW_FACTOR * skewness / np.sqrt(n), -_SKEW_FACTOR, _SKEW_FACTOR)
    skew *= np.sqrt(np.divide(variance, spread, out=np.zeros_like(y), where=spread > 0))  # by the spread without the imagined items
    seen = np.s_[FIRST_LOOK - 1 :]
    return _Looks(n[seen] + _IMAGINED, scale * centre[seen], scale * error[seen], skew[seen])


def _log_mean_fortune(looks: _Looks) -> float:
    """Return the logarithm of the largest fortune on the way, against a mean of 0."""
    import numpy as np

    t = np.divide(looks.centre, looks.error, out=np.zeros_like(looks.centre), where=looks.error > 0)
    size = np.clip(np.sign(t) * _hall(t, looks.skew), 0.0, np.abs(t))
    return float(_log_mixture(looks.n, size).max(initial=-math.inf))


def _log_mixture(n: Floats, t: Floats) -> Floats:
    """The logarithm of the fortune of a bettor on normal effects of several sizes, when Student's t is this."""
    import numpy as np

    shrunk = 1 / (1 + n[:, None] * np.array(_EFFECTS) ** 2)
    square = (t**2 / (n - 1))[:, None]
    fortunes = 0.5 * np.log(shrunk) + n[:, None] / 2 * (np.log1p(square) - np.log1p(shrunk * square))
    return np.asarray(np.logaddexp.reduce(fortunes, axis=1) - math.log(len(_EFFECTS)))


def _hall(t: Floats, skew: Floats) -> Floats:
    """Student's t of a skewed sample, as that of a symmetric one would be; it rises with t throughout."""
    return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6


def _unhall(t: Floats, skew: Floats) -> Floats:
    """The other way round."""
    import numpy as np

    some = np.where(skew == 0, 1.0, skew)
    return np.where(skew == 0, t, 3 / some * (np.cbrt(1 + some * (t - some / 6)) - 1))


def _limits(n: Floats, confidence: float) -> Floats:
    """The t at which the fortune reaches ``1 / (1 - confidence)``, for each number of items."""
    import numpy as np

    wanted = -math.log(1 - confidence)
    low, high = np.zeros_like(n), np.full_like(n, 2 * z_quantile(confidence))
    while (short := _log_mixture(n, high) < wanted).any():
        high = np.where(short, 2 * high, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = _log_mixture(n, middle) >= wanted
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


@functools.lru_cache(maxsize=16)
def _limits_until(looks: int, confidence: float) -> Floats:
    """The limits of so many looks: those of all pairs of models with the same number of prompts are the same."""
    import numpy as np

    return _limits(np.arange(looks, dtype=float) + FIRST_LOOK + _IMAGINED, confidence)


def _bounds(looks: _Looks, confidence: float) -> tuple[Floats, Floats]:
    """The ends of the interval at each look; infinite while all differences are 0, which tells nothing of their spread."""
    import numpy as np

    limit = _limits_until(int(looks.n.size), confidence)
    down = np.maximum(limit, _unhall(limit, looks.skew))
    up = np.maximum(limit, -_unhall(-limit, looks.skew))
    known = looks.error > 0
    return (
        np.where(known, looks.centre - down * looks.error, -math.inf),
        np.where(known, looks.centre + up * looks.error, math.inf),
    )
