"""Replicate: jobs ("predictions") that run a model with whatever inputs that one has.

Chosen, where one could choose otherwise:

- A model's own description says how its inputs are called; it is asked for once, before the model's first job. An option that the model
  does not have is refused. So is ``schema=``, and a conversation where the model takes one prompt.
- The token goes to the API's own address and nowhere else: not to the host of a stream, nor to that of a file, which need none.
- A job that we stop waiting for is cancelled. During the first seconds, when its id is not known yet, it can't be; so each job is created
  with a deadline (``Cancel-After``) at our own time limit.
- A job can't be created twice by the same request, so one whose creation is in doubt (5xx, a lost connection) is not created again.
  The driver's exception stands: a connection that was idle and turns out to be closed is replaced.
- Length limits, which Replicate does not report, are told by the count of tokens. The seed it drew is in its logs, whose wording differs
  from model to model, and is not read.
- A streamed answer is followed by one more exchange, for its metrics; its latency includes that one.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import httpx

from .. import errors, settings
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
    Usage,
)
from ..wire.fastjson import loads
from ..wire.retry import positive
from ..wire.steps import Sleep, Steps
from ..wire.stream import SSEDecoder, SSEvent, paired
from .base import DEFAULT_TIMEOUT_S, Provider, Reader, message_in, parsed_url, time_limits, told_status
from .chat_completions import image_address, renamed
from .key import ApiKey
from .reading import StreamReader, count, is_error, read_json

__all__ = ["Replicate", "ReplicateReader"]

Body = dict[str, Any]  # JSON

WAIT_S = 5
"""How long the creation of a job may wait for its end. The service allows 60; but a job can be cancelled only once its creation has answered."""
LONGEST_RUN_S = 1800
CANCEL_TIMEOUT_S = 5.0
SETTLING_S = 5.0
"""How long we ask for the metrics of a job whose stream has ended."""
PATIENCE = 5
"""How often in a row we may fail to hear of a job before it is given up."""
UNTOLD_PAUSE_S = 20.0
"""How long to wait after a 429 that doesn't say."""

NAMES = {
    "prompt": ("prompt",),
    "system": ("system_prompt", "system_instruction", "system"),
    "messages": ("messages",),
    "image": ("image", "image_input", "images", "input_images"),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "stop": ("stop_sequences", "stop"),
    "seed": ("seed",),
    "n": ("num_outputs", "number_of_images", "num_images"),
}
"""What models call our options; the first that a model has is taken."""


