"""The file of the disk tier as a store of ``joblib.Memory``.

Importing this module makes the backend known to joblib::

    import toolkit.cache.joblib_store
    memory = joblib.Memory(folder, backend="toolkit")

What a memoized function returns is a pickle, as ever with joblib, and a pickle is code: a folder that somebody else can write to
is refused. Answers that ``DiskStore`` keeps in the same file are items too: listed, pruned by ``reduce_size``, and loaded as the
JSON text they are, never unpickled.
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import io
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import joblib
from joblib._store_backends import CacheItemInfo, StoreBackendBase, StoreBackendMixin
from joblib.disk import memstr_to_bytes
from joblib.memory import AsyncMemorizedFunc

from ..errors import CacheError, ConfigError
from .base import MISS
from .entries import Entries

__all__ = ["BACKEND", "SQLiteStoreBackend", "remembered"]

BACKEND = "toolkit"
OUTPUT, METADATA, CODE = "output.pkl", "metadata.json", "func_code.py"

CallId = list[str] | tuple[str, ...]


class SQLiteStoreBackend(StoreBackendBase, StoreBackendMixin):  # type: ignore[misc]  # joblib has no types
    """Items of ``joblib.Memory`` in one SQLite file (``toolkit.cache.entries``)."""

    def configure(self, location: str, verbose: int = 1, backend_options: dict[str, Any] | None = None) -> None:
        """Set the store up in a folder.

        Raises
        ------
        ConfigError
            If arrays are to be memory-mapped, or others than the user can write to the folder.
        """
        options = backend_options or {}
        if options.get("mmap_mode") is not None:
            raise ConfigError('backend="toolkit" keeps values inside a database and can\'t map them into memory: leave mmap_mode out')
        self.location = location
        self.verbose = verbose
        self.compress = options.get("compress", False)
        self.mmap_mode = None
        _require_private(Path(location))
        self._entries = Entries(Path(location))

    def load_item(self, call_id: CallId, verbose: int = 1, timestamp: float | None = None, metadata: Any = None) -> Any:
        """Return the value of an item: whatever a function returned, or the JSON text of a kept answer."""
        entry = self._entries.read("/".join(call_id))
        if entry is not MISS and entry.kind == "json":
            return entry.value.decode("utf-8")
        return super().load_item(call_id, verbose=verbose, timestamp=timestamp, metadata=metadata)

    def store_metadata(self, call_id: CallId, metadata: dict[str, Any]) -> None:
        """Keep what is known about a computation, without the arguments: they may hold prompts and keys in clear."""
        super().store_metadata(call_id, {name: value for name, value in metadata.items() if name != "input_args"})

    def enforce_store_limits(
        self, bytes_limit: int | str | None, items_limit: int | None = None, age_limit: datetime.timedelta | None = None
    ) -> None:
        """Prune by running totals and the index of last use, where joblib's own way lists every item first."""
        if age_limit is not None and age_limit.total_seconds() < 0:
            raise ValueError("age_limit has to be a positive timedelta")
        self._entries.prune(
            max_bytes=memstr_to_bytes(bytes_limit) if isinstance(bytes_limit, str) else bytes_limit,
            max_entries=items_limit,
            older_than_s=None if age_limit is None else age_limit.total_seconds(),
        )

    def get_items(self) -> list[CacheItemInfo]:
        """Return all items, answers among them."""
        return [
            CacheItemInfo(str(Path(self.location, entry.path)), entry.size_bytes, datetime.datetime.fromtimestamp(entry.used_at))
            for entry in self._entries.listed()
        ]

    def create_location(self, location: str) -> None:
        """There are no folders to make inside a database."""

    def clear_location(self, location: str) -> None:
        """Remove everything at a location and below it."""
        path = self._path(location)
        if path:
            self._entries.delete_under(path)
        else:
            self._entries.clear()

    def _item_exists(self, location: str) -> bool:
        path, part = self._split(location)
        if part == OUTPUT:
            return self._entries.has(path)
        if part == METADATA:
            return self._entries.description(path) is not None
        if part == CODE:
            return self._entries.code(path) is not None
        return self._entries.has_under(self._path(location))

    def _open_item(self, location: str, mode: str) -> io.BytesIO:
        path, part = self._split(location)
        if mode == "wb":
            return _Draft(self, path, part)
        data = self._read(path, part)
        if data is None:
            raise FileNotFoundError(f"there is no {part} of {path} in {self._entries.file}")
        return io.BytesIO(data)

    def _move_item(self, src: str, dst: str) -> None:
        with self._open_item(src, "rb") as source, self._open_item(dst, "wb") as target:
            target.write(source.read())
        self._entries.delete_under(self._split(src)[0])

    def _concurrency_safe_write(self, to_write: Any, filename: str, write_func: Any) -> None:
        write_func(to_write, filename)  # a draft appears whole when it is closed: no second name needed

    def _read(self, path: str, part: str) -> bytes | None:
        if part == OUTPUT:
            entry = self._entries.read(path)
            return None if entry is MISS else entry.value
        return self._entries.description(path) if part == METADATA else self._entries.code(path)

    def _write(self, path: str, part: str, data: bytes) -> None:
        if part == OUTPUT:
            self._entries.write(path, data, kind="pickle")
        elif part == METADATA:
            self._entries.describe(path, data)
        elif part == CODE:
            self._entries.write_code(path, data)
        else:
            raise CacheError(f"an item has {OUTPUT}, {METADATA} and {CODE}; {part} has no place")

    def _path(self, location: str) -> str:
        path = Path(location).relative_to(self.location).as_posix()
        return "" if path == "." else path

    def _split(self, location: str) -> tuple[str, str]:
        path, _, part = self._path(location).rpartition("/")
        return path, part


class _ThreadedMemorizedFunc(AsyncMemorizedFunc):  # type: ignore[misc]  # joblib has no types
    """A memoized coroutine function that leaves reading and writing to a thread, where joblib's own holds up the event loop."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = await asyncio.to_thread(self._cached_call, args, kwargs, shelving=False)
        output, _ = await found if inspect.isawaitable(found) else found
        return output

    async def _call(self, call_id: CallId, args: Any, kwargs: Any, shelving: bool = False) -> Any:
        begun = time.time()
        output = await self.func(*args, **kwargs)
        return await asyncio.to_thread(self._after_call, call_id, args, kwargs, shelving, output, begun)


def remembered(fn: Callable[..., Any], folder: Path, is_fresh: Callable[[dict[str, Any]], bool]) -> Any:
    """Return a function whose results ``joblib.Memory`` keeps in a folder."""
    memory = joblib.Memory(folder, backend=BACKEND, verbose=0)
    if not inspect.iscoroutinefunction(fn):
        return memory.cache(fn, cache_validation_callback=is_fresh)
    return _ThreadedMemorizedFunc(fn, memory.store_backend, backend=BACKEND, verbose=0, cache_validation_callback=is_fresh)


class _Draft(io.BytesIO):
    """A file being written: it goes into the store when it is closed, unless an error came in between."""

    def __init__(self, store: SQLiteStoreBackend, path: str, part: str) -> None:
        super().__init__()
        self._store = store
        self._path = path
        self._part = part

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._store._write(self._path, self._part, self.getvalue())
        super().__exit__(kind, error, trace)


def _require_private(folder: Path) -> None:
    try:
        status = folder.stat()
    except OSError:
        return  # it will be made with mode 0700, or that will fail in words of its own
    if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ConfigError(
            f"others can write to {folder}, and what joblib keeps is code when it is read back; use a folder of your own, mode 0700"
        )


joblib.register_store_backend(BACKEND, SQLiteStoreBackend)
