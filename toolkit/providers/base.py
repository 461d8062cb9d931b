# ruff: noqa: ARG002 - the methods of a base name what its subclasses use
"""What every provider does: build ``httpx.Request``s, read ``httpx.Response``s, translate errors. It never holds a client."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol
from urllib.parse import quote

import httpx

from .. import errors, settings
from ..keys import Wire
from ..pricing import LOCAL, Price
from ..types import ChatRequest, Health, ImageReply, ImageRequest, ModelInfo, PullProgress, Reply, StreamEvent, Usage
from ..wire.fastjson import loads
from ..wire.retry import read_retry_after
from ..wire.steps import Read, Send, Steps
from ..wire.stream import paired
from .key import ApiKey, KeySource

__all__ = ["Fault", "Provider", "Reader"]

BODY_IN_MESSAGES = 2_000


REQUEST_IDS = (b"apim-request-id", b"x-request-id", b"request-id", b"x-generation-id", b"x-debug-trace-id", b"inference-id")

DEFAULT_TIMEOUT_S = 600.0
DEFAULT_FIRST_TOKEN_TIMEOUT_S = 300.0
LONGEST_CONNECT_S = 10.0
LONGEST_ERROR_BYTES = 65_536


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


class Fault(NamedTuple):
    """What the body of an error says."""

    message: str
    codes: list[str]  # the most exact first; a number among them is a status
    retryable: bool | None = None
    retry_after: float | None = None


class Provider:
    """Base of all providers; a subclass says what differs.

    Parameters
    ----------
    base_url : str, optional
        Where the service is; by default the class's own address.
    api_key : str or callable, optional
        The key, or a function that is called for it at each request. It is sent in a header and shown nowhere.
    """

    name: ClassVar[str]
    base_url: str
    key_var: ClassVar[str | None] = None
    key_vars: ClassVar[tuple[str, ...]] = ()
    """All variables that may hold the key, where ``key_var`` is not the only one; the first that is set counts."""
    url_vars: ClassVar[tuple[str, ...]] = ()
    key_required: ClassVar[bool] = False
    free: ClassVar[bool] = False
    """Whether a call costs nothing (it runs on the user's own machine)."""
    computes_here: ClassVar[bool] = False
    """Whether this process works the answers out: what keeps an event loop busy then is the model itself, and its time."""
    first_token_timeout_s: float = DEFAULT_FIRST_TOKEN_TIMEOUT_S
    """How long a stream may go without a token, whatever else it sends; a client sets its own."""

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        self.base_url = (self.read_address(base_url) if base_url else self.base_url).rstrip("/")
        self.keys = KeySource(api_key, self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.shown_url}>"

    @property
    def api_key(self) -> str | None:
        """The key to send now."""
        return self.keys.get()

    @property
    def url(self) -> httpx.URL:
        return parsed_url(self.base_url)

    @property
    def shown_url(self) -> str:
        """The address without a password or a query, either of which may be secret. It need not be a valid one."""
        return without_secrets(self.base_url)

    @property
    def where(self) -> str:
        """Where the models are, in the words of a sentence."""
        return f"at {self.shown_url}"

    @classmethod
    def read_address(cls, text: str) -> str:
        """Read the base URL from what a user or a variable gave; some services have a notation of their own."""
        return text.strip()

    @classmethod
    def find_key(cls) -> str | None:
        """Find the key where this service's users usually keep it."""
        names = cls.key_vars or filter(None, [cls.key_var])
        return next(filter(None, map(settings.variable, names)), None)

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

    def receipt(self, generation_id: str) -> Steps[dict[str, float | str]]:
        """What one call cost and how long it took, as the service tells afterwards."""
        raise errors.ConfigError(f"{self.name} keeps no receipts; openrouter does")

    def pull_model(self, model: str) -> Steps[PullProgress]:
        raise errors.ConfigError(f"{self.name} does not pull models; ollama and lmstudio do")

    def delete_model(self, model: str) -> Steps[None]:
        raise errors.ConfigError(f"{self.name} does not delete models; ollama does")

    def show_model(self, model: str) -> Steps[ModelInfo]:
        """What the service tells about one model."""
        for found in (yield from self.list_models()):
            if found.id == model:
                return found
        told = f"{self.name} lists no model {model!r} ({self.hint(404, model)})"
        raise errors.NotFoundError(self.scrub(told), provider=self.name, model=model)

    def load_model(self, model: str, context_tokens: int | None) -> Steps[float | None]:
        """Load a model into memory; give the seconds that took."""
        raise errors.ConfigError(f"{self.name} does not load models; ollama and lmstudio do")

    def unload_model(self, model: str) -> Steps[None]:
        raise errors.ConfigError(f"{self.name} does not unload models; ollama and lmstudio do")

    def listed_price(self, model: str, usage: Usage, at: float) -> Price | None:
        """What the service's own list, where it was read, asks for a call at a time (seconds since 1970); ``None`` where unknown, nothing on one's own machine."""
        return LOCAL if self.free else None

    def read_fault(self, data: Any) -> Fault:  # any JSON, or the text of a body that is none
        """What an error body says; some services say more, or say it elsewhere."""
        return Fault(message_in(data)[:BODY_IN_MESSAGES], codes_in(data))

    def transport(self) -> httpx.BaseTransport | None:
        """For a provider that answers inside this process: what to send to instead of the network.

        It must also be an ``httpx.AsyncBaseTransport``.
        """
        return None

    # --- what they share ---------------------------------------------------------------------------------------------

    def auth_headers(self) -> dict[str, str]:
        """Who asks: it does not change the answer, so it is no part of the cache key."""
        key = self.api_key
        return {"authorization": f"Bearer {key}"} if key else {}

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
        response: httpx.Response = yield Send(request, stream=stream, within_s=self.first_token_timeout_s if stream else None)
        if response.status_code < 400:
            return response
        if stream:
            body = b""
            while len(body) < LONGEST_ERROR_BYTES and (chunk := (yield Read(response))) is not None:
                body += chunk
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
        return Health(provider=self.name, ok=True, detail=f"{len(models)} models {self.where}")

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
        status, fault = response.status_code, self.read_fault(body_data(response.text))
        told = f"{self.name} answered {status}: {fault.message or response.reason_phrase or 'no reason given'}"
        retryable, wish = should_retry(response), read_retry_after(response.headers)
        return error_of(
            status,
            fault.codes,
            self.scrub(hinted(told, self.hint(status, model, fault.message))),
            provider=self.name,
            model=model,
            request_id=self.request_id(response),
            retryable=fault.retryable if retryable is None else retryable,
            retry_after=fault.retry_after if wish is None else wish,
        )

    def told_error(self, data: Any, model: str | None) -> errors.ProviderError:  # any JSON
        """Translate an error that came where an answer should have been, with status 200."""
        fault = self.read_fault(data)
        status = told_status(fault.codes) or 200
        told = self.scrub(hinted(f"{self.name} reported an error: {fault.message}", self.hint(status, model, fault.message)))
        error = error_of(
            status, fault.codes, told, retryable=fault.retryable, provider=self.name, model=model, retry_after=fault.retry_after
        )
        error.status = 200  # the code inside says what kind of error it is; this is what HTTP said
        return error

    def request_id(self, response: httpx.Response) -> str | None:
        """The service's own id of a request, for its support."""
        told = {name.lower(): value for name, value in response.headers.raw}  # once: httpx goes through all of them for each name
        found = next(filter(None, map(told.get, REQUEST_IDS)), None)
        return None if found is None else self.scrub(found.decode("utf-8", "replace"))

    def bad_reply(self, why: str, request: ChatRequest, status: int | None = None) -> errors.ReplyError:
        return errors.ReplyError(self.scrub(f"{self.name}: {why}"), provider=self.name, model=request.model, status=status)

    def refuse(self, option: str, why: str) -> NoReturn:
        """Refuse an option that this service does not have, instead of pretending."""
        raise errors.ConfigError(f"{self.name} has no {option}: {why}")

    def scrub(self, text: str) -> str:
        """Take our key out of a text that a service wrote, and halves of characters, which can't be printed."""
        return paired(self.keys.scrub(text))


@lru_cache(maxsize=256)
def parsed_url(url: str) -> httpx.URL:
    """Parsing an address costs as much as building the rest of the request."""
    return httpx.URL(url)


@lru_cache(maxsize=256)
def without_secrets(url: str) -> str:
    """An address without what may be secret in it; every call's record has one."""
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]


