"""Keeping the answers of event loops: in a thread, and together those that come while it is at work."""

import asyncio
import os
import threading

import pytest

from toolkit.cache import ResponseCache
from toolkit.cache.base import MISS
from toolkit.cache.disk import DiskStore
from toolkit.cache.writing import GroupWriter
from toolkit.types import Kept, Reply

PATIENCE_S = 20.0


def kept(text="Elbe"):
    return Kept(reply=Reply(text=text, finish_reason="stop"), at=1000.0, latency_s=0.5)


class SlowDisk(DiskStore):
    """A disk that writes only when told to, and notes what it wrote together."""

    def __init__(self, folder):
        super().__init__(folder)
        self.groups, self.writing, self.go_on = [], threading.Event(), threading.Event()

    def set_all(self, values):
        self.writing.set()
        assert self.go_on.wait(PATIENCE_S)
        self.groups.append(sorted(key for key, _, _ in values))
        super().set_all(values)


@pytest.fixture
def disk(tmp_path):
    disk = SlowDisk(tmp_path)
    yield disk
    disk.go_on.set()
    disk.close()


async def reached(event):
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


def test_answers_that_come_during_a_write_are_written_together(disk):
    writer = GroupWriter(ResponseCache(stores=[disk]))

    async def keep_four():
        first = asyncio.create_task(writer.keep("a", kept()))
        await reached(disk.writing)
        others = [asyncio.create_task(writer.keep(key, kept(key))) for key in "bcd"]
        await asyncio.sleep(0)
        disk.go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(keep_four())
    assert disk.groups == [["a"], ["b", "c", "d"]]
    assert ResponseCache(stores=[disk]).get("c").kept.reply.text == "c"


def test_nobody_is_told_before_the_answer_is_on_disk(disk):
    writer = GroupWriter(ResponseCache(stores=[disk]))

    async def keep_one():
        waiting = asyncio.create_task(writer.keep("a", kept()))
        await reached(disk.writing)
        assert not waiting.done()
        disk.go_on.set()
        await waiting
        return disk.get("a")

    assert asyncio.run(keep_one()) is not MISS


def test_the_answer_of_a_caller_who_is_cancelled_is_kept_all_the_same(disk):
    writer = GroupWriter(ResponseCache(stores=[disk]))

    async def keep_and_leave():
        leaving = asyncio.create_task(writer.keep("a", kept()))
        staying = asyncio.create_task(writer.keep("b", kept()))
        await reached(disk.writing)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        disk.go_on.set()
        await staying
        return leaving.cancelled()

    assert asyncio.run(keep_and_leave())
    assert disk.get("a") is not MISS


def test_a_loop_that_ends_meanwhile_does_not_hold_up_the_others(disk):
    writer = GroupWriter(ResponseCache(stores=[disk]))

    async def begin():
        waiting = asyncio.create_task(writer.keep("a", kept()))
        await reached(disk.writing)
        return waiting.cancel()

    asyncio.run(begin())
    disk.go_on.set()
    asyncio.run(writer.keep("b", kept()))
    assert disk.get("a") is not MISS and disk.get("b") is not MISS


def test_a_store_without_writing_in_one_go_takes_them_one_by_one(tmp_path):
    class OneByOne:
        name = "disk"

        def __init__(self):
            self.values = {}

        def set(self, key, value, ttl_s=None):
            self.values[key] = value

    store = OneByOne()
    ResponseCache(stores=[store]).set_all([("a", kept()), ("b", kept())])
    assert sorted(store.values) == ["a", "b"]


def test_many_answers_at_once_are_all_there(tmp_path):
    cache = ResponseCache(tmp_path)
    writer = GroupWriter(cache)

    async def keep_all():
        await asyncio.gather(*(writer.keep(f"key {i}", kept(f"answer {i}")) for i in range(100)))

    asyncio.run(keep_all())
    again = ResponseCache(tmp_path)
    assert [again.get(f"key {i}").kept.reply.text for i in range(100)] == [f"answer {i}" for i in range(100)]
    assert again.stats().tiers[1].entries == 100


def test_a_forked_child_writes_with_a_thread_of_its_own(tmp_path):
    writer = GroupWriter(ResponseCache(tmp_path))
    asyncio.run(writer.keep("parent", kept()))
    child = os.fork()
    if child == 0:
        asyncio.run(writer.keep("child", kept()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ResponseCache(tmp_path).get("child") is not MISS
