"""Advantages that are scaled by a statistic of the group or of the whole training batch.

Such a statistic contains the own reward, which is where their bias comes from.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.advantages import Advantage, centred_rewards, returns_to_go
from gradlab.sequences.group import Group

__all__ = ["BatchStd", "GroupStd", "NonzeroScaled", "TokenWhitened"]


@dataclass(frozen=True, repr=False)
class GroupStd(Advantage):
    r"""group-std, standardized within the group: A_i = (R_i - m)/(sd + eps), sd with G - 1. GRPO.

    For binary rewards the mean is c_G(p) grad p: the direction is right, and the size depends on
    the difficulty of the prompt, except at G = 2. For other rewards the direction changes too.

    Args:
        eps: What trainers add: 1e-4 (TRL) or 1e-6 (verl). The formula of the paper has none.

    Example:
        >>> GroupStd(eps=1e-4)
        group-std(eps=0.0001)
    """

    eps: float = 0.0

    name: ClassVar[str] = "group-std"
    aliases: ClassVar[tuple[str, ...]] = ("std", "group", "normalized", "grpo")
    target: ClassVar[str] = "h(p)"
    says: ClassVar[str] = (
        "the group's standard deviation depends on the own reward and on the difficulty of the "
        "prompt"
    )

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return (R_i - m)/(sd + eps)."""
        centred = centred_rewards(rewards)
        return _standardized(centred, _deviation(centred, (-1,), rewards.shape[-1]), self.eps)


@dataclass(frozen=True, repr=False)
class BatchStd(Advantage):
    r"""batch-std: A_i = (R_i - m)/(sd_batch + eps), sd over all rewards of the training batch.

    `scale_rewards="batch"` of TRL, Lite PPO. One factor for all prompts, which depends on the own
    reward: a bias of the order of one over the batch.

    Args:
        eps: What is added to the deviation.

    Example:
        >>> BatchStd()
        batch-std
    """

    eps: float = 0.0

    name: ClassVar[str] = "batch-std"
    aliases: ClassVar[tuple[str, ...]] = ("batch", "batch-normalized")
    couples: ClassVar[bool] = True
    says: ClassVar[str] = "the standard deviation of the batch contains the own reward"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return (R_i - m)/(sd_batch + eps)."""
        every = centred_rewards(rewards.flatten(-2))
        deviation = _deviation(every, (-1,), every.shape[-1]).unsqueeze(-1)
        return _standardized(centred_rewards(rewards), deviation, self.eps)


@dataclass(frozen=True, repr=False)
class TokenWhitened(Advantage):
    r"""whitened: returns to go, whitened over all tokens of the training batch. REINFORCE++.

    .. math:: A_{it} = (G_{it} - \bar G) / \sqrt{\mathrm{var}(G) + \epsilon}

    Mean and variance are over tokens, so long sequences count more, and contain the own sequence.

    Args:
        centred: Subtract the group's mean first: REINFORCE++-baseline.
        eps: Added to the variance.

    Example:
        >>> TokenWhitened(centred=True)
        whitened(centred=true)
    """

    centred: bool = False
    eps: float = 0.0

    name: ClassVar[str] = "whitened"
    aliases: ClassVar[tuple[str, ...]] = ("token-whitened",)
    couples: ClassVar[bool] = True
    says: ClassVar[str] = (
        "the baseline is a mean over tokens, in which the own sequence counts by its length"
    )

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return the whitened rewards, each counted once per token."""
        values = centred_rewards(rewards) if self.centred else rewards
        weights = lengths.to(values.dtype)
        return self._whitened(values, weights, dims=(-2, -1))

    def of_group(
        self, group: Group, rewards: Float[Tensor, "*batch B G"]
    ) -> Float[Tensor, "*batch B G #T"]:
        """Return the whitened returns to go."""
        if group.token_rewards is None or self.centred:
            return super().of_group(group, rewards)
        dense = torch.where(group.mask, group.token_rewards, 0.0)
        mask = group.mask.to(dense.dtype)
        return self._whitened(returns_to_go(dense), mask, dims=(-3, -2, -1)) * mask

    def _whitened(self, values: Tensor, weights: Tensor, dims: tuple[int, ...]) -> Tensor:
        count = weights.sum(dims, keepdim=True)
        flat, counted = values.flatten(-len(dims)), weights.flatten(-len(dims)) > 0
        first = flat.gather(-1, counted.int().argmax(-1, keepdim=True))
        equal = ((flat == first) | ~counted).all(-1).reshape(count.shape)
        mean = (values * weights).sum(dims, keepdim=True) / count
        centred = torch.where(equal, 0.0, values - mean)
        squares = (centred.square() * weights).sum(dims, keepdim=True)
        variance = squares / (count - 1).clamp(min=1) + self.eps
        return centred / torch.where(variance > 0, variance, 1.0).sqrt()


@dataclass(frozen=True, repr=False)
class NonzeroScaled(Advantage):
    r"""nonzero-scaled, A_i = (B G / #{R != 0}) (R_i - m), counted in the training batch. GPG.

    Example:
        >>> NonzeroScaled()
        nonzero-scaled
    """

    name: ClassVar[str] = "nonzero-scaled"
    aliases: ClassVar[tuple[str, ...]] = ("gpg",)
    couples: ClassVar[bool] = True
    says: ClassVar[str] = "the scale counts the rewards of the batch that are not 0, also the own"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return the scaled R_i - m."""
        nonzero = (rewards != 0).sum((-2, -1), keepdim=True).clamp(min=1)
        scale = rewards.shape[-2] * rewards.shape[-1] / nonzero.to(rewards.dtype)
        return scale * centred_rewards(rewards)


def _standardized(centred: Tensor, deviation: Tensor, eps: float) -> Tensor:
    """Return centred / (deviation + eps), 0 where both are 0."""
    return centred / torch.where(deviation + eps > 0, deviation + eps, 1.0)


def _deviation(centred: Tensor, dims: tuple[int, ...], count: Tensor | int) -> Tensor:
    below = count.clamp(min=2) - 1 if isinstance(count, Tensor) else max(count - 1, 1)
    return (centred.square().sum(dims, keepdim=True) / below).sqrt()
