"""Our own transport for event loops: HTTP/1.1 over an asyncio protocol.

Bytes are read when they arrive, not when the caller gets its turn, and any number of connections costs the same each: httpx's pool gets slow
by the square of its connections. Proxies are left to httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import httpx

from .http1 import ResponseParser, build_response, request_bytes
from .sockets import IDLE_S, Origin, check_name, origin_of
from .stamps import StampedSocket

__all__ = ["LoopSocketTransport"]

HIGH_WATER = 1024 * 1024
"""A reader that lags behind by more bytes than this makes the server wait."""


class Link(asyncio.Protocol):
    """A connection with its server, for one request at a time."""

    def __init__(self, connected: StampedSocket) -> None:
        self.transport: asyncio.Transport
        self.socket = connected
        self.arrived_at: float | None = None  # when what was taken last came
        self.parser: ResponseParser | None = None  # of the response under way
        self.pieces: deque[tuple[bytes, float | None]] = deque()
        self.waiting_bytes = 0
        self.error: Exception | None = None
        self.idle_since = 0.0
        self.closed = False
        self._waiter: asyncio.Future[bool] | None = None  # gives whether it took too long

    # --- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # it is one, though uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.parser.done:  # nobody asked for this
            self.close()
            return
        try:
            piece = self.parser.feed(data)
        except httpx.RemoteProtocolError as exc:
            self.error = exc
            self.close()
        else:
            if piece:
                self.pieces.append((piece, self.socket.arrived_at))
                self.waiting_bytes += len(piece)
                if self.waiting_bytes > HIGH_WATER:
                    self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.parser is not None and not self.parser.done and self.error is None:
            try:
                if exc is not None:
                    raise httpx.ReadError(str(exc) or type(exc).__name__) from exc
                self.parser.end()
            except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                self.error = error
        self._wake()

    def _wake(self, too_late: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(too_late)

    # --- called by a request -----------------------------------------------------------------------------------------

    def begin(self, method: str, data: bytes) -> ResponseParser:
        """Send a request; its response goes to the parser that is returned."""
        self.parser = ResponseParser(method)
        self.transport.write(data)
        return self.parser

    async def arrival(self, timeout_s: float | None) -> None:
        """Wait for whatever comes next: bytes, an error, the end."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        alarm = None if timeout_s is None else loop.call_later(timeout_s, self._wake, True)
        try:
            if await waiter:
                raise httpx.ReadTimeout("timed out")
        finally:
            self._waiter = None
            if alarm is not None:
                alarm.cancel()

    def take(self) -> bytes:
        piece, self.arrived_at = self.pieces.popleft()
        self.waiting_bytes -= len(piece)
        if self.waiting_bytes <= HIGH_WATER and not self.closed:
            self.transport.resume_reading()
        return piece

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return not self.closed and time.monotonic() - self.idle_since <= IDLE_S

    def close(self) -> None:
        self.closed = True
        self.transport.close()


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Raise httpx's exceptions for those of making a connection."""
    try:
        yield
    except TimeoutError as exc:
        raise httpx.ConnectTimeout("timed out") from exc
    except OSError as exc:
        raise httpx.ConnectError(str(exc)) from exc


async def connect(host: str, port: int) -> StampedSocket:
    """Connect to the first of a name's addresses that answers."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await addresses(host, port):
        try:
            connected = StampedSocket(family, kind, protocol)
        except OSError as exc:  # a family that this machine does not speak
            failure = exc
            continue
        try:
            connected.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connected, address)
        except OSError as exc:
            connected.close()
            failure = exc
        except BaseException:  # a cancellation
            connected.close()
            raise
        else:
            return connected
    raise failure


async def addresses(host: str, port: int) -> list[tuple[Any, ...]]:  # what socket.getaddrinfo gives
    """Look a name up, in a thread of the loop's; a number needs none."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class LoopSocketTransport(httpx.AsyncBaseTransport):
    """The connections of one event loop.

    Parameters
    ----------
    context : callable
        Gives the TLS context; called for the first https address only.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._idle: dict[Origin, deque[Link]] = {}  # the one used last is the last

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        link = self._idle_link(origin_of(request.url)) or await self._connect(request, timeout.get("connect"))
        try:
            parser = link.begin(request.method, request_bytes(request))  # no variable: tracebacks that show those would show the key
            while not parser.status:
                if link.error is not None:
                    raise link.error
                await link.arrival(timeout.get("read"))
        except BaseException:  # a cancellation too: half an answer must not wait for the next request
            link.close()
            raise
        return build_response(parser, LinkStream(self, link, parser, origin_of(request.url), timeout.get("read")))

    def _idle_link(self, origin: Origin) -> Link | None:
        idle = self._idle.get(origin)
        while idle:
            link = idle.pop()
            if link.usable:
                return link
            link.close()
        return None

    async def _connect(self, request: httpx.Request, timeout_s: float | None) -> Link:
        scheme, host, port = origin_of(request.url)
        if scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"the address has to begin with http:// or https://, not {scheme}://")
        check_name(host)
        context = self._context() if scheme == "https" else None
        with connecting():
            async with asyncio.timeout(timeout_s):
                connected = await connect(host, port)
                try:
                    _, link = await asyncio.get_running_loop().create_connection(
                        lambda: Link(connected), sock=connected, ssl=context, server_hostname=host if context else None
                    )
                except BaseException:
                    connected.close()
                    raise
        return link

    def give_back(self, link: Link, origin: Origin) -> None:
        link.idle_since = time.monotonic()
        link.parser = None
        idle = self._idle.setdefault(origin, deque())
        while idle and not idle[0].usable:  # of a time with more calls under way
            idle.popleft().close()
        idle.append(link)

    async def aclose(self) -> None:
        """Close the connections that wait for a request; one that is being read is its response's."""
        idle, self._idle = self._idle, {}
        for links in idle.values():
            for link in links:
                link.close()


class LinkStream(httpx.AsyncByteStream):
    """The body of a response as it comes; gives the connection back at its end."""

    __slots__ = ("_link", "_origin", "_parser", "_timeout_s", "_transport", "arrived_at")

    def __init__(self, transport: LoopSocketTransport, link: Link, parser: ResponseParser, origin: Origin, timeout_s: float | None) -> None:
        self._transport = transport
        self._link: Link | None = link
        self._parser = parser
        self._origin = origin
        self._timeout_s = timeout_s
        self.arrived_at: float | None = None
        """When the last bytes that were given came, by the kernel's clock; None where that is not known."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self.next_piece()) is not None:
            yield piece

    async def next_piece(self) -> bytes | None:
        """Wait for what comes next of the body; ``None`` at its end."""
        link = self._link
        while link is not None:
            if link.pieces:
                piece = link.take()
                self.arrived_at = link.arrived_at
                return piece
            if link.error is not None:
                raise link.error
            if self._parser.done:
                return None
            await link.arrival(self._timeout_s)
        return None

    def limit_reads(self, seconds: float | None) -> None:
        """Change how long a further read may take."""
        self._timeout_s = seconds

    async def aclose(self) -> None:
        """Give the connection back where the answer was read whole, else hang up."""
        link, self._link = self._link, None
        if link is None:
            return
        if self._parser.done and self._parser.reusable and not link.pieces and not link.closed:
            self._transport.give_back(link, self._origin)
        else:
            link.close()