class Replicate(Provider):
    """Models at replicate.com: ``owner/name``, ``owner/name:version``, a version's id, or ``deployments/owner/name``."""

    name = "replicate"
    base_url = "https://api.replicate.com/v1"
    key_var = "REPLICATE_API_TOKEN"
    url_vars = ("REPLICATE_BASE_URL",)
    key_required = True

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.every_s = poll_interval()
        self._targets: dict[str, Target] = {}

    @classmethod
    def read_address(cls, text: str) -> str:
        """``REPLICATE_BASE_URL`` has no version, since Replicate's own client adds it."""
        text = text.strip().rstrip("/")
        return text if text.endswith("/v1") else f"{text}/v1"

    # --- text ----------------------------------------------------------------------------------------------------------

    def wire(self, request: ChatRequest) -> Wire:
        """The question in our own words: how the model's inputs are called is not known yet."""
        if request.schema is not None:
            self.refuse("schema=", "models there have inputs of their own; where one takes a JSON Schema, give it in extra=")
        return Wire("POST", self.base_url + "/predictions", {"model": request.model, "options": build_options(request)}, self.headers())

    def reader(self, request: ChatRequest) -> ReplicateReader:
        return ReplicateReader(self, request, SSEDecoder())

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        return self.reader(request).whole(response)

    def answer(self, request: ChatRequest, wire: Wire) -> Steps[Reply]:
        response = yield from self.run_job(wire, request.timeout_s)
        return self.read_chat(response, request)

    def answer_stream(
        self, request: ChatRequest, wire: Wire, reader: Reader, read: Callable[[httpx.Response], Steps[None]]
    ) -> Steps[httpx.Response]:
        assert isinstance(reader, ReplicateReader)
        created = yield from self.create(wire, request.timeout_s, wait=False)
        job = Job(self.read_job(created, request.model), request.model)
        reader.id = job.data["id"]
        try:
            if job.over or job.stream is None:  # it was quick, or its model does not stream
                response = yield from self.ended(created, job, request.timeout_s)
                reader.read_whole_job(response)
                return response
            yield from read((yield from self.send(self.follow(job.stream, request.timeout_s), stream=True, model=request.model)))
            reader.end_stream()
            return (yield from self.settle(job, reader)) if reader.done else created
        finally:
            if not reader.job_over:
                yield from self.cancel(job)

    def settle(self, job: Job, reader: ReplicateReader) -> Steps[httpx.Response]:
        """Fetch what a stream that has ended does not tell. Every word is there: where that fails, only what it took is not known."""
        response = httpx.Response(200)
        try:
            response = yield from self.send(self.get(job.path), model=job.model)
            job.data = self.read_job(response, job.model)
            response = yield from self.ended(response, job, SETTLING_S)
            reader.read_metrics(response)
        except (httpx.HTTPError, errors.ProviderError):
            pass
        return response

    # --- images --------------------------------------------------------------------------------------------------------

    def image_wire(self, request: ImageRequest) -> Wire:
        options: Body = {"prompt": request.prompt, "extra": dict(request.extra)}
        if request.size is not None:
            options["size"] = list(request.size)
        if request.seed is not None:
            options["seed"] = request.seed
        if request.n > 1:
            options["n"] = request.n
        return Wire("POST", self.base_url + "/predictions", {"model": request.model, "options": options}, self.headers())

    def make_images(self, request: ImageRequest, wire: Wire) -> Steps[ImageReply]:
        """The service deletes the pictures after an hour, so their bytes are part of the answer and their addresses are not."""
        response = yield from self.run_job(wire, request.timeout_s)
        reader = self.reader(ChatRequest(model=request.model, messages=()))
        reader.read_whole_job(response)
        if reader.failure is not None:
            raise reader.failure
        addresses = read_addresses(reader.output)
        if not addresses:
            raise self.bad_reply(f"the job made no pictures but {str(reader.output)[:200]!r}", reader.request, 200)
        images = []
        for address in addresses:
            images.append((yield from self.download(address, request)))
        return ImageReply(
            images=tuple(images), served_model=reader.served_model, usage=reader.usage, request_id=reader.id, reported=reader.reported
        )

    def download(self, address: str, request: ImageRequest) -> Steps[Image]:
        if address.startswith("data:"):
            return self.read_data_url(address, request)
        response = yield from self.send(self.follow(address, request.timeout_s, accept="*/*"), model=request.model)
        if response.status_code != 200 or not response.content:
            why = f"the picture at {address[:200]} can't be had (status {response.status_code}, {len(response.content)} bytes)"
            raise self.bad_reply(why, ChatRequest(model=request.model, messages=()), response.status_code)
        return Image(data=response.content, mime=response.headers.get("content-type", "image/png").partition(";")[0].strip())

    def read_data_url(self, address: str, request: ImageRequest) -> Image:
        kind, _, data = address.removeprefix("data:").partition(",")
        mime, *marks = kind.split(";")
        try:
            decoded = base64.b64decode(data, validate=True) if "base64" in marks else unquote_to_bytes(data)
        except (binascii.Error, ValueError) as exc:
            raise self.bad_reply("a picture in the answer is not base64", ChatRequest(model=request.model, messages=()), 200) from exc
        return Image(data=decoded, mime=mime or "image/png")

    # --- jobs ----------------------------------------------------------------------------------------------------------

    def run_job(self, wire: Wire, timeout_s: float | None) -> Steps[httpx.Response]:
        """Create a job and wait for its end; give back the response that tells of it."""
        model = wire.body["model"]
        created = yield from self.create(wire, timeout_s, wait=True)
        job = Job(self.read_job(created, model), model)
        try:
            return (yield from self.ended(created, job, timeout_s))
        except BaseException:
            yield from self.cancel(job)
            raise

    def create(self, wire: Wire, timeout_s: float | None, *, wait: bool) -> Steps[httpx.Response]:
        model = wire.body["model"]
        target = yield from self.target(model)
        body = {**target.body, "input": target.inputs(wire.body["options"])}
        request = self.build(Wire("POST", self.base_url + target.path, body, wire.headers), stream=False, timeout_s=timeout_s)
        limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        request.headers["cancel-after"] = f"{max(WAIT_S, min(LONGEST_RUN_S, math.ceil(limit_s)))}s"
        if wait:
            request.headers["prefer"] = f"wait={max(1, min(WAIT_S, int(limit_s)))}"
        try:
            return (yield from self.send(request, model=model))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise  # it never got there
        except httpx.TransportError as exc:
            self.keys.wash(exc)
            kind = errors.ProviderTimeoutError if isinstance(exc, httpx.TimeoutException) else errors.UnreachableError
            why = f"no answer to the creation of a job ({self.scrub(str(exc))}); it may be running: see https://replicate.com/predictions"
            raise kind(f"{self.name} at {self.shown_url}: {why}", provider=self.name, model=model, retryable=False) from exc
        except (errors.ServerError, errors.ProviderTimeoutError) as error:
            error.retryable = False
            raise

    def ended(self, response: httpx.Response, job: Job, timeout_s: float | None) -> Steps[httpx.Response]:
        """Ask for a job until it is over."""
        left_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        failures = 0
        while not job.over:
            if left_s <= 0:
                why = f"the job was still {job.status} at the end of the time limit, and is cancelled; give it more with timeout_s="
                raise errors.ProviderTimeoutError(f"{self.name}: {why}", provider=self.name, model=job.model, retryable=False)
            pause_s = self.every_s
            yield Sleep(pause_s)
            left_s -= pause_s
            try:
                response = yield from self.send(self.get(job.path), model=job.model)
                job.data = self.read_job(response, job.model)
                failures = 0
            except (httpx.TransportError, errors.ProviderError) as exc:
                failures += 1
                if failures >= PATIENCE or not (isinstance(exc, httpx.TransportError) or exc.retryable):
                    raise
        return response

    def cancel(self, job: Job) -> Steps[None]:
        """Tell the service that nobody waits any more. Whether it hears is not worth another error: there is ``Cancel-After``."""
        if job.over:
            return
        request = httpx.Request(
            "POST",
            parsed_url(f"{self.base_url}{job.path}/cancel"),
            headers={**self.headers(), **self.auth_headers()},
            content=b"",
            extensions={"timeout": time_limits(CANCEL_TIMEOUT_S)},
        )
        try:
            yield from self.send(request, model=job.model)
        except (httpx.HTTPError, errors.ProviderError):
            return

    def read_job(self, response: httpx.Response, model: str) -> Body:
        data = read_json(self, response, model)
        if not (isinstance(data.get("id"), str) and isinstance(data.get("status"), str)):
            if is_error(data):
                raise self.told_error(data, model)
            why = f"that is no job: {message_in(data)[:200]}"
            raise self.bad_reply(why, ChatRequest(model=model, messages=()), response.status_code)
        return data

    def follow(self, address: str, timeout_s: float | None, accept: str = "text/event-stream") -> httpx.Request:
        """Make a request to an address that the service gave us, without our token if it is elsewhere."""
        url = httpx.URL(urljoin(self.base_url + "/", address))
        ours = (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port)
        headers = {"accept": accept, "cache-control": "no-store", "accept-encoding": "identity", **(self.auth_headers() if ours else {})}
        return httpx.Request("GET", url, headers=headers, extensions={"timeout": time_limits(timeout_s)})

    # --- models --------------------------------------------------------------------------------------------------------

    def target(self, model: str) -> Steps[Target]:
        """Where the jobs of a model are created and what its inputs are called; asked for once."""
        found = self._targets.get(model)
        if found is None:
            found = self._targets[model] = yield from self.describe(model)
        return found

    def describe(self, model: str) -> Steps[Target]:
        owner, slash, name = model.partition("/")
        if owner == "deployments":
            return Target(model, f"/deployments/{quote(name)}/predictions", {}, None)
        if not slash:
            return Target(model, "/predictions", {"version": model}, None)
        name, _, version = name.partition(":")
        path = f"/models/{quote(owner)}/{quote(name)}"
        response = yield from self.send(self.get(f"{path}/versions/{quote(version)}" if version else path), model=model)
        data = read_json(self, response, model)
        if is_error(data):
            raise self.told_error(data, model)
        if version:
            return Target(model, "/predictions", {"version": version}, read_inputs(data))
        latest = data.get("latest_version")
        latest = latest if isinstance(latest, dict) else {}
        if data.get("is_official") or not latest.get("id"):
            return Target(model, f"{path}/predictions", {}, read_inputs(latest))
        return Target(model, "/predictions", {"version": str(latest["id"])}, read_inputs(latest))

    def list_models(self) -> Steps[list[ModelInfo]]:
        """The official models, which are always warm; there are tens of thousands of others."""
        response = yield from self.send(self.get("/collections/official"))
        data = read_json(self, response)
        if is_error(data):
            raise self.told_error(data, None)
        if not isinstance(data.get("models"), list):
            raise self.bad_reply(
                f"{self.shown_url} does not list models: {message_in(data)[:200]}", ChatRequest(model="", messages=()), 200
            )
        return [read_model(entry) for entry in data["models"] if isinstance(entry, dict)]

    def health(self) -> Steps[Health]:
        response = yield from self.send(self.get("/account"))
        data = read_json(self, response)
        if is_error(data):
            raise self.told_error(data, None)
        if not isinstance(data.get("username"), str):
            return Health(provider=self.name, ok=False, detail=f"what answers at {self.shown_url} is not Replicate")
        return Health(provider=self.name, ok=True, detail=f"Replicate at {self.shown_url}, as {paired(data['username'])}")

    # --- errors --------------------------------------------------------------------------------------------------------

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        if status == 402:
            return "there is no credit left: https://replicate.com/account/billing"
        return super().hint(status, model, message)

    def read_error(self, response: httpx.Response, model: str | None = None) -> errors.ProviderError:
        error = super().read_error(response, model)
        if isinstance(error, errors.RateLimitError) and error.retry_after is None:
            error.retry_after = read_pause(response)
        return error

    def told_error(self, data: Any, model: str | None) -> errors.ProviderError:  # any JSON
        """A job that failed would fail again, and be billed again."""
        error = super().told_error(data, model)
        if told_status(self.read_fault(data).codes) is None:
            error.retryable = False
        return error


