"""The log-probabilities of sampled tokens, made safe: padding counts as nothing, -inf is finite.

A token of log-probability -inf has no score, so its coefficient is 0.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.sequences.group import Group

__all__ = ["RATIOS", "Tokens", "safe_exp"]

RATIOS = ("none", "token", "prefix", "sequence", "geometric")
"""What an importance weight may be made of: nothing, the token, all up to it, the sequence, or the
geometric mean over the sequence."""


def safe_exp(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return exp(x), held below the largest number of the dtype so that products stay finite.

    Args:
        x: Any tensor.

    Example:
        >>> safe_exp(torch.tensor([0.0, 1e6])).isfinite()
        tensor([True, True])
    """
    return x.clamp(max=math.log(torch.finfo(x.dtype).max) / 2).exp()


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a loss may know of the tokens of each sequence.

    Args:
        log_prob: Of the policy, with its graph, [*batch, T].
        rollout: log mu, [*batch, T].
        reference: Of the reference policy, or None.
        mask: Where a position holds a token.
        logits: Of the policy at the whole vocabulary, with its graph, [*batch, T, V], or None.
        reference_logits: The same of the reference policy.

    Example:
        >>> log_prob = torch.tensor([[-1.0, -2.0, 9.0]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> tokens = Tokens.of(log_prob, log_prob - 0.5, None, mask)
        >>> tokens.importance("sequence")
        tensor([[2.7183, 2.7183, 2.7183]])
    """

    log_prob: Float[Tensor, "*batch T"]
    rollout: Float[Tensor, "*batch T"]
    reference: Float[Tensor, "*batch T"] | None
    mask: Bool[Tensor, "*batch T"]
    logits: Float[Tensor, "*batch T V"] | None = None
    reference_logits: Float[Tensor, "*batch T V"] | None = None

    @classmethod
    def of(
        cls,
        log_prob: Float[Tensor, "*batch T"],
        rollout: Float[Tensor, "*batch T"],
        reference: Float[Tensor, "*batch T"] | None,
        mask: Bool[Tensor, "*batch T"],
    ) -> "Tokens":
        """Return the tokens with padding set to 0 and -inf to a finite number.

        Args:
            log_prob: Of the policy.
            rollout: Of the rollout policy.
            reference: Of the reference policy, or None.
            mask: Where a position holds a token.
        """
        known = None if reference is None else _finite(reference.detach(), mask)
        return cls(_finite(log_prob, mask), _finite(rollout.detach(), mask), known, mask)

    @classmethod
    def of_group(cls, group: Group, log_prob: Float[Tensor, "*batch G T"]) -> "Tokens":
        """Return the tokens of a group, with these log-probabilities of the policy.

        Args:
            group: The sequences.
            log_prob: In place of the group's own.
        """
        return cls.of(log_prob, group.rollout_log_prob, group.reference_log_prob, group.mask)

    @property
    def lengths(self) -> Float[Tensor, "*batch 1"]:
        """The number of tokens of each sequence, at least 1."""
        return self.mask.sum(-1, keepdim=True).clamp(min=1).to(self.log_prob.dtype)

    @property
    def log_ratio(self) -> Float[Tensor, "*batch T"]:
        """log pi/mu of each token, 0 where padded."""
        return self.log_prob - self.rollout

    @property
    def log_reference_ratio(self) -> Float[Tensor, "*batch T"]:
        """l_t = log pi/ref of each token, 0 where padded."""
        if self.reference is None:
            raise ValueError("a KL term needs reference_log_prob, and there is none")
        return self.log_prob - self.reference

    def importance(self, ratio: str) -> Float[Tensor, "*batch T"]:
        """Return the importance weight at each token.

        Args:
            ratio: One of `RATIOS`.
        """
        log_ratio = self.log_ratio
        if ratio == "none":
            return torch.ones_like(log_ratio)
        if ratio == "token":
            return safe_exp(log_ratio)
        if ratio == "prefix":
            return safe_exp(log_ratio.cumsum(-1))
        total = log_ratio.sum(-1, keepdim=True)
        whole = total if ratio == "sequence" else total / self.lengths
        return safe_exp(whole).expand_as(log_ratio)


def _finite(log_prob: Tensor, mask: Tensor) -> Tensor:
    floor = -math.log(torch.finfo(log_prob.dtype).max) / 4
    held = torch.where(log_prob == -torch.inf, floor, log_prob)
    return torch.where(mask, held, 0.0)
