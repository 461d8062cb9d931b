"""How long to wait for a server. The limits of httpx's transports are for one read each, which a server that keeps saying nothing keeps."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import httpx

from .loop_sockets import LinkStream
from .sockets import SocketStream

__all__ = ["AsyncPunctualStream", "Deadline", "PunctualStream", "hurried", "limit_reads", "read_limit"]


def read_limit(request: httpx.Request) -> float | None:
    """Seconds that a request allows for one read."""
    limit: float | None = request.extensions.get("timeout", {}).get("read")
    return limit


@contextlib.contextmanager
def hurried(request: httpx.Request, within_s: float | None) -> Iterator[None]:
    """Wait less long while a request is sent and the head of its response awaited; afterwards its own limit holds again."""
    limit = read_limit(request)
    if within_s is None or (limit is not None and limit <= within_s):
        yield
        return
    timeout = request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "read": within_s}
    try:
        yield
    finally:
        timeout["read"] = limit


def limit_reads(response: httpx.Response, seconds: float | None) -> None:
    """Change how long further reads of a response may take. Only our own transports can: httpx's settle it with the request."""
    if isinstance(response.stream, SocketStream | LinkStream):
        response.stream.limit_reads(seconds)


class Deadline:
    """When an answer must have come whole."""

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Callable[[], float], limit_s: float | None) -> None:
        self._clock = clock
        self._at = None if limit_s is None else clock() + limit_s

    def check(self) -> None:
        if self._at is not None and self._clock() > self._at:
            raise httpx.ReadTimeout("it was still sending")


class PunctualStream(httpx.SyncByteStream):
    """The body of a response until a deadline."""

    __slots__ = ("_deadline", "_stream")

    def __init__(self, stream: httpx.SyncByteStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._deadline.check()
            yield chunk

    def close(self) -> None:
        self._stream.close()


class AsyncPunctualStream(httpx.AsyncByteStream):
    """The same on an event loop."""

    __slots__ = ("_deadline", "_stream")

    def __init__(self, stream: httpx.AsyncByteStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._deadline.check()
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
