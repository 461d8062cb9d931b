"""Runs side by side, models against each other, answers word by word, and votes."""

from __future__ import annotations

import math

import polars as pl
import streamlit as st

from dashboard import data, figures, views, words
from dashboard.page import ask, chart, download, empty, header, nothing_here, panel, shown, table
from dashboard.selection import Selection
from dashboard.sidebar import run_labels
from toolkit.render import escape

MOST_RUNS = 6
PAGE_ROWS = 8
_MARKS = {
    "same": "{}",
    "gone": '<del style="color:#B0460F;text-decoration:line-through">{}</del>',
    "new": '<ins style="color:#0072B2;font-weight:600">{}</ins>',
}


def runs_shown(runs: dict[str, str]) -> list[str]:
    """Let the reader choose runs; the first is the baseline."""
    offered = [run for run in runs if not shown().selection.runs or run in shown().selection.runs]
    chosen = st.multiselect(
        "Runs (the first is the baseline)",
        offered,
        default=offered[1::-1],
        format_func=run_labels(runs).__getitem__,
        key="runs",
        bind="query-params",
        max_selections=MOST_RUNS,
    )
    return list(chosen)


def of_runs(runs: list[str]) -> Selection:
    """All calls of runs that pass the other filters, whenever they were made."""
    return shown().selection._replace(lo_s=-math.inf, hi_s=math.inf, runs=tuple(runs), against=None)


def side_by_side(runs: list[str], names: dict[str, str]) -> None:
    summary = data.ask_rows(views.run_summary, shown().version, of_runs(runs))
    slower = data.ask_rows(views.run_deltas, shown().version, of_runs(runs), runs[0], "latency_s")
    dearer = data.ask_rows(views.run_deltas, shown().version, of_runs(runs), runs[0], "cost_usd")
    keys = ["run_id", "label"]
    found = summary.join(_said(slower, "latency", 1e3), on=keys, how="left").join(_said(dearer, "cost", 1e3), on=keys, how="left")
    order = {run: number for number, run in enumerate(runs)}
    found = found.sort("label", pl.col("run_id").replace_strict(order, default=len(runs), return_dtype=pl.Int64))
    drawn = found.select(
        pl.col("label").alias("model"),
        pl.col("run_id").replace(names).alias("run"),
        pl.col("live").alias("live calls"),
        pl.col("errors").alias("errors"),
        (pl.col("p50_s") * 1e3).round_sig_figs(3).alias("p50 (ms)"),
        (pl.col("p95_s") * 1e3).round_sig_figs(3).alias("p95 (ms)"),
        pl.col("latency").alias("Δ mean latency (ms)"),
        pl.col("usd_per_1k_calls").alias("per 1k calls ($)"),
        pl.col("cost").alias("Δ cost per 1k calls ($)"),
        pl.col("note").replace("", None).alias("too few calls"),
    )
    drawn = drawn.select(column for column in drawn if column.null_count() < drawn.height)
    columns = {
        "errors": st.column_config.NumberColumn(format="percent"),
        "per 1k calls ($)": st.column_config.NumberColumn(format="$%.4f"),
        "Δ mean latency (ms)": st.column_config.TextColumn(width=190, help="Against the baseline."),
        "Δ cost per 1k calls ($)": st.column_config.TextColumn(help="Against the baseline."),
    }
    table(drawn, "side-by-side", "Runs side by side: calls, errors, latency, cost, each against the baseline", columns)
    st.caption(
        f"Baseline: {words.escape(names[runs[0]])}. Differences (Δ) from it are paired on prompts that both runs asked of the same model, with 95 % intervals; "
        "an interval without zero is a difference beyond chance."
    )
    download("runs", lambda: found)


def notebook(runs: list[str]) -> None:
    st.code(views.notebook_code(of_runs(runs), data.journal_file()), language="python")
    st.caption(
        "The calls of these runs as they are in the journal, one row a call. The comparison itself, with references and scores, is in the file that "
        "`comparison.save(path)` wrote, and `tk.load_comparison(path)` opens it."
    )


def _said(deltas: pl.DataFrame, name: str, scale: float) -> pl.DataFrame:
    said = [
        note if effect is None else f"{_end(effect, scale)} ({_end(low, scale)} to {_end(high, scale)}), n = {n}"
        for effect, low, high, n, note in deltas.select("effect", "low", "high", "n", "note").iter_rows()
    ]
    return deltas.select("run_id", "label").with_columns(pl.Series(name, said, dtype=pl.String))


def _end(value: float | None, scale: float) -> str:
    return words.UNKNOWN if value is None else f"{'+' if value > 0 else ''}{words.three(value * scale)}"


def pareto() -> None:
    found = ask(views.model_points)
    if found.is_empty():
        empty("No model has both a p95 (20 live calls) and a known cost in this window.")
        return
    best = ", ".join(found.filter(pl.col("best"))["label"])
    chart(
        figures.cost_against_latency(found, shown().models),
        "pareto",
        f"Cost per 1,000 calls against p95 latency. Not beaten in both: {best}",
    )
    st.caption("Live calls in the window. A model in a ring is beaten in both numbers by none.")


