"""Reading JSON from a network: by orjson where it is installed, else by the standard library, with the same outcome.

What other people's servers send is not always JSON to the letter, and an answer should not be lost over it: bytes that are not UTF-8 read
as U+FFFD, and ``NaN`` and the infinities, which JSON does not have, read as ``None``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["check_depth", "loads"]

MAX_DEPTH = 200
"""What is nested more deeply would exhaust the stack of whoever walks over it, prints it or writes it down."""


def loads_leniently(data: bytes | str) -> Any:  # any JSON
    """Read JSON with the standard library; see ``loads``."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return DECODER.decode(text)
    except RecursionError as exc:
        raise ValueError("JSON nested too deeply") from exc


def unknown(_: str) -> None:
    """``NaN`` says that a number is not known, and so does ``None``."""


DECODER = json.JSONDecoder(parse_constant=unknown)  # json.loads would make one for each text

strict_loads: Callable[[bytes | str], Any] = loads_leniently
try:
    import orjson
except ImportError:
    pass
else:
    strict_loads = orjson.loads


def loads(data: bytes | str) -> Any:  # any JSON
    """Read a JSON text.

    Raises
    ------
    ValueError
        If it is not JSON, or nested more than 200 levels deep.

    Examples
    --------
    >>> loads(b'{"logprob": NaN, "token": "\\xff"}')
    {'logprob': None, 'token': '\ufffd'}
    """
    try:
        value = strict_loads(data)
    except ValueError:
        value = loads_leniently(data)
    if len(data) > 2 * MAX_DEPTH and openings(data) > MAX_DEPTH:  # most texts can't be so deep, and looking at each value takes longer
        check_depth(value)
    return value


def openings(data: bytes | str) -> int:
    """How many lists and objects a text may begin: those in strings count too."""
    return data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")


def check_depth(value: Any) -> None:  # any JSON
    """Raise ``ValueError`` for a value that is nested too deeply."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for each in level if isinstance(each, dict | list) for child in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return
    raise ValueError("JSON nested too deeply")
