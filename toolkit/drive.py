"""Carries out the steps of a call, once for threads and once for an event loop. The only file that sends, sleeps or touches a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

import httpx

from .cache.base import MISS, Found, Miss
from .cache.claims import Claim
from .cache.flights import Abandoned, Failed, Flight, Flights, Landed
from .cache.tiers import ResponseCache
from .cache.writing import GroupWriter
from .transports import AsyncTransports, LoopTransport, ThreadTransports, origin_of
from .types import Kept
from .wire.patience import Deadline, hurried, limit_reads, read_limit
from .wire.size import async_body, body
from .wire.stamps import arrival_of
from .wire.steps import Emit, Join, Keep, Lookup, Read, ReaderLeft, Send, Sleep, Step, Steps, T, Work
from .wire.whole import async_read_whole, read_whole

__all__ = ["AsyncDriver", "LoopWatch", "ThreadDriver"]

STALE = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""How a connection fails that the server closed while it advertised keep-alive."""

Joined = Flight[Kept] | Landed[Kept] | Failed | Abandoned


class InProcess(Protocol):
    """Gives the transport of a provider that answers in this process, by host."""

    def __call__(self, host: str) -> Any: ...  # a sync and an async transport at once: no common type


# --- threads -------------------------------------------------------------------------------------------------------------


