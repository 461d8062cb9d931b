"""Exporters are off by default, run apart from the calls, and can neither break, stall nor fill anything."""

import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

import toolkit as tk
from toolkit import monitor
from toolkit.errors import ConfigError, RateLimitError
from toolkit.monitor.events import ErrorRecord
from toolkit.monitor.exporters import EXPORTERS, CallExport, switch
from toolkit.monitor.exporters.outlet import Outlet, Told
from toolkit.monitor.journal import JournalReader
from toolkit.monitor.tracker import error_tracker

PATIENCE_S = 20


class Keeper:
    """Keeps what it is given, and where it was given it."""

    def __init__(self):
        self.records, self.threads, self.flushed, self.closed = [], set(), 0, 0

    def export(self, records):
        self.threads.add(threading.current_thread())
        self.records += records

    def flush(self, timeout_s):
        self.flushed += 1
        return True

    def close(self):
        self.closed += 1


class Failing(Keeper):
    def export(self, records):
        raise RuntimeError("the sink is broken")


class Hanging(Keeper):
    def __init__(self):
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def export(self, records):
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)
        super().export(records)


@pytest.fixture
def keeper():
    made = Keeper()
    monitor.export_to(made)
    return made


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "toolkit.exporters")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "toolkit.exporters"]


def error_row(number=0):
    return ErrorRecord(at=0.0, error_id=f"{number:032x}", call_id=None, run_id=None, process="p", type="ValueError", fingerprint="f", message="m", stack="", context="{}")  # fmt: skip


# --- what arrives ------------------------------------------------------------------------------------------------------------


def test_a_call_arrives_as_the_journal_s_row_without_its_words_on_a_thread_of_the_exporter(keeper):
    answer = tk.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    (found,) = keeper.records
    assert isinstance(found, CallExport)
    assert (found.call.call_id, found.call.status, found.call.text_chars) == (answer.call_id, "ok", 5)
    assert found.call.prompt is None and found.call.text is None
    assert found.error is None
    assert threading.main_thread() not in keeper.threads
    assert len(keeper.threads) == 1


@pytest.mark.parametrize("cache", [True, False])
def test_calls_arrive_with_the_journal_off(keeper, cache):
    with tk.Client(cache=cache, journal=False) as client:
        for _ in range(2):
            client.generate_text("scripted/echo", "Hello")
    assert monitor.flush_exports()
    assert [record.call.provenance for record in keeper.records] == ["live", "replayed" if cache else "live"]


def test_calls_of_both_clients_and_streams_arrive(keeper):
    import asyncio

    async def main():
        async with tk.AsyncClient(cache=False) as client:
            await client.generate_text("scripted/echo", "Hello")

    asyncio.run(main())
    list(tk.stream_text("scripted/echo", "Hello"))
    assert monitor.flush_exports()
    assert len(keeper.records) == 2


def test_the_error_of_a_call_arrives_with_it_and_has_the_journal_s_id(keeper, own_home):
    with pytest.raises(tk.errors.ToolkitError):
        tk.generate_text("scripted/fails", "Hello")
    tk.defaults.client().journal.flush()
    assert monitor.flush_exports()
    (found,) = keeper.records
    rows = JournalReader().errors()
    assert rows["error_id"] == [found.error.error_id]
    assert rows["call_id"] == [found.call.call_id] == [found.error.call_id]


def test_a_tracked_error_arrives_and_the_error_of_a_call_does_not_arrive_again(keeper):
    error_tracker.track_error(ValueError("mine"), stage="read")
    error_tracker.track_error(RateLimitError("a provider's", provider="demo"))
    assert monitor.flush_exports()
    assert [(type(record), record.message) for record in keeper.records] == [(ErrorRecord, "mine")]


def test_all_that_are_on_get_all(keeper):
    other = Keeper()
    monitor.export_to(keeper, other)
    for number in range(3):
        tk.generate_text("scripted/echo", f"{number}")
    assert monitor.flush_exports()
    assert [each.call.call_id for each in keeper.records] == [each.call.call_id for each in other.records]
    assert len(other.records) == 3


# --- on and off --------------------------------------------------------------------------------------------------------------


def test_nothing_is_on_unless_switched_on(own_home):
    tk.generate_text("scripted/echo", "Hello")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("toolkit-export")] == []


