"""``Cache`` and ``LRUCache``: against a model, and what they promise."""

import copy
import gc
import logging
import multiprocessing
import os
import threading
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from toolkit.cache import Cache, LRUCache, cache_keys, model_cache, session_cache, start_cleanup, stop_cleanup, user_cache
from toolkit.cache.frozen import FrozenDict
from toolkit.cache.memory import live_caches
from toolkit.errors import ConfigError

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
VALUES = st.one_of(st.none(), st.integers(), st.lists(st.integers(), max_size=3))
LIVES = st.one_of(st.none(), st.sampled_from([1, 3, 10]))


class Timer:
    now = 0.0

    def __call__(self):
        return self.now


@dataclass
class Remembered:
    value: object
    ttl_s: float | None
    until: float


class CacheAgainstModel(RuleBasedStateMachine):
    """A list of pairs, in the order in which entries go, is all a cache is."""

    kind: type[Cache] = Cache

    @initialize(max_size=st.sampled_from([None, 1, 2, 3]), ttl_s=LIVES, sliding=st.booleans())
    def begin(self, max_size, ttl_s, sliding):
        self.timer = Timer()
        self.max_size, self.ttl_s, self.sliding = max_size, ttl_s, sliding
        self.gone = []
        self.cache = self.kind(max_size, ttl_s, timer=self.timer, sliding=sliding, on_evict=lambda key, _: self.gone.append(key))
        self.model = {}
        self.hits = self.misses = self.left = 0

    def alive(self, key):
        return key in self.model and self.timer.now < self.model[key].until

    def leave(self, key):
        del self.model[key]
        self.left += 1

    @rule(key=KEYS, value=VALUES, ttl_s=LIVES)
    def write(self, key, value, ttl_s):
        self.cache.set(key, value, ttl_s)
        life_s = self.ttl_s if ttl_s is None else ttl_s
        self.model.pop(key, None)
        while self.max_size is not None and len(self.model) >= self.max_size:
            self.leave(next(iter(self.model)))
        self.model[key] = Remembered(copy.deepcopy(value), life_s, float("inf") if life_s is None else self.timer.now + life_s)
        if isinstance(value, list):
            value.append("changed after it was kept")

    @rule(key=KEYS)
    def read(self, key):
        found = self.cache.get(key, "nothing")
        if not self.alive(key):
            assert found == "nothing"
            self.misses += 1
            if key in self.model:
                self.leave(key)
            return
        entry = self.model[key]
        assert found == entry.value
        self.hits += 1
        if isinstance(found, list):
            found.append("changed after it was read")
        if self.sliding and entry.ttl_s is not None:
            entry.until = self.timer.now + entry.ttl_s
        if self.kind is LRUCache:
            self.model[key] = self.model.pop(key)

    @rule(key=KEYS)
    def look(self, key):
        assert (key in self.cache) == self.cache.has(key) == self.alive(key)

    @rule(key=KEYS)
    def remove(self, key):
        assert self.cache.delete(key) == self.alive(key)
        self.model.pop(key, None)

    @rule(seconds=st.sampled_from([0.5, 1, 4]))
    def wait(self, seconds):
        self.timer.now += seconds

    @rule()
    def clean_up(self):
        expired = [key for key in self.model if not self.alive(key)]
        assert self.cache.cleanup() == len(expired)
        for key in expired:
            self.leave(key)

    @rule()
    def clear(self):
        self.cache.clear()
        self.model.clear()
        self.gone.clear()
        self.hits = self.misses = self.left = 0

    @invariant()
    def same(self):
        if not hasattr(self, "model"):
            return
        for key in [key for key in self.model if not self.alive(key)]:
            self.leave(key)
        assert list(self.cache) == list(self.model)
        stats = self.cache.stats()
        assert (stats.hits, stats.misses, stats.size) == (self.hits, self.misses, len(self.model))
        assert stats.evictions + stats.expirations == self.left == len(self.gone)