def poll_interval() -> float:
    text = settings.variable("REPLICATE_POLL_INTERVAL") or "0.5"
    try:
        seconds = positive(float(text))
    except ValueError:
        seconds = None
    if not seconds:
        raise errors.ConfigError(f"REPLICATE_POLL_INTERVAL={text!r} is not a number of seconds above zero")
    return seconds


def read_pause(response: httpx.Response) -> float:
    """How long to wait after a 429 without ``Retry-After``: the body's number, a header's, or the sentence that is all the documentation has."""
    try:
        data = loads(response.content)
    except ValueError:
        data = None
    told = data if isinstance(data, dict) else {}
    sentence = re.search(r"resets in ~?(\d+(?:\.\d+)?) ?s", str(told.get("detail", "")))
    for value in (told.get("retry_after"), response.headers.get("ratelimit-reset"), sentence and sentence.group(1)):
        try:
            if value is not None and (seconds := positive(float(value))) is not None:
                return seconds
        except (TypeError, ValueError):
            continue
    return UNTOLD_PAUSE_S


# --- requests ----------------------------------------------------------------------------------------------------------------


def build_options(request: ChatRequest) -> Body:
    """Write down the question in our own words; the model's come later."""
    options: Body = {"extra": dict(request.extra)} | build_prompt(request.messages)
    if request.max_tokens is not None:
        options["max_tokens"] = request.max_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.top_p is not None:
        options["top_p"] = request.top_p
    if request.stop:
        options["stop"] = list(request.stop)
    if request.seed is not None:
        options["seed"] = request.seed
    return options


