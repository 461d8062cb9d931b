"""Datadog's test agent, a real OTLP receiver, as a process of its own on free ports of this machine.

It lives in an environment of its own beside ours (``make test`` makes it): it needs an older protocol package than the exporter's.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

PROGRAM = Path(sys.prefix, "agent", "bin", "ddapm-test-agent")
PATIENCE_S = 20.0


class OtlpAgent:
    """Runs the agent; ``spans()`` and ``metrics()`` are what it received, ``clear()`` forgets it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.ports = [each.getsockname()[1] for each in held]
        for each in held:
            each.close()
        self.url = f"http://127.0.0.1:{self.ports[1]}"

    def __enter__(self) -> OtlpAgent:
        names = ("--port", "--otlp-http-port", "--otlp-grpc-port")
        words = [word for name, port in zip(names, self.ports) for word in (name, str(port))]
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("DD_", "OTEL_"))}
        with (self.folder / "agent.log").open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, *words, "--host", "127.0.0.1", "--web-ui-port", "0", "--snapshot-dir", str(self.folder)],
                stdout=log, stderr=log, env=variables, cwd=self.folder,
            )  # fmt: skip
        self.client = httpx.Client(base_url=self.url, transport=httpx.HTTPTransport(retries=3))
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "agent.log").read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return self.client.get("/test/session/traces").is_success
        except httpx.TransportError:
            return False

    def clear(self) -> None:
        self.client.get("/test/session/clear").raise_for_status()

    def spans(self) -> list[dict[str, Any]]:
        """The spans, their attributes as plain values, their resource's under ``resource``."""
        found = []
        for batch in self.client.get("/test/session/traces").raise_for_status().json():
            for resource in batch["resource_spans"]:
                for scope in resource["scope_spans"]:
                    found += [
                        span
                        | {"attributes": plain(span.get("attributes", [])), "resource": plain(resource["resource"]["attributes"])}
                        | {"scope": scope["scope"], "schema_url": scope.get("schema_url")}
                        for span in scope["spans"]
                    ]
        return found

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The points of each metric as they were last sent, their attributes as plain values."""
        found: dict[str, list[dict[str, Any]]] = {}
        for batch in self.client.get("/test/session/metrics").raise_for_status().json():
            for resource in batch["resource_metrics"]:
                for scope in resource["scope_metrics"]:
                    for metric in scope["metrics"]:
                        points = (metric.get("histogram") or metric.get("exponential_histogram") or metric["sum"])["data_points"]
                        found[metric["name"]] = [
                            point | {"unit": metric["unit"], "attributes": plain(point.get("attributes", []))} for point in points
                        ]
        return found

    def bodies(self) -> list[bytes]:
        """The bytes of every request that came in."""
        received = self.client.get("/test/session/requests").raise_for_status().json()
        return [base64.b64decode(request["body"]) for request in received if request["method"] == "POST"]


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["key"]: plain_value(each["value"]) for each in attributes}


def plain_value(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "array_value":
        return [plain_value(each) for each in held["values"]]
    return int(held) if kind == "int_value" else held
