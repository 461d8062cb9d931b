"""``memoize``: functions, coroutine functions, methods, and results that outlive the process."""

import asyncio
import gc
import inspect
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections import namedtuple
from dataclasses import dataclass
from typing import ClassVar

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest

from toolkit.cache import Cache, LRUCache, memoize
from toolkit.errors import CacheError, ConfigError

Point = namedtuple("Point", "x")


@dataclass(frozen=True)
class Spot:
    x: object


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def counted(fn=None, **options):
    """A memoized function that notes its calls."""
    calls = []

    @memoize(**options)
    def work(*args, **kwargs):
        calls.append((args, kwargs))
        return fn(*args, **kwargs) if fn else len(calls)

    return work, calls


def in_threads(*works):
    results = [None] * len(works)

    def run(place, work):
        try:
            results[place] = work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_a_second_call_is_answered_without_work():
    work, calls = counted()
    assert [work(1), work(1), work(2)] == [1, 1, 2]
    assert len(calls) == 2
    assert (work.stats().hits, work.stats().misses, work.stats().size) == (1, 2, 2)


def test_it_decorates_with_and_without_options_and_keeps_the_name():
    @memoize
    def plain(x):
        """Say x."""
        return x

    assert (plain.__name__, plain.__doc__, plain(1)) == ("plain", "Say x.", 1)
    assert str(inspect.signature(plain)) == "(x)"
    assert memoize(len, max_size=3)("abc") == 3


def test_equal_calls_are_one_however_they_are_written():
    calls = []

    @memoize
    def work(a, b=2, *, c=3):
        calls.append((a, b, c))
        return len(calls)

    results = {work(1), work(a=1), work(1, 2), work(1, b=2), work(b=2, a=1), work(1, c=3), work(1, 2, c=3)}
    assert results == {1}
    assert work(1, 3) == 2
    assert work(1, c=4) == 3
    assert calls == [(1, 2, 3), (1, 3, 3), (1, 2, 4)]


def test_order_of_free_keyword_arguments_does_not_matter():
    work, calls = counted()
    assert work(1, x=1, y=2) == work(1, y=2, x=1)
    assert len(calls) == 1
    assert work(1, ("x", 1)) != work(1, x=1)


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, True),
        ((1,), (1.0,), (True,)),
        (frozenset({1}), frozenset({True})),
        (Point(1), (1,), Point(True)),
        (Spot(1), Spot(True), Spot((1,)), Spot((True,))),
        ("1", 1, b"1"),
    ],
    ids=repr,
)
def test_equal_values_of_different_types_are_different_calls(values):
    one = memoize(repr)
    many = memoize(lambda *x: repr(x))
    assert [one(value) for value in values] == [repr(value) for value in values]
    assert [many(value) for value in values] == [repr((value,)) for value in values]


@pytest.mark.parametrize("call", [lambda f: f(), lambda f: f(1, 2, 3), lambda f: f(1, a=1), lambda f: f(1, z=1), lambda f: f(b=2)])
def test_a_call_the_function_would_refuse_is_refused(call):
    @memoize
    def work(a, b=2):
        return a

    with pytest.raises(TypeError, match="argument"):
        call(work)


def test_unhashable_arguments_are_refused_with_advice():
    work, _ = counted()
    with pytest.raises(TypeError, match=r"called with a list, which can't be hashed.*key= function"):
        work([1])


def test_a_key_function_makes_anything_tellable():
    work, calls = counted(key=lambda rows, **_: tuple(rows))
    assert work([1, 2]) == work([1, 2], verbose=True)
    assert len(calls) == 1
    assert work.forget([1, 2])


def test_an_unhashable_default_is_no_obstacle():
    calls = []

    @memoize
    def work(a, options=[]):  # noqa: B006 - what users write
        calls.append(a)
        return a

    assert [work(1), work(1), work(a=1)] == [1, 1, 1]
    assert calls == [1]


def test_results_cannot_be_changed_behind_the_caches_back():
    work, _ = counted(lambda n: [n])
    first = work(1)
    first.append("changed by the first caller")
    work(1).append("changed by the second")
    assert work(1) == [1]


def test_a_result_that_cannot_be_copied_needs_a_cache_that_shares():
    work, _ = counted(threading.Lock)
    with pytest.raises(TypeError, match="can't be copied"):
        work()
    shared, _ = counted(threading.Lock, store=LRUCache(10, copy=False))
    assert shared() is shared()


