"""Calls in counts and histograms. One row may stand for one call or for many alike; ``n`` says for how many.

Up to ``EXACT_ROWS`` calls of a window each keep a row of their own, and every number is exact. Beyond, calls that began in the same minute
or hour and agree in every column of ``DIMENSIONS`` share a row: sums and shares stay exact, but for the edges of the window, and of a latency
only its bucket is kept. Buckets are logarithmic as in DDSketch (Masson, Rim and Lee, PVLDB 12, 2019): each is ``GROWTH`` times as wide as the
one before and is told as its middle, so a percentile is at most 2 % off. The functions of ``views`` weigh by ``n`` and serve both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

__all__ = [
    "COALESCED",
    "COUNTED",
    "DIMENSIONS",
    "EXACT_ROWS",
    "FAILED",
    "LEFT",
    "LIVE",
    "MEASURES",
    "OK",
    "REPLAYED",
    "SCHEMA",
    "SUMS",
    "Calls",
    "Cells",
    "build",
    "combine",
    "count",
    "measured",
    "merge",
    "of_rows",
    "plain_kinds",
    "quantile",
    "with_clusters",
]

SCHEMA: dict[str, Any] = {  # values are polars data types, classes and instances alike
    "at": pl.Float64,
    "call_id": pl.String,
    "run_id": pl.Categorical(),
    "provider": pl.Categorical(),
    "label": pl.Categorical(),
    "prompt_id": pl.String,
    "status": pl.Categorical(),
    "error_type": pl.Categorical(),
    "error_fingerprint": pl.Categorical(),
    "error_message": pl.String,
    "provenance": pl.Categorical(),
    "cache_tier": pl.Categorical(),
    "attempts": pl.Int32,
    "lookup_s": pl.Float64,
    "retry_sleep_s": pl.Float64,
    "latency_s": pl.Float64,
    "total_s": pl.Float64,
    "ttft_s": pl.Float64,
    "output_tokens_per_s": pl.Float64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_usd": pl.Float64,
    "saved_usd": pl.Float64,
    "saved_s": pl.Float64,
    "answer_bytes": pl.Int64,
}
DIMENSIONS = ("run_id", "provider", "label", "status", "provenance", "cache_tier", "error_type", "error_fingerprint")
SUMS = ("cost_usd", "saved_usd", "saved_s", "input_tokens", "output_tokens", "answer_bytes", "attempts")
EXACT_ROWS = 200_000
GROWTH = 1.04

OK = pl.col("status") == "ok"
FAILED = pl.col("status") == "error"
LEFT = pl.col("status") == "left"  # the reader of a stream went away: neither an answer nor a failure
LIVE = OK & (pl.col("provenance") == "live")
REPLAYED = OK & (pl.col("provenance") == "replayed")
COALESCED = OK & (pl.col("provenance") == "coalesced")

MEASURES: dict[str, pl.Expr] = {"latency_s": LIVE, "ttft_s": LIVE, "output_tokens_per_s": LIVE, "lookup_s": REPLAYED}
"""What has percentiles, and over which calls."""

COUNTED = ("at", *DIMENSIONS, *MEASURES, *SUMS)
"""The columns of rows that cells are made of."""

_KEPT = ("run_id", "provider", "label", "status", "provenance")  # dimensions of a histogram: what the filters ask for
_SMALLEST = 1e-6
_LOG_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Cells:
    """Counts and histograms: ``counts`` has one row a cell, ``values`` for each measure one row a cell and bucket.

    ``values`` may read a measure only when it is asked for.
    """

    counts: pl.DataFrame
    values: Mapping[str, pl.DataFrame]


@dataclass(slots=True)
class Calls:
    """The calls of one window. ``counts`` has one row a call or a cell: ``at``, ``n``, the dimensions and sums.

    Of a measure only what somebody asks for is worked out, by ``read``.
    """

    counts: pl.DataFrame
    exact: bool
    read: Callable[[str], pl.DataFrame]
    _values: dict[str, pl.DataFrame] = field(default_factory=dict)
    _levels: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return int(self.counts["n"].sum())

    def values(self, measure: str) -> pl.DataFrame:
        """Return ``at``, dimensions, ``value`` and ``n`` of a measure, smallest value first; where rows are calls perhaps ``cluster``."""
        if measure not in self._values:
            self._values[measure] = self.read(measure)
        return self._values[measure]

    def levels(self, measure: str) -> pl.DataFrame:
        """Return ``label``, ``value`` and ``n`` of a measure, smallest value first: a row a call, or a row for each model and class of values."""
        if measure not in self._levels:
            values = self.values(measure).select("label", "value", "n", pl.col("^cluster$"))
            self._levels[measure] = values if self.exact else values.group_by("label", "value").agg(pl.col("n").sum()).sort("value")
        return self._levels[measure]

    def filter(self, *keep: pl.Expr) -> Calls:
        """Return the calls that pass; ``keep`` asks for columns that every histogram has."""
        if not keep:
            return self
        return Calls(self.counts.filter(*keep), self.exact, lambda measure: self.values(measure).filter(*keep))


def of_rows(rows: pl.DataFrame) -> Calls:
    """Return calls that each keep a row of their own; measures have the column ``cluster`` too, if any: see ``with_clusters``."""
    known = [pl.col(column).is_not_null().cast(pl.UInt32).alias(f"{column}_known") for column in SUMS]
    one = pl.lit(1, dtype=pl.UInt32).alias("n")
    counts = rows.with_columns(one, pl.col("at").alias("first_s"), pl.col("at").alias("last_s"), *known)

    def read(measure: str) -> pl.DataFrame:
        measured = counts.filter(MEASURES[measure], pl.col(measure).is_not_null())
        kept = with_clusters(measured).select("at", *_KEPT, pl.col(measure).alias("value"), "n", pl.col("^cluster$"))
        return kept.sort("value")

    return Calls(counts, exact=True, read=read)


def with_clusters(rows: pl.DataFrame) -> pl.DataFrame:
    """Return calls with the column ``cluster``, alike for those that asked the same prompt in the same run; without it where no two did.

    Answers to one prompt resemble each other: to count them as independent makes an interval too narrow.
    """
    alone = pl.any_horizontal(pl.col("run_id", "prompt_id").is_null())
    asked = pl.struct("run_id", "prompt_id").hash()
    found = rows.with_columns(cluster=pl.when(alone).then(pl.int_range(pl.len(), dtype=pl.UInt64)).otherwise(asked))
    return rows if found["cluster"].n_unique() == rows.height else found


def build(rows: pl.DataFrame, grain_s: float) -> Cells:
    """Count rows into cells ``grain_s`` wide; a cell is dated to the middle of its span."""
    return Cells(count(rows, grain_s), {measure: measured(rows, measure, grain_s) for measure in MEASURES})


def count(rows: pl.DataFrame, grain_s: float) -> pl.DataFrame:
    """Return the counts of cells: ``at``, the dimensions, ``n``, the first and the last moment, and sums."""
    known = [pl.col(column).count().alias(f"{column}_known") for column in SUMS]
    ends = (pl.col("moment").min().alias("first_s"), pl.col("moment").max().alias("last_s"))
    counts = _placed(rows, grain_s).group_by("at", *DIMENSIONS).agg(pl.len().alias("n"), *ends, pl.col(*SUMS).sum(), *known)
    return counts.collect().cast(_categories(DIMENSIONS))


def measured(rows: pl.DataFrame, measure: str, grain_s: float) -> pl.DataFrame:
    """Return the histograms of a measure: ``at``, what the filters ask for, ``value`` and ``n``."""
    bucket = (pl.col(measure).clip(_SMALLEST).log() / _LOG_GROWTH).ceil().cast(pl.Int16).alias("bucket")
    asked = _placed(rows, grain_s).filter(MEASURES[measure], pl.col(measure).is_not_null())
    middle = (2 / (GROWTH + 1)) * (pl.col("bucket").cast(pl.Float64) * _LOG_GROWTH).exp()
    counted = asked.group_by("at", *_KEPT, bucket).agg(pl.len().alias("n")).select("at", *_KEPT, middle.alias("value"), "n")
    return counted.collect().cast(_categories(_KEPT))


def plain_kinds(columns: Sequence[str]) -> pl.Schema:
    """Return the types of columns with texts left as they are: to make categories of millions of rows takes longer than to count them."""
    return pl.Schema({name: SCHEMA[name] for name in columns if SCHEMA[name] != pl.Categorical})


def _placed(rows: pl.DataFrame, grain_s: float) -> pl.LazyFrame:
    return rows.lazy().with_columns(at=((pl.col("at") / grain_s).floor() + 0.5) * grain_s, moment=pl.col("at"))


def _categories(columns: Sequence[str]) -> pl.Schema:
    return pl.Schema({name: SCHEMA[name] for name in columns})


def combine(parts: list[Cells]) -> Cells:
    """Return cells that hold what several of the same grain hold."""
    summed = pl.col("n", *SUMS, *(f"{column}_known" for column in SUMS)).sum()
    counts = pl.concat([part.counts for part in parts]).lazy().group_by("at", *DIMENSIONS)
    values = [
        pl.concat([part.values[measure] for part in parts]).lazy().group_by("at", *_KEPT, "value").agg(pl.col("n").sum())
        for measure in MEASURES
    ]
    found = pl.collect_all([counts.agg(summed, pl.col("first_s").min(), pl.col("last_s").max()), *values])
    return Cells(found[0].select(parts[0].counts.columns), dict(zip(MEASURES, found[1:])))


def merge(parts: Sequence[Cells]) -> Calls:
    """Return the calls of several sets of cells."""
    counts = pl.concat([part.counts for part in parts])
    return Calls(counts, exact=False, read=lambda measure: pl.concat([part.values[measure] for part in parts]).sort("value"))


def quantile(q: float, keep: pl.Expr | None = None) -> pl.Expr:
    """Return the percentile (type 7) of ``value`` weighed by ``n``, for rows sorted by value; null where there is none."""
    value, n = pl.col("value"), pl.col("n")
    if keep is not None:
        value, n = value.filter(keep), n.filter(keep)
    upto = n.cum_sum()
    rank = (n.sum().cast(pl.Float64) - 1) * q
    low = value.filter(upto > rank.floor()).first()
    high = value.filter(upto > (rank.floor() + 1).clip(upper_bound=n.sum().cast(pl.Float64) - 1)).first()
    return low + (high - low) * (rank - rank.floor())
