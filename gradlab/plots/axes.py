"""Relative errors of exact estimates, from zero and rounding up to the size of the gradient.

The figures of exactness share two things. Their logarithmic axis leaves out the empty decades
between rounding and errors. Many random problems are summed up by their median and a range.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator
from numpy.typing import NDArray

from gradlab.plots.style import color, marker

__all__ = [
    "COLUMNS",
    "ZERO",
    "draw_median",
    "handle",
    "logarithmic",
    "on_axis",
    "relative",
    "split_axes",
    "spread",
]

COLUMNS = [
    *("problem", "N", "C", "logits_seed", "estimator", "series", "tau", "seed", "method"),
    *("truth2", "bias2", "variance"),
]
"""What the figures of exactness keep of a row of `compare`."""

ZERO = 1e-18
"""Where values of exactly 0 are drawn."""

ERRORS = (1e-3, 20.0)
# What the axis of rounding shows: from zero to this.
_FLOOR = 1e-13


def relative(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return the root of a square of exact rows, in units of |true gradient|.

    Args:
        rows: Exact rows of `gradlab.compare`.
        column: "bias2" or "variance".

    Returns:
        One number per row.

    Example:
        >>> relative(pd.DataFrame({"bias2": [1.0], "truth2": [4.0]}), "bias2").tolist()
        [0.5]
    """
    return (rows[column] / rows["truth2"]) ** 0.5


def on_axis(values: pd.Series) -> pd.Series:
    """Return values for a logarithmic axis with room for zeros, which go to `ZERO`.

    Args:
        values: Numbers >= 0.

    Returns:
        Positive numbers.

    Example:
        >>> on_axis(pd.Series([0.0, 0.1])).tolist()
        [1e-18, 0.1]
    """
    return values.where(values > 0, ZERO)


def split_axes(
    figure: FigureBase, axis: str, errors: tuple[float, float] = ERRORS
) -> tuple[Axes, Axes]:
    """Return the axes of errors and of rounding: one logarithmic axis with a cut.

    The caller draws everything on both.

    Args:
        figure: The figure, or a part of it.
        axis: The axis with the cut, "x" or "y".
        errors: The limits of the errors.

    Returns:
        The axes of errors and the axes of rounding.

    Example:
        >>> from matplotlib.figure import Figure
        >>> errors, rounding = split_axes(Figure(), "y")
        >>> rounding.get_yscale()
        'log'
    """
    if axis == "y":
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.spines["bottom"].set_visible(False)
        upper.tick_params(axis="x", length=0)
    else:
        lower, upper = figure.subplots(1, 2, sharey=True, width_ratios=[1, 3])
        upper.spines["left"].set_visible(False)
        upper.tick_params(axis="y", length=0)
    pair = (upper, lower)
    logarithmic(upper, axis, errors)
    logarithmic(lower, axis, (ZERO / 5, _FLOOR))
    getattr(lower, f"set_{axis}ticks")([ZERO, 1e-16, 1e-14])
    pair[1].set_facecolor("0.95")
    _mark_cut(*pair, axis)
    return pair


def logarithmic(ax: Axes, axes: str = "xy", limits: tuple[float, float] | None = None) -> None:
    """Make axes logarithmic, with few plain ticks, as many take seconds to draw.

    Args:
        ax: The axes of a panel.
        axes: "x", "y", or "xy" for both.
        limits: The limits of the axes, or None to leave them.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> logarithmic(ax, "x", (0.01, 1.0))
        >>> ax.get_xscale()
        'log'
    """
    for axis in axes:
        ax.set(**{f"{axis}scale": "log"})
        if limits is not None:
            ax.set(**{f"{axis}lim": limits})
        ticks = getattr(ax, f"{axis}axis")
        ticks.set_major_locator(_Few())
        ticks.set_major_formatter(FuncFormatter(_power))
        ticks.minorticks_off()


