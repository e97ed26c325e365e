"""Charts as Plotly's JSON: plain data and layout, so that making them needs no Plotly and no browser. Pure.

Colours are given as names of CSS variables (`var:ink`), which the page resolves for a light or a dark screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from testbed.compare.analysis import METRICS
from testbed.compare.environment import Environment
from testbed.compare.measurement import Phase
from testbed.compare.results import Results
from testbed.compare.schedule import CONTROL
from testbed.loadgen.records import BATCH_S, Histogram
from testbed.report import numbers

Figure = dict[str, Any]

PERCENTILES = (25, 50, 75, 90, 95, 99, 99.5, 99.9)
_CURVE = (1, *range(2, 90, 2), 90, 91, 92, 93, 94, 95, 96, 97, 98, 98.5, 99, 99.2, 99.4, 99.6, 99.8, 99.9)
PALETTE = 6
ROLES = {"generator": "generator_us_per_request", "server": "server_us_per_request"}
LEAST_SAMPLES = 10_000
"""Requests in a variant's merged histogram below which nothing beyond 99 % is drawn."""


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))


def colour(results: Results, name: str) -> str:
    """A variant's colour: the baseline is ink, the control grey, the others take the palette in order."""
    return f"var:{shade(results.environment, name)}"


def shade(environment: Environment, name: str) -> str:
    """The CSS variable of a variant's colour."""
    if name == CONTROL:
        return "muted"
    if name == environment.baseline:
        return "ink"
    others = [variant for variant in environment.variants if variant != environment.baseline]
    return f"series-{others.index(name) % PALETTE + 1}"


def differences(results: Results, metric: str) -> Figure:
    """One line per variant: the paired difference and its interval, over the band of the control."""
    names = [name for name in results.analysis.cells if name != CONTROL]
    estimates = [results.analysis.cell(name, metric).difference for name in names]
    finite = [math.isfinite(one.low) for one in estimates]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "text": [numbers.centre(one) for one in estimates],
        "textposition": "top center",
        "textfont": {"size": 15},
        "x": [one.centre for one in estimates],
        "y": names,
        "marker": {"size": 11, "color": [colour(results, name) for name in names]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.centre if ok else 0 for one, ok in zip(estimates, finite, strict=True)],
            "arrayminus": [one.centre - one.low if ok else 0 for one, ok in zip(estimates, finite, strict=True)],
            "thickness": 2.5,
            "width": 7,
            "color": "var:ink",
        },
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
        "cliponaxis": False,
    }
    layout = _layout(f"difference, {METRICS[metric].unit}", "", height=90 + 58 * max(len(names), 1))
    layout["xaxis"] |= {"zeroline": True, "zerolinewidth": 2, "zerolinecolor": "var:ink", "rangemode": "tozero"}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["showlegend"] = False
    layout["shapes"] = _band(results, metric)
    return {"data": [trace], "layout": layout}


def _band(results: Results, metric: str) -> list[Figure]:
    if CONTROL not in results.analysis.cells:
        return []
    control = results.analysis.cell(CONTROL, metric).difference
    if not math.isfinite(control.low):
        return []
    place = {"xref": "x", "yref": "paper", "x0": control.low, "x1": control.high, "y0": 0, "y1": 1}
    return [{"type": "rect", **place, "fillcolor": "var:band", "line": {"width": 0}, "layer": "below"}]


def samples(results: Results, phase: str) -> dict[str, int]:
    """Requests in the rounds that count, by variant; `phase` is lone or loaded."""
    return {name: sum(one.count for one in _valid(results, name, phase)) for name in results.environment.variants}


