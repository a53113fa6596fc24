r"""The direct part of the gradient of a loss that sees the logits, f(x, logits), and its moments.

.. math:: \nabla E f = E[f\,s] + D, \qquad d(x) = \partial f(x, logits)/\partial\,logits,
          \quad D = E\,d(x)

An estimate of the whole gradient is that of the first part plus d at its samples: its mean has D
more, and its variance two more terms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import PathwiseEstimator, SampledValueEstimator, SampleOnlyEstimator
from gradlab.exact.enumeration import Space, ValueMoments
from gradlab.exact.routes import TruthError
from gradlab.loss import LossError, Objective, evaluate, gradient
from gradlab.loss.second_argument import direct_gradient
from gradlab.reproducible import single_thread

__all__ = [
    "DirectPart",
    "centred_scores",
    "direct_part",
    "direct_rows",
    "direct_variance",
    "each_gradient",
    "estimates_at",
    "products",
]

# States at a time: the logits are repeated for each.
_PART = 2**10
# States at which the size of d is asked for at other logits.
_NEARBY = 64
# Units of f's arithmetic by which the two routes to D may differ, of E |d|.
DIRECT_ULPS = 2**7

Given = Callable[[Float[Tensor, "n N C"]], Float[Tensor, "n N C"]]
"""The mean of the estimate of the first part given x, at n states."""


@dataclass(frozen=True)
class DirectPart:
    """The mean of df/dlogits, in units of f, float64.

    Args:
        mean: D = E d(x), [N, C].
        size: E |d(x)|, or |d| at logits close by where that is more: terms of d may cancel, as
            those of a KL do at its minimum, and their rounding does not.
    """

    mean: Float[Tensor, "N C"]
    size: float


def direct_rows(
    f: Objective, x: Float[Tensor, "n N C"], logits: Float[Tensor, "N C"]
) -> Float[Tensor, "n N C"]:
    """Return df(x, logits)/dlogits at each x, by logits that are repeated for each.

    Args:
        f: The loss, which has passed the gate and sees the logits.
        x: States.
        logits: The parameters, float64.

    Returns:
        The gradients, float64.

    Raises:
        NotFiniteError: If one of them is NaN or infinite.
    """
    with torch.enable_grad():
        leaf = logits.detach().expand(len(x), *logits.shape).clone().requires_grad_()
        return direct_gradient(evaluate(f.at(leaf), x), leaf)


def each_gradient(
    f: Objective, x: Float[Tensor, "n N C"], parameters: Float[Tensor, "*shape"]
) -> Float[Tensor, "n P"]:
    """Return df(x, parameters)/dparameters at each x, where parameters have no axes in front.

    The gradient of a weighted sum is differentiated in the weights, a pass for each parameter; if f
    does not allow that, there is a pass for each x.

    Args:
        f: The loss, which has passed the gate and sees the parameters.
        x: States.
        parameters: Of any shape, P numbers, float64.

    Returns:
        The gradients, float64.

    Raises:
        NotFiniteError: If one of them is NaN or infinite.
    """
    with torch.enable_grad():
        leaf = parameters.detach().clone().requires_grad_()
        values = evaluate(f.at(leaf), x)
        if not values.requires_grad:
            return torch.zeros(len(x), leaf.numel(), dtype=torch.float64)
        ones = torch.ones_like(values)
        whole = direct_gradient(values, leaf, ones, keep_graph=True).flatten()
        rows = _by_weights(values, leaf)
        if rows is None or not torch.allclose(rows.sum(0), whole, rtol=1e-4, atol=1e-9):
            unit = torch.eye(len(x), dtype=values.dtype)
            each = [direct_gradient(values, leaf, row, keep_graph=True) for row in unit]
            rows = torch.stack([g.flatten() for g in each])
    return rows


def _by_weights(values: Tensor, leaf: Tensor) -> Tensor | None:
    weight = torch.ones_like(values).requires_grad_()
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            values, leaf, weight, create_graph=True, allow_unused=True
        )
        if (g := found[0]) is None:
            return torch.zeros(len(values), leaf.numel(), dtype=torch.float64)
        if not g.requires_grad:
            return None
        unit = torch.eye(g.numel(), dtype=g.dtype)
        (columns,) = torch.autograd.grad(
            g.flatten(), weight, unit, retain_graph=True, is_grads_batched=True
        )
    except (RuntimeError, NotImplementedError):  # f has no second derivative, or no batches of them
        return None
    return columns.detach().T


@single_thread()
def direct_part(f: Objective, logits: Float[Tensor, "N C"]) -> DirectPart:
    """Return D, by one sweep over all configurations.

    Each block gives D on two routes: as the mean of d(x), and as the gradient of the mean of f.

    Args:
        f: The loss, which has passed the gate and sees the logits.
        logits: The parameters, float64.

    Returns:
        D and E |d|.

    Raises:
        TruthError: If the routes differ by more than rounding.
        NotFiniteError: If a gradient is NaN or infinite.
    """
    space = Space(logits)
    mean = torch.zeros_like(space.p)
    other, size = mean.clone(), 0.0
    for prefix_p, _ in space.prefixes():
        for x, weight in _parts(space):
            d = direct_rows(f, x, logits)
            mean += prefix_p * torch.einsum("n,nic->ic", weight, d)
            size += prefix_p * float(weight @ d.flatten(1).norm(dim=1))
            with torch.enable_grad():
                leaf = logits.detach().clone().requires_grad_()
                other += prefix_p * direct_gradient(evaluate(f.at(leaf), x), leaf, weight)
    size = max(size, _length_nearby(f, space.block[:_NEARBY], logits))
    unit = max(f.eps, torch.finfo(f.trained).eps)
    apart = float(torch.linalg.vector_norm(mean - other))
    if apart > DIRECT_ULPS * unit * size:
        raise TruthError(
            f"E df/dlogits by its value at each x and by the gradient of the mean of f differ by "
            f"{apart:.1e}, more than rounding: does f give each row of logits its own value, and "
            "the same gradient in each call?"
        )
    return DirectPart(mean, size)


def _length_nearby(f: Objective, x: Tensor, logits: Tensor) -> float:
    """Return the largest |d| at some states and other logits, 0 where f has none there."""
    source = torch.Generator().manual_seed(0)
    other = logits.detach() + torch.rand(logits.shape, generator=source, dtype=torch.float64)
    try:
        return float(direct_rows(f, x, other).flatten(1).norm(dim=1).max())
    except LossError:
        return 0.0


def _parts(space: Space) -> list[tuple[Tensor, Tensor]]:
    return list(zip(space.block.split(_PART), space.block_p.split(_PART), strict=True))


def direct_variance(
    mean_given: Given, mean: Tensor, f: Objective, logits: Float[Tensor, "N C"], direct: Tensor
) -> Float[Tensor, " N"]:
    r"""Return what the direct part adds to the variance of an estimate from one x.

    .. math:: 2\,Cov(E[\hat g_i | x], d_i) + Var\,d_i

    Args:
        mean_given: E[g | x] at n states.
        mean: E g.
        f: The loss.
        logits: The parameters, float64.
        direct: D.

    Returns:
        The difference for each variable, which may be negative.
    """
    space = Space(logits)
    more = torch.zeros(len(logits), dtype=torch.float64)
    for prefix_p, _ in space.prefixes():
        for x, weight in _parts(space):
            d = direct_rows(f, x, logits) - direct
            away = mean_given(x) - mean
            more += prefix_p * (weight @ ((2 * away + d) * d).sum(-1))
    return more


def centred_scores(values: ValueMoments, f: Objective) -> Given:
    """Return (f - E f)(x - p) as a function of x: of RF(m), what a pair gives on average, twice.

    RF(m) is a U-statistic, and its covariance with the mean of d at its m samples is the
    covariance of this with d, over m.

    Args:
        values: The moments of f.
        f: The loss.

    Returns:
        The function of n states.
    """

    def given(x: Tensor) -> Tensor:
        level = evaluate(f, x).detach().to(torch.float64) - values.mean
        return level[:, None, None] * (x - values.p)

    return given


def products(estimator: PathwiseEstimator, f: Objective, p: Tensor, table: Tensor | None) -> Given:
    """Return E[M grad f | x] as a function of x.

    Args:
        estimator: The estimator.
        f: The loss.
        p: The probabilities [N, C].
        table: E[M | x_i = k], indexed [i, k, ...]; None where the pullback is asked instead.

    Returns:
        The function of n states.
    """

    def given(x: Tensor) -> Tensor:
        v = gradient(f, x).to(torch.float64)
        if table is None:
            assert isinstance(estimator, SampleOnlyEstimator)
            return estimator.pullback(p, x, v)
        matrices = table[torch.arange(len(p)), x.argmax(-1)]
        return (matrices @ v.unsqueeze(-1)).squeeze(-1)

    return given


def estimates_at(
    estimator: SampledValueEstimator, f: Objective, logits: Tensor, classes: Tensor
) -> Float[Tensor, "n N C"]:
    """Return the whole estimate at each tuple of samples: the backward of what trains.

    Args:
        estimator: The estimator.
        f: The loss, which sees the logits.
        logits: The parameters [N, C], float64.
        classes: The classes of n tuples, [m, n, N].

    Returns:
        The estimates, float64.
    """
    with torch.enable_grad():
        leaf = logits.detach().expand(classes.shape[1], *logits.shape).clone().requires_grad_()
        values = estimator.surrogate_at(f.at(leaf), leaf, classes)
        (g,) = torch.autograd.grad(values.sum(), leaf)
    return g
