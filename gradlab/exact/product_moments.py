r"""Exact moments of a product with grad f, from moments of grad f or from all states.

A pathwise estimate is M_i a_i for each variable, with a = grad f(x) and M_i depending on the class
k of x_i alone, so with E[M|k], E[M^T M|k] and the moments of a_i given k nothing is left to sample:

.. math:: E \hat g_i = \sum_k p_{ik}\,\bar M_{ik}\,\bar a_{ik}, \quad
          E |\hat g_i|^2 = \sum_k p_{ik} \langle E[M^T M | k],\ Cov(a_i|k) + \bar a_{ik} \bar
          a_{ik}^T \rangle
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import SampleOnlyEstimator
from gradlab.exact.all_cores import on_all_cores, swept
from gradlab.exact.enumeration import GradientMoments, Space
from gradlab.exact.mechanism import is_shipped
from gradlab.loss import Loss, gradient
from gradlab.loss.gate import Objective, checked
from gradlab.moments import Moments

__all__ = ["moments_of_product", "moments_over_states"]

# States at a time.
_PART = 2**10


def moments_of_product(
    a: GradientMoments, first: Float[Tensor, "N C C C"], second: Float[Tensor, "N C C C"]
) -> Moments:
    """Return the moments of M grad f.

    Args:
        a: The moments of grad f given each class.
        first: E[M | x_i = k], indexed [i, k, ...].
        second: E[M^T M | x_i = k], indexed [i, k, ...].

    Returns:
        Mean and variance of one draw, in units of f and of f squared.
    """
    p = a.p
    given = torch.einsum("nkij,nkj->nki", first, a.mean)
    mean = torch.einsum("nk,nki->ni", p, given)
    # Three terms that are each >= 0, instead of a difference of two large numbers.
    of_gradient = torch.einsum("nk,nkij,nkij->n", p, second, a.covariance)
    inner = second - first.transpose(-1, -2) @ first
    of_noise = torch.einsum("nk,nki,nkij,nkj->n", p, a.mean, inner, a.mean)
    of_class = torch.einsum("nk,nki->n", p, (given - mean[:, None]).square())
    return Moments(mean, (of_gradient + of_noise + of_class).clamp_min(0.0))


def moments_over_states(
    estimator: SampleOnlyEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> Moments:
    """Return the moments of an estimator by its product at every state: no table of C x C matrices.

    Args:
        estimator: One whose estimate is a function of x.
        f: The loss, which has passed the gate.
        logits: The parameters [N, C].

    Returns:
        Mean and variance of one draw, in units of f and of f squared.
    """
    objective = checked(f, logits)
    return on_all_cores(lambda threads: _over_states(estimator, objective, logits, threads))


def _over_states(
    estimator: SampleOnlyEstimator, f: Objective, logits: Float[Tensor, "N C"], threads: int
) -> Moments:
    space = Space(logits)
    p = space.p
    mean = torch.zeros_like(p)
    square = p.new_zeros(len(p))

    def estimates(block: Tensor) -> Tensor:
        parts = block.split(_PART)
        return torch.cat([estimator.pullback(p, x, gradient(f, x).to(p.dtype)) for x in parts])

    for prefix_p, _, of_block in swept(space, f, estimates, threads, is_shipped(estimator)):
        for g, weight in zip(of_block.split(_PART), space.block_p.split(_PART), strict=True):
            mean += prefix_p * torch.einsum("n,nic->ic", weight, g)
            square += prefix_p * (weight @ g.square().sum(-1))
    return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))
