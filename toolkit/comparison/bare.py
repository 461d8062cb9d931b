"""Pictures without what is written beside them: a service's name, a prompt, a camera. What a blind vote may show."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..types import Image

__all__ = ["bare"]

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_LOOKS = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs")
"""Chunks beside the critical ones that change how a picture looks and hold numbers only."""
JPEG_LOOKS = (0xE0, 0xEE)  # JFIF, and Adobe's note on how colours are coded; the other applications' segments and comments go
WEBP_FLAGS = 0x20 | 0x08 | 0x04  # that a colour profile, EXIF and XMP are there
WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")


def bare(image: Image) -> Image | None:
    """Return a picture with nothing but its looks; ``None`` for a kind that is not taken apart here, or a damaged one."""
    strip = {"image/png": bare_png, "image/jpeg": bare_jpeg, "image/webp": bare_webp}.get(image.mime)
    if strip is None:
        return None
    try:
        data = strip(image.data)
    except (struct.error, ValueError, IndexError):
        return None
    return Image(data=data, mime=image.mime)


def bare_png(data: bytes) -> bytes:
    """PNG specification, third edition, section 5: length, type, data, CRC; a small first letter says that a chunk may be left out."""
    if not data.startswith(PNG_START):
        raise ValueError("no PNG")
    kept, at, kind = [PNG_START], len(PNG_START), b""
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise ValueError("cut")
        if kind[:1].isupper() or kind in PNG_LOOKS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def bare_jpeg(data: bytes) -> bytes:
    """ITU-T T.81, annex B: segments up to the first scan, then everything to the end marker."""
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("no JPEG")
    kept, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        marker, end = data[at + 1], at + 2 + length
        if data[at] != 0xFF or end > len(data):
            raise ValueError("cut")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in JPEG_LOOKS:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at : data.rindex(b"\xff\xd9") + 2]])


def bare_webp(data: bytes) -> bytes:
    """RFC 9649: a RIFF container, whose extended header says which notes are there."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("no WebP")
    body = b"".join(webp_chunks(data))
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_chunks(data: bytes) -> Iterator[bytes]:
    (size,) = struct.unpack_from("<I", data, 4)
    at, over = 12, 8 + size
    while at < over:
        (length,) = struct.unpack_from("<I", data, at + 4)
        kind, end = data[at : at + 4], at + 8 + length + length % 2
        if end > len(data):
            raise ValueError("cut")
        if kind == b"VP8X":
            yield data[at : at + 8] + bytes([data[at + 8] & ~WEBP_FLAGS]) + data[at + 9 : end]
        elif kind in WEBP_CHUNKS:
            yield data[at:end]
        at = end
