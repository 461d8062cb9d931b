"""The plots of a comparison, by the data that they draw."""

import math

import pandas as pd
import pytest

import toolkit as tk
from toolkit.comparison.plots import cost_against_quality, pareto_front, score_differences, standing, win_heatmap
from toolkit.errors import ConfigError
from toolkit.testing import script


def frame_of(models):
    """Rows of ok calls: label to (cost, provenance, scores by prompt)."""
    rows = [
        {"label": label, "prompt_id": str(i), "status": "ok", "provenance": provenance, "cost_usd": cost if provenance == "live" else 0.0,
         "saved_usd": None if provenance == "live" else cost, "score": score}
        for label, (cost, provenance, scores) in models.items() for i, score in enumerate(scores)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"cost_usd": float, "saved_usd": float})


def compared(**options):
    one = script("brief", lambda prompt, _body: "yes")
    two = script("<wordy>", lambda prompt, _body: f"yes, {prompt}")
    return tk.compare([one, two], [f"p{i}" for i in range(6)], **options)


def test_differences_are_drawn_with_their_intervals_and_n():
    row = {"a": "x", "b": "y", "metric": "score", "effect": 0.2, "low": 0.1, "high": 0.4, "p_adjusted": 0.01, "n": 20, "decided": True}
    other = row | {"b": "z", "effect": -0.1, "low": -0.3, "high": 0.1, "decided": False}
    unknown = row | {"b": "w", "effect": math.nan}
    figure = score_differences(pd.DataFrame([row, other, unknown]), confidence=0.9)
    decided, undecided = figure.data
    assert (decided.name, undecided.name) == ("decided", "not decided")
    assert (list(decided.x), list(decided.y)) == ([0.2], ["x<br>− y (n=20)"])
    assert list(decided.error_x.array) == pytest.approx([0.2])
    assert list(decided.error_x.arrayminus) == pytest.approx([0.1])
    assert decided.marker.symbol != undecided.marker.symbol
    assert "90%" in figure.layout.xaxis.title.text


def test_a_comparison_plots_its_scores_or_its_latency():
    scored = compared(scorers={"length": lambda completion, reference: len(completion.text)})
    assert "length" in scored.plot_scores().layout.xaxis.title.text
    assert list(scored.plot_scores("length").data[0].x) == [-4.0]
    assert "&lt;wordy&gt;" in scored.plot_scores().data[0].y[0]
    assert "latency" in compared(cache=False).plot_scores().layout.xaxis.title.text


def test_cost_is_per_thousand_calls_and_quality_the_mean_over_prompts():
    frame = frame_of({"cheap": (0.001, "live", [0, 1, 1, 0]), "dear": (0.01, "replayed", [1, 1, 1, 0])})
    assert standing(frame[frame["label"] == "cheap"], "cheap", "score")[1:3] == pytest.approx((1.0, 0.5))
    figure = cost_against_quality(frame, ["cheap", "dear"], "score")
    points = {trace.name: (trace.x[0], trace.y[0]) for trace in figure.data if trace.mode == "markers"}
    assert points == {"cheap (n=4)": pytest.approx((1.0, 0.5)), "dear (n=4)": pytest.approx((10.0, 0.75))}


def test_the_pareto_line_joins_those_that_no_other_beats():
    frame = frame_of({"a": (0.001, "live", [0.2]), "b": (0.002, "live", [0.1]), "c": (0.003, "live", [0.9]), "d": (0.003, "live", [0.8])})
    found = [standing(frame[frame["label"] == label], label, "score") for label in "abcd"]
    assert [one.label for one in pareto_front(found)] == ["a", "c"]
    line = next(trace for trace in cost_against_quality(frame, list("abcd"), "score").data if trace.mode == "lines")
    assert [*line.x, *line.y] == pytest.approx([1.0, 3.0, 0.2, 0.9])