def test_what_is_switched_off_gets_what_was_before_is_closed_and_gets_nothing_more(keeper):
    tk.generate_text("scripted/echo", "one")
    monitor.export_to()
    tk.generate_text("scripted/echo", "two")
    assert (len(keeper.records), keeper.closed) == (1, 1)
    assert [thread for thread in keeper.threads if thread.name == "toolkit-export-Keeper"]


def test_the_environment_is_heeded_by_the_first_client_unless_the_program_decided(monkeypatch, keeper):
    monkeypatch.setenv("TOOLKIT_EXPORTERS", "nonsense")
    tk.generate_text("scripted/echo", "the program decided: no error")
    tk.defaults.reset()
    with pytest.raises(ConfigError, match="no exporter is called 'nonsense'"):
        tk.generate_text("scripted/echo", "now the environment does")


@pytest.mark.parametrize("wrong", ["statsd", "", "OTEL ", "Keeper"])
def test_an_unknown_name_lists_the_known_ones(keeper, wrong):
    with pytest.raises(ConfigError, match="otel, prometheus, sentry"):
        monitor.export_to(wrong)
    tk.generate_text("scripted/echo", "what was on stays on")
    assert monitor.flush_exports()
    assert len(keeper.records) == 1


@pytest.mark.parametrize("wrong", [Keeper, object(), None, 7])
def test_what_is_no_exporter_is_refused(wrong):
    with pytest.raises(ConfigError, match="export, flush and close"):
        monitor.export_to(wrong)


def test_what_is_named_again_goes_on_as_it_is(keeper):
    tk.generate_text("scripted/echo", "one")
    monitor.export_to(keeper, keeper)
    tk.generate_text("scripted/echo", "two")
    other = Keeper()
    monitor.export_to(other, keeper)
    tk.generate_text("scripted/echo", "three")
    monitor.export_to(other)
    assert (len(keeper.records), keeper.closed, len(keeper.threads)) == (3, 1, 1)
    assert monitor.flush_exports()
    assert (len(other.records), other.closed) == (1, 0)


def test_those_made_before_one_that_can_t_be_made_are_closed_again():
    first = Keeper()
    with pytest.raises(ConfigError):
        monitor.export_to(first, "nonsense")
    assert first.closed == 1
    monitor.export_to(running := Keeper())
    with pytest.raises(ConfigError):
        monitor.export_to(running, "nonsense")
    assert running.closed == 0


def test_a_missing_extra_is_named():
    code = """
import sys, toolkit as tk
for package, name in {"opentelemetry": "otel", "prometheus_client": "prometheus", "sentry_sdk": "sentry"}.items():
    sys.modules[package] = None
    try:
        tk.monitor.export_to(name)
    except tk.errors.ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert [line.partition("pip install ")[2] for line in done.stdout.splitlines()] == [
        f"'model-comparison-toolkit[{name}]'" for name in EXPORTERS
    ]


def test_nothing_is_imported_for_exporters_that_are_off():
    code = """
import sys, json, toolkit as tk
tk.generate_text("scripted/echo", "x")
tk.monitor.error_tracker.track_error(ValueError("x"))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"opentelemetry", "sentry_sdk", "prometheus_client", "requests"} & set(json.loads(done.stdout))


# --- trouble -----------------------------------------------------------------------------------------------------------------


def test_an_exporter_that_raises_costs_no_call_and_no_journal_row_and_is_warned_about_once(said):
    failing, keeper = Failing(), Keeper()
    monitor.export_to(failing, keeper)
    for number in range(3):
        tk.generate_text("scripted/echo", f"{number}")
        assert monitor.flush_exports()
    tk.defaults.client().journal.flush()
    assert len(JournalReader().calls()["row"]) == 3
    assert len(keeper.records) == 3
    assert len([line for line in said() if "the exporter Failing failed" in line]) == 1


