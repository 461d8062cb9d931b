"""The process-wide client and the functions that use it, made on first use. The only globals besides the caches of ``toolkit.cache``."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from .client import AsyncClient, Client, Size
from .comparison.beginning import Scorers, begin, unjudged_at_worst
from .comparison.grid import Model, build_plan
from .comparison.judge import Judge
from .comparison.loop import arun, run
from .comparison.pictures import Kind, check_pictures, wanted_options
from .comparison.playground import Playground
from .comparison.progress import Progress, interrupted_in_notebook, watcher_for
from .comparison.workers import arun_in_workers, run_in_workers
from .installation import Setup, read_setup
from .monitor.exporters import switch as exporters
from .schemas import SchemaChoice
from .types import CacheMode

if TYPE_CHECKING:
    from .comparison.comparison import Comparison
    from .comparison.estimate import CostEstimate

__all__ = [
    "acompare",
    "async_client",
    "client",
    "compare",
    "delete_model",
    "estimate_cost",
    "generate_image",
    "generate_text",
    "health_check",
    "list_models",
    "load_model",
    "playground",
    "pull_model",
    "reset",
    "setup",
    "show_model",
    "stream_text",
    "unload_model",
]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)
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
    """Forget the process-wide clients and exporters: the next call reads the environment anew."""
    global _client, _async_client
    with _lock:
        old, _client, _async_client = _client, None, None
    if old is not None:
        old.close()
    exporters.reset()


def on_default_client(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """Make a function of a method: the same signature and words, on the process-wide client."""

    @functools.wraps(method)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(client(), *args, **kwargs)

    whole = inspect.signature(method)
    function.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])  # type: ignore[attr-defined]
    function.__module__ = __name__
    del function.__wrapped__
    return function


generate_text = on_default_client(Client.generate_text)
stream_text = on_default_client(Client.stream_text)
generate_image = on_default_client(Client.generate_image)
list_models = on_default_client(Client.list_models)
health_check = on_default_client(Client.health_check)
pull_model = on_default_client(Client.pull_model)
delete_model = on_default_client(Client.delete_model)
show_model = on_default_client(Client.show_model)
load_model = on_default_client(Client.load_model)
unload_model = on_default_client(Client.unload_model)


def compare(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    template: str | None = None,
    repeats: int = 1,
    name: str | None = None,
    scorers: Scorers = (),
    judge: str | Model | Judge | None = None,
    concurrency: int = 16,
    budget_usd: float | None = None,
    until: Literal["decided"] | None = None,
    metric: str | None = None,
    alpha: float = 0.05,
    cache: CacheMode = True,
    stream: bool = True,
    order_seed: int | None = None,
    warmup: int = 0,
    max_error_rate: float | None = None,
    resume: bool = True,
    n_jobs: int | None = None,
    progress: Progress = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: SchemaChoice | None = None,
    timeout_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
    kind: Kind = "text",
    size: Size | None = None,
    n: int | None = None,
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
    scorers : list or dict
        ``exact_match contains regex json_valid json_schema similarity rouge_l``, or callables ``(completion, reference) -> number``; each
        is a column of the frame. One that fails gives NaN and a warning.
    judge : str, Model or Judge, optional
        A model that judges each two answers to the same prompt, in both orders, when all is answered: see ``Comparison.judge``. What
        it says is ``result.judgements()``, and the column ``judge`` of the frame.
    concurrency : int
        How many calls at a time.
    budget_usd : float, optional
        Begin no call once so much is spent; what was under way then ends and counts. The calls of a judge count too.
    until : "decided", optional
        Stop as soon as every two models differ in ``metric``, by a test that may look after every prompt
        (``toolkit.stats.sequential_test``). ``.verdict(metric)`` uses the same test then.
    metric : str, optional
        What is to be decided: a column of numbers such as ``latency_s``, or a scorer's name; by default the scorer, if there is one.
    alpha : float
        The risk of deciding between equal models.
    cache : bool or str
        As for ``generate_text``. Resuming after a crash needs the cache.
    stream : bool
        Ask for streams, so that each row has its time to first token. Some servers answer faster without.
    order_seed : int, optional
        The calls are interleaved over the models and shuffled; the same seed gives the same order. Recorded either way.
    warmup : int
        So many calls of each model before those that count: connections are made and models loaded by then. They are on the first
        prompts, past the cache, and not in the frame; the journal has them with the provenance ``warmup``.
    max_error_rate : float, optional
        Stop, with what is finished, when more than this share of a model's calls has failed (looked at from its tenth call on).
    resume : bool
        Without the cache (``cache=False`` or ``"refresh"``): go on with the last run of the same name that asked just the same and did
        not finish, taking its answers from the journal. ``False`` begins anew. With the cache, answers are never asked twice anyway.
    n_jobs : int, optional
        Ask from so many processes (-1: one for each core), which share ``concurrency``. Under ``joblib.parallel_config(backend=...)`` with
        ``"loky"``, ``"dask"`` or ``"ray"`` the calls go to its processes without this. See docs/scaling.md.
    progress : bool or callable, optional
        By default a bar in a terminal, a live table in a notebook, nothing elsewhere or in CI. A callable is told at every tick.
    system, temperature, max_tokens, top_p, stop, seed, schema, timeout_s, extra
        As for ``generate_text``; a ``Model``'s own go before them.
    kind : str
        ``"text"``, or ``"image"``: the models draw, ``side_by_side()`` shows the pictures and ``images(prompt_id, model)`` gives them.
        ``vote()`` and a judge are shown them without their metadata. A scorer of yours gets the ``ImageResult``; named scorers and
        worker processes do not work with pictures.
    size, n
        As for ``generate_image``, with ``kind="image"``, where ``seed``, ``timeout_s`` and ``extra`` mean the same as there.
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
    begun = begin(
        client or globals()["client"](), models, prompts, template=template, repeats=repeats, name=name, scorers=scorers, judge=judge,
        concurrency=concurrency, budget_usd=budget_usd, until=until, metric=metric, alpha=alpha, cache=cache, stream=stream, order_seed=order_seed,
        warmup=warmup, max_error_rate=max_error_rate, resume=resume, n_jobs=n_jobs, progress=progress, kind=kind, system=system,
        temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra,
        size=size, n=n,
    )  # fmt: skip
    with watcher_for(progress, begun.state) as watch:
        if begun.fan_out is None:
            run(begun.asker, begun.state, watch=watch, **begun.how)
        else:
            run_in_workers(begun.asker, begun.state, begun.fan_out, watch=watch, **begun.how)
    result = begun.end()
    if begun.judge is not None and begun.may_judge:
        with unjudged_at_worst():
            result.judge(begun.judge, **begun.judging)
    return result


async def acompare(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    template: str | None = None,
    repeats: int = 1,
    name: str | None = None,
    scorers: Scorers = (),
    judge: str | Model | Judge | None = None,
    concurrency: int = 16,
    budget_usd: float | None = None,
    until: Literal["decided"] | None = None,
    metric: str | None = None,
    alpha: float = 0.05,
    cache: CacheMode = True,
    stream: bool = True,
    order_seed: int | None = None,
    warmup: int = 0,
    max_error_rate: float | None = None,
    resume: bool = True,
    n_jobs: int | None = None,
    progress: Progress = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: SchemaChoice | None = None,
    timeout_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
    kind: Kind = "text",
    size: Size | None = None,
    n: int | None = None,
    client: AsyncClient | None = None,
) -> Comparison:
    """The awaitable twin of ``compare``, for a cell whose Stop button works while it runs. The same parameters and result.

    Examples
    --------
    ``result = await tk.acompare(["embedded/ngram-2", "embedded/ngram-3"], ["The for statement"])``
    """
    begun = begin(
        client or async_client(), models, prompts, template=template, repeats=repeats, name=name, scorers=scorers, judge=judge,
        concurrency=concurrency, budget_usd=budget_usd, until=until, metric=metric, alpha=alpha, cache=cache, stream=stream, order_seed=order_seed,
        warmup=warmup, max_error_rate=max_error_rate, resume=resume, n_jobs=n_jobs, progress=progress, kind=kind, system=system,
        temperature=temperature, max_tokens=max_tokens, top_p=top_p, stop=stop, seed=seed, schema=schema, timeout_s=timeout_s, extra=extra,
        size=size, n=n,
    )  # fmt: skip
    with watcher_for(progress, begun.state, stoppable=True) as watch, interrupted_in_notebook():
        if begun.fan_out is None:
            await arun(begun.asker, begun.state, watch=watch, **begun.how)
        else:
            await arun_in_workers(begun.asker, begun.state, begun.fan_out, watch=watch, **begun.how)
    result = begun.end()
    if begun.judge is not None and begun.may_judge:
        with unjudged_at_worst():
            await result.ajudge(begun.judge, **begun.judging)
    return result


def setup(*, check: bool = False) -> Setup:
    """Show what is set up: providers and keys (present or not, never shown), where the journal and the cache are, prices, versions.

    Parameters
    ----------
    check : bool
        Ask every provider that is set up whether it lets us in. Without it only servers on this machine are asked.

    Returns
    -------
    Setup
        A card in a notebook, tables as text. ``.providers .places .prices .versions .extras .next_steps``.

    Examples
    --------
    >>> [each.state for each in setup().providers if each.name == "embedded"]
    ['ready']
    """
    return read_setup(client(), check=check)


def playground(
    models: Sequence[str | Model], *, prompt: str = "", cache: CacheMode = True, client: AsyncClient | None = None
) -> Playground:
    """Return a widget for a notebook: choose models, type a prompt, and watch the answers stream side by side.

    The cell stays free: answers come on a thread of their own. Keep a round with its button; ``.kept()`` and ``.comparison()`` give
    what was kept. Closing it stops what is under way.

    Parameters
    ----------
    models : list of str or Model
        What can be chosen.
    prompt : str
        What stands in the text field at first.
    cache : bool or str
        As for ``generate_text``.
    client : AsyncClient, optional
        By default the process-wide one.

    Returns
    -------
    Playground

    Raises
    ------
    ConfigError
        If the extra ``notebook`` is not installed, or for a model that does not exist.

    Examples
    --------
    >>> play = playground(["embedded/ngram-2", "embedded/ngram-3"])
    >>> play.ask("The for statement")
    >>> play.wait()
    True
    >>> play.keep()
    2
    >>> play.comparison()
    <Comparison 'playground': 2 models x 1 prompt, 2 ok, 0 failed>
    >>> play.close()
    """
    return Playground(models, client=client or async_client(), prompt=prompt, cache=cache)


def estimate_cost(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    template: str | None = None,
    repeats: int = 1,
    cache: CacheMode = True,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    schema: SchemaChoice | None = None,
    timeout_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
    kind: Kind = "text",
    size: Size | None = None,
    n: int | None = None,
    client: Client | None = None,
) -> CostEstimate:
    """Say what ``compare`` with the same arguments would cost, before anything is asked.

    Returns
    -------
    CostEstimate
        ``low expected high`` in US dollars, None where a price is unknown, and a row a model. Answers that the cache has cost nothing.
        How many tokens a model makes of a text and of an answer is taken from its last calls in the journal; for a model that was never
        asked here, and for pictures in prompts, it is a guess, and ``basis`` says so. What pictures cost (``kind="image"``) is
        taken from what those of earlier comparisons with this model and size did, else from its price for pictures, where one is
        known, and a guess of their tokens.

    Raises
    ------
    ConfigError
        For a wrong argument.

    Examples
    --------
    >>> estimate_cost(["embedded/ngram-2"], ["The for statement"], cache=False).expected
    0.0
    """
    from .comparison.estimate import estimate

    options = wanted_options(kind, {
        "system": system, "temperature": temperature, "max_tokens": max_tokens, "top_p": top_p, "stop": stop, "seed": seed, "schema": schema,
        "timeout_s": timeout_s, "extra": extra, "size": size, "n": n,
    })  # fmt: skip
    plan = build_plan(models, prompts, repeats=repeats, options=options, template=template, order_seed=0)
    check_pictures(plan, scorers=(), fan_out=None)
    return estimate(client or globals()["client"](), plan, cached=cache in (True, "only"))
