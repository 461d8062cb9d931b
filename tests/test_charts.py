"""What the figures hold; their looks are for the eye."""

import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats as scipy_stats

from toolkit import charts, monitor, stats
from toolkit.errors import ConfigError

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
NASTY = '<b onclick="x">m</b> & co'
ESCAPED = '&lt;b onclick="x"&gt;m&lt;/b&gt; &amp; co'
LIBRARIES = pytest.mark.parametrize("library", [pd, pl])


def calls(library=pd, seconds=(0.0,), **columns):
    """A frame with a call at each of these seconds after noon."""
    n = len(seconds)
    plain = {
        "at": [NOON + timedelta(seconds=s) for s in seconds], "model": "a/m", "status": "ok", "provenance": "live", "cache_tier": None,
        "error_type": None, "latency_s": 0.5, "total_s": 0.5, "ttft_s": None,
    }  # fmt: skip
    full = {name: value if isinstance(value, list) else [value] * n for name, value in (plain | columns).items()}
    return library.DataFrame(full)


def words(figure):
    return [annotation.text for annotation in figure.layout.annotations]


@LIBRARIES
def test_the_ecdf_rises_from_the_fastest_call_to_the_slowest(library):
    figure = charts.latency_ecdf(calls(library, range(4), latency_s=[0.4, 0.1, 0.3, 0.2]))
    assert list(figure.data[0].x) == [0.1, 0.2, 0.3, 0.4]
    assert list(figure.data[0].y) == [0.25, 0.5, 0.75, 1.0]
    assert figure.data[0].name == "a/m (n=4)"
    assert (figure.layout.xaxis.type, figure.layout.xaxis.title.text) == ("log", "latency (s)")


@LIBRARIES
def test_only_live_answers_are_drawn_as_latency(library):
    frame = calls(
        library,
        range(4),
        latency_s=[0.1, 0.2, None, 0.4],
        status=["ok", "error", "ok", "ok"],
        provenance=["live", "live", "live", "replayed"],
    )
    assert list(charts.latency_ecdf(frame).data[0].x) == [0.1]
    assert words(charts.latency_over_time(frame)) == ["No step of time holds the 2 live calls that p50 needs"]


def test_a_large_sample_is_drawn_by_1500_points_in_all_that_reach_both_ends():
    x = np.random.default_rng(1).lognormal(0, 1, 20_000)
    figure = charts.latency_ecdf(pd.DataFrame({"model": "m", "latency_s": x}))
    line = figure.data[0]
    assert sum(len(trace.x) for trace in figure.data) == 1500
    assert (line.x[0], line.x[-1], line.y[-1]) == (x.min(), x.max(), 1.0)
    assert line.y[249] == pytest.approx((x <= line.x[249]).mean())


def test_each_curve_lies_in_its_band_which_its_legend_entry_hides_with_it():
    figure = charts.latency_ecdf(
        calls(seconds=range(8), model=["a", "b"] * 4, latency_s=[0.1, 1.0, 0.2, 2.0, 0.3, 3.0, 0.4, 4.0]), confidence=0.5
    )
    lines, edges = figure.data[:2], figure.data[2:]
    margin = stats.ecdf_margin(4, 0.5)
    for line, low, high in zip(lines, edges[::2], edges[1::2]):
        assert list(low.y) == pytest.approx([max(0.0, y - margin) for y in line.y])
        assert list(high.y) == pytest.approx([min(1.0, y + margin) for y in line.y])
        assert (low.fill, high.fill, high.legendgroup, low.showlegend) == (None, "tonexty", line.legendgroup, False)
        assert high.fillcolor.startswith("rgba(") and line.zorder > 0
    assert figure.layout.yaxis.title.text == "share of calls, with 50 % bands"
    assert len(charts.latency_ecdf(calls(), confidence=None).data) == 1


def test_a_band_is_as_wide_as_the_number_of_prompts_allows_however_often_each_was_asked():
    frame = calls(seconds=range(12), prompt_id=["a", "b", "c"] * 4, latency_s=[0.1 * k for k in range(1, 13)])
    line, low, _ = charts.latency_ecdf(frame, confidence=0.5, clusters="prompt_id").data
    assert list(low.y) == pytest.approx([max(0.0, y - stats.ecdf_margin(3, 0.5)) for y in line.y])
    with pytest.raises(ConfigError, match="needs the column 'prompt'"):
        charts.latency_ecdf(frame, clusters="prompt")


