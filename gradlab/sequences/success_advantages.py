"""Advantages whose target is not J: the best of a group, pass@k, the likelihood of success.

For those of binary rewards, a reward above 0 counts as correct.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.advantages import (
    Advantage,
    Centred,
    Greedy,
    LeaveOneOut,
    LengthWeighted,
    OptimalToken,
    Raw,
)
from gradlab.sequences.normalized_advantages import (
    BatchStd,
    GroupStd,
    NonzeroScaled,
    TokenWhitened,
)
from gradlab.sequences.shrunk_advantages import Shrunk

__all__ = ["ADVANTAGES", "MaxMinusSecond", "MaximumLikelihood", "PassAtK"]


@dataclass(frozen=True, repr=False)
class MaxMinusSecond(Advantage):
    r"""max-second: the best sample gets R_(1) - R_(2), all others 0.

    Its mean is 1/G times the gradient of E max_i R_i: leaving the best one out costs the group
    that difference. A tie gives 0.

    Example:
        >>> MaxMinusSecond().of_rewards(torch.tensor([[3.0, 1.0, 0.5]]), torch.tensor([[1, 1, 1]]))
        tensor([[2., 0., 0.]])
    """

    name: ClassVar[str] = "max-second"
    aliases: ClassVar[tuple[str, ...]] = ("max-minus-second", "grpo-passk", "pass@G")
    target: ClassVar[str] = "max@G"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return the difference at the best sample."""
        if rewards.shape[-1] == 1:
            return torch.zeros_like(rewards)
        best = rewards.topk(2, -1)
        lead = best.values[..., :1] - best.values[..., 1:]
        return torch.zeros_like(rewards).scatter(-1, best.indices[..., :1], lead)

    def factor(self, g: int) -> float | None:
        """Return 1/G.

        Args:
            g: G.
        """
        return 1 / g


@dataclass(frozen=True, repr=False)
class PassAtK(Advantage):
    r"""pass@k: k at correct samples, k rho(G - 1, K, k - 1) at the K' = G - K others. PKPO.

    rho(N, c, k) = 1 - C(N - c, k)/C(N, k) is the chance that k of N contain one of c. The mean is
    the gradient of pass@k = 1 - (1 - p)^k. Binary rewards.

    Args:
        k: At most G.

    Example:
        >>> PassAtK(k=2).of_rewards(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1, 1, 1]]))
        tensor([[2., 1., 1.]])
    """

    k: int = 2

    name: ClassVar[str] = "pass@k"
    aliases: ClassVar[tuple[str, ...]] = ("pkpo", "passk")
    target: ClassVar[str] = "pass@k"

    def __post_init__(self) -> None:
        check_int("k", self.k, 1)

    @property
    def least(self) -> int:  # type: ignore[override]
        """The smallest group: k."""
        return self.k

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return k or k rho."""
        g, k = rewards.shape[-1], self.k
        if g < k:
            raise ValueError(f"pass@k with k={k} needs groups of at least {k} samples, not {g}")
        correct = rewards > 0
        chance = [1 - math.comb(g - 1 - c, k - 1) / math.comb(g - 1, k - 1) for c in range(g)]
        table = torch.tensor([*chance, 1.0], dtype=rewards.dtype, device=rewards.device)
        found = table[correct.sum(-1, keepdim=True)]
        return k * torch.where(correct, 1.0, found)


@dataclass(frozen=True, repr=False)
class MaximumLikelihood(Advantage):
    r"""max-likelihood: A_i = G/K at the K correct samples, 0 at others and where K = 0. MaxRL.

    The mean is [1 - (1 - p)^G]/p grad p, the gradient of sum_{k <= G} pass@k / k, which tends to
    log p. Binary rewards.

    Example:
        >>> MaximumLikelihood().of_rewards(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 1]]))
        tensor([[2., 0.]])
    """

    name: ClassVar[str] = "max-likelihood"
    aliases: ClassVar[tuple[str, ...]] = ("maxrl",)
    target: ClassVar[str] = "sum of pass@k / k"
    least: ClassVar[int] = 1

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return G/K at correct samples."""
        correct = (rewards > 0).to(rewards.dtype)
        return correct * (rewards.shape[-1] / correct.sum(-1, keepdim=True).clamp(min=1))


ADVANTAGES: dict[str, type[Advantage]] = {
    cls.name: cls
    for cls in (
        *(Raw, LeaveOneOut, Centred, GroupStd, BatchStd, TokenWhitened, Greedy, LengthWeighted),
        *(NonzeroScaled, OptimalToken, MaxMinusSecond, PassAtK, MaximumLikelihood, Shrunk),
    )
}
"""The advantages by their names."""
