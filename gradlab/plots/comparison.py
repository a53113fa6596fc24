"""The plane of bias and standard deviation of one draw: where each estimator stands.

Both are relative to the length of the true gradient, on logarithmic axes. Temperatures are joined.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.curves import FEW_DRAWS
from gradlab.plots.names import label
from gradlab.plots.panels import (
    Legends,
    Width,
    in_callers_look,
    panels,
    series_entries,
    with_zero,
    write_apart,
)
from gradlab.plots.quantities import check, one_problem, quantity
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import Look, looks, say_nothing_measured

__all__ = ["plane", "plot"]

_NEEDS = "plane draws rows of compare, sequences.compare, recommend (its rows), a sweep or a probe"
_COLUMNS = ("series", "method", "truth2", "bias2", "bias2_se", "variance", "variance_se")


def plane(
    rows: pd.DataFrame, *, ax: Axes | None = None, width: Width = "column", legend: bool = True
) -> Figure:
    """Draw the bias of one draw against its standard deviation.

    Exact rows are open markers, joined where only the temperature differs, whose ends are named.
    Series that have only Monte Carlo rows are points with +-1 standard error. An arrow marks
    the upper limit of a bias that noise hides. Dashed lines join equal RMSE. What is exactly 0
    stands in a grey strip. Of policy gradients the legend says how many rows hold no numbers.

    Args:
        rows: Rows of `gradlab.compare`, `gradlab.sequences.compare`, `recommend(...).rows`, a
            sweep or a probe, of one problem, target and step.
        ax: An axis to draw on. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above a given axis.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, or the rows are of several problems.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("mlp", 4, 3), regime("moderate", 4, 3)
        >>> rows = gradlab.compare(f, logits, ["GS-ST", "ST", "ZGR"], [0.1, 1.0], method="exact")
        >>> gradlab.plot.plane(rows).axes[0].get_xlabel()
        'bias / |g|'
    """
    check(rows, _COLUMNS, _NEEDS)
    measured = one_problem(rows)
    if "tau" not in measured:
        # Policy gradients have no temperature.
        measured = measured.assign(tau=np.nan)
    with in_callers_look(ax):
        figure, (panel,) = panels(ax, width, ["plane"], height=2.5)
        if measured.empty:
            return say_nothing_measured(figure)
        exact = measured["method"] == "exact"
        known = measured["series"].isin(measured.loc[exact, "series"])
        points = _points(measured[exact | ~known])
        unit = "/ |g|" if (rows["truth2"].dropna() > 0).all() else "(g = 0)"
        panel.set(xlabel=f"bias {unit}", ylabel=f"standard deviation {unit}")
        _set_axes(panel, points)
        own = looks(points["series"])
        for series, part in points.groupby("series", sort=False):
            look = own[str(series)]
            exact = part["method"] == "exact"
            _draw_exact(panel, part[exact].sort_values("tau"), look)
            _draw_measured(panel, part[~exact].sort_values("tau"), look, joined=not exact.any())
        names = {series: label(series) for series in own}
        entries = [*series_entries(own, names), *_key(points), *_unknown(rows)]
        Legends(figure, ax, [panel], shown=legend).write(entries)
        write_apart(panel, _ends(points, own))
    return figure


def plot(rows: pd.DataFrame) -> Figure:
    """Return the picture that the command compare writes: the plane in the width of a page.

    Args:
        rows: Rows of `gradlab.compare`. A column `regime`, if there, names the logits in the title.

    Returns:
        The figure.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> rows = compare(problem("quadratic", 4, 3), regime("moderate", 4, 3), ["ST", "ZGR"])
        >>> plot(rows).axes[0].get_title(loc="left")
        'quadratic(N=4, C=3, seed=0); one draw'
    """
    figure = plane(rows, width="page")
    if figure.axes and not figure.texts:
        first = rows.iloc[0]
        regime = f", logits: {first['regime']}" if "regime" in rows else ""
        figure.axes[0].set_title(f"{first['problem']}{regime}; one draw", loc="left")
    return figure


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `bias`, `sd` (standard deviation), their errors, and if `resolved`."""
    bias, sd = quantity(rows, "bias"), quantity(rows, "sd")
    few = rows["effective_draws"] < FEW_DRAWS if "effective_draws" in rows else False
    return rows.assign(
        bias=bias["value"],
        bias_error=bias["se"],
        resolved=bias["resolved"],
        sd=sd["value"],
        sd_error=sd["se"],
        few=few,
    )


