"""What a cell of a comparison costs beside its call, as grids grow: laying out, taking down, the frame."""

from __future__ import annotations

import functools
import gc
import os
import resource
import sys
import time
from collections.abc import Iterator

from .measure import Contestant, Goal, Place, Reading, Run, Table

SIZES = tuple(10**n for n in range(2, int(os.environ.get("GROWTH", "5")) + 1))
MODELS = 4
REFERENCE = "tk.compare without its calls, {:,} cells"


def rss_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def grid_of(place: Place, cells: int) -> Iterator[Run]:
    """Lay out a grid, take down a row for each cell and make the frame; the rows are like those of calls, and nobody is asked."""
    import toolkit as tk
    from toolkit.client import Options
    from toolkit.comparison import run as runs
    from toolkit.comparison.comparison import Comparison
    from toolkit.comparison.grid import Model, build_plan

    models = [Model("scripted/echo", label=f"model {i}", seed=i) for i in range(MODELS)]
    with tk.Client(cache=False, journal=False) as client:
        kept = []
        client.ask("scripted/echo", "a question", Options(), cache=False, observe=kept.append)
    row = kept[0].call_row(content=True)

    def run(n: int) -> Reading:
        assert n == 1
        prompts = [f"question {i}" for i in range(cells // MODELS)]
        gc.collect()
        before, cpu, wall = rss_bytes(), time.process_time(), time.perf_counter()
        state = runs.Run(plan=build_plan(models, prompts, repeats=1, options=Options(), template=None, order_seed=1), run_id="growth")
        spent = 0.0
        while (cell := state.next_cell()) is not None:
            start = time.process_time()
            # What is a call's own: times, ids and texts, which no two calls share.
            mine = row._replace(
                label=cell.variant.label, prompt_id=cell.question.prompt_id, at=row.at + cell.index, call_id=f"{cell.index:024x}",
                key=f"{cell.index:064x}", prompt_sha256=f"{-cell.index:064x}", latency_s=cell.index / 3, total_s=cell.index / 7,
            )  # fmt: skip
            spent += time.process_time() - start
            state.add(cell.index, mine)
        comparison = Comparison(state)
        assert len(comparison.frame) == cells
        cpu_s, wall_s = time.process_time() - cpu - spent, time.perf_counter() - wall - spent
        return Reading(cpu_s / cells, wall_s / cells, rss_bytes=max(0.0, rss_bytes() - before) / cells)

    yield run


NOTES = {
    "a cell of the largest grid": "the frame's columns no longer fit the processor's cache.",
}


def tables(sizes: tuple[int, ...] = SIZES) -> tuple[Table, ...]:
    names = [REFERENCE.format(size) for size in sizes]
    largest, reference = names[-1], names[min(1, len(names) - 1)]
    return (
        Table(
            title="What does a cell cost as grids grow?",
            reference=reference,
            fixed=True,
            rounds=3,
            operation="cell",
            about=(
                f"{MODELS} models and ever more prompts. Measured is what a comparison does around its calls: the plan, the order, taking "
                "down each row, and the frame. `memory` is what the process grew by in its first round, for each cell."
            ),
            contestants=tuple(Contestant(name, functools.partial(grid_of, cells=size)) for name, size in zip(names, sizes)),
            goals=(Goal("a cell of the largest grid", largest, reference, 1.5),),
        ),
    )
