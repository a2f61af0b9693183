"""The plots of a report, as values that plotly.js takes. Pure.

No word of a server is in them: plotly reads some texts as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..figures.series import Series
from ..figures.spread import Spread
from ..plan import Closed, Open
from ..run import Point, Result
from .curves import Curves
from .table import NAMES, load_text, seconds_text

Spec = dict[str, Any]

MAX_OVERLAID = 12
"""Loads whose curves are drawn on top of each other; more can't be told apart."""
COLOURS = ("#2f7ed8", "#e08214", "#1b9e77", "#d6404e", "#8561c5", "#0aa2c0", "#c2479d", "#7a9a01")
BLUE, ORANGE, GREEN, RED = COLOURS[:4]
GREY = "#8a8f98"
TAIL, LONG_TAIL = 0.995, 4.0
"""Share of the values that an axis shows at least, and the length of the rest, as a multiple, from which on
it is cut off."""
LEAST_WAIT = 0.001
"""Seconds from which on a request's wait to be sent is drawn."""
COMMON: Spec = {
    "margin": {"l": 64, "r": 24, "t": 16, "b": 48},
    "hovermode": "closest",
    "legend": {"orientation": "h", "y": -0.2, "yanchor": "top"},
    "colorway": list(COLOURS),
}


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One plot: what plotly draws, and the words around it."""

    title: str
    about: str
    """A sentence on what is shown, also for those who can't see it."""
    data: list[Spec]
    layout: Spec
    height: int = 360


def plots_of_all(result: Result, curves: Mapping[int, Curves]) -> list[Plot]:
    """Return the plots that show all loads together."""
    plots = load_plots(result) if len(result.points) > 1 else []
    numbers = sorted(curves)
    if len(numbers) > MAX_OVERLAID:
        last = len(numbers) - 1
        numbers = [numbers[round(i * last / (MAX_OVERLAID - 1))] for i in range(MAX_OVERLAID)]
    shown = [(load_text(result.points[n].load), curves[n]) for n in numbers]
    for name in ("ttft", "itl", "e2e"):
        plots.append(_ecdf_plot(name, [(text, curve.ecdf[name]) for text, curve in shown]))
    return plots


def plots_of_load(point: Point, curves: Curves | None) -> list[Plot]:
    """Return the plots of one load."""
    plots = []
    if point.figures.series is not None:
        plots.append(_series_plot(point.figures.series))
    if curves is not None:
        plots += [_start_plot(curves, point.figures.series), _timeline(curves)]
    return plots


# -- all loads -------------------------------------------------------------------------------


def load_plots(result: Result) -> list[Plot]:
    """Return the times, the speed and the goodput by load, in the order of the loads."""
    points = sorted(result.points, key=_load_number)
    x = [_load_number(point) for point in points]
    name = "Offered requests per second" if isinstance(points[0].load, Open) else "Streams at once"
    told = any(point.figures.tokens is not None for point in points)
    speed = "output_tokens" if told else "chunks"
    rates = [point.figures.rates.get(speed) for point in points]
    ttft = [_by_load(points, x, "ttft", which) for which in ("p50", "p99")]
    lines = _found_lines(result)

    def plot(title: str, about: str, data: list[Spec], y: str, **axis: Any) -> Plot:
        layout = _layout(name, y, yaxis={"rangemode": "tozero", **axis})
        return Plot(
            title=title, about=about + _found_words(result), data=data, layout=layout | lines
        )

    plots = [
        plot("TTFT by load", "Time to first token at each load.", ttft, "TTFT, ms"),
        plot(
            "Throughput by load",
            "Throughput of all streams together at each load.",
            [_line(x, rates, "tokens/s" if told else "chunks/s", GREEN)],
            "output tokens/s" if told else "chunks/s",
        ),
    ]
    if any(point.figures.goodput is not None for point in points):
        shares = [_percent(point) for point in points]
        about = "Share of requests that met the limits at each load."
        data = [_line(x, shares, "goodput", GREEN)]
        plots.append(plot("Goodput by load", about, data, "good requests, %"))
    return plots


