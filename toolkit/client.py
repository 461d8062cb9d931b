"""``Client`` and ``AsyncClient`` own the transports; each method is a line or two over ``call`` and ``drive``."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import settings
from .cache.tiers import ResponseCache
from .call import ChatQuestion, ImageQuestion, Observer, Policy, ask, exchange
from .drive import AsyncDriver, LoopWatch, ThreadDriver
from .errors import ConfigError, ToolkitError, forget_locals, when_shown
from .keys import key_of
from .monitor.exporters.switch import exporting, switch_on_as_set
from .monitor.journal import Journal, open_journal
from .monitor.outcomes import CallContext
from .monitor.redaction import guard_httpx
from .monitor.tracker import keep_shown
from .pricing import Price, PriceBook, load_lists
from .providers.base import DEFAULT_FIRST_TOKEN_TIMEOUT_S, Provider
from .providers.key import ApiKey
from .providers.registry import known_providers, provider_class, split_model
from .render import Listing, Shown, Unseen
from .routing import Routing, ask_in_turn
from .schemas import SchemaChoice, read_schema
from .timing import LoopDelays
from .transports import AsyncTransports, ThreadTransports, TransportChoice, loop_factory
from .types import (
    CacheMode,
    ChatRequest,
    Completion,
    Health,
    ImagePart,
    ImageRequest,
    ImageResult,
    Message,
    ModelInfo,
    PullProgress,
    StreamEvent,
    TextPart,
    Usage,
)
from .watching import watch_caches
from .wire.limiter import Limiter
from .wire.retry import Retry
from .wire.steps import Steps
from .wire.waits import Waits

__all__ = ["AsyncClient", "Client", "Options", "Prompt", "read_messages"]

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A string, or messages: ``Message`` objects or ``{"role", "content"}`` dicts as the services know them."""

Size = str | tuple[int, int]
"""Of a picture: ``"1024x768"`` or ``(1024, 768)``, width first."""


when_shown(keep_shown)

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Shown):
    """The options of a text call: see ``Client.generate_text``."""

    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    schema: SchemaChoice | None = None
    timeout_s: float | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False)  # any JSON, a service's token too

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, low=0.0)
        check_number("top_p", self.top_p, low=0.0, high=1.0)
        check_number("max_tokens", self.max_tokens, low=1)
        check_number("timeout_s", self.timeout_s, low=0.0, above=True)
        if self.schema is not None:
            read_schema(self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions(Shown):
    """The options of a call for pictures: see ``Client.generate_image``."""

    size: Size | None = None
    n: int = 1
    seed: int | None = None
    timeout_s: float | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False)  # any JSON, a service's token too

    def __post_init__(self) -> None:
        build_image_request("checked", "checked", **image_arguments(self))


def image_arguments(options: ImageOptions) -> dict[str, Any]:  # build_image_request's
    return {each.name: getattr(options, each.name) for each in fields(options)}


def check_number(name: str, value: float | None, *, low: float, high: float = math.inf, above: bool = False) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or not low <= value <= high or (above and value == low):
        bounds = f"from {low:g} to {high:g}" if high < math.inf else f"{'above' if above else 'of at least'} {low:g}"
        raise ConfigError(f"{name}={value!r} is not a number {bounds}")


def read_messages(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """Turn a prompt into messages.

    Raises
    ------
    ConfigError
        If it is empty or not made of messages.
    """
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message(role="user", content=prompt),)
    elif isinstance(prompt, Message | Mapping):
        raise ConfigError("prompt= takes a string or a list of messages; put this message into a list")
    else:
        messages = tuple(message if isinstance(message, Message) else read_message(message) for message in prompt)
    if not any(message.content or message.tool_calls for message in messages):
        raise ConfigError("the prompt is empty; give some text or at least one message")
    return (Message(role="system", content=system), *messages) if system else messages


def read_message(message: Any) -> Message:  # what a user gave us
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise ConfigError(f"a message is a dict with a role ({', '.join(ROLES)}) and a content; got {type(message).__name__}")
    unknown = set(message) - {"role", "content", "tool_call_id", "name"}
    if unknown:
        raise ConfigError(f"a message dict has role, content, tool_call_id and name; for {', '.join(sorted(unknown))} use tk.Message")
    content = message.get("content", "")
    if not isinstance(content, str):
        content = tuple(read_part(part) for part in content)
    return Message(role=message["role"], content=content, tool_call_id=message.get("tool_call_id"), name=message.get("name"))


