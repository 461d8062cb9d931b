"""Single flight between processes and machines: a folder or a Redis is what they share."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import httpx
import pytest

from servers.chat_completions import ChatService
from servers.http import Answer, Gate
from servers.redis import RedisServer
from toolkit.cache import ResponseCache
from toolkit.cache.base import MISS, Found
from toolkit.cache.claims import Claim
from toolkit.cache.disk import DiskStore
from toolkit.cache.flights import Landed
from toolkit.cache.guards import FILE_NAME, Guards
from toolkit.cache.redis import RedisStore
from toolkit.client import AsyncClient, Client
from toolkit.types import Kept, Reply

KEPT = Kept(reply=Reply(text="Elbe", finish_reason="stop"), at=1000.0, latency_s=0.5)
MODEL = "openai_compatible/m"
LEASE_S = 1.0
WORKER = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
from toolkit.cache import ResponseCache
from toolkit.cache.disk import DiskStore
from toolkit.cache.redis import RedisStore
from toolkit.client import AsyncClient, Client

driver, url, shared, callers, lease_s = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
store = RedisStore(shared, lease_s=lease_s) if "://" in shared else DiskStore(shared)
options = {"base_urls": {"openai_compatible": url + "/v1"}, "cache": ResponseCache(stores=[store]), "journal": False}
print("asking", flush=True)
if driver == "threads":
    client = Client(**options)
    with ThreadPoolExecutor(callers) as pool:
        done = list(pool.map(lambda _: client.generate_text("openai_compatible/m", "same"), range(callers)))
else:
    async def main():
        async with AsyncClient(**options) as client:
            return await asyncio.gather(*(client.generate_text("openai_compatible/m", "same") for _ in range(callers)))
    done = asyncio.run(main())
print(json.dumps([[one.text, one.provenance] for one in done]))
"""


