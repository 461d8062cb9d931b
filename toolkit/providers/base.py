# ruff: noqa: ARG002 - the methods of a base name what its subclasses use
"""What every provider does: build ``httpx.Request``s, read ``httpx.Response``s, translate errors. It never holds a client."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, NoReturn, Protocol

import httpx

from .. import errors
from ..keys import Wire
from ..types import ChatRequest, Health, ImageReply, ImageRequest, ModelInfo, PullProgress, Reply, StreamEvent
from ..wire.retry import read_retry_after
from ..wire.steps import Read, Send, Steps
from ..wire.stream import paired

__all__ = ["Provider", "Reader"]

BODY_IN_MESSAGES = 2_000


DEFAULT_TIMEOUT_S = 600.0
LONGEST_CONNECT_S = 10.0


class Reader(Protocol):
    """Turns the bytes of one streamed answer into events. No I/O, so one test covers both drivers.

    ``feed`` never raises for what a server sent: an error event sets ``failure``, after the events that came before it.
    ``close`` is called at the end of the bytes and gives the whole reply, or raises ``StreamInterrupted`` / ``ReplyError``.
    It leaves in ``tail`` the events that only the end completed: real servers forget the blank line after the last one.
    """

    failure: errors.ProviderError | None
    done: bool
    tail: list[StreamEvent]

    def feed(self, chunk: bytes) -> list[StreamEvent]: ...

    def close(self) -> Reply: ...

    @property
    def text(self) -> str: ...


class Provider:
    """Base of all providers; a subclass says what differs.

    Parameters
    ----------
    base_url : str, optional
        Where the service is; by default the class's own address.
    api_key : str, optional
        The key. It is sent in a header and shown nowhere.
    """

    name: ClassVar[str]
    base_url: str
    key_var: ClassVar[str | None] = None
    url_vars: ClassVar[tuple[str, ...]] = ()
    key_required: ClassVar[bool] = False
    free: ClassVar[bool] = False
    """Whether a call costs nothing (it runs on the user's own machine)."""

    def __init__(self, *, base_url: str | None = None, api_key: str | None = None) -> None:
        self.base_url = (self.read_address(base_url) if base_url else self.base_url).rstrip("/")
        self.api_key = api_key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.shown_url}>"

    @property
    def url(self) -> httpx.URL:
        return parsed_url(self.base_url)

    @property
    def shown_url(self) -> str:
        """The address without a password or a query, either of which may be secret. It need not be a valid one."""
        return re.sub(r"//[^/@]*@", "//", self.base_url).partition("?")[0]

    @classmethod
    def read_address(cls, text: str) -> str:
        """Read the base URL from what a user or a variable gave; some services have a notation of their own."""
        return text.strip()

    # --- what a dialect fills in -------------------------------------------------------------------------------------

    def wire(self, request: ChatRequest) -> Wire:
        """The request as plain data, without secrets: what the cache key is made of."""
        raise errors.ConfigError(f"{self.name} does not answer chat requests")

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same body, asking for a stream."""
        return {**body, "stream": True}

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        """Read a whole answer; raise one of our errors for anything else."""
        raise errors.ConfigError(f"{self.name} does not answer chat requests")

    def reader(self, request: ChatRequest) -> Reader:
        """Return a reader for one streamed answer."""
        raise errors.ConfigError(f"{self.name} does not stream")

    def image_wire(self, request: ImageRequest) -> Wire:
        """The request for pictures as plain data, without secrets."""
        raise errors.ConfigError(f"{self.name} makes no images")

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        """Everything it takes to get the pictures, their bytes included."""
        raise errors.ConfigError(f"{self.name} makes no images")

    def list_models(self) -> Steps[list[ModelInfo]]:
        raise errors.ConfigError(f"{self.name} does not list its models")

    def pull_model(self, model: str) -> Steps[PullProgress]:
        raise errors.ConfigError(f"{self.name} does not pull models; ollama does")

    def delete_model(self, model: str) -> Steps[None]:
        raise errors.ConfigError(f"{self.name} does not delete models; ollama does")

    def transport(self) -> httpx.BaseTransport | None:
        """For a provider that answers inside this process: what to send to instead of the network.

        It must also be an ``httpx.AsyncBaseTransport``.
        """
        return None

    # --- what they share ---------------------------------------------------------------------------------------------

    def auth_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def headers(self) -> dict[str, str]:
        """What this service wants to be told besides the question; part of the cache key, so no secrets."""
        return {}

    def build(self, wire: Wire, *, stream: bool, timeout_s: float | None = None) -> httpx.Request:
        """Make the HTTP request of a wire request."""
        body = self.stream_body(wire.body) if stream else wire.body
        headers = {"content-type": "application/json", **wire.headers, **self.auth_headers()}
        if stream:
            headers |= {"accept": "text/event-stream, application/x-ndjson", "accept-encoding": "identity"}
        return httpx.Request(
            wire.method, parsed_url(wire.url), headers=headers, content=encode_json(body), extensions={"timeout": time_limits(timeout_s)}
        )

    def get(self, path: str) -> httpx.Request:
        """Make a GET request to a path of this service."""
        headers = {"accept": "application/json", **self.headers(), **self.auth_headers()}
        return httpx.Request("GET", parsed_url(self.base_url + path), headers=headers, extensions={"timeout": time_limits(None)})

    def send(self, request: httpx.Request, *, stream: bool = False, model: str | None = None) -> Steps[httpx.Response]:
        """One exchange: give back a good response, raise this provider's error for a bad one."""
        response: httpx.Response = yield Send(request, stream=stream)
        if response.status_code < 400:
            return response
        if stream:
            body = b""
            while (chunk := (yield Read(response))) is not None:
                body += chunk if len(body) < 65_536 else b""
            response = httpx.Response(response.status_code, headers=without_framing(response.headers), content=body)
        raise self.read_error(response, model)

    def answer(self, request: ChatRequest, wire: Wire) -> Steps[Reply]:
        """Everything it takes to get a whole answer; override where one exchange is not enough."""
        response = yield from self.send(self.build(wire, stream=False, timeout_s=request.timeout_s), model=request.model)
        return self.read_chat(response, request)

    def answer_stream(
        self, request: ChatRequest, wire: Wire, reader: Reader, read: Callable[[httpx.Response], Steps[None]]
    ) -> Steps[httpx.Response]:
        """Everything it takes to get a streamed answer: ``read(response)`` takes the bytes of a response to its end and feeds ``reader``.

        Override where one exchange is not enough; give back the response that counts.
        """
        built = self.build(wire, stream=True, timeout_s=request.timeout_s)
        response = yield from self.send(built, stream=True, model=request.model)
        yield from read(response)
        return response

    def health(self) -> Steps[Health]:
        """Ask the cheapest question that proves the service is there and lets us in."""
        models = yield from self.list_models()
        return Health(provider=self.name, ok=True, detail=f"{len(models)} models at {self.shown_url}")

    # --- errors ------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        """What the reader of an error should do next; empty where nothing is known. ``message`` is what the service said, if anything."""
        if status in (401, 403):
            return f"check the key in {self.key_var}" if self.key_var else "the server wants a key"
        if status == 404 and model:
            return f"list what there is with tk.list_models({self.name!r})"
        return ""

    def read_error(self, response: httpx.Response, model: str | None = None) -> errors.ProviderError:
        """Translate an error response, whatever its body is made of."""
        status, message = response.status_code, error_message(response)
        told = f"{self.name} answered {status}: {message or response.reason_phrase or 'no reason given'}"
        return error_of(
            status,
            error_codes(response.text),
            self.scrub(hinted(told, self.hint(status, model, message))),
            provider=self.name,
            model=model,
            request_id=request_id(response),
            retryable=should_retry(response),
            retry_after=read_retry_after(response.headers),
        )

    def told_error(self, data: Any, model: str | None) -> errors.ProviderError:  # any JSON
        """Translate an error that came where an answer should have been, with status 200."""
        codes = codes_in(data)
        status = next((int(code) for code in codes if code.isdecimal() and 400 <= int(code) < 600), 200)
        told = f"{self.name} reported an error: {message_in(data)[:BODY_IN_MESSAGES]}"
        return error_of(status, codes, self.scrub(hinted(told, self.hint(status, model))), provider=self.name, model=model)

    def bad_reply(self, why: str, request: ChatRequest, status: int | None = None) -> errors.ReplyError:
        return errors.ReplyError(self.scrub(f"{self.name}: {why}"), provider=self.name, model=request.model, status=status)

    def refuse(self, option: str, why: str) -> NoReturn:
        """Refuse an option that this service does not have, instead of pretending."""
        raise errors.ConfigError(f"{self.name} has no {option}: {why}")

    def scrub(self, text: str) -> str:
        """Take our key out of a text that a service wrote, and halves of characters, which can't be printed."""
        if self.api_key and len(self.api_key) > 3:
            text = text.replace(self.api_key, "[key]")
        return paired(text)


