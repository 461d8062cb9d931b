"""How far raters agree beyond chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError
from .checks import count_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["cohen_kappa", "fleiss_kappa", "krippendorff_alpha"]


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
    counts = count_table(table, "table")
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
    return math.nan if expected >= 1 else (observed - expected) / (1 - expected)


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
    return float(1 - (coincidences * distance).sum() / expected) if expected else math.nan


def _distances(categories: Floats, totals: Floats, level: str) -> Floats:
    import numpy as np

    if level == "nominal":
        return 1.0 - np.eye(categories.size)
    if level not in ("ordinal", "interval"):
        raise ConfigError(f"unknown level {level!r}; known: nominal, ordinal, interval")
    position = categories if level == "interval" else np.cumsum(totals) - totals / 2
    return np.subtract.outer(position, position) ** 2