def build_prompt(messages: tuple[Message, ...]) -> Body:
    """A prompt with its system prompt and images; or ``messages``, which few models take, for a conversation."""
    if any(message.tool_calls or message.role == "tool" for message in messages):
        raise errors.ConfigError("replicate has no tools: models there take a prompt")
    system = "\n\n".join(message.text for message in messages if message.role in ("system", "developer"))
    turns = [message for message in messages if message.role not in ("system", "developer")]
    built: Body = {"system": system} if system else {}
    if len(turns) != 1 or turns[0].role != "user":
        return built | {"messages": [{"role": turn.role, "content": turn.text} for turn in turns]}
    images = [image_address(part) for part in turns[0].content if isinstance(part, ImagePart)]
    return built | {"prompt": turns[0].text} | ({"image": images} if images else {})


@dataclass(frozen=True, slots=True)
class Target:
    """Where the jobs of a model are created, and its inputs by name; ``None`` where they can't be known."""

    model: str
    path: str
    body: Mapping[str, Any]
    known: Mapping[str, Any] | None

    def inputs(self, options: Mapping[str, Any]) -> Body:
        """Call our options by the model's names.

        Raises
        ------
        ConfigError
            For one that the model does not have.
        """
        built: Body = {}
        for option, value in options.items():
            if option == "size":
                built |= self.size(*value)
            elif option != "extra":
                name = self.name_of(option)
                built[name] = self.shaped(option, name, value)
        for name in options["extra"]:
            if self.known is not None and name not in self.known:
                raise self.lacking(f"extra={{{name!r}: ...}}")
        return {**built, **options["extra"]}

    def name_of(self, option: str) -> str:
        names = NAMES[option]
        if self.known is None:
            return names[0]
        found = next((name for name in names if name in self.known), None)
        if found is None:
            raise self.lacking({"messages": "a conversation of several turns", "image": "images"}.get(option, f"{option}="))
        return found

    def shaped(self, option: str, name: str, value: Any) -> Any:  # any JSON
        """Some models take one string where others take a list."""
        described = (self.known or {}).get(name)
        takes_list = isinstance(described, dict) and described.get("type") == "array"
        if option == "stop" and not takes_list:
            if any("," in word for word in value):
                raise errors.ConfigError(
                    f"replicate/{self.model} takes its stop words in one text with commas between; they can't hold a comma"
                )
            return ",".join(value)
        if option == "image" and not takes_list:
            if len(value) > 1:
                raise errors.ConfigError(f"replicate/{self.model} takes one image, not {len(value)}")
            return value[0]
        return value

    def size(self, width: int, height: int) -> Body:
        known = self.known if self.known is not None else {"width": None, "height": None}
        if "width" in known and "height" in known:
            return {"width": width, "height": height}
        if "aspect_ratio" in known:
            divisor = math.gcd(width, height)
            return {"aspect_ratio": f"{width // divisor}:{height // divisor}"}
        raise self.lacking("size=")

    def lacking(self, what: str) -> errors.ConfigError:
        return errors.ConfigError(f"replicate/{self.model} has no input for {what}; it has {', '.join(sorted(self.known or {}))}")


