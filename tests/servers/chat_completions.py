"""A chat-completions service: answers with given words, in a stream or whole, with faults on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .http import Answer, Request, Server, json_answer, sse

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


@dataclass
class ChatService:
    """A handler. ``fault`` may replace or change the good answer of a chat request; ``key`` is the one that is let in."""

    words: tuple[str, ...] = ("Blue", " gentian", "é😀")
    thoughts: tuple[str, ...] = ("Alpine?",)
    fault: Callable[[Request, Answer], Answer] = lambda _request, good: good
    key: str | None = None
    models: list[dict[str, Any]] | None = field(default_factory=lambda: [{"id": "demo-small", "object": "model", "context_length": 8192}])

    def __call__(self, request: Request) -> Answer:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return json_answer({"error": {"message": "Wrong key", "type": "invalid_request_error", "code": "invalid_api_key"}}, 401)
        if request.path == "/v1/models":
            return json_answer({"object": "list", "data": self.models})
        if request.path != "/v1/chat/completions":
            return json_answer({"error": {"message": f"no route {request.path}"}}, 404)
        if request.json["model"] == "nowhere":
            return json_answer({"error": {"message": "no model 'nowhere'", "type": "not_found_error", "code": "model_not_found"}}, 404)
        return self.fault(request, self.good(request))

    def good(self, request: Request) -> Answer:
        if not request.json.get("stream"):
            return json_answer(self.whole(), headers={"x-request-id": "req_1"})
        headers = {"content-type": "text/event-stream", "x-request-id": "req_1"}
        return Answer(200, headers, self.events(usage=bool(request.json.get("stream_options", {}).get("include_usage"))))

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.words), "reasoning": "".join(self.thoughts)}
        return envelope("chat.completion", [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]) | {"usage": USAGE}

    def events(self, *, usage: bool = True) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning": thought} for thought in self.thoughts]
        deltas += [{"content": word} for word in self.words]
        chunks = [chunk(delta) for delta in deltas] + [chunk({}, "stop")]
        if usage:
            chunks.append(envelope("chat.completion.chunk", []) | {"usage": USAGE})
        return [*(sse(each) for each in chunks), b"data: [DONE]\n\n"]

    def serve(self, **options: Any) -> Server:
        return Server(self, **options)


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return envelope("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}])


def envelope(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "cc-1", "object": kind, "created": 1790000000, "model": "demo-small-0711", "choices": choices}


def changed(**fields: Any) -> Callable[[Request, Answer], Answer]:
    """A fault that changes fields of the good answer."""
    return lambda _request, good: dataclasses.replace(good, **fields)


def error_event(message: str = "The worker lost its accelerator") -> bytes:
    return sse({"error": {"message": message, "type": "server_error", "param": None, "code": None}})
