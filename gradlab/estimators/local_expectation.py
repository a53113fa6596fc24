r"""Local expectation: f at the sample and at all its neighbours, which differ in one variable.

Each variable is summed over exactly, the others stay as they were drawn.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import is_masked, log_probabilities, masked_logits, softmax_vjp
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples, values_of
from gradlab.loss import Loss

__all__ = ["LocalExpectation"]

_LARGEST_DRAW = 2**22


@dataclass(frozen=True, repr=False)
class LocalExpectation(SampledValueEstimator):
    r"""LE, the local expectation gradient, or IndeCateR: REINFORCE averaged over each variable.

    With phi_ic = f at x whose variable i is moved to class c:

    .. math:: \hat g_i = E[(f(x)\,(x_i - p_i) \mid x_{-i}] = p_i \circ (\phi_i - p_i \cdot \phi_i)

    Unbiased for every f, never worse than REINFORCE with any baseline that does not see x_i, exact
    for one variable; N (C - 1) + 1 evaluations. A masked class is not evaluated: the sample stands
    in for it. IndeCateR is the mean of such draws. Titsias & Lazaro-Gredilla 2015 (1503.01494); De
    Smet, Sansone & Zuidberg Dos Martires 2023 (2311.12569).

    Example:
        >>> LocalExpectation()
        LE
    """

    name: ClassVar[str] = "LE"
    aliases: ClassVar[tuple[str, ...]] = ("IndeCateR", "LEG")
    family: ClassVar[str] = "sums over classes or states"
    reference: ClassVar[str] = "Titsias & Lazaro-Gredilla 2015, arXiv 1503.01494"

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: N (C - 1) + 1."""
        return variables * (classes - 1) + 1

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why one draw would not fit the memory, or None if it does."""
        variables, classes = logits.shape[-2:]
        points = self.calls(classes, variables)
        if points * variables * classes <= _LARGEST_DRAW:
            return None
        return (
            f"one draw of LE evaluates f at {points} points of {variables} x {classes} numbers, "
            f"more than {_LARGEST_DRAW} in all; use RF(m=4) instead"
        )

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of f(x) and of p (phi - p.phi)."""
        log_p = log_probabilities(masked_logits(logits.detach()))
        p = log_p.exp()
        variables, count = logits.shape[-2:]
        own = classes[0]
        at = (own.unsqueeze(-1) + torch.arange(1, count, device=own.device)) % count
        masked = is_masked(p).expand(*own.shape, count).gather(-1, at)
        to = torch.where(masked, own.unsqueeze(-1), at).movedim((-1, -2), (0, 1))
        # neighbours[d, i]: x with variable i moved d + 1 classes on, [C - 1, N, n, *batch, N].
        moved = torch.eye(variables, dtype=torch.bool, device=own.device)
        moved = moved.view(variables, *[1] * (own.ndim - 1), variables)
        neighbours = torch.where(moved, to.unsqueeze(-1), own)
        points = torch.cat([classes, neighbours.flatten(0, 1)])
        values = values_of(f, points, logits.detach())
        # Differences from the value at x: an offset of f costs no digits.
        change = (values[1:] - values[0]).detach().to(p.dtype).unflatten(0, neighbours.shape[:2])
        change = change.movedim((0, 1), (-1, -2))
        phi = p.new_zeros(*change.shape[:-1], count).scatter(-1, at, change)
        estimate = softmax_vjp(p, phi)
        return values[0], estimate.to(logits.dtype)
