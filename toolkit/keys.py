"""The cache key of a request: everything that is sent, minus a named list.

Allow-lists rot: a field that nobody thought of would give two questions one answer. So the key covers the whole wire request
(method, address, every body field, every header that is not on the list) and the number of the repeat.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LEFT_OUT_BODY", "LEFT_OUT_HEADERS", "SCHEMA_VERSION", "Wire", "canonical", "digest", "key_of"]

SCHEMA_VERSION = 1
"""Part of every key; raised when the stored shape of an answer changes."""

LEFT_OUT_BODY = frozenset({"stream", "stream_options", "keep_alive", "ttl"})
"""How an answer travels and how long a model stays loaded; neither changes the answer."""

LEFT_OUT_HEADERS = frozenset(
    {"authorization", "api-key", "x-api-key", "x-goog-api-key", "accept", "accept-encoding", "content-type", "user-agent", "connection"}
)
"""Secrets, and how the bytes travel."""


ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Wire:
    """A request as it goes over the wire, before it is one: plain data, cheap to make, all a key needs."""

    method: str
    url: str
    body: Mapping[str, Any]  # JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def canonical(value: Any) -> str:  # any JSON value
    """Return the one JSON text of a value: properties sorted, no spaces, no NaN."""
    return ENCODER.encode(value)


def digest(text: str) -> str:
    """Return the sha256 of a text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def key_of(wire: Wire, repeat: int = 0, operation: str = "text") -> str:
    """Return the cache key of a request.

    ``operation`` is what the caller makes of the answer: the same request can be asked for its words and for its pictures.

    Raises
    ------
    ValueError, TypeError
        If the body is not JSON (NaN, or an object json does not know).
    """
    body = {name: value for name, value in wire.body.items() if name not in LEFT_OUT_BODY}
    headers = sorted((n.lower(), v) for n, v in wire.headers.items() if n.lower() not in LEFT_OUT_HEADERS) if wire.headers else ()
    return digest(canonical((SCHEMA_VERSION, operation, wire.method, wire.url, body, headers, repeat)))
