"""What ``toolkit journal`` does; each function is given the parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import settings
from .monitor.journal import JournalReader, read_address, shown_url, with_polars
from .monitor.marks import annotate
from .render import plain, text_table

__all__ = ["annotate_journal", "check_journal", "export_journal", "prune_journal"]


def annotate_journal(args: argparse.Namespace) -> int:
    """Mark a moment."""
    at = None if args.ago is None else datetime.fromtimestamp(time.time() - args.ago, UTC)
    annotate(args.text, at=at, journal=args.journal)
    where = shown_url(args.journal or settings.journal_url())
    tell(args, {"text": args.text, "journal": where}, f"marked in {where}")
    return 0


def export_journal(args: argparse.Namespace) -> int:
    """Write rows to a file."""
    since = None if args.since is None else time.time() - args.since
    rows = with_polars("exporting").export(JournalReader(args.journal), Path(args.file), table=args.table, since=since, run=args.of_run)
    tell(args, {"rows": rows, "file": args.file}, f"{rows:,} rows of table {args.table} are in {args.file}")
    return 0


def prune_journal(args: argparse.Namespace) -> int:
    """Move closed days to the archive, and remove old ones."""
    address = read_address(args.journal or settings.journal_url())
    done = with_polars("pruning").prune(
        address,
        now=time.time(),
        archive_after_s=None if args.no_archive else args.archive_after,
        older_than_s=args.older_than,
        dry_run=args.dry_run,
    )
    would = "would be " if args.dry_run else ""
    lines = [
        f"{counted(done.removed)} {would}removed",
        f"{counted(done.archived)} {would}moved to {address.archive}",
    ]
    tell(args, {"dry_run": args.dry_run, **dataclasses.asdict(done)}, "\n".join(lines))
    return 0


def counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name} rows" for name, count in rows.items()) or "no rows"


def check_journal(args: argparse.Namespace) -> int:
    """Say what a journal holds and what is wrong with it; 1 where something is, also after a repair that could not save everything."""
    address = read_address(args.journal or settings.journal_url())
    repaired = with_polars("repairing").repair(address) if args.repair else None
    report = with_polars("checking").check(address)
    found: dict[str, Any] = {"ok": report.ok, **dataclasses.asdict(report)}  # JSON
    if repaired is not None:
        found["repaired"] = dataclasses.asdict(repaired) | {"damaged": str(repaired.damaged)}
    if args.json:
        print(json.dumps(found))
        return 0 if report.ok else 1
    if repaired is not None:
        print(f"Saved {counted(repaired.saved)}; what could not be read is still in {repaired.damaged}\n")
    print(f"journal  {report.journal}\nschema   {'unknown' if report.schema_version is None else report.schema_version}\n")
    print(text_table(["table", "rows in the database", "in the archive"], [
        [name, f"{rows:,}", f"{report.archived[name]:,}" if name in report.archived else ""] for name, rows in report.rows.items()
    ]))  # fmt: skip
    for problem in report.problems:
        print(f"\n{plain(problem.what)}\n  → {plain(problem.next_step)}")
    print("\nEverything is as it should be." if report.ok else "")
    return 0 if report.ok else 1


def tell(args: argparse.Namespace, found: Mapping[str, Any], text: str) -> None:  # JSON
    print(json.dumps(found) if args.json else text)
