"""Ollama, through its native API: it has load times, durations, model management and true error lines, all lost on its ``/v1``."""

from __future__ import annotations

import base64
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..errors import ConfigError, NotFoundError, ProviderError, StreamInterrupted
from ..keys import Wire
from ..pricing import LOCAL, Price
from ..types import ChatRequest, FinishReason, Health, ImagePart, Message, ModelInfo, PullProgress, Reply, StreamEvent, ToolCall, Usage
from ..wire.fastjson import loads
from ..wire.steps import Emit, Read, Steps
from ..wire.stream import LineDecoder, paired
from .base import Provider, encode_json, parsed_url, time_limits
from .chat_completions import merge_extra, renamed
from .reading import StreamReader, count, fields_of, is_error, number, objects, read_json, read_logprobs

__all__ = ["Ollama", "OllamaReader", "read_host"]

Body = dict[str, Any]  # JSON


class Ollama(Provider):
    """A local Ollama server, or ollama.com."""

    name = "ollama"
    base_url = "http://127.0.0.1:11434"
    key_var = "OLLAMA_API_KEY"
    url_vars = ("OLLAMA_BASE_URL", "OLLAMA_HOST")

    @classmethod
    def read_address(cls, text: str) -> str:
        return read_host(text)

    def wire(self, request: ChatRequest) -> Wire:
        body: Body = {"model": request.model, "messages": [build_message(message) for message in request.messages], "stream": False}
        options = build_options(request)
        if request.schema is not None:
            body["format"] = dict(request.schema)
        if request.extra:
            merge_extra(body, request.extra)
            options |= request.extra.get("options") or {}
        if options:
            body["options"] = options
        return Wire("POST", self.base_url + "/api/chat", body, self.headers())

    def reader(self, request: ChatRequest) -> OllamaReader:
        return OllamaReader(self, request, LineDecoder())

    def read_chat(self, response: httpx.Response, request: ChatRequest) -> Reply:
        return self.reader(request).whole(response)

    def hint(self, status: int | None, model: str | None, message: str = "") -> str:
        if status == 404 and self.base_url.endswith(("/v1", "/api")):
            return f"the base URL must not end in {self.base_url.rpartition('/')[2]!r}"
        if status == 404 and model:
            return f"pull the model: tk.pull_model('ollama/{model}')"
        if status == 403 and not message:
            return "an empty 403 means that Ollama does not know the host name in the address: use 127.0.0.1 or localhost"
        return super().hint(status, model, message)

    def list_models(self) -> Steps[list[ModelInfo]]:
        response = yield from self.send(self.get("/api/tags"))
        data = read_json(self, response)
        if "models" not in data:
            raise self.told_error(data, None)
        loaded = yield from self.loaded_models()
        return [with_state(read_model(entry), loaded) for entry in objects(data["models"])]

    def loaded_models(self) -> Steps[dict[str, dict[str, Any]] | None]:
        """The models in memory by name, with the context they were loaded with; ``None`` where an old server can't tell."""
        try:
            data = read_json(self, (yield from self.send(self.get("/api/ps"))))
        except NotFoundError:
            return None
        return {str(entry.get("model")): entry for entry in objects(data.get("models"))}

    def show_model(self, model: str) -> Steps[ModelInfo]:
        """What a model is made of; its context is the most it can have, unlike the one it is loaded with in a list."""
        response = yield from self.send(self.manage("POST", "/api/show", model), model=model)
        data = read_json(self, response, model)
        if is_error(data):
            raise self.told_error(data, model)
        facts = fields_of(data.get("model_info"))
        context = count(facts.get(f"{facts.get('general.architecture')}.context_length"))
        return ModelInfo(id=model, provider=self.name, context_tokens=context, detail=data)

    def load_model(self, model: str, context_tokens: int | None) -> Steps[float | None]:
        """A question without messages loads; it is answered when the model is there."""
        options = {} if context_tokens is None else {"options": {"num_ctx": context_tokens}}
        response = yield from self.send(self.manage("POST", "/api/chat", model, messages=[], stream=False, **options), model=model)
        data = read_json(self, response, model)
        if is_error(data):
            raise self.told_error(data, model)
        duration = number(data.get("load_duration"))
        return None if duration is None else duration * 1e-9

    def unload_model(self, model: str) -> Steps[None]:
        yield from self.send(self.manage("POST", "/api/chat", model, messages=[], stream=False, keep_alive=0), model=model)

    def health(self) -> Steps[Health]:
        response = yield from self.send(self.get("/api/version"))  # "/" answers too, but not only Ollama's
        version = read_json(self, response).get("version")
        if not isinstance(version, str):
            return Health(provider=self.name, ok=False, detail=f"what answers at {self.shown_url} is not Ollama")
        return Health(provider=self.name, ok=True, detail=f"Ollama {version} at {self.shown_url}")

    def pull_model(self, model: str) -> Steps[PullProgress]:
        response = yield from self.send(self.manage("POST", "/api/pull", model), stream=True, model=model)
        lines, pull = LineDecoder(), Pull(self, model)
        while (chunk := (yield Read(response))) is not None:
            yield from pull.show(lines.feed(chunk))
        yield from pull.show(lines.close())
        return pull.finish()

    def listed_price(self, model: str, usage: Usage, at: float) -> Price | None:  # noqa: ARG002 - the same for all calls
        """Nothing on one's own machine; a server hands models with ``cloud`` in their tag on to ollama.com, which asks for a subscription."""
        return None if self.url.host == "ollama.com" or model.endswith((":cloud", "-cloud")) else LOCAL

    def delete_model(self, model: str) -> Steps[None]:
        yield from self.send(self.manage("DELETE", "/api/delete", model), model=model)

    def manage(self, method: str, path: str, model: str, **fields: Any) -> httpx.Request:  # fields: JSON
        headers = {"content-type": "application/json", "accept-encoding": "identity", **self.headers(), **self.auth_headers()}
        content = encode_json({"model": model, **fields})
        return httpx.Request(
            method, parsed_url(self.base_url + path), headers=headers, content=content, extensions={"timeout": time_limits(None)}
        )


