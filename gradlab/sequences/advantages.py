"""Advantages: what the rewards of a group say about each of its sequences.

Rewards are [*batch, B, G]: B prompts of one training batch, G sequences each. A group whose rewards
are all equal gets 0, never NaN; so does a group of one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.choices import Choice
from gradlab.sequences.group import Group

__all__ = [
    "Advantage",
    "Centred",
    "Greedy",
    "LeaveOneOut",
    "LengthWeighted",
    "OptimalToken",
    "Raw",
    "centred_rewards",
    "returns_to_go",
]


class Advantage(Choice, ABC):
    """A rule that gives each sequence of a group its advantage A_i.

    Declares:
        target: Whose gradient E[sum_i a_i A_i s_i] is, on policy with SUM: "J", "pass@k", "max@G",
            "sum of pass@k / k", or "h(p)", a monotone function of the success probability that
            only binary rewards have.
        least: The smallest group for which it means anything.
        per_token: Whether A depends on the token, so that sums over classes of (R, n) do not work.
        couples: Whether prompts of one training batch share a statistic.
        says: Why the estimate is not a multiple of the gradient of J, where it is not.

    Example:
        >>> LeaveOneOut().of_rewards(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2, 1, 3]]))
        tensor([[ 1.0000, -0.5000, -0.5000]])
    """

    target: ClassVar[str] = "J"
    least: ClassVar[int] = 2
    per_token: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    says: ClassVar[str] = ""

    @abstractmethod
    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return A_i.

        Args:
            rewards: R_i.
            lengths: n_i.
            greedy: The reward of each prompt's greedy sequence; ReMax needs it.
        """

    def of_group(
        self, group: Group, rewards: Float[Tensor, "*batch B G"]
    ) -> Float[Tensor, "*batch B G #T"]:
        """Return A_it, with a last axis of length 1 where it is the same at all tokens.

        Args:
            group: The sequences, [*batch, B, G].
            rewards: R_i, after a KL penalty in the reward.
        """
        return self.of_rewards(rewards, group.lengths, group.greedy_rewards).unsqueeze(-1)

    def factor(self, g: int) -> float | None:
        """Return what its mean is times the target's gradient; None where `says` has a reason.

        Args:
            g: Sequences in a group.
        """
        return None if self.says else 1.0


