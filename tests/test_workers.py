"""The same comparison in this process and in others: loky, Dask, Ray. Real processes, a real server that counts."""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import httpx
import joblib
import psutil
import pytest

import toolkit as tk
from servers.chat_completions import ChatService, changed
from servers.http import Gate, Pause
from toolkit.cache import ResponseCache
from toolkit.comparison.progress import Tallies
from toolkit.comparison.workers import Address, without_password
from toolkit.errors import ConfigError

PROMPTS = [f"question {i}" for i in range(24)]
MODELS = ["openai_compatible/demo-small", tk.Model("openai_compatible/demo-small", temperature=0.5, schema=None, label="warm")]
SAME = ["label", "prompt_id", "repeat", "prompt", "text", "status", "finish_reason", "input_tokens", "output_tokens", "key", "long"]


def asked(server):
    """How often each cell came to the server."""
    return collections.Counter((r.json["messages"][0]["content"], r.json.get("temperature")) for r in server.requests)


def long(completion, _reference):
    return len(completion.text) > 10


@pytest.fixture
def server():
    with ChatService(fault=changed(before=(Pause(0.02),))).serve() as served:
        yield served


def client_of(server, tmp_path, name, **more):
    return tk.Client(
        base_urls={"openai_compatible": f"{server.url}/v1"},
        cache=ResponseCache(tmp_path / name),
        journal=str(tmp_path / f"{name}.sqlite"),
        **more,
    )


def compared(client, **more):
    return tk.compare(MODELS, PROMPTS, scorers={"long": long}, client=client, concurrency=8, **more)


@contextlib.contextmanager
def loky():
    with joblib.parallel_config(backend="loky", n_jobs=2):
        yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def dask():
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster, Client(cluster):
        with joblib.parallel_config(backend="dask"):
            yield


