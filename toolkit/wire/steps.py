"""The steps of a call. A call yields them; a driver (threads or an event loop) carries them out and sends back what came of it.

=========  ==============================================================================
Lookup     ask the cache; gives a ``Found`` or ``MISS``
Join       is the same call under way? gives a ``Flight``: lead it, or take what it brought
Send       one HTTP exchange; gives an ``httpx.Response`` (read whole unless ``stream``)
Read       the next bytes of a streamed response; gives ``None`` at its end
Emit       hand events to whoever reads the stream; comes back when they ask for more
Sleep      wait
Keep       put an answer into the cache
Work       do what blocks, in a thread where there is a loop; gives what it returns
=========  ==============================================================================

``Read`` and ``Emit`` are what a stream needs beyond the five of a plain call: with them, retries, timing and single flight
are written once for both kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from ..types import Kept, PullProgress, StreamEvent

__all__ = ["Emit", "Join", "Keep", "Lookup", "Read", "ReaderLeft", "Send", "Sleep", "Step", "Steps", "Work"]


@dataclass(slots=True)
class Lookup:
    key: str
    memory_only: bool = False


@dataclass(slots=True)
class Join:
    key: str


@dataclass(slots=True)
class Send:
    request: httpx.Request
    stream: bool = False
    within_s: float | None = None  # of a stream: how long its head may take, where the request allows more
    arrived_at: float | None = None  # set by the driver: when the last of a whole response came, where that is known


@dataclass(slots=True)
class Read:
    response: httpx.Response
    within_s: float | None = None  # how long it may take; else as the request says
    arrived_at: float | None = None  # set by the driver: when these bytes came, where that is known


@dataclass(slots=True)
class Emit:
    events: list[StreamEvent] | list[PullProgress]


@dataclass(slots=True)
class Sleep:
    seconds: float


@dataclass(slots=True)
class Keep:
    key: str
    value: Kept


@dataclass(slots=True)
class Work:
    do: Callable[[], Any]  # whatever it gives is sent back: a library that does I/O of its own (sign-in to a cloud)


class ReaderLeft(BaseException):
    """Whoever read a stream closed it. Unlike at a ``GeneratorExit``, which ends generators at once, steps may still send a last word.

    ``partial`` is what had come of the answer.
    """

    partial = ""


Step = Lookup | Join | Send | Read | Emit | Sleep | Keep | Work
T = TypeVar("T")
Steps = Generator[Step, Any, T]  # what is sent in depends on the step: see the table above
