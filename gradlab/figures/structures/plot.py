"""Relative bias by degree, and the plane of bias and noise, one column for each structure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic, on_axis, split_axes
from gradlab.plots.names import label
from gradlab.plots.style import color, marker, styled

__all__ = ["plot"]

DEGREE = 3
_GIBBS = "exponential family"
_NAMES = {"ST": "ST (of subsets: SIMPLE)", "TopK": "relaxed top-k"}
_LIMITS = (0.02, 5.0)
_ROUNDING = 1e-12


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: bias against degree above, bias against noise at one degree below."""
    points = _points(rows)
    with styled():
        figure = Figure(figsize=(8.2, 5.6))
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
        above, below = halves
        names = list(points["structure"].unique())
        parts: Any = above.subfigures(1, len(names), squeeze=False)[0]
        for place, (part, name) in enumerate(zip(parts, names, strict=True)):
            of_one = points[points["structure"] == name]
            errors, rounding = split_axes(part, "y", _LIMITS)
            _draw_degrees((errors, rounding), of_one)
            errors.set_title(name)
            rounding.set_xlabel("degree of f")
            rounding.set_xticks(sorted(of_one["degree"].unique()))
            if place == 0:
                errors.set_ylabel("relative bias |E ĝ − g| / |g|")
                rounding.set_ylabel("rounding")
        planes = below.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
        for place, (ax, name) in enumerate(zip(planes, names, strict=True)):
            here = (points["structure"] == name) & (points["degree"] == DEGREE)
            _draw_plane(ax, points[here])
            if place == 0:
                ax.set_ylabel("standard deviation / |g|")
        biased = points[(points["degree"] == DEGREE) & (points["bias"] > _ROUNDING)]["bias"]
        planes[0].set_xlim(biased.min() / 3, biased.max() * 1.4)
        figure.legend(handles=_entries(points), loc="outside lower center", ncols=4)
    return figure


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return medians over polynomials: relative bias with quartiles, and standard deviation."""
    squares = rows.assign(
        bias2=rows["bias2"] / rows["truth2"], variance=rows["variance"] / rows["truth2"]
    )
    keys = ["structure", "degree", "estimator", "series", "target", "method"]
    groups = squares.groupby(keys, sort=False)
    found = groups[["bias2", "variance"]].median().clip(lower=0) ** 0.5
    found.columns = ["bias", "sd"]
    for name, quantile in (("low", 0.25), ("high", 0.75)):
        found[name] = groups["bias2"].quantile(quantile).clip(lower=0) ** 0.5
    return found.reset_index()


def _look(series: str, target: str) -> dict[str, Any]:
    """Return colour, marker and line; I-MLE against the law that it stands in for is dotted."""
    other = series.startswith("I-MLE") and target == _GIBBS
    look = {"color": color(series), "marker": marker(series), "ls": ":" if other else "-"}
    return look | ({"mfc": "white"} if other else {})


def _draw_degrees(axes: tuple[Any, Any], points: pd.DataFrame) -> None:
    groups = list(points.groupby(["series", "target"], sort=False))
    for place, ((series, target), part) in enumerate(groups):
        look = _look(str(series), str(target))
        at = part["degree"].to_numpy(float) + 0.07 * (place - (len(groups) - 1) / 2)
        # What draws cannot tell from 0 is not drawn.
        hidden = (part["method"] != "exact") & (part["bias"] == 0)
        bias, low, high = (
            on_axis(part[name]).where(~hidden).to_numpy() for name in ("bias", "low", "high")
        )
        for ax in axes:
            bottom, top = ax.get_ylim()
            if ax is axes[1] and "exact" not in set(part["method"]):
                continue  # noise does not reach down to rounding
            ax.vlines(at, low, high, color=look["color"], lw=1, alpha=0.5, zorder=2)
            inside = np.where((bias >= bottom) & (bias <= top), bias, np.nan)
            ax.plot(at, inside, zorder=3, **look)


def _draw_plane(ax: Any, points: pd.DataFrame) -> None:
    logarithmic(ax, "xy")
    shown = points[points["bias"] > _ROUNDING]
    for _, point in shown.iterrows():
        ax.plot(point["bias"], point["sd"], zorder=3, **_look(point["series"], point["target"]))
    for _, point in points[points["bias"] <= _ROUNDING].iterrows():
        # Without bias it has no place on the axis: an arrow on its height.
        ax.annotate(
            "",
            (0.0, point["sd"]),
            (0.09, point["sd"]),
            xycoords=ax.get_yaxis_transform(),
            arrowprops={"arrowstyle": "->", "color": color(point["series"])},
        )
        ax.text(
            0.02,
            point["sd"] * 1.07,
            "unbiased",
            transform=ax.get_yaxis_transform(),
            fontsize=7,
        )
        ax.plot(
            0.12,
            point["sd"],
            transform=ax.get_yaxis_transform(),
            zorder=3,
            **_look(point["series"], point["target"]),
        )
    ax.set_xlabel(f"relative bias, degree {DEGREE}")


def _entries(points: pd.DataFrame) -> list[Line2D]:
    found = []
    pairs = points[["estimator", "series", "target"]].drop_duplicates()
    for _, pair in pairs.iterrows():
        text = _NAMES.get(pair["series"], label(pair["estimator"]))
        if pair["series"].startswith("I-MLE"):
            text += ", against " + (
                "the exponential family" if pair["target"] == _GIBBS else "its own law"
            )
        if pair["series"] == "TopK":
            text += ", without replacement"
        found.append(Line2D([], [], label=text, **_look(pair["series"], pair["target"])))
    return found