def read_part(part: Any) -> TextPart | ImagePart:  # what a user gave us
    if isinstance(part, TextPart | ImagePart):
        return part
    if isinstance(part, str):
        return TextPart(text=part)
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return TextPart(text=part["text"])
    if isinstance(part, Mapping) and isinstance(part.get("image_url"), Mapping):
        return ImagePart(url=str(part["image_url"].get("url")))
    raise ConfigError("a part of a message is text, {'type': 'text', 'text': ...}, {'type': 'image_url', ...} or tk.ImagePart")


def build_question(name: str, prompt: Prompt, options: Options) -> ChatQuestion:
    stop, schema = options.stop, None if options.schema is None else read_schema(options.schema)
    request = ChatRequest(
        model=name,
        messages=read_messages(prompt, options.system),
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        top_p=options.top_p,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        seed=options.seed,
        schema=None if schema is None else schema.json,
        timeout_s=options.timeout_s,
        extra=options.extra or {},
    )
    return ChatQuestion(request) if schema is None else ChatQuestion(request, schema.read)


def question_of(name: str, prompt: Prompt, options: Options | ImageOptions) -> ChatQuestion | ImageQuestion:
    if isinstance(options, Options):
        return build_question(name, prompt, options)
    return ImageQuestion(build_image_request(name, prompt, **image_arguments(options)))  # type: ignore[arg-type]  # it checks the prompt


