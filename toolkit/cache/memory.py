"""Caches in memory: a size limit, a time to live, statistics, and values that callers can't change behind the cache's back."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar, overload

from ..errors import ConfigError
from ..render import Shown, shown_fields
from .frozen import is_immutable

__all__ = ["Cache", "CacheStats", "LRUCache", "live_caches"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_log = logging.getLogger(__name__)
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats(Shown):
    """What a cache has done since it was made or cleared.

    Attributes
    ----------
    hits, misses : int
        Look-ups by ``get`` and ``[]`` that found something, and that did not (an expired entry is a miss).
    hit_rate : float
        Hits over look-ups, 0 to 1; 0 before the first look-up.
    size, max_size : int
        Entries now, and at most (``None`` without a limit).
    evictions, expirations : int
        Entries that went because the cache was full, and because their time was over.
    """

    hits: int
    misses: int
    hit_rate: float
    size: int
    max_size: int | None
    evictions: int
    expirations: int


class _Entry(Generic[V]):
    __slots__ = ("copied", "expires_at", "ttl_s", "value")

    def __init__(self, value: V, ttl_s: float | None, expires_at: float, copied: bool) -> None:
        self.value = value
        self.ttl_s = ttl_s
        self.expires_at = expires_at
        self.copied = copied


class Cache(Shown, Generic[K, V]):
    """A mapping that forgets: the entry written first when it is full, and every entry whose time is over.

    Parameters
    ----------
    max_size : int, optional
        How many entries it holds at most; no limit by default.
    ttl_s : float, optional
        Seconds that an entry lives, unless ``set`` says otherwise; for ever by default.
    timer : callable
        Gives seconds that never go back.
    sliding : bool
        Whether a hit starts an entry's time anew. By default its time is fixed when it is written.
    on_evict : callable, optional
        Called with key and value of an entry that went because the cache was full or its time over (not of one that was
        deleted or replaced). It runs in the thread that noticed, holds no lock, and an error in it is logged.
    copy : bool
        Whether values that can be changed (lists, dicts, arrays, frames, ...) are deep-copied on their way in and out, so that
        nothing a caller does changes what is kept. Values that can't be changed (strings, numbers, tuples and frozen
        dataclasses of such) are never copied. With ``False`` callers share one object.

    Raises
    ------
    ConfigError
        If ``max_size`` or ``ttl_s`` is zero, negative or not a number.

    Notes
    -----
    Safe to use from many threads. Keys are compared as a dict does: 1, 1.0 and True are one key.

    Examples
    --------
    >>> cache = Cache(max_size=2, ttl_s=60)
    >>> cache.set("a", [1]); cache.set("b", None); cache.set("c", 3)
    >>> cache.get("a", "gone"), "b" in cache, cache["c"]
    ('gone', True, 3)
    >>> cache.stats().evictions
    1
    """

    __slots__ = (
        "__weakref__",
        "_copy",
        "_entries",
        "_evictions",
        "_expirations",
        "_hits",
        "_lock",
        "_max_size",
        "_misses",
        "_next_expiry",
        "_on_evict",
        "_sliding",
        "_timer",
        "_ttl_s",
    )
    _use_renews: ClassVar[bool] = False

    def __init__(
        self,
        max_size: int | None = None,
        ttl_s: float | None = None,
        *,
        timer: Callable[[], float] = time.monotonic,
        sliding: bool = False,
        on_evict: Callable[[K, V], object] | None = None,
        copy: bool = True,
    ) -> None:
        self._max_size = _checked_size(max_size)
        self._ttl_s = _checked_ttl(ttl_s)
        self._timer = timer
        self._sliding = sliding
        self._on_evict = on_evict
        self._copy = copy
        self._lock = threading.RLock()  # re-entrant: a key's __eq__ or a value's __del__ may come back here
        # Not a dict: finding the first key of one that loses its first key all the time walks over the gaps.
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._next_expiry = math.inf  # nothing expires before
        self._hits = self._misses = self._evictions = self._expirations = 0
        _remember(self)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value under a key, or ``default``."""
        try:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    ttl_s = entry.ttl_s
                    if ttl_s is None or (now := self._timer()) < entry.expires_at:
                        self._hits += 1
                        if self._use_renews:
                            self._entries.move_to_end(key)
                        if self._sliding and ttl_s is not None:
                            entry.expires_at = now + ttl_s
                        value, copied = entry.value, entry.copied
                        return copy.deepcopy(value) if copied else value
                self._misses += 1
        except TypeError:
            _require_hashable(key)
            raise
        if entry is not None:
            self._drop_expired(key, entry)
        return default

    @overload
    def peek(self, key: K) -> V | None: ...
    @overload
    def peek(self, key: K, default: D) -> V | D: ...
    def peek(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value under a key, or ``default``. Counts as no look-up and no use."""
        try:
            with self._lock:
                entry = self._entries.get(key)
        except TypeError:
            _require_hashable(key)
            raise
        if entry is None or not self._alive(entry):
            return default
        return copy.deepcopy(entry.value) if entry.copied else entry.value

    @property
    def copies(self) -> bool:
        """Whether values are copied on their way in and out, where they can be changed."""
        return self._copy

    def set(self, key: K, value: V, ttl_s: float | None = None) -> None:
        """Keep a value under a key, for ``ttl_s`` seconds (the cache's own time to live if not given).

        Raises
        ------
        ConfigError
            If ``ttl_s`` is zero, negative or not a number.
        TypeError
            If the key can't be hashed, or the value can't be copied.
        """
        life_s = self._ttl_s if ttl_s is None else _checked_ttl(ttl_s)
        copied = self._copy and not is_immutable(value)
        if copied:
            value = _copy_of(value)
        gone: list[tuple[K, _Entry[V]]] = []
        expires_at = math.inf if life_s is None else self._timer() + life_s
        try:
            with self._lock:
                self._entries.pop(key, None)  # written anew is written last
                while self._max_size is not None and len(self._entries) >= self._max_size:
                    gone.append(self._pop_first())
                self._entries[key] = _Entry(value, life_s, expires_at, copied)
                self._next_expiry = min(self._next_expiry, expires_at)
        except TypeError:
            _require_hashable(key)
            raise
        self._tell(gone)

    def has(self, key: K) -> bool:
        """Whether a value is kept under a key. Counts as no look-up and no use."""
        try:
            with self._lock:
                entry = self._entries.get(key)
                return entry is not None and self._alive(entry)
        except TypeError:
            _require_hashable(key)
            raise

    def delete(self, key: K) -> bool:
        """Forget a key; say whether there was something to forget."""
        try:
            with self._lock:
                entry = self._entries.pop(key, None)
                return entry is not None and self._alive(entry)
        except TypeError:
            _require_hashable(key)
            raise

    def clear(self) -> None:
        """Forget everything, the statistics too."""
        with self._lock:
            self._entries.clear()
            self._next_expiry = math.inf
            self._hits = self._misses = self._evictions = self._expirations = 0

    def cleanup(self) -> int:
        """Remove what has expired and return how many entries that were."""
        with self._lock:
            now = self._timer()
            if now < self._next_expiry:
                return 0
            gone = [(key, entry) for key, entry in self._entries.items() if entry.expires_at <= now]
            for key, _ in gone:
                del self._entries[key]
            self._expirations += len(gone)
            self._next_expiry = min((entry.expires_at for entry in self._entries.values()), default=math.inf)
        self._tell(gone)
        return len(gone)

    def stats(self) -> CacheStats:
        """Return what the cache has done since it was made or cleared."""
        self.cleanup()
        with self._lock:
            asked = self._hits + self._misses
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                hit_rate=self._hits / asked if asked else 0.0,
                size=len(self._entries),
                max_size=self._max_size,
                evictions=self._evictions,
                expirations=self._expirations,
            )

    def keys(self) -> list[K]:
        """Return the keys as they are now, next to go first."""
        self.cleanup()
        with self._lock:
            return list(self._entries)

    def __len__(self) -> int:
        self.cleanup()
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return self.has(key)

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def __getitem__(self, key: K) -> V:
        value = self.get(key, _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        return value  # type: ignore[return-value]  # the sentinel is not in V

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_size={self._max_size}, ttl_s={self._ttl_s}, size={len(self._entries)})"

    def _facts(self) -> Mapping[str, object]:
        return shown_fields(self.stats())

    def _alive(self, entry: _Entry[V]) -> bool:
        return entry.ttl_s is None or self._timer() < entry.expires_at

    def _pop_first(self) -> tuple[K, _Entry[V]]:
        key, entry = self._entries.popitem(last=False)
        if self._alive(entry):
            self._evictions += 1
        else:
            self._expirations += 1
        return key, entry

    def _drop_expired(self, key: K, entry: _Entry[V]) -> None:
        with self._lock:
            if self._entries.get(key) is not entry:  # written anew meanwhile
                return
            del self._entries[key]
            self._expirations += 1
        self._tell([(key, entry)])

    def _tell(self, gone: list[tuple[K, _Entry[V]]]) -> None:
        if self._on_evict is None:
            return
        for key, entry in gone:
            try:
                self._on_evict(key, entry.value)
            except Exception:  # noqa: BLE001 - a user's callback
                _log.warning("the on_evict callback of a cache failed", exc_info=True)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # a thread that only the parent has may have held it


class LRUCache(Cache[K, V]):
    """A ``Cache`` that, when full, forgets the entry that was used the longest time ago.

    Reading by ``get`` or ``[]`` and writing are uses; ``in`` and ``has`` are not.

    Examples
    --------
    >>> cache = LRUCache(max_size=2)
    >>> cache.set("a", 1); cache.set("b", 2); _ = cache.get("a"); cache.set("c", 3)
    >>> list(cache)
    ['a', 'c']
    """

    __slots__ = ()
    _use_renews = True


_live: weakref.WeakSet[Cache[Any, Any]] = weakref.WeakSet()  # of whatever keys and values
_live_lock = threading.Lock()


def live_caches() -> list[Cache[Any, Any]]:
    """Return every cache that somebody still holds."""
    with _live_lock:
        return list(_live)


def _remember(cache: Cache[Any, Any]) -> None:
    with _live_lock:
        _live.add(cache)


def _after_fork() -> None:
    global _live_lock
    _live_lock = threading.Lock()
    for cache in live_caches():
        cache._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _checked_size(max_size: int | None) -> int | None:
    if max_size is None or (type(max_size) is int and max_size > 0):
        return max_size
    raise ConfigError(f"max_size must be a whole number above zero, or None for no limit; not {max_size!r}")


def _checked_ttl(ttl_s: float | None) -> float | None:
    if ttl_s is None or (isinstance(ttl_s, int | float) and not isinstance(ttl_s, bool) and ttl_s > 0):
        return ttl_s
    raise ConfigError(f"ttl_s must be a number of seconds above zero, or None for no time limit; not {ttl_s!r}")


def _copy_of(value: V) -> V:
    try:
        return copy.deepcopy(value)
    except Exception as exc:
        raise TypeError(
            f"a {type(value).__name__} can't be copied ({exc}), so the cache can't protect it from changes; "
            "keep it as it is with Cache(..., copy=False)"
        ) from exc


def _require_hashable(key: object) -> None:
    try:
        hash(key)
    except TypeError as exc:
        raise TypeError(f"a cache key must be hashable, and a {type(key).__name__} is not: use a tuple or a string made from it") from exc