def test_exceptions_are_not_remembered():
    outcomes = iter([ValueError("first"), "second"])

    def moody():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    work, calls = counted(moody)
    with pytest.raises(ValueError, match="first"):
        work()
    assert [work(), work()] == ["second", "second"]
    assert len(calls) == 2


def test_none_is_remembered():
    work, calls = counted(lambda: None)
    assert [work(), work()] == [None, None]
    assert len(calls) == 1


def test_results_expire_and_make_room():
    clock = Clock()
    work, calls = counted(store=LRUCache(2, timer=clock), ttl_s=10)
    work(1)
    clock.now = 10
    work(1)
    assert len(calls) == 2
    work(2)
    work(3)
    assert work.stats().size == 2
    work(1)
    assert len(calls) == 5


def test_forgetting_one_result_leaves_the_others():
    work, calls = counted()
    work(1)
    work(2)
    assert work.forget(1)
    assert not work.forget(1)
    work(1)
    work(2)
    assert len(calls) == 3
    work.clear()
    assert work.stats().size == 0


def test_functions_that_share_a_cache_do_not_mix_their_results():
    shared = Cache(max_size=10)
    one, other = memoize(lambda x: "one", store=shared), memoize(lambda x: "other", store=shared)
    assert (one(1), other(1), one(1)) == ("one", "other", "one")
    one.clear()
    assert len(shared) == 1
    assert shared.stats().hits == 1


def test_of_many_threads_one_works():
    begun, release = threading.Event(), threading.Event()

    def slow(x):
        begun.set()
        release.wait(30)
        return [x]

    work, calls = counted(slow)

    def let_go():
        begun.wait(30)
        while sum(len(course.bells) for course in flights_of(work)._airborne.values()) < 7:
            pass
        release.set()

    *results, _ = in_threads(*[lambda: work(1)] * 8, let_go)
    assert results == [[1]] * 8
    assert len(calls) == 1
    assert len({id(result) for result in results}) == 8


def flights_of(work):
    return work.clear.__self__.flights


def test_waiting_threads_get_the_error_of_the_one_that_worked():
    begun, release = threading.Event(), threading.Event()

    def slow(x):
        begun.set()
        release.wait(30)
        raise ValueError("broken")

    work, calls = counted(slow)

    def let_go():
        begun.wait(30)
        while sum(len(course.bells) for course in flights_of(work)._airborne.values()) < 3:
            pass
        release.set()

    *errors, _ = in_threads(*[lambda: work(1)] * 4, let_go)
    assert [str(error) for error in errors] == ["broken"] * 4
    assert len({id(error) for error in errors}) == 4
    assert len(calls) == 1


def test_a_result_forgotten_while_it_was_worked_out_is_not_kept():
    begun, release = threading.Event(), threading.Event()

    def slow(x):
        begun.set()
        release.wait(30)
        return x

    work, calls = counted(slow)

    def forget():
        begun.wait(30)
        work.clear()
        release.set()

    assert in_threads(lambda: work(1), forget)[0] == 1
    work(1)
    assert len(calls) == 2


def test_a_function_may_call_itself():
    @memoize
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1548008755920
    assert fibonacci.stats().misses == 61


def test_a_function_that_asks_itself_the_same_again_does_not_wait_for_itself():
    depth = []

    @memoize
    def work(x):
        depth.append(x)
        return work(x) + 1 if len(depth) < 3 else 0

    assert work(1) == 2


def test_of_many_tasks_one_works():
    calls = []

    @memoize
    async def work(x):
        calls.append(x)
        await asyncio.sleep(0)
        return [x]

    async def main():
        return await asyncio.gather(*[work(1) for _ in range(10)])

    assert inspect.iscoroutinefunction(work)
    results = asyncio.run(main())
    assert results == [[1]] * 10
    assert len({id(result) for result in results}) == 10
    assert calls == [1]
    assert asyncio.run(work(1)) == [1]
    assert calls == [1]


