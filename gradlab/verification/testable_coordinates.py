"""What a trial by draws is asked, and which coordinates so many draws can answer for.

A class that is hardly met, or hardly missed, gives a mean too skewed for any test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.exact.rarity import Rarity
from gradlab.loss.gate import Objective
from gradlab.user_code.under_test import Draws

__all__ = ["FEWEST", "MET", "NEGLIGIBLE", "Question"]

FEWEST = 256
"""Draws before the first look."""

MET = 15
"""Visits to be expected of the events that carry half of the variance of a score function before a
bias is declared; as part of an event counts, that is twice as many to a single rare state."""

# A class must be expected, and expected to be missed, this many times log(1/alpha).
_VISITS = 20
NEGLIGIBLE = 1e-6
"""Rarer classes need not be met: only draws 50,000 times as long as others would make them
matter."""


@dataclass(frozen=True)
class Question:
    """What is asked: the draws in question, f, logits [N, C] or [B, N, C], and the errors allowed.

    `at`: the logits as the code gets them, in its own dtype.

    A bias below `delta` times the length of the gradient is small; `alpha` is the rate at which an
    unbiased estimator may be called biased, or one of a larger bias unbiased. `scale`: a size of
    values of f, whose rounding is not a bias. `rarity`: how rare the states are that carry the
    gradient, where f is enumerated. `distribution`: what x is drawn from, "" for independent
    categorical variables.
    """

    drawn: Draws
    f: Objective
    logits: Float[Tensor, "*batch N C"]
    at: Float[Tensor, "*batch N C"]
    problem: str
    claimed: bool | None
    delta: float
    alpha: float
    seed: int
    scale: float = 0.0
    rarity: Callable[[], Rarity] | None = None
    distribution: str = ""

    part: ClassVar[str] = "class"
    """What of x may be too rare to be met, in a word."""

    @property
    def numbers(self) -> int:
        """How many numbers one draw makes."""
        logits = self.logits
        return logits.numel() * self.drawn.calls(logits.shape[-1], logits.shape[-2])

    def rows_of(self, d: Float[Tensor, "n *batch N C"]) -> Float[Tensor, "n R"]:
        """Return sums of deviations that are 0 in every right draw: those over classes."""
        return d.sum(-1).flatten(1)

    @property
    def row_length(self) -> int:
        """How many numbers such a sum has."""
        return self.logits.shape[-1]

    @property
    def unseen(self) -> float:
        """Events rarer than this over n are not excluded by n draws, at `alpha`."""
        return -math.log(self.alpha)

    @cached_property
    def meets_classes(self) -> int:
        """Draws that meet every class, but for negligible ones, with confidence 1 - alpha."""
        p = self._p
        rarest = p[p >= NEGLIGIBLE].min() if p.numel() else torch.ones(())
        return math.ceil(self.unseen / float(rarest))

    @cached_property
    def meets_gradient(self) -> int:
        """Draws that meet the states which carry the gradient often enough to show a bias."""
        return 0 if self.rarity is None else self.rarity().draws_needed(MET)

    @cached_property
    def _p(self) -> Float[Tensor, "*batch N C"]:
        return probabilities(self.logits)

    @cached_property
    def visits(self) -> Float[Tensor, " D"]:
        """Draws from which on each of the N C coordinates can be tested."""
        return self._visits(self._p).flatten()

    def _visits(self, p: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Draws from which on events of probability p are met, and missed, often enough."""
        rarer = torch.minimum(p, 1 - p)
        enough = (_VISITS * -math.log(self.alpha) / rarer).ceil()
        return torch.where(rarer > 0, enough, 0.0).clamp_min(FEWEST)

    def stages(self, last: int) -> list[Bool[Tensor, " D"]]:
        """Return growing sets of coordinates, as far as they can be tested within `last` draws.

        Each takes in what can be tested by one and a half times the draws that its first needs.
        """
        sets: list[Bool[Tensor, " D"]] = []
        ahead = self.visits
        while len(ahead) and float(ahead.min()) <= last:
            keep = self.visits <= 1.5 * float(ahead.min())
            if self.begins(keep) > last:
                break
            sets.append(keep)
            ahead = self.visits[~keep]
        return sets

    def tested(
        self, keep: Bool[Tensor, " D"], v: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, "*batch D"]:
        """Return the part of vectors v that a test of these coordinates is about.

        As estimates sum to 0 over classes, the sum over those kept of a variable is minus that over
        the others: where these are too rare even together, it is taken out as well.
        """
        kept, summed, count = self._parts(keep)
        part = v.unflatten(-1, kept.shape) * kept
        mean = (part * summed).sum(-1, keepdim=True) / count
        return (part - mean * summed).flatten(-kept.ndim)

    def _parts(self, keep: Bool[Tensor, " D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is kept, over what sums are taken out, and over how many; asked each look."""
        key = keep.numpy().tobytes()
        if key not in self._known:
            p, kept = self._p, keep.reshape(self.logits.shape)
            aside = (p * ~kept).sum(-1, keepdim=True)
            rare = (aside > 0) & (self._visits(aside) > self.begins(keep))
            summed = kept & (p > 0) & rare
            self._known[key] = kept, summed, summed.sum(-1, keepdim=True).clamp_min(1)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[bytes, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def begins(self, keep: Bool[Tensor, " D"]) -> int:
        """Return the draws from which on all these coordinates can be tested."""
        return int(self.visits[keep].max())
