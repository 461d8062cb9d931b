"""Sentry's intake: takes envelopes, and says what was in them."""

from __future__ import annotations

import gzip
import json
from typing import Any

from .http import Answer, Request, Server, json_answer

PUBLIC_KEY = "0123456789abcdef0123456789abcdef"


class SentryService:
    """A handler. ``events`` are the events received; ``answer`` is what each envelope is answered with."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or json_answer({"id": "0" * 32})
        self.bodies: list[bytes] = []

    def __call__(self, request: Request) -> Answer:
        assert request.path == "/api/42/envelope/", request.path
        assert PUBLIC_KEY in request.headers["x-sentry-auth"]
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        self.bodies.append(body)
        return self.answer

    @property
    def events(self) -> list[dict[str, Any]]:
        return [item for body in self.bodies for kind, item in items_of(body) if kind == "event"]

    def dsn(self, server: Server) -> str:
        return server.url.replace("http://", f"http://{PUBLIC_KEY}@") + "/42"


def items_of(envelope: bytes) -> list[tuple[str, Any]]:
    """The items of an envelope: lines of header and content by turns, after a line of the envelope's own."""
    found, rest = [], envelope.split(b"\n", 1)[1]
    while rest.strip():
        header, rest = rest.split(b"\n", 1)
        facts = json.loads(header)
        size = facts.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        found.append((facts["type"], json.loads(rest[:size])))
        rest = rest[size:].lstrip(b"\n")
    return found
