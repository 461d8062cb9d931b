"""Charts of the pages: tables of ``views`` in, Plotly figures out.

They share the palette of ``toolkit.charts``, but take numbers that ``views`` has worked out (a journal has millions of calls), carry what
a click needs, keep a model's colour when others are filtered out, and leave the background to Streamlit's theme. Every series differs in
colour and in dash or pattern, so that a page reads without colour too. Traces are SVG: WebGL is slow without a graphics card and
browsers allow only a few such charts. Names are escaped, because Plotly reads some HTML in its texts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd  # noqa: F401 - Plotly looks into pandas while another thread may still be importing it
import polars as pl
from plotly.graph_objects import Figure

from toolkit import charts

__all__ = ["cache_sources", "ecdf", "errors", "hit_share", "percentile_lines", "series", "share", "timing", "traffic"]

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, _YELLOW, GREY = charts.OKABE_ITO
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, GREY)  # yellow can't be seen on the light theme
DASHES = (*charts.DASHES, "longdash")  # five, so that with seven colours 35 models differ
HEIGHT = 300
NAME_CHARS = 36


def percentile_lines(table: pl.DataFrame, name: str, models: Sequence[str]) -> Figure:
    """One percentile of live calls over time, a line a model; a point carries its model and bucket as ``customdata``."""
    figure = _figure("milliseconds", height=360)
    for model in models:
        rows = table.filter(pl.col("label") == model)
        if rows.height:
            figure.add_scatter(
                x=_times(rows["start_s"]),
                y=rows["value_s"] * 1e3,
                customdata=rows.select("label", "start_s", "end_s", "n").rows(),
                mode="lines+markers",
                marker={"size": 6},
                hovertemplate=f"{name} %{{y:.3s}} ms, n = %{{customdata[3]}}",
                **_style(model, models),
            )
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(hovermode="closest")  # a click should mean one point
    return figure


def ecdf(table: pl.DataFrame, models: Sequence[str]) -> Figure:
    """Share of live calls that took at most so long, a step line a model, on a logarithmic axis."""
    figure = _figure("share of calls", height=360)
    for model in models:
        rows = table.filter(pl.col("label") == model)
        if rows.height:
            figure.add_scatter(
                x=rows["latency_s"] * 1e3,
                y=rows["share"],
                mode="lines",
                hovertemplate="%{y:.1%} took at most %{x:.3s} ms",
                **_style(model, models, shape="hv"),
            )
    figure.update_xaxes(type="log", title="milliseconds", dtick=_log_ticks(table["latency_s"]), tickformat="~g")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_layout(hovermode="closest")
    return figure


def traffic(table: pl.DataFrame) -> Figure:
    """Calls a minute, stacked by outcome."""
    figure = _figure("calls a minute")
    for column, colour, pattern in (("live", BLUE, ""), ("replayed", GREEN, "/"), ("coalesced", SKY, "."), ("failed", VERMILION, "x")):
        if table[column].sum():
            figure.add_bar(
                x=_times(table["start_s"]),
                y=table[column],
                name=column,
                marker=_fill(colour, pattern, table["partial"]),
                hovertemplate="%{y:.3~s}",
            )
    figure.update_layout(barmode="stack", bargap=0.1)
    return figure


def share(table: pl.DataFrame, column: str) -> Figure:
    """A share over time; buckets without calls leave a gap."""
    figure = _figure("share of calls")
    figure.add_scatter(
        x=_times(table["start_s"]),
        y=table[column],
        customdata=table["n"],
        mode="lines+markers",
        marker={"size": 5},
        line={"color": VERMILION},
        showlegend=False,
        hovertemplate="%{y:.1%} of %{customdata}<extra></extra>",
    )
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def series(table: pl.DataFrame, columns: dict[str, str]) -> Figure:
    """Several columns of seconds over time, drawn in milliseconds; ``columns`` maps a column to its name."""
    figure = _figure("milliseconds")
    for number, (column, name) in enumerate(columns.items()):
        figure.add_scatter(
            x=_times(table["start_s"]),
            y=table[column] * 1e3,
            customdata=table["n_live"],
            mode="lines+markers",
            marker={"size": 5},
            name=name,
            line={"color": COLOURS[number], "dash": DASHES[number]},
            hovertemplate="%{y:.3s} ms, n = %{customdata}",
        )
    figure.update_yaxes(rangemode="tozero")
    return figure


def errors(table: pl.DataFrame, kinds: Sequence[str]) -> Figure:
    """Failed calls over time, stacked, rate limits and timeouts apart."""
    figure = _figure("failed calls")
    for kind, colour, pattern in zip(kinds, (ORANGE, SKY, VERMILION), ("/", ".", "")):
        rows = table.filter(pl.col("kind") == kind)
        if rows.height:
            figure.add_bar(
                x=_times(rows["start_s"]), y=rows["n"], name=kind, marker=_fill(colour, pattern, rows["partial"]), hovertemplate="%{y}"
            )
    figure.update_layout(barmode="stack", bargap=0.1)
    return figure


def hit_share(table: pl.DataFrame, models: Sequence[str]) -> Figure:
    """Cache hits among live and replayed answers over time, a line a model."""
    figure = _figure("hit share")
    for model in models:
        rows = table.filter(pl.col("label") == model)
        if rows.height:
            figure.add_scatter(
                x=_times(rows["start_s"]),
                y=rows["share"],
                customdata=rows["n"],
                mode="lines+markers",
                marker={"size": 5},
                hovertemplate="%{y:.0%} of %{customdata}",
                **_style(model, models),
            )
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return figure


def cache_sources(table: pl.DataFrame, sources: Sequence[str]) -> Figure:
    """Where answers came from over time: live, or a tier of the cache."""
    figure = _figure("share of answers")
    looks = ((GREY, ""), (GREEN, "/"), (SKY, "."), (PINK, "x"))
    for source, (colour, pattern) in zip(sources, looks):
        rows = table.filter(pl.col("source") == source)
        if rows.height:
            figure.add_bar(
                x=_times(rows["start_s"]),
                y=rows["share"],
                customdata=rows["n"],
                name=source,
                marker=_fill(colour, pattern, rows["partial"]),
                hovertemplate="%{y:.0%}, n = %{customdata}",
            )
    figure.update_layout(barmode="stack", bargap=0.1)
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return figure


def timing(parts: Sequence[tuple[str, float]]) -> Figure:
    """One call from left to right: where its time went."""
    figure = _figure("", height=170)
    looks = ("", "/", ".", "x", "\\", "-", "+")
    for number, (name, seconds) in enumerate(parts):
        figure.add_bar(
            x=[seconds * 1e3],
            y=[""],
            orientation="h",
            name=name,
            marker=_fill(COLOURS[number % len(COLOURS)], looks[number % len(looks)]),
            hovertemplate=f"{name}: %{{x:.3s}} ms<extra></extra>",
        )
    figure.update_layout(barmode="stack", hovermode="closest", bargap=0.2)
    figure.update_xaxes(title="milliseconds", type="linear")
    return figure


def _figure(y_title: str, height: int = HEIGHT) -> Figure:
    figure = Figure()
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 36, "b": 10},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": None, "traceorder": "normal"},
        showlegend=True,
    )
    figure.update_xaxes(hoverformat="%Y-%m-%d %H:%M:%S UTC", tickangle=0, nticks=6)
    figure.update_yaxes(title=y_title)
    return figure


def _log_ticks(values: pl.Series) -> str | int:
    """As many ticks as have room: every digit within a power of ten, 1, 2 and 5 within two, else the powers alone."""
    low, high = float(values.min() or 1), float(values.max() or 1)  # type: ignore[arg-type]  # polars can't say that they are numbers
    return "D1" if high < 10 * low else "D2" if high < 100 * low else 1


def _style(model: str, models: Sequence[str], shape: str = "linear") -> dict[str, Any]:  # keyword arguments of Plotly's
    number = list(models).index(model)
    line = {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number % len(DASHES)], "shape": shape, "width": 2}
    return {"name": _short(model), "line": line}


def _fill(colour: str, pattern: str, pale: Iterable[bool] = ()) -> dict[str, Any]:
    """A marker of bars: a full colour with a pattern on it, so that it is seen in the dark and without colour."""
    shades = [0.35 if partial else 1.0 for partial in pale] or 1.0
    overlay = {"shape": pattern, "size": 6, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.6)"}
    return {"color": colour, "opacity": shades, "pattern": overlay}


def _short(name: str) -> str:
    return html.escape(name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 1]}…")


def _times(seconds: pl.Series) -> list[datetime]:
    return [datetime.fromtimestamp(second, UTC) for second in seconds]
