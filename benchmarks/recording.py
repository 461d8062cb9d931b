"""What it costs to note that a call happened: on the caller's thread, and all in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .measure import Contestant, Goal, Place, Reading, Run, Table
from .one_call import journal_in

BLOCK = 1_000
"""Rows appended before the journal is flushed, so that nothing but this benchmark decides how much waits."""


def outcomes_of(place: Place) -> list[Any]:
    """Real outcomes of real calls."""
    import toolkit as tk
    from toolkit.client import Options

    kept: list[Any] = []
    with tk.Client(cache=False, journal=False) as client:
        for i in range(BLOCK):
            client.ask("scripted/echo", f"prompt {i}", Options(), cache=False, observe=kept.append)
    return kept


def our_journal(place: Place, *, caller_only: bool) -> Iterator[Run]:
    from toolkit.monitor.journal import Journal

    outcomes, journal = outcomes_of(place), Journal(journal_in(place, "recording"))
    serial = 0

    def run(n: int) -> Reading | None:
        nonlocal serial
        cpu_s = wall_s = 0.0
        for _ in range(n):
            for outcome in outcomes:
                serial += 1
                outcome.call_id = f"call-{serial}"  # the same id twice is one row
            append = journal.append
            cpu, wall = time.thread_time(), time.perf_counter()
            for outcome in outcomes:
                append(outcome)
            cpu_s += time.thread_time() - cpu
            wall_s += time.perf_counter() - wall
            journal.flush()
        return Reading(cpu_s / n / BLOCK, wall_s / n / BLOCK) if caller_only else None

    yield run
    journal.close()


class Sink:
    """An exporter that throws away what it is given."""

    def export(self, records: Sequence[Any]) -> None: ...

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None: ...


def telling_exporters(place: Place, *sinks: Sink) -> Iterator[Run]:
    from toolkit.monitor.exporters import export_to, flush_exports
    from toolkit.monitor.exporters.switch import exporting

    outcomes = outcomes_of(place)
    export_to(*sinks)
    tell = exporting(None)

    def run(n: int) -> Reading:
        cpu_s = wall_s = 0.0
        for _ in range(n):
            cpu, wall = time.thread_time(), time.perf_counter()
            for outcome in outcomes:
                tell(outcome)
            cpu_s += time.thread_time() - cpu
            wall_s += time.perf_counter() - wall
            flush_exports()
        return Reading(cpu_s / n / BLOCK, wall_s / n / BLOCK)

    yield run
    export_to()


def exporters_off(place: Place) -> Iterator[Run]:
    return telling_exporters(place)


def three_exporters(place: Place) -> Iterator[Run]:
    return telling_exporters(place, Sink(), Sink(), Sink())


def prometheus(place: Place) -> Iterator[Run]:
    from prometheus_client import CollectorRegistry, Histogram

    seconds = Histogram("call_seconds", "Seconds a call took", ["provider", "model", "status"], registry=CollectorRegistry())

    def run(n: int) -> None:
        for _ in range(n * BLOCK):
            seconds.labels("openai", "bench", "ok").observe(0.8)

    yield run


def span(place: Place) -> Iterator[Run]:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("bench")

    def run(n: int) -> None:
        for _ in range(n * BLOCK):
            with tracer.start_as_current_span("chat bench") as made:
                made.set_attribute("gen_ai.operation.name", "chat")
                made.set_attribute("gen_ai.request.model", "bench")
                made.set_attribute("gen_ai.usage.input_tokens", 12)
                made.set_attribute("gen_ai.usage.output_tokens", 50)

    yield run


def log_line(place: Place) -> Iterator[Run]:
    import logging
    from pathlib import Path

    handler = logging.FileHandler(Path(place.folder, "calls.log"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.Logger("bench")
    logger.addHandler(handler)

    def run(n: int) -> None:
        for _ in range(n * BLOCK):
            logger.info("call of %s took %.3f s, %d tokens", "bench", 0.8, 50)

    yield run
    handler.close()


CALLER, ALL_IN = "journal, caller's thread", "journal, all in"
OFF, ON = "exporters, all off", "three exporters, caller's thread"
PROMETHEUS, SPAN = "prometheus_client labels + observe", "OpenTelemetry span, exported nowhere"


def tables() -> tuple[Table, ...]:
    return (
        Table(
            title="What does it cost to record a call?",
            operation="row",
            reference=PROMETHEUS,
            about="The span has four attributes and goes nowhere; the journal's row is on disk when the round ends.",
            contestants=(
                Contestant(PROMETHEUS, prometheus, ("prometheus-client",), per=BLOCK),
                Contestant(SPAN, span, ("opentelemetry-sdk",), per=BLOCK),
                Contestant("logging to a file", log_line, per=BLOCK),
                Contestant(CALLER, partial(our_journal, caller_only=True), ("model-comparison-toolkit",), per=BLOCK),
                Contestant(ALL_IN, partial(our_journal, caller_only=False), per=BLOCK),
                Contestant(OFF, exporters_off, per=BLOCK),
                Contestant(ON, three_exporters, per=BLOCK),
            ),
            goals=(
                Goal("recording on the caller's thread", CALLER, PROMETHEUS, 2.0),
                Goal("recording all in", ALL_IN, SPAN, 1.0),
                Goal("exporters that are off", OFF, PROMETHEUS, 0.05),
                Goal("three exporters on the caller's thread", ON, PROMETHEUS, 2.0),
            ),
        ),
    )
