"""Sentry: each failed call and each tracked error as an event, without words of prompts or answers and without values of variables.

A client of our own sends them. A program's own Sentry stays as it is, and nothing of it (user, breadcrumbs, integrations) gets in here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, cast

import sentry_sdk
from sentry_sdk.types import Event
from sentry_sdk.utils import BadDsn, Dsn

from ... import settings
from ...errors import ConfigError
from ...hints import next_step
from ..events import ErrorRecord
from ..fingerprints import is_library
from .base import CallExport, host_and_port, wire_model

__all__ = ["SentryExporter"]

NO_FAILURES = {"CacheMiss", "CancelledError", "GeneratorExit", "KeyboardInterrupt", "ReaderLeft", "SystemExit"}
"""Somebody stopped, or asked for what is kept and nothing was: that is no fault."""

KEPT = (
    "event_id",
    "timestamp",
    "level",
    "platform",
    "exception",
    "fingerprint",
    "tags",
    "contexts",
    "release",
    "environment",
    "sdk",
    "logger",
)
"""All that leaves. The library adds to events by itself, and what it adds changes from version to version."""

FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
FRAMES = 100

Facts = dict[str, Any]  # plain JSON


class SentryExporter:
    """Sends errors to Sentry.

    Parameters
    ----------
    dsn : str, optional
        Where to; by default ``SENTRY_DSN``. ``SENTRY_ENVIRONMENT`` and ``SENTRY_RELEASE`` are read too.

    Raises
    ------
    ConfigError
        If there is no DSN or it is none, or it is of another machine with ``TOOLKIT_OFFLINE=1``.
    """

    def __init__(self, dsn: str | None = None) -> None:
        self._client = sentry_sdk.Client(
            dsn=checked(dsn or settings.variable("SENTRY_DSN")),
            environment=settings.variable("SENTRY_ENVIRONMENT"),
            release=settings.variable("SENTRY_RELEASE") or f"model-comparison-toolkit@{version('model-comparison-toolkit')}",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[],
            include_local_variables=False,
            include_source_context=False,
            attach_stacktrace=False,
            max_breadcrumbs=0,
            auto_session_tracking=False,
            send_client_reports=False,
            trace_propagation_targets=[],
            spotlight=False,
            server_name="",
            before_send=without_additions,
        )

    def export(self, records: Sequence[CallExport | ErrorRecord]) -> None:
        """Make an event of each error; calls that went well are left out."""
        for record in records:
            event = tracked_event(record) if isinstance(record, ErrorRecord) else call_event(record)
            if event is not None:
                self._client.capture_event(event)

    def flush(self, timeout_s: float) -> bool:
        """Send what waits. Whether it arrived the library does not tell."""
        self._client.flush(timeout=timeout_s)
        return True

    def close(self) -> None:
        """Stop the client's thread."""
        self._client.close(timeout=0)


def checked(dsn: str | None) -> str:
    if not dsn:
        raise ConfigError("the exporter 'sentry' needs to know where to: set SENTRY_DSN to the project's DSN")
    try:
        settings.check_online(f"https://{Dsn(dsn).host}", "Sentry")
    except BadDsn:
        raise ConfigError("SENTRY_DSN is no DSN: it looks like https://KEY@HOST/PROJECT, and the project's settings show it") from None
    return dsn


def without_additions(event: Event, _hint: Facts) -> Event:
    return cast("Event", {name: value for name, value in event.items() if name in KEPT})


def call_event(record: CallExport) -> Event | None:
    """Return the event of a failed call. A service's message can repeat the prompt, so our own words stand in its place."""
    call, error = record.call, record.error
    if error is None or error.type in NO_FAILURES:
        return None
    status = getattr(record.outcome.error, "status", None)
    where = host_and_port(call.base_url)
    said = f"{call.provider}: {error.type}" + (f" (HTTP {status})" if status is not None else "")
    tags = {"llm.provider": call.provider, "llm.model": wire_model(call), "llm.operation": call.operation, "llm.error_type": error.type}
    facts = {
        "call_id": call.call_id, "run_id": call.run_id, "request_id": call.request_id, "attempts": call.attempts, "status": status,
        "server": where and f"{where[0]}:{where[1]}", "total_s": call.total_s, "retry_sleep_s": call.retry_sleep_s, "next_step": next_step(error.type),
    }  # fmt: skip
    return event_of(error, said, tags | ({"llm.status": str(status)} if status is not None else {}), facts)


def tracked_event(error: ErrorRecord) -> Event | None:
    """Return the event of an error that the tracker was given: its message is the program's own."""
    if error.type in NO_FAILURES:
        return None
    return event_of(error, error.message, {"llm.error_type": error.type}, {"run_id": error.run_id, "call_id": error.call_id})


def event_of(error: ErrorRecord, message: str, tags: dict[str, str], facts: Facts) -> Event:
    exception: Facts = {"type": error.type, "value": message, "mechanism": {"type": "toolkit", "handled": True}}
    if frames := frames_of(error.stack):
        exception["stacktrace"] = {"frames": frames}
    return {
        "event_id": error.error_id,
        "timestamp": datetime.fromtimestamp(error.at, UTC),
        "level": "error",
        "platform": "python",
        "logger": "toolkit",
        "exception": {"values": [exception]},
        "fingerprint": ["toolkit", error.fingerprint],
        "tags": tags,
        "contexts": {"llm": {name: value for name, value in facts.items() if value is not None}},
    }


def frames_of(stack: str) -> list[Facts]:
    """Return the frames of a traceback's last exception, the innermost last: places only, for a line of code can hold a prompt.

    Examples
    --------
    >>> frames_of('Traceback (most recent call last):\\n  File "a.py", line 3, in ask\\n    ask("a secret")\\nValueError: no')
    [{'filename': 'a.py', 'lineno': 3, 'function': 'ask', 'in_app': True}]
    """
    last = stack.rpartition("Traceback (most recent call last):")[2]
    return [
        {
            "filename": re.split(r"[\\/]", found["file"])[-1],
            "lineno": int(found["line"]),
            "function": found["function"],
            "in_app": not is_library(found["file"]),
        }
        for found in FRAME.finditer(last)
    ][-FRAMES:]
