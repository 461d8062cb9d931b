"""The error tracker: reports, groups, wrapped functions of every kind, and the journal."""

import asyncio
import inspect
import json
import logging
import multiprocessing
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading
import traceback

import cloudpickle  # comes with joblib
import pytest

from toolkit import monitor
from toolkit.errors import ConfigError, RateLimitError
from toolkit.monitor.fingerprints import FINGERPRINT_VERSION, fingerprint, without_values
from toolkit.monitor.journal import JournalReader, open_journal
from toolkit.monitor.tracker import ErrorTracker, error_tracker, with_error_tracking

CANARY = "sk-Canary7731Canary7731"


class Clock:
    def __init__(self):
        self.now = 1_750_000_000.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def tracker():
    return ErrorTracker(clock=Clock())


@pytest.fixture(autouse=True)
def clean_default():
    error_tracker.clear()
    yield
    error_tracker.clear()


def caught(make):
    try:
        make()
    except BaseException as error:  # noqa: BLE001 - interrupts are caught too
        return error
    raise AssertionError("nothing was raised")


def fail(message="it broke"):
    raise ValueError(message)


# Reports and groups


def test_a_report_says_what_happened_where_and_with_which_fields(tracker):
    report = tracker.track_error(caught(fail), prompt_id="p-1", headers={"authorization": CANARY})
    assert (report.type, report.message, report.at, report.count) == ("ValueError", "it broke", 1_750_000_001.0, 1)
    assert report.context == {"prompt_id": "p-1", "headers": {"authorization": "[redacted]"}}
    assert "in fail" in report.stack
    assert report.stack.endswith("ValueError: it broke\n")
    assert tracker.get(report.id) == report
    assert tracker.get("no such id") is None


def test_errors_of_one_kind_are_one_group_that_counts(tracker):
    first = tracker.track_error(caught(lambda: fail("row 1 of 'a.csv'")))
    second = tracker.track_error(caught(lambda: fail("row 22 of 'b.csv'")))
    assert first.fingerprint == second.fingerprint
    assert (second.count, second.first_seen, second.last_seen) == (2, 1_750_000_001.0, 1_750_000_002.0)
    assert tracker.get(first.id).count == 2  # as it is now
    assert first.count == 1  # as it was then
    tracker.track_error(caught(lambda: 1 / 0))
    assert [(group.type, group.count) for group in tracker.groups()] == [("ValueError", 2), ("ZeroDivisionError", 1)]
    assert len(tracker.reports()) == 3


