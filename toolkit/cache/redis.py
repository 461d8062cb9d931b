"""The tier that machines share: answers as JSON text in a Redis."""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib.util
import logging
import math
import os
import re
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from .. import settings
from ..errors import CacheError, ConfigError
from ..keys import SCHEMA_VERSION
from ..types import CacheTier
from .base import MISS, Miss, StoreInfo

__all__ = ["RedisGuard", "RedisStore"]

SCHEMES = ("redis", "rediss", "unix")
TIMEOUT_S = 0.5
LEASE_S = 10.0
KEYS_AT_ONCE = 500
DAMAGED_FOR_S = 86_400

# Numbers that only grow, also where the server lost its memory or its clock was set back: microseconds, or one more than the last.
_NEXT_FENCE = """
local function next_fence(counter)
    local now = redis.call('TIME')
    local fence = math.max(now[1] * 1000000 + now[2], (tonumber(redis.call('GET', counter)) or 0) + 1)
    redis.call('SET', counter, string.format('%.0f', fence))
    return fence
end
"""
_TAKE = f"""{_NEXT_FENCE}
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[1]) == ARGV[1] then
    return next_fence(KEYS[2])
end
return 0
"""
# A lock that the server forgot, in a restart say, is taken again.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# Who was stopped for longer than its lease does not overwrite what its successor kept.
_SET = f"""{_NEXT_FENCE}
local fence = tonumber(ARGV[1])
if fence == 0 then fence = next_fence(KEYS[2]) end
local kept = tonumber(string.match(redis.call('GETRANGE', KEYS[1], 0, 31), '^(%d+) ') or '0')
if kept > fence then return 0 end
local value = string.format('%.0f', fence) .. ' ' .. ARGV[2]
if ARGV[3] == '' then redis.call('SET', KEYS[1], value) else redis.call('SET', KEYS[1], value, 'PX', ARGV[3]) end
return 1
"""
_ENVELOPE: Final = re.compile(rb"\d+ ([0-9a-f]{8}) ([0-9a-f]{64}|-)\n")

T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Scripts(NamedTuple):
    """What has to happen in one go, on the server. Any: redis-py's scripts are typed for both its clients at once."""

    take: Any
    renew: Any
    release: Any
    set: Any


