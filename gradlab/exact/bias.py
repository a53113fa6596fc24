"""The exact bias of an estimator: its mean by enumeration, the truth on two independent routes.

Nothing is taken from what an estimator declares: pathwise rules are put to each class, functions of
m samples to each m-tuple of configurations. What remains is rounding, which is bounded.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import log_probabilities, one_hot
from gradlab.estimators import (
    Estimator,
    PathwiseEstimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
)
from gradlab.exact.enumeration import Space
from gradlab.exact.mechanism import check_mechanism
from gradlab.exact.moments import Enumeration
from gradlab.exact.tuples import NotExactError, tuple_moments
from gradlab.loss import Loss, evaluate, value_and_gradient
from gradlab.reproducible import single_thread

__all__ = ["ExactBias", "TruthError", "exact_bias"]

# Rounding: so many units in the last place of the largest thing that is summed.
_ULPS = 2**10
# Of each entry of E[M | x] from quadrature.
_TABLE_ACCURACY = 1e-10


class TruthError(ArithmeticError):
    """The two routes to the true gradient disagree: f is not the same function on both."""


@dataclass(frozen=True)
class ExactBias:
    """Expectation of one draw against the true gradient, both [N, C], float64, in units of f.

    `bound`: what |mean - truth| may be by arithmetic alone: 2^10 units in the last place (of the
    dtype in which f gives its values) of the largest of what is summed. That is sqrt(E f^2), also
    where an offset of f cancels in the gradient, as values of f are no more accurate; and
    sqrt(E |draw|^2), or sqrt(E |M|^2 |grad f|^2) for a product M grad f, as M may cancel most of
    grad f. |truth| is never larger. For the Gumbel family the error of its tables of E[M | x],
    1e-10 an entry, is added. A bias below the bound, as at nearly sure classes, is not seen.
    `deviation`: root of the variance of one draw. `route`: how the mean was found.
    """

    truth: Float[Tensor, "N C"]
    mean: Float[Tensor, "N C"]
    deviation: float
    bound: float
    route: str

    @property
    def bias(self) -> Float[Tensor, "N C"]:
        """The mean minus the truth."""
        return self.mean - self.truth

    @property
    def size(self) -> float:
        """Length of the bias."""
        return float(torch.linalg.vector_norm(self.bias))

    @property
    def is_zero(self) -> bool:
        """Whether rounding explains the bias."""
        return self.size <= self.bound


@single_thread()
def exact_bias(
    estimator: Estimator,
    f: Loss,
    logits: Float[Tensor, "N C"],
    enumeration: Enumeration | None = None,
) -> ExactBias:
    """Return the exact bias of one draw of `estimator`.

    The truth is p (E[f | x_i = c] - E f), which must equal sum_x p(x) f(x) differentiated through
    log softmax. An `enumeration` of the same f and logits saves its sweeps.

    Raises NotExactError where the mean is not known exactly (as of GS, ARSM; more than 2^20 tuples
    of samples; a class that overrides what is enumerated), LossError for an f that breaks its
    contract, TruthError where the two routes disagree, and what `exact_moments` raises.
    """
    on = enumeration or Enumeration(f, logits)
    if enumeration is not None:
        enumeration.check_is_of(f, logits)
    check_mechanism(estimator)
    error = 0.0
    if isinstance(estimator, PathwiseEstimator):
        moments = on.moments(estimator)
        mean, variance = moments.mean, moments.variance.value
        if isinstance(estimator, SampleOnlyEstimator):
            route = "every x enumerated"
            scale = _gradient_scale(on, estimator.conditional_jacobians(on.gradients.p)[0])
        else:
            route = "every x enumerated, quadrature given x"
            scale = _gradient_scale(on, torch.ones_like(on.gradients.covariance))
            error = _TABLE_ACCURACY * scale
    elif isinstance(estimator, SampledValueEstimator):
        mean, each_square = tuple_moments(estimator, on.f, on.logits)
        on.check_estimate(estimator)
        square = float(each_square.sum())
        variance, scale = max(square - float(mean.square().sum()), 0.0), math.sqrt(square)
        each = "every x" if estimator.samples == 1 else f"every {estimator.samples}-tuple of x"
        route = f"{each} enumerated"
    else:
        raise NotExactError(f"no exact mean is known for {estimator}; use draws instead")
    values = on.values
    of_f = float((values.mean.square() + (values.p * values.conditional_square)[0].sum()).sqrt())

    def found(unit: float) -> ExactBias:
        truth = _truth(values.gradient, on.f, on.logits, _ULPS * unit * of_f)
        bound = _ULPS * unit * max(scale, of_f) + error
        return ExactBias(truth, mean, math.sqrt(variance), bound, route)

    try:
        in_its_dtype = found(on.objective.eps)
    except TruthError:
        if not _hides_single(on):
            raise
        return found(_SINGLE)
    if in_its_dtype.is_zero or not _hides_single(on):
        return in_its_dtype
    return found(_SINGLE)


_SINGLE = torch.finfo(torch.float32).eps


def _hides_single(on: Enumeration) -> bool:
    """Return whether f computes in float32 inside, though its values look like float64.

    In float64 a step of 2^-30 changes f by its slope; in float32 such a step is lost.
    """
    if on.objective.eps >= _SINGLE:
        return False
    x = one_hot(on.logits.argmax(-1), on.logits).unsqueeze(0)
    source = torch.Generator().manual_seed(0)
    step = 2.0**-30 * torch.rand(x.shape, generator=source, dtype=x.dtype)
    try:
        value, slope = value_and_gradient(on.objective, x, keep_graph=False)
        value = value.detach()
        change = evaluate(on.objective, x + step).detach() - value
    except Exception:  # no gradient, or no relaxed x
        return False
    expected = float((slope * step).sum())
    noise = 8 * torch.finfo(x.dtype).eps * float(value.abs().max())
    return abs(expected) > noise and abs(float(change) - expected) > 0.5 * abs(expected)


def _truth(gradient: Tensor, f: Loss, logits: Tensor, allowed: float) -> Tensor:
    """Return the gradient if d/dlogits sum_x p(x) f(x), by autograd, is the same."""
    space = Space(logits)
    leaf, possible = logits.clone().requires_grad_(), space.p > 0
    # An offset would cost digits; and f meets each x in another batch than before, as values that
    # depend on the batch are no function of x.
    offset = evaluate(f, space.block[:1])[0].detach().clone()
    for _ in space.prefixes():
        for block in space.block.chunk(2):
            values = evaluate(f, block).detach().to(torch.float64) - offset
            with torch.enable_grad():
                # Masked classes turn up in no configuration: their -inf must not meet the 0 there.
                log_p = torch.where(possible, log_probabilities(leaf), 0.0)
                (values @ torch.einsum("bnc,nc->b", block, log_p).exp()).backward()
    assert leaf.grad is not None
    apart = float(torch.linalg.vector_norm(gradient - leaf.grad))
    if apart > allowed:
        raise TruthError(
            f"the true gradient by conditional means and by differentiating the enumerated sum "
            f"differ by {apart:.1e}, more than rounding ({allowed:.1e}): does f give the same "
            "value for the same x, whatever else is in the batch?"
        )
    return gradient


def _gradient_scale(on: Enumeration, factor: Float[Tensor, "N C _ _"]) -> float:
    """Return sqrt(sum_ik p_ik |factor_ik|^2 E[|a_i|^2 | x_i = k]), a = grad f."""
    a = on.gradients
    square = a.covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + a.mean.square().sum(-1)
    return float((a.p * factor.square().sum((-2, -1)) * square).sum().sqrt())
