"""What a comparison will cost, before the first call is paid for: from prices, the cache, and how long answers were before."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..client import Client, ImageOptions, read_size
from ..errors import ConfigError, JournalError
from ..monitor.journal import Journal, JournalReader
from ..pricing import Price
from ..render import escape, html_page, html_table, text_table, usd
from .grid import Cell, Plan, Variant

__all__ = ["CostEstimate", "ModelCost", "estimate"]

RECENT_ROWS = 50_000
"""How far back in the journal to look for how long a model's answers are."""

ENOUGH_CALLS = 5
CHARACTERS_PER_TOKEN = (6.0, 4.0, 2.0)
"""Of text that a model's tokenizer was never seen to count: for the low, the expected and the high estimate. Four is the usual rule of
thumb for English; code and other scripts have fewer."""

ANSWER_TOKENS = (10.0, 250.0, 2000.0)
"""Of a model that never answered here; ``max_tokens`` bounds them."""

SEEN_TOKENS = (85.0, 800.0, 2500.0)
"""Of a picture in a prompt, by what services say of theirs: from OpenAI's low detail to a large one cut into tiles."""

DRAWN_TOKENS = (270.0, 1300.0, 6300.0)
"""Of a picture that is drawn, by what services say of theirs: from OpenAI's low quality to its high, Gemini's between."""

Three = tuple[float, float, float]
"""Low, expected, high."""

Costs = tuple[float | None, float | None, float | None]
UNKNOWN: Costs = (None, None, None)


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


Drawn = tuple[str, tuple[int, int] | None]
"""A model and the size of its pictures."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the journal tells of earlier calls: how models answered, and what each picture cost."""

    histories: Mapping[str, History]
    pictures_usd: Mapping[Drawn, Sequence[float]]


def estimate(client: Client, plan: Plan, *, cached: bool) -> CostEstimate:
    """See ``tk.estimate_cost``; ``cached`` counts answers in the cache as free."""
    past = read_past(client.journal)
    return CostEstimate(models=tuple(estimate_variant(client, plan, number, past, cached) for number in range(len(plan.variants))))


def estimate_variant(client: Client, plan: Plan, number: int, past: Past, cached: bool) -> ModelCost:
    variant, width = plan.variants[number], len(plan.variants)
    cells = [plan.cell(index) for index in range(number, len(plan), width)]
    new = [
        cell
        for cell in cells
        if not (cached and client.has_answer(variant.name, cell.question.prompt, variant.options, repeat=cell.repeat))
    ]
    guess = pictures_cost if isinstance(variant.options, ImageOptions) else words_cost
    (low, expected, high), basis = ((0.0, 0.0, 0.0), "all cached") if not new else guess(client, variant, new, past)
    return ModelCost(
        label=variant.label, calls=len(cells), cached=len(cells) - len(new), low=low, expected=expected, high=high, basis=basis
    )  # fmt: skip


def words_cost(client: Client, variant: Variant, new: Sequence[Cell], past: Past) -> tuple[Costs, str]:
    """What answers in words will cost, and how that is known."""
    price, history = client.price(variant.name), past.histories.get(variant.name)
    characters = sum(len(cell.question.text) + len(variant.options.system or "") for cell in new)
    seen = sum(len(cell.question.images) for cell in new)
    # Earlier calls count words and pictures together, so they can't tell what a prompt with pictures takes.
    words, pictures = input_tokens(characters, None if seen else history), [seen * tokens for tokens in SEEN_TOKENS]
    tokens_in = [sum(both) for both in zip(words, pictures)]
    tokens_out = answer_tokens(len(new), variant, history)
    costs = UNKNOWN if price is None else three(cost(price, len(new), *tokens) for tokens in zip(tokens_in, tokens_out))
    basis = f"{len(history.answers):,} earlier calls" if history else f"a guess: never asked here; {guess_words(variant)}"
    return costs, basis + (f"; pictures in prompts of {tokens_words(SEEN_TOKENS)} are a guess" if seen else "")


def pictures_cost(client: Client, variant: Variant, new: Sequence[Cell], past: Past) -> tuple[Costs, str]:
    """What pictures will cost, and how that is known: from what those of this model and size did, or from a price and a guess."""
    drawn = len(new) * variant.options.n
    seen = past.pictures_usd.get((variant.name, read_size(variant.options.size)), ())
    if len(seen) >= ENOUGH_CALLS:
        return predicted_sum(seen, drawn), f"{len(seen):,} earlier calls for pictures of this size"
    price = client.price(variant.name, pictures=True)
    if price is None:
        return UNKNOWN, "no price of its pictures is known, nor what earlier ones cost"
    words = input_tokens(sum(len(cell.question.text) for cell in new), None)
    rate = price.output if price.image_output is None else price.image_output
    costs = three(cost(replace(price, output=rate), len(new), *tokens) for tokens in zip(words, (drawn * each for each in DRAWN_TOKENS)))
    return costs, f"a guess: too few drawn here; pictures of {tokens_words(DRAWN_TOKENS)}"


def three(costs: Iterable[float]) -> Three:
    low, expected, high = costs
    return low, expected, high


def tokens_words(tokens: Three) -> str:
    low, expected, high = (f"{each:,.0f}" for each in tokens)
    return f"{low} to {high} tokens each, {expected} expected,"


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


def read_past(journal: Journal | None) -> Past:
    """Read how models answered lately; without a readable journal there is no history, and the estimate says so."""
    if journal is None:
        return Past({}, {})
    journal.flush()
    reader = journal.reader()
    wanted = ["model", "status", "provenance", "operation", "prompt_chars", "input_tokens", "output_tokens", "run_id", "label", "cost_usd"]
    try:
        columns = reader.calls(after_row=max(0, reader.last_row() - RECENT_ROWS), columns=wanted)
        wishes = read_wishes(reader)
    except JournalError:
        return Past({}, {})
    found: dict[str, list[tuple[Any, Any, Any]]] = {}
    pictures: dict[Drawn, list[float]] = {}
    for model, status, provenance, operation, *counts, run_id, label, cost_usd in zip(*(columns[name] for name in wanted)):
        if (status, provenance) != ("ok", "live"):
            continue
        if operation == "text" and None not in counts:
            found.setdefault(model, []).append((counts[0], counts[1], counts[2]))
        elif operation == "image" and cost_usd is not None and (run_id, label) in wishes:
            number, size = wishes[run_id, label]
            pictures.setdefault((model, size), []).append(cost_usd / number)
    return Past({model: history_of(rows) for model, rows in found.items() if len(rows) >= ENOUGH_CALLS}, pictures)


def read_wishes(reader: JournalReader) -> dict[tuple[str, str], tuple[int, tuple[int, int] | None]]:
    """How many pictures of which size each model of a run was asked for: a call's row does not say."""
    runs, wishes = reader.runs(), {}
    for run_id, text in zip(runs["run_id"], runs["plan"]):
        with contextlib.suppress(ValueError, KeyError, TypeError, ConfigError):  # of another version
            for model in json.loads(text)["models"]:
                wishes[run_id, model["label"]] = int(model["options"].get("n", 1)), read_size(model["options"].get("size"))
    return wishes


def history_of(rows: Sequence[tuple[Any, Any, Any]]) -> History:
    characters, tokens = sum(row[0] for row in rows), sum(row[1] for row in rows)
    return History(tokens / max(characters, 1), tuple(float(row[2]) for row in rows))
