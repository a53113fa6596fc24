"""All estimators in one plane of squared bias and variance at equal cost, the best named beside it.

Both are relative to the squared length of the true gradient. The horizontal axis has two parts: a
strip for what has no bias, a column a family, and right of it the logarithm of the squared bias.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gradlab.plots.axes import logarithmic, spread
from gradlab.plots.names import fitted_text, problem_title, short
from gradlab.plots.panels import WIDTHS
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.plots.style import FAMILIES, family_color, family_entries, family_marker, styled

__all__ = ["draw_zoo", "plane", "zoo_key"]

Array = NDArray[np.float64]

# The plane is drawn at 0 to 1, left of it the strip, and names on either side.
_STRIP = np.linspace(-0.27, -0.05, len(FAMILIES) + 1)
_LEFT, _RIGHT = -0.34, 1.05
_SMALLEST, _LARGEST = 1e-6, 10.0
_LINES = ("-", "--", ":", "-.")
# The height of a name, as a share of that of the panel.
_LINE = 0.047
# So many are named in a panel: those with the least error.
_NAMED = 10


def plane(rows: pd.DataFrame) -> Figure:
    """Return the figure: a panel for each problem, the unbiased ones in a strip on its left."""
    names = list(rows["problem"].unique())
    spent = f"{rows['budget'].iloc[0]} evaluations of f (3 for f with its gradient)"
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 7.6))
        grid = figure.add_gridspec(-(-len(names) // 2), 2)
        for place, name in enumerate(names):
            panel = figure.add_subplot(grid[place // 2, place % 2])
            draw_zoo(panel, rows[rows["problem"] == name])
            panel.set_title(problem_title(name))
            if place % 2 == 0:
                panel.set_ylabel("variance at equal cost / |g|²")
        figure.suptitle(
            f"Mean of as many draws as {spent} pay; the {_NAMED} with the least error are named",
            fontsize=8,
        )
        figure.legend(handles=zoo_key(rows), loc="outside lower center", ncols=3, fontsize=6.5)
    return figure


def draw_zoo(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the rows of one problem; series with a temperature are joined and named at their best.

    The best is the smallest bias2 + cost_variance. Squared biases that are not distinguishable from
    zero are arrows from an upper limit, two standard errors above. What cannot be used has its
    reason in the rows.
    """
    points = _points(rows[rows["reason"].isna()])
    best = points.loc[points.groupby(["series", "fits"], sort=False)["mse"].idxmin()]
    decades = _frame(ax, points, best)
    points, best = (p.assign(x=_place(p, decades)) for p in (points, best))
    styles: dict[str, Iterator[str]] = {}
    for _, part in points.groupby(["series", "fits"], sort=False):
        line = styles.setdefault(part["family"].iloc[0], cycle(_LINES))
        joined = next(line) if len(part) > 1 else ""
        _draw_series(ax, part.sort_values("tau"), joined, 1 / (decades[1] - decades[0]))
    named = _named(best)
    _name(ax, named[named["zero"]], _LEFT)
    _name(ax, named[~named["zero"]], _RIGHT)
    _equal_mse(ax, decades)
    least = best.loc[best["mse"].idxmin()]
    ring: dict[str, Any] = {"mfc": "none", "mec": "k", "ms": 11, "mew": 0.9, "zorder": 6}
    ax.plot(least["x"], least["y"], "o", **ring)


def zoo_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries: families, then what lines, arrows and the ring are."""
    grey: dict[str, Any] = {"color": "0.35", "ls": ""}
    taus = ", ".join(f"{tau:g}" for tau in sorted(rows["tau"].dropna().unique()))
    return [
        *family_entries(rows["family"]),
        Line2D([], [], marker="v", mfc="white", label=f"hollow: {fitted_text(rows)}", **grey),
        Line2D([], [], color="0.35", lw=0.8, marker=".", label=f"joined: τ = {taus}"),
        Line2D(
            [], [], color="0.6", ls="--", lw=0.8, label="equal MSE: 0.01, 0.1, 1 (that of 0), ..."
        ),
        Line2D([], [], marker="|", ms=7, label="bars: Monte Carlo ± 1 s.e.; others exact", **grey),
        Line2D([], [], marker=r"$\leftarrow$", ms=7, label="bias² not resolved: + 2 s.e.", **grey),
        Line2D([], [], marker="o", mfc="none", mec="k", ms=9, ls="", label="least MSE"),
    ]


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the relative `bias2`, `y` (variance), errors and `mse`; `zero`: without bias.

    That is exactly so, or declared and not contradicted by draws.
    """
    unit = rows["truth2"]
    bias2, error = rows["bias2"] / unit, rows["bias2_se"] / unit
    zero = (bias2.abs() < SQUARE_ROUNDING) | (rows["declared_unbiased"] & (bias2 <= 5 * error))
    y = rows["cost_variance"] / unit
    return rows[["series", "estimator", "family", "fits", "tau"]].assign(
        zero=zero,
        resolved=zero | ~(bias2 <= 2 * error),
        bias2=bias2.where(~zero & (bias2 > 2 * error), bias2.clip(lower=0) + 2 * error),
        bias2_se=error,
        y=y,
        y_se=rows["cost_variance_se"] / unit,
        mse=bias2.mask(zero, 0.0).clip(lower=0) + y,
    )


