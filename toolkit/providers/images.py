"""Pictures on the wire: base64 and data addresses to bytes, and what kind of picture some bytes are."""

from __future__ import annotations

import base64
import re
from typing import Any

from ..types import Image

__all__ = ["read_base64", "read_data_url", "read_picture"]

MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def read_picture(data: bytes, claimed: str | None = None) -> Image | None:
    """Make an image of bytes; ``None`` where they are none.

    Their first bytes go before what the service claims: many label everything PNG. An unknown kind keeps its claimed ``image/...``.

    Examples
    --------
    >>> read_picture(b"GIF89a", "image/png").mime, read_picture(b'{"error": "x"}', "application/json")
    ('image/gif', None)
    """
    mime = kind_of(data) or claimed_type(claimed)
    return Image(data=data, mime=mime) if mime and data else None


def kind_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in MAGIC.items() if data.startswith(magic)), None)


def claimed_type(claimed: str | None) -> str | None:
    found = re.match(r"image/[a-z0-9.+-]+", (claimed or "").strip().lower())
    return found.group() if found else None


def read_base64(text: Any, claimed: str | None = None) -> Image | None:  # any JSON
    """Make an image of base64 text; PNG is what services send that don't say."""
    if not isinstance(text, str):
        return None
    if text.startswith("data:"):
        return read_data_url(text)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return read_picture(data, claimed or "image/png")


def read_data_url(address: Any) -> Image | None:  # any JSON
    """Make an image of ``data:image/png;base64,...``; ``None`` for any other address."""
    if not isinstance(address, str) or not address.startswith("data:"):
        return None
    kind, comma, payload = address.removeprefix("data:").partition(",")
    return read_base64(payload, kind) if comma and kind.endswith(";base64") and claimed_type(kind) else None
