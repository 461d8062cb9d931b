"""What is set up on this machine: providers and keys, places and sizes, prices, versions, extras; and what to do about what is missing."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from . import __version__, settings
from .client import Client
from .doctor import Finding, address_variable, examine, is_here
from .monitor.redaction import redact_text
from .pricing import price_sources
from .providers.registry import known_providers, provider_class
from .render import Shown, html_page, html_table, size, text_table

__all__ = ["EXTRAS", "Place", "ProviderState", "Setup", "read_places", "read_setup"]

EXTRAS = {
    "notebook": ("ipywidgets", "anywidget", "jupyterlab", "plotly"),
    "dashboard": ("streamlit", "plotly", "polars"),
    "fast": ("orjson", "pyreqwest"),
    "redis": ("redis",),
    "postgres": ("psycopg",),
    "otel": ("opentelemetry.sdk",),
    "schema": ("pydantic",),
    "sentry": ("sentry_sdk",),
    "prometheus": ("prometheus_client",),
    "vertex": ("google.auth",),
    "dask": ("dask", "distributed"),
    "ray": ("ray",),
    "prices": ("genai_prices",),
}
"""Each extra's modules that tell whether it is installed."""

VERSIONS = ("httpx", "pandas", "numpy", "ipywidgets", "jupyterlab", "streamlit")

