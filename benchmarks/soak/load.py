"""The calls: threads and event loops, plain and streamed, cached and live, readers that leave and tasks that are cancelled.

Calls begin when the clock says so, however long those before them take. Each is written down with its id where the caller gets one, so
that the journal can be held against it; each answer is held against what the service says to that prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import toolkit as tk
from toolkit.cache import ResponseCache
from toolkit.errors import StreamInterrupted, ToolkitError
from toolkit.monitor import error_tracker, performance_monitor

from .server import said

MODEL = "openai_compatible/soak-1"
TIMEOUT_S = 1.5
THREADS = 24
POPULAR = 5_000
"""Prompts that are asked again and again, the first of them most often."""
FORGET_S = 30.0
DISK_BYTES = 4_000_000
CANCEL_AFTER_S = 0.004
KINDS = {"plain": 30, "cached": 30, "streamed": 22, "streamed, cached": 10, "left": 4, "cancelled": 4}
TROUBLE_KEPT = 20


@dataclass(frozen=True, slots=True)
class Asked:
    kind: str
    prompt: str

    @property
    def cached(self) -> bool:
        return self.kind.endswith("cached")


def questions(seed: int) -> Iterator[Asked]:
    """Give what is asked, without end: a popular prompt where it may come from the cache, else one that nobody asked before."""
    random_ = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    serial = 0
    while True:
        (kind,) = random_.choices(kinds, weights)
        serial += 1
        popular = kind.endswith("cached")
        yield Asked(kind, f"popular {int(POPULAR * random_.random() ** 3)}" if popular else f"new {seed}/{serial}")


class Ledger:
    """What was asked and what came of it, in a file; in memory only counts and the first of what went wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.file = path.open("w", encoding="utf-8")
        self.begun = self.ended = 0
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.strange: list[str] = []

    def begin(self) -> None:
        with self.lock:
            self.begun += 1

    def note(self, asked: Asked, end: str, call_id: str = "") -> None:
        with self.lock:
            self.ended += 1
            self.ends[end] += 1
            self.file.write(f"{asked.prompt}\t{call_id}\n")

    def check(self, asked: Asked, text: str, *, whole: bool = True) -> None:
        """Hold an answer, or the beginning of one, against what the service says to this prompt."""
        right = said(asked.prompt)
        if text != right if whole else not right.startswith(text):
            self.tell(self.wrong, f"{asked.kind}, {asked.prompt!r}: {text!r}")

    def note_error(self, asked: Asked, error: BaseException) -> None:
        if isinstance(error, StreamInterrupted):
            self.check(asked, error.partial, whole=False)
        if isinstance(error, ToolkitError):
            error_tracker.track_error(error, kind=asked.kind)
        else:
            self.tell(self.strange, f"{asked.kind}: {error!r}")
        self.note(asked, type(error).__name__)

    def note_answer(self, asked: Asked, done: tk.Completion) -> None:
        self.check(asked, done.text)
        if done.provenance != "live" and not asked.cached:
            self.tell(self.wrong, f"{asked.prompt!r} was asked live and is {done.provenance}")
        self.note(asked, done.provenance, done.call_id)

    def tell(self, where: list[str], what: str) -> None:
        with self.lock:
            if len(where) < TROUBLE_KEPT:
                where.append(what)

    def close(self) -> None:
        self.file.close()


class Threads:
    """Workers who take what is due from a queue. A new shift of them replaces the old one, which ends its calls first."""

    def __init__(self, client: tk.Client, ledger: Ledger) -> None:
        self.client = client
        self.ledger = ledger
        self.due: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self.workers: list[threading.Thread] = []

    def relieve(self) -> None:
        """Send the workers home, if there are any, and let others begin."""
        self.dismiss()
        self.workers = [thread for thread in self.workers if thread.is_alive()]
        new = [threading.Thread(target=self.work, name=f"soak-{i}", daemon=True) for i in range(THREADS)]
        for thread in new:
            thread.start()
        self.workers += new

    def dismiss(self) -> None:
        for _ in self.workers[-THREADS:]:
            self.due.put(None)

    def ask(self, asked: Asked) -> None:
        self.ledger.begin()
        self.due.put(asked)

    def work(self) -> None:
        while (asked := self.due.get()) is not None:
            with performance_monitor.start_timer("call", kind=asked.kind):
                try:
                    self.carry_out(asked)
                except Exception as error:  # what is no error of the toolkit's is told at the end
                    self.ledger.note_error(asked, error)

    def carry_out(self, asked: Asked) -> None:
        if asked.kind in ("plain", "cached"):
            done = self.client.generate_text(MODEL, asked.prompt, timeout_s=TIMEOUT_S, cache=asked.cached)
            return self.ledger.note_answer(asked, done)
        heard = ""
        for event in self.client.stream_text(MODEL, asked.prompt, timeout_s=TIMEOUT_S, cache=asked.cached):
            heard += event.text
            if event.completion is not None:
                self.ledger.check(asked, heard)
                self.ledger.note_answer(asked, event.completion)
            elif asked.kind in ("left", "cancelled"):  # a thread's call can't be cancelled; its reader can leave
                break
        if asked.kind in ("left", "cancelled"):
            self.ledger.check(asked, heard, whole=False)
            self.ledger.note(asked, "left")
        return None

    def close(self) -> None:
        self.dismiss()
        for thread in self.workers:
            thread.join()


