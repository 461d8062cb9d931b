"""How many items are needed, what a sample of tries tells, and what a stalled measurement left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .checks import check_open_unit, numbers, t_quantile, z_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["backfill_omitted", "needed_n", "pass_at_k"]


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

    check_open_unit(power, "power")
    check_open_unit(alpha, "alpha")
    if not (math.isfinite(effect) and effect) or not (math.isfinite(sd) and sd >= 0):
        raise ConfigError(f"needed_n wants an effect other than 0 and an sd of 0 or more, got effect={effect}, sd={sd}")
    size = abs(effect) / sd if sd else math.inf
    n = max(2, math.floor(((z_quantile(1 - alpha) + float(special.ndtri(power))) / size) ** 2))
    if n > 10_000:  # t and normal agree to the last pair or two, and the noncentral t loses its digits
        return n + 1
    while _power(n, size, alpha) < power:
        n += 1
    return n


def _power(n: int, size: float, alpha: float) -> float:
    from scipy import special

    if math.isinf(size):
        return 1.0
    limit, shift = t_quantile(1 - alpha, n - 1), size * math.sqrt(n)
    return float(1 - special.nctdtr(n - 1, shift, limit) + special.nctdtr(n - 1, shift, -limit))


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

    latencies = numbers(latencies_s, "latencies_s")
    if not expected_interval_s > 0:
        raise ConfigError(f"expected_interval_s is the time between requests and must be positive, got {expected_interval_s}")
    stalls = latencies[latencies > expected_interval_s]
    missed = [stall - expected_interval_s * np.arange(1, _whole(stall / expected_interval_s)) for stall in stalls]
    return np.concatenate([latencies, *missed])


def _whole(intervals: float) -> int:
    """Return the whole intervals in a stall, 100 s / 0.01 s being 10,000 whatever its last bit says."""
    return math.floor(intervals + 1e-9 * intervals)