def test_a_model_without_a_price_is_named_and_not_drawn():
    frame = frame_of({"a": (0.001, "live", [0.2]), "<b>": (math.nan, "live", [0.1])})
    figure = cost_against_quality(frame, ["a", "<b>"], "score")
    assert len(figure.data) == 1
    assert "&lt;b&gt;" in figure.layout.annotations[0].text


def test_a_plot_of_cost_needs_a_score():
    with pytest.raises(ConfigError, match="none: give scorers"):
        compared().plot_cost()
    with pytest.raises(ConfigError, match="there are length"):
        compared(scorers={"length": lambda completion, reference: 1}).plot_cost("depth")


def test_a_free_model_stands_at_zero():
    figure = compared(scorers={"length": lambda completion, reference: len(completion.text)}).plot_cost()
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"] == [0.0, 0.0]


def test_the_timeline_has_a_lane_for_each_call_under_way_and_names_variants():
    script("pair", lambda prompt, _body: prompt)
    models = [tk.Model("scripted/pair", label=label, temperature=t) for label, t in (("cold", 0.0), ("warm", 1.0))]
    result = tk.compare(models, ["a", "b"], cache=False)
    shown = str(result.plot_timeline().to_dict())
    assert "cold" in shown
    assert "warm" in shown


def test_a_latency_plot_has_a_line_for_each_variant():
    script("pair", lambda prompt, _body: prompt)
    models = [tk.Model("scripted/pair", label=label, temperature=t) for label, t in (("cold", 0.0), ("warm", 1.0))]
    names = [trace.name for trace in tk.compare(models, ["a", "b"], cache=False).plot_latency().data if trace.name]
    assert names == ["cold (n=2)", "warm (n=2)"]


def test_wins_are_drawn_row_against_column():
    figure = win_heatmap(["a", "<b>"], [[math.nan, 0.75], [0.25, math.nan]], [[0, 4], [4, 0]])
    heat = figure.data[0]
    assert [list(row) for row in heat.z] == [[None, 0.75], [0.25, None]]
    assert heat.text[0][1] == "75%<br>n=4"
    assert list(figure.layout.xaxis.ticktext) == ["a", "&lt;b&gt;"]
    assert (heat.zmin, heat.zmax) == (0, 1)


def test_a_comparison_plots_its_wins():
    result = compared()
    assert "No votes" in result.plot_wins().layout.annotations[0].text
    ballot = result.ballot(rater="ann")
    while ballot.current is not None:
        ballot.cast("a" if ballot.current.left == "yes" else "b")
    heat = result.plot_wins().data[0]
    assert heat.z[0][1] == 1.0
    assert heat.text[1][0] == "0%<br>n=6"


def test_nothing_is_drawn_by_webgl():
    result = compared(scorers={"length": lambda completion, reference: len(completion.text)}, cache=False)
    kinds = {
        trace.type
        for figure in (result.plot_scores(), result.plot_cost(), result.plot_timeline(), result.plot_wins())
        for trace in figure.data
    }
    assert kinds <= {"scatter", "bar", "heatmap"}


def test_costs_of_nothing_are_drawn_from_zero():
    figure = cost_against_quality(frame_of({"free": (0.0, "live", [0, 1]), "local": (0.0, "live", [1, 1])}), ["free", "local"], "score")
    assert figure.layout.xaxis.range == (-0.04, 1.08)


def test_a_model_has_one_colour_in_all_plots_of_a_comparison():
    result = compared(scorers={"length": lambda completion, reference: len(completion.text)}, cache=False)
    curves = [(trace.name.split(" ")[0], trace.line.color) for trace in result.plot_latency().data if trace.name]
    points = [(trace.name.split(" ")[0], trace.marker.color) for trace in result.plot_cost().data if trace.mode == "markers"]
    bars = [(trace.name.split(":")[0], trace.marker.color) for trace in result.plot_timeline().data if trace.name.endswith(": answer")]
    assert [name for name, _ in curves] == ["scripted/brief", "scripted/&lt;wordy&gt;"]
    assert curves == points == bars
