"""Taking secrets out of what is logged, recorded or exported: by the name of a field and by the shape of a value.

A secret without a name and without a known shape (a bare password in a sentence) can't be told from a word; nothing here finds it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import numbers
import re
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["REDACTED", "SecretFilter", "guard_httpx", "is_secret_name", "message_of", "redact", "redact_text", "stack_of", "text_of"]

REDACTED = "[redacted]"

TEXT_LIMIT = 8_000
MESSAGE_LIMIT = 2_000
STACK_LIMIT = 8_000
MAX_DEPTH = 6
MAX_VALUES = 1_000
"""Of a nested structure in all, so that a context can't fill the memory."""

_SECRET_WORDS = re.compile(
    r"apikey|authorization|passw(?:or)?d|passphrase|secret|credential|cookie|privatekey|accesskey|accountkey|subscriptionkey|signingkey"
    r"|(?:token|bearer|auth|pwd|jwt|sessionid)$"
)
_QUERY_NAMES = {"key", "sig", "signature", "code", "xamzsignature", "xgoogsignature"}
"""Secret in an address, where they are too short or too common to be so elsewhere."""


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether what stands under a name is a secret: ``api_key``, ``Authorization``, ``refreshToken``; not ``max_tokens``.

    Examples
    --------
    >>> [name for name in ("OPENAI_API_KEY", "x-goog-api-key", "max_tokens", "tokenizer", "Set-Cookie") if is_secret_name(name)]
    ['OPENAI_API_KEY', 'x-goog-api-key', 'Set-Cookie']
    """
    return _SECRET_WORDS.search(_squeezed(name)) is not None


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name[:200].lower())


_HINTS = (
    "key", "token", "secret", "passw", "pwd", "passph", "credential", "authorization", "cookie", "bearer", "@",
    "sk-", "sk_", "rk_", "hf_", "aiza", "xai-", "r8_", "nvapi", "pplx", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat", "xox",
    "akia", "asia", "ya29", "eyj",
)  # fmt: skip
"""A text without any of these (in lower case) holds nothing that ``_SECRETS`` finds. Thirty searches for a word take 1.5 µs, one for an
alternative of thirty takes ten times that."""

_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))"  # also after an escaped line end, and in an encoded address
_SHAPES = (
    r"sk-[\w-]{8,}|[srp]k_(?:live|test)_\w{8,}|hf_[A-Za-z0-9]{16,}|gsk_\w{16,}|xai-[\w-]{16,}|r8_\w{16,}|nvapi-[\w-]{16,}|pplx-\w{16,}"
    r"|AIza[\w-]{20,}|gh[opusr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|ya29\.[\w-]{16,}|eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*)*"
)
_FIELDS = (
    r"(?:api|access|secret|private|subscription|account|signing)[_ -]?key|(?:access|refresh|auth|api|id|session|security|csrf)[_ -]?token"
    r"|secret|password|passwd|pwd|passphrase|credentials?|authorization|cookie"
)
_NO_VALUE = r"(?:none|null|not|is|missing|required|invalid|empty|unset|must|was)\.?(?:[\s,;:!)}\]]|\Z)|\[redacted\]"
"""Words of a sentence about a secret: "api_key: missing" stays readable."""

_AMONG_WORDS = r"""(?:(?<=,\ ["']token)|(?<=,["']token))(?-i:["'],\s*["'][a-z_-]{1,15}["'])"""
"""A bare "token" in the middle of a list of words is one of them where a word follows; as a pair's first, it names a secret."""

_QUOTED = r"""\\["'][^"'\n]*["']?|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?"""
_SECRETS = re.compile(
    rf"""(?P<pem>-----BEGIN[A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END[A-Z ]*PRIVATE\ KEY-----|\Z))
    |(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{{1,20}}://)[^\s/?\#"'<>]+(?=@)
    |(?P<jar>(?i:cookie)\s*[:=]\s*+)(?!{_NO_VALUE})(?!\\?["'])[^\r\n"']+
    |(?P<field>(?i:{_FIELDS}|(?<![A-Za-z])token(?=["'=])(?!{_AMONG_WORDS}))(?:\\?["']?\s*[:=]\s*+|["'],\s*(?=b?["'])))
     (?!(?i:{_NO_VALUE}))(?P<value>b?(?:{_QUOTED})|(?i:(?:bearer|basic|token|digest)\s+)?[^\s,;&"'<>]+)
    |(?P<bearer>(?i:\bbearer)\s+)(?![a-z]{{1,15}}(?:[,;:!?)\]]|\.?(?:\s|$)))[\w.~+/=-]{{6,}}
    |{_START}(?:{_SHAPES})""",
    re.VERBOSE,
)
_QUERY = re.compile(r"(?P<before>[?&])(?P<name>[\w.%-]{1,64})=(?!\[redacted\])(?P<value>[^&\s#\"'<>]+)")


def redact_text(text: str) -> str:
    """Return a text without the secrets that can be told by their shape or by the name before them.

    Found are keys of the usual services (``sk-…``, ``hf_…``, ``AIza…``, ``AKIA…`` and more), ``Bearer`` tokens, JSON web tokens, private
    keys, passwords in addresses, secret parameters of addresses, and ``api_key=…``, ``"password": …`` and the like.

    Examples
    --------
    >>> redact_text("POST https://me:pw@example.org/v1?key=abc&alt=sse failed")
    'POST https://[redacted]@example.org/v1?key=[redacted]&alt=sse failed'
    >>> redact_text("Authorization: Bearer abcdef123456")
    'Authorization: [redacted]'
    """
    if "=" in text and ("?" in text or "&" in text):
        text = _QUERY.sub(_without_parameter, text)
    lowered = text.lower()
    for hint in _HINTS:
        if hint in lowered:
            return _SECRETS.sub(_without_secret, text)
    return text


def _without_parameter(found: re.Match[str]) -> str:
    name = found["name"]
    if is_secret_name(name) or _squeezed(name) in _QUERY_NAMES:
        return f"{found['before']}{name}={REDACTED}"
    return found[0]


def _without_secret(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind == "value":
        quoted = re.match(r"b?(\\?[\"'])", found["value"])
        mark = quoted[1] if quoted else ""
        return f"{found['field']}{mark}{REDACTED}{mark}"
    return f"{found[kind]}{REDACTED}" if kind in ("scheme", "jar", "bearer") else REDACTED


def redact(value: object, name: str | None = None) -> Any:  # what JSON can hold: None, bool, int, float, str, list, dict
    """Return a copy of a value as plain JSON data, without secrets, and bounded in depth and size.

    Parameters
    ----------
    value : object
        Mappings, sequences, sets and dataclasses become dicts and lists; anything else that is no number becomes its text.
    name : str, optional
        Under which name the value stands: what stands under a secret one is replaced whole.

    Examples
    --------
    >>> redact({"model": "m", "headers": {"x-api-key": "123"}, "max_tokens": 5})
    {'model': 'm', 'headers': {'x-api-key': '[redacted]'}, 'max_tokens': 5}
    """
    return _Redaction().plain(value, name, MAX_DEPTH)


class _Redaction:
    """One structure on its way to plain data; ``left`` is how many more values it may have."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def plain(self, value: object, name: str | None, depth: int) -> Any:
        self.left -= 1
        if value is None or isinstance(value, bool):
            return value
        if name is not None and is_secret_name(name) and not isinstance(value, float):  # time_to_first_token=0.3
            return REDACTED
        if isinstance(value, str):
            return redact_text(str(value[:TEXT_LIMIT]))
        try:
            return _number(value) if isinstance(value, numbers.Real) else self.plain_object(value, depth)
        except Exception:  # noqa: BLE001 - a stranger's mapping or number; recording must not break the work it watches
            return f"<{type(value).__name__} that can't be read>"

    def plain_object(self, value: object, depth: int) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if depth == 0 or self.left <= 0:
            return "…"
        if isinstance(value, Mapping):
            return self.plain_mapping(value.items(), depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.plain_mapping(((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)), depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self.plain_items(value, depth)
        return redact_text(text_of(value)[:TEXT_LIMIT])

    def plain_mapping(self, pairs: Iterable[tuple[object, object]], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if self.left <= 0:
                found["…"] = "cut"
                break
            name = text_of(key)[:200]
            found[redact_text(name)] = self.plain(value, name, depth - 1)
        return found

    def plain_items(self, items: Iterable[object], depth: int) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if self.left <= 0:
                found.append("…")
                break
            found.append(self.plain(item, None, depth - 1))
        return found


def _number(value: numbers.Real) -> int | float | str:
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return whole if whole.bit_length() <= 256 else f"<integer of {whole.bit_length()} bits>"
    number = float(value)
    return number if math.isfinite(number) else str(number)  # JSON has no word for the others


def text_of(value: object) -> str:
    """Return the text of anything, also of what can't say it."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a stranger's __str__; its type is all that is known then
        return f"<{type(value).__name__} without a text>"


def message_of(error: BaseException) -> str:
    """Return an error's message without secrets, at most 2,000 characters."""
    return redact_text(text_of(error)[:TEXT_LIMIT])[:MESSAGE_LIMIT]


def stack_of(error: BaseException) -> str:
    """Return an error's traceback with its causes, without secrets; of a long one the last 8,000 characters, where the error is."""
    whole = "".join(traceback.format_exception(error))
    # Secrets first and the cut second: half of a key has no shape.
    return redact_text(whole[-4 * STACK_LIMIT :])[-STACK_LIMIT:]


class SecretFilter(logging.Filter):
    """Takes secrets out of log records: out of the message, and out of the traceback as the usual formatters print it.

    The exception itself stays on the record as it is, for handlers that send it on: those have their own ways.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that don't fit: logging itself reports that, where the record is printed
            return True
        clean = redact_text(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            stack = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (clean := redact_text(stack)) != stack:
                record.exc_text = clean
        return True


_HTTPX_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")
_secret_filter = SecretFilter()


def guard_httpx() -> None:
    """Keep keys out of httpx's own log lines, of all clients in this process.

    httpx logs every request with its whole address, ``?key=…`` included. The filter sits on httpx's loggers, where a line starts, so that
    every handler gets the clean one; levels, handlers and the root logger stay as they are. Doing it twice does nothing more.
    """
    for name in _HTTPX_LOGGERS:
        logging.getLogger(name).addFilter(_secret_filter)