def _load_number(point: Point) -> float:
    load = point.load
    if isinstance(load, Closed):
        return float(load.concurrency)
    return load.rate if isinstance(load, Open) else 0.0


def _percent(point: Point) -> float | None:
    good = point.figures.goodput
    return None if good is None or good.share is None else round(good.share * 100, 3)


def _by_load(points: Sequence[Point], x: list[float], name: str, which: str) -> Spec:
    spreads = [point.figures.latency[name] for point in points]
    y = [_ms(spread.at(which)) for spread in spreads]
    line = _line(x, y, f"{NAMES[name]} {which}", BLUE if which == "p50" else ORANGE)
    bounds = [_bounds(spread, which) for spread in spreads]
    if any(low or high for low, high in bounds):
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "arrayminus": [low for low, _ in bounds],
            "array": [high for _, high in bounds],
            "thickness": 1,
        }
    return line


def _bounds(spread: Spread, which: str) -> tuple[float, float]:
    """Return how far the interval reaches below and above, in milliseconds."""
    value, bounds = spread.at(which), spread.intervals.get(which)
    if value is None or bounds is None:
        return 0.0, 0.0
    return tuple(round(max(0.0, side) * 1000, 3) for side in (value - bounds[0], bounds[1] - value))  # type: ignore[return-value]


def _found_load(result: Result) -> float | None:
    found = (result.found or {}).get("load")
    return float(found) if isinstance(found, int | float) else None


def _found_lines(result: Result) -> Spec:
    if (load := _found_load(result)) is None:
        return {}
    line = {"type": "line", "yref": "paper", "x0": load, "x1": load, "y0": 0, "y1": 1}
    label = {"text": f"found: {load:g}", "textposition": "end", "font": {"size": 11}}
    return {"shapes": [{**line, "line": {"color": GREEN, "dash": "dash"}, "label": label}]}


def _found_words(result: Result) -> str:
    load = _found_load(result)
    return "" if load is None else f" The search found {load:g}."


def _ecdf_plot(name: str, curves: list[tuple[str, tuple[list[float], list[float]]]]) -> Plot:
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": text,
            "x": [_ms(value) for value in values],
            "y": [round(share * 100, 3) for share in shares],
            "line": {"shape": "hv", "width": 2},
        }
        for text, (values, shares) in curves
    ]
    title = NAMES[name]
    layout = _layout(f"{title}, ms", "share up to this time, %", yaxis={"range": [0, 101]})
    layout["showlegend"] = len(curves) > 1
    about = f"Cumulative share of {title} values up to each time (ECDF)."
    most = max((values[-1] for _, (values, _) in curves if values), default=0.0)
    tail = max((_at(curve, TAIL) for _, curve in curves), default=0.0)
    if most > LONG_TAIL * tail > 0:
        layout["xaxis"]["range"] = [0, _ms(tail * 1.5)]
        about += f" The longest, {seconds_text(most)}, lies beyond the axis."
    return Plot(title=f"{title}: distribution", about=about, data=data, layout=layout)


def _at(curve: tuple[list[float], list[float]], share: float) -> float:
    """Return the first value of a curve with such a share."""
    return next((value for value, at in zip(*curve, strict=True) if at >= share), 0.0)


# -- one load --------------------------------------------------------------------------------


