"""The unordered set estimator: several configurations drawn without replacement."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import probabilities
from gradlab.checks import check_int
from gradlab.estimators._configurations import (
    StatesEstimator,
    classes_of,
    race,
    states_of,
    values_at,
)
from gradlab.estimators.values import Batch, Estimates, Tuples
from gradlab.loss import Loss

__all__ = ["UnorderedSet"]

# Log-probabilities below count as this: differences keep their digits, and exp is still above 0.
_FLOOR = -600.0


@dataclass(frozen=True, repr=False)
class UnorderedSet(StatesEstimator):
    r"""UNORD(k), the unordered set estimator: k configurations drawn without replacement.

    With P^R(T) the probability to draw the set T, in any order, when R is taken out:

    .. math:: P^R(T) = \sum_{t \in T} \frac{p(t)}{1 - p(R)}\,P^{R \cup t}(T \setminus t), \quad
              r_t = \frac{P^{t}(S \setminus t)}{P^\emptyset(S)}, \quad
              r_{tu} = \frac{P^{tu}(S \setminus tu)}{P^{t}(S \setminus t)}, \quad r_{tt} = 1

    .. math:: \hat g = \sum_{t \in S} p(t)\,r_t \Big[f(t) - \sum_{u \in S}
              p(u)\,r_{tu} f(u)\Big] (t - p)

    Unbiased for every f, exact where k is the number of configurations; 2 <= k <= 8 evaluations; at
    most 4096 configurations. Published code replaces it by the sum over S alone where p(S) > 1 -
    1e-5, which is a bias of that size; this one does not. Kool, van Hoof & Welling 2020
    (2002.06043).

    Args:
        k: Number of configurations that are drawn, from 2 to 8.

    Example:
        >>> UnorderedSet(k=2)
        UNORD(k=2)
    """

    k: int = 2

    name: ClassVar[str] = "UNORD"
    aliases: ClassVar[tuple[str, ...]] = ("Unordered-Set",)
    family: ClassVar[str] = "sums over classes or states"
    reference: ClassVar[str] = "Kool et al. 2020, arXiv 2002.06043"

    def __post_init__(self) -> None:
        check_int("k", self.k, 2, 8)

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: k."""
        return self.k

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return n times k different x in the order in which they are drawn.

        Where there are fewer, the first one stands in for those that miss.
        """
        return classes_of(race(self.log_joint(logits), self.k, n, generator), logits)

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability to draw these x in this order."""
        p = self.log_joint(logits).exp()
        states = states_of(classes, logits)
        left = p.expand(states.shape[1], -1)
        law = p.new_ones(states.shape[1])
        for of_one in states.unsqueeze(-1):
            mass = left.sum(-1)
            stand_in = (of_one == states[0].unsqueeze(-1)).squeeze(-1).to(p.dtype)
            law = law * torch.where(mass > 0, left.gather(-1, of_one).squeeze(-1) / mass, stand_in)
            left = left.scatter(-1, of_one, 0.0)
        return law

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of sum p r f and of the estimate."""
        joint = self.log_joint(logits)
        states = states_of(classes, logits)
        log_p = joint.expand(*states.shape[1:], -1).gather(-1, states.movedim(0, -1))
        log_p = log_p.movedim(-1, 0).clone()
        log_p[1:][states[1:] == states[0]] = -torch.inf  # stand-ins
        rest = joint.expand(*states.shape[1:], -1).scatter(-1, states.movedim(0, -1), -torch.inf)
        r, r_pair = _ratios(log_p.clamp_min(_FLOOR), rest.logsumexp(-1))
        p = probabilities(logits.detach())
        values, x = values_at(f, logits, classes)
        level = values.detach().to(torch.float64)
        level = level - level[0]  # an offset of f costs no digits
        weight = log_p.exp() * r
        baseline = (r_pair * (log_p.exp() * level)).sum(1)
        g = (weight * (level - baseline)).to(p.dtype)[..., None, None] * (x - p)
        return (weight.to(values.dtype) * values).sum(0), g.sum(0).to(logits.dtype)


def _ratios(log_p: Tensor, log_rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return r_t [k, *shape] and r_tu [k, k, *shape] of sets of k configurations [k, *shape].

    `log_rest` is the log of the probability outside the set. One pass over the subsets R of S, from
    large to small, as P^R is needed at S without R only; 1 - p(R) is a sum of what is left.
    """
    k = len(log_p)
    of_set: dict[int, Tensor] = {2**k - 1: torch.zeros_like(log_rest)}
    for taken in range(2**k - 2, -1, -1):
        left = [t for t in range(k) if not taken >> t & 1]
        mass = torch.stack([*(log_p[t] for t in left), log_rest]).logsumexp(0)
        paths = torch.stack([log_p[t] + of_set[taken | 1 << t] for t in left])
        of_set[taken] = paths.logsumexp(0) - mass
    r = torch.stack([of_set[1 << t] - of_set[0] for t in range(k)]).exp()
    r_pair = torch.stack(
        [
            torch.stack([of_set[1 << t | 1 << u] - of_set[1 << t] for u in range(k)])
            for t in range(k)
        ]
    )
    return r, r_pair.exp()
