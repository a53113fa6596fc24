"""The bias of every estimator on a hundred random quadratics, exact and as draws show it.

On the left the exact relative bias: ZGR stays at rounding on every problem, those that are not
exact for quadratics do not, RF and REINFORCE are unbiased for any loss. On the right the same claim
from Monte Carlo alone: standardized errors of the mean of many draws, one a problem, against the
standard normal distribution that they follow if, and only if, there is no bias.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy.stats import beta, kstest, norm
from torch import Tensor

from gradlab.comparison.comparing import compare, reproducible_columns
from gradlab.estimators import parse
from gradlab.exact.moments import Enumeration
from gradlab.plots.axes import COLUMNS, label, on_axis, relative, split_axes
from gradlab.plots.style import color, marker, styled
from gradlab.problems import Problem, problem, regime
from gradlab.reproducible import block_generator, single_thread

__all__ = ["plot", "rows"]

ESTIMATORS = (
    "ST",
    "DARN",
    "ST-ZGR(alpha=0.5)",
    "GS-ST(tau=0.5)",
    "GR(tau=0.5, k=inf)",
    "ZGR",
    "RF(m=4)",
    "REINFORCE",
)
SAMPLED = ("ZGR", "RF(m=4)", "ST", "DARN")
SIZES = [(variables, classes) for variables in range(1, 5) for classes in range(2, 5)]


def rows(
    seed: int = 0,
    *,
    problems: int = 100,
    draws: int = 8192,
    estimators: Sequence[str] = ESTIMATORS,
    sampled: Sequence[str] = SAMPLED,
) -> pd.DataFrame:
    """Return exact rows of `estimators` and rows of scores z of `sampled`, one a problem.

    z = u . (mean of the draws - g) / its standard error, along a random direction u fixed before.
    `normal` is the quantile of N(0, 1) at the rank of z, `low` and `high` the 95 % range of a z of
    this rank were all of them N(0, 1), and `p_value` that of the Kolmogorov-Smirnov test for it.
    """
    exact, scores = [], []
    for index in range(problems):
        number = problems * seed + index
        size = SIZES[index % len(SIZES)]
        f, logits = problem("quadratic", *size, number), regime("moderate", *size, number)
        enumeration = Enumeration(f, logits)
        table = compare(
            f,
            logits,
            estimators,
            seed=seed,
            method="exact",
            logits_seed=number,
            enumeration=enumeration,
        )
        exact.append(reproducible_columns(table)[COLUMNS])
        truth = enumeration.values.gradient
        shared = {
            "problem": f.name,
            "N": size[0],
            "C": size[1],
            "logits_seed": number,
            "seed": seed,
        }
        for text in sampled:
            z = _score(text, f, logits, truth, draws, seed)
            row = {"estimator": text, "series": text, "method": "monte carlo", "draws": draws}
            scores.append(shared | row | {"z": z})
    ranked = [_ranked(part) for _, part in pd.DataFrame(scores).groupby("estimator", sort=False)]
    return pd.concat([*exact, *ranked], ignore_index=True)


@single_thread()
def _score(text: str, f: Problem, logits: Tensor, truth: Tensor, draws: int, seed: int) -> float:
    direction = torch.randn(
        truth.shape, generator=block_generator(seed, f"{f.name}|direction"), dtype=torch.float64
    )
    generator = block_generator(seed, f"{f.name}|{text}|z")
    error = ((parse(text).draw(f, logits, draws, generator) - truth) * direction).sum((-2, -1))
    return float(error.mean() / error.std() * draws**0.5)


def _ranked(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one estimator in the order of z, with what N(0, 1) expects."""
    part = part.sort_values("z")
    count = len(part)
    rank = np.arange(1, count + 1)
    low, high = (norm.ppf(beta.ppf(q, rank, count + 1 - rank)) for q in (0.025, 0.975))
    p_value = float(kstest(part["z"], "norm").pvalue)
    return part.assign(normal=norm.ppf((rank - 0.5) / count), low=low, high=high, p_value=p_value)


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
