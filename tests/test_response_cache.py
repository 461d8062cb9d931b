"""The cache of answers: tiers, statistics, and stores that fail."""

import copy
import json
import logging
import pickle
import threading
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from toolkit.cache import ResponseCache
from toolkit.cache.base import MISS, Found, StoreInfo
from toolkit.cache.codec import encode
from toolkit.cache.disk import DiskStore
from toolkit.cache.flights import Landed
from toolkit.errors import ConfigError
from toolkit.types import Kept, Reply

KEPT = Kept(reply=Reply(text="Elbe", finish_reason="stop", reported={"load_s": 0.2}), at=1000.0, latency_s=0.5, cost_usd=0.25)


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class Shelf:
    """A store that a user might write: a dict, and a switch that breaks it."""

    name = "redis"

    def __init__(self):
        self.values, self.broken, self.asked = {}, set(), []

    def work(self, what):
        self.asked.append(what)
        if what in self.broken:
            raise ConnectionError("the shelf is gone")

    def get(self, key):
        self.work("get")
        return self.values.get(key, MISS)

    def set(self, key, value, ttl_s=None):
        self.work("set")
        self.values[key] = value

    def delete(self, key):
        self.work("delete")
        return self.values.pop(key, None) is not None

    def clear(self):
        self.values.clear()

    def info(self):
        return StoreInfo(entries=len(self.values), size_bytes=sum(map(len, self.values.values())))

    def close(self):
        self.work("close")


@pytest.fixture(params=["memory", "disk", "store", "disk and store"])
def cache(request, tmp_path):
    stores = {
        "memory": list,
        "disk": lambda: [DiskStore(tmp_path)],
        "store": lambda: [Shelf()],
        "disk and store": lambda: [DiskStore(tmp_path), Shelf()],
    }
    cache = ResponseCache(stores=stores[request.param]())
    yield cache
    cache.close()


def test_what_was_set_is_found_in_memory(cache):
    cache.set("key", KEPT)
    assert cache.get("key") == cache.peek("key") == Found(KEPT, "memory")


def test_what_was_never_set_is_a_miss(cache):
    assert cache.get("key") is MISS
    assert cache.peek("key") is MISS


def test_deleted_and_cleared_answers_are_gone_from_every_tier(cache):
    cache.set("one", KEPT)
    cache.set("two", KEPT)
    assert cache.delete("one")
    assert not cache.delete("one")
    assert cache.get("one") is MISS
    cache.clear()
    assert cache.get("two") is MISS


@pytest.mark.parametrize(
    "change",
    [lambda reported: reported.update(load_s=9.0), lambda reported: reported.clear(), lambda reported: reported.pop("load_s")],
)
def test_nothing_a_caller_does_changes_what_is_kept(cache, change):
    mine = replace(KEPT, reply=replace(KEPT.reply, reported={"load_s": 0.2}))
    cache.set("key", mine)
    change(mine.reply.reported)
    with pytest.raises(TypeError):
        change(cache.get("key").kept.reply.reported)
    assert cache.get("key").kept == KEPT


def test_an_answer_from_the_cache_can_be_copied_pickled_and_written_as_json(cache):
    cache.set("key", KEPT)
    kept = cache.get("key").kept
    assert pickle.loads(pickle.dumps(kept)) == copy.deepcopy(kept) == kept
    assert asdict(kept) == asdict(KEPT)
    assert json.dumps(kept.reply.reported) == '{"load_s": 0.2}'


def test_an_answer_on_disk_is_promoted_to_memory(tmp_path):
    ResponseCache(tmp_path).set("key", KEPT)
    cache = ResponseCache(tmp_path)
    assert cache.peek("key") is MISS
    assert cache.get("key") == Found(KEPT, "disk")
    assert cache.peek("key") == Found(KEPT, "memory")


def test_an_answer_of_the_last_tier_is_promoted_to_all_before_it(tmp_path):
    shelf = Shelf()
    shelf.values["key"] = encode(KEPT)
    disk = DiskStore(tmp_path)
    cache = ResponseCache(stores=[disk, shelf])
    assert cache.get("key").tier == "redis"
    assert disk.get("key") == encode(KEPT)
    assert cache.get("key").tier == "memory"