def test_memory_is_bounded_in_reports_and_in_groups():
    tracker = ErrorTracker(keep=10)
    kinds = [type(f"Error{letter}", (Exception,), {}) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    for kind in kinds * 2:
        tracker.track_error(kind("x"))
    assert [report.type for report in tracker.reports()] == [kind.__name__ for kind in kinds[-10:]]
    assert len(tracker.groups()) == 10


def test_a_group_counts_on_when_its_reports_are_gone():
    tracker = ErrorTracker(keep=2)
    for _ in range(5):
        report = tracker.track_error(caught(fail))
    assert report.count == 5
    assert len(tracker.reports()) == 2


def test_clear_forgets_everything(tracker):
    report = tracker.track_error(caught(fail))
    tracker.clear()
    assert (tracker.reports(), tracker.groups(), tracker.get(report.id)) == ([], [], None)


def test_a_message_passed_for_an_error_is_refused(tracker):
    with pytest.raises(ConfigError, match="the exception itself, got str"):
        tracker.track_error("oops")


def test_an_error_of_enormous_size_makes_a_report_of_modest_size(tracker):
    def deep(n):
        return deep(n + 1)

    report = tracker.track_error(caught(lambda: fail("x" * 1_000_000)), text="y" * 1_000_000)
    assert len(report.message) == 2000
    assert len(report.stack) <= 8000
    assert len(json.dumps(report.context)) < 10_000
    assert "RecursionError" in tracker.track_error(caught(lambda: deep(0))).stack


def test_an_error_that_can_t_say_its_message_is_reported_all_the_same(tracker):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert tracker.track_error(Mute()).message == "<Mute without a text>"


def test_causes_are_in_the_stack_and_secrets_are_not(tracker):
    def chained():
        try:
            fail(f"refused {CANARY}")
        except ValueError as error:
            raise RuntimeError("could not ask") from error

    report = tracker.track_error(caught(chained))
    assert "ValueError: refused [redacted]" in report.stack
    assert "Canary7731" not in repr(report)


def test_a_frame_has_a_row_a_report_and_the_same_types_when_empty(tracker):
    empty, empty_polars = tracker.frame().dtypes, tracker.frame.polars().schema
    tracker.track_error(caught(fail), n=1)
    frame = tracker.frame()
    assert list(frame.dtypes) == list(empty)
    assert str(frame["first_seen"].dtype) == "datetime64[us, UTC]"
    assert frame.loc[0, ["type", "count", "context"]].tolist() == ["ValueError", 1, '{"n": 1}']
    assert tracker.frame.polars().schema == empty_polars
    assert tracker.frame.polars()["message"].to_list() == ["it broke"]


def test_threads_lose_no_count(tracker):
    def track():
        for _ in range(50):
            tracker.track_error(caught(fail))

    threads = [threading.Thread(target=track) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.groups()[0].count == 400


def track_and_say(tracker, said):
    said.send(tracker.track_error(ValueError("child")).message)


def test_a_child_forked_while_another_thread_holds_the_lock_can_track(tracker):
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    held, done = threading.Event(), threading.Event()

    def hold():
        with tracker._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait()
    child = context.Process(target=track_and_say, args=(tracker, its), daemon=True)
    child.start()
    assert mine.poll(30), "the child waits for a lock that nobody holds"
    done.set()
    holder.join()
    child.join()
    assert mine.recv() == "child"


# Fingerprints


PROGRAM = """
import json, toolkit.monitor.fingerprints as f
{filler}
def read(row):
    return json.loads(row)
try:
    read("[1, {row}")
except ValueError as error:
    print(f.fingerprint(error))
"""


def in_a_program(path, **parts):
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROGRAM.format(**parts))
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    return subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_fingerprint_is_the_same_in_another_process_folder_line_and_for_other_values(tmp_path):
    one = in_a_program(tmp_path / "a" / "job.py", filler="", row=1)
    assert in_a_program(tmp_path / "b" / "job.py", filler="# a line more\n\n", row=98765) == one
    assert in_a_program(tmp_path / "a" / "other.py", filler="", row=1) != one


def in_a_cell(code, number, names):
    exec(compile(textwrap.dedent(code), f"/tmp/ipykernel_{number}/{number * 31}.py", "exec"), names)


def test_a_cell_run_again_gives_the_same_fingerprint():
    names = {}
    found = set()
    for number in (1, 2):
        in_a_cell("def ask(): raise ValueError('no')", number, names)
        found.add(fingerprint(caught(names["ask"])))
    assert len(found) == 1


def test_the_place_is_the_user_s_function_and_not_a_library_s():
    def mine():
        json.loads("{")

    def other():
        json.loads("{")

    assert fingerprint(caught(mine)) != fingerprint(caught(other))


def test_status_and_provider_tell_groups_apart():
    prints = {fingerprint(RateLimitError("slow down", provider=p, status=s)) for p, s in (("a", 429), ("b", 429), ("a", 503))}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("request req_011CSHoEeqs5C35K failed", "request req_9AbCdEfGh1234567 failed"),
        ("no column 'a b'", "no column 'c'"),
        ('got "x"', 'got "y z"'),
        ("<object at 0x7f3a2b1c4d5e>", "<object at 0x7fffaaaa0000>"),
        ("1.5 s passed", "17 s passed"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-e89b-12d3-a456-426614174999"),
        (f"key {CANARY}", "key sk-Another0123456789"),
    ],
)
def test_values_do_not_part_a_group(one, other):
    assert without_values(one) == without_values(other)


def test_an_apostrophe_is_no_quotation_mark():
    assert without_values("can't read what isn't there") != without_values("can't write what isn't there")


