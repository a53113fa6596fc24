r"""Exact moments of a function of m samples of x: its estimate at each m-tuple of configurations.

.. math:: E \hat g = \sum_{x_1 .. x_m} P(x_1 .. x_m)\,\hat g(x_1 .. x_m)
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.categorical import is_masked, one_hot, probabilities
from gradlab.estimators import SampledValueEstimator
from gradlab.estimators.values import TabledLoss
from gradlab.loss import Loss, evaluate, gradient
from gradlab.reproducible import block_generator

__all__ = ["MAX_TUPLES", "NotExactError", "TupleSums", "some_tuples", "tuple_moments", "tuple_sums"]

MAX_TUPLES = 2**20
# Tuples, and elements of the one-hot x at which f is evaluated, that are held at a time.
_CHUNK = 2**14
_CHUNK_ELEMENTS = 2**22


class NotExactError(ValueError):
    """No exact moments are known for this estimator."""


@dataclass(frozen=True)
class TupleSums:
    """Sums over all m-tuples: E g, E |g_i|^2 for each variable, E |g|, and the plain sum of |g|.

    The last is what an error of every probability by the same amount would be multiplied with.
    """

    mean: Float[Tensor, "N C"]
    square: Float[Tensor, " N"]
    size: float
    plain: float


def tuple_moments(
    estimator: SampledValueEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"]]:
    """Return E g and E |g_i|^2 for each variable; see `tuple_sums`."""
    sums = tuple_sums(estimator, f, logits)
    return sums.mean, sums.square


@torch.no_grad()
def tuple_sums(
    estimator: SampledValueEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> TupleSums:
    """Return the sums over all tuples of unmasked configurations.

    Raises NotExactError beyond `MAX_TUPLES` tuples, for logits that the estimator refuses and where
    it draws more than samples of x, and what f raises.
    """
    reason = estimator.refusal(logits.clone())
    if reason is not None:
        raise NotExactError(reason)
    if not estimator.enumerable:
        raise NotExactError(
            f"{estimator} draws more than samples of x, or the law of its samples is a sum of too "
            "many terms; use draws instead"
        )
    allowed = [(~row).nonzero()[:, 0] for row in is_masked(probabilities(logits))]
    m, sizes = estimator.samples, [len(a) for a in allowed]
    if m * sum(map(math.log2, sizes)) > math.log2(MAX_TUPLES):
        digits = m * sum(map(math.log10, sizes))
        raise NotExactError(
            f"{estimator} takes {m} samples of x: about 10^{digits:.1f} tuples of configurations "
            f"are more than the {MAX_TUPLES} that are enumerated; use draws instead"
        )
    count = math.prod(sizes)
    mean = torch.zeros_like(logits)
    square, size, plain = logits.new_zeros(len(logits)), 0.0, 0.0
    place = count ** torch.arange(m).unsqueeze(-1)
    variables, classes_each = logits.shape
    points = max(m, estimator.calls(classes_each, variables))
    chunk = max(1, min(_CHUNK, _CHUNK_ELEMENTS // (points * logits.numel())))
    # Each configuration is in many tuples, or a neighbour of many. A table of gradients is large.
    if m > 1 or (points > 1 and not estimator.needs_gradient):
        f = _tabled(f, allowed, logits, estimator.needs_gradient)
    for start in range(0, count**m, chunk):
        rest = torch.arange(start, min(start + chunk, count**m)) // place % count
        classes = _classes(rest, allowed)
        weight = estimator.tuple_probabilities(logits, classes)
        possible = weight > 0
        weight, classes = weight[possible], classes[:, possible]
        g = estimator.estimate_at(f, logits, classes)[1]
        mean += torch.einsum("n,nic->ic", weight, g)
        each = g.square().sum(-1)
        square += weight @ each
        length = each.sum(-1).sqrt()
        size += float(weight @ length)
        plain += float(length.sum())
    return TupleSums(mean, square, size, plain)


def some_tuples(
    estimator: SampledValueEstimator, logits: Float[Tensor, "N C"], most: int
) -> Int[Tensor, "m n N"]:
    """Return all tuples of positive probability where they are at most so many, or drawn ones."""
    allowed = [(~row).nonzero()[:, 0] for row in is_masked(probabilities(logits))]
    m, count = estimator.samples, math.prod(map(len, allowed))
    if m * math.log2(max(count, 1)) > math.log2(most):
        return estimator.draw_tuples(logits, most, block_generator(0, "tuples of samples"))
    place = count ** torch.arange(m).unsqueeze(-1)
    classes = _classes(torch.arange(count**m) // place % count, allowed)
    return classes[:, estimator.tuple_probabilities(logits, classes) > 0]


def _classes(index: Tensor, allowed: list[Tensor]) -> Tensor:
    """Return the classes of the configurations with these indices, the first variable fastest."""
    classes = torch.empty(*index.shape, len(allowed), dtype=torch.long)
    for i, a in enumerate(allowed):
        classes[..., i], index = a[index % len(a)], index // len(a)
    return classes


def _tabled(f: Loss, allowed: list[Tensor], logits: Tensor, with_gradient: bool) -> "_Table":
    """Return f as a table of its values (and gradients) at all configurations."""
    place = torch.zeros_like(logits)
    count = 1
    for i, a in enumerate(allowed):
        place[i, a] = count * torch.arange(len(a), dtype=place.dtype)
        count *= len(a)
    chunk = max(1, _CHUNK_ELEMENTS // logits.numel())
    values, slopes = [], []
    for part in torch.arange(count).split(chunk):
        x = one_hot(_classes(part, allowed), logits)
        values.append(evaluate(f, x).detach())
        if with_gradient:
            slopes.append(gradient(f, x))
    return _Table(f, place, torch.cat(values), torch.cat(slopes) if with_gradient else None)


@dataclass(frozen=True)
class _Table(TabledLoss):
    """f with its values at all configurations, and its slopes; elsewhere, as at relaxed x, f.

    A configuration is found at the sum of `place` [N, C] over its classes.
    """

    f: Loss
    place: Tensor
    values: Tensor
    slopes: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        known = self.slopes is not None or not x.requires_grad
        if not known or x.dtype != self.place.dtype or not bool(((x == 0) | (x == 1)).all()):
            return self.f(x)
        index = (x.detach() * self.place).sum((-2, -1)).long()
        return _LookUp.apply(x, index, self.values, self.slopes)

    def at(self, classes: Tensor) -> Tensor:
        return self.values[self.place[torch.arange(len(self.place)), classes].sum(-1).long()]


class _LookUp(torch.autograd.Function):
    """The values of a table at some indices, which change with x as another table says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, table: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(index)
        ctx.slope = slope
        return table[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        return grad[..., None, None] * ctx.slope[index], None, None, None
