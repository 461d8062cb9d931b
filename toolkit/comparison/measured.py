"""What was measured: a comparison's rows, and the tables made of them. Loaded lazily: pandas comes with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ..errors import ConfigError
from ..hints import next_step
from ..monitor import frames
from ..monitor.events import CALL_COLUMNS, CallRecord
from ..stats import percentile_interval
from .estimate import CostEstimate, from_costs
from .run import Run
from .verdict import Verdict, verdict

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Measured"]


class Columns(Mapping[str, list[Any]]):
    """The columns of rows, each made when it is asked for: all at once they would be as large as the rows again."""

    def __init__(self, rows: Sequence[CallRecord]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> list[Any]:
        return list(map(itemgetter(CALL_COLUMNS.index(name)), self._rows))

    def __iter__(self) -> Iterator[str]:
        return iter(CALL_COLUMNS)

    def __len__(self) -> int:
        return len(CALL_COLUMNS)


class Measured:
    """The rows of a comparison, and the numbers in them; what ``Comparison`` is built on."""

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
        self.until_metric = run.until_metric
        self.elapsed_s = run.elapsed_s

    # --- rows --------------------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        return self._plan.labels

    @property
    def repeats(self) -> int:
        """How often each model was asked each prompt."""
        return self._plan.repeats

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

    @property
    def _table(self) -> frames.TidyTable:
        return frames.TidyTable(Columns([self._records[index] for index in sorted(self._records)]), frames.CALL_KINDS)

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
            "errors": int((rows["status"] == "error").sum()),
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

    def latency(self, q: tuple[float, ...] = (0.5, 0.95, 0.99), *, confidence: float = 0.95) -> pd.DataFrame:
        """Return latency percentiles of the live, successful calls with distribution-free intervals; repeats are clustered by prompt.

        Returns
        -------
        pandas.DataFrame
            ``label q value low high n note``, seconds; a percentile that ``n`` can't support is NaN and ``note`` says so. A model
            without live calls is there with ``n`` 0.
        """
        table = frames.percentiles(by=("label",), metric="latency_s", q=q, confidence=confidence, frame=self.frame)
        there = pd.MultiIndex.from_product([self.models, list(q)], names=["label", "q"])
        table = self._by_prompts(table.set_index(["label", "q"]).reindex(there).reset_index(), confidence)
        silent = table["n"].isna()
        table.loc[silent, "note"] = "no live call: nothing was asked now"
        return table.assign(n=table["n"].fillna(0).astype("int64"))

    def _by_prompts(self, table: pd.DataFrame, confidence: float) -> pd.DataFrame:
        """Latency percentiles with intervals that know which calls are repeats of one prompt."""
        if self._plan.repeats == 1:
            return table
        live = self.frame[(self.frame["status"] == "ok") & (self.frame["provenance"] == "live")].dropna(subset="latency_s")
        calls = {label: (rows["latency_s"], rows["prompt_id"]) for label, rows in live.groupby("label")}

        def ends(label: str, q: float, value: float, low: float, high: float, note: str) -> tuple[float, float, str]:
            if math.isnan(value):
                return low, high, note
            times, prompts = calls[label]
            interval = percentile_interval(times, q, confidence, prompts)
            return interval.low, interval.high, interval.note

        rows = zip(*(table[name] for name in ("label", "q", "value", "low", "high", "note")))
        low, high, note = zip(*(ends(*row) for row in rows))
        return table.assign(low=low, high=high, note=pd.array(note, dtype="str"))  # all missing, they would pass for numbers

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

    def estimate_cost(self, prompts: int | None = None) -> CostEstimate:
        """Say what asking such prompts anew would cost, from what they cost here.

        Parameters
        ----------
        prompts : int, optional
            How many; as many as here by default. Each is asked as often as here.

        Returns
        -------
        CostEstimate
            ``low expected high`` in US dollars (a 95 % prediction interval; None where a price is unknown or one prompt alone was asked),
            and a row a model.

        Raises
        ------
        ConfigError
            If ``prompts`` is no positive number.

        Examples
        --------
        >>> import toolkit as tk
        >>> tk.compare(["embedded/ngram-2"], ["The for statement", "A class is"], max_tokens=4).estimate_cost(1000).expected
        0.0
        """
        if prompts is not None and (not isinstance(prompts, int) or prompts < 1):
            raise ConfigError(f"prompts={prompts!r}: it is a number of prompts, at least 1")
        good = self.frame[self.frame["status"] == "ok"]
        anew = good["cost_usd"].where(good["provenance"] == "live", good["saved_usd"])  # a replay saved what its call cost
        by_prompt = anew.groupby([good["label"], good["prompt_id"]]).sum(min_count=1)
        costs = {label: by_prompt[label].tolist() if label in by_prompt else [] for label in self.models}
        return from_costs(costs, prompts or len(self._plan.questions), self._plan.repeats)

    def verdict(
        self,
        metric: str = "latency_s",
        *,
        correction: Literal["holm", "bh", "bonferroni"] = "holm",
        alpha: float = 0.05,
        kind: Literal["auto", "mean", "mcnemar", "wilcoxon", "sequential"] = "auto",
    ) -> Verdict:
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
            See ``toolkit.stats.paired_test``, or ``sequential``: see ``toolkit.stats.sequential_test``. By default ``sequential`` for the
            metric that ``until="decided"`` looked at, since a test for one look would claim too much there.

        Returns
        -------
        pandas.DataFrame
            A row a pair: ``a b metric``, ``effect`` (how much larger ``a`` is) with ``low high``, ``p p_adjusted``, ``n`` prompts,
            ``decided``, ``n_needed`` (prompts in all that would settle a difference like this one with 80 % power, by the same test and
            with as many pairs; missing where there is none) and ``sentence``.

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
        chosen = "sequential" if kind == "auto" and metric == self.until_metric else kind
        order = self._plan.prompts_in_order() if chosen == "sequential" else [question.prompt_id for question in self._plan.questions]
        return verdict(self.frame, self.models, metric, known=known, correction=correction, alpha=alpha, kind=chosen, order=order)
