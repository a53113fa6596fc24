"""Exact relative biases beside the standardized errors that draws show."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import relative
from gradlab.plots.names import label
from gradlab.plots.panels import WIDTHS, with_zero
from gradlab.plots.style import color, marker, styled

__all__ = ["VIEWS", "finding", "plot", "plot_column"]

# Relative biases below this are rounding.
_ROUNDING = 1e-12


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: exact relative biases on the left, scores of draws on the right."""
    exact = rows[rows["method"] == "exact"]
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 3.6))
        figure.suptitle(finding(exact), fontsize=9)
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        _draw_biases(left, exact)
        _draw_scores(right, rows[rows["method"] == "monte carlo"])
    return figure


def plot_column(rows: pd.DataFrame) -> Figure:
    """Return the exact biases alone, in the width of a column."""
    exact = rows[rows["method"] == "exact"]
    with styled():
        figure = Figure(figsize=(WIDTHS["column"], 2.9))
        figure.suptitle(finding(exact).replace(": ", ":\n"), fontsize=8)
        _draw_biases(figure.subplots(), exact)
    return figure


VIEWS = {"column": plot_column}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def finding(rows: pd.DataFrame) -> str:
    """Return what the exact rows say, as the title of the picture.

    Args:
        rows: Exact rows.

    Returns:
        One line.
    """
    bias = relative(rows, "bias2").groupby(rows["series"])
    exact = [
        name for name in ("ZGR", "RF(m=4)") if name in bias.groups and bias.max()[name] < _ROUNDING
    ]
    free = f"{' and '.join(map(label, exact))} have no bias" if exact else "all are biased"
    worst = f"ST has a median {bias.median()['ST']:.0%}" if "ST" in bias.groups else ""
    count = rows["problem"].nunique()
    return f"On {count} random quadratics: {free}{', ' if worst else ''}{worst}"


def _draw_biases(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the bias on each problem, a line for each estimator, its median beside it."""
    bias = relative(rows, "bias2")
    # What is at rounding level is no bias, whatever its digits.
    none = bias < _ROUNDING
    strip = with_zero(ax, "x", bias, none)
    bias = bias.where(~none, strip)
    names = list(rows["estimator"].unique())
    for place, name in enumerate(names):
        part = rows["estimator"] == name
        # Golden-ratio steps spread the points evenly, without random numbers.
        spread = place + 0.5 * ((np.arange(part.sum()) * 0.618034) % 1 - 0.5)
        shade = color(rows.loc[part, "series"].iloc[0])
        ax.scatter(bias[part], spread, s=6, alpha=0.6, lw=0, color=shade, zorder=3)
        middle = bias[part].median()
        ax.vlines(middle, place - 0.4, place + 0.4, lw=1.6, color=shade, zorder=4)
        shown = "0" if none[part].all() else f"{middle:.0%}"
        ax.text(1.02, place, shown, transform=ax.get_yaxis_transform(), va="center")
    ax.text(1.02, -0.75, "median", transform=ax.get_yaxis_transform(), va="center")
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("exact bias / |g|")


def _draw_scores(ax: Axes, rows: pd.DataFrame) -> None:
    first = rows[rows["estimator"] == rows["estimator"].iloc[0]]
    ax.fill_between(
        first["normal"], first["low"], first["high"], color="0.87", lw=0, label="95 % of N(0, 1)"
    )
    ax.plot(first["normal"], first["normal"], color="0.4", lw=0.8, zorder=1)
    for name, part in rows.groupby("estimator", sort=False):
        p_value = part["p_value"].iloc[0]
        shown = f"= {p_value:.2f}" if p_value >= 0.001 else "< 0.001"
        ax.plot(
            part["normal"],
            part["z"],
            ls="",
            marker=marker(str(name)),
            ms=4.5 if name == "ZGR" else 3.5,
            mew=0,
            color=color(str(name)),
            label=f"{label(str(name))}: KS p {shown}",
        )
    ax.set_yscale("symlog", linthresh=3, linscale=1.6)
    ax.set_yticks([-100, -10, -3, -1, 0, 1, 3, 10, 100])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.minorticks_off()
    ax.set_xlabel("what N(0, 1) would give")
    ax.set_ylabel("z of the mean (linear within ±3)")
    ax.set_title(f"mean of {int(rows['draws'].iloc[0]):,} draws on each", fontsize=8)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.42, -0.17), ncols=2, fontsize=6.5, columnspacing=0.8
    )
