"""Charts of the pages: tables of ``views`` in, Plotly figures out.

They share the palette of ``toolkit.charts``, but take numbers that ``views`` has worked out (a journal has millions of calls), carry what
a click needs, keep a model's colour when others are filtered out, and leave the background to Streamlit's theme. Every series differs in
colour and in dash or pattern, so that a page reads without colour too. Traces are SVG: WebGL is slow without a graphics card and
browsers allow only a few such charts. Names are escaped, because Plotly reads some HTML in its texts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd  # noqa: F401 - Plotly looks into pandas while another thread may still be importing it
import polars as pl
from plotly.graph_objects import Figure

from toolkit import charts

__all__ = [
    "abilities",
    "cache_fill",
    "cache_losses",
    "cache_sources",
    "cost_against_latency",
    "cost_by_day",
    "cut",
    "ecdf",
    "errors",
    "escape",
    "heatmap",
    "hit_share",
    "hits_against_misses",
    "over_time",
    "percentile_lines",
    "prompt_sizes",
    "series",
    "share",
    "timing",
    "traffic",
    "with_local_time",
    "with_room_for_legend",
]

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, _YELLOW, GREY = charts.OKABE_ITO
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, GREY)  # yellow can't be seen on the light theme
DASHES = (*charts.DASHES, "longdash")  # five, so that with seven colours 35 models differ
HEAT = [[0.0, "rgba(31,138,204,0.08)"], [1.0, "rgba(31,138,204,1)"]]  # from next to nothing on, on a light ground and on a dark one
HEIGHT = 300
NAME_CHARS = 36
MOST_BANDS = 4


def percentile_lines(table: pl.DataFrame, name: str, models: Sequence[str], limits: Sequence[tuple[str, float]] = ()) -> Figure:
    """One percentile of live calls over time, a line a model in the band of its 95 % interval, and limits by their names, in seconds.

    A point carries its model and bucket as ``customdata``. With many models the bands would hide each other: then the interval is told by
    the hover text alone.
    """
    figure = _figure("milliseconds", height=360)
    shown = [(model, rows) for model in models if (rows := table.filter(pl.col("label") == model)).height]
    for model, rows in shown:
        times = _times(rows["start_s"])
        # A band in pieces looks like a fault: where many buckets lack an end, the hover text alone tells the interval.
        if len(shown) <= MOST_BANDS and rows.drop_nulls(["low_s", "high_s"]).height >= 0.8 * rows.height:
            _add_band(figure, rows, model, models)
        figure.add_scatter(
            x=times,
            y=rows["value_s"] * 1e3,
            customdata=_points(rows),
            mode="lines+markers",
            marker={"size": 6},
            hovertemplate=f"{name} %{{y:.3s}} ms, 95 % %{{customdata[4]}}, n = %{{customdata[3]}}",
            **_style(model, models),
        )
    for limit, seconds in limits:
        label = f"{_short(limit)}, {seconds * 1e3:,.4g} ms"
        figure.add_hline(seconds * 1e3, line={"color": VERMILION, "dash": "dash", "width": 1.5}, name=label, showlegend=True)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(hovermode="closest")  # a click should mean one point
    return figure


def _add_band(figure: Figure, rows: pl.DataFrame, model: str, models: Sequence[str]) -> None:
    """Fill between the ends of the intervals, one patch for each stretch of buckets without a gap."""
    known = rows.drop_nulls(["low_s", "high_s"])
    stretch = (pl.col("start_s") > pl.col("end_s").shift(1) + 1e-6).fill_null(True).cum_sum()
    for patch in known.with_columns(stretch=stretch).partition_by("stretch"):
        if patch.height > 1:
            there, back = (
                patch.select("start_s", pl.col("low_s").alias("y")),
                patch.select("start_s", pl.col("high_s").alias("y")).reverse(),
            )
            outline = pl.concat([there, back])
            figure.add_scatter(
                x=_times(outline["start_s"]),
                y=outline["y"] * 1e3,
                fill="toself",
                opacity=0.18,
                mode="none",
                hoverinfo="skip",
                showlegend=False,
                fillcolor=_style(model, models)["line"]["color"],
            )


def _points(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    """What a click on a point needs (model, start and end of the bucket), n, and the interval in words."""
    return list(zip(*rows.select("label", "start_s", "end_s", "n"), _intervals(rows)))


def _intervals(rows: pl.DataFrame) -> list[str]:
    def end(value: float | None) -> str:
        return "?" if value is None else f"{value * 1e3:.3g}"

    return [f"{end(low)} to {end(high)}" for low, high in rows.select("low_s", "high_s").iter_rows()]


def prompt_sizes(table: pl.DataFrame, name: str, models: Sequence[str], sizes: Sequence[str]) -> Figure:
    """One percentile by class of prompt length with its 95 % intervals, models side by side."""
    figure = _figure(f"{name} (milliseconds)")
    symbols = (*charts.SYMBOLS, "cross")
    for model in models:
        rows = table.filter(pl.col("label") == model, pl.col("value_s").is_not_null())
        if rows.height:
            number, look = list(models).index(model), _style(model, models)
            value, low, high = (rows[column] * 1e3 for column in ("value_s", "low_s", "high_s"))
            figure.add_scatter(
                x=rows["size"],
                y=value,
                error_y={
                    "type": "data",
                    "array": (high - value).fill_null(0.0),
                    "arrayminus": (value - low).fill_null(0.0),
                    "thickness": 1.5,
                },
                customdata=list(zip(rows["n"], _intervals(rows))),
                mode="lines+markers",
                marker={"size": 8, "symbol": symbols[number % len(symbols)]},
                hovertemplate=f"{name} %{{y:.3s}} ms, 95 % %{{customdata[1]}}, n = %{{customdata[0]}}",
                **look,
            )
    used = set(table["size"])
    figure.update_xaxes(
        title="tokens of the prompt",
        type="category",
        categoryorder="array",
        categoryarray=[size for size in sizes if size in used],
        hoverformat=None,
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(hovermode="closest", scattermode="group", scattergap=0.7)
    return figure


def heatmap(table: pl.DataFrame) -> Figure:
    """Time against classes of latency; the stronger a cell, the more of its time bucket's calls took so long."""
    figure = _figure("milliseconds (logarithmic)", height=340)
    starts, lows = table["start_s"].unique().sort(), table["low_s"].unique().sort()
    cells = {(start, low): (share, n) for start, low, share, n in table.select("start_s", "low_s", "share", "n").iter_rows()}
    tops = dict(table.select("low_s", "high_s").rows())
    figure.add_heatmap(
        x=_times(starts),
        y=[(low * tops[low]) ** 0.5 * 1e3 for low in lows],
        z=np.array([[cells.get((start, low), (np.nan, 0))[0] for start in starts] for low in lows]),
        customdata=np.array([[(low * 1e3, tops[low] * 1e3, cells.get((start, low), (None, 0))[1]) for start in starts] for low in lows]),
        colorscale=HEAT,
        xgap=1,
        colorbar={"tickformat": ".0%", "title": "share", "thickness": 12},
        hovertemplate="%{customdata[0]:.3s} to %{customdata[1]:.3s} ms: %{z:.1%} of the bucket, %{customdata[2]} calls<extra></extra>",
        hoverongaps=False,
    )
    figure.update_yaxes(type="log", tickformat="~s", dtick=_log_ticks(table["low_s"]))
    figure.update_layout(hovermode="closest", margin={"l": 10, "r": 10, "t": 10, "b": 10})
    return figure


