"""The arguments of a call as a key: equal calls get equal keys however they are written, and 1, 1.0 and True stay apart."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, Final

__all__ = ["Arguments"]

Row = tuple[Any, ...]  # arguments of whatever function

_MISSING: Final = object()
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Standin:
    """Takes the place of what can't be part of a key itself: an unhashable default, an object known by identity."""

    __slots__ = ()


_PLAIN: frozenset[type] = frozenset({str, int, float, bool, bytes, type(None), _Standin})
"""Types that hold nothing of another type."""


class Arguments:
    """How the arguments of one function become a key.

    Parameters
    ----------
    function : callable
        The function. If it is a method, its ``self`` counts by identity and is not kept alive.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._signature = _signature(function)
        parameters = list(self._signature.parameters.values()) if self._signature else []
        self._variadic = self._signature is None or any(parameter.kind in _VARIADIC for parameter in parameters)
        self._count = -1 if self._variadic else len(parameters)
        self._defaults = tuple(_default(parameter) for parameter in parameters)
        self._required = [
            sum(value is _MISSING for value in self._defaults[place:]) for place in range(len(parameters) + 1)
        ]  # from each place on
        self._places = {p.name: place for place, p in enumerate(parameters) if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
        self._positional = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        self._is_method = _is_method(function, parameters)
        self._receivers: dict[int, tuple[_Standin, object]] = {}

    def key(self, args: Row, kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call. Whether it can be hashed shows when it is looked up.

        Raises
        ------
        TypeError
            If the function can't be called with these arguments.
        """
        if kwargs or len(args) != self._count:
            args = self.row(args, kwargs)
        if self._is_method:
            args = (self._receiver(args[0]), *args[1:])
        if len(args) == 1:  # most functions have one argument, and most often it is plain
            value: Hashable = args[0]
            kind = type(value)
            if kind is str:  # needs no note of its type: it equals nothing but another string
                return value
            if kind in _PLAIN:
                return kind, value
        kinds: Row = tuple(map(type, args))
        if not _PLAIN.issuperset(kinds):
            kinds = tuple(map(_kind, args))
        return args, kinds

    def row(self, args: Row, kwargs: dict[str, Any]) -> Row:
        """Return the values of all parameters in their order, defaults included: equal calls have equal rows."""
        if self._variadic:
            return self._bound_row(args, kwargs)
        given = len(args)
        if given > self._positional:
            self._complain(args, kwargs)
        row = [*args, *self._defaults[given:]]
        missing = self._required[given]
        for name, value in kwargs.items():
            place = self._places.get(name, -1)
            if place < given:
                self._complain(args, kwargs)
            missing -= row[place] is _MISSING
            row[place] = value
        if missing:
            self._complain(args, kwargs)
        return tuple(row)

    def _bound_row(self, args: Row, kwargs: dict[str, Any]) -> Row:
        if self._signature is None:
            return args, tuple(sorted(kwargs.items()))
        given = self._signature.bind(*args, **kwargs).arguments
        row = zip(self._signature.parameters.values(), self._defaults, strict=True)
        return tuple(_in_order(parameter, given.get(parameter.name, default)) for parameter, default in row)

    def _complain(self, args: Row, kwargs: dict[str, Any]) -> None:
        assert self._signature is not None
        self._signature.bind(*args, **kwargs)  # raises the TypeError that says which argument is wrong

    def _receiver(self, owner: object) -> _Standin:
        known = self._receivers.get(id(owner))
        if known is None:
            known = self._receivers.setdefault(id(owner), (_Standin(), self._watch(owner)))
        return known[0]

    def _watch(self, owner: object) -> object:
        receivers, place = self._receivers, id(owner)
        try:
            return weakref.ref(owner, lambda _: receivers.pop(place, None))
        except TypeError:
            return owner  # can't be watched, so it stays, lest another object take its place in memory


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C don't tell
        return None


def _is_method(function: Callable[..., object], parameters: list[inspect.Parameter]) -> bool:
    """Whether a function is defined in a class body and takes the instance: the decorator sees it before it is a method."""
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = bool(scope) and not scope.endswith("<locals>")
    return in_class and bool(parameters) and parameters[0].name == "self"


def _default(parameter: inspect.Parameter) -> Any:  # of whatever type the function's author chose
    if parameter.kind in _VARIADIC:
        return () if parameter.kind is parameter.VAR_POSITIONAL else {}
    if parameter.default is parameter.empty:
        return _MISSING
    try:
        hash(parameter.default)
    except TypeError:
        return _Standin()
    return parameter.default


def _in_order(parameter: inspect.Parameter, value: Any) -> Any:  # an argument of whatever type
    return tuple(sorted(value.items())) if parameter.kind is parameter.VAR_KEYWORD else value


def _kind(value: object) -> Any:  # a type, or nested tuples of types
    """Return the type of a value with the types of what it holds, as far as equality looks through it."""
    if isinstance(value, tuple):
        return type(value), *map(_kind, value)
    if isinstance(value, frozenset):
        return type(value), frozenset((item, _kind(item)) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), *(_kind(getattr(value, field.name)) for field in fields(value))
    return type(value)
