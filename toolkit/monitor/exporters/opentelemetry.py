"""OpenTelemetry: each call as a span and in histograms, by the conventions for generative AI (docs/exporters.md lists every name).

The names are those of the conventions as of 2026, when they were still in development: all of them stand in this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, set_span_in_context

from ... import settings
from ...types import ChatRequest, Completion
from ..events import CallRecord, ErrorRecord
from ..redaction import message_of
from .base import CallExport, host_and_port, wire_model
from .messages import input_messages, output_messages, system_instructions
from .otlp import Providers

__all__ = ["OpenTelemetryExporter"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
SCOPE = "model-comparison-toolkit"

T = TypeVar("T")
Attributes = dict[str, Any]  # what OpenTelemetry calls an AttributeValue

PROVIDERS = {"azure": "azure.ai.openai", "lmstudio": "lm_studio", "vertex": "gcp.vertex_ai"}
"""Where ``gen_ai.provider.name`` is not our own name of the provider."""

OPERATIONS = {"text": "chat", "image": "generate_content"}

DURATION_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

GAPS_PER_CALL = 20
"""Of a longer stream so many gaps, evenly spread, go into the histogram: a record costs 40 µs, and there is a gap a chunk."""

TIMES = ("lookup_s", "limiter_wait_s", "retry_sleep_s", "failed_attempts_s", "latency_s", "consumer_s", "loop_stall_s")


class OpenTelemetryExporter:
    """Sends calls as spans and metrics to an OpenTelemetry provider.

    Parameters
    ----------
    tracer_provider, meter_provider : optional
        Where spans and metrics go. By default the providers that the program has set globally; where it has set none, new ones that send
        OTLP over HTTP as the ``OTEL_…`` variables say, and that are nobody else's.
    content : bool, optional
        Whether spans have the prompts and answers; by default what ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says, which is no unless
        set. Where ``TOOLKIT_RECORD_CONTENT=0``, never.

    Raises
    ------
    ConfigError
        If a variable asks for what this exporter can't do, or the address is beyond this machine with ``TOOLKIT_OFFLINE=1``.
    """

    follows_spans = True

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        content: bool | None = None,
    ) -> None:
        self._providers = Providers.found(tracer_provider, meter_provider)
        self._content = settings.capture_content() if content is None else content
        ours = version(SCOPE)
        self._tracer = self._providers.tracers.get_tracer(SCOPE, ours, schema_url=SCHEMA_URL)
        self._histograms = Histograms(self._providers.meters.get_meter(SCOPE, ours, schema_url=SCHEMA_URL))

    def export(self, records: Sequence[CallExport | ErrorRecord]) -> None:
        """Make a span of each call and count it in the histograms; an error that is no call's is left to others."""
        for record in records:
            if isinstance(record, CallExport):
                self._make_span(record)
                self._histograms.count(record)

    def flush(self, timeout_s: float) -> bool:
        """Send what the providers hold."""
        return self._providers.flush(timeout_s)

    def close(self) -> None:
        """Shut down the providers that were made here; those of the program stay as they are."""
        self._providers.close()

    def _make_span(self, record: CallExport) -> None:
        call, ended = record.call, record.call.at + (record.call.total_s or 0.0)
        span = self._tracer.start_span(
            f"{OPERATIONS.get(call.operation, call.operation)} {wire_model(call)}",
            context=set_span_in_context(NonRecordingSpan(record.parent)) if record.parent is not None else None,
            kind=SpanKind.CLIENT if host_and_port(call.base_url) and call.provenance == "live" else SpanKind.INTERNAL,
            attributes=identity(call),  # at the start, for samplers
            start_time=nanoseconds(call.at),
        )
        if span.is_recording():
            span.set_attributes(call_attributes(record))
            content = self._content and record.outcome.record_content
            if content:
                span.set_attributes(content_attributes(record))
            if record.error is not None:
                span.set_status(Status(StatusCode.ERROR, described(record, content=content)))
        span.end(end_time=nanoseconds(ended))


