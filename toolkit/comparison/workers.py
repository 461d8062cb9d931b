"""Asks the cells of a comparison in worker processes, through joblib: loky on one machine, Dask or Ray on many.

Cells travel as plain data, in batches; each worker makes a client of its own from plain settings and reads its keys from its own
environment. Rows come home with each batch; where a worker writes the same journal, they are seen there before: see ``intake``.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from .. import settings
from ..cache.tiers import CacheSettings, ResponseCache
from ..client import AsyncClient, Client
from ..errors import ConfigError, ToolkitError
from ..monitor.events import CallRecord, ErrorRecord
from ..monitor.journal import Journal, shown_url
from ..monitor.journal.address import ServerAddress
from ..monitor.outcomes import Outcome
from ..pricing import Price
from ..types import CacheMode, Completion, ImageResult
from ..wire.retry import Retry
from .grid import Cell
from .intake import Intake, Ticker
from .loop import LoopThread, ask_all
from .run import JOIN_S, TICK_S, Asked, Run, Watcher

__all__ = ["FanOut", "arun_in_workers", "find_fan_out", "run_in_workers"]

BATCHES_PER_WORKER = 4
"""At least so many, where there are cells enough: a slow batch at the end is then short."""

ROUNDS_PER_BATCH = 8
"""A batch is at most so many times what a worker asks at once: its last calls, with fewer and fewer beside them, are then an eighth."""

DEATHS = 3
"""So many workers may die before a run gives up: the call that kills one would kill the next."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cache or a journal is. A password stays here; a worker reads its own, from the variable that has the same address."""

    url: str
    secret: bool
    variable: str

    @classmethod
    def of(cls, url: str, variable: str) -> Address:
        bare = without_password(url)
        return cls(bare, bare != url, variable)

    @classmethod
    def of_journal(cls, journal: Journal) -> Address:
        address = journal.address
        return cls(str(address), isinstance(address, ServerAddress) and bool(address.secrets), "TOOLKIT_JOURNAL")

    def read(self) -> str:
        """Return the whole address, in a worker.

        Raises
        ------
        ConfigError
            If a password is needed and the worker's variable has another address.
        """
        if not self.secret:
            return self.url
        own = settings.variable(self.variable)
        if own is None or self.url not in (without_password(own), shown_url(own)):
            raise ConfigError(f"the worker's {self.variable} is not {self.url}; set it there, with the password")
        return own


def without_password(url: str) -> str:
    """Return an address without its user and password.

    Examples
    --------
    >>> without_password("redis://:secret@cache.example:6379/2"), without_password("/data/journal.sqlite")
    ('redis://cache.example:6379/2', '/data/journal.sqlite')
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a worker makes its client of: plain values, and no secret."""

    base_urls: tuple[tuple[str, str], ...]
    cache: CacheSettings | None  # without its address
    cache_address: Address | None
    journal: Address | None
    retry: Retry
    first_token_timeout_s: float
    prices: tuple[tuple[str, Price], ...]
    aliases: tuple[tuple[str, str], ...]
    transport: str
    host: str
    offline: bool
    record_content: bool

    @classmethod
    def of(cls, client: Client | AsyncClient) -> Blueprint:
        """Describe a client.

        Raises
        ------
        ConfigError
            If it holds what can't or should not leave this process: keys, stores or transports made by hand.
        """
        made = client.made_of
        if made["api_keys"]:
            given = ", ".join(sorted(made["api_keys"]))
            raise ConfigError(
                f"the client holds keys for {given}, and keys are not sent to workers; set the providers' variables in the workers' "
                "environment (see docs/scaling.md), or compare without n_jobs= and joblib.parallel_config"
            )
        if callable(made["transport"]):
            raise ConfigError("a transport of your own can't be sent to workers; use transport='own', 'httpx' or 'fast'")
        cache = None if client.cache is None else client.cache.settings()
        return cls(
            base_urls=tuple((made["base_urls"] or {}).items()),
            cache=None if cache is None else replace(cache, url=None),
            cache_address=None if cache is None or cache.url is None else Address.of(cache.url, "TOOLKIT_CACHE"),
            journal=None if client.journal is None else Address.of_journal(client.journal),
            retry=made["retry"] or Retry(),
            first_token_timeout_s=made["first_token_timeout_s"],
            prices=tuple((made["prices"] or {}).items()),
            aliases=tuple((made["aliases"] or {}).items()),
            transport=made["transport"],
            host=socket.gethostname(),
            offline=settings.offline(),
            record_content=settings.record_content(),
        )

    def journal_here(self) -> str | bool:
        """Return the journal that this process may write itself: one of this machine or a server's, and as much of a call as at home."""
        if self.journal is None or self.record_content != settings.record_content():
            return False
        return self.journal.read() if "://" in self.journal.url or self.host == socket.gethostname() else False

    def open_cache(self) -> ResponseCache | bool:
        address = None if self.cache_address is None else self.cache_address.read()
        return False if self.cache is None else ResponseCache.of(replace(self.cache, url=address))


