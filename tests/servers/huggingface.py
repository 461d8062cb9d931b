"""Hugging Face: the router's chat and the routes of several inference providers to pictures, and the Hub's mapping; with faults on demand.

``GET /cdn/...`` is the storage of somebody else: whoever shows it a token has leaked it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from . import openrouter
from .chat_completions import ChatService
from .http import Answer, Request, json_answer

PNG = openrouter.PNG
JPEG = bytes.fromhex("ffd8ffe000104a464946")
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "


def offer(theirs: str, task: str = "text-to-image", status: str = "live") -> dict[str, str]:
    return {"status": status, "providerId": theirs, "task": task}


MAPPING = {
    "somebody-new": offer("painter"),
    "groq": offer("painter-chat", task="conversational"),
    "together": offer("acme/painter-v1", status="staging"),
    "fal-ai": offer("acme/painter-fal"),
    "hf-inference": offer("acme/painter"),
    "nscale": offer("acme/painter-n"),
    "replicate": offer("acme/painter-r"),
    "wavespeed": offer("acme/painter-w"),
    "zai-org": offer("painter-z"),
}


@dataclass
class HuggingFaceService(ChatService):
    """``polls``: how often a job is not done yet; ``fails``: whether it ends badly."""

    mapping: Any = field(default_factory=lambda: dict(MAPPING))
    polls: int = 2
    fails: bool = False
    image: bytes = PNG
    seen: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        self.seen.append(request)
        origin = f"http://{request.headers['host']}"
        if request.path.startswith("/cdn/"):
            return Answer(200, {"content-type": "image/jpeg"}, [JPEG], framing="length")
        if request.path.startswith("/v1/"):
            return super().__call__(request)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return json_answer({"error": "Invalid username or password."}, 401)
        if request.path == "/api/whoami-v2":
            return json_answer({"type": "user", "name": "lena"})
        if request.path.startswith("/api/models/"):
            return json_answer({"id": "acme/painter", "inferenceProviderMapping": self.mapping})
        return self.fault(request, self.draw(request, origin))

    def draw(self, request: Request, origin: str) -> Answer:
        encoded = {"data": [{"b64_json": base64.b64encode(WEBP).decode()}]}
        routes: dict[tuple[str, str], Any] = {
            ("POST", "/hf-inference/models/acme/painter"): None,
            ("POST", "/together/v1/images/generations"): encoded,
            ("POST", "/nscale/v1/images/generations"): encoded,
            ("POST", "/fal-ai/acme/painter-fal"): {"images": [{"url": f"{origin}/cdn/fal.jpg"}]},
            ("POST", "/replicate/v1/models/acme/painter-r/predictions"): {"status": "succeeded", "output": [f"{origin}/cdn/r.jpg"]},
            ("POST", "/wavespeed/api/v3/acme/painter-w"): {"data": {"urls": {"get": "https://api.wavespeed.example/api/v3/job/7"}}},
            ("GET", "/wavespeed/api/v3/job/7"): {"data": self.wavespeed_job(origin)},
            ("POST", "/zai-org/api/paas/v4/async/images/generations"): {"id": "job9", "task_status": "PROCESSING"},
            ("GET", "/zai-org/api/paas/v4/async-result/job9"): self.zai_job(origin),
        }
        if (request.method, request.path) not in routes:
            return json_answer({"error": f"no route {request.path}"}, 404)
        answer = routes[request.method, request.path]
        if answer is None:
            return Answer(200, {"content-type": "image/png"}, [self.image], framing="length")
        self.polls -= request.method == "GET"
        return json_answer(answer)

    def wavespeed_job(self, origin: str) -> dict[str, Any]:
        if self.polls > 0:
            return {"status": "processing", "outputs": []}
        return {"status": "failed", "error": "out of paint"} if self.fails else {"status": "completed", "outputs": [f"{origin}/cdn/w.jpg"]}

    def zai_job(self, origin: str) -> dict[str, Any]:
        if self.polls > 0:
            return {"task_status": "PROCESSING"}
        done = {"task_status": "SUCCESS", "image_result": [{"url": f"{origin}/cdn/z.jpg"}]}
        return {"task_status": "FAIL", "error": {"message": "out of paint"}} if self.fails else done
