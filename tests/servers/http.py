"""A small HTTP/1.1 server on loopback whose every byte a test decides: faults are exact, not approximate.

A *handler* gets a ``Request`` and returns an ``Answer``. What an answer can do wrong is in its fields and in its ``writes``: bytes to
write, ``Pause`` (seconds), ``Gate`` (wait for the test), ``CUT`` (drop the connection).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 20.0  # a test that forgets to open a gate fails, it does not hang
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Pause:
    """A delay in the middle of an answer."""

    seconds: float


@dataclass(frozen=True)
class Gate:
    """Stops the answer until the test sets ``opened``; ``reached`` tells the test that the server stands here."""

    opened: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


class Cut:
    """Drops the connection, without the end that the framing promised."""


class Reset(Cut):
    """The same, so rudely that the client sees a reset."""


CUT = Cut()
RESET_CONNECTION = Reset()
Write = bytes | Pause | Gate | Cut


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # which connection of the server it came on, from 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What to send back.

    ``framing``: ``"chunked"``, ``"length"`` or ``"close"`` (the end of the connection is the end of the body).
    ``before`` happens ahead of the status line, ``after_headers`` between the headers and the body.
    ``cut_after``: drop the connection after that many bytes of the body. ``compress``: gzip, flushed at every write.
    ``hang_up``: close the connection afterwards although keep-alive was promised.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    writes: Iterable[Write] = ()
    framing: str = "chunked"
    before: tuple[Write, ...] = ()
    after_headers: tuple[Write, ...] = ()
    cut_after: int | None = None
    compress: bool = False
    hang_up: bool = False


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None, **faults: Any) -> Answer:
    body = json.dumps(value).encode()
    return Answer(status, {"content-type": "application/json", **(headers or {})}, [body], **{"framing": "length", **faults})


def page_answer(title: str, status: int = 502) -> Answer:
    """A proxy's error page."""
    page = f"<html><head><title>{title}</title></head><body>upstream went away</body></html>"
    return Answer(status, {"content-type": "text/html"}, [page.encode()], framing="length")


class DroppedError(Exception):
    """The connection is to be closed now."""


Handler = Callable[[Request], Answer]


class Server:
    """Serves a handler on a port of its own, a thread a connection; ``requests`` is what came in.

    ``closes_reused``: connections serve one request; a second one on them is met by a closed door, though keep-alive was promised.
    """

    def __init__(self, handler: Handler, *, closes_reused: bool = False) -> None:
        self.handler = handler
        self.closes_reused = closes_reused
        self.requests: list[Request] = []
        self.hang_ups = threading.Semaphore(0)  # released whenever a client leaves in the middle of an answer
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            shut(connection)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, len(self._connections) - 1), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        reader = connection.makefile("rb")
        served = 0
        try:
            while (request := read_request(reader, number)) is not None:
                if self.closes_reused and served:
                    break
                self.requests.append(request)
                answer = self.handler(request)
                send_answer(connection, answer)
                served += 1
                if answer.framing == "close" or answer.hang_up:
                    break
        except DroppedError:
            pass
        except OSError:
            self.hang_ups.release()
        finally:
            reader.close()
            shut(connection)


def shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def read_request(reader: Any, number: int) -> Request | None:
    start = reader.readline()
    if not start:
        return None
    method, path, _ = start.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b"".join(read_body(reader, headers))
    if len(body) < int(headers.get("content-length", 0)):  # the client was killed while it sent
        return None
    return Request(method, path, headers, body, number)


def read_body(reader: Any, headers: dict[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(reader.readline(), 16):
            yield reader.read(size)
            reader.readline()
        reader.readline()
    else:
        yield reader.read(int(headers.get("content-length", 0)))


def send_answer(connection: socket.socket, answer: Answer) -> None:
    for write in answer.before:
        act(connection, write)
    writes = list(answer.writes) if answer.framing == "length" or answer.cut_after is not None else answer.writes
    if answer.cut_after is not None:
        writes = cut_at(writes, answer.cut_after)
    if answer.compress:
        writes = list(compressed(writes)) if answer.framing == "length" else compressed(writes)
    headers = {"connection": "keep-alive", **answer.headers}
    if answer.compress:
        headers["content-encoding"] = "gzip"
    if answer.framing == "chunked":
        headers["transfer-encoding"] = "chunked"
    elif answer.framing == "length":
        promised = answer.writes if not answer.compress else writes
        headers["content-length"] = str(sum(len(write) for write in promised if isinstance(write, bytes)))
    else:
        headers["connection"] = "close"
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for write in answer.after_headers:
        act(connection, write)
    for write in writes:
        if isinstance(write, bytes) and answer.framing == "chunked":
            write = b"%x\r\n%s\r\n" % (len(write), write) if write else b""
        act(connection, write)
    if answer.framing == "chunked":
        connection.sendall(b"0\r\n\r\n")


def act(connection: socket.socket, write: Write) -> None:
    if isinstance(write, bytes):
        connection.sendall(write)
    elif isinstance(write, Pause):
        threading.Event().wait(write.seconds)
    elif isinstance(write, Gate):
        write.reached.set()
        if not write.opened.wait(PATIENCE_S):
            raise DroppedError
    else:
        if isinstance(write, Reset):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
        raise DroppedError


def cut_at(writes: Iterable[Write], size: int) -> Iterator[Write]:
    for write in writes:
        if isinstance(write, bytes) and len(write) >= size:
            yield write[:size]
            break
        size -= len(write) if isinstance(write, bytes) else 0
        yield write
    yield CUT


def compressed(writes: Iterable[Write]) -> Iterator[Write]:
    packer = zlib.compressobj(wbits=31)
    for write in writes:
        yield packer.compress(write) + packer.flush(zlib.Z_SYNC_FLUSH) if isinstance(write, bytes) else write
    yield packer.flush()


# --- exchanges: the examples of the protocol sheets, as data ---------------------------------------------------------------------


def sse(value: Any, event: str | None = None) -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {compact(value)}\n\n".encode()


def nd(value: Any) -> bytes:
    return f"{compact(value)}\n".encode()


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def frame_write(frame: dict[str, Any]) -> Write:
    """One network write of an exchange."""
    if "sse" in frame:
        return sse(frame["sse"], frame.get("event"))
    if "nd" in frame:
        return nd(frame["nd"])
    if "raw" in frame:
        return str(frame["raw"]).encode()
    if "hex" in frame:
        return bytes.fromhex(frame["hex"])
    assert frame == {"abort": True}, f"unknown frame {frame}"
    return CUT


def exchange_writes(exchange: dict[str, Any]) -> list[Write]:
    response = exchange["response"]
    if "json" in response:
        return [json.dumps(response["json"], ensure_ascii=False).encode()]
    if "text" in response:
        return [response["text"].encode()]
    if "hex" in response:
        return [bytes.fromhex(response["hex"])]
    return [frame_write(frame) for frame in response["frames"]]


def exchange_answer(exchange: dict[str, Any]) -> Answer:
    response = exchange["response"]
    return Answer(
        response["status"], response["headers"], exchange_writes(exchange), framing="chunked" if "frames" in response else "length"
    )
