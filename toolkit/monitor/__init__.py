"""The monitor: what happened, kept in a journal and shown in frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frames import cache_stats, calls, errors, percentiles

__all__ = ["cache_stats", "calls", "errors", "percentiles"]


def __getattr__(name: str) -> Any:  # whatever the name stands for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import frames

    return getattr(frames, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
