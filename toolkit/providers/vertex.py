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

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from .. import settings
from ..errors import AuthError, ConfigError, ContentFilterError, ProviderError
from ..keys import Wire
from ..types import (
    ChatRequest,
    FinishReason,
    Health,
    Image,
    ImagePart,
    ImageReply,
    ImageRequest,
    Message,
    ModelInfo,
    Reply,
    StreamEvent,
    TextPart,
    TokenLogprob,
    ToolCall,
    Usage,
)
from ..wire.fastjson import loads
from ..wire.steps import Read, Steps, Work
from ..wire.stream import MAX_EVENT_BYTES, SSEDecoder, SSEvent, paired
from .base import Fault, Provider, Reader, hinted, told_status
from .google_tokens import GoogleTokens
from .key import ApiKey
from .reading import StreamReader, count, is_error, number, read_json

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

__all__ = ["GeminiDecoder", "GeminiReader", "Vertex"]

Body = dict[str, Any]  # JSON

PROJECT_VARS = ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
PROBE = "gemini-3.8-flash"
"""The model whose tokens a health check counts, which costs nothing."""
PLAIN_LIMIT = 32_768
"""A plain request for more output tokens is refused; a stream may ask for them."""
MOST_HOPS = 64
"""Twice what the largest window takes in plain requests: whoever sends more continuations does so for ever."""


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
        return replace(
            found[0],
            images=tuple(image for reply in found for image in reply.images),
            text="\n".join(reply.text for reply in found if reply.text),
            usage=sum_usage(reply.usage for reply in found),
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


# --- addresses ---------------------------------------------------------------------------------------------------------------


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


# --- requests ----------------------------------------------------------------------------------------------------------------


def build_contents(messages: tuple[Message, ...]) -> Body:
    """Make ``contents`` and ``systemInstruction``: there are two roles, ``user`` and ``model``, and tool results are the user's."""
    contents: list[Body] = []
    names: dict[str, str] = {}
    system: list[Body] = []
    for message in messages:
        if message.role in ("system", "developer"):
            system.append({"text": message.text})
            continue
        names |= {call.id: call.name for call in message.tool_calls}
        if message.role == "tool":
            add_result(contents, build_result(message, names))
        else:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": build_parts(message)})
    return {"contents": contents} | ({"systemInstruction": {"parts": system}} if system else {})


def add_result(contents: list[Body], part: Body) -> None:
    """The results of calls made side by side belong into one turn."""
    if contents and "functionResponse" in contents[-1]["parts"][-1]:
        contents[-1]["parts"].append(part)
    else:
        contents.append({"role": "user", "parts": [part]})


def build_result(message: Message, names: Mapping[str, str]) -> Body:
    id_ = message.tool_call_id
    name = message.name or names.get(id_ or "")
    if name is None:
        raise ConfigError("vertex wants the name of the tool beside its result: give Message(role='tool', name=...)")
    try:
        result = loads(message.text)
    except ValueError:
        result = None
    response = result if isinstance(result, dict) else {"output": message.text}
    return {"functionResponse": ({"id": id_} if id_ else {}) | {"name": name, "response": response}}


def build_parts(message: Message) -> list[Body]:
    content = message.content
    texts = [TextPart(text=content)] if isinstance(content, str) else content
    parts = [build_part(part) for part in texts if not (isinstance(part, TextPart) and not part.text and message.tool_calls)]
    return parts + [build_call(call) for call in message.tool_calls]


def build_part(part: TextPart | ImagePart) -> Body:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if part.data is not None:
        return {"inlineData": {"mimeType": part.mime, "data": base64.b64encode(part.data).decode("ascii")}}
    if not str(part.url).startswith("gs://"):
        raise ConfigError("vertex fetches images from gs:// addresses only; give ImagePart(data=...)")
    return {"fileData": {"mimeType": part.mime, "fileUri": part.url}}


def build_call(call: ToolCall) -> Body:
    """Arguments are an object here, and JSON text everywhere else."""
    try:
        arguments = loads(call.arguments or "{}")
    except ValueError as exc:
        raise ConfigError(f"the arguments of the tool call {call.name!r} are not JSON, and vertex wants an object: {exc}") from exc
    part: Body = {"functionCall": ({"id": call.id} if call.id else {}) | {"name": call.name, "args": arguments}}
    return part | ({"thoughtSignature": call.signature} if call.signature else {})


def build_config(request: ChatRequest) -> Body:
    """Make ``generationConfig``, where Gemini has what others keep at the top."""
    config: Body = {}  # the model should be told of the JSON in the prompt too: that is the caller's text
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.top_p is not None:
        config["topP"] = request.top_p
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.seed is not None:
        config["seed"] = request.seed
    if request.schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": dict(request.schema)}
    return config


SPOKEN_FOR = frozenset({"contents", "messages", "model", "stream", "systemInstruction", "system_instruction", "continuationToken"})


def merge_extra(body: Body, config: Body, extra: Mapping[str, Any]) -> None:
    """Put the caller's own fields into a body, before ours; those of ``generationConfig`` one by one.

    Raises
    ------
    ConfigError
        For a field that has an argument of its own, and for what can't be read.
    """
    if taken := SPOKEN_FOR & extra.keys():
        raise ConfigError(f"extra= can't set {', '.join(sorted(taken))}: use the arguments model and prompt, and stream_text for a stream")
    if "generation_config" in extra:
        raise ConfigError("extra= spells it generationConfig; Vertex would see it twice")
    body.update(extra)
    config |= extra.get("generationConfig") or {}
    if config:
        body["generationConfig"] = config


RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")


def build_size(size: tuple[int, int]) -> Body:
    """A picture's size is a ratio and a class of resolution; the exact pixels are the model's.

    Examples
    --------
    >>> build_size((1024, 1024)), build_size((2560, 1440))
    ({'aspectRatio': '1:1'}, {'aspectRatio': '16:9', 'imageSize': '2K'})
    """
    width, height = size
    divisor = math.gcd(width, height)
    ratio = {"7:3": "21:9"}.get(f"{width // divisor}:{height // divisor}", f"{width // divisor}:{height // divisor}")
    if ratio not in RATIOS:
        raise ConfigError(f"vertex makes no pictures of {width}x{height}: the ratio must be one of {', '.join(RATIOS)}")
    scale = math.sqrt(width * height) / 1024
    resolution = {} if scale < 1.4 else {"imageSize": "2K" if scale < 2.8 else "4K"}  # 1K is what comes without asking, from every model
    return {"aspectRatio": ratio} | resolution


def one_picture(body: Mapping[str, Any], at: int) -> Mapping[str, Any]:
    """The body that asks for picture number ``at``."""
    config = {name: value for name, value in body["generationConfig"].items() if name != "candidateCount"}
    return {**body, "generationConfig": config | ({"seed": config["seed"] + at} if "seed" in config else {})}


# --- answers -----------------------------------------------------------------------------------------------------------------

FILTERED = [
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR",
]  # fmt: skip
FAILED = [
    "LANGUAGE", "OTHER", "IMAGE_OTHER", "NO_IMAGE", "ESCALATION", "PUP_LIMITED_DISABLED", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
]  # fmt: skip
FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(FILTERED, "content_filter"),
    **dict.fromkeys(FAILED, "error"),
}


