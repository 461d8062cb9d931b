"""The cache of answers: memory over disk over Redis (over whatever store there is), and the calls under way."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import CacheError, ConfigError
from ..render import Shown, shown_fields
from ..types import Kept
from .base import MISS, Found, Guard, Miss, Store
from .claims import Claim
from .codec import decode, encode
from .disk import DiskStore
from .flights import Flights
from .frozen import freeze
from .memory import LRUCache
from .redis import RedisStore

__all__ = ["CacheSettings", "ResponseCache", "ResponseCacheStats", "TierStats"]

T = TypeVar("T")
D = TypeVar("D")
Row = tuple[str, bytes, float | None]
"""A key, the bytes under it, and the seconds that they live."""

DEFAULT_MAX_BYTES = 2_000_000_000
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStats(Shown):
    """What one tier has done in this process, and how full it is.

    ``entries`` and ``size_bytes`` are None while it can't be asked. ``evictions`` and ``expirations`` are the entries that this process removed because
    the tier was full, or because their time was over; a Redis, which looks after itself, has None.
    """

    tier: str
    hits: int
    misses: int
    errors: int = 0
    entries: int | None = None
    size_bytes: int | None = None
    max_bytes: int | None = None
    max_entries: int | None = None
    evictions: int | None = None
    expirations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCacheStats(Shown):
    """What a cache of answers has done in this process.

    Attributes
    ----------
    tiers : tuple of TierStats
        Fastest first. A look-up is a miss in every tier it had to go through.
    hits, misses : int
        Look-ups that were answered by any tier, and by none.
    coalesced : int
        Calls that took the answer of an identical call under way.
    saved_s, saved_usd : float
        Latency and cost of the originals of all answers that were not asked for again.
    """

    tiers: tuple[TierStats, ...]
    hits: int
    misses: int
    coalesced: int
    saved_s: float
    saved_usd: float


class _Breaker:
    """Leaves a failing store alone for a while: one warning when it fails, a word when it is back, longer pauses in between."""

    def __init__(self, what: str, timer: Callable[[], float]) -> None:
        self._what = what
        self._timer = timer
        self._pause_s = 0.0  # above zero: failing
        self._until = -math.inf
        self._told = False
        self.errors = 0

    @property
    def failing(self) -> bool:
        return self._pause_s > 0

    @property
    def open(self) -> bool:
        return self._pause_s > 0 and self._timer() < self._until

    def run(self, work: Callable[[], T], otherwise: D, *, quietly: bool = False) -> T | D:
        if self.open:
            return otherwise
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - a store may be anyone's; a broken one must not stop the work
            self.note_failure(error, quietly=quietly)
            return otherwise
        if self._pause_s:
            self._pause_s = 0.0
        if self._told:
            self._told = False
            _log.info("%s works again", self._what)
        return result

    def note_failure(self, error: Exception, *, quietly: bool = False) -> None:
        self.errors += 1
        if not self._told and not quietly:
            self._told = True
            _log.warning("%s does not work and is skipped for now: %s", self._what, error)
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._until = self._timer() + self._pause_s


class _Tier:
    """A store with its counts, and a breaker for each direction: a full disk can still be read."""

    def __init__(self, store: Store, timer: Callable[[], float]) -> None:
        self.store = store
        self.hits, self.misses = _Count(), _Count()
        self.reading = _Breaker(f"reading the {store.name} cache", timer)
        self.writing = _Breaker(f"writing the {store.name} cache", timer)

    def get(self, key: str) -> Kept | Miss:
        data = self.reading.run(lambda: self.store.get(key), MISS)
        if isinstance(data, Miss):
            return MISS
        try:
            return freeze(decode(data))
        except CacheError as error:
            _log.warning("an answer in the %s cache is left out: %s", self.store.name, error)
            self.delete(key)
            return MISS

    def write(self, work: Callable[[], T], otherwise: D) -> T | D:
        """Change something, unless the store is known not to work; what can't be read either has been reported once already."""
        if self.reading.open:
            return otherwise
        return self.writing.run(work, otherwise, quietly=self.reading.failing)

    def set_all(self, rows: Sequence[Row]) -> None:
        together: Callable[[Sequence[Row]], None] | None = getattr(self.store, "set_all", None)
        if together is not None:
            self.write(lambda: together(rows), None)
            return
        for row in rows:
            self.write(lambda row=row: self.store.set(*row), None)  # type: ignore[misc]  # a lambda with a default

    def delete(self, key: str) -> bool:
        return self.write(lambda: self.store.delete(key), False)

    def guard(self, key: str) -> Guard | None:
        make: Callable[[str], Guard] | None = getattr(self.store, "guard", None)
        return None if make is None else _TierGuard(self, make(key))

    def count(self, hit: bool) -> None:
        (self.hits if hit else self.misses).note()

    def prune(self, **limits: float | None) -> int:
        prune: Callable[..., int] | None = getattr(self.store, "prune", None)  # not every store has one: Redis looks after itself
        return 0 if prune is None else self.write(lambda: prune(**limits), 0)

    def stats(self, *, quick: bool) -> TierStats:
        unseen = quick and (self.blocks or not self.hits.n + self.misses.n)  # to look at a store on disk makes its file
        info = None if unseen else self.reading.run(self.store.info, None)
        return TierStats(
            tier=self.store.name,
            hits=self.hits.n,
            misses=self.misses.n,
            errors=self.reading.errors + self.writing.errors,
            entries=None if info is None else info.entries,
            size_bytes=None if info is None else info.size_bytes,
            max_bytes=None if info is None else info.max_bytes,
            evictions=getattr(self.store, "evictions", None),
            expirations=getattr(self.store, "expirations", None),
        )

    @property
    def blocks(self) -> bool:
        """Whether asking the store may mean to wait for a network; one that does not say may be anything."""
        return bool(getattr(self.store, "blocks", True))


