"""Interactive pictures as Vega-Lite: the plane of bias² and variance, and curves.

A picture has one specification for each choice of axis and scale, without data; the page puts the
points in. The same specification with its points is the static picture of readers without scripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlab.report.scales import Axis, Scale, scale

__all__ = ["Chart", "LIBRARY", "specification", "views"]

LIBRARY = "6.4"
"""The version of Vega-Lite, of those that vl-convert brings."""

_FONT = "system-ui, 'DejaVu Sans', sans-serif"
_CONFIG: dict[str, Any] = {
    "font": _FONT,
    "background": "white",
    "axis": {
        "gridColor": "#e6e6e6",
        "domainColor": "#777",
        "tickColor": "#777",
        "labelColor": "#333",
        "titleColor": "#111",
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
    },
    "view": {"stroke": None},
}
_NUMBER = (
    "datum.value === 0 || (abs(datum.value) >= 0.001 && abs(datum.value) < 1e5) ? "
    "format(datum.value, '~g') : format(datum.value, '.0e')"
)


@dataclass(frozen=True)
class Chart:
    """A picture: what is along its axes, and what joins its points.

    Args:
        name: Identifies it on the page.
        title: Its heading.
        caption: What it shows, in one or two sentences.
        x: The horizontal axis.
        ys: The vertical axes to choose from.
        lines: Columns that together name a line; the points of a line are joined along `along`.
        along: The column along which points are joined.
        x_switches: Whether the horizontal axis follows the switch of scales too.
        starts_log: Whether the logarithmic scale is shown first.
        tooltip: Columns that hovering shows.

    Example:
        >>> Chart("plane", "Plane", "", Axis("b", "b"), [Axis("v", "v")], ["series"], "tau").name
        'plane'
    """

    name: str
    title: str
    caption: str
    x: Axis
    ys: Sequence[Axis]
    lines: Sequence[str]
    along: str
    x_switches: bool = False
    starts_log: bool = True
    tooltip: Sequence[str] = ()


def views(chart: Chart, rows: pd.DataFrame, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the specifications of a chart, one for each vertical axis and scale.

    Args:
        chart: The chart.
        rows: The rows that it may show.
        titles: The titles of columns.

    Returns:
        Dicts with `y` (the title of the vertical axis), `log`, `spec` and `bands`: for each grey
        band the column, the floor, and the sentences that say how many points stand in it.

    Example:
        >>> chart = Chart("p", "", "", Axis("b", "b"), [Axis("v", "v")], ["series"], "b")
        >>> rows = pd.DataFrame({"series": ["ST"], "b": [1.0], "v": [2.0]})
        >>> [view["log"] for view in views(chart, rows, {})]
        [True, False]
    """
    found = []
    for y in chart.ys:
        for log in (True, False) if y.log else (False,):
            x_log = chart.x.log and (log or not chart.x_switches)
            x_scale = scale(rows[chart.x.column], chart.x, log=x_log)
            y_scale = scale(rows[y.column], y, log=log)
            spec = specification(chart, y, x_scale, y_scale, x_log=x_log, y_log=log, titles=titles)
            bands = [_band(a) for a, s in ((chart.x, x_scale), (y, y_scale)) if s.below]
            found.append({"y": y.title, "log": log, "spec": spec, "bands": bands})
    return found


def _band(axis: Axis) -> dict[str, Any]:
    """Return what the page says of the points in a band; `{n}` stands for their number."""
    rounding = f" (up to {axis.floor:g} is rounding)" if axis.floor else ""
    where = "in the grey band at the edge, and places inside it mean nothing."
    what = f"{axis.title} of 0 or less{rounding}, which has no logarithm."
    return {
        "column": axis.column,
        "floor": axis.floor,
        "one": f"1 point has {what} It stands {where}",
        "many": f"{{n}} points have {what} They stand {where}",
    }


def specification(
    chart: Chart,
    y: Axis,
    x_scale: Scale,
    y_scale: Scale,
    *,
    x_log: bool,
    y_log: bool,
    titles: Mapping[str, str],
) -> dict[str, Any]:
    """Return one view of a chart as Vega-Lite, without data.

    Args:
        chart: The chart.
        y: Its vertical axis.
        x_scale: The scale along x.
        y_scale: The scale along y.
        x_log: Whether x is logarithmic.
        y_log: Whether y is logarithmic.
        titles: The titles of columns.

    Returns:
        The specification; its data is called "points", whose rows have `color` and `shape`.

    Example:
        >>> chart = Chart("p", "", "", Axis("b", "b"), [Axis("v", "v")], ["series"], "b")
        >>> one = Scale((0.1, 1.0), None, 0.1, None, 0)
        >>> spec = specification(chart, chart.ys[0], one, one, x_log=True, y_log=True, titles={})
        >>> spec["data"]
        {'name': 'points'}
    """
    x_of, y_of = _place(chart.x, x_scale), _place(y, y_scale)
    across = {"x": _channel("_x", chart.x, x_scale, x_log)}
    up = {"y": _channel("_y", y, y_scale, y_log)}
    color = {"color": {"field": "color", "type": "nominal", "scale": None}}
    detail = {"detail": [{"field": name, "type": "nominal"} for name in chart.lines]}
    told = [
        {"field": name, "title": titles.get(name, name), **_format(name)} for name in chart.tooltip
    ]
    layers: list[dict[str, Any]] = [*_bands(x_scale, y_scale)]
    layers.append(
        {
            "transform": [{"filter": "isValid(datum._x) && isValid(datum._y)"}],
            "mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.75, "clip": True},
            "encoding": across
            | up
            | color
            | detail
            | {"order": {"field": chart.along, "type": "quantitative"}},
        }
    )
    layers += [*_errors(chart.x, y, x_scale, y_scale, across, up, color, x_log, y_log)]
    layers.append(
        {
            "transform": [{"filter": "isValid(datum._x) && isValid(datum._y)"}],
            "mark": {"type": "point", "size": 90, "strokeWidth": 1.3, "clip": True},
            "encoding": across
            | up
            | color
            | {
                "fill": {"field": "color", "type": "nominal", "scale": None},
                "fillOpacity": {"field": "opacity", "type": "quantitative", "scale": None},
                "shape": {"field": "shape", "type": "nominal", "scale": None},
                "tooltip": told,
                "description": {"field": "label", "type": "nominal"},
            },
        }
    )
    if not chart.x_switches and chart.x.column == "tau":
        layers.append(_constants(up, color, told))
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": chart.title,
        "width": "container",
        "height": 380,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "data": {"name": "points"},
        "transform": [{"calculate": x_of, "as": "_x"}, {"calculate": y_of, "as": "_y"}],
        "layer": layers,
    }


