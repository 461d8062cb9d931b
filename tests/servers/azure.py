"""An Azure OpenAI resource with one deployment, on its v1 and dated endpoints; with faults on demand."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .chat_completions import ChatService, envelope
from .http import Answer, Request, json_answer, sse

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
PROMPT_RESULTS = [{"prompt_index": 0, "content_filter_results": SAFE}]
FIRST = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": PROMPT_RESULTS}

PATHS = re.compile(r"/openai/(?:v1|deployments/(?P<deployment>[^/?]+))/chat/completions(?:\?api-version=(?P<version>[\w-]+))?$")
MODELS = re.compile(r"/openai/(?:v1/models|models\?api-version=[\w-]+)$")


@dataclass
class AzureService(ChatService):
    """A handler. ``tokens`` are the Entra ID tokens that are let in besides ``key``."""

    tokens: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ("demo-small",)
    models: list[dict[str, Any]] | None = field(
        default_factory=lambda: [{"id": "demo-small", "object": "model", "capabilities": {"chat_completion": True}}]
    )

    def __call__(self, request: Request) -> Answer:
        if not self.lets_in(request):
            return json_answer({"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}, 401)
        if MODELS.match(request.path):
            return json_answer({"object": "list", "data": self.models})
        path = PATHS.match(request.path)
        if path is None or (path["deployment"] and not path["version"]):
            return json_answer({"error": {"code": "404", "message": "Resource not found"}}, 404)
        if (path["deployment"] or request.json["model"]) not in self.deployments:
            return json_answer({"error": {"code": "DeploymentNotFound", "message": "No deployment of this name on the resource"}}, 404)
        return self.fault(request, self.good(request))

    def lets_in(self, request: Request) -> bool:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.key is None or request.headers.get("api-key") == self.key or token in self.tokens

    def whole(self) -> dict[str, Any]:
        answer = super().whole()
        answer["choices"][0]["content_filter_results"] = SAFE
        return answer | {"prompt_filter_results": PROMPT_RESULTS}

    def events(self, *, usage: bool = True) -> list[bytes]:
        note = {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": {"check_offset": 0}}
        late = envelope("", [note]) | {"id": "", "model": "", "created": 0}  # a choice without a delta
        *chunks, done = super().events(usage=usage)
        return [sse(FIRST), *chunks[:-1], sse(late), chunks[-1], done]
