"""Where the time of a call is booked, on virtual clocks: thousands of random schedules, a stalled event loop, and rates of tokens."""

import asyncio
import json
import os
import random
import selectors
from dataclasses import dataclass, field

import httpx
import pytest

from toolkit.cache.base import MISS
from toolkit.cache.flights import Flights
from toolkit.call import ChatQuestion, Policy, ask
from toolkit.drive import AsyncDriver, LoopWatch
from toolkit.errors import ProviderError
from toolkit.monitor.outcomes import CallContext
from toolkit.providers.openai_compatible import OpenAICompatible
from toolkit.transports import AsyncTransports
from toolkit.types import ChatRequest, Message
from toolkit.wire.retry import Retry
from toolkit.wire.steps import Emit, Join, Keep, Lookup, Read, ReaderLeft, Send, Sleep

SCHEDULES = int(os.environ.get("TIMING_SCHEDULES", "10000"))
PROVIDER = OpenAICompatible(base_url="http://one.invalid/v1")
QUESTION = ChatQuestion(ChatRequest(model="m", messages=(Message(role="user", content="hi"),)))
CONTEXT = CallContext(provider="openai_compatible", model="openai_compatible/m", label="m")
PARTS = ("lookup_s", "limiter_wait_s", "retry_sleep_s", "failed_attempts_s", "latency_s", "consumer_s")


