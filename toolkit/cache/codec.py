"""A kept answer as JSON text and back.

Text, not objects: a pickle is code, and these bytes may come from a disk or a server that others can write to. Fields that this
version does not know are ignored, so that an older toolkit reads what a newer one wrote; a field of the wrong type is an error.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, get_args

from ..errors import CacheError
from ..types import EventKind, FinishReason, Image, ImageReply, Kept, Reply, TokenLogprob, ToolCall, Usage
from .frozen import FrozenDict

__all__ = ["VERSION", "decode", "encode"]

VERSION = 1
"""Of the shape below; another one can't be read."""

Json = Any  # whatever json.loads gives
_NUMBER = (float, int)
_USAGE = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_input_tokens")
_FINISH_REASONS = frozenset(get_args(FinishReason))
_EVENT_KINDS = frozenset(get_args(EventKind))
_write_json = json.JSONEncoder(separators=(",", ":")).encode
_NOTHING: tuple[Json, ...] = (None, "", (), [], {})


def encode(kept: Kept) -> bytes:
    """Return the bytes that a store keeps.

    Raises
    ------
    CacheError
        If the answer holds something JSON has no word for.
    """
    row = {
        "v": VERSION,
        "at": kept.at,
        "latency_s": kept.latency_s,
        "ttft_s": kept.ttft_s,
        "ttfa_s": kept.ttfa_s,
        "pieces": kept.pieces,
        "cost_usd": kept.cost_usd,
        "price_date": kept.price_date,
        "reply": _reply_row(kept.reply),
    }
    try:
        return _write_json(_said(row)).encode("ascii")
    except (TypeError, ValueError, RecursionError) as exc:
        raise CacheError(f"this answer can't be kept as JSON: {exc}") from exc