def pairs(run: str) -> None:
    metric = st.segmented_control(
        "Metric", list(views.PAIRED), default="latency_s", required=True, key="metric", bind="query-params", format_func=views.PAIRED.__getitem__,
        label_visibility="collapsed",
    ) or "latency_s"  # fmt: skip
    found = data.ask_rows(views.verdicts, shown().version, of_runs([run]), metric)
    if found.is_empty():
        empty("A verdict needs a run with two models that answered the same prompts.")
        return
    scale, unit = {"latency_s": (1e3, "ms"), "cost_usd": (1.0, "$"), "output_tokens": (1.0, "tokens")}[metric]
    drawn = found.select(
        pl.col("a").alias("A"),
        pl.col("b").alias("B"),
        pl.Series("verdict", [_verdict(row, metric) for row in found.iter_rows(named=True)], dtype=pl.String),
        (pl.col("effect") * scale).round_sig_figs(3).alias(f"A - B ({unit})"),
        pl.Series(
            f"95 % interval ({unit})",
            [f"{_end(a, scale)} to {_end(b, scale)}" for a, b in found.select("low", "high").rows()],
            dtype=pl.String,
        ),
        pl.col("p_adjusted").round_sig_figs(2).alias("p (Holm)"),
        pl.col("n").alias("prompts"),
        pl.col("note").replace("", None).alias("note"),
    )
    table(
        drawn.select(c for c in drawn if c.null_count() < drawn.height),
        "verdicts",
        "Each two models of the run on the same prompts: difference, interval, p-value",
    )
    st.caption("Student's test on the differences of prompt means over live answers; p-values corrected for the number of pairs (Holm).")


def _verdict(row: dict[str, float | str | None], metric: str) -> str:
    p, effect = row["p_adjusted"], row["effect"]
    if not isinstance(p, float) or not isinstance(effect, float) or p > 0.05:
        return "not decided"
    low, high = (row["a"], row["b"]) if effect < 0 else (row["b"], row["a"])
    word = {"latency_s": "is faster than", "cost_usd": "is cheaper than", "output_tokens": "answers shorter than"}[metric]
    return f"{low} {word} {high}"


def grid(run: str) -> None:
    texts = data.answers_of(run)
    models = views.found_models(texts)
    if texts.is_empty() or texts["text"].null_count() == texts.height:
        empty("The journal has no answers of this run: content is recorded only where TOOLKIT_RECORD_CONTENT is not 0.")
        return
    left, right = st.columns([1, 3])
    different = left.toggle("Only different", key="different", bind="query-params")
    chosen = right.multiselect(
        "Models (the first is the base of the differences)", models, default=models[:3], key="columns", bind="query-params"
    )
    rows = views.answers(texts, chosen, different) if chosen else []
    if not rows:
        empty("No prompt to show: choose a model, or show equal answers too.")
        return
    pages = math.ceil(len(rows) / PAGE_ROWS)
    at = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1
    st.html(answer_table(rows[(at - 1) * PAGE_ROWS : at * PAGE_ROWS], list(chosen)))
    st.caption(f"{words.plural(len(rows), 'prompt')}. Underlined: only in this answer; struck through: only in the base's.")


def answer_table(rows: list[tuple[str, str, dict[str, str]]], models: list[str]) -> str:
    """The grid as HTML; every word of prompts and answers is escaped here."""
    cell = "border:1px solid #8886;padding:6px;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
    head = "".join(f'<th style="{cell};text-align:left">{escape(name)}</th>' for name in ("prompt", *models))
    body = "".join(
        f'<tr><td style="{cell}">{escape(prompt)}</td>'
        + "".join(f'<td style="{cell}">{_answer(by_model, models, model)}</td>' for model in models)
        + "</tr>"
        for _, prompt, by_model in rows
    )
    return f'<table style="border-collapse:collapse;width:100%;table-layout:fixed;font-size:.85rem"><tr>{head}</tr>{body}</table>'


def _answer(by_model: dict[str, str], models: list[str], model: str) -> str:
    if model not in by_model:
        return "<em>no answer</em>"
    base = by_model.get(models[0])
    if model == models[0] or base is None:
        return escape(by_model[model])
    return "".join(_MARKS[kind].format(escape(text)) for kind, text in views.differences(base, by_model[model]))


def votes(runs: list[str]) -> None:
    found = data.votes(runs[-1]) if runs and data.votes(runs[-1])["vote_id"] else data.votes(None)
    ranked, note = views.ranking(found)
    if not ranked:
        empty("No votes yet. In a notebook, comparison.vote() shows two answers at a time without their models' names.")
        return
    known = [
        (row.model, row.ability, row.low, row.high)
        for row in ranked
        if row.ability is not None and row.low is not None and row.high is not None
    ]
    if known:
        chart(
            figures.abilities(known),
            "ranking",
            "Abilities by votes with 95 % intervals: " + ", ".join(f"{m} {a:.2f}" for m, a, *_ in known),
        )
    tally = pl.DataFrame(
        {"model": [row.model for row in ranked], "wins": [row.wins for row in ranked], "votes": [row.games for row in ranked]}
    )
    table(tally, "votes", "Votes by model: wins and number of votes; a tie is half a win")
    st.caption(f"{words.plural(len(found['choice']), 'vote')}; a tie is half a win for each. {words.escape(note)}")


def content() -> None:
    names = data.choices(shown().version).runs
    with panel("Cost against latency"):
        pareto()
    if not names:
        empty("No runs yet. A comparison makes one:", 'toolkit compare embedded/ngram-2 embedded/ngram-4 --prompt "A class is"')
        return
    runs = runs_shown(names)
    if not runs:
        empty("Choose a run to see its models and answers, or two to compare them.")
        return
    with panel("Side by side"):
        side_by_side(runs, names)
    with st.expander("Open in a notebook"), panel():
        notebook(runs)
    newest = runs[-1]
    with panel(f"Models on the same prompts, {words.escape(names[newest])}"):
        pairs(newest)
    with panel(f"Answers, {words.escape(names[newest])}"):
        grid(newest)
    with panel("Votes"):
        votes(runs)


header("Compare")
if not nothing_here():
    content()
