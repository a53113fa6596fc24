"""The exact bias of an estimator: its mean by enumeration, the truth on two independent routes.

Nothing is taken from what an estimator declares: pathwise rules are put to each class, functions of
m samples to each m-tuple of configurations. What remains is rounding, which is bounded.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits, log_probabilities, probabilities
from gradlab.estimators import (
    Estimator,
    PathwiseEstimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
)
from gradlab.exact.enumeration import Space
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.loss import Loss, evaluate
from gradlab.reproducible import single_thread

__all__ = ["ExactBias", "TruthError", "exact_bias"]

MAX_TUPLES = 2**20
_CHUNK = 2**14
# Rounding: so many units in the last place of the largest thing that is summed.
_ULPS = 2**10
# Of E[M | x] from quadrature, by |grad f| and class.
_TABLE_ACCURACY = 1e-10


class TruthError(ArithmeticError):
    """The two routes to the true gradient disagree: f is not the same function on both."""


@dataclass(frozen=True)
class ExactBias:
    """Expectation of one draw against the true gradient, both [N, C], float64, in units of f.

    `bound`: what |mean - truth| may be by rounding alone (and by the error of quadrature, for the
    Gumbel family): 2^10 units in the last place of the largest of sqrt(E |draw|^2), |truth| and
    sqrt(E f^2), as values of f are no more accurate than that. `route`: how the mean was found.
    """

    truth: Float[Tensor, "N C"]
    mean: Float[Tensor, "N C"]
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
    log softmax. Raises NotExactError where the mean is not known exactly (GS, ARSM; more than 2^20
    tuples of samples), TruthError where the two routes disagree, and what `exact_moments` raises.
    """
    on = enumeration or Enumeration(f, logits)
    logits = check_logits(logits, ndim=2).detach().to("cpu", torch.float64)
    if isinstance(estimator, PathwiseEstimator):
        moments = on.moments(estimator)
        mean, square = moments.mean, float(moments.mean.square().sum() + moments.variance)
        sampled = isinstance(estimator, SampleOnlyEstimator)
        route = "every x enumerated" if sampled else "every x enumerated, quadrature given x"
        error = 0.0 if sampled else _TABLE_ACCURACY * _gradient_scale(on)
    elif isinstance(estimator, SampledValueEstimator):
        mean, square = _over_tuples(estimator, f, logits)
        each = "every x" if estimator.samples == 1 else f"every {estimator.samples}-tuple of x"
        route, error = f"{each} enumerated", 0.0
    else:
        raise NotExactError(f"no exact mean is known for {estimator}; use draws instead")
    truth = _truth(on, f, logits)
    scale = max(math.sqrt(square), float(torch.linalg.vector_norm(truth)), _value_scale(on))
    return ExactBias(truth, mean, _ULPS * torch.finfo(torch.float64).eps * scale + error, route)


def _truth(on: Enumeration, f: Loss, logits: Tensor) -> Tensor:
    truth, other = on.values.gradient, _differentiated(f, logits)
    apart = float(torch.linalg.vector_norm(truth - other))
    allowed = _ULPS * torch.finfo(torch.float64).eps * _value_scale(on)
    if apart > allowed:
        raise TruthError(
            f"the true gradient by conditional means and by differentiating the enumerated sum "
            f"differ by {apart:.1e}, more than rounding ({allowed:.1e}): does f give the same "
            "value for the same x, whatever the batch?"
        )
    return truth


def _differentiated(f: Loss, logits: Tensor) -> Tensor:
    """Return d/dlogits sum_x p(x) f(x), by autograd through log softmax."""
    space = Space(logits)
    offset = evaluate(f, space.block[:1])[0].detach().clone()
    leaf = logits.clone().requires_grad_()
    for _ in space.prefixes():
        values = evaluate(f, space.block).detach().to(torch.float64) - offset
        with torch.enable_grad():
            # Masked classes turn up in no configuration: their -inf must not meet the 0 there.
            log_p = torch.where(logits > -torch.inf, log_probabilities(leaf), 0.0)
            (values @ torch.einsum("bnc,nc->b", space.block, log_p).exp()).backward()
    assert leaf.grad is not None
    return leaf.grad


def _over_tuples(estimator: SampledValueEstimator, f: Loss, logits: Tensor) -> tuple[Tensor, float]:
    """Return E g and E |g|^2 over all tuples of configurations."""
    p = probabilities(logits)
    allowed = [(row > 0).nonzero()[:, 0] for row in p]
    m, count = estimator.samples, math.prod(map(len, allowed))
    if count**m > MAX_TUPLES:
        raise NotExactError(
            f"{estimator} takes {m} samples of {count} configurations: {count}^{m} tuples are more "
            f"than the {MAX_TUPLES} that are enumerated; use draws instead"
        )
    states = torch.tensor(list(itertools.product(*(a.tolist() for a in allowed))))
    weight = p[torch.arange(len(p)), states].prod(-1)
    mean, square = torch.zeros_like(p), 0.0
    place = count ** torch.arange(m).unsqueeze(-1)
    for start in range(0, count**m, _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, count**m)) // place % count
        with torch.no_grad():
            g = estimator.estimate_at(f, logits, states[index])[1]
        joint = weight[index].prod(0)
        mean += torch.einsum("n,nic->ic", joint, g)
        square += float(joint @ g.square().sum((-2, -1)))
    return mean, square


def _value_scale(on: Enumeration) -> float:
    """Return sqrt(E f^2)."""
    values = on.values
    variance = (values.p[0] * values.conditional_square[0]).sum()
    return float((values.mean.square() + variance).sqrt())


def _gradient_scale(on: Enumeration) -> float:
    """Return sqrt(E |grad f|^2) times the number of classes."""
    a = on.gradients
    square = a.covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + a.mean.square().sum(-1)
    return float((a.p * square).sum().sqrt()) * a.p.shape[1]
