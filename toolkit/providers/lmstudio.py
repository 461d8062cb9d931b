"""LM Studio, through its chat-completions API (``/v1``; ``/api/v0`` works too and adds the server's own statistics)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import NotFoundError, ProviderError
from .chat_completions import ChatCompletions, renamed

__all__ = ["LMStudio"]

STATS = {
    "time_to_first_token": ("ttft_s", 1.0),
    "generation_time": ("generation_s", 1.0),
    "tokens_per_second": ("tokens_per_second", 1.0),
    "model_load_time_seconds": ("load_s", 1.0),  # only where this call loaded the model
}


class LMStudio(ChatCompletions):
    """A local LM Studio server."""

    name = "lmstudio"
    base_url = "http://localhost:1234/v1"
    key_var = "LM_API_TOKEN"
    url_vars = ("LMSTUDIO_BASE_URL",)
    free = True

    def told_error(self, data: Any, model: str | None) -> ProviderError:  # any JSON
        """An unknown route is answered with status 200 and a bare sentence as ``error``."""
        error = super().told_error(data, model)
        if self.base_url.endswith(("/v1", "/v0")):
            return error
        message = f"{error} (the base URL must end in /v1; it is {self.shown_url})"
        return NotFoundError(message, provider=self.name, model=model, status=200)

    def read_reported(self, data: Mapping[str, Any]) -> dict[str, float | str]:
        return super().read_reported(data) | renamed(data.get("stats"), STATS)
