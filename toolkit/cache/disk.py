"""The disk tier: answers as JSON text in one SQLite file."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..types import CacheTier
from .base import MISS, Miss, StoreInfo
from .entries import Entries
from .guards import FileGuard, Guards

__all__ = ["DiskStore"]

NAMESPACE = "answers"
LOW_WATER = 0.9
"""A store that has grown too large is pruned to this share of its limit, so that not every write prunes."""

LOOK_EVERY = 0.01
"""How full the store is is asked after writing this share of its limit, so that not every write asks."""

_log = logging.getLogger(__name__)


class DiskStore:
    """A ``Store`` in a folder, which many threads and processes may use at once.

    Parameters
    ----------
    folder : path
        Made, with mode 0700, when first used; the file in it has mode 0600.
    max_bytes : int, optional
        Size above which the entries used the longest time ago are removed; no limit by default.
    default_ttl_s : float, optional
        Seconds an entry lives when ``set`` does not say; for ever by default.
    clock : callable
        Gives seconds since 1970.

    Raises
    ------
    ConfigError
        If ``max_bytes`` or ``default_ttl_s`` is zero or less.
    CacheError
        From the methods, if the folder or the file can't be used. Damage is no error: a damaged entry is a miss, set aside and
        reported once; a damaged file is moved aside and a new one begun.

    Notes
    -----
    The last use is noted to the minute, so a hit writes nothing. ``joblib.Memory(folder, backend="toolkit")`` sees the same
    entries (``toolkit.cache.joblib_store``).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = DiskStore(folder)
    ...     store.set("key", b'{"text": "Elbe"}')
    ...     print(store.get("key"), store.get("another"), store.info().entries)
    ...     store.close()
    b'{"text": "Elbe"}' MISS 1
    """

    name: CacheTier = "disk"
    blocks = False  # not for longer than going to a thread would take

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: int | None = None,
        default_ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _require_positive("max_bytes", max_bytes)
        _require_positive("default_ttl_s", default_ttl_s)
        self.entries = Entries(Path(folder), clock=clock)
        self._guards = Guards(Path(folder))
        self._max_bytes = max_bytes
        self._unseen_bytes = math.inf  # the first write looks how full the store is
        self._default_ttl_s = default_ttl_s

    def get(self, key: str) -> bytes | Miss:
        """Return the bytes under a key."""
        entry = self.entries.read(f"{NAMESPACE}/{key}")
        return MISS if entry is MISS else entry.value

    def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep bytes under a key. What is larger than the whole store may be is left out, with a warning."""
        self.set_all([(key, value, ttl_s)])

    def set_all(self, values: Sequence[tuple[str, bytes, float | None]]) -> None:
        """Keep bytes under keys, each with its seconds to live, in one go."""
        rows = [(f"{NAMESPACE}/{key}", value, self._lifetime_s(ttl_s)) for key, value, ttl_s in values if self._fits(value)]
        if not rows:
            return
        self.entries.write_all(rows, kind="json")
        self._unseen_bytes += sum(len(value) for _, value, _ in rows)
        if self._max_bytes is not None and self._unseen_bytes > LOOK_EVERY * self._max_bytes:
            self._unseen_bytes = 0
            if self.entries.info().size_bytes > self._max_bytes:
                self.entries.prune(max_bytes=LOW_WATER * self._max_bytes, give_back=False)

    def _lifetime_s(self, ttl_s: float | None) -> float | None:
        _require_positive("ttl_s", ttl_s)
        return self._default_ttl_s if ttl_s is None else ttl_s

    def _fits(self, value: bytes) -> bool:
        if self._max_bytes is None or len(value) <= LOW_WATER * self._max_bytes:
            return True
        _log.warning("an answer of %d bytes is not kept: the disk cache may hold %d", len(value), self._max_bytes)
        return False

    def guard(self, key: str) -> FileGuard:
        """Return the lock of a key: of all processes that use this folder, one at a time holds it."""
        return self._guards.guard(key)

    def delete(self, key: str) -> bool:
        """Forget a key; say whether there was something to forget."""
        return self.entries.delete(f"{NAMESPACE}/{key}")

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()

    def prune(self, *, max_bytes: int | None = None, max_entries: int | None = None, older_than_s: float | None = None) -> int:
        """Remove expired entries, those unused for ``older_than_s``, then the longest unused until the limits hold; return how many."""
        return self.entries.prune(max_bytes=max_bytes, max_entries=max_entries, older_than_s=older_than_s)

    @property
    def evictions(self) -> int:
        """How many entries this process removed because the store was full."""
        return self.entries.evictions

    @property
    def expirations(self) -> int:
        """How many entries this process removed because their time was over."""
        return self.entries.expirations

    def info(self) -> StoreInfo:
        """Return how full the store is."""
        return replace(self.entries.info(), max_bytes=self._max_bytes)

    def close(self) -> None:
        """Close the file, in all threads; a later use opens it again."""
        self.entries.note_uses()
        self.entries.close()


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"{name} must be above zero, or None for no limit; not {value!r}")
