"""A loopback server in its own process: pre-made bytes over a bare asyncio protocol, headers as hosted services send them.

What it answers is decided by the path: ``/v1/chat/completions`` (50 tokens, plain or streamed as asked), ``/stream/N/v1/...`` (N tokens),
``/paced/N/US/v1/...`` (N tokens, one each US microseconds, one stream at a time), ``/delay/MS/v1/...`` (after MS milliseconds),
``/lognormal/MS/v1/...`` (log-normal around MS, drawn from the model and the first word of the prompt: see ``drawn_delay_s``).
``/stamped/WAIT_MS/N/US/v1/...`` or ``.../api/chat`` (after a wait N tokens, one each US microseconds, each the moment it was sent at; the
first has the moment of the request before it; not streamed both moments at once).
``/api/chat`` answers as Ollama does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import socket
import time
from collections.abc import Iterator
from functools import cache

HEADERS = (
    b"content-type: %s\r\nserver: loopback\r\ndate: Mon, 23 Nov 2026 00:00:00 GMT\r\nx-request-id: req_0123456789abcdef\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\n"
    b"cache-control: no-cache\r\nvary: origin\r\nstrict-transport-security: max-age=31536000\r\nopenai-processing-ms: 12\r\n"
)
WORDS = ("the", " quick", " brown", " fox", " jumps", " over", " a", " lazy", " dog", ".")


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}


@cache
def whole(tokens: int) -> bytes:
    text = "".join(WORDS[i % len(WORDS)] for i in range(tokens))
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": "bench", "usage": usage(tokens),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}],
    }  # fmt: skip
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\n" + HEADERS % b"application/json" + b"content-length: %d\r\n\r\n" % len(data) + data


@cache
def whole_ollama(tokens: int) -> bytes:
    text = "".join(WORDS[i % len(WORDS)] for i in range(tokens))
    body = {
        "model": "bench", "created_at": "2026-11-23T00:00:00.000000Z", "message": {"role": "assistant", "content": text},
        "done_reason": "stop", "done": True, "total_duration": 12_000_000, "load_duration": 1_000_000, "prompt_eval_count": 12,
        "prompt_eval_duration": 1_000_000, "eval_count": tokens, "eval_duration": 10_000_000,
    }  # fmt: skip
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\n" + HEADERS % b"application/json; charset=utf-8" + b"content-length: %d\r\n\r\n" % len(data) + data


def drawn_delay_s(median_s: float, model: str, prompt: str) -> float:
    """How long a model thinks about a prompt: the same for everybody who asks, so that the best possible total is known."""
    return median_s * random.Random(f"{model}/{prompt.split()[0]}").lognormvariate(0.0, 0.5)


def frame(chunk: dict[str, object] | str) -> bytes:
    data = b"data: " + (chunk if isinstance(chunk, str) else json.dumps(chunk, separators=(",", ":"))).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


@cache
def stream_frames(tokens: int) -> tuple[bytes, ...]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "bench", "system_fingerprint": "fp_1"}

    def piece(delta: dict[str, str], finish: str | None = None) -> bytes:
        return frame({**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    return (
        piece({"role": "assistant", "content": ""}),
        *(piece({"content": WORDS[i % len(WORDS)]}) for i in range(tokens)),
        piece({}, "stop"),
        frame({**base, "choices": [], "usage": usage(tokens)}) + frame("[DONE]") + b"0\r\n\r\n",
    )


def stamped_frame(content: str, *, ollama: bool, last: bool) -> bytes:
    if ollama:
        said = {
            "model": "bench",
            "created_at": "2026-11-23T00:00:00.000000Z",
            "message": {"role": "assistant", "content": content},
            "done": last,
        }
        data = json.dumps(said).encode() + b"\n"
        return b"%x\r\n%s\r\n" % (len(data), data) + (b"0\r\n\r\n" if last else b"")
    delta: dict[str, object] = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": "stop" if last else None}
    said = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "bench", "choices": [delta]}
    return frame(said) + (frame("[DONE]") + b"0\r\n\r\n" if last else b"")


STREAM_HEAD = b"HTTP/1.1 200 OK\r\n" + HEADERS % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"


class Service(asyncio.Protocol):
    """Reads requests by their content-length and answers them in turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""
        # asyncio leaves it out for a listening socket that it has not made itself: the last piece of a stream would wait for an ACK.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            path = self.buffer[: self.buffer.find(b"\r\n")].split(b" ")[1].decode()
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            self.answer(path.strip("/").split("/"), body)

    def answer(self, path: list[str], body: bytes) -> None:
        streamed = b'"stream":true' in body or b'"stream": true' in body
        match path:
            case ["api", "chat"]:
                self.transport.write(whole_ollama(50))
            case ["paced", tokens, pause_us, *_] if streamed:
                self.write_paced(int(tokens), int(pause_us) / 1e6)
            case ["stamped", wait_ms, tokens, pause_us, *protocol]:
                stamps = Stamps(self.transport, int(tokens), int(pause_us) / 1e6, ollama=protocol[0] == "api")
                asyncio.get_running_loop().call_later(float(wait_ms) / 1000, stamps.next if streamed else stamps.all_at_once)
            case ["delay", wait_ms, *_]:
                self.write_later(float(wait_ms) / 1000, streamed)
            case ["lognormal", median_ms, *_]:
                asked = json.loads(body)
                wait_s = drawn_delay_s(float(median_ms) / 1000, asked["model"], asked["messages"][-1]["content"])
                self.write_later(wait_s, streamed)
            case [kind, tokens, *_]:
                self.write_at_once(int(tokens) if kind == "stream" else 50, streamed)

    def write_at_once(self, tokens: int, streamed: bool) -> None:
        if streamed:
            asyncio.get_running_loop().create_task(self.write_pieces(tokens))
        else:
            self.transport.write(whole(tokens))

    def write_later(self, wait_s: float, streamed: bool) -> None:
        data = STREAM_HEAD + b"".join(stream_frames(50)) if streamed else whole(50)
        asyncio.get_running_loop().call_later(wait_s, self.transport.write, data)

    async def write_pieces(self, tokens: int) -> None:
        """A write a token: the client sees each on its own, or several where it is slower."""
        self.transport.write(STREAM_HEAD)
        for piece in stream_frames(tokens):
            self.transport.write(piece)
            await asyncio.sleep(0)

    def write_paced(self, tokens: int, pause_s: float) -> None:
        """A write a token with a pause after each, as a model would. An event loop's timers are too coarse, so this holds it up."""
        self.transport.write(STREAM_HEAD)
        for piece in stream_frames(tokens):
            self.transport.write(piece)
            time.sleep(pause_s)


