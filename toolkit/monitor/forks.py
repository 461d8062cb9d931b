"""New locks after a fork: another thread may have held the old ones, and in the child there is nobody to open them."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["Locked"]

_all: weakref.WeakSet[Locked] = weakref.WeakSet()


class Locked:
    """Something with a lock, ``_lock``, that still works in a forked child. Reentrant: a finalizer may log while a thread logs."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)


def _renew_locks() -> None:
    for locked in list(_all):
        locked._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
