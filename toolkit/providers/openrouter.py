"""OpenRouter: one address for many services. What it adds to chat completions: prices and costs, upstream providers, pictures, receipts.

Choices made here, where its API leaves one:

- Its own answer cache is switched off: ours says when an answer was not asked for anew, its hits come with zero tokens and no mark.
- ``provider.require_parameters`` is sent with ``schema=`` only, or an upstream may ignore the schema. An unknown option (``seed``,
  ``logprobs``) is else dropped silently by upstreams; for strict comparisons pin one:
  ``extra={"provider": {"only": ["slug"], "allow_fallbacks": False, "require_parameters": True}}``. Such routing is part of the cache key.
- ``max_tokens`` is not made up: an answer must not be cut because nobody named a limit. The error for missing credit says to name one.
- ``reasoning_details`` are not kept: our messages have no place for them, so a turn with tools goes back without its signed reasoning.
- Of ``list_models`` only models that write are listed, as the service does; those that draw are at ``/images/models``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from .. import settings
from ..errors import ContentFilterError, NotFoundError
from ..keys import Wire
from ..pricing import Price
from ..types import ChatRequest, Health, Image, ImageReply, ImageRequest, Message, ModelInfo, StreamEvent, Usage
from ..wire.steps import Sleep, Steps
from ..wire.stream import SSEDecoder, paired
from .base import BODY_IN_MESSAGES, Fault, day_of, header_text, message_of
from .chat_completions import ChatCompletions, ChatReader, merge_extra, read_usage, renamed
from .images import read_base64, read_data_url
from .key import ApiKey
from .openrouter_prices import positive, price_at, read_cost
from .reading import fields_of, is_error, number, objects, read_json

__all__ = ["OpenRouter"]

TITLE = "model-comparison-toolkit"
RECEIPT_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""A receipt appears some seconds after its answer; until then it is a 404."""

RECEIPT = {
    "latency": ("ttft_s", 1e-3),
    "generation_time": ("generation_s", 1e-3),
    "moderation_latency": ("moderation_s", 1e-3),
    "total_cost": ("cost_usd", 1.0),
    "upstream_inference_cost": ("upstream_cost_usd", 1.0),
    "native_tokens_prompt": ("input_tokens", 1.0),
    "native_tokens_completion": ("output_tokens", 1.0),
    "native_tokens_reasoning": ("reasoning_tokens", 1.0),
    "native_tokens_cached": ("cached_input_tokens", 1.0),
}

REPORTED = {
    "id": "generation_id",
    "provider": "upstream_provider",
    "service_tier": "service_tier",
    "system_fingerprint": "system_fingerprint",
}

STATUS_OF = {
    "authentication": 401,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "invalid_request": 400,
    "max_tokens_exceeded": 400,
    "not_found": 404,
    "payload_too_large": 413,
    "payment_required": 402,
    "permission_denied": 403,
    "precondition_failed": 412,
    "provider_overloaded": 503,
    "provider_unavailable": 502,
    "rate_limit_exceeded": 429,
    "server": 500,
    "string_too_long": 400,
    "timeout": 504,
    "token_limit_exceeded": 400,
    "unprocessable": 422,
}
"""What ``error_type`` means where the error came in a stream, with no number."""

REFUSED = frozenset({"content_policy_violation", "refusal"})