def build_image_request(
    name: str, prompt: str, *, size: Size | None, n: int, seed: int | None, timeout_s: float | None, extra: Mapping[str, Any] | None
) -> ImageRequest:
    """Check the options of a wish for pictures and put them together.

    Raises
    ------
    ConfigError
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError("the prompt of a picture is some text")
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ConfigError(f"n={n!r}: it is a number of pictures, at least 1")
    check_number("timeout_s", timeout_s, low=0.0, above=True)
    return ImageRequest(model=name, prompt=prompt, size=read_size(size), n=n, seed=seed, timeout_s=timeout_s, extra=extra or {})


def read_size(size: Any) -> tuple[int, int] | None:  # what a user gave us
    """Read a size in pixels.

    Examples
    --------
    >>> read_size("1024x768"), read_size((512, 512))
    ((1024, 768), (512, 512))
    """
    if size is None:
        return None
    parts = re.fullmatch(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})", size.strip().lower(), re.ASCII) if isinstance(size, str) else None
    if parts:
        return int(parts[1]), int(parts[2])
    if isinstance(size, tuple | list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
        return size[0], size[1]
    raise ConfigError(f"size={size!r}: write it like '1024x768' or (1024, 768), width first")


class Toolbox:
    """What both clients have in common: providers, policy, and calls as steps."""

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str] | None,
        api_keys: Mapping[str, ApiKey] | None,
        cache: ResponseCache | bool | None,
        journal: Journal | str | bool | None,
        retry: Retry | None,
        prices: Mapping[str, Price] | None,
        aliases: Mapping[str, str] | None,
        fallbacks: Mapping[str, Sequence[str]] | None,
        first_token_timeout_s: float,
        delays: LoopDelays | None,
    ) -> None:
        guard_httpx()  # before the first request: with httpx's transport its debug lines are ours too
        check_number("first_token_timeout_s", first_token_timeout_s, low=0.0, above=True)
        self.first_token_timeout_s = first_token_timeout_s
        self.routing = Routing(aliases, fallbacks)
        self.base_urls = Unseen(base_urls or {})
        self.api_keys = Unseen(api_keys or {})
        for name in (*self.base_urls, *self.api_keys):
            provider_class(name)  # a misspelt name is told now, not when the address is silently ignored
        self.cache = open_cache(cache)
        self.journal = (
            open_journal(journal if isinstance(journal, str) else None) if journal is True or isinstance(journal, str) else journal
        )
        if self.journal:
            watch_caches(self.journal, self.cache)
        switch_on_as_set()
        self.policy = Policy(
            retry=retry or Retry(),
            prices=PriceBook(prices),
            limiter=lambda provider: self.limiter(provider.name),
            record=exporting(self.journal.append if self.journal else None),
            record_content=settings.record_content(),
            delays=delays,
        )
        self._limiters: dict[str, Limiter] = {}
        self._providers: dict[str, Provider] = {}
        self._in_process: dict[str, Any] = {}  # transports, sync and async at once

    def provider(self, name: str) -> Provider:
        """Return the provider of a name, made on first use with its address and key.

        Raises
        ------
        ConfigError
            If there is none of that name, or its key is missing; the message names the variable to set.
        """
        found = self._providers.get(name)
        if found is None:
            try:
                found = self._providers[name] = self.make_provider(name)
            except ConfigError as error:
                forget_locals(error)
                raise
        return found

    def make_provider(self, name: str) -> Provider:
        kind = provider_class(name)
        address = self.base_urls.get(name) or next(filter(None, map(settings.variable, kind.url_vars)), None)
        key = self.api_keys.get(name) or kind.find_key()
        if kind.key_required and not key and not address:
            raise ConfigError(f"{name} needs a key: set {kind.key_var}, or give Client(api_keys={{{name!r}: ...}})")
        load_lists(name)
        provider = kind(base_url=kind.read_address(address) if address else None, api_key=key)
        provider.first_token_timeout_s = self.first_token_timeout_s
        transport = provider.transport()
        if transport is not None:
            self._in_process[provider.url.host] = transport
        return provider

    def limiter(self, name: str) -> Limiter:
        """Return what learns how many calls at a time a provider bears; a client's provider has one address and one key."""
        found = self._limiters.get(name)
        return found if found is not None else self._limiters.setdefault(name, Limiter(timer=time.monotonic))

    def in_process(self, host: str) -> Any:  # a sync and an async transport at once
        return self._in_process.get(host)

    def ask(
        self,
        model: str,
        prompt: Prompt,
        options: Options | ImageOptions,
        *,
        cache: CacheMode,
        context: Mapping[str, Any] | None = None,
        stream: bool = False,
        emit: bool = False,
        replay: str = "instant",
        observe: Observer | None = None,
    ) -> Steps[Any]:  # a Completion or an ImageResult, as the options say
        provider_name, name = split_model(self.routing.resolve(model))
        check_cache(cache)
        if replay not in ("instant", "recorded"):
            raise ConfigError(f"replay={replay!r}: it is 'instant' or 'recorded'")
        return ask(
            self.provider(provider_name),
            question_of(name, prompt, options),
            context=CallContext(provider=provider_name, model=f"{provider_name}/{name}", **{"label": model, **(context or {})}),
            policy=self.policy,
            observe=observe,
            cache=cache,
            stream=stream and isinstance(options, Options),
            emit=emit,
            replay_recorded=replay == "recorded",
        )

    def ask_image(self, model: str, prompt: str, cache: CacheMode, **options: Any) -> Steps[ImageResult]:  # build_image_request's
        provider_name, name = split_model(model)
        check_cache(cache)
        return ask(
            self.provider(provider_name),
            ImageQuestion(build_image_request(name, prompt, **options)),
            context=CallContext(provider=provider_name, model=model, label=model, operation="image"),
            policy=self.policy,
            cache=cache,
        )

    def ask_in_turn(self, model: str, prompt: Prompt, options: Options, **how: Any) -> Steps[Completion]:  # what ``ask`` takes
        """Ask a model or, where it fails, those that stand in for it."""
        resolved = self.routing.resolve(model)
        first = self.ask(resolved, prompt, options, **how)
        others = self.routing.fallbacks(resolved)
        return ask_in_turn(first, others, lambda other: self.ask(other, prompt, options, **how)) if others else first

    def has_answer(self, model: str, prompt: Prompt, options: Options | ImageOptions, repeat: int) -> bool:
        provider_name, name = split_model(self.routing.resolve(model))
        if self.cache is None:
            return False
        wire = question_of(name, prompt, options).wire(self.provider(provider_name))
        return self.cache.holds(key_of(wire, repeat, "text" if isinstance(options, Options) else "image"))

    def price(self, model: str, pictures: bool) -> Price | None:
        provider_name, name = split_model(self.routing.resolve(model))
        provider, full = self.provider(provider_name), f"{provider_name}/{name}"
        found = self.policy.prices(full) or provider.listed_price(name, Usage(), self.policy.wall())
        of_words = found is not None and found.image_output is None and not provider.free and full not in self.policy.prices.own
        return None if pictures and of_words else found

    def exchange(self, provider_name: str, steps: Callable[[Provider], Steps[Any]], model: str | None = None) -> Steps[Any]:
        provider = self.provider(provider_name)
        return exchange(provider, steps(provider), model)

    def known(self) -> list[str]:
        return known_providers()

    def facts(self) -> Mapping[str, object]:
        """What a notebook shows of a client: where it asks and keeps, without a key."""
        asked = ", ".join(f"{name} at {provider.shown_url}" for name, provider in sorted(self._providers.items()))
        return {"providers": asked or "none yet", "cache": self.cache or "none", "journal": "kept" if self.journal else "none"}


def check_cache(cache: Any) -> None:  # what a user gave us
    if cache not in (True, False, "refresh", "only"):
        raise ConfigError(f"cache={cache!r}: it is True, False, 'refresh' or 'only'")


