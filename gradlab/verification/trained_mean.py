r"""The mean of what trains, by enumeration: the backward of a surrogate at every x, in batch.

.. math:: \sum_x p(x)\, \frac{\partial}{\partial\,logits} \text{surrogate}(f, logits; x)

Nothing is taken from the formula that is analysed: samples are fed to the code as a training does,
many rows of logits at once, in the dtype of the caller.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import configurations_at, one_hot, probabilities_of
from gradlab.estimators import Estimator, SampledValueEstimator, SampleOnlyEstimator
from gradlab.exact.mechanism import check_mechanism, is_shipped
from gradlab.exact.moments import Enumeration
from gradlab.exact.rounding import DOUBLE, gradient_scale, sum_ulps
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, LossError
from gradlab.reproducible import single_thread

__all__ = ["TrainedMean", "trained_mean"]

# Rows that are put to a surrogate in all, and at once.
_MOST, _ROWS = 2**14, 2**11
_ELEMENTS = 2**21
# Units of the dtype that trains by which one estimate may be off, of its size and of |f| |s|; and
# the share that parameters get.
DRAW_ULPS, SHARE_ULPS = 16, 16


@dataclass(frozen=True)
class TrainedMean:
    """What trains, on average: the gradient for the logits and for parameters of f.

    `mean` [N, C] in units of f. `bound`: how far rounding alone may take it from the exact mean of
    the same code: 16 units of the dtype that trains (or of f, if that is coarser) of E |draw| and
    of E |f|, as f - baseline and x - p are made in that dtype, and the float64 sum over samples.
    (Against the gradient the bound of the exact bias comes on top.) `share`: what parameters of f
    get, of their gradient E df/dparameter (1 is right), and its rounding, 16 units: only positive
    numbers are added.
    """

    mean: Float[Tensor, "N C"]
    bound: float
    share: float
    share_bound: float
    route: str


@single_thread()
def trained_mean(estimator: Estimator, on: Enumeration, dtype: torch.dtype) -> TrainedMean:
    """Return the mean of the backward that trains, with logits of this dtype.

    Raises NotExactError where x cannot be fed to the code or the samples are too many, and what f
    raises.
    """
    check_mechanism(estimator)
    f, logits = on.objective, on.logits
    # A parameter of f: its derivative is 1 + x . w, whose mean is known.
    source = torch.Generator().manual_seed(0)
    w = torch.rand(logits.shape, generator=source, dtype=torch.float64)
    wanted = 1 + float((on.values.p * w).sum())
    mean, size, terms = torch.zeros_like(logits), 0.0, 0
    parameter = 0.0
    at = logits.to(dtype)
    for weight, classes in _samples(estimator, on):
        rows = len(weight)
        leaf = at.expand(rows, *at.shape).clone().requires_grad_()
        seen = f.at(leaf)
        theta = torch.zeros((), dtype=dtype, requires_grad=True)

        def with_parameter(x: Tensor, theta: Tensor = theta, seen: Loss = seen) -> Tensor:
            return seen(x) + theta * (1 + (x * w.to(x.dtype)).sum((-2, -1)))

        with torch.enable_grad():
            try:
                values = _surrogate(estimator, with_parameter, leaf, classes)
            except (LossError, NotExactError):
                raise
            except Exception as error:
                if is_shipped(estimator):
                    raise
                raise NotExactError(f"the surrogate of {estimator} fails") from error
            (g,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
            weighted = values.to(torch.float64) @ weight
            (of_theta,) = torch.autograd.grad(weighted, theta, allow_unused=True)
        g = g.to(torch.float64)
        mean += torch.einsum("n,nic->ic", weight, g)
        size += float(weight @ g.square().sum((-2, -1)).sqrt())
        terms += rows
        parameter += 0.0 if of_theta is None else float(of_theta)
    # What a product M grad f cancels is rounded before.
    if isinstance(estimator, SampleOnlyEstimator):
        a = on.gradients
        factor = estimator.conditional_jacobians(a.p)[0]
        size = max(size, gradient_scale(a.p, a.mean, a.covariance, factor))
    unit = torch.finfo(dtype).eps
    bound = DRAW_ULPS * max(f.eps, unit) * (size + on.values.sizes.f)
    bound += sum_ulps(terms, logits.shape) * DOUBLE * size
    return TrainedMean(
        mean,
        bound,
        parameter / wanted,
        SHARE_ULPS * unit,
        f"its surrogate at every sample, {str(dtype).removeprefix('torch.')}, in batches",
    )


def _samples(estimator: Estimator, on: Enumeration) -> list[tuple[Tensor, Tensor]]:
    """Return the probabilities [n] and classes [m, n, N] of all samples, in parts."""
    possible = [(row > 0).nonzero()[:, 0] for row in on.values.p]
    count = math.prod(len(classes) for classes in possible)
    if isinstance(estimator, SampledValueEstimator) and estimator.enumerable:
        m = estimator.samples
    elif isinstance(estimator, SampleOnlyEstimator):
        m = 1
    else:
        raise NotExactError(f"{estimator} draws more than x: it cannot be fed every sample")
    if m * math.log2(max(count, 1)) > math.log2(_MOST):
        raise NotExactError(f"{estimator} has more than {_MOST} samples to be fed")
    classes = configurations_at(torch.arange(count**m), possible * m)
    classes = classes.unflatten(-1, (m, len(possible))).movedim(1, 0)
    if isinstance(estimator, SampledValueEstimator):
        weight = estimator.tuple_probabilities(on.logits, classes)
    else:
        weight = probabilities_of(on.values.p, classes[0])
    met = weight > 0
    weight, classes = weight[met], classes[:, met]
    points = estimator.calls(on.logits.shape[1], on.logits.shape[0]) * on.logits.numel()
    size = max(1, min(_ROWS, _ELEMENTS // points))
    return list(zip(weight.split(size), classes.split(size, 1), strict=True))


def _surrogate(estimator: Estimator, f: Loss, leaf: Tensor, classes: Tensor) -> Tensor:
    """Return the surrogate of the estimator with its samples given."""
    if isinstance(estimator, SampleOnlyEstimator):
        given = one_hot(classes[0], leaf.detach())
        x = estimator.sample(leaf, None, given)
        if not torch.equal(x.detach(), given):
            raise NotExactError(f"the sample of {estimator} is not the x that it was given")
        return f(x)
    assert isinstance(estimator, SampledValueEstimator)
    return estimator.surrogate_at(f, leaf, classes)
