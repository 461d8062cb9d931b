"""Azure OpenAI (Microsoft Foundry): deployments behind the v1 or the dated endpoints, and a content filter that has its say in everything."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import httpx

from .. import settings
from ..errors import ConfigError, ContentFilterError, ProviderError
from ..keys import Wire
from ..types import ChatRequest, Health, Image, ImageReply, ImageRequest, StreamEvent, Usage
from ..wire.fastjson import loads
from ..wire.steps import Steps
from ..wire.stream import SSEDecoder, paired
from .chat_completions import Body, ChatCompletions, ChatReader, detail, merge_extra
from .key import ApiKey
from .reading import count, is_error, read_json

__all__ = ["Azure", "AzureReader"]

DATED = re.compile(r"\d{4}-\d\d-\d\d")
SCHEMAS_SINCE = "2024-08-01"
USAGE_IN_STREAMS_SINCE = NEW_LIMIT_SINCE = "2024-09-01"


class Azure(ChatCompletions):
    """The deployments of one Azure resource: ``"azure/<deployment>"``.

    - The address is that of the resource, or any that the portal shows. It means the v1 endpoints, unless it says ``?api-version=`` with
      a date, or ``OPENAI_API_VERSION`` does: then the dated ones.
    - A key goes into the header ``api-key``. A function in place of the key gives Entra ID tokens, one for each request:
      ``Client(api_keys={"azure": get_bearer_token_provider(DefaultAzureCredential(), "https://ai.azure.com/.default")})``.
      A token as a string, as in ``AZURE_OPENAI_AD_TOKEN``, is told from a key by its form, and good for about an hour.
    - ``served_model`` is the model behind the deployment, and ``tk.list_models`` lists models, not deployments: those only the control
      plane knows.
    - A prompt that the filter stops is a ``ContentFilterError``; an answer that it cuts has the finish reason ``content_filter``. What it
      found is in ``reported``: ``content_filter`` and ``prompt_filter`` (stopped for), ``content_detected`` and ``prompt_detected``
      (noticed), ``content_filter_error`` (the filter failed and let everything pass).
    - By default the filter holds text back and releases it in blocks: the time to first token is then the filter's.
    - Of the rate headers only the ``reset`` of an exhausted limit is read, and only where ``retry-after`` is missing: 0 and -1 mean
      unknown there.
    """

    name = "azure"
    key_var = "AZURE_OPENAI_API_KEY"
    key_vars = ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY")
    url_vars = ("AZURE_OPENAI_ENDPOINT",)

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        if not base_url:
            example = "https://NAME.openai.azure.com"
            raise ConfigError(
                f"azure needs the address of your resource: set AZURE_OPENAI_ENDPOINT, or give Client(base_urls={{'azure': {example!r}}})"
            )
        super().__init__(base_url=base_url, api_key=api_key)
        self.base_url, _, query = self.base_url.partition("?")
        self.version = read_version(query)
        self.dated = not self.base_url.endswith("/v1")
        self.signs_in = callable(api_key) or is_token(api_key or "")
        if not self.lacks(NEW_LIMIT_SINCE):
            self.max_tokens_field = "max_completion_tokens"  # reasoning models refuse the old name

    @classmethod
    def read_address(cls, text: str) -> str:
        """Read an endpoint, or the whole address of a call as the portal shows it.

        Examples
        --------
        >>> Azure.read_address("https://r.openai.azure.com/")
        'https://r.openai.azure.com/openai/v1'
        >>> Azure.read_address("https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21")
        'https://r.openai.azure.com/openai?api-version=2024-10-21'
        """
        address, _, query = super().read_address(text).partition("?")
        scheme, _, place = address.rpartition("://")
        host, _, path = place.partition("/")
        root, _, rest = f"/{path.rstrip('/')}/".partition("/openai/")
        says_v1 = rest.startswith("v1/")
        version = read_version(query) or (None if says_v1 else settings.variable("OPENAI_API_VERSION"))
        surface = "/openai" if version and DATED.match(version) and not says_v1 else "/openai/v1"
        return f"{scheme or 'https'}://{host}{root.rstrip('/')}{surface}" + (f"?{urlencode({'api-version': version})}" if version else "")

    def lacks(self, since: str) -> bool:
        """Whether the chosen version is older than a date; v1 has everything."""
        return self.dated and str(self.version)[: len(since)] < since

    # --- requests ----------------------------------------------------------------------------------------------------

    def auth_headers(self) -> dict[str, str]:
        key = self.api_key
        if not key:
            return {}
        return {"authorization": f"Bearer {key}"} if self.signs_in else {"api-key": key}

    def versioned(self, path: str) -> str:
        return path + (f"?{urlencode({'api-version': self.version})}" if self.version else "")

    def deployment_url(self, deployment: str, path: str) -> str:
        place = f"/deployments/{quote(deployment, safe='')}" if self.dated else ""
        return self.base_url + place + self.versioned(path)

    def chat_url(self, model: str) -> str:
        return self.deployment_url(model, "/chat/completions")

    def get(self, path: str) -> httpx.Request:
        return super().get(self.versioned(path))

    def wire(self, request: ChatRequest) -> Wire:
        if request.schema is not None and self.lacks(SCHEMAS_SINCE):
            self.refuse("schema=", f"the version {self.version} does not know it, 2024-10-21 does")
        return super().wire(request)

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Old versions, and calls with ``data_sources``, refuse to be asked for the usage of a stream."""
        if self.lacks(USAGE_IN_STREAMS_SINCE) or "data_sources" in body:
            return {**body, "stream": True}
        return super().stream_body(body)

    # --- answers -----------------------------------------------------------------------------------------------------

    def reader(self, request: ChatRequest) -> AzureReader:
        return AzureReader(self, request, SSEDecoder())

    def health(self) -> Steps[Health]:
        yield from self.list_models()
        return Health(
            provider=self.name, ok=True, detail=f"the key is good at {self.shown_url}; only a call shows if a deployment is there"
        )

    # --- errors ------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        if status == 404 and model:
            return "use the deployment name, not the model name; a new deployment takes some minutes to be found"
        if status in (401, 403) and self.signs_in:
            return "the token needs the role 'Cognitive Services OpenAI User' and a scope that this endpoint takes"
        if status in (401, 403):
            return f"check the key in {self.key_var}, and that it is one of this endpoint"
        return super().hint(status, model, message)

    def read_error(self, response: httpx.Response, model: str | None = None) -> ProviderError:
        error = super().read_error(response, model)
        if error.status == 429 and error.retry_after is None:
            error.retry_after = read_reset(response.headers)
        if isinstance(error, ContentFilterError):
            self.name_categories(error, response)
        return error

    def name_categories(self, error: ProviderError, response: httpx.Response) -> None:
        """Say what the prompt was stopped for."""
        try:
            data = loads(response.content)
        except ValueError:
            return
        if stopped := sorted(set(blocked_for(data))):
            error.args = (self.scrub(f"{error} [filtered for {', '.join(stopped)}]"),)

    def told_error(self, data: Any, model: str | None) -> ProviderError:  # any JSON
        """Inside a stream, errors come nested twice at times."""
        while isinstance(data, dict) and isinstance(inner := data.get("error"), dict) and isinstance(inner.get("error"), dict):
            data = inner
        return super().told_error(data, model)

    # --- pictures ----------------------------------------------------------------------------------------------------

    def image_wire(self, request: ImageRequest) -> Wire:
        if request.seed is not None:
            self.refuse("seed for images", "the service does not take one")
        body: Body = {"model": request.model, "prompt": request.prompt, "n": request.n}
        if request.size is not None:
            body["size"] = "{}x{}".format(*request.size)
        if request.extra:
            merge_extra(body, request.extra)
        return Wire("POST", self.deployment_url(request.model, "/images/generations"), body, self.headers())

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        built = self.build(wire, stream=False, timeout_s=request.timeout_s)
        response = yield from self.send(built, model=request.model)
        data = read_json(self, response, request.model)
        if is_error(data):
            raise self.told_error(data, request.model)
        images = read_images(data)
        if not images:
            raise self.bad_reply("there is no image in the answer", ChatRequest(model=request.model, messages=()), 200)
        usage = data.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        return ImageReply(
            images=images,
            usage=Usage(
                input_tokens=count(counts.get("input_tokens")),
                output_tokens=count(counts.get("output_tokens")),
                cached_input_tokens=detail(counts, "input_tokens_details", "cached_tokens"),
            ),
            request_id=self.request_id(response),
        )


