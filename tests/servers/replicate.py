"""Replicate: jobs, their streams and their files, the last two on another port; with faults on demand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .http import Answer, Request, Server, json_answer

METRICS = {"input_token_count": 11, "output_token_count": 3, "predict_time": 0.775, "total_time": 1.297, "time_to_first_token": 0.31}
INPUTS = {
    **{name: {"type": "string"} for name in ("prompt", "system_prompt", "stop_sequences", "image")},
    **{name: {"type": "number"} for name in ("temperature", "top_p", "top_k")},
    **{name: {"type": "integer"} for name in ("max_new_tokens", "seed", "width", "height", "num_outputs")},
}
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class ReplicateService:
    """A handler. ``fault`` may replace or change the good answer of what a caller waits for: the stream, or the job that it is created for.

    ``polls``: the states of a job that is asked for, before its end.
    """

    words: tuple[str, ...] = ("Blue", " gentian", "é😀")
    fault: Callable[[Request, Answer], Answer] = lambda _request, good: good
    key: str | None = None
    models: list[str] = field(default_factory=lambda: ["acme/alpine"])
    inputs: dict[str, Any] = field(default_factory=lambda: dict(INPUTS))
    official: bool = True
    streams: bool = True
    output: Any = None
    polls: tuple[str, ...] = ()
    cancelled: list[str] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    files: Server | None = None

    def __call__(self, request: Request) -> Answer:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return json_answer({"title": "Unauthenticated", "detail": "You did not pass a valid token", "status": 401}, 401)
        path = request.path.removeprefix("/v1")
        if request.method == "POST" and path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[2])
            return json_answer(self.job("canceled"))
        if request.method == "POST" and path.endswith("/predictions"):
            return self.create(request, path)
        routes = {
            "/account": {"type": "user", "username": "demo"},
            "/collections/official": {"slug": "official", "models": [self.model(name) for name in self.models]},
            **{f"/models/{name}": self.model(name) for name in self.models},
            **{f"/models/{name}/versions/v1": self.version() for name in self.models},
        }
        if path in routes:
            return json_answer(routes[path])
        if path == "/predictions/job1":
            state, self.polls = (self.polls[0], self.polls[1:]) if self.polls else ("succeeded", ())
            return json_answer(self.job(state))
        return json_answer({"detail": "The requested resource could not be found.", "status": 404}, 404)

    def create(self, request: Request, path: str) -> Answer:
        self.asked = request.json
        model = path.removeprefix("/models/").removesuffix("/predictions")
        if model not in self.models and not (path == "/predictions" and request.json["version"] == "v1"):
            return json_answer({"detail": "The requested resource could not be found.", "status": 404}, 404)
        good = self.good(request)
        return self.fault(request, good) if "prefer" in request.headers else good

    def good(self, request: Request) -> Answer:
        if "prefer" in request.headers and not self.polls:
            return json_answer(self.job("succeeded"), 201)
        if "prefer" in request.headers:
            return json_answer(self.job("processing"), 201)
        return json_answer(self.job("starting"), 201)

    def job(self, status: str) -> dict[str, Any]:
        assert self.files is not None
        stream = {"stream": f"{self.files.url}/stream"} if self.streams else {}
        job = {"id": "job1", "model": "acme/alpine", "version": "hidden", "status": status, "error": None, "output": None}
        job |= {"created_at": "2026-11-20T09:15:02.118Z", "input": {}, "logs": "", "urls": {"get": "https://elsewhere.example/", **stream}}
        if status == "succeeded":
            output = list(self.words) if self.output is None else self.output
            job |= {"output": output, "metrics": METRICS, "started_at": "2026-11-20T09:15:02.618Z"}
        return job

    def model(self, name: str) -> dict[str, Any]:
        owner, _, short = name.partition("/")
        model = {"owner": owner, "name": short, "url": f"https://replicate.com/{name}", "visibility": "public", "run_count": 7}
        return model | {"is_official": self.official, "latest_version": self.version()}

    def version(self) -> dict[str, Any]:
        facts = {"id": "v1", "created_at": "2024-04-17T21:44:58.480Z", "cog_version": "0.9.4"}
        return facts | {"openapi_schema": {"components": {"schemas": {"Input": {"type": "object", "properties": self.inputs}}}}}

    def serve_file(self, request: Request) -> Answer:
        """What is on the other port."""
        if request.path == "/stream":
            good = Answer(200, {"content-type": "text/event-stream"}, [*map(piece, self.words), DONE])
            return self.fault(request, good)
        if request.path == "/out-0.png":
            return Answer(200, {"content-type": "image/png"}, [PNG], framing="length")
        return Answer(404, {}, [b"gone"], framing="length")

    def serve(self, **options: Any) -> Server:
        return ReplicateServer(self, **options)


class ReplicateServer(Server):
    """The API; ``handler.files`` serves streams and files."""

    handler: ReplicateService

    def __init__(self, handler: ReplicateService, **options: Any) -> None:
        handler.files = self.files = Server(handler.serve_file, **options)
        super().__init__(handler, **options)

    def __exit__(self, *error: object) -> None:
        self.files.__exit__(*error)
        super().__exit__(*error)


def event(name: str, data: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\nid: 1795166102:0\n{lines}\n".encode()


def piece(text: str) -> bytes:
    return event("output", text)


DONE = event("done", "{}")


def failed_event(message: str = "It broke") -> bytes:
    return event("error", json.dumps({"detail": message}))


def unstreamed(request: Request) -> Request:
    """The same request, as if no stream had been asked for."""
    return dataclasses.replace(request, headers=request.headers | {"prefer": "wait"})