# --- requests ----------------------------------------------------------------------------------------------------------------


def read_host(text: str) -> str:
    """Read an ``OLLAMA_HOST`` as Ollama does.

    Without a scheme it means http and port 11434; with one, the port is the scheme's own (80, 443). A path is kept. The addresses that
    a server binds to, ``0.0.0.0`` and ``::``, mean this machine, and so does a port alone.

    Raises
    ------
    ConfigError
        If it names no address.

    Examples
    --------
    >>> read_host("gpu-box"), read_host("https://gpu-box/ollama/"), read_host("0.0.0.0:8080"), read_host("ollama.com")
    ('http://gpu-box:11434', 'https://gpu-box/ollama', 'http://127.0.0.1:8080', 'https://ollama.com')
    """
    text = text.strip().strip("\"'").strip()
    scheme, has_scheme, rest = text.rpartition("://")
    if not has_scheme and rest.partition("/")[0] == "ollama.com":
        scheme = has_scheme = "https"
    if rest.count(":") > 1 and not any(mark in rest for mark in "[@/"):  # a bare IPv6 address
        rest = f"[{rest}]"
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"{text!r} is no address for Ollama ({exc}); write it like 'http://127.0.0.1:11434'") from exc
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104 - what not to ask
        parts.hostname or "", parts.hostname
    )
    host = f"[{host}]" if host and ":" in host else host
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    if port is None and not has_scheme:
        port = 11434
    return f"{parts.scheme}://{user}{host}" + (f":{port}" if port is not None else "") + parts.path.rstrip("/")


def build_options(request: ChatRequest) -> Body:
    """Make ``options``, where Ollama has what others keep at the top."""
    options: Body = {}
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.top_p is not None:
        options["top_p"] = request.top_p
    if request.stop:
        options["stop"] = list(request.stop)
    if request.seed is not None:
        options["seed"] = request.seed
    return options