def test_only_a_cache_with_a_store_that_may_wait_for_a_network_blocks(tmp_path):
    assert not ResponseCache().blocks
    assert not ResponseCache(tmp_path).blocks
    assert ResponseCache(tmp_path, url="redis://127.0.0.1:1/0").blocks


def test_making_a_cache_touches_no_disk(tmp_path):
    ResponseCache(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_time_to_live_counts_from_the_answer_and_not_from_its_promotion(tmp_path):
    clock, timer = Clock(), Clock(0)
    ResponseCache(tmp_path, ttl_s=100, clock=clock, timer=timer).set("key", KEPT)
    later = ResponseCache(tmp_path, ttl_s=100, clock=clock, timer=timer)
    clock.now, timer.now = 1090, 90
    assert later.get("key").tier == "disk"
    clock.now, timer.now = 1099, 99
    assert later.get("key").tier == "memory"
    clock.now, timer.now = 1100, 100
    assert later.get("key") is MISS


def test_a_shorter_time_to_live_applies_to_what_others_kept(tmp_path):
    clock = Clock()
    ResponseCache(tmp_path, clock=clock).set("key", KEPT)
    clock.now += 50
    assert ResponseCache(tmp_path, ttl_s=50, clock=clock).get("key") is MISS


def test_a_full_memory_tier_forgets_the_longest_unused_and_the_disk_still_has_it(tmp_path):
    cache = ResponseCache(tmp_path, memory_entries=2)
    for key in "abc":
        cache.set(key, KEPT)
    assert [cache.peek(key) is MISS for key in "abc"] == [True, False, False]
    assert cache.get("a").tier == "disk"


def test_statistics_are_by_tier_and_say_what_was_saved(tmp_path):
    ResponseCache(tmp_path).set("key", KEPT)
    cache = ResponseCache(tmp_path)
    for key in ("nothing", "key", "key", "key"):
        cache.peek(key)
        cache.get(key)
    stats = cache.stats()
    memory, disk = stats.tiers
    assert (memory.tier, memory.hits, memory.misses, memory.entries) == ("memory", 4, 2, 1)
    assert (disk.tier, disk.hits, disk.misses, disk.entries) == ("disk", 1, 1, 1)
    assert disk.size_bytes > 0
    assert (stats.hits, stats.misses, stats.coalesced) == (5, 1, 0)
    assert (stats.saved_s, stats.saved_usd) == (2.5, 1.25)


def test_coalesced_calls_are_counted_with_what_they_saved():
    cache = ResponseCache()
    leader, *places = [cache.flights.join("key") for _ in range(4)]
    leader.land(KEPT)
    assert [place.wait() for place in places] == [Landed(KEPT)] * 3
    stats = cache.stats()
    assert (stats.coalesced, stats.saved_s, stats.saved_usd, stats.hits) == (3, 1.5, 0.75, 0)


def test_followers_cannot_change_what_others_hold():
    cache = ResponseCache()
    leader, place = cache.flights.join("key"), cache.flights.join("key")
    leader.land(replace(KEPT, reply=replace(KEPT.reply, reported={"load_s": 0.2})))
    with pytest.raises(TypeError, match="can't be changed"):
        place.wait().kept.reply.reported["load_s"] = 9.0


def test_a_damaged_answer_is_a_miss_and_is_forgotten(tmp_path, caplog):
    store = DiskStore(tmp_path)
    store.set("key", b'{"v": 1, "reply": "no"}')
    cache = ResponseCache(stores=[store])
    assert cache.get("key") is MISS
    assert store.get("key") is MISS
    assert "can't be read" in caplog.text
    cache.set("key", KEPT)
    assert ResponseCache(stores=[store]).get("key").kept == KEPT


def test_a_broken_store_is_skipped_with_one_warning_and_picked_up_again(caplog):
    timer, shelf = Clock(0), Shelf()
    shelf.values["key"] = encode(KEPT)
    shelf.broken = {"get"}
    cache = ResponseCache(stores=[shelf], timer=timer)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert cache.get("key") is MISS
        assert shelf.asked == ["get"]
        timer.now += 1
        assert cache.get("key") is MISS
        assert shelf.asked == ["get", "get"]
        shelf.broken = set()
        timer.now += 1.9
        assert cache.get("key") is MISS
        timer.now += 0.1
        assert cache.get("key").tier == "redis"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "reading the redis cache does not work" in caplog.text
    assert cache.stats().tiers[1].errors == 2


def test_the_pause_of_a_broken_store_grows_to_a_minute_and_no_further():
    timer, shelf = Clock(0), Shelf()
    shelf.broken = {"get"}
    cache = ResponseCache(stores=[shelf], timer=timer)
    asked_at = []
    for second in range(400):
        timer.now = second
        before = len(shelf.asked)
        cache.get("key")
        if len(shelf.asked) > before:
            asked_at.append(second)
    assert asked_at[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert {after - before for before, after in pairwise(asked_at[7:])} == {60}


def test_a_store_that_cannot_be_written_can_still_be_read(caplog):
    shelf = Shelf()
    shelf.values["key"] = encode(KEPT)
    shelf.broken = {"set", "delete"}
    cache = ResponseCache(stores=[shelf])
    cache.set("another", KEPT)
    cache.set("a third", KEPT)
    assert cache.get("another").tier == "memory"
    assert cache.get("key").tier == "redis"
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_used_costs_one_warning_and_memory_works_on(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ResponseCache(tmp_path / "file" / "cache")
    for key in "abc":
        assert cache.get(key) is MISS
        cache.set(key, KEPT)
        assert cache.get(key) == Found(KEPT, "memory")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert cache.stats().tiers[1].entries is None


def test_a_store_that_can_be_read_again_and_still_not_written_is_reported_for_that(caplog):
    timer, shelf = Clock(0), Shelf()
    shelf.broken = {"get", "set"}
    cache = ResponseCache(stores=[shelf], timer=timer)
    cache.get("key")
    timer.now += 1
    cache.set("key", KEPT)
    shelf.broken = {"set"}
    cache.get("another")
    timer.now += 1
    cache.set("key", KEPT)
    assert [record.getMessage().split(" cache ")[0] for record in caplog.records] == ["reading the redis", "writing the redis"]


def test_a_folder_that_can_be_used_later_is_picked_up(tmp_path):
    timer = Clock(0)
    obstacle = tmp_path / "file"
    obstacle.write_text("in the way")
    cache = ResponseCache(obstacle / "cache", timer=timer)
    cache.set("key", KEPT)
    obstacle.unlink()
    timer.now += 1
    cache.set("key", KEPT)
    assert ResponseCache(obstacle / "cache").get("key").tier == "disk"


def test_an_answer_json_cannot_say_is_kept_in_memory_only(tmp_path, caplog):
    odd = replace(KEPT, reply=replace(KEPT.reply, reported={"odd": object()}))
    cache = ResponseCache(tmp_path)
    cache.set("key", odd)
    assert cache.get("key").tier == "memory"
    assert cache.stats().tiers[1].entries == 0
    assert "kept in memory only" in caplog.text


def test_pruning_reaches_the_disk_and_leaves_stores_without_it_alone(tmp_path):
    cache = ResponseCache(stores=[DiskStore(tmp_path), Shelf()])
    for n in range(10):
        cache.set(str(n), KEPT)
    assert cache.prune(max_entries=4) == 6
    assert [tier.entries for tier in cache.stats().tiers] == [10, 4, 10]


@pytest.mark.parametrize("options", [{"memory_entries": 0}, {"ttl_s": 0}, {"max_bytes": 0, "folder": "x"}, {"folder": "x", "stores": []}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        ResponseCache(**options)


def test_threads_on_one_cache_lose_no_hit(tmp_path):
    cache = ResponseCache(tmp_path)
    cache.set("key", KEPT)
    wrong = []

    def work():
        for _ in range(500):
            if cache.get("key").kept != KEPT:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.stats().hits == 2000