def test_a_band_by_prompts_holds_the_curve_at_least_as_often_as_it_says_where_repeats_resemble_each_other():
    prompts, repeats, random = 20, 5, np.random.default_rng(20)
    held = {"by prompts": 0, "by calls": 0}
    for _ in range(1000):
        own, noise = random.normal(size=(prompts, 1)), random.normal(size=(prompts, repeats))
        ordered = np.sort(scipy_stats.norm.cdf(0.9 * own + np.sqrt(1 - 0.81) * noise).ravel())
        shares = np.arange(ordered.size + 1) / ordered.size
        farthest = max((ordered - shares[:-1]).max(), (shares[1:] - ordered).max())
        held["by prompts"] += farthest <= stats.ecdf_margin(prompts)
        held["by calls"] += farthest <= stats.ecdf_margin(ordered.size)
    assert held["by prompts"] >= 950
    assert held["by calls"] < 800, "else there would be nothing to mend"


def test_neighbours_differ_by_colour_and_dash_and_no_two_of_twenty_alike_and_nothing_is_drawn_by_webgl():
    frame = calls(seconds=range(20), model=[f"m{index:02}" for index in range(20)])
    figure = charts.latency_ecdf(frame, confidence=None)
    looks = [(trace.line.color, trace.line.dash) for trace in figure.data]
    assert len(set(looks)) == 20
    assert all(one[0] != two[0] and one[1] != two[1] for one, two in itertools.pairwise(looks))
    assert {trace.type for trace in figure.data} == {"scatter"}


@LIBRARIES
def test_percentiles_are_drawn_with_the_bounds_the_sample_can_give(library):
    x = [float(value) for value in range(1, 31)]
    frame = calls(library, range(30), latency_s=x)
    table = (monitor.percentiles if library is pd else monitor.percentiles.polars)("model", frame=frame)
    figure = charts.latency_percentiles(table)
    p50, p95, p99 = figure.data
    assert [trace.name for trace in figure.data] == ["p50", "p95", "p99"]
    assert list(p50.x) == [15.5]
    assert (p50.error_x.array[0], p50.error_x.arrayminus[0]) == (table["high"][0] - 15.5, 15.5 - table["low"][0])
    assert list(p95.error_x.array) == [0.0]
    assert p95.error_x.arrayminus[0] > 0
    assert list(p95.customdata) == ["upper bound not estimable at n=30"]
    assert len(p99.x) == 0
    assert list(figure.layout.yaxis.categoryarray) == ["a/m (n=30)"]


def test_the_axis_of_percentiles_names_the_metric():
    table = monitor.percentiles("model", "output_tokens_per_s", 0.5, frame=calls(seconds=range(3), output_tokens_per_s=7.0))
    figure = charts.latency_percentiles(table, metric="output_tokens_per_s")
    assert figure.layout.xaxis.title.text == "output tokens (1/s), with confidence interval"


@LIBRARIES
def test_latency_over_time_leaves_a_gap_where_too_few_calls_were_made(library):
    seconds = [*range(9), 130, *range(250, 258)]
    figure = charts.latency_over_time(calls(library, seconds, latency_s=[2.0] * 9 + [9.0] + [4.0, 6.0] * 4))
    line = figure.data[0]
    drawn = {x.second + 60 * x.minute: y for x, y in zip(line.x, line.y) if y is not None}
    assert drawn == {0: 2.0, 240: 5.0}
    assert list(line.y)[1] is None
    assert line.connectgaps is False
    assert figure.layout.xaxis.title.text == "time (UTC), steps of 2 min"


def test_times_are_drawn_in_utc_whatever_the_frames_zone():
    frame = calls(seconds=[0, 0.5])
    frame["at"] = frame["at"].dt.tz_convert("Asia/Tokyo")
    assert charts.latency_over_time(frame).data[0].x[0] == datetime(2026, 11, 1, 12)


def test_a_week_of_calls_is_cut_into_at_most_sixty_steps():
    figure = charts.latency_over_time(calls(seconds=[600.0 * step for step in range(1008)]))
    assert 20 <= len(figure.data[0].x) <= 61


