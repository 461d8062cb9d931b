"""Prometheus: counters and histograms on a page of this machine, ``/metrics`` (docs/exporters.md lists every name)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from ... import settings
from ..events import CallRecord, ErrorRecord
from .base import CallExport

__all__ = ["PrometheusExporter"]

HOST = "127.0.0.1"
BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
"""Doubling from 10 ms; the client's own bounds end at 10 s, which is early for a model."""

MODELS = 100
TYPES = 100
OTHER = "other"

_log = logging.getLogger("toolkit.exporters")


class PrometheusExporter:
    """Counts calls and serves the counts for Prometheus to read, at ``http://127.0.0.1:PORT/metrics``.

    Where the port is taken (by another notebook, say) there is one warning, and the page comes with the next call after it is free.

    Parameters
    ----------
    port : int, optional
        By default that of ``TOOLKIT_METRICS_PORT``, 9464 unless set; 0 takes any free one, which ``port`` then tells.
    host : str
        The address to listen on; another than ``"127.0.0.1"`` shows the page to others.
    models : int
        How many models have series of their own; calls of later ones are counted together, as ``other``.

    Raises
    ------
    ConfigError
        If ``TOOLKIT_METRICS_PORT`` is no port.
    """

    def __init__(self, port: int | None = None, *, host: str = HOST, models: int = MODELS) -> None:
        self.registry = CollectorRegistry()  # our own: in the global one a cell that is run again would meet itself
        self._metrics = Metrics(self.registry)
        self._models = Few(models)
        self._types = Few(TYPES)
        self._host = host
        self._wanted = settings.metrics_port() if port is None else port
        self._pid = 0
        self._warned = False
        self.port: int | None = None
        """Where the page is; ``None`` as long as the port is taken."""
        self._serve()

    def _serve(self) -> None:
        try:
            self._server, self._thread = start_http_server(self._wanted, addr=self._host, registry=self.registry)
        except OSError as error:
            self._warn(error)
        else:
            self.port, self._pid = self._server.server_port, os.getpid()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            trouble = "port %d can't be had (%s): /metrics is not served until it is free; choose another in TOOLKIT_METRICS_PORT"
            _log.warning(trouble, self._wanted, error.strerror)

    def export(self, records: Sequence[CallExport | ErrorRecord]) -> None:
        """Count them."""
        if self.port is None:
            self._serve()
        for record in records:
            if isinstance(record, CallExport):
                provider, model = self._models.kept((record.call.provider, record.call.model)) or (OTHER, OTHER)
                self._metrics.count(record.call, provider, model)
            else:
                (kind,) = self._types.kept((record.type,)) or (OTHER,)
                self._metrics.tracked_errors.labels(kind).inc()

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - an exporter's signature
        """There is nothing to send: Prometheus comes and reads."""
        return True

    def close(self) -> None:
        """Serve the page no more."""
        if self.port is not None and self._pid == os.getpid():  # in a forked child nobody serves it, and there is nobody to stop
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class Few:
    """The first so many values; a bound for labels, of which each makes series that are kept for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[tuple[str, ...]] = set()

    def kept(self, values: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the values, or ``None`` where there are too many already."""
        if values not in self._seen:
            if len(self._seen) >= self._most:
                return None
            self._seen.add(values)
        return values


class Metrics:
    """All that is counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"toolkit_{name}", words, labels, registry=registry)

        def histogram(name: str, words: str) -> Histogram:
            return Histogram(f"toolkit_{name}", words, ("provider", "model", "operation"), buckets=BOUNDS_S, registry=registry)

        whose = ("provider", "model")
        self.calls = counter(
            "calls", "Calls by how they ended and where the answer came from.", *whose, "operation", "status", "provenance"
        )
        self.errors = counter("call_errors", "Failed calls by the class of the error.", *whose, "error_type")
        self.attempts = counter("attempts", "Requests sent to a service, those that failed included.", *whose)
        self.hits = counter("cache_hits", "Answers from the cache by tier.", "tier")
        self.tokens = counter("tokens", "Tokens of live answers; input includes cached ones, output reasoning.", *whose, "type")
        self.cost = counter("cost_usd", "US dollars of live answers whose price is known.", *whose)
        self.saved = counter("saved_usd", "US dollars that answers cost once that were not asked for again.", *whose)
        self.waited = counter("wait_seconds", "Seconds calls waited, for a rate limiter's leave or between attempts.", *whose, "reason")
        self.tracked_errors = counter("tracked_errors", "Errors given to the error tracker by the class of the error.", "error_type")
        self.total = histogram("call_duration_seconds", "Seconds of whole calls, live ones, failed ones included.")
        self.latency = histogram("call_latency_seconds", "Seconds of the good attempt of live calls.")
        self.first_token = histogram("time_to_first_token_seconds", "Seconds until the first token of streams.")

    def count(self, call: CallRecord, provider: str, model: str) -> None:
        whose = (provider, model)
        self.calls.labels(*whose, call.operation, call.status, call.provenance or "").inc()
        if call.error_type is not None:
            self.errors.labels(*whose, call.error_type).inc()
        if call.provenance == "replayed":
            self.hits.labels(call.cache_tier or OTHER).inc()
        if call.provenance == "live" and call.error_type != "CacheMiss":
            self.count_live(call, provider, model)
        elif call.saved_usd:
            self.saved.labels(*whose).inc(call.saved_usd)

    def count_live(self, call: CallRecord, provider: str, model: str) -> None:
        """Count what only an answer that was asked for now can tell."""
        whose = (provider, model)
        self.attempts.labels(*whose).inc(call.attempts)
        for histogram, seconds in ((self.total, call.total_s), (self.latency, call.latency_s), (self.first_token, call.ttft_s)):
            if seconds is not None:
                histogram.labels(*whose, call.operation).observe(seconds)
        for kind, tokens in (("input", call.input_tokens), ("output", call.output_tokens)):
            if tokens is not None:
                self.tokens.labels(*whose, kind).inc(tokens)
        if call.cost_usd is not None:
            self.cost.labels(*whose).inc(max(call.cost_usd, 0.0))
        for reason, waited in (("limiter", call.limiter_wait_s), ("retry", call.retry_sleep_s)):
            self.waited.labels(*whose, reason).inc(waited or 0.0)
