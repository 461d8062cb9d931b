"""Names for errors of one kind, so that a thousand failures with one cause are one group."""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType, TracebackType

from ..errors import ProviderError
from .redaction import redact_text, text_of

__all__ = ["FINGERPRINT_VERSION", "fingerprint"]

FINGERPRINT_VERSION = 2
"""Part of what is hashed: a change of the scheme makes new groups, and never mixes them with the old ones."""


def fingerprint(error: BaseException) -> str:
    """Return a name for errors of one kind: same type, same place in the code, same message but for its values.

    Twelve hex digits, the same in every process and on every machine. The place is the innermost function of the user's or of the
    toolkit's; what libraries do inside is their affair, and differs from version to version. Line numbers don't count: an edit above
    must not move the group. Of a provider's error the provider and the status count too.

    Examples
    --------
    >>> fingerprint(ValueError("row 17 of 'a.csv'")) == fingerprint(ValueError("row 4 of 'b.csv'"))
    True
    """
    status = error.status if isinstance(error, ProviderError) else None
    provider = error.provider if isinstance(error, ProviderError) else None
    place, message = code_place(error.__traceback__), without_values(text_of(error))
    parts = (FINGERPRINT_VERSION, type(error).__name__, provider, status, place, message)
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:12]


def code_place(trace: TracebackType | None) -> str:
    """Name the innermost function of a traceback that is the user's or ours; where there is none, the innermost of all."""
    known = innermost = None
    while trace is not None:
        innermost = trace.tb_frame.f_code
        if not is_library(innermost.co_filename):
            known = innermost
        trace = trace.tb_next
    code = known or innermost
    return "" if code is None else f"{_file_of(code)}:{code.co_qualname}"


def _file_of(code: CodeType) -> str:
    """A file without its folder, which differs between machines; a cell's file differs between runs and has none."""
    if _in_cell(code.co_filename):
        return "<cell>"
    return os.path.basename(code.co_filename)  # noqa: PTH119 - a plain string, often


def _in_cell(file: str) -> bool:
    return file.startswith("<") or re.search(r"[\\/]ipykernel_\d+[\\/]", file) is not None


@lru_cache(maxsize=1024)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package other than this one. The monitor's wrappers stand around all and count as such."""
    if file.startswith(_OURS):
        return file.startswith(_WRAPPERS)
    if file.startswith("<"):
        return file.startswith("<frozen")
    return file.startswith(_library_folders()) or "site-packages" in file or "dist-packages" in file


_OURS = str(Path(__file__).parents[1]) + os.sep
_WRAPPERS = str(Path(__file__).parent) + os.sep


@cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] + os.sep for name in ("stdlib", "platstdlib")})


def without_values(message: str) -> str:
    """Replace what differs from case to case: secrets, quoted words, addresses' ends, ids, numbers."""
    message = redact_text(message[:2000])
    message = re.sub(r"(?<!\w)'[^'\n]*'(?!\w)|\"[^\"\n]*\"", "'…'", message)
    message = re.sub(r"\b(?=[a-zA-Z_]*\d)\w{8,}\b|\b[0-9a-fA-F]{8,}\b", "…", message)  # request ids, hashes, addresses in memory
    return re.sub(r"\d+(\.\d+)?", "N", message)[:300]
