"""The journal under several writers, a reader, and kill -9. ``JOURNAL_CALLS`` and ``JOURNAL_KILLS`` make it as long as one likes."""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import toolkit as tk
from journals import in_another_process
from toolkit.monitor.journal import JournalReader

CALLS = int(os.environ.get("JOURNAL_CALLS", "12000"))
KILLS = int(os.environ.get("JOURNAL_KILLS", "12"))
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
            pause.wait(0.002)


def killed_at_random(journal_url, folder, number):
    """Start a process that asks, kill it at a random moment; return the calls whose answers it had for long enough."""
    returned = folder / f"returned-{number}"
    process = multiprocessing.get_context("fork").Process(target=ask_for_ever, args=(journal_url, returned))
    process.start()
    waiting = threading.Event()
    for _ in range(6000):
        if returned.exists() and returned.stat().st_size:
            break
        waiting.wait(0.01)
    waiting.wait(random.Random(number).uniform(0.5, 2.5))
    killed_at = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    notes = [line.split() for line in returned.read_text().splitlines()]
    return [call_id for call_id, moment in notes if float(moment) < killed_at - BEFORE_S]


def test_after_kill_9_at_random_moments_every_call_answered_a_second_before_is_there(journal_url, tmp_path):
    answered, numbers = [], itertools.count()
    while (first := next(numbers)) < KILLS:
        batch = [first, *itertools.islice(numbers, min(KILLED_AT_ONCE, KILLS - first) - 1)]
        with ThreadPoolExecutor(len(batch)) as killers:
            for returned in killers.map(lambda number: killed_at_random(journal_url, tmp_path, number), batch):
                answered += returned
    found = JournalReader(journal_url).calls(columns=["call_id"])["call_id"]
    assert len(answered) > KILLS
    assert not set(answered) - set(found)
    assert len(found) == len(set(found))
