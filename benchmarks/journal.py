"""What the journal costs: writing a batch, and reading all of it into polars before and after its days moved to Parquet."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .measure import Contestant, Goal, Place, Run, Table
from .one_call import journal_in

BATCH = 500
DAY_S = 86_400


BLOCK, SPAN_S = 10_000, 9 * DAY_S


def begun_at() -> float:
    """The start of a span of calls that ends two days ago, so that all its days can be archived."""
    return time.time() // DAY_S * DAY_S - 11 * DAY_S


def call_rows(count: int, serial: int = 0, *, start: float | None = None, span_s: float = SPAN_S) -> list[Any]:
    """Calls as they come, evenly over a span of time."""
    from toolkit.monitor.events import CALL_COLUMNS, CallRecord

    empty, rng, first = CallRecord(**dict.fromkeys(CALL_COLUMNS)), random.Random(serial), begun_at() if start is None else start
    prefix = rng.getrandbits(64)  # as the toolkit's own ids have one for each process
    return [
        empty._replace(
            at=first + span_s * i / count, call_id=f"{prefix:016x}{i:08x}", run_id="r-1", process="host:1", provider="openai", model="openai/bench",
            label="bench", operation="text", prompt_id=f"{i % 1000:04d}", repeat=i // 1000, status="ok", finish_reason="stop", provenance="live",
            attempts=1, lookup_s=rng.random() / 1e4, limiter_wait_s=0.0, retry_sleep_s=0.0, failed_attempts_s=0.0, latency_s=rng.lognormvariate(0, 0.5),
            consumer_s=0.0, total_s=rng.lognormvariate(0, 0.5), input_tokens=100, output_tokens=rng.randrange(500), cost_usd=rng.random() / 100,
            prompt_sha256=f"{rng.getrandbits(256):064x}", prompt_chars=400, text_chars=1200,
        )
        for i in range(count)
    ]  # fmt: skip


ANEW = {
    "at": "at + ?1",
    "call_id": "?2 || substr(call_id, 17)",
    "prompt_sha256": "lower(hex(randomblob(32)))",
    **{name: f"{name} * (1 + random() / 1e20)" for name in ("lookup_s", "latency_s", "total_s", "cost_usd")},
}
"""What is a call's own, where the database itself makes more rows of a block."""


def written_journal(place: Place, name: str, rows: int) -> str:
    """Fill a journal block by block, in the order of time: the first as the toolkit writes it, the others by SQLite, which is quicker."""
    from toolkit.monitor.events import CALL_COLUMNS
    from toolkit.monitor.journal.sqlite import open_file

    url, block = journal_in(place, name), min(rows, BLOCK)
    span_s = SPAN_S * block / rows
    columns, values = ", ".join(CALL_COLUMNS), ", ".join(ANEW.get(column, column) for column in CALL_COLUMNS)
    copy = f"INSERT INTO call ({columns}) SELECT {values} FROM call WHERE row <= {block}"
    with contextlib.closing(open_file(Path(url))) as db:
        db.write(call_rows(block, span_s=span_s))
        for number in range(1, rows // block):
            with db.transaction():
                db.change(copy, (span_s * number, f"{random.getrandbits(64):016x}"))
    return url


def our_batch(place: Place) -> Iterator[Run]:
    from toolkit.monitor.journal import Journal

    journal, serial = Journal(journal_in(place, "batches")), 0

    def run(n: int) -> None:
        nonlocal serial
        for _ in range(n):
            serial += 1
            for number, row in enumerate(template):
                journal.append(row._replace(call_id=f"{serial}-{number}"))
            journal.flush()

    template = call_rows(BATCH)
    yield run
    journal.close()


def plain_batch(place: Place) -> Iterator[Run]:
    """The least that SQLite can do: the same columns, no index, no id that has to be unique."""
    template = call_rows(BATCH)
    db = sqlite3.connect(Path(place.folder, f"plain-{os.getpid()}.sqlite"), isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"CREATE TABLE call ({', '.join(template[0]._fields)})")
    insert = f"INSERT INTO call VALUES ({', '.join('?' * len(template[0]))})"

    def run(n: int) -> None:
        for _ in range(n):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(insert, template)
            db.execute("COMMIT")

    yield run
    db.close()


def our_reading(place: Place, *, rows: int, archived: bool) -> Iterator[Run]:
    from toolkit.monitor.journal import JournalReader, read_address
    from toolkit.monitor.journal.pruning import prune

    url = written_journal(place, f"reading-{archived}", rows)
    if archived:
        prune(read_address(url), now=time.time(), archive_after_s=DAY_S)

    def run(n: int) -> None:
        for _ in range(n):
            assert JournalReader(url).scan().collect().height == rows

    yield run


def one_parquet(place: Place, *, rows: int) -> Iterator[Run]:
    import polars as pl

    from toolkit.monitor.journal import JournalReader

    path = Path(place.folder, f"peer-{os.getpid()}.parquet")
    JournalReader(written_journal(place, "peer", rows)).scan().collect().write_parquet(path)

    def run(n: int) -> None:
        for _ in range(n):
            assert pl.read_parquet(path).height == rows

    yield run


BATCHED, PLAIN = "journal, a batch of 500", "sqlite3 executemany, no index"
HOT, ARCHIVED, PARQUET = "journal, all in the database", "journal, archived", "pl.read_parquet, one file"


def tables(rows: int = 1_000_000) -> tuple[Table, ...]:
    return (
        Table(
            title="What does it cost to write a batch of 500 calls to the journal?",
            operation="batch",
            unit="ms",
            reference=PLAIN,
            about="The batch is in the write-ahead log when the round ends; ours has a unique id and three indices.",
            contestants=(Contestant(PLAIN, plain_batch), Contestant(BATCHED, our_batch, ("model-comparison-toolkit",))),
            goals=(),
        ),
        Table(
            title=f"How long does it take to read {rows:,} calls into polars?",
            operation="reading",
            unit="ms",
            reference=PARQUET,
            fixed=True,
            rounds=3,
            about="All columns, ten days.",
            contestants=(
                Contestant(PARQUET, partial(one_parquet, rows=rows), ("polars",)),
                Contestant(ARCHIVED, partial(our_reading, rows=rows, archived=True)),
                Contestant(HOT, partial(our_reading, rows=rows, archived=False)),
            ),
            goals=(Goal("reading an archived journal", ARCHIVED, PARQUET, 2.0),),
        ),
    )
