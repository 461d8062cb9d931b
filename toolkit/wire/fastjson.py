"""Reading JSON from a network: by orjson where it is installed, else by the standard library, with the same outcome.

What other people's servers send is not always JSON to the letter, and an answer should not be lost over it: bytes that are not UTF-8 read
as U+FFFD, and ``NaN`` and the infinities, which JSON does not have, read as ``None``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["loads"]


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
        If it is not JSON.

    Examples
    --------
    >>> loads(b'{"logprob": NaN, "token": "\\xff"}')
    {'logprob': None, 'token': '\ufffd'}
    """
    try:
        return strict_loads(data)
    except ValueError:
        return loads_leniently(data)
