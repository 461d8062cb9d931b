"""What a cell of a comparison costs beside its call, as grids grow: laying out, taking down, the frame."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

from .measure import MEMORY, Column, Contestant, Goal, Place, Reading, Run, Table
from .profile import Profile, profiled

SIZES = tuple(10**n for n in range(2, int(os.environ.get("GROWTH", "5")) + 1))
MODELS = 4
NAME = "tk.compare without its calls, {:,} cells"
PROMPT = "question {}"


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a file that only Linux has
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def laid_out(cells: int) -> Callable[[], tuple[Any, Reading]]:
    """Return what lays out a grid, takes down a row for each cell and makes the frame; the rows are like those of calls, and nobody is asked."""
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

    def grid(size: int) -> tuple[Any, Reading]:
        prompts = [PROMPT.format(i) for i in range(size // MODELS)]
        gc.collect()
        before, cpu, wall = rss_bytes(), time.process_time(), time.perf_counter()
        state = runs.Run(plan=build_plan(models, prompts, repeats=1, options=Options(), template=None, order_seed=1), run_id="growth")
        spent_cpu = spent_wall = 0.0
        texts = 0
        while (cell := state.next_cell()) is not None:
            start_cpu, start_wall = time.process_time(), time.perf_counter()
            # What is a call's own: times, ids and texts, which no two calls share.
            times = {name: cell.index / part for part, name in enumerate(OWN_TIMES, 3)}
            mine = row._replace(
                label=cell.variant.label, prompt_id=cell.question.prompt_id, at=row.at + cell.index, call_id=f"{cell.index:024x}",
                key=f"{cell.index:064x}", prompt_sha256=f"{-cell.index:064x}", prompt=cell.question.text, text=f"answer {cell.index}", **times,
            )  # fmt: skip
            texts += len(cell.question.text) + len(mine.text)
            spent_cpu += time.process_time() - start_cpu
            spent_wall += time.perf_counter() - start_wall
            state.add(cell.index, mine)
        comparison = Comparison(state)
        assert len(comparison.frame) == size
        cpu_s, wall_s = time.process_time() - cpu - spent_cpu, time.perf_counter() - wall - spent_wall
        return comparison, Reading(cpu_s / size, wall_s / size, {MEMORY: (rss_bytes() - before - texts) / size})

    def work() -> tuple[Any, Reading]:
        grid(MODELS)  # the first frame loads what all frames need
        return grid(cells)

    return work


OWN_TIMES = ("lookup_s", "limiter_wait_s", "latency_s", "consumer_s", "total_s", "ttft_s", "ttfa_s", "output_tokens_per_s")


def grid_of(place: Place, cells: int) -> Iterator[Run]:
    """A grid in a fresh copy of this process each time, so that its memory is new."""
    work = laid_out(cells)

    def run(n: int) -> Reading:
        assert n == 1
        return in_a_copy(lambda: work()[1])

    yield run


def in_a_copy(work: Callable[[], Reading]) -> Reading:
    """Do something in a copy of this process, which is gone afterwards."""
    out, into = os.pipe()
    if os.fork() == 0:
        try:
            os.write(into, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as told:  # noqa: PTH123 - a pipe
        got: Reading = pickle.loads(told.read())
    os.wait()
    return got


def explain_grid(place: Place, memory: bool, *, cells: int) -> Profile | None:
    work, kept = laid_out(cells), []
    return profiled(lambda n: kept.append(work()), 1, memory=memory)


def tables(sizes: tuple[int, ...] = SIZES) -> tuple[Table, ...]:
    names = [NAME.format(size) for size in sizes]
    largest, reference = names[-1], names[min(1, len(names) - 1)]
    return (
        Table(
            title="What does a cell cost as grids grow?",
            reference=reference,
            fixed=True,
            rounds=3,
            operation="cell",
            axis="cells",
            columns=(Column(MEMORY, "memory", "bytes a cell"),),
            about=(
                f"{MODELS} models and ever more prompts. Measured is what a comparison does around its calls: the plan, the order, taking "
                "down each row, and the frame. Memory is what a fresh process grew by, without the prompts and answers."
            ),
            contestants=tuple(
                Contestant(
                    name,
                    functools.partial(grid_of, cells=size),
                    series="tk.compare without its calls",
                    at=size,
                    explain=functools.partial(explain_grid, cells=size),
                )
                for name, size in zip(names, sizes)
            ),
            goals=(
                Goal("a cell of the largest grid", largest, reference, 1.5),
                Goal("time of a cell", largest, None, 25e-6),
                Goal("memory of a cell", largest, None, 2_000, of=MEMORY),
            ),
        ),
    )
