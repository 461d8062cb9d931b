"""The performance monitor: how long things took, by name and tags, in bounded memory."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from ..errors import ConfigError
from ..render import Shown
from .forks import Locked
from .frames import FrameFunction, TidyTable
from .redaction import redact, redact_text, text_of
from .sketch import Sketch
from .wrapping import name_of, watched

__all__ = ["MetricStats", "PerformanceMonitor", "Timer", "performance_monitor", "with_performance_monitoring"]

P = ParamSpec("P")
R = TypeVar("R")
Tags = tuple[tuple[str, str], ...]

MAX_SERIES = 1000
OTHER = "(other)"
OVERFLOW: Tags = (("overflow", "true"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricStats(Shown):
    """What is known of a metric, in seconds.

    Attributes
    ----------
    count : int
        How many were recorded.
    mean, min, max : float
        Of all of them, exactly.
    p50, p95, p99 : float
        Percentiles of type 7, as in ``toolkit.stats.percentile``: exact up to 500 values, beyond at most 1 % off.
    exact : bool
        Whether the percentiles are exact.
    """

    count: int
    mean: float
    min: float
    max: float
    p50: float
    p95: float
    p99: float
    exact: bool = True


class PerformanceMonitor(Locked, Shown):
    """Counts seconds by name and tags.

    Memory is bounded: up to 500 values of a series (a name with its tags) are kept, more are counted in buckets. Beyond ``max_series``
    series, new tags of a known name are counted together under the tag ``overflow="true"``, and new names under the name ``(other)``.

    Parameters
    ----------
    timer : callable
        A clock that never goes back, in seconds.
    max_series : int
        How many names with their tags are told apart.

    Examples
    --------
    >>> monitor = PerformanceMonitor()
    >>> for seconds in (0.1, 0.2, 0.3):
    ...     monitor.record("parse", seconds, kind="csv")
    >>> monitor.stats("parse").p50, monitor.stats("parse").count
    (0.2, 3)
    >>> with monitor.start_timer("load"):
    ...     text = "x" * 1000
    >>> list(monitor.metrics())
    ['load', 'parse']
    """

    def __init__(self, *, timer: Callable[[], float] = time.perf_counter, max_series: int = MAX_SERIES) -> None:
        super().__init__()
        self._timer = timer
        self._max_series = max_series
        self._series: dict[str, dict[Tags, Sketch]] = {}
        self._count = 0

    def start_timer(self, name: str, /, **tags: object) -> Timer:
        """Start a timer: call it to stop, or use it with ``with``. What it saw is recorded, also after an error.

        Raises
        ------
        ConfigError
            If the name is empty.
        """
        return Timer(self, checked_name(name), _tags(tags))

    def record(self, name: str, seconds: float, /, **tags: object) -> None:
        """Record how long something took.

        Parameters
        ----------
        name : str
            Name of the metric.
        seconds : float
            Finite, and not negative.
        **tags
            What to tell apart within the metric: few values each, such as a model's name.

        Raises
        ------
        ConfigError
            If the name is empty, or ``seconds`` is no such number.
        """
        self._add(checked_name(name), checked_seconds(seconds), _tags(tags))

    def stats(self, name: str, /, **tags: object) -> MetricStats:
        """Return what is known of a metric, of all its tags together or of those series that have the tags named.

        Raises
        ------
        ConfigError
            If nothing was recorded under the name and tags; the message lists the known ones.
        """
        wanted = set(_tags(tags))
        with self._lock:
            if name not in self._series:
                raise ConfigError(f"unknown metric {name!r}; known: {', '.join(sorted(self._series)) or 'none yet'}")
            series = self._series[name]
            found = [sketch for known, sketch in series.items() if wanted <= set(known)]
            if not found:
                listed = "; ".join(_tags_text(known) for known in sorted(series)[:20])
                raise ConfigError(f"metric {name!r} has no values with {_tags_text(_tags(tags))}; its tags: {listed}")
            return _stats(found)

    def metrics(self) -> dict[str, MetricStats]:
        """Return what is known of every metric, by name, in the order of the alphabet."""
        with self._lock:
            return {name: _stats(self._series[name].values()) for name in sorted(self._series)}

    @property
    def frame(self) -> FrameFunction[[]]:
        """``frame()`` returns a pandas frame with one row a series, ``frame.polars()`` a polars frame.

        Columns: ``metric``, ``tags`` (JSON), ``count``, ``mean_s min_s max_s p50_s p95_s p99_s`` (seconds), ``exact`` (``yes`` or ``no``).
        """
        return FrameFunction(self._table)

    def clear(self) -> None:
        """Forget everything recorded."""
        with self._lock:
            self._series.clear()
            self._count = 0

    def wrap(self, fn: Callable[P, R], name: str | None = None) -> Callable[P, R]:
        """Return the function with its time recorded, as ``with_performance_monitoring`` does."""
        metric = checked_name(name_of(fn) if name is None else name)
        return watched(fn, lambda: _Stopwatch(self, metric))

    def _add(self, name: str, seconds: float, tags: Tags = ()) -> None:
        with self._lock:
            self._sketch(name, tags).add(seconds)

    def _sketch(self, name: str, tags: Tags) -> Sketch:
        found = self._series.get(name, {}).get(tags)
        if found is not None:
            return found
        if self._count >= self._max_series:
            name, tags = (name, OVERFLOW) if name in self._series else (OTHER, ())
        series = self._series.setdefault(name, {})
        if tags not in series:
            series[tags] = Sketch()
            self._count += 1
        return series[tags]

    def _table(self) -> TidyTable:
        with self._lock:
            rows = [
                (name, tags, _stats([sketch])) for name, series in sorted(self._series.items()) for tags, sketch in sorted(series.items())
            ]
        figures = ("mean", "min", "max", "p50", "p95", "p99")
        columns: dict[str, list[Any]] = {  # cells of a frame
            "metric": [name for name, _, _ in rows],
            "tags": [json.dumps(dict(tags)) for _, tags, _ in rows],
            "count": [stats.count for _, _, stats in rows],
            **{f"{figure}_s": [getattr(stats, figure) for _, _, stats in rows] for figure in figures},
            "exact": ["yes" if stats.exact else "no" for _, _, stats in rows],
        }
        kinds: dict[str, type] = {"metric": str, "tags": str, "count": int, **{f"{figure}_s": float for figure in figures}, "exact": str}
        return TidyTable(columns, kinds)

    def __reduce__(self) -> str:
        if self is not performance_monitor:
            raise TypeError("a performance monitor of one's own stays in its process; make one in the other")
        return "performance_monitor"  # in another process: that process's

    def __repr__(self) -> str:
        return f"<PerformanceMonitor metrics={len(self._series)} series={self._count}>"

    def _facts(self) -> Mapping[str, object]:
        return {"metrics": len(self._series), "series": self._count}


class Timer:
    """Runs from its making, or from the beginning of ``with``, until it is called or ``with`` ends; the first end counts."""

    __slots__ = ("_monitor", "_name", "_start", "_tags", "seconds")

    def __init__(self, monitor: PerformanceMonitor, name: str, tags: Tags) -> None:
        self._monitor = monitor
        self._name = name
        self._tags = tags
        self.seconds: float | None = None
        self._start = monitor._timer()

    def __call__(self) -> float:
        """Stop, record, and return the seconds; another call only returns them."""
        if self.seconds is None:
            self.seconds = max(self._monitor._timer() - self._start, 0.0)
            self._monitor._add(self._name, self.seconds, self._tags)
        return self.seconds

    def __enter__(self) -> Timer:
        self._start = self._monitor._timer()
        return self

    def __exit__(self, *_: object) -> None:
        self()


class _Stopwatch:
    """A watch on one call of a function: the time it runs, without what the consumer of a generator takes."""

    __slots__ = ("_monitor", "_name", "_seconds", "_start")

    def __init__(self, monitor: PerformanceMonitor, name: str) -> None:
        self._monitor = monitor
        self._name = name
        self._seconds = self._start = 0.0

    def __enter__(self) -> None:
        self._start = self._monitor._timer()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._seconds += max(self._monitor._timer() - self._start, 0.0)

    def end(self) -> None:
        self._monitor._add(self._name, self._seconds)


def checked_name(name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"a metric needs a name, got {name!r}")
    return name[:200]


def checked_seconds(seconds: float) -> float:
    try:
        value = float(seconds)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"seconds={seconds!r} is no number of seconds") from error
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"seconds={seconds!r}: a duration is finite and not negative")
    return value


def _tags(tags: dict[str, object]) -> Tags:
    return _clean_tags(tuple((name, text_of(value)[:200]) for name, value in tags.items())) if tags else ()


@lru_cache(maxsize=4096)
def _clean_tags(tags: Tags) -> Tags:
    return tuple(sorted((redact_text(name), redact(text, name)) for name, text in tags))


def _tags_text(tags: Tags) -> str:
    return ", ".join(f"{name}={value}" for name, value in tags) or "(no tags)"


def _stats(sketches: Iterable[Sketch]) -> MetricStats:
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    p50, p95, p99 = whole.percentiles(0.5, 0.95, 0.99)
    return MetricStats(
        count=whole.count, mean=whole.mean, min=whole.min, max=whole.max, p50=p50, p95=p95, p99=p99, exact=whole.exact
    )  # fmt: skip


performance_monitor = PerformanceMonitor()
"""The performance monitor of this process."""


@overload
def with_performance_monitoring(fn: Callable[P, R], name: str | None = None) -> Callable[P, R]: ...
@overload
def with_performance_monitoring(fn: None = None, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def with_performance_monitoring(fn: Callable[P, R] | None = None, name: str | None = None) -> Any:  # see the overloads
    """Record how long a function takes with ``toolkit.monitor.performance_monitor``, also when it fails.

    Functions, coroutine functions, generators and async generators stay what they are. Of a generator the time is counted in which it
    runs itself, from its first value to its end, not what its consumer does with the values.

    Parameters
    ----------
    fn : callable, optional
        The function; without it a decorator is returned.
    name : str, optional
        Name of the metric; by default the function's.

    Raises
    ------
    ConfigError
        If the name is empty.

    Examples
    --------
    >>> @with_performance_monitoring(name="square")
    ... def square(x):
    ...     return x * x
    >>> square(3)
    9
    >>> performance_monitor.stats("square").count
    1
    """
    if fn is None:
        return lambda found: performance_monitor.wrap(found, name)
    return performance_monitor.wrap(fn, name)
