"""A group: G sampled sequences for one prompt, with what an estimator may know of them.

Sequences are padded to T tokens. What stands in padded positions never matters.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Group"]

# Fields whose last axis is not that of sequences, with the axes that follow it.
_AXES = {
    "rewards": 0,
    "lengths": 0,
    "log_prob": 1,
    "rollout_log_prob": 1,
    "reference_log_prob": 1,
    "logits": 2,
    "reference_logits": 2,
    "token_rewards": 1,
}


@dataclass(frozen=True, eq=False)
class Group:
    r"""G sequences y_1, ..., y_G for one prompt, sampled from the rollout policy mu.

    Any batch of groups may stand in front. The groups of a batch are independent, unless `prompts`
    says that the last axis of the batch holds the prompts of one training batch, which share the
    statistics of that batch.

    Attributes:
        rewards: R_i, [*batch, G].
        lengths: n_i, the tokens of each sequence with its end token, [*batch, G].
        log_prob: log pi(y_t | y_<t), [*batch, G, T].
        rollout_log_prob: log mu(y_t | y_<t), [*batch, G, T]. By default that of the policy, without
            its graph: the group is on policy.
        reference_log_prob: The same of the reference policy of a KL penalty, or None.
        logits: Of the policy at all tokens of the vocabulary, [*batch, G, T, V], or None. Terms
            that sum over the vocabulary need it.
        reference_logits: The same of the reference policy, or None.
        token_rewards: Dense rewards, [*batch, G, T], whose sums are `rewards`; None where the
            reward comes at the end.
        greedy_rewards: Reward of the greedy sequence of each prompt, [*batch], or None. ReMax needs
            it.
        prompts: Whether the last axis of the batch holds the prompts of one training batch.

    Example:
        >>> log_prob = torch.tensor([[-0.5, -1.0], [-0.7, 0.0]])
        >>> group = Group(torch.tensor([1.0, 0.0]), torch.tensor([2, 1]), log_prob)
        >>> group.mask
        tensor([[ True,  True],
                [ True, False]])
        >>> group.size, group.horizon
        (2, 2)
    """

    rewards: Float[Tensor, "*batch G"]
    lengths: Int[Tensor, "*batch G"]
    log_prob: Float[Tensor, "*batch G T"]
    rollout_log_prob: Float[Tensor, "*batch G T"] = None  # type: ignore[assignment]
    reference_log_prob: Float[Tensor, "*batch G T"] | None = None
    logits: Float[Tensor, "*batch G T V"] | None = None
    reference_logits: Float[Tensor, "*batch G T V"] | None = None
    token_rewards: Float[Tensor, "*batch G T"] | None = None
    greedy_rewards: Float[Tensor, "*batch"] | None = None
    prompts: bool = False

    def __post_init__(self) -> None:
        if getattr(self, "rollout_log_prob", None) is None:
            object.__setattr__(self, "rollout_log_prob", self.log_prob.detach())
        shape = self.rewards.shape
        if not shape or not shape[-1]:
            raise ValueError(f"rewards must be [*batch, G] with G of at least 1, not {list(shape)}")
        for name, after in _AXES.items():
            value = getattr(self, name)
            if value is None:
                continue
            wanted = [*shape, *value.shape[len(shape) :]]
            if value.ndim != len(shape) + after or list(value.shape) != wanted:
                axes = ["G", "G, T", "G, T, V"][after]
                raise ValueError(
                    f"{name} must be [*batch, {axes}] with [*batch, G] = {list(shape)} as the "
                    f"rewards have, not {list(value.shape)}"
                )
        if self.prompts and len(shape) < 2:
            raise ValueError("prompts=True needs rewards [*batch, B, G], B prompts in one batch")

    @property
    def size(self) -> int:
        """G, the number of sequences."""
        return self.rewards.shape[-1]

    @property
    def horizon(self) -> int:
        """T, the number of tokens with padding."""
        return self.log_prob.shape[-1]

    @property
    def mask(self) -> Bool[Tensor, "*batch G T"]:
        """Where a position holds a token and not padding."""
        steps = torch.arange(self.horizon, device=self.lengths.device)
        return steps < self.lengths.unsqueeze(-1)

    def joint(self) -> "Group":
        """Return the group as [*batch, B, G], the prompts of one training batch; B is 1 for one."""
        if self.prompts:
            return self
        changed: dict[str, Any] = {}
        for name, after in _AXES.items():
            value = getattr(self, name)
            if value is not None:
                changed[name] = value.unsqueeze(-2 - after)
        if self.greedy_rewards is not None:
            changed["greedy_rewards"] = self.greedy_rewards.unsqueeze(-1)
        return replace(self, **changed, prompts=True)

    def to(self, dtype: torch.dtype) -> "Group":
        """Return the group with all its numbers in another dtype, lengths as they are.

        Args:
            dtype: A floating-point type.
        """
        changed: dict[str, Any] = {
            field.name: value.to(dtype)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor) and field.name != "lengths"
        }
        return replace(self, **changed)
