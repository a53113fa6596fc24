"""What is known of some enumerated sequences: all that estimators may ask, block by block."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.group import Group
from gradlab.sequences.task import rewarded
from gradlab.sequences.tree import Leaves

__all__ = ["Known", "known_of"]

# Blocks of a policy of which what is known is kept.
_KEPT = 8


def known_of(on: EnumeratedPolicy, leaves: Leaves) -> "Known":
    """Return what is known of one block of sequences; the last few blocks are kept.

    Args:
        on: The policy on a task.
        leaves: A block of its sequences.
    """
    kept: dict[Leaves, Known] = vars(on).setdefault("_kept", {})
    if leaves not in kept:
        if len(kept) >= _KEPT:
            kept.clear()
        kept[leaves] = Known(on, leaves)
    return kept[leaves]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of some sequences: all that estimators may ask.

    Args:
        on: The policy on a task.
        leaves: Which sequences.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> on = EnumeratedPolicy(Tabular(3, 3), tasks.parity())
        >>> known = Known(on, next(iter(on.blocks())))
        >>> known.lengths, known.group().size
        (tensor([1]), 1)
    """

    on: EnumeratedPolicy
    leaves: Leaves

    @cached_property
    def lengths(self) -> Int[Tensor, " n"]:
        """n_i."""
        return torch.full((self.leaves.count,), self.leaves.depth + 1)

    @cached_property
    def rewards(self) -> Float[Tensor, " n"]:
        """R_i."""
        return self.on.rewards[self.leaves.part]

    @cached_property
    def log_prob(self) -> Float[Tensor, "n T"]:
        """log pi of each token."""
        return self.on.tree.along(self.on.log_pi, self.leaves)

    @cached_property
    def rollout_log_prob(self) -> Float[Tensor, "n T"]:
        """log mu of each token; that of the policy where the sequence is never sampled."""
        if self.on.rollout is None:
            return self.log_prob
        found = self.on.tree.along(self.on.log_mu, self.leaves)
        return torch.where(self.on.sampled[self.leaves.part, None] > 0, found, self.log_prob)

    @cached_property
    def reference_log_prob(self) -> Float[Tensor, "n T"] | None:
        """The same of the reference policy."""
        return None if self.on.log_ref is None else self.on.tree.along(self.on.log_ref, self.leaves)

    @cached_property
    def token_rewards(self) -> Float[Tensor, "n T"] | None:
        """Dense rewards, or None."""
        return rewarded(self.on.task, *self.on.tree.sequences(self.leaves))[1]

    def _logits(self, log_p: list[Tensor]) -> Tensor:
        vocabulary = self.on.task.vocabulary
        found = torch.zeros(
            self.leaves.count, self.on.task.horizon, vocabulary, dtype=log_p[0].dtype
        )
        for t, places in enumerate(self.on.tree.path(self.leaves)):
            found[:, t] = log_p[t][places // vocabulary]
        return found

    @cached_property
    def logits(self) -> Float[Tensor, "n T V"]:
        """log pi of all tokens."""
        return self._logits(self.on.log_pi)

    @cached_property
    def reference_logits(self) -> Float[Tensor, "n T V"] | None:
        """The same of the reference policy."""
        return None if self.on.log_ref is None else self._logits(self.on.log_ref)

    def group(self, *, logits: bool = False) -> Group:
        """Return a batch of groups of one sequence each.

        Args:
            logits: Whether the group has those of the whole vocabulary.
        """

        def one(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.unsqueeze(1)

        return Group(
            self.rewards.unsqueeze(1),
            self.lengths.unsqueeze(1),
            self.log_prob.unsqueeze(1),
            self.rollout_log_prob.unsqueeze(1),
            one(self.reference_log_prob),
            one(self.logits) if logits else None,
            one(self.reference_logits) if logits else None,
            one(self.token_rewards),
            self.on.greedy_reward.expand(self.leaves.count),
        )