def _frame(ax: Axes, points: pd.DataFrame, best: pd.DataFrame) -> tuple[float, float]:
    """Set the axes; return the powers of ten of bias^2 at the plane's left and right."""
    biased = points.loc[~points["zero"], "bias2"]
    low, high = (biased.min(), biased.max()) if len(biased) else (0.1, 1.0)
    low, high = np.floor(np.log10(max(low, _SMALLEST))), np.ceil(np.log10(min(high, _LARGEST)))
    logarithmic(ax, "y", (best["y"].min() / 2, best["y"].max() * 2))
    ax.set_xlim(-1.45, 1.75)
    ax.axvspan(_STRIP[0] - 0.03, _STRIP[-1] + 0.03, color="0.95", lw=0, zorder=0)
    # From the right, so that the first does not touch the 0 of the strip.
    decades = np.arange(high, low + 0.5, -1 if high - low < 3 else -2)[::-1]
    names = [f"$10^{{{d:.0f}}}$" for d in decades]
    at = (decades - low) / (high - low)
    ax.set_xticks([_STRIP.mean(), *at], ["0", *names])
    ax.grid(False, axis="y")
    ax.spines["bottom"].set_bounds(0, 1)
    ax.set_xlabel("bias² / |g|²")
    return float(low), float(high)


def _place(points: pd.DataFrame, decades: tuple[float, float]) -> Array:
    """Return where points stand on the horizontal axis, NaN beyond the plane."""
    with np.errstate(divide="ignore"):
        at = (np.log10(points["bias2"].to_numpy(float)) - decades[0]) / (decades[1] - decades[0])
    column = [[*FAMILIES, "other"].index(kind) for kind in points["family"]]
    at = np.where((at >= -1e-9) & (at <= 1 + 1e-9), at, np.nan)
    return np.where(points["zero"], _STRIP[column], at)


def _draw_series(ax: Axes, part: pd.DataFrame, line: str, decade: float) -> None:
    """Draw the points of one series with their errors, joined by temperature where biased."""
    kind = part["family"].iloc[0]
    shade = family_color(kind)
    look: dict[str, Any] = {"color": shade, "marker": family_marker(kind), "mec": "white"}
    face = {"mfc": "white", "mec": shade} if part["fits"].iloc[0] else {}
    shown = part[part["resolved"]]
    best = shown[shown.index == part["mse"].idxmin()]
    for some, size in ((shown, 2.5), (best, 5.5)):
        ax.plot(some["x"], some["y"], ls="", ms=size, mew=0.5, zorder=4, **(look | face))
    if line:
        plane = part.assign(x=part["x"].mask(part["zero"]))
        ax.plot(plane["x"], plane["y"], line, color=shade, lw=0.8, alpha=0.8, zorder=2)
    bars: dict[str, Any] = {"ls": "", "ecolor": shade, "elinewidth": 0.7, "zorder": 3}
    noisy = part[part["y_se"] > 0]
    ax.errorbar(noisy["x"], noisy["y"], noisy["y_se"], **bars)
    reach = _width(noisy, decade)
    ax.errorbar(noisy["x"], noisy["y"], xerr=reach, **bars)
    limits = part[~part["resolved"]]
    ax.errorbar(limits["x"], limits["y"], xerr=0.03, xuplims=True, **bars)


def _width(points: pd.DataFrame, decade: float) -> Array:
    """Return standard errors of log bias^2 as lengths on the horizontal axis, 0 in the strip."""
    error = points["bias2_se"] / points["bias2"] / np.log(10) * decade
    return error.where(~points["zero"] & points["resolved"], 0.0).to_numpy(float)


def _name(ax: Axes, best: pd.DataFrame, at: float) -> None:
    """Write names in a column at the side, one for all that coincide, and lead to their points."""
    groups = _coinciding(best.sort_values("y"))
    if not groups:
        return
    bottom, top = np.log10(ax.get_ylim())
    y = np.log10([float(group["y"].iloc[0]) for group in groups])
    places = 10 ** spread(y, _LINE * (top - bottom), bottom, top)
    side = "right" if at < 0 else "left"
    for group, place in zip(groups, places, strict=True):
        first = group.iloc[0]
        shade = family_color(first["family"])
        names = [short(str(r.estimator), fitted=r.fits > 0) for r in group.itertuples()]
        text = names[0] if len(names) == 1 else f"{names[0]} = {len(names) - 1} more"
        lead: dict[str, Any] = {"color": shade, "lw": 0.4, "alpha": 0.7, "zorder": 1}
        ax.plot([at, first["x"]], [place, first["y"]], clip_on=False, **lead)
        look: dict[str, Any] = {"ha": side, "va": "center", "fontsize": 6.2, "color": shade}
        ax.text(at + (0.01 if at > 0 else -0.01), place, text, **look)


def _named(best: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the least error, and those that coincide with one of them."""
    least = best["mse"].drop_duplicates().nsmallest(_NAMED)
    return best[best["mse"] <= least.max() * (1 + 1e-6)]


def _coinciding(best: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows, by increasing variance, in groups that are one point up to rounding."""
    moves = best["y"].pct_change().abs() > 1e-6
    moves |= ~best["zero"] & (best["x"].diff().abs() > 1e-6)
    return [part.sort_index() for _, part in best.groupby(moves.cumsum())]


def _equal_mse(ax: Axes, decades: tuple[float, float]) -> None:
    """Draw the lines bias^2 + variance = 0.01, 0.1, ... (times |g|^2) that cross the plane."""
    bottom, top = ax.get_ylim()
    u = np.linspace(0, 1, 400)
    bias2 = 10 ** (decades[0] + u * (decades[1] - decades[0]))
    look: dict[str, Any] = {"color": "0.72", "lw": 0.6, "ls": (0, (4, 3)), "zorder": 0.5}
    for exponent in np.arange(np.floor(np.log10(bottom)), np.ceil(np.log10(top)) + 1):
        y = 10.0**exponent - bias2
        ax.plot(u[y > 0], y[y > 0], **look)
        if bottom < 10.0**exponent < top:
            ax.plot(_STRIP[[0, -1]] + [-0.03, 0.03], [10.0**exponent] * 2, **look)
