"""How many calls at a time: learnt from refusals, forgotten slowly."""

import math
import threading
import time

import httpx
import pytest

from servers.chat_completions import ChatService
from servers.http import json_answer
from toolkit import compare
from toolkit.call import wait_for
from toolkit.client import Client
from toolkit.timing import Ledger
from toolkit.wire.limiter import Limiter
from toolkit.wire.retry import Retry


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def crowd(limiter, calls):
    return sum(limiter.enter() for _ in range(calls))


def test_without_a_refusal_there_is_no_limit():
    limiter = Limiter(timer=Clock())
    assert crowd(limiter, 1000) == 1000
    limiter.leave(answered=True)
    assert limiter.limit == math.inf


def test_a_refusal_halves_what_was_under_way_and_one_crowd_counts_once():
    limiter = Limiter(timer=Clock())
    crowd(limiter, 16)
    for _ in range(16):
        limiter.leave(refused=True)
    assert limiter.limit == 8
    assert crowd(limiter, 20) == 8


def test_a_later_refusal_halves_again_but_never_below_one():
    clock = Clock()
    limiter = Limiter(timer=clock)
    for _ in range(10):
        crowd(limiter, 16)
        clock.now += 2.0
        while limiter.under_way:
            limiter.leave(refused=True)
    assert limiter.limit == 1
    assert crowd(limiter, 5) == 1


def test_however_many_wait_they_do_not_ask_more_often_together():
    """On an event loop, thousands that each ask fifty times a second would leave no time for the calls they wait for."""
    limiter = Limiter(timer=Clock(), random=lambda: 0.5)
    limiter.limit = 1
    limiter.enter()
    few = wait_for(limiter, Ledger(Clock(), None))
    assert next(few).seconds == Limiter.PAUSE_S
    crowd = [wait_for(limiter, Ledger(Clock(), None)) for _ in range(3000)]
    for steps in crowd:
        next(steps)
    assert sum(1 / steps.send(None).seconds for steps in crowd) <= Limiter.ASKED_PER_S
    limiter.leave()
    with pytest.raises(StopIteration):
        few.send(None)
    for steps in crowd:
        steps.close()
    assert (limiter.under_way, limiter.waiting) == (1, 0)


def test_a_crowd_that_came_at_once_does_not_ask_at_once():
    limiter = Limiter(timer=Clock())
    limiter.waiting = 4000
    pauses = [limiter.pause_s() for _ in range(4000)]
    for second in (0, 1, 2, 3):
        assert 800 < sum(second <= pause < second + 1 for pause in pauses) < 1200


def test_each_round_of_good_answers_lets_one_more_in():
    limiter = Limiter(timer=Clock())
    crowd(limiter, 8)
    limiter.leave(refused=True)
    while limiter.under_way:
        limiter.leave()
    assert limiter.limit == 4
    for _ in range(4):
        limiter.enter()
    for _ in range(4):
        limiter.leave(answered=True)
    assert limiter.limit == pytest.approx(5, abs=0.2)


def test_threads_never_exceed_the_limit():
    limiter = Limiter(timer=Clock())
    crowd(limiter, 8)
    for _ in range(8):
        limiter.leave(refused=True)
    most, lock, inside = [0], threading.Lock(), [0]

    def work():
        for _ in range(200):
            if limiter.enter():
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                with lock:
                    inside[0] -= 1
                limiter.leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 4
    assert limiter.under_way == 0


class Narrow(ChatService):
    """A service that bears three calls at a time and says 429 to more."""

    def __init__(self):
        super().__init__()
        self.now, self.refused, self.lock = 0, 0, threading.Lock()
        self.crowd = threading.Event()  # until it has come the first calls stay, however slowly the machine begins the next
        self.fault = self.admit

    def admit(self, _request, good):
        with self.lock:
            self.now += 1
            crowded = self.now > 3
            self.refused += crowded
        if crowded:
            self.crowd.set()
        self.crowd.wait(30)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return json_answer({"error": {"message": "slow down"}}, 429) if crowded else good


def test_a_comparison_finds_the_pace_of_its_server_and_books_the_waiting_apart():
    service = Narrow()
    with service.serve() as server:
        client = Client(
            base_urls={"openai_compatible": f"{server.url}/v1"},
            cache=False,
            retry=Retry(attempts=30, first_s=0.02, cap_s=0.05, budget_s=60.0),
        )
        result = compare(["openai_compatible/demo-small"], [f"p{i}" for i in range(60)], concurrency=16, client=client, cache=False)
    frame = result.frame
    assert (frame["status"] == "ok").all()
    assert frame["limiter_wait_s"].sum() > 0
    parts = frame[["lookup_s", "limiter_wait_s", "retry_sleep_s", "failed_attempts_s", "latency_s", "consumer_s"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(frame["total_s"].to_numpy(), abs=1e-6)


def test_each_service_has_a_limit_of_its_own():
    busy = httpx.Response(429)
    service = lambda request: busy if "one" in request.url.host else httpx.Response(503)  # noqa: E731
    client = Client(
        base_urls={"openai_compatible": "http://one.invalid/v1", "lmstudio": "http://two.invalid/v1"},
        cache=False,
        journal=False,
        retry=Retry(attempts=1),
        transport=lambda: httpx.MockTransport(service),
    )
    for model in ("openai_compatible/m", "lmstudio/m"):
        with pytest.raises(Exception, match=r"429|503"):
            client.generate_text(model, "hi")
    assert client._tools.limiter("openai_compatible").limit == 1
    assert client._tools.limiter("lmstudio").limit == math.inf