def decode(data: bytes) -> Kept:
    """Return the answer that ``encode`` made into bytes.

    Raises
    ------
    CacheError
        If the bytes are not such an answer, or one of another version.
    """
    try:
        row = json.loads(data)
        if row["v"] != VERSION:
            raise CacheError(f"this answer was kept in version {row['v']!r} of the format; this toolkit reads version {VERSION}")
        return _read_kept(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise CacheError(f"a kept answer can't be read: {type(exc).__name__}: {exc}") from exc


def _reply_row(reply: Reply | ImageReply) -> dict[str, Json]:
    return _text_row(reply) if isinstance(reply, Reply) else _image_row(reply)


def _image_row(reply: ImageReply) -> dict[str, Json]:
    """Pictures are told from words by the field ``images``, so it is there even where there is none."""
    images = [{"mime": image.mime, "data": base64.b64encode(image.data).decode("ascii")} for image in reply.images]
    return {"images": images, **_said({"text": reply.text, "image_output_tokens": reply.image_output_tokens, **_shared_row(reply)})}


def _text_row(reply: Reply) -> dict[str, Json]:
    return _said(
        {
            "text": reply.text,
            "reasoning": reply.reasoning,
            "tool_calls": [_tool_call_row(call) for call in reply.tool_calls],
            "finish_reason": reply.finish_reason,
            **_shared_row(reply),
        }
    ) | ({} if reply.logprobs is None else {"logprobs": reply.logprobs})  # no log-probabilities is not the same as an empty row of them


def _tool_call_row(call: ToolCall) -> dict[str, Json]:
    signature = {} if call.signature is None else {"signature": call.signature}
    return {"id": call.id, "name": call.name, "arguments": call.arguments} | signature


def _shared_row(reply: Reply | ImageReply) -> dict[str, Json]:
    return {
        "served_model": reply.served_model,
        "usage": _said({name: getattr(reply.usage, name) for name in _USAGE}),
        "request_id": reply.request_id,
        "cost_usd": reply.cost_usd,
        "reported": dict(reply.reported),
    }


def _said(row: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in row.items() if value not in _NOTHING}


def _read_kept(row: Json) -> Kept:
    return Kept(
        reply=_read_reply(row["reply"]),
        at=_of(_NUMBER, row["at"]),
        latency_s=_of(_NUMBER, row["latency_s"]),
        ttft_s=_maybe(_NUMBER, row.get("ttft_s")),
        ttfa_s=_maybe(_NUMBER, row.get("ttfa_s")),
        pieces=_read_pieces(row.get("pieces", ())),
        cost_usd=_maybe(_NUMBER, row.get("cost_usd")),
        price_date=_maybe((str,), row.get("price_date")),
    )


def _read_pieces(rows: Json) -> tuple[tuple[float, EventKind, int], ...]:
    pieces = tuple(map(tuple, rows))
    for at_s, kind, size in pieces:  # written out: there is one for each token
        if type(at_s) not in _NUMBER or kind not in _EVENT_KINDS or type(size) is not int:
            raise TypeError(f"{(at_s, kind, size)!r:.80} is not a piece of a stream")
    return pieces


def _read_reply(row: Json) -> Reply | ImageReply:
    return _read_image_reply(row) if "images" in row else _read_text_reply(row)


def _read_image_reply(row: Json) -> ImageReply:
    images = tuple(_read_image(image) for image in row["images"])
    return ImageReply(
        images=images,
        text=_of((str,), row.get("text", "")),
        image_output_tokens=_maybe((int,), row.get("image_output_tokens")),
        **_read_shared(row),
    )


def _read_image(row: Json) -> Image:
    return Image(data=base64.b64decode(_of((str,), row["data"]), validate=True), mime=_of((str,), row["mime"]))


def _read_text_reply(row: Json) -> Reply:
    logprobs = row.get("logprobs")
    return Reply(
        text=_of((str,), row.get("text", "")),
        reasoning=_of((str,), row.get("reasoning", "")),
        tool_calls=tuple(_read_tool_call(call) for call in row.get("tool_calls", ())),
        finish_reason=_one_of(_FINISH_REASONS, row["finish_reason"]),
        logprobs=None if logprobs is None else tuple(_read_logprob(*entry) for entry in logprobs),
        **_read_shared(row),
    )


def _read_shared(row: Mapping[str, Json]) -> dict[str, Json]:
    """What words and pictures have in common."""
    return {
        "served_model": _maybe((str,), row.get("served_model")),
        "usage": _read_usage(row.get("usage", {})),
        "request_id": _maybe((str,), row.get("request_id")),
        "cost_usd": _maybe(_NUMBER, row.get("cost_usd")),
        "reported": FrozenDict({_of((str,), name): _of((float, int, str), value) for name, value in row.get("reported", {}).items()}),
    }


def _read_usage(row: Mapping[str, Json]) -> Usage:
    return Usage(**{name: _maybe((int,), row.get(name)) for name in _USAGE})


def _read_tool_call(row: Mapping[str, Json]) -> ToolCall:
    return ToolCall(
        id=_of((str,), row["id"]),
        name=_of((str,), row["name"]),
        arguments=_of((str,), row["arguments"]),
        signature=_maybe((str,), row.get("signature")),
    )


def _read_logprob(token: Json, logprob: Json, top: Json = ()) -> TokenLogprob:
    others = tuple((_of((str,), other), _of(_NUMBER, value)) for other, value in top)
    return TokenLogprob(_of((str,), token), _of(_NUMBER, logprob), others)


def _of(kinds: tuple[type, ...], value: Json) -> Json:
    if type(value) not in kinds:  # not isinstance: True is an int, and no count of tokens
        raise TypeError(f"{value!r:.80} is not {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _maybe(kinds: tuple[type, ...], value: Json) -> Json:
    return None if value is None else _of(kinds, value)


def _one_of(words: frozenset[str], value: Json) -> Json:
    if value not in words:
        raise ValueError(f"{value!r:.80} is none of {', '.join(sorted(words))}")
    return value
