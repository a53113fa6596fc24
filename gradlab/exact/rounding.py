r"""What arithmetic alone may change of an exact mean, from the magnitudes of what is summed.

Three kinds of rounding meet, each in its own unit.

1. The sums, in float64: :math:`\varepsilon = 2^{-52}`, whatever dtype f has. A sum of n terms is
   off by about :math:`\sqrt n\,\varepsilon/2` of the sum of their absolute values, and p(x), a
   product over N variables of softmaxes over C classes, by some :math:`(N + C)\,\varepsilon` of
   itself. `sum_ulps` allows four to sixteen times as much. Where a class is nearly sure, 1 - p is
   off by units of 1, not of itself: `STEP_ULPS` = 16 of them allow for that.
2. The last bit of f, in the unit u of its own arithmetic. What f returns is a fixed function of x,
   so that truth and mean see the same one; but another batch may change its last bits, by half a
   unit of each of two values. `VALUE_ULPS` = 2 is twice that. Where f was seen to change by more
   between two sweeps, what was seen is added.
3. The inside of f, for estimators that use grad f. Values and gradients of f then come from
   different sums, and both are of N C terms or more: `INNER_ULPS` = 32 units of u, of the size of
   M grad f and of f without its offset. (An offset is added once, so it costs the last bit only.)

All three are multiplied by measured means of absolute values: `Sizes` of f, E |draw|, or root
E |M|^2 |grad f|^2. None of them knows the largest value of f.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import SampledValueEstimator

__all__ = [
    "DOUBLE",
    "INNER_ULPS",
    "SINGLE",
    "STEP_ULPS",
    "VALUE_ULPS",
    "Sizes",
    "law_rounding",
    "gradient_scale",
    "sum_ulps",
]

DOUBLE, SINGLE = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps

VALUE_ULPS = 2
"""Units of f's own arithmetic by which one value of f may differ between two calls, doubled."""

INNER_ULPS = 32
"""Units of f's own arithmetic by which its inner sums may be off."""

STEP_ULPS = 16
"""Units of 1 by which x - p may be off, and what is made of it on the way to one draw."""


@dataclass(frozen=True)
class Sizes:
    """Means of |f|, of |f - E f|, and of both times the length of the score s = x - p.

    Args:
        f: E |f|, in units of f, as are the others.
        centred: E |f - E f|.
        f_score: E |f| |s|.
        centred_score: E |f - E f| |s|.
    """

    f: float
    centred: float
    f_score: float
    centred_score: float

    def sums(self, terms: float, shape: tuple[int, ...]) -> float:
        """Return what the sums of a gradient by values of f may be off, from f without offset."""
        steps = STEP_ULPS * math.sqrt(shape[-2]) * self.centred
        return DOUBLE * (sum_ulps(terms, shape) * self.centred_score + steps)


def sum_ulps(terms: float, shape: tuple[int, ...]) -> float:
    """Return by how many units a mean of so many terms may be off, of the mean of their sizes.

    Args:
        terms: How many terms are added, weighted by products of N probabilities.
        shape: N and C, the last two of it.

    Returns:
        The number of units in the last place.
    """
    variables, classes = shape[-2:]
    return 16 * (variables + classes) + 4 * math.sqrt(terms)


def law_rounding(estimator: SampledValueEstimator, plain: float, variables: int) -> float:
    """Return what the probabilities of tuples may be off, times the estimates there.

    Those of independent samples are products, each off by units of itself. A law of its own may be
    a sum of terms that cancel, so that a rare tuple is off by units of 1.

    Args:
        estimator: The estimator, which declares the law of its samples.
        plain: The plain sum of |draw| over all tuples, in units of f.
        variables: N.

    Returns:
        The error in units of f.
    """
    own = type(estimator).tuple_probabilities is not SampledValueEstimator.tuple_probabilities
    return STEP_ULPS * variables * DOUBLE * plain if own else 0.0


def gradient_scale(
    p: Float[Tensor, "N C"],
    mean: Float[Tensor, "N C C"],
    covariance: Float[Tensor, "N C C C"],
    factor: Float[Tensor, "N C _ _"] | None = None,
) -> float:
    """Return sqrt(sum_ik p_ik |factor_ik|^2 E[|a_i|^2 | x_i = k]), a = grad f; factors 1 if None.

    Args:
        p: Probabilities [N, C].
        mean: E[a_i | x_i = k], indexed [i, k, ...].
        covariance: Cov[a_i | x_i = k], indexed [i, k, ...].
        factor: Matrices indexed [i, k, ...], such as E[M_i | x_i = k].

    Returns:
        The scale, in units of f.
    """
    square = covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + mean.square().sum(-1)
    weight = p if factor is None else p * factor.square().sum((-2, -1))
    return float((weight * square.clamp_min(0.0)).sum().sqrt())