def _set_axes(ax: Axes, points: pd.DataFrame) -> None:
    """Set logarithmic axes, and `x` and `y` of the points: where they stand on them."""
    for axis, name in (("x", "bias"), ("y", "sd")):
        zero = points[name] < ROUNDING
        place = with_zero(ax, axis, points[name], zero)
        points[axis] = points[name].where(~zero, place)
    _draw_equal_rmse(ax)


def _draw_equal_rmse(ax: Axes) -> None:
    """Draw lines of equal root mean squared error, two to a decade."""
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    for rmse in 10 ** (np.arange(2 * np.log10(low), 2 * np.log10(np.hypot(right, high))) / 2):
        bias = np.minimum(np.geomspace(left, max(rmse, left), 300), rmse)
        ax.plot(bias, np.sqrt(rmse**2 - bias**2), zorder=0.5, **_EQUAL)
    ax.set(xlim=(left, right), ylim=(low, high))


_EQUAL: dict[str, Any] = {"color": "0.8", "lw": 0.6, "ls": (0, (4, 3)), "marker": ""}


def _draw_exact(ax: Axes, points: pd.DataFrame, look: Look) -> None:
    ax.plot(points["x"], points["y"], mfc="none", mew=1, zorder=3, **look)


def _draw_measured(ax: Axes, points: pd.DataFrame, look: Look, *, joined: bool) -> None:
    bars: dict[str, Any] = {"color": look["color"], "elinewidth": 0.8}
    few, resolved = points["few"].astype(bool), points["resolved"].astype(bool)
    for chosen, face in ((resolved & ~few, look["color"]), (resolved & few, "white")):
        of = points[chosen]
        errors = {"xerr": of["bias_error"], "yerr": of["sd_error"]}
        ax.errorbar(of["x"], of["y"], fmt=look["marker"], mfc=face, zorder=4, **errors, **bars)
    of = points[~resolved & (points["bias"] >= ROUNDING)]
    errors = {"xerr": 0.3 * of["x"], "yerr": of["sd_error"]}
    ax.errorbar(of["x"], of["y"], xuplims=True, fmt="|", zorder=4, **errors, **bars)
    of = points[~resolved & (points["bias"] < ROUNDING)]
    ax.plot(of["x"], of["y"], marker=look["marker"], ls="", color=look["color"], zorder=4)
    if joined:
        thin: Look = {"color": look["color"], "ls": look["linestyle"], "lw": 0.6, "zorder": 2}
        ax.plot(points["x"], points["y"], **thin)


def _ends(points: pd.DataFrame, own: dict[str, Look]) -> list[tuple[str, float, float, str]]:
    """Return the lowest and the highest temperature of each series, with their points."""
    found: list[tuple[str, float, float, str]] = []
    for series, part in points.dropna(subset="tau").groupby("series", sort=False):
        ends = part.sort_values(["method", "tau"]).drop_duplicates("tau").sort_values("tau")
        for _, end in ends.iloc[[0, -1]].iterrows() if len(ends) > 1 else ():
            text, here = f"τ={end['tau']:g}", (float(end["x"]), float(end["y"]))
            # One name is enough where points of two series fall together.
            if not any(text == t and np.allclose(here, at, rtol=0.15) for t, *at, _ in found):
                found.append((text, *here, own[str(series)]["color"]))
    return found


def _unknown(rows: pd.DataFrame) -> list[Line2D]:
    """Return a legend entry that says how many policy gradients have no numbers."""
    count = int(rows["reason"].notna().sum()) if {"policy", "reason"} <= set(rows) else 0
    text = f"not drawn: {count} without numbers, see column reason"
    return [Line2D([], [], ls="", label=text)] if count else []


def _key(points: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of what points, arrows and lines are."""
    grey: dict[str, Any] = {"color": "0.35", "ls": "", "marker": "o"}
    sampled = points[points["method"] != "exact"]
    entries = []
    if len(sampled) and len(sampled) < len(points):
        entries.append(Line2D([], [], label="open: exact", mfc="none", **grey))
    if len(sampled):
        entries.append(Line2D([], [], label="filled: draws ± 1 s.e.", **grey))
    if (~sampled["resolved"].astype(bool)).any():
        arrow = grey | {"marker": r"$\leftarrow$"}
        entries.append(Line2D([], [], label="bias: upper limit, + 2 s.e.", **arrow))
    if sampled["few"].any():
        text = f"white: < {FEW_DRAWS} effective draws"
        entries.append(Line2D([], [], label=text, mfc="white", **grey))
    return [*entries, Line2D([], [], label="equal RMSE", **_EQUAL)]