class GeminiDecoder(SSEDecoder):
    r"""Server-sent events, and the JSON that stands between them without a ``data:``: that is how the service reports some errors.

    Examples
    --------
    >>> decoder = GeminiDecoder()
    >>> decoder.feed(b'data: {}\r\n\r\n{\n  "error": {\n    "code": 503\n  }\n}\n')
    [('message', b'{}'), ('bare', b'{\n  "error": {\n    "code": 503\n  }\n}')]
    """

    FIELDS = (b"data", b"event", b"id", b"retry")

    def __init__(self) -> None:
        super().__init__()
        self._bare: list[bytes] = []
        self._bare_bytes = 0

    def feed(self, chunk: bytes) -> list[SSEvent]:
        return super().feed(chunk) + self._whole()

    def close(self) -> list[SSEvent]:
        return super().close() + self._whole()

    def _field(self, line: bytes) -> None:
        if line.partition(b":")[0] in self.FIELDS:
            super()._field(line)
        elif (self._bare or line.lstrip()[:1] in (b"{", b"[")) and self._bare_bytes <= MAX_EVENT_BYTES:
            self._bare.append(line)
            self._bare_bytes += len(line)

    def _whole(self) -> list[SSEvent]:
        """The bare JSON, once it is complete: a document can't end before its last bracket."""
        if not self._bare or self._bare[-1].rstrip()[-1:] not in (b"}", b"]"):
            return []
        text = b"\n".join(self._bare)
        try:
            loads(text)
        except ValueError:
            return []
        self._bare, self._bare_bytes = [], 0
        return [("bare", text)]


