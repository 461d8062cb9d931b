"""The dashboard over many calls: how long the server takes for a page, the browser for a filter, and how much memory that needs.

    python -m benchmarks.dashboard 1000000                 # write a journal of a million calls, measure on it
    python -m benchmarks.dashboard 10000000 --keep FOLDER  # keep the journal, and use it again
    python -m benchmarks.dashboard 10000000 --keep FOLDER --browser

The calls are invented and believable: twelve models over thirty days with a day's rhythm, log-normal latencies, a third answered from a cache,
three in a hundred failed, some in bursts. All days but today lie in the archive (Parquet), today's calls in the database, as
``toolkit journal prune`` leaves them.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from toolkit.monitor.events import CacheRecord, CallRecord, ErrorRecord, LogRecord, RunRecord
from toolkit.monitor.journal import Journal, read_address
from toolkit.monitor.journal.scanning import schema_of
from toolkit.monitor.journal.tables import TABLES

DAY_S = 86_400.0
DAYS = 30
RUNS = 12
MODELS = {  # median latency in seconds, dollars a million tokens
    "openrouter/openai/gpt-4o-mini": (0.9, 0.4), "openrouter/anthropic/claude-haiku": (1.1, 1.6), "openrouter/mistral/small": (0.7, 0.2),
    "openrouter/meta/llama-3.1-70b": (1.4, 0.5), "azure/gpt-4o": (1.8, 6.0), "vertex/gemini-flash": (0.6, 0.3), "cohere/command-r": (1.6, 0.3),
    "huggingface/qwen-2.5-7b": (1.0, 0.2), "replicate/llama-3-8b": (2.4, 0.3), "ollama/llama3.2:1b": (0.35, 0.0), "ollama/qwen2.5:7b": (2.9, 0.0),
    "lmstudio/phi-4": (3.5, 0.0),
}  # fmt: skip
ERRORS = ("RateLimitError", "ProviderTimeoutError", "ServerError", "UnreachableError", "ReplyError")
PAGES = ("overview", "latency", "cache", "errors", "cost", "health", "logs")


# The journal


def write_journal(path: Path, calls: int, now_s: float, seed: int = 7, days: int = DAYS, hot: int = 50_000) -> None:
    """Write a journal of so many calls up to now: ``hot`` at most of today's in the database, the others in the archive."""
    random = np.random.default_rng(seed)
    journal = Journal(path)
    for number in range(RUNS):
        journal.append(RunRecord(f"run-{number:02d}", now_s - (RUNS - number) * DAY_S, "bench:1", f"nightly-{number:02d}", "{}"))
    journal.close()
    midnight = np.floor(now_s / DAY_S) * DAY_S
    today_s = max(now_s - midnight, 1.0)
    fresh = min(hot, round(calls * today_s / ((days - 1) * DAY_S + today_s)))
    sizes = np.full(days - 1, (calls - fresh) // (days - 1))
    sizes[-1] += calls - fresh - sizes.sum()
    row = 1
    for back, size in zip(range(days - 1, 0, -1), sizes):
        archive_day(path, some_calls(random, int(size), midnight - back * DAY_S, DAY_S, now_s), row)
        row += int(size)
    with sqlite3.connect(path) as db:
        db.execute("INSERT OR REPLACE INTO sqlite_sequence (name, seq) VALUES ('call', ?)", [row - 1])
    for call in some_calls(random, fresh, midnight, today_s, now_s).iter_rows(named=True):
        journal.append(CallRecord(**call))
        if call["status"] == "error":
            journal.append(error_of(call))
    for record in (*some_entries(random, now_s, days), *some_states(random, now_s, days)):
        journal.append(record)
    journal.close()


def archive_day(path: Path, rows: pl.DataFrame, first_row: int) -> None:
    """Put a day's calls into the archive of a journal, as the journal itself would."""
    numbered = rows.with_row_index("row", offset=first_row).cast({"row": pl.Int64}).select(list(schema_of(TABLES[CallRecord])))
    day = time.strftime("%Y-%m-%d", time.gmtime(rows["at"][0]))
    last_row = first_row + rows.height - 1
    file = Path("call", f"day={day}", f"part-{first_row}-{last_row}-bench.parquet")
    where = read_address(path).archive / file
    where.parent.mkdir(parents=True, exist_ok=True)
    numbered.write_parquet(where, row_group_size=50_000)
    with sqlite3.connect(path) as db:
        listed = (str(file), "call", day, rows.height, first_row, last_row, rows["at"].min(), rows["at"].max())
        db.execute(
            "INSERT INTO part (file, source, day, rows, first_row, last_row, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", listed
        )


def some_calls(random: np.random.Generator, n: int, start_s: float, width_s: float, now_s: float) -> pl.DataFrame:
    """Return invented calls of a span of time, oldest first, with the columns of a ``CallRecord``."""
    names = np.array(list(MODELS))
    medians, prices = (np.array([facts[column] for facts in MODELS.values()]) for column in (0, 1))
    at = np.sort(start_s + width_s * rhythm(random, n))
    which = random.choice(len(names), n, p=np.arange(len(names), 0, -1) / sum(range(len(names) + 1)))
    slower = np.where((names[which] == "cohere/command-r") & (at > now_s - 30_000), 1.6, 1.0)
    latency = medians[which] * random.lognormal(0, 0.45, n) * slower
    burst = (np.floor(at / 1800) % 61 == 7) & (which < 3)
    dice = random.random(n) + 0.25 * burst
    failed = dice > 0.97
    left = (dice > 0.96) & ~failed
    replayed = dice < 0.33
    coalesced = (dice >= 0.33) & (dice < 0.35)
    live = ~(failed | left | replayed | coalesced)
    tokens_in, tokens_out = random.integers(12, 900, n), random.integers(8, 400, n)
    cost = prices[which] * (tokens_in + 4 * tokens_out) / 1e6
    kind = np.array(ERRORS)[np.where(burst, 0, random.integers(0, len(ERRORS), n))]
    run = np.floor((now_s - at) / DAY_S).astype(int)
    prompt = random.integers(0, 200, n)

    def where(mask: np.ndarray, values: Any) -> pl.Series:  # numbers or texts, missing where the mask is false
        return pl.Series(np.broadcast_to(values, n)).set(pl.Series(~mask), None)

    spent = np.where(failed, 2.0 * random.random(n) + 0.2, 0.0)
    columns = {
        "at": at, "call_id": pl.Series(np.char.mod("%016x", random.integers(0, 2**63, n))), "process": "bench:1", "operation": "text",
        "run_id": where((run < RUNS) & (random.random(n) < 0.3), np.char.mod("run-%02d", np.clip(RUNS - 1 - run, 0, None))),
        "provider": np.array([name.split("/")[0] for name in names])[which], "model": names[which], "label": names[which], "served_model": names[which],
        "prompt_id": np.char.mod("p%03d", prompt), "repeat": 0, "status": np.where(failed, "error", np.where(left, "left", "ok")),
        "error_type": where(failed, kind), "error_fingerprint": where(failed, np.char.add(kind, "-0001")),
        "error_message": where(failed, np.char.add(np.char.add(names[which], ": "), kind)), "finish_reason": where(live | replayed | coalesced, "stop"),
        "provenance": np.where(replayed, "replayed", np.where(coalesced, "coalesced", "live")),
        "cache_tier": where(replayed, np.where(random.random(n) < 0.4, "memory", "disk")),
        "attempts": np.where(replayed | coalesced, 0, 1 + failed + (random.random(n) < 0.03)),
        "lookup_s": np.where(replayed, random.lognormal(-8, 0.6, n), 0.0002), "limiter_wait_s": 0.01 * random.random(n), "retry_sleep_s": 0.5 * failed,
        "failed_attempts_s": spent, "latency_s": where(live, latency), "consumer_s": 0.0, "total_s": np.where(live | left, latency, spent) + 0.01,
        "ttft_s": where(live, latency * 0.3), "ttfa_s": where(live, latency * 0.3), "output_tokens_per_s": where(live, tokens_out / (latency * 0.7)),
        "loop_stall_s": 0.0, "input_tokens": where(~failed, tokens_in), "output_tokens": where(~failed, tokens_out),
        "cost_usd": where(live | replayed | coalesced, np.where(live, cost, 0.0)), "saved_usd": where(replayed | coalesced, cost),
        "saved_s": where(replayed | coalesced, latency), "prompt_chars": tokens_in * 4, "text_chars": where(~failed, tokens_out * 4),
        "prompt": np.char.mod("Explain the idea number %d in a few sentences.", prompt),
        "text": where(~failed, np.char.mod("The idea can be told in this way, of which there are %d.", random.integers(0, 50, n))),
        "answer_bytes": where(~failed, tokens_out * 4),
    }  # fmt: skip
    missing = {name: pl.lit(None) for name in CallRecord._fields if name not in columns}
    frame = pl.select(**{name: pl.lit(pl.Series(values)) if np.ndim(values) else pl.lit(values) for name, values in columns.items()})
    kinds = {name: kind for name, kind in schema_of(TABLES[CallRecord]).items() if name != "row"}
    return frame.with_columns(**missing).select(CallRecord._fields).cast(kinds)


def some_entries(random: np.random.Generator, now_s: float, days: int) -> Iterator[LogRecord]:
    """Yield invented entries of the logger, some a day, oldest first."""
    said = (
        ("INFO", "batch finished", '{"prompts": 200, "seconds": 41.7}'), ("INFO", "price table read", '{"models": 312}'),
        ("WARN", "prompt is longer than the model's context", '{"model": "ollama/llama3.2:1b", "tokens": 9120}'),
        ("ERROR", "could not save the report", '{"path": "reports/nightly.html"}'), ("FATAL", "out of disk space", '{"free_mb": 3}'),
    )  # fmt: skip
    moments = np.sort(now_s - days * DAY_S * random.random(40 * days))
    for number, (at, which) in enumerate(zip(moments.tolist(), random.choice(len(said), len(moments), p=(0.55, 0.25, 0.15, 0.04, 0.01)))):
        level, message, context = said[which]
        failed = level in ("ERROR", "FATAL")
        yield LogRecord(
            at=at, log_id=f"log-{number}", call_id=None, run_id=None, process="bench:1", level=level, message=message, error_id=None,
            error_type="OSError" if failed else None, error_message="[Errno 28] No space left on device" if failed else None,
            stack='Traceback (most recent call last):\n  File "report.py", line 31, in save\nOSError: [Errno 28]' if failed else None, context=context,
        )  # fmt: skip


def some_states(random: np.random.Generator, now_s: float, days: int) -> Iterator[CacheRecord]:
    """Yield invented states of the tiers of a cache, one in ten minutes, oldest first: memory full all the time, the disk filling up."""
    for number, at in enumerate(np.arange(now_s - days * DAY_S, now_s, 600.0).tolist()):
        grown, evicted, expired = number / (days * 144), int(random.integers(0, 40)), int(random.integers(0, 12))
        tiers = (("memory", 1000, None, evicted), ("disk", round(20_000 + 60_000 * grown), round(2e8 + 17e8 * grown), 0))
        for tier, entries, size, gone in tiers:
            yield CacheRecord(
                at=at, state_id=f"state-{number}-{tier}", process="bench:1", cache="answers", tier=tier, hits=30, misses=70, evictions=gone,
                expirations=expired if tier == "disk" else 0, entries=entries, max_entries=1000 if tier == "memory" else None, size_bytes=size,
                max_bytes=2_000_000_000 if tier == "disk" else None,
            )  # fmt: skip


def rhythm(random: np.random.Generator, n: int) -> np.ndarray:
    """Moments between 0 and 1, twice as many at noon as at midnight."""
    moments = random.random(n)
    return np.where(random.random(n) < 0.33, np.clip(random.normal(0.5, 0.15, n), 0, 0.999), moments)


def error_of(call: dict[str, Any]) -> ErrorRecord:
    stack = f'Traceback (most recent call last):\n  File "wire.py", line 12, in send\n{call["error_type"]}: {call["error_message"]}'
    return ErrorRecord(
        at=call["at"], error_id=f"error-{call['call_id']}", call_id=call["call_id"], run_id=call["run_id"], process="bench:1",
        type=call["error_type"], fingerprint=call["error_fingerprint"], message=call["error_message"], stack=stack, context="{}",
    )  # fmt: skip


# Measuring


def measure_server(journal: Path) -> dict[str, float]:
    """Run the pages as the server does, without a browser, in this process: seconds cold, then after a change of a filter; CPU time beside."""
    import os

    os.environ["TOOLKIT_JOURNAL"] = str(journal)
    from streamlit import config
    from streamlit.testing.v1 import AppTest

    import dashboard

    config.set_option("runner.magicEnabled", False)  # as in the app's own settings, which a server would read

    found: dict[str, float] = {}
    app = AppTest.from_file(str(Path(dashboard.__file__).with_name("app.py")), default_timeout=300)
    app.query_params["live"] = "false"
    found["overview, 24h, cold"], found["overview, 24h, cold, CPU"] = run_timed(app)
    for window in ("24h", "7d", "all"):
        app.session_state["window"] = window
        for page in PAGES:
            app.switch_page(f"screens/{page}.py").run()
            assert not app.exception and not app.error, (page, app.exception, app.error)
            walls, cpus = zip(*filter_changes(app))
            found[f"{page}, {window}, another model"] = statistics.median(walls)
            found[f"{page}, {window}, another model, CPU"] = statistics.median(cpus)
    found["memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def run_timed(app: Any) -> tuple[float, float]:  # an AppTest
    """Run the app and return the seconds on the wall and of the CPU."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    app.run()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def filter_changes(app: Any) -> Iterator[tuple[float, float]]:  # an AppTest
    for model in list(MODELS)[:5]:
        app.multiselect(key="model").set_value([model])
        yield run_timed(app)
    app.multiselect(key="model").set_value([])
    app.run()


def measure_browser(journal: Path) -> dict[str, float]:
    """Open the latency page in a fresh browser, then change a filter and wait for the charts."""
    from playwright.sync_api import sync_playwright

    start = "import sys; from dashboard.serve import run; sys.exit(run(sys.argv[1], 8601))"
    server = subprocess.Popen([sys.executable, "-c", start, str(journal)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.startswith("Dashboard: "))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            started = time.perf_counter()
            page.goto(f"{url}/latency?live=false")
            page.locator(".scatterlayer .trace").first.wait_for(timeout=120_000)
            found = {"browser: latency, first chart, cold": time.perf_counter() - started}
            for window in ("24h", "7d", "all"):
                page.get_by_role("radio", name=window).click()
                settle(page)
                changes = [timed(lambda level=level: choose(page, level)) for level in ("p90", "p50", "p90", "p50")]
                found[f"browser: latency, {window}, another percentile"] = statistics.median(changes)
                found[f"browser: latency, {window}, another model"] = timed(lambda: choose_model(page))
                clear_model(page)
            browser.close()
        return found
    finally:
        server.terminate()
        server.wait()


def settle(page: Any) -> None:  # a playwright page
    page.wait_for_timeout(300)
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=120_000)
    page.wait_for_timeout(1000)


def choose(page: Any, level: str) -> None:
    page.get_by_role("radio", name=level).click()
    page.get_by_role("heading", name=f"{level} over time").wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def choose_model(page: Any) -> None:
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="azure/gpt-4o").click()
    page.wait_for_function("document.querySelectorAll('.scatterlayer')[0].querySelectorAll('.trace').length <= 2")


def clear_model(page: Any) -> None:
    page.keyboard.press("Escape")
    page.locator("[data-testid=stMultiSelect]").nth(1).get_by_role("button", name="Clear all").click()
    settle(page)


def timed(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("calls", type=int)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the journal is made, and found again")
    parser.add_argument("--browser", action="store_true", help="measure in headless Chromium too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        journal = (chosen.keep or Path(scratch)) / f"calls-{chosen.calls}.sqlite"
        if not journal.exists():
            journal.parent.mkdir(parents=True, exist_ok=True)
            took = timed(lambda: write_journal(journal, chosen.calls, time.time()))
            print(f"wrote {chosen.calls:,} calls in {took:.0f} s")
        found = measure_server(journal)
        if chosen.browser:
            found |= measure_browser(journal)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
