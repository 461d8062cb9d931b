"""What the cache costs as it grows: a hit in memory and on disk, a write, and making room."""

from __future__ import annotations

import functools
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from .cache_hit import ANSWER, TTL_S, folder_in
from .measure import Column, Contestant, Goal, Place, Reading, Run, Table

SIZES = tuple(10**n for n in range(3, int(os.environ.get("CACHE_GROWTH", "6")) + 1))
USED = 500
MEMORY, DISK = "cache in memory", "store on disk"


def per_key(use: Callable[[int], object], keys: list[int]) -> float:
    start = time.process_time()
    for key in keys:
        use(key)
    return (time.process_time() - start) / len(keys)


def spread_keys(entries: int) -> list[int]:
    """Keys from all over the store, as a hit may need any."""
    return [i * (entries // USED or 1) % entries for i in range(USED)]


def memory_of(place: Place, entries: int) -> Iterator[Run]:
    from toolkit.cache import Cache

    store: Cache[str, int] = Cache(max_size=entries, ttl_s=TTL_S)
    for i in range(entries):
        store.set(f"key-{i}", i)
    hits, serial = [f"key-{i}" for i in spread_keys(entries)], entries

    def run(n: int) -> Reading:
        nonlocal serial
        hit_s = set_s = wall_s = 0.0
        for _ in range(n):
            begun = time.perf_counter()
            hit_s += per_key(lambda i: store.get(hits[i]), list(range(len(hits))))
            wall_s += (time.perf_counter() - begun) / len(hits)
            set_s += per_key(lambda i: store.set(f"new-{i}", i), list(range(serial, serial + USED)))  # full: each takes another's place
            serial += USED
            for i in spread_keys(entries):
                store.set(f"key-{i}", i)
        return Reading(hit_s / n, wall_s / n, {"set": set_s / n})

    yield run


def key(i: int) -> str:
    """A key as the cache makes them: neighbours in time are none in the index."""
    return hashlib.sha256(str(i).encode()).hexdigest()


def rows_of(entries: int) -> Iterator[tuple[Any, ...]]:
    from toolkit.cache.entries import _checksum

    now = time.time()
    for i in range(entries):
        path = f"answers/{key(i)}"
        yield path, "json", _checksum(path, ANSWER), len(path) + len(ANSWER), now, now - entries + i, None, ANSWER


def filled(store: Any, entries: int) -> None:  # a DiskStore
    """Fill a store in one transaction: one for each entry would take minutes."""
    from toolkit.cache.entries import _WRITES

    store.set(key(0), ANSWER)
    with closing(sqlite3.connect(store.entries.file)) as db, db:
        db.execute("PRAGMA cache_size = -400000")
        db.executemany(_WRITES[1], rows_of(entries))


def disk_of(place: Place, entries: int) -> Iterator[Run]:
    from toolkit.cache.disk import DiskStore

    store = DiskStore(folder_in(place, f"grown-{entries}"))
    filled(store, entries)
    hits, serial = [key(i) for i in spread_keys(entries)], entries

    def run(n: int) -> Reading:
        nonlocal serial
        hit_s = set_s = prune_s = wall_s = 0.0
        for _ in range(n):
            for used in hits:
                store.set(used, ANSWER)  # lest pruning takes them
            begun = time.perf_counter()
            hit_s += per_key(lambda i: store.get(hits[i]), list(range(len(hits))))
            wall_s += (time.perf_counter() - begun) / len(hits)
            set_s += per_key(lambda i: store.set(key(i), ANSWER), list(range(serial, serial + USED)))
            serial += USED
            start = time.process_time()
            gone = store.prune(max_entries=entries)
            prune_s += (time.process_time() - start) / gone
        return Reading(hit_s / n, wall_s / n, {"set": set_s / n, "prune": prune_s / n})

    yield run
    store.close()


def tables(sizes: tuple[int, ...] = SIZES) -> tuple[Table, ...]:
    def point(kind: str, make: Callable[..., Iterator[Run]], size: int) -> Contestant:
        return Contestant(f"{kind}, {size:,} entries", functools.partial(make, entries=size), series=kind, at=size)

    points = [point(kind, make, size) for kind, make in ((MEMORY, memory_of), (DISK, disk_of)) for size in sizes]
    first, last = ({kind: f"{kind}, {size:,} entries" for kind in (MEMORY, DISK)} for size in (sizes[0], sizes[-1]))
    return (
        Table(
            title="What does the cache cost as it grows?",
            reference=first[DISK],
            operation="hit",
            axis="entries",
            rounds=5,
            columns=(Column("set", "CPU", "µs a write", 1e6), Column("prune", "CPU", "µs an entry pruned", 1e6)),
            drawn=("cpu_s", "set", "prune"),
            about=(
                f"Entries of {len(ANSWER):,} bytes on disk, numbers in memory. The cache in memory is full, so that a write takes the place of "
                "another entry; the store on disk is pruned back to its size after each round's writes. A hit is of an entry that was used a moment ago: "
                "the first in a minute is noted, which is a write. Keys are hashes, so each lies in another place: beyond what the processor, or SQLite, "
                "keeps at hand, each has to be fetched, and a write or a removal in a large index touches a page for itself."
            ),
            contestants=tuple(points),
            goals=(
                Goal("a hit in a large cache in memory", last[MEMORY], first[MEMORY], 1.5),
                Goal("a write to a large cache in memory", last[MEMORY], first[MEMORY], 1.5, of="set"),
                Goal("a hit in a large store on disk", last[DISK], first[DISK], 1.5),
                Goal("a write to a large store on disk", last[DISK], first[DISK], 1.5, of="set"),
                Goal("pruning a large store on disk", last[DISK], first[DISK], 1.5, of="prune"),
            ),
        ),
    )
