"""Plots that only a comparison has: differences with intervals, cost against quality, who wins against whom. Plotly, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from ..charts import OKABE_ITO, SYMBOLS, _colour, _escape, _figure, _height, _or_empty, _plotly, _title
from ..render import usd
from ..stats import mean_interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["cost_against_quality", "score_differences", "win_heatmap"]


def score_differences(verdicts: pd.DataFrame, *, confidence: float) -> go.Figure:
    """See ``Comparison.plot_scores``; ``verdicts`` is from ``Comparison.verdict``."""
    go = _plotly()
    metric = str(verdicts["metric"].iloc[0])
    rows: list[dict[Any, Any]] = [row for row in verdicts.to_dict("records") if not math.isnan(row["effect"])]  # by column
    names = [f"{_escape(row['a'])}<br>− {_escape(row['b'])} (n={row['n']})" for row in rows]
    figure = _figure(
        xaxis={
            "title": f"difference in {_title(metric)}, with {confidence:.0%} interval<br>right of 0 the first is higher",
            "zeroline": True,
            "zerolinecolor": "#666666",
        },
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names[::-1]},
        height=_height(len(names)),
        hovermode="closest",
    )
    for index, (decided, word) in enumerate([(True, "decided"), (False, "not decided")]):
        chosen = [(row, name) for row, name in zip(rows, names) if row["decided"] == decided]
        if chosen:
            bars = {
                "type": "data",
                "array": [length(row["high"] - row["effect"]) for row, _ in chosen],
                "arrayminus": [length(row["effect"] - row["low"]) for row, _ in chosen],
            }
            figure.add_trace(
                go.Scatter(
                    x=[row["effect"] for row, _ in chosen],
                    y=[name for _, name in chosen],
                    name=word,
                    mode="markers",
                    marker={"size": 9, "color": _colour(index), "symbol": SYMBOLS[index]},
                    error_x=bars,
                    customdata=[[row["low"], row["high"], row["p_adjusted"], row["n"]] for row, _ in chosen],
                    hovertemplate="%{y}: %{x:.3g} (%{customdata[0]:.3g} to %{customdata[1]:.3g}), "
                    "adjusted p %{customdata[2]:.3g}, n=%{customdata[3]} prompts<extra></extra>",
                )
            )
    return _or_empty(figure, f"No two models have {_escape(metric)} on the same prompts")


def length(bar: float) -> float:
    return 0.0 if math.isnan(bar) else bar


class Standing(NamedTuple):
    """What a model costs and how good its answers are."""

    label: str
    per_1k_usd: float
    quality: float
    low: float
    high: float
    n: int


def cost_against_quality(frame: pd.DataFrame, labels: Sequence[str], quality: str) -> go.Figure:
    """See ``Comparison.plot_cost``."""
    go = _plotly()
    found = [standing(frame[frame["label"] == label], label, quality) for label in labels]
    known = [one for one in found if not math.isnan(one.per_1k_usd + one.quality)]
    dearest = max((one.per_1k_usd for one in known), default=0.0) or 1.0
    figure = _figure(
        xaxis={"title": "US dollars per 1,000 calls", "range": [-0.04 * dearest, 1.08 * dearest]},
        yaxis={"title": f"mean {_title(quality)}"},
        hovermode="closest",
    )
    front = pareto_front(known)
    if len(front) > 1:
        line = {"color": OKABE_ITO[7], "dash": "dot", "shape": "hv"}
        x, y = [one.per_1k_usd for one in front], [one.quality for one in front]
        figure.add_trace(go.Scatter(x=x, y=y, name="no other is cheaper and better", mode="lines", line=line, hoverinfo="skip"))
    for index, one in enumerate(known):
        figure.add_trace(
            go.Scatter(
                x=[one.per_1k_usd],
                y=[one.quality],
                name=f"{_escape(one.label)} (n={one.n})",
                mode="markers",
                marker={"size": 11, "color": _colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)]},
                error_y={"type": "data", "array": [length(one.high - one.quality)], "arrayminus": [length(one.quality - one.low)]},
                hovertemplate=f"{_escape(one.label)}: {usd(one.per_1k_usd)} per 1,000 calls, %{{y:.3g}}, n={one.n} prompts<extra></extra>",
            )
        )
    if left_out := [one.label for one in found if one not in known]:
        words = f"not shown, for want of a price or a score: {', '.join(map(_escape, left_out))}"
        figure.add_annotation(text=words, showarrow=False, xref="paper", yref="paper", x=0, y=-0.2, xanchor="left", font={"size": 11})
    return _or_empty(figure, "No model has both a known price and a score")


def standing(rows: pd.DataFrame, label: str, quality: str) -> Standing:
    """Sum a model up: what its answers cost, or cost once where they came from the cache, and its mean score over prompts."""
    ok = rows[rows["status"] == "ok"]
    price = ok["cost_usd"].where(ok["provenance"] == "live", ok["saved_usd"])
    means = ok.groupby("prompt_id")[quality].mean().dropna()
    if means.empty:
        return Standing(label, math.nan, math.nan, math.nan, math.nan, 0)
    reach = mean_interval(means.to_numpy())
    return Standing(label, float(price.mean(skipna=False)) * 1000, float(means.mean()), reach.low, reach.high, len(means))


def pareto_front(standings: Sequence[Standing]) -> list[Standing]:
    """Those that no other beats: from the cheapest on, each better than all before."""
    front: list[Standing] = []
    for one in sorted(standings, key=lambda one: (one.per_1k_usd, -one.quality)):
        if not front or one.quality > front[-1].quality:
            front.append(one)
    return front


def win_heatmap(labels: Sequence[str], shares: Sequence[Sequence[float]], met: Sequence[Sequence[float]]) -> go.Figure:
    """See ``Comparison.plot_wins``; ``shares`` and ``met`` are tables of row against column."""
    go = _plotly()
    # Names that differ may look alike once escaped or cut, and a heatmap's categories must not: places are numbers, names their labels.
    names, places = [_escape(label) for label in labels], list(range(len(labels)))
    told = [[None if math.isnan(share) else share for share in row] for row in shares]
    figure = _figure(
        xaxis={"title": "against", "tickvals": places, "ticktext": names, "showgrid": False},
        yaxis={"title": "how often this model won", "tickvals": places, "ticktext": names, "autorange": "reversed", "showgrid": False},
        hovermode="closest",
        height=200 + 60 * len(labels),
        showlegend=False,
    )
    if any(share is not None for row in told for share in row):
        figure.add_trace(
            go.Heatmap(
                z=told,
                x=places,
                y=places,
                zmin=0,
                zmax=1,
                colorscale=[[0, OKABE_ITO[5]], [0.5, "#F7F7F7"], [1, OKABE_ITO[0]]],
                colorbar={"title": "share won", "tickformat": ".0%"},
                text=[["" if share is None else f"{share:.0%}<br>n={n:g}" for share, n in zip(row, ns)] for row, ns in zip(told, met)],
                texttemplate="%{text}",
                customdata=[[f"{row} against {column}" for column in names] for row in names],
                hovertemplate="%{customdata}: %{text}<extra></extra>",
            )
        )
    return _or_empty(figure, "No votes yet")
