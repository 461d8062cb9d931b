"""Results as a page: Markdown, and nothing else."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from .chart import alt_text, drawn, file_name, number
from .measure import Column, Effort, Goal, Result, Spread
from .profile import Profile

IMAGES = "images/benchmarks"

HEAD = """# Benchmarks

Written by `make bench` (`python -m benchmarks`) on {date}; `benchmarks/README.md` says how to run it with all the peers. Only ratios
are worth comparing between machines, and only those measured in the same run.

- Machine: {machine}
- Python {python}; {versions}
- {effort}
{note}
Each contestant runs in a process of its own, in turn with the others (A B C A B C …), after a warm-up and with the garbage collected
before each round; the server is one process on the same machine and answers with bytes made beforehand. CPU is the time of all
threads of the contestant's process, wall time stands beside it. Brackets hold the quartiles over the rounds. A ratio is the median of
the ratios round by round. Where a figure is missed, the same run has looked where the time of ours goes and says so below the figure.
"""


def span(spread: Spread, scale: float = 1.0) -> str:
    return f"{number(spread.middle * scale)} ({number(spread.low * scale)}–{number(spread.high * scale)})"


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def contestants_table(result: Result) -> list[str]:
    table = result.table
    columns = [column for column in table.all_columns if any(result.has(name, column.quantity) for name in result.readings)]
    reference = table.reference if table.reference in result.readings and table.timed else None
    head = ["", *(column.head for column in columns), *(["CPU × reference"] if reference else [])]
    lines = [row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for name in result.readings:
        cells = [name, *(shown(result, name, column) for column in columns)]
        cells += [("reference" if name == reference else span(result.compared(name, reference, "cpu_s")))] if reference else []
        lines.append(row(cells))
    return lines


def shown(result: Result, name: str, column: Column) -> str:
    return span(result.spread(name, column.quantity), column.scale) if result.has(name, column.quantity) else "–"


def target(result: Result, goal: Goal) -> str:
    column = result.table.column(goal.of)
    if goal.than is None:
        return f"≤ {goal.at_most * column.scale:.3g} {column.unit}, {column.name}"
    if goal.difference:
        return f"≤ {goal.at_most * column.scale:.3g} {column.unit} above {goal.than}, {column.name}"
    return f"≤ {goal.at_most:.3g} × {goal.than}, {column.name}"


def goals_table(result: Result) -> list[str]:
    lines = [row(["figure", "measured", "target", ""]), row(["---", "---:", "---", "---"])]
    for goal in result.table.goals:
        reached = result.reached(goal)
        if reached is None:
            lines.append(row([goal.figure, "–", target(result, goal), "not measured, a peer was left out"]))
            continue
        scale = result.table.column(goal.of).scale if goal.than is None or goal.difference else 1.0
        said = "met" if reached.middle <= goal.at_most else "**not met**"
        lines.append(row([goal.figure, span(reached, scale), target(result, goal), said]))
    return lines


def percent(shares: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"`{name}` {share:.0%}" for name, share in shares if share >= 0.005)


def explanation(name: str, profile: Profile) -> str:
    """Where a contestant's time or memory went, as two lines of a list."""
    return f"- {name}, {profile.whole}, by part: {percent(profile.parts)}\n- and by place: {percent(profile.places)}"


def section(result: Result) -> str:
    """A chart, a table of contestants, one of goals, and for those that were missed where the time goes."""
    table = result.table
    blocks = [f"## {table.title}", *([table.about] if table.about else [])]
    blocks += [f"![{alt_text(result)}]({IMAGES}/{file_name(table)})", "\n".join(contestants_table(result))]
    blocks += ["\n".join(goals_table(result))] if table.goals else []
    if result.profiles:
        blocks.append("Where it goes:\n\n" + "\n".join(explanation(*profile) for profile in result.profiles.items()))
    if result.absent:
        blocks.append("Left out: " + ", ".join(f"{name} ({why})" for name, why in result.absent.items()) + ".")
    return "\n\n".join(blocks)


def processor() -> str:
    """The processor's name as its maker writes it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {processor()}, {platform.system()} {platform.machine()}"


def versions(results: Iterable[Result]) -> str:
    """The version of everything that took part."""
    took_part = (c for result in results for c in result.table.contestants if c.name in result.readings)
    packages = sorted({package for contestant in took_part for package in contestant.packages})
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def summary(results: Iterable[Result]) -> str:
    """How many figures are met, and which are not."""
    results = list(results)
    measured = sum(result.reached(goal) is not None for result in results for goal in result.table.goals)
    missed = [goal.figure for result in results for goal in result.missed()]
    said = f"{measured - len(missed)} of {measured} figures are met."
    return said + (f" Not met: {', '.join(missed)}." if missed else "")


def page(results: Sequence[Result], effort: Effort, note: str) -> str:
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        machine=machine(),
        python=platform.python_version(),
        versions=versions(results),
        effort=f"{effort.rounds} rounds of about {effort.round_s:g} s for each contestant, where a section does not say otherwise",
        note=f"- {note}\n" if note else "",
    )
    return "\n\n".join([head.rstrip(), summary(results), *map(section, results)]) + "\n"


def write_page(path: Path, results: Sequence[Result], effort: Effort, note: str) -> None:
    """Write the page, and its charts beside it in place of those of the run before."""
    images = path.parent / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("*.svg"):
        old.unlink()
    for result in results:
        (images / file_name(result.table)).write_text(drawn(result), "utf-8")
    path.write_text(page(results, effort, note), "utf-8")
