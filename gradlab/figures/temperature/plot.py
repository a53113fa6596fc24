"""Exact lines and Monte Carlo points of bias, standard deviation and RMSE against temperature."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gradlab.plots.curves import draw_measured, key, name_zeros, roots, series_handle
from gradlab.plots.names import problem_title
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import color, styled

__all__ = ["plot"]

# Where estimators without a temperature have their points, right of all temperatures.
NO_TAU = 14.0
SMALLEST_BIAS = 7e-4
PANELS = {"bias2": "bias", "variance": "standard deviation", "mse": "RMSE"}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: rows of panels for bias, standard deviation, RMSE; a column a problem."""
    order = [*rows.loc[rows["tau"].notna(), "series"].unique()]
    order.sort(key="GS".__ne__)
    free = [*rows.loc[rows["tau"].isna(), "series"].unique()]
    with styled():
        figure = Figure(figsize=(11, 7.6))
        names = rows["problem"].unique()
        axes = figure.subplots(len(PANELS), len(names), sharex=True, sharey="row", squeeze=False)
        for column, name in enumerate(names):
            axes[0, column].set_title(problem_title(name))
            axes[-1, column].set_xlabel("temperature τ")
            for ax, quantity in zip(axes[:, column], PANELS, strict=True):
                _panel(ax, rows[rows["problem"] == name], quantity, order, free)
        for ax, title in zip(axes[:, 0], PANELS.values(), strict=True):
            ax.set_ylabel(f"{title} / |g|")
        axes[0, 0].set_ylim(bottom=max(axes[0, 0].get_ylim()[0], SMALLEST_BIAS))
        axes[0, 0].text(
            0.03, 0.97, "GS-ST, GR: one mean, one line", transform=axes[0, 0].transAxes, va="top"
        )
        figure.legend(
            handles=[series_handle(s, ls="" if s == "GS" else "-") for s in order]
            + [series_handle(s, ls="--") for s in free]
            + key(),
            loc="outside lower center",
            ncols=5,
        )
    return figure


def _panel(
    ax: Axes, rows: pd.DataFrame, quantity: str, tempered: Sequence[str], free: Sequence[str]
) -> None:
    """Draw one quantity on one problem."""
    exact, measured = (rows[rows["method"] == m] for m in ("exact", "monte carlo"))
    zeros = []
    for place, series in enumerate([*tempered, *free]):
        line, points = (part[part["series"] == series] for part in (exact, measured))
        value = roots(line, quantity)["value"].to_numpy()
        if series in free:
            if value.max(initial=0.0) < ROUNDING:
                zeros.append(series)
            else:
                ax.axhline(value[0], color=color(series), ls="--", lw=1.1, zorder=1.5)
            x = np.array([NO_TAU * 1.3 ** (place - len(tempered))])
        else:
            ax.plot(line["tau"], value, color=color(series), zorder=2)
            x = points["tau"].to_numpy(float)
            if quantity == "bias2":
                # Equal biases: points of one temperature stand side by side.
                x = x * 1.06 ** (place - (len(tempered) - 1) / 2)
        draw_measured(ax, x, points, quantity, series, joined=series == "GS")
    if quantity == "bias2":
        name_zeros(ax, zeros)
    ax.axvspan(NO_TAU / 1.15, NO_TAU * 2.5, color="0.94", lw=0, zorder=0)
    ax.text(
        NO_TAU * 1.48, 1.0, "no τ", transform=ax.get_xaxis_transform(), va="bottom", ha="center"
    )
    ax.set(xscale="log", yscale="log", xlim=(0.0075, NO_TAU * 2.5))
    ax.set_xticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    ax.xaxis.set_minor_locator(NullLocator())