class ThreadDriver:
    """Carries out steps in the calling thread; used by many threads at once."""

    def __init__(
        self,
        *,
        transports: ThreadTransports,
        in_process: InProcess = lambda _host: None,
        cache: ResponseCache | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transports = transports
        self.in_process = in_process
        self.cache = cache
        self.flights: Flights[Kept] = cache.flights if cache is not None else Flights()
        self.sleep = sleep
        self.clock = clock

    def run(self, steps: Steps[T]) -> T:
        """Carry out a call to its end and return what it gives; events for a reader are dropped."""
        hands = Hands(self)
        try:
            step: Step | None = next(steps)
            while True:
                try:
                    value = hands.carry_out(step)
                except BaseException as exc:  # noqa: BLE001 - an interrupt too: the call ends its flight and records
                    step = steps.throw(exc)
                else:
                    step = steps.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            step = value = None  # see errors.forget_locals: this frame is still running there
            steps.close()
            hands.end()

    def stream(self, steps: Steps[Any]) -> Iterator[Any]:
        """Carry out a call and give its events one by one."""
        hands = Hands(self)
        try:
            step: Step | None = next(steps)
            while True:
                try:
                    if type(step) is Emit:
                        yield from step.events
                        value = None
                    else:
                        value = hands.carry_out(step)
                except GeneratorExit:
                    step = steps.throw(ReaderLeft())
                except BaseException as exc:  # noqa: BLE001 - see run()
                    step = steps.throw(exc)
                else:
                    step = steps.send(value)
        except (StopIteration, ReaderLeft):
            return
        finally:
            step = value = None  # see errors.forget_locals: this frame is still running there
            steps.close()
            hands.end()


class Hands:
    """What one call holds on to while it runs in a thread: the response it is reading, and its claim to ask for other processes too."""

    __slots__ = ("chunks", "claim", "driver", "read_limit_s", "response", "within_s")

    def __init__(self, driver: ThreadDriver) -> None:
        self.driver = driver
        self.response: httpx.Response | None = None
        self.chunks: Iterator[bytes] | None = None
        self.claim: Claim | None = None
        self.read_limit_s: float | None = None  # of the request
        self.within_s: float | None = None  # in its place, for now

    def carry_out(self, step: Any) -> Any:  # each step has its own type of result
        kind = type(step)
        if kind is Read:
            return self.read(step)
        if kind is Send:
            return self.send(step)
        if kind is Lookup:
            return self.look_up(step)
        if kind is Join:
            return self.join(step)
        if kind is Keep:
            return self.driver.cache.set(step.key, step.value) if self.driver.cache is not None else None
        if kind is Sleep:
            return self.driver.sleep(step.seconds)
        if kind is Work:
            return step.do()
        assert kind is Emit, f"unknown step {step!r}"
        return None

    def look_up(self, step: Lookup) -> Found | Miss:
        cache = self.driver.cache
        if cache is None:
            return MISS
        return cache.peek(step.key) if step.memory_only else cache.get(step.key)

    def join(self, step: Join) -> Joined:
        flight = self.driver.flights.join(step.key)
        if not flight.leader:
            return flight.wait()
        cache = self.driver.cache
        self.claim = None if cache is None else cache.claim(step.key)
        return flight if self.claim is None else self.lead(flight, self.claim)

    def lead(self, flight: Flight[Kept], claim: Claim) -> Joined:
        """Be the one who asks among all processes, or take what another one brought meanwhile."""
        try:
            while not claim.take():
                time.sleep(claim.pause_s())
        except BaseException:  # an interrupt: somebody else in this process takes over
            flight.abandon()
            raise
        if claim.kept is None:
            return flight
        flight.land(claim.kept)
        return Landed(claim.kept)

    def send(self, step: Send) -> httpx.Response:
        self.close()
        if step.stream:
            with hurried(step.request, step.within_s):
                response = self.response = self.exchange(step)
            self.read_limit_s, self.within_s = read_limit(step.request), step.within_s
            self.chunks = iter(body(response))
            return response
        deadline = Deadline(self.driver.clock, read_limit(step.request))
        response = self.exchange(step)
        try:
            if not response.is_closed:
                step.arrived_at = read_whole(response, deadline)
        finally:
            response.close()
        return response

    def exchange(self, step: Send) -> httpx.Response:
        """Send a request; once more, at once and on a new connection, where an old one turns out to be closed."""
        request = step.request
        local = self.driver.in_process(request.url.host)
        if local is not None:
            response: httpx.Response = local.handle_request(request)
            return response
        held = self.driver.transports.get(request.url, stream=step.stream)
        origin = origin_of(request.url)
        try:
            response = held.transport.handle_request(request)
        except STALE:
            if origin not in held.used:
                raise
            held = self.driver.transports.get(request.url, stream=step.stream, fresh=True)
            response = held.transport.handle_request(request)
        held.used.add(origin)
        return response

    def read(self, step: Read) -> bytes | None:
        assert step.response is self.response and self.chunks is not None, "a call reads the response it sent for last"
        if step.within_s != self.within_s:
            self.within_s = step.within_s
            limit_reads(step.response, self.read_limit_s if step.within_s is None else step.within_s)
        chunk = next(self.chunks, None)
        step.arrived_at = arrival_of(step.response.stream)
        if chunk is None:
            self.close()
        return chunk

    def close(self) -> None:
        """Give the connection back, or drop it where the answer was not read to its end."""
        response, self.response, self.chunks = self.response, None, None
        if response is not None:
            response.close()

    def end(self) -> None:
        """Let go of everything."""
        try:
            self.close()
        finally:
            if self.claim is not None:
                self.claim.release()


# --- event loop ------------------------------------------------------------------------------------------------------------


class LoopWatch:
    """Measures how late an event loop is while calls are under way: a heartbeat that should come every 20 ms.

    ``stalled()`` gives the seconds it was late in all, ``held_up()`` those of the stall that has just ended, or lasts still.
    """

    BEAT_S = 0.02
    JITTER_S = 0.005  # timers are never exact; this much is not a stall

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._calls = 0
        self._stalled_s = 0.0
        self._last_stall_s = self._last_stall_ended = 0.0
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def stalled(self) -> float:
        return self._stalled_s + self._late()

    def held_up(self) -> float:
        late = self._late()
        if late:
            return late
        return self._last_stall_s if self._clock() - self._last_stall_ended < self.JITTER_S else 0.0

    def _late(self) -> float:
        """How late the beat that is due is by now."""
        if self._handle is None:
            return 0.0
        late = self._clock() - self._due
        return late if late > self.JITTER_S else 0.0

    def __enter__(self) -> LoopWatch:
        self._calls += 1
        if self._handle is None:
            self._next(asyncio.get_running_loop())
        return self

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls and self._handle is not None:
            self._count()
            self._handle.cancel()
            self._handle = None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = self._clock() + self.BEAT_S
        self._handle = loop.call_later(self.BEAT_S, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._count()
        self._next(loop)

    def _count(self) -> None:
        late = self._late()
        if late:
            self._stalled_s += late
            self._last_stall_s, self._last_stall_ended = late, self._clock()


class AsyncDriver:
    """Carries out steps on an event loop; writing to disk and asking a Redis go to threads."""

    def __init__(
        self,
        *,
        transports: AsyncTransports,
        in_process: InProcess = lambda _host: None,
        cache: ResponseCache | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transports = transports
        self.in_process = in_process
        self.cache = cache
        self.flights: Flights[Kept] = cache.flights if cache is not None else Flights()
        self.sleep = sleep
        self.clock = clock
        self.writer = None if cache is None else GroupWriter(cache)

    async def aclose(self) -> None:
        """Let go of the running loop's connections, of those of loops that have ended, and of the writing thread; what it has to write is written."""
        await self.transports.aclose()
        if self.writer is not None:
            await asyncio.to_thread(self.writer.close)

    async def run(self, steps: Steps[T]) -> T:
        """Carry out a call to its end and return what it gives; events for a reader are dropped."""
        hands = AsyncHands(self)
        try:
            step: Step | None = next(steps)
            while True:
                try:
                    value = await hands.carry_out(step)
                except BaseException as exc:  # noqa: BLE001 - a cancellation too: the call ends its flight and records
                    step = steps.throw(exc)
                else:
                    step = steps.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            step = value = None  # see errors.forget_locals: this frame is still running there
            steps.close()
            await hands.end()

    async def stream(self, steps: Steps[Any]) -> AsyncIterator[Any]:
        """Carry out a call and give its events one by one."""
        hands = AsyncHands(self)
        try:
            step: Step | None = next(steps)
            while True:
                try:
                    if type(step) is Emit:
                        for event in step.events:
                            yield event
                        value = None
                    else:
                        value = await hands.carry_out(step)
                except GeneratorExit:
                    step = steps.throw(ReaderLeft())
                except BaseException as exc:  # noqa: BLE001 - see run()
                    step = steps.throw(exc)
                else:
                    step = steps.send(value)
        except (StopIteration, ReaderLeft):
            return
        finally:
            step = value = None  # see errors.forget_locals: this frame is still running there
            steps.close()
            await hands.end()


class AsyncHands:
    """What one call holds on to while it runs on a loop: the response it is reading, its place in a pool, and its claim."""

    __slots__ = ("chunks", "claim", "driver", "pool", "read_limit_s", "response", "within_s")

    def __init__(self, driver: AsyncDriver) -> None:
        self.driver = driver
        self.response: httpx.Response | None = None
        self.chunks: AsyncIterator[bytes] | None = None
        self.pool: LoopTransport | None = None
        self.claim: Claim | None = None
        self.read_limit_s: float | None = None  # of the request
        self.within_s: float | None = None  # in its place, for now

    async def carry_out(self, step: Any) -> Any:  # each step has its own type of result
        kind = type(step)
        if kind is Read:
            return await self.read(step)
        if kind is Send:
            return await self.send(step)
        if kind is Lookup:
            return await self.look_up(step)
        if kind is Join:
            return await self.join(step)
        if kind is Keep:
            return await self.keep(step)
        if kind is Sleep:
            return await self.driver.sleep(step.seconds)
        if kind is Work:
            return await asyncio.to_thread(step.do)
        assert kind is Emit, f"unknown step {step!r}"
        return None

    async def look_up(self, step: Lookup) -> Found | Miss:
        cache = self.driver.cache
        if cache is None:
            return MISS
        found = cache.peek(step.key)
        if found is not MISS or step.memory_only:
            return found
        return await asyncio.to_thread(cache.get, step.key) if cache.blocks else cache.get(step.key)

    async def join(self, step: Join) -> Joined:
        flight = self.driver.flights.join(step.key)
        if not flight.leader:
            return await flight.wait_async()
        cache = self.driver.cache
        self.claim = None if cache is None else cache.claim(step.key)
        return flight if self.claim is None else await self.lead(flight, self.claim)

    async def lead(self, flight: Flight[Kept], claim: Claim) -> Joined:
        """Be the one who asks among all processes, or take what another one brought meanwhile."""
        try:
            while not (await asyncio.to_thread(claim.take) if claim.blocks else claim.take()):
                await asyncio.sleep(claim.pause_s())
        except BaseException:  # cancelled: somebody else in this process takes over
            flight.abandon()
            raise
        if claim.kept is None:
            return flight
        flight.land(claim.kept)
        return Landed(claim.kept)

    async def keep(self, step: Keep) -> None:
        cache, writer = self.driver.cache, self.driver.writer
        if cache is None or writer is None:  # there is one where there is the other
            return
        if cache.in_memory_only:
            cache.set(step.key, step.value)
        elif cache.blocks:  # one thread each: they wait for a network
            await asyncio.to_thread(cache.set, step.key, step.value)
        else:
            await writer.keep(step.key, step.value)

    async def send(self, step: Send) -> httpx.Response:
        await self.close()
        if step.stream:
            with hurried(step.request, step.within_s):
                response = self.response = await self.exchange(step)
            self.read_limit_s, self.within_s = read_limit(step.request), step.within_s
            self.chunks = aiter(async_body(response))
            return response
        deadline = Deadline(self.driver.clock, read_limit(step.request))
        response = await self.exchange(step)
        try:
            if not response.is_closed:
                step.arrived_at = await async_read_whole(response, deadline)
        finally:
            await response.aclose()
            self.give_back()
        return response

    async def exchange(self, step: Send) -> httpx.Response:
        """Send a request; once more, at once and on a new connection, where an old one turns out to be closed."""
        request = step.request
        local = self.driver.in_process(request.url.host)
        if local is not None:
            response: httpx.Response = await local.handle_async_request(request)
            return response
        self.give_back()
        pool = self.pool = self.driver.transports.take(request.url)
        origin = origin_of(request.url)
        try:
            response = await pool.transport.handle_async_request(request)
        except STALE:
            if origin not in pool.used:
                raise
            pool = await self.renew(request)
            response = await pool.transport.handle_async_request(request)
        pool.used.add(origin)
        return response

    async def renew(self, request: httpx.Request) -> LoopTransport:
        self.give_back()
        self.pool, unused = self.driver.transports.replace(request.url)
        for each in unused:
            await each.transport.aclose()
        return self.pool

    def give_back(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            self.driver.transports.give_back(pool)

    async def read(self, step: Read) -> bytes | None:
        assert step.response is self.response and self.chunks is not None, "a call reads the response it sent for last"
        if step.within_s != self.within_s:
            self.within_s = step.within_s
            limit_reads(step.response, self.read_limit_s if step.within_s is None else step.within_s)
        chunk = await anext(self.chunks, None)
        step.arrived_at = arrival_of(step.response.stream)
        if chunk is None:
            await self.close()
        return chunk

    async def close(self) -> None:
        """Give the connection back, or drop it where the answer was not read to its end."""
        response, self.response, self.chunks = self.response, None, None
        if response is not None:
            await response.aclose()
        self.give_back()

    async def end(self) -> None:
        """Let go of everything."""
        try:
            await self.close()
        finally:
            self.release()

    def release(self) -> None:
        """Give up the claim; nobody waits until a server has heard of it."""
        if self.claim is None:
            return
        if self.claim.blocks:
            try:
                asyncio.get_running_loop().run_in_executor(None, self.claim.release)
            except RuntimeError:  # the loop is being shut down
                self.claim.release()
        else:
            self.claim.release()
