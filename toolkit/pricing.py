"""What a call costs: prices per million tokens, and the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from .render import Shown
from .types import Usage

__all__ = ["Price", "cost_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Shown):
    """US dollars per million tokens, and the day they were valid.

    Cached input tokens cost ``cached_input`` (``input`` where that is None); reasoning tokens cost ``output``.
    """

    input: float
    output: float
    cached_input: float | None = None
    date: str | None = None


def cost_of(usage: Usage, price: Price) -> float | None:
    """Return the dollars that a usage costs; ``None`` where the counts are unknown.

    Examples
    --------
    >>> cost_of(Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=800), Price(input=2.5, output=10.0, cached_input=1.25))
    0.0025
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
    cached_price = price.input if price.cached_input is None else price.cached_input
    million = (usage.input_tokens - cached) * price.input + cached * cached_price + usage.output_tokens * price.output
    return million / 1e6
