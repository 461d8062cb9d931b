"""How answers are read: what the readers of all chat dialects share.

A whole answer is read as a stream of one chunk, so there is one way from JSON to a ``Reply`` and not two.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import httpx

from ..errors import ProviderError, ReplyError, StreamInterrupted
from ..types import NO_USAGE, ChatRequest, EventKind, FinishReason, Reply, StreamEvent, TokenLogprob, ToolCall
from ..wire.fastjson import loads
from ..wire.stream import MAX_EVENT_BYTES, MAX_STREAM_BYTES, Surrogates, paired
from .base import Provider, message_of

__all__ = ["Decoder", "StreamReader", "ToolCalls", "count", "fields_of", "number", "objects", "read_json", "read_logprobs", "words"]

ItemT = TypeVar("ItemT")


class Decoder(Protocol[ItemT]):
    """Cuts bytes into items: events or lines."""

    def feed(self, chunk: bytes, /) -> list[ItemT]: ...

    def close(self) -> list[ItemT]: ...


class StreamReader(ABC, Generic[ItemT]):
    """Takes the bytes of a streamed answer and gives events; see ``base.Reader``. A dialect says how to read one object.

    Attributes
    ----------
    failure : ProviderError or None
        An error the service reported inside the stream; ``failure.partial`` holds the text before it.
    done : bool
        Whether the service said that nothing follows.
    tail : list of StreamEvent
        After ``close``: events that only the end of the bytes completed.
    """

    marks_its_end: ClassVar[bool] = False
    """Whether each object says if it is the last one, in whole answers too."""

    def __init__(self, provider: Provider, request: ChatRequest, decoder: Decoder[ItemT]) -> None:
        self.provider = provider
        self.request = request
        self.failure: ProviderError | None = None
        self.done = False
        self.tail: list[StreamEvent] = []
        self.finish: FinishReason | None = None
        self.served_model: str | None = None
        self.usage = NO_USAGE
        self.cost_usd: float | None = None  # where the service states it
        self.reported: dict[str, float | str] = {}
        self.logprobs: list[TokenLogprob] = []
        self.calls = ToolCalls()
        self._decoder = decoder
        self._pieces: dict[EventKind, list[str]] = {"text": [], "reasoning": []}
        self._halves = {"text": Surrogates(), "reasoning": Surrogates()}
        self._unread: list[bytes] | None = []  # everything, as long as none of it could be read
        self._fed_bytes = 0
        self._broken: bytes | None = None  # the first thing that should have been an object and can't be read
        self._closing = False

    # --- what a dialect fills in -------------------------------------------------------------------------------------

    @abstractmethod
    def read_item(self, item: ItemT, events: list[StreamEvent]) -> None:
        """Read one item of the decoder: find the object in it and pass it to ``read_json``."""

    @abstractmethod
    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """Take over what one JSON object says, and append the events it means."""

    # --- bytes in, events out ----------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces["text"])

    @property
    def reasoning(self) -> str:
        """The thinking so far."""
        return "".join(self._pieces["reasoning"])

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Take the next bytes; return the events they complete. Never raises: see ``failure``."""
        events: list[StreamEvent] = []
        if self.failure is not None or self.done:
            return events
        self._fed_bytes += len(chunk)
        if self._fed_bytes > MAX_STREAM_BYTES:
            self.fail(self.provider.bad_reply(f"the stream is longer than {MAX_STREAM_BYTES} bytes", self.request, 200))
            return events
        if self._unread is not None:
            self._keep_unread(chunk)
        try:
            items = self._decoder.feed(chunk)
        except ReplyError as exc:
            self.fail(self.provider.bad_reply(str(exc), self.request))
            return events
        self._take(items, events)
        return events

    def close(self) -> Reply:
        """Take note of the end of the bytes and return the answer.

        Raises
        ------
        StreamInterrupted
            If the stream ended before the answer did.
        ReplyError
            If there was no answer in it.
        ProviderError
            If the service reported an error.
        """
        self._closing = True
        if self.failure is None and not self.done:
            self._read_rest()
        self._judge()
        if self.failure is not None:
            raise self.failure
        return self.reply()

    def _take(self, items: list[ItemT], events: list[StreamEvent]) -> None:
        for item in items:
            self.read_item(item, events)
            if self.failure is not None:
                return

    def _keep_unread(self, chunk: bytes) -> None:
        if self._unread is not None and self._fed_bytes <= MAX_EVENT_BYTES:
            self._unread.append(chunk)

    def _read_rest(self) -> None:
        try:
            items = self._decoder.close()
        except ReplyError as exc:
            self.fail(self.provider.bad_reply(str(exc), self.request))
            return
        self._take(items, self.tail)
        if self._unread is not None:
            self._read_whole(b"".join(self._unread))

    def _read_whole(self, body: bytes) -> None:
        """Nothing of a stream came. A server that ignores ``stream`` sends one JSON object, with an answer or an error in it."""
        if not body.strip():
            return  # like a stream that was cut ahead of its first event
        try:
            data = loads(body)
        except ValueError:
            if self._broken is None:
                self.fail(self.provider.bad_reply(f"the stream holds no answer but {described(body)}", self.request, 200))
            return
        if isinstance(data, dict):
            self.read_data(data, self.tail)
            self.done = self.done or not self.marks_its_end
        else:
            self.fail(self.provider.bad_reply(f"the stream holds no answer but {described(body)}", self.request, 200))

    def _judge(self) -> None:
        """All has come: decide whether that is a whole answer; where it is not, set ``failure``."""
        for kind in ("reasoning", "text"):
            self.add(kind, self._halves[kind].close(), self.tail)
        if self.failure is not None:
            return
        if self.finish is None and not self.done:
            self.fail(self.interrupted())
        elif self.finish is None and not (self._pieces["text"] or self._pieces["reasoning"] or self.calls):
            self.fail(self.provider.bad_reply("the service answered in good order, but there is no answer in it", self.request, 200))

    # --- for the dialects --------------------------------------------------------------------------------------------

    def read_json(self, text: bytes, events: list[StreamEvent]) -> None:
        """Read one object from its JSON text. What is no object (a comment that a proxy wrapped as data) is passed over."""
        try:
            data = loads(text)
        except ValueError:
            if text.lstrip()[:1] == b"{":
                self._note_broken(text)
            return
        if type(data) is dict:
            if self._unread is None and not ("error" in data or "error_message" in data or "error_type" in data):
                self.read_object(data, events)  # nearly always: once per token
            else:
                self.read_data(data, events)

    def read_data(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """Read one object: an error, or whatever the dialect finds in it."""
        if self._unread is not None:
            self._unread = None
            if self._broken is not None:
                self._note_broken(self._broken)
                return
        if is_error(data):
            self.fail(self.provider.told_error(data, self.request.model))
        else:
            self.read_object(data, events)

    def _note_broken(self, text: bytes) -> None:
        """An unreadable object may have held text, so the answer has a hole; unless it is only the last one, cut by the end."""
        if self._unread is not None:
            self._broken = self._broken or text
        elif not self._closing:
            shown = text[:200].decode("utf-8", "replace")
            self.fail(self.provider.bad_reply(f"a part of the stream is not JSON: {shown!r}", self.request, 200))

    def fail(self, error: ProviderError) -> None:
        error.partial = self.text
        self.failure = error

    def interrupted(self) -> StreamInterrupted:
        text = self.text
        came = f"after {len(text)} characters" if text else "before its first character"
        return StreamInterrupted(
            f"{self.provider.name}: the stream broke off {came}, with no sign that the answer was complete",
            provider=self.provider.name,
            model=self.request.model,
            partial=text,
        )

    def add(self, kind: EventKind, piece: str, events: list[StreamEvent]) -> None:
        """Append a piece to a channel."""
        halves = self._halves[kind]
        if halves.waiting or not piece.isascii():
            piece = halves.mend(piece)
        if piece:
            self._pieces[kind].append(piece)
            events.append(StreamEvent(kind, piece))

    def whole(self, response: httpx.Response) -> Reply:
        """Read an answer that did not come as a stream."""
        data = read_json(self.provider, response, self.request.model)
        self.read_data(data, self.tail)
        self.done = self.done or not self.marks_its_end
        self._judge()
        if self.failure is not None:
            self.failure.request_id = self.failure.request_id or self.provider.request_id(response)
            raise self.failure
        return self.reply(self.provider.request_id(response))

    def reply(self, request_id: str | None = None) -> Reply:
        calls = self.calls.read()
        finish = self.finish or "unknown"
        return Reply(
            text=self.text,
            reasoning=self.reasoning,
            tool_calls=calls,
            finish_reason="tool_calls" if calls and finish in ("stop", "unknown") else finish,
            served_model=self.served_model,
            usage=self.usage,
            logprobs=tuple(self.logprobs) or None,
            request_id=request_id,
            cost_usd=self.cost_usd,
            reported=self.reported,
        )


class ToolCalls:
    """Tool calls put together from fragments.

    A fragment belongs to a call by its index and id together: some servers give every call the index 0, some give none, and some repeat
    the id or send an empty name with each fragment. A different id starts a new call, whatever the index says.
    """

    __slots__ = ("_calls", "_open")

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []
        self._open: dict[Any, dict[str, str]] = {}  # by index, which is whatever the server sends: a number, hopefully

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, fragment: Any) -> str:  # any JSON
        """Take a fragment; return the piece of arguments in it."""
        if not isinstance(fragment, dict):
            return ""
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        index, id_, name = fragment.get("index"), fragment.get("id"), function.get("name")
        call = self._call(index if isinstance(index, int) else None, id_ if isinstance(id_, str) else "")
        if isinstance(name, str):
            call["name"] = call["name"] or name
        piece = arguments_text(function.get("arguments"))
        call["arguments"] += piece
        return piece

    def _call(self, index: int | None, id_: str) -> dict[str, str]:
        if index is None and id_:
            index = next((at for at, call in self._open.items() if call["id"] == id_), None)
        found = self._open.get(index) if index is not None else (self._calls[-1] if self._calls and not id_ else None)
        if found is None or (id_ and found["id"] and found["id"] != id_):
            found = {"id": id_, "name": "", "arguments": ""}
            self._calls.append(found)
            self._open[len(self._calls) * -1 if index is None else index] = found
        found["id"] = found["id"] or id_
        return found

    def read(self) -> tuple[ToolCall, ...]:
        """Return the calls in the order in which they began."""
        return tuple(ToolCall(**{name: paired(text) for name, text in call.items()}) for call in self._calls)


