"""Remember what a function returned."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, overload

from ..errors import CacheError, ConfigError
from ..settings import home
from .arguments import Arguments
from .flights import Failed, Flight, Flights, Landed
from .frozen import is_immutable
from .memory import Cache, CacheStats, LRUCache

__all__ = ["Memoized", "memoize"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_ABSENT: Final = object()
_log = logging.getLogger(__name__)

AnyCache = Cache[Any, Any]  # results of whatever functions
Row = tuple[Any, ...]  # and their arguments
KeyOf = Callable[[Row, dict[str, Any]], Hashable]
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
    _require_memoizable(fn)
    if persist:
        memory = _persistent(fn, LRUCache(max_size, ttl_s), ttl_s, key, store)
    else:
        memory = _in_memory(fn, LRUCache(max_size, ttl_s) if store is None else store, ttl_s, key, shared=store is not None)
    return _remembering_async(fn, memory) if inspect.iscoroutinefunction(fn) else _remembering(fn, memory)


class _Memory:
    """What the wrapper of one function works with."""

    def __init__(self, fn: Callable[..., Any], cache: AnyCache, key_of: KeyOf, ttl_s: float | None, *, shared: bool = False) -> None:
        self.fn = fn
        self.cache = cache
        self.key_of: KeyOf = (lambda args, kwargs: (self, key_of(args, kwargs))) if shared else key_of
        self.flights: Flights[Any] = Flights(share=_own_copy if cache.copies else None)
        self.leading: set[tuple[int, Hashable]] = set()
        self.forgotten = 0  # how often something was: a result under way meanwhile is not kept
        self._ttl_s = ttl_s
        self._shared = shared

    def work(self, args: Row, kwargs: dict[str, Any]) -> Any:
        """Have the function work; gives an awaitable if it is a coroutine function."""
        return self.fn(*args, **kwargs)

    def left_s(self) -> float | None:
        """Return how long the result that came last may be kept."""
        return self._ttl_s

    def call(self, key: Hashable, args: Row, kwargs: dict[str, Any]) -> Any:
        me = threading.get_ident()
        while True:
            if (me, key) in self.leading:  # a call that asks itself: as endless, or not, as it is without a cache
                return self.work(args, kwargs)
            flight = self.flights.join(key)
            if flight.leader:
                with _Lead(self, flight, key, me) as lead:
                    known = self.cache.peek(key, _ABSENT)  # another leader may have landed since this caller looked
                    return lead.keep(self.work(args, kwargs)) if known is _ABSENT else lead.land(known)
            outcome = flight.wait()
            if isinstance(outcome, Landed):
                return outcome.kept
            if isinstance(outcome, Failed):
                raise outcome.error

    async def call_async(self, key: Hashable, args: Row, kwargs: dict[str, Any]) -> Any:
        from asyncio import current_task

        me = id(current_task())
        while True:
            if (me, key) in self.leading:
                return await self.work(args, kwargs)
            flight = self.flights.join(key)
            if flight.leader:
                with _Lead(self, flight, key, me) as lead:
                    known = self.cache.peek(key, _ABSENT)
                    return lead.keep(await self.work(args, kwargs)) if known is _ABSENT else lead.land(known)
            outcome = await flight.wait_async()
            if isinstance(outcome, Landed):
                return outcome.kept
            if isinstance(outcome, Failed):
                raise outcome.error

    def clear(self) -> None:
        self.forgotten += 1
        if not self._shared:
            self.cache.clear()
            return
        for key in self.cache:
            if isinstance(key, tuple) and key and key[0] is self:
                self.cache.delete(key)

    def forget(self, *args: Any, **kwargs: Any) -> bool:
        self.forgotten += 1
        return self.cache.delete(self.key_of(args, kwargs))

    def unhashable(self, args: Row, kwargs: dict[str, Any]) -> TypeError:
        guilty = next((type(value).__name__ for value in (*args, *kwargs.values()) if not _hashable(value)), "key")
        return TypeError(
            f"{_name(self.fn)} was called with a {guilty}, which can't be hashed, so its calls can't be told apart; "
            "give memoize a key= function that makes something hashable of the arguments"
        )


class _Lead:
    """Leading a flight: whatever happens, it is ended for those who wait."""

    def __init__(self, memory: _Memory, flight: Flight[Any], key: Hashable, me: int) -> None:
        self._memory = memory
        self._flight = flight
        self._key = key
        self._me = (me, key)
        self._forgotten = memory.forgotten

    def __enter__(self) -> _Lead:
        self._memory.leading.add(self._me)
        return self

    def keep(self, value: Any) -> Any:
        memory = self._memory
        if memory.forgotten == self._forgotten:
            memory.cache.set(self._key, value, memory.left_s())
        return self.land(value)

    def land(self, value: Any) -> Any:
        # A copy for those who wait, taken before this caller can change what it gets.
        self._flight.land(_own_copy(value) if self._memory.cache.copies else value)
        return value

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._memory.leading.discard(self._me)
        if isinstance(error, Exception):
            self._flight.fail(error)
        else:
            self._flight.abandon()  # interrupted or cancelled; nothing happens if it has landed


class _Life:
    """How long a result that was read from disk may still be used. Handed down to the thread that reads it, which writes it here."""

    __slots__ = ("left_s",)

    def __init__(self) -> None:
        self.left_s: float | None = None


class _Persistent(_Memory):
    """Results by ``joblib.Memory`` below those in memory."""

    def __init__(self, fn: Callable[..., Any], cache: AnyCache, ttl_s: float | None, folder: Path | None) -> None:
        super().__init__(fn, cache, self._hashed, ttl_s)
        self._folder = folder
        self._arguments = Arguments(fn)
        self._life: ContextVar[_Life] = ContextVar("life of the result that came last")
        self._warned = False

    def work(self, args: Row, kwargs: dict[str, Any]) -> Any:
        return self._work_async(args, kwargs) if inspect.iscoroutinefunction(self.fn) else self._work(args, kwargs)

    def left_s(self) -> float | None:
        life = self._life.get(None)
        return self._ttl_s if life is None or life.left_s is None else life.left_s

    def clear(self) -> None:
        super().clear()
        self._on_disk.clear(warn=False)

    def forget(self, *args: Any, **kwargs: Any) -> bool:
        in_memory = super().forget(*args, **kwargs)
        store, item = self._on_disk.store_backend, (self._on_disk.func_id, self._on_disk._get_args_id(*args, **kwargs))
        on_disk = bool(store.contains_item(item))
        store.clear_item(item)
        return in_memory or on_disk

    @functools.cached_property
    def _on_disk(self) -> Any:  # joblib has no types
        from .joblib_store import remembered  # joblib takes half a second

        return remembered(self.fn, self._folder or home() / "memo", self._is_fresh)

    def _hashed(self, args: Row, kwargs: dict[str, Any]) -> Hashable:
        import joblib

        hashed: str = joblib.hash(self._arguments.row(args, kwargs))
        return hashed

    def _is_fresh(self, metadata: dict[str, Any]) -> bool:
        """Say whether a result on disk may still be used, and note for how long."""
        if self._ttl_s is None:
            return True
        left_s = metadata.get("time", 0.0) + self._ttl_s - time.time()
        if left_s > 0 and (life := self._life.get(None)) is not None:
            life.left_s = left_s
        return bool(left_s > 0)

    def _work(self, args: Row, kwargs: dict[str, Any]) -> Any:
        self._life.set(_Life())
        try:
            return self._on_disk(*args, **kwargs)
        except CacheError as error:
            if self._raised_by_function(error):
                raise
            self._warn(error)
        return self.fn(*args, **kwargs)

    async def _work_async(self, args: Row, kwargs: dict[str, Any]) -> Any:
        from asyncio import to_thread

        self._life.set(_Life())
        try:
            on_disk = await to_thread(lambda: self._on_disk)
            return await on_disk(*args, **kwargs)
        except CacheError as error:
            if self._raised_by_function(error):
                raise
            self._warn(error)
        return await self.fn(*args, **kwargs)

    def _raised_by_function(self, error: CacheError) -> bool:
        """Whether an error came from the function and not from the store: the function is not run again then."""
        return any(frame.f_code is self.fn.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))

    def _warn(self, error: CacheError) -> None:
        if not self._warned:
            _log.warning("results of %s are not kept on disk: %s", _name(self.fn), error)
        self._warned = True


def _in_memory(fn: Callable[..., Any], cache: Store, ttl_s: float | None, key: Callable[..., Hashable] | None, *, shared: bool) -> _Memory:
    if not isinstance(cache, Cache):
        raise ConfigError(f"store= is a Cache to remember in (or, with persist=True, a folder), not {cache!r}")
    return _Memory(fn, cache, Arguments(fn).key if key is None else _applied(key), ttl_s, shared=shared)


def _persistent(
    fn: Callable[..., Any], cache: AnyCache, ttl_s: float | None, key: Callable[..., Hashable] | None, store: Store | None
) -> _Memory:
    if key is not None:
        raise ConfigError("persist=True tells calls apart by joblib's hash of the arguments: leave key= out")
    if isinstance(store, Cache):
        raise ConfigError("with persist=True, store= is the folder to keep results in, not a Cache")
    if not inspect.isfunction(fn) or fn.__qualname__ != fn.__name__ or fn.__name__ == "<lambda>":
        raise ConfigError(
            f"persist=True can't tell {_name(fn)} from others of its name, and would mix up their results; "
            "define it with def, outside of functions and classes"
        )
    return _Persistent(fn, cache, ttl_s, None if store is None else Path(store))


def _remembering(fn: Callable[..., Any], memory: _Memory) -> Any:
    key_of, get = memory.key_of, memory.cache.get

    @functools.wraps(fn)
    def remembered(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        try:
            found = get(key, _ABSENT)
        except TypeError as error:
            raise memory.unhashable(args, kwargs) from error
        return memory.call(key, args, kwargs) if found is _ABSENT else found

    return _with_tools(remembered, memory)


def _remembering_async(fn: Callable[..., Any], memory: _Memory) -> Any:
    key_of, get = memory.key_of, memory.cache.get

    @functools.wraps(fn)
    async def remembered(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        try:
            found = get(key, _ABSENT)
        except TypeError as error:
            raise memory.unhashable(args, kwargs) from error
        return await memory.call_async(key, args, kwargs) if found is _ABSENT else found

    return _with_tools(remembered, memory)


def _with_tools(wrapper: Any, memory: _Memory) -> Any:  # a function, which gets attributes
    wrapper.stats = memory.cache.stats
    wrapper.clear = memory.clear
    wrapper.forget = memory.forget
    return wrapper


def _applied(key: Callable[..., Hashable]) -> KeyOf:
    return lambda args, kwargs: key(*args, **kwargs)


def _own_copy(value: T) -> T:
    return value if is_immutable(value) else copy.deepcopy(value)


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _require_memoizable(fn: object) -> None:
    if not callable(fn):
        raise ConfigError(f"memoize decorates a function, not {fn!r}; its options are named: memoize(ttl_s=60)")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(
            f"{getattr(fn, '__qualname__', fn)} is a generator, which can be read only once; memoize a function that returns a list"
        )
