"""Records: what happened, as plain rows. The fields of ``CallRecord`` are the columns of the journal and of every frame."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["CALL_COLUMNS", "CacheRecord", "CallRecord", "ErrorRecord", "LogRecord", "RunRecord", "VoteRecord"]


class CallRecord(NamedTuple):
    """One call, finished or failed.

    Times are seconds; ``at`` is the start in seconds since 1970 (UTC). A NamedTuple, not a dataclass: one is made per call, and
    the journal stores it as it is.
    """

    at: float
    call_id: str
    run_id: str | None
    process: str
    provider: str
    model: str
    label: str
    served_model: str | None
    operation: str
    prompt_id: str | None
    repeat: int
    status: str
    error_type: str | None
    error_fingerprint: str | None
    error_message: str | None
    finish_reason: str | None
    provenance: str | None
    cache_tier: str | None
    attempts: int
    lookup_s: float | None
    limiter_wait_s: float | None
    retry_sleep_s: float | None
    failed_attempts_s: float | None
    latency_s: float | None
    consumer_s: float | None
    total_s: float | None
    ttft_s: float | None
    ttfa_s: float | None
    output_tokens_per_s: float | None
    loop_stall_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cached_input_tokens: int | None
    cost_usd: float | None
    saved_usd: float | None
    saved_s: float | None
    price_date: str | None
    request_id: str | None
    base_url: str | None
    key: str | None
    reported: str | None
    prompt_sha256: str | None
    prompt_chars: int | None
    text_chars: int | None
    prompt: str | None
    text: str | None
    answer_bytes: int | None = None  # of the text in UTF-8, or of the pictures
    e2e_tokens_per_s: float | None = None
    answer_tokens_per_s: float | None = None
    tpot_s: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    load_s: float | None = None
    cold: int | None = None  # 1 or 0: the journal has no truth values


CALL_COLUMNS = CallRecord._fields


class ErrorRecord(NamedTuple):
    """One error, with where it happened; ``call_id`` ties it to its call."""

    at: float
    error_id: str
    call_id: str | None
    run_id: str | None
    process: str
    type: str
    fingerprint: str
    message: str
    stack: str
    context: str  # JSON, redacted


class RunRecord(NamedTuple):
    """One comparison: what was asked for. ``plan`` is JSON: models, options, number of prompts, seed of the order."""

    run_id: str
    at: float
    process: str
    name: str
    plan: str


class VoteRecord(NamedTuple):
    """Which of two answers a person or a judge preferred. ``model_a`` is the label of the answer shown first.

    ``choice`` is ``"a"``, ``"b"``, ``"tie"``, ``"both_bad"`` or ``"skip"``; ``rater`` is a person's id, or ``"judge:"`` and a model.
    ``answers`` identifies the two texts, so that a vote still counts when the same answers come from the cache in a later run.
    """

    at: float
    vote_id: str
    run_id: str
    comparison: str
    prompt_id: str
    repeat: int
    model_a: str
    model_b: str
    choice: str
    rater: str
    answers: str
    seconds: float | None


class LogRecord(NamedTuple):
    """One entry of the logger; ``call_id`` and ``run_id`` are those of its context, ``error_id`` that of an error of the toolkit."""

    at: float
    log_id: str
    call_id: str | None
    run_id: str | None
    process: str
    level: str
    message: str
    error_id: str | None
    error_type: str | None
    error_message: str | None
    stack: str | None
    context: str  # JSON, redacted


class CacheRecord(NamedTuple):
    """What one tier of a cache did in a process since that process's last such row, and how full it was then.

    ``hits`` to ``expirations`` can be summed over rows, tiers and processes; ``entries`` to ``max_bytes`` are states, ``None`` where they
    are not known or there is no limit. ``cache`` is ``answers``, ``model``, ``user`` or ``session``; ``tier`` is ``memory``, ``disk`` or ``redis``.
    """

    at: float
    state_id: str
    process: str
    cache: str
    tier: str
    hits: int
    misses: int
    evictions: int | None
    expirations: int | None
    entries: int | None
    max_entries: int | None
    size_bytes: int | None
    max_bytes: int | None


Row = CallRecord | ErrorRecord | RunRecord | VoteRecord | LogRecord | CacheRecord
AnyRow = tuple[Any, ...]  # a row as SQLite gives it back
