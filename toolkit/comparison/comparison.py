"""The result of a comparison: one row a call, and what follows from them. Loaded lazily: pandas comes with it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ..errors import ConfigError
from ..hints import next_step
from ..monitor import frames
from ..monitor.events import CALL_COLUMNS, CallRecord
from ..render import escape, html_page, html_table, seconds, text_table, usd
from .run import Run
from .verdict import verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl

__all__ = ["Comparison", "SideBySide"]

SHOWN_ROWS = 20


class SideBySide(pd.DataFrame):
    """Prompts down, models across: a data frame that shows whole answers, escaped, and the first 20 prompts."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        rows = [("" if cell is None else cell for cell in row) for row in self.head(SHOWN_ROWS).reset_index().itertuples(index=False)]
        more = f'<div class="muted">and {len(self) - SHOWN_ROWS} more</div>' if len(self) > SHOWN_ROWS else ""
        return html_page(html_table([*self.index.names, *self.columns], [list(row) for row in rows]), more)


class Comparison:
    """Answers of several models to the same prompts.

    Attributes
    ----------
    frame : pandas.DataFrame
        Tidy, one row a call in the order of the table (prompt, repeat, model), however they were asked. The columns are those of
        ``toolkit.monitor.calls``, and ``reference``. ``label`` tells variants of one model apart.
    name, run_id : str
        What it is called, and its id in the journal.
    models : list of str
        The labels, in the order given.
    stopped : bool
        Whether cells are missing because it was interrupted or a rule stopped it.
    stopped_because : str or None
        The rule's reason.
    notes : tuple of str
        What else to know about how it went: that it was resumed, say, or that warm-up calls were left out.

    Examples
    --------
    >>> import toolkit as tk
    >>> result = tk.compare(["scripted/echo"], ["Hello"], name="greeting")
    >>> result
    <Comparison 'greeting': 1 model x 1 prompt, 1 ok, 0 failed>
    >>> result.side_by_side().iloc[0, 0]
    'Hello'
    """

    def __init__(self, run: Run, *, name: str | None = None) -> None:
        self._plan = run.plan
        self._records = run.done if run.finished else dict(run.done)  # a call that an interrupt left under way may still add to it
        self._scores = dict(run.scores)
        self._scorers = list(run.scorers)
        self.run_id = run.run_id
        self.name = name or run.run_id
        self.stopped = not run.finished
        self.stopped_because = run.stopped_because
        self.notes = tuple(run.notes)
        self.elapsed_s = run.elapsed_s

    # --- rows --------------------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        return self._plan.labels

    @property
    def order_seed(self) -> int:
        """The seed of the order of asking: give it to ``compare`` for the same order again."""
        return self._plan.order_seed

    @property
    def missing(self) -> int:
        """How many calls were planned and not made."""
        return len(self._plan) - len(self._records)

    @cached_property
    def frame(self) -> pd.DataFrame:
        columns = {name: pd.Series(values, dtype="float64") for name, values in self._score_columns.items()}
        return frames.to_pandas(self._table).assign(reference=pd.Series(self._references, dtype="object"), **columns)

    def polars(self) -> pl.DataFrame:
        """Return ``frame`` as a polars frame.

        Raises
        ------
        ConfigError
            If polars is not installed.
        """
        table = frames.to_polars(self._table)
        series = type(table[:, 0])
        extra = {"reference": self._references, **self._score_columns}
        return table.with_columns(series(name, values, strict=False) for name, values in extra.items())

    @property  # not kept: the frame has it all
    def _table(self) -> frames.TidyTable:
        rows = [self._records[index] for index in sorted(self._records)]
        columns = map(list, zip(*rows)) if rows else ([] for _ in CALL_COLUMNS)
        return frames.TidyTable(dict(zip(CALL_COLUMNS, columns)), frames.CALL_KINDS)

    @property
    def _references(self) -> list[Any]:  # whatever the scorers understand
        return [self._plan.cell(index).question.reference for index in sorted(self._records)]

    @property
    def _score_columns(self) -> dict[str, list[float]]:
        indices = sorted(self._records)
        return {name: [self._scores.get(index, {}).get(name, math.nan) for index in indices] for name in self._scorers}

    # --- tables ------------------------------------------------------------------------------------------------------

    def summary(self) -> pd.DataFrame:
        """Return a row a model: how many calls went how, latency of the live ones, tokens, money.

        Returns
        -------
        pandas.DataFrame
            Indexed by model. ``calls ok errors live replayed coalesced``; ``n`` live ok calls behind ``p50_s p95_s`` with
            ``p95_low_s p95_high_s`` (95 %; NaN where ``n`` can't support it); medians ``ttft_p50_s output_tokens_per_s``; sums
            ``input_tokens output_tokens cost_usd saved_s saved_usd`` (a sum with an unknown part is NaN); the mean of each scorer.
        """
        spread: dict[Any, Any] = self.latency().set_index(["label", "q"]).to_dict("index")  # by label and q, a row each
        return pd.DataFrame([self._summary_row(label, spread) for label in self.models], index=pd.Index(self.models, name="model"))

    def _summary_row(self, label: str, spread: dict[Any, Any]) -> dict[str, object]:  # see summary()
        rows = self.frame[self.frame["label"] == label]
        ok = rows[rows["status"] == "ok"]
        live = ok[ok["provenance"] == "live"]
        middle, tail = spread[label, 0.5], spread[label, 0.95]
        return {
            "calls": len(rows),
            "ok": len(ok),
            "errors": len(rows) - len(ok),
            **{kind: int((ok["provenance"] == kind).sum()) for kind in ("live", "replayed", "coalesced")},
            "n": tail["n"],
            "p50_s": middle["value"],
            "p95_s": tail["value"],
            "p95_low_s": tail["low"],
            "p95_high_s": tail["high"],
            "ttft_p50_s": live["ttft_s"].median(),
            "output_tokens_per_s": live["output_tokens_per_s"].median(),
            "input_tokens": ok["input_tokens"].sum(skipna=False) if len(ok) else 0,
            "output_tokens": ok["output_tokens"].sum(skipna=False) if len(ok) else 0,
            "cost_usd": ok["cost_usd"].sum(skipna=False),
            "saved_s": ok["saved_s"].sum(),
            "saved_usd": ok["saved_usd"].sum(),
            **{name: ok[name].mean() for name in self._scorers},
        }

    def side_by_side(self, only: Literal["different"] | None = None, *, repeat: int = 0) -> SideBySide:
        """Return the answers, prompts down and models across.

        Parameters
        ----------
        only : "different", optional
            Leave out the prompts that all models answered alike.
        repeat : int
            Which of the repeats.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``prompt_id`` and ``prompt``; a failed call shows as ``[RateLimitError] ...``.
        """
        if only not in (None, "different"):
            raise ConfigError(f"only={only!r}: it is 'different' or None")
        if not 0 <= repeat < self._plan.repeats:
            raise ConfigError(f"repeat={repeat}: this comparison has the repeats 0 to {self._plan.repeats - 1}")
        width, rows, index = len(self.models), [], []
        for number, question in enumerate(self._plan.questions):
            start = (number * self._plan.repeats + repeat) * width
            cells = [shown_answer(self._records.get(start + i)) for i in range(width)]
            if only is None or len(set(cells)) > 1:
                rows.append(cells)
                index.append((question.prompt_id, question.text))
        where = (
            pd.MultiIndex.from_tuples(index, names=["prompt_id", "prompt"])
            if index
            else pd.MultiIndex.from_arrays([[], []], names=["prompt_id", "prompt"])
        )
        return SideBySide(rows, index=where, columns=pd.Index(self.models, name=None), dtype="object")

    def latency(self, q: tuple[float, ...] = (0.5, 0.95, 0.99), *, confidence: float = 0.95) -> pd.DataFrame:
        """Return latency percentiles of the live, successful calls with distribution-free intervals.

        Returns
        -------
        pandas.DataFrame
            ``label q value low high n note``, seconds; a percentile that ``n`` can't support is NaN and ``note`` says so. A model
            without live calls is there with ``n`` 0.
        """
        table = frames.percentiles(by=("label",), metric="latency_s", q=q, confidence=confidence, frame=self.frame)
        there = pd.MultiIndex.from_product([self.models, list(q)], names=["label", "q"])
        table = table.set_index(["label", "q"]).reindex(there).reset_index()
        silent = table["n"].isna()
        table.loc[silent, "note"] = "no live call: nothing was asked now"
        return table.assign(n=table["n"].fillna(0).astype("int64"))

    def errors(self) -> pd.DataFrame:
        """Return the failed calls by kind.

        Returns
        -------
        pandas.DataFrame
            ``error_fingerprint error_type count models message next_step``, most frequent first.
        """
        failed = self.frame[self.frame["status"] == "error"]
        rows = [
            {
                "error_fingerprint": mark,
                "error_type": group["error_type"].iloc[0],
                "count": len(group),
                "models": ", ".join(sorted(set(group["label"]))),
                "message": group["error_message"].iloc[0],
                "next_step": next_step(str(group["error_type"].iloc[0])),
            }
            for mark, group in failed.groupby("error_fingerprint")
        ]
        columns = ["error_fingerprint", "error_type", "count", "models", "message", "next_step"]
        return pd.DataFrame(rows, columns=columns).sort_values("count", ascending=False, ignore_index=True)

    def cost(self) -> pd.DataFrame:
        """Return what each model cost.

        Returns
        -------
        pandas.DataFrame
            Indexed by model: ``calls cost_usd per_1k_calls_usd saved_usd``; NaN where a price is unknown.
        """
        table = self.summary()
        paid = table["live"].where(table["live"] > 0)
        return pd.DataFrame(
            {
                "calls": table["calls"],
                "cost_usd": table["cost_usd"],
                "per_1k_calls_usd": table["cost_usd"] / paid * 1000,
                "saved_usd": table["saved_usd"],
            }
        )

    def verdict(
        self,
        metric: str = "latency_s",
        *,
        correction: Literal["holm", "bh", "bonferroni"] = "holm",
        alpha: float = 0.05,
        kind: Literal["auto", "mean", "mcnemar", "wilcoxon"] = "auto",
    ) -> pd.DataFrame:
        """Say for each two models whether they differ, by how much, and how sure that is: on the same prompts, pair by pair.

        Parameters
        ----------
        metric : str
            A column of numbers such as ``latency_s``, ``ttft_s``, ``output_tokens`` or ``cost_usd``, or a scorer's name. A time counts
            live calls only. Repeats of a prompt are not independent: their mean counts once.
        correction : str
            For testing several pairs at once: ``holm``, ``bh`` or ``bonferroni``.
        alpha : float
            A pair is decided when its adjusted p-value is below; intervals have the confidence ``1 - alpha``.
        kind : str
            See ``toolkit.stats.paired_test``.

        Returns
        -------
        pandas.DataFrame
            A row a pair: ``a b metric``, ``effect`` (how much larger ``a`` is) with ``low high``, ``p p_adjusted``, ``n`` prompts,
            ``decided``, ``n_needed`` (prompts in all that would settle a difference like this one with 80 % power; missing where there
            is none) and ``sentence``.

        Raises
        ------
        ConfigError
            For an unknown metric (the message lists the known ones) or fewer than two models.

        Examples
        --------
        >>> import toolkit as tk
        >>> from toolkit.testing import script
        >>> _ = script("short", lambda prompt, body: "yes"), script("long", lambda prompt, body: prompt + " and " + prompt)
        >>> result = tk.compare(["scripted/short", "scripted/long"], ["a b", "c d", "e f", "g h", "i j", "k l"], cache=False)
        >>> result.verdict("output_tokens")["decided"].tolist()
        [True]
        """
        known = [name for name in frames.METRICS if name in self.frame] + self._scorers
        return verdict(self.frame, self.models, metric, known=known, correction=correction, alpha=alpha, kind=kind)

    def plot_latency(self) -> go.Figure:
        """Return a Plotly figure: the share of live calls answered within a time, a line a model.

        Raises
        ------
        ConfigError
            If plotly is not installed.
        """
        from .. import charts

        return charts.latency_ecdf(self.frame)

    # --- showing -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        ok = sum(row.status == "ok" for row in self._records.values())
        lacking = f", {self.missing} not asked" if self.missing else ""
        models, prompts = len(self.models), len(self._plan.questions)
        size = f"{models} model{'s' * (models != 1)} x {prompts} prompt{'s' * (prompts != 1)}"
        repeats = f" x {self._plan.repeats} repeats" if self._plan.repeats > 1 else ""
        return f"<Comparison {self.name!r}: {size}{repeats}, {ok} ok, {len(self) - ok} failed{lacking}>"

    def cached_sentence(self) -> str:
        """Say what came from the cache and what that saved."""
        again = [row for row in self._records.values() if row.provenance in ("replayed", "coalesced") and row.status == "ok"]
        if not again:
            return "nothing came from the cache"
        saved_s, saved_usd = sum(row.saved_s or 0.0 for row in again), sum(row.saved_usd or 0.0 for row in again)
        money = f" and {usd(saved_usd)}" if saved_usd else ""
        return f"{len(again)} of {len(self)} answers were replayed from the cache, which saved {seconds(saved_s)}{money}"

    def _shown_rows(self) -> list[list[str]]:
        rows: dict[Any, dict[Any, Any]] = self.summary().to_dict("index")  # by label and column, each value of its own type
        return [
            [
                label,
                f"{row['ok']:,}",
                f"{row['errors']:,}",
                f"{row['replayed'] + row['coalesced']:,}",
                f"{row['n']:,}",
                seconds(row["p50_s"]),
                seconds(row["p95_s"]),
                shown_interval(row["p95_low_s"], row["p95_high_s"]),
                seconds(row["ttft_p50_s"]),
                usd(row["cost_usd"]),
            ]
            for label, row in rows.items()
        ]

    SHOWN = ("model", "ok", "failed", "cached", "live n", "p50", "p95", "p95 interval (95 %)", "first token", "cost")

    def text(self) -> str:
        """Return the summary as a table for a terminal."""
        return "\n".join([text_table(self.SHOWN, self._shown_rows()), *self.notes])

    def _repr_html_(self) -> str:
        why = f" because {self.stopped_because}" if self.stopped_because else ""
        stopped = f" It was stopped{why}: {self.missing} calls are missing; run it again to ask them." if self.missing else ""
        notes = "".join(f" {note.capitalize()}." for note in self.notes)
        title = f"<b>{escape(self.name)}</b> <span class='muted'>{escape(self.cached_sentence())}.{escape(stopped)}{escape(notes)}</span>"
        return html_page(title, html_table(self.SHOWN, self._shown_rows()))


def shown_answer(row: CallRecord | None) -> str | None:
    """The text of a call's answer; a failed call shows what went wrong, one that was not made nothing."""
    if row is None:
        return None
    return (row.text or "") if row.status == "ok" else f"[{row.error_type}] {row.error_message}"


def shown_interval(low: float, high: float) -> str:
    if low != low and high != high:
        return "–"
    return f"{seconds(low)} to {seconds(high)}"
