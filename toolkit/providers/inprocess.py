"""A chat-completions server inside the process: what the embedded and the scripted provider have in common.

It answers ``POST /chat/completions`` and ``GET /models`` in the format of the wire, so streams, retries, timing and both drivers
treat it as they treat any service. An answer is a generator of small steps, and the whole exchange is one too; a blocking and
an asynchronous loop carry the steps out, so nothing is written twice.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import httpx

from ..types import NO_USAGE, TokenLogprob, ToolCall, Usage

__all__ = ["Answering", "Ending", "InProcess", "Pause", "Piece", "Service", "StatusError", "Work", "last_user_text", "message_text"]

Body = dict[str, Any]  # JSON of a request
T = TypeVar("T")

encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Made once, for ``json.dumps`` makes one each time. Plain ASCII: a lone surrogate in somebody's prompt stays what it is."""

DONE = b"data: [DONE]\n\n"
JSON_TYPE = (b"content-type", b"application/json")
STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")


class Piece(NamedTuple):
    """The next bit of an answer: one chunk of a stream."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class Pause(NamedTuple):
    """Wait; zero seconds let an event loop turn to its other tasks."""

    seconds: float


class Work(NamedTuple):
    """A function that takes long: the event loop has a thread do it. Its result comes back at the yield."""

    function: Callable[[], Any]  # whatever the service asks for


class Ending(NamedTuple):
    """How an answer ended, and what it took."""

    finish_reason: str = "stop"
    usage: Usage = NO_USAGE


Chore = Pause | Work
Answering = Generator[Piece | Chore, Any, Ending]  # what is sent in is the result of a Work
Frames = Generator[bytes | Chore, Any, None]


class StatusError(Exception):
    """The server's own refusal or failure: a status before the first piece of an answer, an error event after it."""

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


class Service(Protocol):
    """What differs between servers: which models there are, and what they say."""

    name: str

    def models(self) -> list[str]: ...

    def answer(self, body: Body) -> Answering: ...


