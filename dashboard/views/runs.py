"""Runs side by side, pairs of models on the same prompts, answers word by word, and votes."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from dashboard.cells import LIVE, with_clusters
from dashboard.selection import Selection
from dashboard.views.slices import Rows, Slice, chosen, percentile, share
from toolkit import stats
from toolkit.errors import ConfigError

__all__ = [
    "PAIRED", "Ranked", "answers", "differences", "frontier", "model_points", "notebook_code", "ranking", "run_deltas", "run_summary", "verdicts",
]  # fmt: skip

PAIRED = {"latency_s": "latency", "cost_usd": "cost", "output_tokens": "tokens out"}
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 2_000


def run_summary(part: Rows) -> pl.DataFrame:
    """Return one row a run and model: calls, error share with interval, p50 and p95 with interval, cost per 1,000 live calls."""
    rows = part.rows.select("run_id", "label", "status", "provenance", "latency_s", "cost_usd", "prompt_id").collect()
    found = [
        _run_row(str(key[0]), str(key[1]), calls)
        for key, calls in rows.cast({"run_id": pl.String, "label": pl.String}).partition_by("run_id", "label", as_dict=True).items()
    ]
    return pl.DataFrame(found, schema=_RUN_SCHEMA, orient="row").sort("label", "run_id")


_RUN_SCHEMA: dict[str, Any] = {
    "run_id": pl.String, "label": pl.String, "n": pl.Int64, "live": pl.Int64, "errors": pl.Float64, "p50_s": pl.Float64, "p95_s": pl.Float64,
    "p95_low_s": pl.Float64, "p95_high_s": pl.Float64, "usd_per_1k_calls": pl.Float64, "note": pl.String,
}  # fmt: skip


def _run_row(run: str, model: str, calls: pl.DataFrame) -> tuple[Any, ...]:
    live = calls.filter(LIVE)
    measured = with_clusters(live.drop_nulls("latency_s"))
    latency = measured.select(pl.col("^cluster$"), value="latency_s", n=pl.lit(1, dtype=pl.UInt32)).sort("value")
    p50, p95 = percentile(latency, 0.5), percentile(latency, 0.95)
    ended, failed = calls.filter(pl.col("status").is_in(["ok", "error"])).height, calls.filter(pl.col("status") == "error").height
    price = live["cost_usd"].mean()
    per_1k = None if price is None else float(price) * 1e3  # type: ignore[arg-type]  # polars can't say that it is a number
    return (run, model, calls.height, live.height, share(failed, ended).value, p50.value, p95.value, p95.low, p95.high, per_1k, p95.note)


def run_deltas(part: Rows, baseline: str, metric: str = "latency_s") -> pl.DataFrame:
    """Return ``run_id label effect low high p n note``: each run against the baseline, same model, on prompts that both asked.

    A prompt's value is the mean of its live answers; the test is ``stats.paired_test`` on these means.
    """
    means = _prompt_means(part, metric, "run_id")
    rows = []
    for (run, model), values in means.items():
        base = means.get((baseline, model))
        if run != baseline and base:
            rows.append((run, model, *_paired(values, base)))
    return pl.DataFrame(rows, schema={"run_id": pl.String, "label": pl.String, **_TEST_SCHEMA}, orient="row").sort("label", "run_id")


def verdicts(part: Rows, metric: str = "latency_s") -> pl.DataFrame:
    """Return ``a b effect low high p n note p_adjusted``: each two models on the same prompts; p-values after Holm's correction."""
    means = {model: values for (_, model), values in _prompt_means(part, metric, None).items()}
    pairs = [(a, b, *_paired(means[a], means[b])) for a, b in itertools.combinations(sorted(means), 2)]
    table = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String, **_TEST_SCHEMA}, orient="row")
    tested = [p for p in table["p"] if p is not None]
    adjusted = iter(stats.adjust(tested).tolist() if tested else [])
    return table.with_columns(pl.Series("p_adjusted", [None if p is None else next(adjusted) for p in table["p"]], dtype=pl.Float64))


_TEST_SCHEMA: dict[str, Any] = {
    "effect": pl.Float64, "low": pl.Float64, "high": pl.Float64, "p": pl.Float64, "n": pl.Int64, "note": pl.String,
}  # fmt: skip


def _prompt_means(part: Rows, metric: str, group: str | None) -> dict[tuple[str, str], dict[str, float]]:
    key = pl.lit("") if group is None else pl.col(group).cast(pl.String)
    means = (
        part.rows.filter(LIVE, pl.col("prompt_id").is_not_null(), pl.col(metric).is_not_null())
        .group_by(key.alias("group"), pl.col("label").cast(pl.String), "prompt_id")
        .agg(pl.col(metric).mean())
        .collect()
    )
    found: dict[tuple[str, str], dict[str, float]] = {}
    for of, model, prompt, value in means.sort("group", "label", "prompt_id").iter_rows():
        found.setdefault((of, model), {})[prompt] = value
    return found