def test_the_scheme_s_version_and_result_are_pinned():
    assert FINGERPRINT_VERSION == 2
    assert fingerprint(ValueError("row 17")) == "11234a91fe68"  # another value here needs another version


# Wrapped functions


def make_function(tracker, message="it broke"):
    @tracker.wrap
    def work():
        fail(message)

    return work


def test_the_exception_goes_on_as_it_is_with_its_whole_traceback(tracker):
    mine = ValueError("mine")

    def work():
        raise mine

    error = caught(tracker.wrap(work, stage="s"))
    assert error is mine
    assert vars(error) == {}
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["caught", "wrapper", "work"]
    assert [(report.message, report.context) for report in tracker.reports()] == [("mine", {"stage": "s"})]


def test_a_function_keeps_its_name_signature_and_result(tracker):
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    wrapped = tracker.wrap(add)
    assert (wrapped.__name__, wrapped.__doc__, inspect.signature(wrapped)) == ("add", "Add.", inspect.signature(add))
    assert wrapped(1, b=4) == 5
    assert tracker.reports() == []


def test_a_coroutine_function_is_tracked_when_it_is_awaited(tracker):
    @tracker.wrap
    async def work(fails):
        await asyncio.sleep(0)
        return fail() if fails else "fine"

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(work(False)) == "fine"
    assert type(caught(lambda: asyncio.run(work(True)))) is ValueError
    assert len(tracker.reports()) == 1


class AsyncCallable:
    async def __call__(self):
        fail()


def test_an_object_with_an_async_call_is_tracked_when_it_is_awaited(tracker):
    assert type(caught(lambda: asyncio.run(tracker.wrap(AsyncCallable())()))) is ValueError
    assert len(tracker.reports()) == 1


def echo():
    """Gives back what is sent and thrown in, and ends with a result."""
    got = []
    try:
        while (value := (yield got[-1] if got else "ready")) != "stop":
            if value == "fail":
                fail()
            got.append(value)
    except KeyError as error:
        got.append(f"caught {error}")
        yield got[-1]
    return got


def test_a_generator_takes_what_is_sent_thrown_and_returned_as_before(tracker):
    def drive(generator):
        seen = [next(generator), generator.send("a"), generator.send(None), generator.throw(KeyError("k"))]
        stop = caught(lambda: next(generator))
        return [*seen, stop.value]

    wrapped = tracker.wrap(echo)
    assert inspect.isgeneratorfunction(wrapped)
    assert drive(wrapped()) == drive(echo())
    assert tracker.reports() == []


def test_an_error_in_the_middle_of_a_generator_is_tracked(tracker):
    generator = tracker.wrap(echo)()
    next(generator)
    assert type(caught(lambda: generator.send("fail"))) is ValueError
    assert [report.type for report in tracker.reports()] == ["ValueError"]
    assert list(generator) == []


def test_a_generator_closed_early_runs_its_finally_and_is_no_error(tracker):
    closed = []

    @tracker.wrap
    def numbers():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    generator = numbers()
    assert next(generator) == 1
    generator.close()
    assert closed == [True]
    assert tracker.reports() == []


def test_an_async_generator_takes_what_is_sent_and_thrown_and_closes(tracker):
    closed = []

    @tracker.wrap
    async def numbers():
        try:
            got = yield 1
            try:
                yield got
            except KeyError:
                yield "caught"
            fail()
        finally:
            closed.append(True)

    async def drive():
        generator = numbers()
        seen = [await anext(generator), await generator.asend("sent"), await generator.athrow(KeyError("k"))]
        with pytest.raises(ValueError, match="it broke"):
            await anext(generator)
        other = numbers()
        await anext(other)
        await other.aclose()
        return seen

    assert inspect.isasyncgenfunction(numbers)
    assert asyncio.run(drive()) == [1, "sent", "caught"]
    assert closed == [True, True]
    assert len(tracker.reports()) == 1


