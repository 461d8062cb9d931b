"""What Replicate answers: a job, its stream, and the addresses of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from .. import errors
from ..types import ChatRequest, FinishReason, Reply, StreamEvent, Usage
from ..wire.fastjson import loads
from ..wire.stream import SSEDecoder, SSEvent, paired
from .base import message_in
from .chat_completions import renamed
from .reading import StreamReader, count, is_error, read_json

if TYPE_CHECKING:
    from .replicate import Replicate

__all__ = ["Job", "ReplicateReader", "read_addresses"]

Body = dict[str, Any]  # JSON

METRICS = {
    "predict_time": ("predict_s", 1.0),
    "total_time": ("server_total_s", 1.0),
    "time_to_first_token": ("ttft_s", 1.0),
    "tokens_per_second": ("tokens_per_second", 1.0),
    "image_count": ("image_count", 1.0),
}


@dataclass(slots=True)
class Job:
    """A prediction under way. Its address is made from its id: the one that the service sends could be another host's."""

    data: Body
    model: str
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = f"/predictions/{quote(self.data['id'], safe='')}"

    @property
    def status(self) -> str:
        return str(self.data["status"])

    @property
    def over(self) -> bool:
        return self.status not in ("starting", "processing")

    @property
    def stream(self) -> str | None:
        urls = self.data.get("urls")
        found = urls.get("stream") if isinstance(urls, dict) else None
        return found if isinstance(found, str) and found.startswith(("https://", "http://")) else None


class ReplicateReader(StreamReader[SSEvent]):
    """Reads a job's stream, whose pieces are plain text and not JSON, and the job itself."""

    provider: Replicate
    marks_its_end = True

    def __init__(self, provider: Replicate, request: ChatRequest, decoder: SSEDecoder) -> None:
        super().__init__(provider, request, decoder)
        self.id: str | None = None
        self.output: Any = None  # any JSON
        self.job_over = False

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        name, data = item
        if name in ("output", "done", "error"):
            self._unread = None
        if self.done:
            return
        if name == "output":
            self.add("text", data.decode("utf-8", "replace"), events)
        elif name == "error":
            self._read_failure(data)
        elif name == "done":
            self._read_done(data)

    def _read_failure(self, data: bytes) -> None:
        """``{"detail": ...}`` by the documentation, plain text in practice."""
        self.job_over = True
        try:
            told = loads(data)
        except ValueError:
            told = data.decode("utf-8", "replace")
        self.fail(self.provider.told_error(told, self.request.model))

    def _read_done(self, data: bytes) -> None:
        self.job_over = True
        try:
            told = loads(data)
        except ValueError:
            told = None
        reason = told.get("reason") if isinstance(told, dict) else None
        if reason in ("canceled", "error"):
            self._end_badly(reason, None)
        else:
            self.done = True
            self.finish = "stop"

    def _end_badly(self, how: str, why: Any) -> None:  # any JSON
        facts: Body = {"provider": self.provider.name, "model": self.request.model, "status": 200, "retryable": False}
        if how == "aborted":
            told = "the job was stopped before it began: its deadline passed, or somebody cancelled it"
            self.fail(errors.ProviderTimeoutError(f"{self.provider.name}: {told}", **facts))
        elif how == "canceled":
            told = "the job was cancelled: by its deadline (timeout_s=), or by somebody"
            self.fail(errors.ServerError(f"{self.provider.name}: {told}", **facts))
        else:
            self.fail(self.provider.told_error({"error": why or "the job failed and does not say why"}, self.request.model))

    def read_data(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """The ``error`` of a job is one of its fields, and need not be its end."""
        if "status" in data and "id" in data:
            self._unread = None
            self.read_object(data, events)
        elif is_error(data):
            super().read_data(data, events)
        else:
            self.fail(self.provider.bad_reply(f"that is no job: {message_in(data)[:200]}", self.request, 200))

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """Read a whole job."""
        self._read_facts(data)
        status, self.output = data.get("status"), data.get("output")
        if status != "succeeded":
            self._end_badly(str(status), data.get("error"))
            return
        self.done = True
        self.finish = self._finish()
        if data.get("data_removed"):
            self.fail(self.provider.bad_reply("the output of the job has been deleted; that happens after an hour", self.request, 200))
        elif self.output is None:
            self.fail(self.provider.bad_reply("the job succeeded without an output", self.request, 200))
        elif (text := read_text(self.output)) is not None:
            self.add("text", text, events)

    def read_whole_job(self, response: httpx.Response) -> None:
        """Take a job that is over, its text included."""
        self.job_over = True
        self.read_data(read_json(self.provider, response, self.request.model), self.tail)

    def end_stream(self) -> None:
        """Take up what the end of the bytes completes: the last event may lack its blank line."""
        if self.failure is None and not self.done:
            self._take(self._decoder.close(), self.tail)

    def read_metrics(self, response: httpx.Response) -> None:
        """Take from a job what its stream did not tell."""
        data = read_json(self.provider, response, self.request.model)
        self._read_facts(data)
        self.finish = self._finish()
        if data.get("status") != "succeeded":
            self._end_badly(str(data.get("status")), data.get("error"))

    def _read_facts(self, data: Mapping[str, Any]) -> None:
        self.id = paired(data["id"]) if isinstance(data.get("id"), str) else None
        model, version = data.get("model"), data.get("version")
        if isinstance(model, str) and model:
            self.served_model = paired(f"{model}:{version}" if isinstance(version, str) and version not in ("", "hidden") else model)
        metrics = data.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        self.usage = Usage(input_tokens=count(metrics.get("input_token_count")), output_tokens=count(metrics.get("output_token_count")))
        self.reported |= renamed(metrics, METRICS) | read_queue(data)

    def _finish(self) -> FinishReason:
        """Replicate does not say whether a text hit its limit."""
        limit, used = self.request.max_tokens, self.usage.output_tokens
        return "length" if limit is not None and used is not None and used >= limit else "stop"

    def _judge(self) -> None:
        super()._judge()
        if self.failure is None and self.output is not None and read_text(self.output) is None:
            self.fail(self.provider.bad_reply(f"the output is no text but {str(self.output)[:200]!r}", self.request, 200))

    def reply(self, request_id: str | None = None) -> Reply:
        return super().reply(self.id or request_id)


def read_text(output: Any) -> str | None:  # any JSON
    """A text, or its pieces. A text that begins like an address is a text all the same."""
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    return output if isinstance(output, str) else None


def read_addresses(output: Any) -> list[str]:  # any JSON
    """The addresses of files: one, a list, or the values of an object."""
    listed = output if isinstance(output, list) else list(output.values()) if isinstance(output, dict) else [output]
    return [each for each in listed if isinstance(each, str) and each.startswith(("https://", "http://", "data:"))]


def read_queue(data: Mapping[str, Any]) -> dict[str, float]:
    """How long a job waited for a machine, cold start included: to be told apart from how long it ran."""
    try:
        created, started = datetime.fromisoformat(data["created_at"]), datetime.fromisoformat(data["started_at"])
        return {"queue_s": (started - created).total_seconds()}
    except (KeyError, TypeError, ValueError):
        return {}