class Loops:
    """Event loops, one after the other; a loop that is relieved ends its calls while the next one begins."""

    def __init__(self, clients: tuple[tk.AsyncClient, tk.AsyncClient], ledger: Ledger) -> None:
        self.clients = clients
        self.ledger = ledger
        self.shifts: list[threading.Thread] = []
        self.number = 0
        self.due: queue.SimpleQueue[Asked | None] | None = None

    def relieve(self) -> None:
        """Let the loop come to its end, if there is one, and start another, with the client that the loop before the last one had."""
        self.dismiss()
        if len(self.shifts) > 1:
            self.shifts.pop(0).join()
        self.number += 1
        self.due = queue.SimpleQueue()
        shift = threading.Thread(
            target=asyncio.run, args=(self.work(self.clients[self.number % 2], self.due),), name="soak-loop", daemon=True
        )
        shift.start()
        self.shifts.append(shift)

    def dismiss(self) -> None:
        if self.due is not None:
            self.due.put(None)

    def ask(self, asked: Asked) -> None:
        assert self.due is not None, "relieve() first"
        self.ledger.begin()
        self.due.put(asked)

    async def work(self, client: tk.AsyncClient, due: queue.SimpleQueue[Asked | None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for asked in taken(due):
                tasks.create_task(self.attend(client, asked))

    async def attend(self, client: tk.AsyncClient, asked: Asked) -> None:
        with performance_monitor.start_timer("call", kind=asked.kind):
            try:
                await self.carry_out(client, asked)
            except Exception as error:  # see Threads.work
                self.ledger.note_error(asked, error)

    async def carry_out(self, client: tk.AsyncClient, asked: Asked) -> None:
        if asked.kind in ("plain", "cached"):
            done = await client.generate_text(MODEL, asked.prompt, timeout_s=TIMEOUT_S, cache=asked.cached)
            return self.ledger.note_answer(asked, done)
        if asked.kind == "cancelled":
            return await self.cancel(client, asked)
        heard = ""
        events = client.stream_text(MODEL, asked.prompt, timeout_s=TIMEOUT_S, cache=asked.cached)
        async with contextlib.aclosing(events):  # type: ignore[type-var]  # an async generator, typed as what it gives
            async for event in events:
                heard += event.text
                if event.completion is not None:
                    self.ledger.check(asked, heard)
                    self.ledger.note_answer(asked, event.completion)
                elif asked.kind == "left":
                    break
        if asked.kind == "left":
            self.ledger.check(asked, heard, whole=False)
            self.ledger.note(asked, "left")
        return None

    async def cancel(self, client: tk.AsyncClient, asked: Asked) -> None:
        task = asyncio.create_task(client.generate_text(MODEL, asked.prompt, timeout_s=TIMEOUT_S, cache=False))
        await asyncio.sleep(0)  # the call has begun: from here on it has a row
        await asyncio.wait([task], timeout=CANCEL_AFTER_S)
        task.cancel()
        try:
            done = await task
        except asyncio.CancelledError:
            self.ledger.note(asked, "cancelled")
        else:
            self.ledger.note_answer(asked, done)

    def close(self) -> None:
        self.dismiss()
        for shift in self.shifts:
            shift.join()


async def taken(due: queue.SimpleQueue[Asked | None]) -> AsyncIterator[Asked]:
    """Give what comes into a queue from another thread, until ``None`` does."""
    while True:
        try:
            asked = due.get_nowait()
        except queue.Empty:
            await asyncio.sleep(0.002)
            continue
        if asked is None:
            return
        yield asked


@dataclass(frozen=True, slots=True)
class Parties:
    """All who ask, and what they ask with."""

    threads: Threads
    loops: Loops
    cache: ResponseCache

    @classmethod
    def of(cls, url: str, folder: Path, ledger: Ledger) -> Parties:
        cache = ResponseCache(folder / "cache", ttl_s=FORGET_S, max_bytes=DISK_BYTES)
        base_urls, first_token_s = {"openai_compatible": f"{url}/v1"}, 2 * TIMEOUT_S
        client = tk.Client(base_urls=base_urls, cache=cache, first_token_timeout_s=first_token_s)
        one, other = (tk.AsyncClient(base_urls=base_urls, cache=cache, first_token_timeout_s=first_token_s) for _ in range(2))
        return cls(Threads(client, ledger), Loops((one, other), ledger), cache)

    def ask(self, rate: float, seconds: float, shift_s: float) -> float:
        """Ask at a steady rate, threads and loops in turn; return the seconds until the last call had ended."""
        start = time.monotonic()
        streams = (questions(1), questions(2))
        next_shift = start
        for i in range(round(rate * seconds)):
            due = start + i / rate
            if due >= next_shift:
                next_shift += shift_s
                self.threads.relieve()
                self.loops.relieve()
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            (self.loops if i % 2 else self.threads).ask(next(streams[i % 2]))
        self.threads.close()
        self.loops.close()
        return time.monotonic() - start

    def stuck(self) -> int:
        """Count places that are taken in limiters and in the table of calls under way; none, once every call has ended."""
        limiters = [limiter for each in (self.threads.client, *self.loops.clients) for limiter in each._tools._limiters.values()]
        return len(self.cache.flights) + sum(limiter.under_way for limiter in limiters)

    def close(self) -> None:
        client = self.threads.client
        for twin in self.loops.clients:
            asyncio.run(twin.aclose())
        client.close()
        assert client.journal is not None
        client.journal.close()
        self.cache.close()