@functools.lru_cache(maxsize=1)
def client_of(blueprint: Blueprint) -> Client:
    """Return this worker's client; its connections last from batch to batch."""
    if blueprint.offline and not settings.offline():
        raise ConfigError("TOOLKIT_OFFLINE=1 is set at home and not in the worker; set it there too")
    return Client(
        base_urls=dict(blueprint.base_urls),
        cache=blueprint.open_cache(),
        journal=blueprint.journal_here(),
        retry=blueprint.retry,
        first_token_timeout_s=blueprint.first_token_timeout_s,
        prices=dict(blueprint.prices),
        aliases=dict(blueprint.aliases),
        transport=blueprint.transport,  # type: ignore[arg-type]  # of() has looked
    )


# --- in a worker -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A batch to ask, and how."""

    blueprint: Blueprint
    run_id: str
    cells: tuple[Cell, ...]
    concurrency: int
    cache: CacheMode
    stream: bool
    operation: str = "text"
    with_answers: bool = False


@dataclass(slots=True, kw_only=True)
class Harvest:
    """What comes home of a batch; ``wrong`` is what kept calls from being made at all."""

    rows: list[tuple[int, CallRecord]] = field(default_factory=list)
    errors: list[ErrorRecord] = field(default_factory=list)
    answers: list[tuple[int, Completion | ImageResult]] = field(default_factory=list)
    journaled: bool = False
    wrong: str | None = None


