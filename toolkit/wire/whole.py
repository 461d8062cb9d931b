"""Reading an answer that does not come as a stream: whole, up to a limit of size, until a deadline.

Our own transports' bodies are read here piece by piece; httpx wraps a body in four generators, which cost an event loop more than the exchange.
"""

from __future__ import annotations

import httpx

from .loop_sockets import LinkStream
from .patience import AsyncPunctualStream, Deadline, PunctualStream
from .size import AsyncBoundedStream, BoundedStream, Size, async_body, body, is_packed
from .sockets import SocketStream
from .stamps import arrival_of

__all__ = ["async_read_whole", "read_whole"]


def read_whole(response: httpx.Response, deadline: Deadline) -> float | None:
    """Read the body of a response, so that its ``content`` is there; return when the last of it came, where that is known.

    Raises
    ------
    httpx.ReadTimeout
        If the deadline passes.
    TooLargeError
        If there is no end to it.
    """
    stream = response.stream
    if isinstance(stream, SocketStream) and not is_packed(response):
        size, pieces = Size(), []
        for piece in stream:
            deadline.check()
            size.add(piece)
            pieces.append(piece)
        stream.close()
        response.stream = httpx.ByteStream(b"".join(pieces))
    else:
        response.stream = PunctualStream(BoundedStream(body(response)), deadline)
    response.read()
    return arrival_of(stream)


async def async_read_whole(response: httpx.Response, deadline: Deadline) -> float | None:
    """The same on an event loop."""
    stream = response.stream
    if isinstance(stream, LinkStream) and not is_packed(response):
        size, pieces = Size(), []
        while (piece := await stream.next_piece()) is not None:
            deadline.check()
            size.add(piece)
            pieces.append(piece)
        await stream.aclose()
        response.stream = httpx.ByteStream(b"".join(pieces))
        response.read()
    else:
        response.stream = AsyncPunctualStream(AsyncBoundedStream(async_body(response)), deadline)
        await response.aread()
    return arrival_of(stream)
