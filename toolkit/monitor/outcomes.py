"""From a finished or failed call to its rows. The rows are built on the journal's thread; the caller's only drops an ``Outcome``."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ..errors import ToolkitError
from ..types import ChatRequest, Completion, ImageRequest, ImageResult, Timing
from .events import CallRecord, ErrorRecord
from .fingerprints import fingerprint
from .redaction import message_of, redact, redact_text, stack_of

__all__ = ["CallContext", "Outcome", "process_name"]


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
    """Everything known about one call when it ends; ``rows()`` makes the journal's rows of it."""

    at: float
    call_id: str
    context: CallContext
    request: ChatRequest | ImageRequest
    timing: Timing
    completion: Completion | ImageResult | None = None
    error: BaseException | None = None
    attempts: int = 1
    base_url: str | None = None
    key: str | None = None
    record_content: bool = True

    def rows(self) -> Iterator[CallRecord | ErrorRecord]:
        yield self.call_row(content=self.record_content)
        if self.error is not None:
            yield self.error_row(self.error)

    def call_row(self, *, content: bool) -> CallRecord:
        """The call as a row; without ``content`` the prompt and the answer are only counted and hashed."""
        done, time, context = self.completion, self.timing, self.context
        usage = done.usage if done else None
        prompt = prompt_text(self.request)
        text = done.text if done else getattr(self.error, "partial", "") or None
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
            status="ok" if done else "error",
            error_type=type(self.error).__name__ if self.error is not None else None,
            error_fingerprint=fingerprint(self.error) if self.error is not None else None,
            error_message=message_of(self.error) if self.error is not None else None,
            finish_reason=done.finish_reason if isinstance(done, Completion) else None,
            provenance=done.provenance if done else "live",
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
            base_url=redact_text(self.base_url) if self.base_url else self.base_url,
            key=self.key,
            reported=json.dumps(dict(done.reported)) if done and done.reported else None,
            prompt_sha256=hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
            prompt_chars=len(prompt),
            text_chars=len(text) if text is not None else None,
            prompt=prompt if content else None,
            text=text if content else None,
            answer_bytes=answer_bytes(done),
        )

    def error_row(self, error: BaseException) -> ErrorRecord:
        facts = {
            "status": getattr(error, "status", None),
            "attempts": self.attempts,
            "model": self.context.model,
            "base_url": self.base_url,
        }
        return ErrorRecord(
            at=self.at,
            error_id=error.error_id if isinstance(error, ToolkitError) else uuid.uuid4().hex,
            call_id=self.call_id,
            run_id=self.context.run_id,
            process=process_name(),
            type=type(error).__name__,
            fingerprint=fingerprint(error),
            message=message_of(error),
            stack=stack_of(error),
            context=json.dumps(redact(facts)),
        )


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
