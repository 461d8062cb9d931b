"""Single flight: one asks, the others take what it brought."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import traceback

import pytest

from toolkit.cache.flights import ABANDONED, Failed, Flights, Landed
from toolkit.errors import RateLimitError


def in_thread(work):
    """Run work in a thread; return a function that waits for what it returned."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join(30)
        assert results, "the thread is still at work"
        return results[0]

    return result


def ask(flights, key, work, asked):
    """What a caller does: lead and work, or follow; take over where a leader gave up."""
    while True:
        flight = flights.join(key)
        if flight.leader:
            asked.append(key)
            flight.land(work())
            return "led"
        outcome = flight.wait()
        if outcome is not ABANDONED:
            return outcome


async def ask_async(flights, key, work, asked):
    while True:
        flight = flights.join(key)
        if flight.leader:
            asked.append(key)
            try:
                flight.land(await work())
            finally:
                flight.abandon()
            return "led"
        outcome = await flight.wait_async()
        if outcome is not ABANDONED:
            return outcome


def test_followers_that_joined_before_the_landing_all_take_it():
    flights = Flights()
    leader = flights.join("key")
    places = [flights.join("key") for _ in range(20)]
    waiting = [in_thread(place.wait) for place in places]
    leader.land("answer")
    assert [outcome() for outcome in waiting] == [Landed("answer")] * 20
    assert len(flights) == 0


def test_threads_and_two_event_loops_share_one_flight():
    flights = Flights()
    leader, in_another_loop, in_a_thread, *here = [flights.join("key") for _ in range(6)]
    another_loop = in_thread(lambda: asyncio.run(in_another_loop.wait_async()))
    a_thread = in_thread(in_a_thread.wait)

    async def this_loop():
        waiting = [asyncio.create_task(place.wait_async()) for place in here]
        await asyncio.sleep(0)
        leader.land("answer")
        return await asyncio.gather(*waiting)

    assert asyncio.run(this_loop()) == [Landed("answer")] * 3
    assert another_loop() == a_thread() == Landed("answer")


def test_different_keys_fly_apart():
    flights = Flights()
    first, second = flights.join("a"), flights.join("b")
    assert first.leader
    assert second.leader
    assert len(flights) == 2


def test_an_abandoned_flight_gets_exactly_one_new_leader():
    flights, asked = Flights(), []
    leader = flights.join("key")
    release = threading.Event()
    places = [flights.join("key") for _ in range(10)]

    def follow(place):
        assert place.wait() is ABANDONED
        return ask(flights, "key", lambda: release.wait(30) and "second answer", asked)

    followers = [in_thread(lambda place=place: follow(place)) for place in places]
    leader.abandon()
    while "key" not in flights._airborne or len(flights._airborne["key"].bells) < 9:
        pass  # until one leads and nine wait
    release.set()
    outcomes = [outcome() for outcome in followers]
    assert asked == ["key"]
    assert outcomes.count("led") == 1
    assert outcomes.count(Landed("second answer")) == 9


def test_waiters_of_an_abandoned_flight_on_one_loop_ask_once_more():
    flights, asked = Flights(), []

    async def work():
        await asyncio.sleep(0)
        return "answer"

    async def main():
        async def never():
            await asyncio.Event().wait()

        leader = asyncio.create_task(ask_async(flights, "key", never, asked))
        await asyncio.sleep(0)
        followers = [asyncio.create_task(ask_async(flights, "key", work, asked)) for _ in range(10)]
        await asyncio.sleep(0)
        leader.cancel()
        return await asyncio.gather(*followers)

    outcomes = asyncio.run(main())
    assert len(asked) == 2
    assert outcomes.count("led") == 1
    assert outcomes.count(Landed("answer")) == 9


