"""The answers side by side, prompts down and models across, with what differs marked. Loaded lazily: pandas comes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd

from ..errors import ConfigError
from ..monitor.events import CallRecord
from ..render import DASH, escape, html_page, seconds, size, usd
from ..types import Image
from .diff import Diff, marked_html, word_pieces
from .grid import Plan
from .pictures import Pictures

__all__ = ["SideBySide", "diff", "side_by_side"]

PAGE_ROWS = 20
MOST_PAGES = 10
NO_PICTURES: Mapping[int, Sequence[Image]] = {}
NO_SCORES: Mapping[int, Mapping[str, float]] = {}


class SideBySide(pd.DataFrame):
    """Prompts down, models across: a data frame that shows whole answers with their figures, escaped, 20 prompts a page."""

    _metadata: ClassVar = ["marked", "facts"]
    marked = False
    """Whether each answer shows its differences from the first model's."""
    facts: Sequence[Sequence[str]] = ()
    """What stands below each answer, a row a prompt."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return self.html(MOST_PAGES)

    def html(self, most_pages: int | None) -> str:
        """The table as HTML, that many pages of it or all."""
        most = None if most_pages is None else PAGE_ROWS * most_pages
        rows = [list(row) for row in self.reset_index().itertuples(index=False, name=None)]
        head = "".join(f"<th>{escape(name)}</th>" for name in [*self.index.names, *self.columns])
        for row in rows[PAGE_ROWS:]:  # a notebook's file holds every picture that is shown
            row[2:] = [str(cell) if isinstance(cell, Pictures) else cell for cell in row[2:]]
        shown = [self._row(row, facts) for row, facts in zip(rows[:most], self.facts)]
        pages = [html_rows(head, shown[start : start + PAGE_ROWS]) for start in range(0, len(shown), PAGE_ROWS)]
        folded = [
            f"<details><summary>prompts {number * PAGE_ROWS + 1} to {min((number + 1) * PAGE_ROWS, len(rows))}</summary>{page}</details>"
            for number, page in enumerate(pages)
            if number
        ]
        left = len(rows) - len(shown)
        more = f'<div class="muted">and {left:,} more: find them with side_by_side(search="…")</div>' if left > 0 else ""
        drawn = [cell for row in rows[:PAGE_ROWS] for cell in row if isinstance(cell, Pictures)]
        note = f'<div class="muted">{escape(note_on(drawn))}</div>' if drawn else ""
        return html_page(pages[0] if pages else html_rows(head, []), *folded, more, note)

    def _row(self, row: Sequence[Any], facts: Sequence[str]) -> str:
        prompt_id, prompt, *cells = row
        answers = (f"<td>{answer}{html_facts(words)}</td>" for answer, words in zip(self._answers(cells), facts))
        return f"<tr><td>{escape(prompt_id)}</td><td>{escape(prompt)}</td>{''.join(answers)}</tr>"

    def _answers(self, cells: Sequence[Any]) -> list[str]:
        if any(isinstance(cell, Pictures) for cell in cells):
            return [cell.html() if isinstance(cell, Pictures) else escape(cell or "") for cell in cells]
        first, *others = ("" if cell is None or cell != cell else str(cell) for cell in cells)
        return [escape(first), *(marked_html(word_pieces(first, other)) if self.marked else escape(other) for other in others)]


def html_rows(head: str, rows: Sequence[str]) -> str:
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def html_facts(words: str) -> str:
    return f'<div class="muted">{escape(words)}</div>' if words else ""


def side_by_side(
    plan: Plan,
    records: Mapping[int, CallRecord],
    only: str | None,
    search: str | None,
    repeat: int,
    pictures: Mapping[int, Sequence[Image]] = NO_PICTURES,
    scores: Mapping[int, Mapping[str, float]] = NO_SCORES,
) -> SideBySide:
    """See ``Comparison.side_by_side``."""
    if only not in (None, "different"):
        raise ConfigError(f"only={only!r}: it is 'different' or None")
    check_repeat(plan, repeat)
    rows, index, facts = [], [], []
    for number, question in enumerate(plan.questions):
        start = (number * plan.repeats + repeat) * len(plan.variants)
        texts = (question.prompt_id, question.text, *(cell or "" for cell in answers_to(plan, records, number, repeat)))
        cells = [
            Pictures(pictures[start + i]) if start + i in pictures else text
            for i, text in enumerate(answers_to(plan, records, number, repeat))
        ]
        if (only is None or len(set(cells)) > 1) and (search is None or any(search.casefold() in text.casefold() for text in texts)):
            rows.append(cells)
            index.append((question.prompt_id, question.text))
            facts.append([facts_of(records.get(start + i), scores.get(start + i, {})) for i in range(len(plan.variants))])
    names = ["prompt_id", "prompt"]
    where = pd.MultiIndex.from_tuples(index, names=names) if index else pd.MultiIndex.from_arrays([[], []], names=names)
    table = SideBySide(rows, index=where, columns=pd.Index(plan.labels, name=None), dtype="object")
    table.marked, table.facts = only == "different", facts
    return table


def facts_of(row: CallRecord | None, scores: Mapping[str, float]) -> str:
    """An answer's figures on one line: its time or where it came from, its length, its cost and its scores; nothing for a failed call."""
    if row is None or row.status != "ok":
        return ""
    live = row.provenance == "live"
    parts = [
        seconds(row.latency_s) if live else row.provenance,
        "" if row.output_tokens is None else f"{row.output_tokens:,} token{'s' * (row.output_tokens != 1)}",
        usd(row.cost_usd) if live else f"saved {usd(row.saved_usd)}" if row.saved_usd else "",
        *(f"{name} {value:.3g}" for name, value in scores.items() if value == value),
    ]
    return " · ".join(part for part in parts if part and part != DASH)


