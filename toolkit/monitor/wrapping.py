"""A function with somebody watching it run: plain functions, coroutine functions, generators and async generators alike."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

__all__ = ["Watch", "name_of", "watched"]

P = ParamSpec("P")
R = TypeVar("R")


class Watch(Protocol):
    """Sees one call: entered whenever the function runs (a generator runs once for each value), and told when it is over."""

    def __enter__(self) -> object: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...
    def end(self) -> None: ...


def watched(fn: Callable[P, R], begin: Callable[[], Watch]) -> Callable[P, R]:
    """Return the function with a watch on each of its calls; results, exceptions and kind stay what they are."""
    code = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial | type) else type(fn).__call__  # an object can be called too
    for is_kind, watch in ((inspect.isasyncgenfunction, _async_generator), (inspect.isgeneratorfunction, _generator)):
        if is_kind(code):
            return cast("Callable[P, R]", watch(fn, begin))
    if inspect.iscoroutinefunction(code):
        return cast("Callable[P, R]", _coroutine(fn, begin))
    return _function(fn, begin)


def name_of(fn: Callable[..., object]) -> str:
    """The name a function goes by, without the functions around it."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    whole: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return whole.rpartition("<locals>.")[2]


def _function(fn: Callable[P, R], begin: Callable[[], Watch]) -> Callable[P, R]:
    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        watch = begin()
        try:
            with watch:
                return fn(*args, **kwargs)
        finally:
            watch.end()

    return wrapper


def _coroutine(fn: Callable[P, Any], begin: Callable[[], Watch]) -> Callable[P, Awaitable[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:  # what the user's coroutine returns
        watch = begin()
        try:
            with watch:
                return await fn(*args, **kwargs)
        finally:
            watch.end()

    return wrapper


def _generator(fn: Callable[P, Any], begin: Callable[[], Watch]) -> Callable[P, Iterator[Any]]:
    # ``yield from`` would do, but would let the watch run on while the consumer has the value.
    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:  # what the user's generator yields and returns
        watch = begin()
        try:
            with watch:
                generator = fn(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, generator)
            while True:
                with watch:
                    try:
                        value = step()
                    except StopIteration as stop:
                        return stop.value
                try:
                    sent = yield value
                except GeneratorExit:
                    with watch:
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and meant for the generator
                    step = functools.partial(generator.throw, error)
                else:
                    step = functools.partial(generator.send, sent)
        finally:
            watch.end()

    return wrapper


def _async_generator(fn: Callable[P, Any], begin: Callable[[], Watch]) -> Callable[P, AsyncIterator[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:  # what the user's generator yields
        watch = begin()
        try:
            with watch:
                generator = fn(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(anext, generator)
            while True:
                with watch:
                    try:
                        value = await step()
                    except StopAsyncIteration:
                        return
                try:
                    sent = yield value
                except GeneratorExit:
                    with watch:
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and meant for the generator
                    step = functools.partial(generator.athrow, error)
                else:
                    step = functools.partial(generator.asend, sent)
        finally:
            watch.end()

    return wrapper
