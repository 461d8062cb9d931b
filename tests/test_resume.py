"""A comparison that was killed: what had been reported done is never asked again."""

import collections
import os
import random
import signal
import subprocess
import sys

import pytest

from servers.chat_completions import ChatService, changed
from servers.http import Pause

PROMPTS = [f"question {i}" for i in range(40)]

CHILD = """
import sys, toolkit as tk
prompts = [f"question {i}" for i in range(40)]

def report(run):
    seen = report.seen
    for row in run.rows[seen:]:
        print(row.prompt, flush=True)
    report.seen = len(run.rows)

report.seen = 0
client = tk.Client(base_urls={"openai_compatible": sys.argv[1]})
result = tk.compare(["openai_compatible/demo-small"], prompts, concurrency=4, progress=report, client=client)
print("all done:", (result.frame["status"] == "ok").sum(), flush=True)
"""


def start(url, home):
    environment = {**os.environ, "TOOLKIT_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", CHILD, url], env=environment, stdout=subprocess.PIPE, text=True)


def asked(server):
    return collections.Counter(request.json["messages"][0]["content"] for request in server.requests)


@pytest.mark.parametrize("kill_after", random.Random(5).sample(range(1, 30), 3))
def test_after_kill_9_no_answer_that_was_reported_is_asked_again(tmp_path, kill_after):
    with ChatService(fault=changed(before=(Pause(0.02),))).serve() as server:
        url = f"{server.url}/v1"
        child = start(url, tmp_path)
        reported = [child.stdout.readline().strip() for _ in range(kill_after)]
        child.send_signal(signal.SIGKILL)
        reported += [line.strip() for line in child.stdout if line.startswith("question")]
        child.wait()
        before = asked(server)

        again = start(url, tmp_path)
        lines = again.stdout.read().splitlines()
        assert again.wait() == 0
        assert lines[-1] == "all done: 40"
        after = asked(server)
    assert len(reported) >= kill_after
    assert {prompt: after[prompt] for prompt in reported} == {prompt: before[prompt] for prompt in reported}
    assert sum(after.values()) <= len(PROMPTS) + 4  # what was in flight at the kill is asked once more


def test_what_was_reported_is_in_the_journal_a_second_after(tmp_path):
    from toolkit.monitor.journal import JournalReader

    with ChatService(fault=changed(before=(Pause(0.05),))).serve() as server:
        child = start(f"{server.url}/v1", tmp_path)
        reported = [child.stdout.readline().strip() for _ in range(10)]
        reader = JournalReader(tmp_path / "journal.sqlite")
        rows = []
        for _ in range(100):  # at most: the child goes on for longer than a second
            rows = reader.calls(columns=["prompt"])["prompt"]
            if set(reported) <= set(rows):
                break
            child.stdout.readline()
        child.kill()
        child.wait()
        child.stdout.close()
    assert set(reported) <= set(rows)
