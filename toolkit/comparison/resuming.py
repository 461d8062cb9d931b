"""Going on with a run that was stopped: by a kill, an interrupt, a machine that went away.

With the cache on, asking again is enough: what is there is not asked. Without it each call must be live, so what the stopped run had
finished is read back from the journal.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import ToolkitError
from ..monitor.events import CALL_COLUMNS, CallRecord
from ..monitor.journal import Journal, JournalReader
from ..rates import TokenFlow
from ..schemas import SchemaChoice, read_schema
from ..types import Completion, Timing, Usage
from .grid import Plan
from .run import Run

__all__ = ["FormerRun", "find_stopped_run", "finished_rows", "journaled_rows", "mark_under_way", "read_completion", "resume", "take_over"]

CUT_SHORT = ("CancelledError", "KeyboardInterrupt")

_log = logging.getLogger(__name__)
_under_way: weakref.WeakSet[Run] = weakref.WeakSet()


class FormerRun:
    """A run of the journal that asked the same, and the rows it had finished, by cell index."""

    def __init__(self, run_id: str, at: float, order_seed: int, rows: dict[int, CallRecord]) -> None:
        self.run_id = run_id
        self.at = at
        self.order_seed = order_seed
        self.rows = rows


def mark_under_way(run: Run) -> None:
    """Remember a run for as long as somebody holds it and it is not over: it is nobody else's to go on with."""
    _under_way.add(run)


def find_stopped_run(journal: Journal, plan: Plan, name: str) -> FormerRun | None:
    """Return the last run of this name that asked what the plan asks, if it did not finish; ``None`` where there is nothing to take over."""
    journal.flush()
    try:
        reader = journal.reader()
        runs = reader.runs()
        digest = plan.digest()
        for run_id, at, process, other, text in reversed(list(zip(*(runs[c] for c in ("run_id", "at", "process", "name", "plan"))))):
            described = json.loads(text)
            if other == name and described.get("digest") == digest:
                rows = {} if being_carried_out(run_id, process) else rows_of(reader, plan, run_id)
                answers = {index: row for index, row in rows.items() if row.status == "ok" and row.text is not None}
                return FormerRun(run_id, at, described["order_seed"], answers) if answers and len(rows) < len(plan) else None
    except (ToolkitError, ValueError, KeyError) as exc:  # nothing is lost but time
        _log.warning("no run is resumed, for the journal can't be read: %s", exc)
    return None


def being_carried_out(run_id: str, process: str) -> bool:
    """Whether a run is not over: it is this process's, or that of another one on this machine that is alive."""
    host, _, number = process.rpartition(":")
    if host != socket.gethostname() or int(number) == os.getpid():
        return any(run.run_id == run_id and not run.over for run in _under_way)
    return alive(int(number))


def alive(process_id: int) -> bool:
    if os.name == "nt":  # where os.kill would end it
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def rows_of(reader: JournalReader, plan: Plan, run_id: str) -> dict[int, CallRecord]:
    """Return the rows of a run by cell index, an answer before a failure; calls that were cut short don't count."""
    found: dict[int, CallRecord] = {}
    for index, row in finished_rows(reader.calls(run=run_id), plan.indices(), run_id):
        if row.status == "ok" or index not in found:
            found[index] = row
    return found


def finished_rows(
    columns: Mapping[str, list[Any]], index_of: Callable[[str, str | None, int], int | None], run_id: str
) -> Iterator[tuple[int, CallRecord]]:
    """Give the rows of a run's calls that were not cut short, with their cell indices."""
    for values in zip(*(columns[name] for name in CALL_COLUMNS)):
        row = CallRecord(*values)
        index = index_of(row.label, row.prompt_id, row.repeat)
        if index is not None and row.run_id == run_id and row.operation == "text" and row.error_type not in CUT_SHORT:
            yield index, row


def resume(run: Run, former: FormerRun) -> None:
    """Put the finished rows of a stopped run into a new one, and have the scorers judge them."""
    for index, row in former.rows.items():
        take_over(run, index, row)
    began = time.strftime("%H:%M", time.localtime(former.at))
    run.notes.append(f"resumed: {len(former.rows)} of {len(run.plan)} are from the run of {began}")


def take_over(run: Run, index: int, row: CallRecord) -> None:
    """Put a row of the journal into a run, and have the scorers judge it."""
    cell = run.plan.cell(index)
    run.add(index, row)
    run.answered(cell, read_completion(row, cell.variant.options.schema))


def journaled_rows(journal: Journal, plan: Plan, run_id: str) -> dict[int, CallRecord]:
    """Return the answers that the journal has of a run, by cell index; those whose content was not recorded don't count."""
    rows = rows_of(journal.reader(), plan, run_id)
    return {index: row for index, row in rows.items() if row.status == "ok" and row.text is not None}


def read_completion(row: CallRecord, schema: SchemaChoice | None = None) -> Completion:
    """Make a completion of a row, as far as the journal has it: without reasoning, tool calls and single tokens."""
    text = row.text or ""
    times: dict[str, Any] = {name: getattr(row, name) for name in TIMES}  # numbers of a Timing
    flow = TokenFlow(latency_s=row.latency_s or 0.0, output_tokens=row.output_tokens, reasoning_tokens=row.reasoning_tokens)
    return Completion(
        text=text,
        provider=row.provider,
        model=row.model,
        served_model=row.served_model,
        finish_reason=row.finish_reason or "unknown",  # type: ignore[arg-type]
        usage=Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            reasoning_tokens=row.reasoning_tokens,
            cached_input_tokens=row.cached_input_tokens,
        ),
        timing=Timing(**times, flow=flow),
        cost_usd=row.cost_usd,
        price_date=row.price_date,
        provenance=row.provenance,  # type: ignore[arg-type]
        attempts=row.attempts,
        request_id=row.request_id,
        call_id=row.call_id,
        parsed=None if schema is None else read_schema(schema).read(text),
        reported=json.loads(row.reported) if row.reported else {},
    )


TIMES = (
    "total_s", "lookup_s", "limiter_wait_s", "retry_sleep_s", "failed_attempts_s", "latency_s", "consumer_s", "ttft_s", "ttfa_s",
    "loop_stall_s",
)  # fmt: skip
