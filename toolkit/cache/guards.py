"""Locks between the processes of one machine: a byte of a file for each call under way.

The system gives a lock back when its process dies, however it dies, and a forked child has none of its parent's. A lock is the
process's: two callers of one process are told apart here, by a table beside the file.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
import zlib
from pathlib import Path

__all__ = ["FILE_NAME", "FileGuard", "Guards"]

FILE_NAME = "flights.lock"
PLACES = 1 << 31
"""Two keys that share a byte wait for each other, which costs time and nothing else."""


class _LockFile:
    """One open file and the bytes of it that this process has locked, or is about to."""

    __slots__ = ("__weakref__", "descriptor", "taken")

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.taken: dict[int, object] = {}

    @property
    def removed(self) -> bool:
        return os.fstat(self.descriptor).st_nlink == 0

    def take(self, place: int, owner: object) -> bool:
        if self.taken.setdefault(place, owner) is not owner:  # atomic: somebody else in this process has it
            return False
        locked = False
        try:
            locked = _lock(self.descriptor, place)
        finally:
            if not locked:
                self.taken.pop(place, None)
        return locked

    def give_back(self, place: int, owner: object) -> None:
        if self.taken.get(place) is owner:
            _unlock(self.descriptor, place)
            self.taken.pop(place, None)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # not where opening failed
            os.close(self.descriptor)


_opening = threading.Lock()
_open_files: weakref.WeakValueDictionary[str, _LockFile] = weakref.WeakValueDictionary()
"""One for each path: closing a second descriptor of a file would give up the locks taken through the first."""


class Guards:
    """The locks beside a store in a folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = (Guards(Path(folder)).guard("a question") for _ in range(2))
    ...     print(first.take(), second.take())
    ...     first.release()
    ...     print(second.take())
    True False
    True
    """

    __slots__ = ("_file", "_path")

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file: _LockFile | None = None

    def guard(self, key: str) -> FileGuard:
        """Return the lock of a key, not taken yet."""
        return FileGuard(self, zlib.crc32(key.encode()) % PLACES)

    def file(self) -> _LockFile:
        """Return the open file, a new one where it was removed from under us."""
        if self._file is None or self._file.removed:
            with _opening:
                name = os.path.realpath(self._path)
                known = _open_files.get(name)
                if known is None or known.removed:
                    known = _open_files[name] = _LockFile(self._path)
                self._file = known
        return self._file


class FileGuard:
    """The lock of one key, for one caller."""

    __slots__ = ("_file", "_guards", "_place")
    blocks = False  # a call into the system of a microsecond or two

    def __init__(self, guards: Guards, place: int) -> None:
        self._guards = guards
        self._place = place
        self._file: _LockFile | None = None

    def take(self) -> bool:
        """Take the lock if nobody has it; never waits.

        Raises
        ------
        OSError
            If the file can't be made or locked.
        """
        self._file = file = self._guards.file()
        return file.take(self._place, self)

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        file, self._file = self._file, None
        if file is not None:
            file.give_back(self._place, self)


if sys.platform == "win32":
    import msvcrt

    _moving = threading.Lock()  # the place to lock is the descriptor's position, which all threads share

    def _lock(descriptor: int, place: int) -> bool:
        with _moving:
            os.lseek(descriptor, place, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                return False
        return True

    def _unlock(descriptor: int, place: int) -> None:
        with _moving:
            os.lseek(descriptor, place, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, place: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # POSIX allows both for "somebody has it"
            return False
        return True

    def _unlock(descriptor: int, place: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)

    def _after_fork() -> None:
        global _opening
        _opening = threading.Lock()  # a thread that only the parent has may have held it
        for file in list(_open_files.values()):
            file.taken = {}

    os.register_at_fork(after_in_child=_after_fork)
