"""The dialect of ``POST /chat/completions``, which most services and local servers speak. A provider says where its service differs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import httpx

from ..errors import ConfigError
from ..keys import Wire
from ..types import ChatRequest, FinishReason, ImagePart, Message, ModelInfo, Reply, StreamEvent, TextPart, ToolCall, Usage
from ..wire.steps import Steps
from ..wire.stream import SSEDecoder, SSEvent, paired
from .base import Provider, message_in
from .reading import StreamReader, count, is_error, number, read_json, read_logprobs, words

__all__ = ["ChatCompletions", "ChatReader", "merge_extra"]

Body = dict[str, Any]  # JSON


class ChatCompletions(Provider):
    """A service that speaks chat completions."""

    max_tokens_field: str = "max_tokens"
    """What the limit of the answer is called; the newer ``max_completion_tokens`` is ignored by many servers."""

    def chat_url(self, model: str) -> str:  # noqa: ARG002 - some services have an address per model
        return self.base_url + "/chat/completions"

    def wire(self, request: ChatRequest) -> Wire:
        body: Body = {"model": request.model, "messages": [build_message(message) for message in request.messages]}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body[self.max_tokens_field] = request.max_tokens
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            body["response_format"] = build_format(request.schema)
        if request.extra:
            merge_extra(body, request.extra)
        return Wire("POST", self.chat_url(request.model), body, self.headers())

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        options = body.get("stream_options") or {}
        return {**body, "stream": True, "stream_options": {"include_usage": True, **options}}

    def reader(self, request: ChatRequest) -> ChatReader:
        return ChatReader(self, request, SSEDecoder())

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        return self.reader(request).whole(response)

    def read_reported(self, data: Mapping[str, Any]) -> dict[str, float | str]:
        """What the service tells about itself, in an answer or in the last chunks of a stream."""
        told = {name: data.get(name) for name in ("system_fingerprint", "service_tier")}
        return {name: paired(value) for name, value in told.items() if isinstance(value, str) and value}

    def list_models(self) -> Steps[list[ModelInfo]]:
        response = yield from self.send(self.get("/models"))
        return self.read_models(response)

    def read_models(self, response: httpx.Response) -> list[ModelInfo]:
        data = read_json(self, response)
        if is_error(data):
            raise self.told_error(data, None)
        if "data" not in data:
            raise self.no_models(message_in(data))
        entries = data["data"] or []  # null where no model is installed
        return [self.read_model(entry) for entry in entries if isinstance(entry, dict)]

    def no_models(self, message: str) -> Exception:
        request = ChatRequest(model="", messages=())
        return self.bad_reply(f"{self.shown_url}/models does not list models, it says: {message[:200]}", request, 200)

    def read_model(self, entry: Mapping[str, Any]) -> ModelInfo:
        sizes = (count(entry.get(name)) for name in ("context_length", "max_model_len", "max_context_length"))
        return ModelInfo(
            id=str(entry.get("id", "")), provider=self.name, context_tokens=next((n for n in sizes if n), None), detail=dict(entry)
        )


# --- requests ----------------------------------------------------------------------------------------------------------------


def build_message(message: Message) -> Body:
    """Make the JSON of one message."""
    content = message.content
    built: Body = {"role": message.role, "content": content if isinstance(content, str) else [build_part(part) for part in content]}
    if message.tool_calls:
        built["content"] = content or None
        built["tool_calls"] = [build_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        built["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        built["name"] = message.name
    return built


def build_part(part: TextPart | ImagePart) -> Body:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": image_address(part)}}


def image_address(part: ImagePart) -> str:
    if part.data is None:
        return str(part.url)
    return f"data:{part.mime};base64,{base64.b64encode(part.data).decode('ascii')}"


def build_call(call: ToolCall) -> Body:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def build_format(schema: Mapping[str, Any]) -> Body:
    """Ask for JSON by a schema. Not ``strict``: services that know it refuse every schema with an optional property."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


SPOKEN_FOR = frozenset({"messages", "model", "prompt", "stream"})


def merge_extra(body: Body, extra: Mapping[str, Any]) -> None:
    """Put the caller's own fields into a body, before ours.

    Raises
    ------
    ConfigError
        For a field that has an argument of its own.
    """
    if taken := SPOKEN_FOR & extra.keys():
        raise ConfigError(f"extra= can't set {', '.join(sorted(taken))}: use the arguments model and prompt, and stream_text for a stream")
    body.update(extra)


# --- answers -----------------------------------------------------------------------------------------------------------------

