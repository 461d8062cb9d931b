"""OpenRouter's prices: text, dollars per single token, changed by length, hour and discount; and the cost that an answer states."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from ..pricing import Price
from .reading import fields_of, number, objects

__all__ = ["positive", "price_at", "read_cost"]


def positive(value: Any) -> float | None:  # any JSON
    """A number that can be an amount; a negative one stands for "depends"."""
    found = number(value)
    return found if found is not None and found >= 0 else None


def read_cost(usage: Mapping[str, Any]) -> float | None:
    """The dollars of a call. With a key of one's own for the upstream, ``cost`` is only the fee; the upstream's bill comes on top."""
    cost = positive(usage.get("cost"))
    if cost is None or usage.get("is_byok") is not True:
        return cost
    bill = positive(fields_of(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if bill is None else cost + bill


def price_at(pricing: Any, prompt_tokens: int, at: float, date: str | None = None) -> Price | None:  # any JSON
    """Read a price as listed (text, dollars per single token) for a prompt of some length at some time (seconds since 1970).

    Unknown, not zero, where a rate is missing or negative (routers: "depends"), and where calls have a price of their own, which
    counts of tokens can't show.

    Examples
    --------
    >>> price = price_at({"prompt": "0.0000001", "completion": "0.0000005"}, 100, at=0.0)
    >>> price.input, price.output
    (0.1, 0.5)
    >>> price_at({"prompt": "-1", "completion": "-1"}, 100, at=0.0) is None
    True
    """
    if not isinstance(pricing, dict):
        return None
    rates, overrides = dict(pricing), objects(pricing.get("overrides"))
    if any("utc_days" in override for override in overrides):  # how days are written is not documented
        return None
    for override in overrides:  # later ones win
        if applies(override, prompt_tokens, datetime.datetime.fromtimestamp(at, datetime.UTC)):
            rates |= override
    discount = positive(rates.get("discount")) or 0.0
    names = ("prompt", "completion", "input_cache_read", "internal_reasoning", "request")
    prompt, completion, cached, reasoning, call = (per_million(rates.get(name), discount) for name in names)
    if prompt is None or completion is None or call or discount > 1:
        return None  # a rate of nothing for thoughts means that they cost what the answer does
    return Price(input=prompt, output=completion, cached_input=cached, reasoning=reasoning or None, date=date)


def per_million(text: Any, discount: float) -> float | None:  # any JSON
    """Dollars per million tokens of a rate per token; through text, so that 0.0000001 is 0.1 and not nearly."""
    try:
        rate = Decimal(str(text))
    except InvalidOperation:
        return None
    return float(rate * 1_000_000 * (1 - Decimal(str(discount)))) if rate.is_finite() and rate >= 0 else None


def applies(override: Mapping[str, Any], prompt_tokens: int, at: datetime.datetime) -> bool:
    """Whether all conditions of an override hold."""
    least = number(override.get("min_prompt_tokens"))
    if least is not None and not prompt_tokens > least:
        return False
    start, end = number(override.get("utc_start")), number(override.get("utc_end"))
    if start is None or end is None:
        return True
    now = at.hour * 100 + at.minute  # the bounds are written like 2230
    return start <= now < end if start <= end else now >= start or now < end
