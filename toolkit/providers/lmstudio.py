"""LM Studio. The end of the base URL says which of its three APIs is asked:

========  ==========================================================================================================
/v1       chat completions with everything: history, seeds, schemas, tools (the default)
/api/v0   the same, with the server's own statistics of each answer
/api/v1   its native chat: statistics, and the load time; one question at a time, without seed, stop, schema and tools
========  ==========================================================================================================

Models are listed, loaded, unloaded and downloaded through the native API whichever is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from ..errors import NotFoundError, ProviderError
from ..keys import Wire
from ..types import ChatRequest, Health, ModelInfo, PullProgress
from ..wire.steps import Emit, Sleep, Steps
from ..wire.stream import SSEDecoder
from .base import Reader, encode_json, parsed_url, time_limits
from .chat_completions import ChatCompletions, renamed
from .lmstudio_native import NativeReader, build_native
from .reading import count, fields_of, is_error, number, objects, read_json

__all__ = ["LMStudio"]

STATS = {
    "time_to_first_token": ("ttft_s", 1.0),
    "generation_time": ("generation_s", 1.0),
    "tokens_per_second": ("tokens_per_second", 1.0),
    "model_load_time_seconds": ("load_s", 1.0),  # only where this call loaded the model
}
APIS = ("/api/v0", "/api/v1", "/v1")
POLL_S = 1.0


class LMStudio(ChatCompletions):
    """A local LM Studio server.

    - With one model loaded, an older server answers for it whatever was asked: compare ``completion.served_model``.
    - The first question to a model that is not loaded loads it, and may unload another: ``tk.load_model`` before a comparison.
    - ``pull_model`` downloads; there is no way to delete a model over HTTP.
    """

    name = "lmstudio"
    base_url = "http://localhost:1234/v1"
    key_var = "LM_API_TOKEN"
    url_vars = ("LMSTUDIO_BASE_URL",)
    free = True

    @property
    def origin(self) -> str:
        """The server's address without the path of an API."""
        return next((self.base_url.removesuffix(end) for end in APIS if self.base_url.endswith(end)), self.base_url)

    @property
    def native(self) -> bool:
        return self.base_url.endswith("/api/v1")

    def wire(self, request: ChatRequest) -> Wire:
        if not self.native:
            return super().wire(request)
        return Wire("POST", self.base_url + "/chat", build_native(self, request), self.headers())

    def stream_body(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "stream": True} if self.native else super().stream_body(body)

    def reader(self, request: ChatRequest) -> Reader:  # type: ignore[override]  # another dialect at another address
        return NativeReader(self, request, SSEDecoder()) if self.native else super().reader(request)

    def told_error(self, data: Any, model: str | None) -> ProviderError:  # any JSON
        """An unknown route is answered with status 200 and a bare sentence as ``error``."""
        error = super().told_error(data, model)
        if self.base_url.endswith(APIS):
            return error
        message = f"{error} (the base URL must end in /v1; it is {self.shown_url})"
        return NotFoundError(message, provider=self.name, model=model, status=200)

    def read_reported(self, data: Mapping[str, Any]) -> dict[str, float | str]:
        reason = fields_of(data.get("stats")).get("stop_reason")
        told: dict[str, float | str] = {"stop_reason": reason} if isinstance(reason, str) else {}
        return super().read_reported(data) | renamed(data.get("stats"), STATS) | told

    # --- models ----------------------------------------------------------------------------------------------------------

    def list_models(self) -> Steps[list[ModelInfo]]:
        """List what is on the disk, by the newest API that the server has."""
        for path, field, read in (("/api/v1/models", "models", read_native_model), ("/api/v0/models", "data", read_beta_model)):
            found = yield from self.look(path, field, read)
            if found is not None:
                return found
        return (yield from super().list_models())

    def look(self, path: str, field: str, read: Callable[[Mapping[str, Any]], ModelInfo]) -> Steps[list[ModelInfo] | None]:
        """Ask a list of models; ``None`` where the server has no such route, which it says with 404, or with 200 and an error."""
        request = httpx.Request("GET", parsed_url(self.origin + path), headers=self.get("").headers, extensions=self.get("").extensions)
        try:
            data = read_json(self, (yield from self.send(request)))
        except NotFoundError:
            return None
        return [read(entry) for entry in objects(data[field])] if field in data else None

    def health(self) -> Steps[Health]:
        models = yield from self.list_models()
        loaded = sum(model.loaded is True for model in models)
        return Health(provider=self.name, ok=True, detail=f"{len(models)} models, {loaded} loaded, at {self.shown_url}")

    def load_model(self, model: str, context_tokens: int | None) -> Steps[float | None]:
        """A second load would make a second instance, so one with another context is unloaded first."""
        instances = yield from self.instances(model)
        windows = [fields_of(instance.get("config")).get("context_length") for instance in instances]
        if instances and context_tokens in (None, *windows):
            return 0.0
        yield from self.unload_model(model)
        wish = {} if context_tokens is None else {"context_length": context_tokens}
        done = yield from self.manage("/load", {"model": model, **wish}, model)
        return number(done.get("load_time_seconds"))

    def unload_model(self, model: str) -> Steps[None]:
        for instance in (yield from self.instances(model)):
            yield from self.manage("/unload", {"instance_id": instance.get("id")}, model)

    def instances(self, model: str) -> Steps[list[dict[str, Any]]]:
        """The loaded copies of a model."""
        found = yield from self.show_model(model)
        return objects(found.detail.get("loaded_instances"))

    def pull_model(self, model: str) -> Steps[PullProgress]:
        """Start a download and look at it each second until it has ended."""
        job = yield from self.manage("/download", {"model": model}, model)
        while True:
            progress = read_progress(job)
            yield Emit([progress])
            if progress.done:
                return progress
            if job.get("status") != "downloading":
                why = f"{self.name}: the download of {model} is {progress.status}; go on with it in LM Studio, or pull again"
                raise ProviderError(self.scrub(why), provider=self.name, model=model)
            yield Sleep(POLL_S)
            path = f"/download/status/{job.get('job_id')}"
            job = {"job_id": job.get("job_id"), **(yield from self.manage(path, None, model))}

    def delete_model(self, model: str) -> Steps[None]:  # noqa: ARG002 - the same for all models
        self.refuse("way to delete a model over HTTP", "delete it in LM Studio")

    def manage(self, path: str, body: Mapping[str, Any] | None, model: str) -> Steps[dict[str, Any]]:
        """One exchange with the native API, which came with LM Studio 0.4; without a body it is a question."""
        headers = {"content-type": "application/json", **self.headers(), **self.auth_headers()}
        request = httpx.Request(
            "GET" if body is None else "POST",
            parsed_url(f"{self.origin}/api/v1/models{path}"),
            headers=headers,
            content=None if body is None else encode_json(body),
            extensions={"timeout": time_limits(None)},
        )
        data = read_json(self, (yield from self.send(request, model=model)), model)
        if is_error(data):
            raise self.told_error(data, model)
        return data


def read_native_model(entry: Mapping[str, Any]) -> ModelInfo:
    """The context counts that a model is loaded with; what it could have is in ``detail["max_context_length"]``."""
    instances = objects(entry.get("loaded_instances"))
    windows = [count(fields_of(instance.get("config")).get("context_length")) for instance in instances]
    return ModelInfo(
        id=str(entry.get("key", "")),
        provider=LMStudio.name,
        context_tokens=min(filter(None, windows), default=None),
        size_bytes=count(entry.get("size_bytes")),
        loaded=bool(instances),
        detail=dict(entry),
    )


def read_beta_model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        id=str(entry.get("id", "")),
        provider=LMStudio.name,
        context_tokens=count(entry.get("loaded_context_length")),
        loaded=entry.get("state") == "loaded",
        detail=dict(entry),
    )


def read_progress(job: Mapping[str, Any]) -> PullProgress:
    total = count(job.get("total_size_bytes")) or 0
    status = str(job.get("status", ""))
    done = status in ("completed", "already_downloaded")
    return PullProgress(
        status=status, completed_bytes=total if done else count(job.get("downloaded_bytes")) or 0, total_bytes=total, done=done
    )
