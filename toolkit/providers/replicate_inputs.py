"""How the inputs of Replicate's models are called, and our options in their words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..types import ChatRequest, ImagePart, Message
from .chat_completions import image_address

__all__ = ["Target", "build_options", "read_inputs"]

Body = dict[str, Any]  # JSON

NAMES = {
    "prompt": ("prompt",),
    "system": ("system_prompt", "system_instruction", "system"),
    "messages": ("messages",),
    "image": ("image", "image_input", "images", "input_images"),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "stop": ("stop_sequences", "stop"),
    "seed": ("seed",),
    "n": ("num_outputs", "number_of_images", "num_images"),
}
"""What models call our options; the first that a model has is taken."""


def build_options(request: ChatRequest) -> Body:
    """Write down the question in our own words; the model's come later."""
    options: Body = {"extra": dict(request.extra)} | build_prompt(request.messages)
    if request.max_tokens is not None:
        options["max_tokens"] = request.max_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.top_p is not None:
        options["top_p"] = request.top_p
    if request.stop:
        options["stop"] = list(request.stop)
    if request.seed is not None:
        options["seed"] = request.seed
    return options


def build_prompt(messages: tuple[Message, ...]) -> Body:
    """A prompt with its system prompt and images; or ``messages``, which few models take, for a conversation."""
    if any(message.tool_calls or message.role == "tool" for message in messages):
        raise errors.ConfigError("replicate has no tools: models there take a prompt")
    system = "\n\n".join(message.text for message in messages if message.role in ("system", "developer"))
    turns = [message for message in messages if message.role not in ("system", "developer")]
    built: Body = {"system": system} if system else {}
    question = turns[0] if len(turns) == 1 and turns[0].role == "user" else None
    if any(images_of(message) for message in messages if message is not question):
        raise errors.ConfigError("replicate takes images with a single question only: put them and the question into one user message")
    if question is None:
        return built | {"messages": [{"role": turn.role, "content": turn.text} for turn in turns]}
    images = [image_address(part) for part in images_of(question)]
    return built | {"prompt": question.text} | ({"image": images} if images else {})


def images_of(message: Message) -> list[ImagePart]:
    return [] if isinstance(message.content, str) else [part for part in message.content if isinstance(part, ImagePart)]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the jobs of a model are created, and its inputs by name; ``None`` where they can't be known."""

    model: str
    path: str
    body: Mapping[str, Any]
    known: Mapping[str, Any] | None

    def inputs(self, options: Mapping[str, Any]) -> Body:
        """Call our options by the model's names.

        Raises
        ------
        ConfigError
            For one that the model does not have.
        """
        built: Body = {}
        for option, value in options.items():
            if option == "size":
                built |= self.size(*value)
            elif option != "extra":
                name = self.name_of(option)
                built[name] = self.shaped(option, name, value)
        for name in options["extra"]:
            if self.known is not None and name not in self.known:
                raise self.lacking(f"extra={{{name!r}: ...}}")
        return {**built, **options["extra"]}

    def name_of(self, option: str) -> str:
        names = NAMES[option]
        if self.known is None:
            return names[0]
        found = next((name for name in names if name in self.known), None)
        if found is None:
            raise self.lacking({"messages": "a conversation of several turns", "image": "images"}.get(option, f"{option}="))
        return found

    def shaped(self, option: str, name: str, value: Any) -> Any:  # any JSON
        """Some models take one string where others take a list."""
        described = (self.known or {}).get(name)
        takes_list = isinstance(described, dict) and described.get("type") == "array"
        if option == "stop" and not takes_list:
            if any("," in word for word in value):
                raise errors.ConfigError(
                    f"replicate/{self.model} takes its stop words in one text with commas between; they can't hold a comma"
                )
            return ",".join(value)
        if option == "image" and not takes_list:
            if len(value) > 1:
                raise errors.ConfigError(f"replicate/{self.model} takes one image, not {len(value)}")
            return value[0]
        return value

    def size(self, width: int, height: int) -> Body:
        known = self.known if self.known is not None else {"width": None, "height": None}
        if "width" in known and "height" in known:
            return {"width": width, "height": height}
        if "aspect_ratio" in known:
            divisor = math.gcd(width, height)
            return {"aspect_ratio": f"{width // divisor}:{height // divisor}"}
        raise self.lacking("size=")

    def lacking(self, what: str) -> errors.ConfigError:
        return errors.ConfigError(f"replicate/{self.model} has no input for {what}; it has {', '.join(sorted(self.known or {}))}")


def read_inputs(version: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The inputs in the OpenAPI description of a version."""
    place: Any = version
    for name in ("openapi_schema", "components", "schemas", "Input", "properties"):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None
