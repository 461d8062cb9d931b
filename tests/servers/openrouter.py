"""OpenRouter: chat completions with what it adds, the state of a key, receipts, pictures; with faults on demand."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .chat_completions import USAGE, ChatService
from .http import Answer, Request, json_answer, sse

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
COST = 0.0000318
RECEIPT = {
    "id": "gen-1",
    "model": "demo-small-0711",
    "provider_name": "Acme Cloud",
    "latency": 210,
    "generation_time": 1530,
    "moderation_latency": None,
    "native_tokens_prompt": 11,
    "native_tokens_completion": 3,
    "total_cost": COST,
}


@dataclass
class OpenRouterService(ChatService):
    """``details``: of the key. ``receipts_late``: how often the receipt is not there yet."""

    details: dict[str, Any] = field(default_factory=lambda: {"label": "sk-or-v1-abc...xyz", "limit_remaining": 7.5, "is_free_tier": False})
    receipts_late: int = 0
    drawn: int = 1

    def __call__(self, request: Request) -> Answer:
        path, _, _ = request.path.removeprefix("/api").partition("?")
        special = {"/v1/key": self.describe_key, "/v1/generation": self.receipt, "/v1/images": self.draw}.get(path)
        answer = super().__call__(dataclasses.replace(request, path=path if special is None else "/v1/models"))
        if special is None or answer.status != 200:
            return answer
        return self.fault(request, special(request))

    def describe_key(self, _request: Request) -> Answer:
        return json_answer({"data": self.details})

    def receipt(self, request: Request) -> Answer:
        if self.receipts_late or not request.path.endswith("id=gen-1"):
            self.receipts_late -= 1
            return json_answer({"error": {"message": "Generation not found", "code": 404}}, 404)
        return json_answer({"data": RECEIPT})

    def draw(self, request: Request) -> Answer:
        entry = {"b64_json": base64.b64encode(PNG).decode(), "media_type": "image/png"}
        return json_answer(
            {"created": 1790000000, "data": [entry] * min(self.drawn, request.json.get("n", 1)), "usage": {**USAGE, "cost": 0.04}},
            headers={"x-generation-id": "gen-img-1"},
        )

    def whole(self) -> dict[str, Any]:
        return {**super().whole(), "id": "gen-1", "provider": "Acme Cloud", "usage": {**USAGE, "cost": COST, "is_byok": False}}

    def events(self, *, usage: bool = True) -> list[bytes]:
        """Comments keep the line warm, the role comes with each delta, and usage comes unasked."""
        *pieces, end = super().events(usage=False)
        last = {**self.whole(), "object": "chat.completion.chunk", "choices": []}
        warm = b": OPENROUTER PROCESSING\n\n"
        return [warm, warm, pieces[0], warm, *pieces[1:], sse(last), end]