def test_an_async_generator_read_to_its_end_just_ends(tracker):
    @tracker.wrap
    async def numbers():
        yield 1
        yield 2

    async def read():
        return [number async for number in numbers()]

    assert asyncio.run(read()) == [1, 2]


def test_an_error_on_its_way_through_several_functions_is_reported_once_by_the_innermost(tracker):
    inner = tracker.wrap(fail, where="inner")

    def generate():
        yield inner()

    middle = tracker.wrap(generate, where="middle")
    outer = tracker.wrap(lambda: list(middle()), where="outer")
    caught(outer)
    assert [report.context for report in tracker.reports()] == [{"where": "inner"}]


def test_one_exception_object_raised_again_later_counts_again(tracker):
    again = ValueError("kept and raised again")

    def work():
        raise again

    wrapped = tracker.wrap(work)
    for _ in range(3):
        caught(wrapped)
    assert tracker.groups()[0].count == 3


def test_an_error_tracked_by_hand_and_raised_on_counts_once(tracker):
    @tracker.wrap
    def work():
        try:
            fail()
        except ValueError as error:
            tracker.track_error(error, by="hand")
            raise

    caught(work)
    assert [report.context for report in tracker.reports()] == [{"by": "hand"}]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_interrupts_and_cancellation_are_no_errors(tracker, kind):
    def work():
        raise kind

    assert type(caught(tracker.wrap(work))) is kind
    assert tracker.reports() == []


def test_the_decorator_works_bare_and_with_fields():
    bare = with_error_tracking(fail)

    @with_error_tracking(stage="parse")
    def parse():
        fail()

    caught(bare)
    caught(parse)
    assert [report.context for report in monitor.error_tracker.reports()] == [{}, {"stage": "parse"}]


def test_a_decorated_function_can_be_sent_to_another_process():
    def work():
        fail()

    there = pickle.loads(cloudpickle.dumps(with_error_tracking(work, sent=True)))
    caught(there)
    assert error_tracker.reports()[-1].context == {"sent": True}


# Sinks


def test_a_sink_is_told_each_report_and_the_error():
    told = []
    tracker = ErrorTracker(lambda report, error: told.append((report.count, error)))
    error = caught(fail)
    tracker.track_error(error)
    assert told == [(1, error)]


def test_a_sink_that_fails_is_warned_about_once(caplog):
    tracker = ErrorTracker(lambda report, error: 1 / 0)
    for _ in range(3):
        tracker.track_error(caught(fail))
    assert [(record.name, record.levelno) for record in caplog.records] == [("toolkit.tracker", logging.WARNING)]
    assert len(tracker.reports()) == 3


def test_reports_go_to_the_journal_where_one_is_open(own_home):
    journal = open_journal()
    report = monitor.error_tracker.track_error(caught(fail), run_id="r-1", n=1)
    journal.flush()
    found = JournalReader().errors()
    journal.close()
    assert found["error_id"] == [report.id]
    assert (found["fingerprint"], found["run_id"], found["call_id"]) == ([report.fingerprint], ["r-1"], [None])
    assert json.loads(found["context"][0]) == {"run_id": "r-1", "n": 1}


def test_no_journal_is_made_for_a_report(own_home):
    monitor.error_tracker.track_error(caught(fail))
    assert not JournalReader().exists


def test_where_no_journal_was_ever_opened_not_even_its_folder_is_made(tmp_path):
    code = "from toolkit.monitor import error_tracker; error_tracker.track_error(ValueError('x')); print(error_tracker.reports()[0].type)"
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1]), "TOOLKIT_HOME": str(tmp_path / "new")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "ValueError\n"
    assert not (tmp_path / "new").exists()


def test_the_error_of_a_call_is_in_the_journal_once(own_home):
    from toolkit import Client
    from toolkit.errors import ProviderError

    with Client(base_urls={"openai_compatible": "http://127.0.0.1:9"}, cache=False, journal=True) as client:
        ask = with_error_tracking(client.generate_text)
        with pytest.raises(ProviderError):
            ask("openai_compatible/m", "hi")
    assert len(monitor.errors()) == 1
    assert len(error_tracker.reports()) == 1
