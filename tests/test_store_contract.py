"""What every tier promises, and every pile of tiers: one suite over memory, disk, Redis and all of them together."""

import time
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from servers.redis import RedisServer
from toolkit.cache import ResponseCache
from toolkit.cache.base import MISS, Found
from toolkit.cache.disk import DiskStore
from toolkit.cache.redis import RedisStore
from toolkit.errors import ConfigError
from toolkit.types import Kept, Reply

TIERS = ["memory", "disk", "redis"]
PATIENCE_S = 20.0


def kept(text="Elbe"):
    return Kept(reply=Reply(text=text, finish_reason="stop"), at=1000.0, latency_s=0.5, cost_usd=0.25)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), persistent=False) as server:
        yield server


@pytest.fixture
def own_server(tmp_path):
    """One that a test may stop; what it was told is on disk before it answers."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture(params=["disk", "redis"])
def store(request, tmp_path):
    store = DiskStore(tmp_path) if request.param == "disk" else RedisStore(request.getfixturevalue("server").url, prefix=tmp_path.name)
    yield store
    store.clear()
    store.close()


@pytest.fixture(params=["memory", "disk", "redis", "disk redis"])
def cache(request, tmp_path):
    made = {
        "memory": lambda: ResponseCache(),
        "disk": lambda: ResponseCache(tmp_path),
        "redis": lambda: ResponseCache(url=request.getfixturevalue("server").url),
        "disk redis": lambda: ResponseCache(tmp_path, url=request.getfixturevalue("server").url),
    }
    cache = made[request.param]()
    yield cache
    cache.clear()
    cache.close()


# --- stores: bytes under a key -------------------------------------------------------------------------------------------------


def test_bytes_come_back_as_they_were_and_nothing_else_does(store):
    store.set("key", b'{"text": "Elbe"}')
    assert store.get("key") == b'{"text": "Elbe"}'
    assert store.get("another") is MISS


def test_setting_again_replaces(store):
    store.set("key", b"1")
    store.set("key", b"2")
    assert store.get("key") == b"2"
    assert store.info().entries == 1


def test_deleting_forgets_and_says_whether_there_was_something(store):
    store.set("key", b"1")
    assert store.delete("key")
    assert not store.delete("key")
    assert store.get("key") is MISS


def test_clearing_forgets_everything(store):
    for n in range(1200):
        store.set(str(n), b"1")
    store.clear()
    assert store.info().entries == 0
    assert store.get("7") is MISS


def test_the_size_grows_with_what_is_kept(store):
    store.set("small", b"1")
    small = store.info().size_bytes
    store.set("large", b"1" * 10_000)
    assert store.info().size_bytes >= small + 10_000
    assert store.info().entries == 2


def test_an_entry_is_gone_when_its_time_is_over(store):
    store.set("short", b"1", ttl_s=0.02)
    store.set("long", b"1", ttl_s=1000)
    end = time.monotonic() + PATIENCE_S
    while store.get("short") is not MISS:
        assert time.monotonic() < end
    assert store.get("long") == b"1"


@pytest.mark.parametrize("ttl_s", [0, -1])
def test_a_time_to_live_of_zero_or_less_is_refused(store, ttl_s):
    with pytest.raises(ConfigError, match="above zero"):
        store.set("key", b"1", ttl_s=ttl_s)


@given(entries=st.dictionaries(st.text(max_size=20), st.binary(max_size=100), max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_key_and_any_bytes_are_a_value(store, entries):
    store.clear()
    for key, value in entries.items():
        store.set(key, value)
    assert {key: store.get(key) for key in entries} == entries
    assert store.info().entries == len(entries)


def test_one_caller_at_a_time_holds_the_lock_of_a_key(store):
    first, second, another = store.guard("key"), store.guard("key"), store.guard("another")
    assert first.take()
    assert not second.take()
    assert another.take()
    first.release()
    first.release()
    assert second.take()
    second.release()
    another.release()


def test_a_closed_store_can_be_used_again(store):
    store.set("key", b"1")
    store.close()
    assert store.get("key") == b"1"


# --- tiers: answers under a key ------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_was(cache):
    cache.set("key", kept())
    assert cache.get("key") == Found(kept(), "memory")
    assert cache.get("another") is MISS


def test_a_new_answer_replaces_the_old_one_in_every_tier(cache):
    cache.set("key", kept("old"))
    cache.set("key", kept("new"))
    assert [found.kept.reply.text for found in found_in_each_tier(cache, "key")] == ["new"] * len(cache.stats().tiers)


def test_a_deleted_answer_is_gone_from_every_tier(cache):
    cache.set("key", kept())
    assert cache.delete("key")
    assert found_in_each_tier(cache, "key") == []


def test_a_cleared_cache_is_empty_in_every_tier(cache):
    cache.set("key", kept())
    cache.clear()
    assert found_in_each_tier(cache, "key") == []
    assert {tier.entries for tier in cache.stats().tiers} == {0}


def test_every_tier_says_what_it_holds_and_what_it_was_asked(cache):
    cache.get("key")
    cache.set("key", kept())
    cache.get("key")
    stats = cache.stats()
    assert [tier.tier for tier in stats.tiers] == [name for name in TIERS if name in repr(cache)]
    assert {tier.entries for tier in stats.tiers} == {1}
    assert {tier.misses for tier in stats.tiers} == {1}
    assert (stats.hits, stats.misses, stats.saved_s, stats.saved_usd) == (1, 1, 0.5, 0.25)


def test_an_answer_too_old_for_this_cache_is_a_miss(cache):
    cache.set("key", kept())
    younger = ResponseCache(ttl_s=10, stores=[tier.store for tier in cache._tiers], clock=lambda: 1010.0)
    assert younger.get("key") is MISS


def found_in_each_tier(cache, key):
    """Look into each tier alone."""
    looks = [cache.peek(key), *(ResponseCache(stores=[tier.store]).get(key) for tier in cache._tiers)]
    return [found for found in looks if found is not MISS]


# --- a server that goes away and comes back --------------------------------------------------------------------------------------


def test_no_answer_is_lost_or_wrong_while_redis_is_stopped_and_started_again(own_server, tmp_path, caplog):
    timer = [0.0]
    store = RedisStore(own_server.url)
    cache = ResponseCache(stores=[DiskStore(tmp_path / "disk"), store], memory_entries=1, timer=lambda: timer[0])
    phases = {"up": range(20), "down": range(20, 40), "up again": range(40, 60)}
    for phase, numbers in phases.items():
        if phase == "down":
            own_server.stop()
        elif phase == "up again":
            own_server.start()
            timer[0] += 60
        for n in numbers:
            assert cache.get(str(n)) is MISS
            cache.set(str(n), kept(f"answer {n}"))
            assert {cache.get(str(m)).kept.reply.text == f"answer {m}" for m in range(n + 1)} == {True}
    there = [n for n in range(60) if store.get(str(n)) is not MISS]
    assert there == [*phases["up"], *phases["up again"]]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    cache.close()


def test_a_machine_without_the_answers_gets_them_from_redis_after_its_restart(own_server, tmp_path):
    ResponseCache(tmp_path / "one", url=own_server.url).set("key", kept())
    own_server.stop()
    timer = [0.0]
    other = ResponseCache(tmp_path / "two", url=own_server.url, timer=lambda: timer[0])
    assert other.get("key") is MISS
    own_server.start()
    timer[0] += 1
    assert other.get("key") == Found(kept(), "redis")
    assert ResponseCache(tmp_path / "two").get("key") == Found(kept(), "disk")


def test_an_answer_kept_while_redis_was_down_is_replaced_nowhere_by_an_older_one(own_server, tmp_path):
    timer = [0.0]
    cache = ResponseCache(tmp_path / "disk", url=own_server.url, memory_entries=1, timer=lambda: timer[0])
    cache.set("key", kept("old"))
    own_server.stop()
    cache.set("key", replace(kept("new"), at=2000.0))
    own_server.start()
    timer[0] += 60
    cache.set("another", kept())
    assert cache.get("key").kept.reply.text == "new"