@contextlib.contextmanager
def ray():
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # a socket's path has 107 bytes at most
    try:
        with mock.patch.dict(os.environ, quick_start_of_ray(folder)):
            import ray as ray_
            from ray.util.joblib import register_ray

            ray_.init(
                num_cpus=2, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False, configure_logging=False,
                object_store_memory=100 * 2**20,
            )  # fmt: skip
            try:
                register_ray()
                with joblib.parallel_config(backend="ray", n_jobs=2):
                    yield
            finally:
                ray_.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def quick_start_of_ray(folder):
    """Environment that lets Ray start on a busy machine: its node gives up when an agent of it has not come up in 15 s, which nothing changes.

    Six processes import Ray at once. Compiled files must be there, and jsonschema must not find what builds a grammar for seconds.
    """
    folder.joinpath("rfc3987_syntax.py").write_text("raise ImportError('left out: slow')")
    paths = [str(folder), str(Path(tk.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONDONTWRITEBYTECODE": "",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "180",
    }
    compile_ = "import ray.dashboard.agent, ray._private.log_monitor, ray.util.joblib"
    subprocess.run([sys.executable, "-c", compile_], check=True, env={**os.environ, **env})
    return env


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_the_same_comparison_in_worker_processes_gives_the_same_frame(backend, server, tmp_path):
    at_home = compared(client_of(server, tmp_path, "home"))
    calls_at_home = asked(server)
    server.requests.clear()
    with {"loky": loky, "dask": dask, "ray": ray}[backend]():
        client = client_of(server, tmp_path, backend)
        result = compared(client)
    assert result.frame[SAME].equals(at_home.frame[SAME])
    assert asked(server) == calls_at_home and set(calls_at_home.values()) == {1}
    processes = set(result.frame["process"])
    assert len(processes) == 2 and not any(process.endswith(f":{os.getpid()}") for process in processes)
    journaled = tk.monitor.calls(run=result.run_id, journal=str(tmp_path / f"{backend}.sqlite"))
    assert sorted(journaled["call_id"]) == sorted(result.frame["call_id"])


@pytest.fixture
def two_workers():
    with loky():
        yield


def test_a_worker_that_is_killed_loses_nothing(two_workers, tmp_path):
    victims, lock = [], threading.Lock()

    def kill_once(request, good):
        with lock:
            if not victims and len(served.requests) > 20:
                victims.extend(
                    child.pid for child in psutil.Process().children(recursive=True) if "popen_loky" in " ".join(child.cmdline())
                )
                os.kill(victims[0], signal.SIGKILL)
        return changed(before=(Pause(0.02),))(request, good)

    with ChatService(fault=kill_once).serve() as served:
        result = compared(client_of(served, tmp_path, "killed"))
        calls = asked(served)
    assert victims
    assert (result.frame["status"] == "ok").all() and len(result) == 2 * len(PROMPTS) and not result.stopped
    assert result.frame["long"].notna().all()
    assert any(note.startswith("a worker process died") for note in result.notes)
    assert sum(calls.values()) <= 2 * len(PROMPTS) + 8  # what was under way is asked once more


BEFORE_A_BATCH_IS_HOME = 5  # batches have six cells


@contextlib.contextmanager
def stalling():
    """A server that answers five calls, and the others once the gate is opened."""
    gate, turns = Gate(), itertools.count()

    def fault(_request, good):
        return good if next(turns) < BEFORE_A_BATCH_IS_HOME else dataclasses.replace(good, before=(gate,))

    with ChatService(fault=fault).serve() as served:
        try:
            yield served, gate
        finally:
            gate.opened.set()


class Lookout:
    """Watches a run, and acts once when five calls are done: all that can be while the gate is shut, and less than a batch."""

    def __init__(self, act):
        self.act, self.counts, self.run = act, [], None

    def __call__(self, run):
        self.run = run
        self.counts.append(len(run.done))
        if self.counts[-1] == BEFORE_A_BATCH_IS_HOME and self.counts.count(BEFORE_A_BATCH_IS_HOME) == 1:
            self.act(run)


def shown(run):
    """How many calls the live table counts."""
    return sum(tally.done for tally in Tallies(run).update())


def test_progress_is_seen_call_by_call_and_each_call_counts_once(two_workers, tmp_path):
    with stalling() as (served, gate):
        lookout = Lookout(lambda run: (tables.append(shown(run)), gate.opened.set()))
        tables = []
        result = compared(client_of(served, tmp_path, "seen"), progress=lookout)
        with joblib.parallel_config(backend="sequential"):
            at_home = compared(client_of(served, tmp_path, "home"))
    assert tables == [BEFORE_A_BATCH_IS_HOME]
    assert lookout.counts == sorted(lookout.counts) and lookout.counts[-1] == len(result) == shown(lookout.run)
    assert result.frame[SAME].equals(at_home.frame[SAME])
    assert sorted(row.call_id for row in lookout.run.rows) == sorted(result.frame["call_id"])
    journaled = tk.monitor.calls(run=result.run_id, journal=str(tmp_path / "seen.sqlite"))
    assert sorted(journaled["call_id"]) == sorted(result.frame["call_id"])


def test_on_the_callers_loop_too(two_workers, tmp_path):
    with stalling() as (served, gate):
        lookout = Lookout(lambda _run: gate.opened.set())
        client = tk.AsyncClient(base_urls={"openai_compatible": f"{served.url}/v1"}, cache=False, journal=str(tmp_path / "a.sqlite"))
        result = asyncio.run(tk.acompare(MODELS, PROMPTS, client=client, concurrency=8, progress=lookout, scorers={"long": long}))
    assert BEFORE_A_BATCH_IS_HOME in lookout.counts and lookout.counts[-1] == len(result) == 2 * len(PROMPTS)
    assert result.frame["long"].notna().all()


@pytest.mark.parametrize("record", ["1", "0"])
def test_without_rows_in_the_journal_progress_is_seen_batch_by_batch(record, two_workers, server, tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_RECORD_CONTENT", record)
    journal = False if record == "1" else str(tmp_path / "bare.sqlite")
    client = tk.Client(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=False, journal=journal)
    counts = []
    result = compared(client, progress=lambda run: counts.append(len(run.done)))
    assert all(count % 6 == 0 for count in counts) and counts[-1] == len(result) == 2 * len(PROMPTS)
    assert result.frame["text"].notna().all() and result.frame["long"].notna().all()


def test_an_interrupt_keeps_what_was_finished_before_its_batch(two_workers, tmp_path):
    with stalling() as (served, _):
        result = compared(client_of(served, tmp_path, "cut"), progress=Lookout(lambda _run: os.kill(os.getpid(), signal.SIGINT)))
    assert result.stopped and len(result) == BEFORE_A_BATCH_IS_HOME
    assert (result.frame["status"] == "ok").all() and result.frame["text"].notna().all() and result.frame["long"].notna().all()


def test_a_cancellation_keeps_what_was_finished_before_its_batch(two_workers, tmp_path):
    async def cancelled(served, gate):
        client = tk.AsyncClient(base_urls={"openai_compatible": f"{served.url}/v1"}, cache=False, journal=str(tmp_path / "a.sqlite"))
        lookout = Lookout(lambda _run: asking.cancel())
        asking = asyncio.create_task(tk.acompare(MODELS, PROMPTS, client=client, concurrency=8, progress=lookout))
        with pytest.raises(asyncio.CancelledError):
            await asking
        kept = lookout.counts[-1]
        gate.opened.set()  # the batches under way end by themselves
        return kept, lookout.run

    with stalling() as (served, gate):
        kept, run = asyncio.run(cancelled(served, gate))
    assert kept == BEFORE_A_BATCH_IS_HOME
    assert len(run.rows) == len(run.done) < 2 * len(PROMPTS)


def test_a_stop_between_batches_is_heard(two_workers, tmp_path):
    with stalling() as (served, gate):
        result = compared(client_of(served, tmp_path, "stop"), progress=Lookout(lambda run: (run.stop(), gate.opened.set())))
    assert result.stopped and BEFORE_A_BATCH_IS_HOME < len(result) < 2 * len(PROMPTS)


def test_a_stop_before_the_first_batch_asks_nothing_or_what_was_sent(two_workers, server, tmp_path):
    result = compared(client_of(server, tmp_path, "at-once"), progress=lambda run: run.stop())
    assert result.stopped and len(result) < 2 * len(PROMPTS)


@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed")  # joblib's, of batches that nobody waits for
def test_an_error_of_the_watcher_is_the_callers(two_workers, server, tmp_path):
    def trip(_run):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compared(client_of(server, tmp_path, "tripped"), progress=trip)


def test_what_a_failing_call_left_comes_home_as_rows(two_workers, tmp_path):
    with ChatService(key="another").serve() as server:
        result = compared(client_of(server, tmp_path, "refused"))
    assert set(result.frame["error_type"]) == {"AuthError"}
    assert len(tk.monitor.errors(journal=str(tmp_path / "refused.sqlite"))) == len(result)


def test_a_stop_begins_no_further_batch(two_workers, tmp_path):
    quick, gate = iter(range(6)), Gate()

    def stop(run):
        if run.done:
            run.stop()
            gate.opened.set()

    def fault(_request, good):
        return dataclasses.replace(good, before=() if next(quick, None) is not None else (gate,))

    with ChatService(fault=fault).serve() as server:
        result = compared(client_of(server, tmp_path, "stopped"), progress=stop)
    assert result.stopped and 0 < len(result) < 2 * len(PROMPTS)


def test_what_keeps_calls_from_being_made_is_told_at_home(two_workers):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        tk.compare(["openai_compatible/x"], ["a", "b"], client=tk.Client(cache=False, journal=False))


def test_n_jobs_alone_asks_from_processes(server, tmp_path):
    result = compared(client_of(server, tmp_path, "jobs"), n_jobs=2, warmup=1)
    assert len(set(result.frame["process"])) == 2 and "2 warm-up calls are left out" in result.notes


def test_a_number_of_jobs_configured_for_joblib_asks_from_processes_too(server, tmp_path):
    with joblib.parallel_config(n_jobs=2):
        result = compared(client_of(server, tmp_path, "jobs"))
    assert len(set(result.frame["process"])) == 2


def test_the_awaitable_twin_asks_from_processes_too(server, tmp_path):
    client = tk.AsyncClient(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=False, journal=str(tmp_path / "a.sqlite"))
    result = asyncio.run(tk.acompare(MODELS, PROMPTS, client=client, concurrency=8, n_jobs=2))
    assert len(set(result.frame["process"])) == 2 and (result.frame["status"] == "ok").all()


@pytest.mark.parametrize("choice", [{"backend": "threading", "n_jobs": 2}, {"backend": "sequential"}, {"prefer": "threads", "n_jobs": 2}])
def test_a_backend_of_threads_leaves_the_calls_in_this_process(choice, server, tmp_path):
    with joblib.parallel_config(**choice):
        result = compared(client_of(server, tmp_path, "home"))
    assert {process.rpartition(":")[2] for process in result.frame["process"]} == {str(os.getpid())}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: tk.Client(api_keys={"cohere": "a-secret"}), "keys for cohere"),
        (lambda: tk.Client(transport=lambda: httpx.MockTransport(print)), "transport of your own"),
        (lambda: tk.Client(cache=ResponseCache(stores=[])), "made of stores="),
    ],
)
def test_a_client_that_can_not_be_sent_says_what_to_do(make, told):
    with pytest.raises(ConfigError, match=told) as caught:
        tk.compare(["scripted/echo"], ["x"], client=make(), n_jobs=2)
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("n_jobs", [0, True, 1.5, "2"])
def test_a_number_of_processes_that_is_none_is_told(n_jobs):
    with pytest.raises(ConfigError, match="n_jobs"):
        tk.compare(["scripted/echo"], ["x"], n_jobs=n_jobs)


def test_a_password_stays_at_home_and_a_worker_reads_its_own(monkeypatch):
    url = "redis://user:pass-word@cache.example:6379/2"
    address = Address.of(url, "TOOLKIT_CACHE")
    assert "pass-word" not in repr(address)
    with pytest.raises(ConfigError, match=r"TOOLKIT_CACHE is not redis://cache\.example:6379/2"):
        address.read()
    monkeypatch.setenv("TOOLKIT_CACHE", url)
    assert address.read() == url
    assert Address.of(without_password(url), "TOOLKIT_CACHE").read() == "redis://cache.example:6379/2"
