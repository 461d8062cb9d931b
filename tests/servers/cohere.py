"""Cohere's v2 chat and its list of models; with faults on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .http import Answer, Request, Server, json_answer, sse

USAGE = {"billed_units": {"input_tokens": 11, "output_tokens": 3}, "tokens": {"input_tokens": 511, "output_tokens": 9}, "cached_tokens": 0}


@dataclass
class CohereService:
    """A handler. ``fault`` may replace or change the good answer of a chat request; ``page`` is the size of a page of models."""

    words: tuple[str, ...] = ("Blue", " gentian", "é😀")
    thoughts: tuple[str, ...] = ("Alpine?",)
    fault: Callable[[Request, Answer], Answer] = lambda _request, good: good
    key: str | None = None
    models: list[str] | None = field(default_factory=lambda: ["demo-small"])
    page: int = 1000

    def __call__(self, request: Request) -> Answer:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return json_answer({"id": "e-1", "message": "invalid api token"}, 401, TRACE)
        path, _, query = request.path.partition("?")
        if request.method == "GET" and path == "/v1/models":
            return self.list_models(dict(field.split("=") for field in query.split("&")))
        if (request.method, path) != ("POST", "/v2/chat"):
            return json_answer({"message": f"no route {path}"}, 404, TRACE)
        if request.json["model"] == "nowhere":
            return json_answer({"id": "e-2", "message": "model 'nowhere' not found"}, 404, TRACE)
        return self.fault(request, self.good(request))

    def list_models(self, query: dict[str, str]) -> Answer:
        start = int(query.get("page_token", "0"))
        end = start + min(self.page, int(query.get("page_size", "20")))
        names = self.models or []
        listed = [{"name": name, "endpoints": ["chat"], "context_length": 128000.0, "features": ["tools"]} for name in names[start:end]]
        return json_answer({"models": listed, "next_page_token": str(end) if end < len(names) else ""}, headers=TRACE)

    def good(self, request: Request) -> Answer:
        if not request.json.get("stream"):
            return json_answer(self.whole(), headers=TRACE)
        return Answer(200, {"content-type": "text/event-stream", **TRACE}, self.events())

    def whole(self) -> dict[str, Any]:
        content = [{"type": "thinking", "thinking": "".join(self.thoughts)}, {"type": "text", "text": "".join(self.words)}]
        return {"id": "c-1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": content}, "usage": USAGE}

    def events(self) -> list[bytes]:
        start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        events = [event("message-start", start, id="c-1")]
        for index, (kind, name, pieces) in enumerate([("thinking", "thinking", self.thoughts), ("text", "text", self.words)]):
            events.append(event("content-start", {"content": {"type": kind, name: ""}}, index=index))
            events += [event("content-delta", {"content": {name: piece}}, index=index) for piece in pieces]
            events.append(event("content-end", index=index))
        return [*events, end_event(), b"data: [DONE]\n\n"]

    def serve(self, **options: Any) -> Server:
        return Server(self, **options)


TRACE = {"x-debug-trace-id": "req_1"}


def event(kind: str, message: dict[str, Any] | None = None, **fields: Any) -> bytes:
    return sse({"type": kind, **fields} | ({"delta": {"message": message}} if message is not None else {}), event=kind)


def piece(text: str) -> bytes:
    return event("content-delta", {"content": {"text": text}}, index=0)


def end_event(reason: str = "COMPLETE", **fields: Any) -> bytes:
    return sse({"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE, **fields}}, event="message-end")
