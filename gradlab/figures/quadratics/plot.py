"""Exact relative biases beside the standardized errors that draws show."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gradlab.plots.axes import on_axis, relative, split_axes
from gradlab.plots.names import label
from gradlab.plots.style import color, marker, styled

__all__ = ["plot"]


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: exact relative biases on the left, scores of draws on the right."""
    with styled():
        figure = Figure(figsize=(10, 3.7))
        left, right = figure.subfigures(1, 2, width_ratios=[1.45, 1], squeeze=False)[0]
        _draw_biases(left, rows[rows["method"] == "exact"])
        _draw_scores(right.subplots(), rows[rows["method"] == "monte carlo"])
    return figure


def _draw_biases(figure: SubFigure, rows: pd.DataFrame) -> None:
    errors, rounding = split_axes(figure, "x")
    names = list(rows["estimator"].unique())
    for place, name in enumerate(names):
        part = rows[rows["estimator"] == name]
        bias = relative(part, "bias2")
        # Golden-ratio steps spread the points evenly, without random numbers.
        spread = place + 0.5 * ((np.arange(len(part)) * 0.618034) % 1 - 0.5)
        shade, middle = color(part["series"].iloc[0]), on_axis(bias).median()
        for ax in (errors, rounding):
            ax.scatter(on_axis(bias), spread, s=8, alpha=0.6, lw=0, color=shade, zorder=3)
            ax.vlines(middle, place - 0.4, place + 0.4, lw=1.6, color=shade, zorder=3)
        shown = "unbiased" if bias.max() == 0 else f"{bias.median():.2g}"
        beside = errors.get_yaxis_transform()
        errors.text(0.99, place, shown, transform=beside, ha="right", va="center")
    rounding.set_yticks(range(len(names)), [label(name) for name in names])
    rounding.set_ylim(len(names) - 0.4, -0.6)
    for ax in (errors, rounding):
        ax.grid(axis="y", visible=False)
    count = rows["problem"].nunique()
    errors.set_xlabel("relative bias |E ĝ − g| / |g|, exact (bar, number: median)")
    rounding.set_xlabel("rounding")
    errors.set_title(f"{count} random quadratics, N = 1–4, C = 2–4")


def _draw_scores(ax: Axes, rows: pd.DataFrame) -> None:
    first = rows[rows["estimator"] == rows["estimator"].iloc[0]]
    ax.fill_between(
        first["normal"], first["low"], first["high"], color="0.87", lw=0, label="N(0, 1), 95 %"
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
    ax.set_xlabel("quantile of N(0, 1)")
    ax.set_ylabel("z of the mean of the draws (linear within ±3)")
    ax.set_title(f"Monte Carlo: mean of {int(rows['draws'].iloc[0]):,} draws on each")
    ax.legend(loc="lower right")
