"""What every question is about: the calls of a window, those compared with, and numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from dashboard.cells import Calls, of_rows, quantile
from dashboard.selection import Selection, step_for
from toolkit import stats

__all__ = [
    "BUCKETS", "POINTS", "Estimate", "Failures", "Rows", "Slice", "bucketed", "by_label", "chosen", "cut", "edge_cuts", "every_bucket", "filters",
    "found_models", "percentile", "share", "step_of", "total",
]  # fmt: skip

BUCKETS = 96
POINTS = 1500  # more than that in one chart is slow to draw, and no screen shows it


@dataclass(frozen=True, slots=True)
class Slice:
    """The calls a page is about; ``before`` are those compared with, none where nothing is."""

    calls: Calls
    before: Calls
    selection: Selection


@dataclass(frozen=True, slots=True)
class Failures:
    """Every failed call that passes the filters, at any time; those outside the window perhaps in cells."""

    counts: pl.DataFrame
    selection: Selection


@dataclass(frozen=True, slots=True)
class Rows:
    """Single calls that pass the filters, read only when a question is asked: ``read`` returns those from a moment of the window on."""

    read: Callable[[float], pl.LazyFrame]
    selection: Selection

    @property
    def rows(self) -> pl.LazyFrame:
        return self.read(self.selection.lo_s)


class Estimate(NamedTuple):
    """A number with its 95 % interval; what can't be had is ``None``, with the reason in ``note``."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


_NO_CALLS = Estimate(None, None, None, 0, "no calls")


def cut(rows: pl.DataFrame, selection: Selection) -> Slice:
    """Return the part of single calls that a selection is about."""
    other = selection.other()
    before = rows.clear() if other is None else rows.filter(_inside(other), *filters(other))
    return Slice(of_rows(rows.filter(_inside(selection), *filters(selection))), of_rows(before), selection)


def _inside(selection: Selection) -> pl.Expr:
    return pl.col("at").is_between(selection.lo_s, selection.hi_s, closed="left")


def filters(selection: Selection) -> list[pl.Expr]:
    """Return what a call must pass, its time apart."""
    return [pl.col(column).is_in(values) for column, values in chosen(selection).items()]


def chosen(selection: Selection) -> dict[str, list[str]]:
    """Return the columns that are filtered by, and the values that pass."""
    columns = {
        "provider": selection.providers,
        "label": selection.models,
        "run_id": selection.runs,
        "provenance": selection.provenances,
        "status": selection.statuses,
    }
    return {column: list(values) for column, values in columns.items() if values}


# Estimates


def percentile(values: pl.DataFrame, q: float) -> Estimate:
    """Return a percentile of ``value`` weighed by ``n``, with its interval, which counts prompts where ``cluster`` says who asked the same.

    ``note`` says why the value, or a bound of it, can't be had from so few values.
    """
    n, need = int(values["n"].sum()), stats.percentile_min_n(q)
    if n < need:
        return Estimate(None, None, None, n, f"p{100 * q:g} needs {need} live calls, has {n}")
    value = values.select(quantile(q)).item()
    sums = _cluster_sums(values, value)
    low_rank, high_rank = stats.percentile_ranks(n, q, cluster_sums=sums)
    upto = pl.col("n").cum_sum()
    low, high = values.select(
        low=pl.col("value").filter(upto >= max(low_rank, 1)).first(),
        high=pl.col("value").filter(upto >= max(high_rank, 1)).first(),
    ).row(0)
    side = "" if low_rank == high_rank == 0 else "upper bound " if low_rank else "lower bound "
    of = "" if sums is None else f" of {len(sums)} prompts"
    note = "" if low_rank and high_rank else f"p{100 * q:g}: {side}not estimable at n={n}{of}"
    return Estimate(value, low if low_rank else None, high if high_rank else None, n, note)


def _cluster_sums(values: pl.DataFrame, level: float) -> pl.Series | None:
    """Return what ``stats.percentile_ranks`` wants to know of clusters; ``None`` where each is a single value."""
    if "cluster" not in values.columns:
        return None
    below = (pl.col("value") <= level).cast(pl.Float64)
    sums = values.select("cluster", off=below - below.mean()).group_by("cluster").agg(pl.col("off").sum())["off"]
    return sums if len(sums) < values.height else None


def share(k: int, n: int) -> Estimate:
    """Return ``k / n`` with Wilson's interval."""
    if not n:
        return _NO_CALLS
    interval = stats.wilson_interval(k, n)
    return Estimate(k / n, interval.low, interval.high, n)


def total(column: str, keep: pl.Expr | None = None) -> pl.Expr:
    """Return the sum of what is known of a column, null where nothing is."""
    known, value = pl.col(f"{column}_known"), pl.col(column)
    if keep is not None:
        known, value = known.filter(keep), value.filter(keep)
    return pl.when(known.sum() > 0).then(value.sum())


# Models


def found_models(calls: pl.DataFrame) -> list[str]:
    return calls["label"].drop_nulls().unique().cast(pl.String).sort().to_list()


def by_label(values: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the rows of each model, in their order."""
    parts = values.partition_by("label", as_dict=True)  # of categories: to compare texts takes many times as long
    return {str(key[0]): part for key, part in sorted(parts.items(), key=lambda item: str(item[0][0]))}


# Time buckets


def step_of(part: Slice, points: int) -> float:
    """Return the width of a bucket in seconds: fine enough for the calls' own span, which may be seconds of a day."""
    counts = part.calls.counts
    if counts.is_empty():
        return step_for(part.selection.width_s, points)
    low, high = counts.select(low=pl.col("first_s").min(), high=pl.col("last_s").max()).row(0)
    step_s = step_for(high - low, points)
    # Cells are told by the middle of a minute or an hour: a finer step would show the grid instead of the calls.
    return step_s if part.calls.exact else max(step_s, 3600.0 if part.selection.width_s > 2 * 86_400 else 60.0)


def bucketed(part: Slice, rows: pl.DataFrame, step_s: float) -> pl.DataFrame:
    """Return rows with the start of their bucket, and whether the window's edge cuts that bucket.

    A ``partial`` bucket holds only some of its calls: lines leave it out, bars are drawn pale.
    """
    return rows.with_columns(start_s=(pl.col("at") / step_s).floor() * step_s).with_columns(partial=edge_cuts(part.selection, step_s))


def edge_cuts(window: Selection, step_s: float) -> pl.Expr:
    """Whether the window's edge cuts the bucket that begins at ``start_s``."""
    start = pl.col("start_s")
    return (start < window.lo_s) | (start + step_s > window.hi_s) if not window.whole else pl.lit(False)


def every_bucket(found: pl.DataFrame, step_s: float) -> pl.DataFrame:
    """Return one row a bucket, quiet ones too."""
    if found.is_empty():
        return found
    low, high = found.select(low=pl.col("start_s").min(), high=pl.col("start_s").max()).row(0)
    numbers = pl.int_range(round(low / step_s), round(high / step_s) + 1, eager=True)
    # The same product as in bucketed, so that the floats of both sides are equal.
    return pl.DataFrame({"start_s": numbers.cast(pl.Float64) * step_s}).join(found, on="start_s", how="left")
