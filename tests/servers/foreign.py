"""Servers that we did not write, as processes of their own: llmock (from PyPI) and aimock (from npm)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

FOREIGN = Path(sys.prefix) / "npm" / "node_modules"
AIMOCK = FOREIGN / "@copilotkit" / "aimock" / "dist" / "cli.js"
FIXTURES = [
    {"match": {"userMessage": "hello"}, "response": {"content": "Blue gentian é😀"}, "chunkSize": 3},
    {"match": {"userMessage": "think"}, "response": {"content": "Alpine.", "reasoning": "A plant?"}},
    {"match": {"userMessage": "json"}, "response": {"content": '{"sure": true}'}},
    {
        "match": {"userMessage": "weather"},
        "response": {"toolCalls": [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Turin")]},
    },
    {"match": {"userMessage": "busy"}, "response": {"error": {"message": "Slow down"}, "status": 429}},
    {
        "match": {"userMessage": "cut"},
        "response": {"content": "one two three four"},
        "chunkSize": 4,
        "latency": 20,
        "truncateAfterChunks": 3,
    },
]


@contextlib.contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server until the end of the block; give the address that it prints once it listens."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield address_in(log, server)
    finally:
        server.terminate()
        server.wait(timeout=20)


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Wait until a server has written where it listens."""
    for _ in range(3000):
        if found := re.search(r"(?:listening|running) on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace")):
            return found[1]
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=0.01)
            break
    raise AssertionError(f"{server.args} did not start: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def llmock(folder: Path) -> Iterator[str]:
    """It judges its clients: ``GET /_llmock/verdict``."""
    program = Path(sys.executable).with_name("llmock")
    with process([str(program), "serve", "--port", "0", "--log-level", "info"], folder / "llmock.log") as address:
        yield address


@contextlib.contextmanager
def aimock(folder: Path) -> Iterator[str]:
    if not AIMOCK.exists():
        pytest.skip("aimock is not installed: `make test` does it where there is npm")
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": FIXTURES}))
    with process(["node", str(AIMOCK), "--port", "0", "--fixtures", str(folder / "fixtures.json")], folder / "aimock.log") as address:
        yield address
