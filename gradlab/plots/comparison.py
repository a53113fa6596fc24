"""Bias against standard deviation of one draw: where each estimator of a comparison stands.

Both relative to the length of the true gradient, on logarithmic axes; temperatures are joined.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.curves import FEW_DRAWS, roots
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import color, marker, say_nothing_measured, styled

__all__ = ["plot"]


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of a comparison on one problem.

    Exact rows are large open markers, joined where the temperature differs. Monte Carlo rows are
    points with +-1 standard error; an arrow marks the upper limit of a bias that noise hides.

    Args:
        rows: Rows of `gradlab.compare`. A column `regime`, if there, names the logits in the title.

    Returns:
        The figure.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> rows = compare(problem("quadratic", 4, 3), regime("moderate", 4, 3), ["ST", "ZGR"])
        >>> plot(rows).axes[0].get_xlabel()
        'bias / |g|'
    """
    measured = rows[rows["reason"].isna()]
    with styled():
        figure = Figure(figsize=(7.6, 4.6))
        if measured.empty:
            return say_nothing_measured(figure)
        ax = figure.subplots()
        first = measured.iloc[0]
        relative = first["truth2"] > 0
        regime = f", logits: {first['regime']}" if "regime" in rows else ""
        ax.set_title(f"{first['problem']}{regime}; one draw", loc="left")
        unit = "/ |g|" if relative else "(the true gradient is 0)"
        ax.set(xlabel=f"bias {unit}", ylabel=f"standard deviation {unit}")
        points = _points(measured if relative else measured.assign(truth2=1.0))
        _set_axes(ax, points)
        for series, family in points.groupby("series", sort=False):
            is_exact = family["method"] == "exact"
            _draw_exact(ax, family[is_exact], str(series))
            _draw_measured(ax, family[~is_exact], str(series))
            if not is_exact.any():
                ax.plot(family["x"], family["y"], color=color(str(series)), lw=0.6, zorder=2)
        _name_temperatures(ax, points)
        figure.legend(handles=_legend(points), loc="outside right upper")
    return figure


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `bias`, `sd` (standard deviation), their errors, and if `resolved`."""
    bias, sd = roots(rows, "bias2"), roots(rows, "variance")
    return rows.assign(
        bias=bias["value"],
        bias_error=bias["se"],
        resolved=bias["resolved"],
        sd=sd["value"],
        sd_error=sd["se"],
        few=rows["effective_draws"] < FEW_DRAWS,
    )


def _set_axes(ax: Axes, points: pd.DataFrame) -> None:
    """Set logarithmic axes, and `x` and `y` of the points: where they stand on them."""
    points["x"], xlim, left, xticks = _scale(points["bias"])
    points["y"], ylim, bottom, yticks = _scale(points["sd"])
    ax.set(xscale="log", yscale="log", xlim=xlim, ylim=ylim)
    ax.axvspan(xlim[0], left, color="0.94", lw=0, zorder=0)
    ax.axhspan(ylim[0], bottom, color="0.94", lw=0, zorder=0)
    ax.set_xticks(list(xticks), list(xticks.values()))
    ax.set_yticks(list(yticks), list(yticks.values()))
    ax.minorticks_off()
    _draw_equal_rmse(ax)


def _scale(
    values: pd.Series,
) -> tuple[pd.Series, tuple[float, float], float, dict[float, str]]:
    """Return where values stand on an axis, its limits, where its zeros end, and its ticks."""
    positive = values[values > ROUNDING]
    low, high = (positive.min() / 1.6, positive.max() * 1.6) if len(positive) else (0.1, 1.0)
    steps = (1, 2, 5) if high < 100 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = {step * 10.0**d: f"{step * 10.0**d:g}" for d in decades for step in steps}
    ticks = {tick: label for tick, label in ticks.items() if low <= tick <= high}
    if len(positive) == len(values):
        return values, (low, high), low, ticks
    edge = low * (low / high) ** 0.15
    zero = math.sqrt(edge * low)
    return values.where(values > ROUNDING, zero), (edge, high), low, {zero: "0"} | ticks


def _draw_equal_rmse(ax: Axes) -> None:
    """Draw lines of equal root mean squared error, four to a decade."""
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    for rmse in 10 ** (np.arange(4 * np.log10(low), 4 * np.log10(np.hypot(right, high))) / 4):
        bias = np.minimum(np.geomspace(left, max(rmse, left), 300), rmse)
        ax.plot(bias, np.sqrt(rmse**2 - bias**2), zorder=0.5, **_EQUAL)


_EQUAL: dict[str, Any] = {"color": "0.8", "lw": 0.6, "ls": (0, (4, 3))}


def _draw_exact(ax: Axes, points: pd.DataFrame, series: str) -> None:
    look: dict[str, Any] = {"color": color(series), "marker": marker(series), "mfc": "none"}
    ax.plot(points["x"], points["y"], lw=1, ms=8, mew=1, zorder=3, **look)


def _draw_measured(ax: Axes, points: pd.DataFrame, series: str) -> None:
    look: dict[str, Any] = {"color": color(series), "elinewidth": 0.8, "markersize": 3.5}
    few, resolved = points["few"], points["resolved"]
    for chosen, face in ((resolved & ~few, color(series)), (resolved & few, "white")):
        of = points[chosen]
        errors = {"xerr": of["bias_error"], "yerr": of["sd_error"]}
        ax.errorbar(of["x"], of["y"], **errors, fmt=marker(series), mfc=face, zorder=4, **look)
    of = points[~resolved & (points["bias"] > ROUNDING)]
    errors = {"xerr": 0.3 * of["x"], "yerr": of["sd_error"]}
    ax.errorbar(of["x"], of["y"], **errors, xuplims=True, fmt="|", zorder=4, **look)
    of = points[~resolved & (points["bias"] <= ROUNDING)]
    ax.plot(of["x"], of["y"], marker=marker(series), ls="", color=color(series), ms=3.5, zorder=4)


def _name_temperatures(ax: Axes, points: pd.DataFrame) -> None:
    """Write the lowest and the highest temperature of each series beside their points."""
    named: list[tuple[float, float, float]] = []
    for _, family in points.dropna(subset="tau").groupby("series", sort=False):
        ends = family.sort_values(["method", "tau"]).drop_duplicates("tau").sort_values("tau")
        for _, end in ends.iloc[[0, -1]].iterrows() if len(ends) > 1 else ():
            here = (end["tau"], end["x"], end["y"])
            # One name is enough where points of two series fall together.
            if not any(np.allclose(here, there, rtol=0.15, atol=0) for there in named):
                place: dict[str, Any] = {"xytext": (7, 4), "textcoords": "offset points"}
                ax.annotate(f"τ = {here[0]:g}", here[1:], fontsize=6.5, **place)
                named.append(here)


def _legend(points: pd.DataFrame) -> list[Line2D]:
    """Return the legend: the series, then what open markers, points and arrows are."""

    def entry(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **({"color": "0.35", "ls": "", "marker": "o"} | look))

    sampled = points[points["method"] != "exact"]
    hidden = ~sampled["resolved"] & (sampled["bias"] > ROUNDING)
    handles = [entry(s, color=color(s), marker=marker(s)) for s in points["series"].unique()]
    if len(sampled) < len(points):
        handles.append(entry("exact", mfc="none", ms=7))
    if len(sampled):
        handles.append(entry("Monte Carlo ± 1 s.e.", ms=3.5))
    if hidden.any():
        handles.append(entry("upper limit of bias (+ 2 s.e.)", marker=r"$\leftarrow$", ms=8))
    if sampled["few"].any():
        handles.append(entry(f"< {FEW_DRAWS} effective draws", mfc="white", ms=3.5))
    return [*handles, entry("equal RMSE", marker="", **_EQUAL)]