def read_inputs(version: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The inputs in the OpenAPI description of a version."""
    place: Any = version
    for name in ("openapi_schema", "components", "schemas", "Input", "properties"):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


# --- answers -----------------------------------------------------------------------------------------------------------------

METRICS = {
    "predict_time": ("predict_s", 1.0),
    "total_time": ("server_total_s", 1.0),
    "time_to_first_token": ("ttft_s", 1.0),
    "tokens_per_second": ("tokens_per_second", 1.0),
    "image_count": ("image_count", 1.0),
}


@dataclass(slots=True)
class Job:
    """A prediction under way. Its address is made from its id: the one that the service sends could be another host's."""

    data: Body
    model: str
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = f"/predictions/{quote(self.data['id'], safe='')}"

    @property
    def status(self) -> str:
        return str(self.data["status"])

    @property
    def over(self) -> bool:
        return self.status not in ("starting", "processing")

    @property
    def stream(self) -> str | None:
        urls = self.data.get("urls")
        found = urls.get("stream") if isinstance(urls, dict) else None
        return found if isinstance(found, str) and found.startswith(("https://", "http://")) else None


class ReplicateReader(StreamReader[SSEvent]):
    """Reads a job's stream, whose pieces are plain text and not JSON, and the job itself."""

    provider: Replicate
    marks_its_end = True

    def __init__(self, provider: Replicate, request: ChatRequest, decoder: SSEDecoder) -> None:
        super().__init__(provider, request, decoder)
        self.id: str | None = None
        self.output: Any = None  # any JSON
        self.job_over = False

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        name, data = item
        if name in ("output", "done", "error"):
            self._unread = None
        if self.done:
            return
        if name == "output":
            self.add("text", data.decode("utf-8", "replace"), events)
        elif name == "error":
            self._read_failure(data)
        elif name == "done":
            self._read_done(data)

    def _read_failure(self, data: bytes) -> None:
        """``{"detail": ...}`` by the documentation, plain text in practice."""
        self.job_over = True
        try:
            told = loads(data)
        except ValueError:
            told = data.decode("utf-8", "replace")
        self.fail(self.provider.told_error(told, self.request.model))

    def _read_done(self, data: bytes) -> None:
        self.job_over = True
        try:
            told = loads(data)
        except ValueError:
            told = None
        reason = told.get("reason") if isinstance(told, dict) else None
        if reason in ("canceled", "error"):
            self._end_badly(reason, None)
        else:
            self.done = True
            self.finish = "stop"

    def _end_badly(self, how: str, why: Any) -> None:  # any JSON
        facts: Body = {"provider": self.provider.name, "model": self.request.model, "status": 200, "retryable": False}
        if how == "aborted":
            told = "the job was stopped before it began: its deadline passed, or somebody cancelled it"
            self.fail(errors.ProviderTimeoutError(f"{self.provider.name}: {told}", **facts))
        elif how == "canceled":
            told = "the job was cancelled: by its deadline (timeout_s=), or by somebody"
            self.fail(errors.ServerError(f"{self.provider.name}: {told}", **facts))
        else:
            self.fail(self.provider.told_error({"error": why or "the job failed and does not say why"}, self.request.model))

    def read_data(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """The ``error`` of a job is one of its fields, and need not be its end."""
        if "status" in data and "id" in data:
            self._unread = None
            self.read_object(data, events)
        elif is_error(data):
            super().read_data(data, events)
        else:
            self.fail(self.provider.bad_reply(f"that is no job: {message_in(data)[:200]}", self.request, 200))

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        """Read a whole job."""
        self._read_facts(data)
        status, self.output = data.get("status"), data.get("output")
        if status != "succeeded":
            self._end_badly(str(status), data.get("error"))
            return
        self.done = True
        self.finish = self._finish()
        if data.get("data_removed"):
            self.fail(self.provider.bad_reply("the output of the job has been deleted; that happens after an hour", self.request, 200))
        elif self.output is None:
            self.fail(self.provider.bad_reply("the job succeeded without an output", self.request, 200))
        elif (text := read_text(self.output)) is not None:
            self.add("text", text, events)

    def read_whole_job(self, response: httpx.Response) -> None:
        """Take a job that is over, its text included."""
        self.job_over = True
        self.read_data(read_json(self.provider, response, self.request.model), self.tail)

    def end_stream(self) -> None:
        """Take up what the end of the bytes completes: the last event may lack its blank line."""
        if self.failure is None and not self.done:
            self._take(self._decoder.close(), self.tail)

    def read_metrics(self, response: httpx.Response) -> None:
        """Take from a job what its stream did not tell."""
        data = read_json(self.provider, response, self.request.model)
        self._read_facts(data)
        self.finish = self._finish()
        if data.get("status") != "succeeded":
            self._end_badly(str(data.get("status")), data.get("error"))

    def _read_facts(self, data: Mapping[str, Any]) -> None:
        self.id = paired(data["id"]) if isinstance(data.get("id"), str) else None
        model, version = data.get("model"), data.get("version")
        if isinstance(model, str) and model:
            self.served_model = paired(f"{model}:{version}" if isinstance(version, str) and version not in ("", "hidden") else model)
        metrics = data.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        self.usage = Usage(input_tokens=count(metrics.get("input_token_count")), output_tokens=count(metrics.get("output_token_count")))
        self.reported |= renamed(metrics, METRICS) | read_queue(data)

    def _finish(self) -> FinishReason:
        """Replicate does not say whether a text hit its limit."""
        limit, used = self.request.max_tokens, self.usage.output_tokens
        return "length" if limit is not None and used is not None and used >= limit else "stop"

    def _judge(self) -> None:
        super()._judge()
        if self.failure is None and self.output is not None and read_text(self.output) is None:
            self.fail(self.provider.bad_reply(f"the output is no text but {str(self.output)[:200]!r}", self.request, 200))

    def reply(self, request_id: str | None = None) -> Reply:
        return super().reply(self.id or request_id)


def read_text(output: Any) -> str | None:  # any JSON
    """A text, or its pieces. A text that begins like an address is a text all the same."""
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    return output if isinstance(output, str) else None


def read_addresses(output: Any) -> list[str]:  # any JSON
    """The addresses of files: one, a list, or the values of an object."""
    listed = output if isinstance(output, list) else list(output.values()) if isinstance(output, dict) else [output]
    return [each for each in listed if isinstance(each, str) and each.startswith(("https://", "http://", "data:"))]


def read_queue(data: Mapping[str, Any]) -> dict[str, float]:
    """How long a job waited for a machine, cold start included: to be told apart from how long it ran."""
    try:
        created, started = datetime.fromisoformat(data["created_at"]), datetime.fromisoformat(data["started_at"])
        return {"queue_s": (started - created).total_seconds()}
    except (KeyError, TypeError, ValueError):
        return {}


def read_model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(id=f"{entry.get('owner')}/{entry.get('name')}", provider=Replicate.name, detail=dict(entry))
