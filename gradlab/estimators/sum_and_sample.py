"""Sum-and-sample: the most probable configurations are summed over, the others sampled."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import probabilities
from gradlab.checks import check_int
from gradlab.estimators._configurations import (
    MAX_STATES,
    StatesEstimator,
    classes_of,
    race,
    states_of,
    values_at,
)
from gradlab.estimators.values import Batch, Estimates, Tuples
from gradlab.loss import Loss

__all__ = ["SumAndSample"]


@dataclass(frozen=True, repr=False)
class SumAndSample(StatesEstimator):
    r"""SAS(k): the k most probable configurations summed over, one sample of the others.

    With T these k (of equal ones the first), x ~ p given x not in T, and s(x) = x - p:

    .. math:: \hat g = \sum_{t \in T} p(t) f(t)\,s(t) + (1 - p(T))\,f(x)\,s(x)

    Unbiased for every f; k + 1 evaluations; at most 4096 configurations. Like REINFORCE without a
    baseline it feels an offset of f. Liu, Regier, Tripuraneni, Jordan & McAuliffe 2019
    (1810.04777).

    Args:
        k: Number of configurations that are summed over, at least 1.

    Example:
        >>> SumAndSample(k=1)
        SAS(k=1)
    """

    k: int = 1

    name: ClassVar[str] = "SAS"
    aliases: ClassVar[tuple[str, ...]] = ("Sum-And-Sample",)
    family: ClassVar[str] = "sums over classes or states"
    reference: ClassVar[str] = "Liu et al. 2019, arXiv 1810.04777"

    def __post_init__(self) -> None:
        check_int("k", self.k, 1, MAX_STATES)

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: k + 1, of weight 0 where there are fewer x."""
        return self.k + 1

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return n samples of x given that it is not one of the k most probable."""
        return classes_of(race(self._split(logits)[2], 1, n, generator), logits)

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability of each x given that it is not one of the k most probable."""
        return torch.softmax(self._split(logits)[2], -1)[states_of(classes[0], logits)]

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the weighted sums of f and of f s."""
        top, weight, _ = self._split(logits)
        summed = classes_of(top.movedim(-1, 0), logits).unsqueeze(1)
        points = torch.cat([summed.expand(-1, *classes.shape[1:]), classes])
        weight = weight.movedim(-1, 0).unsqueeze(1).expand(points.shape[:-1])
        p = probabilities(logits.detach())
        values, x = values_at(f, logits, points)
        g = (weight * values.detach())[..., None, None].to(p.dtype) * (x - p)
        return (weight.to(values.dtype) * values).sum(0), g.sum(0).to(logits.dtype)

    def _split(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return T, k indices; the k + 1 weights; and log p of x not in T, of all if T is all."""
        joint = self.log_joint(logits)
        order = joint.sort(dim=-1, descending=True, stable=True).indices
        rank = torch.arange(self.k, device=joint.device)
        top = order[..., rank.clamp_max(joint.shape[-1] - 1)]
        inside = torch.where(rank < joint.shape[-1], joint.gather(-1, top).exp(), 0.0)
        # An x that is impossible must not be met: the most probable one stands in, with weight 0.
        top = torch.where(inside > 0, top, order[..., :1])
        rest = joint.scatter(-1, top, -torch.inf)
        outside = rest.exp().sum(-1, keepdim=True)
        return top, torch.cat([inside, outside], -1), torch.where(outside > 0, rest, joint)