class Batch:
    """Asks the cells of an order and keeps what is to go home."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.harvest = Harvest()
        self._cells = iter(order.cells)

    def next_cell(self) -> Cell | None:
        return None if self.harvest.wrong is not None else next(self._cells, None)

    def context(self, cell: Cell) -> dict[str, str | int]:
        return {**cell.context(self.order.run_id), "operation": self.order.operation}

    def note(self, cell: Cell) -> Asked:
        return lambda outcome: self.take(cell.index, outcome)

    def take(self, index: int, outcome: Outcome) -> None:
        self.harvest.rows.append((index, outcome.call_row(content=True)))
        if outcome.error is not None:
            self.harvest.errors.append(outcome.error_row(outcome.error))

    def answered(self, cell: Cell, completion: Completion | ImageResult) -> None:
        if self.order.with_answers:
            self.harvest.answers.append((cell.index, completion))

    def fail(self, error: BaseException) -> None:
        self.harvest.wrong = f"{type(error).__name__} in a worker: {error}"


def ask_batch(order: Order) -> Harvest:
    """Ask a batch of cells; what a worker runs."""
    batch = Batch(order)
    try:
        client = client_of(order.blueprint)
    except ToolkitError as exc:
        batch.fail(exc)
        return batch.harvest

    async def ask() -> None:
        twin = client.on_loop()
        assert twin is not None, "a blueprint has no transport of the user's own"
        async with twin:
            await ask_all(twin, batch, concurrency=order.concurrency, cache=order.cache, stream=order.stream)

    # In a thread of its own: a Dask worker's has a loop that runs already.
    thread = LoopThread(ask(), threads=order.concurrency)
    while not thread.wait(TICK_S):
        pass
    if thread.error is not None:
        raise thread.error
    batch.harvest.journaled = client.journal is not None and client.journal.flush()
    return batch.harvest


# --- at home ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FanOut:
    """The joblib backend that has the processes, and how many to use."""

    backend: Any  # joblib has no types
    n_jobs: int


def find_fan_out(n_jobs: int | None) -> FanOut | None:
    """Return which processes are to ask; ``None`` where this one asks.

    They are those of an active ``joblib.parallel_config(backend=...)``, unless that means threads; with ``n_jobs`` alone, ours or that of
    ``parallel_config``, they are loky's.

    Raises
    ------
    ConfigError
        If ``n_jobs`` is no number of processes, or joblib is not installed.
    """
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        raise ConfigError(f"n_jobs={n_jobs!r}: it is a number of processes; -1 means one for each core")
    if n_jobs in (None, 1) and "joblib" not in sys.modules:  # nobody can have chosen a backend
        return None
    try:
        from joblib import parallel
    except ImportError as exc:
        raise ConfigError("n_jobs= needs joblib: pip install joblib") from exc
    backend, configured = parallel.get_active_backend(prefer="threads")  # threads where none was chosen
    if not getattr(backend, "uses_threads", False):
        return FanOut(backend, n_jobs or configured or -1)
    preset, jobs = parallel.get_active_backend()  # processes where none was chosen
    if n_jobs is None and not getattr(preset, "uses_threads", False):
        n_jobs = jobs
    return None if n_jobs in (None, 1) else FanOut("loky", n_jobs)


def run_in_workers(
    client: Client | AsyncClient, state: Run, fan_out: FanOut, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher
) -> Run:
    """Ask every cell in worker processes; come back when all is done, or soon when interrupted.

    When a worker dies, what its batch had finished is in the journal or the cache; the rest is asked again.
    """
    return carry_out(client, Intake(state, client.journal), fan_out, concurrency=concurrency, cache=cache, stream=stream, watch=watch)


def carry_out(
    client: Client | AsyncClient, intake: Intake, fan_out: FanOut, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher
) -> Run:
    import joblib

    state = intake.run
    blueprint = Blueprint.of(client)
    deaths = 0
    with joblib.parallel_config(backend=fan_out.backend, n_jobs=fan_out.n_jobs):
        workers = max(1, joblib.effective_n_jobs(fan_out.n_jobs))
        orders = Orders(blueprint, state, workers=workers, concurrency=concurrency, cache=cache, stream=stream)
        ticker = Ticker(intake, watch)
        try:
            orders.warm_up()
            while True:
                try:
                    for harvest in harvests(orders, workers):
                        bring_in(client, intake, harvest)
                        state.score_waiting()
                        ticker.check()
                    break
                except Exception as exc:
                    if not is_a_death(exc):
                        raise
                    deaths += 1
                    state.notes.append(f"a worker process died ({type(exc).__name__}); what it had not finished was asked again")
                    intake.recover()
                    if deaths == DEATHS:
                        state.stop(f"{deaths} worker processes died, perhaps for lack of memory")
                        break
                    state.begin_again()
            ticker.stop()
            ticker.check()
        except KeyboardInterrupt:
            state.stop()
            intake.recover()
            state.end_early()
        finally:
            ticker.stop(JOIN_S)
    return state.end(watch)


async def arun_in_workers(
    client: AsyncClient, state: Run, fan_out: FanOut, *, concurrency: int, cache: CacheMode, stream: bool, watch: Watcher
) -> Run:
    """The same while the caller's event loop runs; a cancellation leaves the batches under way to end by themselves."""
    intake = await asyncio.to_thread(Intake, state, client.journal)  # its first look may have to reach a server
    # What is chosen by parallel_config is the choosing thread's; fan_out carries it over.
    asking = asyncio.create_task(
        asyncio.to_thread(carry_out, client, intake, fan_out, concurrency=concurrency, cache=cache, stream=stream, watch=lambda _run: None)
    )
    try:
        while not asking.done():
            await asyncio.wait([asking], timeout=TICK_S)
            watch(state)
        return asking.result()
    except asyncio.CancelledError:
        state.stop()
        intake.recover()
        state.end_early()
        watch(state)
        raise


