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

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import httpx

from .. import errors, settings
from ..keys import Wire
from ..types import (
    ChatRequest,
    Health,
    Image,
    ImageReply,
    ImageRequest,
    ModelInfo,
    Reply,
)
from ..wire.fastjson import loads
from ..wire.retry import positive
from ..wire.steps import Sleep, Steps
from ..wire.stream import SSEDecoder, paired
from .base import DEFAULT_TIMEOUT_S, Provider, Reader, message_in, parsed_url, time_limits, told_status
from .images import read_data_url, read_picture
from .key import ApiKey
from .reading import is_error, read_json
from .replicate_answers import Job, ReplicateReader, read_addresses
from .replicate_inputs import Target, build_options, read_inputs

__all__ = ["Replicate"]

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
        asked = ChatRequest(model=request.model, messages=())
        if address.startswith("data:"):
            kind, _, data = address.removeprefix("data:").partition(",")
            image = read_data_url(address) if kind.endswith(";base64") else read_picture(unquote_to_bytes(data), kind)
            if image is None:
                raise self.bad_reply("what should be a picture in the answer is none, or not base64", asked, 200)
            return image
        response = yield from self.send(self.follow(address, request.timeout_s, accept="*/*"), model=request.model)
        if response.status_code != 200 or not response.content:
            why = f"the picture at {address[:200]} can't be had (status {response.status_code}, {len(response.content)} bytes)"
            raise self.bad_reply(why, asked, response.status_code)
        mime = response.headers.get("content-type", "image/png").partition(";")[0].strip()
        return read_picture(response.content, mime) or Image(data=response.content, mime=mime)  # some models make films

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


def read_model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(id=f"{entry.get('owner')}/{entry.get('name')}", provider=Replicate.name, detail=dict(entry))
