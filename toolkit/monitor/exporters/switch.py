"""Which exporters are on, for the whole process. With none, telling of a call costs a look at an empty tuple."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections.abc import Callable
from importlib import import_module

from ... import settings
from ...errors import ConfigError
from ..events import ErrorRecord
from ..forks import Locked
from ..outcomes import Outcome
from .base import Exporter
from .outlet import Outlet, Told

__all__ = ["EXPORTERS", "export_to", "exporting", "flush_exports", "reset", "switch_on_as_set", "tell_error"]

EXPORTERS = {
    "otel": "opentelemetry:OpenTelemetryExporter",
    "prometheus": "prometheus:PrometheusExporter",
    "sentry": "sentry:SentryExporter",
}
"""The names that ``export_to`` and ``TOOLKIT_EXPORTERS`` know; each is also the name of its extra."""

EXIT_S = 5.0
"""How long the end of a process waits for what is still to be sent."""

_log = logging.getLogger("toolkit.exporters")


class _Switch(Locked):
    """The exporters that are on. One tuple, replaced whole, so that calls read it without a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.outlets: tuple[Outlet, ...] = ()
        self.follows_spans = False
        self.decided = False  # by the program or, once, by the environment

    def replace(self, outlets: tuple[Outlet, ...]) -> tuple[Outlet, ...]:
        """Switch on these and no others; return those that were on and are not any more, for closing."""
        old = tuple(outlet for outlet in self.outlets if outlet not in outlets)
        self.outlets = outlets
        self.follows_spans = any(getattr(outlet.exporter, "follows_spans", False) for outlet in outlets)
        self.decided = True
        if outlets and (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
            # Worker processes leave without running atexit callbacks, but they do run these.
            multiprocessing.Finalize(None, _close_at_exit, exitpriority=0)
        return old


_switch = _Switch()


def export_to(*exporters: str | Exporter) -> None:
    """Send every call of this process, and every tracked error, to these exporters, and to no others.

    What was on and is named again goes on as it is, so that a notebook's cell can be run twice. Without any, exporting ends. Of what is
    switched off, what still waits is sent before this returns, for five seconds at most. ``TOOLKIT_EXPORTERS`` (names with commas between)
    does the same at the first client, unless this was called before.

    Parameters
    ----------
    *exporters : str or Exporter
        ``"otel"``, ``"sentry"``, ``"prometheus"``, each set up by its own variables of the environment, or objects: those classes with arguments
        of your own, or anything with ``export``, ``flush`` and ``close``. See docs/exporters.md.

    Raises
    ------
    ConfigError
        If a name is unknown (the message lists the known ones), its extra is not installed, or a setting of it is missing. What was on
        stays on then.

    Examples
    --------
    >>> class Counter:
    ...     calls = 0
    ...     def export(self, records):
    ...         self.calls += len(records)
    ...     def flush(self, timeout_s):
    ...         return True
    ...     def close(self):
    ...         pass
    >>> import toolkit as tk
    >>> counter = Counter()
    >>> tk.monitor.export_to(counter)
    >>> _ = tk.generate_text("scripted/echo", "Hello")
    >>> tk.monitor.flush_exports(), counter.calls
    (True, 1)
    >>> tk.monitor.export_to()
    """
    with _switch._lock:
        _close(_switch.replace(_made(exporters)), EXIT_S)


def flush_exports(timeout_s: float = 10.0) -> bool:
    """Send what the exporters still hold; return whether all of it was sent in time.

    Examples
    --------
    >>> flush_exports()
    True
    """
    deadline = time.monotonic() + timeout_s
    errands = [outlet.flush(timeout_s) for outlet in _switch.outlets]  # all at once: one may be slow
    return all(errand.wait(max(deadline - time.monotonic(), 0.0)) for errand in errands)


def switch_on_as_set() -> None:
    """Switch on what ``TOOLKIT_EXPORTERS`` names, unless the program has decided itself.

    Raises
    ------
    ConfigError
        As ``export_to`` does.
    """
    if _switch.decided:
        return
    names = settings.exporters()
    with _switch._lock:
        if not _switch.decided:
            _switch.replace(_made(names))


def reset() -> None:
    """End exporting and forget that anything was decided: the next client reads the environment anew."""
    with _switch._lock:
        old = _switch.replace(())
        _switch.decided = False
        _close(old, EXIT_S)


def exporting(append: Callable[[Outcome], None] | None) -> Callable[[Outcome], None]:
    """Return what a client tells of each call: the journal's ``append``, if there is a journal, and the exporters that are on then."""

    def tell(outcome: Outcome) -> None:
        if append is not None:
            append(outcome)
        if _switch.outlets:
            _tell(Told(outcome, _current_span() if _switch.follows_spans else None))

    return tell


def tell_error(record: ErrorRecord) -> None:
    """Tell the exporters of an error that is no call's."""
    switch_on_as_set()
    if _switch.outlets:
        _tell(Told(record))


def _tell(told: Told) -> None:
    for outlet in _switch.outlets:
        outlet.put(told)


def _current_span() -> object:
    """The caller's OpenTelemetry span, where that library is in use at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def _made(exporters: tuple[str | Exporter, ...]) -> tuple[Outlet, ...]:
    """Make outlets of names and objects, but for those that are on; where one can't be made, those made before it are closed again."""
    found: list[Outlet] = []
    try:
        for each in exporters:
            running = next((outlet for outlet in (*found, *_switch.outlets) if _is_of(outlet, each)), None)
            found.append(running or (_named(each) if isinstance(each, str) else _given(each)))
    except BaseException:
        _close(tuple(outlet for outlet in found if outlet not in _switch.outlets), EXIT_S)
        raise
    return tuple(dict.fromkeys(found))


def _is_of(outlet: Outlet, exporter: str | Exporter) -> bool:
    if isinstance(exporter, str):
        return exporter in EXPORTERS and outlet.name == exporter
    return outlet.exporter is exporter


def _named(name: str) -> Outlet:
    if name not in EXPORTERS:
        raise ConfigError(f"no exporter is called {name!r}; there are {', '.join(EXPORTERS)}")
    module, _, attribute = EXPORTERS[name].partition(":")
    try:
        kind = getattr(import_module(f"{__package__}.{module}"), attribute)
    except ImportError as exc:
        raise ConfigError(f"the exporter {name!r} needs the extra: pip install 'model-comparison-toolkit[{name}]'") from exc
    return Outlet(name, kind())


def _given(exporter: Exporter) -> Outlet:
    if not all(callable(getattr(exporter, method, None)) for method in ("export", "flush", "close")) or isinstance(exporter, type):
        raise ConfigError(f"an exporter is one of {', '.join(EXPORTERS)} or has export, flush and close; got {type(exporter).__name__}")
    return Outlet(type(exporter).__name__, exporter)


def _close(outlets: tuple[Outlet, ...], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    errands = [outlet.close(timeout_s) for outlet in outlets]
    for outlet, errand in zip(outlets, errands):
        if not errand.wait(max(deadline - time.monotonic(), 0.0)):
            _log.warning("the exporter %s did not send everything in %g s", outlet.name, timeout_s)


def _close_at_exit() -> None:
    _close(_switch.replace(()), EXIT_S)


atexit.register(_close_at_exit)
