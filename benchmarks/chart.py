"""A question's chart as SVG, drawn by hand: a few rectangles and lines that need no library, in the colours of a light or a dark page.

Bars of time for each contestant, on a logarithmic axis where they differ by much; curves where something grows.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .measure import Column, Result, Spread, Table

WIDTH, ROW, TOP, LABELS, RIGHT = 860, 30, 64, 290, 150
PLOT_HEIGHT = 260
MUCH = 25
"""From this ratio between the largest and the smallest on, the axis is logarithmic."""

FAR = 3
"""A goal that lies further out than so many times the longest bar is not drawn."""

STYLE = """
svg{font-family:system-ui,sans-serif;font-size:13px}
.paper{fill:#fff;stroke:#d8dee4}.text{fill:#1f2328}.soft{fill:#59636e}.title{font-size:15px;font-weight:600}
.grid{stroke:#d8dee4;stroke-width:1}.ours{fill:#0072b2}.theirs{fill:#b6bfc9}.spread{stroke:#1f2328;stroke-width:1.5}
.goal{stroke:#d55e00;stroke-width:2}.goal-text{fill:#b34e00}
.c0{stroke:#0072b2;fill:#0072b2}.c1{stroke:#d55e00;fill:#d55e00}.c2{stroke:#009e73;fill:#009e73}.c3{stroke:#8250df;fill:#8250df}
.c4{stroke:#9a6700;fill:#9a6700}.c5{stroke:#6e7781;fill:#6e7781}.curve{fill:none;stroke-width:2}.name{stroke:none}
@media (prefers-color-scheme:dark){
.paper{fill:#1c2128;stroke:#3d444d}.text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#3d444d}.ours{fill:#4aa8e0}.theirs{fill:#59636e}
.spread{stroke:#e6edf3}.goal{stroke:#ff9e4a}.goal-text{fill:#ff9e4a}
.c0{stroke:#4aa8e0;fill:#4aa8e0}.c1{stroke:#ff9e4a;fill:#ff9e4a}.c2{stroke:#3fc99a;fill:#3fc99a}.c3{stroke:#bc8cff;fill:#bc8cff}
.c4{stroke:#e3b341;fill:#e3b341}.c5{stroke:#9198a1;fill:#9198a1}.curve{fill:none}.name{stroke:none}}
"""


def is_ours(result: Result, name: str) -> bool:
    return "toolkit" in name or any(goal.ours == name for goal in result.table.goals)


def file_name(table: Table) -> str:
    plain = unicodedata.normalize("NFKD", table.title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("1,000,000", "1m")).strip("-") + ".svg"


def number(value: float) -> str:
    """Three figures that matter, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}"


def alt_text(result: Result) -> str:
    table = result.table
    if table.axis:
        return f"Curves over {table.axis}: {', '.join(curve.name for curve in curves(result))}"
    return f"{table.column(table.drawn[0]).head}, a bar each: {', '.join(result.readings)}"


def drawn(result: Result) -> str:
    """Return the chart of a result."""
    return growth_chart(result) if result.table.axis else bar_chart(result)


def svg(height: float, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="6"/>{"".join(parts)}</svg>\n'
    )


def text(x: float, y: float, said: str, kind: str = "text", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places between ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step = next(step for step in steps(self.high / 100, self.high, (1, 2, 5)) if self.high / step <= 6)
            return [step * i for i in range(int(self.high / step) + 1)]
        decades = steps(self.low, self.high, (1,))
        return decades if len(decades) > 2 else steps(self.low, self.high, (1, 2, 5))


def steps(low: float, high: float, factors: Sequence[int]) -> list[float]:
    """Return the round numbers from ``low`` to ``high``: so many in each decade."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    every = (factor * 10.0**power for power in powers for factor in factors)
    return [step for step in every if low * 0.9999 <= step <= high * 1.0001]


def axis_of(values: Sequence[float], start: float, end: float, *, much: float = MUCH) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high / low >= much:
        below, above = steps(low / 10, low, (1, 2, 5)), steps(high, high * 10, (1, 2, 5))
        return Axis(below[-1], above[0] if above[0] > below[-1] else above[1], start, end, logarithmic=True)
    return Axis(0.0, high * 1.05 or 1.0, start, end, logarithmic=False)


# --- bars ------------------------------------------------------------------------------------------------------------------


def bar_chart(result: Result) -> str:
    table = result.table
    column = table.column(table.drawn[0])
    bars = {name: result.spread(name, column.quantity) for name in result.readings if result.has(name, column.quantity)}
    scaled = {name: Spread(s.low * column.scale, s.middle * column.scale, s.high * column.scale) for name, s in bars.items()}
    ends = [value for spread in scaled.values() for value in (spread.middle, spread.high)]
    goals = [limit for name in bars for limit in limits(result, column, name) if limit <= FAR * max(ends)]
    axis = axis_of([*ends, *goals], LABELS, WIDTH - RIGHT)
    bottom = TOP + ROW * len(scaled)
    logarithmic = ", logarithmic" if axis.logarithmic else ""
    parts = [
        text(16, 26, table.title, "text title"),
        text(16, 46, f"{column.head}{logarithmic}; less is better{', the mark is the goal' if goals else ''}", "soft"),
    ]
    parts += grid_lines(axis, TOP, bottom)
    for place, (name, spread) in enumerate(scaled.items()):
        parts += bar(result, column, name, spread, axis, TOP + ROW * place)
    return svg(bottom + 34, table.title, parts)


def grid_lines(axis: Axis, top: float, bottom: float) -> Iterator[str]:
    for tick in axis.ticks():
        yield line(axis.at(tick), top, axis.at(tick), bottom, "grid")
        yield text(axis.at(tick), bottom + 18, short(tick), "soft", "middle")


def short(value: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"


def bar(result: Result, column: Column, name: str, spread: Spread, axis: Axis, y: float) -> Iterator[str]:
    """A contestant's row: name, bar, spread, what it is to reach, and the figure."""
    middle, x = y + ROW / 2, axis.at(spread.middle)
    yield text(LABELS - 10, middle + 4, name, "text", "end")
    yield f'<rect class="{"ours" if is_ours(result, name) else "theirs"}" x="{LABELS}" y="{y + 6:.1f}" width="{max(1.0, x - LABELS):.1f}" height="{ROW - 12}" rx="2"/>'
    yield line(axis.at(spread.low), middle, axis.at(spread.high), middle, "spread")
    marks = [axis.at(limit) for limit in limits(result, column, name) if limit <= axis.high]
    yield from (line(mark, y + 3, mark, y + ROW - 3, "goal") for mark in marks)
    yield text(max(x, axis.at(spread.high), *marks, 0) + 8, middle + 4, number(spread.middle) + ratio(result, column, name), "soft")


def ratio(result: Result, column: Column, name: str) -> str:
    reference = result.table.reference
    if (
        name == reference
        or not result.has(reference, column.quantity)
        or not all(r.value(column.quantity) for r in result.readings[reference])
    ):
        return ""
    return f" ({number(result.compared(name, reference, column.quantity).middle)} ×)"


def limits(result: Result, column: Column, name: str) -> list[float]:
    """Where the goals of a contestant lie on the axis: the strictest alone, beside the median of its peer in this run."""
    found = []
    for goal in result.table.goals:
        if goal.ours != name or goal.of != column.quantity or goal.difference:
            continue
        if goal.than is None:
            found.append(goal.at_most * column.scale)
        elif result.has(goal.than, goal.of):
            found.append(goal.at_most * result.spread(goal.than, goal.of).middle * column.scale)
    return [min(found)] if found else []


# --- curves ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: tuple[tuple[float, Spread], ...]


def curves(result: Result) -> list[Curve]:
    """A curve for each series and each quantity that is drawn."""
    found: dict[str, list[tuple[float, Spread]]] = {}
    table = result.table
    for contestant in table.contestants:
        for quantity in table.drawn:
            if result.has(contestant.name, quantity):
                column = table.column(quantity)
                several = len(table.drawn) > 1
                name = ", ".join(filter(None, (contestant.series, column.head if several else "")))
                spread = result.spread(contestant.name, quantity)
                scaled = Spread(*(value * column.scale for value in (spread.low, spread.middle, spread.high)))
                found.setdefault(name, []).append((contestant.at, scaled))
    return [Curve(name, tuple(points)) for name, points in found.items()]


def growth_chart(result: Result) -> str:
    table, lines = result.table, curves(result)
    left, right, bottom = 76.0, WIDTH - 270.0, float(TOP + PLOT_HEIGHT)
    middles = [spread.middle for curve in lines for _, spread in curve.points]
    across = axis_of([at for curve in lines for at, _ in curve.points], left + 10, right - 10, much=1)
    up = axis_of([min(middles) / 2, max(middles) * 2], bottom, TOP, much=1)
    heads = [table.column(quantity).head for quantity in table.drawn]
    said = heads[0] if len(heads) == 1 else "see the names of the curves"
    parts = [text(16, 26, table.title, "text title"), text(16, 46, f"{said}; both axes logarithmic", "soft")]
    for tick in across.ticks():
        parts += [
            line(across.at(tick), TOP, across.at(tick), bottom, "grid"),
            text(across.at(tick), bottom + 18, short(tick), "soft", "middle"),
        ]
    for tick in up.ticks():
        parts += [line(left, up.at(tick), right, up.at(tick), "grid"), text(left - 8, up.at(tick) + 4, short(tick), "soft", "end")]
    parts.append(text((left + right) / 2, bottom + 38, table.axis, "soft", "middle"))
    for place, (curve, y) in enumerate(zip(lines, name_places(lines, up))):
        parts += curve_of(curve, across, up, f"c{place % 6}", right + 14, y)
    return svg(bottom + 54, table.title, parts)


def name_places(lines: Sequence[Curve], up: Axis) -> list[float]:
    """Heights of the curves' names: at their ends, but never one over another."""
    wanted = sorted((up.at(curve.points[-1][1].middle), place) for place, curve in enumerate(lines))
    found, last = [0.0] * len(lines), -math.inf
    for y, place in wanted:
        last = found[place] = max(y, last + 18)
    return found


def curve_of(curve: Curve, across: Axis, up: Axis, colour: str, name_x: float, name_y: float) -> Iterator[str]:
    places = [(across.at(at), up.at(spread.middle)) for at, spread in curve.points]
    yield f'<polyline class="{colour} curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    for (x, y), (_, spread) in zip(places, curve.points):
        yield line(x, up.at(spread.low), x, up.at(spread.high), colour)
        yield f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    yield text(name_x, name_y + 4, curve.name, f"{colour} name")
