"""What a comparison will cost, before the first call is paid for: from prices, the cache, and how long answers were before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..client import Client
from ..errors import JournalError
from ..monitor.journal import Journal
from ..pricing import Price
from ..render import escape, html_page, html_table, text_table, usd
from .grid import Plan, Variant

__all__ = ["CostEstimate", "ModelCost", "estimate"]

RECENT_ROWS = 50_000
"""How far back in the journal to look for how long a model's answers are."""

ENOUGH_CALLS = 5
CHARACTERS_PER_TOKEN = (6.0, 4.0, 2.0)
"""Of text that a model's tokenizer was never seen to count: for the low, the expected and the high estimate. Four is the usual rule of
thumb for English; code and other scripts have fewer."""

ANSWER_TOKENS = (10.0, 250.0, 2000.0)
"""Of a model that never answered here; ``max_tokens`` bounds them."""

Three = tuple[float, float, float]
"""Low, expected, high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What one model of a comparison will cost; dollars are None where its price is unknown."""

    label: str
    calls: int
    cached: int
    low: float | None
    expected: float | None
    high: float | None
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a comparison will cost in US dollars.

    Attributes
    ----------
    low, expected, high : float or None
        The sum over the models; None if a price is unknown. ``low`` and ``high`` are a 95 % prediction where the model has answered
        here before, and what ``basis`` says where not.
    models : tuple of ModelCost
        A row a model: ``label calls cached low expected high basis``.

    Examples
    --------
    >>> from toolkit.defaults import estimate_cost
    >>> from toolkit.pricing import Price
    >>> from toolkit.client import Client
    >>> client = Client(prices={"scripted/echo": Price(input=2.0, output=8.0)})
    >>> estimate = estimate_cost(["scripted/echo"], ["Hello"], max_tokens=100, client=client)
    >>> estimate.low < estimate.expected < estimate.high
    True
    """

    models: tuple[ModelCost, ...]

    @property
    def low(self) -> float | None:
        return total([model.low for model in self.models])

    @property
    def expected(self) -> float | None:
        return total([model.expected for model in self.models])

    @property
    def high(self) -> float | None:
        return total([model.high for model in self.models])

    COLUMNS = ("model", "calls", "cached", "low", "expected", "high", "basis")

    def _rows(self) -> list[list[str]]:
        rows = [
            [m.label, f"{m.calls:,}", f"{m.cached:,}", dollars(m.low), dollars(m.expected), dollars(m.high), m.basis] for m in self.models
        ]
        calls, cached = sum(m.calls for m in self.models), sum(m.cached for m in self.models)
        return [*rows, ["in all", f"{calls:,}", f"{cached:,}", dollars(self.low), dollars(self.expected), dollars(self.high), ""]]

    def __repr__(self) -> str:
        return text_table(self.COLUMNS, self._rows())

    def _repr_html_(self) -> str:
        return html_page(f"<b>{escape('Estimated cost')}</b>", html_table(self.COLUMNS, self._rows()))


def from_costs(costs: Mapping[str, Sequence[float]], prompts: int, repeats: int) -> CostEstimate:
    """See ``Comparison.estimate_cost``; ``costs`` are those of each prompt asked, by model."""
    models = []
    for label, seen in costs.items():
        unknown = not seen or any(math.isnan(each) for each in seen)
        low, expected, high = (None, None, None) if unknown else predicted_sum(seen, prompts)
        basis = "a price is unknown" if unknown else f"{len(seen):,} prompts asked here"
        models.append(ModelCost(label=label, calls=prompts * repeats, cached=0, low=low, expected=expected, high=high, basis=basis))
    return CostEstimate(models=tuple(models))


def predicted_sum(seen: Sequence[float], count: int) -> tuple[float | None, float, float | None]:
    """The sum of so many new values, with a 95 % prediction interval: the mean before, plus or minus ``t s sqrt(1/n + 1/count)``, times
    their number (Hahn and Meeker, "Statistical Intervals", 1991, section 4.7). One value tells nothing of the spread."""
    from ..stats import mean_interval

    n, mean = len(seen), sum(seen) / len(seen)
    if n < 2:
        return None, count * mean, None
    reach = (mean_interval(seen).high - mean) * math.sqrt(1 + n / count)
    return count * max(mean - reach, 0.0), count * mean, count * (mean + reach)


def total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def dollars(value: float | None) -> str:
    return "unknown" if value is None else usd(value)


@dataclass(frozen=True, slots=True)
class History:
    """How a model counted and answered before."""

    tokens_per_character: float
    answers: tuple[float, ...]


def estimate(client: Client, plan: Plan, *, cached: bool) -> CostEstimate:
    """See ``tk.estimate_cost``; ``cached`` counts answers in the cache as free."""
    histories = read_histories(client.journal)
    return CostEstimate(models=tuple(estimate_variant(client, plan, number, histories, cached) for number in range(len(plan.variants))))


def estimate_variant(client: Client, plan: Plan, number: int, histories: Mapping[str, History], cached: bool) -> ModelCost:
    variant, width = plan.variants[number], len(plan.variants)
    cells = [plan.cell(index) for index in range(number, len(plan), width)]
    new = [
        cell
        for cell in cells
        if not (cached and client.has_answer(variant.name, cell.question.prompt, variant.options, repeat=cell.repeat))
    ]
    price, history = client.price(variant.name), histories.get(variant.name)
    characters = sum(len(cell.question.text) + len(variant.options.system or "") for cell in new)
    tokens_in, tokens_out = input_tokens(characters, history), answer_tokens(len(new), variant, history)
    low, expected, high = (None, None, None) if price is None else (cost(price, len(new), *tokens) for tokens in zip(tokens_in, tokens_out))
    basis = f"{len(history.answers):,} earlier calls" if history else f"a guess: never asked here; {guess_words(variant)}"
    return ModelCost(
        label=variant.label,
        calls=len(cells),
        cached=len(cells) - len(new),
        low=low,
        expected=expected,
        high=high,
        basis=basis if new else "all cached",
    )


def cost(price: Price, calls: int, tokens_in: float, tokens_out: float) -> float:
    rates = price.at(round(tokens_in / max(calls, 1)))
    return (tokens_in * rates.input + tokens_out * rates.output) / 1e6


def input_tokens(characters: int, history: History | None) -> Three:
    if history is not None:
        tokens = characters * history.tokens_per_character
        return tokens * 0.9, tokens, tokens * 1.1
    low, expected, high = (characters / size for size in CHARACTERS_PER_TOKEN)
    return low, expected, high


def answer_tokens(calls: int, variant: Variant, history: History | None) -> Three:
    """Tokens of all answers together; ``max_tokens`` bounds them."""
    most = variant.options.max_tokens or math.inf
    if not calls:
        return 0.0, 0.0, 0.0
    if history is None:
        low, expected, high = (calls * min(guess, most) for guess in ANSWER_TOKENS)
        return low, expected, high if math.isinf(most) else calls * most
    low, expected, high = (calls * most if sum_ is None else min(sum_, calls * most) for sum_ in predicted_sum(history.answers, calls))
    return low, expected, high


def guess_words(variant: Variant) -> str:
    low, expected, high = (f"{min(guess, variant.options.max_tokens or math.inf):,.0f}" for guess in ANSWER_TOKENS)
    return f"answers of {low} to {high} tokens, {expected} expected"


def read_histories(journal: Journal | None) -> dict[str, History]:
    """Read how models answered lately; without a readable journal there is no history, and the estimate says so."""
    if journal is None:
        return {}
    journal.flush()
    reader = journal.reader()
    wanted = ["model", "status", "provenance", "operation", "prompt_chars", "input_tokens", "output_tokens"]
    try:
        columns = reader.calls(after_row=max(0, reader.last_row() - RECENT_ROWS), columns=wanted)
    except JournalError:
        return {}
    found: dict[str, list[tuple[Any, Any, Any]]] = {}
    for model, status, provenance, operation, *counts in zip(*(columns[name] for name in wanted)):
        if (status, provenance, operation) == ("ok", "live", "text") and None not in counts:
            found.setdefault(model, []).append((counts[0], counts[1], counts[2]))
    return {model: history_of(rows) for model, rows in found.items() if len(rows) >= ENOUGH_CALLS}


def history_of(rows: Sequence[tuple[Any, Any, Any]]) -> History:
    characters, tokens = sum(row[0] for row in rows), sum(row[1] for row in rows)
    return History(tokens / max(characters, 1), tuple(float(row[2]) for row in rows))