def answers_to(plan: Plan, records: Mapping[int, CallRecord], number: int, repeat: int) -> list[str | None]:
    """What each model said to a prompt, by its number."""
    start = (number * plan.repeats + repeat) * len(plan.variants)
    return [shown_answer(records.get(start + i)) for i in range(len(plan.variants))]


def diff(plan: Plan, records: Mapping[int, CallRecord], prompt_id: str, a: str, b: str, repeat: int) -> Diff:
    """See ``Comparison.diff``."""
    check_repeat(plan, repeat)
    numbers = {question.prompt_id: number for number, question in enumerate(plan.questions)}
    if prompt_id not in numbers:
        raise ConfigError(f"this comparison has no prompt {prompt_id!r}; it has {few(list(numbers))}")
    for label in (a, b):
        if label not in plan.labels:
            raise ConfigError(f"this comparison has no model {label!r}; it has {', '.join(plan.labels)}")
    number = numbers[prompt_id]
    texts = dict(zip(plan.labels, answers_to(plan, records, number, repeat)))
    return Diff(
        prompt_id=prompt_id, prompt=plan.questions[number].text, a=a, b=b, text_a=texts[a] or "", text_b=texts[b] or ""
    )  # fmt: skip


def cell_index(plan: Plan, prompt_id: str, label: str, repeat: int) -> int:
    """The place of a model's answer to a prompt.

    Raises
    ------
    ConfigError
        If there is no such prompt, model or repeat.
    """
    check_repeat(plan, repeat)
    index = plan.indices()(label, prompt_id, repeat)
    if index is None:
        prompts = few([question.prompt_id for question in plan.questions])
        raise ConfigError(
            f"this comparison has no model {label!r} or no prompt {prompt_id!r}; it has {', '.join(plan.labels)} and {prompts}"
        )
    return index


def note_on(drawn: Sequence[Pictures]) -> str:
    size_bytes = sum(len(image.data) for pictures in drawn for image in pictures)
    return f"The pictures shown are in the notebook's file when it is saved: {size(size_bytes * 4 / 3)}."


def check_repeat(plan: Plan, repeat: int) -> None:
    if not 0 <= repeat < plan.repeats:
        raise ConfigError(f"repeat={repeat}: this comparison has the repeats 0 to {plan.repeats - 1}")


def few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def shown_answer(row: CallRecord | None) -> str | None:
    """The text of a call's answer; a failed call shows what went wrong, one that was not made nothing."""
    if row is None:
        return None
    return (row.text or "") if row.status == "ok" else f"[{row.error_type}] {row.error_message}"