class GeminiReader(StreamReader[SSEvent]):
    """Reads ``generateContent`` answers, whole and streamed, over as many requests as they take.

    - There is no mark of the end but a finish reason: a stream that ends without one was cut.
    - Numbers that are zero are left out, once there are numbers at all; chunks on the way hold running totals, so the last one counts.
    - A prompt that was blocked is an answer with status 200 and without candidates.
    """

    provider: Vertex

    def __init__(self, provider: Vertex, request: ChatRequest, decoder: GeminiDecoder) -> None:
        super().__init__(provider, request, decoder)
        self.images: list[Image] = []
        self.id: str | None = None
        self._token: str | None = None
        self._earlier = Usage()
        self._hops = 1
        self._signatures: list[str | None] = []

    # --- long answers --------------------------------------------------------------------------------------------------

    @property
    def continues(self) -> bool:
        """Whether the answer goes on, when it is asked for once more."""
        return self._token is not None and self.failure is None and self._hops < MOST_HOPS

    def take_token(self) -> str | None:
        """What to send to go on; ``None`` at the beginning. Usage is the service's sum: each request bills its own."""
        token, self._token = self._token, None
        if token is not None:
            self._earlier = self.usage
            self.finish = None
            self.done = False
            self._hops += 1
            self.reported["requests"] = self._hops
            self._decoder = GeminiDecoder()
        return token

    def end_hop(self) -> None:
        """Take up what the end of a response completes: the token to go on with may stand in an event without its blank line."""
        if self.failure is None:
            self._take(self._decoder.close(), self.tail)

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        late, self.tail = self.tail, []
        return late + super().feed(chunk)

    # --- reading -------------------------------------------------------------------------------------------------------

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        data = item[1]
        if data.lstrip()[:1] != b"[":
            self.read_json(data, events)
            return
        try:
            listed = loads(data)
        except ValueError:
            return
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, dict) and self.failure is None:
                self.read_data(each, events)

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        if isinstance(usage := data.get("usageMetadata"), dict):
            self._read_usage(usage)
        if isinstance(model := data.get("modelVersion"), str):
            self.served_model = paired(model)
        if isinstance(id_ := data.get("responseId"), str):
            self.id = paired(id_)
        if isinstance(feedback := data.get("promptFeedback"), dict) and feedback.get("blockReason"):
            self._end("content_filter", feedback["blockReason"], feedback.get("blockReasonMessage"))
            self.reported["blocked_prompt"] = 1.0
        candidates = data.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if isinstance(candidate, dict) and not candidate.get("index"):
            self._read_candidate(candidate, events)

    def _read_candidate(self, candidate: Mapping[str, Any], events: list[StreamEvent]) -> None:
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                self._read_part(part, events)
        if isinstance(logprobs := candidate.get("logprobsResult"), dict):
            self.logprobs += read_logprobs(logprobs)
        reason = candidate.get("finishReason")
        if isinstance(reason, str) and reason:
            self._end(FINISH_REASONS.get(reason, "unknown"), reason, candidate.get("finishMessage"))
            token = candidate.get("continuationToken")
            self._token = token if reason == "CONTINUATION" and isinstance(token, str) and token else None

    def _read_part(self, part: Mapping[str, Any], events: list[StreamEvent]) -> None:
        text = part.get("text")
        if isinstance(text, str) and text:
            self.add("reasoning" if part.get("thought") else "text", text, events)
        if isinstance(call := part.get("functionCall"), dict):
            self._read_call(call, part.get("thoughtSignature"), events)
        if isinstance(data := part.get("inlineData"), dict) and not part.get("thought"):
            self._read_image(data)

    def _read_call(self, call: Mapping[str, Any], signature: Any, events: list[StreamEvent]) -> None:  # any JSON
        if call.get("partialArgs") or call.get("willContinue"):
            why = "the arguments of a tool call come in pieces; leave streamFunctionCallArguments out of extra="
            self.fail(self.provider.bad_reply(why, self.request, 200))
            return
        arguments = json.dumps(call.get("args") or {}, ensure_ascii=False, separators=(",", ":"))
        fragment = {"index": len(self.calls), "id": call.get("id"), "function": {"name": call.get("name"), "arguments": arguments}}
        events.append(StreamEvent("tool_call", paired(self.calls.add(fragment))))
        self._signatures.append(paired(signature) if isinstance(signature, str) else None)

    def _read_image(self, data: Mapping[str, Any]) -> None:
        try:
            decoded = base64.b64decode(data.get("data") or "", validate=True)
        except (binascii.Error, ValueError, TypeError):
            self.fail(self.provider.bad_reply("a picture in the answer is not base64", self.request, 200))
            return
        self.images.append(Image(data=decoded, mime=str(data.get("mimeType") or "image/png")))

    def _read_usage(self, usage: Mapping[str, Any]) -> None:
        if isinstance(traffic := usage.get("trafficType"), str):
            self.reported["traffic_type"] = paired(traffic)
        if any(count(usage.get(name)) for name in ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")):
            self.usage = sum_usage((self._earlier, read_usage(usage)))

    def _end(self, finish: FinishReason, reason: Any, message: Any) -> None:  # any JSON
        """Keep the service's own word where ours says less."""
        self.finish = finish
        if reason not in ("STOP", "MAX_TOKENS"):
            self.reported["finish"] = self.provider.scrub(hinted(str(reason), message if isinstance(message, str) else ""))

    def reply(self, request_id: str | None = None) -> Reply:
        reply = super().reply(self.id or request_id)
        calls = zip(reply.tool_calls, self._signatures)
        return replace(reply, tool_calls=tuple(replace(call, signature=signature) if signature else call for call, signature in calls))


def read_usage(usage: Mapping[str, Any]) -> Usage:
    thoughts = count(usage.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=(count(usage.get("promptTokenCount")) or 0) + (count(usage.get("toolUsePromptTokenCount")) or 0),
        output_tokens=(count(usage.get("candidatesTokenCount")) or 0) + (thoughts or 0),
        reasoning_tokens=thoughts,
        cached_input_tokens=count(usage.get("cachedContentTokenCount")),
    )


def sum_usage(usages: Iterable[Usage]) -> Usage:
    """Add up what several requests used; what none of them tells stays unknown."""
    told = [asdict(usage) for usage in usages]
    known = {name: [usage[name] for usage in told if usage[name] is not None] for name in told[0]}
    return Usage(**{name: sum(values) if values else None for name, values in known.items()})


def read_logprobs(result: Mapping[str, Any]) -> list[TokenLogprob]:
    """Read ``chosenCandidates`` and, in step with them, ``topCandidates``."""
    chosen, tops = result.get("chosenCandidates"), result.get("topCandidates")
    found = []
    for at, entry in enumerate(chosen if isinstance(chosen, list) else []):
        top = tops[at].get("candidates") if isinstance(tops, list) and at < len(tops) and isinstance(tops[at], dict) else None
        if token := read_token(entry):
            others = [read_token(other) for other in top] if isinstance(top, list) else []
            found.append(TokenLogprob(*token, tuple(other for other in others if other)))
    return found


def read_token(entry: Any) -> tuple[str, float] | None:  # any JSON
    if not isinstance(entry, dict):
        return None
    token, logprob = entry.get("token"), number(entry.get("logProbability"))
    return (paired(token), logprob) if isinstance(token, str) and logprob is not None else None


def read_model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(id=str(entry.get("name", "")).rpartition("/")[2], provider=Vertex.name, detail=dict(entry))
