"""Where prices come from: the caller's own table, the package ``genai-prices`` where it is installed, the table shipped here.

A name is looked up as it is written, never by its beginning: a price of a neighbour would be wrong without any sign. One rule is softer, and
its use is told in ``price_date``: a name that is not listed, and ends in a date or a version (``-2024-08-06``, ``-20240806``, ``-08-2024``,
``-001``), costs what the name without it costs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from .price import Price

__all__ = ["PriceBook", "load_lists", "price_in", "price_sources"]

TABLE = Path(__file__).with_name("table.json")
VERSION_ENDING = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{8}|00\d)$")

LISTS = {
    "azure": ("azure", "openai"),  # what Azure's own list leaves out costs what OpenAI asks
    "cohere": ("cohere",),
    "vertex": ("google",),  # prices of the global endpoint
}
"""Our providers' names to the lists that hold their prices, the first that knows a model counts.

Not OpenRouter, which states the cost of each answer. Hugging Face looks into the list of the route that served, after its own.
"""


@dataclass(frozen=True, slots=True)
class Source:
    """Price lists by name, each a mapping from a model's exact name to its prices since when, or to the name that has them."""

    lists: Mapping[str, Mapping[str, Any]]  # JSON: see genai.py
    label: Callable[[str], str]  # a day (2026-11-23) to what ``price_date`` says

    def find(self, list_name: str, model: str, day: str) -> Price | None:
        """Return the price of an exact name on a day."""
        rows = self.lists.get(list_name, {})
        history = rows.get(model)
        if isinstance(history, str):
            history = rows[history]
        valid = [rates for since, rates in history or () if since <= day]
        return read_price(valid[-1], self.label(day)) if valid else None


class SourceInfo(NamedTuple):
    """A source of prices: its name, and how many models it prices."""

    name: str
    models: int


def read_price(rates: Mapping[str, Any], date: str) -> Price:  # JSON
    above = tuple((limit, Price(**longer, date=date)) for limit, longer in rates.get("above", ()))
    return Price(**{**rates, "above": above}, date=date)


class PriceBook:
    """Prices by a model's full name: the caller's own, else those of the lists for the day of the look-up.

    Examples
    --------
    >>> book = PriceBook({"azure/my-deployment": Price(input=2.0, output=8.0)})
    >>> book("azure/my-deployment").output, book("azure/a-name-of-nobody")
    (8.0, None)
    """

    def __init__(self, own: Mapping[str, Price] | None = None, *, wall: Callable[[], float] = time.time) -> None:
        self.own = dict(own or {})
        self.wall = wall

    def __call__(self, model: str) -> Price | None:
        return self.own.get(model) or self.listed(model)

    def listed(self, model: str) -> Price | None:
        """Return what the lists say, whatever the caller's own table does."""
        provider, _, name = model.partition("/")
        for list_name in LISTS.get(provider, ()):
            found = price_in(list_name, name, self.wall())
            if found is not None:
                return found
        return None


def price_in(list_name: str, model: str, at: float) -> Price | None:
    """Return the price of a model in a list at a time (seconds since 1970); ``None`` where it is not listed."""
    return look_up(list_name, model, int(at // 86_400))


@lru_cache(maxsize=4096)
def look_up(list_name: str, model: str, day: int) -> Price | None:
    """Find a price once for each model and day."""
    name, date = model.lower(), time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
    undated = VERSION_ENDING.sub("", name)
    for source in sources():
        found = source.find(list_name, name, date)
        if found is None and undated != name:
            found = source.find(list_name, undated, date)
            found = None if found is None else noted(found, f"as {undated}")
        if found is not None:
            return found
    return None


def noted(price: Price, note: str) -> Price:
    """The same price, with a note beside its date."""
    above = tuple((limit, noted(longer, note)) for limit, longer in price.above)
    return replace(price, above=above, date=f"{str(price.date).removesuffix(')')}, {note})")


@cache
def sources() -> tuple[Source, ...]:
    """All sources of lists, the one to believe first."""
    table = json.loads(TABLE.read_text("utf-8"))
    date = f"{table['as_of']} ({table['source']})"
    newer = installed(table["source"])
    return (*([newer] if newer else ()), Source(table["lists"], lambda _day: date))


def installed(shipped: str) -> Source | None:
    """The package ``genai-prices``, where it is installed and is not the version that the shipped table repeats: its import takes long."""
    from .genai import read_lists

    try:
        name = f"genai-prices {version('genai-prices')}"
        lists = {} if name == shipped else read_lists()
    except (PackageNotFoundError, ImportError, AttributeError):  # it is a beta: its insides may move
        return None
    return Source(lists, lambda day: f"{day} ({name})") if lists else None


def load_lists(provider: str) -> None:
    """Load the lists that a provider needs, if any: before its calls, so that no call's time holds it."""
    if provider in (*LISTS, "huggingface", "openai_compatible"):
        sources()


def price_sources() -> list[SourceInfo]:
    """Return where prices come from, the source to believe first: for `toolkit doctor`."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return [SourceInfo(source.label(today), sum(map(len, source.lists.values()))) for source in sources()]