def ecdf(table: pl.DataFrame, models: Sequence[str], before: pl.DataFrame | None = None) -> Figure:
    """Share of live calls that took at most so long, a step line a model, on a logarithmic axis; pale: the calls compared with."""
    figure = _figure("share of calls", height=360)
    for model in models if before is not None else ():
        rows = before.filter(pl.col("label") == model) if before is not None else table.clear()
        if rows.height and (table["label"] == model).any():
            look = _style(model, models, shape="hv") | {"showlegend": False, "opacity": 0.35, "name": f"{_short(model)}, compared"}
            figure.add_scatter(
                x=rows["latency_s"] * 1e3, y=rows["share"], mode="lines", hovertemplate="%{y:.1%} took at most %{x:.3s} ms", **look
            )
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


def hits_against_misses(table: pl.DataFrame) -> Figure:
    """How long look-ups that hit took beside live answers, two step lines on a logarithmic axis."""
    figure = _figure("share of answers")
    for (source, rows), colour, dash in zip(_groups(table, "source"), (GREEN, BLUE), ("dash", "solid")):
        figure.add_scatter(
            x=rows["latency_s"] * 1e3,
            y=rows["share"],
            mode="lines",
            name=source,
            line={"color": colour, "dash": dash, "shape": "hv"},
            hovertemplate="%{y:.1%} took at most %{x:.3s} ms",
        )
    figure.update_xaxes(type="log", title="milliseconds", dtick=1, tickformat="~g")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_layout(hovermode="closest")
    return figure


