"""When bytes came is the kernel's word: what a busy program or a slow reader does meanwhile is neither the model's time nor taken out of it."""

import asyncio
import select
import socket
import sys
import time

import pytest

import toolkit as tk
from servers.http import Answer, Gate, Server
from test_timing import PARTS, ending, piece
from toolkit.timing import Ledger
from toolkit.wire.stamps import StampedSocket, stamped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when packets came")

PATIENCE_S = 20.0
HELD_S = 0.05  # how long a program keeps away from what has come; nothing asserts how long anything else takes
MODEL = "openai_compatible/m"


class Story:
    """A service that stops where the test wants it, and the moments that the test notes."""

    def __init__(self, *, stream):
        self.begun, self.all_sent = Gate(), Gate()
        whole = b'{"choices": [{"message": {"content": "one two"}, "finish_reason": "stop"}]}'
        first, rest = (piece("one "), piece("two") + ending(2)) if stream else (whole[:20], whole[20:])
        self.writes = (first, self.begun, rest, self.all_sent)
        self.kind = "text/event-stream" if stream else "application/json"

    def serve(self):
        return Server(lambda _request: Answer(headers={"content-type": self.kind}, writes=self.writes, framing="length"))

    def let_it_finish(self):
        """Hold back, let the service send the rest, and hold back again; return the moments before and after the sending."""
        assert self.begun.reached.wait(PATIENCE_S)
        time.sleep(HELD_S)
        before = time.perf_counter()
        self.begun.opened.set()
        assert self.all_sent.reached.wait(PATIENCE_S)
        after = time.perf_counter()
        time.sleep(HELD_S)
        self.all_sent.opened.set()
        return before, after


def client_of(kind, server):
    return kind(base_urls={"openai_compatible": f"{server.url}/v1"}, cache=False, journal=False)


def adds_up(timing):
    return sum(getattr(timing, part) for part in PARTS) == pytest.approx(timing.total_s)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_event_loop_that_was_busy_is_not_the_models_latency(stream):
    story = Story(stream=stream)

    async def ask(server):
        async with client_of(tk.AsyncClient, server) as client:
            begun = time.perf_counter()
            asking = asyncio.create_task(client.ask(MODEL, "hi", tk.client.Options(), cache=False, stream=stream))
            while not story.begun.reached.is_set():
                await asyncio.sleep(0.001)
            before, after = story.let_it_finish()  # nothing else runs on the loop meanwhile
            return begun, before, after, (await asking).timing

    with story.serve() as server:
        begun, before, after, timing = asyncio.run(ask(server))
    assert before - begun - HELD_S < timing.latency_s <= after - begun
    assert timing.loop_stall_s > 0
    assert adds_up(timing)


def test_a_slow_reader_takes_nothing_from_the_latency_and_only_what_it_adds_is_its_own():
    story, times = Story(stream=True), []
    with story.serve() as server, client_of(tk.Client, server) as client:
        begun = time.perf_counter()
        for event in client.stream_text(MODEL, "hi", cache=False):
            if not times:
                times = [time.perf_counter(), *story.let_it_finish()]
        ended = time.perf_counter()
    (first, before, after), timing = times, event.completion.timing
    assert before - first < timing.latency_s <= after - begun  # the model was at work while the reader was busy
    assert HELD_S <= timing.consumer_s <= ended - before
    assert adds_up(timing)


def test_silence_after_the_last_bytes_of_a_failed_attempt_is_the_services():
    with Server(lambda _request: Answer(headers={"content-type": "text/event-stream"}, writes=(piece("one "), Gate()))) as server:
        with client_of(tk.Client, server) as client, pytest.raises(tk.errors.ProviderTimeoutError):
            outcomes = []
            client.ask(MODEL, "hi", tk.client.Options(timeout_s=HELD_S), cache=False, stream=True, observe=outcomes.append)
    (outcome,) = outcomes
    assert outcome.timing.failed_attempts_s >= HELD_S
    assert outcome.timing.loop_stall_s == 0


@pytest.mark.parametrize("make", [stamped, lambda plain: StampedSocket(fileno=plain.detach())])
def test_a_socket_knows_when_its_bytes_came_before_they_are_read(make):
    ours, theirs = socket.socketpair(socket.AF_INET) if sys.platform == "win32" else tcp_pair()
    with make(ours) as ours, theirs:
        before = time.perf_counter()
        theirs.sendall(b"hello")
        assert select.select([ours], [], [], PATIENCE_S)[0]
        after = time.perf_counter()
        time.sleep(HELD_S)
        assert ours.recv(100) == b"hello"
    clocks_s = 0.001  # two clocks are read one after the other
    assert before - clocks_s <= ours.arrived_at <= after + clocks_s


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def ledger_of(clock):
    ledger = Ledger(clock)
    ledger.stamped = True
    ledger.begin_attempt()
    return ledger


@pytest.mark.parametrize("stamp, latency_s", [(90.0, 0.0), (101.5, 1.5), (200.0, 2.0)], ids=["before the request", "in between", "to come"])
def test_a_clock_that_was_set_meanwhile_moves_an_arrival_no_further_than_it_can_have_been(stamp, latency_s):
    clock = Clock()
    ledger = ledger_of(clock)
    clock.now += 2.0
    ledger.book_arrival(stamp)
    ledger.end_attempt(answered=True)
    assert (ledger.attempt_s, ledger.stall_s) == (latency_s, 2.0 - latency_s)


def test_what_a_reader_takes_while_the_model_is_at_work_is_booked_to_nobody_else():
    clock = Clock()
    ledger = ledger_of(clock)
    clock.now += 1.0
    ledger.book_arrival(101.0)
    clock.now += 5.0  # with the reader; the rest comes 2 s into it, and is taken 3 s later
    ledger.book_consumer()
    ledger.book_arrival(103.0)
    clock.now += 0.5
    ledger.end_attempt(answered=True)
    assert (ledger.attempt_s, ledger.consumer_s, ledger.stall_s) == (3.0, 3.5, 0.0)


def test_arrivals_are_not_believed_by_a_clock_that_they_are_not_told_by():
    clock = Clock()
    ledger = Ledger(clock)
    clock.now += 2.0
    ledger.book_arrival(time.perf_counter())
    ledger.end_attempt(answered=True)
    assert ledger.attempt_s == 2.0