class LRUCacheAgainstModel(CacheAgainstModel):
    kind = LRUCache


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestLRUCacheAgainstModel = LRUCacheAgainstModel.TestCase
TestCacheAgainstModel.settings = TestLRUCacheAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_full_cache_forgets_what_was_written_first_even_if_it_was_just_read():
    cache = Cache(max_size=2)
    cache["a"], cache["b"] = 1, 2
    cache.get("a")
    cache["c"] = 3
    assert list(cache) == ["b", "c"]


def test_a_full_lru_cache_forgets_what_was_unused_for_longest():
    cache = LRUCache(max_size=2)
    cache["a"], cache["b"] = 1, 2
    cache.get("a")
    cache["c"] = 3
    assert list(cache) == ["a", "c"]


def test_an_entry_is_gone_at_the_end_of_its_time_and_not_before():
    timer = Timer()
    cache = Cache(ttl_s=10, timer=timer)
    cache.set("a", 1)
    timer.now = 9.999
    assert cache.get("a") == 1
    timer.now = 10
    assert cache.get("a") is None
    assert cache.stats().expirations == 1


def test_a_read_prolongs_the_life_of_an_entry_only_where_expiry_slides():
    timer = Timer()
    fixed, sliding = Cache(ttl_s=10, timer=timer), Cache(ttl_s=10, timer=timer, sliding=True)
    fixed["a"] = sliding["a"] = 1
    timer.now = 6
    assert (fixed.get("a"), sliding.get("a")) == (1, 1)
    timer.now = 12
    assert (fixed.get("a"), sliding.get("a")) == (None, 1)


def test_a_stored_none_is_not_a_miss():
    cache = Cache()
    cache.set("a", None)
    assert cache.get("a", "default") is None
    assert "a" in cache
    assert cache.stats().hits == 1


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_size": -1}, {"max_size": 1.5}, {"max_size": True}])
def test_a_size_that_is_no_positive_whole_number_is_refused(options):
    with pytest.raises(ConfigError, match="max_size must be a whole number above zero"):
        Cache(**options)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), "60", True])
def test_a_time_to_live_that_is_no_positive_number_is_refused(ttl_s):
    with pytest.raises(ConfigError, match="ttl_s must be a number of seconds above zero"):
        LRUCache(ttl_s=ttl_s)
    with pytest.raises(ConfigError, match="ttl_s must be a number of seconds above zero"):
        Cache().set("a", 1, ttl_s=ttl_s)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.get([]),
        lambda c: c.set([], 1),
        lambda c: c.has([]),
        lambda c: c.delete([]),
        lambda c: c.peek([]),
        lambda c: c[[]],
        lambda c: [] in c,
    ],
)
def test_an_unhashable_key_is_refused_in_words_of_the_cache(use):
    with pytest.raises(TypeError, match="a cache key must be hashable, and a list is not"):
        use(Cache(max_size=3))


def test_a_value_that_cannot_be_copied_is_refused_unless_it_is_shared():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"can't be copied.*copy=False"):
        Cache().set("a", lock)
    shared = Cache(copy=False)
    shared.set("a", lock)
    assert shared.get("a") is lock


@dataclass(frozen=True)
class Frozen:
    inner: object


@pytest.mark.parametrize(
    "value", ["text", b"bytes", 1, (1, ("a",)), frozenset({1}), Frozen((1, 2)), Decimal("1.5"), Fraction(1, 3), UUID(int=7)], ids=repr
)
def test_what_nobody_can_change_is_handed_out_as_it_is(value):
    cache = Cache()
    cache["a"] = value
    assert cache["a"] is value


@pytest.mark.parametrize("value", [([],), Frozen([]), {"a": []}], ids=repr)
def test_what_holds_something_changeable_is_copied(value):
    cache = Cache()
    cache["a"] = value
    assert cache["a"] == value
    assert cache["a"] is not value
    assert cache["a"] is not cache["a"]


def test_a_missing_key_in_brackets_is_a_key_error():
    cache = Cache()
    with pytest.raises(KeyError):
        cache["a"]
    with pytest.raises(KeyError):
        del cache["a"]


