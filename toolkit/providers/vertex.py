"""Gemini on Google Cloud's Vertex AI, through ``generateContent``; with a project and google-auth, or with an API key alone.

Chosen, where one could choose otherwise:

- The version is ``v1beta1``, as in Google's own client: ``v1`` neither lists models nor continues long answers.
- The project is part of the address and so of the cache key. It is named by a variable or in the base URL, never looked up in the
  credentials, which would be I/O before the cache has been asked.
- A project goes before a key that comes from the environment, as in Google's own client; ``health_check`` says which of them is used.
- A thought's signature travels with the tool call it led to, where Gemini insists on it. Those on text, which it does not want back, are dropped.
- Imagen's ``:predict`` (retired in June 2026), the Developer API and the OpenAI-shaped endpoint are not spoken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from .. import settings
from ..errors import AuthError, ConfigError, ContentFilterError, ProviderError
from ..keys import Wire
from ..types import (
    ChatRequest,
    Health,
    ImageReply,
    ImageRequest,
    Message,
    ModelInfo,
    Reply,
)
from ..wire.steps import Read, Steps, Work
from .base import Fault, Provider, Reader, told_status
from .gemini_answers import GeminiDecoder, GeminiReader, sum_usage
from .gemini_requests import build_config, build_contents, build_size, merge_extra, one_picture
from .google_tokens import GoogleTokens
from .key import ApiKey
from .reading import count, is_error, read_json

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

__all__ = ["Vertex"]

Body = dict[str, Any]  # JSON

PROJECT_VARS = ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
PROBE = "gemini-3.8-flash"
"""The model whose tokens a health check counts, which costs nothing."""
PLAIN_LIMIT = 32_768
"""A plain request for more output tokens is refused; a stream may ask for them."""


class Vertex(Provider):
    """Gemini at Google Cloud.

    Parameters
    ----------
    base_url : str, optional
        Another host, with or without a version; it may go on to name ``/projects/P/locations/L``.
    api_key : str or callable, optional
        An API key, or a function that is called for it at each request; sent in a header and never in the address.
    project, location : str, optional
        By default ``GOOGLE_CLOUD_PROJECT`` (or ``GCLOUD_PROJECT``) and ``GOOGLE_CLOUD_LOCATION`` (or ``global``).
    credentials : google.auth.credentials.Credentials, optional
        By default the Application Default Credentials.
    """

    name = "vertex"
    key_var = "GOOGLE_API_KEY"
    key_vars = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    url_vars = ("GOOGLE_VERTEX_BASE_URL",)

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        project: str | None = None,
        location: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        origin, version, named_project, named_location = split_address(base_url or "")
        self.project = project or named_project or first_variable(PROJECT_VARS)
        self.location = location or named_location or settings.variable("GOOGLE_CLOUD_LOCATION") or "global"
        key = api_key or self.find_key()
        if self.project and isinstance(key, str) and key in map(settings.variable, self.key_vars):
            key = None
        if not (self.project or key or base_url):
            raise ConfigError("vertex needs a project (set GOOGLE_CLOUD_PROJECT and sign in) or an API key (set GOOGLE_API_KEY)")
        host = origin or host_of(self.location if self.project else "global")
        super().__init__(base_url=f"{host}/{version or api_version()}", api_key=key)
        self.tokens = GoogleTokens(credentials) if self.project and not key else None

    # --- addresses and keys ------------------------------------------------------------------------------------------

    def model_url(self, model: str, action: str) -> str:
        if not model.startswith(("publishers/", "projects/")):
            publisher, slash, name = model.partition("/")
            model = f"publishers/{publisher}/models/{name}" if slash else f"publishers/google/models/{model}"
        place = f"projects/{self.project}/locations/{self.location}/" if self.project and not model.startswith("projects/") else ""
        return f"{self.base_url}/{place}{quote(model, safe='/@:')}:{action}"

    def auth_headers(self) -> dict[str, str]:
        if self.tokens is not None:
            if token := self.tokens.token:
                self.keys.remember(token)
            return self.tokens.headers
        key = self.api_key
        return {"x-goog-api-key": key} if key else {}

    def signed(self, make: Callable[[], httpx.Request], *, stream: bool = False, model: str | None = None) -> Steps[httpx.Response]:
        """One exchange with a token that is fresh; once more with a new one, if the service does not accept it."""
        if self.tokens is None:
            return (yield from self.send(make(), stream=stream, model=model))
        if not self.tokens.fresh:
            yield Work(self.tokens.refresh)
        try:
            return (yield from self.send(make(), stream=stream, model=model))
        except AuthError as error:
            if error.status != 401:
                raise
        self.tokens.refuse()
        yield Work(self.tokens.refresh)
        return (yield from self.send(make(), stream=stream, model=model))

    def build(self, wire: Wire, *, stream: bool, timeout_s: float | None = None) -> httpx.Request:
        if stream:
            wire = replace(wire, url=wire.url.removesuffix(":generateContent") + ":streamGenerateContent?alt=sse")
        return super().build(wire, stream=stream, timeout_s=timeout_s)

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return body

    # --- text ----------------------------------------------------------------------------------------------------------

    def wire(self, request: ChatRequest) -> Wire:
        body = build_contents(request.messages)
        merge_extra(body, build_config(request), request.extra)
        return Wire("POST", self.model_url(request.model, "generateContent"), body, self.headers())

    def reader(self, request: ChatRequest) -> GeminiReader:
        return GeminiReader(self, request, GeminiDecoder())

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        return self.reader(request).whole(response)

    def answer(self, request: ChatRequest, wire: Wire) -> Steps[Reply]:
        reader = self.reader(request)
        if (request.max_tokens or 0) > PLAIN_LIMIT:
            yield from self.answer_stream(request, wire, reader, lambda response: take_bytes(response, reader))
            return reader.close()
        while True:
            hop = continued(wire, reader)
            make = partial(self.build, hop, stream=False, timeout_s=request.timeout_s)
            response = yield from self.signed(make, model=request.model)
            reply = reader.whole(response)
            if not reader.continues:
                return reply

    def answer_stream(
        self, request: ChatRequest, wire: Wire, reader: Reader, read: Callable[[httpx.Response], Steps[None]]
    ) -> Steps[httpx.Response]:
        assert isinstance(reader, GeminiReader)
        while True:
            hop = continued(wire, reader)
            make = partial(self.build, hop, stream=True, timeout_s=request.timeout_s)
            response = yield from self.signed(make, stream=True, model=request.model)
            yield from read(response)
            reader.end_hop()
            if not reader.continues:
                return response

    # --- images --------------------------------------------------------------------------------------------------------

    def image_wire(self, request: ImageRequest) -> Wire:
        config: Body = {"responseModalities": ["TEXT", "IMAGE"]}
        if request.size is not None:
            config["imageConfig"] = build_size(request.size)
        if request.seed is not None:
            config["seed"] = request.seed
        if request.n > 1:
            config["candidateCount"] = request.n
        body = build_contents((Message(role="user", content=request.prompt),))
        merge_extra(body, config, request.extra)
        return Wire("POST", self.model_url(request.model, "generateContent"), body, self.headers())

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        """The models know no ``candidateCount`` above one, so ``n`` pictures are ``n`` exchanges, with seeds that count up from the given one."""
        found: list[ImageReply] = []
        for at in range(request.n):
            make = partial(self.build, replace(wire, body=one_picture(wire.body, at)), stream=False, timeout_s=request.timeout_s)
            response = yield from self.signed(make, model=request.model)
            found.append(self.read_image(response, request))
        counts = [reply.image_output_tokens for reply in found]
        return replace(
            found[0],
            images=tuple(image for reply in found for image in reply.images),
            text="\n".join(reply.text for reply in found if reply.text),
            usage=sum_usage(reply.usage for reply in found),
            image_output_tokens=None if None in counts else sum(filter(None, counts)),
        )

    def read_image(self, response: httpx.Response, request: ImageRequest) -> ImageReply:
        asked = ChatRequest(model=request.model, messages=())
        reader = self.reader(asked)
        reply = reader.whole(response)
        if not reader.images:
            why = f"there is no picture in the answer ({reader.reported.get('finish', 'no reason given')}): {reply.text[:200]}".rstrip(": ")
            if reply.finish_reason == "content_filter":
                raise ContentFilterError(self.scrub(f"{self.name}: {why}"), provider=self.name, model=request.model, status=200)
            raise self.bad_reply(why, asked, 200)
        return ImageReply(
            images=tuple(reader.images),
            text=reply.text,
            served_model=reply.served_model,
            usage=reply.usage,
            image_output_tokens=reader.image_tokens,
            request_id=reply.request_id,
            reported=reply.reported,
        )

    # --- models --------------------------------------------------------------------------------------------------------

    def list_models(self) -> Steps[list[ModelInfo]]:
        """Google's own models. They are listed for all locations at once, without previews and without sizes."""
        if self.api_key and not self.project:
            self.refuse("list of models for an API key alone", "set GOOGLE_CLOUD_PROJECT and sign in, or see Google's documentation")
        models: list[ModelInfo] = []
        page = ""
        while True:
            response = yield from self.signed(partial(self.list_request, page))
            data = read_json(self, response)
            if is_error(data):
                raise self.told_error(data, None)
            listed = data.get("publisherModels", [])  # left out where there are none
            if not isinstance(listed, list) or data.keys() - {"publisherModels", "nextPageToken"}:
                raise self.bad_reply(f"{self.shown_url} does not list models", ChatRequest(model="", messages=()), 200)
            models += [read_model(entry) for entry in listed if isinstance(entry, dict)]
            following = str(data.get("nextPageToken") or "")
            if following in ("", page):
                return models
            page = following

    def list_request(self, page: str) -> httpx.Request:
        """Listing has no project in its path, so a header says who pays for it."""
        request = self.get("/publishers/google/models?pageSize=100" + (f"&pageToken={quote(page, safe='')}" if page else ""))
        if self.project:
            request.headers.setdefault("x-goog-user-project", self.project)
        return request

    def health(self) -> Steps[Health]:
        wire = Wire("POST", self.model_url(PROBE, "countTokens"), build_contents((Message(role="user", content="hi"),)), self.headers())
        response = yield from self.signed(partial(self.build, wire, stream=False), model=PROBE)
        data = read_json(self, response)
        if is_error(data):
            raise self.told_error(data, PROBE)
        if count(data.get("totalTokens")) is None:
            return Health(provider=self.name, ok=False, detail=f"what answers at {self.shown_url} is not Vertex AI")
        way = f"project {self.project} in {self.location}" if self.project else "API key" if self.api_key else "no key"
        return Health(provider=self.name, ok=True, detail=f"Vertex AI at {self.shown_url}, {way}")

    # --- errors --------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        if status == 404 and model:
            where = (
                f"not every model is served in {self.location}; try GOOGLE_CLOUD_LOCATION=global" if self.project else "is it spelt right"
            )
            return f"{where}; list what there is with tk.list_models({self.name!r})"
        if status in (401, 403) and self.tokens is not None:
            return f"may these credentials use Vertex AI in {self.project}? `gcloud auth application-default login` renews them"
        return super().hint(status, model, message)

    def read_fault(self, data: Any) -> Fault:  # any JSON
        """The OpenAI-shaped gateway, and some proxies, put the error object into a list."""
        return super().read_fault(data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else data)

    def told_error(self, data: Any, model: str | None) -> ProviderError:  # any JSON
        """Google's code inside is the status that the answer would have had, had it not begun yet."""
        error = super().told_error(data, model)
        error.status = told_status(self.read_fault(data).codes) or error.status
        return error


