"""What it costs to tell percentiles: of a million values at once, and of sketches that are merged and read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from .measure import Contestant, Goal, Place, Run, Table

VALUES, LEVELS = 1_000_000, (0.5, 0.95, 0.99)
SKETCHES, SKETCHED = 10, 10_000
MERGE = "merge a sketch and read it"


def ours(place: Place, values: int) -> Iterator[Run]:
    import numpy as np

    from toolkit.stats import percentile

    sample = np.random.default_rng(1).lognormal(0, 0.5, values)

    def run(n: int) -> None:
        for _ in range(n):
            percentile(sample, LEVELS)

    yield run


def numpy_percentile(place: Place, values: int) -> Iterator[Run]:
    import numpy as np

    sample = np.random.default_rng(1).lognormal(0, 0.5, values)

    def run(n: int) -> None:
        for _ in range(n):
            np.percentile(sample, [100 * level for level in LEVELS])

    yield run


def sketches() -> list[object]:
    from toolkit.monitor.sketch import Sketch

    rng, made = random.Random(1), []
    for _ in range(SKETCHES):
        sketch = Sketch()
        for _ in range(SKETCHED):
            sketch.add(rng.lognormvariate(0, 0.5))
        made.append(sketch)
    return made


def merge_and_read(place: Place) -> Iterator[Run]:
    from toolkit.monitor.sketch import Sketch

    made = sketches()

    def run(n: int) -> None:
        for _ in range(n):
            total = Sketch()
            for sketch in made:
                total.merge(sketch)
                total.percentiles(*LEVELS)

    yield run


OURS, NUMPY = "toolkit.stats.percentile", "numpy.percentile"


def tables(values: int = VALUES) -> tuple[Table, ...]:
    return (
        Table(
            title="What do percentiles of many values cost?",
            operation="look",
            unit="ms",
            reference=NUMPY,
            about=f"p50, p95 and p99 of {values:,} log-normal values.",
            contestants=(
                Contestant(NUMPY, partial(numpy_percentile, values=values), ("numpy",)),
                Contestant(OURS, partial(ours, values=values), ("model-comparison-toolkit",)),
            ),
            goals=(Goal("percentiles of many values", OURS, NUMPY, 1.5),),
        ),
        Table(
            title="What does it cost to merge sketches and read them?",
            operation="merge and reading",
            unit="ms",
            reference=MERGE,
            about=f"Sketches of {SKETCHED:,} values each, the bounded memory behind `performance_monitor`; three percentiles after each merge.",
            contestants=(Contestant(MERGE, merge_and_read, per=SKETCHES),),
            goals=(Goal("sketch merge and read", MERGE, None, 1e-3),),
        ),
    )