def _series_plot(series: Series) -> Plot:
    x = [round(series.width * i, 3) for i in range(len(series.running))]

    def per_second(counts: Sequence[float]) -> list[float]:
        return [round(count / series.width, 3) for count in counts]

    told = any(series.tokens)
    speed = per_second(series.tokens if told else series.chunks)
    panels = [
        ("running", [_step(x, series.running, "running", BLUE)]),
        ("tokens/s" if told else "chunks/s", [_step(x, speed, "speed", GREEN)]),
        (
            "requests/s",
            [
                _step(x, per_second(series.started), "started", GREY),
                _step(x, per_second(series.ended), "finished", GREEN),
                _step(x, per_second(series.failed), "failed", RED),
            ],
        ),
    ]
    layout = _layout("seconds since the first request", "")
    data = []
    for row, (title, traces) in enumerate(panels):
        key, top = ("" if row == 0 else str(row + 1)), 1 - row * 0.35
        layout[f"yaxis{key}"] = {
            "title": {"text": title},
            "domain": [top - 0.3, top],
            "rangemode": "tozero",
        }
        data += [{**trace, "yaxis": f"y{key}"} for trace in traces]
    layout["xaxis"]["anchor"] = "y3"
    about = f"Streams, throughput, and requests in each interval of {series.width:g} s."
    return Plot(title="The run over time", about=about, data=data, layout=layout, height=520)


def _start_plot(curves: Curves, series: Series | None) -> Plot:
    data: list[Spec] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one request",
            "x": curves.starts,
            "y": [_ms(value) for value in curves.ttft],
            "marker": {"size": 4, "opacity": 0.5, "color": BLUE},
        }
    ]
    if series is not None and len(series.ttft_p50) > 2:
        middle = [round(series.width * (i + 0.5), 3) for i in range(len(series.ttft_p50))]
        for which, values, colour in (
            ("p50", series.ttft_p50, ORANGE),
            ("p99", series.ttft_p99, RED),
        ):
            data.append(_line(middle, [_ms(value) for value in values], which, colour))
    layout = _layout("start, seconds since the first request", "TTFT, ms")
    layout["yaxis"]["rangemode"] = "tozero"
    about = "TTFT of each request by its start. A rise means that a queue grows."
    return Plot(title="TTFT by start", about=about, data=data, layout=layout)


def _timeline(curves: Curves) -> Plot:
    parts: dict[str, tuple[str, list[tuple[float, float, int]]]] = {
        "queued": (GREY, []),
        "waiting for first token": (ORANGE, []),
        "streaming": (BLUE, []),
        "failed": (RED, []),
    }
    for row, stream in enumerate(curves.streams):
        if stream.sent - stream.scheduled > LEAST_WAIT:
            parts["queued"][1].append((stream.scheduled, stream.sent, row))
        if stream.outcome != "finished":
            parts["failed"][1].append((stream.sent, stream.ended, row))
            continue
        first = stream.ended if stream.first is None else stream.first
        parts["waiting for first token"][1].append((stream.sent, first, row))
        parts["streaming"][1].append((first, stream.ended, row))
    rows = len(curves.streams)
    width = max(1, min(8, 400 // max(1, rows)))
    data = [_bars(name, colour, bars, width) for name, (colour, bars) in parts.items() if bars]
    layout = _layout("seconds since the first request", "request")
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    about = "When each request was queued, waited for its first token, and streamed its answer."
    if curves.streams_of > rows:
        about += f" Random sample: {rows:,} of {curves.streams_of:,} requests."
    return Plot(title="Timeline", about=about, data=data, layout=layout, height=520)


def _bars(name: str, colour: str, bars: list[tuple[float, float, int]], width: int) -> Spec:
    """Return horizontal bars as one line with gaps, which is far less to draw than shapes."""
    x: list[float | None] = []
    y: list[int | None] = []
    for begin, end, row in bars:
        x += [begin, end, None]
        y += [row, row, None]
    line = {"width": width, "color": colour}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


# -- parts -----------------------------------------------------------------------------------


def _layout(x: str, y: str, **more: Spec) -> Spec:
    yaxis = {"title": {"text": y}, **more.pop("yaxis", {})}
    return {
        **COMMON,
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": yaxis,
        **more,
    }


def _line(x: Sequence[float], y: Sequence[float | None], name: str, colour: str) -> Spec:
    line = {"color": colour, "width": 2}
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "line": line}


def _step(x: Sequence[float], y: Sequence[float], name: str, colour: str) -> Spec:
    line = {"color": colour, "width": 2, "shape": "hv"}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