@LIBRARIES
def test_errors_are_counted_by_type_and_step(library):
    frame = calls(
        library, [0, 1, 2, 100], status=["error", "error", "ok", "error"], error_type=["ServerError", "ServerError", None, "AuthError"]
    )
    figure = charts.errors_over_time(frame)
    assert {trace.name: list(trace.y) for trace in figure.data} == {"AuthError": [1], "ServerError": [2]}
    assert figure.layout.barmode == "stack"


@LIBRARIES
def test_the_share_of_the_cache_counts_every_answer_once(library):
    frame = calls(
        library, range(6), model=["a"] * 5 + ["b"], status=["ok"] * 4 + ["error", "ok"],
        provenance=["live", "replayed", "replayed", "coalesced", None, "live"], cache_tier=[None, "memory", "disk", None, None, None],
    )  # fmt: skip
    figure = charts.cache_share(frame)
    assert {trace.name: list(trace.x) for trace in figure.data} == {
        "live": [0.25, 1.0], "memory": [0.25, 0.0], "disk": [0.25, 0.0], "coalesced": [0.25, 0.0],
    }  # fmt: skip
    assert list(figure.data[0].customdata) == [1, 1]


@LIBRARIES
def test_the_timeline_shows_waiting_first_token_and_answer_in_lanes(library):
    frame = calls(library, [0.0, 0.5, 2.0], total_s=[1.0, 1.0, 1.0], latency_s=[0.75, 1.0, 1.0], ttft_s=[0.25, None, 0.5])
    bars = {trace.name: trace for trace in charts.timeline(frame).data}
    assert list(bars["waiting"].x) == [250.0]
    assert list(bars["a/m: first token"].x) == [250.0, 500.0]
    assert list(bars["a/m: answer"].x) == [500.0, 1000.0, 500.0]
    assert list(bars["a/m: answer"].y) == [1, 2, 1]
    assert bars["a/m: answer"].base[0] == datetime(2026, 11, 1, 12, 0, 0, 500_000)


def test_of_very_many_calls_the_timeline_shows_the_last_500_and_says_so():
    figure = charts.timeline(calls(seconds=range(700)))
    assert figure.layout.title.text == "the last 500 of 700 calls"
    assert sum(len(trace.x) for trace in figure.data) == 500
    assert figure.data[0].base[0] == datetime(2026, 11, 1, 12, 3, 20)


ALL = [charts.latency_ecdf, charts.latency_over_time, charts.errors_over_time, charts.cache_share, charts.timeline]


@pytest.mark.parametrize("draw", ALL)
@LIBRARIES
def test_a_figure_of_nothing_says_so(draw, library):
    figure = draw(calls(library, []))
    assert len(words(figure)) == 1
    assert all(len(trace.x) == 0 for trace in figure.data)


def test_percentiles_of_nothing_say_so(tmp_path):
    table = monitor.percentiles(journal=str(tmp_path / "none.sqlite"))
    assert words(charts.latency_percentiles(table)) == ["No percentile can be told yet: too few live calls"]


@pytest.mark.parametrize("draw", [*ALL, lambda frame: charts.latency_percentiles(monitor.percentiles("model", frame=frame, status=None))])
def test_what_a_model_is_called_is_never_read_as_html(draw):
    frame = calls(seconds=[0, 0.1, 0.2], model=NASTY, error_type=NASTY, status=["ok", "ok", "error"])
    text = draw(frame).to_json()
    assert "<b onclick" not in text.replace("\\u003c", "<")
    assert "\\u0026lt;b onclick" in text or "&lt;b onclick" in text


@pytest.mark.parametrize("draw", ALL)
def test_a_missing_column_is_named(draw):
    with pytest.raises(ConfigError, match=r"needs the column '\w+'; the frame has colour"):
        draw(pd.DataFrame({"colour": ["red"]}))


def test_plotlys_own_default_look_is_left_alone():
    import plotly.io

    before = plotly.io.templates.default
    figure = charts.latency_ecdf(calls())
    assert plotly.io.templates.default == before
    assert figure.layout.template.layout.colorway == charts.OKABE_ITO


def test_without_plotly_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['plotly'] = None; import pandas as pd\nfrom toolkit import charts, errors\n"
        "try: charts.latency_ecdf(pd.DataFrame({'model': ['m'], 'latency_s': [1.0]}))\n"
        "except errors.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "model-comparison-toolkit[notebook]" in done.stdout
