"""What the figures on sequences share: panels in a column's width, their looks and legends."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.panels import WIDTHS

__all__ = ["ROUNDING", "column", "draw", "entry", "legend", "relative_bias", "relative_variance"]

ROUNDING = 1e-9
"""A relative bias below this is rounding."""

Look = dict[str, Any]


def column(height: float, across: int, down: int = 1, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of a column's width and its panels.

    Args:
        height: Inches.
        across: Panels beside each other.
        down: Panels below each other.
        **shared: `sharex` and `sharey` of matplotlib.

    Returns:
        The figure and the panels, row by row.

    Example:
        >>> column(2.0, 2)[0].get_size_inches().tolist()
        [3.25, 2.0]
    """
    figure = Figure(figsize=(WIDTHS["column"], height))
    return figure, list(figure.subplots(down, across, squeeze=False, **shared).flat)


def draw(ax: Axes, rows: pd.DataFrame, x: str, y: str, look: Look) -> None:
    """Draw one line of rows, sorted along x.

    Args:
        ax: The panel.
        rows: The rows of the line.
        x: The column along the axis.
        y: The column that is drawn.
        look: Arguments of matplotlib's `plot`.
    """
    part = rows.sort_values(x)
    ax.plot(part[x], part[y], **look)


def entry(look: Look, text: str) -> Line2D:
    """Return a legend entry.

    Args:
        look: Arguments of matplotlib's `plot`.
        text: What the legend says.

    Returns:
        The entry.

    Example:
        >>> entry({"color": "k"}, "RLOO").get_label()
        'RLOO'
    """
    return Line2D([], [], label=text, **look)


def legend(figure: Figure, entries: Sequence[Line2D], columns: int) -> None:
    """Write the legend below the panels.

    Args:
        figure: The figure.
        entries: The legend entries.
        columns: In how many columns.
    """
    figure.legend(
        handles=list(entries),
        loc="outside lower center",
        ncols=columns,
        columnspacing=0.9,
        handlelength=1.6,
        handletextpad=0.5,
        labelspacing=0.3,
    )


def relative_bias(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the bias in lengths of the gradient of the target.

    Args:
        rows: Rows with `bias2` and `truth2`.

    Returns:
        One number per row.

    Example:
        >>> relative_bias(pd.DataFrame({"bias2": [1.0], "truth2": [4.0]})).tolist()
        [0.5]
    """
    return (rows["bias2"] / rows["truth2"]) ** 0.5


def relative_variance(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the variance over the squared length of the gradient of the target.

    Args:
        rows: Rows with `variance` and `truth2`.

    Returns:
        One number per row.

    Example:
        >>> relative_variance(pd.DataFrame({"variance": [1.0], "truth2": [4.0]})).tolist()
        [0.25]
    """
    return rows["variance"] / rows["truth2"]
