"""What a judge said and how far it can be trusted, as frames. Loaded lazily: pandas comes with it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from .. import stats
from ..monitor import frames
from ..render import usd
from .judge import Judgement

__all__ = ["judge_report", "judge_sentences", "judgement_frame"]

KINDS: dict[str, type] = {
    "rater": str, "model": str, "prompt_id": str, "repeat": int, "order": int, "model_a": str, "model_b": str, "choice": str, "winner": str,
    "reason": str, "judge_error": str, "provenance": str, "latency_s": float, "cost_usd": float, "saved_usd": float, "answers": str,
}  # fmt: skip


def judgement_frame(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """See ``Comparison.judgements``."""
    columns = map(list, zip(*judgements)) if judgements else ([] for _ in KINDS)
    return frames.to_pandas(frames.TidyTable(dict(zip(KINDS, columns)), KINDS))


def judge_report(judgements: Sequence[Judgement], judged: Collection[str], confidence: float) -> pd.DataFrame:
    """See ``Comparison.judge_report``; ``judged`` are the names of the models that were judged."""
    raters = list(dict.fromkeys(said.rater for said in judgements))
    rows = [report_row(rater, [said for said in judgements if said.rater == rater], judged, confidence) for rater in raters]
    return pd.DataFrame(rows, columns=list(report_row("", [], (), confidence))).set_index("rater")


def report_row(rater: str, said: Sequence[Judgement], judged: Collection[str], confidence: float) -> dict[str, Any]:
    asked = [one for one in said if one.provenance is not None]
    good = [one for one in asked if one.choice is not None]
    decided = [one for one in good if one.choice != "tie"]
    first = sum(one.choice == "a" for one in decided)
    place = stats.wilson_interval(first, len(decided), confidence)
    pairs = both_orders(good)
    same = [outcome(one) == outcome(other) for one, other in pairs]
    return {
        "rater": rater,
        "asked": len(asked),
        "ties": len(good) - len(decided),
        "failed": len(asked) - len(good),
        "not_asked": len(said) - len(asked),
        "first_share": first / len(decided) if decided else math.nan,
        "first_low": place.low,
        "first_high": place.high,
        "first_p": place_p(pairs),
        "pairs": len(pairs),
        "agreement": sum(same) / len(same) if same else math.nan,
        "kappa": stats.cohen_kappa([outcome(one) for one, _ in pairs], [outcome(other) for _, other in pairs]) if pairs else math.nan,
        "judges_itself": any(one.model in judged for one in said),
        "cost_usd": math.nan if any(one.cost_usd is None for one in said) else math.fsum(one.cost_usd or 0.0 for one in said),
        "saved_usd": math.fsum(one.saved_usd or 0.0 for one in said),
    }


def both_orders(good: Sequence[Judgement]) -> list[tuple[Judgement, Judgement]]:
    """The pairings that were judged in both orders: the comparison's own order first."""
    by_order: tuple[dict[Any, Judgement], dict[Any, Judgement]] = ({}, {})
    for one in good:
        by_order[one.order][one.prompt_id, one.repeat, frozenset((one.model_a, one.model_b))] = one
    first, second = by_order
    return [(first[key], second[key]) for key in first if key in second]


def outcome(said: Judgement) -> str:
    """Which model won, told by its place in the comparison: the same for both orders if the judge is consistent."""
    if said.choice == "tie":
        return "tie"
    return "first" if (said.choice == "a") == (said.order == 0) else "second"


def place_p(pairs: Sequence[tuple[Judgement, Judgement]]) -> float:
    """That a model wins as often when it is shown first as when it is shown second: McNemar's mid-p.

    Several pairs on one prompt are not independent; their mean counts once then, in Student's paired test.
    """
    by_prompt: dict[str, list[tuple[bool, bool]]] = {}
    for one, other in pairs:
        if "tie" not in (one.choice, other.choice):
            by_prompt.setdefault(one.prompt_id, []).append((outcome(one) == "first", outcome(other) == "first"))
    if not by_prompt:
        return math.nan
    first, second = ([statistics.fmean(wins) for wins in side] for side in zip(*(zip(*won) for won in by_prompt.values())))
    alone = all(len(won) == 1 for won in by_prompt.values())
    return stats.paired_test(first, second, kind="mcnemar" if alone else "mean").p


def judge_sentences(report: pd.DataFrame) -> list[str]:
    """The rows of a report in words."""
    rows: dict[Any, dict[Any, Any]] = report.to_dict("index")  # by rater and column, each value of its own type
    return [sentence(rater, row) for rater, row in rows.items()]


def sentence(rater: str, row: dict[Any, Any]) -> str:
    place = f"chose the first place in {row['first_share']:.0%}" if not math.isnan(row["first_share"]) else "decided nothing"
    bounds = f" ({row['first_low']:.0%} to {row['first_high']:.0%})" if not math.isnan(row["first_share"]) else ""
    agreed = f", agreed with itself in both orders in {row['agreement']:.0%} of {row['pairs']:,} pairs" if row["pairs"] else ""
    failed = f", gave no verdict {row['failed']:,} times" if row["failed"] else ""
    own = "; it is one of the models it judged" if row["judges_itself"] else ""
    return f"{rater} {place}{bounds}{agreed}{failed}, and cost {usd(row['cost_usd'])}{own}."
