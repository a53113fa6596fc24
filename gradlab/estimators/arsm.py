"""Coupled-sample estimators: one random vector a variable, f at several samples made from it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    draw_exponentials,
    is_masked,
    log_probabilities,
    masked_logits,
    probabilities,
)
from gradlab.estimators.values import Batch, Estimates, ValueEstimator
from gradlab.loss import Loss, evaluate

__all__ = ["ARS", "ARSM"]

_LARGEST_DRAW = 2**22


@dataclass(frozen=True, repr=False)
class ARSM(ValueEstimator):
    r"""ARSM, augment-REINFORCE-swap-merge: all swaps of one flat Dirichlet vector a variable.

    With pi ~ Dirichlet(1_C), z^{cj} = argmin_b (log pi_b^{c<->j} - logits_b) in all variables
    jointly and f^{cj} = f(z^{cj}):

    .. math:: \hat g_c = \sum_j (f^{cj} - \tfrac1C \sum_m f^{mj}) (\tfrac1C - \pi_j)

    Unbiased for every f; C(C-1)/2 + 1 evaluations a draw. The estimate for a masked class has mean
    0 but is not 0: it is spread over the classes left, which keeps the mean and the zero row sum.
    Yin, Yue & Zhou 2019 (1905.01413).

    Example:
        >>> ARSM()
        ARSM
    """

    name: ClassVar[str] = "ARSM"
    family: ClassVar[str] = "coupled samples"
    reference: ClassVar[str] = "Yin et al. 2019, arXiv 1905.01413"

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: C(C-1)/2 + 1."""
        return classes * (classes - 1) // 2 + 1

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why one draw would not fit the memory, or None if it does."""
        variables, classes = logits.shape[-2:]
        numbers = self.calls(classes) * variables * classes
        if numbers <= _LARGEST_DRAW:
            return None
        return (
            f"one draw of ARSM evaluates f at {self.calls(classes)} points of {variables} x "
            f"{classes} numbers, more than {_LARGEST_DRAW} in all; use RF(m=4) instead"
        )

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of f at the unswapped sample and of the estimate."""
        classes = logits.shape[-1]
        first, second = torch.triu_indices(classes, classes, 1, device=logits.device)
        value, swapped, pi = _at_swaps(f, logits, first, second, n, generator)
        pairs = value.detach().expand(classes, classes, *value.shape).clone()
        pairs[first, second] = pairs[second, first] = swapped
        centred = (pairs - pairs.mean(0)).to(pi.dtype)
        estimate = torch.einsum("cj...,...nj->...nc", centred, 1 / classes - pi)
        return value, _off_masked(estimate, logits)


@dataclass(frozen=True, repr=False)
class ARS(ValueEstimator):
    r"""ARS, augment-REINFORCE-swap: swaps of one Dirichlet vector with one class, the pivot.

    In the notation of ARSM, whose estimate is the mean of those of all pivots j:

    .. math:: \hat g_c = (f^{cj} - \tfrac1C \sum_m f^{mj})\,(1 - C \pi_j)

    Unbiased for every f; C evaluations a draw. Masked classes as in ARSM. Yin, Yue & Zhou 2019
    (1905.01413).

    Args:
        pivot: The class that all others are swapped with.

    Example:
        >>> ARS(pivot=0)
        ARS(pivot=0)
    """

    pivot: int = 0

    name: ClassVar[str] = "ARS"
    family: ClassVar[str] = "coupled samples"
    reference: ClassVar[str] = "Yin et al. 2019, arXiv 1905.01413"

    def __post_init__(self) -> None:
        if not isinstance(self.pivot, int) or self.pivot < 0:
            raise ValueError(f"pivot must be the index of a class, an int >= 0, not {self.pivot!r}")

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: C."""
        return classes

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why the pivot or the memory does not allow a draw, or None."""
        variables, classes = logits.shape[-2:]
        if self.pivot >= classes:
            return f"pivot = {self.pivot} is none of {classes} classes, counted from 0"
        if classes * variables * classes <= _LARGEST_DRAW:
            return None
        return (
            f"one draw of ARS evaluates f at {classes} points of {variables} x {classes} numbers, "
            f"more than {_LARGEST_DRAW} in all; use RF(m=4) instead"
        )

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of f at the unswapped sample and of the estimate."""
        classes = logits.shape[-1]
        others = torch.arange(classes, device=logits.device)
        others = others[others != self.pivot]
        pivots = torch.full_like(others, self.pivot)
        value, swapped, pi = _at_swaps(f, logits, others, pivots, n, generator)
        at = value.detach().expand(classes, *value.shape).to(pi.dtype, copy=True)
        at[others] = swapped.to(pi.dtype)
        centred = (at - at.mean(0)).movedim(0, -1).unsqueeze(-2)
        estimate = centred * (1 - classes * pi[..., self.pivot, None])
        return value, _off_masked(estimate, logits)


def _at_swaps(
    f: Loss, logits: Tensor, first: Tensor, second: Tensor, n: int, generator: Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return f [n, *batch], f with each swap of two entries of pi [swaps, n, *batch], and pi."""
    log_p = log_probabilities(masked_logits(logits.detach()))
    classes = log_p.shape[-1]
    log_e = draw_exponentials(log_p.new_empty(n, *log_p.shape), generator).log()
    swaps = torch.arange(classes, device=logits.device).repeat(len(first) + 1, 1)
    rows = torch.arange(1, len(swaps), device=logits.device)
    swaps[rows, first], swaps[rows, second] = second, first
    # Normalizing pi does not move the argmin: log pi = log E - const.
    z = (log_e[..., swaps] - log_p.unsqueeze(-2)).argmin(-1).movedim(-1, 0)
    x = torch.zeros([*z.shape, classes], dtype=logits.dtype, device=z.device)
    x = x.scatter(-1, z.unsqueeze(-1), 1.0)
    value = evaluate(f, x[0])
    with torch.no_grad():  # only the value returned needs the graph of f
        swapped = evaluate(f, x[1:]) if len(first) else value.new_empty(0, *value.shape)
    return value, swapped, torch.softmax(log_e, -1)


def _off_masked(estimate: Tensor, logits: Tensor) -> Tensor:
    """Return the estimate with what masked classes got spread over the classes left."""
    masked = is_masked(probabilities(logits.detach()))
    kept = (~masked).to(estimate.dtype)
    spread = (estimate * masked).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)
    return (kept * (estimate + spread)).to(logits.dtype)