def open_cache(cache: ResponseCache | bool | None) -> ResponseCache | None:
    """``True`` is the cache that ``TOOLKIT_CACHE`` names, ``None`` or ``False`` none at all."""
    if isinstance(cache, ResponseCache):
        return cache
    return ResponseCache(settings.cache_folder(), url=settings.cache_url()) if cache else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwell(Health):
    """The health of a provider that can't be used, with the type of the error that says so."""

    error_type: str


def unwell(name: str, error: Exception) -> Unwell:
    configured = not isinstance(error, ConfigError)
    return Unwell(provider=name, ok=False, detail=str(error), configured=configured, error_type=type(error).__name__)


class Bound(Shown):
    """What stays in its process: it holds connections, threads and keys."""

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} holds connections and keys, and is neither copied nor pickled; make one where it is needed")


class Client(Bound):
    """Ask models from threads, scripts and notebook cells.

    Parameters
    ----------
    base_urls : mapping, optional
        Provider name to address, for example ``{"ollama": "http://127.0.0.1:11434"}``.
    api_keys : mapping, optional
        Provider name to key; by default each provider's own environment variable is read. A function in place of a key is called
        for each request and may give another each time: ``{"azure": azure.identity.get_bearer_token_provider(...)}``.
    cache : ResponseCache or bool
        ``True`` keeps answers under ``TOOLKIT_HOME``; ``False`` keeps none.
    journal : Journal, str or bool
        ``True`` writes the journal that ``TOOLKIT_JOURNAL`` names; a string is a path; ``False`` writes none.
    retry : Retry, optional
        How often and how long to wait after an error that may pass.
    prices : mapping, optional
        ``"provider/name"`` to ``Price``: your own table, which counts before what providers list and before the shipped table.
    aliases : mapping, optional
        Names of your own: ``{"small": "ollama/llama3.2:1b"}``.
    fallbacks : mapping, optional
        Who is asked when a model fails: ``{"openrouter/x": ["ollama/y"]}``. The answer says which model gave it. A comparison does
        without: its rows are the models that it names.
    first_token_timeout_s : float
        Seconds within which a stream must have brought its first token, of reasoning or of the answer, whatever else it sends to keep the
        connection open. Comparisons stream too. A ``timeout_s`` that is shorter comes first; a call that is not streamed has only that.
    transport : str or callable
        ``"own"`` (HTTP/1.1 over sockets, by httpx through a proxy), ``"httpx"``, ``"fast"`` (the extra ``fast``: Rust for whole answers in
        threads, our own for streams and on event loops, which a comparison then runs on uvloop), or a callable that makes an
        ``httpx.BaseTransport``.
    sleep : callable
        Waits between attempts; a test can count instead.

    Examples
    --------
    >>> with Client(cache=False, journal=False) as client:
    ...     answer = client.generate_text("scripted/echo", "Hello")
    >>> answer.text
    'Hello'
    """

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str] | None = None,
        api_keys: Mapping[str, ApiKey] | None = None,
        cache: ResponseCache | bool | None = True,
        journal: Journal | str | bool | None = True,
        retry: Retry | None = None,
        prices: Mapping[str, Price] | None = None,
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        first_token_timeout_s: float = DEFAULT_FIRST_TOKEN_TIMEOUT_S,
        transport: TransportChoice = "own",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tools = Toolbox(
            base_urls=base_urls,
            api_keys=api_keys,
            cache=cache,
            journal=journal,
            retry=retry,
            prices=prices,
            aliases=aliases,
            fallbacks=fallbacks,
            first_token_timeout_s=first_token_timeout_s,
            delays=None,
        )
        self.made_of: dict[str, Any] = {  # each its own type; for those who make another of the same kind
            "base_urls": self._tools.base_urls, "api_keys": self._tools.api_keys, "retry": retry, "prices": prices, "aliases": aliases, "transport": transport,
            "first_token_timeout_s": first_token_timeout_s,
        }  # fmt: skip
        self._driver = ThreadDriver(
            transports=ThreadTransports(transport), in_process=self._tools.in_process, cache=self._tools.cache, sleep=sleep
        )

    def __repr__(self) -> str:
        return f"<Client of {', '.join(sorted(self._tools._providers)) or 'no provider yet'}>"

    def _facts(self) -> Mapping[str, object]:
        return self._tools.facts()

    @property
    def cache(self) -> ResponseCache | None:
        """The cache of answers, or ``None``."""
        return self._tools.cache

    @property
    def waits(self) -> Waits:
        """Which calls wait right now: for a rate limit, or for their next attempt."""
        return self._tools.policy.waits

    @property
    def journal(self) -> Journal | None:
        """The journal that calls are written to, or ``None``."""
        return self._tools.journal or None

    def generate_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: SchemaChoice | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Ask a model and return its whole answer.

        Parameters
        ----------
        model : str
            ``"provider/name"``; everything after the first slash is the provider's own name.
        prompt : str or list of messages
            ``tk.Message`` objects or ``{"role", "content"}`` dicts.
        system : str, optional
            A system message to put first.
        temperature, top_p, max_tokens, stop, seed
            Sampling, as the service understands it; what you leave out is not sent.
        schema : dict or type, optional
            A JSON Schema; the value read from the answer is ``completion.parsed``. Or a type (the extra ``schema``): a pydantic model, a
            dataclass, a ``TypedDict`` (on Python 3.11 that of ``typing_extensions``), ``list[int]``; the service gets its JSON Schema, and ``parsed`` is the checked object.
        timeout_s : float, optional
            Seconds for one attempt; 600 by default. See also ``Client(first_token_timeout_s=)``.
        cache : bool or str
            ``True``, ``False``, ``"refresh"`` (ask again and keep that) or ``"only"`` (never ask).
        extra : dict, optional
            Sent to the service as it stands; part of the cache key.

        Returns
        -------
        Completion

        Raises
        ------
        ConfigError
            For a wrong argument, an unknown provider or a missing key.
        ProviderError
            When the service gave no usable answer; see ``toolkit.errors``.
        CacheMiss
            With ``cache="only"`` and nothing kept.

        Examples
        --------
        >>> Client(cache=False, journal=False).generate_text("scripted/echo", "Hello").text
        'Hello'
        """
        options = Options(
            system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
        )  # fmt: skip
        return self._driver.run(self._tools.ask_in_turn(model, prompt, options, cache=cache))

    def stream_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: SchemaChoice | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
        replay: str = "instant",
    ) -> Iterator[StreamEvent]:
        """Ask a model and return its answer piece by piece.

        The parameters are those of ``generate_text``, and ``replay``: a kept answer comes ``"instant"`` or with the pauses of the
        first time (``"recorded"``).

        Returns
        -------
        iterator of StreamEvent
            ``.kind`` is ``"text"``, ``"reasoning"`` or, once and last, ``"end"``; the last carries ``.completion``.

        Raises
        ------
        StreamInterrupted
            When the stream broke off; ``.partial`` holds what had arrived. Other errors as for ``generate_text``.

        Examples
        --------
        >>> for event in Client(cache=False, journal=False).stream_text("scripted/echo", "Hello"):
        ...     print(event.text, end="")
        Hello
        """
        options = Options(
            system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
        )  # fmt: skip
        return self._driver.stream(self._tools.ask_in_turn(model, prompt, options, cache=cache, emit=True, replay=replay))

    def generate_image(
        self,
        model: str,
        prompt: str,
        *,
        size: Size | None = None,
        n: int = 1,
        seed: int | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
    ) -> ImageResult:
        """Ask a model for pictures.

        Parameters
        ----------
        model : str
            ``"provider/name"``; everything after the first slash is the provider's own name.
        prompt : str
            What to draw.
        size : str or pair of int, optional
            Width and height in pixels, ``"1024x768"`` or ``(1024, 768)``; a service that has no such size says so.
        n : int
            How many pictures at most; a service may make fewer.
        seed : int, optional
            For services that can draw the same again.
        timeout_s, cache, extra
            As for ``generate_text``.

        Returns
        -------
        ImageResult
            ``.images[i].data`` are the bytes, ``.images[i].mime`` their media type; it shows itself in a notebook.

        Raises
        ------
        ConfigError
            For a wrong argument, an option the provider does not have, or a provider that makes no pictures.
        ProviderError, CacheMiss
            As for ``generate_text``.

        Examples
        --------
        ``client.generate_image("openrouter/acme/painter", "a stone bridge at dawn", size="1024x1024")``
        """
        return self._driver.run(self._tools.ask_image(model, prompt, cache, size=size, n=n, seed=seed, timeout_s=timeout_s, extra=extra))

    def ask(
        self,
        model: str,
        prompt: Prompt,
        options: Options | ImageOptions,
        *,
        cache: CacheMode = True,
        stream: bool = False,
        context: Mapping[str, Any] | None = None,
        observe: Observer | None = None,
    ) -> Any:  # a Completion or an ImageResult, as the options say
        """Ask with prepared options, as a comparison does.

        ``context`` names the label, the run, the prompt and the repeat; ``observe`` is told how the call ended, also when it failed.
        """
        steps = self._tools.ask(model, prompt, options, cache=cache, stream=stream, context=context, observe=observe)
        return self._driver.run(steps)

    def list_models(self, provider: str) -> list[ModelInfo]:
        """Return the models that a provider offers.

        Raises
        ------
        ConfigError, ProviderError

        Examples
        --------
        >>> [model.id for model in Client(cache=False, journal=False).list_models("embedded")][:2]
        ['ngram-1', 'ngram-2']
        """
        models: list[ModelInfo] = self._driver.run(self._tools.exchange(provider, lambda p: p.list_models()))
        return Listing(models)

    def health_check(self, provider: str | None = None) -> Health | list[Health]:
        """Say whether a provider (or, without a name, each one) can be used right now. Never raises."""
        if provider is None:
            return Listing(self._health(name) for name in self._tools.known())
        return self._health(provider)

    def _health(self, name: str) -> Health:
        start = time.perf_counter()
        try:
            health: Health = self._driver.run(self._tools.exchange(name, lambda p: p.health()))
        except ToolkitError as error:
            return unwell(name, error)
        return with_latency(health, time.perf_counter() - start)

    def pull_model(self, model: str) -> Iterator[PullProgress]:
        """Download a model to its server; give the progress as it goes (Ollama, LM Studio).

        Examples
        --------
        ``for step in client.pull_model("ollama/llama3.2:1b"): print(step.status, step.completed_bytes, step.total_bytes)``
        """
        provider, name = split_model(model)
        return self._driver.stream(self._tools.exchange(provider, lambda p: p.pull_model(name), name))

    def delete_model(self, model: str) -> None:
        """Delete a model from its server (Ollama).

        Raises
        ------
        NotFoundError
            If the server has no such model.
        """
        provider, name = split_model(model)
        self._driver.run(self._tools.exchange(provider, lambda p: p.delete_model(name), name))

    def has_answer(self, model: str, prompt: Prompt, options: Options | ImageOptions = Options(), *, repeat: int = 0) -> bool:
        """Say whether the cache has the answer to a question: asking it would cost nothing.

        Raises
        ------
        ConfigError
            For a wrong argument, an unknown provider or a missing key.

        Examples
        --------
        >>> Client(cache=False, journal=False).has_answer("scripted/echo", "Hello")
        False
        """
        return self._tools.has_answer(model, prompt, options, repeat)

    def price(self, model: str, *, pictures: bool = False) -> Price | None:
        """Return what a model costs, as far as it is known before a call; ``None`` where it is not.

        With ``pictures``, what it costs when it draws: a list's price without a rate for pictures is one of words.

        Raises
        ------
        ConfigError
            For an unknown provider or a missing key.
        """
        return self._tools.price(model, pictures)

    def show_model(self, model: str) -> ModelInfo:
        """Return what a provider tells about one model; its own words are in ``detail``.

        Raises
        ------
        NotFoundError
            If there is no such model.

        Examples
        --------
        >>> Client(cache=False, journal=False).show_model("embedded/ngram-2").id
        'ngram-2'
        """
        provider, name = split_model(model)
        found: ModelInfo = self._driver.run(self._tools.exchange(provider, lambda p: p.show_model(name), name))
        return found

    def load_model(self, model: str, *, context_tokens: int | None = None) -> float | None:
        """Load a model into the memory of its server, so that no call's time holds that (Ollama, LM Studio).

        Parameters
        ----------
        model : str
        context_tokens : int, optional
            How long prompt and answer may be together; by default what the server chooses, which differs between machines.

        Returns
        -------
        float or None
            Seconds it took by the server's clock, 0 where the model was there; ``None`` where it does not tell.

        Raises
        ------
        NotFoundError
            If the server has no such model.

        Examples
        --------
        ``client.load_model("lmstudio/acme/alpine-4b", context_tokens=8192)``
        """
        provider, name = split_model(model)
        took_s: float | None = self._driver.run(self._tools.exchange(provider, lambda p: p.load_model(name, context_tokens), name))
        return took_s

    def unload_model(self, model: str) -> None:
        """Free the memory that a model takes on its server (Ollama, LM Studio).

        Raises
        ------
        NotFoundError
            If the server has no such model.
        """
        provider, name = split_model(model)
        self._driver.run(self._tools.exchange(provider, lambda p: p.unload_model(name), name))

    def receipt(self, provider: str, generation_id: str) -> dict[str, float | str]:
        """Fetch what one call cost and how long it took, as the service tells some seconds afterwards (OpenRouter).

        Parameters
        ----------
        provider : str
        generation_id : str
            ``completion.reported["generation_id"]``.

        Returns
        -------
        dict
            Those of ``cost_usd upstream_cost_usd ttft_s generation_s moderation_s input_tokens output_tokens reasoning_tokens
            cached_input_tokens upstream_provider`` that the service knows; seconds, dollars, tokens as billed.

        Raises
        ------
        NotFoundError
            If there is no receipt, also after some seconds.

        Examples
        --------
        ``client.receipt("openrouter", completion.reported["generation_id"])["cost_usd"]``
        """
        found: dict[str, float | str] = self._driver.run(self._tools.exchange(provider, lambda p: p.receipt(generation_id)))
        return found

    def on_loop(self) -> AsyncClient | None:
        """Return a client for event loops that shares everything with this one: settings, providers, limiters, cache, journal.

        ``None`` where the transport is of the user's own making: that one blocks, and needs threads.
        """
        choice = self._driver.transports.choice
        return None if callable(choice) else AsyncClient._beside(self._tools, choice, self._driver.sleep)

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Return what makes an event loop to use the client of ``on_loop`` on; ``None`` for asyncio's own."""
        return loop_factory(self._driver.transports.choice)

    def close(self) -> None:
        """Close all connections and write what the journal still holds."""
        self._driver.transports.close()
        if self._tools.journal:
            self._tools.journal.flush()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sleeper(sleep: Callable[[float], None]) -> Callable[[float], Awaitable[None]]:
    """Return what waits on an event loop as this function waits in a thread."""
    return asyncio.sleep if sleep is time.sleep else lambda seconds: asyncio.to_thread(sleep, seconds)


