"""Ask for half an hour, hold what came of it against what has to hold, and write the page."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import httpx

from toolkit.cache import ResponseCache

from ..__main__ import quiet
from ..measure import environment
from ..server import running
from . import report
from .checks import Check, Soaked, checks
from .gauges import Gauges, Reading, open_handles
from .load import Ledger, Parties
from .reading import SecondProcess
from .server import FaultyService

DOCS = Path(__file__).parents[2] / "docs"
FULL_MINUTES = 30.0
READINGS = 60


def held() -> Counter[str]:
    """Threads, sockets and files of this process."""
    gc.collect()
    sockets, files = open_handles()
    return Counter(threads=threading.active_count(), sockets=sockets, files=files)


def soak(url: str, folder: Path, *, rate: float, seconds: float, shift_s: float, readings: int = READINGS) -> Soaked:
    """Ask at a steady rate with everything on; return what was seen."""
    use_once(url, folder)
    before = held()
    journal, ledger = folder / "journal.sqlite", Ledger(folder / "ledger.tsv")
    read: list[Reading] = []
    with SecondProcess(journal) as reader:
        before_asking = held() - before  # the pipe to the reader
        parties = Parties.of(url, folder, ledger)
        written = parties.threads.client.journal
        assert written is not None
        gauges = Gauges(
            journal=journal,
            calls=lambda: ledger.ended,
            waiting=lambda: len(written._items) + len(written._rows) + len(written._batch),
            under_way=lambda: ledger.begun - ledger.ended,
            reader_pid=reader.pid,
        )
        stop = threading.Event()
        watch = threading.Thread(target=gauges.keep_reading, args=(read, seconds / readings, stop), daemon=True)
        watch.start()
        took_s = parties.ask(rate, seconds, shift_s)
        stop.set()
        watch.join()
        stuck = parties.stuck()
        parties.close()
        ledger.close()
        left_behind = held() - before - before_asking
        return Soaked(
            rate=rate,
            seconds=seconds,
            took_s=took_s,
            readings=read,
            ledger=ledger,
            journal=journal,
            lost=written.lost,
            left_behind=", ".join(f"{n} {name}" for name, n in left_behind.items()),
            stuck=stuck,
            reader=reader.seen(),
            faults=Counter(httpx.get(f"{url}/counts", trust_env=False).json()),
        )


def use_once(url: str, folder: Path) -> None:
    """Use everything once and close it: what stays open after this belongs to the libraries."""
    import toolkit as tk

    cache = ResponseCache(folder / "before")
    with tk.Client(base_urls={"openai_compatible": f"{url}/v1"}, cache=cache, journal=str(folder / "before.sqlite")) as client:
        client.health_check("openai_compatible")
        assert client.journal is not None
        client.journal.close()

    async def ask() -> None:
        async with tk.AsyncClient(base_urls={"openai_compatible": f"{url}/v1"}, cache=cache, journal=False) as twin:
            await twin.health_check("openai_compatible")

    asyncio.run(ask())
    cache.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument(
        "--out", type=Path, help="write the page here, and the chart beside it; by default into docs/ after a run of full length"
    )
    parser.add_argument("--note", default="", help="a sentence about the machine for the head of the page")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    seconds = chosen.minutes * 60
    shift_s = min(60.0, seconds / 6)
    with tempfile.TemporaryDirectory() as folder, environment(quiet(folder)), running(FaultyService) as url:
        run = soak(url, Path(folder), rate=chosen.rate, seconds=seconds, shift_s=shift_s)
        found = checks(run)
    print(report.checks_table(found))
    out = chosen.out or (DOCS / "soak.md" if chosen.minutes >= FULL_MINUTES else None)
    if out is not None:
        write(out, run, found, shift_s, chosen.note)
    return 0 if all(each.holds for each in found) else 1


def write(out: Path, run: Soaked, found: list[Check], shift_s: float, note: str = "") -> None:
    """Write the page and its chart: among the other pictures where there is a folder of them."""
    out.parent.mkdir(parents=True, exist_ok=True)  # half an hour was spent on what is written here
    images = out.parent / "images"
    picture = (images if images.is_dir() else out.parent) / "soak.svg"
    picture.write_text(report.chart(run), encoding="utf-8")
    out.write_text(report.page(run, found, chart=str(picture.relative_to(out.parent)), shift_s=shift_s, note=note), encoding="utf-8")
    print(f"written to {out}")


if __name__ == "__main__":
    sys.exit(main())
