"""Bias, standard deviation and RMSE of one draw against temperature, on four problems.

Lines are exact, points are Monte Carlo estimates from draws, both against the exact gradient by
enumeration: of Gumbel-softmax (GS), its straight-through form (GS-ST) and Gumbel-Rao (GR) with 10,
100 and infinitely many inner samples, beside the estimators without a temperature (ZGR, ST, DARN,
RF). All values are relative to the length of the true gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from gradlab.comparison.comparing import compare
from gradlab.estimators import parse
from gradlab.exact.moments import Enumeration
from gradlab.plots.curves import (
    ROUNDING,
    draw_measured,
    key,
    name_zeros,
    problem_title,
    roots,
    series_handle,
)
from gradlab.plots.style import color, styled
from gradlab.problems import Problem, TinyVAE, problem, regime
from gradlab.reproducible import single_thread

__all__ = ["plot", "problems", "rows"]

# Draws of a Monte Carlo point: fewer where a draw costs more.
DRAWS = {
    "GS": 8192,
    "GS-ST": 8192,
    "GR(k=10)": 4096,
    "GR(k=100)": 1024,
    "GR(k=inf)": 4096,
    "ZGR": 8192,
    "ST": 8192,
    "DARN": 8192,
    "RF(m=4)": 8192,
}
TEMPERATURES = tuple(np.geomspace(0.01, 10, 13).tolist())
# Where estimators without a temperature have their points, right of all temperatures.
NO_TAU = 14.0
SMALLEST_BIAS = 7e-4
# Lines are drawn through this many exact values from one temperature of the points to the next.
REFINED = 2

PANELS = {"bias2": "bias", "variance": "standard deviation", "mse": "RMSE"}
COLUMNS = [
    *("problem", "N", "C", "logits_seed", "estimator", "series", "tau", "calls", "seed", "method"),
    *("draws", "truth2", "bias2", "bias2_se", "variance", "variance_se", "mse", "mse_se"),
    *("effective_draws", "version", "dtype"),
]


@single_thread()
def rows(
    seed: int = 0,
    *,
    draws: Mapping[str, int] = DRAWS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> pd.DataFrame:
    """Return exact rows on a fine grid of temperatures and Monte Carlo rows at `temperatures`.

    `draws` holds the number of draws of each series. The seed chooses problems, logits and draws.
    """
    log_tau = np.log(temperatures)
    steps = np.arange(REFINED * (len(log_tau) - 1) + 1) / REFINED
    fine = np.exp(np.interp(steps, np.arange(len(log_tau)), log_tau))
    exact = [series for series in draws if series != "GS"]
    tempered = [series for series in exact if hasattr(parse(series), "tau")]
    free = [series for series in exact if series not in tempered]
    tables = []
    for f, logits in problems(seed):
        given: dict[str, Any] = {"seed": seed, "logits_seed": seed}
        given["enumeration"] = Enumeration(f, logits)
        # One temperature after the other: its table serves all series.
        for tau in fine.tolist():
            tables.append(compare(f, logits, tempered, [tau], method="exact", **given))
        if free:
            tables.append(compare(f, logits, free, method="exact", **given))
        for series, n in draws.items():
            # One evaluation of the decoder of 784 pixels costs as much as many of the others.
            n = n // 2 if isinstance(f, TinyVAE) else n
            tables.append(
                compare(f, logits, [series], temperatures, n, method="monte-carlo", **given)
            )
    return pd.DataFrame(
        [row for table in tables for row in table.to_dict("records")], columns=COLUMNS
    )


def problems(seed: int) -> list[tuple[Problem, Tensor]]:
    """Return the four problems with 4 variables of 4 classes, and the logits of each."""
    logits = regime("moderate", 4, 4, seed)
    # Image 0 is unlike most: there every straight-through estimator errs by about |g|.
    vae = TinyVAE("some", image=(seed + 1) % 300)
    synthetic = [(problem(name, 4, 4, seed), logits) for name in ("quadratic", "cubic", "mlp")]
    return [*synthetic, (vae, vae.logits)]


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