class RedisStore:
    """A ``Store`` in a Redis, which many machines may use at once.

    Values are JSON text under ``<prefix>:v<schema version>:answer:<key>``, with a checksum; they are never pickles, so nothing
    that another user of the server writes is run here.

    Parameters
    ----------
    url : str
        ``redis://[user:password@]host[:port][/number]``, ``rediss://…`` (TLS) or ``unix://path``.
    prefix : str
        What all keys begin with; ``clear`` removes those and no others.
    hmac_key : bytes, optional
        Secret to sign values with (SHA-256); with it, a value that is not signed by it counts as damaged. By default
        that of the settings (``TOOLKIT_CACHE_HMAC_KEY``).
    default_ttl_s : float, optional
        Seconds an entry lives when ``set`` does not say; for ever by default.
    timeout_s : float
        Seconds to wait for a connection, and for an answer.
    lease_s : float
        Seconds after which the lock of a process that died is free again; one that lives renews it in time.

    Raises
    ------
    ConfigError
        If the address can't be read, a number is zero or less, or the package ``redis`` is missing.
    CacheError
        From the methods, if the server can't be reached or refuses. A damaged entry is no error: it is a miss, reported and
        set aside for a day.

    Examples
    --------
    >>> RedisStore("redis://user:secret@cache.example:6379/2")
    RedisStore('redis://cache.example:6379/2')
    """

    name: CacheTier = "redis"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "toolkit",
        hmac_key: bytes | None = None,
        default_ttl_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        for name, value in (("default_ttl_s", default_ttl_s), ("timeout_s", timeout_s), ("lease_s", lease_s)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above zero, not {value!r}")
        self.shown_url, self._secrets = _read_url(url)
        if importlib.util.find_spec("redis") is None:
            raise ConfigError(f"the cache at {self.shown_url} needs an extra: pip install 'model-comparison-toolkit[redis]'")
        self._url = url
        self._prefix = f"{prefix}:v{SCHEMA_VERSION}"
        self._hmac_key = settings.cache_hmac_key() if hmac_key is None else hmac_key
        self._default_ttl_s = default_ttl_s
        self._timeout_s = timeout_s
        self._leases = _Leases(self._renew, lease_s)

    def __repr__(self) -> str:
        return f"RedisStore({self.shown_url!r})"

    def get(self, key: str) -> bytes | Miss:
        """Return the bytes under a key."""
        data: bytes | None = self._run(lambda: self._client.get(self._name("answer", key)))
        if data is None:
            return MISS
        value = self._opened(key, data)
        if value is None:
            self._set_aside(key)
            return MISS
        return value

    def set(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep bytes under a key, unless somebody who asked later has kept theirs."""
        if ttl_s is not None and not ttl_s > 0:
            raise ConfigError(f"ttl_s must be above zero, or None for no limit; not {ttl_s!r}")
        ttl_s = self._default_ttl_s if ttl_s is None else ttl_s
        names = [self._name("answer", key), self._name("fence")]
        arguments = [self._leases.fence(key), self._sealed(key, value), "" if ttl_s is None else math.ceil(ttl_s * 1000)]
        if not self._run(lambda: self._scripts.set(keys=names, args=arguments)):
            _log.debug("an answer is not kept in Redis: a later one is there already")

    def delete(self, key: str) -> bool:
        """Forget a key; say whether there was something to forget."""
        return bool(self._run(lambda: self._client.delete(self._name("answer", key))))

    def clear(self) -> None:
        """Forget everything under the prefix, and nothing else on the server."""
        for names in self._batches("answer", "damaged"):
            self._run(functools.partial(self._client.unlink, *names))

    def info(self) -> StoreInfo:
        """Return how full the store is. The server keeps no totals by prefix, so this walks: about a second for a million entries."""
        entries = size = 0
        for names in self._batches("answer"):
            sizes = [found for found in self._run(functools.partial(self._sizes, names)) if found]
            entries += len(sizes)
            size += sum(sizes)
        return StoreInfo(entries=entries, size_bytes=size)

    def guard(self, key: str) -> RedisGuard:
        """Return the lock of a key: of all processes on all machines that use this server, one at a time holds it."""
        return RedisGuard(self, key)

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        self._leases.stop()
        if "_client" in self.__dict__:
            self._run(self._client.close)

    @functools.cached_property
    def _client(self) -> Any:  # redis.Redis, whose package is imported on first use
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # Once more and at once: a connection of the pool may be from before the server was restarted.
        return redis.Redis.from_url(
            self._url, socket_timeout=self._timeout_s, socket_connect_timeout=self._timeout_s, retry=Retry(NoBackoff(), 1)
        )

    @functools.cached_property
    def _scripts(self) -> _Scripts:
        return _Scripts(*map(self._client.register_script, (_TAKE, _RENEW, _RELEASE, _SET)))

    def _run(self, work: Callable[[], T]) -> T:
        import redis

        try:
            return work()
        except (redis.RedisError, OSError, ValueError) as error:  # ValueError: an option in the address that redis-py does not know
            why = f"the Redis at {self.shown_url} can't be used: {self._scrubbed(error)}"
            raise CacheError(why) from None  # the original may show the password

    def _scrubbed(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text

    def _name(self, kind: str, key: str = "") -> str:
        return f"{self._prefix}:{kind}:{key}"

    def _batches(self, *kinds: str) -> Iterator[list[bytes]]:
        for kind in kinds:
            cursor = 0
            while True:
                pattern = f"{_literal(self._prefix)}:{kind}:*"
                cursor, names = self._run(lambda: self._client.scan(cursor, match=pattern, count=KEYS_AT_ONCE))  # noqa: B023 - called at once
                if names:
                    yield names
                if not cursor:
                    break

    def _sizes(self, names: list[bytes]) -> list[int]:
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.strlen(name)
            sizes: list[int] = pipeline.execute()
            return sizes

    def _sealed(self, key: str, value: bytes) -> bytes:
        return b"%08x %s\n%s" % (_checksum(key, value), self._signature(key, value), value)

    def _signature(self, key: str, value: bytes) -> bytes:
        if self._hmac_key is None:
            return b"-"
        # With the key: an answer to another question is signed too, and no answer to this one.
        return hmac.new(self._hmac_key, key.encode() + b"\n" + value, hashlib.sha256).hexdigest().encode()

    def _opened(self, key: str, data: bytes) -> bytes | None:
        seal = _ENVELOPE.match(data)
        if seal is None:
            return None
        value = data[seal.end() :]
        if int(seal[1], 16) != _checksum(key, value):
            return None
        if self._hmac_key is not None and not hmac.compare_digest(seal[2], self._signature(key, value)):
            return None
        return value

    def _set_aside(self, key: str) -> None:
        aside = self._name("damaged", key)
        _log.warning("the entry %s in the Redis at %s is damaged or not signed by us; it is set aside as %s", key, self.shown_url, aside)

        def move() -> None:
            with self._client.pipeline() as pipeline:
                pipeline.rename(self._name("answer", key), aside)
                pipeline.expire(aside, DAMAGED_FOR_S)
                pipeline.execute(raise_on_error=False)  # another reader may have been quicker

        self._run(move)

    def take_lease(self, key: str, token: str) -> bool:
        """Take the lock of a key if nobody has it, and keep it renewed until ``end_lease``."""
        names = [self._name("lock", key), self._name("fence")]
        fence = int(self._run(lambda: self._scripts.take(keys=names, args=[token, self._leases.length_ms])))
        if fence:
            self._leases.begin(key, token, fence)
        return fence > 0

    def end_lease(self, key: str, token: str) -> None:
        """Give the lock of a key back, if it is still ours."""
        self._leases.end(key)
        self._run(lambda: self._scripts.release(keys=[self._name("lock", key)], args=[token]))

    def _renew(self, key: str, token: str) -> None:
        self._run(lambda: self._scripts.renew(keys=[self._name("lock", key)], args=[token, self._leases.length_ms]))


class RedisGuard:
    """The lock of one key, for one caller."""

    __slots__ = ("_key", "_store", "_token")
    blocks = True

    def __init__(self, store: RedisStore, key: str) -> None:
        self._store = store
        self._key = key
        self._token: str | None = None

    def take(self) -> bool:
        """Take the lock if nobody has it.

        Raises
        ------
        CacheError
            If the server can't be reached.
        """
        self._token = os.urandom(16).hex()
        try:
            taken = self._store.take_lease(self._key, self._token)
        except CacheError:  # where the server has it all the same, it ends with its lease
            self._token = None
            raise
        if not taken:
            self._token = None
        return taken

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held.

        Raises
        ------
        CacheError
            If the server can't be reached; the lock then ends with its lease.
        """
        token, self._token = self._token, None
        if token is not None:
            self._store.end_lease(self._key, token)


class _Lease(NamedTuple):
    token: str
    fence: int


class _Leases:
    """The locks that this process holds on the server, renewed by one thread long before they end."""

    def __init__(self, renew: Callable[[str, str], None], length_s: float) -> None:
        self.length_ms = math.ceil(length_s * 1000)
        self._renew = renew
        self._every_s = length_s / 3
        self._held: dict[str, _Lease] = {}
        self._begin_anew()
        _every_leases.add(self)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def fence(self, key: str) -> int:
        """Return the number of the lease that is held for a key, zero if there is none."""
        lease = self._held.get(key)
        return 0 if lease is None else lease.fence

    def begin(self, key: str, token: str, fence: int) -> None:
        self._held[key] = _Lease(token, fence)
        with self._lock:
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._keep, args=(self._stop,), name="toolkit-redis-leases", daemon=True)
                self._thread.start()

    def end(self, key: str) -> None:
        self._held.pop(key, None)

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None:
            thread.join()

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self._every_s):
            with self._lock:
                if not self._held:
                    self._thread = None  # the next lease starts another
                    return
            for key, lease in list(self._held.items()):
                try:
                    self._renew(key, lease.token)
                except CacheError as error:  # the tier's breaker reports a server that is down; here the next round tries again
                    _log.debug("a lock could not be renewed: %s", error)

    def after_fork(self) -> None:
        self._held = {}
        self._begin_anew()


def _read_url(url: str) -> tuple[str, list[str]]:
    """Return an address without what is secret in it, and what that is."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise ConfigError("the address of the shared cache can't be read; it looks like redis://host:6379/0") from None
    if parts.scheme not in SCHEMES or not (parts.hostname or parts.path.strip("/")):
        raise ConfigError("the address of the shared cache begins with redis://, rediss:// or unix:// and names a host or a socket")
    hidden = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if name == "password")]
    secrets = {secret for each in hidden if each for secret in (each, unquote(each))}
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}", sorted(secrets, key=len, reverse=True)


def _literal(text: str) -> str:
    """Return a text as a pattern of Redis that matches nothing else."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _checksum(key: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key.encode()))  # with the key: a value in the wrong place is damage too


_every_leases: weakref.WeakSet[_Leases] = weakref.WeakSet()


def _after_fork() -> None:
    for leases in list(_every_leases):
        leases.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
