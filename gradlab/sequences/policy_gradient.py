"""A policy gradient: what it weighs each token's score with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.group import Group

__all__ = ["PolicyGradient"]


@dataclass(frozen=True)
class PolicyGradient:
    r"""The estimate sum_it c_it grad log pi(y_it | y_i,<t), an ascent direction.

    Args:
        advantage: raw, loo or centred.
        aggregation: SUM.
        g: Sequences per group.
    """

    advantage: str = "raw"
    aggregation: str = "SUM"
    g: int = 2

    @property
    def factorizes(self) -> bool:
        """Whether c_it = advantages_i * token_weights_it(sign of advantages_i) + own_it."""
        return True

    def coefficients(self, group: Group) -> Float[Tensor, "*batch G T"]:
        """Return c_it, 0 where padded.

        Args:
            group: The sequences.
        """
        factors = self.advantages(group.rewards, group.lengths)
        return factors.unsqueeze(-1) * group.mask.to(factors.dtype)

    def advantages(
        self, rewards: Float[Tensor, "*batch G"], lengths: Int[Tensor, "*batch G"]
    ) -> Float[Tensor, "*batch G"]:
        """Return the factor that couples the group, aggregation and group size included.

        Args:
            rewards: R_i.
            lengths: n_i.
        """
        g = rewards.shape[-1]
        if self.advantage == "raw":
            return rewards / g
        centred = rewards - rewards.mean(-1, keepdim=True)
        return centred / max(g - 1, 1) if self.advantage == "loo" else centred / g

    def token_weights(
        self,
        log_prob: Float[Tensor, "*batch T"],
        rollout_log_prob: Float[Tensor, "*batch T"],
        lengths: Int[Tensor, "*batch"],
        reference_log_prob: Float[Tensor, "*batch T"] | None = None,
        *,
        sign: int = 1,
    ) -> Float[Tensor, "*batch T"]:
        """Return what depends on the own sequence only, for an advantage of this sign; 0 if padded.

        Args:
            log_prob: Of the policy.
            rollout_log_prob: Of the rollout policy.
            lengths: Tokens of each sequence.
            reference_log_prob: Of the reference policy, or None.
            sign: 1 or -1.
        """
        steps = torch.arange(log_prob.shape[-1], device=lengths.device)
        return (steps < lengths.unsqueeze(-1)).to(log_prob.dtype)
