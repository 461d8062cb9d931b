"""What the journal costs as it grows: adding to it, reading what is new, and a call that is written to it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator

from .journal import BATCH, call_rows, written_journal
from .measure import Column, Contestant, Goal, Place, Reading, Run, Table

SIZES = tuple(10**n for n in range(3, int(os.environ.get("JOURNAL_GROWTH", "6")) + 1))
NAME = "journal of {:,} rows"
CALLS = 100


def cpu_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def journal_of(place: Place, rows: int) -> Iterator[Run]:
    import toolkit as tk
    from toolkit.monitor.journal import Journal, JournalReader

    url, serial = written_journal(place, f"grown-{rows}", rows), rows
    journal, reader = Journal(url), JournalReader(url)
    client = tk.Client(cache=False, journal=journal)

    def add() -> None:
        for row in batch:
            journal.append(row)
        assert journal.flush()

    def news() -> None:
        assert len(reader.calls(after_row=last)["row"]) == BATCH

    def calls() -> None:
        for _ in range(CALLS):
            client.generate_text("scripted/echo", "hi", cache=False)
        assert journal.flush()

    def run(n: int) -> Reading:
        nonlocal batch, last, serial
        wall = add_s = news_s = calls_s = 0.0
        for _ in range(n):
            serial += 1
            batch, last = call_rows(BATCH, serial, start=time.time(), span_s=1.0), reader.version("call").row
            begun = time.perf_counter()
            add_s += cpu_of(add)
            wall += time.perf_counter() - begun
            news_s += cpu_of(news)
            calls_s += cpu_of(calls)
        return Reading(add_s / n / BATCH, wall / n / BATCH, {"news": news_s / n / BATCH, "call": calls_s / n / CALLS})

    batch, last = call_rows(BATCH), 0
    yield run
    client.close()
    journal.close()


def tables(sizes: tuple[int, ...] = SIZES) -> tuple[Table, ...]:
    names = [NAME.format(size) for size in sizes]
    return (
        Table(
            title="What does the journal cost as it grows?",
            reference=names[0],
            operation="row",
            axis="rows in the journal",
            rounds=5,
            columns=(
                Column("news", "CPU", "µs a new row read", 1e6),
                Column("call", "CPU", "µs a call, written", 1e6),
            ),
            drawn=("cpu_s", "news", "call"),
            about=(
                f"A batch of {BATCH} rows is added to a journal that has rows already, and read as what is new since the last look; then {CALLS} "
                "calls of a model that answers from a script are made and written. Nothing is archived."
            ),
            contestants=tuple(Contestant(name, functools.partial(journal_of, rows=size), at=size) for name, size in zip(names, sizes)),
            goals=(
                Goal("adding to a large journal", names[-1], names[0], 1.5),
                Goal("what is new in a large journal", names[-1], names[0], 1.5, of="news"),
                Goal("a call with a large journal", names[-1], names[0], 1.5, of="call"),
            ),
        ),
    )