@pytest.fixture
def redis_server(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


@pytest.fixture(params=["a folder", "a Redis"])
def shared(request, tmp_path):
    return str(tmp_path / "cache") if request.param == "a folder" else request.getfixturevalue("redis_server").url


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def service(gate):
    def held_up(_request, good):
        return Answer(good.status, good.headers, good.writes, good.framing, before=(gate,))

    with ChatService(fault=held_up).serve() as server:
        yield server


def start(driver, server, shared, callers):
    command = [sys.executable, "-c", WORKER, driver, server.url, shared, str(callers), str(LEASE_S)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "asking\n", worker.communicate()[1]
    return worker


def answers(worker):
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    return json.loads(out)


def test_64_identical_callers_in_4_processes_make_one_call(service, gate, shared):
    workers = [start(driver, service, shared, 16) for driver in ("threads", "an event loop") * 2]
    gate.reached.wait(20)
    gate.opened.set()
    done = [answer for worker in workers for answer in answers(worker)]
    assert len(service.requests) == 1
    assert len(done) == 64
    assert len({text for text, _ in done}) == 1
    assert [provenance for _, provenance in done].count("live") == 1


def test_killing_the_leader_costs_exactly_one_more_call(service, gate, shared):
    leader = start("threads", service, shared, 1)
    gate.reached.wait(20)
    others = [start("threads", service, shared, 4) for _ in range(2)]
    leader.kill()
    leader.communicate()
    while len(service.requests) < 2:
        pass  # until one of the others has taken over
    gate.opened.set()
    done = [answer for worker in others for answer in answers(worker)]
    assert len(service.requests) == 2
    assert [provenance for _, provenance in done].count("live") == 1


def test_a_cancelled_waiter_disturbs_neither_the_leader_nor_the_others(service, gate, tmp_path):
    """Three tasks wait for another process; the one that holds this process's place is cancelled."""
    leader = start("threads", service, str(tmp_path), 1)
    gate.reached.wait(20)

    async def main():
        async with AsyncClient(
            base_urls={"openai_compatible": service.url + "/v1"}, cache=ResponseCache(tmp_path), journal=False
        ) as client:
            tasks = [asyncio.create_task(client.generate_text(MODEL, "same")) for _ in range(3)]
            while len(client.cache.flights) != 1:
                await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.gather(tasks[0], return_exceptions=True)
            gate.opened.set()
            return await asyncio.gather(*tasks[1:])

    assert {done.provenance for done in asyncio.run(main())} <= {"coalesced", "replayed"}
    assert answers(leader)[0][1] == "live"
    assert len(service.requests) == 1


def test_an_event_loop_runs_on_while_one_of_its_calls_waits_for_another_process(service, gate, tmp_path):
    guard = DiskStore(tmp_path).guard(key_asked(service, tmp_path))
    assert guard.take()
    gate.opened.set()

    async def main():
        turns = 0
        async with AsyncClient(
            base_urls={"openai_compatible": service.url + "/v1"}, cache=ResponseCache(tmp_path), journal=False
        ) as client:
            waiting = asyncio.create_task(client.generate_text(MODEL, "same"))
            while len(client.cache.flights) != 1:
                await asyncio.sleep(0)
            while turns < 1000:
                await asyncio.sleep(0)
                turns += 1
            assert not waiting.done()
            guard.release()
            return await waiting

    assert asyncio.run(main()).provenance == "live"


def key_asked(service, folder):
    """The key of the question, seen by a cache that is asked for it."""
    asked = []

    class Spy(ResponseCache):
        def peek(self, key):
            asked.append(key)
            return MISS

    with Client(base_urls={"openai_compatible": service.url + "/v1"}, cache=Spy(), journal=False) as client:
        with pytest.raises(Exception, match="kept"):
            client.generate_text(MODEL, "same", cache="only")
    return asked[0]


def test_two_caches_of_one_process_on_one_folder_ask_once(tmp_path):
    first, second = (ResponseCache(tmp_path).claim("key") for _ in range(2))
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert second.kept is None


def test_who_gets_the_claim_after_waiting_finds_what_the_other_one_kept(tmp_path):
    one, other = ResponseCache(tmp_path), ResponseCache(tmp_path)
    first, second = one.claim("key"), other.claim("key")
    first.take()
    assert not second.take()
    one.set("key", KEPT)
    first.release()
    assert second.take()
    assert second.kept == KEPT
    stats = other.stats()
    assert (stats.coalesced, stats.hits, stats.saved_s) == (1, 0, 0.5)
    assert other.peek("key") == Found(KEPT, "memory")


def test_a_claim_that_was_released_takes_nothing_any_more(tmp_path):
    claim = ResponseCache(tmp_path).claim("key")
    claim.release()
    assert not claim.take()
    assert ResponseCache(tmp_path).claim("key").take()


def test_a_cache_in_memory_has_nothing_to_claim():
    assert ResponseCache().claim("key") is None


class Turnstile:
    """A lock that is taken right before the user interrupts."""

    blocks, held = False, False

    def take(self):
        self.held = True
        raise KeyboardInterrupt

    def release(self):
        self.held = False


def test_a_lock_that_was_taken_when_the_interrupt_came_is_given_back():
    turnstile = Turnstile()
    claim = Claim([turnstile], lambda: None, blocks=False)
    with pytest.raises(KeyboardInterrupt):
        claim.take()
    assert turnstile.held
    claim.release()
    assert not turnstile.held


@pytest.mark.parametrize("shut", [asyncio.CancelledError, KeyboardInterrupt])
def test_a_call_that_ends_early_leaves_no_lock_behind(redis_server, shut):
    cache = ResponseCache(stores=[RedisStore(redis_server.url)])

    class Interrupting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise shut

    async def main():
        async with AsyncClient(
            base_urls={"openai_compatible": "http://one.invalid/v1"}, cache=cache, journal=False, transport=Interrupting
        ) as client:
            await client.generate_text(MODEL, "same")

    with pytest.raises(shut):
        asyncio.run(main())
    with redis_server.client() as client:
        assert client.keys("toolkit:v1:lock:*") == []


def test_only_a_claim_on_a_folder_alone_is_taken_on_an_event_loop_itself(tmp_path):
    class Shelf(DiskStore):
        """A store that somebody wrote, without locks."""

        guard = None

    disk, shelf, redis = DiskStore(tmp_path), Shelf(tmp_path / "shelf"), RedisStore("redis://localhost")
    blocks = [ResponseCache(stores=stores).claim("key").blocks for stores in ([disk], [disk, shelf], [disk, redis])]
    assert blocks == [False, True, True]


def test_pauses_between_two_tries_grow_to_a_twentieth_of_a_second(tmp_path):
    claim = ResponseCache(tmp_path).claim("key")
    assert [claim.pause_s() for _ in range(7)] == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


def test_a_tier_whose_locks_do_not_work_holds_nobody_up(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ResponseCache(tmp_path / "file" / "cache")
    assert cache.get("key") is MISS
    claim = cache.claim("key")
    assert claim.take()
    assert claim.kept is None
    claim.release()
    assert len(caplog.records) == 1


def test_locks_follow_a_folder_that_was_removed(tmp_path):
    guards = Guards(tmp_path / "cache")
    first = guards.guard("key")
    assert first.take()
    shutil.rmtree(tmp_path / "cache")
    second, third = guards.guard("key"), Guards(tmp_path / "cache").guard("key")
    assert second.take()
    assert not third.take()
    first.release()
    assert not third.take()
    second.release()
    assert third.take()


def test_a_lock_file_is_its_owners_alone(tmp_path):
    Guards(tmp_path / "cache").guard("key").take()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_forked_child_has_none_of_its_parents_locks(tmp_path):
    if not hasattr(os, "fork"):
        return
    guards = Guards(tmp_path)
    mine = guards.guard("key")
    assert mine.take()
    child = os.fork()
    if child == 0:
        shut_out = not guards.guard("key").take()
        free = guards.guard("another").take()
        os._exit(0 if shut_out and free else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not guards.guard("key").take()
    mine.release()
    assert guards.guard("key").take()


def test_many_threads_never_hold_one_lock_at_once(tmp_path):
    guards, inside, most = [Guards(tmp_path), Guards(tmp_path)], [], []

    def work(number):
        for _ in range(100):
            guard = guards[number % 2].guard("key")
            while not guard.take():
                pass
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)
            guard.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(most), max(most)) == (400, 1)


# --- Redis: leases and fences ------------------------------------------------------------------------------------------------


def test_a_lease_that_is_not_renewed_ends(redis_server):
    store = RedisStore(redis_server.url, lease_s=0.2)
    with redis_server.client() as client:
        client.set("toolkit:v1:lock:key", "somebody who died", px=200)
    guard = store.guard("key")
    assert any(guard.take() or time.sleep(0.01) for _ in range(2_000)), "the lease of somebody who died is held for ever"
    guard.release()
    store.close()


def test_a_lease_is_renewed_for_as_long_as_it_is_held(redis_server):
    store = RedisStore(redis_server.url, lease_s=0.3)
    guard = store.guard("key")
    assert guard.take()
    with redis_server.client() as client:
        client.pexpire("toolkit:v1:lock:key", 100_000)
        while client.pttl("toolkit:v1:lock:key") > 300:
            pass  # until it was renewed, which sets its end anew
    guard.release()
    assert store.guard("key").take()
    store.close()


def test_a_lock_that_the_server_forgot_is_taken_again_by_who_holds_it(redis_server):
    store = RedisStore(redis_server.url, lease_s=0.3)
    guard = store.guard("key")
    guard.take()
    with redis_server.client() as client:
        client.flushall()
        while not client.exists("toolkit:v1:lock:key"):
            pass
    assert not RedisStore(redis_server.url).guard("key").take()
    store.close()


def test_giving_back_a_lock_that_somebody_else_has_by_now_leaves_it_to_them(redis_server):
    store = RedisStore(redis_server.url)
    guard = store.guard("key")
    guard.take()
    with redis_server.client() as client:
        client.set("toolkit:v1:lock:key", "somebody else")
        guard.release()
        assert client.get("toolkit:v1:lock:key") == b"somebody else"
    store.close()


def test_who_was_stopped_for_longer_than_its_lease_does_not_overwrite_its_successors_answer(redis_server):
    slow, quick = RedisStore(redis_server.url), RedisStore(redis_server.url)
    stopped = slow.guard("key")
    stopped.take()
    with redis_server.client() as client:
        client.delete("toolkit:v1:lock:key")  # the lease has ended
    successor = quick.guard("key")
    assert successor.take()
    quick.set("key", b'"new"')
    successor.release()
    slow.set("key", b'"old"')
    assert quick.get("key") == b'"new"'
    stopped.release()
    slow.set("key", b'"asked again"')
    assert quick.get("key") == b'"asked again"'
    slow.close()
    quick.close()


def test_what_was_paid_for_is_kept_although_the_lease_was_lost(redis_server):
    store = RedisStore(redis_server.url)
    guard = store.guard("key")
    guard.take()
    with redis_server.client() as client:
        client.flushall()
    store.set("key", b'"paid for"')
    assert store.get("key") == b'"paid for"'
    store.close()


def test_a_forked_child_renews_no_lease_of_its_parent(redis_server):
    if not hasattr(os, "fork"):
        return
    store = RedisStore(redis_server.url)
    guard = store.guard("key")
    guard.take()
    child = os.fork()
    if child == 0:
        store.set("child", b'"works"')
        os._exit(0 if not store._leases._held and store.guard("another").take() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get("child") == b'"works"'
    store.close()


def test_followers_in_this_process_take_what_another_process_brought(tmp_path):
    one, other = ResponseCache(tmp_path), ResponseCache(tmp_path)
    leader, follower = other.flights.join("key"), other.flights.join("key")
    one.set("key", KEPT)
    claim = other.claim("key")
    claim.take()
    leader.land(claim.kept)
    assert follower.wait() == Landed(KEPT)
    assert other.stats().coalesced == 2
