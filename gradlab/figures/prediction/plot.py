"""How well each criterion predicts the loss reached, over the moments and over the tasks."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import spread
from gradlab.plots.names import label
from gradlab.plots.panels import WIDTHS
from gradlab.plots.style import styled

__all__ = [
    "SHIPPED",
    "USED_BEFORE",
    "VIEWS",
    "finding",
    "median_over_tasks",
    "plot",
    "plot_all",
    "plot_column",
]

SHIPPED = "progress of 10"
"""What `gradlab.recommend` ranks by, with its default of averaged gradients."""

USED_BEFORE = "error of 1"

_MOMENTS = {
    "start": "start",
    "early": "5 %",
    "quarter": "15 %",
    "middle": "30 %",
    "later": "60 %",
    "late": "end",
    "mean": "mean",
    "harmonic mean": "harmonic\nmean",
    "weighted by loss to go": "by loss\nto go",
}
# The best five criteria in colour (Okabe & Ito), the best first; the rest grey.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B")
_GREY = "#AAAAAA"


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: three criteria over the moments of training, and two over the tasks.

    Args:
        rows: what `rows` of this figure returns.

    Returns:
        Two panels.
    """
    found = _found(rows)
    with styled():
        figure = Figure(figsize=(WIDTHS["page"], 3.1))
        left, right = figure.subplots(1, 2)
        _draw_three(left, found)
        _draw_tasks(right, found)
        figure.suptitle(finding(found), fontsize=8)
    return figure


def plot_column(rows: pd.DataFrame) -> Figure:
    """Return the tasks alone, in the width of a column."""
    found = _found(rows)
    with styled():
        figure = Figure(figsize=(WIDTHS["column"], 2.9))
        _draw_tasks(figure.subplots(), found)
        figure.suptitle(finding(found).replace(" (ρ", "\n(ρ").replace("), ", "),\n"), fontsize=8)
    return figure


def finding(found: pd.DataFrame) -> str:
    """Return what the correlations say, as the title of a picture.

    Args:
        found: Rows of correlations with their `name`.

    Returns:
        One line.
    """
    rho = found[found["moment"] == "mean"].groupby("name")["rho"].median()
    return (
        f"Progress of 10 gradients predicts the loss reached (ρ {rho[SHIPPED]:.2f}, median of "
        f"{found['task'].nunique()} tasks), the error of one does not ({rho[USED_BEFORE]:.2f})"
    )