def _paired(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[float | None, float | None, float | None, float | None, int, str]:
    both = sorted(a.keys() & b.keys())
    if len(both) < 2:
        return None, None, None, None, len(both), f"{len(both) or 'no'} prompt in common, a test needs 2"
    test = stats.paired_test([a[prompt] for prompt in both], [b[prompt] for prompt in both], kind="mean")
    numbers = (None if math.isnan(value) else value for value in (test.effect, test.low, test.high, test.p))
    effect, low, high, p = numbers
    return effect, low, high, p, test.n, test.note


# In a notebook


def notebook_code(selection: Selection, journal: str | None) -> str:
    """Return the Python that gives the calls of the runs chosen, as far as they pass the filters, and what follows from them.

    ``journal`` is a file, or ``None`` for that of the environment, whose address may hold a password. Whatever comes from the journal
    stands in it as a literal: a run may be called anything.
    """
    filtered = {column: values for column, values in chosen(selection).items() if column != "run_id"}
    where = f"journal = {journal!r}" if journal else "journal = None  # a server: what TOOLKIT_JOURNAL says, as for the dashboard"
    lines = [
        "import pandas as pd",
        "import toolkit as tk",
        "",
        where,
        f"runs = {list(selection.runs)!r}",
        "calls = pd.concat([tk.monitor.calls(run=run, journal=journal) for run in runs])",
        *(f'calls = calls[calls["{column}"].isin({values!r})]' for column, values in filtered.items()),
        "",
        'percentiles = tk.monitor.percentiles(["label", "run_id"], q=[0.5, 0.95], clusters=["run_id", "prompt_id"], frame=calls)',
        'answers = calls[calls["status"] == "ok"].pivot_table("text", "prompt_id", ["label", "run_id"], aggfunc="last")',
        "tk.charts.latency_percentiles(percentiles)",
    ]
    return "\n".join(lines)


# Cost against latency


def model_points(part: Slice) -> pl.DataFrame:
    """Return ``label n p95_s usd_per_1k_calls best``: models with both numbers; ``best`` where no other is cheaper and faster."""
    latency = part.calls.levels("latency_s")
    rows = []
    for (model,), counts in part.calls.counts.filter(LIVE).cast({"label": pl.String}).partition_by("label", as_dict=True).items():
        p95, priced = percentile(latency.filter(pl.col("label") == str(model)), 0.95), int(counts["cost_usd_known"].sum())
        if p95.value is not None and priced:
            rows.append((str(model), p95.n, p95.value, float(counts["cost_usd"].sum()) / priced * 1e3))
    schema = {"label": pl.String, "n": pl.Int64, "p95_s": pl.Float64, "usd_per_1k_calls": pl.Float64}
    table = pl.DataFrame(rows, schema=schema, orient="row").sort("usd_per_1k_calls", "p95_s")
    return table.with_columns(best=pl.Series(frontier(table.select("usd_per_1k_calls", "p95_s").rows()), dtype=pl.Boolean))


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each point whether no other one is at most as large in both numbers and smaller in one (Pareto)."""
    return [not any(x <= a and y <= b and (x < a or y < b) for x, y in points) for a, b in points]


# Answers


def answers(texts: pl.DataFrame, models: Sequence[str], only_different: bool) -> list[tuple[str, str, dict[str, str]]]:
    """Return ``(prompt_id, prompt, answer by model)`` of each prompt's newest answers; ``texts`` has ``prompt_id label prompt text``."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for prompt_id, model, prompt, text in texts.select("prompt_id", "label", "prompt", "text").iter_rows():
        if model in models:
            found.setdefault(prompt_id, (prompt or "", {}))[1][model] = text or ""
    rows = [(prompt_id, prompt, by_model) for prompt_id, (prompt, by_model) in sorted(found.items())]
    return [row for row in rows if not only_different or len(set(row[2].values())) > 1]


def differences(base: str, other: str) -> Iterator[tuple[str, str]]:
    """Yield ``(kind, words)``: what two texts share (``same``), what only the first has (``gone``), and only the second (``new``)."""
    first, second = _WORDS.findall(base)[:_MOST_WORDS], _WORDS.findall(other)[:_MOST_WORDS]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            yield "same", "".join(second[c:d])
        else:
            if b > a:
                yield "gone", "".join(first[a:b])
            if d > c:
                yield "new", "".join(second[c:d])


# Votes


class Ranked(NamedTuple):
    """A model's place by votes: Bradley-Terry ability on the log-odds scale, with its 95 % interval."""

    model: str
    ability: float | None
    low: float | None
    high: float | None
    wins: float
    games: int


def ranking(votes: Mapping[str, Sequence[Any]]) -> tuple[list[Ranked], str]:
    """Return models by votes, best first, and why there are no abilities where there are none.

    A tie, and "both bad", is half a win for each; a skipped vote counts for nothing.
    """
    played = [(a, b, choice) for a, b, choice in zip(votes["model_a"], votes["model_b"], votes["choice"]) if choice != "skip" and a != b]
    models = sorted({model for a, b, _ in played for model in (a, b)})
    place = {model: number for number, model in enumerate(models)}
    wins = [[0.0] * len(models) for _ in models]
    for a, b, choice in played:
        first = {"a": 1.0, "b": 0.0}.get(choice, 0.5)
        wins[place[a]][place[b]] += first
        wins[place[b]][place[a]] += 1 - first
    tally = [(sum(wins[i]), round(sum(wins[i]) + sum(row[i] for row in wins))) for i in range(len(models))]
    try:
        fit = stats.bradley_terry(wins)
    except ConfigError:
        rows = [Ranked(model, None, None, None, *tally[place[model]]) for model in models]
        note = "No finite abilities fit yet: some models never lost to, or never won against, the others. More votes, or a tie, will tell."
        return sorted(rows, key=lambda row: -row.wins / max(row.games, 1)), note if models else ""
    rows = [
        Ranked(model, ability, ability - 1.959964 * error, ability + 1.959964 * error, *tally[place[model]])
        for model, ability, error in zip(models, fit.abilities, fit.standard_errors)
    ]
    return sorted(rows, key=lambda row: -(row.ability or 0.0)), f"Abilities are log-odds against {models[0]}, whose own is 0 by definition."
