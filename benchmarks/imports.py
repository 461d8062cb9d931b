"""What ``import`` costs: CPU time and memory of a fresh interpreter."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from .measure import MEMORY, Column, Contestant, Goal, Place, Reading, Run, Table
from .profile import Profile, of_shares

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
        found = json.loads(done.stdout.splitlines()[-1])
        return Reading(found["cpu_s"], found["wall_s"], {MEMORY: found["rss_bytes"]})

    yield run


def explain_import(statement: str, place: Place, memory: bool) -> Profile:
    """Each module's own time while it is imported, as the interpreter tells it; memory follows the same modules."""
    told = subprocess.run([sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True).stderr
    lines = [line.removeprefix("import time:").split("|") for line in told.splitlines() if line.startswith("import time:")]
    return of_shares("time of its imports", [(name.strip(), float(own)) for own, _, name in lines[1:]])


def contestant(statement: str, *packages: str) -> Contestant:
    return Contestant(statement, functools.partial(fresh_import, statement), packages, explain=functools.partial(explain_import, statement))


OURS, CLIENT, REFERENCE = "import toolkit", "import toolkit; toolkit.Client", "import httpx"
PEERS = ("ollama", "openai", "litellm", "dspy")


def tables(peers: Sequence[str] = PEERS) -> tuple[Table, ...]:
    return (
        Table(
            title="What does an import cost?",
            operation="import",
            unit="ms",
            reference=REFERENCE,
            fixed=True,
            rounds=7,
            columns=(Column(MEMORY, "memory", "MB", 1e-6),),
            about="A fresh interpreter each time. The toolkit loads its parts on first use; the second row is what the first call needs.",
            contestants=(
                contestant(REFERENCE, "httpx"),
                contestant(OURS, "model-comparison-toolkit"),
                contestant(CLIENT),
                *(contestant(f"import {peer}", peer) for peer in peers),
            ),
            goals=(
                Goal("CPU of the import", OURS, REFERENCE, 1.25),
                Goal("memory above httpx", OURS, REFERENCE, 6e6, of=MEMORY, difference=True),
                Goal("CPU until a client can be made", CLIENT, REFERENCE, 1.25),
                Goal("memory above httpx with the client", CLIENT, REFERENCE, 6e6, of=MEMORY, difference=True),
            ),
        ),
    )
