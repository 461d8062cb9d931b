"""The same comparison in this process and in others: loky, Dask, Ray. Real processes, a real server that counts."""

import collections
import contextlib
import os

import joblib
import pytest

import toolkit as tk
from servers.chat_completions import ChatService, changed
from servers.http import Pause
from toolkit.cache import ResponseCache

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
def ray(tmp_path_factory):
    import ray as ray_
    from ray.util.joblib import register_ray

    ray_.init(num_cpus=2, include_dashboard=False, _temp_dir=str(tmp_path_factory), log_to_driver=False, configure_logging=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=2):
            yield
    finally:
        ray_.shutdown()


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_the_same_comparison_in_worker_processes_gives_the_same_frame(backend, server, tmp_path, monkeypatch):
    at_home = compared(client_of(server, tmp_path, "home"))
    calls_at_home = asked(server)
    server.requests.clear()
    import tempfile

    with contextlib.ExitStack() as stack:
        short = stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp"))  # a socket's path has 107 bytes at most
        stack.enter_context({"loky": loky, "dask": dask, "ray": lambda: ray(short)}[backend]())
        client = client_of(server, tmp_path, backend)
        result = compared(client)
    assert result.frame[SAME].equals(at_home.frame[SAME])
    assert asked(server) == calls_at_home and set(calls_at_home.values()) == {1}
    processes = set(result.frame["process"])
    assert len(processes) == 2 and not any(process.endswith(f":{os.getpid()}") for process in processes)
    journaled = tk.monitor.calls(run=result.run_id, journal=str(tmp_path / f"{backend}.sqlite"))
    assert sorted(journaled["call_id"]) == sorted(result.frame["call_id"])