class _TierGuard:
    """A lock in a store. One that does not work holds nobody up: better to ask twice than not at all."""

    __slots__ = ("_guard", "_tier")

    def __init__(self, tier: _Tier, guard: Guard) -> None:
        self._tier = tier
        self._guard = guard

    @property
    def blocks(self) -> bool:
        return self._guard.blocks

    def take(self) -> bool:
        return self._tier.write(self._guard.take, True)

    def release(self) -> None:
        try:  # also while the tier is left alone: a lock that stays would hold up others
            self._guard.release()
        except Exception as error:  # noqa: BLE001 - as in the breaker
            self._tier.writing.note_failure(error, quietly=self._tier.reading.failing)


@dataclass(slots=True)
class _Count:
    """A number that many threads raise."""

    n: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self) -> None:
        with self.lock:
            self.n += 1


@dataclass(slots=True)
class _Saved:
    """What was not spent, added up by many threads."""

    answers: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kept: Kept) -> None:
        with self.lock:
            self.answers += 1
            self.seconds += kept.latency_s
            self.usd += kept.cost_usd or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What a ``ResponseCache`` was made of, as plain values: another process makes its own of them, over the same tiers."""

    folder: str | None
    memory_entries: int
    ttl_s: float | None
    max_bytes: int | None
    url: str | None


class ResponseCache(Shown):
    """Answers of models, by the key of their request: in memory, below that in a folder on disk, below that in a Redis.

    Parameters
    ----------
    folder : path, optional
        Where the disk tier lives; without it (and without ``stores``) answers are kept in memory only.
    memory_entries : int
        How many answers the memory tier holds; the one used the longest time ago goes first.
    ttl_s : float, optional
        Seconds after which an answer is asked for again, counted from when it was first given; never by default.
    max_bytes : int, optional
        Size of the disk tier, above which the answers used the longest time ago are removed.
    url : str, optional
        A Redis that machines share (``redis://…``), as the tier below the folder; see ``toolkit.cache.redis.RedisStore``.
    stores : sequence of Store, optional
        The tiers below memory, fastest first, instead of ``folder`` and ``url``.
    timer, clock : callable
        Seconds that never go back, and seconds since 1970.

    Raises
    ------
    ConfigError
        If a size or ``ttl_s`` is zero or less, if ``stores`` come with ``folder`` or ``url``, or if ``url`` can't be read.

    Notes
    -----
    A store that fails is skipped with one warning, and tried again after a pause that doubles from one second to a minute.
    Nothing a caller does with an answer changes what is kept.

    Examples
    --------
    >>> from toolkit.types import Kept, Reply
    >>> cache = ResponseCache()
    >>> cache.set("key", Kept(reply=Reply(text="Elbe"), at=0.0, latency_s=0.8))
    >>> cache.get("key").kept.reply.text, cache.get("key").tier
    ('Elbe', 'memory')
    >>> cache.get("another key")
    MISS
    >>> cache.stats().saved_s
    1.6
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        memory_entries: int = 1000,
        ttl_s: float | None = None,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        url: str | None = None,
        stores: Sequence[Store] | None = None,
        timer: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if stores is not None and (folder is not None or url is not None):
            raise ConfigError("give either stores=, or folder= and url=")
        self._settings: CacheSettings | None = None
        if stores is None:
            self._settings = CacheSettings(
                folder=None if folder is None else str(Path(folder).absolute()),
                memory_entries=memory_entries,
                ttl_s=ttl_s,
                max_bytes=max_bytes,
                url=url,
            )
            stores = [*_disk(folder, max_bytes, clock), *_redis(url)]
        self._ttl_s = ttl_s
        self._clock = clock
        self._memory: LRUCache[str, Found] = LRUCache(memory_entries, ttl_s, timer=timer, copy=False)
        self._tiers = [_Tier(store, timer) for store in stores]
        self._misses = _Count()  # of memory
        self._replayed, self._coalesced = _Saved(), _Saved()
        self.flights: Flights[Kept] = Flights(share=freeze, taken=self._coalesced.note)

    @classmethod
    def of(cls, settings: CacheSettings) -> ResponseCache:
        """Make a cache over the same tiers as another process's."""
        return cls(
            settings.folder,
            memory_entries=settings.memory_entries,
            ttl_s=settings.ttl_s,
            max_bytes=settings.max_bytes,
            url=settings.url,
        )

    def settings(self) -> CacheSettings:
        """Return what this cache was made of.

        Raises
        ------
        ConfigError
            If it was made of stores by hand: no other process can have those.
        """
        if self._settings is None:
            raise ConfigError("a cache made of stores= can't be described to another process; give folder= and url= instead")
        return self._settings

    @property
    def blocks(self) -> bool:
        """Whether ``get`` and ``set`` may have to wait for a network: an event loop then calls them in a thread, ``get`` after ``peek``.

        A look-up on disk does not count: it takes 20 microseconds, and going to a thread and back several times that.
        """
        return any(tier.blocks for tier in self._tiers)

    @property
    def in_memory_only(self) -> bool:
        """Whether there is nothing below memory; else ``set`` now and then makes room on disk, which takes long."""
        return not self._tiers

    def peek(self, key: str) -> Found | Miss:
        """Return the answer if memory has it. Never blocks; a hit counts, a miss does not: ``get`` counts it."""
        found = self._memory.get(key)
        if found is None:
            return MISS
        self._replayed.note(found.kept)
        return found

    def get(self, key: str) -> Found | Miss:
        """Return the answer from the fastest tier that has it, and keep it in the faster ones."""
        found = self.peek(key)
        if found is not MISS:
            return found
        self._misses.note()
        found = self._get_below(key, _Tier.count)
        if found is not MISS:
            self._replayed.note(found.kept)
        return found

    def holds(self, key: str) -> bool:
        """Whether a tier has the answer. Nothing is counted: nobody asked yet."""
        return key in self._memory or self._get_below(key, lambda _tier, _hit: None) is not MISS

    def claim(self, key: str) -> Claim | None:
        """Return a claim to ask in the name of all processes that share a tier; ``None`` if none is shared."""
        guards = [guard for tier in self._tiers if (guard := tier.guard(key)) is not None]
        if not guards:
            return None
        blocks = len(guards) < len(self._tiers) or any(guard.blocks for guard in guards)  # a tier without locks may be anything
        return Claim(guards, lambda: self._landed_elsewhere(key), blocks=blocks)

    def set(self, key: str, kept: Kept) -> None:
        """Keep an answer in every tier."""
        self.set_all([(key, kept)])

    def set_all(self, answers: Sequence[tuple[str, Kept]]) -> None:
        """Keep answers in every tier; a store that can writes them in one go."""
        self._put([(key, freeze(kept), left_s) for key, kept in answers if (left_s := self._left_s(kept)) > 0], self._tiers)

    def delete(self, key: str) -> bool:
        """Forget an answer in every tier; say whether one had it."""
        return any([self._memory.delete(key), *(tier.delete(key) for tier in self._tiers)])

    def clear(self) -> None:
        """Forget every answer in every tier."""
        self._memory.clear()
        for tier in self._tiers:
            tier.write(tier.store.clear, None)

    def prune(self, *, max_bytes: int | None = None, max_entries: int | None = None, older_than_s: float | None = None) -> int:
        """Remove expired answers and, from the stores that can, the longest unused until the limits hold; return how many."""
        gone = self._memory.cleanup()
        return gone + sum(tier.prune(max_bytes=max_bytes, max_entries=max_entries, older_than_s=older_than_s) for tier in self._tiers)

    def stats(self, *, quick: bool = False) -> ResponseCacheStats:
        """Return what this cache has done in this process, by tier; with ``quick`` not how full a store is that is beyond a network or was never asked."""
        memory = self._memory.stats()
        below = tuple(tier.stats(quick=quick) for tier in self._tiers)
        in_memory = TierStats(
            tier="memory",
            hits=self._replayed.answers - sum(tier.hits for tier in below),
            misses=self._misses.n,
            entries=memory.size,
            max_entries=memory.max_size,
            evictions=memory.evictions,
            expirations=memory.expirations,
        )
        return ResponseCacheStats(
            tiers=(in_memory, *below),
            hits=self._replayed.answers,
            misses=below[-1].misses if below else self._misses.n,
            coalesced=self._coalesced.answers,
            saved_s=self._replayed.seconds + self._coalesced.seconds,
            saved_usd=self._replayed.usd + self._coalesced.usd,
        )

    def close(self) -> None:
        """Close the stores. The memory tier stays usable."""
        for tier in self._tiers:
            tier.writing.run(tier.store.close, None)

    def __repr__(self) -> str:
        return f"ResponseCache({', '.join(['memory', *(tier.store.name for tier in self._tiers)])})"

    def _facts(self) -> Mapping[str, object]:
        return shown_fields(self.stats())

    def _get_below(self, key: str, count: Callable[[_Tier, bool], None]) -> Found | Miss:
        for depth, tier in enumerate(self._tiers):
            kept = tier.get(key)
            if kept is not MISS and (left_s := self._left_s(kept)) > 0:
                count(tier, True)
                self._put([(key, kept, left_s)], self._tiers[:depth])
                return Found(kept, tier.store.name)
            count(tier, False)
        return MISS

    def _landed_elsewhere(self, key: str) -> Kept | None:
        """Return the answer that another process brought since this one looked: that call and ours were one."""
        found = self._get_below(key, lambda _tier, _hit: None)
        if found is MISS:
            return None
        self._coalesced.note(found.kept)
        return found.kept

    def _put(self, answers: Sequence[tuple[str, Kept, float]], tiers: Sequence[_Tier]) -> None:
        """Put answers, each with the seconds it has left, into memory and into tiers."""
        rows: list[Row] = []
        for key, kept, left_s in answers:
            ttl_s = None if math.isinf(left_s) else left_s
            self._memory.set(key, Found(kept, "memory"), ttl_s)
            if tiers:
                try:
                    rows.append((key, encode(kept), ttl_s))
                except CacheError as error:
                    _log.warning("an answer is kept in memory only: %s", error)
        if rows:
            for tier in tiers:
                tier.set_all(rows)

    def _left_s(self, kept: Kept) -> float:
        return math.inf if self._ttl_s is None else kept.at + self._ttl_s - self._clock()


def _disk(folder: str | Path | None, max_bytes: int | None, clock: Callable[[], float]) -> list[Store]:
    return [] if folder is None else [DiskStore(folder, max_bytes=max_bytes, clock=clock)]


def _redis(url: str | None) -> list[Store]:
    return [] if url is None else [RedisStore(url)]