def arguments_text(arguments: Any) -> str:  # any JSON
    """Arguments are JSON text; some servers send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def is_error(data: Mapping[str, Any]) -> bool:
    """Whether an object says that something went wrong: ``error``, or vLLM's ``error_message`` and ``error_type`` without it."""
    return bool(data.get("error") or data.get("error_message") or (data.get("error_type") and "choices" not in data))


def count(value: Any) -> int | None:  # any JSON
    """A number of tokens, or ``None`` where that is no such number."""
    found = number(value)
    return int(found) if found is not None and found >= 0 else None


def number(value: Any) -> float | None:  # any JSON
    """A finite number, or ``None`` where it is none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
    return float(value) if usable else None


def fields_of(value: Any) -> dict[str, Any]:  # any JSON
    """The object that a value is, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:  # any JSON
    """The objects of a list, or none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def words(value: Any) -> str:  # any JSON
    """The text of a ``content``: a string, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    texts = [part.get("text") for part in value if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def read_logprobs(entries: Any) -> list[TokenLogprob]:  # any JSON
    """Read ``[{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]``, which both dialects speak."""
    if not isinstance(entries, list):
        return []
    found = []
    for entry in entries:
        if token := read_token(entry):
            top = entry.get("top_logprobs")
            others = [read_token(other) for other in top] if isinstance(top, list) else []
            found.append(TokenLogprob(*token, tuple(other for other in others if other)))
    return found


def read_token(entry: Any) -> tuple[str, float] | None:  # any JSON
    if not isinstance(entry, dict):
        return None
    token, logprob = entry.get("token"), number(entry.get("logprob"))
    return (paired(token), logprob) if isinstance(token, str) and logprob is not None else None


def read_json(provider: Provider, response: httpx.Response, model: str | None = None) -> dict[str, Any]:
    """Read the JSON object that is the body of a response.

    Raises
    ------
    ReplyError
        If it is something else; the message says what came.
    """
    try:
        data = loads(response.content)
    except ValueError:
        data = None
    if isinstance(data, dict):
        return data
    kind = response.headers.get("content-type", "no content type")
    message = f"{provider.name} sent no JSON object but {described(response.content)} ({kind})"
    raise ReplyError(
        provider.scrub(message), provider=provider.name, model=model, status=response.status_code, request_id=provider.request_id(response)
    )


def described(body: bytes) -> str:
    """What a body is that is not what we asked for."""
    text = body[:20_000].decode("utf-8", "replace").strip()
    if not text:
        return "an empty body"
    if "<" in text[:200]:
        return f"a page: {message_of(text)!r}"
    return repr(text[:200])
