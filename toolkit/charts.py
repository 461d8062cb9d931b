"""Tidy frames in, Plotly figures out: pandas or polars, nothing is shown.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, with dashes as a second cue. Everything is drawn as
SVG, at most 1,500 points a chart: WebGL takes seconds without a graphics card, and browsers limit how many such charts a page has.
Model names and error types come from outside and Plotly reads them as HTML, so they are escaped.
"""

from __future__ import annotations

import html
import importlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from . import stats
from .errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl

    Frame = pd.DataFrame | pl.DataFrame

T = TypeVar("T")

__all__ = [
    "DASHES",
    "OKABE_ITO",
    "cache_share",
    "errors_over_time",
    "latency_ecdf",
    "latency_over_time",
    "latency_percentiles",
    "template",
    "timeline",
]

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")
"""Colours that colour-blind readers can tell apart (Okabe and Ito, "Color Universal Design", 2008), with a grey in place of black."""

DASHES = ("solid", "dash", "dot", "dashdot")
"""Patterns of lines: the second cue."""

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")

_MOST_POINTS = 1_500
_MOST_STEPS = 60
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800)
_SOURCES = {"live": OKABE_ITO[7], "memory": OKABE_ITO[0], "disk": OKABE_ITO[4], "redis": OKABE_ITO[2], "coalesced": OKABE_ITO[1]}


