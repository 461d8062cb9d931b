"""Bytes in, events or lines out, whatever the network did to the boundaries.

The text is never decoded here: a character may be cut between two reads, and only LF, CR and CRLF end a line. ``str.splitlines`` (and
with it ``httpx.Response.iter_lines``) also breaks lines at U+0085, U+2028 and others, which are legal inside a JSON string.

Every call of ``feed`` is a sign of life, comments included, even where it gives no events.
"""

from __future__ import annotations

import re

from ..errors import ReplyError

__all__ = ["MAX_EVENT_BYTES", "MAX_STREAM_BYTES", "LineDecoder", "SSEDecoder", "SSEvent", "Surrogates", "paired"]

MAX_EVENT_BYTES = 16 * 2**20
MAX_STREAM_BYTES = 128 * 2**20
"""Of a whole stream: many times what the longest answer of a model takes, log-probabilities included."""
BOM = b"\xef\xbb\xbf"

SSEvent = tuple[str, bytes]
"""The name of an event (``"message"`` where the server gave none) and its data."""


class SSEDecoder:
    r"""Server-sent events, by the grammar of the HTML standard (section 9.2.6), one difference apart: ``close`` delivers the last event even
    without the blank line that should end it, since real servers forget it.

    Parameters
    ----------
    max_bytes : int
        A larger event, or a longer line, is an error: a server must not fill our memory.

    Raises
    ------
    ReplyError
        By ``feed`` and ``close``, for an event above ``max_bytes``; events before it are delivered first.

    Examples
    --------
    >>> decoder = SSEDecoder()
    >>> decoder.feed(b": hello\r\n\r\ndata: {}\n\ndata: [DO")
    [('message', b'{}')]
    >>> decoder.feed(b"NE]")
    []
    >>> decoder.close()
    [('message', b'[DONE]')]
    """

    __slots__ = ("_data", "_fresh", "_max", "_name", "_parts", "_pending", "_size", "_skip_lf", "_started")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._parts: list[bytes] = []  # of the unfinished line
        self._pending = 0  # bytes in them
        self._data: list[bytes] = []  # data lines of the unfinished event
        self._size = 0  # bytes in them
        self._name = ""
        self._skip_lf = False  # a CR was the last byte: an LF that follows belongs to it
        self._started = False  # the place where a byte-order mark may stand is behind us
        self._fresh = False  # started, and between two events with nothing kept

    def feed(self, chunk: bytes) -> list[SSEvent]:
        """Take the next bytes; return the events they complete."""
        if self._fresh and len(chunk) <= self._max and (events := whole_events(chunk)):
            return events
        return self._slowly(chunk)

    def close(self) -> list[SSEvent]:
        """Take note of the end of the bytes; return the event that lacked its blank line, if there is one."""
        events: list[SSEvent] = []
        self._check(self._pending)
        self._lines([b"".join(self._parts), b""], events)
        self._parts, self._pending = [], 0
        return events

    def _slowly(self, chunk: bytes) -> list[SSEvent]:
        events: list[SSEvent] = []
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if not self._started:
            chunk = self._without_bom(chunk)
        # A line is joined once, when its end is here: joining at every read would make a long line cost the square of its length.
        if b"\n" in chunk or b"\r" in chunk:
            chunk = self._take_lines(b"".join((*self._parts, chunk)), events)
        self._keep(chunk, quiet=bool(events))
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        chunk = b"".join((*self._parts, chunk))
        self._parts, self._pending = [], 0
        if len(chunk) >= len(BOM) or not BOM.startswith(chunk):
            self._started = True
            return chunk.removeprefix(BOM)
        return chunk

    def _take_lines(self, text: bytes, events: list[SSEvent]) -> bytes:
        """Read the complete lines of ``text``, which begins a line; return the rest."""
        self._parts, self._pending = [], 0
        if not self._size and not self._name and len(text) <= self._max:
            end = text.rfind(b"\n\n") + 2
            if end > 1 and (whole := whole_events(text[:end])):
                events += whole
                text = text[end:]
        if b"\r" in text:
            self._skip_lf = text.endswith(b"\r")
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._lines(lines, events)
        return rest

    def _lines(self, lines: list[bytes], events: list[SSEvent]) -> None:
        for line in lines:
            if self._size + len(line) > self._max:
                self._size = self._max + 1
                return
            if not line:
                if self._data:
                    events.append((self._name or "message", b"\n".join(self._data)))
                self._data, self._size, self._name = [], 0, ""
            elif not line.startswith(b":"):
                self._field(line)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(line)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")

    def _keep(self, rest: bytes, quiet: bool) -> None:
        if rest:
            self._parts.append(rest)
            self._pending += len(rest)
        self._fresh = self._started and not (self._parts or self._data or self._name or self._skip_lf)
        if not quiet:
            self._check(self._pending)

    def _check(self, pending: int) -> None:
        if self._size + pending > self._max:
            raise ReplyError(f"an event of the stream is larger than {self._max} bytes")


