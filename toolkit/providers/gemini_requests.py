"""Our messages and options in Gemini's words: ``contents`` and ``generationConfig``."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..types import ChatRequest, ImagePart, Message, TextPart, ToolCall
from ..wire.fastjson import loads

__all__ = ["build_config", "build_contents", "build_size", "merge_extra", "one_picture"]

Body = dict[str, Any]  # JSON


def build_contents(messages: tuple[Message, ...]) -> Body:
    """Make ``contents`` and ``systemInstruction``: there are two roles, ``user`` and ``model``, and tool results are the user's."""
    contents: list[Body] = []
    names: dict[str, str] = {}
    system: list[Body] = []
    for message in messages:
        if message.role in ("system", "developer"):
            system.append({"text": message.text})
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool":
            add_result(contents, build_result(message, names))
        else:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": build_parts(message)})
    return {"contents": contents} | ({"systemInstruction": {"parts": system}} if system else {})


def add_result(contents: list[Body], part: Body) -> None:
    """The results of calls made side by side belong into one turn."""
    if contents and "functionResponse" in contents[-1]["parts"][-1]:
        contents[-1]["parts"].append(part)
    else:
        contents.append({"role": "user", "parts": [part]})


def build_result(message: Message, names: Mapping[str, str]) -> Body:
    id_ = message.tool_call_id
    name = message.name or names.get(id_ or "")
    if name is None:
        raise ConfigError("vertex wants the name of the tool beside its result: give Message(role='tool', name=...)")
    try:
        result = loads(message.text)
    except ValueError:
        result = None
    response = result if isinstance(result, dict) else {"output": message.text}
    return {"functionResponse": ({"id": id_} if id_ else {}) | {"name": name, "response": response}}


def build_parts(message: Message) -> list[Body]:
    content = message.content
    texts = [TextPart(text=content)] if isinstance(content, str) else content
    parts = [build_part(part) for part in texts if not (isinstance(part, TextPart) and not part.text and message.tool_calls)]
    return parts + [build_call(call) for call in message.tool_calls]


def build_part(part: TextPart | ImagePart) -> Body:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if part.data is not None:
        return {"inlineData": {"mimeType": part.mime, "data": base64.b64encode(part.data).decode("ascii")}}
    if not str(part.url).startswith("gs://"):
        raise ConfigError("vertex fetches images from gs:// addresses only; give ImagePart(data=...)")
    return {"fileData": {"mimeType": part.mime, "fileUri": part.url}}


def build_call(call: ToolCall) -> Body:
    """Arguments are an object here, and JSON text everywhere else."""
    try:
        arguments = loads(call.arguments or "{}")
    except ValueError as exc:
        raise ConfigError(f"the arguments of the tool call {call.name!r} are not JSON, and vertex wants an object: {exc}") from exc
    part: Body = {"functionCall": ({"id": call.id} if call.id else {}) | {"name": call.name, "args": arguments}}
    return part | ({"thoughtSignature": call.signature} if call.signature else {})


def build_config(request: ChatRequest) -> Body:
    """Make ``generationConfig``, where Gemini has what others keep at the top."""
    config: Body = {}  # the model should be told of the JSON in the prompt too: that is the caller's text
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.top_p is not None:
        config["topP"] = request.top_p
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.seed is not None:
        config["seed"] = request.seed
    if request.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": dict(request.schema)}
    return config


SPOKEN_FOR = frozenset({"contents", "messages", "model", "stream", "systemInstruction", "system_instruction", "continuationToken"})


def merge_extra(body: Body, config: Body, extra: Mapping[str, Any]) -> None:
    """Put the caller's own fields into a body, before ours; those of ``generationConfig`` one by one.

    Raises
    ------
    ConfigError
        For a field that has an argument of its own, and for what can't be read.
    """
    if taken := SPOKEN_FOR & extra.keys():
        raise ConfigError(f"extra= can't set {', '.join(sorted(taken))}: use the arguments model and prompt, and stream_text for a stream")
    if "generation_config" in extra:
        raise ConfigError("extra= spells it generationConfig; Vertex would see it twice")
    body.update(extra)
    config |= extra.get("generationConfig") or {}
    if config:
        body["generationConfig"] = config


RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")


def build_size(size: tuple[int, int]) -> Body:
    """A picture's size is a ratio and a class of resolution; the exact pixels are the model's.

    Examples
    --------
    >>> build_size((1024, 1024)), build_size((2560, 1440))
    ({'aspectRatio': '1:1'}, {'aspectRatio': '16:9', 'imageSize': '2K'})
    """
    width, height = size
    divisor = math.gcd(width, height)
    ratio = {"7:3": "21:9"}.get(f"{width // divisor}:{height // divisor}", f"{width // divisor}:{height // divisor}")
    if ratio not in RATIOS:
        raise ConfigError(f"vertex makes no pictures of {width}x{height}: the ratio must be one of {', '.join(RATIOS)}")
    scale = math.sqrt(width * height) / 1024
    resolution = {} if scale < 1.4 else {"imageSize": "2K" if scale < 2.8 else "4K"}  # 1K is what comes without asking, from every model
    return {"aspectRatio": ratio} | resolution


def one_picture(body: Mapping[str, Any], at: int) -> Mapping[str, Any]:
    """The body that asks for picture number ``at``."""
    config = {name: value for name, value in body["generationConfig"].items() if name != "candidateCount"}
    return {**body, "generationConfig": config | ({"seed": config["seed"] + at} if "seed" in config else {})}