class Orders:
    """Makes batches of a run's cells, small enough for balance and large enough to keep a worker busy."""

    def __init__(self, blueprint: Blueprint, run: Run, *, workers: int, concurrency: int, cache: CacheMode, stream: bool) -> None:
        self.run = run
        share = max(1, concurrency // workers)
        self.size = max(1, min(ROUNDS_PER_BATCH * share, math.ceil(len(run.plan) / (BATCHES_PER_WORKER * workers))))
        self.pattern = Order(
            blueprint=blueprint,
            run_id=run.run_id,
            cells=(),
            concurrency=share,
            cache=cache,
            stream=stream,
            with_answers=bool(run.scorers),
        )

    def __iter__(self) -> Iterator[Order]:
        while cells := self.run.cells(self.size):
            yield replace(self.pattern, cells=tuple(map(without_reference, cells)))

    def warm_up(self) -> None:
        """Have one worker ask the warm-up calls."""
        if self.run.warmup:
            cells = tuple(map(without_reference, self.run.warmup))
            (harvest,) = parallel()([task(replace(self.pattern, cells=cells, cache=False, operation="warmup", with_answers=False))])
            if harvest.wrong is not None:
                raise ConfigError(harvest.wrong)


def without_reference(cell: Cell) -> Cell:
    """What a worker needs of a cell: scores are given at home."""
    return replace(cell, question=replace(cell.question, reference=None))


def parallel(return_as: str = "list") -> Any:  # joblib has no types
    import joblib

    return joblib.Parallel(batch_size=1, pre_dispatch="2*n_jobs", return_as=return_as)


def task(order: Order) -> Any:  # joblib has no types
    import joblib

    return joblib.delayed(ask_batch)(order)


def harvests(orders: Orders, workers: int) -> Iterator[Harvest]:
    """Give what comes home, batch by batch; where a backend (Ray's) gives back lists only, wave by wave."""
    from joblib import parallel as joblib_parallel

    backend, _ = joblib_parallel.get_active_backend()
    if backend.supports_return_generator:
        yield from parallel("generator_unordered")(map(task, orders))
        return
    waiting = iter(orders)
    with parallel() as crew:
        while wave := list(itertools.islice(waiting, 2 * workers)):
            yield from crew(map(task, wave))


def bring_in(client: Client | AsyncClient, intake: Intake, harvest: Harvest) -> None:
    """Take down what a batch brought, and write to the journal what its worker could not."""
    if harvest.wrong is not None:
        intake.run.fail(ConfigError(harvest.wrong))
    if client.journal is not None and not harvest.journaled:
        keep = settings.record_content()
        for _, row in harvest.rows:
            client.journal.append(row if keep else row._replace(prompt=None, text=None))
        for error in harvest.errors:
            client.journal.append(error)
    intake.take(harvest.rows, harvest.answers)


DEATHS_BY_NAME = frozenset({"KilledWorker", "RayActorError", "WorkerCrashedError"})  # Dask's and Ray's; loky's is a BrokenExecutor


def is_a_death(error: Exception) -> bool:
    """Whether an error means that a worker process is gone."""
    return isinstance(error, BrokenExecutor) or not DEATHS_BY_NAME.isdisjoint(kind.__name__ for kind in type(error).__mro__)
