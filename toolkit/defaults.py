"""The process-wide client and the functions that use it, made on first use. The only globals besides the caches of ``toolkit.cache``."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .client import AsyncClient, Client, Options, Prompt, Size
from .comparison.grid import Model, Plan, build_plan
from .comparison.progress import Progress, in_notebook, watcher_for
from .comparison.run import Run, arun, run
from .errors import ConfigError
from .monitor.events import RunRecord
from .monitor.journal import Journal
from .monitor.outcomes import process_name
from .types import CacheMode, Completion, Health, ImageResult, ModelInfo, PullProgress, StreamEvent

if TYPE_CHECKING:
    from .comparison.comparison import Comparison

__all__ = [
    "acompare",
    "async_client",
    "client",
    "compare",
    "delete_model",
    "generate_image",
    "generate_text",
    "health_check",
    "list_models",
    "pull_model",
    "reset",
    "stream_text",
]

_lock = threading.Lock()
_client: Client | None = None
_async_client: AsyncClient | None = None


def client() -> Client:
    """Return the process-wide client: cache, journal and keys as the environment says."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


def async_client() -> AsyncClient:
    """Return the process-wide client for event loops; it shares cache and journal with ``client()``."""
    global _async_client
    shared = client()
    with _lock:
        if _async_client is None:
            _async_client = AsyncClient(cache=shared.cache, journal=shared.journal or False)
        return _async_client


def reset() -> None:
    """Forget the process-wide clients: the next call reads the environment anew."""
    global _client, _async_client
    with _lock:
        old, _client, _async_client = _client, None, None
    if old is not None:
        old.close()


def generate_text(
    model: str,
    prompt: Prompt,
    *,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    cache: CacheMode = True,
    extra: Mapping[str, Any] | None = None,
) -> Completion:
    options: dict[str, Any] = {
        "system": system, "temperature": temperature, "max_tokens": max_tokens, "top_p": top_p, "stop": stop, "seed": seed,
        "schema": schema, "timeout_s": timeout_s, "cache": cache, "extra": extra,
    }  # fmt: skip
    return client().generate_text(model, prompt, **options)


def stream_text(
    model: str,
    prompt: Prompt,
    *,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    cache: CacheMode = True,
    extra: Mapping[str, Any] | None = None,
    replay: str = "instant",
) -> Iterator[StreamEvent]:
    options: dict[str, Any] = {
        "system": system, "temperature": temperature, "max_tokens": max_tokens, "top_p": top_p, "stop": stop, "seed": seed,
        "schema": schema, "timeout_s": timeout_s, "cache": cache, "extra": extra, "replay": replay,
    }  # fmt: skip
    return client().stream_text(model, prompt, **options)


