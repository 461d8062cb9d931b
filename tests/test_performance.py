"""The performance monitor: exact figures, buckets with a known error, and what is timed of each kind of function."""

import asyncio
import functools
import inspect
import json
import math
import multiprocessing
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import monitor
from toolkit.errors import ConfigError
from toolkit.monitor.performance import OTHER, PerformanceMonitor, performance_monitor, with_performance_monitoring
from toolkit.monitor.sketch import EXACT_VALUES, RELATIVE_ERROR, SMALLEST, Sketch

LEVELS = (0.0, 0.01, 0.5, 0.95, 0.99, 1.0)


class Ticks:
    """A clock that goes on only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def perf(ticks):
    return PerformanceMonitor(timer=ticks)


@pytest.fixture(autouse=True)
def clean_default():
    performance_monitor.clear()
    yield
    performance_monitor.clear()


def sketch_of(values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def shape(sketch):
    return sketch.count, sketch.min, sketch.max, sketch.percentiles(*LEVELS)


# The sketch against numpy


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=EXACT_VALUES))
def test_few_values_give_the_percentiles_of_numpy_s_type_7(values):
    sketch = sketch_of(values)
    assert sketch.exact
    assert np.allclose(sketch.percentiles(*LEVELS), np.quantile(values, LEVELS, method="linear"), rtol=1e-12, atol=1e-300)


durations = st.one_of(
    st.tuples(st.just("lognormal"), st.floats(-9, 5), st.floats(0.01, 3)),
    st.tuples(st.just("uniform"), st.floats(0, 1), st.floats(1, 1e4)),
    st.tuples(st.just("two"), st.floats(1e-9, 1e-3), st.floats(1, 1e6)),
    st.tuples(st.just("same"), st.floats(0, 1e9), st.just(0.0)),
)


def drawn(kind, a, b, size, seed):
    random = np.random.default_rng(seed)
    return {
        "lognormal": lambda: random.lognormal(a, b, size),
        "uniform": lambda: random.uniform(a, b, size),
        "two": lambda: np.where(random.random(size) < 0.95, a, b),
        "same": lambda: np.full(size, a),
    }[kind]()


@settings(deadline=None, max_examples=80)
@given(durations, st.integers(EXACT_VALUES + 1, 4000), st.integers(0, 2**32 - 1))
def test_many_values_give_percentiles_at_most_one_percent_off_numpy_s(kind, size, seed):
    values = drawn(*kind, size, seed)
    sketch = sketch_of(values.tolist())
    assert not sketch.exact
    expected = np.quantile(values, LEVELS, method="linear")
    allowed = expected * RELATIVE_ERROR * (1 + 1e-9) + SMALLEST
    assert (np.abs(np.array(sketch.percentiles(*LEVELS)) - expected) <= allowed).all()
    assert sketch.mean == pytest.approx(values.mean(), rel=1e-9)
    assert (sketch.min, sketch.max) == (values.min(), values.max())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_merged_parts_are_the_whole_in_any_order(sizes, seed):
    parts = [np.random.default_rng(seed + i).lognormal(0, 2, size).tolist() for i, size in enumerate(sizes)]
    whole = sketch_of([value for part in parts for value in part])
    for order in (parts, parts[::-1]):
        merged = Sketch()
        for part in order:
            merged.merge(sketch_of(part))
        assert (merged.count, merged.min, merged.max, merged.exact) == (whole.count, whole.min, whole.max, whole.exact)
        assert merged.percentiles(*LEVELS) == pytest.approx(whole.percentiles(*LEVELS), nan_ok=True)
        assert merged.sum == pytest.approx(whole.sum)


def test_merging_leaves_the_other_as_it_was():
    other = sketch_of([1.0, 2.0])
    before = shape(other)
    sketch_of([3.0] * 600).merge(other)
    sketch_of([3.0]).merge(other)
    assert shape(other) == before


def test_the_last_exact_value_and_the_first_bucketed_one():
    values = [float(number) for number in range(1, EXACT_VALUES + 1)]
    assert sketch_of(values).exact
    assert not sketch_of([*values, 1.0]).exact


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-10, 1e-9, 1.0, 1e300, 1.7e308])
def test_values_at_the_ends_of_the_number_line_are_counted(value):
    sketch = sketch_of([value] * 600)
    assert sketch.percentile(0.5) == value  # all the same: between the smallest and the largest lies nothing else


def test_the_buckets_are_few_however_many_values_there_are():
    sketch = sketch_of(np.geomspace(1e-9, 1e3, 100_000).tolist())
    assert len(sketch._buckets) <= 1400
    assert len(sketch._values) == 0


def test_an_empty_sketch_has_no_percentile_and_no_mean():
    assert math.isnan(Sketch().percentile(0.5))
    assert math.isnan(Sketch().mean)


# Recording


def test_stats_have_count_mean_extremes_and_percentiles(perf):
    for number in range(1, 101):
        perf.record("load", number / 100)
    stats = perf.stats("load")
    assert (stats.count, stats.min, stats.max, stats.exact) == (100, 0.01, 1.0, True)
    assert stats.mean == pytest.approx(0.505)
    assert [stats.p50, stats.p95, stats.p99] == pytest.approx([0.505, 0.9505, 0.9901])


def test_tags_tell_series_apart_and_stats_put_them_together(perf):
    perf.record("call", 1.0, model="a", tier="memory")
    perf.record("call", 2.0, tier="disk", model="a")
    perf.record("call", 9.0, model="b")
    assert perf.stats("call").count == 3
    assert perf.stats("call", model="a").mean == 1.5
    assert perf.stats("call", model="a", tier="disk").max == 2.0
    assert perf.metrics()["call"] == perf.stats("call")


def test_any_name_of_a_tag_will_do(perf):
    perf.record("call", 1.0, name="n", self="s", seconds="1")
    perf.start_timer("call", name="n", self="s")()
    assert perf.stats("call", name="n").count == 2


def test_a_secret_among_the_tags_is_not_kept(perf):
    perf.record("call", 1.0, api_key="abc", url="https://x?key=Canary7731")
    assert "Canary" not in repr(perf.frame()["tags"].tolist())
    assert json.loads(perf.frame().loc[0, "tags"]) == {"api_key": "[redacted]", "url": "https://x?key=[redacted]"}


def test_an_unknown_metric_is_refused_with_the_known_ones(perf):
    with pytest.raises(ConfigError, match="unknown metric 'x'; known: none yet"):
        perf.stats("x")
    perf.record("b", 1)
    perf.record("a", 1, model="m")
    with pytest.raises(ConfigError, match="unknown metric 'x'; known: a, b"):
        perf.stats("x")
    with pytest.raises(ConfigError, match=r"metric 'a' has no values with model=n; its tags: model=m"):
        perf.stats("a", model="n")


@pytest.mark.parametrize("seconds", [-1, -1e-12, math.nan, math.inf, -math.inf, "fast", None, 10**400])
def test_what_is_no_duration_is_refused(perf, seconds):
    with pytest.raises(ConfigError, match="seconds="):
        perf.record("load", seconds)
    assert perf.metrics() == {}


@pytest.mark.parametrize("seconds", [1, np.float32(1), np.int64(1), Fraction(1), True])
def test_any_kind_of_number_is_a_duration(perf, seconds):
    perf.record("load", seconds)
    assert perf.stats("load").mean == 1.0


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_metric_without_a_name_is_refused(perf, name):
    with pytest.raises(ConfigError, match="needs a name"):
        perf.record(name, 1.0)
    with pytest.raises(ConfigError, match="needs a name"):
        perf.start_timer(name)


def test_series_are_bounded_and_nothing_is_lost():
    perf = PerformanceMonitor(max_series=10)
    for number in range(50):
        perf.record("call", 1.0, user=number)
    for number in range(50):
        perf.record(f"metric-{number}", 1.0, user=number)
    assert len(perf.frame()) <= 12
    assert perf.stats("call").count == 50
    assert perf.stats("call", overflow="true").count == 40
    assert perf.stats(OTHER).count == 50


def test_clear_makes_room_again():
    perf = PerformanceMonitor(max_series=1)
    perf.record("a", 1.0)
    perf.clear()
    perf.record("b", 1.0)
    assert list(perf.metrics()) == ["b"]


def test_a_frame_has_a_row_a_series_and_the_same_types_when_empty(perf):
    empty, empty_polars = perf.frame().dtypes, perf.frame.polars().schema
    perf.record("b", 2.0)
    perf.record("a", 1.0, model="m")
    frame = perf.frame()
    assert list(frame.dtypes) == list(empty)
    assert frame[["metric", "tags", "count", "p50_s", "exact"]].to_numpy().tolist() == [
        ["a", '{"model": "m"}', 1, 1.0, "yes"],
        ["b", "{}", 1, 2.0, "yes"],
    ]
    assert perf.frame.polars().schema == empty_polars
    assert perf.frame.polars()["metric"].to_list() == ["a", "b"]


def test_threads_lose_no_value(perf):
    def record():
        for _ in range(500):
            perf.record("x", 1.0)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert perf.stats("x").count == 4000


def record_and_say(perf, said):
    perf.record("x", 1.0)
    said.send(perf.stats("x").count)


def test_a_child_forked_while_another_thread_holds_the_lock_can_record(perf):
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    held, done = threading.Event(), threading.Event()

    def hold():
        with perf._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait()
    child = context.Process(target=record_and_say, args=(perf, its), daemon=True)
    child.start()
    assert mine.poll(30), "the child waits for a lock that nobody holds"
    done.set()
    holder.join()
    child.join()
    assert mine.recv() == 1


# Timers


def test_a_timer_is_stopped_by_a_call_and_only_once(perf, ticks):
    timer = perf.start_timer("load", kind="csv")
    ticks.now += 2.5
    assert timer() == 2.5
    ticks.now += 5
    assert timer() == 2.5
    assert perf.stats("load", kind="csv").count == 1


def test_a_timer_runs_from_the_beginning_of_with_and_is_recorded_on_an_error(perf, ticks):
    timer = perf.start_timer("load")
    ticks.now += 10
    with pytest.raises(ValueError, match="mine"), timer:
        ticks.now += 1.5
        raise ValueError("mine")
    assert timer.seconds == 1.5
    assert perf.stats("load").max == 1.5


def test_a_clock_that_goes_back_does_not_break_the_work(perf, ticks):
    with perf.start_timer("load"):
        ticks.now -= 5
    assert perf.stats("load").max == 0.0


# Wrapped functions


def test_a_function_is_timed_under_its_name_also_when_it_fails(perf, ticks):
    def work(fails):
        ticks.now += 1.0
        if fails:
            raise KeyError("mine")
        return "fine"

    timed = perf.wrap(work)
    assert timed(False) == "fine"
    with pytest.raises(KeyError):
        timed(True)
    assert perf.stats("work").count == 2
    assert perf.stats("work").max == 1.0


def test_a_coroutine_function_is_timed_over_its_waiting(perf, ticks):
    @perf.wrap
    async def work():
        await asyncio.sleep(0)
        ticks.now += 3.0

    assert inspect.iscoroutinefunction(work)
    asyncio.run(work())
    assert perf.stats("work").max == 3.0


def test_a_cancelled_coroutine_is_timed_too(perf, ticks):
    @perf.wrap
    async def work():
        ticks.now += 2.0
        await asyncio.Event().wait()

    async def cancel():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(cancel())
    assert perf.stats("work").max == 2.0


def test_of_a_generator_its_own_time_is_counted_and_not_its_consumer_s(perf, ticks):
    @perf.wrap
    def numbers():
        for number in range(3):
            ticks.now += 1.0
            yield number

    for _ in numbers():
        ticks.now += 100.0
    assert (perf.stats("numbers").count, perf.stats("numbers").max) == (1, 3.0)


def test_a_generator_left_early_is_recorded_once(perf, ticks):
    @perf.wrap
    def numbers():
        while True:
            ticks.now += 1.0
            yield 1

    generator = numbers()
    next(generator)
    next(generator)
    generator.close()
    assert (perf.stats("numbers").count, perf.stats("numbers").max) == (1, 2.0)


def test_of_an_async_generator_its_own_time_is_counted(perf, ticks):
    @perf.wrap
    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            ticks.now += 1.0
            yield number
        raise ValueError("at the end")

    async def read():
        async for _ in numbers():
            ticks.now += 100.0

    with pytest.raises(ValueError, match="at the end"):
        asyncio.run(read())
    assert (perf.stats("numbers").count, perf.stats("numbers").max) == (1, 3.0)


def test_the_decorator_works_bare_and_with_a_name():
    @with_performance_monitoring
    def bare():
        return 1

    @with_performance_monitoring(name="named")
    def other():
        return 2

    class Thing:
        @with_performance_monitoring
        def method(self):
            return 3

    assert (bare(), other(), Thing().method()) == (1, 2, 3)
    assert {name: stats.count for name, stats in monitor.performance_monitor.metrics().items()} == {
        "bare": 1,
        "named": 1,
        "Thing.method": 1,
    }


def test_a_function_with_arguments_filled_in_goes_by_the_function_s_name(perf):
    def work(a, b):
        return a + b

    assert perf.wrap(functools.partial(work, 1))(2) == 3
    assert list(perf.metrics()) == ["work"]


def test_an_empty_name_is_refused_when_the_function_is_decorated_and_not_when_it_runs():
    with pytest.raises(ConfigError, match="needs a name"):
        with_performance_monitoring(len, name="")
