"""Marked moments in charts over time: a line at each, and above the chart what happened, in rows and grouped where they are near."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from plotly.graph_objects import Figure

from dashboard.figures import cut, escape, over_time

__all__ = ["MARK_ROWS", "MARK_ROW_PX", "with_marks"]

MARK_GREY = "#808080"  # as well seen on the light ground as on the dark one
MARK_CHARS, MARK_CHAR_PX = 20, 5.4
MARK_ROWS, MARK_ROW_PX = 3, 16
PLOT_PX = 220  # of a chart on a phone; on a wider screen labels stand further apart

Marks = tuple[tuple[float, str], ...]  # when and what


def with_marks(figure: Figure, marks: Sequence[tuple[float, str]]) -> Figure:
    """Draw a line at each marked moment and, in rows above the chart, what happened then; marks too near for that share a label."""
    for at_s, _ in marks:
        at = moment(at_s)
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line={"color": MARK_GREY, "dash": "dot", "width": 1.5})
    labels = labels_of(marks, ends_of(figure, marks))
    for label in labels:
        figure.add_annotation(
            x=moment(label.at_s),
            y=1,
            yref="paper",
            yshift=MARK_ROW_PX * label.row,
            xanchor=label.anchor,
            yanchor="bottom",
            borderpad=0,
            text=escape(label.text),
            hovertext="<br>".join(told(*mark) for mark in label.marks),
            showarrow=False,
            font={"size": 11},
        )
    if labels:
        room = MARK_ROW_PX * (1 + max(label.row for label in labels))
        layout = figure.layout
        plot_px = layout.height - layout.margin.t - 40  # the ticks and their names take about so much
        figure.update_layout(height=layout.height + room, margin_t=layout.margin.t + room, legend_y=layout.legend.y + room / plot_px)
    return figure


class Label(NamedTuple):
    """A label over one mark or several; from ``low`` to ``high`` it takes of the axis, in shares of its length."""

    marks: Marks
    row: int
    at_s: float
    low: float
    high: float
    anchor: str

    @property
    def text(self) -> str:
        return text_of(self.marks)

    def hides(self, other: Label) -> bool:
        return self.row == other.row and self.low < other.high and other.low < self.high


def labels_of(marks: Sequence[tuple[float, str]], ends: tuple[float, float]) -> list[Label]:
    """Give each mark a label; while there is no room for all of them, the two that are nearest to each other become one."""
    groups: list[Marks] = [(mark,) for mark in sorted(marks)]
    while (labels := in_rows(groups, ends)) is None:
        nearest = min(range(len(groups) - 1), key=lambda number: groups[number + 1][0][0] - groups[number][-1][0])
        groups[nearest : nearest + 2] = [groups[nearest] + groups[nearest + 1]]
    return labels


def in_rows(groups: Sequence[Marks], ends: tuple[float, float]) -> list[Label] | None:
    """Put each label into the lowest row with room for it; ``None`` where one finds none."""
    labels: list[Label] = []
    for marks in groups:
        rows = (label_of(marks, row, ends) for row in range(MARK_ROWS))
        free = next((label for label in rows if not any(label.hides(other) for other in labels)), None)
        if free is None:
            return None
        labels.append(free)
    return labels


def label_of(marks: Marks, row: int, ends: tuple[float, float]) -> Label:
    """A label to the right of its first mark; to the left of its last one where the axis ends too soon."""
    text, span = text_of(marks), ends[1] - ends[0]
    first, last = ((at_s - ends[0]) / span for at_s in (marks[0][0], marks[-1][0]))
    signs = len(text) + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    width = (signs + 2) * MARK_CHAR_PX / PLOT_PX
    if first + width <= 1:
        return Label(marks, row, marks[0][0], first, first + width, "left")
    return Label(marks, row, marks[-1][0], last - width, last, "right")


def text_of(marks: Marks) -> str:
    return f"{len(marks)} marks" if len(marks) > 1 else cut(marks[0][1], MARK_CHARS)


def ends_of(figure: Figure, marks: Sequence[tuple[float, str]]) -> tuple[float, float]:
    """The first and the last moment on the axis of time, in seconds."""
    drawn = [trace.x.astype("datetime64[ms]").astype(np.int64) / 1e3 for trace in figure.data if over_time(trace) and len(trace.x)]
    moments = [*(end for times in drawn for end in (times.min(), times.max())), *(at_s for at_s, _ in marks)]
    low, high = min(moments, default=0.0), max(moments, default=0.0)
    return low, max(high, low + 1.0)


def told(at_s: float, text: str) -> str:
    """All of a mark's text, in lines that a screen has room for, and when that was."""
    return "<br>".join([*map(escape, textwrap.wrap(text, 60)), f"{moment(at_s):%Y-%m-%d %H:%M:%S} UTC"])


def moment(at_s: float) -> datetime:
    """A moment as the points of an axis of time are written: in UTC, without saying so."""
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None)
