"""Keeping the answers of an event loop: in a thread, and together those that arrive while it is at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..types import Kept
from .tiers import ResponseCache

__all__ = ["GroupWriter"]


class _Waiting(NamedTuple):
    """An answer, and who waits until it is kept."""

    key: str
    kept: Kept
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class GroupWriter:
    """Writes answers to a cache in one thread, in as few transactions as it can.

    A write of its own costs an answer three times what the exchange costs, and a way to a thread and back on top: a transaction for all
    that wait costs little more than for one. Several threads would queue for the file, with a connection each.
    """

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._waiting: list[_Waiting] = []
        self._at_work = False
        self._thread: ThreadPoolExecutor | None = None

    async def keep(self, key: str, kept: Kept) -> None:
        """Come back when the answer is kept. Who is cancelled meanwhile does not wait; the answer is kept all the same."""
        self._survive_fork()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append(_Waiting(key, kept, loop, done))
            if not self._at_work:
                self._at_work = True
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="toolkit-cache")
                self._thread.submit(self._write)
        await done

    def close(self) -> None:
        """Write what waits and end the thread; a later ``keep`` begins another."""
        self._survive_fork()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _survive_fork(self) -> None:
        if self._pid != os.getpid():  # a child has none of its parent's threads, and none of its loops
            self._lock = threading.Lock()
            self._begin()

    def _write(self) -> None:
        while batch := self._take():
            error: BaseException | None = None
            try:
                self._cache.set_all([(each.key, each.kept) for each in batch])
            except BaseException as exc:  # noqa: BLE001 - goes to those who wait
                error = exc
            for loop in {each.loop for each in batch}:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                    loop.call_soon_threadsafe(_settle, [each.done for each in batch if each.loop is loop], error)

    def _take(self) -> list[_Waiting]:
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._at_work = bool(batch)
        return batch


def _settle(waiting: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for done in waiting:
        if done.done():  # cancelled
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
