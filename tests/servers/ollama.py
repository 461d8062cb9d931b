"""An Ollama server: native chat, models, downloads; with faults on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .http import Answer, Request, Server, json_answer, nd

END = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 1820345000,
    "load_duration": 1203000000,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 91000000,
    "eval_count": 3,
    "eval_duration": 60000000,
}


@dataclass
class OllamaService:
    """A handler. ``fault`` may replace or change the good answer of a chat request."""

    words: tuple[str, ...] = ("Blue", " gentian", "é😀")
    thoughts: tuple[str, ...] = ("Alpine?",)
    fault: Callable[[Request, Answer], Answer] = lambda _request, good: good
    key: str | None = None
    models: dict[str, int] = field(default_factory=lambda: {"alpine:4b": 3_300_000_000})
    loaded: dict[str, int] = field(default_factory=dict)  # names to contexts
    old: bool = False  # before it could tell what is loaded

    def __call__(self, request: Request) -> Answer:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return json_answer({"error": "unauthorized", "signin_url": "https://ollama.example/signin"}, 401)
        routes = {
            ("POST", "/api/chat"): self.chat,
            ("POST", "/api/pull"): self.pull,
            ("DELETE", "/api/delete"): self.delete,
            ("GET", "/api/tags"): self.tags,
            ("GET", "/api/ps"): self.running,
            ("POST", "/api/show"): self.show,
            ("GET", "/api/version"): lambda _request: json_answer({"version": "0.33.0"}),
        }
        route = None if self.old and request.path == "/api/ps" else routes.get((request.method, request.path))
        return route(request) if route else Answer(404, {"content-type": "text/plain"}, [b"404 page not found"], framing="length")

    def chat(self, request: Request) -> Answer:
        if request.json["model"] not in self.models:
            return json_answer({"error": f"model '{request.json['model']}' not found"}, 404)
        if not request.json["messages"]:
            return self.load(request)
        return self.fault(request, self.good(request))

    def good(self, request: Request) -> Answer:
        model = request.json["model"]
        if request.json.get("stream", True):  # the opposite of OpenAI's default
            return Answer(200, {"content-type": "application/x-ndjson"}, self.lines(model))
        message = {"role": "assistant", "content": "".join(self.words), "thinking": "".join(self.thoughts)}
        return json_answer({**line(model, message), **END})

    def lines(self, model: str) -> list[bytes]:
        messages = [{"role": "assistant", "content": "", "thinking": thought} for thought in self.thoughts]
        messages += [{"role": "assistant", "content": word} for word in self.words]
        end = {**line(model, {"role": "assistant", "content": ""}), **END}
        return [*(nd(line(model, message)) for message in messages), nd(end)]

    def load(self, request: Request) -> Answer:
        name = request.json["model"]
        if request.json.get("keep_alive") == 0:
            self.loaded.pop(name, None)
            return json_answer({**line(name, {"role": "assistant", "content": ""}), "done": True, "done_reason": "unload"})
        self.loaded[name] = request.json.get("options", {}).get("num_ctx", 4096)
        end = {"done": True, "done_reason": "load", "load_duration": 1203000000}
        return json_answer({**line(name, {"role": "assistant", "content": ""}), **end})

    def running(self, _request: Request) -> Answer:
        return json_answer({"models": [{"name": name, "model": name, "context_length": size} for name, size in self.loaded.items()]})

    def show(self, request: Request) -> Answer:
        if request.json["model"] not in self.models:
            return json_answer({"error": f"model '{request.json['model']}' not found"}, 404)
        facts = {"general.architecture": "alpine", "alpine.context_length": 131_072}
        return json_answer({"details": {"family": "alpine"}, "model_info": facts, "capabilities": ["completion", "tools"]})

    def tags(self, _request: Request) -> Answer:
        listed = [{"name": name, "model": name, "size": size, "details": {"families": None}} for name, size in self.models.items()]
        return json_answer({"models": listed})

    def pull(self, request: Request) -> Answer:
        name = request.json["model"]
        if name.startswith("no/"):
            lines: list[dict[str, Any]] = [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
        else:
            self.models[name] = 1200
            lines = [
                {"status": "pulling manifest"},
                {"status": "pulling 1a2b", "digest": "sha256:1a2b", "total": 1000, "completed": 600},
                {"status": "pulling 9f8e", "digest": "sha256:9f8e", "total": 200, "completed": 200},
                {"status": "pulling 1a2b", "digest": "sha256:1a2b", "total": 1000, "completed": 550},
                {"status": "pulling 1a2b", "digest": "sha256:1a2b", "total": 1000, "completed": 1000},
                {"status": "success"},
            ]
        return Answer(200, {"content-type": "application/x-ndjson"}, [nd(each) for each in lines])

    def delete(self, request: Request) -> Answer:
        name = request.json["model"]
        if self.models.pop(name, None) is None:
            return json_answer({"error": f"model '{name}' not found"}, 404)
        return Answer(200, {}, [], framing="length")

    def serve(self, **options: Any) -> Server:
        return Server(self, **options)


def line(model: str, message: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "created_at": "2026-11-20T09:00:00.123456789Z", "message": message, "done": False}
