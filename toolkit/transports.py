"""Connections: one transport per thread, one or a few per event loop.

The driver hands requests to an httpx *transport*, not to ``httpx.Client``: redirects, cookies, auth and hooks, which a model call
needs none of, cost a third. What ``httpx.Client`` takes from the environment is kept: proxies and certificate settings.

The default transport is our own (``wire/sockets.py``, ``wire/loop_sockets.py``); through a proxy, or on request, it is httpx's. A pool of
httpx shared by 64 threads gave phantom ``ReadError: Bad file descriptor`` about once in 5,000 calls, so each thread has its own; its
asyncio pool gets slow by the square of its connections, so a loop has several of at most 16.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from . import settings
from .errors import ConfigError
from .wire.loop_sockets import LoopSocketTransport
from .wire.sockets import Origin, SocketTransport, origin_of

__all__ = ["AsyncTransports", "LoopTransport", "ThreadTransport", "ThreadTransports", "TransportChoice", "loop_factory", "origin_of"]

TransportChoice = Literal["own", "httpx", "fast"] | Callable[[], Any]
"""``"own"``, ``"httpx"``, ``"fast"`` (the extra ``fast``), or a callable that makes an httpx transport (sync or async, as the client is)."""

POOL_SIZE = 16
Address = tuple[str, str]


class TLS:
    """Certificates are read once (10 to 20 ms), and only when the first https address is asked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        with self.lock:
            if self._context is None:
                self._context = httpx.create_ssl_context()
            return self._context


class Routes:
    """Where requests may go and through which proxy."""

    def __init__(self) -> None:
        self.tls = TLS()
        self.offline = settings.offline()
        self._proxies: dict[Address, str | None] = {}
        self._fast_client: Any = None  # a Rust client, which threads may share
        self.forked = False
        ROUTES.add(self)

    def begin_afresh(self) -> None:
        """Forget, in a forked child, what belongs to its parent: on the parent's connections it would get the parent's answers."""
        self.tls.lock = threading.Lock()
        self.forked = True  # the threads of the Rust client are the parent's too, and its memory can't do without them

    def fast_client(self) -> Any:
        """Return the client that all threads' ``fast`` transports share: making one costs 10 ms."""
        with self.tls.lock:
            if self._fast_client is None:
                self._fast_client = fast_transports().SyncClientBuilder().build()
            return self._fast_client

    def proxy(self, url: httpx.URL) -> str | None:
        """Return the proxy for an address; raise where it may not be asked at all."""
        if self.offline and not settings.is_loopback(url.host):
            raise ConfigError(f"TOOLKIT_OFFLINE=1 refuses {url.host}: it is not this machine; unset it to go online")
        address = (url.scheme, url.host)
        if address not in self._proxies:
            self._proxies[address] = settings.proxy_for(*address)
        return self._proxies[address]


ROUTES: weakref.WeakSet[Routes] = weakref.WeakSet()

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain http: making a transport without it would read the certificates."""


def make_sync(choice: TransportChoice, routes: Routes, url: httpx.URL, proxy: str | None) -> httpx.BaseTransport:
    if callable(choice):
        made = choice()
        assert isinstance(made, httpx.BaseTransport), "transport= must make an httpx.BaseTransport"
        return made
    if choice == "fast" and proxy is None and not routes.forked:
        return fast_transports().SyncHttpxTransport(routes.fast_client(), close_client=False)  # type: ignore[no-any-return]
    if choice in ("own", "fast") and proxy is None:
        return SocketTransport(routes.tls.context)
    verify = routes.tls.context() if url.scheme == "https" or proxy else NO_TLS
    return httpx.HTTPTransport(verify=verify, proxy=proxy)


def make_async(choice: TransportChoice, routes: Routes, url: httpx.URL, proxy: str | None) -> httpx.AsyncBaseTransport:
    if callable(choice):
        made = choice()
        assert isinstance(made, httpx.AsyncBaseTransport), "transport= must make an httpx.AsyncBaseTransport"
        return made
    # Not the Rust one for "fast": each exchange crosses to its threads and back, which costs half as much again.
    if choice in ("own", "fast") and proxy is None:
        return LoopSocketTransport(routes.tls.context)
    verify = routes.tls.context() if url.scheme == "https" or proxy else NO_TLS
    limits = httpx.Limits(max_connections=POOL_SIZE, max_keepalive_connections=POOL_SIZE)
    return httpx.AsyncHTTPTransport(verify=verify, proxy=proxy, limits=limits)


def loop_factory(choice: TransportChoice) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes an event loop of our own, ``None`` for asyncio's: uvloop's costs a call less, where there is one."""
    if choice != "fast":
        return None
    try:
        import uvloop
    except ImportError:  # not on Windows
        return None
    return uvloop.new_event_loop