def cache_fill(table: pl.DataFrame) -> Figure:
    """Entries of each tier over time, on a logarithmic axis: a memory of hundreds beside a disk of millions."""
    figure = _figure("entries (logarithmic)")
    for number, (name, rows) in enumerate(_groups(table, "name")):
        sizes = [f", {size / 1e6:.3g} MB" if size is not None else "" for size in rows["size_bytes"]]
        figure.add_scatter(
            x=_times(rows["start_s"]),
            y=rows["entries"],
            customdata=sizes,
            mode="lines+markers",
            marker={"size": 5},
            name=name,
            line={"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number % len(DASHES)], "shape": "hv"},
            hovertemplate="%{y:,} entries%{customdata}",
        )
    figure.update_yaxes(type="log", tickformat="~s", dtick=1)
    return figure


def cache_losses(table: pl.DataFrame) -> Figure:
    """Entries that caches had to let go over time, stacked by reason."""
    figure = _figure("entries removed")
    for kind, colour, pattern in (("evicted", ORANGE, "/"), ("expired", SKY, ".")):
        rows = table.filter(pl.col("kind") == kind)
        if rows.height:
            figure.add_bar(
                x=_times(rows["start_s"]), y=rows["n"], name=kind, marker=_fill(colour, pattern, rows["partial"]), hovertemplate="%{y:,}"
            )
    _stack(figure, table, gap=0.1)
    return figure


def _groups(table: pl.DataFrame, column: str) -> list[tuple[str, pl.DataFrame]]:
    return [(str(key[0]), rows) for key, rows in table.partition_by(column, as_dict=True, maintain_order=True).items()]


def cost_by_day(table: pl.DataFrame, models: Sequence[str], budget_a_day: float | None) -> Figure:
    """Dollars by day (UTC), stacked by model, with a line at a month's budget divided by 30."""
    figure = _figure("dollars a day")
    patterns = ("", "/", ".", "x", "-", "+")
    for model in models:
        rows = table.filter(pl.col("label") == model, pl.col("cost_usd") > 0)
        if rows.height:
            number = list(models).index(model)
            figure.add_bar(
                x=_times(rows["start_s"]),
                y=rows["cost_usd"],
                customdata=rows["n"],
                name=_short(model),
                marker=_fill(COLOURS[number % len(COLOURS)], patterns[number % len(patterns)], rows["partial"]),
                hovertemplate="$%{y:.4~g}, %{customdata} calls",
            )
    if budget_a_day is not None:
        look = {"color": VERMILION, "dash": "dash"}
        figure.add_hline(budget_a_day, line=look, name=f"budget, ${budget_a_day:,.3g} a day", showlegend=True)
    _stack(figure, table, gap=0.2)
    figure.update_xaxes(
        tickformat="%b %d",
        hoverformat="%Y-%m-%d UTC",
        ticklabelmode="period",
        dtick=86_400_000 if table["start_s"].n_unique() <= 10 else None,
    )
    figure.update_yaxes(tickprefix="$", rangemode="tozero")
    return figure


def cost_against_latency(table: pl.DataFrame, models: Sequence[str]) -> Figure:
    """Cost against p95 latency, a point a model; a line joins those that no other beats in both, each in a ring."""
    figure = _figure("dollars per 1,000 calls", height=360)
    best = table.filter(pl.col("best")).sort("p95_s")
    figure.add_scatter(
        x=best["p95_s"] * 1e3,
        y=best["usd_per_1k_calls"],
        mode="lines+markers",
        name="no other is cheaper and faster",
        line={"color": GREY, "dash": "dash", "shape": "hv", "width": 1.5},
        marker={"symbol": "circle-open", "size": 20, "color": GREY, "line": {"width": 1.5}},
        cliponaxis=False,
        hoverinfo="skip",
    )
    symbols = (*charts.SYMBOLS, "cross")
    for label, p95_s, usd, n in table.select("label", "p95_s", "usd_per_1k_calls", "n").iter_rows():
        number = list(models).index(label)
        figure.add_scatter(
            x=[p95_s * 1e3],
            y=[usd],
            customdata=[n],
            cliponaxis=False,
            mode="markers",
            name=_short(label),
            marker={"size": 12, "color": COLOURS[number % len(COLOURS)], "symbol": symbols[number % len(symbols)]},
            hovertemplate="p95 %{x:.3s} ms, $%{y:.3~g} per 1,000 calls, n = %{customdata}",
        )
    figure.update_xaxes(title="p95 latency (milliseconds)", rangemode="tozero", hoverformat=None)
    figure.update_yaxes(tickprefix="$", rangemode="tozero")
    figure.update_layout(hovermode="closest")
    return figure


def abilities(models: Sequence[tuple[str, float, float, float]]) -> Figure:
    """Abilities with their intervals, best on top: ``(model, ability, low, high)``."""
    figure = _figure("", height=90 + 34 * len(models))
    names = [_short(model) for model, *_ in models]
    figure.add_scatter(
        x=[ability for _, ability, _, _ in models],
        y=names,
        mode="markers",
        showlegend=False,
        marker={"size": 10, "color": BLUE},
        error_x={"type": "data", "array": [high - at for _, at, _, high in models], "arrayminus": [at - low for _, at, low, _ in models]},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    figure.update_xaxes(title="ability (log-odds)", hoverformat=None)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])
    figure.update_layout(hovermode="closest", margin={"l": 10, "r": 10, "t": 10, "b": 10})
    return figure