def take_bytes(response: httpx.Response, reader: GeminiReader) -> Steps[None]:
    """Read a stream that nobody watches."""
    while (chunk := (yield Read(response))) is not None:
        reader.feed(chunk)
        if reader.failure is not None:
            raise reader.failure


def continued(wire: Wire, reader: GeminiReader) -> Wire:
    """The same request again, to go on where the answer so far stopped."""
    token = reader.take_token()
    return wire if token is None else replace(wire, body={**wire.body, "continuationToken": token})


def first_variable(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(settings.variable, names)), None)


def api_version() -> str:
    chosen = settings.variable("GOOGLE_GENAI_API_VERSION") or "v1beta1"
    return "v1beta1" if chosen == "beta" else chosen


def host_of(location: str) -> str:
    """The host of a location.

    Examples
    --------
    >>> host_of("global"), host_of("europe-west4"), host_of("eu")
    ('https://aiplatform.googleapis.com', 'https://europe-west4-aiplatform.googleapis.com', 'https://aiplatform.eu.rep.googleapis.com')
    """
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return "https://aiplatform.googleapis.com" if location == "global" else f"https://{location}-aiplatform.googleapis.com"


def split_address(url: str) -> tuple[str, str, str, str]:
    """Split a base URL into host, version, project and location, each of which may be left out.

    Examples
    --------
    >>> split_address("http://127.0.0.1:8080/v1/projects/p/locations/eu/")
    ('http://127.0.0.1:8080', 'v1', 'p', 'eu')
    >>> split_address("https://gateway/vertex")
    ('https://gateway/vertex', '', '', '')
    """
    found = re.fullmatch(r"(.*?)(?:/(v\d+\w*))?(?:/projects/([^/]+)/locations/([^/]+))?/*", url.strip())
    assert found is not None, "every part may be left out"
    host, version, project, location = found.groups(default="")
    return host, version, project, location


def read_model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(id=str(entry.get("name", "")).rpartition("/")[2], provider=Vertex.name, detail=dict(entry))
