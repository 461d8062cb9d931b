"""How things show themselves: HTML that follows light and dark and escapes every string, and text tables for terminals.

A model wrote the answers and a user the prompts: both are untrusted in a page, and can hold control characters for a terminal.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = [
    "Listing",
    "Markup",
    "Shown",
    "Unseen",
    "escape",
    "html_bar",
    "html_card",
    "html_interval",
    "html_page",
    "html_pictures",
    "html_table",
    "html_voice",
    "plain",
    "seconds",
    "shown_fields",
    "side_by_side_text",
    "size",
    "text_table",
    "usd",
]

STYLE = (  # !important where a notebook's own style sheet says otherwise
    "<style>.tk{color-scheme:light dark;font:13px/1.45 system-ui,sans-serif;max-width:100%;overflow-x:auto}"
    ".tk table{border-collapse:collapse;margin:.4em 0}"
    ".tk th,.tk td{text-align:left!important;vertical-align:top!important;padding:.25em .8em;border-bottom:1px solid #8884;"
    "white-space:pre-wrap!important;overflow-wrap:break-word;max-width:34em}"
    ".tk th{font-weight:600}.tk td.n,.tk td.name,.tk td.bar{white-space:nowrap!important}"
    ".tk .n{text-align:right!important;font-variant-numeric:tabular-nums}"
    ".tk progress{width:6em;height:.8em;vertical-align:middle;accent-color:#0072B2}"
    ".tk .voice{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}"
    ".tk .muted{opacity:.7}.tk .answer{white-space:pre-wrap;border-left:3px solid #0072B2;padding-left:.8em;margin:.4em 0}</style>"
)
CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
FIGURE = re.compile(r"[–−$-]?[\d.,]+(e[+-]\d+)?( (s|ms|µs|%|/s|[kMGT]?B))?|–")
NAME = re.compile(r"\S{1,40}")  # not broken at its hyphens
NUMBER = '<td class="n">'
DASH = "–"
SCALE_PX = 120
SHOWN_ROWS = 20
SHOWN_CHARACTERS = 400
T = TypeVar("T")


def escape(text: object) -> str:
    """Return a text as HTML that shows it letter by letter."""
    return html.escape(str(text), quote=True)


def plain(text: str) -> str:
    """Return a text without what a terminal would obey: escape sequences, carriage returns, direction overrides."""
    return CONTROL.sub("\ufffd", text)


class Shown:
    """Shows its fields in a notebook: what a dataclass's ``repr`` has, as a table, escaped. Others say what ``_facts`` there are."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, object]:
        return shown_fields(self)

    def _repr_html_(self) -> str:
        rows = [(name, cut(value)) for name, value in self._facts().items()]
        return html_page(f"<b>{escape(type(self).__name__)}</b>", html_table(("field", "value"), rows))


class Listing(list[T]):
    """A list that shows itself in a notebook as a table, a row an item."""

    def _repr_html_(self) -> str:
        rows = [shown_fields(item) for item in self[:SHOWN_ROWS]]
        more = f'<div class="muted">and {len(self) - SHOWN_ROWS:,} more</div>' if len(self) > SHOWN_ROWS else ""
        return html_page(html_table(list(rows[0]), [[cut(value) for value in row.values()] for row in rows]) if rows else "none", more)


class Unseen(dict[str, T]):
    """A dict that names its keys and keeps its values to itself: API keys, and addresses with a password in them.

    Examples
    --------
    >>> Unseen(ollama="http://me:secret@example.org")
    <values of ollama>
    """

    def __repr__(self) -> str:
        return f"<values of {', '.join(self) or 'nothing'}>"


def shown_fields(record: Any) -> dict[str, object]:  # a dataclass's instance
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.repr}


def cut(value: object) -> object:
    """A value as a table's cell: numbers as they are, a dash for None, long texts cut."""
    if value is None:
        return DASH
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def html_page(*parts: str) -> str:
    """Wrap parts (HTML already) in our style."""
    return f'<div class="tk">{STYLE}{"".join(parts)}</div>'


def html_card(title: str, text: str, facts: Mapping[str, object]) -> str:
    """A title, an answer, and a line of facts; everything is escaped here."""
    return html_page(f"<b>{escape(title)}</b>", f'<div class="answer">{escape(text)}</div>', html_facts(facts))


def html_facts(facts: Mapping[str, object]) -> str:
    line = " · ".join(f"{escape(name)} {escape(value)}" for name, value in facts.items())
    return f'<div class="muted">{line}</div>'


def html_pictures(title: str, pictures: Iterable[tuple[str, bytes | None]], text: str, facts: Mapping[str, object]) -> str:
    """A title, pictures by media type and bytes (only named where there are no bytes), the words that came along, a line of facts."""
    words = f'<div class="answer">{escape(text)}</div>' if text else ""
    return html_page(f"<b>{escape(title)}</b><br>", *(html_picture(mime, data) for mime, data in pictures), words, html_facts(facts))


def html_picture(mime: str, data: bytes | None) -> str:
    if data is None:
        return f'<div class="muted">a picture of type {escape(mime)}, which is not shown here; save its data to look at it</div>'
    return f'<img alt="" style="max-width:24em;max-height:24em;margin:.4em .4em 0 0" src="{escape(picture_address(mime, data))}">'


