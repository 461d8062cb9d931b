"""Settings: the only reader of environment variables.

======================  =========================================================================================
TOOLKIT_HOME            folder for journal, cache and trained models; default: the platform's user data folder
TOOLKIT_JOURNAL         path of the journal (SQLite), default ``$TOOLKIT_HOME/journal.sqlite``; or ``postgresql://…``
TOOLKIT_CACHE           folder of the answer cache, default ``$TOOLKIT_HOME/cache``; or ``redis://…``: a Redis below that folder
TOOLKIT_CACHE_HMAC_KEY  secret that answers in Redis are signed with; what is not signed with it is not believed
TOOLKIT_RECORD_CONTENT  ``1`` (default) keeps prompts and answers in the journal, ``0`` only their hashes and sizes
TOOLKIT_JOURNAL_LEVEL   from which level on the logger's entries go to the journal: ``INFO`` (default), another level, or ``OFF``
TOOLKIT_ALERTS          file of alert rules (TOML); default ``$TOOLKIT_HOME/alerts.toml``
TOOLKIT_OFFLINE         ``1`` refuses every address that is not loopback
TOOLKIT_EXPORTERS       where else calls and errors are sent: ``otel``, ``sentry``, ``prometheus``, with commas between; default nowhere
TOOLKIT_METRICS_PORT    port of 127.0.0.1 that Prometheus reads ``/metrics`` from, default 9464
======================  =========================================================================================

Each provider's conventional variables (keys, base URLs) are named in the provider's class and read here too.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from .errors import ConfigError

__all__ = [
    "alerts_file",
    "cache_folder",
    "cache_hmac_key",
    "cache_url",
    "capture_content",
    "check_online",
    "exporters",
    "home",
    "in_ci",
    "is_loopback",
    "journal_level",
    "journal_url",
    "metrics_port",
    "offline",
    "proxy_for",
    "record_content",
    "variable",
]

APP = "model-comparison-toolkit"


def variable(name: str) -> str | None:
    """Return an environment variable, or ``None`` where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def home() -> Path:
    """Return the toolkit's folder; it is made on first use and only its owner can look into it.

    Raises
    ------
    ConfigError
        If the folder can't be made.
    """
    chosen = variable("TOOLKIT_HOME")
    return private_folder(Path(chosen).expanduser() if chosen else platform_home())


def platform_home() -> Path:
    from platformdirs import user_data_path  # 40 ms, and not needed where TOOLKIT_HOME is set

    return user_data_path(APP, appauthor=False)


def private_folder(path: Path) -> Path:
    """Make a folder with mode 0700 (its parents too) and return it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"can't make the folder {path} ({exc.strerror}); set TOOLKIT_HOME to one you can write to") from exc
    return path


def journal_url() -> str:
    """Return where the journal is: ``TOOLKIT_JOURNAL``, or a file in ``home()``."""
    return variable("TOOLKIT_JOURNAL") or str(home() / "journal.sqlite")


def journal_level() -> str:
    """Return the lowest level of what the logger writes to the journal, or ``OFF``: ``TOOLKIT_JOURNAL_LEVEL``."""
    return (variable("TOOLKIT_JOURNAL_LEVEL") or "INFO").upper()


def alerts_file() -> Path:
    """Return where alert rules are looked for: ``TOOLKIT_ALERTS``, or a file in ``home()``; it need not exist."""
    chosen = variable("TOOLKIT_ALERTS")
    return Path(chosen).expanduser() if chosen else home() / "alerts.toml"


def cache_folder() -> Path:
    """Return the folder of the answer cache: ``TOOLKIT_CACHE``, or one in ``home()``."""
    chosen = variable("TOOLKIT_CACHE")
    return private_folder(Path(chosen).expanduser() if chosen and "://" not in chosen else home() / "cache")


def cache_url() -> str | None:
    """Return the address of the cache that machines share, where ``TOOLKIT_CACHE`` is one."""
    chosen = variable("TOOLKIT_CACHE")
    return chosen if chosen and "://" in chosen else None


def cache_hmac_key() -> bytes | None:
    """Return the secret that answers in a shared cache are signed with."""
    secret = variable("TOOLKIT_CACHE_HMAC_KEY")
    return None if secret is None else secret.encode()


def record_content() -> bool:
    """Whether prompts and answers are kept in the journal."""
    return variable("TOOLKIT_RECORD_CONTENT") != "0"


def offline() -> bool:
    """Whether only loopback addresses may be asked."""
    return variable("TOOLKIT_OFFLINE") == "1"


def capture_content() -> bool:
    """Whether exported spans have prompts and answers, by OpenTelemetry's own variable for it."""
    chosen = variable("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT") or "NO_CONTENT"
    return chosen.upper() in ("SPAN_ONLY", "SPAN_AND_EVENT")


def check_online(url: str, what: str) -> None:
    """Refuse an address beyond this machine where ``TOOLKIT_OFFLINE`` is set.

    Raises
    ------
    ConfigError
    """
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    if offline() and not is_loopback(host):
        raise ConfigError(f"{what} is at {host}, and TOOLKIT_OFFLINE=1 refuses what is not on this machine")


def exporters() -> tuple[str, ...]:
    """Return the names of the exporters to switch on: ``TOOLKIT_EXPORTERS``."""
    return tuple(filter(None, (name.strip().lower() for name in (variable("TOOLKIT_EXPORTERS") or "").split(","))))


def metrics_port() -> int:
    """Return the port that ``/metrics`` is served on.

    Raises
    ------
    ConfigError
        If ``TOOLKIT_METRICS_PORT`` is no port.
    """
    chosen = variable("TOOLKIT_METRICS_PORT") or "9464"
    if not chosen.isdecimal() or int(chosen) > 65_535:
        raise ConfigError(f"TOOLKIT_METRICS_PORT={chosen!r} is no port; give a number up to 65535, 0 for any free one")
    return int(chosen)


def in_ci() -> bool:
    """Whether a CI service runs us: no progress bars then."""
    return variable("CI") is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host in ("localhost", "") or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for an address, ``None`` for a direct connection."""
    if is_loopback(host):
        return None
    import urllib.request  # 30 ms, and a local model never needs it

    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(scheme) or proxies.get("all")
