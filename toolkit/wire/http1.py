"""HTTP/1.1 as a client speaks it, without I/O: a request to bytes, bytes to a response. Both of our transports stand on it.

It is what a model call needs and no more (RFC 9112): one request at a time on a connection, bodies by length, in chunks or to the end of the
connection, informational responses passed over. What came in one read comes out in one piece, so a busy stream costs less, not more.
"""

from __future__ import annotations

import re

import httpx

__all__ = ["ResponseParser", "build_response", "request_bytes"]

MAX_HEAD = 128 * 1024
MAX_LINE = 16 * 1024
MAX_INTERIM = 100  # responses that only say that the answer is still to come
BLANK_LINE = re.compile(rb"\n\r?\n")  # searching for an optional \r first would take ten times as long
FOLDED = re.compile(rb"\n[ \t]")
FOLD = re.compile(rb"\r?\n[ \t]+")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?")
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
FORBIDDEN = re.compile(rb"[\r\n\x00]")

Headers = list[tuple[bytes, bytes]]


def request_bytes(request: httpx.Request) -> bytes:
    """Return a request as it goes over the wire, head and body in one piece: one write, one packet.

    Raises
    ------
    httpx.LocalProtocolError
        If a header holds a line break (a key that was pasted with one, say).
    """
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if FORBIDDEN.search(value) or FORBIDDEN.search(name):
            raise httpx.LocalProtocolError(f"the header {name.decode('latin-1')!r} holds a line break")
        lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.read()


