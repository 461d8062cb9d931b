"""Journals for the dashboard's tests: rows as the monitor writes them, of an invented but believable day."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path

from toolkit.monitor.events import CacheRecord, CallRecord, ErrorRecord, LogRecord, RunRecord, VoteRecord
from toolkit.monitor.journal import Journal

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> ![i](http://192.0.2.1/i.png)"

BLANK = dict.fromkeys(CallRecord._fields)


Record = CallRecord | ErrorRecord | RunRecord | VoteRecord | LogRecord | CacheRecord


def write(path: Path | str, rows: Iterable[Record]) -> None:
    """Append rows to a journal with the real writer."""
    journal = Journal(path)
    for row in rows:
        journal.append(row)
    assert journal.flush()
    journal.close()


def live_call(at: float, model: str = "ollama/llama3.2:1b", *, number: int = 0, latency_s: float = 1.0, **columns: object) -> CallRecord:
    """Return the row of a live call that succeeded."""
    return _call(
        at, model, number, {
            "status": "ok", "finish_reason": "stop", "provenance": "live", "latency_s": latency_s, "total_s": latency_s,
            "ttft_s": latency_s / 4, "ttfa_s": latency_s / 4, "output_tokens_per_s": 40.0, "input_tokens": 20, "output_tokens": 60,
        } | columns,
    )  # fmt: skip


def replayed_call(
    at: float, model: str = "ollama/llama3.2:1b", *, number: int = 0, lookup_s: float = 0.0004, **columns: object
) -> CallRecord:
    """Return the row of a call that the cache answered."""
    return _call(
        at, model, number, {
            "status": "ok", "finish_reason": "stop", "provenance": "replayed", "cache_tier": "disk", "lookup_s": lookup_s, "total_s": lookup_s,
            "saved_s": 1.0, "attempts": 0, "input_tokens": 20, "output_tokens": 60,
        } | columns,
    )  # fmt: skip


def failed_call(
    at: float, model: str = "ollama/llama3.2:1b", *, number: int = 0, error_type: str = "ServerError", **columns: object
) -> CallRecord:
    """Return the row of a call that failed."""
    mark = hashlib.sha256(error_type.encode()).hexdigest()[:16]
    return _call(
        at, model, number, {
            "status": "error", "error_type": error_type, "error_fingerprint": mark, "error_message": f"{model} did not answer",
            "attempts": 3, "failed_attempts_s": 2.0, "retry_sleep_s": 0.7, "total_s": 2.7,
        } | columns,
    )  # fmt: skip


def error_of(call: CallRecord) -> ErrorRecord:
    """Return the error row that goes with a failed call."""
    stack = f'Traceback (most recent call last):\n  File "wire.py", line 12, in send\n{call.error_type}: {call.error_message}'
    return ErrorRecord(
        at=call.at, error_id=f"error-{call.call_id}", call_id=call.call_id, run_id=call.run_id, process=call.process, type=str(call.error_type),
        fingerprint=str(call.error_fingerprint), message=str(call.error_message), stack=stack, context=json.dumps({"url": "http://127.0.0.1"}),
    )  # fmt: skip


def log_entry(at: float, message: str, level: str = "INFO", **columns: object) -> LogRecord:
    """Return the row of an entry of the logger."""
    blank = dict.fromkeys(LogRecord._fields)
    fixed = {"at": at, "log_id": f"{at:.6f}", "process": "host:7", "level": level, "message": message, "context": "{}"}
    return LogRecord(**(blank | fixed | columns))  # type: ignore[arg-type]


def cache_state(at: float, tier: str = "memory", **columns: object) -> CacheRecord:
    """Return the row of a state of the cache of answers."""
    fixed = {"at": at, "state_id": f"{tier}@{at:.6f}", "process": "host:7", "cache": "answers", "tier": tier, "hits": 1, "misses": 2}
    rest = {"evictions": 0, "expirations": 0, "entries": 10, "max_entries": None, "size_bytes": None, "max_bytes": None}
    return CacheRecord(**(fixed | rest | columns))  # type: ignore[arg-type]


def _call(at: float, model: str, number: int, columns: dict[str, object]) -> CallRecord:
    fixed = {
        "at": at, "call_id": f"{model}@{at:.6f}#{number}", "process": "test:1", "provider": model.split("/")[0], "model": model, "label": model,
        "served_model": model, "operation": "text", "prompt_id": f"p{number % 8}", "repeat": 0, "attempts": 1, "prompt": "What is a cache?",
        "text": "A store of answers.", "prompt_chars": 16, "text_chars": 19, "reported": None,
    }  # fmt: skip
    return CallRecord(**(BLANK | fixed | columns))  # type: ignore[arg-type]


MODELS = {"openrouter/openai/gpt-4o-mini": 0.9, "ollama/llama3.2:1b": 0.35, "embedded/ngram-3": 0.004, "cohere/command-r": 1.6}


def a_day(now_s: float, calls: int = 4000, seed: int = 7) -> list[Record]:
    """Return two days of calls of four models: slower in the last hours, a burst of rate limits, two runs, a third from the cache."""
    random.seed(seed)
    rows: list[Record] = [
        RunRecord("run-alpha-1", now_s - 170_000, "test:1", "baseline", "{}"), RunRecord("run-beta-22", now_s - 80_000, "test:1", "qa-v2", "{}"),
    ]  # fmt: skip
    for number in range(calls):
        at = now_s - 172_000 * (1 - number / calls)
        model = random.choice(list(MODELS))
        run = "run-alpha-1" if number < calls / 2 else "run-beta-22"
        rows += _one(at, model, number, run, recent=now_s - at < 30_000)
    return rows


def _one(at: float, model: str, number: int, run: str, *, recent: bool) -> list[Record]:
    latency = MODELS[model] * random.lognormvariate(0, 0.5) * (1.6 if recent and model.startswith("cohere") else 1)
    price = {"cost_usd": 0.0004 * latency} if not model.startswith(("ollama", "embedded")) else {"cost_usd": 0.0}
    dice = random.random()
    if dice < 0.04 + 0.08 * (recent and model.startswith("cohere")):
        kinds = ["RateLimitError", "ProviderTimeoutError", "UnreachableError"] + ["ReplyError"] * recent
        failed = failed_call(at, model, number=number, run_id=run, error_type=random.choice(kinds))
        return [failed, error_of(failed)]
    if dice < 0.35:
        tier = random.choice(["memory", "disk", "disk"])
        saved = price["cost_usd"]
        return [
            replayed_call(
                at, model, number=number, run_id=run, cache_tier=tier, saved_s=latency, saved_usd=saved, lookup_s=0.0005 * random.random()
            )
        ]
    if dice < 0.37:
        return [live_call(at, model, number=number, run_id=run, latency_s=latency, provenance="coalesced")]
    waits = {"lookup_s": 0.0002, "limiter_wait_s": 0.2 * random.random(), "consumer_s": 0.001}
    total = latency + sum(waits.values())
    speed = 60 / latency
    return [live_call(at, model, number=number, run_id=run, latency_s=latency, total_s=total, output_tokens_per_s=speed, **waits, **price)]
