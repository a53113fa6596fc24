"""Interactive pictures as Vega-Lite: the plane of bias² and variance, curves, and dot plots.

A picture has one specification for each choice of axis and scale, without data; the page puts the
points in. The same specification with its points is the static picture of readers without scripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlab.report.dots import dots
from gradlab.report.layers import COLOR, bands, channel, error_bars, framed, place, points, tooltip
from gradlab.report.scales import Axis, Scale, scale

__all__ = ["Chart", "specification", "views"]


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
        free: Columns whose menus it does not follow, such as those along its axes.
        by: Of a dot plot: the column whose values are its lines, one below the other. `ys` are then
            the quantities across.
        marks: Of a dot plot: a column of values to be compared with, drawn as a black stroke.
        sort: Of a dot plot: whether its lines stand in the order of the quantity, else of the rows.

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
    free: Sequence[str] = ()
    by: str = ""
    marks: str = ""
    sort: bool = False


def views(
    chart: Chart, rows: pd.DataFrame, titles: Mapping[str, str], selects: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the specifications of a chart, one for each vertical axis and scale.

    Args:
        chart: The chart.
        rows: The rows that it may show.
        titles: The titles of columns.
        selects: Columns of which one value is shown at a time.

    Returns:
        Dicts with `y` (the title of the vertical axis), `log`, `spec` and `bands`: for each grey
        band the column, the floor, and the sentences that say how many points stand in it.

    Example:
        >>> chart = Chart("p", "", "", Axis("b", "b"), [Axis("v", "v")], ["series"], "b")
        >>> rows = pd.DataFrame({"series": ["ST"], "b": [1.0], "v": [2.0]})
        >>> [view["log"] for view in views(chart, rows, {})]
        [True, False]
    """
    told = tooltip([name for name in chart.tooltip if name in rows], titles, rows)
    found = []
    for y in chart.ys:
        for log in (True, False) if y.log else (False,):
            y_scale = scale(_values(rows, y), y, log=log)
            if chart.by:
                count = _lines(chart, rows, selects)
                more = (told, count, chart.marks, chart.sort)
                spec = dots(chart.title, chart.by, y, y_scale, log, *more)
                inside = [(y, y_scale)]
            else:
                x_log = chart.x.log and (log or not chart.x_switches)
                x_scale = scale(rows[chart.x.column], chart.x, log=x_log)
                spec = specification(chart, y, x_scale, y_scale, x_log=x_log, y_log=log, told=told)
                inside = [(chart.x, x_scale), (y, y_scale)]
            shown = [_band(axis) for axis, of in inside if of.below]
            found.append({"y": y.title, "log": log, "spec": spec, "bands": shown})
    return found


def _lines(chart: Chart, rows: pd.DataFrame, selects: Sequence[str]) -> int:
    """Return how many lines of a dot plot are shown at once, at most."""
    menus = [name for name in selects if name not in chart.free]
    parts = rows.groupby(menus, dropna=False)[chart.by].nunique() if menus else None
    return int(rows[chart.by].nunique() if parts is None else parts.max())


def _values(rows: pd.DataFrame, axis: Axis) -> "pd.Series[float]":
    """Return all values that an axis must have room for: its column, and the ends of intervals."""
    parts = [rows[axis.column], *(rows[name] for name in axis.ends or ())]
    return pd.concat(parts, ignore_index=True).astype(float)


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
    told: Sequence[Any] = (),
) -> dict[str, Any]:
    """Return one view of a chart as Vega-Lite, without data.

    Args:
        chart: The chart.
        y: Its vertical axis.
        x_scale: The scale along x.
        y_scale: The scale along y.
        x_log: Whether x is logarithmic.
        y_log: Whether y is logarithmic.
        told: The tooltip.

    Returns:
        The specification; its data is called "points", whose rows have `color` and `shape`.

    Example:
        >>> chart = Chart("p", "", "", Axis("b", "b"), [Axis("v", "v")], ["series"], "b")
        >>> one = Scale((0.1, 1.0), None, 0.1, None, 0)
        >>> spec = specification(chart, chart.ys[0], one, one, x_log=True, y_log=True)
        >>> spec["data"]
        {'name': 'points'}
    """
    across = {"x": channel("_x", chart.x, x_scale, x_log)}
    up = {"y": channel("_y", y, y_scale, y_log)}
    detail = {"detail": [{"field": name, "type": "nominal"} for name in chart.lines]}
    there: dict[str, Any] = {"transform": [{"filter": "isValid(datum._x) && isValid(datum._y)"}]}
    order = {"order": {"field": chart.along, "type": "quantitative"}}
    layers: list[dict[str, Any]] = [*bands(x_scale, y_scale)]
    layers.append(
        there
        | {
            "mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.75, "clip": True},
            "encoding": across | up | COLOR | detail | order,
        }
    )
    for axis, of, log, side in ((chart.x, x_scale, x_log, "x"), (y, y_scale, y_log, "y")):
        layers += error_bars(axis, of, log, side, across | up | COLOR)
    layers.append(
        there
        | {
            "mark": {"type": "point", "strokeWidth": 1.3, "clip": True},
            "encoding": across | up | points(told),
        }
    )
    if not chart.x_switches and chart.x.column == "tau":
        layers.append(_constants(up, told))
    frame = framed(380, chart.title, place(chart.x, x_scale), place(y, y_scale))
    return frame | {"layer": layers}


def _constants(up: dict[str, Any], told: Sequence[Any]) -> dict[str, Any]:
    """Return the dashed lines of what has no temperature, across the picture."""
    return {
        "transform": [{"filter": "!isValid(datum.tau) && isValid(datum._y)"}],
        "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.6, "clip": True},
        "encoding": up
        | COLOR
        | {"tooltip": list(told), "description": {"field": "label", "type": "nominal"}},
    }