FINISH_REASONS: dict[str, FinishReason] = {
    "content_filter": "content_filter",
    "end_turn": "stop",
    "eos_token": "stop",
    "error": "error",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "stop": "stop",
    "stop_sequence": "stop",
    "tool_calls": "tool_calls",
}


class ChatReader(StreamReader[SSEvent]):
    """Reads a chat-completions stream, and whole answers.

    - The last usage counts, wherever it stands; several on the way are cumulative.
    - ``reasoning`` and ``reasoning_content`` in one chunk are copies. Reasoning that a server leaves inline as ``<think>`` stays in the
      text: only the model's template knows what it means.
    - A chunk without words (the role alone) is not an event: it would pass for the first token.
    - ``id`` and ``created`` are not looked at; compatible servers repeat or change them.
    - Of several choices (``n``), the first is the answer.
    """

    provider: ChatCompletions

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        name, data = item
        if data.startswith(b"[DONE]"):
            self.done = True
        elif name == "error":
            self._read_error_event(data)
        elif not self.done:
            self.read_json(data, events)

    def _read_error_event(self, data: bytes) -> None:
        """LM Studio names the event; not every gateway that does so puts an object with ``error`` into it."""
        told: list[StreamEvent] = []
        self.read_json(data, told)
        if self.failure is None:
            self.fail(self.provider.told_error(data.decode("utf-8", "replace"), self.request.model))

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        usage = data.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = read_usage(usage)
        if self.served_model is None:
            self._read_model(data.get("model"))
        choices = data.get("choices")
        choice = choices[0] if choices and isinstance(choices, list) else None
        if not isinstance(choice, dict):
            self.reported |= self.provider.read_reported(data)
        elif not choice.get("index"):
            self._read_choice(choice, events)
            if choice.get("finish_reason"):
                self._read_finish(choice, data)

    def _read_model(self, model: Any) -> None:  # any JSON
        if isinstance(model, str) and model:
            self.served_model = paired(model)

    def _read_choice(self, choice: dict[str, Any], events: list[StreamEvent]) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = self._whole_message(choice)
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if thought:
            self.add("reasoning", words(thought), events)
        content = delta.get("content")
        if content:
            self.add("text", content if type(content) is str else words(content), events)
        if "tool_calls" in delta:
            self._read_calls(delta["tool_calls"], events)
        if delta.get("refusal"):
            self._read_refusal(delta["refusal"], events)
        if "logprobs" in choice:
            self._read_logprobs(choice["logprobs"])

    def _whole_message(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The message of a whole answer. After deltas it would be the same words again."""
        message = choice.get("message")
        begun = self._pieces["text"] or self._pieces["reasoning"] or self.calls
        return message if isinstance(message, dict) and not begun else {}

    def _read_calls(self, fragments: Any, events: list[StreamEvent]) -> None:  # any JSON
        if isinstance(fragments, list):
            events += [StreamEvent("tool_call", paired(self.calls.add(fragment))) for fragment in fragments if isinstance(fragment, dict)]

    def _read_refusal(self, refusal: Any, events: list[StreamEvent]) -> None:  # any JSON
        """The model declines: its words are the answer, and the finish reason says that they are not what was asked for."""
        self.add("text", words(refusal), events)
        self.finish = "content_filter"

    def _read_logprobs(self, logprobs: Any) -> None:  # any JSON
        if isinstance(logprobs, dict):
            self.logprobs += read_logprobs(logprobs.get("content"))

    def _read_finish(self, choice: dict[str, Any], data: dict[str, Any]) -> None:
        reason = choice["finish_reason"]
        if choice.get("error"):
            self.fail(self.provider.told_error(choice, self.request.model))
        if self.finish != "content_filter":
            self.finish = FINISH_REASONS.get(reason, "unknown") if isinstance(reason, str) else "unknown"
        self.reported |= self.provider.read_reported(data)


def read_usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        reasoning_tokens=detail(usage, "completion_tokens_details", "reasoning_tokens"),
        cached_input_tokens=detail(usage, "prompt_tokens_details", "cached_tokens"),
    )


def detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count(details.get(name)) if isinstance(details, dict) else None


def renamed(statistics: Any, names: Mapping[str, tuple[str, float]]) -> dict[str, float | str]:  # any JSON
    """Take numbers out of a service's statistics: ``names`` gives for each of theirs our name and the factor to our unit."""
    if not isinstance(statistics, dict):
        return {}
    found = {ours: (number(statistics.get(theirs)), factor) for theirs, (ours, factor) in names.items()}
    return {ours: value * factor for ours, (value, factor) in found.items() if value is not None}
