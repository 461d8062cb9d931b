"""Results as a page: Markdown, and nothing else."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from .measure import Effort, Goal, Quantity, Result, Spread

SCALE = {"µs": 1e6, "ms": 1e3}
MEGABYTE = 1e6
QUANTITIES: dict[Quantity, str] = {"cpu_s": "CPU", "wall_s": "wall", "rss_bytes": "memory", "over_ideal": "wall"}

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
the ratios round by round.
"""


def number(value: float) -> str:
    """Three figures that matter, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}"


def span(spread: Spread, scale: float = 1.0) -> str:
    return f"{number(spread.middle * scale)} ({number(spread.low * scale)}–{number(spread.high * scale)})"


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def contestants_table(result: Result) -> list[str]:
    table = result.table
    first = next(iter(result.readings.values()))[0]
    reference = table.reference if table.reference in result.readings else None
    head = ["", f"CPU {table.unit} a {table.operation}", f"wall {table.unit} a {table.operation}"]
    head += ["memory MB"] if first.rss_bytes is not None else []
    head += ["wall × ideal"] if first.over_ideal is not None else []
    head += ["CPU × reference"] if reference else []
    lines = [row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for name in result.readings:
        cells = [name, *(span(result.spread(name, quantity), SCALE[table.unit]) for quantity in ("cpu_s", "wall_s"))]
        cells += [span(result.spread(name, "rss_bytes"), 1 / MEGABYTE)] if first.rss_bytes is not None else []
        cells += [span(result.spread(name, "over_ideal"))] if first.over_ideal is not None else []
        cells += [("reference" if name == reference else span(result.compared(name, reference, "cpu_s")))] if reference else []
        lines.append(row(cells))
    return lines


def target(goal: Goal) -> str:
    if goal.difference:
        return f"≤ {goal.at_most / MEGABYTE:g} MB above {goal.than}"
    return f"≤ {goal.at_most:.3g} × {goal.than}, {QUANTITIES[goal.of]}"


def goals_table(result: Result) -> list[str]:
    lines = [row(["figure", "measured", "target", ""]), row(["---", "---:", "---", "---"])]
    for goal in result.table.goals:
        reached = result.reached(goal)
        if reached is None:
            lines.append(row([goal.figure, "–", target(goal), "not measured, a peer was left out"]))
            continue
        said = "met" if reached.middle <= goal.at_most else "**not met**"
        lines.append(row([goal.figure, span(reached, 1 / MEGABYTE if goal.difference else 1.0), target(goal), said]))
    return lines


def missed(result: Result) -> list[str]:
    reached = {goal.figure: (result.reached(goal), goal.at_most) for goal in result.table.goals}
    return [figure for figure, (spread, at_most) in reached.items() if spread is not None and spread.middle > at_most]


def section(result: Result, notes: Mapping[str, str]) -> str:
    """One table of contestants, one of goals, and a sentence for each goal that was missed."""
    blocks = [f"## {result.table.title}"]
    if result.table.about:
        blocks.append(result.table.about)
    blocks += ["\n".join(contestants_table(result)), "\n".join(goals_table(result))]
    explained = [f"- *{figure}*: {notes[figure]}" for figure in missed(result)]
    if explained:
        blocks.append("Why not met:\n\n" + "\n".join(explained))
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
    named = [figure for result in results for figure in missed(result)]
    said = f"{measured - len(named)} of {measured} figures are met."
    return said + (f" Not met: {', '.join(named)}." if named else "")


def page(results: list[tuple[Result, Mapping[str, str]]], effort: Effort, note: str) -> str:
    only = [result for result, _ in results]
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        machine=machine(),
        python=platform.python_version(),
        versions=versions(only),
        effort=f"{effort.rounds} rounds of about {effort.round_s:g} s for each contestant",
        note=f"- {note}\n" if note else "",
    )
    return "\n\n".join([head.rstrip(), summary(only), *(section(result, notes) for result, notes in results)]) + "\n"
