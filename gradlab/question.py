"""What a trial by draws is asked, and which coordinates so many draws can answer for.

A class that is hardly met, or hardly missed, gives a mean too skewed for any test.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.draws import Draws
from gradlab.loss import Loss

__all__ = ["FEWEST", "Question"]

FEWEST = 256
"""Draws before the first look."""

# A class must be expected, and expected to be missed, this many times log(1/alpha).
_VISITS = 20


@dataclass(frozen=True)
class Question:
    """What is asked: the draws in question, f and logits [N, C], and the errors allowed.

    A bias below `delta` times the length of the gradient is small; `alpha` is the rate at which an
    unbiased estimator may be called biased, or one of a larger bias unbiased. `scale`: a size of
    values of f, whose rounding is no bias.
    """

    drawn: Draws
    f: Loss
    logits: Float[Tensor, "N C"]
    problem: str
    claimed: bool | None
    delta: float
    alpha: float
    seed: int
    scale: float = 0.0

    @property
    def visits(self) -> Float[Tensor, " D"]:
        """Draws from which on each of the N C coordinates can be tested."""
        p = probabilities(self.logits).flatten()
        rarer = torch.minimum(p, 1 - p)
        enough = (_VISITS * -math.log(self.alpha) / rarer).ceil()
        return torch.where(rarer > 0, enough, 0.0).clamp_min(FEWEST)

    def stages(self, last: int) -> list[Bool[Tensor, " D"]]:
        """Return growing sets of coordinates, all those that can be tested within `last` draws.

        Each takes in what can be tested by one and a half times the draws that its first needs.
        """
        sets: list[Bool[Tensor, " D"]] = []
        ahead = self.visits[self.visits <= last]
        while len(ahead):
            sets.append(self.visits <= min(1.5 * float(ahead.min()), last))
            ahead = self.visits[~sets[-1] & (self.visits <= last)]
        return sets

    def begins(self, keep: Bool[Tensor, " D"]) -> int:
        """Return the draws from which on all these coordinates can be tested."""
        return int(self.visits[keep].max())
