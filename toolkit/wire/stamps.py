"""When bytes came, by the kernel's clock: whatever keeps a program busy then, it does not change what it reads later.

Linux notes the time at which each packet arrived and tells it with the bytes (``SO_TIMESTAMPNS``). Elsewhere, and where TLS reads the socket
itself, the time is not known, and callers go by when they got the bytes.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

__all__ = ["StampedSocket", "arrival_of", "stamped"]

_STAMPS = 35
"""``SO_TIMESTAMPNS`` and the kind of its messages (asm-generic/socket.h); Python has no name for it."""
_TIME = struct.Struct("qq")
_ROOM = socket.CMSG_SPACE(_TIME.size) if hasattr(socket, "CMSG_SPACE") else 0


class StampedSocket(socket.socket):
    """A socket that knows when the last bytes it gave had arrived: ``arrived_at``, by ``time.perf_counter``; None where that is not known."""

    __slots__ = ("arrived_at",)

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        self.arrived_at: float | None = None
        if sys.platform == "linux":
            self.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)

    if sys.platform == "linux":

        def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
            data, messages, _, _ = self.recvmsg(bufsize, _ROOM, flags)
            self.arrived_at = next((_read(value) for _, kind, value in messages if kind == _STAMPS and len(value) == _TIME.size), None)
            return data


def _read(value: bytes) -> float:
    """The moment of a stamp by the clock that calls are timed with. What the system's clock was set by in between is not known: see ``Ledger``."""
    seconds, nanoseconds = _TIME.unpack(value)
    age_s: float = time.time() - seconds - nanoseconds * 1e-9
    return time.perf_counter() - max(0.0, age_s)


def stamped(connected: socket.socket) -> socket.socket:
    """Turn a connected socket into one with stamps."""
    timeout_s = connected.gettimeout()
    turned = StampedSocket(fileno=connected.detach())
    turned.settimeout(timeout_s)
    return turned


def arrival_of(stream: object) -> float | None:
    """When the last bytes that a body gave had arrived, where its transport knows."""
    found: float | None = getattr(stream, "arrived_at", None)
    return found