class InProcess(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The server as a transport of httpx, for both drivers.

    Parameters
    ----------
    service : Service
        Who answers.
    sleep, async_sleep : callable
        How to wait a number of seconds.
    """

    def __init__(
        self,
        service: Service,
        *,
        sleep: Callable[[float], object] = time.sleep,
        async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.service = service
        self.sleep = sleep
        self.async_sleep = async_sleep

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        exchange = respond(self.service, request, lambda first, frames: BlockingStream(self, first, frames))
        result = None
        while True:
            try:
                chore = exchange.send(result)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response
            result = self.carry_out(chore)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        exchange = respond(self.service, request, lambda first, frames: LoopStream(self, first, frames))
        result = None
        while True:
            try:
                chore = exchange.send(result)
            except StopIteration as end:
                response: httpx.Response = end.value
                return response
            result = await self.carry_out_async(chore)

    def carry_out(self, chore: Chore) -> Any:  # the result of a Work
        if isinstance(chore, Work):
            return chore.function()
        if chore.seconds:
            self.sleep(chore.seconds)
        return None

    async def carry_out_async(self, chore: Chore) -> Any:  # the result of a Work
        if isinstance(chore, Work):
            return await asyncio.to_thread(chore.function)
        await (self.async_sleep(chore.seconds) if chore.seconds else asyncio.sleep(0))
        return None


class BlockingStream(httpx.SyncByteStream):
    """The frames of one answer, each made when somebody reads it."""

    def __init__(self, server: InProcess, first: bytes, frames: Frames) -> None:
        self.server = server
        self.first = first
        self.frames = frames

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        result = None
        while True:
            try:
                step = self.frames.send(result)
            except StopIteration:
                return
            if isinstance(step, bytes):
                yield step
                result = None
            else:
                result = self.server.carry_out(step)

    def close(self) -> None:
        self.frames.close()


class LoopStream(httpx.AsyncByteStream):
    """The same for an event loop."""

    def __init__(self, server: InProcess, first: bytes, frames: Frames) -> None:
        self.server = server
        self.first = first
        self.frames = frames

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.first
        result = None
        while True:
            try:
                step = self.frames.send(result)
            except StopIteration:
                return
            if isinstance(step, bytes):
                yield step
                result = None
            else:
                result = await self.server.carry_out_async(step)

    async def aclose(self) -> None:
        self.frames.close()


AnyStream = BlockingStream | LoopStream


# --- one exchange --------------------------------------------------------------------------------------------------------


def respond(
    service: Service, request: httpx.Request, stream: Callable[[bytes, Frames], AnyStream]
) -> Generator[Chore, Any, httpx.Response]:
    """Answer one request; a refusal becomes a response too."""
    call_id = f"{service.name}-{secrets.token_hex(8)}"
    headers = [JSON_TYPE, (b"x-request-id", call_id.encode())]
    try:
        if request.method == "GET" and request.url.path.endswith("/models"):
            return httpx.Response(200, headers=headers, content=encoded(model_list(service)))
        if request.method != "POST" or not request.url.path.endswith("/chat/completions"):
            raise StatusError(404, f"there is no {request.method} {request.url.path} here")
        body = read_body(request.content)
        if not body.get("stream"):
            answer = yield from whole(service.answer(body), call_id, body["model"])
            return httpx.Response(200, headers=headers, content=encoded(answer))
        frames = framed(service.answer(body), Envelope(call_id, body))
        first = yield from first_frame(frames)
    except StatusError as error:
        headers += retry_headers(error.retry_after_s)
        return httpx.Response(error.status, headers=headers, content=encoded(error_body(error)))
    headers[0] = STREAM_TYPE
    return httpx.Response(200, headers=headers, stream=stream(first, frames))


def read_body(content: bytes) -> Body:
    """Check what every service needs: an object that names a model and holds messages."""
    try:
        body = json.loads(content)
    except ValueError as error:
        raise StatusError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise StatusError(400, "the body must be a JSON object")
    if not isinstance(body.get("model"), str):
        raise StatusError(400, "model must be a string")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise StatusError(400, "messages must be a list of at least one object")
    return body


def whole(answering: Answering, call_id: str, model: str) -> Generator[Chore, Any, Body]:
    """The answer in one piece."""
    pieces: list[Piece] = []
    result = None
    while True:
        try:
            step = answering.send(result)
        except StopIteration as end:
            return completion(pieces, end.value, call_id, model)
        result = None
        if isinstance(step, Piece):
            pieces.append(step)
        else:
            result = yield step


def framed(answering: Answering, envelope: Envelope) -> Frames:
    """The answer as server-sent events. Nothing is sent before the first piece, so that a failure until then has a status."""
    begun = False
    result = None
    try:
        while True:
            step = answering.send(result)
            result = None
            if not isinstance(step, Piece):
                result = yield step
                continue
            if not begun:
                begun = True
                yield envelope.chunk({"role": "assistant", "content": ""})
            yield envelope.piece(step)
    except StopIteration as end:
        ending: Ending = end.value
        if not begun:
            yield envelope.chunk({"role": "assistant", "content": ""})
        yield from envelope.ending(ending)
    except StatusError as error:
        if not begun:
            raise
        yield b"data: " + encoded(error_body(error)) + b"\n\n"


def first_frame(frames: Frames) -> Generator[Chore, Any, bytes]:
    """Run up to the first frame: what fails before it fails with a status."""
    step = next(frames)
    while not isinstance(step, bytes):
        result = yield step
        step = frames.send(result)
    return step


# --- JSON ----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Envelope:
    """What surrounds each piece of one stream; written once, for a chunk is made per token."""

    call_id: str
    body: Body
    before: bytes = field(init=False)
    after: bytes = field(init=False)
    wants_usage: bool = field(init=False)

    def __post_init__(self) -> None:
        options = self.body.get("stream_options")
        self.wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        fields = {"id": self.call_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": self.body["model"]}
        self.before = b"data: " + encoded(fields)[:-1]
        self.after = b',"usage":null}\n\n' if self.wants_usage else b"}\n\n"

    def chunk(self, delta: Body, logprobs: Body | None = None, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return b'%b,"choices":[%b]%b' % (self.before, encoded(choice), self.after)

    def piece(self, piece: Piece) -> bytes:
        if piece.reasoning or piece.tool_calls or piece.logprobs:
            return self.chunk(delta_of(piece), logprobs_json(piece.logprobs) if piece.logprobs else None)
        text = encode_json(piece.text).encode()
        return b'%b,"choices":[{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]%b' % (
            self.before,
            text,
            self.after,
        )

    def ending(self, ending: Ending) -> Iterator[bytes]:
        yield self.chunk({}, finish_reason=ending.finish_reason)
        if self.wants_usage:
            yield b'%b,"choices":[],"usage":%b}\n\n' % (self.before, encoded(usage_json(ending.usage)))
        yield DONE


def completion(pieces: list[Piece], ending: Ending, call_id: str, model: str) -> Body:
    message: Body = {"role": "assistant", "content": "".join([piece.text for piece in pieces])}
    if reasoning := "".join([piece.reasoning for piece in pieces]):
        message["reasoning"] = reasoning
    if calls := [call for piece in pieces for call in piece.tool_calls]:
        message["tool_calls"] = [tool_call_json(call) for call in calls]
    logprobs = [token for piece in pieces for token in piece.logprobs]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs_json(logprobs) if logprobs else None,
        "finish_reason": ending.finish_reason,
    }
    return {
        "id": call_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage_json(ending.usage),
    }


def delta_of(piece: Piece) -> Body:
    delta: Body = {}
    if piece.text:
        delta["content"] = piece.text
    if piece.reasoning:
        delta["reasoning"] = piece.reasoning
    if piece.tool_calls:
        delta["tool_calls"] = [{"index": index, **tool_call_json(call)} for index, call in enumerate(piece.tool_calls)]
    return delta


def tool_call_json(call: ToolCall) -> Body:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def logprobs_json(tokens: list[TokenLogprob] | tuple[TokenLogprob, ...]) -> Body:
    content = [
        {**token_json(token, logprob), "top_logprobs": [token_json(other, value) for other, value in top]} for token, logprob, top in tokens
    ]
    return {"content": content}


def token_json(token: str, logprob: float) -> Body:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}


def usage_json(usage: Usage) -> Body | None:
    """``None`` where nothing was counted; details only where they are known."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    found: Body = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": (usage.input_tokens or 0) + (usage.output_tokens or 0),
    }
    if usage.cached_input_tokens is not None:
        found["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return found


def model_list(service: Service) -> Body:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": service.name} for name in service.models()],
    }


def error_body(error: StatusError) -> Body:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.status}}


def retry_headers(seconds: float | None) -> list[tuple[bytes, bytes]]:
    """The standard header counts whole seconds; the other is exact."""
    if seconds is None:
        return []
    return [(b"retry-after", b"%d" % math.ceil(seconds)), (b"retry-after-ms", b"%d" % round(seconds * 1000))]


def encoded(value: Any) -> bytes:  # any JSON
    return encode_json(value).encode()


# --- reading messages ----------------------------------------------------------------------------------------------------


def message_text(message: Mapping[str, Any]) -> str:
    """The words of a message: its content, or the text parts of it."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join([str(part.get("text", "")) for part in content if isinstance(part, dict) and part.get("type") == "text"])
    return content if isinstance(content, str) else ""


def last_user_text(body: Body) -> str:
    """What the user said last; of a chat without a user, the last message."""
    messages = body["messages"]
    return message_text(next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1]))