def _found(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the correlations with the loss after equal steps, each with the name of what it is."""
    found = rows[(rows["kind"] == "correlation") & (rows["per"] == "draw")]
    found = found[(found["outcome"] == "steps") & (found["gradient"] == "estimated")]
    return found.assign(name=_names(found))


def _draw_three(ax: Axes, found: pd.DataFrame) -> None:
    """Draw the median over tasks of three criteria through the training."""
    table = median_over_tasks(found)
    moments = [moment for moment in list(_MOMENTS)[:6] if moment in table]
    at = np.arange(len(moments))
    ends = {}
    for name, shade, marker in (
        (SHIPPED, _COLORS[0], "o"),
        ("cosine", _COLORS[2], "^"),
        (USED_BEFORE, _COLORS[1], "s"),
    ):
        if name in table.index:
            values = table.loc[name, moments].to_numpy(float)
            ax.plot(at, values, marker=marker, color=shade)
            ends[name] = (float(values[-1]), shade)
    order = sorted(ends, key=lambda name: ends[name][0])
    places = spread(np.array([ends[name][0] for name in order]), 0.09, 0.0, 1.0)
    for name, place in zip(order, places, strict=True):
        ax.annotate(name, (at[-1] + 0.25, place), color=ends[name][1], va="center", fontsize=7.5)
    ax.set_xlim(-0.3, at[-1] + 2.2)
    ax.set_ylim(min(-0.05, float(table[moments].min().min()) - 0.05), 1.03)
    ax.set_xticks(at, [_MOMENTS[moment] for moment in moments])
    ax.set_xlabel("moment of the reference run")
    ax.set_ylabel("correlation, median over tasks")
    ax.axhline(0, color="#666666", lw=0.6)


def plot_all(rows: pd.DataFrame) -> Figure:
    """Return the figure: criteria over moments, tasks, and one task's estimators as an example.

    Args:
        rows: what `rows` of this figure returns.

    Returns:
        Three panels.
    """
    found = _found(rows)
    with styled():
        figure = Figure(figsize=(13, 4.2))
        axes = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        _draw_moments(axes[0], found)
        _draw_tasks(axes[1], found)
        _draw_example(axes[2], rows)
        tasks, seeds = found["task"].nunique(), int(found["seeds"].max())
        figure.suptitle(
            f"Spearman's correlation of a criterion with the training loss after equal steps: "
            f"{tasks} tasks, {found['estimators'].max():.0f} estimators at the best of their "
            f"learning rates, {seeds} seeds",
            fontsize=9,
        )
    return figure


VIEWS = {"all": plot_all, "column": plot_column}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def median_over_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the median of `rho` over tasks: one row per criterion, one column per moment.

    Args:
        rows: rows of kind "correlation" of one outcome and gradient, with a column `name`.

    Returns:
        The table; the criterion with the best mean over the moments first.
    """
    moments = [moment for moment in _MOMENTS if moment in set(rows["moment"])]
    table = rows.pivot_table(index="name", columns="moment", values="rho", aggfunc="median")
    table = table.reindex(columns=moments)
    return table.loc[table.mean(axis=1).sort_values(ascending=False).index]


def _names(rows: pd.DataFrame) -> list[str]:
    return [
        name if pd.isna(averaged) else f"{name} of {averaged:.0f}"
        for name, averaged in zip(rows["criterion"], rows["averaged"], strict=True)
    ]


def _draw_moments(ax: Axes, found: pd.DataFrame) -> None:
    """Draw the median over tasks of each criterion over the moments, the best five in colour."""
    table = median_over_tasks(found)
    single = sum(moment not in list(_MOMENTS)[6:] for moment in table)
    x = np.arange(len(table.columns), dtype=float)
    x[single:] = single + 0.2 + 1.3 * np.arange(len(x) - single)
    colors = dict(zip(table.index, _COLORS, strict=False))
    for name in table.index[::-1]:
        shade, values = colors.get(name, _GREY), table.loc[name].to_numpy(float)
        width = 1.6 if name in colors else 0.8
        ax.plot(x[:single], values[:single], color=shade, lw=width, marker=".")
        ax.plot(x[single:], values[single:], color=shade, lw=0, marker="o", ms=4)
    ends = table.apply(lambda row: row.dropna().iloc[-1], axis=1)
    ends = ends.sort_values()
    low, high = float(np.nanmin(table)), max(1.0, float(np.nanmax(table)))
    places = spread(ends.to_numpy(float), 0.062 * (high - low), low, high)
    for name, place in zip(ends.index, places, strict=True):
        shade = colors.get(name, "#777777")
        ax.annotate(name, (x[-1] + 0.3, place), color=shade, va="center", fontsize=7)
    ax.set_xlim(-0.3, x[-1] + 3.4)
    ax.set_ylim(low - 0.05, high + 0.03)
    ax.set_xticks(x, [_MOMENTS[moment] for moment in table], fontsize=6.5)
    ax.set_ylabel("correlation, median over tasks")
    ax.set_xlabel("moment of the reference run, or what is made of all of them")
    ax.axhline(0, color="#666666", lw=0.6)


def _draw_tasks(ax: Axes, found: pd.DataFrame) -> None:
    """Draw progress and the error of one gradient for each task, means over the run."""
    means = found[found["moment"] == "mean"]
    tasks = list(dict.fromkeys(means["task"]))[::-1]
    for name, shade, marker, off in (
        (SHIPPED, _COLORS[0], "o", 0.12),
        (USED_BEFORE, _COLORS[1], "s", -0.12),
    ):
        part = means[means["name"] == name].set_index("task").reindex(tasks)
        y = np.arange(len(tasks)) + off
        ax.hlines(y, part["low"], part["high"], color=shade, lw=1)
        ax.plot(part["rho"], y, marker, color=shade)
        ax.annotate(
            name, (part["rho"].iloc[-1], y[-1]), (0, 9 if off > 0 else -10), color=shade,
            textcoords="offset points", ha="center", va="center", fontsize=7,
        )  # fmt: skip
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(-0.6, len(tasks) - 0.3)
    shown = means[means["name"].isin([SHIPPED, USED_BEFORE])]
    ax.set_xlim(min(-0.1, float(shown["low"].min()) - 0.05), 1.06)
    ax.axvline(0, color="#666666", lw=0.6)
    ax.set_xlabel("correlation ± 95 % over seeds")


def _draw_example(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the loss of each estimator over its progress on the first task, the best five named."""
    losses, criteria = rows[rows["kind"] == "loss"], rows[rows["kind"] == "criterion"]
    task = losses["task"].iloc[0]
    losses = losses[losses["task"] == task]
    reached = losses.groupby(["estimator", "lr"])["loss_steps"].mean().groupby("estimator").min()
    reached = reached[np.isfinite(reached)].sort_values()
    criteria = criteria[(criteria["task"] == task) & (criteria["gradient"] == "estimated")]
    progress = criteria.groupby("estimator")["progress 100"].mean()[reached.index]
    places = spread(
        reached.to_numpy(float), 0.038 * float(np.ptp(reached)), reached.min(), reached.max()
    )
    right = float(progress.max())
    colors = dict(zip(reached.index, _COLORS, strict=False))
    for name, place in zip(reached.index, places, strict=True):
        shade = colors.get(name, "#777777")
        ax.plot(progress[name], reached[name], "o", color=colors.get(name, _GREY))
        ax.plot(
            [progress[name], right + 0.06], [reached[name], place], color=shade, lw=0.4, alpha=0.6
        )
        ax.annotate(label(name), (right + 0.07, place), color=shade, va="center", fontsize=6.5)
    ax.set_xlim(min(0.0, float(progress.min())) - 0.03, right + 0.62)
    apart = 0.5 if np.ptp(progress) > 1 else 0.25
    ax.set_xticks([t for t in np.arange(-1, 1.01, apart) if progress.min() - 0.1 < t <= 1])
    ax.set_xlabel("progress of 100, mean over moments")
    ax.set_ylabel("training loss reached")
    ax.set_title(task)
