"""How each inference provider behind Hugging Face's router is asked for a picture, and where in its answer the picture is.

Every poll has an end, polling addresses are rebuilt on the router (only it knows the token), and results are fetched without the token:
they are in the storage of somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from ..errors import ProviderTimeoutError, ReplyError, ServerError
from ..types import Image, ImageRequest
from ..wire.steps import Sleep, Steps
from .base import message_in, parsed_url, time_limits
from .chat_completions import merge_extra
from .images import read_base64, read_picture
from .reading import fields_of, objects, read_json

if TYPE_CHECKING:
    from .huggingface import HuggingFace

__all__ = ["ROUTES", "Route", "image_body"]

Body = dict[str, Any]  # JSON
Reading = Callable[["HuggingFace", str, httpx.Response, ImageRequest], Steps[Image]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One provider's way. ``path`` and ``body`` get the provider's own name of the model; ``size`` says how it writes a size."""

    path: Callable[[str], str]
    read: Reading
    body: Callable[[str, Body], Body] = lambda _model, body: body
    size: Callable[[int, int], Body] = lambda width, height: {"width": width, "height": height}
    headers: Mapping[str, str] = field(default_factory=dict)


def image_body(request: ImageRequest, route: Route | None) -> Body:
    """What is asked for, in a route's words; where it is not known yet, in the commonest."""
    body: Body = {"prompt": request.prompt}
    if request.size is not None:
        body |= route.size(*request.size) if route else {"width": request.size[0], "height": request.size[1]}
    if request.seed is not None:
        body["seed"] = request.seed
    merge_extra(body, request.extra)
    return body


# --- requests ----------------------------------------------------------------------------------------------------------------


def as_inputs(_model: str, body: Body) -> Body:
    parameters = {name: value for name, value in body.items() if name != "prompt"}
    return {"inputs": body["prompt"]} | ({"parameters": parameters} if parameters else {})


def as_input(model: str, body: Body) -> Body:
    version = model.partition(":")[2]
    return ({"version": version} if version else {}) | {"input": body}


def with_model(**fields: Any) -> Callable[[str, Body], Body]:  # any JSON
    return lambda model, body: {"model": model, **body, **fields}


def in_words(width: int, height: int) -> Body:
    return {"size": f"{width}x{height}"}


def in_image_size(width: int, height: int) -> Body:
    return {"image_size": {"width": width, "height": height}}


def prediction_path(model: str) -> str:
    return "/v1/predictions" if ":" in model else f"/v1/models/{model}/predictions"


# --- answers -----------------------------------------------------------------------------------------------------------------


