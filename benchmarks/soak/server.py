"""A chat service whose answer follows from the prompt, and which now and then does everything that a service can do wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable

from ..server import HEADERS, STREAM_HEAD, Service, frame, usage

STORM_EVERY_S, STORM_S = 60.0, 2.0  # the first one at the end of the first minute
FAULTS_PER_1000 = {
    "busy": 8,
    "broken": 8,
    "page with 200": 4,
    "page with 502": 6,
    "nonsense": 4,
    "drop": 8,
    "reset": 8,
    "cut": 10,
    "drip": 8,
    "hang": 3,
    "hang up afterwards": 10,
}
BUSY_IN_A_STORM = 300
DRIPS, DRIP_S = 30, 0.02

counts: Counter[str] = Counter()
draw = random.Random(20_261_130).random


def said(prompt: str) -> str:
    """What the service answers to a prompt, always."""
    return " ".join(hashlib.sha256(f"{prompt}/{i}".encode()).hexdigest()[:8] for i in range(24))


def response(status: str, kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n" % status.encode() + HEADERS % kind + more + b"content-length: %d\r\n\r\n" % len(body) + body


def whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "soak-1", "usage": usage(24), "choices": [choice]}
    return response("200 OK", b"application/json", json.dumps(body).encode())


def streamed(text: str) -> bytes:
    def piece(delta: dict[str, str], finish: str | None = None) -> bytes:
        return frame({"id": "c-1", "model": "soak-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    words = text.split(" ")
    pieces = [piece({"content": word if i == 0 else f" {word}"}) for i, word in enumerate(words)]
    return STREAM_HEAD + b"".join(pieces) + piece({}, "stop") + frame("[DONE]") + b"0\r\n\r\n"


def page(status: str) -> bytes:
    return response(status, b"text/html", b"<html><head><title>Upstream is asleep</title></head><body>zzz</body></html>")


def trouble(status: str, more: bytes = b"") -> bytes:
    return response(status, b"application/json", json.dumps({"error": {"message": "not now", "type": "server_error"}}).encode(), more)


class FaultyService(Service):
    """Answers after some milliseconds, in the way that ``drawn_fault`` says."""

    started = time.monotonic()

    def answer(self, path: list[str], body: bytes) -> None:
        if path == ["counts"]:
            self.transport.write(response("200 OK", b"application/json", json.dumps(counts).encode()))
            return
        if not body:
            self.transport.write(response("200 OK", b"application/json", b'{"object": "list", "data": []}'))
            return
        prompt = json.loads(body)["messages"][-1]["content"]
        good = streamed(said(prompt)) if b'"stream":true' in body or b'"stream": true' in body else whole(said(prompt))
        fault = drawn_fault(time.monotonic() - self.started)
        counts[fault] += 1
        asyncio.get_running_loop().call_later(0.002 + 0.02 * draw() ** 3, self.behaviours().get(fault, self.transport.write), good)

    def behaviours(self) -> dict[str, Callable[[bytes], None]]:
        write = self.transport.write
        return {
            "busy": lambda _: write(trouble("429 Too Many Requests", b"retry-after: 1\r\nretry-after-ms: 100\r\n")),
            "broken": lambda _: write(trouble("500 Internal Server Error")),
            "page with 200": lambda _: write(page("200 OK")),
            "page with 502": lambda _: write(page("502 Bad Gateway")),
            "nonsense": lambda _: write(response("200 OK", b"application/json", b'{"choices": [{"mess')),
            "drop": lambda _: self.transport.close(),
            "reset": lambda _: self.transport.abort(),
            "cut": self.cut,
            "drip": self.drip,
            "hang": lambda _: None,
            "hang up afterwards": self.hang_up,
        }

    def cut(self, good: bytes) -> None:
        self.transport.write(good[: len(good) * 2 // 3])
        self.transport.close()

    def hang_up(self, good: bytes) -> None:
        self.transport.write(good)
        self.transport.close()

    def drip(self, good: bytes) -> None:
        """Write an answer in many small pieces; the client may leave in between."""
        loop, size = asyncio.get_running_loop(), -(-len(good) // DRIPS)
        for i in range(DRIPS):
            loop.call_later(i * DRIP_S, self.write_while_open, good[i * size : (i + 1) * size])

    def write_while_open(self, piece: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(piece)


def drawn_fault(now_s: float) -> str:
    """Draw what goes wrong with an answer, ``good`` for nothing; in a storm most of it is that the service is busy."""
    number = draw() * 1000
    if now_s % STORM_EVERY_S >= STORM_EVERY_S - STORM_S and number < BUSY_IN_A_STORM:
        return "busy"
    for fault, per_1000 in FAULTS_PER_1000.items():
        if number < per_1000:
            return fault
        number -= per_1000
    return "good"
