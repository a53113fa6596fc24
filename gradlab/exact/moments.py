r"""Exact mean and variance of an estimator, from one enumeration of f.

A pathwise estimate is M_i a_i for each variable, with a = grad f(x) and M_i depending on the class
k of x_i alone, so with E[M|k], E[M^T M|k] and the moments of a_i given k nothing is left to sample:

.. math:: E \hat g_i = \sum_k p_{ik}\,\bar M_{ik}\,\bar a_{ik}, \quad
          E |\hat g_i|^2 = \sum_k p_{ik} \langle E[M^T M | k],\ Cov(a_i|k) + \bar a_{ik} \bar
          a_{ik}^T \rangle
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits, probabilities
from gradlab.estimators import (
    Estimator,
    PathwiseEstimator,
    SampledValueEstimator,
    ValueEstimator,
)
from gradlab.exact.enumeration import (
    GradientMoments,
    ValueMoments,
    check_tables,
    gradient_moments,
    value_moments,
)
from gradlab.exact.tuples import NotExactError, tuple_moments
from gradlab.loss import Loss
from gradlab.moments import Moments

__all__ = ["Enumeration", "NotExactError", "exact_moments"]


@dataclass(frozen=True)
class Enumeration:
    """One problem, enumerated at most once for values and once for gradients of f.

    Passed to `exact_moments` it serves all estimators and temperatures.
    """

    f: Loss
    logits: Float[Tensor, "N C"]

    @cached_property
    def values(self) -> ValueMoments:
        """Moments of f."""
        return value_moments(self.f, self.logits)

    @cached_property
    def gradients(self) -> GradientMoments:
        """Moments of grad f."""
        return gradient_moments(self.f, self.logits)

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of `estimator`; see `exact_moments`."""
        refused = estimator.refusal(self.logits)
        if refused is not None:
            raise NotExactError(refused)
        if isinstance(estimator, PathwiseEstimator):
            check_logits(self.logits, ndim=2)
            check_tables(self.logits)
            p = probabilities(self.logits.detach().to("cpu", torch.float64))
            jacobians = estimator.conditional_jacobians(p)
            if jacobians is not None:
                return _pathwise(self.gradients, *jacobians)
        elif isinstance(estimator, ValueEstimator):
            v = self.values
            variance = estimator.variance_given_moments(v.p, v.mean, v.excess, v.conditional_square)
            if variance is not None:
                return Moments(v.gradient, variance)
            if isinstance(estimator, SampledValueEstimator):
                logits = self.logits.detach().to("cpu", torch.float64)
                mean, square = tuple_moments(estimator, self.f, logits)
                return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))
        raise NotExactError(
            f"no exact moments are known for {estimator}; use monte_carlo(...) instead"
        )


def exact_moments(estimator: Estimator, f: Loss, logits: Float[Tensor, "N C"]) -> Moments:
    """Return mean and variance of one draw of `estimator` without sampling, float64.

    A value estimator for which no formula is known is put to every tuple of its samples. Raises
    NotExactError where moments are not known (as of GS, ARSM, REBAR) or the estimator refuses the
    logits, NotDifferentiableError, TooLargeError, QuadratureError (Gumbel family at extreme
    temperatures).
    """
    return Enumeration(f, logits).moments(estimator)


def _pathwise(a: GradientMoments, first: Tensor, second: Tensor) -> Moments:
    p = a.p
    given = torch.einsum("nkij,nkj->nki", first, a.mean)
    mean = torch.einsum("nk,nki->ni", p, given)
    # Three terms that are each >= 0, instead of a difference of two large numbers.
    of_gradient = torch.einsum("nk,nkij,nkij->n", p, second, a.covariance)
    inner = second - first.transpose(-1, -2) @ first
    of_noise = torch.einsum("nk,nki,nkij,nkj->n", p, a.mean, inner, a.mean)
    of_class = torch.einsum("nk,nki->n", p, (given - mean[:, None]).square())
    return Moments(mean, (of_gradient + of_noise + of_class).clamp_min(0.0))
