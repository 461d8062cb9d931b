"""From the journal to tidy frames: one row a call or an error, and the tables made of them.

Each of the four is called for a pandas frame and has a twin for polars: ``monitor.calls(...)`` and ``monitor.calls.polars(...)``.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec

from .. import settings, stats
from ..errors import ConfigError
from .events import CacheRecord, CallRecord, ErrorRecord, LogRecord, Row
from .journal import JournalReader, flush_shared

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    Frame = pd.DataFrame | pl.DataFrame

__all__ = ["METRICS", "FrameFunction", "cache_history", "cache_stats", "calls", "errors", "log_entries", "percentiles"]

P = ParamSpec("P")
Since = datetime | timedelta | float | str | None
Where = str | os.PathLike[str] | None

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_TIERS = ("memory", "disk", "redis")
"""In the order in which they are asked."""


class TidyTable(NamedTuple):
    """Columns and what they hold: ``datetime`` (seconds since 1970), ``str``, ``int`` or ``float``."""

    columns: Mapping[str, list[Any]]  # values of the kinds named, or None
    kinds: dict[str, type]


class StoredRows(NamedTuple):
    """Rows of a journal that are read when it is known what for: as lists for pandas, as they are in Parquet for polars."""

    table: str
    reader: JournalReader
    kinds: dict[str, type]
    since: float | None
    until: float | None
    run: str | None

    def tidy(self) -> TidyTable:
        read = {"call": self.reader.calls, "error": self.reader.errors, "log": self.reader.logs}[self.table]
        found = read(since=self.since, until=self.until, run=self.run)
        return TidyTable({name: found[name] for name in self.kinds}, self.kinds)

    def lazily(self) -> pl.LazyFrame:
        return self.reader.scan(self.table, since=self.since, until=self.until, run=self.run).sort("row").select(*self.kinds)


class FrameFunction(Generic[P]):
    """A function that returns a pandas frame when called, and a polars frame from ``.polars(...)``."""

    def __init__(self, build: Callable[P, TidyTable | StoredRows]) -> None:
        functools.update_wrapper(self, build)
        self._build = build

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        return to_pandas(self._build(*args, **kwargs))

    def polars(self, *args: P.args, **kwargs: P.kwargs) -> pl.DataFrame:
        """Return the same as a polars frame."""
        return to_polars(self._build(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<frame function {self._build.__name__}>"


def to_pandas(rows: TidyTable | StoredRows) -> pd.DataFrame:
    """Build a pandas frame; an empty one has the same types as a full one."""
    import pandas as pd

    table = rows.tidy() if isinstance(rows, StoredRows) else rows

    dtypes = {int: "Int64", float: "float64", str: "str"}
    series = {
        name: _pandas_times(values) if kind is datetime else pd.Series(values, dtype=dtypes[kind])
        for (name, values), kind in zip(table.columns.items(), table.kinds.values())
    }
    return pd.DataFrame(series, columns=list(table.columns), copy=False)  # a copy would be the frame once more, if for a moment


def _pandas_times(seconds: list[Any]) -> pd.Series[Any]:
    import numpy as np
    import pandas as pd

    micros = np.round(np.array(seconds, dtype=float) * 1e6).astype("datetime64[us]")
    return pd.Series(micros).dt.tz_localize("UTC")


def to_polars(table: TidyTable | StoredRows) -> pl.DataFrame:
    """Build a polars frame; an empty one has the same types as a full one."""
    try:
        import polars as pl
    except ImportError as error:
        raise ConfigError("polars is not installed: pip install 'model-comparison-toolkit[notebook]'") from error

    if isinstance(table, StoredRows):
        frame = table.lazily().collect()
    else:
        dtypes = {int: pl.Int64, float: pl.Float64, str: pl.String, datetime: pl.Float64}
        frame = pl.DataFrame(table.columns, schema={name: dtypes[kind] for name, kind in table.kinds.items()})
    times = [name for name, kind in table.kinds.items() if kind is datetime]
    return frame.with_columns((pl.col(times) * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us", "UTC")) if times else [])


def _kinds(record: type[Row]) -> dict[str, type]:
    kinds = {name: (set(typing.get_args(hint) or (hint,)) - {type(None)}).pop() for name, hint in typing.get_type_hints(record).items()}
    return kinds | {"at": datetime}


CALL_KINDS = _kinds(CallRecord)
ERROR_KINDS = _kinds(ErrorRecord)
LOG_KINDS = _kinds(LogRecord)
CACHE_KINDS = _kinds(CacheRecord)
METRICS = tuple(name for name, kind in CALL_KINDS.items() if kind in (int, float) and name not in ("repeat", "cold"))
"""The columns of a call that can be measured."""


@FrameFunction
def calls(since: Since = None, run: str | None = None, *, until: Since = None, journal: Where = None) -> StoredRows:
    """Return the calls in the journal, one row a call, oldest first.

    Parameters
    ----------
    since : datetime, timedelta, number or str, optional
        Only calls begun since then: a time with its zone, or how long ago: a timedelta, seconds, or text such as
        ``"15min"`` (units ``s min h d``).
    run : str, optional
        Id or name of a comparison.
    until : datetime, timedelta, number or str, optional
        Only calls begun before then; written as ``since`` is.
    journal : str or path, optional
        The journal's file or URL; by default that of the settings (``TOOLKIT_JOURNAL``).

    Returns
    -------
    pandas.DataFrame
        The fields of ``toolkit.monitor.events.CallRecord``: times in seconds, money in US dollars, ``at`` in UTC. Counts are
        ``Int64``, with NA where a service did not report them. ``calls.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If ``since`` has no zone or can't be understood.
    JournalError
        If the journal can't be read.

    Examples
    --------
    >>> from toolkit import monitor
    >>> monitor.calls("15min", journal="no-such-journal.sqlite").shape[0]
    0
    """
    return StoredRows("call", _reader(journal), CALL_KINDS, since=moment(since), until=moment(until, "until"), run=run)


@FrameFunction
def errors(since: Since = None, run: str | None = None, *, until: Since = None, journal: Where = None) -> StoredRows:
    """Return the errors in the journal, one row an error, oldest first.

    Parameters
    ----------
    since, run, until, journal
        As in ``calls``.

    Returns
    -------
    pandas.DataFrame
        The fields of ``toolkit.monitor.events.ErrorRecord``; ``at`` in UTC. Errors with one ``fingerprint`` have one cause.
        ``errors.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If ``since`` has no zone or can't be understood.
    JournalError
        If the journal can't be read.

    Examples
    --------
    >>> from toolkit import monitor
    >>> list(monitor.errors(journal="no-such-journal.sqlite").columns)[:4]
    ['at', 'error_id', 'call_id', 'run_id']
    """
    return StoredRows("error", _reader(journal), ERROR_KINDS, since=moment(since), until=moment(until, "until"), run=run)


@FrameFunction
def log_entries(since: Since = None, run: str | None = None, *, until: Since = None, journal: Where = None) -> StoredRows:
    """Return the logger's entries in the journal, of all processes, one row an entry, oldest first.

    Parameters
    ----------
    since, until, journal
        As in ``calls``.
    run : str, optional
        Id or name of a comparison: the entries with a field ``run_id`` that is this run's.

    Returns
    -------
    pandas.DataFrame
        The fields of ``toolkit.monitor.events.LogRecord``; ``at`` in UTC, ``context`` as JSON. ``log_entries.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If ``since`` has no zone or can't be understood.
    JournalError
        If the journal can't be read.

    See Also
    --------
    Logger.frame : the newest entries of this process alone, from memory, of every level.

    Examples
    --------
    >>> from toolkit import monitor
    >>> monitor.logger.warn("the second shelf is nearly full", shelf=2)
    >>> monitor.log_entries("15min")[["level", "message", "context"]].iloc[-1].tolist()
    ['WARN', 'the second shelf is nearly full', '{"shelf": 2}']
    """
    return StoredRows("log", _reader(journal), LOG_KINDS, since=moment(since), until=moment(until, "until"), run=run)


@FrameFunction
def cache_history(since: Since = None, *, until: Since = None, journal: Where = None) -> TidyTable:
    """Return what the tiers of caches did over time, and how full they were, of all processes.

    Parameters
    ----------
    since, until, journal
        As in ``calls``.

    Returns
    -------
    pandas.DataFrame
        The fields of ``toolkit.monitor.events.CacheRecord``, a row for each time a process looked at a tier and found it changed (at most
        every 30 s, and at its end): ``hits misses evictions expirations`` since its row before, ``entries max_entries size_bytes
        max_bytes`` as they were then. ``cache_history.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If ``since`` has no zone or can't be understood.
    JournalError
        If the journal can't be read.

    Examples
    --------
    >>> from toolkit import monitor
    >>> history = monitor.cache_history(journal="no-such-journal.sqlite")
    >>> history.groupby(["cache", "tier"])["evictions"].sum().to_dict()
    {}
    """
    found = _reader(journal).cache_states(since=moment(since), until=moment(until, "until"))
    return TidyTable({name: found[name] for name in CACHE_KINDS}, CACHE_KINDS)


@FrameFunction
def cache_stats(since: Since = None, run: str | None = None, *, until: Since = None, journal: Where = None) -> TidyTable:
    """Return what the cache did for each model, from the calls that were answered.

    Parameters
    ----------
    since, run, until, journal
        As in ``calls``.

    Returns
    -------
    pandas.DataFrame
        For each ``provider`` and ``model`` a row with tier ``all`` and one for each tier that served an answer: ``hits``
        (answers replayed), ``misses`` (look-ups that went on, for ``all``: to the service), ``coalesced`` (answers shared
        with an identical call under way; only in ``all``), ``hit_rate`` (hits among hits and misses), ``bytes``, ``saved_s``
        (seconds) and ``saved_usd``, of replayed and coalesced answers. ``cache_stats.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If ``since`` has no zone or can't be understood.
    JournalError
        If the journal can't be read.

    Examples
    --------
    >>> from toolkit import monitor
    >>> list(monitor.cache_stats(journal="no-such-journal.sqlite").columns)
    ['provider', 'model', 'tier', 'hits', 'misses', 'coalesced', 'hit_rate', 'bytes', 'saved_s', 'saved_usd']
    """
    wanted = ["provider", "model", "provenance", "cache_tier", "answer_bytes", "saved_s", "saved_usd", "status"]
    found = _reader(journal).calls(since=moment(since), until=moment(until, "until"), run=run, columns=wanted)
    by_model: dict[tuple[Any, ...], list[_Answer]] = {}
    for provider, model, *answer, status in zip(*(found[name] for name in wanted)):
        if status == "ok":
            by_model.setdefault((provider, model), []).append(_Answer(*answer))
    rows = [(*model, *row) for model in sorted(by_model) for row in _tier_rows(by_model[model])]
    kinds = {
        "provider": str, "model": str, "tier": str, "hits": int, "misses": int, "coalesced": int,
        "hit_rate": float, "bytes": int, "saved_s": float, "saved_usd": float,
    }  # fmt: skip
    return _table(rows, kinds)


class _Answer(NamedTuple):
    provenance: str | None
    cache_tier: str | None
    answer_bytes: int | None
    saved_s: float | None
    saved_usd: float | None


def _tier_rows(answers: Sequence[_Answer]) -> list[tuple[Any, ...]]:
    replayed = [answer for answer in answers if answer.provenance == "replayed"]
    coalesced = [answer for answer in answers if answer.provenance == "coalesced"]
    asked = len(answers) - len(replayed) - len(coalesced)
    rows = [("all", len(replayed), asked, len(coalesced), *_gain(replayed, asked, coalesced))]
    reached = len(replayed) + asked
    for tier in _TIERS:
        if hits := [answer for answer in replayed if answer.cache_tier == tier]:
            reached -= len(hits)
            rows.append((tier, len(hits), reached, 0, *_gain(hits, reached)))
    return rows


def _gain(hits: Sequence[_Answer], misses: int, shared: Sequence[_Answer] = ()) -> tuple[float, int, float, float]:
    """Return the hit rate, and the bytes, seconds and dollars saved."""
    saved = (*hits, *shared)
    rate = len(hits) / (len(hits) + misses) if hits or misses else math.nan
    size = sum(a.answer_bytes or 0 for a in saved)
    return rate, size, math.fsum(a.saved_s or 0.0 for a in saved), math.fsum(a.saved_usd or 0.0 for a in saved)


@FrameFunction
def percentiles(
    by: str | Sequence[str] = ("provider", "model"),
    metric: str = "latency_s",
    q: float | Sequence[float] = (0.5, 0.95, 0.99),
    confidence: float = 0.95,
    *,
    frame: Frame | None = None,
    since: Since = None,
    run: str | None = None,
    provenance: str | None = "live",
    status: str | None = "ok",
    cold: bool | None = None,
    clusters: str | Sequence[str] = (),
    journal: Where = None,
) -> TidyTable:
    """Return percentiles with confidence intervals, by model or by any other column.

    Parameters
    ----------
    by : str or sequence of str
        Columns that tell the groups apart.
    metric : str
        Column of numbers, such as ``latency_s``, ``ttft_s``, ``output_tokens_per_s`` or ``cost_usd``.
    q : float or sequence of float
        Between 0 and 1.
    confidence : float
        Of the intervals.
    frame : pandas or polars frame, optional
        Calls to take instead of the journal's, such as ``comparison.frame``.
    since, run, journal
        Which calls of the journal, as in ``calls``.
    provenance, status : str or None
        Only calls with these: by default those answered by the service itself, for an answer from the cache says nothing
        about a model. ``None`` takes all.
    cold : bool, optional
        ``False`` leaves out the calls for which a server is known to have loaded the model first, ``True`` takes only these. To see both
        side by side, put ``"cold"`` into ``by``.
    clusters : str or sequence of str
        Columns that tell which values belong together, such as ``("run_id", "prompt_id")`` for runs that ask prompts more than once: the
        intervals then count prompts, as those of ``comparison.latency()`` do. A row that lacks one of them stands alone.

    Returns
    -------
    pandas.DataFrame
        The ``by`` columns, ``q``, ``value``, ``low``, ``high`` (in the metric's unit), ``n`` and ``note``. A percentile that
        ``n`` values can't support is NaN, and so is an end of its interval that they can't bound; ``note`` gives the reason.
        ``percentiles.polars(...)`` returns a polars frame.

    Raises
    ------
    ConfigError
        If a column is unknown (the message lists the known ones), or a number is out of range.
    JournalError
        If the journal can't be read.

    Notes
    -----
    Type 7 percentiles with intervals from order statistics, see ``toolkit.stats.percentile_interval``. A percentile needs ``1 / (1 - q)`` values.

    Examples
    --------
    >>> import pandas as pd
    >>> from toolkit import monitor
    >>> calls = pd.DataFrame({"model": "m", "latency_s": [0.1, 0.2, 0.3], "provenance": "live", "status": "ok"})
    >>> table = monitor.percentiles("model", q=[0.5, 0.95], frame=calls)
    >>> table["value"].tolist(), table["note"].tolist()[1]
    ([0.2, nan], 'p95 needs 20 values, n=3')
    """
    groups = (by,) if isinstance(by, str) else tuple(by)
    levels = {float(level): stats.percentile_min_n(level) for level in ((q,) if isinstance(q, int | float) else q)}
    kept: dict[str, set[Any]] = {name: {value} for name, value in (("provenance", provenance), ("status", status)) if value is not None}
    if cold is not None:
        kept["cold"] = {1} if cold else {0, None}
    together = (clusters,) if isinstance(clusters, str) else tuple(clusters)
    columns = _columns(frame, [*groups, metric, *kept, *together], metric, since, run, journal)
    samples = _samples(columns, groups, metric, kept)
    numbers = _samples({**columns, "": _cluster_numbers(columns, metric, together)}, groups, "", kept) if together else {}
    rows = [
        (*group, level, *_estimate(samples[group], level, needed, confidence, numbers.get(group)))
        for group in sorted(samples, key=_sortable)
        for level, needed in levels.items()
    ]
    kinds = {name: CALL_KINDS[name] if frame is None else _kind_of(columns[name]) for name in groups}
    return _table(rows, kinds | {"q": float, "value": float, "low": float, "high": float, "n": int, "note": str})


def _columns(
    frame: Frame | None, wanted: Sequence[str], metric: str, since: Since, run: str | None, journal: Where
) -> Mapping[str, list[Any]]:
    if frame is None:
        if metric not in METRICS:
            raise ConfigError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
        if unknown := [name for name in wanted if name not in CALL_KINDS]:
            raise ConfigError(f"calls have no column {unknown[0]!r}; they have {', '.join(CALL_KINDS)}")
        return _reader(journal).calls(since=moment(since), run=run, columns=list(dict.fromkeys(wanted)))
    if missing := [name for name in wanted if name not in frame.columns]:
        hint = "; pass provenance=None or status=None to take every row" if missing[0] in ("provenance", "status") else ""
        raise ConfigError(f"the frame has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}{hint}")
    return {name: _values(frame[name]) for name in wanted}


def _values(column: Iterable[Any]) -> list[Any]:
    """Return a column's values, whatever stands for "missing" in it as None."""
    return [None if _is_missing(value) else value for value in column]


def _is_missing(value: Any) -> bool:  # a cell of a frame
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def _samples(
    columns: Mapping[str, list[Any]], groups: Sequence[str], metric: str, kept: Mapping[str, set[Any]]
) -> dict[tuple[Any, ...], list[Any]]:
    """Return the values of each group; one whose rows all lack the metric is there, with none."""
    samples: dict[tuple[Any, ...], list[Any]] = {}
    length = len(columns[metric])
    keys = zip(*(columns[name] for name in groups)) if groups else [()] * length
    marks = zip(*(columns[name] for name in kept)) if kept else [()] * length
    wanted = tuple(kept.values())
    for key, mark, value in zip(keys, marks, columns[metric]):
        if all(map(operator.contains, wanted, mark)):
            sample = samples.setdefault(key, [])
            if value is not None:
                sample.append(value)
    return samples


def _cluster_numbers(columns: Mapping[str, list[Any]], metric: str, together: Sequence[str]) -> list[int | None]:
    """Return the number of each value's cluster, None where there is no value; a row that lacks a column of those is a cluster by itself."""
    numbers: dict[tuple[Any, ...], int] = {}
    keys = ((row, *key) if None in key else key for row, key in enumerate(zip(*(columns[name] for name in together))))
    return [None if value is None else numbers.setdefault(key, len(numbers)) for key, value in zip(keys, columns[metric])]


def _estimate(
    sample: list[Any], q: float, needed: int, confidence: float, clusters: list[Any] | None
) -> tuple[float, float, float, int, str]:
    """Return value, low, high, n and note."""
    n = len(sample)
    if n < needed:
        return math.nan, math.nan, math.nan, n, f"p{100 * q:g} needs {needed} values, n={n}"
    value = stats.percentile(sample, q)
    if q in (0, 1):
        return value, math.nan, math.nan, n, "the end of a sample has no interval"
    interval = stats.percentile_interval(sample, q, confidence, clusters if clusters and len(set(clusters)) < n else None)
    return value, interval.low, interval.high, n, interval.note


def _sortable(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((False, "", 0) if value is None else (True, str(type(value)), value) for value in key)


def _kind_of(values: list[Any]) -> type:
    kinds = {type(value) for value in values if value is not None}
    if kinds and all(issubclass(kind, int) and kind is not bool for kind in kinds):
        return int
    return float if kinds and all(issubclass(kind, float) for kind in kinds) else str


def _table(rows: Sequence[tuple[Any, ...]], kinds: dict[str, type]) -> TidyTable:
    columns = map(list, zip(*rows)) if rows else ([] for _ in kinds)
    # A group may be anything a user's frame holds: True, an enum, a date. Those are told by their text.
    as_text = {name: [v if v is None else str(v) for v in values] if kinds[name] is str else values for name, values in zip(kinds, columns)}
    return TidyTable(as_text, kinds)


def _reader(journal: Where) -> JournalReader:
    where = journal or settings.journal_url()
    flush_shared(where)
    return JournalReader(where)


def moment(since: Since, name: str = "since") -> float | None:
    """Return the moment meant, in seconds since 1970."""
    if since is None:
        return None
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ConfigError(f"{name}={since.isoformat()} could be any zone: add one, such as {name}.replace(tzinfo=timezone.utc)")
        return since.timestamp()
    return time.time() - _seconds_ago(since, name)


def _seconds_ago(since: timedelta | float | str, name: str) -> float:
    if isinstance(since, timedelta):
        seconds = since.total_seconds()
    elif isinstance(since, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)\s*", since)
        if found is None:
            raise ConfigError(f"{name}={since!r} is not understood: write how long ago, such as '30s', '15min', '6h' or '7d'")
        seconds = float(found[1]) * _SECONDS[found[2]]
    else:
        seconds = float(since)
    if not seconds >= 0:
        raise ConfigError(f"{name}={since!r} lies in the future: say how long ago, as a positive number of seconds")
    return seconds
