"""A journal's calls as the pages need them: rows where they are few, cells where they are many, and only what is new is read again."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from dashboard.cells import COUNTED, EXACT_ROWS, FAILED, SCHEMA, Calls, Cells, build, combine, count, merge, of_rows, plain_kinds
from dashboard.rollup import GRAIN_S, Rollup
from toolkit.errors import JournalError
from toolkit.monitor.journal import JournalReader, JournalVersion, Part

__all__ = ["CallLog", "Choices", "Version"]

CHUNK_ROWS = 50_000  # a row costs far more as Python objects than in the frame, so few are in between at a time
KEEP_ROWS = 500_000
FINE_S, COARSE_S = 60.0, GRAIN_S
FINE_SPAN_S = 2 * 86_400.0
BLOCK_S = {FINE_S: 21_600.0, COARSE_S: 86_400.0}
_FINE_BLOCKS = 32  # eight days of minutes
_PAST_WINDOWS = 4
_PARTS = 32


class Version(NamedTuple):
    """Which rows are known, by the number of the last one; a journal made anew, or one that lost old days, starts a generation."""

    generation: int
    rows: int


class Choices(NamedTuple):
    """What the filters offer, and the span of time; ``runs`` maps ids to names, newest first."""

    providers: tuple[str, ...]
    models: tuple[str, ...]
    runs: dict[str, str]
    first_s: float
    last_s: float


class CallLog:
    """The calls of one journal, for any number of visitors at a time.

    The rows from some moment on are kept as they are, as long as they are few. Other windows are read when somebody asks: as rows, or
    block by block as cells, those of old days from a ``Rollup``. ``refresh`` adds what is new to all of them.
    """

    def __init__(self, journal: str) -> None:
        self._reader = JournalReader(journal)
        self._lock = threading.RLock()
        self._generation = 0
        self._forget()

    def _forget(self) -> None:
        self._state: JournalVersion | None = None
        self._last_row = 0
        self._old: tuple[Part, ...] = ()
        self._rollup: Rollup | None = None
        self._rows_from_s = math.inf
        self._rows = pl.DataFrame(schema=_ROW_SCHEMA)
        self._past: dict[tuple[float, float], pl.DataFrame] = {}
        self._blocks: dict[tuple[float, float], list[Cells]] = {}
        self._known: pl.DataFrame | None = None
        self._failed: pl.DataFrame | None = None

    def refresh(self) -> Version:
        """Read what is new and return the version that holds it.

        Raises
        ------
        JournalError
            If the journal is there but can't be read.
        """
        with self._lock:
            state = self._reader.version("call")
            if self._state is not None and (state[:2] != self._state[:2] or state.row < self._last_row):
                self._generation += 1
                self._forget()
            if self._state is None:
                self._begin(state)
            for rows in self._read(after_row=self._last_row):
                self._add(rows)
            return Version(self._generation, self._last_row)

    def _begin(self, state: JournalVersion) -> None:
        """Take the journal as it is now; days that are moved to the archive later stay where they are known from."""
        self._state, self._last_row = state, state.row
        self._old = tuple(part for part in self._reader.parts() if part.last_row <= state.row)

    def window(self, version: Version, lo_s: float, hi_s: float) -> Calls:
        """Return the calls with ``lo_s <= at < hi_s``."""
        with self._lock, self._told():
            rows = self._few(lo_s, hi_s)
            if rows is not None:
                return of_rows(rows.filter(pl.col("row") <= version.rows))
            grain_s = FINE_S if hi_s - lo_s <= FINE_SPAN_S else COARSE_S
            return merge(self._cells(grain_s, lo_s, hi_s)).filter(_between(lo_s, hi_s))

    def failures(self, version: Version) -> pl.DataFrame:
        """Return every failed call, or cells of them: the columns of ``Calls.counts``."""
        with self._lock, self._told():
            if self._covers(-math.inf):
                return of_rows(self._rows.filter(FAILED, pl.col("row") <= version.rows)).counts
            if self._failed is None:
                old = self._rolled_up().known()
                rest = (
                    self._scan(-math.inf, math.inf, COUNTED, counted=True, besides=() if old is None else self._old)
                    .filter(FAILED)
                    .collect()
                )
                self._failed = pl.concat([count(rest, COARSE_S), *(counts.filter(FAILED) for counts in old or ())])
            return self._failed

    def rows(self, lo_s: float, hi_s: float) -> pl.LazyFrame:
        """Return the rows of a window, those that are not kept not yet read."""
        with self._lock:
            # The newest rows are those that are asked for first, and slow to read from a database.
            if not self._covers(lo_s):
                self._covers(max((part.last_at for part in self._old), default=-math.inf))
            kept = self._rows.lazy().filter(_between(lo_s, hi_s))
            if lo_s >= self._rows_from_s:
                return kept
            return pl.concat([self._scan(lo_s, min(hi_s, self._rows_from_s), list(SCHEMA)), kept])

    def choices(self) -> Choices:
        """Return what the filters offer."""
        with self._lock, self._told():
            if self._known is None:
                self._known = self._offered()
            known = self._known
        named = self._reader.runs()
        names = dict(zip(named["run_id"], named["name"]))
        runs = known.drop_nulls("run_id").group_by("run_id").agg(pl.col("last_s").max()).sort("last_s", descending=True)
        return Choices(
            providers=_sorted(known["provider"]),
            models=_sorted(known["label"]),
            runs={run: names.get(run) or run for run in runs["run_id"].cast(pl.String)},
            first_s=known["first_s"].min() or 0.0,  # type: ignore[arg-type]  # polars can't say that it is a number
            last_s=known["last_s"].max() or 0.0,  # type: ignore[arg-type]
        )

    def _offered(self) -> pl.DataFrame:
        """Return the combinations of what the filters offer in everything there is, by the shortest way."""
        if self._covers(-math.inf):
            return _distinct(self._rows.lazy())
        old = self._rolled_up().known()
        rest = self._scan(-math.inf, math.inf, ["at", *_OFFERED], counted=True, besides=() if old is None else self._old)
        return _merge_known([_distinct(rest), *(counts.select(*_OFFERED, "first_s", "last_s") for counts in old or ())])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say which archive it is that can't be read."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise JournalError(
                f"can't read the archive {self._reader.address.archive} ({error}); `toolkit journal check` says what is wrong with it"
            ) from error

    # Rows

    def _covers(self, lo_s: float) -> bool:
        """Whether all rows from a moment on are kept, after reading them if they are few."""
        if lo_s < self._rows_from_s and self._count(lo_s, math.inf, KEEP_ROWS) <= KEEP_ROWS:
            self._rows = self._scan(lo_s, math.inf, list(SCHEMA)).collect()
            self._rows_from_s = lo_s
        return lo_s >= self._rows_from_s

    def _few(self, lo_s: float, hi_s: float) -> pl.DataFrame | None:
        """Return the rows of a window, ``None`` where they are more than are counted one by one."""
        if lo_s < self._rows_from_s and (lo_s, hi_s) not in self._past and self._count(lo_s, hi_s, EXACT_ROWS) > EXACT_ROWS:
            return None
        if self._covers(lo_s):
            rows = self._rows.filter(_between(lo_s, hi_s))
            return rows if rows.height <= EXACT_ROWS else None
        if (lo_s, hi_s) not in self._past:
            while len(self._past) >= _PAST_WINDOWS:
                del self._past[next(iter(self._past))]
            self._past[lo_s, hi_s] = self._scan(lo_s, hi_s, list(SCHEMA)).collect()
        return self._past[lo_s, hi_s]

    # Cells

    def _cells(self, grain_s: float, lo_s: float, hi_s: float) -> list[Cells]:
        width_s, choices = BLOCK_S[grain_s], self.choices()
        first = math.floor(max(lo_s, choices.first_s) / width_s)
        last = math.floor(min(hi_s, choices.last_s) / width_s)
        new = [cells for number in range(first, max(first, last) + 1) for cells in self._block(grain_s, number * width_s)]
        return new if grain_s == FINE_S else [*self._rolled_up().cells(lo_s, hi_s), *new]

    def _rolled_up(self) -> Rollup:
        if self._rollup is None:
            self._rollup = Rollup(self._reader, self._old)
        return self._rollup

    def _block(self, grain_s: float, start_s: float) -> list[Cells]:
        """Return the cells of a span of time; coarse ones only of what is not in the rollup."""
        key = (grain_s, start_s)
        if key not in self._blocks:
            fine = [other for other in self._blocks if other[0] == FINE_S]
            if grain_s == FINE_S and len(fine) >= _FINE_BLOCKS:
                del self._blocks[fine[0]]
            rows = self._scan(start_s, start_s + BLOCK_S[grain_s], COUNTED, counted=True, besides=self._old if grain_s == COARSE_S else ())
            self._blocks[key] = [build(rows.collect(), grain_s)]
        elif len(self._blocks[key]) > _PARTS:
            self._blocks[key] = [combine(self._blocks[key])]
        return self._blocks[key]

    # What is new

    def _add(self, rows: pl.DataFrame) -> None:
        self._last_row = int(rows["row"][-1])
        if self._rows_from_s < math.inf:
            kept = rows.filter(pl.col("at") >= self._rows_from_s)
            self._rows = pl.concat([self._rows, kept], rechunk=False)
            self._drop_old_rows()
        for grain_s, start_s in list(self._blocks):
            inside = rows.filter(_between(start_s, start_s + BLOCK_S[grain_s]))
            if inside.height:
                self._blocks[grain_s, start_s].append(build(inside, grain_s))
        if self._failed is not None:
            self._failed = pl.concat([self._failed, count(rows.filter(FAILED), COARSE_S)])
        if self._known is not None:
            self._known = _merge_known([self._known, _distinct(rows.lazy())])
        newest = float(rows["at"].min())  # type: ignore[arg-type]
        self._past = {span: frame for span, frame in self._past.items() if span[1] <= newest}

    def _drop_old_rows(self) -> None:
        """Keep the newest half when there are too many; what is asked of the rest is read again."""
        if self._rows.height > KEEP_ROWS:
            self._rows_from_s = float(self._rows["at"].quantile(0.5) or 0.0)
            self._rows = self._rows.filter(pl.col("at") >= self._rows_from_s)

    # The journal

    def _read(self, after_row: int) -> Iterator[pl.DataFrame]:
        """Yield the rows after a row, in chunks."""
        while True:
            found = self._reader.calls(after_row=after_row, limit=CHUNK_ROWS, columns=list(SCHEMA))
            if not found["row"]:
                return
            after_row = found["row"][-1]
            yield pl.DataFrame(found, schema=_ROW_SCHEMA)

    def _scan(
        self, lo_s: float, hi_s: float, columns: Sequence[str], *, counted: bool = False, besides: Sequence[Part] = ()
    ) -> pl.LazyFrame:
        """Return the rows of a window that were there at the last refresh, without those of some files."""
        since, until = (None if math.isinf(at) else at for at in (lo_s, hi_s))
        kinds = plain_kinds(columns) if counted else pl.Schema({name: SCHEMA[name] for name in columns})
        rows = self._reader.scan("call", since=since, until=until, besides=besides)
        return rows.filter(pl.col("row") <= self._last_row).select("row", *columns).cast(kinds)

    def _count(self, lo_s: float, hi_s: float, most: int) -> int:
        """Return how many rows a window has; above ``most`` just some number above it."""
        inside = [part for part in self._old if part.first_at >= lo_s and part.last_at < hi_s]
        listed = sum(part.rows for part in inside)
        if listed > most:
            return listed
        return listed + self._scan(lo_s, hi_s, ["at"], besides=inside).head(most + 1).select(pl.len()).collect().item()  # type: ignore[no-any-return]


_ROW_SCHEMA: dict[str, Any] = {"row": pl.Int64, **SCHEMA}
_OFFERED = ("provider", "label", "run_id")


def _between(lo_s: float, hi_s: float) -> pl.Expr:
    return pl.col("at").is_between(lo_s, hi_s, closed="left")


def _distinct(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return each combination of what the filters offer, with the first and the last time it was seen."""
    seen = rows.group_by(*_OFFERED).agg(pl.col("at").min().alias("first_s"), pl.col("at").max().alias("last_s")).collect()
    return seen.cast(dict.fromkeys(_OFFERED, pl.Categorical()))


def _merge_known(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by(*_OFFERED).agg(pl.col("first_s").min(), pl.col("last_s").max())


def _sorted(values: pl.Series) -> tuple[str, ...]:
    return tuple(values.drop_nulls().unique().cast(pl.String).sort())
