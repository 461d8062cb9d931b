"""What ``import`` costs: CPU time and memory of a fresh interpreter."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from .measure import Contestant, Goal, Place, Reading, Run, Table

FRESH = """
import json, os, sys, time
def rss():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before, cpu, wall = rss(), time.process_time(), time.perf_counter()
STATEMENT
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({"cpu_s": cpu, "wall_s": wall, "rss_bytes": rss() - before}))
"""


def fresh_import(statement: str, place: Place) -> Iterator[Run]:
    __import__(statement.split(";")[0].split()[1])  # tells who is not installed, and writes the byte code

    def run(n: int) -> Reading:
        assert n == 1
        code = FRESH.replace("STATEMENT", statement)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return Reading(**json.loads(done.stdout.splitlines()[-1]))

    yield run


def contestant(statement: str, *packages: str) -> Contestant:
    return Contestant(statement, functools.partial(fresh_import, statement), packages)


OURS, CLIENT, REFERENCE = "import toolkit", "import toolkit; toolkit.Client", "import httpx"
PEERS = ("ollama", "openai", "litellm", "dspy")

NOTES = {
    "CPU of the import": "`import toolkit` imports no module of its own until a name is used, so a miss is noise or a new import at the top of `__init__.py`.",
    "memory above httpx": "`import toolkit` holds a table of names only; look for a new import at the top of `__init__.py`.",
    "CPU until a client can be made": "the client adds sqlite3, asyncio, dataclasses made at import and `typing.get_type_hints` of the journal's tables.",
    "memory above httpx with the client": "sqlite3, asyncio and the layers below the client are loaded on the first use of `tk.Client`.",
}


def tables(peers: Sequence[str] = PEERS) -> tuple[Table, ...]:
    return (
        Table(
            title="What does an import cost?",
            operation="import",
            unit="ms",
            reference=REFERENCE,
            fixed=True,
            rounds=7,
            about="A fresh interpreter each time. The toolkit loads its parts on first use; the second row is what the first call needs.",
            contestants=(
                contestant(REFERENCE, "httpx"),
                contestant(OURS, "model-comparison-toolkit"),
                contestant(CLIENT),
                *(contestant(f"import {peer}", peer) for peer in peers),
            ),
            goals=(
                Goal("CPU of the import", OURS, REFERENCE, 1.25),
                Goal("memory above httpx", OURS, REFERENCE, 6e6, of="rss_bytes", difference=True),
                Goal("CPU until a client can be made", CLIENT, REFERENCE, 1.25),
                Goal("memory above httpx with the client", CLIENT, REFERENCE, 6e6, of="rss_bytes", difference=True),
            ),
        ),
    )
