"""LM Studio 0.4: chat completions, the native API with models that are loaded, unloaded and downloaded; unknown routes with status 200."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .chat_completions import ChatService
from .http import Answer, Request, json_answer, sse

STATS = {
    "input_tokens": 11,
    "total_output_tokens": 3,
    "reasoning_output_tokens": 1,
    "tokens_per_second": 41.2,
    "time_to_first_token_seconds": 0.38,
    "model_load_time_seconds": 3.5,
}


@dataclass
class LMStudioService(ChatService):
    """``windows``: the context of each loaded instance of the one model. ``jobs``: what a download tells, look by look. ``age``: the oldest API."""

    windows: list[int] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    age: str = "/api/v1"

    def __call__(self, request: Request) -> Answer:
        if request.path.startswith("/v1/") or (self.key and request.headers.get("authorization") != f"Bearer {self.key}"):
            return super().__call__(request)
        routes = {
            "GET /api/v1/models": self.list_native,
            "GET /api/v0/models": self.list_beta,
            "POST /api/v1/chat": self.chat,
            "POST /api/v1/models/load": self.load,
            "POST /api/v1/models/unload": self.unload,
            "POST /api/v1/models/download": self.download,
            "GET /api/v1/models/download/status/job-1": self.download,
        }
        name = f"{request.method} {request.path}"
        if name not in routes or request.path[:7] > self.age:
            return json_answer({"error": f"Unexpected endpoint or method. ({name})"})
        return self.fault(request, routes[name](request))

    def list_native(self, _request: Request) -> Answer:
        instances = [{"id": self.instance(at), "config": {"context_length": window}} for at, window in enumerate(self.windows)]
        model = {"type": "llm", "key": "demo-small", "size_bytes": 700, "max_context_length": 131_072, "loaded_instances": instances}
        return json_answer({"models": [model]})

    def list_beta(self, _request: Request) -> Answer:
        state = {"state": "loaded", "loaded_context_length": self.windows[0]} if self.windows else {"state": "not-loaded"}
        return json_answer({"object": "list", "data": [{"id": "demo-small", "max_context_length": 131_072, **state}]})

    def instance(self, at: int) -> str:
        return "demo-small" if at == 0 else f"demo-small:{at + 1}"

    def load(self, request: Request) -> Answer:
        self.windows.append(request.json.get("context_length", 4096))
        name = self.instance(len(self.windows) - 1)
        return json_answer({"type": "llm", "instance_id": name, "load_time_seconds": 3.5, "status": "loaded"})

    def unload(self, request: Request) -> Answer:
        """Refused with ``model`` in place of ``instance_id``, as by the real one."""
        if "instance_id" not in request.json:
            return json_answer({"error": {"type": "invalid_request", "message": "instance_id is required"}}, 400)
        self.windows.pop()
        return json_answer({"instance_id": request.json["instance_id"]})

    def download(self, _request: Request) -> Answer:
        return json_answer(self.jobs.pop(0))

    def chat(self, request: Request) -> Answer:
        if not request.json.get("stream"):
            return json_answer(self.result())
        events = ["chat.start", "model_load.end", "prompt_processing.end"]
        begin = [{"type": kind, "load_time_seconds": 3.5} for kind in events]
        thoughts = [{"type": "reasoning.delta", "content": thought} for thought in self.thoughts]
        answer = [{"type": "message.delta", "content": word} for word in self.words]
        end = [{"type": "chat.end", "result": self.result()}]
        return Answer(
            200, {"content-type": "text/event-stream"}, [sse(event, event["type"]) for event in [*begin, *thoughts, *answer, *end]]
        )

    def result(self) -> dict[str, Any]:
        output = [{"type": "reasoning", "content": "".join(self.thoughts)}, {"type": "message", "content": "".join(self.words)}]
        return {"model_instance_id": "demo-small", "output": output, "stats": STATS}
