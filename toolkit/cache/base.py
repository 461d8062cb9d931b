"""What every cache tier speaks."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from ..types import CacheTier, Kept

__all__ = ["MISS", "Found", "Guard", "Miss", "Store", "StoreInfo"]


class Miss(enum.Enum):
    """The type of ``MISS``, so that a stored ``None`` is not one."""

    MISS = enum.auto()

    def __repr__(self) -> str:
        return "MISS"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return False


MISS: Final = Miss.MISS


@dataclass(frozen=True, slots=True)
class Found:
    """An answer and the tier that had it."""

    kept: Kept
    tier: CacheTier


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """How full a store is; ``None`` where there is no limit."""

    entries: int
    size_bytes: int
    max_bytes: int | None = None


class Store(Protocol):
    """A place for bytes under a key, with a time to live. A damaged or expired entry is a ``MISS``.

    One that can keep several at once may offer ``set_all(rows)``, each row with what ``set`` takes.
    """

    name: CacheTier

    def get(self, key: str) -> bytes | Miss: ...

    def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None: ...

    def delete(self, key: str) -> bool: ...

    def clear(self) -> None: ...

    def info(self) -> StoreInfo: ...

    def close(self) -> None: ...


class Guard(Protocol):
    """The lock of one key for one caller. A store that several processes share may offer ``guard(key) -> Guard``."""

    @property
    def blocks(self) -> bool:
        """Whether taking it may have to wait for a network."""
        ...

    def take(self) -> bool:
        """Take the lock if nobody has it, without waiting for whoever has; say whether it is ours."""
        ...

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        ...
