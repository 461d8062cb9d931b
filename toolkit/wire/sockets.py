"""Our own transport for threads: HTTP/1.1 over a plain socket or TLS, one write a request, one read a piece.

It stands beside ``httpx.HTTPTransport`` (same interface, same exceptions, same certificates) and costs a fraction of it, since a model call
needs no connection pool shared by threads, no events and no tracing. Proxies are left to httpx.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import httpx

from .http1 import ResponseParser, build_response, request_bytes
from .stamps import arrival_of, stamped

__all__ = ["SocketTransport"]

READ_SIZE = 64 * 1024
IDLE_S = 30.0
"""A connection that nobody used for longer is not trusted any more."""

Origin = tuple[str, str, int]


def origin_of(url: httpx.URL) -> Origin:
    """Scheme, host and port of an address."""
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def check_name(host: str) -> None:
    """Refuse what can't be the name of a machine: Python's look-up of names would raise ``UnicodeError``, which nobody expects."""
    if len(host) > 253 or not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise httpx.UnsupportedProtocol(f"{host[:80]} can't be the name of a machine")


@contextlib.contextmanager
def translated(timed_out: type[httpx.TimeoutException], failed: type[httpx.NetworkError]) -> Iterator[None]:
    """Raise httpx's exceptions for the system's, without the request: its headers hold the key, and its address may hold a password."""
    try:
        yield
    except TimeoutError as exc:
        raise timed_out("timed out") from exc
    except OSError as exc:
        raise failed(str(exc)) from exc


class Connection:
    """A socket with its server, for one request at a time."""

    __slots__ = ("idle_since", "origin", "socket")

    def __init__(self, origin: Origin, connected: socket.socket) -> None:
        self.origin = origin
        self.socket = connected
        self.idle_since = 0.0

    def stale(self, now: float) -> bool:
        """Whether it waited too long, or the server has closed it (then there is something to read: its end)."""
        if now - self.idle_since > IDLE_S:
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.socket.close()


class SocketTransport(httpx.BaseTransport):
    """One thread's connections.

    Parameters
    ----------
    context : callable
        Gives the TLS context; called for the first https address only.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._idle: dict[Origin, list[Connection]] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        connection = self._take(request, timeout.get("connect"))
        try:
            with translated(httpx.WriteTimeout, httpx.WriteError):
                connection.socket.settimeout(timeout.get("write"))
                connection.socket.sendall(request_bytes(request))  # no variable: tracebacks that show those would show the key
            parser = ResponseParser(request.method)
            body = b""
            with translated(httpx.ReadTimeout, httpx.ReadError):
                connection.socket.settimeout(timeout.get("read"))
                while not parser.status:
                    body = receive(connection.socket, parser)
        except BaseException:  # an interrupt too: half an answer must not wait for the next request
            connection.close()
            raise
        return build_response(parser, SocketStream(self, connection, parser, body))

    def _take(self, request: httpx.Request, timeout_s: float | None) -> Connection:
        origin = origin_of(request.url)
        idle = self._idle.get(origin, [])
        now = time.monotonic()
        while idle:
            connection = idle.pop()
            if not connection.stale(now):
                return connection
            connection.close()
        return self._connect(origin, timeout_s)

    def _connect(self, origin: Origin, timeout_s: float | None) -> Connection:
        scheme, host, port = origin
        if scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"the address has to begin with http:// or https://, not {scheme}://")
        check_name(host)
        with translated(httpx.ConnectTimeout, httpx.ConnectError):
            connected: socket.socket = socket.create_connection((host, port), timeout_s)
            try:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if scheme == "https":
                    connected = self._context().wrap_socket(connected, server_hostname=host)
                else:
                    connected = stamped(connected)
            except BaseException:
                connected.close()
                raise
        return Connection(origin, connected)

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.origin, []).append(connection)

    def close(self) -> None:
        """Close the connections that wait for a request; one that is being read is its response's."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def __del__(self) -> None:
        # A thread's transport goes with its thread; without this its sockets would be reported as leaked.
        with contextlib.suppress(Exception):
            self.close()


def receive(connected: socket.socket, parser: ResponseParser) -> bytes:
    """Read once and return what that adds to the body."""
    data = connected.recv(READ_SIZE)
    if data:
        return parser.feed(data)
    parser.end()
    return b""


class SocketStream(httpx.SyncByteStream):
    """The body of a response as it comes; gives the connection back at its end."""

    __slots__ = ("_connection", "_first", "_parser", "_transport", "arrived_at")

    def __init__(self, transport: SocketTransport, connection: Connection, parser: ResponseParser, first: bytes) -> None:
        self._transport = transport
        self._connection: Connection | None = connection
        self._parser = parser
        self._first = first
        self.arrived_at = arrival_of(connection.socket)
        """When the last bytes came, by the kernel's clock; None where that is not known."""

    def __iter__(self) -> Iterator[bytes]:
        connection, parser = self._connection, self._parser
        if self._first:
            yield self._first
        if connection is None:
            return
        recv = connection.socket.recv
        while not parser.done:
            try:
                data = recv(READ_SIZE)
            except TimeoutError as exc:
                raise httpx.ReadTimeout("timed out") from exc
            except OSError as exc:
                raise httpx.ReadError(str(exc)) from exc
            if not data:
                parser.end()
                return
            self.arrived_at = arrival_of(connection.socket)
            if body := parser.feed(data):
                yield body

    def limit_reads(self, seconds: float | None) -> None:
        """Change how long a further read may take."""
        if self._connection is not None:
            self._connection.socket.settimeout(seconds)

    def close(self) -> None:
        """Give the connection back where the answer was read whole, else hang up."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._parser.done and self._parser.reusable:
            self._transport.give_back(connection)
        else:
            connection.close()
