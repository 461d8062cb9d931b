"""The monitor: what happened, kept in a journal and shown in frames; a logger, an error tracker and a performance monitor."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporters import export_to, flush_exports
    from .frames import cache_history, cache_stats, calls, errors, log_entries, percentiles
    from .logs import LogEntry, Logger, logger
    from .marks import annotate
    from .performance import MetricStats, PerformanceMonitor, performance_monitor, with_performance_monitoring
    from .tracker import ErrorReport, ErrorTracker, error_tracker, with_error_tracking

__all__ = [
    "ErrorReport",
    "ErrorTracker",
    "LogEntry",
    "Logger",
    "MetricStats",
    "PerformanceMonitor",
    "annotate",
    "cache_history",
    "cache_stats",
    "calls",
    "error_tracker",
    "errors",
    "export_to",
    "flush_exports",
    "log_entries",
    "logger",
    "percentiles",
    "performance_monitor",
    "with_error_tracking",
    "with_performance_monitoring",
]

HOMES = {
    **dict.fromkeys(("export_to", "flush_exports"), "exporters"),
    **dict.fromkeys(("cache_history", "cache_stats", "calls", "errors", "log_entries", "percentiles"), "frames"),
    "annotate": "marks",
    **dict.fromkeys(("LogEntry", "Logger", "logger"), "logs"),
    **dict.fromkeys(("MetricStats", "PerformanceMonitor", "performance_monitor", "with_performance_monitoring"), "performance"),
    **dict.fromkeys(("ErrorReport", "ErrorTracker", "error_tracker", "with_error_tracking"), "tracker"),
}


def __getattr__(name: str) -> Any:  # whatever the name stands for
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
