"""What estimators for variables of two classes share: the log-odds, noise, and their refusal."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gradlab.categorical import draw_exponentials, masked_logits
from gradlab.estimators.values import ValueEstimator

__all__ = ["BinaryEstimator", "draw_logistic", "log_odds", "pair_row"]


class BinaryEstimator(ValueEstimator):
    """A value estimator for variables of two classes, of which a mask may leave one."""

    instead: ClassVar[str] = "ARSM"

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why it cannot be used: more than two classes, or None."""
        classes = logits.shape[-1]
        if classes <= 2:
            return None
        return f"{self.name} is for variables of 2 classes, not {classes}; use {self.instead}"


def log_odds(logits: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N"]:
    """Return log p_1 / p_0, float64: infinite where one class is masked or alone."""
    logits = masked_logits(logits.detach()).to(torch.float64)
    if logits.shape[-1] == 1:
        return torch.full_like(logits[..., 0], -torch.inf)
    return logits[..., 1] - logits[..., 0]


def draw_logistic(
    odds: Float[Tensor, "*batch N"], n: int, generator: Generator | None
) -> Float[Tensor, "n *batch N"]:
    """Draw n times log u - log(1 - u), u uniform: always finite, so that no masked class is met."""
    e = draw_exponentials(odds.new_empty(2, n, *odds.shape), generator).log()
    return e[0] - e[1]


def pair_row(
    g: Float[Tensor, "*batch N"], logits: Float[Tensor, "*#batch N C"], moves: Bool[Tensor, "..."]
) -> Float[Tensor, "*batch N C"]:
    """Return the estimate (-g, g) for the two logits, 0 for variables that cannot move."""
    g = torch.where(moves, g, 0.0)
    return torch.stack([-g, g], -1)[..., : logits.shape[-1]].to(logits.dtype)
