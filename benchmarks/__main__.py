"""Measure, print, and write the page."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from . import report
from .measure import Effort, Place, Result, environment, measured
from .server import running

QUESTIONS = (
    "imports", "one_call", "streamed_token", "true_times", "width", "cache_hit", "cache_growth", "recording", "percentiles", "journal",
    "journal_growth", "pages", "grid", "growth",
)  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def quiet(folder: str) -> dict[str, str]:
    """Variables that keep libraries at home: no telemetry, no downloads, no files of theirs left behind."""
    return {
        "TOOLKIT_HOME": folder,
        "DSPY_CACHEDIR": folder,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "OPENAI_API_KEY": "x",
        "NO_PROXY": "127.0.0.1",
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="question", help=f"some of {', '.join(QUESTIONS)}; all of them without a name")
    parser.add_argument("--quick", action="store_true", help="short rounds, for trying something out")
    parser.add_argument("--note", default="", help="a sentence about the machine for the head of the page")
    parser.add_argument("--out", type=Path, help="write the page here; by default docs/benchmarks.md when everything is measured in full")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(QUESTIONS):
        parser.error(f"no question is called {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    return chosen


def answers(name: str, place: Place, effort: Effort) -> Iterator[Result]:
    """Measure a question's tables, each printed as soon as it is there."""
    for table in import_module(f"{__package__}.{name}").tables():
        result = measured(table, place, effort)
        print(report.section(result), end="\n\n", flush=True)
        yield result


def main() -> int:
    chosen = arguments()
    effort = Effort(rounds=3, round_s=0.05) if chosen.quick else Effort()
    started, results, broken = time.monotonic(), list[Result](), list[str]()
    with tempfile.TemporaryDirectory() as folder, environment(quiet(folder)), running() as url:
        for name in chosen.names or QUESTIONS:
            try:
                for result in answers(name, Place(url, folder), effort):
                    results.append(result)
            except Exception:  # what the other questions found is kept
                traceback.print_exc()
                broken.append(name)
    print(f"measured in {time.monotonic() - started:.0f} s")
    note = " ".join([chosen.note, *(f"Not measured to its end, for it broke: {name}." for name in broken)]).strip()
    out = chosen.out or (None if chosen.names or chosen.quick else PAGE)
    if out is not None:
        report.write_page(out, results, effort, note)
        print(f"written to {out}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