def returns_to_go(values: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T"]:
    """Return the sums over the own and all later tokens.

    Args:
        values: A number per token, 0 where padded.

    Example:
        >>> returns_to_go(torch.tensor([1.0, 2.0, 3.0]))
        tensor([6., 5., 3.])
    """
    return values.flip(-1).cumsum(-1).flip(-1)


def centred_rewards(rewards: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch G"]:
    """Return R - m, exactly 0 where all are equal.

    Args:
        rewards: R_i.

    Example:
        >>> centred_rewards(torch.tensor([0.1, 0.1, 0.1]))
        tensor([0., 0., 0.])
    """
    equal = (rewards == rewards[..., :1]).all(-1, keepdim=True)
    return torch.where(equal, 0.0, rewards - rewards.mean(-1, keepdim=True))


@dataclass(frozen=True, repr=False)
class Raw(Advantage):
    r"""raw, the reward minus a constant: A_i = R_i - b. REINFORCE; Williams 1992.

    With dense rewards A_it is the sum of the rewards from token t on, minus b.

    Args:
        baseline: b, which must not depend on the sequence.

    Example:
        >>> Raw(baseline=0.5)
        raw(baseline=0.5)
    """

    baseline: float = 0.0

    name: ClassVar[str] = "raw"
    aliases: ClassVar[tuple[str, ...]] = ("reward", "none")
    least: ClassVar[int] = 1

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R_i - b."""
        return rewards - self.baseline

    def of_group(
        self, group: Group, rewards: Float[Tensor, "*batch B G"]
    ) -> Float[Tensor, "*batch B G #T"]:
        """Return the rewards to go minus b."""
        if group.token_rewards is None:
            return super().of_group(group, rewards)
        dense = torch.where(group.mask, group.token_rewards, 0.0)
        return returns_to_go(dense) - self.baseline


@dataclass(frozen=True, repr=False)
class LeaveOneOut(Advantage):
    r"""loo, the reward minus the mean of the others: A_i = R_i - mean_{j != i} R_j. RLOO.

    It is G/(G - 1) (R_i - m). Implementations differ on a group of one: some keep the raw reward,
    some give 0, as here.

    Example:
        >>> LeaveOneOut()
        loo
    """

    name: ClassVar[str] = "loo"
    aliases: ClassVar[tuple[str, ...]] = ("leave-one-out", "rloo")

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return G/(G - 1) (R_i - m)."""
        g = rewards.shape[-1]
        return centred_rewards(rewards) * (g / max(g - 1, 1))


@dataclass(frozen=True, repr=False)
class Centred(Advantage):
    r"""centred, the reward minus the group's mean: A_i = R_i - m. Dr. GRPO.

    The own reward is in the mean, so the estimate is (G - 1)/G times that of `loo`.

    Example:
        >>> Centred().factor(4)
        0.75
    """

    name: ClassVar[str] = "centred"
    aliases: ClassVar[tuple[str, ...]] = ("centered", "mean", "no-std")

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R_i - m."""
        return centred_rewards(rewards)

    def factor(self, g: int) -> float | None:
        """Return (G - 1)/G.

        Args:
            g: G.
        """
        return (g - 1) / g


@dataclass(frozen=True, repr=False)
class Greedy(Advantage):
    r"""greedy, the reward minus that of the greedy sequence: A_i = R_i - R(greedy). ReMax.

    Example:
        >>> Greedy().least
        1
    """

    name: ClassVar[str] = "greedy"
    aliases: ClassVar[tuple[str, ...]] = ("remax",)
    least: ClassVar[int] = 1

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R_i - R(greedy)."""
        if greedy is None:
            raise ValueError("ReMax needs greedy_rewards, the reward of the greedy sequence")
        return rewards - greedy.unsqueeze(-1)


@dataclass(frozen=True, repr=False)
class LengthWeighted(Advantage):
    r"""length-weighted, A_i = R_i - sum_j n_j R_j / sum_j n_j. OPO.

    Example:
        >>> LengthWeighted()
        length-weighted
    """

    name: ClassVar[str] = "length-weighted"
    aliases: ClassVar[tuple[str, ...]] = ("opo",)
    says: ClassVar[str] = "the length-weighted baseline contains the own sample"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R_i minus the mean over the group's tokens."""
        centred, n = centred_rewards(rewards), lengths.clamp(min=1).to(rewards.dtype)
        return centred - (n * centred).sum(-1, keepdim=True) / n.sum(-1, keepdim=True)


@dataclass(frozen=True, repr=False)
class OptimalToken(Advantage):
    r"""optimal-token, A_it = G_it - B_t with the baseline that weighs by squared scores. OTB.

    .. math:: B_t = \sum_i G_{it} W_{it} / \sum_i W_{it}, \quad
        W_{it} = \sum_{j \le t} (1 - 2 \pi_{ij} + \sum_v \pi_{ijv}^2)

    Each summand is the squared length of a score for the logits. It needs the policy's logits.

    Example:
        >>> OptimalToken().per_token
        True
    """

    name: ClassVar[str] = "optimal-token"
    aliases: ClassVar[tuple[str, ...]] = ("otb",)
    per_token: ClassVar[bool] = True
    says: ClassVar[str] = "the baseline of each token contains the own sample"

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Raise, because rewards and lengths are not enough."""
        raise ValueError("OTB needs the logits of all tokens: give it a Group")

    def of_group(
        self, group: Group, rewards: Float[Tensor, "*batch B G"]
    ) -> Float[Tensor, "*batch B G #T"]:
        """Return the returns to go minus the baseline of their token."""
        if group.logits is None:
            raise ValueError("OTB needs logits, those of the policy at the whole vocabulary")
        mask = group.mask
        p = group.logits.detach().softmax(-1)
        own = torch.where(mask, group.log_prob.detach(), 0.0).exp()
        squared = torch.where(mask, 1 - 2 * own + p.square().sum(-1), 0.0)
        weight = torch.where(mask, squared.cumsum(-1), 0.0)
        if group.token_rewards is None:
            returns = rewards.unsqueeze(-1).expand_as(weight)
        else:
            returns = returns_to_go(torch.where(mask, group.token_rewards, 0.0))
        total = weight.sum(-2, keepdim=True)
        mean = (weight * returns).sum(-2, keepdim=True) / torch.where(total > 0, total, 1.0)
        return torch.where(mask, returns - mean, 0.0)
