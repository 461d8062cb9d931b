"""A grid that is killed at random points and run again: the frame is that of an uninterrupted one, and hardly anything is asked twice."""

import collections
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

import toolkit as tk
from servers.chat_completions import ChatService
from servers.http import Pause, Server
from toolkit.testing import Answer, script

KILLS = int(os.environ.get("KILLS", "8"))
KILLS_A_GRID = 5
PROMPTS = [f"question {i}" for i in range(12)]
WIDTH = 4
CELLS = 2 * 2 * len(PROMPTS)
SAME = ["label", "prompt_id", "repeat", "prompt", "text", "status", "finish_reason", "input_tokens", "output_tokens"]

# Forks a child for each line (the toolkit is imported once), which makes the comparison and writes its frame.
NURSERY = """
import json, os, sys
import pandas, toolkit as tk
import toolkit.comparison.comparison

def compare(url, home, out, cache):
    os.environ["TOOLKIT_HOME"] = home
    client = tk.Client(base_urls={"openai_compatible": url})
    models = [tk.Model("openai_compatible/demo-small", label=label, seed=seed) for seed, label in enumerate(["first", "second"])]
    prompts = [f"question {i}" for i in range(12)]
    result = tk.compare(models, prompts, repeats=2, concurrency=4, stream=False, client=client, name="grid", progress=False, cache=cache)
    with open(out + ".part", "w") as file:
        json.dump({"notes": result.notes, "rows": json.loads(result.frame.to_json(orient="records", date_format="iso"))}, file)
    os.rename(out + ".part", out)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        compare(**json.loads(line))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


class Killer:
    """A service that kills who asks it when so many requests have come."""

    def __init__(self):
        self.service = ChatService()
        self.lock = threading.Lock()
        self.pause_s = 0.0
        self.arm(None)

    def arm(self, victim, after=0):
        with self.lock:
            self.victim, self.left = victim, after

    def __call__(self, request):
        with self.lock:
            self.left -= 1
            struck = self.victim is not None and self.left < 0
            find, self.victim = self.victim, None if struck else self.victim
        if struck:
            os.kill(find(), signal.SIGKILL)
        answer = self.service(request)
        return dataclasses.replace(answer, before=(Pause(self.pause_s),)) if self.pause_s else answer


class Nursery:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.child = None
        self.born = threading.Event()

    def start(self, **order):
        self.born.clear()
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.child = int(self.process.stdout.readline())
        self.born.set()

    def pid(self):
        self.born.wait(20)
        return self.child

    def wait(self):
        assert self.process.stdout.readline() == "gone\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


def asked(server):
    return collections.Counter((r.json["messages"][0]["content"], r.json["seed"]) for r in server.requests)


@pytest.mark.parametrize("seed", range(-(-KILLS // KILLS_A_GRID)))
def test_after_kill_9_anywhere_the_same_cell_gives_the_whole_frame(nursery, tmp_path, seed):
    killer, chance = Killer(), random.Random(seed)
    kills = min(KILLS_A_GRID, KILLS - seed * KILLS_A_GRID)
    with Server(killer) as server:
        order = {"url": f"{server.url}/v1", "cache": True}
        nursery.start(**order, home=str(tmp_path / "quiet"), out=str(tmp_path / "quiet.json"))
        nursery.wait()
        asked_once = asked(server)
        server.requests.clear()
        order |= {"home": str(tmp_path / "stormy"), "out": str(tmp_path / "stormy.json")}
        for left in range(kills, 0, -1):
            missing = CELLS - len(server.requests)  # or a few more, that were under way at a kill
            killer.arm(nursery.pid, after=chance.randrange(max(1, missing // left)))
            nursery.start(**order)
            nursery.wait()
            assert not (tmp_path / "stormy.json").exists()
        killer.arm(None)
        nursery.start(**order)
        nursery.wait()
        again = asked(server)
    assert table(tmp_path / "stormy.json") == table(tmp_path / "quiet.json")
    assert set(asked_once.values()) == {2} and again.keys() == asked_once.keys()
    assert sum(again.values()) <= CELLS + kills * WIDTH


def table(path):
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == CELLS
    return [[row[name] for name in SAME] for row in rows]


def test_without_the_cache_a_killed_run_goes_on_from_the_journal(nursery, tmp_path):
    killer = Killer()
    with Server(killer) as server:
        order = {"url": f"{server.url}/v1", "cache": False, "home": str(tmp_path), "out": str(tmp_path / "out.json")}
        killer.arm(nursery.pid, after=40)
        killer.pause_s = 0.02  # the journal writes every tenth of a second: most of this grid is there when the kill comes
        nursery.start(**order)
        nursery.wait()
        before = len(server.requests)
        nursery.start(**order)
        nursery.wait()
        assert len(server.requests) < before + CELLS
        resumed = len(server.requests) - before
    kept = CELLS - resumed
    assert table(tmp_path / "out.json")
    notes = json.loads((tmp_path / "out.json").read_text())["notes"]
    assert len(notes) == 1 and notes[0].startswith(f"resumed: {kept} of {CELLS} are from the run of ")
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["provenance"] for row in rows} == {"live"} and len({row["run_id"] for row in rows}) == 1
    assert len({row["process"] for row in rows}) == 2


# --- resuming in one process -----------------------------------------------------------------------------------------------


def stopped_half_way(name="grid", **more):
    """A comparison without cache that a rule of the watcher stops half-way."""

    def stop(run):
        if len(run.done) >= 5:
            run.stop()

    script("takes its time", lambda prompt, _body: Answer(prompt, first_token_s=0.06))
    how = {"name": name, "cache": False, "concurrency": 1, "stream": False, **more}
    return tk.compare(["scripted/takes its time"], PROMPTS, progress=stop, **how)


def again(**more):
    how = {"name": "grid", "cache": False, "stream": False, **more}
    return tk.compare(["scripted/takes its time"], PROMPTS, **how)


def test_a_stopped_run_is_gone_on_with_in_its_own_order_and_its_answers_are_scored():
    first = stopped_half_way()
    assert first.stopped
    whole = again(scorers={"long": lambda completion, _reference: len(completion.text)})
    assert (whole.run_id, whole.order_seed) == (first.run_id, first.order_seed)
    assert whole.frame["long"].tolist() == [len(prompt) for prompt in PROMPTS]
    assert set(first.frame["call_id"]) < set(whole.frame["call_id"])
    assert f"resumed: {len(first)} of 12" in whole.text()


@pytest.mark.parametrize("more", [{"resume": False}, {"name": "another"}, {"temperature": 0.5}, {"repeats": 2}])
def test_a_run_that_asks_something_else_begins_anew(more):
    first = stopped_half_way()
    whole = again(**more)
    assert whole.run_id != first.run_id and not whole.notes


def test_a_run_that_finished_is_asked_anew():
    stopped_half_way()
    whole = again()
    third = again()
    assert third.run_id != whole.run_id and set(third.frame["call_id"]).isdisjoint(whole.frame["call_id"])


def test_answers_that_were_not_recorded_are_asked_anew(monkeypatch):
    monkeypatch.setenv("TOOLKIT_RECORD_CONTENT", "0")
    tk.defaults.reset()
    first = stopped_half_way()
    assert again().run_id != first.run_id


def test_a_run_under_way_is_nobody_elses_to_go_on_with():
    other = []

    def look(run):
        if len(run.done) >= 3 and not other:
            other.append(again())

    script("takes its time", lambda prompt, _body: Answer(prompt, first_token_s=0.06))
    whole = again(concurrency=1, progress=look)
    assert other[0].run_id != whole.run_id and not other[0].notes