def latency_ecdf(
    frame: Frame,
    *,
    metric: str = "latency_s",
    by: str = "model",
    confidence: float | None = 0.95,
    order: Sequence[str] = (),
    clusters: str | None = None,
) -> go.Figure:
    """Draw which share of the calls took at most so long, a line for each model in the band where its true curve lies.

    Parameters
    ----------
    frame : pandas or polars frame
        Calls, as from ``monitor.calls()``; those not live or not ok are left out where the frame tells.
    metric : str
        Column of positive numbers, drawn on a logarithmic axis.
    by : str
        Column that tells the lines apart.
    confidence : float, optional
        Of the bands, each for a whole curve at once (``toolkit.stats.ecdf_margin``); ``None`` draws no bands.
    order : list of str, optional
        Which names come first, and so which colours they have; the others follow by name.
    clusters : str, optional
        Column that tells which calls resemble each other, such as ``prompt_id`` where prompts were asked several times: a band is as
        wide as for one call of each. By default calls are taken for independent.

    Raises
    ------
    ConfigError
        If a column is missing, ``confidence`` is out of range, or plotly is not installed.

    Notes
    -----
    The mean of a prompt's repeats strays no farther from the truth than one of them does (Jensen's inequality), so a band for one call a
    prompt holds the curve of all repeats at least as often.

    Examples
    --------
    >>> import pandas as pd
    >>> figure = latency_ecdf(pd.DataFrame({"model": ["m"] * 3, "latency_s": [0.1, 0.3, 0.2]}))
    >>> list(figure.data[0].x)
    [0.1, 0.2, 0.3]
    """
    go = _plotly()
    samples = _in_order(_samples(frame, metric, by), order)
    share = "share of calls" if confidence is None else f"share of calls, with {100 * confidence:g} % bands"
    figure = _figure(
        xaxis=_log_axis(_title(metric), itertools.chain(*samples.values())),
        yaxis={"title": share, "tickformat": ".0%", "range": [0, 1.02]},
        hovermode="closest",
    )
    curves = {name: _steps(sorted(sample), max(10, _MOST_POINTS // (3 * len(samples)))) for name, sample in samples.items()}
    for index, (name, (x, y)) in enumerate(curves.items()):
        label = f"{_escape(name)} (n={len(samples[name])})"
        line = {"color": _colour(index), "dash": _dash(index), "shape": "hv"}
        hover = f"{_escape(name)}: %{{y:.1%}} took at most %{{x:.3g}} {_unit(metric)[1]}<extra></extra>"
        figure.add_trace(
            go.Scatter(x=x, y=y, name=label, legendgroup=_escape(name), mode="lines", line=line, hovertemplate=hover, zorder=1)
        )
    if confidence is not None:
        sizes = (
            {name: len(sample) for name, sample in samples.items()} if clusters is None else _cluster_counts(frame, metric, by, clusters)
        )
        _add_bands(figure, curves, {name: stats.ecdf_margin(sizes[name], confidence) for name in samples})
    return _or_empty(figure, "No live calls to show yet")


def _add_bands(figure: go.Figure, curves: Mapping[str, tuple[list[float], list[float]]], margins: Mapping[str, float]) -> None:
    """Fill what lies within the margin of each curve: two edges without a line, under the curves."""
    look = {"showlegend": False, "mode": "lines", "hoverinfo": "skip", "line": {"width": 0, "shape": "hv"}}
    for index, (name, (x, y)) in enumerate(curves.items()):
        low = [max(0.0, height - margins[name]) for height in y]
        high = [min(1.0, height + margins[name]) for height in y]
        fill = {"fill": "tonexty", "fillcolor": _pale(_colour(index), 0.2 if len(curves) <= 3 else 0.12)}  # many lie above each other
        figure.add_scatter(x=x, y=low, legendgroup=_escape(name), **look)
        figure.add_scatter(x=x, y=high, legendgroup=_escape(name), **look, **fill)


def _steps(ordered: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """Return the points of an ECDF; of a large sample evenly chosen ones, always with the last."""
    n = len(ordered)
    chosen = range(n) if n <= most else sorted({round((n - 1) * step / (most - 1)) for step in range(most)})
    return [ordered[index] for index in chosen], [(index + 1) / n for index in chosen]


def latency_percentiles(table: Frame, *, metric: str = "latency_s") -> go.Figure:
    """Draw percentiles with their confidence intervals, a row for each model: where two intervals overlap, nothing is settled.

    Parameters
    ----------
    table : pandas or polars frame
        From ``monitor.percentiles()``: group columns, then ``q value low high n note``. An end that the sample can't bound has
        no bar; the reason is in the hover text.
    metric : str
        What the values are: names the axis and its unit.

    Raises
    ------
    ConfigError
        If a column is missing, or plotly is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"model": ["m"], "q": [0.5], "value": [0.2], "low": [0.1], "high": [0.4], "n": [20], "note": [""]}
    >>> figure = latency_percentiles(pd.DataFrame(row))
    >>> figure.data[0].name, list(figure.data[0].y)
    ('p50', ['m (n=20)'])
    """
    go = _plotly()
    rows = _percentile_rows(table)
    labels = list(dict.fromkeys(row.label for row in rows))
    figure = _figure(
        xaxis=_log_axis(f"{_title(metric)}, with confidence interval", (row.value for row in rows)),
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": labels[::-1]},
        height=_height(len(labels)),
        hovermode="closest",
    )
    for index, q in enumerate(sorted({row.q for row in rows})):
        known = [row for row in rows if row.q == q and row.value > 0]
        figure.add_trace(
            go.Scatter(
                x=[row.value for row in known],
                y=[row.label for row in known],
                name=f"p{100 * q:g}",
                mode="markers",
                marker={"size": 9, "color": _colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)]},
                error_x={
                    "type": "data",
                    "array": [_length(row.high - row.value) for row in known],
                    "arrayminus": [_length(row.value - row.low) for row in known],
                },
                customdata=[_escape(row.note) for row in known],
                hovertemplate=f"%{{y}}: %{{x:.3g}} {_unit(metric)[1]} %{{customdata}}",
            )
        )
    return _or_empty(figure, "No percentile can be told yet: too few live calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class _PercentileRow:
    label: str
    q: float
    value: float
    low: float
    high: float
    note: str


def _percentile_rows(table: Frame) -> list[_PercentileRow]:
    q, value, low, high, n, note = (_column(table, name) for name in ("q", "value", "low", "high", "n", "note"))
    names = [str(name) for name in table.columns]
    groups = [_column(table, name) for name in names[: names.index("q")]]
    labels = [" · ".join(_escape(part) for part in parts) for parts in zip(*groups)] or [""] * len(q)
    return [
        _PercentileRow(
            label=f"{labels[i]} (n={n[i]})", q=q[i], value=_number(value[i]), low=_number(low[i]), high=_number(high[i]), note=note[i]
        )
        for i in range(len(q))
    ]


def _length(bar: float) -> float:
    return 0.0 if math.isnan(bar) else bar


def latency_over_time(frame: Frame, q: float = 0.5, *, metric: str = "latency_s", by: str = "model") -> go.Figure:
    """Draw a percentile over time, a line for each model.

    Time is cut into steps of a round length; a step with too few calls for the percentile is a gap in the line.

    Parameters
    ----------
    frame : pandas or polars frame
        Calls, as from ``monitor.calls()``; those not live or not ok are left out where the frame tells.
    q : float
        Between 0 and 1.
    metric : str
        Column of positive numbers, drawn on a logarithmic axis.
    by : str
        Column that tells the lines apart.

    Raises
    ------
    ConfigError
        If a column is missing, ``q`` is out of range, or plotly is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> at = pd.to_datetime(["2026-11-01T12:00:00Z", "2026-11-01T12:00:01Z"])
    >>> figure = latency_over_time(pd.DataFrame({"at": at, "model": "m", "latency_s": [0.1, 0.3]}))
    >>> figure.layout.yaxis.title.text
    'p50 of latency (s)'
    """
    go = _plotly()
    needed = stats.percentile_min_n(q)
    samples = _timed_samples(frame, metric, by)
    times = [at for sample in samples.values() for at, _ in sample]
    step = _step_s(times, len(times) // (3 * needed * max(1, len(samples))))  # so that most steps hold enough of each model
    figure = _figure(
        xaxis={"title": _time_title(step), "type": "date"},
        yaxis=_log_axis(f"p{100 * q:g} of {_title(metric)}", (value for sample in samples.values() for _, value in sample)),
    )
    for index, (name, sample) in enumerate(samples.items()):
        buckets = _buckets(sample, step)
        values = [stats.percentile(bucket, q) if len(bucket) >= needed else None for bucket in buckets.values()]
        if any(value is not None for value in values):
            figure.add_trace(
                go.Scatter(
                    x=[_time(bucket * step) for bucket in buckets],
                    y=values,
                    name=_escape(name),
                    mode="lines+markers",
                    connectgaps=False,
                    line={"color": _colour(index), "dash": _dash(index)},
                    customdata=[len(bucket) for bucket in buckets.values()],
                    hovertemplate=f"%{{y:.3g}} {_unit(metric)[1]} (n=%{{customdata}})",
                )
            )
    return _or_empty(figure, f"No step of time holds the {needed} live calls that p{100 * q:g} needs")


def _timed_samples(frame: Frame, metric: str, by: str) -> dict[str, list[tuple[float, float]]]:
    samples: dict[str, list[tuple[float, float]]] = {}
    for name, at, value in _live_rows(frame, by, "at", metric):
        if _number(value) > 0 and at is not None:
            samples.setdefault(str(name), []).append((at.timestamp(), value))
    return dict(sorted(samples.items()))


def _buckets(sample: Iterable[tuple[float, float]], step: float) -> dict[int, list[float]]:
    """Return the values of each step from the first to the last, empty ones too."""
    found: dict[int, list[float]] = {}
    for at, value in sample:
        found.setdefault(math.floor(at / step), []).append(value)
    return {bucket: found.get(bucket, []) for bucket in range(min(found), max(found) + 1)}


def _step_s(times: Sequence[float], steps: int = _MOST_STEPS) -> float:
    """Return the shortest round step that cuts the time into at most so many."""
    steps = min(max(steps, 1), _MOST_STEPS)
    span = max(times) - min(times) if times else 0.0
    return next((step for step in _STEPS_S if span <= step * steps), math.ceil(span / steps))


def errors_over_time(frame: Frame) -> go.Figure:
    """Draw how many calls failed over time, stacked by the type of error.

    Parameters
    ----------
    frame : pandas or polars frame
        Calls, as from ``monitor.calls()``: ``at``, ``status``, ``error_type``.

    Raises
    ------
    ConfigError
        If a column is missing, or plotly is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> at = pd.to_datetime(["2026-11-01T12:00:00Z", "2026-11-01T12:00:01Z"])
    >>> figure = errors_over_time(pd.DataFrame({"at": at, "status": ["ok", "error"], "error_type": [None, "ServerError"]}))
    >>> figure.data[0].name, sum(figure.data[0].y)
    ('ServerError', 1)
    """
    go = _plotly()
    rows = list(zip(_column(frame, "at"), _column(frame, "status"), _column(frame, "error_type")))
    step = _step_s([at.timestamp() for at, _, _ in rows])
    counts: dict[str, Counter[int]] = {}
    for at, status, kind in rows:
        if status == "error":
            counts.setdefault(str(kind or "unknown"), Counter())[math.floor(at.timestamp() / step)] += 1
    most = max(sum(counts.values(), Counter()).values(), default=0)
    yaxis = {"title": "failed calls", "rangemode": "tozero", "dtick": 1 if most <= 10 else None}  # no half calls
    figure = _figure(xaxis={"title": _time_title(step), "type": "date"}, yaxis=yaxis, barmode="stack")
    for index, (kind, buckets) in enumerate(sorted(counts.items())):
        figure.add_trace(
            go.Bar(
                x=[_time(bucket * step) for bucket in sorted(buckets)],
                y=[buckets[bucket] for bucket in sorted(buckets)],
                name=_escape(kind),
                width=step * 1000,
                offset=0,
                marker={"color": _colour(index), "pattern": {"shape": ("", "/", ".", "x")[index // len(OKABE_ITO) % 4]}},
                hovertemplate="%{y}",
            )
        )
    return _or_empty(figure, "No call failed")


def cache_share(frame: Frame) -> go.Figure:
    """Draw where each model's answers came from: the service, a tier of the cache, or an identical call under way.

    Parameters
    ----------
    frame : pandas or polars frame
        Calls, as from ``monitor.calls()``: ``model``, ``status``, ``provenance``, ``cache_tier``.

    Raises
    ------
    ConfigError
        If a column is missing, or plotly is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = {"model": "m", "status": "ok", "provenance": ["live", "replayed"], "cache_tier": [None, "memory"]}
    >>> figure = cache_share(pd.DataFrame(columns))
    >>> [(trace.name, list(trace.x)) for trace in figure.data]
    [('live', [0.5]), ('memory', [0.5])]
    """
    go = _plotly()
    counts: dict[str, Counter[str]] = {}
    columns = (_column(frame, name) for name in ("model", "status", "provenance", "cache_tier"))
    for model, status, provenance, tier in zip(*columns):
        if status == "ok":
            source = str(tier or "memory") if provenance == "replayed" else str(provenance or "live")
            counts.setdefault(_escape(model), Counter())[source] += 1
    models = sorted(counts)
    figure = _figure(
        xaxis={"title": "share of answers", "tickformat": ".0%", "range": [0, 1]},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": models[::-1]},
        height=_height(len(models)),
        barmode="stack",
        hovermode="closest",
    )
    for source, colour in _SOURCES.items():
        if any(source in counts[model] for model in models):
            answers = [counts[model][source] for model in models]
            shares = [count / counts[model].total() for model, count in zip(models, answers)]
            bar = {"y": models, "x": shares, "customdata": answers, "hovertemplate": "%{y}: %{x:.1%}, %{customdata} answers"}
            figure.add_trace(go.Bar(**bar, name=source, orientation="h", marker={"color": colour}))
    return _or_empty(figure, "No answers yet")


def timeline(frame: Frame, *, order: Sequence[str] = ()) -> go.Figure:
    """Draw each call as a bar in time: waiting (cache, limiter, retries), up to the first token, and the answer.

    Calls under way at the same moment lie above each other, so the height is the concurrency. Of more than 500 calls the last
    500 are drawn.

    Parameters
    ----------
    frame : pandas or polars frame
        Calls, as from ``monitor.calls()``: ``at``, ``model``, ``total_s``, ``latency_s``, ``ttft_s``.
    order : list of str, optional
        Which models come first, and so which colours they have; the others follow by name.

    Raises
    ------
    ConfigError
        If a column is missing, or plotly is not installed.

    Examples
    --------
    >>> import pandas as pd
    >>> at = pd.to_datetime(["2026-11-01T12:00:00Z"])
    >>> call = {"at": at, "model": "m", "total_s": 1.0, "latency_s": 0.75, "ttft_s": 0.25}
    >>> [(trace.name, list(trace.x)) for trace in timeline(pd.DataFrame(call)).data]  # milliseconds
    [('waiting', [250.0]), ('m: first token', [250.0]), ('m: answer', [500.0])]
    """
    go = _plotly()
    bars = _bars(frame)
    shown = bars[-_MOST_POINTS // 3 :]
    lanes = _lanes(shown)
    title = f"the last {len(shown)} of {len(bars)} calls" if len(shown) < len(bars) else None
    figure = _figure(
        xaxis={"title": "time (UTC)", "type": "date"},
        yaxis={"title": "calls at a time"},
        barmode="overlay",
        hovermode="closest",
        title=title,
    )
    parts = [("waiting", "#BBBBBB", [(bar.start, bar.wait_s, lane, bar.model) for bar, lane in zip(shown, lanes)])]
    there = dict.fromkeys(sorted({bar.model for bar in shown}))
    for index, model in enumerate(_in_order(there, [_escape(name) for name in order])):
        own = [(bar, lane) for bar, lane in zip(shown, lanes) if bar.model == model]
        first = [(bar.start + bar.wait_s, bar.first_s, lane, model) for bar, lane in own]
        answer = [(bar.start + bar.wait_s + bar.first_s, bar.answer_s, lane, model) for bar, lane in own]
        parts += [(f"{model}: first token", _pale(_colour(index), 0.4), first), (f"{model}: answer", _colour(index), answer)]
    for name, colour, pieces in parts:
        drawn = [piece for piece in pieces if piece[1] > 0]
        if drawn:
            figure.add_trace(
                go.Bar(
                    base=[_time(start) for start, *_ in drawn],
                    x=[1000 * seconds for _, seconds, *_ in drawn],
                    y=[lane for *_, lane, _ in drawn],
                    name=name,
                    orientation="h",
                    marker={"color": colour, "line": {"width": 0}},
                    customdata=[[model, seconds] for _, seconds, _, model in drawn],
                    hovertemplate="%{customdata[0]}: %{customdata[1]:.3g} s",
                )
            )
    return _or_empty(figure, "No calls yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    model: str
    start: float
    wait_s: float
    first_s: float
    answer_s: float

    @property
    def end(self) -> float:
        return self.start + self.wait_s + self.first_s + self.answer_s


def _bars(frame: Frame) -> list[_Bar]:
    columns = (_column(frame, name) for name in ("at", "model", "total_s", "latency_s", "ttft_s"))
    bars = []
    for at, model, total, latency, ttft in zip(*columns):
        total_s, latency_s = (_length(_number(seconds)) for seconds in (total, latency))
        first_s = min(_length(_number(ttft)), latency_s)
        wait_s = max(0.0, total_s - latency_s)
        bars.append(_Bar(model=_escape(model), start=at.timestamp(), wait_s=wait_s, first_s=first_s, answer_s=latency_s - first_s))
    return sorted(bars, key=lambda bar: bar.start)


def _lanes(bars: Sequence[_Bar]) -> list[int]:
    """Return for each bar, in order of start, the lowest lane (from 1) that is free by then."""
    free_at: list[float] = []
    lanes = []
    for bar in bars:
        lane = next((index for index, end in enumerate(free_at) if end <= bar.start), len(free_at))
        free_at[lane : lane + 1] = [bar.end]
        lanes.append(lane + 1)
    return lanes


def template() -> go.layout.Template:
    """Return the look that all figures share; it holds for them alone and leaves Plotly's default as it is.

    Examples
    --------
    >>> template().layout.hovermode
    'x unified'
    """
    axis = {"gridcolor": "#E5E5E5", "linecolor": "#999999", "zeroline": False, "automargin": True}
    return _plotly().layout.Template(
        layout={
            "colorway": OKABE_ITO,
            "font": {"size": 13, "color": "#222222"},
            "paper_bgcolor": "#FFFFFF",
            "plot_bgcolor": "#FFFFFF",
            "hovermode": "x unified",
            "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        }
    )


def _plotly() -> Any:  # the module: plotly ships no types
    try:
        return importlib.import_module("plotly.graph_objects")
    except ImportError as error:
        raise ConfigError("charts need plotly: pip install 'model-comparison-toolkit[notebook]'") from error


def _figure(**layout: Any) -> go.Figure:  # any layout property of Plotly
    return _plotly().Figure(layout={"template": template(), "showlegend": True, **layout})


def _or_empty(figure: go.Figure, words: str) -> go.Figure:
    """Say in words why a figure shows nothing."""
    if not any(len(trace.x) for trace in figure.data):
        figure.add_annotation(text=words, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def _samples(frame: Frame, metric: str, by: str) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for name, value in _live_rows(frame, by, metric):
        if _number(value) > 0:  # the axis is logarithmic
            samples.setdefault(str(name), []).append(float(value))
    return dict(sorted(samples.items()))


def _cluster_counts(frame: Frame, metric: str, by: str, clusters: str) -> dict[str, int]:
    """How many clusters the values of each line come from."""
    found: dict[str, set[str]] = {}
    for name, value, cluster in _live_rows(frame, by, metric, clusters):
        if _number(value) > 0:
            found.setdefault(str(name), set()).add(str(cluster))
    return {name: len(names) for name, names in found.items()}


def _in_order(named: Mapping[str, T], order: Sequence[str]) -> dict[str, T]:
    names = [name for name in order if name in named]
    return {name: named[name] for name in dict.fromkeys([*names, *named])}


def _live_rows(frame: Frame, *wanted: str) -> Iterable[tuple[Any, ...]]:
    rows = zip(*(_column(frame, name) for name in wanted))
    names = set(map(str, frame.columns))
    asked: Mapping[str, str] = {"provenance": "live", "status": "ok"}
    marks = [[value == asked[name] for value in _column(frame, name)] for name in asked if name in names]
    return (row for row, *kept in zip(rows, *marks) if all(kept))


def _column(frame: Frame, name: str) -> list[Any]:
    if name not in frame.columns:
        raise ConfigError(f"this chart needs the column {name!r}; the frame has {', '.join(map(str, frame.columns))}")
    return [None if value is None or type(value).__name__ in ("NAType", "NaTType") else value for value in frame[name]]


def _number(value: Any) -> float:  # a cell of a frame
    return math.nan if value is None else float(value)


def _escape(text: Any) -> str:  # a cell of a frame
    return html.escape("" if text is None or text != text else str(text), quote=False)


def _colour(index: int) -> str:
    return OKABE_ITO[index % len(OKABE_ITO)]


def _pale(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _height(rows: int) -> int:
    """Pixels for a chart with a row for each of so many things: near each other, they are easier to compare."""
    return 150 + 40 * max(rows, 2)


def _dash(index: int) -> str:
    return DASHES[(index + index // len(OKABE_ITO)) % len(DASHES)]


def _log_axis(title: str, values: Iterable[float]) -> dict[str, Any]:  # properties of Plotly's
    """A logarithmic axis with whole numbers at its ticks, as many as have room: each digit within a power of ten, 1 2 5 within three."""
    known = [value for value in values if value > 0]
    span = max(known) / min(known) if known else 1.0
    return {"title": title, "type": "log", "tickformat": "~g", "dtick": "D1" if span < 10 else "D2" if span < 1000 else 1}


def _title(metric: str) -> str:
    """Return an axis title with its unit, both read from the column's name."""
    suffix, unit = _unit(metric)
    words = _escape(metric.removesuffix(suffix).replace("_", " "))
    return f"{words} ({unit})" if unit else words


def _unit(metric: str) -> tuple[str, str]:
    """Return the end of a column's name that tells its unit, and the unit."""
    known = (("_per_s", "1/s"), ("_s", "s"), ("_usd", "US dollars"))
    return next(((suffix, unit) for suffix, unit in known if metric.endswith(suffix)), ("", ""))


def _time_title(step: float) -> str:
    size, unit = next((size, unit) for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")) if step >= size)
    return f"time (UTC), steps of {step / size:g} {unit}"


def _time(seconds: float) -> datetime:
    # Without its zone: Plotly draws the clock time it is given, and that is UTC.
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
