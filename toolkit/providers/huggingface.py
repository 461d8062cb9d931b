"""Hugging Face: its router to many inference providers, and dedicated endpoints; pictures through the providers' own routes.

Choices made here, where its API leaves one:

- Chat always goes to the router's ``/v1``, with the provider as a suffix of the model's name (``org/model:groq``). Without one the router
  picks, and two calls may meet different hardware and prices: pin it for a comparison. The suffix is part of the cache key.
- A key of an inference provider itself (one that does not start with ``hf_``) is not taken there: give that service's own address to
  ``openai_compatible``.
- A list of models proves nothing about the token, so ``health`` also asks the Hub whose it is, once: that is strictly rate limited.
  Only a call proves its permission and credit.
- Prices are known for a pinned provider only: as listed once ``list_models`` has read them, before from the price tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from .. import settings
from ..errors import ConfigError, NotFoundError, ProviderError
from ..keys import Wire
from ..pricing import Price, price_in
from ..types import Health, ImageReply, ImageRequest, ModelInfo, Usage
from ..wire.steps import Steps
from ..wire.stream import paired
from .base import Fault, day_of, header_text
from .chat_completions import ChatCompletions
from .huggingface_images import ROUTES, image_body
from .key import ApiKey
from .reading import fields_of, number, objects, read_json

__all__ = ["HuggingFace"]

HUB = "https://huggingface.co"
ROUTER = "https://router.huggingface.co"
RETIRED = "api-inference.huggingface.co"
POLICIES = frozenset({"cheapest", "fastest", "preferred"})
"""Suffixes that let the router choose."""

SHORTEST_LOAD_S, LONGEST_LOAD_S = 1.0, 30.0


class HuggingFace(ChatCompletions):
    """Hugging Face's Inference Providers; with another base URL, a dedicated endpoint (``https://....endpoints.huggingface.cloud/v1``).

    ``HF_BILL_TO`` names the organisation that pays.
    """

    name = "huggingface"
    base_url = f"{ROUTER}/v1"
    key_var = "HF_TOKEN"
    url_vars = ("HUGGINGFACE_BASE_URL",)
    key_required = True

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.hub = (settings.variable("HF_ENDPOINT") or HUB).rstrip("/")
        self.bill_to = settings.variable("HF_BILL_TO")
        self.owner: str | None = None  # of the token, once the Hub has told
        self.listed: dict[str, Any] = {}  # "model:provider" to its prices as listed: JSON
        self.listed_on: str | None = None

    @classmethod
    def read_address(cls, text: str) -> str:
        if RETIRED in text:
            raise ConfigError(f"{RETIRED} was switched off; leave the base URL out, or use {ROUTER}/v1")
        return super().read_address(text)

    @classmethod
    def find_key(cls) -> str | None:
        return super().find_key() or settings.variable("HUGGING_FACE_HUB_TOKEN") or stored_token()

    def headers(self) -> dict[str, str]:
        return {"x-hf-bill-to": header_text(self.bill_to)} if self.bill_to else {}

    # --- models ----------------------------------------------------------------------------------------------------------

    def health(self) -> Steps[Health]:
        models = yield from self.list_models()
        whose = ""
        if self.api_key and (self.base_url.startswith(ROUTER) or self.hub != HUB):
            whose = f", with the token of {(yield from self.ask_owner())}"
        return Health(provider=self.name, ok=True, detail=f"{len(models)} models at {self.shown_url}{whose}")

    def ask_owner(self) -> Steps[str]:
        """Whose token it is; raises where it is none."""
        if self.owner is None:
            found = read_json(self, (yield from self.send(self.ask_hub("/api/whoami-v2")))).get("name")
            self.owner = found if isinstance(found, str) else "somebody"
        return self.owner

    def ask_hub(self, path: str) -> httpx.Request:
        return httpx.Request("GET", self.hub + path, headers=self.auth_headers(), extensions=self.get("").extensions)

    def list_models(self) -> Steps[list[ModelInfo]]:
        response = yield from self.send(self.get("/models"))
        models = self.read_models(response)
        offers = [(model.id, offer) for model in models for offer in objects(model.detail.get("providers"))]
        self.listed = {f"{model}:{offer.get('provider')}": offer.get("pricing") for model, offer in offers}
        self.listed_on = day_of(response)
        return models

    def read_model(self, entry: Mapping[str, Any]) -> ModelInfo:
        """The context is the smallest of all live offers: it holds whoever answers."""
        sizes = [offer.get("context_length") for offer in objects(entry.get("providers")) if offer.get("status") == "live"]
        known = [size for size in sizes if isinstance(size, int) and size > 0]
        return super().read_model({**entry, "context_length": min(known)} if known else entry)

    def listed_price(self, model: str, usage: Usage, at: float) -> Price | None:  # noqa: ARG002 - the same for all calls
        """Listed per million tokens, as numbers; where the list was not read or is silent, what is known of that route."""
        pricing = fields_of(self.listed.get(model))
        asked, answered = number(pricing.get("input")), number(pricing.get("output"))
        if asked is None or answered is None or asked < 0 or answered < 0:
            name, route = split_provider(model)
            return price_in(f"huggingface_{route}", name, at) if route else None
        return Price(input=asked, output=answered, date=self.listed_on)

    # --- pictures --------------------------------------------------------------------------------------------------------

    def image_wire(self, request: ImageRequest) -> Wire:
        """What is asked for; the route is looked up when it is sent."""
        if request.n > 1:
            self.refuse("n= above 1", "its routes make one picture a call; ask again with another seed")
        if not self.base_url.endswith("/v1"):
            raise ConfigError(f"pictures go through the router, {ROUTER}/v1; the base URL is {self.shown_url}")
        model, provider = split_provider(request.model)
        if provider is not None and provider not in ROUTES:
            self.refuse(f"route to pictures of {provider!r}", f"there are {', '.join(ROUTES)}")
        body = image_body(request, ROUTES[provider] if provider else None)
        return Wire("POST", f"{self.base_url.removesuffix('/v1')}/{provider or 'auto'}/{model}", body, self.headers())

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        model, provider = split_provider(request.model)
        slug, theirs = ("hf-inference", model) if provider == "hf-inference" else (yield from self.find_route(model, provider))
        route, origin = ROUTES[slug], f"{self.base_url.removesuffix('/v1')}/{slug}"
        sent = Wire("POST", origin + route.path(theirs), route.body(theirs, image_body(request, route)), {**wire.headers, **route.headers})
        response = yield from self.send(self.build(sent, stream=False, timeout_s=request.timeout_s), model=request.model)
        image = yield from route.read(self, origin, response, request)
        return ImageReply(
            images=(image,),
            served_model=paired(theirs),
            request_id=response.headers.get("x-request-id"),
            reported={"upstream_provider": slug},
        )

    def find_route(self, model: str, provider: str | None) -> Steps[tuple[str, str]]:
        """Ask the Hub who serves a model, and under which name; the first one that we know a route of, or the one asked for."""
        response = yield from self.send(self.ask_hub(f"/api/models/{model}?expand[]=inferenceProviderMapping"), model=model)
        offers = read_mapping(read_json(self, response, model).get("inferenceProviderMapping"))
        for slug, offer in offers:  # of slugs we don't know there are always some
            theirs = offer.get("providerId")
            usable = offer.get("task") == "text-to-image" and offer.get("status") == "live" and isinstance(theirs, str)
            if usable and slug in ROUTES and provider in (None, slug):
                return slug, str(theirs)
        there = ", ".join(f"{slug} ({offer.get('task')}, {offer.get('status')})" for slug, offer in offers) or "nobody"
        where = provider or "any provider with a known route"
        why = self.scrub(f"{self.name}: {model} makes no pictures at {where}; it is served by {there}")
        raise NotFoundError(why, provider=self.name, model=model)

    # --- errors ----------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        hints = {
            402: "the included credit of this month is used up: buy some, or name another payer in HF_BILL_TO",
            403: "the token needs the permission to make calls to Inference Providers; a gated model, an accepted licence",
            410: f"this address was switched off; the router is {ROUTER}/v1",
            504: "long answers time out at the gateway: stream them",
        }
        return hints.get(status or 0) or super().hint(status, model, message)

    def read_fault(self, data: Any) -> Fault:  # any JSON
        """A model that is loading says for how long, which can be nonsense: thousands of seconds, or the same for ever."""
        fault = super().read_fault(data)
        wait_s = number(fields_of(data).get("estimated_time"))
        if wait_s is not None:
            fault = fault._replace(retry_after=min(max(wait_s, SHORTEST_LOAD_S), LONGEST_LOAD_S))
        if "model_not_supported" in fault.codes:
            fault = fault._replace(message=f"{fault.message} (providers are enabled at {HUB}/settings/inference-providers)")
        return fault

    def read_error(self, response: httpx.Response, model: str | None = None) -> ProviderError:
        """The Hub's rate limit has headers of its own; that of inference providers often comes without any."""
        error = super().read_error(response, model)
        if error.status == 429 and error.retry_after is None:
            reset = re.search(r"\bt=(\d+)", response.headers.get("ratelimit", ""))
            error.retry_after = float(reset.group(1)) if reset else None
        return error


def stored_token() -> str | None:
    """The token that ``hf auth login`` left in a file."""
    folder = settings.variable("HF_HOME")
    path = Path(settings.variable("HF_TOKEN_PATH") or (Path(folder or "~/.cache/huggingface") / "token")).expanduser()
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, ValueError):
        return None


def split_provider(name: str) -> tuple[str, str | None]:
    """Split ``org/model:provider`` at its last colon; a policy of the router is no provider.

    Examples
    --------
    >>> split_provider("acme/painter:fal-ai"), split_provider("acme/painter:fastest"), split_provider("acme/painter")
    (('acme/painter', 'fal-ai'), ('acme/painter', None), ('acme/painter', None))
    """
    model, colon, suffix = name.rpartition(":")
    if not colon:
        return name, None
    return model, None if suffix in POLICIES else suffix


def read_mapping(mapping: Any) -> list[tuple[str, dict[str, Any]]]:  # any JSON
    """Read who serves a model: an object by provider, or a list of objects that name theirs."""
    if isinstance(mapping, dict):
        return [(slug, offer) for slug, offer in mapping.items() if isinstance(offer, dict)]
    return [(str(offer.get("provider")), offer) for offer in objects(mapping)]
