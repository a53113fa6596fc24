r"""Exact moments of I-MLE on independent categorical variables, and the limit of a small step.

With w = softmax(theta), v = grad f(z) and A = theta + eps, a variable moves from class i to j if
0 <= A_i - A_j <= lam (v_i - v_j) and both beat all others. Gumbel noise integrates in closed form:

.. math:: P(z = i, z' = j) = w_i w_j \int_0^{\lambda (v_i - v_j)} \frac{e^{-d}}{S(d)^2}\,dd, \quad
          S(d) = w_i e^{-d} + w_j + \sum_{k \ne i, j} w_k e^{-\min(d,\,\lambda (v_k - v_j))}

Between the places where a minimum changes, the integral is (e^{-d_1} - e^{-d_2}) / (S(d_1) S(d_2)).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import (
    check_logits,
    configurations,
    one_hot,
    probabilities,
    probabilities_of,
)
from gradlab.loss import Loss, gradient
from gradlab.moments import Moments

__all__ = ["chance_to_move", "imle_limit", "imle_moments"]

_BLOCK = 2**21


def chance_to_move(
    p: Float[Tensor, "*#batch C"],
    x: Float[Tensor, "*#batch C"],
    v: Float[Tensor, "*#batch C"],
    lam: float,
) -> Float[Tensor, "*batch C"]:
    r"""Return the probability that z' is each class, given the class of z.

    Args:
        p: Probabilities [..., C].
        x: z, one-hot [..., C].
        v: The gradient of f at z, [..., C].
        lam: The step of I-MLE, positive.

    Returns:
        P(z' = j | z) [..., C]; the rest of 1 stands at the class of z.

    Example:
        >>> p, x = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
        >>> chance_to_move(p, x, torch.tensor([1.0, 0.0]), lam=1.0)  # tanh(1/2) moves
        tensor([0.5379, 0.4621])
    """
    p, x, v = torch.broadcast_tensors(p, x, v)
    own = lambda values: (values * x).sum(-1, keepdim=True)  # noqa: E731
    step = lam * (own(v) - v).clamp_min(0.0)
    at = lam * (v.unsqueeze(-2) - v.unsqueeze(-1))  # [..., j, k]: where the minimum of k changes
    zero = torch.zeros_like(step).unsqueeze(-1)
    inner = torch.minimum(at.clamp_min(0.0), step.unsqueeze(-1)).sort(-1).values
    places = torch.cat([zero, inner, step.unsqueeze(-1)], -1)
    # [..., j, place, k]; the class j itself stands at 0.
    shift = torch.minimum(places.unsqueeze(-1), at.unsqueeze(-2))
    shift = torch.where(torch.eye(p.shape[-1], dtype=torch.bool).unsqueeze(-2), 0.0, shift)
    shift = torch.where(x.unsqueeze(-2).unsqueeze(-2) != 0, places.unsqueeze(-1), shift)
    weight = p.unsqueeze(-2).unsqueeze(-2)
    total = torch.where(weight > 0, weight * (-shift).exp(), 0.0).sum(-1)
    piece = -torch.expm1(-places.diff(dim=-1)) * (-places[..., :-1]).exp()
    rate = (piece / (total[..., :-1] * total[..., 1:])).sum(-1)
    moved = torch.where((p > 0) & (x == 0), p * rate, 0.0)
    return moved + x * (1 - moved.sum(-1, keepdim=True))


def imle_moments(f: Loss, logits: Float[Tensor, "N C"], lam: float) -> Moments:
    r"""Return the exact moments of one draw of I-MLE(lam) on independent rows.

    Args:
        f: The loss, x [..., N, C] -> [...].
        logits: Logits [N, C].
        lam: The step, positive.

    Returns:
        Mean and variance, by enumeration of all C^N states.

    Example:
        >>> f = lambda x: x[..., 0, 0]  # linear
        >>> imle_moments(f, torch.zeros(1, 2), lam=1e-6).mean  # the gradient is 1/4
        tensor([[ 0.2500, -0.2500]], dtype=torch.float64)
    """
    logits = check_logits(logits, ndim=2).detach().to("cpu", torch.float64)
    p = probabilities(logits)
    mean, square = torch.zeros_like(p), torch.zeros(len(p), dtype=torch.float64)
    classes = configurations(*logits.shape)
    classes = classes[probabilities_of(p, classes) > 0]
    size = max(1, _BLOCK // (logits.numel() * logits.shape[-1] * (logits.shape[-1] + 2)))
    for part in classes.split(size):
        x, joint = one_hot(part, p), probabilities_of(p, part)
        v = gradient(f, x).to(torch.float64)
        moved = (x - chance_to_move(p, x, v, lam)) / lam
        mean += torch.einsum("s,snc->nc", joint, moved)
        square += torch.einsum("s,snc,snc->n", joint, moved, x) * (2 / lam)
    return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))


def imle_limit(f: Loss, logits: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    r"""Return the mean of I-MLE as lam falls to 0; its variance grows like 1/lam.

    .. math:: \lim_{\lambda \to 0} E\,\hat g = \sum_{i, j} p_i p_j
              \max(0,\ \partial_i f(e_i) - \partial_j f(e_i))\,(e_i - e_j)

    at one variable. At several it is the mean of this over the other variables. For linear f the
    terms (i, j) and (j, i) add up to the gradient. For other f they do not: with h_ij the
    difference at e_i, the mean is that of ZGR plus the sum of p_i p_j |h_ij| (e_i - e_j) / 2.

    Args:
        f: The loss, x [..., N, C] -> [...].
        logits: Logits [N, C].

    Returns:
        The limit, float64.

    Example:
        >>> square = lambda x: x[..., 0, 0].square()  # the gradient is 1/4 too
        >>> imle_limit(square, torch.zeros(1, 2))
        tensor([[ 0.5000, -0.5000]], dtype=torch.float64)
    """
    logits = check_logits(logits, ndim=2).detach().to("cpu", torch.float64)
    p = probabilities(logits)
    classes = configurations(*logits.shape)
    x, joint = one_hot(classes, p), probabilities_of(p, classes)
    v = gradient(f, x).to(torch.float64)
    rate = p * ((v * x).sum(-1, keepdim=True) - v).clamp_min(0.0)
    moved = x * rate.sum(-1, keepdim=True) - rate
    return torch.einsum("s,snc->nc", joint, moved)
