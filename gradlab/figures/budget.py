"""The error that is left after a number of evaluations of f, and the progress that is made.

Root mean squared error and progress of the average of n draws, n = evaluations / cost of a draw,
where f with its gradient counts as 3. The error of an unbiased estimator goes down without end.
That of a biased one comes to rest at its bias, and its progress at the square of its cosine. Where
the lines cross says which of them a budget is better spent on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label, problem_title
from gradlab.plots.style import color, styled

if TYPE_CHECKING:
    from torch import Tensor

    from gradlab.problems import Problem

__all__ = ["crossing", "plot", "rows"]

LINES = {
    "ST": "-",
    "ZGR": "-",
    "GS-ST(tau=0.5)": "-",
    "GR(tau=1, k=10)": "-",
    "GR(tau=0.1, k=10)": ":",
    "RF(m=4)": "-",
    "RF(m=2)": "--",
    "REINFORCE(baseline=0)": "-.",
    "ARSM": "-",
}
COLUMNS = [
    *("problem", "N", "C", "logits_seed", "estimator", "series", "tau", "calls", "cost", "seed"),
    *("method", "draws", "truth2", "bias2", "variance", "variance_se"),
]
_DIRECTION = ["cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se"]


def rows(
    seed: int = 0,
    *,
    draws: int = 4096,
    estimators: Sequence[str] = tuple(LINES),
    points: int = 25,
    largest: float = 1e4,
) -> pd.DataFrame:
    """Return `points` of the curve of each estimator against evaluations of f, on four problems.

    The moments of one draw are exact, those of ARSM come from `draws`; the bias of estimators that
    are unbiased for every f is 0, and their cosine 1. `crossing` is from where on RF(4) has a
    smaller error than ZGR on this problem.
    """
    from gradlab.comparison.comparing import compare, reproducible_columns
    from gradlab.comparison.ranking import progress_at
    from gradlab.estimators import parse

    tables = []
    for f, logits in _problems(seed):
        table = compare(f, logits, estimators, None, draws, seed, logits_seed=seed)
        table = reproducible_columns(table)[COLUMNS + _DIRECTION]
        unbiased = [parse(text).order == np.inf for text in table["estimator"]]
        table["bias2"] = table["bias2"].mask(unbiased, 0.0)
        table["cosine"] = table["cosine"].mask(unbiased, 1.0)
        table["cosine_se"] = table["cosine_se"].mask(unbiased, 0.0)
        table["crossing"] = crossing(table.set_index("estimator"))
        for _, row in table.iterrows():
            spent = np.geomspace(row["cost"], largest, points)
            n = spent / row["cost"]
            part = pd.DataFrame([row] * points)
            progress, progress_se = progress_at(part, n)
            curve = {
                "evaluations": spent,
                "mse": row["bias2"] + row["variance"] / n,
                "mse_se": row["variance_se"] / n,
                "progress": progress,
                "progress_se": progress_se,
            }
            tables.append(part.assign(**curve))
    return pd.concat(tables, ignore_index=True).drop(columns=_DIRECTION)


def crossing(moments: pd.DataFrame) -> float:
    """Return from how many evaluations on RF(m=4) has a smaller error than ZGR.

    At least those of its first draw; NaN where ZGR has no bias. `moments` has a row for each of the
    two, by its text.
    """
    b, u = moments.loc["ZGR"], moments.loc["RF(m=4)"]
    if b["bias2"] < 1e-20 * b["truth2"]:
        return np.nan
    at = (u["cost"] * u["variance"] - b["cost"] * b["variance"]) / b["bias2"]
    return float(max(at, u["cost"]))


def _problems(seed: int) -> "list[tuple[Problem, Tensor]]":
    from gradlab.problems import TinyVAE, problem, regime

    logits = regime("moderate", 4, 4, seed)
    vae = TinyVAE("some", image=seed % 300)
    synthetic = [(problem(name, 4, 4, seed), logits) for name in ("quadratic", "cubic", "mlp")]
    return [*synthetic, (vae, vae.logits)]


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: error and progress on each problem, with the crossing of ZGR and RF(4)."""
    with styled():
        names = list(rows["problem"].unique())
        figure = Figure(figsize=(8.2, 5.4))
        axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for (above, below), name in zip(axes.T, names, strict=True):
            part = rows[rows["problem"] == name]
            _errors(above, part)
            _progress(below, part)
            above.set_title(problem_title(name))
        axes[0, 0].set_ylabel("RMSE of the average / |g|")
        axes[1, 0].set_ylabel("progress of the average")
        entries = []
        for name, part in rows.groupby("estimator", sort=False):
            measured = part["method"].iloc[0] == "monte carlo"
            text = label(str(name)) + (": Monte Carlo ± 2 s.e." if measured else "")
            shade, line = color(part["series"].iloc[0]), LINES.get(str(name), "-")
            entries.append(Line2D([], [], color=shade, ls=line, label=text))
        entries.append(Line2D([], [], ls="", label="(all others exact)"))
        figure.legend(handles=entries, loc="outside lower center", ncols=5)
    return figure


def _errors(ax: Axes, rows: pd.DataFrame) -> None:
    for name, part in rows.groupby("estimator", sort=False):
        spent, shade = part["evaluations"], color(part["series"].iloc[0])
        square, error = part["mse"] / part["truth2"], part["mse_se"] / part["truth2"]
        ax.plot(spent, square**0.5, LINES.get(str(name), "-"), color=shade)
        low, high = ((square + side * error).clip(lower=0) ** 0.5 for side in (-2, 2))
        ax.fill_between(spent, low, high, color=shade, alpha=0.3, lw=0)
    logarithmic(ax)
    ax.set(xlim=(1, rows["evaluations"].max()), ylim=(0.01, 30))
    _mark_crossing(ax, rows[rows["estimator"] == "ZGR"].iloc[0])


def _progress(ax: Axes, rows: pd.DataFrame) -> None:
    for name, part in rows.groupby("estimator", sort=False):
        spent, shade = part["evaluations"], color(part["series"].iloc[0])
        value, error = part["progress"], part["progress_se"]
        ax.plot(spent, value, LINES.get(str(name), "-"), color=shade)
        ax.fill_between(spent, value - 2 * error, value + 2 * error, color=shade, alpha=0.3, lw=0)
    ax.set(ylim=(0, 1.02))
    ax.set_xlabel("evaluations of f (3 for f with ∇f)", fontsize=7.5)


def _mark_crossing(ax: Axes, zgr: pd.Series) -> None:
    """Ring the point where RF(4) overtakes ZGR, or say why there is none."""
    at = zgr["crossing"]
    if np.isnan(at):
        text = "ZGR is unbiased here"
    elif at <= 4:
        text = "RF(4) ahead of ZGR from the start"
    else:
        text = f"○ RF(4) overtakes ZGR at {at:,.0f}"
        height = ((zgr["bias2"] + zgr["variance"] * zgr["cost"] / at) / zgr["truth2"]) ** 0.5
        ax.plot(at, height, "o", mfc="none", mec="k", ms=8, mew=1, zorder=5)
    ax.text(0.03, 0.03, text, transform=ax.transAxes, fontsize=7.5, color="0.15")
