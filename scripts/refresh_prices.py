"""Write the shipped price table from the installed package genai-prices: `pip install -U genai-prices`, then run this and read the diff."""

import datetime
import importlib.metadata
import json
import sys
from pathlib import Path

from toolkit.pricing.genai import read_lists

TABLE = Path(__file__).parents[1] / "toolkit" / "pricing" / "table.json"
LICENSE = "Prices from genai-prices, Copyright (c) Pydantic Services Inc. 2025 to present, MIT License: see LICENSE."


def table(as_of: str) -> str:
    """One model a line, so that a change of prices is readable as a diff."""
    source = f"genai-prices {importlib.metadata.version('genai-prices')}"
    head = {"license": LICENSE, "source": source, "as_of": as_of, "currency": "USD", "unit": "million tokens"}
    lists = [written(name, [row(*entry, indent=3) for entry in sorted(rows.items())], 2) for name, rows in sorted(read_lists().items())]
    return written(None, [*(row(*entry, indent=1) for entry in head.items()), written("lists", lists, 1)], 0) + "\n"


def written(name: str | None, rows: list[str], indent: int) -> str:
    """An object with a line for each row."""
    start, end = " " * indent + (f"{json.dumps(name)}: " if name else ""), " " * indent
    return "\n".join([f"{start}{{", ",\n".join(rows), f"{end}}}"])


def row(name: str, value: object, *, indent: int) -> str:
    return " " * indent + f"{json.dumps(name)}: {json.dumps(value)}"


if __name__ == "__main__":
    as_of = sys.argv[1] if len(sys.argv) > 1 else datetime.datetime.now(datetime.UTC).date().isoformat()
    TABLE.write_text(table(as_of), encoding="utf-8")
