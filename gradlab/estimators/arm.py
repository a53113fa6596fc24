r"""Antithetic pairs for two classes: one uniform u a variable, b = 1[u > 1 - p], b' = 1[u < p].

With p = sigma(phi), phi the log-odds of class 1, both b and b' follow the law of x.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import one_hot
from gradlab.estimators._two_classes import BinaryEstimator, draw_logistic, log_odds, pair_row
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples
from gradlab.loss import Loss, evaluate

__all__ = ["ARM", "DisARM"]


@dataclass(frozen=True, repr=False)
class ARM(BinaryEstimator):
    r"""ARM, augment-REINFORCE-merge, for two classes.

    .. math:: \hat g_\phi = (f(b) - f(b'))\,(u - \tfrac12)

    Unbiased for every f; two evaluations. A variable whose class is certain gets 0 on average only,
    where others move; a masked one exactly 0. Yin & Zhou 2019 (1807.11143).

    Example:
        >>> ARM()
        ARM
    """

    name: ClassVar[str] = "ARM"
    family: ClassVar[str] = "coupled samples"
    reference: ClassVar[str] = "Yin & Zhou 2019, arXiv 1807.11143"

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: 2."""
        return 2

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of the mean of f at the pair and of the estimate."""
        odds = log_odds(logits)
        noise = draw_logistic(odds, n, generator)
        value, difference = _at_pair(f, logits, _pair(odds, noise))
        g = difference * (torch.sigmoid(noise) - 0.5)
        return value, pair_row(g, logits, odds.isfinite())


@dataclass(frozen=True, repr=False)
class DisARM(BinaryEstimator, SampledValueEstimator):
    r"""DisARM, or U2G: ARM averaged over u given the pair.

    .. math:: \hat g_\phi = \tfrac12 (f(b) - f(b'))\,(-1)^{b'}\,1[b \ne b']\,\sigma(|\phi|)

    Unbiased for every f; two evaluations; never worse than ARM. Dong, Mnih & Tucker 2020
    (2006.10680); Yin, Ho, Yan, Qian & Zhou 2020 (2006.06448).

    Example:
        >>> DisARM()
        DisARM
    """

    name: ClassVar[str] = "DisARM"
    family: ClassVar[str] = "coupled samples"
    reference: ClassVar[str] = "Dong et al. 2020, arXiv 2006.10680"
    instead: ClassVar[str] = "CARMS(m=2)"

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: 2."""
        return 2

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return the classes of n antithetic pairs."""
        odds = log_odds(logits)
        return _pair(odds, draw_logistic(odds, n, generator))

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability of each pair: a variable never shows its rarer class twice."""
        odds = log_odds(logits)
        rarer = torch.sigmoid(-odds.abs())
        at_rarer = (classes == (odds < 0).long()).sum(0)
        each = torch.where(at_rarer == 1, rarer, torch.where(at_rarer == 0, 1 - 2 * rarer, 0.0))
        return each.prod(-1)

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f at the pair and of the estimate."""
        odds = log_odds(logits)
        value, difference = _at_pair(f, logits, classes)
        g = 0.5 * difference * (classes[0] - classes[1]) * torch.sigmoid(odds.abs())
        return value, pair_row(g, logits, odds.isfinite())


def _pair(
    odds: Float[Tensor, "*batch N"], noise: Float[Tensor, "n *batch N"]
) -> Int[Tensor, "2 n *batch N"]:
    """Return b and b' from logistic noise log u - log(1 - u)."""
    return torch.stack([noise > -odds, noise < odds]).long()


def _at_pair(f: Loss, logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (f(b) + f(b'))/2 with f's graph, and f(b) - f(b') for each variable, [n *batch 1]."""
    values = evaluate(f, one_hot(classes, logits.detach()))
    difference = (values[0] - values[1]).detach().to(torch.float64)
    return values.mean(0), difference.unsqueeze(-1)
