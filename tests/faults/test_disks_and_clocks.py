"""A disk without room, a home that may not be written to, clocks that jump: answers go on, and nothing paid for is lost."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import toolkit
from servers.chat_completions import ChatService
from toolkit import Client
from toolkit.cache import ResponseCache
from toolkit.monitor.journal import JournalReader
from toolkit.wire.limiter import Limiter

MODEL = "openai_compatible/demo-small"
ROOT = Path(toolkit.__file__).parents[1]


def run(script, url, home, *arguments):
    environment = {**os.environ, "TOOLKIT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script, url, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120
    )


FULL = """
import resource, signal, sys
import toolkit as tk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with tk.Client(base_urls={"openai_compatible": sys.argv[1]}) as client:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    answers = [client.generate_text("openai_compatible/demo-small", f"{number} " + "x" * 3000).text for number in range(60)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    last = client.generate_text("openai_compatible/demo-small", "room again")
print(len(answers), len(set(answers)), last.provenance)
"""


def test_a_full_disk_costs_no_answer_and_no_row_and_is_warned_of_once_a_place(tmp_path):
    with ChatService().serve() as server:
        done = run(FULL, f"{server.url}/v1", tmp_path)
        assert (done.stdout.split(), done.returncode) == (["60", "1", "live"], 0), done.stderr
        assert len(server.requests) == 61
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 6, done.stderr
    assert JournalReader(tmp_path / "journal.sqlite").last_row() == 61


READ_ONLY = """
import os, sys
import toolkit as tk, toolkit.defaults, toolkit.monitor.journal, sqlite3, encodings.idna
tk.generate_text("scripted/echo", "hi", cache=False)  # everything is imported
toolkit.defaults.reset()
os.environ["TOOLKIT_HOME"] = sys.argv[2]
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
client = tk.Client(base_urls={"openai_compatible": sys.argv[1]})
print([client.generate_text("openai_compatible/demo-small", "hi").provenance for _ in range(3)])
client.close()
"""


def test_a_home_that_may_not_be_written_to_costs_no_answer(own_home):
    with ChatService().serve() as server, tempfile.TemporaryDirectory() as parent:  # not below tmp_path, which nobody else can enter
        home = Path(parent, "home")
        home.joinpath("cache").mkdir(parents=True)
        for folder in (home / "cache", home):
            folder.chmod(0o555)
        Path(parent).chmod(0o755)
        done = run(READ_ONLY, f"{server.url}/v1", own_home, home)
        for folder in (home, home / "cache"):
            folder.chmod(0o755)
    assert (done.stdout, done.returncode) == ("['live', 'replayed', 'replayed']\n", 0), done.stderr
    assert "Traceback" not in done.stderr
    assert str(home) in done.stderr, "it is said what can't be written to"


def test_a_home_that_can_not_be_made_says_what_to_set(own_home):
    with ChatService().serve() as server, tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o555)
        done = run(READ_ONLY, f"{server.url}/v1", own_home, Path(parent, "home"))
        Path(parent).chmod(0o755)
    assert done.returncode != 0
    assert "set TOOLKIT_HOME to one you can write to" in done.stderr


# --- clocks ------------------------------------------------------------------------------------------------------------------------------

DAY_S = 86_400.0


class Clock:
    def __init__(self, now=None):
        self.now = time.time() if now is None else now

    def __call__(self):
        return self.now


@pytest.mark.parametrize("jump_s", [-30 * DAY_S, 30 * DAY_S], ids=["back", "forward"])
def test_answers_in_memory_live_by_the_clock_that_does_not_jump(jump_s):
    wall, steady = Clock(), Clock(100.0)
    cache = ResponseCache(ttl_s=60.0, timer=steady, clock=wall)
    with ChatService().serve() as server, Client(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=cache, journal=False) as client:
        client.generate_text(MODEL, "hi")
        wall.now += jump_s
        steady.now += 59
        assert client.generate_text(MODEL, "hi").provenance == "replayed"
        steady.now += 2
        client.generate_text(MODEL, "hi")


@pytest.mark.parametrize("jump_s", [-30 * DAY_S, 30 * DAY_S], ids=["back", "forward"])
def test_a_jump_of_the_wall_clock_costs_a_question_at_most(tmp_path, jump_s):
    wall = Clock()
    with ChatService().serve() as server:
        client = Client(
            base_urls={"openai_compatible": f"{server.url}/v1"},
            cache=ResponseCache(tmp_path, memory_entries=1, ttl_s=3600.0, clock=wall),
            journal=False,
        )
        with client:
            client.generate_text(MODEL, "hi")
            client.generate_text(MODEL, "something else")
            wall.now += jump_s
            first = client.generate_text(MODEL, "hi")
            wall.now -= jump_s  # the clock is set right
            client.generate_text(MODEL, "hi")
            client.generate_text(MODEL, "something else")
            again = client.generate_text(MODEL, "hi")
    assert first.provenance == ("live" if jump_s > 0 else "replayed")
    assert again.provenance == "replayed"


def test_a_limit_learned_before_the_machine_slept_is_still_one():
    steady = Clock(0.0)
    limiter = Limiter(timer=steady)
    for _ in range(4):
        limiter.enter()
    limiter.leave(refused=True)
    steady.now += DAY_S
    limiter.leave(refused=True)
    assert limiter.limit == 1.0
