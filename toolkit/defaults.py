"""The process-wide client and the functions that use it, made on first use. The only globals besides the caches of ``toolkit.cache``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from .client import AsyncClient, Client, Options
from .comparison.grid import Model, Plan, build_plan
from .comparison.judge import Judge, read_judge
from .comparison.playground import Playground
from .comparison.progress import Progress, in_notebook, watcher_for
from .comparison.run import Run, arun, run
from .comparison.scorers import Scorer, read_scorers
from .errors import ConfigError, ToolkitError
from .installation import Setup, read_setup
from .monitor.events import RunRecord
from .monitor.journal import Journal
from .monitor.outcomes import process_name
from .types import CacheMode

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
    "playground",
    "pull_model",
    "reset",
    "setup",
    "stream_text",
]

Scorers = Sequence[str | Scorer] | Mapping[str, Scorer]
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
    """Forget the process-wide clients: the next call reads the environment anew."""
    global _client, _async_client
    with _lock:
        old, _client, _async_client = _client, None, None
    if old is not None:
        old.close()


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
    scorers : list or dict
        ``exact_match contains regex json_valid json_schema similarity rouge_l``, or callables ``(completion, reference) -> number``; each
        is a column of the frame. One that fails gives NaN and a warning.
    judge : str, Model or Judge, optional
        A model that judges each two answers to the same prompt, in both orders, when all is answered: see ``Comparison.judge``. What
        it says is ``result.judgements()``, and the column ``judge`` of the frame.
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
    judge = check_judge(judge, plan)
    state = begin(plan, name, concurrency, asker.journal, scorers)
    with watcher_for(progress, state) as watch:
        run(asker, state, concurrency=concurrency, cache=cache, stream=stream, watch=watch)
    result = end(state, name, asker)
    if judge is not None and not state.stopped:
        with unjudged_at_worst():
            result.judge(judge, concurrency=concurrency, cache=cache, progress=progress)
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
    judge = check_judge(judge, plan)
    state = begin(plan, name, concurrency, asker.journal, scorers)
    with watcher_for(progress, state, stoppable=True) as watch:
        try:
            await arun(asker, state, concurrency=concurrency, cache=cache, stream=stream, watch=watch)
        except asyncio.CancelledError:
            if not in_notebook():
                raise
            # That was the kernel's interrupt: what is finished is the cell's result.
    result = end(state, name, asker)
    if judge is not None and not state.stopped:
        with unjudged_at_worst():
            await result.ajudge(judge, concurrency=concurrency, cache=cache, progress=progress)
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


def begin(plan: Plan, name: str | None, concurrency: int, journal: Journal | None, scorers: Scorers) -> Run:
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency={concurrency!r}: at least one call at a time")
    state = Run(plan=plan, run_id=uuid.uuid4().hex[:16], scorers=read_scorers(scorers))
    if journal is not None:
        process = process_name()
        journal.append(RunRecord(run_id=state.run_id, at=time.time(), process=process, name=name or "", plan=plan.describe()))
    return state


def check_judge(judge: str | Model | Judge | None, plan: Plan) -> Judge | None:
    return None if judge is None else read_judge(judge, plan.labels)


@contextlib.contextmanager
def unjudged_at_worst() -> Iterator[None]:
    """Let no trouble with the judge cost the answers, which are there and paid for."""
    try:
        yield
    except ToolkitError as exc:
        _log.warning("the answers were not judged (%s); all else is there, and result.judge(model) tries again", exc)


def end(state: Run, name: str | None, asker: Client | AsyncClient) -> Comparison:
    from .comparison.comparison import Comparison  # pandas comes with it

    if asker.journal is not None:
        asker.journal.flush()
    return Comparison(state, name=name, journal=asker.journal, client=asker)
