"""The ``toolkit`` command. Exit codes: 0 good, 1 the work failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import string
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from . import __version__, defaults, monitor, settings
from .cache import ResponseCache
from .client import open_cache
from .doctor import Finding, examine
from .errors import ConfigError, ToolkitError
from .installation import read_places
from .journal_commands import annotate_journal, check_journal, export_journal, prune_journal
from .monitor import alerts
from .monitor.journal import JournalReader, shown_url
from .pricing import price_sources
from .render import plain, seconds, side_by_side_text, size, text_table, usd
from .types import Completion, PullProgress

__all__ = ["main"]

DEMO_MODELS = ["embedded/ngram-2", "embedded/ngram-3", "embedded/ngram-4"]
DEMO_PROMPTS = [
    "The for statement",
    "A class definition",
    "An exception is",
    "The import statement",
    "String literals are",
    "The value of a dictionary",
    "A generator function",
    "The with statement",
]
DEMO_REPEATS = 10
DEMO_CONCURRENCY = 2  # they run on this very machine: more at a time would measure each other
DEFAULT_PORT = 8501
RATES = ("e2e_tokens_per_s", "output_tokens_per_s", "answer_tokens_per_s", "tpot_s", "itl_p50_s", "itl_p95_s", "inter_token_s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except ConfigError as error:
        return tell(error, args, 2)
    except ToolkitError as error:
        return tell(error, args, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (`head`, say) has had enough
        sys.stderr.close()
        return 1


def tell(error: ToolkitError, args: argparse.Namespace, code: int) -> int:
    if getattr(args, "json", False):
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print(f"toolkit: {plain(str(error))}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="toolkit", description="Compare language models: answers, latency, cost.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    demo = command(commands, "demo", show_demo, "compare the embedded models, without a key or a network")
    demo.add_argument("--repeats", type=int, default=DEMO_REPEATS, help="how often each prompt is asked (default %(default)s)")

    ask = command(commands, "ask", show_answer, "ask one model and print its answer as it comes")
    ask.add_argument("model", help="provider/name, for example embedded/ngram-3")
    ask.add_argument("prompt", help="the prompt, or - to read it from standard input")
    add_options(ask)

    compare = command(commands, "compare", show_comparison, "ask several models the same prompts")
    compare.add_argument("models", nargs="+", metavar="MODEL", help="provider/name")
    compare.add_argument("--prompt", action="append", default=[], help="a prompt; may be given several times")
    compare.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a text file, one prompt a line, or a CSV file with a column 'prompt'"
    )
    compare.add_argument("--template", help="'... {column} ...' for a CSV file's columns")
    compare.add_argument("--repeats", type=int, default=1)
    compare.add_argument("--concurrency", type=int, default=16)
    compare.add_argument("--name", help="what to call this comparison")
    compare.add_argument("--out", type=Path, metavar="FILE", help="write the rows to a .csv or .parquet file")
    add_options(compare)

    dashboard = command(commands, "dashboard", show_dashboard, "serve the dashboard on this machine", machine=False)
    dashboard.add_argument("--journal", help="the journal to show (default: the one that TOOLKIT_JOURNAL names)")
    dashboard.add_argument("--port", type=int, default=DEFAULT_PORT, help="the next free one is taken where it is in use")
    dashboard.add_argument("--address", default="127.0.0.1", help="where to listen (default %(default)s: this machine only)")
    dashboard.add_argument("--alerts", type=Path, metavar="FILE", help="alert rules (default: the file that TOOLKIT_ALERTS names)")

    doctor = command(commands, "doctor", show_health, "say for each provider whether it can be used, and what to do if not")
    doctor.add_argument("providers", nargs="*", metavar="PROVIDER")
    doctor.add_argument("--alerts", nargs="?", const="", metavar="FILE", help="judge the alert rules instead; exit code 1 when one fires")

    annotate = command(commands, "annotate", annotate_journal, "mark this moment, such as a deployment, on the dashboard's charts")
    annotate.add_argument("text", help="what happened")
    annotate.add_argument("--ago", type=duration, metavar="TIME", help="how long ago it was: 90s, 15min, 2h")
    annotate.add_argument("--journal", metavar="URL", help="which one (default: the one that TOOLKIT_JOURNAL names)")

    add_cache_commands(commands)
    add_journal_commands(commands)

    models = command(commands, "models", show_models, "list the models of a provider")
    models.add_argument("provider")

    pull = command(commands, "pull", pull_model, "download a model to its server (Ollama, LM Studio)")
    pull.add_argument("model", help="provider/name, for example ollama/llama3.2:1b")
    return top


def add_cache_commands(commands: Any) -> None:  # argparse keeps the type of its subparsers to itself
    about = "look at the kept answers, or throw some away"
    cache = commands.add_parser("cache", help=about, description=about[0].upper() + about[1:] + ".")
    actions = cache.add_subparsers(metavar="ACTION", required=True)
    command(actions, "stats", show_cache, "say how full each tier is, and what it saved according to the journal")
    prune = command(actions, "prune", prune_cache, "remove what has expired, then the answers unused for longest until the limits hold")
    prune.add_argument("--max-bytes", type=byte_count, metavar="SIZE", help="keep so much at most: 500000, 500kB, 2GB")
    prune.add_argument("--max-entries", type=whole_number, metavar="N", help="keep so many answers at most")
    prune.add_argument("--older-than", type=duration, metavar="TIME", help="remove what was not used for so long: 90min, 12h, 30d")
    command(actions, "clear", clear_cache, "forget every answer, in a Redis for everyone who shares it")


def add_journal_commands(commands: Any) -> None:  # as above
    about = "export, prune or check the record of all calls"
    journal = commands.add_parser("journal", help=about, description=about[0].upper() + about[1:] + ".")
    actions = journal.add_subparsers(metavar="ACTION", required=True)
    export = command(actions, "export", export_journal, "write the calls to a .parquet, .csv or .jsonl file")
    export.add_argument("file", metavar="FILE")
    export.add_argument("--table", default="call", help="call, error, run, vote, log or cache (default %(default)s)")
    export.add_argument("--run", dest="of_run", metavar="RUN", help="id or name of a comparison: only its rows")
    export.add_argument("--since", type=duration, metavar="TIME", help="only rows of the last 90min, 12h, 30d")
    prune = command(actions, "prune", prune_journal, "move days that are over to Parquet files, and remove those that are too old")
    prune.add_argument(
        "--archive-after", type=duration, default=86_400.0, metavar="TIME", help="move days (UTC) that ended so long ago (default 1d)"
    )
    prune.add_argument("--no-archive", action="store_true", help="move nothing")
    prune.add_argument(
        "--older-than", type=duration, metavar="TIME", help="remove days that ended so long ago, such as 90d; runs and votes stay"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would happen")
    check = command(actions, "check", check_journal, "say whether the journal is whole, and what to do if it is not")
    check.add_argument(
        "--repair", action="store_true", help="first save what can be read into a new file, and keep the damaged one beside it"
    )
    for action in (export, prune, check):
        action.add_argument("--journal", metavar="URL", help="which one (default: the one that TOOLKIT_JOURNAL names)")


def byte_count(text: str) -> int:
    """Read ``500kB`` as 500000."""
    return round(measured(text, {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}))


def duration(text: str) -> float:
    """Read ``90min`` as 5400 seconds."""
    return measured(text, {"s": 1, "min": 60, "h": 3600, "d": 86_400})


def whole_number(text: str) -> int:
    return round(measured(text, {"": 1}))


def measured(text: str, units: dict[str, float]) -> float:
    number = text.rstrip(string.ascii_letters)
    unit = text[len(number) :].lower()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number" + (f" with one of {', '.join(filter(None, units))}" if len(units) > 1 else "")
        )
    return value


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, *, machine: bool = True
) -> argparse.ArgumentParser:  # commands: argparse keeps the type of its subparsers to itself
    added: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    added.set_defaults(run=run)
    if machine:
        added.add_argument("--json", action="store_true", help="print JSON, for machines")
    return added


def add_options(to: argparse.ArgumentParser) -> None:
    to.add_argument("--system", help="a system message")
    to.add_argument("--temperature", type=float)
    to.add_argument("--max-tokens", type=int)
    to.add_argument("--seed", type=int)
    to.add_argument("--no-cache", action="store_true", help="ask anew and keep nothing")


def options_of(args: argparse.Namespace) -> dict[str, Any]:  # each option has its own type
    return {
        "system": args.system,
        "temperature": args.temperature,
        "max_tokens": args.max_tokens,
        "seed": args.seed,
        "cache": not args.no_cache,
    }


def show_demo(args: argparse.Namespace) -> int:
    if not args.json:
        print("Three n-gram models, trained on Python's own documentation, answer eight prompts.")
        print("They are real and tiny: no key, no network.\n", flush=True)
    defaults.generate_text(DEMO_MODELS[0], DEMO_PROMPTS[0], max_tokens=1)  # trained or loaded here, so no latency below holds that
    result = defaults.compare(
        DEMO_MODELS, DEMO_PROMPTS, repeats=args.repeats, name="demo", concurrency=DEMO_CONCURRENCY, seed=7, temperature=0.8, max_tokens=32
    )
    if args.json:
        return print_rows(result)
    print_side_by_side(result)
    print_latency(result)
    print(f"{result.cached_sentence()[0].upper()}{result.cached_sentence()[1:]}.")
    print(f"Journal: {shown_url(settings.journal_url())}\nNext: `toolkit dashboard` shows these calls in the browser.")
    return 0


def print_side_by_side(result: Any) -> None:  # Comparison, whose module brings pandas
    table = result.side_by_side()
    rows = [[prompt, *(answer or "" for answer in answers)] for (_, prompt), answers in zip(table.index, table.to_numpy().tolist())]
    print(side_by_side_text(["prompt", *table.columns], rows), end="\n\n")


def print_latency(result: Any) -> None:  # Comparison
    print(result.text(), end="\n\n")
    notes = sorted({note for note in result.latency().query("q < 0.99")["note"] if note})
    print("".join(f"– {note}\n" for note in notes), end="\n" if notes else "")


def print_rows(result: Any) -> int:  # Comparison
    print(result.frame.to_json(orient="records", date_format="iso"))
    return 0 if (result.frame["status"] == "ok").all() and not result.missing else 1


def completion_row(done: Completion) -> dict[str, Any]:  # any JSON
    """A completion as plain data, with the rates worked out."""
    row = dataclasses.asdict(done)
    del row["timing"]["flow"]
    row["timing"] |= {name: getattr(done.timing, name) for name in RATES}
    return row


def show_answer(args: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    client = defaults.client()
    if args.json:
        done = client.generate_text(args.model, prompt, **options_of(args))
        print(json.dumps(completion_row(done), default=str))
        return 0
    for event in client.stream_text(args.model, prompt, **options_of(args)):
        if event.completion is not None:
            time = event.completion.timing
            took = f"{seconds(time.latency_s)}, first token {seconds(time.ttft_s)}" if time.latency_s is not None else seconds(time.total_s)
            print(f"\n\n[{event.completion.provenance}, {took}, {usd(event.completion.cost_usd)}]", file=sys.stderr)
        elif event.kind == "text":
            print(plain(event.text), end="", flush=True)
    return 0


def show_comparison(args: argparse.Namespace) -> int:
    prompts, template = read_prompt_arguments(args)
    write_rows = None if args.out is None else rows_writer(args.out)
    result = defaults.compare(
        args.models, prompts, template=template, repeats=args.repeats, concurrency=args.concurrency, name=args.name, **options_of(args)
    )
    if write_rows is not None:
        write_rows(result)
    if args.json:
        return print_rows(result)
    print_side_by_side(result)
    print_latency(result)
    errors = result.errors()
    for error in errors.itertuples():
        print(f"{error.count} × {error.error_type} ({error.models}): {plain(str(error.message))}\n  → {error.next_step}", file=sys.stderr)
    return 1 if len(errors) or result.missing else 0


def read_prompt_arguments(args: argparse.Namespace) -> tuple[Any, str | None]:
    """The prompts as ``compare`` takes them: a list, or a frame where a CSV file was named."""
    if args.prompts is None:
        if not args.prompt:
            raise ConfigError("give prompts: --prompt 'some text', or --prompts FILE")
        return args.prompt, args.template
    try:
        if args.prompts.suffix == ".csv":
            import pandas as pd

            return pd.read_csv(args.prompts), args.template
        lines = args.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as exc:
        raise ConfigError(f"can't read {args.prompts}: {exc}") from exc
    return [*args.prompt, *(line for line in lines if line.strip())], args.template


def rows_writer(path: Path) -> Callable[[Any], None]:  # of a Comparison
    """Return what writes a comparison's rows to a file; a name it can't write to is told before anything is asked."""
    if path.suffix == ".csv":
        return lambda result: result.frame.to_csv(path, index=False)
    if path.suffix != ".parquet":
        raise ConfigError(f"--out {path}: it ends in .csv or .parquet")
    if find_spec("pyarrow") is None:
        raise ConfigError(f"--out {path} needs pyarrow, which is not installed: pip install 'model-comparison-toolkit[notebook]'")
    return lambda result: result.frame.astype({"reference": "str"}).to_parquet(path)


def show_dashboard(args: argparse.Namespace) -> int:
    try:
        from dashboard.serve import run
    except ImportError as exc:
        raise ConfigError(
            f"the dashboard needs its extra ({exc.name} is missing): pip install 'model-comparison-toolkit[dashboard]'"
        ) from exc
    return run(args.journal or settings.journal_url(), args.port, address=args.address, alerts=args.alerts)


def show_health(args: argparse.Namespace) -> int:
    if args.alerts is not None:
        return show_alerts(args)
    found = examine(defaults.client(), args.providers)
    tiers, prices = shared_cache().stats().tiers, price_sources()
    if args.json:
        facts = {
            "providers": [dataclasses.asdict(each) for each in found],
            "home": str(settings.home()),
            "journal": shown_url(settings.journal_url()),
            "cache": {tier.tier: tier.errors == 0 for tier in tiers},
            "prices": [source._asdict() for source in prices],
        }
        print(json.dumps(facts))
    else:
        rows = [
            [each.provider, *map(mark, (each.configured, each.reachable, each.allowed)), seconds(each.latency_s), said(each)]
            for each in found
        ]
        print(text_table(["provider", "configured", "reachable", "allowed", "latency", "detail"], rows, right=False))
        works = ", ".join(f"{tier.tier} {'works' if tier.errors == 0 else 'can not be asked'}" for tier in tiers)
        known = "; ".join(f"{source.models} models of {source.name}" for source in prices)
        places = [[place.name, place.where, size(place.size_bytes)] for place in read_places(defaults.client())]
        print(f"\n{text_table(['place', 'where', 'size'], places, right=False)}\ncache    {works}\nprices   {known}")
    return 1 if args.providers and not all(each.ok for each in found) else 0


def mark(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[answer]


def said(found: Finding) -> str:
    """What a provider said, and what to do about it where that is not the same."""
    return plain(found.detail if found.next_step in ("", found.detail) else f"{found.detail} → {found.next_step}")


def show_alerts(args: argparse.Namespace) -> int:
    path = Path(args.alerts) if args.alerts else settings.alerts_file()
    rules, now_s = alerts.read_rules(path), time.time()
    if not rules:
        raise ConfigError(f"there are no alert rules in {path}: docs/dashboard.md says how to write them")
    found = alerts.firing(rules, alerts.journal_tally(JournalReader(), rules, now_s), now_s)
    if args.json:
        print(json.dumps([alert._asdict() for alert in found]))
    else:
        print("\n".join(plain(f"{alert.name}: {alert.message}") for alert in found) or f"none of {len(rules)} rules fires")
    return 1 if found else 0


def show_cache(args: argparse.Namespace) -> int:
    cache = shared_cache()
    earned = monitor.cache_stats()
    rows = []
    for tier in cache.stats().tiers:
        gains = earned[earned["tier"] == tier.tier]
        counts = {name: int(gains[name].sum()) for name in ("hits", "misses")}
        sums = counts | {name: float(gains[name].sum()) for name in ("saved_s", "saved_usd")}
        held = {} if tier.tier == "memory" else {"entries": tier.entries, "size_bytes": tier.size_bytes, "max_bytes": tier.max_bytes}
        rows.append({"tier": tier.tier, "works": tier.errors == 0, **held, **sums})
    total = earned[earned["tier"] == "all"]
    if args.json:
        print(json.dumps({"tiers": rows, "coalesced": int(total["coalesced"].sum())}))
    else:
        head = ["tier", "entries", "size", "limit", "hits", "misses", "saved time", "saved cost"]
        print(text_table(head, [cache_cells(row) for row in rows]))
        print(
            f"\n{int(total['coalesced'].sum())} calls shared the answer of an identical one under way.\nFolder: {settings.cache_folder()}"
        )
    return 0 if all(row["works"] for row in rows) else 1


def cache_cells(row: dict[str, Any]) -> list[str]:  # numbers and None
    entries = row.get("entries")
    held = ["each process's own" if row["tier"] == "memory" else "can't be asked" if entries is None else f"{entries:,}"]
    sizes = ["" if row.get(name) is None else f"{row[name] / 1e6:,.1f} MB" for name in ("size_bytes", "max_bytes")]
    return [row["tier"], *held, *sizes, f"{row['hits']:,}", f"{row['misses']:,}", seconds(row["saved_s"]), usd(row["saved_usd"])]


def prune_cache(args: argparse.Namespace) -> int:
    cache = shared_cache()
    gone = cache.prune(max_bytes=args.max_bytes, max_entries=args.max_entries, older_than_s=args.older_than)
    return tell_removed(cache, args, gone)


def clear_cache(args: argparse.Namespace) -> int:
    cache = shared_cache()
    gone = sum(tier.entries or 0 for tier in cache.stats().tiers)
    cache.clear()
    return tell_removed(cache, args, gone)


def tell_removed(cache: ResponseCache, args: argparse.Namespace, gone: int) -> int:
    """Say how many answers were removed; a tier that failed has been named in a warning."""
    left = {tier.tier: tier.entries for tier in cache.stats().tiers if tier.tier != "memory"}
    if args.json:
        print(json.dumps({"removed": gone, "left": left}))
    else:
        print(f"removed {gone:,} answers; left: {', '.join(f'{count} in {tier}' for tier, count in left.items())}")
    return 1 if any(tier.errors for tier in cache.stats().tiers) else 0


def shared_cache() -> ResponseCache:
    cache = open_cache(True)
    assert cache is not None
    return cache


def show_models(args: argparse.Namespace) -> int:
    models = defaults.client().list_models(args.provider)
    if args.json:
        print(json.dumps([dataclasses.asdict(model) for model in models], default=str))
    else:
        for model in models:
            print(plain(f"{args.provider}/{model.id}"))
    return 0


def pull_model(args: argparse.Namespace) -> int:
    """Show a download as one line that changes; where nobody watches, a line for each new status."""
    shown = Line(sys.stdout)
    for step in defaults.client().pull_model(args.model):
        if args.json:
            print(json.dumps(dataclasses.asdict(step)), flush=True)
        else:
            shown.show(plain(step.status), progress_text(step))
    shown.end()
    return 0


def progress_text(step: PullProgress) -> str:
    if not step.total_bytes:
        return ""
    return f"{step.completed_bytes / step.total_bytes:.0%} of {step.total_bytes / 1e6:,.0f} MB"


class Line:
    """A line of progress on a terminal; in a file or a pipe, only what changes in words."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty()
        self.last = ""

    def show(self, words: str, numbers: str) -> None:
        text = f"{words} {numbers}".strip()
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", flush=True, file=self.out)
        elif words != self.last:
            print(text, flush=True, file=self.out)
        self.last = words

    def end(self) -> None:
        if self.live:
            print(file=self.out)


if __name__ == "__main__":
    sys.exit(main())
