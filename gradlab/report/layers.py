"""Parts of a picture in Vega-Lite that dots and curves share: scales, bands, errors, tooltips."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gradlab.report.scales import Axis, Scale

__all__ = [
    "COLOR",
    "LIBRARY",
    "bands",
    "channel",
    "error_bars",
    "framed",
    "place",
    "points",
    "tooltip",
]

LIBRARY = "6.4"
"""The version of Vega-Lite, of those that vl-convert brings."""

COLOR = {"color": {"field": "color", "type": "nominal", "scale": None}}
"""The colour of a mark is that of its row."""

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


def framed(height: int, title: str, x: str, y: str | None) -> dict[str, Any]:
    """Return what every picture has: its size, look, data, and where its points stand.

    Args:
        height: In pixels.
        title: What the picture is, for screen readers.
        x: The expression of the place along x.
        y: That of the place along y; None where rows have names.

    Returns:
        A specification without layers.

    Example:
        >>> framed(380, "Plane", "datum.b", None)["transform"]
        [{'calculate': 'datum.b', 'as': '_x'}]
    """
    places = [{"calculate": x, "as": "_x"}]
    places += [] if y is None else [{"calculate": y, "as": "_y"}]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": title,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "data": {"name": "points"},
        "transform": places,
    }


def place(axis: Axis, of: Scale) -> str:
    """Return the expression of where the value of a row stands along an axis.

    Args:
        axis: The axis.
        of: Its scale.

    Returns:
        The value itself, or the middle of the band for values that have no logarithm.

    Example:
        >>> place(Axis("b", "b"), Scale((0.1, 1.0), None, 0.1, None, 0))
        "datum['b']"
    """
    value = f"datum['{axis.column}']"
    if of.zero is None:
        return value
    return f"!isValid({value}) ? null : {value} > {axis.floor!r} ? {value} : {of.zero!r}"


def channel(field: str, axis: Axis, of: Scale, log: bool) -> dict[str, Any]:
    """Return the encoding of a quantity along one side.

    Args:
        field: The field that holds the place, such as `_x`.
        axis: The axis.
        of: Its scale.
        log: Whether it is logarithmic.

    Returns:
        The encoding.

    Example:
        >>> one = Scale((0.1, 1.0), None, 0.1, None, 0)
        >>> channel("_x", Axis("b", "bias"), one, True)["scale"]["type"]
        'log'
    """
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


def tooltip(columns: Sequence[str], titles: Mapping[str, str], rows: pd.DataFrame) -> list[Any]:
    """Return what hovering over a point shows.

    Args:
        columns: The columns.
        titles: The titles of columns.
        rows: The rows, whose types decide how a value is written.

    Returns:
        One entry per column.

    Example:
        >>> tooltip(["tau"], {}, pd.DataFrame({"tau": [0.1]}))
        [{'field': 'tau', 'title': 'tau', 'type': 'quantitative', 'format': '.4~g'}]
    """
    found = []
    for name in columns:
        number = name not in rows or pd.api.types.is_numeric_dtype(rows[name])
        look = {"type": "quantitative", "format": ".4~g"} if number else {"type": "nominal"}
        found.append({"field": name, "title": titles.get(name, name), **look})
    return found


def points(told: Sequence[Any], size: int = 90) -> dict[str, Any]:
    """Return the encoding of points: colour, shape and paleness of their rows, and the tooltip.

    Args:
        told: The tooltip.
        size: The area of a point, in pixels.

    Returns:
        The encoding, to which the places are added.

    Example:
        >>> points([])["shape"]["field"]
        'shape'
    """
    return {
        **COLOR,
        "fill": {"field": "color", "type": "nominal", "scale": None},
        "fillOpacity": {"field": "opacity", "type": "quantitative", "scale": None},
        "shape": {"field": "shape", "type": "nominal", "scale": None},
        "size": {"value": size},
        "tooltip": list(told),
        "description": {"field": "label", "type": "nominal"},
    }


def bands(x: Scale | None, y: Scale | None, bottom: int = 372) -> list[dict[str, Any]]:
    """Return the grey bands of values without a logarithm, and the 0 beside them.

    Args:
        x: The scale along x, or None for an axis without one.
        y: The scale along y, or None.
        bottom: Where the 0 of a band along x is written, in pixels from the top.

    Returns:
        Layers.

    Example:
        >>> bands(Scale((0.1, 1.0), None, 0.1, None, 0), None)
        []
    """
    layers: list[dict[str, Any]] = []
    for of, side, low, high in ((x, "x", "x", "x2"), (y, "y", "y", "y2")):
        if of is None or of.zero is None:
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
            at["y"] = {"value": bottom}
        else:
            at["x"] = {"value": 6}
        look = {"type": "text", "text": "≤ 0", "fontSize": 11, "color": "#555"}
        look |= {"align": "center" if side == "x" else "left", "tooltip": False}
        layers.append({"data": {"values": [ends]}, "mark": look, "encoding": at})
    return layers


def error_bars(
    axis: Axis, of: Scale, log: bool, side: str, encoding: Mapping[str, Any], width: float = 1
) -> list[dict[str, Any]]:
    """Return the intervals of points: ± one standard error, or from one end to the other.

    Args:
        axis: The axis along which they lie; without `error` and `ends` it has none.
        of: Its scale.
        log: Whether it is logarithmic; then points in the band have no interval.
        side: "x" or "y".
        encoding: That of the points, with both places.
        width: Of the line, in pixels.

    Returns:
        Layers.

    Example:
        >>> error_bars(Axis("b", "b"), Scale((0.1, 1.0), None, 0.1, None, 0), True, "x", {})
        []
    """
    if axis.error is None and axis.ends is None:
        return []
    value = f"datum['{axis.column}']"
    if axis.ends is None:
        error = f"datum['{axis.error}']"
        low, high, there = f"{value} - {error}", f"{value} + {error}", f"{error} > 0"
    else:
        low, high = (f"datum['{name}']" for name in axis.ends)
        there = f"isValid({low}) && isValid({high}) && {high} > {low}"
    shown = f"isValid({value}) && {there}"
    shown += "".join(
        f" && isValid(datum.{field})" for field in ("_x", "_y") if field in _fields(encoding)
    )
    if log:
        shown += f" && {value} > {axis.floor!r}"
        low = f"max({low}, {of.edge!r})"
    drawn = dict(encoding)
    drawn[side] = drawn[side] | {"field": "_low"}
    return [
        {
            "transform": [
                {"filter": shown},
                {"calculate": low, "as": "_low"},
                {"calculate": high, "as": "_high"},
            ],
            "mark": {"type": "rule", "strokeWidth": width, "clip": True, "tooltip": False},
            "encoding": drawn | {f"{side}2": {"field": "_high"}},
        }
    ]


def _fields(encoding: Mapping[str, Any]) -> set[str]:
    """Return the fields of places in an encoding."""
    return {encoding[side]["field"] for side in ("x", "y") if side in encoding}
