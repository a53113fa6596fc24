"""Coupled-sample estimators: one random vector a variable, f at several samples made from it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_exponentials, log_probabilities
from gradlab.estimators.values import ValueEstimator
from gradlab.loss import Loss, evaluate

__all__ = ["ARSM"]

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
    """

    name: ClassVar[str] = "ARSM"
    reference: ClassVar[str] = "Yin et al. 2019, arXiv 1905.01413"

    def calls(self, classes: int) -> int:
        """Evaluations of f that one draw spends: C(C-1)/2 + 1."""
        return classes * (classes - 1) // 2 + 1

    def supports(self, f: Loss, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why one draw would not fit the memory, or None if it does."""
        variables, classes = logits.shape[-2:]
        numbers = self.calls(classes) * variables * classes
        if numbers <= _LARGEST_DRAW:
            return None
        return (
            f"one draw of ARSM evaluates f at {self.calls(classes)} points of {variables} x "
            f"{classes} numbers, more than {_LARGEST_DRAW} in all; use RF(m=4) instead"
        )

    def estimate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], n: int, generator: Generator | None
    ) -> tuple[Float[Tensor, " n *batch"], Float[Tensor, "n *batch N C"]]:
        """Return n replicates of f at the unswapped sample and of the estimate."""
        reason = self.supports(f, logits)
        if reason:
            raise ValueError(reason)
        log_p = log_probabilities(logits.detach())
        classes = log_p.shape[-1]
        log_e = draw_exponentials(log_p.new_empty(n, *log_p.shape), generator).log()
        first, second = torch.triu_indices(classes, classes, 1, device=logits.device)
        swaps = torch.arange(classes, device=logits.device).repeat(len(first) + 1, 1)
        rows = torch.arange(1, len(swaps), device=logits.device)
        swaps[rows, first], swaps[rows, second] = second, first
        # Normalizing pi does not move the argmin: log pi = log E - const.
        z = (log_e[..., swaps] - log_p.unsqueeze(-2)).argmin(-1).movedim(-1, 0)
        x = torch.zeros([*z.shape, classes], dtype=logits.dtype, device=z.device)
        x = x.scatter(-1, z.unsqueeze(-1), 1.0)
        value = evaluate(f, x[0])
        pairs = value.detach().expand(classes, classes, *value.shape).clone()
        if classes > 1:
            with torch.no_grad():  # only the value returned needs the graph of f
                pairs[first, second] = pairs[second, first] = evaluate(f, x[1:])
        pi = torch.softmax(log_e, -1)
        centred = (pairs - pairs.mean(0)).to(pi.dtype)
        estimate = torch.einsum("cj...,...nj->...nc", centred, 1 / classes - pi)
        masked = log_p == -torch.inf
        kept = (~masked).to(pi.dtype)
        spread = (estimate * masked).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)
        return value, (kept * (estimate + spread)).to(logits.dtype)
