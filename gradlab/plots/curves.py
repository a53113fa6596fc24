"""Exact values as lines and Monte Carlo estimates as points with error bars, on logarithmic axes.

Bias, standard deviation and root mean squared error are roots of measured squares. A square that
noise hides is drawn as an upper limit; an exact zero is named beside the axis.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.plots.names import label as written
from gradlab.plots.style import color, marker

__all__ = [
    "FEW_DRAWS",
    "draw_measured",
    "key",
    "name_zeros",
    "roots",
    "series_handle",
]

FEW_DRAWS = 100
"""Points of fewer effective draws are hollow: their error bars are too short."""


def roots(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the root of a square relative to |truth|, with its standard error.

    Args:
        rows: Rows of `gradlab.compare`.
        column: "bias2", "variance" or "mse".

    Returns:
        One row per row: `value`, `se`, and `resolved`, whether the square is more than two standard
        errors above zero. Where it is not, `value` is the upper limit, the root of the square + two
        standard errors.

    Example:
        >>> rows = pd.DataFrame({"bias2": [1.0, 0.01], "bias2_se": 0.1, "truth2": 4.0})
        >>> roots(rows, "bias2")["resolved"].tolist()
        [True, False]
    """
    square = (rows[column] / rows["truth2"]).to_numpy(float)
    se = (rows[f"{column}_se"] / rows["truth2"]).to_numpy(float)
    resolved = ~(square <= 2 * se)
    # A square far below zero, by chance, still leaves its noise as a limit.
    value = np.sqrt(np.where(resolved, square, np.maximum(square, 0.0) + 2 * se))
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.where(resolved, se / (2 * value), np.nan)
    return pd.DataFrame({"value": value, "se": se, "resolved": resolved}, index=rows.index)


def draw_measured(
    ax: Axes, x: Iterable[float], rows: pd.DataFrame, column: str, series: str, joined: bool = False
) -> None:
    """Draw the roots of a square of Monte Carlo rows: points with +-1 standard error.

    Limits are arrows that point down. Points of fewer than `FEW_DRAWS` effective draws are hollow.

    Args:
        ax: The panel.
        x: One place per row.
        rows: Monte Carlo rows of `gradlab.compare`.
        column: "bias2", "variance" or "mse".
        series: The estimator series, which chooses colour and marker.
        joined: Whether to add a thin line through the points that are resolved.
    """
    x = np.asarray(list(x), dtype=float)
    found = roots(rows, column)
    value, resolved = found["value"].to_numpy(), found["resolved"].to_numpy(bool)
    few = rows["effective_draws"].to_numpy(float) < FEW_DRAWS
    look: dict[str, Any] = {
        "color": color(series),
        "elinewidth": 0.8,
        "capsize": 0,
        "markersize": 3.5,
    }
    for chosen, face in ((resolved & ~few, color(series)), (resolved & few, "white")):
        ax.errorbar(
            x[chosen],
            value[chosen],
            yerr=found["se"].to_numpy()[chosen],
            fmt=marker(series),
            mfc=face,
            mew=0.7,
            zorder=4,
            **look,
        )
    limits = ~resolved & (value > 0)
    ax.errorbar(
        x[limits],
        value[limits],
        yerr=0.35 * value[limits],
        uplims=True,
        fmt="_",
        mew=0.9,
        alpha=0.75,
        zorder=3,
        **look,
    )
    if joined:
        ax.plot(x[resolved], value[resolved], color=color(series), lw=0.6, zorder=2)


def name_zeros(ax: Axes, series: Sequence[str]) -> None:
    """Write at the foot of a panel which series are exactly 0: a logarithmic axis has no place.

    Args:
        ax: The panel.
        series: The names of the series.
    """
    if series:
        text = f"exactly 0: {', '.join(series)}"
        ax.text(0.84, 0.03, text, transform=ax.transAxes, ha="right", fontsize=7, color="0.25")


def series_handle(
    series: str, ls: str = "-", *, marked: bool = True, label: str | None = None
) -> Line2D:
    """Return the legend entry of an estimator series: its line and its marker.

    Args:
        series: The estimator series.
        ls: The line style.
        marked: Whether the entry has the marker.
        label: What the legend says; by default the series, in Greek letters.

    Returns:
        The entry.

    Example:
        >>> series_handle("GR(k=inf)").get_label()
        'GR(k=∞)'
    """
    shape = marker(series) if marked else ""
    return Line2D([], [], color=color(series), marker=shape, ls=ls, label=label or written(series))


def key() -> list[Line2D]:
    """Return the legend entries that say what lines, points, arrows and hollow points are.

    Returns:
        The entries.

    Example:
        >>> key()[0].get_label()
        'line: exact'
    """
    grey: dict[str, Any] = {"color": "0.35", "markersize": 4}
    point = grey | {"ls": "", "marker": "o"}
    limit = grey | {"ls": "", "marker": r"$\downarrow$"}
    return [
        Line2D([], [], label="line: exact", **grey),
        Line2D([], [], label="point: Monte Carlo ± 1 s.e.", **point),
        Line2D([], [], label="one draw of each; g: exact gradient", ls=""),
        Line2D([], [], label="arrow: not resolved (upper limit, + 2 s.e.)", **limit),
        Line2D([], [], label=f"hollow: < {FEW_DRAWS} effective draws", mfc="white", **point),
    ]
