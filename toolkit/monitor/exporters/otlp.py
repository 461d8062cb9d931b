"""Where spans and metrics go: to the providers of the program, or by OTLP over HTTP as the ``OTEL_…`` variables say.

OpenTelemetry's own exporters read these variables; only what would go wrong in silence is looked at here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ... import settings
from ...errors import ConfigError

__all__ = ["Providers"]

DEFAULT_NAME = "model-comparison-toolkit"
DEFAULT_ENDPOINT = "http://localhost:4318"
PARTIAL: dict[str, tuple[Any, str]] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
}

_log = logging.getLogger("toolkit.exporters")


@dataclass(frozen=True, slots=True)
class Providers:
    """Where spans and metrics go, and which of the two are ours to flush and to shut down."""

    tracers: trace.TracerProvider
    meters: metrics.MeterProvider
    ours: tuple[TracerProvider | MeterProvider, ...]

    @classmethod
    def found(cls, tracers: trace.TracerProvider | None, meters: metrics.MeterProvider | None) -> Providers:
        """Take what is given, else what the program has set globally, else make new ones, which stay out of everybody's sight."""
        ours: list[TracerProvider | MeterProvider] = []
        tracers, meters = tracers or global_tracers(), meters or global_meters()
        if tracers is None:
            ours.append(tracers := new_tracers())
        if meters is None:
            ours.append(meters := new_meters())
        return cls(tracers, meters, tuple(ours))

    def flush(self, timeout_s: float) -> bool:
        """Send what waits, also in providers that are not ours, where they can be asked to."""
        flushes = [getattr(provider, "force_flush", None) for provider in (self.tracers, self.meters)]
        sent = [flush(max(int(timeout_s * 1000), 1)) for flush in flushes if flush is not None]
        return all(sent)

    def close(self) -> None:
        for provider in self.ours:
            provider.shutdown()


def global_tracers() -> trace.TracerProvider | None:
    found = trace.get_tracer_provider()
    return None if isinstance(found, trace.ProxyTracerProvider) else found


def global_meters() -> metrics.MeterProvider | None:
    found = metrics.get_meter_provider()
    # The stand-in for "none is set" has no public name.
    return None if type(found).__name__ == "_ProxyMeterProvider" else found


def new_tracers() -> TracerProvider:
    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)  # we shut down after our queue is empty
    if wanted("TRACES"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=session("traces"))))
    return provider


def new_meters() -> MeterProvider:
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter(session=session("metrics")))] if wanted("METRICS") else []
    return MeterProvider(metric_readers=readers, resource=resource(), shutdown_on_exit=False)


def resource() -> Resource:
    """Who we are: by ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES``, with a name of our own where they name nobody."""
    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: DEFAULT_NAME}))
    return found


def wanted(signal: str) -> bool:
    """Whether a signal is to be sent, and whether it can be.

    Raises
    ------
    ConfigError
        If its address or protocol would lose everything.
    """
    if (settings.variable("OTEL_SDK_DISABLED") or "").lower() == "true" or settings.variable(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    protocol = (
        settings.variable(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or settings.variable("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    )
    if protocol != "http/protobuf":
        raise ConfigError(
            f"OTLP goes out as http/protobuf, not {protocol}: change OTEL_EXPORTER_OTLP_PROTOCOL, or set global providers of your own"
        )
    name, own = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", settings.variable(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if own and (urlsplit(own).path in ("", "/") or own.rstrip("/").endswith("/api/v1/otlp")):
        raise ConfigError(f"{name} is used as it stands, and a server listens at …/v1/{signal.lower()}: add that to it")
    settings.check_online(own or settings.variable("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_ENDPOINT, "the OpenTelemetry collector")
    return True


def session(signal: str) -> requests.Session | None:
    """Return a session that reads what OpenTelemetry's exporters don't: a 200 that says that part of it was thrown away.

    ``None`` where a variable names a session of another package, which signs the requests.
    """
    names = ("OTEL_PYTHON_EXPORTER_OTLP_HTTP", f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal.upper()}")
    if any(settings.variable(f"{name}_CREDENTIAL_PROVIDER") for name in names):
        return None
    made = requests.Session()
    said: set[str] = set()

    def look(response: requests.Response, *_arguments: Any, **_options: Any) -> None:  # as requests calls its hooks
        rejected = read_rejected(signal, response)
        if rejected is not None and rejected not in said and len(said) < 10:
            said.add(rejected)
            _log.warning("the OpenTelemetry collector took a batch of %s but not all of it: %s", signal, rejected)

    made.hooks["response"].append(look)
    return made


def read_rejected(signal: str, response: requests.Response) -> str | None:
    """Return what a collector says about what it threw away; ``None`` where it kept all."""
    kind, count = PARTIAL[signal]
    if not (response.ok and response.content):
        return None
    try:
        if "json" in response.headers.get("content-type", ""):
            partial = response.json().get("partialSuccess") or {}
            rejected = int(partial.get("rejectedSpans" if signal == "traces" else "rejectedDataPoints") or 0)
            words = str(partial.get("errorMessage") or "")
        else:
            answer = kind.FromString(response.content).partial_success
            rejected, words = int(getattr(answer, count)), answer.error_message
    except Exception:  # noqa: BLE001 - a proxy's page, or whatever a stranger's server says with status 200
        return None
    return words[:200] or "no reason given" if rejected else None
