"""Caches that a whole program shares, and the names of what goes into them."""

from __future__ import annotations

from typing import Any

from .memory import Cache, LRUCache

__all__ = ["CacheKeys", "cache_keys", "model_cache", "session_cache", "user_cache"]

model_cache: Cache[str, Any] = Cache(100, 600)  # of whatever users keep
"""About models: 100 entries, ten minutes."""

user_cache: Cache[str, Any] = Cache(500, 300)
"""About users: 500 entries, five minutes."""

session_cache: LRUCache[str, Any] = LRUCache(200, 1800)
"""About sessions: 200 entries, half an hour; the longest unused goes first."""


class CacheKeys:
    """Keys that don't get into each other's way.

    Examples
    --------
    >>> cache_keys.model("ollama/llama3.2:1b")
    'model:ollama/llama3.2:1b'
    """

    def model(self, id: str) -> str:
        return f"model:{id}"

    def user(self, id: str) -> str:
        return f"user:{id}"

    def session(self, id: str) -> str:
        return f"session:{id}"

    def health(self, provider: str) -> str:
        return f"health:{provider}"


cache_keys = CacheKeys()
"""Names for what goes into these caches."""
