"""What has to hold at the end, each as a sentence with what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.monitor.journal import JournalReader

from .gauges import Growth, Reading, growth
from .load import Ledger
from .reading import Seen
from .server import FAULTS_PER_1000, said

WARM_UP = 0.2
"""The part of the readings that is left out: caches fill, files reach the size at which they are tidied up."""
MEGABYTE = 1e6
MOST_GROWTH_MB = 16.0
MOST_BLOCKS = 20_000.0
MOST_HANDLES = 3.0
MOST_WAITING_S = 2.0
AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """A run that is over."""

    rate: float
    seconds: float  # in which calls began
    took_s: float  # until the last one had ended
    readings: Sequence[Reading]
    ledger: Ledger
    journal: Path
    lost: int
    left_behind: str  # what the toolkit still held after it was closed and had not held before; empty where nothing
    stuck: int  # calls that a limiter or the table of calls under way still counted when all had ended
    reader: Seen
    faults: Counter[str]

    @property
    def warm(self) -> Sequence[Reading]:
        return self.readings[round(len(self.readings) * WARM_UP) :]


def checks(run: Soaked) -> list[Check]:
    return [*answer_checks(run), *row_checks(run), *growth_checks(run), *pace_checks(run)]


def answer_checks(run: Soaked) -> Iterator[Check]:
    ends = run.ledger.ends
    answered = sum(ends[name] for name in ("live", "replayed", "coalesced"))
    yield Check(
        "every answer is what the service says to that prompt, from the cache too",
        not run.ledger.wrong,
        told(f"{answered:,} answers", run.ledger.wrong),
    )
    yield Check(
        "every failure is an error of the toolkit's",
        not run.ledger.strange,
        told(f"{run.ledger.ended - answered:,} calls without an answer", run.ledger.strange),
    )
    missing = [fault for fault in FAULTS_PER_1000 if not run.faults[fault]]
    yield Check(
        "every fault happened",
        not missing,
        told(f"{run.faults.total() - run.faults['good']:,} faults in {run.faults.total():,} requests", missing),
    )


def row_checks(run: Soaked) -> Iterator[Check]:
    """Hold the journal against the ledger: the same prompts, each as often, and the ids that callers were given."""
    reader, after, rows = JournalReader(run.journal), 0, 0
    asked, ids = in_the_ledger(run.ledger.path)
    given, foreign, twisted = len(ids), 0, 0
    while True:
        found = reader.calls(after, limit=AT_ONCE, columns=["row", "call_id", "prompt", "status", "text"])
        if not found["row"]:
            break
        after = found["row"][-1]
        for call_id, prompt, status, text in zip(found["call_id"], found["prompt"], found["status"], found["text"]):
            rows += 1
            ids.discard(call_id)
            asked[prompt] -= 1
            foreign += asked[prompt] < 0
            twisted += status == "ok" and text != said(prompt)
    lost = sum(count for count in asked.values() if count > 0)
    yield Check("no row is lost", not lost and not run.lost, f"{rows:,} rows of {run.ledger.begun:,} calls, {lost + run.lost:,} missing")
    yield Check("no row is doubled", not foreign, f"{foreign:,} more than were asked")
    yield Check("every id that a caller was given is there", not ids, f"{given - len(ids):,} of {given:,}")
    yield Check("every row holds the answer to its own prompt", not twisted, f"{twisted:,} others")
    seen = run.reader
    yield Check(
        "a second process saw each row once and in order",
        seen.wrong is None and seen.calls == rows,
        seen.wrong or f"{seen.calls:,} rows, {seen.errors:,} errors",
    )


def in_the_ledger(path: Path) -> tuple[Counter[str], set[str]]:
    asked: Counter[str] = Counter()
    ids: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            prompt, _, call_id = line.rstrip("\n").partition("\t")
            asked[prompt] += 1
            if call_id:
                ids.add(call_id)
    return asked, ids


def growth_checks(run: Soaked) -> Iterator[Check]:
    """Say of each gauge how much it grew after the warm-up; the upper end of the interval has to stay below the limit."""
    yield flat(run, "memory", "rss_bytes", MOST_GROWTH_MB, "MB", MEGABYTE)
    yield flat(run, "pieces of memory that Python handed out", "blocks", MOST_BLOCKS, "pieces")
    yield flat(run, "memory of the reading process", "reader_bytes", MOST_GROWTH_MB, "MB", MEGABYTE)
    for name in ("threads", "sockets", "files"):
        yield flat(run, name if name == "threads" else f"open {name}", name, MOST_HANDLES, name, floor=True)
    yield Check("after closing nothing is held", not run.left_behind, run.left_behind or "no thread, socket or file more than before")
    yield Check("no place is taken by a call that has ended", not run.stuck, f"{run.stuck} places")
    bytes_per_call = growth([each.calls for each in run.warm], [each.journal_bytes for each in run.warm])
    yield Check(
        "the journal grows by what is written",
        bytes_per_call.high_per_call < 4_000,
        f"{bytes_per_call.middle / bytes_per_call.calls:,.0f} bytes a call",
    )


def flat(run: Soaked, what: str, name: str, most: float, unit: str, scale: float = 1.0, *, floor: bool = False) -> Check:
    values = [getattr(each, name) / scale for each in run.warm]
    grown = growth([each.calls for each in run.warm], lowest_around(values) if floor else values)
    return Check(f"{what}: flat", grown.high <= most, f"{shown(grown)} {unit} in {grown.calls:,} calls; at most {most:,.0f}")


def lowest_around(values: Sequence[float]) -> list[float]:
    """The least of five readings in a row: a crowd for a moment needs more connections, what is never let go of raises the floor."""
    return [min(values[max(0, i - 2) : i + 3]) for i in range(len(values))]


def shown(grown: Growth) -> str:
    digits = 0 if abs(grown.high) >= 100 else 1
    return f"{grown.middle:+,.{digits}f} ({grown.low:+,.{digits}f} to {grown.high:+,.{digits}f})"


def pace_checks(run: Soaked) -> Iterator[Check]:
    achieved = run.ledger.ended / run.took_s
    yield Check(
        "the rate is kept", achieved >= 0.97 * run.rate, f"{achieved:,.1f} calls/s of {run.rate:,.0f}, the last call's end included"
    )
    waiting = max(each.waiting for each in run.warm)
    yield Check("the journal keeps up", waiting <= MOST_WAITING_S * run.rate, f"at most {waiting:,} records waited")
    backlog = sorted(each.under_way for each in run.warm)[len(run.warm) // 2]
    yield Check(
        "calls do not pile up", backlog <= MOST_WAITING_S * run.rate, f"at most {backlog:,} under way between two readings, in the median"
    )


def told(seen: str, wrong: Sequence[str]) -> str:
    return seen if not wrong else f"{seen}; {'; '.join(wrong[:3])}"