def picture_address(mime: str, data: bytes) -> str:
    """A picture as an address that holds it whole."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


class Markup(str):
    """HTML that is safe already, such as a bar: a table's cell takes it as it stands, on one line."""

    __slots__ = ()


def html_bar(done: int, total: int, label: str) -> Markup:
    """A progress bar with its numbers beside it."""
    return Markup(f'<progress value="{done}" max="{total}" aria-label="{escape(label)}"></progress> {done:,}/{total:,}')


def html_interval(low: float, value: float, high: float, end: float, words: str) -> Markup:
    """A value and its interval drawn from 0 to a little beyond ``end``, with words beside them; an end that is not known (NaN) is open."""
    if not end > 0 or value != value:
        return Markup(escape(words))
    place = 0.9 * SCALE_PX / end
    middle = value * place
    left, right = (0.0 if low != low else low * place), (SCALE_PX if high != high else high * place)
    line = f'<line x1="{left:.1f}" x2="{right:.1f}" y1="6" y2="6" stroke="currentColor" stroke-width="2"/>'
    ends = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="10" stroke="currentColor"/>'
        for x, bound in ((left, low), (right, high))
        if bound == bound
    )
    dot = f'<circle cx="{middle:.1f}" cy="6" r="4" fill="#0072B2"/>'
    drawn = line + ends if low == low or high == high else ""
    size = f'width="{SCALE_PX + 8}" height="12" viewBox="-4 0 {SCALE_PX + 8} 12"'
    return Markup(f'<svg {size} aria-hidden="true" style="vertical-align:middle;margin-right:.6em">{drawn}{dot}</svg>{escape(words)}')


def html_voice(text: str) -> str:
    """What a screen reader says when it changes, and nobody sees."""
    return f'<div class="voice" role="status" aria-live="polite">{escape(text)}</div>'


def html_table(head: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """A table; numbers stand right, and so do the heads of columns of them. Everything is escaped here."""
    cells = [[html_cell(cell) for cell in row] for row in rows]
    right = {place for place, column in enumerate(zip(*cells)) if all(cell.startswith(NUMBER) for cell in column)}
    top = "".join(f'<th class="n">{escape(name)}</th>' if place in right else f"<th>{escape(name)}</th>" for place, name in enumerate(head))
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{named}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def html_cell(cell: object) -> str:
    if isinstance(cell, Markup):
        return f'<td class="bar">{cell}</td>'
    number = isinstance(cell, int | float) or (isinstance(cell, str) and FIGURE.fullmatch(cell))
    if number:
        return f"{NUMBER}{escape(cell)}</td>"
    return f'<td class="name">{escape(cell)}</td>' if NAME.fullmatch(str(cell)) else f"<td>{escape(cell)}</td>"


def seconds(value: float | None) -> str:
    """Three significant digits with the unit that suits; a dash where there is no number.

    Examples
    --------
    >>> seconds(0.01234), seconds(2.5), seconds(None)
    ('12.3 ms', '2.50 s', '–')
    """
    if value is None or value != value:
        return DASH
    if value >= 1 or value == 0:
        return f"{three_digits(value)} s"
    return f"{three_digits(value * 1e3)} ms" if value >= 1e-3 else f"{three_digits(value * 1e6)} µs"


def three_digits(value: float) -> str:
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def size(size_bytes: float | None) -> str:
    """Bytes with the unit that suits; a dash where there is no number.

    Examples
    --------
    >>> size(512), size(1_500_000), size(None)
    ('512 B', '1.50 MB', '–')
    """
    if size_bytes is None:
        return DASH
    power = next((power for power in (4, 3, 2, 1) if size_bytes >= 1000**power), 0)
    return f"{three_digits(size_bytes / 1000**power)} {'kMGT'[power - 1]}B" if power else f"{size_bytes:.0f} B"


def usd(value: float | None) -> str:
    """Dollars with as many digits as small sums need; a dash where unknown.

    Examples
    --------
    >>> usd(0.0), usd(0.00123), usd(None)
    ('$0', '$0.00123', '–')
    """
    if value is None or value != value:
        return DASH
    return "$0" if value == 0 else f"${value:,.2f}" if value >= 1 else f"${value:.3g}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = True) -> str:
    """A table for a terminal: the first column stands left, the others right."""
    cells = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 or not right else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def side_by_side_text(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, lines: int = 6) -> str:
    """Columns of wrapped text for a terminal; an answer of more than ``lines`` lines is cut with an ellipsis."""
    total = width or shutil.get_terminal_size((120, 24)).columns
    column = max(16, (total - 3 * (len(head) - 1)) // len(head))
    blocks = [wrapped_row(row, column, lines) for row in (head, *rows)]
    rule = "─" * min(total, column * len(head) + 3 * (len(head) - 1))
    return f"\n{rule}\n".join(blocks)


def wrapped_row(cells: Sequence[str], width: int, lines: int) -> str:
    wrapped = [textwrap.wrap(plain(" ".join(cell.split())), width, max_lines=lines, placeholder=" …") or [""] for cell in cells]
    height = max(map(len, wrapped))
    return "\n".join(" │ ".join((cell[i] if i < len(cell) else "").ljust(width) for cell in wrapped).rstrip() for i in range(height))
