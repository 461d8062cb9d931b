"""From a finished or failed call to its rows. The rows are built on the journal's thread; the caller's only drops an ``Outcome``."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from ..errors import ToolkitError
from ..types import ChatRequest, Completion, ImageRequest, ImageResult, Provenance, Timing
from .events import CallRecord, ErrorRecord
from .fingerprints import fingerprint
from .redaction import message_of, redact, redact_text, stack_of

__all__ = ["COLD_LOAD_S", "CallContext", "Outcome", "process_name"]

COLD_LOAD_S = 0.3
"""A server that reports a longer load did load the model. A warm one is not reported as 0: Ollama counts its scheduling too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Which call this is, in the words of whoever makes it."""

    provider: str
    model: str
    label: str
    operation: str = "text"
    run_id: str | None = None
    prompt_id: str | None = None
    repeat: int = 0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Everything known about one call when it ends; ``rows()`` makes the journal's rows of it.

    A call with neither a completion nor an error is one whose reader left: ``partial`` is what had come of the answer.
    """

    at: float
    call_id: str
    context: CallContext
    request: ChatRequest | ImageRequest
    timing: Timing
    completion: Completion | ImageResult | None = None
    error: BaseException | None = None
    partial: str = ""
    provenance: Provenance = "live"
    attempts: int = 1
    base_url: str | None = None
    key: str | None = None
    record_content: bool = True
    _row: CallRecord | None = None  # a comparison wants it as well as the journal

    def rows(self) -> Iterator[CallRecord | ErrorRecord]:
        row = self._row or self._built_row()
        yield row if self.record_content else row._replace(prompt=None, text=None)
        if self.error is not None:
            yield self.error_row(self.error)

    def call_row(self, *, content: bool) -> CallRecord:
        """The call as a row, which ``rows`` will not build again; without ``content`` prompt and answer are only counted and hashed."""
        if self._row is None:
            self._row = self._built_row()
        return self._row if content else self._row._replace(prompt=None, text=None)

    def _built_row(self) -> CallRecord:
        done, time, context = self.completion, self.timing, self.context
        usage = done.usage if done else None
        prompt = prompt_text(self.request)
        text = done.text if done else self.partial or getattr(self.error, "partial", "") or None
        load_s = load_of(done)
        return CallRecord(
            at=self.at,
            call_id=self.call_id,
            run_id=context.run_id,
            process=process_name(),
            provider=context.provider,
            model=context.model,
            label=context.label,
            served_model=done.served_model if done else None,
            operation=context.operation,
            prompt_id=context.prompt_id,
            repeat=context.repeat,
            status=self.status,
            error_type=type(self.error).__name__ if self.error is not None else None,
            error_fingerprint=fingerprint(self.error) if self.error is not None else None,
            error_message=message_of(self.error) if self.error is not None else None,
            finish_reason=done.finish_reason if isinstance(done, Completion) else None,
            provenance=context.operation if context.operation == "warmup" else done.provenance if done else self.provenance,
            cache_tier=done.cache_tier if done else None,
            attempts=self.attempts,
            lookup_s=time.lookup_s,
            limiter_wait_s=time.limiter_wait_s,
            retry_sleep_s=time.retry_sleep_s,
            failed_attempts_s=time.failed_attempts_s,
            latency_s=time.latency_s,
            consumer_s=time.consumer_s,
            total_s=time.total_s,
            ttft_s=time.ttft_s,
            ttfa_s=time.ttfa_s,
            output_tokens_per_s=time.output_tokens_per_s,
            loop_stall_s=time.loop_stall_s,
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            reasoning_tokens=usage.reasoning_tokens if usage else None,
            cached_input_tokens=usage.cached_input_tokens if usage else None,
            cost_usd=done.cost_usd if done else None,
            saved_usd=done.saved_usd if done else None,
            saved_s=done.saved_s if done else None,
            price_date=done.price_date if done else None,
            request_id=done.request_id if done else getattr(self.error, "request_id", None),
            base_url=shown_address(self.base_url) if self.base_url else self.base_url,
            key=self.key,
            reported=json.dumps(dict(done.reported)) if done and done.reported else None,
            prompt_sha256=hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
            prompt_chars=len(prompt),
            text_chars=len(text) if text is not None else None,
            prompt=prompt,
            text=text,
            answer_bytes=answer_bytes(done),
            e2e_tokens_per_s=time.e2e_tokens_per_s,
            answer_tokens_per_s=time.answer_tokens_per_s,
            tpot_s=time.tpot_s,
            itl_p50_s=time.itl_p50_s,
            itl_p95_s=time.itl_p95_s,
            load_s=load_s,
            cold=None if load_s is None else int(load_s > COLD_LOAD_S),
        )

    @property
    def status(self) -> str:
        if self.completion is not None:
            return "ok"
        return "left" if self.error is None else "error"

    def error_row(self, error: BaseException) -> ErrorRecord:
        facts = {
            "status": getattr(error, "status", None),
            "attempts": self.attempts,
            "model": self.context.model,
            "base_url": self.base_url,
        }
        return ErrorRecord(
            at=self.at,
            # The same in the journal, in the cell that shows the error, and wherever it is exported to.
            error_id=error.error_id if isinstance(error, ToolkitError) else uuid.uuid5(uuid.NAMESPACE_OID, self.call_id).hex,
            call_id=self.call_id,
            run_id=self.context.run_id,
            process=process_name(),
            type=type(error).__name__,
            fingerprint=fingerprint(error),
            message=message_of(error),
            stack=stack_of(error),
            context=json.dumps(redact(facts)),
        )


shown_address = lru_cache(maxsize=256)(redact_text)
"""There are few addresses and many calls, and looking for secrets is a tenth of making a row."""


def load_of(done: Completion | ImageResult | None) -> float | None:
    """Seconds the server took to load the model for this call, where it says so; an answer from the cache loaded nothing."""
    found = done.reported.get("load_s") if done and done.provenance == "live" else None
    return float(found) if isinstance(found, int | float) else None


def answer_bytes(done: Completion | ImageResult | None) -> int | None:
    """How much was answered, in bytes; ``None`` for a call that failed."""
    if done is None:
        return None
    pictures = sum(len(image.data) for image in done.images) if isinstance(done, ImageResult) else 0
    return pictures + len(done.text.encode("utf-8", "surrogatepass"))


def prompt_text(request: ChatRequest | ImageRequest) -> str:
    """The words that were sent: the bare prompt where there is only one, else a line a message with its role."""
    if isinstance(request, ImageRequest):
        return request.prompt
    if len(request.messages) == 1:
        return request.messages[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in request.messages)


@cache
def process_name() -> str:
    """Name this process, so that rows of several machines can be told apart."""
    return f"{socket.gethostname()}:{os.getpid()}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process_name.cache_clear)