def test_a_cancelled_leader_costs_one_more_call_and_cancels_nobody_else():
    calls = []

    @memoize
    async def work(x):
        calls.append(x)
        if len(calls) == 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "answer"

    async def main():
        leader, *others = [asyncio.create_task(work(1)) for _ in range(5)]
        while not calls:
            await asyncio.sleep(0)
        leader.cancel()
        return await asyncio.gather(leader, *others, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert others == ["answer"] * 4
    assert len(calls) == 2


def test_exceptions_of_coroutine_functions_are_not_remembered():
    calls = []

    @memoize
    async def work():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("first")
        return "second"

    with pytest.raises(ValueError, match="first"):
        asyncio.run(work())
    assert asyncio.run(work()) == "second"


class Station:
    def __init__(self, name):
        self.name = name
        self.calls = 0

    @memoize
    def measure(self, x=1):
        self.calls += 1
        return (self.name, x)

    @memoize
    async def measure_later(self, x=1):
        self.calls += 1
        return (self.name, x)

    @staticmethod
    @memoize
    def unit(x):
        return x

    @classmethod
    @memoize
    def kind(cls, x):
        return (cls.__name__, x)


@dataclass
class Unhashable:
    x: int
    calls: int = 0

    @memoize
    def twice(self):
        self.calls += 1
        return 2 * self.x


def test_methods_remember_by_instance():
    one, other = Station("one"), Station("other")
    assert [one.measure(), one.measure(x=1), other.measure(), one.measure(2)] == [("one", 1), ("one", 1), ("other", 1), ("one", 2)]
    assert (one.calls, other.calls) == (2, 1)
    assert asyncio.run(one.measure_later()) == asyncio.run(one.measure_later(1)) == ("one", 1)
    assert one.calls == 3
    assert (Station.unit(1), one.unit(1), Station.kind(1), one.kind(1)) == (1, 1, ("Station", 1), ("Station", 1))
    assert Station.measure.forget(one, 2)


def test_instances_need_not_be_hashable_and_equal_ones_are_told_apart():
    one, twin = Unhashable(1), Unhashable(1)
    assert [one.twice(), one.twice(), twin.twice()] == [2, 2, 2]
    assert (one.calls, twin.calls) == (1, 1)


def test_remembering_keeps_no_instance_alive_and_confuses_none_with_a_dead_one():
    watched = []
    for n in range(50):
        station = Station(n)
        assert station.measure() == (n, 1)
        watched.append(weakref.ref(station))
    del station
    gc.collect()
    assert [ref() for ref in watched] == [None] * 50


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        (3, {}, "decorates a function"),
        ((lambda: (yield)), {}, "is a generator"),
        (len, {"ttl_s": 0}, "ttl_s"),
        (len, {"max_size": 0}, "max_size"),
        (len, {"store": "folder"}, "store= is a Cache"),
        (len, {"persist": True}, "can't tell"),
        (lambda x: x, {"persist": True}, "can't tell"),
        (Station.unit, {"persist": True}, "can't tell"),
        (pd.isna, {"persist": True, "key": str}, "leave key= out"),
        (pd.isna, {"persist": True, "store": Cache()}, "is the folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(fn, options, message):
    with pytest.raises(ConfigError, match=message):
        memoize(fn, **options)


kept_calls = []


def describe(frame, scale=1):
    kept_calls.append(scale)
    return frame


async def describe_later(x):
    kept_calls.append(x)
    return [x]


@pytest.fixture
def no_kept_calls():
    kept_calls.clear()
    joblib.memory._FUNCTION_HASHES.clear()


@pytest.mark.parametrize(
    "value",
    [[1, {"a": 2}], np.arange(5), pd.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1, 2], "b": ["x", None]}), pl.Series([1.5])],
    ids=["list", "numpy", "pandas", "polars", "series"],
)
def test_persistent_results_may_be_of_arrays_and_frames_and_outlive_the_decorated_function(tmp_path, no_kept_calls, value):
    for _ in range(2):
        work = memoize(describe, persist=True, store=tmp_path / "memo")
        first, second = work(value), work(frame=value, scale=1)
        assert type(first) is type(second) is type(value)
        assert joblib.hash(first) == joblib.hash(second) == joblib.hash(value)
    assert kept_calls == [1]
    assert work.stats().hits == 1


def test_persistent_coroutine_functions_work_once(tmp_path, no_kept_calls):
    for _ in range(2):
        work = memoize(describe_later, persist=True, store=tmp_path / "memo")

        async def main(work=work):
            return await asyncio.gather(*[work(1) for _ in range(5)])

        assert asyncio.run(main()) == [[1]] * 5
    assert kept_calls == [1]


