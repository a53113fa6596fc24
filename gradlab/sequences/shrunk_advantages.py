r"""An advantage whose baseline borrows from the other prompts of the training batch."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.advantages import Advantage, LeaveOneOut

__all__ = ["Shrunk"]


@dataclass(frozen=True, repr=False)
class Shrunk(Advantage):
    r"""shrunk, the reward minus a mean that is shrunk to that of other prompts. James-Stein.

    .. math:: A_i = R_i - (1 - \lambda) \operatorname{mean}_{j \ne i} R_j - \lambda \bar m, \quad
        \lambda = \frac{v}{v + s + \epsilon}

    Over the other prompts of the batch, :math:`\bar m` is the mean of their means, s the variance
    of these and v the mean of var(R)/G. No statistic contains a reward of the own prompt but the
    mean of the others, so the mean of the estimate is the gradient of J. With one prompt it is
    RLOO; with two s is 0, so the baseline is the mean of the other prompt.

    Args:
        eps: What is added to v + s; the published code has 1e-6.

    Example:
        >>> rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> Shrunk().of_rewards(rewards, torch.ones(3, 2).long())
        tensor([[ 1.0000, -1.0000],
                [ 0.5000,  0.5000],
                [-0.5000, -0.5000]])
    """

    eps: float = 0.0

    name: ClassVar[str] = "shrunk"
    aliases: ClassVar[tuple[str, ...]] = ("shrinkage", "james-stein", "jspo")
    couples: ClassVar[bool] = True

    def of_rewards(
        self,
        rewards: Float[Tensor, "*batch B G"],
        lengths: Int[Tensor, "*batch B G"],
        greedy: Float[Tensor, "*batch B"] | None = None,
    ) -> Float[Tensor, "*batch B G"]:
        """Return R_i minus the shrunk baseline."""
        own = LeaveOneOut().of_rewards(rewards, lengths)
        prompts, g = rewards.shape[-2:]
        if prompts == 1 or g == 1:
            return own
        means = rewards.mean(-1)
        others = ~torch.eye(prompts, dtype=torch.bool, device=rewards.device)
        weight = others.to(rewards.dtype) / (prompts - 1)
        middle = means @ weight
        apart = means.unsqueeze(-1) - middle.unsqueeze(-2)  # of prompt k from the middle of q
        s = (apart.square() * weight).sum(-2)
        centred = rewards - means.unsqueeze(-1)
        v = (centred.square().sum(-1) / ((g - 1) * g)) @ weight
        total = v + s + self.eps
        share = (v / torch.where(total > 0, total, 1.0)).unsqueeze(-1)
        return (1 - share) * own + share * (rewards - middle.unsqueeze(-1))
