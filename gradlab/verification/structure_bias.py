r"""The exact bias of an estimator where x is drawn from a distribution with finitely many states.

.. math:: E \hat g = \sum_{x_1 .. x_m} p(x_1) \cdots p(x_m)\,\hat g(x_1 .. x_m)

The code that runs is put to every state, or to every m-tuple of states; what is left is rounding.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gradlab.distributions.base import with_gradient
from gradlab.estimators import Estimator
from gradlab.exact.fitting import samples_of
from gradlab.exact.gradient_rows import gradients
from gradlab.exact.rounding import DOUBLE, INNER_ULPS, STEP_ULPS, VALUE_ULPS, sum_ulps
from gradlab.exact.routes import TruthError
from gradlab.exact.structure_rarity import deviations, score_lengths
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import NotExactError
from gradlab.loss import evaluate, gradient
from gradlab.loss.diagnosis import BATCH_ULPS
from gradlab.reproducible import single_thread
from gradlab.user_code.on_structures import trained_at
from gradlab.verification.exact_bias import ExactBias

__all__ = ["StructureSizes", "sizes_of", "structure_bias", "trained_bias"]

# Numbers in the samples of all tuples, and numbers held at a time.
_MOST, _BLOCK = 2**22, 2**20


@dataclass(frozen=True)
class StructureSizes:
    """Means that rounding is measured by, in units of f, and how far the second route is.

    `f`: E |f|; `centred`: E |f - E f|; `f_score` and `centred_score`: both times the length of the
    score; `second`: the distance of the two gradients; `values`: E |f' - f| |s| of a second sweep;
    `off`: how far the probabilities are from 1; `logs`: the largest |log p|.
    """

    f: float
    centred: float
    f_score: float
    centred_score: float
    second: float
    values: float
    off: float
    logs: float

    def sums(self, terms: int, numbers: int) -> float:
        """Return what the sums of the truth may be off."""
        ulps = self.ulps(terms, numbers)
        first = DOUBLE * (ulps * self.centred_score + STEP_ULPS * self.centred)
        # E f is off by so much, and E s, with which that is multiplied.
        return first + (self.off + (ulps * DOUBLE) ** 2) * self.f_score

    def ulps(self, terms: int, numbers: int) -> float:
        """Return by how many units a mean over so many states may be off."""
        # log p is a sum of numbers of its own size, and its rounding is that of p.
        return sum_ulps(terms, (1, numbers)) + STEP_ULPS * self.logs


@single_thread()
def sizes_of(on: Structured) -> StructureSizes:
    """Return the sizes of f and of its scores, and the second route to the gradient.

    The second route differentiates sum_x p(x) (f(x) - E f), with f swept again from the last state
    to the first, in blocks of another size.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        The sizes.

    Raises:
        TruthError: If f is not the same function in both sweeps, or the gradients differ.
    """
    values, p = on.values, on.p
    centred = deviations(on)
    lengths = score_lengths(on)
    again = torch.cat(
        [evaluate(on.objective, x).detach() for x in on.states.flip(0).split(_other_block(on))]
    )
    apart = (again.to(torch.float64).flip(0) - values).abs()
    largest = float(values.abs().max())
    if float(apart.max()) > BATCH_ULPS * on.objective.eps * largest:
        raise TruthError(
            f"values of f at the same x differ by {float(apart.max()):.1e} between two "
            "enumerations in other batches: does f give the same value for the same x, whatever "
            "else is in the batch?"
        )
    with torch.enable_grad():
        theta = on.parameters.detach().requires_grad_()
        total = on.log_prob(theta).exp() @ (again.to(torch.float64).flip(0) - on.value)
        (second,) = torch.autograd.grad(total, theta)
    finite = p[p > 0].log()
    found = StructureSizes(
        float(p @ values.abs()),
        float(p @ centred),
        float(p @ (values.abs() * lengths)),
        float(p @ (centred * lengths)),
        float(torch.linalg.vector_norm(second - on.gradient)),
        float(p @ (apart * lengths)),
        abs(float(p.sum()) - 1),
        float(finite.abs().max()) if len(finite) else 0.0,
    )
    allowed = found.sums(len(p), theta.numel()) + found.values
    if found.second > allowed:
        raise TruthError(
            "the true gradient by scores and by differentiating the enumerated sum differ by "
            f"{found.second:.1e}, more than rounding ({allowed:.1e})"
        )
    return found


def _other_block(on: Structured) -> int:
    return max(1, _BLOCK // on.states.shape[-1] // 3 + 1)


def structure_bias(estimator: Estimator, on: Structured, sizes: StructureSizes) -> ExactBias:
    """Return the exact bias of one draw of an estimator on a distribution.

    Args:
        estimator: The estimator.
        on: The loss, the parameters and the distribution.
        sizes: From `sizes_of`.

    Returns:
        The bias, in the shape of the parameters, and how much of it rounding may be.

    Raises:
        NotExactError: If the estimator is not known on distributions, or its samples have too many
            tuples.
        NotDifferentiableError: If it needs a gradient that f does not have.
    """
    m, count, numbers = samples_of(estimator), len(on.p), on.parameters.numel()
    each = m * (on.states.shape[-1] + numbers)
    if m * math.log2(count) + math.log2(each) > math.log2(_MOST) and m > 1:
        raise NotExactError(
            f"{estimator} takes {m} samples of {count} states: more tuples than are enumerated; "
            "use draws instead"
        )
    mean, square = torch.zeros(numbers, dtype=torch.float64), 0.0
    size = 0.0
    for place in torch.arange(count**m).split(max(1, _BLOCK // each)):
        digits = torch.stack([place // count**k % count for k in range(m)], -1)
        p = on.p[digits].prod(-1)
        g = on.estimates(estimator, on.states[digits.flatten()]).flatten(1)
        length = torch.linalg.vector_norm(g, dim=1)
        mean += p @ g
        square += float(p @ length.square())
        size += float(p @ length)
    deviation = math.sqrt(max(square - float(mean.square().sum()), 0.0))
    route = f"all {count:,} states x enumerated" if m == 1 else f"every {m}-tuple of x enumerated"
    return _compared(on, sizes, mean, deviation, size, count**m, estimator, route)


def _compared(
    on: Structured,
    sizes: StructureSizes,
    mean: Tensor,
    deviation: float,
    size: float,
    terms: int,
    estimator: Estimator,
    route: str,
) -> ExactBias:
    numbers, unit = on.parameters.numel(), on.objective.eps
    sums = sizes.sums(len(on.p), numbers)
    bound = (sizes.ulps(terms, numbers) * DOUBLE + sizes.off) * size
    bound += sums + STEP_ULPS * DOUBLE * sizes.f
    bound += VALUE_ULPS * unit * sizes.f_score + 2 * sizes.values
    if estimator.line_alpha is not None:
        inner = _inner_scale(on, estimator.line_alpha)
        bound += INNER_ULPS * unit * (inner + sizes.centred_score)
        bound += (sizes.ulps(terms, numbers) * DOUBLE + sizes.off) * inner
    return ExactBias(
        on.gradient,
        mean.reshape(on.parameters.shape),
        deviation,
        bound,
        route,
        sums=sums,
        eps=unit,
        size_of_f=sizes.f,
        spread_of_f=sizes.centred,
    )


def _inner_scale(on: Structured, alpha: float) -> float:
    """Return root E |M|^2 |grad f|^2, M being no longer than its two halves together."""
    of_mean = partial(_mean_of, on)
    jacobian = float(torch.linalg.matrix_norm(gradients(of_mean, on.parameters, on.shape.numel())))
    mean = (on.p @ on.states.flatten(1)).reshape(1, 1, -1)
    size = max(1, _BLOCK // (on.states.shape[-1] + on.parameters.numel()))
    total = 0.0
    for x, p in zip(on.states.split(size), on.p.split(size), strict=True):
        v = torch.linalg.vector_norm(gradient(on.objective, x).to(torch.float64).flatten(1), dim=1)
        away = torch.linalg.vector_norm((x - mean).flatten(1), dim=1)
        score = torch.linalg.vector_norm(on.scores(x), dim=1)
        length = abs(1 - alpha / 2) * jacobian + abs(alpha / 2) * away * score
        total += float(p @ (length * v).square())
    return math.sqrt(total)


def _mean_of(on: Structured, theta: Tensor) -> Tensor:
    """Return zeros whose gradients are those of E x."""
    x = on.states[:1].reshape(1, *on.shape)
    return with_gradient(on.distribution(theta), x, 0.0).flatten()


def trained_bias(
    estimator: Estimator, on: Structured, exact: ExactBias, dtype: torch.dtype
) -> ExactBias:
    """Return the bias of what trains: the backward of `rsample` at every x, in a batch.

    Args:
        estimator: ST, ZGR, DARN or ST-ZGR.
        on: The loss, the parameters and the distribution.
        exact: The bias of what is analysed.
        dtype: That of the parameters that are trained.

    Returns:
        The bias, whose bound has the rounding of this dtype besides.
    """
    mean, size = torch.zeros_like(on.parameters), 0.0
    at = on.parameters.to(dtype)
    block = max(1, _BLOCK // (on.states.shape[-1] + on.parameters.numel()))
    for x, p in zip(on.states.split(block), on.p.split(block), strict=True):
        shaped = x.reshape(len(x), *on.shape).to(dtype)
        g = trained_at(on, estimator, on.f, at, shaped).to(torch.float64)
        mean += torch.tensordot(p, g, 1)
        size += float(p @ torch.linalg.vector_norm(g.flatten(1), dim=1))
    alpha = estimator.line_alpha
    assert alpha is not None
    unit = max(torch.finfo(dtype).eps, on.objective.eps)
    logs = 1 + float(on.p[on.p > 0].log().abs().max())
    more = 16 * unit * logs * (size + _inner_scale(on, alpha) + exact.size_of_f)
    route = f"the backward of rsample at every x, {str(dtype).removeprefix('torch.')}, in batches"
    return ExactBias(
        exact.truth,
        mean,
        exact.deviation,
        exact.bound + more,
        route,
        sums=exact.sums,
        eps=max(unit, exact.eps),
        size_of_f=exact.size_of_f,
        spread_of_f=exact.spread_of_f,
    )
