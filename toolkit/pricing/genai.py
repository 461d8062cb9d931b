"""The prices of the package ``genai-prices`` as plain rows: the form of the table that is shipped here.

Its own look-up goes by patterns, so a new model can get the price of an old one whose name begins alike, without any sign. Only the names
that it spells out are taken here. Left out: what is not billed by tokens of text and pictures, and what costs more at some hours of a day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

__all__ = ["LISTS", "read_lists"]

LISTS = (
    "azure", "cohere", "google", "huggingface_cerebras", "huggingface_fireworks-ai", "huggingface_groq", "huggingface_hyperbolic",
    "huggingface_nebius", "huggingface_novita", "huggingface_nscale", "huggingface_ovhcloud", "huggingface_publicai",
    "huggingface_sambanova", "huggingface_together", "openai",
)  # fmt: skip
"""The price lists that our providers need, by the package's names."""

RATES = {"input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok", "image_output": "output_image_mtok"}
NOT_TEXT = re.compile(r"\b(audio|live|realtime|transcribe|tts)\b")  # some are listed with the rates of their text alone
OTHER_UNITS = ("audio_hours", "input_audio_hours", "input_image_mtok", "input_mchars", "output_audio_mtok", "output_video_mtok")

Rows = dict[str, Any]  # JSON: a name to its history, or to the name that has it


def read_lists() -> dict[str, Rows]:
    """Read the lists from the installed package (half a second, most of it the import).

    Raises
    ------
    ImportError
        If it is not installed.
    """
    from genai_prices.data_snapshot import get_snapshot

    return {provider.id: read_rows(provider.models) for provider in get_snapshot().providers if provider.id in LISTS}


def read_rows(models: Any) -> Rows:  # genai_prices.types.ModelInfo
    rows: Rows = {}
    for model in models:
        history = read_history(model.prices)
        elsewhere = model.id.startswith("claude")  # at Google: not the dialect of our provider
        if history is not None and not elsewhere and not NOT_TEXT.search(model.id):
            rows |= {name: model.id.lower() for name in exact_names(model.match) if name not in rows}
            rows[model.id.lower()] = history
    return rows


def exact_names(clause: Any) -> Iterator[str]:  # genai_prices.types.MatchLogic
    """The names that a pattern spells out."""
    if hasattr(clause, "equals"):
        yield clause.equals.lower()
    for part in getattr(clause, "or_", ()):
        yield from exact_names(part)


def read_history(prices: Any) -> list[list[Any]] | None:  # ModelPrice, or a list of ConditionalPrice
    """The first day of each price (empty for "always") and its rates, the oldest first; ``None`` where a row can't say it."""
    history = []
    for entry in prices if isinstance(prices, list) else [prices]:
        constraint = getattr(entry, "constraint", None)
        rates = read_rates(getattr(entry, "prices", entry))
        if rates is None or (constraint is not None and not hasattr(constraint, "start_date")):
            return None
        history.append(["" if constraint is None else constraint.start_date.isoformat(), rates])
    return sorted(history, key=lambda step: str(step[0])) or None


def read_rates(price: Any) -> dict[str, Any] | None:  # ModelPrice
    """The fields of a ``Price``."""
    found = {ours: getattr(price, theirs, None) for ours, theirs in RATES.items()}
    if found["input"] is None or found["output"] is None or any(getattr(price, unit, None) is not None for unit in OTHER_UNITS):
        return None
    limits = sorted({tier.start for rate in found.values() for tier in getattr(rate, "tiers", ())})
    above = [[limit, rates_at(found, limit + 1)] for limit in limits]
    return rates_at(found, 0) | ({"above": above} if above else {})


def rates_at(rates: dict[str, Any], input_tokens: int) -> dict[str, float]:
    return {name: rate_at(rate, input_tokens) for name, rate in rates.items() if rate is not None}


def rate_at(rate: Any, input_tokens: int) -> float:  # Decimal or TieredPrices
    """One rate; the noise of the binary floats that some were made of (1.0399999999999998) is rounded away."""
    if hasattr(rate, "tiers"):
        reached = [tier.price for tier in rate.tiers if input_tokens > tier.start]  # they are sorted
        rate = reached[-1] if reached else rate.base
    return float(round(Decimal(rate), 9))
