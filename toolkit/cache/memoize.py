"""Remember what a function returned."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import threading
from asyncio import current_task
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, overload

from ..errors import CacheError, ConfigError
from ..settings import home
from .arguments import Arguments
from .flights import Failed, Flight, Flights, Landed
from .frozen import is_immutable
from .memory import Cache, CacheStats, LRUCache

__all__ = ["Memoized", "memoize"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_ABSENT: Final = object()
_log = logging.getLogger(__name__)

AnyCache = Cache[Any, Any]  # results of whatever functions
Store = AnyCache | str | Path


class Memoized(Protocol[P, R_co]):
    """A function that remembers."""

    __wrapped__: Callable[..., Any]  # the function itself

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def stats(self) -> CacheStats:
        """Return hits, misses and size of the cache in memory."""
        ...

    def clear(self) -> None:
        """Forget all results, those on disk too."""
        ...

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of one call; say whether it was known."""
        ...


@overload
def memoize(fn: Callable[P, R], /) -> Memoized[P, R]: ...
@overload
def memoize(
    fn: None = None,
    /,
    *,
    ttl_s: float | None = None,
    max_size: int | None = 1000,
    key: Callable[..., Hashable] | None = None,
    persist: bool = False,
    store: Store | None = None,
) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...
@overload
def memoize(
    fn: Callable[P, R],
    /,
    *,
    ttl_s: float | None = None,
    max_size: int | None = 1000,
    key: Callable[..., Hashable] | None = None,
    persist: bool = False,
    store: Store | None = None,
) -> Memoized[P, R]: ...
def memoize(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    ttl_s: float | None = None,
    max_size: int | None = 1000,
    key: Callable[..., Hashable] | None = None,
    persist: bool = False,
    store: Store | None = None,
) -> Any:  # a Memoized of the same signature, or a decorator: see the overloads
    """Have a function, or a coroutine function, remember its results.

    Callers that ask the same at the same time wait for one of them. Exceptions are not remembered. Equal calls are one however
    they are written: ``f(1)``, ``f(x=1)``; but ``f(1)``, ``f(1.0)`` and ``f(True)`` are three.

    Parameters
    ----------
    fn : callable
        The function. A method remembers by instance, which it does not keep alive.
    ttl_s : float, optional
        Seconds after which a result is worked out anew; never by default.
    max_size : int, optional
        How many results are remembered in memory; the one unused for longest goes first.
    key : callable, optional
        Takes the arguments of a call and returns what tells it from others; needed where arguments can't be hashed.
    persist : bool
        Keep the results on disk too, by ``joblib.Memory``: they outlive the process, and are forgotten when the function's source
        changes. Arguments may be arrays and frames. For functions defined at the top of a module or of a notebook cell.
    store : Cache or path, optional
        The cache that remembers in memory, instead of one of the function's own; or, with ``persist``, the folder on disk
        (default: ``memo`` in the toolkit's folder). Keep it to yourself: what is in it is code when it is read back.

    Raises
    ------
    ConfigError
        If the options make no sense, or not together.
    TypeError
        From a call whose arguments can't be hashed (give ``key``), or whose result can't be copied (give
        ``store=LRUCache(1000, copy=False)``, and callers share one object).

    Examples
    --------
    >>> @memoize(ttl_s=60)
    ... def square(x):
    ...     print("working")
    ...     return x * x
    >>> square(3), square(x=3)
    working
    (9, 9)
    >>> square.stats().hits, square.forget(3)
    (1, True)
    """
    if fn is None:
        return functools.partial(memoize, ttl_s=ttl_s, max_size=max_size, key=key, persist=persist, store=store)
    _require_memoizable(fn, persist, key)
    _require_store(persist, store, ttl_s, max_size)
    cache = store if isinstance(store, Cache) else LRUCache(max_size, ttl_s)
    arguments = Arguments(fn)
    if persist:
        disk = _Disk(fn, None if store is None else Path(cast("str | Path", store)), ttl_s)
        memory = _Memory(fn, disk.call, cache, disk.key_of(arguments), shared=False, forget_all=disk.clear)
    else:
        memory = _Memory(fn, fn, cache, _key_by(key) if key else arguments.key, shared=store is not None)
    return _dressed(fn, memory)


class _Memory:
    """What the wrapper of one function works with."""

    def __init__(
        self,
        fn: Callable[..., Any],
        work: Callable[..., Any],
        cache: AnyCache,
        key_of: Callable[[tuple[Any, ...], dict[str, Any]], Hashable],
        *,
        shared: bool,
        forget_all: Callable[[], None] | None = None,
    ) -> None:
        self.name = getattr(fn, "__qualname__", repr(fn))
        self.work = work
        self.cache = cache
        self.flights: Flights[Any] = Flights(share=_own_copy)
        self.key_of = self._named(key_of) if shared else key_of
        self._shared = shared
        self._forget_all = forget_all
        self._leading: set[tuple[int, Hashable]] = set()
        self._forgotten = 0  # how often something was: results under way meanwhile are not kept

    def stats(self) -> CacheStats:
        return self.cache.stats()

    def clear(self) -> None:
        self._forgotten += 1
        if self._forget_all is not None:
            self._forget_all()
        if not self._shared:
            self.cache.clear()
            return
        for key in self.cache.keys():
            if isinstance(key, tuple) and key and key[0] is self:
                self.cache.delete(key)

    def forget(self, *args: Any, **kwargs: Any) -> bool:
        self._forgotten += 1
        return self.cache.delete(self.key_of(args, kwargs))

    def lead_or_take(self, key: Hashable, me: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            if (me, key) in self._leading:  # a call that asks itself: as endless, or not, as without a cache
                return self.work(*args, **kwargs)
            flight = self.flights.join(key)
            if flight.leader:
                with _Leading(self, key, me, flight) as lead:
                    return lead.kept() if lead.known() else lead.keep(self.work(*args, **kwargs))
            outcome = flight.wait()
            if isinstance(outcome, Landed):
                return outcome.kept
            if isinstance(outcome, Failed):
                raise outcome.error

    async def lead_or_take_async(self, key: Hashable, me: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            if (me, key) in self._leading:
                return await self.work(*args, **kwargs)
            flight = self.flights.join(key)
            if flight.leader:
                with _Leading(self, key, me, flight) as lead:
                    return lead.kept() if lead.known() else lead.keep(await self.work(*args, **kwargs))
            outcome = await flight.wait_async()
            if isinstance(outcome, Landed):
                return outcome.kept
            if isinstance(outcome, Failed):
                raise outcome.error

    def unhashable(self, error: TypeError) -> TypeError:
        return TypeError(
            f"{self.name} was called with arguments that can't be hashed, so it can't tell calls apart ({error}); "
            "give memoize a key= function that makes something hashable of them"
        )

    def _named(self, key_of: Callable[[tuple[Any, ...], dict[str, Any]], Hashable]) -> Callable[..., Hashable]:
        return lambda args, kwargs: (self, key_of(args, kwargs))