def percentiles(results: Results, phase: str) -> Figure:
    """Latency over percentile; the axis is logarithmic in the share of requests that took longer."""
    data: list[Figure] = []
    for name in results.environment.variants:
        merged = Histogram.merged(one.histogram for one in _valid(results, name, phase))
        curve = [percent for percent in _CURVE if percent <= 99 or merged.count >= LEAST_SAMPLES]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [_tail(percent) for percent in curve],
                "y": [round(merged.percentile(percent), 2) for percent in curve],
                "text": [f"{percent:g} %" for percent in curve],
                "line": {"color": colour(results, name), "width": 2},
                "hovertemplate": "%{text}: %{y:.1f} µs<extra>" + name + "</extra>",
            }
        )
    layout = _layout("percentile", "latency, µs", height=380)
    layout["xaxis"] |= {
        "tickvals": [_tail(percent) for percent in PERCENTILES],
        "ticktext": [f"{percent:g} %" for percent in PERCENTILES],
        "range": [0, _tail(99.9) * 1.03],
        "zeroline": False,
    }
    ticks = _log_ticks([value for trace in data for value in trace["y"]])
    layout["yaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}
    return {"data": data, "layout": layout}


def cpu(results: Results) -> Figure:
    """Stacked bars: what each request costs in the generator's process, and in the server's."""
    names = [*results.environment.variants]
    data = []
    for index, (role, field) in enumerate(ROLES.items()):
        heights = [middle([getattr(one, field) for one in _valid(results, name, "loaded")]) for name in names]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": role,
                "y": names,
                "x": [round(height, 3) for height in heights],
                "text": [f"{height:.1f}" for height in heights],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "marker": {"color": "var:series-1" if index == 0 else "var:series-2"},
                "hovertemplate": "%{y}, " + role + ": %{x:.2f} µs<extra></extra>",
            }
        )
    layout = _layout("µs of CPU per request", "", height=110 + 46 * len(names))
    layout["barmode"] = "stack"
    layout["bargap"] = 0.35
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False}
    return {"data": data, "layout": layout}


def rounds(results: Results) -> Figure:
    """A dot for each trial; trials of dropped rounds are hollow."""
    valid = set(results.analysis.rounds)
    data = []
    for name in (*results.environment.variants, CONTROL):
        trials = sorted((one for one in results.measurements if one.variant == name), key=lambda one: one.round)
        shade = colour(results, name)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [one.round for one in trials],
                "y": [one.lone.p50_us for one in trials],
                "line": {"color": shade, "width": 1, "dash": "dot" if name == CONTROL else "solid"},
                "marker": {
                    "color": shade,
                    "size": 7,
                    "symbol": ["circle" if one.round in valid else "circle-open" for one in trials],
                },
                "hovertemplate": "round %{x}: %{y:.1f} µs<extra>" + name + "</extra>",
            }
        )
    layout = _layout("round", "median latency of one user, µs", height=360)
    layout["xaxis"] |= {"dtick": 1 if len(results.analysis.rounds) <= 20 else 4, "zeroline": False}
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": data, "layout": layout}


def series(results: Results) -> Figure:
    """The rate over a trial, windows aligned at 0, warm-up before it."""
    data, start = [], 0.0
    for name in results.environment.variants:
        points = _aligned(_valid(results, name, "loaded"))
        start = min(start, *points, 0.0)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": list(points),
                "y": list(points.values()),
                "line": {"color": colour(results, name), "width": 2},
                "hovertemplate": "%{x:.1f} s: %{y:,.0f}/s<extra>" + name + "</extra>",
            }
        )
    layout = _layout("seconds since the window began", "requests per second", height=320)
    layout["yaxis"] |= {"rangemode": "tozero"}
    place = {"xref": "x", "yref": "paper", "x0": start, "x1": 0, "y0": 0, "y1": 1}
    layout["shapes"] = [{"type": "rect", **place, "fillcolor": "var:band", "line": {"width": 0}, "layer": "below"}]
    return {"data": data, "layout": layout}


def _aligned(trials: Sequence[Phase]) -> dict[float, float]:
    """Seconds from the window's start → the median rate over the trials."""
    rates: dict[int, list[float]] = {}
    for one in trials:
        warmup = round(one.warmup_s / BATCH_S)
        for index, count in enumerate(one.batches):
            rates.setdefault(index - warmup, []).append(count / BATCH_S)
    enough = len(trials) / 2
    return {round(at * BATCH_S, 1): middle(rates[at]) for at in sorted(rates) if len(rates[at]) >= enough}


def _valid(results: Results, name: str, phase: str) -> list[Phase]:
    counted = set(results.analysis.rounds)
    valid = (one for one in results.measurements if one.variant == name and one.round in counted)
    return [one.lone if phase == "lone" else one.loaded for one in valid]


def _tail(percent: float) -> float:
    return round(-math.log10(1 - percent / 100), 5)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of every decade that the values reach."""
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    decades = range(math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))) + 1)
    return [step * 10**decade for decade in decades for step in (1, 2, 5)]


def _layout(x_title: str, y_title: str, *, height: int) -> Figure:
    axis: Mapping[str, Any] = {"gridcolor": "var:grid", "linecolor": "var:grid", "zerolinecolor": "var:grid"}
    return {
        "height": height,
        "margin": {"l": 20, "r": 20, "t": 10, "b": 45},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 14, "color": "var:ink"},
        "hoverlabel": {"font": {"family": "inherit"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": x_title}, "automargin": True},
        "yaxis": {**axis, "title": {"text": y_title}, "automargin": True},
    }