def test_an_exporter_that_hangs_stalls_nobody_and_its_queue_is_bounded(said):
    hanging = Hanging()
    outlet = Outlet("slow", hanging, keep=5)
    outlet.put(Told(error_row()))
    assert hanging.reached.wait(PATIENCE_S)
    for number in range(1, 9):
        outlet.put(Told(error_row(number)))
    assert outlet.lost == 3
    assert not outlet.flush(0.0).wait(0.0)
    hanging.opened.set()
    assert outlet.close(PATIENCE_S).wait(PATIENCE_S)
    assert [int(record.error_id, 16) for record in hanging.records] == [0, 1, 2, 3, 4, 5]
    assert len([line for line in said() if "is slower than the calls" in line]) == 1


def test_one_that_hangs_does_not_hold_up_the_others():
    hanging, keeper = Hanging(), Keeper()
    monitor.export_to(hanging, keeper)
    tk.generate_text("scripted/echo", "Hello")
    assert hanging.reached.wait(PATIENCE_S)
    assert not monitor.flush_exports(0.3)
    assert len(keeper.records) == 1
    hanging.opened.set()
    assert monitor.flush_exports(PATIENCE_S)


def test_one_that_hangs_at_the_end_does_not_keep_the_others_from_closing(said):
    hanging, keeper = Hanging(), Keeper()
    monitor.export_to(hanging, keeper)
    tk.generate_text("scripted/echo", "Hello")
    assert hanging.reached.wait(PATIENCE_S)
    switch._close(switch._switch.replace(()), 0.3)
    assert (len(keeper.records), keeper.closed) == (1, 1)
    assert said() == ["the exporter Hanging did not send everything in 0.3 s"]
    hanging.opened.set()


class Untellable(Keeper):
    def flush(self, timeout_s):
        raise OSError("no connection")


def test_a_flush_that_fails_says_so(said):
    monitor.export_to(Untellable())
    assert not monitor.flush_exports()
    assert any("could not be flushed" in line for line in said())


def test_a_record_that_can_t_be_built_stops_nothing(keeper, said):
    outlet = Outlet("kept", keeper)
    from toolkit.monitor.outcomes import Outcome

    broken = object.__new__(Outcome)
    for told in (Told(broken), Told(error_row(7))):
        outlet.put(told)
    assert outlet.close(PATIENCE_S).wait(PATIENCE_S)
    assert (outlet.lost, len(keeper.records)) == (1, 1)


def test_many_threads_lose_nothing(keeper):
    with tk.Client(cache=False, journal=False) as client:
        threads = [
            threading.Thread(target=lambda n=n: [client.generate_text("scripted/echo", f"{n} {i}") for i in range(50)]) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert monitor.flush_exports()
    assert len({record.call.call_id for record in keeper.records}) == len(keeper.records) == 400


SCRIPT = """
import sys, toolkit as tk
class Writer:
    def export(self, records):
        sys.stdout.write("".join(record.call.call_id + "\\n" for record in records))
    def flush(self, timeout_s):
        sys.stdout.flush()
        return True
    def close(self):
        sys.stdout.write("closed\\n")
        sys.stdout.flush()
tk.monitor.export_to(Writer())
for i in range(5):
    tk.generate_text("scripted/echo", str(i), cache=False)
"""


def test_a_script_that_just_ends_has_sent_everything():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.split()) == 6
    assert done.stdout.endswith("closed\n")


def test_where_no_thread_can_be_started_the_end_sends_all_the_same():
    keeper = Keeper()
    outlet = Outlet("kept", keeper)
    before = threading.stack_size(1 << 46)  # more than there is: no thread starts
    try:
        outlet.put(Told(error_row()))
        assert outlet.close(PATIENCE_S).wait(0)
    finally:
        threading.stack_size(before)
    assert (len(keeper.records), keeper.closed, keeper.threads) == (1, 1, {threading.main_thread()})


def test_a_forked_child_sends_its_own_calls_and_not_its_parent_s(keeper):
    hanging = Hanging()
    monitor.export_to(hanging, keeper)
    tk.generate_text("scripted/echo", "parent", cache=False)
    assert hanging.reached.wait(PATIENCE_S)
    hanging.opened.set()
    assert monitor.flush_exports()
    before = len(keeper.records)
    child = os.fork()
    if child == 0:
        tk.generate_text("scripted/echo", "child", cache=False)
        fine = monitor.flush_exports() and len(keeper.records) == before + 1
        os._exit(0 if fine else 1)
    deadline = time.monotonic() + PATIENCE_S
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert done[1] == 0
    assert len(keeper.records) == before