class OpenRouter(ChatCompletions):
    """openrouter.ai.

    ``OPENROUTER_APP_URL`` (or ``NEXT_PUBLIC_APP_URL``) and ``OPENROUTER_APP_TITLE`` name the app that its statistics attribute calls to.
    """

    name = "openrouter"
    base_url = "https://openrouter.ai/api/v1"
    key_var = "OPENROUTER_API_KEY"
    url_vars = ("OPENROUTER_BASE_URL",)
    key_required = True

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.attribution = app_headers()
        self.listed: dict[str, Mapping[str, Any]] = {}  # model to its prices as listed: JSON
        self.listed_on: str | None = None

    def auth_headers(self) -> dict[str, str]:
        return super().auth_headers() | self.attribution

    def headers(self) -> dict[str, str]:
        return {"x-openrouter-cache": "false"}

    def wire(self, request: ChatRequest) -> Wire:
        wire = super().wire(request)
        if request.schema is None:
            return wire
        routing = {"require_parameters": True, **fields_of(wire.body.get("provider"))}
        return Wire(wire.method, wire.url, {**wire.body, "provider": routing}, wire.headers)

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "stream": True}  # usage always comes; asking for it is deprecated

    def reader(self, request: ChatRequest) -> ChatReader:
        return OpenRouterReader(self, request, SSEDecoder())

    def read_reported(self, data: Mapping[str, Any]) -> dict[str, float | str]:
        found = {ours: data.get(theirs) for theirs, ours in REPORTED.items()}
        return {name: paired(value) for name, value in found.items() if isinstance(value, str) and value}

    # --- what can be asked besides ---------------------------------------------------------------------------------------

    def health(self) -> Steps[Health]:
        """Ask for the state of the key; without one only whether somebody answers."""
        response = yield from self.send(self.get("/key" if self.api_key else "/models?limit=1"))
        data = read_json(self, response)
        if is_error(data):
            raise self.told_error(data, None)
        if not self.api_key:
            there = isinstance(data.get("data"), list)
            detail = f"{self.shown_url} answers; a key is needed to ask" if there else f"what answers at {self.shown_url} is not OpenRouter"
            return Health(provider=self.name, ok=there, detail=detail)
        key = fields_of(data.get("data"))
        why = trouble_with(key) if key else "what answers does not describe the key"
        return Health(provider=self.name, ok=not why, detail=f"{self.shown_url}: {why or credit_of(key)}")

    def list_models(self) -> Steps[list[ModelInfo]]:
        response = yield from self.send(self.get("/models"))
        models = self.read_models(response)
        self.listed = {model.id: model.detail.get("pricing") or {} for model in models}
        self.listed_on = day_of(response)
        return models

    def listed_price(self, model: str, usage: Usage, at: float) -> Price | None:
        # By the exact name only: a part of one would match a router or a neighbour.
        return price_at(self.listed.get(model), usage.input_tokens or 0, at, self.listed_on)

    def receipt(self, generation_id: str) -> Steps[dict[str, float | str]]:
        """Fetch what one call cost and how long it took upstream: seconds, dollars, the tokens that are billed.

        Raises
        ------
        NotFoundError
            If there is none, also some seconds after the answer.
        """
        request = self.get(f"/generation?id={quote(generation_id, safe='')}")
        for pause_s in (*RECEIPT_PAUSES_S, None):
            try:
                response = yield from self.send(request)
            except NotFoundError:
                if pause_s is None:
                    raise
                yield Sleep(pause_s)
            else:
                data = fields_of(read_json(self, response).get("data"))
                upstream = data.get("provider_name")
                return renamed(data, RECEIPT) | ({"upstream_provider": paired(upstream)} if isinstance(upstream, str) else {})
        raise AssertionError("the last attempt returns or raises")

    # --- pictures --------------------------------------------------------------------------------------------------------

    def image_wire(self, request: ImageRequest) -> Wire:
        """Ask the image API; with ``extra={"modalities": ["image", "text"]}`` the chat of a model that draws in its answers."""
        if "modalities" in request.extra:
            return self.drawing_wire(request)
        body: dict[str, Any] = {"model": request.model, "prompt": request.prompt}
        if request.n > 1:
            body["n"] = request.n
        if request.size is not None:
            body["size"] = "{}x{}".format(*request.size)
        if request.seed is not None:
            body["seed"] = request.seed
        merge_extra(body, request.extra)
        return Wire("POST", self.base_url + "/images", body, self.headers())

    def drawing_wire(self, request: ImageRequest) -> Wire:
        if request.size is not None:
            self.refuse("size= in chat", 'its models take extra={"image_config": ...}')
        if request.n > 1:
            self.refuse("n= in chat", "a model draws what it likes; ask again for another picture")
        return self.wire(as_chat(request))

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        response = yield from self.send(self.build(wire, stream=False, timeout_s=request.timeout_s), model=request.model)
        if "modalities" in request.extra:
            return self.read_drawing(response, request)
        data = read_json(self, response, request.model)
        if is_error(data):
            raise self.told_error(data, request.model)
        usage = fields_of(data.get("usage"))
        return ImageReply(
            images=self.pictures(
                [read_base64(entry.get("b64_json"), entry.get("media_type")) for entry in objects(data.get("data"))], request
            ),
            usage=read_usage(usage),
            cost_usd=read_cost(usage),
            request_id=response.headers.get("x-generation-id"),
            reported=self.read_reported(data),
        )

    def read_drawing(self, response: httpx.Response, request: ImageRequest) -> ImageReply:
        reply = self.reader(as_chat(request)).whole(response)
        choice = next(iter(objects(read_json(self, response).get("choices"))), {})
        parts = objects(fields_of(choice.get("message")).get("images"))
        addresses = [fields_of(part.get("image_url")).get("url") for part in parts]
        if reply.finish_reason == "content_filter":
            raise ContentFilterError(
                self.scrub(f"{self.name} refused the picture: {reply.text[:200]}"), provider=self.name, model=request.model
            )
        return ImageReply(
            images=self.pictures([read_data_url(address) for address in addresses], request, reply.text),
            text=reply.text,
            served_model=reply.served_model,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
            request_id=reply.request_id,
            reported=reply.reported,
        )

    def pictures(self, found: list[Image | None], request: ImageRequest, told: str = "") -> tuple[Image, ...]:
        """The pictures that could be read, of which there must be one; services may make fewer than were asked for."""
        images = tuple(image for image in found if image is not None)
        if not images:
            why = f"it says {told[:200]!r}" if told else "does this model draw in chat? then give extra={'modalities': ['image', 'text']}"
            raise self.bad_reply(f"there is no picture in the answer; {why}", as_chat(request), 200)
        return images

    # --- errors ----------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        if status == 402:
            return "add credit, or give max_tokens=: without it, credit for the longest possible answer is set aside first"
        return super().hint(status, model, message)

    def read_fault(self, data: Any) -> Fault:  # any JSON
        """The reason is often the upstream's own, packed as text; limits are told in the body, not in headers.

        A 404 whose upstream gave no reason at all is known to pass. So is a 400 "No models provided", but that is told only by its words.
        """
        fault = super().read_fault(data)
        error = fields_of(fields_of(data).get("error"))
        metadata, availability = fields_of(error.get("metadata")), fields_of(error.get("availability"))
        gone = error.get("code") == 404 and metadata.get("raw") == ""
        retryable = availability.get("retryable")
        return Fault(
            "; ".join(filter(None, (fault.message, reason_in(metadata), limits_in(metadata)))),
            codes_of(error, metadata, fault.codes),
            retryable if isinstance(retryable, bool) else (gone or None),
            positive(availability.get("retry_after")),
        )