class _Few(Locator):
    """A few ticks of a logarithmic axis: decades, or 1, 2, 5 where there are too few decades."""

    def __call__(self) -> list[float]:
        assert self.axis is not None
        low, high = self.axis.get_view_interval()
        return self.tick_values(float(low), float(high))

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        low, high = sorted((vmin, vmax))
        if not 0 < low < high < math.inf:
            return []
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        if last > first:
            step = math.ceil((last - first + 1) / 6)
            return [10.0**d for d in range(math.ceil(first / step) * step, last + 1, step)]
        for steps in ((1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
            ticks = [step * 10.0**d for d in range(first - 1, last + 1) for step in steps]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) > 1:
                return ticks
        return [float(t) for t in MaxNLocator(3).tick_values(low, high) if low <= t <= high]


def _power(value: float, position: int | None = None) -> str:
    """Return 0.001, 1, 100, or 10⁻⁴ and 10⁵ further out; 0 at `ZERO`."""
    if value <= ZERO:
        return "0"
    exponent = math.floor(math.log10(value) + 1e-9)
    if -4 < exponent < 4:
        return f"{value:.6g}"
    digits = f"{value / 10.0**exponent:.3g}"
    ten = "10" + str(exponent).translate(_SUPERSCRIPT)
    return ten if digits == "1" else f"{digits}·{ten}"


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _mark_cut(above: Axes, below: Axes, axis: str) -> None:
    """Draw the two slanted strokes of a cut axis."""
    slant = [(-5, -3), (5, 3)] if axis == "y" else [(-3, -5), (3, 5)]
    for ax, at in ((above, (0, 0)), (below, (0, 1) if axis == "y" else (1, 0))):
        stroke = Line2D([at[0]], [at[1]], marker=slant, markersize=8, ls="none", color="k")
        stroke.set(transform=ax.transAxes, clip_on=False, zorder=5)
        ax.add_artist(stroke)


def draw_median(
    axes: Sequence[Axes],
    x: str,
    values: pd.Series,
    rows: pd.DataFrame,
    series: str,
    *,
    within: tuple[float, float] = (0.15, 0.85),
    dodge: float = 0.0,
    factor: float = 1.0,
    line: str = "-",
) -> None:
    """Draw the median of values over the rows of equal x, with whiskers between two quantiles.

    Only points inside the limits of an axis are joined.

    Args:
        axes: The panels to draw on.
        x: The column of the rows along the axis.
        values: One number per row.
        rows: The rows.
        series: The estimator series, which chooses colour and marker.
        within: The two quantiles of the whiskers.
        dodge: A number added to x, for a linear axis.
        factor: A number that multiplies x, for a logarithmic axis.
        line: The line style.
    """
    groups = values.groupby(rows[x])
    at = groups.median().index.to_numpy(float) * factor + dodge
    low, median, high = (on_axis(groups.quantile(q)) for q in (within[0], 0.5, within[1]))
    for ax in axes:
        ax.vlines(at, low, high, color=color(series), lw=1, alpha=0.5, zorder=2)
        inside = median.where(median.between(*ax.get_ylim()))
        ax.plot(at, inside, line, color=color(series), marker=marker(series), zorder=3)


def handle(series: str, text: str, line: str = "-") -> Line2D:
    """Return the legend entry of a series drawn by `draw_median`.

    Args:
        series: The estimator series.
        text: What the legend says.
        line: The line style.

    Returns:
        The entry.

    Example:
        >>> handle("ZGR", "ZGR").get_marker()
        '*'
    """
    return Line2D([], [], color=color(series), marker=marker(series), ls=line, label=text)


def spread(at: NDArray[np.float64], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Return the places nearest to given ones (least squares) that keep a distance.

    Where they do not all fit they start at `low` and end above `high`.

    Args:
        at: The wanted places [n], sorted.
        gap: The distance between neighbours.
        low: The lowest place.
        high: The highest place.

    Returns:
        The places [n].

    Example:
        >>> spread(np.array([1.0, 1.0]), gap=0.5, low=0.0, high=9.0).tolist()
        [0.75, 1.25]
    """
    blocks: list[list[float]] = []  # the mean and the size of each run of touching places
    for number, place in enumerate(at):
        blocks.append([place - number * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, size = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * size) / (before[1] + size)
            before[1] += size
    start = np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])
    limit = max(low, high - (len(at) - 1) * gap)
    return np.clip(start, low, limit) + gap * np.arange(len(at))
