"""What the journal keeps of caches: what their tiers did, and how full they are."""

from __future__ import annotations

import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from .cache import Cache, ResponseCache, model_cache, session_cache, user_cache
from .cache.tiers import TierStats
from .monitor.events import CacheRecord
from .monitor.journal import Journal
from .monitor.outcomes import process_name

__all__ = ["watch_caches"]

T = TypeVar("T")
_COUNTS = ("hits", "misses", "evictions", "expirations")


def watch_caches(journal: Journal, answers: ResponseCache | None) -> None:
    """Let a journal ask the cache of answers, and the caches that a whole program shares, what they have done."""
    if answers is not None:
        journal.watch(answers, _Watch("answers", answers, lambda cache: cache.stats(quick=True).tiers))
    for name, cache in (("model", model_cache), ("user", user_cache), ("session", session_cache)):
        journal.watch(cache, _Watch(name, cache, _in_memory))


def _in_memory(cache: Cache[str, object]) -> Sequence[TierStats]:
    found = cache.stats()
    return [
        TierStats(
            tier="memory",
            hits=found.hits,
            misses=found.misses,
            entries=found.size,
            max_entries=found.max_size,
            evictions=found.evictions,
            expirations=found.expirations,
        )
    ]


class _Watch:
    """The rows of one cache: of each tier that changed since the last look."""

    def __init__(self, name: str, cache: T, read: Callable[[T], Sequence[TierStats]]) -> None:
        self._name = name
        found = weakref.ref(cache)
        self._read: Callable[[], Sequence[TierStats]] = lambda: () if (alive := found()) is None else read(alive)
        self._process = process_name()
        self._before: dict[str, TierStats] = {}

    def rows(self) -> Iterator[CacheRecord]:
        tiers = self._read()
        if self._process != process_name():  # forked: what was counted before is the parent's to tell
            self._process = process_name()
            self._before = {tier.tier: tier for tier in tiers}
        for tier in tiers:
            before = self._before.get(tier.tier, TierStats(tier=tier.tier, hits=0, misses=0, evictions=0, expirations=0, entries=0))
            if any(_since(getattr(before, name), getattr(tier, name)) for name in _COUNTS) or (tier.entries or 0) != (before.entries or 0):
                yield self._row(before, tier)
            self._before[tier.tier] = tier

    def _row(self, before: TierStats, now: TierStats) -> CacheRecord:
        return CacheRecord(
            at=time.time(),
            state_id=uuid.uuid4().hex,
            process=self._process,
            cache=self._name,
            tier=now.tier,
            hits=_since(before.hits, now.hits) or 0,
            misses=_since(before.misses, now.misses) or 0,
            evictions=_since(before.evictions, now.evictions),
            expirations=_since(before.expirations, now.expirations),
            entries=now.entries,
            max_entries=now.max_entries,
            size_bytes=now.size_bytes,
            max_bytes=now.max_bytes,
        )


def _since(before: int | None, now: int | None) -> int | None:
    """Return what a count has grown by; one that is smaller than before was set back to zero in between."""
    return None if now is None else now - (before or 0) if now >= (before or 0) else now