class Stamps:
    """An answer whose tokens are the nanoseconds at which they were sent, by the clock that all processes of a machine share."""

    def __init__(self, transport: asyncio.Transport, tokens: int, pause_s: float, *, ollama: bool) -> None:
        self.transport, self.left, self.pause_s, self.ollama = transport, tokens, pause_s, ollama
        self.said = f"{time.perf_counter_ns()} "
        self.due = 0.0

    def next(self) -> None:
        if self.transport.is_closing():
            return
        if not self.due:
            self.due = asyncio.get_running_loop().time()
            self.transport.write(STREAM_HEAD)
        self.left, self.due = self.left - 1, self.due + self.pause_s
        self.transport.write(stamped_frame(f"{self.said}{time.perf_counter_ns()} ", ollama=self.ollama, last=not self.left))
        self.said = ""
        if self.left:
            asyncio.get_running_loop().call_at(self.due, self.next)

    def all_at_once(self) -> None:
        message = {"role": "assistant", "content": f"{self.said}{time.perf_counter_ns()}"}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        data = json.dumps(
            {"id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": "bench", "choices": [choice]}
        ).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + HEADERS % b"application/json" + b"content-length: %d\r\n\r\n" % len(data) + data)


def serve(listening: socket.socket, service: type[Service]) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(service, sock=listening)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


@contextlib.contextmanager
def running(service: type[Service] = Service) -> Iterator[str]:
    """Run the server in a process of its own and give its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listening, service), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        process.terminate()
        process.join()
        listening.close()