def whole_events(chunk: bytes) -> list[SSEvent]:
    r"""Read bytes that hold nothing but ``data: ...\n\n``, once or many times over: what nearly every read brings. Else return nothing."""
    if chunk[:6] != b"data: " or chunk[-2:] != b"\n\n" or b"\r" in chunk:
        return []
    if chunk.find(b"\n") == len(chunk) - 2:
        return [("message", chunk[6:-2])]
    blocks = chunk[6:-2].split(b"\n\ndata: ")
    if chunk.count(b"\n") != 2 * len(blocks):  # a line feed besides the separators: another field, or data of several lines
        return []
    return [("message", block) for block in blocks]


class LineDecoder:
    r"""Lines of NDJSON: split at LF and nowhere else, a CR before it dropped, blank lines left out; ``close`` delivers an unterminated last line.

    Raises
    ------
    ReplyError
        By ``feed`` and ``close``, for a line above ``max_bytes``; lines before it are delivered first.

    Examples
    --------
    >>> decoder = LineDecoder()
    >>> decoder.feed(b'{"a": 1}\r\n{"b"')
    [b'{"a": 1}']
    >>> decoder.feed(b": 2}"), decoder.close()
    ([], [b'{"b": 2}'])
    """

    __slots__ = ("_max", "_parts", "_pending")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._parts: list[bytes] = []
        self._pending = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return the lines they complete."""
        if self._pending > self._max:
            self._refuse()
        lines: list[bytes] = []
        if b"\n" in chunk:
            *whole, chunk = b"".join((*self._parts, chunk)).split(b"\n") if self._parts else chunk.split(b"\n")
            self._parts, self._pending = [], 0
            for line in whole:
                if len(line) > self._max:
                    self._pending = len(line)
                    break
                if line := line.removesuffix(b"\r"):
                    lines.append(line)
        if chunk:
            self._parts.append(chunk)
            self._pending += len(chunk)
        if self._pending > self._max and not lines:
            self._refuse()
        return lines

    def close(self) -> list[bytes]:
        """Take note of the end of the bytes; return the line that lacked its end, if there is one."""
        if self._pending > self._max:
            self._refuse()
        line = b"".join(self._parts).removesuffix(b"\r")
        self._parts, self._pending = [], 0
        return [line] if line else []

    def _refuse(self) -> None:
        raise ReplyError(f"a line of the stream is longer than {self._max} bytes")


LONE = re.compile("[\ud800-\udfff]")


class Surrogates:
    r"""Puts characters together again that a server cut in two halves of a ``\ud83d\ude00`` pair, one half a piece.

    A lone half can't be encoded: printing it would raise. One that never finds its other half becomes U+FFFD.

    Examples
    --------
    >>> pieces = Surrogates()
    >>> pieces.mend("so \ud83d"), pieces.mend("\ude00!"), pieces.close()
    ('so ', '😀!', '')
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = ""  # a first half, until the next piece

    def mend(self, piece: str) -> str:
        """Return the piece without lone halves; a first half at its end waits for the next piece."""
        if not self.waiting and (piece.isascii() or not LONE.search(piece)):
            return piece
        piece = self.waiting + piece
        self.waiting = piece[-1] if "\ud800" <= piece[-1] <= "\udbff" else ""
        return paired(piece.removesuffix(self.waiting))

    def close(self) -> str:
        """Return what stands for a half that is still waiting."""
        waiting, self.waiting = self.waiting, ""
        return paired(waiting)


def paired(text: str) -> str:
    """Join surrogate pairs; replace lone halves."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
