"""Compare language models in a notebook: a correct cache, honest timing, paired statistics.

>>> import toolkit as tk
>>> tk.generate_text("scripted/echo", "Hello").text
'Hello'

Everything is loaded on first use; importing this package opens no file, no socket and no thread.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "Comparison",
    "Completion",
    "Health",
    "Image",
    "ImagePart",
    "ImageResult",
    "Judge",
    "Message",
    "Model",
    "ModelInfo",
    "Price",
    "PullProgress",
    "Retry",
    "StreamEvent",
    "TextPart",
    "Timing",
    "ToolCall",
    "Usage",
    "acompare",
    "cache",
    "charts",
    "compare",
    "delete_model",
    "errors",
    "estimate_cost",
    "generate_image",
    "generate_text",
    "health_check",
    "list_models",
    "load_comparison",
    "load_model",
    "monitor",
    "playground",
    "pull_model",
    "replay",
    "setup",
    "show_model",
    "stats",
    "stream_text",
    "testing",
    "unload_model",
]

if TYPE_CHECKING:
    from . import cache, charts, errors, monitor, stats, testing
    from .client import AsyncClient, Client
    from .comparison.capsule import load_comparison, replay
    from .comparison.comparison import Comparison
    from .comparison.grid import Model
    from .comparison.judge import Judge
    from .defaults import (
        acompare,
        compare,
        delete_model,
        estimate_cost,
        generate_image,
        generate_text,
        health_check,
        list_models,
        load_model,
        pull_model,
        show_model,
        stream_text,
        unload_model,
    )
    from .defaults import playground as playground
    from .defaults import setup as setup
    from .pricing import Price
    from .types import (
        Completion,
        Health,
        Image,
        ImagePart,
        ImageResult,
        Message,
        ModelInfo,
        PullProgress,
        StreamEvent,
        TextPart,
        Timing,
        ToolCall,
        Usage,
    )
    from .wire.retry import Retry

MODULES = {"cache", "charts", "errors", "monitor", "stats", "testing"}
HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "Comparison": "comparison.comparison",
    "Judge": "comparison.judge",
    "Model": "comparison.grid",
    "Price": "pricing",
    "Retry": "wire.retry",
    "load_comparison": "comparison.capsule",
    "replay": "comparison.capsule",
    **dict.fromkeys(
        (
            "Completion",
            "Health",
            "Image",
            "ImagePart",
            "ImageResult",
            "Message",
            "ModelInfo",
            "PullProgress",
            "StreamEvent",
            "TextPart",
            "Timing",
            "ToolCall",
            "Usage",
        ),
        "types",
    ),
    **dict.fromkeys(
        (
            "acompare",
            "compare",
            "delete_model",
            "estimate_cost",
            "generate_image",
            "generate_text",
            "health_check",
            "list_models",
            "load_model",
            "pull_model",
            "show_model",
            "playground",
            "pull_model",
            "setup",
            "stream_text",
            "unload_model",
        ),
        "defaults",
    ),
}


def __getattr__(name: str) -> Any:  # one of the names above, each of its own type
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
