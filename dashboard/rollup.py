"""Old days counted once: cells of each file of the journal's archive, an hour wide, kept on disk, so that a start reads megabytes.

They are worked out from files that never change, when somebody first asks for them, and can be deleted at any time. The journal itself
is only read.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from dashboard.cells import DIMENSIONS, GROWTH, MEASURES, SUMS, Cells, count, measured, plain_kinds
from toolkit import settings
from toolkit.monitor.journal import JournalReader, Part

__all__ = ["GRAIN_S", "Rollup"]

GRAIN_S = 3600.0
_COUNTS = "counts"
_LAYOUT = ("at", *DIMENSIONS, *SUMS, *MEASURES, GROWTH, GRAIN_S)  # files of another layout are not read
log = logging.getLogger(__name__)


class Rollup:
    """Cells of files of a journal's archive."""

    def __init__(self, reader: JournalReader, parts: Sequence[Part]) -> None:
        folder = settings.cache_folder() / "dashboard" / _mark(reader.address.archive.absolute())
        self._files = {part: _Counted(reader, part, folder) for part in parts}
        self._sweep(folder)

    def cells(self, lo_s: float, hi_s: float) -> list[Cells]:
        """Return the cells of each file that has rows in a window."""
        inside = [counted for part, counted in self._files.items() if part.first_at < hi_s and part.last_at >= lo_s]
        return [Cells(counted.table(_COUNTS), counted) for counted in inside]

    def known(self) -> list[pl.DataFrame] | None:
        """Return the counts of each file, ``None`` where some would have to be worked out first."""
        files = self._files.values()
        return [counted.table(_COUNTS) for counted in files] if all(counted.has(_COUNTS) for counted in files) else None

    def _sweep(self, folder: Path) -> None:
        """Remove what was worked out from files that are gone."""
        current = {counted.mark for counted in self._files.values()}
        for file in folder.glob("*.parquet"):
            if file.name.partition("-")[0] not in current:
                file.unlink(missing_ok=True)


class _Counted(Mapping[str, pl.DataFrame]):
    """The histograms of one file by measure, and its counts: from memory, from disk, or worked out now."""

    def __init__(self, reader: JournalReader, part: Part, folder: Path) -> None:
        self.mark = _mark(part, _LAYOUT)
        self._reader, self._part, self._folder = reader, part, folder
        self._tables: dict[str, pl.DataFrame] = {}

    def __getitem__(self, measure: str) -> pl.DataFrame:
        if measure not in MEASURES:
            raise KeyError(measure)
        return self.table(measure)

    def __iter__(self) -> Iterator[str]:
        return iter(MEASURES)

    def __len__(self) -> int:
        return len(MEASURES)

    def has(self, name: str) -> bool:
        return name in self._tables or self._path(name).exists()

    def table(self, name: str) -> pl.DataFrame:
        if name not in self._tables:
            self._tables[name] = self._read(name)
        return self._tables[name]

    def _path(self, name: str) -> Path:
        return self._folder / f"{self.mark}-{name}.parquet"

    def _read(self, name: str) -> pl.DataFrame:
        path = self._path(name)
        if path.exists():
            try:
                return pl.read_parquet(path, glob=False)
            except (OSError, pl.exceptions.PolarsError):
                log.warning("%s is damaged and is made anew", path)
        made = self._made(name)
        with contextlib.suppress(OSError):  # a full disk, a folder that can't be written: the next start will take longer
            _write(made, path)
        return made

    def _made(self, name: str) -> pl.DataFrame:
        columns = ("at", *DIMENSIONS, *(SUMS if name == _COUNTS else (name,)))
        rows = self._reader.scan_part(self._part).select(columns).cast(plain_kinds(columns)).collect()
        return count(rows, GRAIN_S) if name == _COUNTS else measured(rows, name, GRAIN_S)


def _write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{secrets.token_hex(4)}")
    try:
        table.write_parquet(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _mark(*of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]