def build_message(message: Message) -> Body:
    """Make the JSON of one message."""
    if isinstance(message.content, str) and message.role in ("system", "user"):
        return {"role": message.role, "content": message.content}
    built: Body = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    if images := [build_image(part) for part in message.content if isinstance(part, ImagePart)]:
        built["images"] = images
    if message.tool_calls:
        built["tool_calls"] = [build_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        built["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        built["tool_name"] = message.name
    return built


def build_image(part: ImagePart) -> str:
    """Bare base64, without the ``data:`` in front that other services want."""
    if part.data is None:
        raise ConfigError("ollama does not fetch images from an address; give ImagePart(data=...)")
    return base64.b64encode(part.data).decode("ascii")


def build_call(call: ToolCall) -> Body:
    """Arguments are an object here, and JSON text everywhere else."""
    try:
        arguments = loads(call.arguments or "{}")
    except ValueError as exc:
        raise ConfigError(f"the arguments of the tool call {call.name!r} are not JSON, and ollama wants an object: {exc}") from exc
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


# --- answers -----------------------------------------------------------------------------------------------------------------

FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}

DURATIONS = {
    "load_duration": ("load_s", 1e-9),
    "prompt_eval_duration": ("prompt_s", 1e-9),
    "eval_duration": ("generation_s", 1e-9),
    "total_duration": ("server_total_s", 1e-9),
}


SHORT_PROMPT, MOST_CHARACTERS = 1_000, 8
"""Natural text and code have 2 to 5 characters a token; of a prompt that was cut, the tokens that are left seem to hold twice that."""


class OllamaReader(StreamReader[bytes]):
    """Reads the lines of ``/api/chat`` and ``/api/generate``, and their whole answers.

    A stream that ends without ``"done": true`` was cut, with or without a word: Ollama's guard against endless repetition ends it
    silently. Missing counts mean zero or unknown and are left unknown.
    """

    marks_its_end = True

    def read_item(self, item: bytes, events: list[StreamEvent]) -> None:
        if not self.done:
            self.read_json(item, events)

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        message = data.get("message")
        if isinstance(message, dict):
            self._read_parts(message.get("thinking"), message.get("content"), events)
            if message.get("tool_calls"):
                self._read_calls(message["tool_calls"], events)
        else:
            self._read_parts(data.get("thinking"), data.get("response"), events)
        if data.get("logprobs"):
            self.logprobs += read_logprobs(data["logprobs"])
        if data.get("done") is True:
            self._read_end(data)

    def _read_parts(self, thought: Any, text: Any, events: list[StreamEvent]) -> None:  # any JSON
        if thought and isinstance(thought, str):
            self.add("reasoning", thought, events)
        if text and isinstance(text, str):
            self.add("text", text, events)

    def _read_calls(self, calls: Any, events: list[StreamEvent]) -> None:  # any JSON
        """Calls come whole, and often without an index or an id."""
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                events.append(StreamEvent("tool_call", paired(self.calls.add({**call, "index": len(self.calls)}))))

    def _read_end(self, data: dict[str, Any]) -> None:
        reason = data.get("done_reason")
        if reason in ("load", "unload"):
            self.fail(self.provider.bad_reply(f"the prompt was empty, so the model was {reason}ed and answered nothing", self.request, 200))
            return
        self.done = True
        self.finish = FINISH_REASONS.get(reason, "unknown") if isinstance(reason, str) else "unknown"
        self.served_model = paired(data["model"]) if isinstance(data.get("model"), str) else None
        self.usage = Usage(
            input_tokens=count(data.get("prompt_eval_count")),
            output_tokens=count(data.get("eval_count")),
            cached_input_tokens=count(data.get("prompt_eval_cached_count")),
        )
        self.reported |= renamed(data, DURATIONS) | speed(data) | self._cut_prompt()

    def _cut_prompt(self) -> dict[str, float | str]:
        """A prompt that does not fit loses its beginning, down to half of ``num_ctx``, with status 200 and no word about it."""
        written, read = sum(len(message.text) for message in self.request.messages), self.usage.input_tokens
        if not read or written < SHORT_PROMPT or written <= read * MOST_CHARACTERS:
            return {}
        return {"prompt_cut": f"{read} tokens were read of {written} characters: give extra={{'options': {{'num_ctx': ...}}}}"}


def speed(data: Mapping[str, Any]) -> dict[str, float]:
    """Tokens per second of generation alone, by the server's own clock."""
    tokens, duration = number(data.get("eval_count")), number(data.get("eval_duration"))
    return {"tokens_per_second": tokens / duration * 1e9} if tokens and duration else {}


def with_state(model: ModelInfo, loaded: Mapping[str, Mapping[str, Any]] | None) -> ModelInfo:
    """Say whether a model is in memory; one that is has the context it was loaded with."""
    if loaded is None:
        return model
    running = loaded.get(model.id, {})
    return replace(model, loaded=bool(running), context_tokens=count(running.get("context_length")) or model.context_tokens)


def read_model(entry: Mapping[str, Any]) -> ModelInfo:
    details = entry.get("details")
    context = details.get("context_length") if isinstance(details, dict) else None
    return ModelInfo(
        id=str(entry.get("model") or entry.get("name") or ""),
        provider=Ollama.name,
        context_tokens=count(context),
        size_bytes=count(entry.get("size")),
        detail=dict(entry),
    )


class Pull:
    """A download: its layers arrive side by side, and what is complete of one can shrink when a part is fetched again."""

    def __init__(self, provider: Ollama, model: str) -> None:
        self.provider = provider
        self.model = model
        self.progress = PullProgress(status="starting")
        self._completed: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def show(self, lines: list[bytes]) -> Generator[Emit, None, None]:
        """Read lines of progress and hand them on."""
        seen = [self.read(line) for line in lines]
        if seen:
            yield Emit(seen)

    def read(self, line: bytes) -> PullProgress:
        try:
            data = loads(line)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise self.failed(f"the progress of the download can't be read: {line[:200].decode('utf-8', 'replace')!r}")
        if is_error(data):
            raise self.provider.told_error(data, self.model)
        self._count(data)
        total = sum(self._totals.values())
        completed = max(self.progress.completed_bytes, sum(self._completed.values()))
        status = str(data.get("status", ""))
        self.progress = PullProgress(status=status, completed_bytes=completed, total_bytes=total, done=status == "success")
        return self.progress

    def _count(self, data: Mapping[str, Any]) -> None:
        digest = data.get("digest")
        if isinstance(digest, str):
            total = max(self._totals.get(digest, 0), count(data.get("total")) or 0)
            self._totals[digest] = total
            self._completed[digest] = min(total, count(data.get("completed")) or 0)

    def finish(self) -> PullProgress:
        if not self.progress.done:
            raise self.failed(f"the download of {self.model} broke off ({self.progress.status}); pull again, it goes on where it stopped")
        return self.progress

    def failed(self, why: str) -> ProviderError:
        return StreamInterrupted(self.provider.scrub(f"ollama: {why}"), provider=self.provider.name, model=self.model)
