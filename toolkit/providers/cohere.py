"""Cohere, through its own API (``/v2/chat``): it has citations, thinking and billed units, all lost on its OpenAI-shaped route."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from ..errors import ConfigError, ContentFilterError, ProviderError, ProviderTimeoutError, ServerError
from ..keys import Wire
from ..types import ChatRequest, FinishReason, Health, Message, ModelInfo, Reply, StreamEvent, TokenLogprob, Usage
from ..wire.steps import Steps
from ..wire.stream import SSEDecoder, SSEvent, paired
from .base import Provider
from .chat_completions import build_call, build_part, detail, merge_extra, renamed
from .reading import StreamReader, count, is_error, number, read_json, words

__all__ = ["Cohere", "CohereReader"]

Body = dict[str, Any]  # JSON

DENY_LISTED = 498
NOT_IMPLEMENTED = 501
MOST_STOPS = 5


class Cohere(Provider):
    """Cohere's chat models.

    - The temperature goes from 0 to 1, ``top_p`` from 0.01 to 0.99. What lies outside is refused and not bent: a comparison would not be
      one otherwise.
    - ``schema=`` is kept by the service, but the prompt must ask for JSON as well, or some models write blanks until the limit. It can't
      be had together with tools or documents.
    - Usage counts what is billed, as the price does; the hidden preamble is in ``reported["raw_input_tokens"]``.
    - Citations are JSON text in ``reported["citations"]``; the model's plan for its tool calls is reasoning.
    - ``extra={"logprobs": True}`` gives the log-probabilities of pieces of several tokens, as the service groups them.
    - An answer does not name its model, so ``served_model`` is ``None``.
    - A used-up monthly quota looks like any other 429, a sentence apart, and is asked again as often as one.
    """

    name = "cohere"
    base_url = "https://api.cohere.com"
    key_var = "CO_API_KEY"
    key_vars = ("CO_API_KEY", "COHERE_API_KEY")
    url_vars = ("CO_API_URL",)
    key_required = True

    @classmethod
    def read_address(cls, text: str) -> str:
        """The versions are part of the paths: older settings end in one."""
        address = super().read_address(text).rstrip("/")
        if address.endswith("/compatibility/v1"):
            raise ConfigError(f"{address} speaks chat completions: give it to openai_compatible, and cohere the address without its path")
        return address.removesuffix("/v1").removesuffix("/v2")

    def wire(self, request: ChatRequest) -> Wire:
        self.check(request)
        body: Body = {"model": request.model, "messages": [build_message(message) for message in request.messages]}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        if request.top_p is not None:
            body["p"] = request.top_p
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            body["response_format"] = {"type": "json_object", "json_schema": dict(request.schema)}
        if request.extra:
            merge_extra(body, request.extra)
        return Wire("POST", self.base_url + "/v2/chat", body, self.headers())

    def check(self, request: ChatRequest) -> None:
        """Refuse here, and with a reason, what the service would refuse."""
        if request.temperature is not None and request.temperature > 1:
            self.refuse(f"temperature of {request.temperature:g}", "its scale is 0 to 1")
        if request.top_p is not None and not 0.01 <= request.top_p <= 0.99:
            self.refuse(f"top_p of {request.top_p:g}", "its scale is 0.01 to 0.99; 0.99 is the nearest to none")
        if request.seed is not None and not 0 <= request.seed < 2**64:
            self.refuse(f"seed {request.seed}", "its seeds are 0 to 2**64 - 1")
        if len(request.stop) > MOST_STOPS:
            self.refuse(f"place for {len(request.stop)} stop sequences", f"it takes {MOST_STOPS}")
        if request.schema is not None and (beside := {"tools", "documents"} & request.extra.keys()):
            self.refuse(f"schema= beside {' and '.join(sorted(beside))}", "it answers by a schema or with those")

    def reader(self, request: ChatRequest) -> CohereReader:
        return CohereReader(self, request, SSEDecoder())

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        return self.reader(request).whole(response)

    def read_error(self, response: httpx.Response, model: str | None = None) -> ProviderError:
        error = super().read_error(response, model)
        if response.status_code == NOT_IMPLEMENTED:
            error.retryable = False
        if response.status_code == DENY_LISTED:
            return ContentFilterError(str(error), provider=self.name, model=model, status=DENY_LISTED, request_id=error.request_id)
        return error

    def list_models(self) -> Steps[list[ModelInfo]]:
        path, models, seen = "/v1/models?page_size=1000&endpoint=chat", [], {""}
        token = ""
        while True:
            page = yield from self.models_page(path + (f"&page_token={quote(token)}" if token else ""))
            models += [self.read_model(entry) for entry in page["models"] or [] if isinstance(entry, dict)]
            token = str(page.get("next_page_token") or "")
            if token in seen:  # none, or a service that goes in circles
                return models
            seen.add(token)

    def models_page(self, path: str) -> Steps[dict[str, Any]]:
        page = read_json(self, (yield from self.send(self.get(path))))
        if is_error(page) or "models" not in page:
            raise self.told_error(page, None)
        return page

    def read_model(self, entry: Mapping[str, Any]) -> ModelInfo:
        return ModelInfo(
            id=str(entry.get("name", "")), provider=self.name, context_tokens=count(entry.get("context_length")), detail=dict(entry)
        )

    def health(self) -> Steps[Health]:
        yield from self.models_page("/v1/models?page_size=1")
        return Health(provider=self.name, ok=True, detail=f"the key is good at {self.shown_url}")


# --- requests ----------------------------------------------------------------------------------------------------------------


def build_message(message: Message) -> Body:
    """Make the JSON of one message. There are no names, and the developer speaks as the system."""
    if message.role == "tool":
        document = {"type": "document", "document": {"data": message.text}}  # a bare string is not cited
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": [document]}
    if message.tool_calls:  # what the model says beside its calls is its plan
        built: Body = {"role": message.role, "tool_calls": [build_call(call) for call in message.tool_calls]}
        return built | ({"tool_plan": message.text} if message.text else {})
    content = message.content
    return {
        "role": "system" if message.role == "developer" else message.role,
        "content": content if isinstance(content, str) else [build_part(part) for part in content],
    }


# --- answers -----------------------------------------------------------------------------------------------------------------

FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
FAILURES: dict[str, type[ProviderError]] = {"ERROR": ServerError, "TIMEOUT": ProviderTimeoutError}

RAW_TOKENS = {"input_tokens": ("raw_input_tokens", 1.0), "output_tokens": ("raw_output_tokens", 1.0)}
OTHER_UNITS = {"search_units": ("search_units", 1.0), "classifications": ("classifications", 1.0)}


class CohereReader(StreamReader[SSEvent]):
    """Reads the events of ``/v2/chat``, and whole answers.

    - The ``type`` inside an event counts, not the name in front of it, which may be missing.
    - A stream without its ``message-end`` was cut, whatever else came; a bare ``{"message"}`` is an error.
    - ``tool_calls`` and ``citations`` hold one object in an event, and a list in a whole answer.
    """

    def __init__(self, provider: Provider, request: ChatRequest, decoder: SSEDecoder) -> None:
        super().__init__(provider, request, decoder)
        self.citations: list[Body] = []

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        if not self.done:
            self.read_json(item[1], events)  # the closing [DONE] is no object and passed over

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        message, delta = data.get("message"), data.get("delta")
        if isinstance(delta, dict):
            if isinstance(piece := delta.get("message"), dict):
                self._read_message(piece, data.get("index"), events)
            self._read_logprobs(data.get("logprobs"))
            if data.get("type") == "message-end" or delta.get("finish_reason"):
                self._read_end(delta)
                self.done = True
        elif isinstance(message, dict):
            self._read_message(message, None, events)
            self._read_logprobs(data.get("logprobs"))
            self._read_end(data)
        elif isinstance(message, str):
            self.fail(self.provider.told_error(data, self.request.model))

    def _read_message(self, message: dict[str, Any], index: Any, events: list[StreamEvent]) -> None:  # index: any JSON
        self.add("reasoning", words(message.get("tool_plan")), events)
        content = message.get("content")
        for part in [{"text": content}] if isinstance(content, str) else listed(content):
            self.add("reasoning", words(part.get("thinking")), events)
            self.add("text", words(part.get("text")), events)
        for at, call in enumerate(listed(message.get("tool_calls"))):
            events.append(StreamEvent("tool_call", paired(self.calls.add({**call, "index": at if index is None else index}))))
        self.citations += [read_citation(citation) for citation in listed(message.get("citations"))]

    def _read_logprobs(self, logprobs: Any) -> None:  # any JSON
        for piece in listed(logprobs):
            values = piece.get("logprobs")
            found = [number(value) for value in values] if isinstance(values, list) else []
            known = [value for value in found if value is not None]
            if isinstance(piece.get("text"), str) and known and len(known) == len(found):
                self.logprobs.append(TokenLogprob(paired(piece["text"]), sum(known)))

    def _read_end(self, end: dict[str, Any]) -> None:
        if isinstance(usage := end.get("usage"), dict):
            self._read_usage(usage)
        reason = end.get("finish_reason")
        if not isinstance(reason, str):
            return
        if reason in FAILURES:
            self._fail_by(reason, end.get("error"))
            return
        self.finish = FINISH_REASONS.get(reason, "unknown")
        if self.finish == "unknown":
            self.reported["finish_reason"] = paired(reason)

    def _fail_by(self, reason: str, told: Any) -> None:  # any JSON
        why = self.provider.scrub(f"cohere ended its answer with {reason}: {words(told) or 'it does not say why'}")
        self.fail(FAILURES[reason](why, provider=self.provider.name, model=self.request.model, status=200))

    def _read_usage(self, usage: dict[str, Any]) -> None:
        self.usage = Usage(
            input_tokens=detail(usage, "billed_units", "input_tokens"),
            output_tokens=detail(usage, "billed_units", "output_tokens"),
            cached_input_tokens=count(usage.get("cached_tokens")),
        )
        self.reported |= renamed(usage.get("tokens"), RAW_TOKENS) | renamed(usage.get("billed_units"), OTHER_UNITS)

    def reply(self, request_id: str | None = None) -> Reply:
        if self.citations:
            self.reported["citations"] = json.dumps(self.citations, ensure_ascii=False)
        return super().reply(request_id)


def listed(value: Any) -> list[Body]:  # any JSON
    """The objects of a list, or the one that stands in its place."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]


def read_citation(citation: Body) -> Body:
    """Where the answer leans on what. Of a source its id is enough: the documents are the caller's own."""
    kept = {name: citation[name] for name in ("start", "end", "text", "content_index") if name in citation}
    return kept | {"sources": [source.get("id") for source in listed(citation.get("sources"))]}