def with_local_time(figure: Figure, zone: str | None) -> Figure:
    """Add the viewer's own time to what is said about points in time; in a unified box once is enough."""
    try:
        local = ZoneInfo(zone or "UTC")
    except (ValueError, OSError):  # the browser names what this machine does not know
        return figure
    if local.key == "UTC":
        return figure
    traces = [trace for trace in figure.data if over_time(trace) and trace.hovertemplate]
    for trace in traces[:1] if figure.layout.hovermode == "x unified" else traces:
        if trace.type != "heatmap":
            moments = (at.replace(tzinfo=UTC).astimezone(local) for at in trace.x.astype("datetime64[s]").tolist())
            trace.hovertext = [f"{at:%H:%M:%S} {local.key}" for at in moments]
            words, mark, extra = trace.hovertemplate.partition("<extra>")
            trace.hovertemplate = f"{words}, %{{hovertext}}{mark}{extra}"
    return figure


def traffic(table: pl.DataFrame) -> Figure:
    """Calls a minute, stacked by outcome."""
    figure = _figure("calls a minute")
    for column, colour, pattern in (
        ("live", BLUE, ""),
        ("replayed", GREEN, "/"),
        ("coalesced", SKY, "."),
        ("left", PINK, "-"),
        ("failed", VERMILION, "x"),
    ):
        if table[column].sum():
            figure.add_bar(
                x=_times(table["start_s"]),
                y=table[column],
                name=column,
                marker=_fill(colour, pattern, table["partial"]),
                hovertemplate="%{y:.3~s}",
            )
    _stack(figure, table, gap=0.1)
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
    _stack(figure, table, gap=0.1)
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
    _stack(figure, table, gap=0.1)
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


def with_room_for_legend(figure: Figure) -> Figure:
    """Let a figure grow by the rows of its legend, which would otherwise take them from the chart."""
    rows = sum(trace.showlegend is not False and trace.type != "heatmap" for trace in figure.data) // 2
    if rows > 2:
        more = 18 * (rows - 2)
        figure.update_layout(height=figure.layout.height + more, margin_t=figure.layout.margin.t + more)
    return figure


def over_time(trace: Any) -> bool:  # Plotly's traces have no type in common
    return isinstance(trace.x, np.ndarray) and trace.x.dtype.kind == "M"


def _stack(figure: Figure, table: pl.DataFrame, gap: float) -> None:
    """Stack bars, each over the whole of its time bucket: by themselves they would be centred on its start."""
    figure.update_layout(barmode="stack", bargap=gap)
    starts = table["start_s"].unique().sort()
    if starts.len() > 1:
        step_ms = float(starts.diff().min()) * 1e3  # type: ignore[arg-type]  # polars can't say that it is a number
        first = str(_times(starts)[0])
        figure.update_traces(selector={"type": "bar"}, xperiod=step_ms, xperiod0=first, xperiodalignment="middle")


def _figure(y_title: str, height: int = HEIGHT) -> Figure:
    # Given at once, a layout takes a seventh of the time that updates of it take.
    layout = {
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 36, "b": 10},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": {"text": None}, "traceorder": "normal"},
        "showlegend": True,
        "xaxis": {"hoverformat": "%Y-%m-%d %H:%M:%S UTC", "tickangle": 0, "nticks": 6},
        "yaxis": {"title": {"text": y_title}},
    }
    return Figure(layout=layout)


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
    return escape(cut(name, NAME_CHARS))


def escape(text: str) -> str:
    """Text that Plotly shows as it is: it reads a few tags, and would show an escaped quote as ``&quot;``."""
    return html.escape(text, quote=False)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _times(seconds: pl.Series) -> np.ndarray:
    """Moments in UTC as an array: Plotly looks at each item of a list one by one."""
    return (seconds * 1e3).round().cast(pl.Int64).to_numpy().astype("datetime64[ms]")
