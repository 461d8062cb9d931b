"""Caches: for anything (``Cache``, ``LRUCache``, ``memoize``), and for the answers of models (``ResponseCache``)."""

from .memory import Cache, CacheStats, LRUCache
from .tiers import ResponseCache

__all__ = ["Cache", "CacheStats", "LRUCache", "ResponseCache"]