def with_latency(health: Health, latency_s: float) -> Health:
    return Health(provider=health.provider, ok=health.ok, latency_s=latency_s, detail=health.detail, configured=health.configured)


class AsyncClient(Bound):
    """The twin of ``Client`` for event loops: the same methods, awaited; the same parameters.

    Examples
    --------
    >>> async def main():
    ...     async with AsyncClient(cache=False, journal=False) as client:
    ...         return (await client.generate_text("scripted/echo", "Hello")).text
    >>> asyncio.run(main())
    'Hello'
    """

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str] | None = None,
        api_keys: Mapping[str, ApiKey] | None = None,
        cache: ResponseCache | bool | None = True,
        journal: Journal | str | bool | None = True,
        retry: Retry | None = None,
        prices: Mapping[str, Price] | None = None,
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        first_token_timeout_s: float = DEFAULT_FIRST_TOKEN_TIMEOUT_S,
        transport: TransportChoice = "own",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._watch = LoopWatch()
        self._tools = Toolbox(
            base_urls=base_urls,
            api_keys=api_keys,
            cache=cache,
            journal=journal,
            retry=retry,
            prices=prices,
            aliases=aliases,
            fallbacks=fallbacks,
            first_token_timeout_s=first_token_timeout_s,
            delays=self._watch,
        )
        self.made_of: dict[str, Any] = {  # each its own type; for those who make another of the same kind
            "base_urls": self._tools.base_urls, "api_keys": self._tools.api_keys, "retry": retry, "prices": prices, "aliases": aliases, "transport": transport,
            "first_token_timeout_s": first_token_timeout_s,
        }  # fmt: skip
        self._driver = AsyncDriver(
            transports=AsyncTransports(transport), in_process=self._tools.in_process, cache=self._tools.cache, sleep=sleep
        )

    @classmethod
    def _beside(cls, tools: Toolbox, transport: TransportChoice, sleep: Callable[[float], None]) -> AsyncClient:
        """Make one that shares a ``Client``'s tools; only the watch over the loop is its own."""
        twin = cls.__new__(cls)
        twin._watch = LoopWatch()
        twin._tools = copy.copy(tools)
        twin._tools.policy = replace(tools.policy, delays=twin._watch)
        twin._driver = AsyncDriver(
            transports=AsyncTransports(transport), in_process=tools.in_process, cache=tools.cache, sleep=sleeper(sleep)
        )
        return twin

    def __repr__(self) -> str:
        return f"<AsyncClient of {', '.join(sorted(self._tools._providers)) or 'no provider yet'}>"

    def _facts(self) -> Mapping[str, object]:
        return self._tools.facts()

    @property
    def cache(self) -> ResponseCache | None:
        """The cache of answers, or ``None``."""
        return self._tools.cache

    @property
    def waits(self) -> Waits:
        """Which calls wait right now: for a rate limit, or for their next attempt."""
        return self._tools.policy.waits

    @property
    def journal(self) -> Journal | None:
        """The journal that calls are written to, or ``None``."""
        return self._tools.journal or None

    async def generate_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: SchemaChoice | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Ask a model and return its whole answer: see ``Client.generate_text``."""
        options = Options(
            system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
        )  # fmt: skip
        with self._watch:
            return await self._driver.run(self._tools.ask_in_turn(model, prompt, options, cache=cache))

    async def stream_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: SchemaChoice | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
        replay: str = "instant",
    ) -> AsyncIterator[StreamEvent]:
        """Ask a model and give its answer piece by piece: see ``Client.stream_text``."""
        options = Options(
            system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
        )  # fmt: skip
        events = self._driver.stream(self._tools.ask_in_turn(model, prompt, options, cache=cache, emit=True, replay=replay))
        # Closed here and now: left to the garbage collector, a reader that stops early would keep the connection.
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            with self._watch:
                async for event in events:
                    yield event

    async def generate_image(
        self,
        model: str,
        prompt: str,
        *,
        size: Size | None = None,
        n: int = 1,
        seed: int | None = None,
        timeout_s: float | None = None,
        cache: CacheMode = True,
        extra: Mapping[str, Any] | None = None,
    ) -> ImageResult:
        """Ask a model for pictures: see ``Client.generate_image``."""
        steps = self._tools.ask_image(model, prompt, cache, size=size, n=n, seed=seed, timeout_s=timeout_s, extra=extra)
        with self._watch:
            return await self._driver.run(steps)

    async def ask(
        self,
        model: str,
        prompt: Prompt,
        options: Options | ImageOptions,
        *,
        cache: CacheMode = True,
        stream: bool = False,
        context: Mapping[str, Any] | None = None,
        observe: Observer | None = None,
    ) -> Any:  # a Completion or an ImageResult, as the options say
        """Ask with prepared options: see ``Client.ask``."""
        steps = self._tools.ask(model, prompt, options, cache=cache, stream=stream, context=context, observe=observe)
        with self._watch:
            return await self._driver.run(steps)

    async def list_models(self, provider: str) -> list[ModelInfo]:
        """Return the models that a provider offers."""
        models: list[ModelInfo] = await self._driver.run(self._tools.exchange(provider, lambda p: p.list_models()))
        return Listing(models)

    async def health_check(self, provider: str | None = None) -> Health | list[Health]:
        """Say whether a provider (or, without a name, each one) can be used right now. Never raises."""
        if provider is None:
            return Listing(await asyncio.gather(*(self._health(name) for name in self._tools.known())))
        return await self._health(provider)

    async def _health(self, name: str) -> Health:
        start = time.perf_counter()
        try:
            health: Health = await self._driver.run(self._tools.exchange(name, lambda p: p.health()))
        except ToolkitError as error:
            return unwell(name, error)
        return with_latency(health, time.perf_counter() - start)

    async def pull_model(self, model: str) -> AsyncIterator[PullProgress]:
        """Download a model to its server; give the progress as it goes (Ollama, LM Studio)."""
        provider, name = split_model(model)
        async for progress in self._driver.stream(self._tools.exchange(provider, lambda p: p.pull_model(name), name)):
            yield progress

    async def delete_model(self, model: str) -> None:
        """Delete a model from its server (Ollama)."""
        provider, name = split_model(model)
        await self._driver.run(self._tools.exchange(provider, lambda p: p.delete_model(name), name))

    async def show_model(self, model: str) -> ModelInfo:
        """Return what a provider tells about one model: see ``Client.show_model``."""
        provider, name = split_model(model)
        found: ModelInfo = await self._driver.run(self._tools.exchange(provider, lambda p: p.show_model(name), name))
        return found

    async def load_model(self, model: str, *, context_tokens: int | None = None) -> float | None:
        """Load a model into the memory of its server: see ``Client.load_model``."""
        provider, name = split_model(model)
        took_s: float | None = await self._driver.run(self._tools.exchange(provider, lambda p: p.load_model(name, context_tokens), name))
        return took_s

    async def unload_model(self, model: str) -> None:
        """Free the memory that a model takes on its server: see ``Client.unload_model``."""
        provider, name = split_model(model)
        await self._driver.run(self._tools.exchange(provider, lambda p: p.unload_model(name), name))

    async def receipt(self, provider: str, generation_id: str) -> dict[str, float | str]:
        """Fetch what one call cost and how long it took: see ``Client.receipt``."""
        found: dict[str, float | str] = await self._driver.run(self._tools.exchange(provider, lambda p: p.receipt(generation_id)))
        return found

    async def aclose(self) -> None:
        """Close the running loop's connections and write what the journal still holds."""
        await self._driver.aclose()
        if self._tools.journal:
            await asyncio.to_thread(self._tools.journal.flush)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