def fast_transports() -> Any:  # a module without types
    try:
        from pyreqwest.compatibility.httpx import transport
    except ImportError as exc:
        raise ConfigError("transport='fast' needs the extra: pip install 'model-comparison-toolkit[fast]'") from exc
    return transport


@dataclass(slots=True)
class ThreadTransport:
    """A transport and the servers it has spoken to: only on a connection used before can a failure be a stale one."""

    transport: httpx.BaseTransport
    used: set[Origin] = field(default_factory=set)


class ThreadTransports:
    """Transports for threads: each thread has one per scheme and proxy, closed when the thread or the client ends."""

    def __init__(self, choice: TransportChoice = "own") -> None:
        self.routes = Routes()
        self.choice = choice
        self._mine = threading.local()
        self._all: weakref.WeakSet[httpx.BaseTransport] = weakref.WeakSet()
        THREADED.add(self)

    def begin_afresh(self) -> None:
        """Forget the connections of the parent, in a forked child."""
        self._mine = threading.local()
        self._all = weakref.WeakSet()

    def get(self, url: httpx.URL, *, stream: bool = False, fresh: bool = False) -> ThreadTransport:
        """Return this thread's transport for an address; ``fresh`` replaces it by one without old connections."""
        proxy, choice = self.routes.proxy(url), self.choice
        if choice == "fast" and stream:  # the Rust one gives a body in large pieces: the first token would come with the last
            choice = "own"
        held: dict[tuple[str, str | None, TransportChoice], ThreadTransport] = self._mine.__dict__.setdefault("held", {})
        found = held.get((url.scheme, proxy, choice))
        if found is None or fresh:
            found = held[(url.scheme, proxy, choice)] = ThreadTransport(make_sync(choice, self.routes, url, proxy))
            self._all.add(found.transport)
        return found

    def close(self) -> None:
        """Close the transports of all threads; a later call opens new ones."""
        self._mine = threading.local()
        for transport in list(self._all):
            transport.close()


@dataclass(slots=True)
class LoopTransport:
    """A pool of an event loop, the servers it has spoken to, and how many calls use it."""

    transport: httpx.AsyncBaseTransport
    used: set[Origin] = field(default_factory=set)
    in_flight: int = 0


class AsyncTransports:
    """Transports for event loops: as many small pools as the calls under way need."""

    def __init__(self, choice: TransportChoice = "own") -> None:
        self.routes = Routes()
        self._choice = choice
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], list[LoopTransport]]]
        self._loops = weakref.WeakKeyDictionary()

    def take(self, url: httpx.URL) -> LoopTransport:
        """Take a place in a pool of the running loop; give it back with ``give_back``."""
        proxy, pools = self._pools(url)
        pool = next((pool for pool in pools if pool.in_flight < POOL_SIZE), None)
        if pool is None:
            pool = LoopTransport(make_async(self._choice, self.routes, url, proxy))
            pools.append(pool)
        pool.in_flight += 1
        return pool

    def replace(self, url: httpx.URL) -> tuple[LoopTransport, list[LoopTransport]]:
        """Take a place in a pool without old connections; return it with the pools that nobody uses, which are to be closed.

        Their connections may be as old as the one that failed; kept, a pool would be left behind by each server that drops one.
        """
        proxy, pools = self._pools(url)
        new = LoopTransport(make_async(self._choice, self.routes, url, proxy), in_flight=1)
        unused = [pool for pool in pools if not pool.in_flight]
        pools[:] = [new, *(pool for pool in pools if pool.in_flight)]
        return new, unused

    def _pools(self, url: httpx.URL) -> tuple[str | None, list[LoopTransport]]:
        """The proxy to an address, and the running loop's pools for it."""
        proxy = self.routes.proxy(url)
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._forget_ended()
        return proxy, self._loops.setdefault(loop, {}).setdefault((url.scheme, proxy), [])

    def _forget_ended(self) -> None:
        """Let go of the connections of loops that are closed; each holds on to its loop, so they would stay for ever."""
        for loop in [loop for loop in self._loops if loop.is_closed()]:
            del self._loops[loop]

    @staticmethod
    def give_back(pool: LoopTransport) -> None:
        pool.in_flight -= 1

    async def aclose(self) -> None:
        """Close the pools of the running loop, and let go of those of loops that have ended."""
        self._forget_ended()
        for pools in self._loops.pop(asyncio.get_running_loop(), {}).values():
            for pool in pools:
                await pool.transport.aclose()


THREADED: weakref.WeakSet[ThreadTransports] = weakref.WeakSet()


def _begin_afresh() -> None:
    for routes in list(ROUTES):
        routes.begin_afresh()
    for transports in list(THREADED):
        transports.begin_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_afresh)
