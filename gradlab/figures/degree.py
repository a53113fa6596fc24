"""The bias of every estimator against the degree of a polynomial loss, exact.

An estimator of order k has no bias up to degree k in each variable: ST and DARN leave the floor of
rounding after degree 1, ZGR after 2, Gumbel-Rao and straight-through Gumbel-softmax (which have the
same mean) at once, RF never.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from gradlab.plots.axes import COLUMNS, draw_median, handle, relative, split_axes
from gradlab.plots.names import label
from gradlab.plots.style import styled

__all__ = ["plot", "rows"]

ESTIMATORS = (
    "GS-ST(tau=0.5)",
    "GR(tau=0.5, k=inf)",
    "GS-ST(tau=0.1)",
    "GR(tau=0.1, k=inf)",
    "ST",
    "DARN",
    "ZGR",
    "RF(m=4)",
)


def rows(
    seed: int = 0,
    *,
    seeds: int = 20,
    degrees: Sequence[int] = range(7),
    estimators: Sequence[str] = ESTIMATORS,
) -> pd.DataFrame:
    """Return exact rows of `seeds` random polynomials of each degree, 3 variables of 3 classes.

    With one seed each degree adds its terms to the polynomial of the degree below.
    """
    from gradlab.comparison.comparing import compare, reproducible_columns
    from gradlab.problems import problem, regime

    tables = []
    for number in range(seeds * seed, seeds * (seed + 1)):
        logits = regime("moderate", 3, 3, number)
        for degree in degrees:
            f = problem(f"polynomial:{degree}", 3, 3, number)
            table = compare(f, logits, estimators, method="exact", seed=seed, logits_seed=number)
            tables.append(reproducible_columns(table)[COLUMNS].assign(degree=degree))
    return pd.concat(tables, ignore_index=True)


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: median and range of the relative bias over the polynomials of a degree."""
    with styled():
        figure = Figure(figsize=(5.6, 4.2))
        axes = split_axes(figure, "y")
        # GS-ST has the mean of GR: one curve for both.
        shown = rows[rows["series"] != "GS-ST"]
        names = list(shown["estimator"].unique())
        handles = []
        for place, name in enumerate(names):
            part = shown[shown["estimator"] == name]
            # A constant has no gradient that a bias could be relative to.
            bias = relative(part, "bias2").where(part["truth2"] > 0, part["bias2"] ** 0.5)
            series, line = part["series"].iloc[0], "--" if part["tau"].iloc[0] < 0.3 else "-"
            dodge = 0.08 * (place - (len(names) - 1) / 2)
            draw_median(axes, "degree", bias, part, series, within=(0, 1), dodge=dodge, line=line)
            text = label(name).replace("GR(", "GR and GS-ST (").replace(", k=∞", "")
            handles.append(handle(series, text, line))
        errors, rounding = axes
        errors.set_ylabel("relative bias |E ĝ − g| / |g|, exact")
        rounding.set_ylabel("rounding")
        rounding.set_xlabel("degree of f in each variable")
        count = rows["logits_seed"].nunique()
        errors.set_title(f"{count} random polynomials per degree: median and range")
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
