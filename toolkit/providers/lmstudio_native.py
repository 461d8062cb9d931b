"""LM Studio's native chat (``/api/v1/chat``): named events, statistics in seconds, one question and no history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..types import ChatRequest, ImagePart, Message, StreamEvent, TextPart, Usage
from ..wire.stream import SSEvent, paired
from .base import Provider
from .chat_completions import image_address, merge_extra, renamed
from .reading import StreamReader, count, fields_of, objects, words

__all__ = ["NativeReader", "build_native"]

Body = dict[str, Any]  # JSON

STATS = {
    "tokens_per_second": ("tokens_per_second", 1.0),
    "time_to_first_token_seconds": ("ttft_s", 1.0),
    "model_load_time_seconds": ("load_s", 1.0),
}
WHY = "its native chat knows none; ask it at a base URL that ends in /v1 or /api/v0"


def build_native(provider: Provider, request: ChatRequest) -> Body:
    """Make the body; ``store`` is off, for the server would keep the conversation."""
    for option, given in {"seed": request.seed is not None, "stop": bool(request.stop), "schema": request.schema is not None}.items():
        if given:
            provider.refuse(option, WHY)
    *before, last = request.messages
    if last.role != "user" or any(message.role not in ("system", "developer") for message in before):
        provider.refuse("history", WHY)
    body: Body = {"model": request.model, "input": build_input(last), "store": False}
    options = {
        "system_prompt": "\n\n".join(message.text for message in before) or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
    }
    merge_extra(body, request.extra)
    return body | {name: value for name, value in options.items() if value is not None}


def build_input(message: Message) -> str | list[Body]:
    content = message.content
    return content if isinstance(content, str) else [build_part(part) for part in content]


def build_part(part: TextPart | ImagePart) -> Body:
    if isinstance(part, TextPart):
        return {"type": "text", "content": part.text}
    return {"type": "image", "data_url": image_address(part)}


class NativeReader(StreamReader[SSEvent]):
    """Reads the named events, and whole answers. After an ``error`` the server still sends an end, which is not an answer's.

    No answer says why it ended, so its finish reason is ``unknown``.
    """

    marks_its_end = True

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        if not self.done:
            self.read_json(item[1], events)

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        kind = data.get("type")
        if kind == "message.delta":
            self.add("text", words(data.get("content")), events)
        elif kind == "reasoning.delta":
            self.add("reasoning", words(data.get("content")), events)
        elif kind == "chat.end":
            self._read_end(fields_of(data.get("result")), events)
        elif "output" in data:
            self._read_end(data, events)

    def _read_end(self, result: Mapping[str, Any], events: list[StreamEvent]) -> None:
        """The end holds the whole answer once more."""
        begun = self.text or self.reasoning
        for part in objects(result.get("output")):
            if not begun and part.get("type") in ("message", "reasoning"):
                self.add("text" if part["type"] == "message" else "reasoning", words(part.get("content")), events)
        model, stats = result.get("model_instance_id"), fields_of(result.get("stats"))
        self.served_model = paired(model) if isinstance(model, str) else None
        self.usage = Usage(
            input_tokens=count(stats.get("input_tokens")),
            output_tokens=count(stats.get("total_output_tokens")),
            reasoning_tokens=count(stats.get("reasoning_output_tokens")),
        )
        self.reported |= renamed(stats, STATS)
        self.done = True