def build_response(parser: ResponseParser, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
    """Return the response whose head has been read; its body is the stream's."""
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": parser.reason}
    response = httpx.Response(parser.status, headers=parser.headers, stream=stream, extensions=extensions)
    if parser.ascii:  # httpx would find it out, header by header
        response.headers.encoding = "ascii"
    return response


class ResponseParser:
    """Reads one response: ``feed`` what came, take the pieces of the body.

    Attributes
    ----------
    status : int
        0 until the head is there.
    headers : list of (bytes, bytes)
        As they came.
    done : bool
        Whether the response is whole.
    reusable : bool
        Whether the connection can take another request after it.
    """

    __slots__ = ("_body", "_buffer", "_interim", "_left", "_method", "ascii", "done", "headers", "reason", "reusable", "status")

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = b""
        self._body = ""  # how it is framed: "length", "chunks", "trailers" or "close"
        self._interim = 0
        self.ascii = False  # whether the head is
        self._left = 0  # bytes missing of the body, or of the chunk under way with its line break
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.done = False
        self.reusable = False

    def feed(self, data: bytes) -> bytes:
        """Take what came from the connection and return what it adds to the body.

        Raises
        ------
        httpx.RemoteProtocolError
            If it is not HTTP/1.1.
        """
        if not self.status:
            data = self._read_head(data)
            if not self.status:
                return b""
        if self.done:
            self.reusable = self.reusable and not data  # bytes that nobody asked for: not a connection to go on with
            return b""
        if self._body == "close":
            return data
        return self._read_length(data) if self._body == "length" else self._read_chunks(data)

    def end(self) -> None:
        """The connection has ended; only a body without other framing may end so.

        Raises
        ------
        httpx.RemoteProtocolError
            If the response was not whole.
        """
        self.reusable = False
        if self._body == "close":
            self.done = True
        if not self.status and not self._buffer:
            raise httpx.RemoteProtocolError("the server closed the connection without answering")
        if not self.done:
            raise httpx.RemoteProtocolError("the server closed the connection in the middle of its answer")

    # --- head --------------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> bytes:
        """Read the head once it is whole; return what stands behind it."""
        data = self._buffer + data
        while (blank := BLANK_LINE.search(data)) is not None:
            head, data = data[: blank.start()].strip(b"\r\n"), data[blank.end() :]
            fields = self._read_lines(head)
            if self.status >= 200:
                self._buffer = b""
                self._choose_framing(fields)
                return data
            self.status = 0  # 100 Continue and its like: the answer is still to come
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise httpx.RemoteProtocolError("the server keeps saying that its answer is still to come")
        if len(data) > MAX_HEAD:
            raise httpx.RemoteProtocolError(f"the head of the response is longer than {MAX_HEAD} bytes")
        self._buffer = data
        return b""

    def _read_lines(self, head: bytes) -> dict[bytes, bytes]:
        """Take a head apart; return its fields by their names in small letters, of several the last."""
        if FOLDED.search(head) is not None:
            head = FOLD.sub(b" ", head)
        first, *lines = head.replace(b"\r\n", b"\n").split(b"\n")
        found = STATUS_LINE.fullmatch(first)
        if found is None:
            raise httpx.RemoteProtocolError(f"this is not HTTP/1.1: {first[:60]!r}")
        self.ascii = head.isascii()
        self.status, self.reason = int(found[2]), found[3] or b""
        self.reusable = found[1] == b"1"
        self.headers, fields = [], {}
        for line in lines:
            name, colon, value = line.partition(b":")
            name, value = name.strip(), value.strip()
            if not colon or not name:
                raise httpx.RemoteProtocolError(f"a header without a colon: {line[:60]!r}")
            self.headers.append((name, value))
            fields[name.lower()] = value
        return fields

    def _choose_framing(self, fields: dict[bytes, bytes]) -> None:
        connection = fields.get(b"connection", b"").lower()
        self.reusable = b"close" not in connection and (self.reusable or b"keep-alive" in connection)
        if self._method == "HEAD" or self.status in (204, 304):
            self.done = True
        elif b"transfer-encoding" in fields:  # goes before a length, RFC 9112 section 6.3
            if fields[b"transfer-encoding"].lower().rpartition(b",")[2].strip() != b"chunked":
                raise httpx.RemoteProtocolError(f"an unknown transfer encoding: {fields[b'transfer-encoding'][:60]!r}")
            self._body, self._left = "chunks", 0
        elif b"content-length" in fields:
            self._body, self._left = "length", self._length()
            self.done = self._left == 0
        else:
            self._body, self.reusable = "close", False

    def _length(self) -> int:
        told = {part.strip() for name, value in self.headers if name.lower() == b"content-length" for part in value.split(b",")}
        length = told.pop()
        if told or not length.isdigit() or len(length) > 18:
            raise httpx.RemoteProtocolError("the response tells two lengths, or one that can't be")
        return int(length)

    # --- body --------------------------------------------------------------------------------------------------------

    def _read_length(self, data: bytes) -> bytes:
        if len(data) > self._left:
            self.reusable = False
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def _read_chunks(self, data: bytes) -> bytes:
        """Return all of the body that is there; what is left of a size line or a line break waits for the next read."""
        if self._body == "trailers":
            return self._read_trailers(self._buffer + data)
        pieces, at, buffer = [], 0, self._buffer + data if self._buffer else data
        end = len(buffer)
        while True:
            if self._left > 2:
                piece = buffer[at : at + self._left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            if self._left > 2 or (self._left == 2 and end - at < 2):
                break
            if self._left == 2:
                if buffer[at : at + 2] != b"\r\n":
                    raise httpx.RemoteProtocolError("a chunk of the answer is longer than was told")
                at, self._left = at + 2, 0
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                break
            size = CHUNK_SIZE.fullmatch(buffer, at, line_end)
            if size is None:
                raise httpx.RemoteProtocolError(f"this is no chunk size: {buffer[at : at + 40]!r}")
            at, length = line_end + 2, int(size[1], 16)
            if not length:
                self._body = "trailers"
                pieces.append(self._read_trailers(buffer[at:]))
                return b"".join(pieces)
            self._left = length + 2
        self._buffer = buffer[at:]
        if self._left == 0 and end - at > MAX_LINE:
            raise httpx.RemoteProtocolError("a chunk size without an end")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_trailers(self, data: bytes) -> bytes:
        """Pass over the trailers, up to their blank line."""
        if data.startswith(b"\r\n"):
            end = 2
        elif (blank := BLANK_LINE.search(data)) is not None:
            end = blank.end()
        else:
            if len(data) > MAX_HEAD:
                raise httpx.RemoteProtocolError("trailers without an end")
            self._buffer = data
            return b""
        self.done = True
        self.reusable = self.reusable and len(data) == end
        self._buffer = b""
        return b""
