"""Caches: for anything (``Cache``, ``LRUCache``, ``memoize``), and for the answers of models (``ResponseCache``)."""

from .memoize import memoize
from .memory import Cache, CacheStats, LRUCache
from .shared import cache_keys, model_cache, session_cache, user_cache
from .sweeper import start_cleanup, stop_cleanup
from .tiers import ResponseCache

__all__ = [
    "Cache",
    "CacheStats",
    "LRUCache",
    "ResponseCache",
    "cache_keys",
    "memoize",
    "model_cache",
    "session_cache",
    "start_cleanup",
    "stop_cleanup",
    "user_cache",
]
