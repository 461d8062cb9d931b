"""The journal under several writers, a reader, and kill -9. ``JOURNAL_CALLS`` and ``JOURNAL_KILLS`` make it as long as one likes."""

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import toolkit as tk
from journals import in_another_process
from toolkit.monitor.journal import JournalReader

CALLS = int(os.environ.get("JOURNAL_CALLS", "6000"))
KILLS = int(os.environ.get("JOURNAL_KILLS", "4"))
WRITERS = 4
KILLED_AT_ONCE = 4
BEFORE_S = 1.0


def test_four_processes_write_while_a_fifth_reads_what_is_new_and_nobody_waits_for_another(journal_url):
    program = """
        journal, calls = Journal(sys.argv[1], keep=10**7), [call() for _ in range(int(sys.argv[2]))]
        print("ready", flush=True)
        sys.stdin.readline()
        for number, record in enumerate(calls):
            journal.append(record)
            if number % 500 == 499:
                threading.Event().wait(0.01)
        sys.exit(not journal.flush(600) or journal.lost)
    """
    writers = [in_another_process(program, journal_url, CALLS // WRITERS, stderr=subprocess.PIPE) for _ in range(WRITERS)]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * WRITERS
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    reader, seen, last, looks, at_work = JournalReader(journal_url), [], 0, 0, True
    while at_work:
        at_work = any(writer.poll() is None for writer in writers)  # asked first: what they wrote last is found by the look that follows
        found = reader.calls(after_row=last, columns=["call_id"], limit=None if not at_work else 5000)
        if found["row"]:
            assert found["row"] == sorted(found["row"])
            last = found["row"][-1]
            seen += found["call_id"]
            looks += at_work
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * WRITERS
    assert (len(seen), len(set(seen))) == (CALLS, CALLS)
    assert looks >= 5, "the reader got new rows while the writers were at it"
    assert reader.calls(columns=["call_id"])["call_id"] == seen


def ask_for_ever(journal_url, returned):
    """Ask, and note each call and the moment at which its answer was there."""
    notes = os.open(returned, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pause = threading.Event()
    with tk.Client(cache=False, journal=journal_url) as client:
        while True:
            done = client.generate_text("scripted/echo", "hi", cache=False)
            os.write(notes, f"{done.call_id} {time.monotonic()}\n".encode())
            pause.wait(0.01)


class FreeTime:
    """A clock that stands still while a program, or what it waits for, queues for a processor: a second of a busy machine is longer."""

    def __init__(self, programs):
        self.programs = programs
        self.looks = []  # the moment, and what this clock showed then
        self.queued = {}
        self.look()

    def look(self):
        now, queued = time.monotonic(), dict(each for program in self.programs() for each in queued_s(program))
        before, shown_s = self.looks[-1] if self.looks else (now, 0.0)
        stood_s = max((waited - self.queued.get(thread, 0.0) for thread, waited in queued.items()), default=0.0)
        self.queued |= queued
        self.looks.append((now, shown_s + max(0.0, now - before - stood_s)))

    def at(self, moment):
        return next((shown_s for looked, shown_s in self.looks if looked >= moment), self.now())

    def now(self):
        return self.looks[-1][1]


def queued_s(process):
    """Yield each thread of a process and the seconds for which it was ready to run and did not; nothing where Linux doesn't count them."""
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            yield path, int(path.read_text().split()[1]) / 1e9


def with_children(process):
    children = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [process, *itertools.chain.from_iterable(children)]


def killed_at_random(journal_url, servers, folder, number):
    """Start a process that asks, kill it at a random moment; return the calls whose answers it had for long enough."""
    returned = folder / f"returned-{number}"
    process = multiprocessing.get_context("fork").Process(target=ask_for_ever, args=(journal_url, returned))
    process.start()
    waiting, clock = threading.Event(), FreeTime(lambda: [process.pid, *itertools.chain.from_iterable(map(with_children, servers))])
    for _ in range(6000):
        if returned.exists() and returned.stat().st_size:
            break
        waiting.wait(0.01)
    clock.look()
    lives_s = clock.now() + random.Random(number).uniform(0.5, 2.5)
    while clock.now() < lives_s:
        waiting.wait(0.06)
        clock.look()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    notes = [(call_id, float(moment)) for call_id, moment in map(str.split, returned.read_text().splitlines())]
    return [call_id for call_id, moment in notes if clock.at(moment) < clock.now() - BEFORE_S]


@pytest.fixture
def servers(request, journal_url):
    """The processes that a journal's writers wait for, beside their own."""
    return [request.getfixturevalue("postgres_server").process.pid] if journal_url.startswith("postgresql") else []


def test_after_kill_9_at_random_moments_every_call_answered_a_second_before_is_there(journal_url, servers, tmp_path):
    answered, numbers = [], itertools.count()
    while (first := next(numbers)) < KILLS:
        batch = [first, *itertools.islice(numbers, min(KILLED_AT_ONCE, KILLS - first) - 1)]
        with ThreadPoolExecutor(len(batch)) as killers:
            for returned in killers.map(lambda number: killed_at_random(journal_url, servers, tmp_path, number), batch):
                answered += returned
    found = JournalReader(journal_url).calls(columns=["call_id"])["call_id"]
    assert len(answered) > KILLS
    assert not set(answered) - set(found)
    assert len(found) == len(set(found))
