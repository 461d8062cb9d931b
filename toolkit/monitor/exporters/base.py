"""What an exporter is, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..events import CallRecord, ErrorRecord
from ..outcomes import Outcome

__all__ = ["CallExport", "Exporter", "export_of", "host_and_port", "wire_model"]


class CallExport(NamedTuple):
    """One finished or failed call, as exporters get it.

    Attributes
    ----------
    call : CallRecord
        The journal's row of the call, without prompt and answer.
    error : ErrorRecord or None
        The journal's row of its error.
    outcome : Outcome
        The call itself: options, gaps between tokens, and the words. ``outcome.record_content`` says whether words may be kept at all.
    parent : object or None
        The OpenTelemetry ``SpanContext`` that was current where the call ended, if any exporter asked for it (``follows_spans``).
    """

    call: CallRecord
    error: ErrorRecord | None
    outcome: Outcome
    parent: Any = None  # opentelemetry's type, which may not be installed


class Exporter(Protocol):
    """Something that records are sent to. All of it runs on one thread of its own, never on a caller's.

    What it raises is contained: the first time of each trouble gives one warning in the log ``toolkit.exporters``. An exporter with
    an attribute ``follows_spans`` that is true is told the caller's OpenTelemetry span.
    """

    def export(self, records: Sequence[CallExport | ErrorRecord]) -> None:
        """Take some records, the oldest first: calls, and errors that the error tracker was given."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Send what waits; return whether all of it is out."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; nothing is exported afterwards."""
        ...


def export_of(outcome: Outcome, parent: object = None) -> CallExport:
    """Make of a call what exporters get."""
    error = outcome.error_row(outcome.error) if outcome.error is not None else None
    return CallExport(outcome.call_row(content=False), error, outcome, parent)


def wire_model(call: CallRecord) -> str:
    """Return the provider's own name of a call's model."""
    return call.model.partition("/")[2] or call.model


def host_and_port(base_url: str | None) -> tuple[str, int] | None:
    """Return where a call went; ``None`` for a model in this process, whose address is one that can't exist.

    Examples
    --------
    >>> host_and_port("https://api.cohere.com/v2"), host_and_port("http://127.0.0.1:11434"), host_and_port("http://scripted.invalid/v1")
    (('api.cohere.com', 443), ('127.0.0.1', 11434), None)
    """
    from urllib.parse import urlsplit

    try:
        address = urlsplit(base_url or "")
        host, port = address.hostname, address.port
    except ValueError:
        return None
    if not host or host.endswith(".invalid"):
        return None
    return host, port or (443 if address.scheme == "https" else 80)