def test_a_cancelled_waiter_disturbs_neither_the_leader_nor_the_others():
    flights = Flights()

    async def main():
        leader = flights.join("key")
        waiting = [asyncio.create_task(flights.join("key").wait_async()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        leader.land("answer")
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert first == third == Landed("answer")
    assert isinstance(second, asyncio.CancelledError)


def test_a_waiter_whose_loop_was_closed_disturbs_nobody():
    flights = Flights()
    leader = flights.join("key")
    loop = asyncio.new_event_loop()
    lost = flights.join("key").wait_async()
    task = loop.create_task(lost)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    other = flights.join("key")
    leader.land("answer")
    assert other.wait() == Landed("answer")
    assert not task.done()
    task._log_destroy_pending = False


def test_each_follower_gets_an_error_of_its_own_with_its_cause():
    flights = Flights()
    leader = flights.join("key")
    places = [flights.join("key") for _ in range(2)]
    try:
        raise RateLimitError("slow down", provider="p", status=429, retry_after=2.0) from OSError("the cause")
    except RateLimitError as exc:
        error = exc
    leader.fail(error)
    first, second = (place.wait().error for place in places)
    assert first is not second
    assert error not in (first, second)
    for copy in (first, second):
        assert isinstance(copy, RateLimitError)
        assert (str(copy), copy.provider, copy.status, copy.retry_after) == ("slow down", "p", 429, 2.0)
        assert copy.__cause__ is error.__cause__
        assert copy.__traceback__ is None


def test_tracebacks_of_followers_do_not_mix():
    flights = Flights()
    leader = flights.join("key")
    places = [flights.join("key") for _ in range(2)]
    leader.fail(ValueError("broken"))
    texts = []
    for place in places:
        try:
            raise place.wait().error
        except ValueError as error:
            texts.append("".join(traceback.format_exception(error)))
    assert texts[0].count("test_tracebacks") == texts[1].count("test_tracebacks") == 1


class StubbornError(Exception):
    def __copy__(self):
        raise TypeError("there is one of me")


def test_an_error_that_cannot_be_copied_is_handed_on_as_it_is():
    flights = Flights()
    leader, place = flights.join("key"), flights.join("key")
    error = StubbornError()
    leader.fail(error)
    assert place.wait() == Failed(error)


def test_the_first_end_counts():
    flights = Flights()
    leader, place = flights.join("key"), flights.join("key")
    leader.land("first")
    leader.land("second")
    leader.fail(ValueError())
    leader.abandon()
    assert place.wait() == Landed("first")


def test_a_second_end_does_not_touch_a_later_flight_of_the_same_key():
    flights = Flights()
    first = flights.join("key")
    first.land("first")
    second = flights.join("key")
    first.abandon()
    follower = flights.join("key")
    assert not follower.leader
    second.land("second")
    assert follower.wait() == Landed("second")


def test_a_follower_cannot_end_a_flight():
    flights = Flights()
    leader, follower = flights.join("key"), flights.join("key")
    with pytest.raises(RuntimeError, match="only the leader"):
        follower.land("answer")
    leader.abandon()


def test_a_leader_that_is_dropped_has_abandoned_its_flight():
    flights = Flights()
    leader, follower = flights.join("key"), flights.join("key")
    assert leader.leader
    del leader
    gc.collect()
    assert follower.wait() is ABANDONED
    assert flights.join("key").leader


def test_an_answer_is_shared_and_counted_once_for_each_follower():
    taken = []
    flights = Flights(share=list, taken=taken.append)
    leader, *places = [flights.join("key") for _ in range(3)]
    leader.land([1])
    first, second = (place.wait().kept for place in places)
    assert first == second == [1]
    assert first is not second
    assert len(taken) == 2


def test_ctrl_c_ends_the_wait_of_a_thread_and_nothing_else():
    flights = Flights()
    leader, place, other = flights.join("key"), flights.join("key"), flights.join("key")
    course = place._course

    def interrupt():
        while not course.bells:
            pass
        signal.raise_signal(signal.SIGINT) if os.name == "nt" else os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        place.wait()
    assert course.bells == {}
    leader.land("answer")
    assert other.wait() == Landed("answer")


def lead_in_child(flights, answers):
    answers.put(flights.join("key").leader)


def test_a_forked_child_does_not_wait_for_leaders_that_stayed_behind():
    if not hasattr(os, "fork"):
        return
    flights = Flights()
    leader = flights.join("key")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lead_in_child, args=(flights, answers))
    child.start()
    assert answers.get(timeout=30) is True
    child.join()
    assert leader.leader
    assert len(flights) == 1


def test_under_contention_nobody_is_forgotten_and_no_two_lead_at_once():
    flights, leading, most = Flights(), [], []

    def caller(number):
        for turn in range(200):
            while True:
                flight = flights.join("key")
                if flight.leader:
                    leading.append(number)
                    most.append(len(leading))
                    leading.remove(number)
                    flight.abandon() if turn % 3 == 0 else flight.land(turn)
                    break
                if flight.wait() is not ABANDONED:
                    break
        return "done"

    callers = [in_thread(lambda number=number: caller(number)) for number in range(8)]
    assert [done() for done in callers] == ["done"] * 8
    assert max(most) == 1
    assert len(flights) == 0
