"""What differs between two answers, word by word."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from ..render import escape, html_page, plain

__all__ = ["Diff", "Piece", "marked_html", "word_pieces"]

WORDS = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
LONG = 2_000
"""Words above which very frequent ones are no anchors (difflib's ``autojunk``): exact matching would take seconds."""

STYLES = {
    "removed": ("del", "background:#D55E0033;text-decoration:line-through"),
    "added": ("ins", "background:#0072B233;text-decoration:underline"),
}


class Piece(NamedTuple):
    """A run of words: in both answers, only in the first (``removed``) or only in the second (``added``)."""

    kind: Literal["same", "removed", "added"]
    text: str


@lru_cache(maxsize=1024)
def word_pieces(first: str, second: str) -> tuple[Piece, ...]:
    """Return what makes the second text of the first. White space does not count as a difference."""
    old, new = WORDS.findall(first), WORDS.findall(second)
    matcher = difflib.SequenceMatcher(None, [*map(str.strip, old)], [*map(str.strip, new)], autojunk=max(len(old), len(new)) > LONG)
    pieces: list[Piece] = []
    for what, i, j, k, m in matcher.get_opcodes():
        if what == "equal":
            pieces.append(Piece("same", "".join(new[k:m])))
        else:
            pieces += [Piece("removed", "".join(old[i:j]))] * (j > i) + [Piece("added", "".join(new[k:m]))] * (m > k)
    return tuple(pieces)


def marked_html(pieces: tuple[Piece, ...]) -> str:
    """The pieces as HTML: struck out, underlined, and coloured. Everything is escaped here."""
    return "".join(marked_piece(piece) for piece in pieces)


def marked_piece(piece: Piece) -> str:
    if piece.kind == "same":
        return escape(piece.text)
    tag, style = STYLES[piece.kind]
    return f'<{tag} style="{style}">{escape(piece.text)}</{tag}>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two models' answers to one prompt, with the words that differ marked.

    Attributes
    ----------
    prompt_id, prompt : str
        Which prompt.
    a, b : str
        The labels of the two models.
    text_a, text_b : str
        Their answers.

    Examples
    --------
    >>> print(Diff(prompt_id="001", prompt="Capital of Peru?", a="one", b="two", text_a="It is Lima.", text_b="It is Cusco, not Lima."))
    --- one
    +++ two
    It is {+Cusco, not +}Lima.
    """

    prompt_id: str
    prompt: str
    a: str
    b: str
    text_a: str
    text_b: str

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The words in order, each run ``same``, ``removed`` (only in ``a``) or ``added`` (only in ``b``)."""
        return word_pieces(self.text_a, self.text_b)

    @property
    def html(self) -> str:
        """The difference as HTML that follows light and dark; everything in it is escaped."""
        title = f"<b>{escape(self.prompt_id)}</b> {escape(self.prompt)}"
        key = f"only in <del>{escape(self.a)}</del>, only in <ins>{escape(self.b)}</ins>"
        return html_page(title, f'<div class="answer">{marked_html(self.pieces)}</div>', f'<div class="muted">{key}</div>')

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
        text = "".join(f"{marks[kind][0]}{text}{marks[kind][1]}" for kind, text in self.pieces)
        return plain(f"--- {self.a}\n+++ {self.b}\n{text}")

    __repr__ = __str__
