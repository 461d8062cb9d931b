"""Percentiles of a stream of numbers: exact while there are few, from buckets with a known error when there are many.

The buckets are those of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", PVLDB 12, 2019): bucket ``i`` holds the values in ``(g^(i-1), g^i]`` with ``g = (1 + a) / (1 - a)``, and ``2 g^i / (g + 1)`` is at most
``a`` (relative) off each of them.
"""

from __future__ import annotations

import math
from array import array

__all__ = ["EXACT_VALUES", "RELATIVE_ERROR", "Sketch"]

EXACT_VALUES = 500
RELATIVE_ERROR = 0.01
SMALLEST = 1e-9
LARGEST = 1e300
"""What is smaller counts as zero, what is larger as this: only the largest value is told as it was."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)


class Sketch:
    """Counts, sums and percentiles of values that are not negative.

    A percentile is of type 7 (interpolated between two values, as in ``toolkit.stats.percentile``). Up to 500 values it is exact; beyond,
    each of the two values is known to 1 %, and so is the percentile: 1 % of it, or a nanosecond, is the most it can be off. From 1 ns
    to 1,000 s that takes at most 1,400 buckets.

    Examples
    --------
    >>> sketch = Sketch()
    >>> for value in (1.0, 2.0, 3.0, 4.0):
    ...     sketch.add(value)
    >>> sketch.percentile(0.5), sketch.exact
    (2.5, True)
    """

    __slots__ = ("_buckets", "_values", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._values = array("d")
        self._buckets: dict[int | None, int] | None = None  # None is the bucket of zero

    @property
    def exact(self) -> bool:
        """Whether every value is still known."""
        return self._buckets is None

    @property
    def mean(self) -> float:
        """The mean of all values; NaN where there is none."""
        return self.sum / self.count if self.count else math.nan

    def add(self, value: float) -> None:
        """Count a value: finite, and not negative."""
        self.count += 1
        self.sum += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        if self._buckets is not None:
            index = _bucket(value)
            self._buckets[index] = self._buckets.get(index, 0) + 1
        else:
            self._values.append(value)
            if len(self._values) > EXACT_VALUES:
                self._to_buckets()

    def merge(self, other: Sketch) -> None:
        """Count all that another sketch has counted; the order of merging does not matter."""
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self._values.extend(other._values)
        if other.exact and self.exact and len(self._values) <= EXACT_VALUES:
            return
        buckets = self._to_buckets()
        for index, count in (other._buckets or {}).items():
            buckets[index] = buckets.get(index, 0) + count

    def percentile(self, q: float) -> float:
        """Return a percentile, ``q`` between 0 and 1; NaN where nothing was counted."""
        return self.percentiles(q)[0]

    def percentiles(self, *levels: float) -> list[float]:
        """Return several percentiles of one look at the values."""
        if not self.count:
            return [math.nan] * len(levels)
        value_at = self._sorted_values() if self._buckets is None else self._sorted_buckets()
        return [self._interpolated(value_at, (self.count - 1) * q) for q in levels]

    def _interpolated(self, value_at: _Ranks, rank: float) -> float:
        below = math.floor(rank)
        low, high = value_at[below], value_at[min(below + 1, self.count - 1)]
        return low + (high - low) * (rank - below)

    def _sorted_values(self) -> _Ranks:
        return _Ranks([(value, 1) for value in sorted(self._values)], self)

    def _sorted_buckets(self) -> _Ranks:
        assert self._buckets is not None
        ordered = sorted(self._buckets.items(), key=lambda item: -math.inf if item[0] is None else item[0])
        return _Ranks([(_middle(index), count) for index, count in ordered], self)

    def _to_buckets(self) -> dict[int | None, int]:
        buckets: dict[int | None, int] = {} if self._buckets is None else self._buckets
        for value in self._values:
            index = _bucket(value)
            buckets[index] = buckets.get(index, 0) + 1
        self._buckets, self._values = buckets, array("d")
        return buckets


class _Ranks:
    """The values by their rank, from the smallest (0) on."""

    def __init__(self, groups: list[tuple[float, int]], sketch: Sketch) -> None:
        self._groups = groups
        self._sketch = sketch

    def __getitem__(self, rank: int) -> float:
        passed = 0
        for value, count in self._groups:
            passed += count
            if rank < passed:
                return min(max(value, self._sketch.min), self._sketch.max)
        return self._sketch.max


def _bucket(value: float) -> int | None:
    return None if value < SMALLEST else math.ceil(math.log(min(value, LARGEST)) * _PER_LOG)


def _middle(index: int | None) -> float:
    return 0.0 if index is None else 2 * _GAMMA**index / (_GAMMA + 1)
