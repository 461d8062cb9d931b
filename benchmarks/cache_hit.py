"""What a hit costs: of a whole call, of a look-up, of a memoized function, of the store on disk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .asking import Caller, in_turn
from .measure import Contestant, Goal, Place, Run, Table
from .one_call import BODY, MESSAGES, journal_in

ENTRIES = 1_000
ANSWER = json.dumps(
    {"text": "the quick brown fox jumps over a lazy dog. " * 20, "usage": {"input_tokens": 12, "output_tokens": 50}}
).encode()
TTL_S = 3_600.0

Making = Callable[[Place, int], Iterator[Callable[[Any], object]]]
"""Fills a store with so many entries and gives what is to be measured: a function of a key."""


def folder_in(place: Place, name: str) -> str:
    return str(Path(place.folder, f"{name}-{os.getpid()}"))


# --- whole calls -----------------------------------------------------------------------------------------------------------


def floor(place: Place) -> Iterator[Caller]:
    kept = {hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest(): ANSWER}
    yield Caller(lambda: kept[hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest()])


def key_and_diskcache(place: Place) -> Iterator[Caller]:
    import diskcache

    with diskcache.Cache(folder_in(place, "diskcache")) as cache:
        key = hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest()
        cache.set(key, ANSWER)
        yield Caller(lambda: json.loads(cache.get(hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest())))


def ours(place: Place, tier: str) -> Iterator[Caller]:
    """A whole call; for the disk tier two prompts take turns in a memory that holds one."""
    import toolkit as tk
    from toolkit.cache import ResponseCache

    urls, prompts = {"openai_compatible": place.url + "/v1"}, ["hi", "hi there"]
    cache = ResponseCache(folder_in(place, "answers"), memory_entries=1 if tier == "disk" else 10)
    with tk.Client(base_urls=urls, cache=cache, journal=journal_in(place, f"hits-{tier}")) as client:
        for prompt in prompts:
            client.generate_text("openai_compatible/bench", prompt)
        turns = itertools.cycle(prompts)

        def call() -> object:
            answer = client.generate_text("openai_compatible/bench", next(turns))
            assert answer.cache_tier == tier
            return answer

        yield Caller(call, client.journal.flush)


def joblib_over_openai(place: Place) -> Iterator[Caller]:
    import joblib
    import openai

    client = openai.OpenAI(base_url=place.url + "/v1", api_key="x")

    def ask(model: str, messages: list) -> str:
        return client.chat.completions.create(model=model, messages=messages).choices[0].message.content

    cached = joblib.Memory(folder_in(place, "joblib"), verbose=0).cache(ask)
    yield Caller(lambda: cached("bench", MESSAGES))


def dspy_call(place: Place, tier: str) -> Iterator[Caller]:
    import dspy

    dspy.configure_cache(
        enable_disk_cache=tier == "disk",
        enable_memory_cache=tier == "memory",
        disk_cache_dir=folder_in(place, "dspy"),
        memory_max_entries=100,
    )
    model = dspy.LM("openai/bench", api_base=place.url + "/v1", api_key="x", cache=True)
    yield Caller(lambda: model("hi"))


def litellm_cached(place: Place) -> Iterator[Caller]:
    import litellm
    from litellm.caching.caching import Cache

    litellm.suppress_debug_info = True  # it prints between our lines otherwise
    litellm.cache = Cache()
    yield Caller(lambda: litellm.completion(model="openai/bench", messages=MESSAGES, api_base=place.url + "/v1", api_key="x", caching=True))


# --- look-ups --------------------------------------------------------------------------------------------------------------


def using(make: Making, place: Place, entries: int) -> Iterator[Run]:
    """Use some of the keys again and again."""
    keys = used(entries)
    with contextlib.contextmanager(make)(place, entries) as use:

        def run(n: int) -> None:
            for _ in range(n):
                for key in keys:
                    use(key)

        yield run


def used(entries: int) -> list[str]:
    return [f"key-{i}" for i in range(0, entries, 7)]


def dict_get(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    yield {f"key-{i}": i for i in range(entries)}.get


def our_cache(place: Place, entries: int, kind: str) -> Iterator[Callable[[Any], object]]:
    from toolkit import cache

    store = getattr(cache, kind)(max_size=2 * entries, ttl_s=TTL_S)
    for i in range(entries):
        store.set(f"key-{i}", i)
    yield store.get


def cachetools_get(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    import cachetools

    store, lock = cachetools.TTLCache(2 * entries, TTL_S), threading.Lock()
    store.update({f"key-{i}": i for i in range(entries)})

    def get(key: object) -> object:
        with lock:
            return store.get(key)

    yield get


def in_a_loop(make: Callable[[int], Any], place: Place, entries: int) -> Iterator[Run]:
    """Use some of the keys again and again, awaiting each."""
    keys, loop = used(entries), asyncio.new_event_loop()
    use = loop.run_until_complete(make(entries))

    async def rounds(n: int) -> None:
        for _ in range(n):
            for key in keys:
                await use(key)

    yield lambda n: loop.run_until_complete(rounds(n))
    loop.close()


async def aiocache_get(entries: int) -> Any:
    import aiocache

    store = aiocache.SimpleMemoryCache()
    for i in range(entries):
        await store.set(f"key-{i}", i, ttl=TTL_S)
    return store.get


async def cashews_get(entries: int) -> Any:
    import cashews

    store = cashews.Cache()
    store.setup("mem://", size=2 * entries)
    for i in range(entries):
        await store.set(f"key-{i}", i, expire=TTL_S)
    return store.get


def our_memoize(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    from toolkit.cache import memoize

    yield memoize(lambda key: key, ttl_s=TTL_S, max_size=2 * entries)


def cachetools_cached(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    import cachetools

    yield cachetools.cached(cachetools.TTLCache(2 * entries, TTL_S), lock=threading.Lock())(lambda key: key)


def functools_cached(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    yield functools.lru_cache(2 * entries)(lambda key: key)


# --- the store on disk -----------------------------------------------------------------------------------------------------


def our_disk(place: Place, entries: int, what: str) -> Iterator[Callable[[Any], object]]:
    from toolkit.cache.disk import DiskStore

    store = DiskStore(folder_in(place, "store"))
    for i in range(entries):
        store.set(f"key-{i}", ANSWER)
    yield store.get if what == "get" else lambda key: store.set(key, ANSWER)
    store.close()


def diskcache_disk(place: Place, entries: int, what: str) -> Iterator[Callable[[Any], object]]:
    import diskcache

    with diskcache.Cache(folder_in(place, "diskcache")) as store:
        for i in range(entries):
            store.set(f"key-{i}", ANSWER)
        yield store.get if what == "get" else lambda key: store.set(key, ANSWER)


def a_file_each(place: Place, entries: int, what: str) -> Iterator[Callable[[Any], object]]:
    folder = Path(folder_in(place, "files"))
    folder.mkdir(exist_ok=True)

    def write(key: object) -> None:
        partial = folder / f"{key}.{time.monotonic_ns()}"
        partial.write_bytes(ANSWER)
        partial.replace(folder / str(key))

    for i in range(entries):
        write(f"key-{i}")
    yield (lambda key: (folder / str(key)).read_bytes()) if what == "get" else write


def joblib_memory(place: Place, entries: int) -> Iterator[Callable[[Any], object]]:
    import joblib

    kept = joblib.Memory(folder_in(place, "memory"), verbose=0).cache(answer_to)
    for i in range(entries):
        kept(f"key-{i}")
    yield kept


def answer_to(key: str) -> bytes:  # joblib tells functions apart by where they are written
    return ANSWER


# --- the store that machines share -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_in(place: Place) -> Iterator[str]:
    """Run a Redis that keeps nothing, on a socket in a folder; give its address."""
    program = shutil.which("redis-server")
    if program is None:
        raise ImportError("redis-server", name="redis-server")
    import redis

    socket = folder_in(place, "redis")
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--logfile", os.devnull]
    server = subprocess.Popen([program, *options])
    try:
        while True:
            with contextlib.suppress(redis.ConnectionError), redis.Redis(unix_socket_path=socket) as client:
                client.ping()
                break
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait()


def redis_py(place: Place, entries: int, what: str) -> Iterator[Callable[[Any], object]]:
    import redis

    with redis_in(place) as url, redis.Redis.from_url(url) as store:
        for i in range(entries):
            store.set(f"key-{i}", ANSWER)
        yield store.get if what == "get" else lambda key: store.set(key, ANSWER)


def our_redis(place: Place, entries: int, what: str) -> Iterator[Callable[[Any], object]]:
    from toolkit.cache.redis import RedisStore

    with redis_in(place) as url:
        store = RedisStore(url)
        for i in range(entries):
            store.set(f"key-{i}", ANSWER)
        yield store.get if what == "get" else lambda key: store.set(key, ANSWER)
        store.close()


FROM_MEMORY, FROM_DISK = "toolkit, from memory", "toolkit, from disk"
DSPY_MEMORY, DSPY_DISK, LITELLM = "dspy, from memory", "dspy, from disk", "litellm with its cache"
LOCKED = "cachetools.TTLCache + Lock"
CACHED, DISKCACHE, REDIS = "cachetools.cached(TTLCache, lock)", "diskcache", "redis-py"


def calls(name: str, client: Callable[[Place], Iterator[Caller]], *packages: str) -> Contestant:
    return Contestant(name, functools.partial(in_turn, client), packages)


def tables(entries: int = ENTRIES) -> tuple[Table, ...]:
    def lookups(name: str, make: Making, *packages: str) -> Contestant:
        return Contestant(name, functools.partial(using, make, entries=entries), packages, per=len(used(entries)))

    def awaited(name: str, make: Callable[[int], Any], *packages: str) -> Contestant:
        return Contestant(name, functools.partial(in_a_loop, make, entries=entries), packages, per=len(used(entries)))

    def in_redis(what: str, title: str) -> Table:
        return Table(
            title=title,
            operation="look-up" if what == "get" else "write",
            reference=REDIS,
            about="Over a socket of this machine; the server's own work is not counted.",
            contestants=(
                lookups(REDIS, functools.partial(redis_py, what=what), "redis"),
                lookups("toolkit RedisStore", functools.partial(our_redis, what=what)),
            ),
            goals=(Goal(f"Redis {what}", "toolkit RedisStore", REDIS, 1.5),),
        )

    def on_disk(what: str, title: str) -> Table:
        return Table(
            title=title,
            operation="look-up" if what == "get" else "write",
            reference=DISKCACHE,
            about=f"{entries:,} entries of {len(ANSWER):,} bytes.",
            contestants=(
                lookups(DISKCACHE, functools.partial(diskcache_disk, what=what), "diskcache"),
                lookups("toolkit DiskStore", functools.partial(our_disk, what=what)),
                lookups("a file each, replaced whole", functools.partial(a_file_each, what=what)),
                *([lookups("joblib.Memory", joblib_memory, "joblib")] if what == "get" else []),
            ),
            goals=(Goal(f"disk {what}", "toolkit DiskStore", DISKCACHE, 1.0),),
        )

    return (
        Table(
            title="What does a whole call cost that is answered from a cache?",
            reference=DSPY_MEMORY,
            about="The toolkit's rows include the record in the journal; the first row is a key and a dict, and nothing else.",
            contestants=(
                calls("sha256 of the JSON + dict", floor),
                calls("sha256 of the JSON + diskcache", key_and_diskcache),
                calls(FROM_MEMORY, functools.partial(ours, tier="memory"), "model-comparison-toolkit"),
                calls(FROM_DISK, functools.partial(ours, tier="disk")),
                calls(DSPY_MEMORY, functools.partial(dspy_call, tier="memory"), "dspy"),
                calls(DSPY_DISK, functools.partial(dspy_call, tier="disk")),
                calls("joblib.Memory over openai", joblib_over_openai, "joblib", "openai"),
                calls(LITELLM, litellm_cached, "litellm"),
            ),
            goals=(
                Goal("whole call from memory beside dspy", FROM_MEMORY, DSPY_MEMORY, 0.5),
                Goal("whole call from memory beside litellm", FROM_MEMORY, LITELLM, 0.03),
                Goal("whole call from disk beside dspy", FROM_DISK, DSPY_DISK, 0.6),
            ),
        ),
        Table(
            title="What does a look-up in memory cost?",
            operation="look-up",
            reference=LOCKED,
            contestants=(
                lookups(LOCKED, cachetools_get, "cachetools"),
                lookups("toolkit Cache.get", functools.partial(our_cache, kind="Cache")),
                lookups("toolkit LRUCache.get", functools.partial(our_cache, kind="LRUCache")),
                lookups("dict.get", dict_get),
                awaited("aiocache.SimpleMemoryCache", aiocache_get, "aiocache"),
                awaited("cashews, mem://", cashews_get, "cashews"),
            ),
            goals=(
                Goal("Cache.get", "toolkit Cache.get", LOCKED, 1.0),
                Goal("LRUCache.get", "toolkit LRUCache.get", LOCKED, 1.0),
            ),
        ),
        Table(
            title="What does the hit of a memoized function cost?",
            operation="hit",
            reference=CACHED,
            contestants=(
                lookups(CACHED, cachetools_cached),
                lookups("toolkit memoize", our_memoize),
                lookups("functools.lru_cache", functools_cached),
            ),
            goals=(Goal("memoize hit", "toolkit memoize", CACHED, 1.0),),
        ),
        on_disk("get", "What does a look-up on disk cost?"),
        on_disk("set", "What does a write to disk cost?"),
        in_redis("get", "What does a look-up in Redis cost?"),
        in_redis("set", "What does a write to Redis cost?"),
    )