class OpenRouterReader(ChatReader):
    """Adds what the service says a call cost."""

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        super().read_object(data, events)
        if isinstance(data.get("usage"), dict):
            self.cost_usd = read_cost(data["usage"])


def as_chat(request: ImageRequest) -> ChatRequest:
    prompt = (Message(role="user", content=request.prompt),)
    return ChatRequest(model=request.model, messages=prompt, seed=request.seed, timeout_s=request.timeout_s, extra=request.extra)


def app_headers() -> dict[str, str]:
    """Name the app. Always with a title: a localhost address counts only with one. Under its old name too, for older gateways."""
    address = settings.variable("OPENROUTER_APP_URL") or settings.variable("NEXT_PUBLIC_APP_URL")
    title = settings.variable("OPENROUTER_APP_TITLE")
    if not address and not title:
        return {}
    named = header_text(title or TITLE)
    return {"x-openrouter-title": named, "x-title": named} | ({"http-referer": header_text(address)} if address else {})


# --- keys and errors ---------------------------------------------------------------------------------------------------------


def trouble_with(key: Mapping[str, Any]) -> str:
    """Why a key can't ask, or nothing."""
    if key.get("is_management_key") is True:
        return "this is a management key, which can't ask models; make a normal one"
    left = number(key.get("limit_remaining"))
    return "the credit limit of this key is used up" if left is not None and left <= 0 else ""


def credit_of(key: Mapping[str, Any]) -> str:
    """What is left of a key's limit. Its ``label`` is not shown: it holds a part of the key."""
    left, tier = number(key.get("limit_remaining")), "free tier" if key.get("is_free_tier") is True else "paid tier"
    return f"key of the {tier}, {'no limit' if left is None else f'${left:,.2f} left'}"


def codes_of(error: Mapping[str, Any], metadata: Mapping[str, Any], codes: list[str]) -> list[str]:
    """Add what ``error_type`` means; a number that the service gives goes before ours for its word."""
    kind = str(metadata.get("error_type") or error.get("error_type"))
    if isinstance(metadata.get("reasons"), list) or kind in REFUSED:
        return ["content_policy_violation", *codes]
    return [*codes, str(STATUS_OF[kind])] if kind in STATUS_OF else codes


def reason_in(metadata: Mapping[str, Any]) -> str:
    """What the upstream said, and which one it was; what a moderator minded."""
    raw, name, reasons = metadata.get("raw"), metadata.get("provider_name"), metadata.get("reasons")
    said = message_of(raw) if isinstance(raw, str) and raw else ""
    minded = f"reasons: {', '.join(map(str, reasons))}" if isinstance(reasons, list) else ""
    reason = "; ".join(filter(None, (said, minded)))
    return (f"{name}: {reason}" if isinstance(name, str) and reason else reason)[:BODY_IN_MESSAGES]


def limits_in(metadata: Mapping[str, Any]) -> str:
    """The numbers of a rate limit. When it ends is left out: the unit of that number is not documented."""
    headers = metadata.get("headers")
    if not isinstance(headers, dict):
        return ""
    limit, left = headers.get("X-RateLimit-Limit"), headers.get("X-RateLimit-Remaining")
    return "" if limit is None else f"limit {limit}, remaining {left}"
