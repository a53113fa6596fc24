"""All estimators in the order of their progress at equal cost, the ten best of each problem named.

The other view is the plane of squared bias and variance.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.figures.zoo.plane import plane
from gradlab.plots.axes import logarithmic
from gradlab.plots.names import problem_title, short
from gradlab.plots.panels import WIDTHS
from gradlab.plots.style import family_color, family_entries, family_marker, styled

__all__ = ["VIEWS", "draw_ranks", "plot"]

VIEWS = {"plane": plane}
"""Further pictures of the same rows, by what is added to the name of the figure."""

NAMED = 10
# Losses below this are drawn at it.
_LEAST = 1e-4
# The distance of two places after the named ones, in those of the named ones.
_CLOSE = 0.45


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: a panel for each problem, its estimators from most to least progress."""
    names = list(rows["problem"].unique())
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 0.9 + 3.9 * ((len(names) + 1) // 2)))
        axes = figure.subplots((len(names) + 1) // 2, min(2, len(names)), squeeze=False)
        for ax, name in zip(axes.flat, names, strict=False):
            draw_ranks(ax, rows[rows["problem"] == name])
            ax.set_title(problem_title(name).replace("\n", " "))
        for ax in axes.flat[len(names) :]:
            ax.remove()
        for ax in axes[-1]:
            ax.set_xlabel("1 - progress")
        for ax in axes[:, 0]:
            ax.set_ylabel("rank; most progress on top")
        figure.legend(handles=_key(rows), loc="outside lower center", ncols=3)
        first = rows.iloc[0]
        figure.suptitle(
            f"Progress of {first['averaged']:g} averaged gradients, each of {first['budget']:g} "
            "evaluations of f (3 for f with its gradient), at the best temperature",
            fontsize=8,
        )
    return figure


def draw_ranks(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw what the estimators of one problem lose of the progress of the true gradient.

    Each series is at the temperature with the most progress less two standard errors, and so are
    they ordered. Bars are +-2 standard errors.
    """
    rows = rows[rows["reason"].isna()].dropna(subset="progress")
    rows = rows.assign(sure=rows["progress"] - 2 * rows["progress_se"])
    best = rows.loc[rows.groupby(["series", "fits"], sort=False)["sure"].idxmax()]
    best = best.sort_values("sure", ascending=False, kind="stable").reset_index(drop=True)
    rank = np.arange(len(best))
    place = np.where(rank < NAMED, rank, NAMED + _CLOSE * (rank - NAMED))
    lost, error = 1 - best["progress"], 2 * best["progress_se"]
    logarithmic(ax, "x", (_LEAST / 1.3, 3.0))
    for at, row, x, se in zip(place, best.itertuples(), lost, error, strict=True):
        shade = family_color(str(row.family))
        face = shade if row.declared_unbiased else "white"
        dot: dict[str, Any] = {"marker": family_marker(str(row.family)), "mec": shade, "mfc": face}
        x = min(max(x, _LEAST), 2.0)
        ax.plot(x, at, ms=5 if at < NAMED else 3.5, zorder=3, **dot)
        if se > 0:
            ends = np.clip([x - se, x + se], _LEAST, 2.0)
            ax.hlines(at, *ends, color=shade, lw=0.8, zorder=2)
        if at < NAMED:
            end = min(x + se, 2.0) if se > 0 else x
            name = short(str(row.estimator), fitted=row.fits > 0)
            beside: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points"}
            ax.annotate(name, (end, at), va="center", color=shade, fontsize=7.5, **beside)
    ax.vlines(1.0, NAMED - 0.5, place[-1] + 0.7, color="0.6", lw=0.8, ls=":", zorder=1)
    ax.set_ylim(place[-1] + 0.7, -0.7)
    ticks = [1, NAMED, *range(20, len(best) + 1, 10)]
    ax.set_yticks([float(place[t - 1]) for t in ticks if t <= len(best)], [*map(str, ticks)])
    ax.grid(False, axis="y")


def _key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries: families, then what hollow points and lines are."""
    grey: dict[str, Any] = {"color": "0.35", "ls": ""}
    return [
        *family_entries(rows["family"]),
        Line2D([], [], marker="o", label="filled: unbiased here", **grey),
        Line2D([], [], marker="o", mfc="white", label="hollow: biased", **grey),
        Line2D([], [], color="0.6", lw=0.8, ls=":", label="no progress"),
        Line2D([], [], color="0.35", lw=0.8, label="± 2 s.e.; others exact"),
    ]
