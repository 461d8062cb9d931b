"""Gemini on Vertex AI, and Google's token service: with and without a project, with faults on demand."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .http import Answer, Request, Server, json_answer, sse

USAGE = {"promptTokenCount": 11, "candidatesTokenCount": 2, "thoughtsTokenCount": 1, "totalTokenCount": 14, "trafficType": "ON_DEMAND"}
ACTION = re.compile(r"/v1beta1/(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/([^:]+):(\w+)(\?alt=sse)?")


@dataclass
class VertexService:
    """A handler. ``fault`` may replace or change the good answer of a chat request; ``key`` is the API key that is let in.

    ``tokens``: the access tokens that the token service hands out, one after the other; the last one handed out is the one let in.
    """

    words: tuple[str, ...] = ("Blue", " gentian", "é😀")
    thoughts: tuple[str, ...] = ("Alpine?",)
    fault: Callable[[Request, Answer], Answer] = lambda _request, good: good
    key: str | None = None
    models: list[str] | None = field(default_factory=lambda: ["gemini-demo"])
    tokens: list[str] = field(default_factory=list)
    lifetime_s: int = 3600
    token: str | None = None

    def __call__(self, request: Request) -> Answer:
        if request.path == "/token":
            self.token = self.tokens.pop(0)
            return json_answer({"access_token": self.token, "expires_in": self.lifetime_s, "token_type": "Bearer"})
        if not self.lets_in(request):
            return failure(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if request.path.startswith("/v1beta1/publishers/google/models?"):
            return json_answer(self.listed(request.path))
        found = ACTION.fullmatch(request.path)
        if not found:
            return Answer(404, {"content-type": "text/html"}, [b"<html><title>Error 404 (Not Found)</title></html>"], framing="length")
        model, action, _ = found.groups()
        if action == "countTokens":
            return json_answer({"totalTokens": 1})
        if model == "nowhere":
            return failure(404, "NOT_FOUND", "Publisher model nowhere was not found")
        return self.fault(request, self.good(request))

    def lets_in(self, request: Request) -> bool:
        if self.token is not None:
            return request.headers.get("authorization") == f"Bearer {self.token}"
        return self.key is None or request.headers.get("x-goog-api-key") == self.key

    def listed(self, path: str) -> dict[str, Any]:
        """Two models a page at most."""
        start = int(path.partition("pageToken=")[2] or 0)
        page = (self.models or [])[start : start + 2]
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(self.models or []) else {}
        return ({"publisherModels": [{"name": f"publishers/google/models/{name}"} for name in page]} if page else {}) | more

    def good(self, request: Request) -> Answer:
        if "streamGenerateContent" in request.path:
            return Answer(200, {"content-type": "text/event-stream"}, self.events())
        parts = [{"text": "".join(self.thoughts), "thought": True}, {"text": "".join(self.words)}]
        return json_answer(chunk(parts, "STOP") | {"usageMetadata": USAGE})

    def events(self) -> list[bytes]:
        chunks = [chunk([{"text": thought, "thought": True}]) for thought in self.thoughts]
        chunks += [chunk([{"text": word}]) for word in self.words]
        chunks += [chunk([{"text": "", "thoughtSignature": "c2ln"}], "STOP") | {"usageMetadata": USAGE}]
        return [sse(each) for each in chunks]

    def serve(self, **options: Any) -> Server:
        return Server(self, **options)


def chunk(parts: list[dict[str, Any]], finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": parts}} | ({"finishReason": finish} if finish else {})
    return {"candidates": [candidate], "usageMetadata": {"trafficType": "ON_DEMAND"}, "modelVersion": "gemini-demo-001", "responseId": "r1"}


def failure(code: int, status: str, message: str) -> Answer:
    return json_answer({"error": {"code": code, "message": message, "status": status}}, code)


def unstreamed(request: Request) -> Request:
    """The same request, as if no stream had been asked for."""
    return dataclasses.replace(request, path=request.path.replace(":streamGenerateContent?alt=sse", ":generateContent"))


def write_service_account(path: Path, token_url: str) -> Path:
    """Write the file of a service account with a new key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(*form)
    account = {"type": "service_account", "client_email": "demo@demo-proj.iam.gserviceaccount.com", "token_uri": token_url}
    path.write_text(json.dumps({**account, "private_key_id": "k1", "private_key": key.decode(), "project_id": "demo-proj"}))
    return path
