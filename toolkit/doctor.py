"""Whether each provider can be used, and what is missing where it can't: what `toolkit doctor` and ``tk.setup()`` find out by asking."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from . import settings
from .client import Client, Unwell
from .hints import next_step
from .providers.base import Provider
from .providers.registry import known_providers, provider_class
from .types import Health

__all__ = ["Finding", "address_variable", "examine", "is_here"]

UNREACHABLE = ("ProviderTimeoutError", "UnreachableError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known about a provider right now; ``None`` where an earlier trouble hides it.

    Attributes
    ----------
    configured : bool
        Whether there is all it needs to be asked: address, key, packages.
    reachable : bool or None
        Whether somebody answers at its address.
    allowed : bool or None
        Whether it lets us in.
    ok : bool
        Whether it can be used.
    latency_s : float or None
        Seconds it took to find out.
    detail, next_step : str
        What it said, and what to do; empty where nothing is to be done.
    """

    provider: str
    configured: bool
    reachable: bool | None
    allowed: bool | None
    ok: bool
    latency_s: float | None
    detail: str
    next_step: str


def examine(client: Client, providers: Sequence[str] = ()) -> list[Finding]:
    """Ask all providers (or those named) at once how they are.

    Raises
    ------
    ConfigError
        For a name that no provider has.

    Examples
    --------
    >>> [found] = examine(Client(cache=False, journal=False), ["scripted"])
    >>> found.configured, found.reachable, found.allowed, found.next_step
    (True, True, True, '')
    """
    names = list(providers) or known_providers()
    for name in names:
        provider_class(name)  # a misspelt name is not a provider that is not configured

    def look(name: str) -> Finding:
        health = client.health_check(name)
        assert isinstance(health, Health)
        return finding(health)

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(look, names))


def finding(health: Health) -> Finding:
    error = health.error_type if isinstance(health, Unwell) else ""
    reachable = error not in UNREACHABLE if health.configured else None
    allowed = None if not reachable else False if error == "AuthError" else True if health.ok else None
    return Finding(
        provider=health.provider,
        configured=health.configured,
        reachable=reachable,
        allowed=allowed,
        ok=health.ok,
        latency_s=health.latency_s,
        detail=health.detail,
        next_step=advice(health, error),
    )


def advice(health: Health, error: str) -> str:
    """What to do; where something is not configured, the detail has said it."""
    if health.ok:
        return ""
    if not health.configured:
        return health.detail
    kind = provider_class(health.provider)
    if error in UNREACHABLE:
        address = f" or set {kind.url_vars[0]} to where it is" if kind.url_vars else ""
        return f"start the server,{address}" if is_here(kind) else f"check the network and its proxy,{address}"
    if error == "AuthError" and kind.key_var:
        return f"put a key that is let in into {kind.key_var}"
    return next_step(error) if error else f"look at what it says; if the address is wrong, set {' or '.join(kind.url_vars)}"


def is_here(kind: type[Provider]) -> bool:
    """Whether a provider runs in this process or on this machine, as far as its address tells."""
    variable = address_variable(kind)
    given = settings.variable(variable) if variable else getattr(kind, "base_url", None)  # some have none of their own
    host = urlsplit(kind.read_address(given) if given else "").hostname or ""
    return settings.is_loopback(host) or host.endswith(".invalid")  # the address of what runs in this process


def address_variable(kind: type[Provider]) -> str | None:
    """The variable that says where a provider is, if one is set."""
    return next((each for each in kind.url_vars if settings.variable(each)), None)
