"""Advantages that nobody means to have, as losses of trainers have computed them by mistake."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.advantages import Advantage, centred_rewards
from gradlab.sequences.normalized_advantages import BatchStd, GroupStd

__all__ = ["BatchCentred", "NormalizedAgain", "StdTwice"]


@dataclass(frozen=True, repr=False)
class StdTwice(Advantage):
    """std-twice, (R_i - m)/(sd + eps)^2: standardized rewards that are divided once more.

    Args:
        eps: What is added.

    Example:
        >>> StdTwice()
        std-twice
    """

    eps: float = 0.0

    name: ClassVar[str] = "std-twice"
    says: ClassVar[str] = "the rewards are divided by their deviation twice"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return (R_i - m)/(sd + eps)^2."""
        once = GroupStd(self.eps).of_rewards(rewards, lengths)
        deviation = rewards.std(-1, keepdim=True) + self.eps
        return once / torch.where(deviation > 0, deviation, 1.0)


@dataclass(frozen=True, repr=False)
class NormalizedAgain(Advantage):
    """normalized-again, standardized in the group and then in the batch.

    Args:
        eps: What is added to both deviations.

    Example:
        >>> NormalizedAgain()
        normalized-again
    """

    eps: float = 0.0

    name: ClassVar[str] = "normalized-again"
    says: ClassVar[str] = "the rewards are standardized in the group and in the batch"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return them standardized twice."""
        return BatchStd(self.eps).of_rewards(
            GroupStd(self.eps).of_rewards(rewards, lengths), lengths
        )


@dataclass(frozen=True, repr=False)
class BatchCentred(Advantage):
    """batch-centred, the reward minus the mean of the whole batch.

    Example:
        >>> BatchCentred()
        batch-centred
    """

    name: ClassVar[str] = "batch-centred"
    says: ClassVar[str] = "the mean of the batch contains the own reward"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R - mean of all."""
        return centred_rewards(rewards.flatten(-2)).view_as(rewards)