def generate_image(
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
    return client().generate_image(model, prompt, size=size, n=n, seed=seed, timeout_s=timeout_s, cache=cache, extra=extra)


generate_image.__doc__ = Client.generate_image.__doc__
generate_text.__doc__ = Client.generate_text.__doc__
stream_text.__doc__ = Client.stream_text.__doc__


def list_models(provider: str) -> list[ModelInfo]:
    """Return the models that a provider offers.

    Examples
    --------
    >>> [model.id for model in list_models("embedded")]
    ['ngram-1', 'ngram-2', 'ngram-3', 'ngram-4', 'ngram-5']
    """
    return client().list_models(provider)


def health_check(provider: str | None = None) -> Health | list[Health]:
    """Say whether a provider (or, without a name, each one) can be used right now. Never raises.

    Examples
    --------
    >>> health_check("embedded").ok
    True
    """
    return client().health_check(provider)


def pull_model(model: str) -> Iterator[PullProgress]:
    """Download a model to its server and give the progress as it goes: ``for step in pull_model("ollama/llama3.2:1b"): ...``."""
    return client().pull_model(model)


def delete_model(model: str) -> None:
    """Delete a model from its server: ``delete_model("ollama/llama3.2:1b")``."""
    client().delete_model(model)


def compare(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    template: str | None = None,
    repeats: int = 1,
    name: str | None = None,
    concurrency: int = 16,
    cache: CacheMode = True,
    stream: bool = True,
    order_seed: int | None = None,
    progress: Progress = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
    client: Client | None = None,
) -> Comparison:
    """Ask several models the same prompts and put their answers side by side.

    Running it again asks only what is missing: answers are kept the moment they are there. An interrupt (the kernel's square
    button, or Ctrl-C) returns what is finished.

    Parameters
    ----------
    models : list of str or Model
        ``"provider/name"``, or ``tk.Model(name, **options)`` for options of its own.
    prompts : list, or pandas or polars frame
        Strings or message lists; a frame has a column ``prompt`` (or a ``template``) and, if you like, ``reference`` and ``prompt_id``.
    template : str, optional
        ``"... {column} ..."``, filled in from the frame's columns.
    repeats : int
        How often each model answers each prompt; each repeat is a question of its own to the cache.
    name : str, optional
        What to call this comparison.
    concurrency : int
        How many calls at a time.
    cache : bool or str
        As for ``generate_text``. Resuming after a crash needs the cache.
    stream : bool
        Ask for streams, so that each row has its time to first token. Some servers answer faster without.
    order_seed : int, optional
        The calls are interleaved over the models and shuffled; the same seed gives the same order. Recorded either way.
    progress : bool or callable, optional
        By default a bar in a terminal, a live table in a notebook, nothing elsewhere or in CI. A callable is told at every tick.
    system, temperature, max_tokens, top_p, stop, seed, schema, timeout_s, extra
        As for ``generate_text``; a ``Model``'s own go before them.
    client : Client, optional
        By default the process-wide one.

    Returns
    -------
    Comparison
        ``.frame`` has one row a call; a failed call is a row with ``status="error"``.

    Raises
    ------
    ConfigError
        For a wrong argument; nothing has been asked then.

    Examples
    --------
    >>> result = compare(["embedded/ngram-2", "embedded/ngram-3"], ["The for statement"], seed=1, max_tokens=8)
    >>> result.frame["status"].tolist()
    ['ok', 'ok']
    """
    options = Options(
        system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
    )  # fmt: skip
    plan = build_plan(models, prompts, repeats=repeats, options=options, template=template, order_seed=order_seed)
    asker = client or globals()["client"]()
    state = begin(plan, name, concurrency, asker.journal)
    with watcher_for(progress, state) as watch:
        run(asker, state, concurrency=concurrency, cache=cache, stream=stream, watch=watch)
    return end(state, name, asker.journal)


async def acompare(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    template: str | None = None,
    repeats: int = 1,
    name: str | None = None,
    concurrency: int = 16,
    cache: CacheMode = True,
    stream: bool = True,
    order_seed: int | None = None,
    progress: Progress = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
    client: AsyncClient | None = None,
) -> Comparison:
    """The awaitable twin of ``compare``, for a cell whose Stop button works while it runs. The same parameters and result.

    Examples
    --------
    ``result = await tk.acompare(["embedded/ngram-2", "embedded/ngram-3"], ["The for statement"])``
    """
    options = Options(
        system=system, temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra
    )  # fmt: skip
    plan = build_plan(models, prompts, repeats=repeats, options=options, template=template, order_seed=order_seed)
    asker = client or async_client()
    state = begin(plan, name, concurrency, asker.journal)
    with watcher_for(progress, state, stoppable=True) as watch:
        try:
            await arun(asker, state, concurrency=concurrency, cache=cache, stream=stream, watch=watch)
        except asyncio.CancelledError:
            if not in_notebook():
                raise
            # That was the kernel's interrupt: what is finished is the cell's result.
    return end(state, name, asker.journal)


def begin(plan: Plan, name: str | None, concurrency: int, journal: Journal | None) -> Run:
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency={concurrency!r}: at least one call at a time")
    state = Run(plan=plan, run_id=uuid.uuid4().hex[:16])
    if journal is not None:
        process = process_name()
        journal.append(RunRecord(run_id=state.run_id, at=time.time(), process=process, name=name or "", plan=plan.describe()))
    return state


def end(state: Run, name: str | None, journal: Journal | None) -> Comparison:
    from .comparison.comparison import Comparison  # pandas comes with it

    if journal is not None:
        journal.flush()
    return Comparison(
        plan=state.plan, records=state.done, run_id=state.run_id, name=name, stopped=not state.finished, elapsed_s=state.elapsed_s
    )