def test_persistent_results_can_be_forgotten_and_cleared(tmp_path, no_kept_calls):
    work = memoize(describe, persist=True, store=tmp_path / "memo")
    work(1)
    work(2)
    assert work.forget(1)
    assert not work.forget(1)
    again = memoize(describe, persist=True, store=tmp_path / "memo")
    again(1)
    again(2)
    assert len(kept_calls) == 3
    again.clear()
    assert memoize(describe, persist=True, store=tmp_path / "memo")(2) == 2
    assert len(kept_calls) == 4


def test_persistent_results_live_in_the_toolkits_home_unless_told_otherwise(own_home, no_kept_calls):
    memoize(describe, persist=True)(1)
    assert [path.name for path in (own_home / "memo").glob("*.sqlite")] == ["entries-v1.sqlite"]


def test_a_folder_that_cannot_be_used_costs_one_warning_and_the_work_goes_on(tmp_path, no_kept_calls, caplog):
    (tmp_path / "file").write_text("in the way")
    work = memoize(describe, persist=True, store=tmp_path / "file" / "memo")
    with caplog.at_level(logging.WARNING):
        assert [work(1), work(2), work(1)] == [1, 2, 1]
    assert len(caplog.records) == 1
    assert "are not kept on disk" in caplog.text


class Travelling:
    """Notes the threads in which it is pickled and unpickled."""

    packed: ClassVar[list] = []
    unpacked: ClassVar[list] = []

    def __reduce__(self):
        self.packed.append(threading.get_ident())
        return unpack, ()

    def __deepcopy__(self, memo):
        return self


def unpack():
    Travelling.unpacked.append(threading.get_ident())
    return Travelling()


async def travel():
    kept_calls.append(threading.get_ident())
    return Travelling()


def test_a_persistent_coroutine_function_runs_on_its_loop_and_is_read_and_written_elsewhere(tmp_path, no_kept_calls):
    for _ in range(2):
        asyncio.run(memoize(travel, persist=True, store=tmp_path)())
    here = threading.get_ident()
    assert kept_calls == [here]
    assert (len(Travelling.packed), len(Travelling.unpacked)) == (1, 1)
    assert here not in Travelling.packed + Travelling.unpacked


def refuse(reason):
    kept_calls.append(1)
    raise CacheError(reason)


async def refuse_later(reason):
    refuse(reason)


@pytest.mark.parametrize("function", [refuse, refuse_later])
def test_a_persistent_function_that_raises_an_error_of_the_cache_runs_once(tmp_path, no_kept_calls, caplog, function):
    work = memoize(function, persist=True, store=tmp_path)
    with pytest.raises(CacheError, match="no room"):
        asyncio.run(work("no room")) if function is refuse_later else work("no room")
    assert kept_calls == [1]
    assert caplog.records == []


def test_the_life_of_a_persistent_result_counts_from_when_it_was_worked_out(tmp_path, no_kept_calls):
    asyncio.run(memoize(describe_later, persist=True, store=tmp_path, ttl_s=1000)(1))
    rows = sqlite3.connect(tmp_path / "entries-v1.sqlite", isolation_level=None)
    (metadata,) = rows.execute("SELECT metadata FROM entry").fetchone()
    told = json.loads(metadata)
    rows.execute("UPDATE entry SET metadata = ?", (json.dumps(told | {"time": told["time"] - 999.9}).encode(),))
    work = memoize(describe_later, persist=True, store=tmp_path, ttl_s=1000)
    end = time.monotonic() + 20
    while len(kept_calls) < 2:  # a tenth of a second is left of its life, and not a thousand more
        assert asyncio.run(work(1)) == [1]
        assert time.monotonic() < end


def test_persistent_results_survive_the_process_and_follow_the_source(tmp_path):
    script = tmp_path / "script.py"
    source = """
import sys
from toolkit.cache import memoize
@memoize(persist=True, store=sys.argv[1] + "/memo")
def work(x):
    print("working")
    return x + {number}
print(work(1), work(1))
"""
    outputs = []
    for number in (1, 1, 2):
        script.write_text(source.format(number=number))
        done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
        outputs.append(done.stdout.split())
    assert outputs == [["working", "2", "2"], ["2", "2"], ["working", "3", "3"]]