@lru_cache(maxsize=256)
def parsed_url(url: str) -> httpx.URL:
    """Parsing an address costs as much as building the rest of the request."""
    return httpx.URL(url)


def request_id(response: httpx.Response) -> str | None:
    headers: Mapping[str, str] = response.headers
    return headers.get("x-request-id") or headers.get("request-id") or headers.get("x-generation-id")


def should_retry(response: httpx.Response) -> bool | None:
    """The service's own word on retrying, where it gives one."""
    return {"true": True, "false": False}.get(response.headers.get("x-should-retry", ""))


def encode_json(body: Mapping[str, Any]) -> bytes:
    """Write a request body; half of a surrogate pair, which UTF-8 does not have, becomes a question mark."""
    return ENCODE(body).encode("utf-8", "replace")


ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def time_limits(timeout_s: float | None) -> dict[str, float]:
    """What httpx's transports go by: without it they wait for ever."""
    limit = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    return {"connect": min(limit, LONGEST_CONNECT_S), "read": limit, "write": limit, "pool": limit}


def without_framing(headers: httpx.Headers) -> list[tuple[str, str]]:
    """The headers of a body that has been decoded already."""
    framing = ("content-encoding", "content-length", "transfer-encoding")
    return [(name, value) for name, value in headers.multi_items() if name.lower() not in framing]


