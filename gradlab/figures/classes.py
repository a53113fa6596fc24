"""Bias and standard deviation against the number of classes and of variables, exact.

One variable of 2 to 64 classes, then 1 to 10 variables of two classes: a random quadratic, on which
ZGR has no bias at any size, and a random network with a fixed number of tanh units, whose curvature
along each variable fades as more variables feed it. Coefficients are scaled so that a variable
matters as much at any size. GS-ST and GR have the same bias, on quadratics also ST and DARN.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import (
    COLUMNS,
    draw_median,
    handle,
    logarithmic,
    relative,
)
from gradlab.plots.names import label
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import styled

__all__ = ["plot", "rows"]

PROBLEMS = ("quadratic", "mlp")
ESTIMATORS = (
    "ST",
    "DARN",
    "ZGR",
    "GS-ST(tau=0.5)",
    "GR(tau=0.5, k=inf)",
    "RF(m=4)",
    "REINFORCE",
)
SIZES = [(1, classes) for classes in (2, 4, 8, 16, 32, 64)]
SIZES += [(variables, 2) for variables in (2, 4, 7, 10)]
# The exact tables of the Gumbel family take long beyond so many classes: fewer problems there.
MANY_CLASSES, FEW = 16, 3

KIND = {"quadratic": "quadratic", "mlp": "MLP, 16 tanh units"}


def rows(
    seed: int = 0,
    *,
    seeds: int = 9,
    sizes: Sequence[tuple[int, int]] = SIZES,
    problems: Sequence[str] = PROBLEMS,
    estimators: Sequence[str] = ESTIMATORS,
) -> pd.DataFrame:
    """Return exact rows of `seeds` random problems of each kind at each size (N, C)."""
    from gradlab.comparison.comparing import compare, reproducible_columns
    from gradlab.problems import problem, regime

    tables = []
    for size in sizes:
        for number in range(min(seeds, FEW) if size[1] > MANY_CLASSES else seeds):
            number += seeds * seed
            logits = regime("moderate", *size, number)
            for name in problems:
                f = problem(name, *size, number)
                table = compare(
                    f, logits, estimators, method="exact", seed=seed, logits_seed=number
                )
                tables.append(reproducible_columns(table)[COLUMNS].assign(kind=name))
    return pd.concat(tables, ignore_index=True)


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: medians over the problems of a size, with the 15 to 85 % range."""
    with styled():
        kinds = list(rows["kind"].unique())
        figure = Figure(figsize=(8.2, 4.8))
        axes = figure.subplots(2, 2 * len(kinds), sharey="row")
        for place, kind in enumerate(kinds):
            part = rows[rows["kind"] == kind]
            for column, size in ((2 * place, "C"), (2 * place + 1, "N")):
                of_size = part[part["N" if size == "C" else "C"] == (1 if size == "C" else 2)]
                _panel(axes[0, column], of_size, size, "bias2")
                _panel(axes[1, column], of_size, size, "variance")
            axes[0, 2 * place].set_title(f"{KIND.get(kind, kind)}\nN = 1")
            axes[0, 2 * place + 1].set_title(f"{KIND.get(kind, kind)}\nC = 2")
        axes[0, 0].set_ylabel("relative bias |E ĝ − g| / |g|")
        axes[1, 0].set_ylabel("relative standard deviation")
        first = rows.drop_duplicates("estimator").set_index("estimator")["series"]
        entries = [handle(series, label(str(name))) for name, series in first.items()]
        figure.legend(handles=entries, loc="outside lower center", ncols=7)
        count = rows.groupby(["C", "kind", "N"])["logits_seed"].nunique()
        few = f" ({count.min()} beyond C = {MANY_CLASSES})" if count.min() < count.max() else ""
        text = f"exact: median and 15–85 % range of {count.max()} random problems per size{few}"
        figure.suptitle(text, fontsize=9)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, size: str, quantity: str) -> None:
    logarithmic(ax, "y", (0.02, 10) if quantity == "bias2" else (0.05, 30))
    names = list(rows["estimator"].unique())
    zeros = []
    for place, name in enumerate(names):
        part = rows[rows["estimator"] == name]
        values = relative(part, quantity)
        if values.max() < ROUNDING:
            zeros.append(label(name))
            continue
        factor = 1.05 ** (place - (len(names) - 1) / 2)
        draw_median([ax], size, values, part, part["series"].iloc[0], factor=factor)
    ax.set_xscale("log", base=2)
    ax.xaxis.minorticks_off()
    ticks = sorted(rows[size].unique())
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_xlabel("classes C" if size == "C" else "variables N")
    if zeros:
        text = f"no bias: {', '.join(zeros)}"
        ax.text(0.03, 0.03, text, transform=ax.transAxes, fontsize=7, color="0.25")