def header_text(text: str) -> str:
    """Percent-encode what is not ASCII: httpx refuses it in a header."""
    return quote(text, safe=string.ascii_letters + string.digits + string.punctuation + " ")


def day_of(response: httpx.Response) -> str | None:
    """The day of an answer by the service's clock, for the date of the prices in it."""
    try:
        return parsedate_to_datetime(response.headers["date"]).date().isoformat()
    except (KeyError, ValueError):
        return None


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
    "contentFilter": errors.ContentFilterError,
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


def told_status(codes: list[str]) -> int | None:
    """The HTTP status among the codes of an error, where there is one."""
    return next((int(code) for code in codes if code.isdecimal() and 400 <= int(code) < 600), None)


def codes_in(data: Any) -> list[str]:  # any JSON
    """The codes of an error object, the most exact first."""
    if not isinstance(data, dict):
        return []
    error = data.get("error")
    places = (error, data) if isinstance(error, dict) else (data,)
    found = [place.get(name) for place in places for name in ("code", "type", "error_type")]
    return [str(code) for code in found if isinstance(code, str | int)]


def message_of(body: str) -> str:
    """Find the sentence in the text of an error body: JSON of several shapes, an HTML page, plain text."""
    return message_in(body_data(body))[:BODY_IN_MESSAGES]


def body_data(body: str) -> Any:  # any JSON
    """The JSON of an error body; the sentence in it where it is a page or plain text."""
    try:
        return loads(body)
    except ValueError:
        return page_title(body) if "<" in body[:200] else body.strip()[:BODY_IN_MESSAGES]


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
