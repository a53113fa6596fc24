"""The variance of unbiased estimators on two toy problems, against the logit of their bits.

Three bits of one shared logit with targets .6, .51 and .48 (Liu et al. 2019, 1810.04777; Kool et
al. 2020, 2002.06043) and one with target .45 (Tucker et al. 2017, 1703.07370): the derivative in
that one logit, its variance times `cost`, so that each spends one evaluation of f on average (f
with its gradient counts as 3). What a fit costs is not counted. Estimators that are unbiased on
quadratics only are dashed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import one_hot, probabilities
from gradlab.comparison.eligibility import cost, why_not
from gradlab.comparison.measuring import measure
from gradlab.estimators import RELAX, Estimator, SampledValueEstimator, SampleOnlyEstimator
from gradlab.estimators.values import joint_probabilities
from gradlab.exact.enumeration import value_moments
from gradlab.figures.zoo.rows import fitted, variants
from gradlab.loss import Loss, gradient
from gradlab.moments import Groups, Moments
from gradlab.plots.style import family
from gradlab.reproducible import block_generator, single_thread

__all__ = ["PROBLEMS", "SquaredDistance", "rows", "shared_logit_moments"]

LOGITS = tuple(round(0.3 * step, 1) for step in range(-10, 11))
# A fit of RELAX takes most of the time.
FEW = 5


@dataclass(frozen=True)
class SquaredDistance:
    r"""The squared distance of some bits from their targets, quadratic in x [..., N, 2].

    .. math:: f(x) = \sum_i (x_{i1} - t_i)^2
    """

    name: str
    targets: tuple[float, ...]
    degree: ClassVar[int] = 2

    def __call__(self, x: Float[Tensor, "*batch N 2"]) -> Float[Tensor, "*batch"]:
        """Return the squared distance of the bits x from the targets."""
        return (x[..., 1] - torch.tensor(self.targets).to(x)).square().sum(-1)


PROBLEMS = (SquaredDistance("three bits", (0.6, 0.51, 0.48)), SquaredDistance("one bit", (0.45,)))

COLUMNS = [
    *("problem", "N", "C", "logit", "estimator", "family", "fits", "unbiased", "calls", "cost"),
    *("seed", "method", "draws", "reason", "truth2", "bias2", "bias2_se", "variance"),
    *("variance_se", "cost_variance", "cost_variance_se"),
]


@single_thread()
def rows(
    seed: int = 0,
    *,
    logits: Sequence[float] = LOGITS,
    draws: int = 4096,
    fits: int = 1024,
) -> pd.DataFrame:
    """Return a row for each problem, unbiased estimator and logit; one for each that is biased.

    Units: `cost_variance` is variance * cost, of the derivative in the shared logit. Exact where
    the noise is discrete, else from `draws` draws. What can be fitted is there twice, once with
    what `fit` finds from `fits` draws (0 where nothing was fitted); RELAX is fitted at each fifth
    logit only. `unbiased`: for every f. The seed decides draws and fits.
    """
    found: list[dict[str, Any]] = []
    for f in PROBLEMS:
        usable: list[Estimator] = []
        for estimator in variants():
            reason = why_not(estimator, f, _shared(0.0, f), must_be_unbiased=True)
            if reason is None:
                usable.append(estimator)
            else:
                found.append(_row(estimator, f) | {"seed": seed, "reason": reason})
        quick = [estimator for estimator in usable if not isinstance(estimator, RELAX)]
        for place, logit in enumerate(logits):
            at = _shared(logit, f)
            better = fitted(quick if place % FEW else usable, f, at, fits, seed)
            for number, estimators in ((0, usable), (fits, better)):
                for row in _measured(estimators, f, at, draws, seed):
                    found.append(row | {"logit": logit, "fits": number, "seed": seed})
    return pd.DataFrame(found, columns=COLUMNS)


def shared_logit_moments(estimator: Estimator, f: Loss, logits: Tensor) -> Moments | None:
    """Return the exact moments [1, 1] of sum_i g_i1, one draw's derivative in a shared log-odds.

    None where no exact ones are known. Logits are [N, 2].
    """
    if isinstance(estimator, SampledValueEstimator) and estimator.enumerable:
        classes = _tuples(estimator.samples, len(logits))
        weight = estimator.tuple_probabilities(logits, classes)
        g = estimator.estimate_at(f, logits, classes)[1]
    elif isinstance(estimator, SampleOnlyEstimator):
        classes = _tuples(1, len(logits))[0]
        weight = joint_probabilities(logits, classes)
        x = one_hot(classes, logits)
        g = estimator.pullback(probabilities(logits), x, gradient(f, x))
    else:
        return None
    derivative = g[..., 1].sum(-1)
    mean = weight @ derivative
    return Moments(mean.reshape(1, 1), (weight @ (derivative - mean).square()).reshape(1))


def _shared(logit: float, f: SquaredDistance) -> Tensor:
    """Return logits [N, 2] of one log-odds."""
    return torch.tensor([[0.0, logit]], dtype=torch.float64).expand(len(f.targets), 2).contiguous()


def _tuples(m: int, variables: int) -> Tensor:
    """Return the classes of all m-tuples of configurations of so many bits, [m, tuples, N]."""
    bits = torch.arange(2 ** (m * variables)).unsqueeze(-1) >> torch.arange(m * variables) & 1
    return bits.unflatten(-1, (m, variables)).movedim(1, 0)


def _measured(
    estimators: Iterable[Estimator], f: SquaredDistance, logits: Tensor, draws: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the row of each estimator at these logits."""
    truth = value_moments(f, logits).gradient[:, 1].sum().reshape(1, 1)
    for estimator in estimators:
        moments = shared_logit_moments(estimator, f, logits)
        method, number = "exact", None
        if moments is None:
            generator = block_generator(seed, f"{f.name}|{logits[0, 1]:g}|{estimator}")
            g = estimator.draw(f, logits, draws, generator)[..., 1].sum(-1)
            moments = Moments.from_groups(Groups.from_draws(g[:, None, None]))
            method, number = "monte carlo", draws
        row = _row(estimator, f) | measure(moments, truth) | {"method": method, "draws": number}
        paid = {f"cost_{c}": row["cost"] * row[c] for c in ("variance", "variance_se")}
        yield row | paid


def _row(estimator: Estimator, f: SquaredDistance) -> dict[str, Any]:
    return {
        "problem": f.name,
        "N": len(f.targets),
        "C": 2,
        "estimator": str(estimator),
        "family": family(estimator.name),
        "fits": 0,
        "unbiased": estimator.order == np.inf,
        "calls": estimator.calls(2, len(f.targets)),
        "cost": cost(estimator, 2, variables=len(f.targets)),
    }
