"""Who dominates how much of whom: one line for each kind of problem, and the median over all."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.panels import WIDTHS
from gradlab.plots.style import color, styled

__all__ = ["draw_lines", "finding", "lines_key", "median_interval", "plot_column"]

_SERIES = ("GR(k=inf)", "ST-ZGR")
_WORDS = {"GR(k=inf)": "GR(k=∞), by ST-ZGR", "ST-ZGR": "ST-ZGR, by GR(k=∞)"}
_PROBLEMS = {"mlp": "network", "vae": "VAE"}


def finding(rows: pd.DataFrame) -> str:
    """Return what the shares say, as the title of a picture.

    Args:
        rows: Rows of kind "domination".

    Returns:
        Two lines.
    """
    raw = rows[rows["scale"] == "raw"]
    gr, st = (raw[raw["series"] == series]["share"].median() for series in _SERIES)
    count = len(raw[raw["series"] == _SERIES[0]])
    return (
        f"ST-ZGR dominates a median {gr:.0%} of the GR curve,\n"
        f"and GR {st:.0%} of the ST-ZGR curve ({count} problems)"
    )


def plot_column(rows: pd.DataFrame) -> Figure:
    """Return the shares alone, in the width of a column."""
    shares = rows[rows["kind"] == "domination"]
    with styled():
        figure = Figure(figsize=(WIDTHS["column"], 3.5))
        ax = figure.subplots()
        draw_lines(ax, shares)
        figure.suptitle(finding(shares), fontsize=8)
        figure.legend(
            handles=lines_key(),
            loc="outside lower center",
            ncols=2,
            columnspacing=0.8,
            handlelength=1.2,
        )
    return figure


def median_interval(values: "pd.Series[float]", level: float = 0.95) -> tuple[float, float]:
    """Return the ends of an interval that holds the median of what values are drawn from.

    It is between two of the sorted values, whatever their distribution: how many values are below
    the median is binomial.

    Args:
        values: Independent values.
        level: How surely the interval holds it, at least; of very few values it is their range.

    Returns:
        Its two ends.

    Example:
        >>> median_interval(pd.Series(range(1, 21), dtype=float))
        (6.0, 15.0)
    """
    ordered = np.sort(values.to_numpy(float))
    count = len(ordered)
    tail, below = 0.0, -1
    # As many at either end as may be left out: more would be too often on one side of the median.
    while (tail := tail + math.comb(count, below + 1) / 2**count) <= (1 - level) / 2:
        below += 1
    below = max(below, 0)
    return float(ordered[below]), float(ordered[count - 1 - below])


def draw_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the median share of each kind of problem, raw: a dot, its interval and the spread.

    Args:
        ax: The panel.
        rows: Rows of kind "domination".
    """
    raw = rows[rows["scale"] == "raw"]
    order = list(dict.fromkeys(raw["problem"]))
    kinds = list(dict.fromkeys(zip(raw["problem"], raw["regime"], strict=True)))
    kinds.sort(key=lambda kind: order.index(kind[0]))
    places, at, last = [], 0.0, None
    for kind in kinds:
        at += 0.0 if last is None else 1.0 if kind[0] == last else 1.4
        places.append(at)
        last = kind[0]
    for (name, regime), place in zip(kinds, places, strict=True):
        here = raw[(raw["problem"] == name) & (raw["regime"] == regime)]
        for series, off in zip(_SERIES, (-0.17, 0.17), strict=True):
            share, shade = here[here["series"] == series]["share"], color(series)
            low, high = share.quantile([0.15, 0.85])
            ax.hlines(place + off, low, high, color=shade, lw=0.9)
            ax.hlines(place + off, *median_interval(share), color=shade, lw=3.2, alpha=0.6)
            ax.plot(share.median(), place + off, "o", color=shade, ms=4.5, mec="white", mew=0.5)
    names = [f"{_PROBLEMS.get(name, name)}, {regime}" for name, regime in kinds]
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.set_xlim(-0.03, 1.03)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("share of a curve that is dominated")


def lines_key() -> list[Line2D]:
    """Return the legend entries of `draw_lines`."""
    grey: dict[str, Any] = {"color": "0.35"}
    dot: dict[str, Any] = {"marker": "o", "ls": "", "ms": 4.5}
    return [
        *(Line2D([], [], color=color(s), label=text, **dot) for s, text in _WORDS.items()),
        Line2D([], [], lw=3.2, alpha=0.6, label="median, 95 % interval", **grey),
        Line2D([], [], lw=0.9, label="15 to 85 % of them", **grey),
    ]