class Histograms:
    """The metrics of the conventions, for answers that were asked for now: a kept one says nothing about a model."""

    def __init__(self, meter: metrics.Meter) -> None:
        def seconds(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S)

        self.duration = seconds("gen_ai.client.operation.duration", "GenAI operation duration.")
        self.first_chunk = seconds("gen_ai.client.operation.time_to_first_chunk", "Time to the first chunk of a stream.")
        self.per_chunk = seconds("gen_ai.client.operation.time_per_output_chunk", "Time from one chunk of a stream to the next.")
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Number of tokens used.", explicit_bucket_boundaries_advisory=TOKEN_BOUNDS
        )
        self.replayed = meter.create_counter("toolkit.cache.answers", "{answer}", "Answers that were not asked for again.")

    def count(self, record: CallExport) -> None:
        call = record.call
        shared = identity(call)  # as few as can be, and none that grows with the number of calls
        if call.provenance != "live":
            tier = {"toolkit.cache.tier": call.cache_tier} if call.cache_tier else {}
            self.replayed.add(1, {**shared, "toolkit.provenance": call.provenance or "", **tier})
            return
        if call.error_type == "CacheMiss":  # nobody was asked
            return
        failed = {"error.type": error_type(record)} if record.error is not None else {}
        self.duration.record(call.total_s or 0.0, shared | failed)
        for kind, tokens in (("input", call.input_tokens), ("output", call.output_tokens)):
            if tokens is not None:  # unknown is not zero
                self.tokens.record(tokens, {**shared, "gen_ai.token.type": kind})
        if call.ttft_s is not None:
            self.first_chunk.record(call.ttft_s, shared)
        flow = record.outcome.timing.flow
        for gap in spread(flow.gaps if flow else (), GAPS_PER_CALL):
            self.per_chunk.record(gap.token_s * gap.tokens, shared)


def identity(call: CallRecord) -> Attributes:
    """Who was asked to do what: what a sampler may decide by, and the labels of a metric."""
    found: Attributes = {
        "gen_ai.operation.name": OPERATIONS.get(call.operation, call.operation),
        "gen_ai.provider.name": PROVIDERS.get(call.provider, call.provider),
        "gen_ai.request.model": wire_model(call),
    }
    if place := host_and_port(call.base_url):
        found["server.address"], found["server.port"] = place
    return found


def call_attributes(record: CallExport) -> Attributes:
    """What is known of a call, without its words."""
    call = record.call
    found = request_attributes(record) | own_attributes(call)
    found["gen_ai.response.id"] = call.request_id
    found["gen_ai.response.model"] = call.served_model
    if call.finish_reason not in (None, "unknown"):
        found["gen_ai.response.finish_reasons"] = [call.finish_reason]
    if call.provenance == "live":  # of a kept answer they were counted when it was asked for
        found["gen_ai.response.time_to_first_chunk"] = call.ttft_s
        found["gen_ai.usage.input_tokens"] = call.input_tokens
        found["gen_ai.usage.output_tokens"] = call.output_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = call.cached_input_tokens
        found["gen_ai.usage.reasoning.output_tokens"] = call.reasoning_tokens
    if record.error is not None:
        found["error.type"] = error_type(record)
    return known(found)


def request_attributes(record: CallExport) -> Attributes:
    request = record.outcome.request
    if not isinstance(request, ChatRequest):
        count = {"gen_ai.request.choice.count": request.n} if request.n != 1 else {}
        return {"gen_ai.output.type": "image", "gen_ai.request.seed": request.seed, **count}
    return {
        "gen_ai.output.type": "json" if request.schema is not None else None,
        "gen_ai.request.seed": request.seed,
        "gen_ai.request.stream": True if record.call.ttft_s is not None else None,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.stop_sequences": list(request.stop) or None,
    }


def own_attributes(call: CallRecord) -> Attributes:
    """What the conventions have no name for; the meanings are those of the journal's columns."""
    columns = ("call_id", "run_id", "prompt_id", "repeat", "label", "provenance", "attempts", "cost_usd", "saved_usd", *TIMES)
    found = {f"toolkit.{column}": getattr(call, column) for column in columns}
    return found | {"toolkit.cache.tier": call.cache_tier, "toolkit.error.fingerprint": call.error_fingerprint}


def content_attributes(record: CallExport) -> Attributes:
    """The words, as JSON: an array of objects is no attribute that every backend takes."""
    request, done = record.outcome.request, record.outcome.completion
    found: dict[str, Any] = {"gen_ai.input.messages": input_messages(request), "gen_ai.system_instructions": system_instructions(request)}
    if isinstance(done, Completion):
        found["gen_ai.output.messages"] = output_messages(done)
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items() if value}


def error_type(record: CallExport) -> str:
    """The HTTP status, where the service gave one, or the class."""
    status = getattr(record.outcome.error, "status", None)
    return str(status) if status is not None else record.call.error_type or "_OTHER"


def described(record: CallExport, *, content: bool) -> str:
    """What a span says of a failure. A service's message can repeat the prompt, so it counts as content."""
    error = record.outcome.error
    return message_of(error) if content and error is not None else record.call.error_type or ""


def known(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def spread(values: Sequence[T], most: int) -> Iterable[T]:
    """Return values, of more than ``most`` so many at equal distances.

    Examples
    --------
    >>> list(spread([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 3))
    [0.0, 2.0, 4.0]
    """
    return values if len(values) <= most else (values[i * len(values) // most] for i in range(most))