def _place(axis: Axis, of: Scale) -> str:
    value = f"datum['{axis.column}']"
    if of.zero is None:
        return value
    return f"!isValid({value}) ? null : {value} > {axis.floor!r} ? {value} : {of.zero!r}"


def _channel(field: str, axis: Axis, of: Scale, log: bool) -> dict[str, Any]:
    drawn: dict[str, Any] = {"title": axis.title, "labelExpr": _NUMBER}
    drawn |= {"labelOverlap": True, "labelSeparation": 6}
    if of.ticks is not None:
        drawn["values"] = of.ticks
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"type": "log" if log else "linear", "domain": of.domain, "nice": False},
        "axis": drawn,
    }


def _format(column: str) -> dict[str, str]:
    texts = ("estimator", "series", "method", "problem", "regime", "reason", "note", "size", "run")
    if column in texts or column.endswith(" ± s.e."):
        return {"type": "nominal"}
    return {"type": "quantitative", "format": ".4~g"}


def _bands(x: Scale, y: Scale) -> "list[dict[str, Any]]":
    """Return the grey bands of values without a logarithm, and the 0 beside them."""
    layers: list[dict[str, Any]] = []
    for of, side, low, high in ((x, "x", "x", "x2"), (y, "y", "y", "y2")):
        if of.zero is None:
            continue
        ends = {"a": of.domain[0], "b": of.edge, "z": of.zero}
        layers.append(
            {
                "data": {"values": [ends]},
                "mark": {"type": "rect", "color": "#eeeeee", "tooltip": False},
                "encoding": {low: {"field": "a", "type": "quantitative"}, high: {"field": "b"}},
            }
        )
        at: dict[str, Any] = {side: {"field": "z", "type": "quantitative"}}
        if side == "x":
            at["y"] = {"value": 372}
        else:
            at["x"] = {"value": 6}
        look = {"type": "text", "text": "≤ 0", "fontSize": 11, "color": "#555"}
        look |= {"align": "center" if side == "x" else "left", "tooltip": False}
        layers.append({"data": {"values": [ends]}, "mark": look, "encoding": at})
    return layers


def _errors(
    x: Axis,
    y: Axis,
    x_scale: Scale,
    y_scale: Scale,
    across: dict[str, Any],
    up: dict[str, Any],
    color: dict[str, Any],
    x_log: bool,
    y_log: bool,
) -> "list[dict[str, Any]]":
    """Return the bars of ± one standard error, of points that do not stand in a band."""
    layers = []
    for axis, of, log, channel in ((x, x_scale, x_log, "x"), (y, y_scale, y_log, "y")):
        if axis.error is None:
            continue
        value, error = f"datum['{axis.column}']", f"datum['{axis.error}']"
        shown = f"isValid({value}) && {error} > 0 && isValid(datum._x) && isValid(datum._y)"
        if log:
            shown += f" && {value} > {axis.floor!r}"
        low = f"max({value} - {error}, {of.edge!r})" if log else f"{value} - {error}"
        encoding = dict(across | up | color)
        encoding[channel] = encoding[channel] | {"field": "_low"}
        layers.append(
            {
                "transform": [
                    {"filter": shown},
                    {"calculate": low, "as": "_low"},
                    {"calculate": f"{value} + {error}", "as": "_high"},
                ],
                "mark": {"type": "rule", "strokeWidth": 1, "clip": True, "tooltip": False},
                "encoding": encoding | {f"{channel}2": {"field": "_high"}},
            }
        )
    return layers


def _constants(up: dict[str, Any], color: dict[str, Any], told: Any) -> dict[str, Any]:
    """Return the dashed lines of what has no temperature, across the picture."""
    return {
        "transform": [{"filter": "!isValid(datum.tau) && isValid(datum._y)"}],
        "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.6, "clip": True},
        "encoding": up
        | color
        | {"tooltip": told, "description": {"field": "label", "type": "nominal"}},
    }