def read_version(query: str) -> str | None:
    return next(iter(parse_qs(query).get("api-version", ())), None)


def is_token(key: str) -> bool:
    """Whether it has the form of an Entra ID token: three parts of base64, the first of which begins with ``{"``."""
    return key.strip().startswith("eyJ") and key.count(".") == 2


def read_reset(headers: httpx.Headers) -> float | None:
    """Seconds until the exhausted limit is full again: whole ones here, and 0 or -1 where it is unknown."""
    exhausted = [kind for kind in ("requests", "tokens") if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
    resets = [headers.get(f"x-ratelimit-reset-{kind}", "") for kind in exhausted]
    return max((float(reset) for reset in resets if reset.isdecimal() and int(reset)), default=None)


def read_images(data: Mapping[str, Any]) -> tuple[Image, ...]:
    mime = f"image/{data.get('output_format') or 'png'}"
    entries = data.get("data")
    texts = [entry.get("b64_json") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    try:
        return tuple(Image(data=base64.b64decode(text), mime=mime) for text in texts if isinstance(text, str))
    except binascii.Error:
        return ()


# --- the content filter --------------------------------------------------------------------------------------------------------

RESULTS = ("content_filter_results", "content_filter_result")
PROMPT_RESULTS = ("prompt_filter_results", "prompt_annotations")  # the second of them in old versions


class AzureReader(ChatReader):
    """Reads what the filter has to say besides the chunks of chat completions.

    The first chunk has no choice, no id and no model; those of the asynchronous filter have a choice without ``delta``, also after the
    finish reason, and its ``content_filter`` goes before an earlier ``stop``: what was shown has to be taken back.
    """

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        super().read_object(data, events)
        for name in PROMPT_RESULTS:
            if data.get(name):
                self._note("prompt", data[name])
        choices = data.get("choices")
        if isinstance(choices, list):
            for choice in choices[:1]:
                if isinstance(choice, dict):
                    self._note("content", {name: choice[name] for name in RESULTS if choice.get(name)})

    def _note(self, place: str, results: Any) -> None:  # any JSON
        for category, found in judgements(results):
            if category == "error":
                self.reported["content_filter_error"] = paired(str(found.get("message") or found.get("code") or "no reason given"))
            elif found.get("filtered") is True:
                self._list(f"{place}_filter", category)
            elif found.get("detected") is True:
                self._list(f"{place}_detected", category)

    def _list(self, name: str, category: str) -> None:
        known = str(self.reported.get(name, ""))
        categories = {paired(category), *filter(None, known.split(", "))}
        self.reported[name] = ", ".join(sorted(categories))


def judgements(results: Any) -> Iterator[tuple[str, dict[str, Any]]]:  # any JSON
    """Each category with what the filter says about it, wherever the results are nested; unknown categories too."""
    for entry in results if isinstance(results, list) else [results]:
        if not isinstance(entry, dict):
            continue
        inner = [entry[name] for name in RESULTS if name in entry]
        for one in inner:
            yield from judgements(one)
        if not inner:
            for category, found in entry.items():
                for each in found if isinstance(found, list) else [found]:  # lists of blocked terms, in old versions
                    if isinstance(each, dict):
                        yield category, each


def blocked_for(data: Any) -> Iterator[str]:  # any JSON
    """The categories for which a prompt was stopped: four spellings of where they stand."""
    error = data.get("error") if isinstance(data, dict) else None
    places = [error, *[error.get(name) for name in ("innererror", "inner_error")]] if isinstance(error, dict) else []
    for place in places:
        if isinstance(place, dict):
            yield from (category for name in RESULTS for category, found in judgements(place.get(name)) if found.get("filtered") is True)
