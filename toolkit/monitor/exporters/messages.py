"""A call's words in the shape that the conventions for generative AI give them. Only for who has switched content on."""

from __future__ import annotations

import json
from typing import Any

from ...types import ChatRequest, Completion, ImagePart, ImageRequest, Message, TextPart, ToolCall
from ..redaction import redact_text

__all__ = ["input_messages", "output_messages", "system_instructions"]

Part = dict[str, Any]  # JSON

SYSTEM = ("system", "developer")


def system_instructions(request: ChatRequest | ImageRequest) -> list[Part]:
    """Return the parts of the system messages; none of a request for pictures."""
    messages = request.messages if isinstance(request, ChatRequest) else ()
    return [part for message in messages if message.role in SYSTEM for part in parts_of(message)]


def input_messages(request: ChatRequest | ImageRequest) -> list[dict[str, Any]]:
    """Return what was asked, without the system messages."""
    if isinstance(request, ImageRequest):
        return [{"role": "user", "parts": [{"type": "text", "content": request.prompt}]}]
    return [{"role": message.role, "parts": parts_of(message)} for message in request.messages if message.role not in SYSTEM]


def output_messages(done: Completion) -> list[dict[str, Any]]:
    """Return what was answered, as the one message that it is."""
    parts: list[Part] = []
    if done.reasoning:
        parts.append({"type": "reasoning", "content": done.reasoning})
    if done.text:
        parts.append({"type": "text", "content": done.text})
    parts += [tool_part(call) for call in done.tool_calls]
    return [{"role": "assistant", "parts": parts, "finish_reason": done.finish_reason}]


def parts_of(message: Message) -> list[Part]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}]
    content = (TextPart(text=message.content),) if isinstance(message.content, str) else message.content
    return [content_part(part) for part in content if part != TextPart(text="")] + [tool_part(call) for call in message.tool_calls]


def content_part(part: TextPart | ImagePart) -> Part:
    if isinstance(part, TextPart):
        return {"type": "text", "content": part.text}
    if part.url is not None:
        return {"type": "uri", "modality": "image", "mime_type": part.mime, "uri": redact_text(part.url)}
    return {"type": "blob", "modality": "image", "mime_type": part.mime, "content": f"({len(part.data or b'')} bytes, left out)"}


def tool_part(call: ToolCall) -> Part:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": plain_arguments(call.arguments)}


def plain_arguments(arguments: str) -> Any:  # any JSON; the text itself where the model wrote none
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
