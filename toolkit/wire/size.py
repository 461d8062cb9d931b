"""How large an answer may become: whatever a server sends, it must not fill our memory.

A body is unpacked here and not by httpx, which unpacks each read whole (64 kB of gzip can be 64 MB, and three layers of it anything at all)
and with any packer that happens to be installed.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

__all__ = ["MAX_ANSWER_BYTES", "AsyncBoundedStream", "BoundedStream", "Size", "TooLargeError", "async_body", "body", "is_packed"]

MAX_ANSWER_BYTES = 64 * 2**20
"""A larger answer that does not come as a stream is an error."""
PIECE_BYTES = 64 * 1024
GZIP_OR_ZLIB, BARE_DEFLATE = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS  # "deflate" should have zlib's frame, and often has none


class TooLargeError(httpx.DecodingError):
    """An answer above the limit."""


def body(response: httpx.Response) -> httpx.SyncByteStream:
    """The bytes of a response, unpacked where they come packed."""
    stream: httpx.SyncByteStream = response.stream  # type: ignore[assignment]
    return UnpackedStream(stream, encoding) if (encoding := take_encoding(response)) else stream


def async_body(response: httpx.Response) -> httpx.AsyncByteStream:
    """The same on an event loop."""
    stream: httpx.AsyncByteStream = response.stream  # type: ignore[assignment]
    return AsyncUnpackedStream(stream, encoding) if (encoding := take_encoding(response)) else stream


def is_packed(response: httpx.Response) -> bool:
    """Whether a body may have to be unpacked. Asked of the raw headers: of httpx's it costs ten times as much."""
    return any(name.lower() == b"content-encoding" for name, _ in response.headers.raw)


def take_encoding(response: httpx.Response) -> str:
    """How a body is packed, empty where it is not; httpx, which would unpack it too, does not learn of it."""
    if not is_packed(response):
        return ""
    encoding: str = response.headers.pop("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


class Unpacker:
    """Unpacks gzip and deflate in pieces of at most 64 kB each, so that who counts them can stop in time.

    Raises
    ------
    httpx.DecodingError
        If the body is packed in another way, or not as it says.
    """

    __slots__ = ("_encoding", "_zlib")

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise httpx.DecodingError(f"its encoding is {encoding[:60]!r}, which nobody asked for")
        self._zlib: zlib._Decompress | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes as they came; give what is in them."""
        try:
            piece = self._begin(chunk) if self._zlib is None else self._zlib.decompress(chunk, PIECE_BYTES)
            assert self._zlib is not None
            while piece:
                yield piece
                piece = self._zlib.decompress(self._zlib.unconsumed_tail, PIECE_BYTES)
        except zlib.error as exc:
            raise httpx.DecodingError(str(exc)) from exc

    def _begin(self, chunk: bytes) -> bytes:
        self._zlib = zlib.decompressobj(GZIP_OR_ZLIB)
        try:
            return self._zlib.decompress(chunk, PIECE_BYTES)
        except zlib.error:
            if self._encoding != "deflate":
                raise
        self._zlib = zlib.decompressobj(BARE_DEFLATE)
        return self._zlib.decompress(chunk, PIECE_BYTES)


class UnpackedStream(httpx.SyncByteStream):
    """The unpacked body of a response."""

    def __init__(self, stream: httpx.SyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._unpacker = Unpacker(encoding)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield from self._unpacker.feed(chunk)

    def close(self) -> None:
        self._stream.close()


class AsyncUnpackedStream(httpx.AsyncByteStream):
    """The same on an event loop."""

    def __init__(self, stream: httpx.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._unpacker = Unpacker(encoding)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            for piece in self._unpacker.feed(chunk):
                yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class Size:
    """Counts the bytes of an answer."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > MAX_ANSWER_BYTES:
            raise TooLargeError(f"it is larger than {MAX_ANSWER_BYTES} bytes")


class BoundedStream(httpx.SyncByteStream):
    """A body up to the limit."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = Size()
        for chunk in self._stream:
            size.add(chunk)
            yield chunk

    def close(self) -> None:
        self._stream.close()


class AsyncBoundedStream(httpx.AsyncByteStream):
    """The same on an event loop."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = Size()
        async for chunk in self._stream:
            size.add(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