State = Literal["ready", "key present", "address set", "not set up", "does not answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState(Shown):
    """Whether a provider can be used, as far as can be said without asking a service on the web.

    Attributes
    ----------
    name : str
    state : str
        ``ready`` (it answered, or runs in this process), ``key present`` or ``address set`` (not asked), ``not set up``,
        ``does not answer``.
    detail : str
        What it is, or what it said. Never a key.
    next_step : str
        What to do where it can't be used.
    """

    name: str
    state: State
    detail: str
    next_step: str = ""

    @property
    def usable(self) -> bool:
        return self.state in ("ready", "key present", "address set")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(Shown):
    """Where something is kept; ``shown`` says it without the name of the user's home, ``size_bytes`` is None where it can't be told."""

    name: str
    where: str
    shown: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is set up; a notebook shows it as a card, ``print`` as tables.

    Attributes
    ----------
    providers : tuple of ProviderState
    places : tuple of Place
        Home, journal, and the tiers of the cache.
    prices : tuple of str
        The price tables with their dates, the one to believe first; empty where there is none.
    versions : tuple of (str, str)
        Of the toolkit, Python and what matters beside them.
    extras : tuple of (str, bool)
        Each extra, and whether it is installed.
    """

    providers: tuple[ProviderState, ...]
    places: tuple[Place, ...]
    prices: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    extras: tuple[tuple[str, bool], ...]

    @property
    def next_steps(self) -> list[str]:
        """What to do for what is missing, one sentence each."""
        missing = [name for name, there in self.extras if not there]
        steps = [f"{each.name}: {each.next_step}" for each in self.providers if not each.usable]
        return steps + [f"pip install 'model-comparison-toolkit[{name}]' for the extra {name}" for name in missing]

    def text(self) -> str:
        """Return the card as text."""
        return "\n\n".join(text_table(head, rows, right=False) for head, rows in self._tables())

    def _tables(self) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        missing = [name for name, there in self.extras if not there]
        facts: list[tuple[str, ...]] = [
            ("prices", "; ".join(self.prices) or "none: give tk.Client(prices={...})"),
            ("versions", ", ".join(f"{name} {number}" for name, number in self.versions)),
            ("extras", ", ".join(name for name, there in self.extras if there) or "none"),
            *([("more extras", f"pip install 'model-comparison-toolkit[{','.join(missing)}]'")] if missing else []),
        ]
        usable_first = sorted(self.providers, key=lambda each: not each.usable)
        return [
            (("provider", "state", "detail"), [(each.name, each.state, each.detail) for each in usable_first]),
            (("place", "where", "size"), [(place.name, place.shown, size(place.size_bytes)) for place in self.places]),
            (("also", ""), facts),
        ]

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        usable = sum(each.usable for each in self.providers)
        tables = [html_table(head, rows) for head, rows in self._tables()]
        return html_page(f"<b>{usable} of {len(self.providers)} providers can be used</b>", *tables)


def read_setup(client: Client, *, check: bool = False) -> Setup:
    """Look at everything. Only servers on this machine are asked, or with ``check`` every provider that is set up."""
    return Setup(
        providers=tuple(provider_states(client, check=check)),
        places=tuple(read_places(client)),
        prices=tuple(price_tables()),
        versions=(("toolkit", __version__), ("Python", platform.python_version()), *found_versions()),
        extras=tuple((name, all(map(is_there, modules))) for name, modules in EXTRAS.items()),
    )


def provider_states(client: Client, *, check: bool) -> Iterator[ProviderState]:
    """Ask those on this machine, and those that lack a key or an address, which say what to set and ask nobody; all with ``check``."""
    answered = {found.provider: found for found in examine(client, [name for name in known_providers() if check or not is_away(name)])}
    for name in known_providers():
        yield asked_state(answered[name]) if name in answered else unasked_state(name)


def is_away(name: str) -> bool:
    """Whether a provider is set up and somewhere on the web."""
    kind = provider_class(name)
    return bool(kind.find_key() or address_variable(kind)) and not is_here(kind)


def asked_state(found: Finding) -> ProviderState:
    state: State = "ready" if found.ok else "does not answer" if found.configured else "not set up"
    return ProviderState(name=found.provider, state=state, detail=found.detail, next_step=found.next_step)


def unasked_state(name: str) -> ProviderState:
    kind = provider_class(name)
    if kind.find_key():
        variables = kind.key_vars or filter(None, [kind.key_var])
        source = next((each for each in variables if settings.variable(each)), "its usual file")
        return ProviderState(name=name, state="key present", detail=f"from {source}; not asked")
    return ProviderState(name=name, state="address set", detail=f"by {address_variable(kind)}; not asked")


def read_places(client: Client) -> list[Place]:
    """Return where things are kept and how large they are."""
    home, journal = settings.home(), settings.journal_url()
    places = [place("home", str(home)), place("journal", journal, file_size(journal))]
    tiers = client.cache.stats().tiers if client.cache is not None else ()
    for tier in tiers:
        if tier.tier == "disk":
            places.append(place("cache", str(settings.cache_folder()), tier.size_bytes))
        elif tier.tier == "redis":
            places.append(place("shared cache", settings.cache_url() or "", tier.size_bytes))
    return places


def place(name: str, where: str, size_bytes: int | None = None) -> Place:
    return Place(name=name, where=redact_text(where), shown=shown_place(where), size_bytes=size_bytes)


def shown_place(where: str) -> str:
    """A path as it can stand in a published notebook, an address without its password.

    Examples
    --------
    >>> shown_place("postgresql://ann:secret@db.example/journal")
    'postgresql://db.example/journal'
    """
    if "://" in where:
        parts = urlsplit(where)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    path, chosen = Path(where), settings.variable("TOOLKIT_HOME")
    for folder, name in ((Path(chosen).expanduser() if chosen else None, "$TOOLKIT_HOME"), (Path.home(), "~")):
        if folder is not None and path.is_relative_to(folder):
            return str(Path(name) / path.relative_to(folder))
    return where


def file_size(where: str) -> int | None:
    """The bytes of a journal with what SQLite has beside it; None for a server's, 0 for one not begun."""
    if "://" in where:
        return None
    files = (Path(f"{where}{ending}") for ending in ("", "-wal", "-shm"))
    return sum(file.stat().st_size for file in files if file.exists())


def price_tables() -> list[str]:
    """The names and dates of the price tables at hand."""
    return [f"{source.name}, {source.models:,} models" for source in price_sources()]


def found_versions() -> list[tuple[str, str]]:
    found = []
    for name in VERSIONS:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
