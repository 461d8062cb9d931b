"""Values that can be handed out as they are, because nobody can change them."""

from __future__ import annotations

import datetime
import enum
import pathlib
import types
from dataclasses import fields, is_dataclass, replace
from typing import Any, NoReturn, TypeVar

from ..types import Kept

__all__ = ["FrozenDict", "freeze", "is_immutable"]

K = TypeVar("K")
V = TypeVar("V")

_PLAIN: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, type, enum.EnumMeta),
        *(types.FunctionType, types.BuiltinFunctionType, type(Ellipsis)),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone),
        *(pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())),
    }
)

_PLAIN_ELSEWHERE = frozenset({("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")})
"""By name, since importing their modules takes longer than all of this package."""


def is_immutable(value: object) -> bool:
    """Whether a value, and everything it holds, can't be changed: plain values, tuples, frozen sets and frozen dataclasses of such.

    Examples
    --------
    >>> is_immutable(("a", 1)), is_immutable(("a", [1]))
    (True, False)
    """
    kind = type(value)
    if kind in _PLAIN or isinstance(value, enum.Enum) or (kind.__module__, kind.__qualname__) in _PLAIN_ELSEWHERE:
        return True
    if isinstance(value, (tuple, frozenset)):
        return not hasattr(value, "__dict__") and all(map(is_immutable, value))
    if is_dataclass(value) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return all(is_immutable(getattr(value, field.name)) for field in fields(value))
    return False


class FrozenDict(dict[K, V]):
    """A dict that refuses to be changed, and still prints, pickles, copies and turns into JSON like one."""

    __slots__ = ()

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:  # Any: it stands for methods of every signature
        raise TypeError("this mapping belongs to a kept answer and can't be changed; take a copy: dict(...)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return type(self), (dict(self),)


def freeze(kept: Kept) -> Kept:
    """Return an answer whose one changeable part, what the service reported, can't be changed any more."""
    reply = kept.reply
    if type(reply.reported) is FrozenDict:
        return kept
    return replace(kept, reply=replace(reply, reported=FrozenDict(reply.reported)))
