"""The bias of every estimator on a hundred random quadratics, exact and as draws show it.

On the left the exact relative bias: ZGR stays at rounding on every problem, those that are not
exact for quadratics do not, RF and REINFORCE are unbiased for any loss. On the right the same claim
from Monte Carlo alone: standardized errors of the mean of many draws, one a problem, against the
standard normal distribution that they follow if, and only if, there is no bias.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor

from gradlab.comparison.comparing import compare, reproducible_columns
from gradlab.estimators import parse
from gradlab.exact.moments import Enumeration
from gradlab.plots.axes import COLUMNS
from gradlab.problems import Problem, problem, regime
from gradlab.reproducible import block_generator, single_thread

__all__ = ["rows"]

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
            enumeration,
            estimators=estimators,
            seed=seed,
            method="exact",
            logits_seed=number,
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
    low, high = (
        scipy.stats.norm.ppf(scipy.stats.beta.ppf(q, rank, count + 1 - rank))
        for q in (0.025, 0.975)
    )
    p_value = float(scipy.stats.kstest(part["z"], "norm").pvalue)
    return part.assign(
        normal=scipy.stats.norm.ppf((rank - 0.5) / count), low=low, high=high, p_value=p_value
    )
