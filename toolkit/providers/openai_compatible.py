"""OpenAI itself, and every server that speaks its chat completions: llama.cpp, vLLM, gateways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..pricing import Price, price_in
from ..types import ModelInfo, Usage
from .chat_completions import ChatCompletions, renamed
from .key import ApiKey
from .reading import count

__all__ = ["OpenAICompatible"]

OPENAI = "https://api.openai.com/"

LLAMA_CPP_TIMINGS = {
    "prompt_ms": ("prompt_s", 1e-3),
    "predicted_ms": ("generation_s", 1e-3),
    "predicted_per_second": ("tokens_per_second", 1.0),
}


class OpenAICompatible(ChatCompletions):
    """A service at an address of the user's choice; OpenAI where none is given."""

    name = "openai_compatible"
    base_url = "https://api.openai.com/v1"
    key_var = "OPENAI_API_KEY"
    url_vars = ("OPENAI_BASE_URL",)
    key_required = True  # at OpenAI; a client asks another address without one

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        if self.base_url.startswith(OPENAI):  # its reasoning models refuse the old name, which is all that other servers know
            self.max_tokens_field = "max_completion_tokens"

    def listed_price(self, model: str, usage: Usage, at: float) -> Price | None:  # noqa: ARG002 - the same for all calls
        return price_in("openai", model, at) if self.base_url.startswith(OPENAI) else None

    def read_model(self, entry: Mapping[str, Any]) -> ModelInfo:
        model = super().read_model(entry)
        meta = entry.get("meta")  # llama.cpp's
        return replace(model, context_tokens=count(meta.get("n_ctx"))) if isinstance(meta, dict) else model

    def read_reported(self, data: Mapping[str, Any]) -> dict[str, float | str]:
        return super().read_reported(data) | renamed(data.get("timings"), LLAMA_CPP_TIMINGS)