def read_bytes(provider: HuggingFace, _origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    """The body is the picture; where it is JSON it is an error, whatever the status."""
    yield from ()
    return picture(provider, response, request)


def read_encoded(provider: HuggingFace, _origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    yield from ()
    data = read_json(provider, response, request.model)
    first = next(iter(objects(data.get("data"))), {})
    return found(provider, read_base64(first.get("b64_json")), data, request)


def read_fal(provider: HuggingFace, _origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    data = read_json(provider, response, request.model)
    first = next(iter(objects(data.get("images"))), {})
    return (yield from fetch(provider, first.get("url"), data, request))


def read_replicate(provider: HuggingFace, _origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    """``Prefer: wait`` waits for a minute; no output then means that the picture is not ready."""
    data = read_json(provider, response, request.model)
    output = data.get("output")
    if output is None and not data.get("error"):
        raise too_slow(provider, request, "a minute")
    return (yield from fetch(provider, output[0] if isinstance(output, list) and output else output, data, request))


def read_wavespeed(provider: HuggingFace, origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    answer = read_json(provider, response, request.model)
    job = fields_of(answer.get("data"))
    where = fields_of(job.get("urls")).get("get")
    if not isinstance(where, str):
        raise no_picture(provider, answer, request)
    address = origin + parsed_url(where).raw_path.decode("ascii")
    for _ in range(600):
        answer = yield from ask_again(provider, address, request)
        job = fields_of(answer.get("data"))
        if job.get("status") in ("completed", "failed"):
            outputs = job.get("outputs")
            first = outputs[0] if isinstance(outputs, list) and outputs and job["status"] == "completed" else None
            return (yield from fetch(provider, first, job, request))
        yield Sleep(0.5)
    raise too_slow(provider, request, "five minutes")


def read_zai(provider: HuggingFace, origin: str, response: httpx.Response, request: ImageRequest) -> Steps[Image]:
    job = read_json(provider, response, request.model)
    if not isinstance(job.get("id"), str):
        raise no_picture(provider, job, request)
    address = f"{origin}/api/paas/v4/async-result/{job['id']}"
    for _ in range(60):
        job = yield from ask_again(provider, address, request)
        if job.get("task_status") == "SUCCESS":
            first = next(iter(objects(job.get("image_result"))), {})
            return (yield from fetch(provider, first.get("url"), job, request))
        if job.get("task_status") == "FAIL":
            raise no_picture(provider, job, request)
        yield Sleep(5.0)
    raise too_slow(provider, request, "five minutes")


def ask_again(provider: HuggingFace, address: str, request: ImageRequest) -> Steps[dict[str, Any]]:
    headers = {"accept": "application/json", **provider.headers(), **provider.auth_headers()}
    question = httpx.Request("GET", parsed_url(address), headers=headers, extensions={"timeout": time_limits(request.timeout_s)})
    return read_json(provider, (yield from provider.send(question, model=request.model)), request.model)


def fetch(provider: HuggingFace, address: Any, data: Any, request: ImageRequest) -> Steps[Image]:  # any JSON
    """Get a picture from where it is kept, without telling that place our token."""
    if not isinstance(address, str) or not address.startswith(("https://", "http://", "data:")):
        raise no_picture(provider, data, request)
    if address.startswith("data:"):
        return found(provider, read_base64(address), data, request)
    question = httpx.Request("GET", parsed_url(address), extensions={"timeout": time_limits(request.timeout_s)})
    return picture(provider, (yield from provider.send(question, model=request.model)), request)


def picture(provider: HuggingFace, response: httpx.Response, request: ImageRequest) -> Image:
    kind = response.headers.get("content-type", "")
    image = read_picture(response.content, kind)
    if image is None:
        raise no_picture(provider, read_json(provider, response, request.model), request)
    return image


def found(provider: HuggingFace, image: Image | None, data: Any, request: ImageRequest) -> Image:  # any JSON
    if image is None:
        raise no_picture(provider, data, request)
    return image


def no_picture(provider: HuggingFace, data: Any, request: ImageRequest) -> ServerError | ReplyError:  # any JSON
    """The error of an answer in good order, with no picture but perhaps a reason in it."""
    why = f"{provider.name}: there is no picture in the answer, it says: {message_in(data)[:300]}"
    kind = ServerError if isinstance(data, dict) and data.get("error") else ReplyError
    return kind(provider.scrub(why), provider=provider.name, model=request.model, status=200)


def too_slow(provider: HuggingFace, request: ImageRequest, limit: str) -> ProviderTimeoutError:
    """Not to be retried: each try is a new picture, and a new bill."""
    why = f"{provider.name}: the picture was not ready after {limit}"
    return ProviderTimeoutError(why, provider=provider.name, model=request.model, retryable=False)


ROUTES = {
    "hf-inference": Route(path=lambda model: f"/models/{model}", body=as_inputs, headers={"accept": "image/png"}, read=read_bytes),
    "together": Route(path=lambda _model: "/v1/images/generations", body=with_model(response_format="base64"), read=read_encoded),
    "nscale": Route(
        path=lambda _model: "/v1/images/generations", body=with_model(response_format="b64_json"), size=in_words, read=read_encoded
    ),
    "fal-ai": Route(path=lambda model: f"/{model}", size=in_image_size, read=read_fal),
    "replicate": Route(path=prediction_path, body=as_input, headers={"prefer": "wait"}, read=read_replicate),
    "wavespeed": Route(path=lambda model: f"/api/v3/{model}", read=read_wavespeed),
    "zai-org": Route(path=lambda _model: "/api/paas/v4/async/images/generations", body=with_model(), size=in_words, read=read_zai),
}
"""By the router's name of the provider. Treated as data: the list changes every few months."""