def data(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def piece(text="", reasoning=""):
    delta = {name: value for name, value in (("content", text), ("reasoning", reasoning)) if value}
    return data({"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def usage(output, reasoning=None):
    details = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return {"prompt_tokens": 3, "completion_tokens": output, "total_tokens": output + 3, **details}


def ending(output, reasoning=None):
    stop = data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return stop + data({"choices": [], "usage": usage(output, reasoning)}) + b"data: [DONE]\n\n"


def whole(text, output):
    message = {"role": "assistant", "content": text}
    return {"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage(output)}


class Door:
    """A limiter that lets nobody in for a while."""

    PAUSE_S = 0.02

    def __init__(self, waits):
        self.waits = waits

    def enter(self):
        self.waits -= 1
        return self.waits < 0

    def leave(self, **_):
        pass

    queue_up = step_out = leave

    def pause_s(self):
        return self.PAUSE_S


@dataclass
class Attempt:
    """What becomes of one attempt: how long until its head and until each chunk, and how it fails if it does."""

    head_s: float
    chunks: list  # seconds until, and bytes
    failure: object = None  # a status, or an exception of the transport


@dataclass
class Driver:
    """Carries out the steps of a call on a clock that only moves as the schedule says, and books each delay itself."""

    attempts: list[Attempt]
    answer: bytes = b""
    lookup_s: float = 0.0
    keep_s: float = 0.0
    consumer: list[float] = field(default_factory=list)
    leaves_after: int | None = None  # so many events
    interrupted_at: int | None = None  # the step

    def __post_init__(self):
        self.now = 0.0
        self.booked = dict.fromkeys(PARTS, 0.0)
        self.flights = Flights()
        self.read = 0
        self.events = 0
        self.trying = None

    def wait(self, part, seconds):
        self.now += seconds
        self.booked[part] += seconds

    def run(self, steps):
        step, count = next(steps), 0
        try:
            while True:
                count += 1
                try:
                    value = self.carry_out(step)
                    if count == self.interrupted_at:
                        raise KeyboardInterrupt
                except (httpx.HTTPError, ReaderLeft, KeyboardInterrupt) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(value)
        except StopIteration as end:
            return end.value

    def carry_out(self, step):
        match step:
            case Lookup():
                self.wait("lookup_s", self.lookup_s)
                return MISS
            case Join():
                return self.flights.join(step.key)
            case Keep():
                self.wait("lookup_s", self.keep_s)
            case Sleep():
                self.wait("limiter_wait_s" if step.seconds == Door.PAUSE_S else "retry_sleep_s", step.seconds)
            case Send():
                return self.send(step)
            case Read():
                return self.next_chunk()
            case Emit():
                self.events += len(step.events)
                if step.events[-1].kind != "end":
                    self.wait("consumer_s", self.consumer.pop() if self.consumer else 0.0)
                if self.leaves_after is not None and self.events >= self.leaves_after:
                    raise ReaderLeft
        return None

    @property
    def part(self):
        return "latency_s" if self.trying.failure is None else "failed_attempts_s"

    def send(self, step):
        self.trying, self.read = self.attempts.pop(0), 0
        self.wait(self.part, self.trying.head_s)
        if isinstance(self.trying.failure, Exception) and not self.trying.chunks:
            raise self.trying.failure
        status = self.trying.failure if isinstance(self.trying.failure, int) else 200
        return httpx.Response(status, content=b"" if step.stream else self.answer)

    def next_chunk(self):
        if self.read == len(self.trying.chunks):
            if isinstance(self.trying.failure, Exception):
                raise self.trying.failure
            return None
        delay_s, chunk = self.trying.chunks[self.read]
        self.read += 1
        self.wait(self.part, delay_s)
        return chunk


def carry_out(driver, *, stream, emit, cache=True, waits=0):
    """Run one call; return its outcome, which is recorded however it ends."""
    outcomes = []
    policy = Policy(
        clock=lambda: driver.now, limiter=lambda _provider: door, record=outcomes.append, retry=Retry(attempts=3, random=lambda: 0.7)
    )
    door = Door(waits)
    try:
        driver.run(ask(PROVIDER, QUESTION, context=CONTEXT, policy=policy, cache=cache, stream=stream, emit=emit))
    except (ProviderError, ReaderLeft, KeyboardInterrupt):
        pass
    (outcome,) = outcomes
    return outcome


def random_attempt(rng, stream, *, fails):
    failure = rng.choice([503, httpx.ConnectError("no"), httpx.ReadError("cut")]) if fails else None
    silent = [(rng.expovariate(20), b": wait\n\n") for _ in range(rng.randrange(3))]
    if fails:
        chunks = silent if stream and isinstance(failure, httpx.ReadError) else []
    else:
        tokens = [(rng.expovariate(50), piece(*rng.choice([("word ", ""), ("", "hm ")]))) for _ in range(rng.randrange(1, 12))]
        chunks = [*silent, *tokens, (rng.expovariate(50), piece("end")), (rng.expovariate(50), ending(20))]
    return Attempt(rng.expovariate(5), chunks, failure)


def random_call(rng):
    """One random schedule, carried out; return its driver and its outcome."""
    emit = rng.random() < 0.4
    stream = emit or rng.random() < 0.5
    failures = rng.choice([0, 0, 0, 1, 2, 3])
    attempts = [random_attempt(rng, stream, fails=True) for _ in range(failures)]
    driver = Driver(
        attempts if failures == 3 else [*attempts, random_attempt(rng, stream, fails=False)],
        answer=json.dumps(whole("fine", 1)).encode(),
        lookup_s=rng.choice([0.0, rng.expovariate(100)]),
        keep_s=rng.expovariate(100),
        consumer=[rng.expovariate(30) for _ in range(20)],
        leaves_after=rng.randrange(1, 12) if emit and rng.random() < 0.2 else None,
        interrupted_at=rng.randrange(1, 8) if rng.random() < 0.1 else None,
    )
    outcome = carry_out(driver, stream=stream, emit=emit, cache=rng.choice([True, False, "refresh"]), waits=rng.choice([0, 0, 1, 4]))
    return driver, outcome


def test_every_second_of_any_schedule_is_booked_once_and_to_its_own_part():
    rng, seen = random.Random(20261101), set()
    for number in range(SCHEDULES):
        driver, outcome = random_call(rng)
        time, expected = outcome.timing, dict(driver.booked)
        if outcome.status == "error":  # an attempt that was interrupted is a failed one
            expected["failed_attempts_s"] += expected.pop("latency_s")
        parts = {name: getattr(time, name) or 0.0 for name in PARTS}
        assert parts == pytest.approx({"latency_s": 0.0, **expected}, abs=1e-3), f"schedule {number}"
        assert time.total_s == pytest.approx(sum(parts.values()), abs=1e-9) == pytest.approx(driver.now, abs=1e-3)
        seen.add((outcome.status, type(outcome.error)))
    assert {status for status, _ in seen} == {"ok", "error", "left"}
    assert len(seen) >= 5


# --- a stalled event loop --------------------------------------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real event loop whose clock moves only when it would wait."""

    def __init__(self):
        self.now = 0.0
        super().__init__(WaitlessSelector(self))

    def time(self):
        return self.now


class WaitlessSelector(selectors.SelectSelector):
    def __init__(self, loop):
        super().__init__()
        self.loop = loop

    def select(self, timeout=None):
        if timeout:
            self.loop.now += timeout
        return super().select(0)


class Trickle(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """Answers with the chunks of a schedule."""

    def __init__(self, head_s, chunks):
        self.head_s, self.chunks = head_s, chunks

    async def handle_async_request(self, request):
        await asyncio.sleep(self.head_s)
        return httpx.Response(200, stream=self)

    async def __aiter__(self):
        for delay_s, chunk in self.chunks:
            await asyncio.sleep(delay_s)
            yield chunk


def on_a_stalled_loop(head_s, chunks, *, stalls=(), stream=False, emit=False, reader=lambda loop: None):
    """Carry out one call on a virtual loop that something else blocks; return its timing and what a clock on the wall showed."""
    loop, outcomes = VirtualLoop(), []

    def block(seconds):
        loop.now += seconds

    async def main():
        watch = LoopWatch(loop.time)
        driver = AsyncDriver(transports=AsyncTransports(lambda: Trickle(head_s, chunks)))
        policy = Policy(clock=loop.time, delays=watch, record=outcomes.append)
        steps = ask(PROVIDER, QUESTION, context=CONTEXT, policy=policy, cache=False, stream=stream, emit=emit)
        for at_s, seconds in stalls:
            loop.call_at(at_s, block, seconds)
        with watch:
            if emit:
                async for _ in driver.stream(steps):
                    reader(loop)
            else:
                await driver.run(steps)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    (outcome,) = outcomes
    return outcome.timing, loop.now


ANSWER = json.dumps(whole("fine", 1)).encode()
NEAR = 0.021  # a beat of the watch


def test_a_stall_that_holds_an_answer_back_is_the_loop_s_time_and_not_the_model_s():
    time, wall_s = on_a_stalled_loop(0.2, [(0.05, ANSWER)], stalls=[(0.201, 0.2)])
    assert time.loop_stall_s == pytest.approx(0.2, abs=NEAR)
    assert time.latency_s == pytest.approx(0.2, abs=0.05)  # somewhere in the stall the answer came
    assert wall_s == pytest.approx(time.total_s + time.loop_stall_s, abs=1e-3)


def test_a_stall_while_the_model_is_still_at_work_takes_nothing_from_its_time():
    time, wall_s = on_a_stalled_loop(0.5, [(0.1, ANSWER)], stalls=[(0.1, 0.2)])
    assert time.loop_stall_s == pytest.approx(0.2, abs=NEAR)
    assert time.latency_s == time.total_s == pytest.approx(0.6) == pytest.approx(wall_s)


@pytest.mark.parametrize("stall_at", [0.055, 0.105, 0.255, 0.495])
def test_a_stall_in_a_stream_leaves_its_other_times_alone(stall_at):
    chunks = [*[(0.01, piece("word "))] * 50, (0.0, ending(50))]
    calm, _ = on_a_stalled_loop(0.05, chunks, stream=True)
    time, wall_s = on_a_stalled_loop(0.05, chunks, stream=True, stalls=[(stall_at, 0.2)])
    assert calm.loop_stall_s == 0.0
    assert time.loop_stall_s == pytest.approx(0.2, abs=NEAR)
    assert time.latency_s == pytest.approx(calm.latency_s, abs=NEAR)
    assert time.total_s + time.loop_stall_s == pytest.approx(wall_s, abs=NEAR)
    assert time.output_tokens_per_s == pytest.approx(calm.output_tokens_per_s, rel=0.05)
    assert all(getattr(time, name) == getattr(calm, name) for name in PARTS if name != "latency_s")


def test_a_reader_that_blocks_the_loop_is_a_slow_reader_and_no_stall():
    def block(loop):
        loop.now += 0.2

    chunks = [(0.01, piece("one ")), (0.01, piece("two")), (0.0, ending(2))]
    time, _ = on_a_stalled_loop(0.05, chunks, emit=True, reader=block)
    assert time.consumer_s == pytest.approx(0.4)
    assert time.loop_stall_s == 0.0
    assert time.latency_s == pytest.approx(0.07)


# --- rates -----------------------------------------------------------------------------------------------------------------------


RATES = ("output_tokens_per_s", "answer_tokens_per_s", "e2e_tokens_per_s", "tpot_s")


def tokens(count, rng, *, mean_s=0.01, reasoning=False):
    """A schedule: when each token comes after the one before, and what it is; of one to seven characters."""
    return [(rng.uniform(0.8, 1.2) * mean_s, "x" * rng.randint(1, 7), reasoning) for _ in range(count)]


def packed(schedule, size):
    """The chunks of a server that sends ``size`` tokens at a time, each chunk when its last token is made."""
    for start in range(0, len(schedule), size):
        chunk = schedule[start : start + size]
        said = "".join(text for _, text, reasoning in chunk if not reasoning)
        thought = "".join(text for _, text, reasoning in chunk if reasoning)
        yield sum(gap for gap, _, _ in chunk), (piece(reasoning=thought) if thought else b"") + (piece(said) if said else b"")


def timed(schedule, size=1, *, hidden=0, told=True, head_s=0.3):
    """The timing of one answer; ``hidden`` tokens of reasoning are counted and not shown."""
    thought = hidden + sum(reasoning for *_, reasoning in schedule)
    last = ending(len(schedule) + hidden, thought if told and thought else None)
    driver = Driver([Attempt(head_s, [*packed(schedule, size), (0.0, last)])])
    return carry_out(driver, stream=True, emit=False).timing


def rates(timing):
    return {name: getattr(timing, name) for name in RATES}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 3, 17])
def test_rates_do_not_depend_on_how_many_tokens_a_chunk_carries(seed, size):
    schedule = tokens(600, random.Random(seed))
    true_s = sum(gap for gap, _, _ in schedule) / len(schedule)
    time = timed(schedule, size)
    expected = {"output_tokens_per_s": 1 / true_s, "answer_tokens_per_s": 1 / true_s, "tpot_s": true_s}
    assert rates(time) == pytest.approx({**expected, "e2e_tokens_per_s": 600 / (0.3 + 600 * true_s)}, rel=0.02)


@pytest.mark.parametrize("told", [True, False], ids=["counted apart", "counted together"])
@pytest.mark.parametrize("size", [1, 3, 17])
def test_a_reasoning_prefix_does_not_change_the_rates(size, told):
    rng = random.Random(7)
    answer = tokens(600, rng)
    plain, time = timed(answer, size), timed([*tokens(300, rng, reasoning=True), *answer], size, told=told)
    wanted = ("output_tokens_per_s", "answer_tokens_per_s", "tpot_s")
    assert {name: rates(time)[name] for name in wanted} == pytest.approx({name: rates(plain)[name] for name in wanted}, rel=0.02)
    assert time.ttfa_s == pytest.approx(time.ttft_s + 3.0, rel=0.1)


@pytest.mark.parametrize("size", [1, 3, 17])
def test_the_answer_s_rate_is_its_own_where_the_model_thinks_at_another_speed(size):
    rng = random.Random(8)
    answer = tokens(600, rng)
    time = timed([*tokens(300, rng, mean_s=0.04, reasoning=True), *answer], size)
    assert time.answer_tokens_per_s == pytest.approx(timed(answer).answer_tokens_per_s, rel=0.02)
    assert time.output_tokens_per_s < 0.8 * time.answer_tokens_per_s


@pytest.mark.parametrize("size", [1, 3, 17])
def test_reasoning_that_is_counted_and_not_shown_does_not_make_an_answer_look_faster(size):
    answer = tokens(600, random.Random(9))
    plain, time = timed(answer, size), timed(answer, size, hidden=2000, head_s=20.3)
    assert time.output_tokens_per_s == pytest.approx(plain.output_tokens_per_s, rel=0.02)
    assert time.answer_tokens_per_s == pytest.approx(plain.answer_tokens_per_s, rel=0.02)
    assert time.e2e_tokens_per_s == pytest.approx(2600 / time.latency_s)


def test_gaps_are_weighed_by_the_tokens_that_came_after_them():
    schedule = [(0.01, "aa", False)] * 9 + [(0.1, "aa", False)]
    time = timed([(0.0, "aa", False), *schedule], 1)
    assert time.inter_token_s == pytest.approx([0.01] * 9 + [0.1])
    assert (time.itl_p50_s, time.itl_p95_s) == pytest.approx((0.01, 0.1))
    weighed = sum(gap.token_s * gap.tokens for gap in time.flow.gaps) / sum(gap.tokens for gap in time.flow.gaps)
    assert weighed == pytest.approx(time.tpot_s)


def test_the_typical_gap_is_that_of_the_tokens_where_each_comes_alone():
    schedule = tokens(600, random.Random(10))
    gaps = sorted(gap for gap, _, _ in schedule)
    assert timed(schedule, 1).itl_p50_s == pytest.approx(gaps[300], rel=0.02)
    assert timed(schedule, 1).itl_p95_s == pytest.approx(gaps[570], rel=0.02)


def test_an_answer_that_came_whole_has_its_end_to_end_rate_and_no_other():
    time = carry_out(Driver([Attempt(0.5, [])], answer=json.dumps(whole("fine", 20)).encode()), stream=False, emit=False).timing
    assert rates(time) == {"output_tokens_per_s": None, "answer_tokens_per_s": None, "e2e_tokens_per_s": 40.0, "tpot_s": None}
    assert (time.inter_token_s, time.itl_p50_s) == ((), None)


def test_without_counted_tokens_there_are_gaps_and_no_rates():
    chunks = [(0.01, piece("one ")), (0.02, piece("two")), (0.0, b"data: [DONE]\n\n")]
    time = carry_out(Driver([Attempt(0.1, chunks)]), stream=True, emit=False).timing
    assert rates(time) == dict.fromkeys(RATES)
    assert time.inter_token_s == pytest.approx([0.02])
