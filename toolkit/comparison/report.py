"""A comparison as one page of HTML, for those who have neither Python nor a kernel. Loaded lazily: pandas comes with it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from ..render import escape, html_page, html_table
from .verdict import shown_cell

if TYPE_CHECKING:
    from .comparison import Comparison

__all__ = ["page"]

SEARCH = """
const field = document.querySelector("input"), said = document.querySelector("output");
const rows = [...document.querySelectorAll("#answers tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
field.hidden = false;
field.addEventListener("input", () => {
  const wanted = field.value.toLowerCase();
  let found = 0;
  for (const [row, text] of rows) found += !(row.hidden = !text.includes(wanted));
  for (const part of document.querySelectorAll("#answers details")) part.open = wanted !== "" && part.querySelector("tbody tr:not([hidden])") !== null;
  said.textContent = wanted ? `${found} of ${rows.length}` : "";
});
"""
STYLE = (
    ":root{color-scheme:light dark}body{font:14px/1.5 system-ui,sans-serif;max-width:80em;margin:2em auto;padding:0 1em}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}input{font:inherit;padding:.3em .6em;width:24em;max-width:100%}"
    "[hidden]{display:none!important}"
)


def page(comparison: Comparison) -> str:
    """See ``Comparison.to_html``. Only the script written here may run in it, and it may ask no other machine for anything."""
    seal = base64.b64encode(hashlib.sha256(SEARCH.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{seal}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(comparison.name)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{title(comparison)}</h1>{''.join(parts(comparison))}<script>{SEARCH}</script></body></html>\n"
    )


def title(comparison: Comparison) -> str:
    models, prompts = len(comparison.models), len(comparison.side_by_side())
    return f"{models:,} model{'s' * (models != 1)}, {prompts:,} prompt{'s' * (prompts != 1)}"


def parts(comparison: Comparison) -> Iterator[str]:
    yield comparison._repr_html_()
    yield section("Latency in seconds", frame_html(comparison.latency()))
    if len(comparison.models) > 1:
        for metric in comparison.verdict_metrics:
            yield section(f"Verdict on {metric}", comparison.verdict(metric)._repr_html_())
    if not (errors := comparison.errors()).empty:
        yield section("Errors", frame_html(errors))
    find = '<p><input type="search" hidden placeholder="find in prompts and answers" aria-label="find in prompts and answers"> <output></output></p>'
    repeats = [comparison.side_by_side(repeat=repeat).html(None) for repeat in range(comparison.repeats)]
    yield f'{heading("Answers")}{find}<div id="answers">{repeats[0]}{"".join(folded(number, html) for number, html in enumerate(repeats) if number)}</div>'


def section(title: str, html: str) -> str:
    return heading(title) + html


def heading(title: str) -> str:
    return f"<h2>{escape(title)}</h2>"


def folded(repeat: int, html: str) -> str:
    return f"<details><summary>repeat {repeat + 1}</summary>{html}</details>"


def frame_html(frame: pd.DataFrame) -> str:
    rows = [[shown_cell(cell) for cell in row] for row in frame.itertuples(index=False, name=None)]
    return html_page(html_table(list(frame.columns), rows))