def test_an_eviction_callback_may_use_the_cache_and_may_fail(caplog):
    spilled = {}

    def spill(key, value):
        spilled[key] = value
        assert "c" in cache
        raise RuntimeError("the callback broke")

    cache = Cache(max_size=2, on_evict=spill)
    with caplog.at_level(logging.WARNING):
        cache["a"], cache["b"], cache["c"] = 1, 2, 3
    assert spilled == {"a": 1}
    assert "on_evict callback of a cache failed" in caplog.text


def test_deleting_replacing_and_clearing_are_no_evictions():
    gone = []
    cache = Cache(max_size=2, on_evict=lambda key, _: gone.append(key))
    cache["a"] = 1
    cache["a"] = 2
    cache.delete("a")
    cache["b"] = 1
    cache.clear()
    assert gone == []


def test_many_threads_lose_no_count_and_never_exceed_the_size():
    cache = LRUCache(max_size=50, ttl_s=1000)
    sizes = []

    def work(seed):
        for n in range(2000):
            key = (n * seed) % 97
            if cache.get(key) not in (None, key):
                sizes.append("wrong value")
            cache.set(key, key)
            if n % 100 == 0:
                sizes.append(len(cache))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 8000
    assert max(sizes) <= 50
    assert stats.size == 50


def test_the_cleaner_sweeps_caches_that_live_and_keeps_none_alive():
    timer = Timer()
    swept = threading.Event()
    cache = Cache(ttl_s=5, timer=timer, on_evict=lambda *_: swept.set())
    cache["a"] = 1
    timer.now = 6
    start_cleanup(every_s=0.001)
    try:
        assert swept.wait(30)
    finally:
        stop_cleanup()
    assert cache.stats().expirations == 1
    place = id(cache)
    assert place in map(id, live_caches())
    del cache
    gc.collect()
    assert place not in map(id, live_caches())


def cleaners():
    return [thread for thread in threading.enumerate() if thread.name == "toolkit-cache-cleanup"]


def test_there_is_one_cleaner_however_often_it_is_started_and_none_once_stopped():
    for every_s in (60, 60, 30):
        start_cleanup(every_s)
    assert len(cleaners()) == 1
    assert cleaners()[0].daemon
    stop_cleanup()
    stop_cleanup()
    assert cleaners() == []
    start_cleanup()
    assert len(cleaners()) == 1
    stop_cleanup()


@pytest.mark.parametrize("every_s", [0, -1, float("nan"), "60", None])
def test_a_cleaner_without_a_sensible_interval_is_refused(every_s):
    with pytest.raises(ConfigError, match="every_s"):
        start_cleanup(every_s)
    assert cleaners() == []


def test_the_shared_caches_have_the_sizes_and_times_they_are_known_for():
    assert [cache.stats().max_size for cache in (model_cache, user_cache, session_cache)] == [100, 500, 200]
    assert repr(model_cache) == "Cache(max_size=100, ttl_s=600, size=0)"
    assert repr(user_cache) == "Cache(max_size=500, ttl_s=300, size=0)"
    assert repr(session_cache) == "LRUCache(max_size=200, ttl_s=1800, size=0)"


def test_keys_of_different_kinds_never_meet():
    keys = {cache_keys.model("x"), cache_keys.user("x"), cache_keys.session("x"), cache_keys.health("x")}
    assert len(keys) == 4


def read_in_child(cache, answers):
    answers.put(cache.get("a"))


def test_a_fork_while_another_thread_holds_the_lock_leaves_the_child_a_usable_cache():
    if not hasattr(os, "fork"):
        return
    cache = Cache()
    cache["a"] = 1
    held, done = threading.Event(), threading.Event()

    def hold():
        with cache._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(cache, answers))
    child.start()
    assert answers.get(timeout=30) == 1
    child.join()
    done.set()
    holder.join()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(b=1),
        lambda d: d.pop("a"),
        lambda d: d.clear(),
        lambda d: d.setdefault("b", 1),
        lambda d: d.popitem(),
        lambda d: d.__setitem__("a", 2),
        lambda d: d.__delitem__("a"),
        lambda d: d.__ior__({"a": 2}),
    ],
)
def test_a_frozen_dict_cannot_be_changed(change):
    frozen = FrozenDict(a=1)
    with pytest.raises(TypeError, match="can't be changed"):
        change(frozen)
    assert frozen == {"a": 1}