def hinted(told: str, hint: str) -> str:
    return f"{told} ({hint})" if hint else told


CODES: dict[str, type[errors.ProviderError]] = {
    "authentication_error": errors.AuthError,
    "content_filter": errors.ContentFilterError,
    "content_policy_violation": errors.ContentFilterError,
    "context_length_exceeded": errors.RequestError,
    "exceed_context_size_error": errors.RequestError,
    "insufficient_quota": errors.RateLimitError,
    "invalid_api_key": errors.AuthError,
    "invalid_request": errors.RequestError,
    "invalid_request_error": errors.RequestError,
    "model_not_found": errors.NotFoundError,
    "not_found_error": errors.NotFoundError,
    "permission_error": errors.AuthError,
    "rate_limit_error": errors.RateLimitError,
    "rate_limit_exceeded": errors.RateLimitError,
}
"""What services put into ``code`` or ``type`` of an error, the more exact of the two first."""


def error_of(status: int, codes: list[str], told: str, *, retryable: bool | None = None, **facts: Any) -> errors.ProviderError:
    """The error that a status and the service's own codes stand for. ``facts``: keyword arguments of any ``ProviderError``."""
    kind = next((CODES[code] for code in codes if code in CODES), None)
    if "insufficient_quota" in codes:  # 429, but no pause helps
        retryable = False
    if status >= 400 and kind is not errors.ContentFilterError:
        return errors.from_status(status, told, retryable=retryable, **facts)
    return (kind or errors.ServerError)(told, status=status, retryable=retryable, **facts)


def error_codes(body: str) -> list[str]:
    try:
        return codes_in(json.loads(body))
    except (ValueError, RecursionError):
        return []


def codes_in(data: Any) -> list[str]:  # any JSON
    """The codes of an error object, the most exact first."""
    if not isinstance(data, dict):
        return []
    error = data.get("error")
    places = (error, data) if isinstance(error, dict) else (data,)
    found = [place.get(name) for place in places for name in ("code", "type", "error_type")]
    return [str(code) for code in found if isinstance(code, str | int)]


def error_message(response: httpx.Response) -> str:
    """Find the sentence in an error body: JSON of several shapes, an HTML page, plain text."""
    return message_of(response.text)


def message_of(body: str) -> str:
    """Find the sentence in the text of an error body."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return page_title(body) if "<" in body[:200] else body.strip()[:BODY_IN_MESSAGES]
    return message_in(data)[:BODY_IN_MESSAGES]


def message_in(data: Any) -> str:  # any JSON
    """The message of an error object: ``{"error": {"message"}}``, ``{"error": "text"}``, ``{"detail"}``, ``{"message"}``."""
    if isinstance(data, str):
        return data
    if not isinstance(data, dict):
        return json.dumps(data)
    for name in ("error", "message", "detail", "error_message"):
        found = data.get(name)
        if isinstance(found, str) and found:
            return found
        if found:
            return message_in(found)
    return json.dumps(data)


def page_title(page: str) -> str:
    page = page[: BODY_IN_MESSAGES * 8]
    title = re.search(r"<title[^>]*>([^<]*)", page, re.IGNORECASE)
    words = title.group(1) if title else re.sub(r"<[^>]*>", " ", page)
    return " ".join(words.split())[:200] or "an HTML page"
