"""A price per million tokens, and the arithmetic of a call's cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..render import Shown
from ..types import Usage

__all__ = ["LOCAL", "Price", "at_standard_rates", "cost_of"]

STANDARD_TIERS = ("", "auto", "default", "standard", "on_demand")
"""Of service tiers, in all services' words; ``auto`` and nothing leave open which it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Shown):
    """US dollars per million tokens, and the day they were valid.

    Parameters
    ----------
    input, output : float
        Of what is sent and of what comes back.
    cached_input : float, optional
        Of input tokens that came from the service's own cache; by default they cost ``input``.
    reasoning : float, optional
        Of the output tokens that were thoughts; by default they cost ``output``.
    image_output : float, optional
        Of the output tokens that are pictures. A cost is unknown then unless their count is.
    above : tuple of (int, Price)
        Prices of long calls: with more input tokens than the number, *all* tokens of the call cost what that price says.
    date : str, optional
        The day the price was valid, and its source where that is not the caller; ``completion.price_date`` shows it.

    Examples
    --------
    >>> Price(input=1.25, output=10.0, above=((200_000, Price(input=2.5, output=15.0)),)).at(200_001).input
    2.5
    """

    input: float
    output: float
    cached_input: float | None = None
    reasoning: float | None = None
    image_output: float | None = None
    above: tuple[tuple[int, Price], ...] = ()
    date: str | None = None

    def at(self, input_tokens: int) -> Price:
        """Return the price of a call by its length."""
        return max((step for step in self.above if input_tokens > step[0]), key=lambda step: step[0], default=(0, self))[1]


LOCAL = Price(input=0.0, output=0.0, date="local")
"""Of a model on the caller's own machine: nobody sends a bill. What its electricity costs is not counted."""


def cost_of(usage: Usage, price: Price, *, image_output_tokens: int | None = None) -> float | None:
    """Return the dollars that a usage costs; ``None`` where its counts are missing or contradict each other.

    Examples
    --------
    >>> cost_of(Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=800), Price(input=2.5, output=10.0, cached_input=1.25))
    0.0025
    """
    if price.input == price.output == 0 and not price.above and price.image_output is None:
        return 0.0
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    price = price.at(usage.input_tokens)
    if price.image_output is not None and image_output_tokens is None:
        return None
    asked = split_cost(usage.input_tokens, price.input, (usage.cached_input_tokens, price.cached_input))
    answered = split_cost(
        usage.output_tokens, price.output, (usage.reasoning_tokens, price.reasoning), (image_output_tokens, price.image_output)
    )
    return None if asked is None or answered is None else (asked + answered) / 1e6


def split_cost(total: int, rate: float, *parts: tuple[int | None, float | None]) -> float | None:
    """Tokens times their rates, where some of them have a rate of their own; ``None`` where the parts are more than the whole."""
    rest, cost = total, 0.0
    for tokens, own_rate in parts:
        rest -= tokens or 0
        cost += (tokens or 0) * (rate if own_rate is None else own_rate)
    return None if rest < 0 else cost + rest * rate


def at_standard_rates(reported: Mapping[str, float | str]) -> bool:
    """Whether an answer's ``reported`` names no service tier (flex, priority, batch, ...) whose prices the lists don't hold.

    Examples
    --------
    >>> at_standard_rates({"service_tier": "default"}), at_standard_rates({"traffic_type": "ON_DEMAND_FLEX"})
    (True, False)
    """
    return all(str(reported.get(name, "")).lower() in STANDARD_TIERS for name in ("service_tier", "traffic_type"))
