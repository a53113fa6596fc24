"""Dot plots as Vega-Lite: one line for each name, a point with its interval, and a target."""

from collections.abc import Sequence
from typing import Any

from gradlab.report.layers import COLOR, bands, channel, error_bars, framed, place, points
from gradlab.report.scales import Axis, Scale

__all__ = ["dots"]

# Pixels of a line.
_STEP = 26
# A name longer than this is cut; the tooltip and the table have all of it.
_LONGEST = 170


def dots(
    title: str,
    by: str,
    axis: Axis,
    of: Scale,
    log: bool,
    told: Sequence[Any] = (),
    count: int = 1,
    marks: str = "",
    sort: bool = False,
) -> dict[str, Any]:
    """Return a dot plot as Vega-Lite, without data.

    Args:
        title: What it is, for screen readers.
        by: The column whose values are the lines.
        axis: The quantity across. An interval of `ends` is drawn thin, one of `error` thick.
        of: Its scale.
        log: Whether it is logarithmic.
        told: The tooltip.
        count: How many lines there are.
        marks: A column of values to be compared with, or "".
        sort: Whether lines stand in the order of the quantity.

    Returns:
        The specification; its data is called "points".

    Example:
        >>> one = Scale((0.1, 1.0), None, 0.1, None, 0)
        >>> spec = dots("Times", "estimator", Axis("ms", "milliseconds"), one, True)
        >>> spec["layer"][-1]["encoding"]["y"]["field"]
        'estimator'
    """
    order = {"field": "_x", "op": "min", "order": "ascending"} if sort else None
    names: dict[str, Any] = {"title": None, "labelLimit": _LONGEST}
    # A verdict is named by its code and its loss, one below the other.
    names |= {"labelExpr": "split(datum.label, ' on ')", "grid": True}
    up = {"y": {"field": by, "type": "nominal", "sort": order, "axis": names}}
    across = {"x": channel("_x", axis, of, log)}
    there = [{"filter": f"isValid(datum._x) && isValid(datum['{by}'])"}]
    layers: list[dict[str, Any]] = [*bands(of, None, bottom=10)]
    if not log:
        zero = {"type": "rule", "color": "#777", "strokeWidth": 1.2, "tooltip": False}
        layers.append({"data": {"values": [{"z": 0}]}, "mark": zero, "encoding": _at("z")})
    if axis.ends is not None:
        ends = Axis(axis.column, axis.title, None, axis.log, axis.floor, axis.ends)
        layers += error_bars(ends, of, log, "x", across | up | COLOR)
    if axis.error is not None:
        one = Axis(axis.column, axis.title, axis.error, axis.log, axis.floor)
        layers += error_bars(one, of, log, "x", across | up | COLOR, width=4)
    if marks:
        value = f"datum['{marks}']"
        stroke = {"type": "tick", "color": "#111", "thickness": 2.5, "size": 18, "tooltip": False}
        target = {"x": across["x"] | {"field": marks}}
        shown = [{"filter": f"isValid({value}) && isValid(datum._x) && {value} > 0"}]
        layers.append(
            {"transform": shown, "mark": stroke | {"clip": True}, "encoding": target | up}
        )
    point = {"type": "point", "strokeWidth": 1.4, "clip": True}
    layers.append({"transform": there, "mark": point, "encoding": across | up | points(told)})
    return framed(_STEP * count + 14, title, place(axis, of), None) | {"layer": layers}


def _at(field: str) -> dict[str, Any]:
    return {"x": {"field": field, "type": "quantitative"}}
