r"""Exact moments of a function of m samples of x: its estimate at each m-tuple of configurations.

.. math:: E \hat g = \sum_{x_1 .. x_m} P(x_1 .. x_m)\,\hat g(x_1 .. x_m)
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import is_masked, one_hot, probabilities
from gradlab.estimators import SampledValueEstimator
from gradlab.loss import Loss, evaluate, gradient

__all__ = ["MAX_TUPLES", "NotExactError", "tuple_moments"]

MAX_TUPLES = 2**20
# Tuples, and elements of their one-hot samples [m, tuples, N, C], that are held at a time.
_CHUNK = 2**14
_CHUNK_ELEMENTS = 2**22


class NotExactError(ValueError):
    """No exact moments are known for this estimator."""


@torch.no_grad()
def tuple_moments(
    estimator: SampledValueEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"]]:
    """Return E g and E |g_i|^2 for each variable, over all tuples of unmasked configurations.

    Raises NotExactError beyond `MAX_TUPLES` tuples, for logits that the estimator refuses and where
    it draws more than samples of x, and what f raises.
    """
    reason = estimator.refusal(logits)
    if reason is not None:
        raise NotExactError(reason)
    if not estimator.enumerable:
        raise NotExactError(f"{estimator} draws more than samples of x; use draws instead")
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
    square = logits.new_zeros(len(logits))
    place = count ** torch.arange(m).unsqueeze(-1)
    chunk = max(1, min(_CHUNK, _CHUNK_ELEMENTS // (m * logits.numel())))
    if m > 1:  # each configuration is in many tuples
        f = _tabled(f, allowed, logits, estimator.needs_gradient)
    for start in range(0, count**m, chunk):
        rest = torch.arange(start, min(start + chunk, count**m)) // place % count
        classes = _classes(rest, allowed)
        weight = estimator.tuple_probabilities(logits, classes)
        possible = weight > 0
        weight, classes = weight[possible], classes[:, possible]
        g = estimator.estimate_at(f, logits, classes)[1]
        mean += torch.einsum("n,nic->ic", weight, g)
        square += weight @ g.square().sum(-1)
    return mean, square


def _classes(index: Tensor, allowed: list[Tensor]) -> Tensor:
    """Return the classes of the configurations with these indices, the first variable fastest."""
    classes = torch.empty(*index.shape, len(allowed), dtype=torch.long)
    for i, a in enumerate(allowed):
        classes[..., i], index = a[index % len(a)], index // len(a)
    return classes


def _tabled(f: Loss, allowed: list[Tensor], logits: Tensor, with_gradient: bool) -> Loss:
    """Return f as a table of its values (and gradients) at all configurations.

    Elsewhere, as at relaxed x, it is f itself.
    """
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
    table = torch.cat(values)
    slope = torch.cat(slopes) if with_gradient else None

    def looked_up(x: Tensor) -> Tensor:
        known = with_gradient or not x.requires_grad
        if not known or x.dtype != place.dtype or not bool(((x == 0) | (x == 1)).all()):
            return f(x)
        return _LookUp.apply(x, (x.detach() * place).sum((-2, -1)).long(), table, slope)

    return looked_up


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
