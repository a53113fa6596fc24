"""A policy on a task, enumerated once: probabilities, rewards, value and gradient.

Sequences share their prefixes. So a policy is called on the longest contexts only, and sums over
the sequences below a token are weights of this token: a gradient is one backward over them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.exact.enumeration import TooLargeError
from gradlab.sequences.faults import PolicyError, SupportError
from gradlab.sequences.held import HeldPolicy
from gradlab.sequences.policy_contract import Policy, name_of_policy
from gradlab.sequences.task import Task, rewarded
from gradlab.sequences.tree import Leaves, Tree

__all__ = ["BLOCK", "MOST_SEQUENCES", "EnumeratedPolicy"]

MOST_SEQUENCES = 2**20
"""Sequences that are enumerated at most."""

BLOCK = 2**16
"""Sequences of one block."""

# Numbers (rows times tokens times vocabulary) of one call of the policy.
_CALL = 2**17


@dataclass(frozen=True, eq=False)
class EnumeratedPolicy:
    """All sequences of a task under a policy, with those of a rollout and a reference policy.

    Args:
        policy: The policy pi.
        task: The task.
        rollout: The policy mu that samples; by default pi itself.
        reference: The reference policy of a KL penalty, or None.

    Raises:
        TooLargeError: If there are more than 2^20 sequences.
        PolicyError: If a policy breaks its contract.
        RewardError: If the reward does.

    Example:
        >>> from gradlab.sequences import Tabular
        >>> task = Task(lambda tokens, lengths: (lengths == 2).double(), 3, 3, end=2)
        >>> on = EnumeratedPolicy(Tabular(3, 3), task)
        >>> on.tree.size, round(float(on.probabilities.sum()), 12)
        (15, 1.0)
    """

    policy: Policy
    task: Task
    rollout: Policy | None = None
    reference: Policy | None = None

    def __post_init__(self) -> None:
        if self.tree.size > MOST_SEQUENCES:
            raise TooLargeError(
                f"{self.task.name}: {self.task.vocabulary} tokens and horizon {self.task.horizon} "
                f"make {self.tree.size:.3g} sequences, more than the {MOST_SEQUENCES} that are "
                "enumerated; use monte_carlo, or an n-gram policy with an Automaton as the reward"
            )
        _ = self.held, self.held_rollout, self.held_reference

    @property
    def tree(self) -> Tree:
        """All sequences."""
        return self.task.tree

    @cached_property
    def held(self) -> HeldPolicy:
        """The policy."""
        return HeldPolicy(self.policy, self.task)

    @cached_property
    def held_rollout(self) -> HeldPolicy | None:
        """The rollout policy, None where it is the policy."""
        if self.rollout is None:
            return None
        return HeldPolicy(self.rollout, self.task, "rollout policy")

    @cached_property
    def held_reference(self) -> HeldPolicy | None:
        """The reference policy, if there is one."""
        if self.reference is None:
            return None
        return HeldPolicy(self.reference, self.task, "reference policy")

    @cached_property
    def log_pi(self) -> list[Float[Tensor, "_ V"]]:
        """The logarithm of pi of each token after each context, one tensor per depth."""
        return self._log_probs(self.held)

    @cached_property
    def log_mu(self) -> list[Float[Tensor, "_ V"]]:
        """The same of the rollout policy."""
        return self.log_pi if self.held_rollout is None else self._log_probs(self.held_rollout)

    @cached_property
    def log_ref(self) -> list[Float[Tensor, "_ V"]] | None:
        """The same of the reference policy."""
        return None if self.held_reference is None else self._log_probs(self.held_reference)

    @torch.no_grad()
    def _log_probs(self, held: HeldPolicy) -> list[Tensor]:
        found = self.tree.zeros()
        for start, count in self.call_blocks():
            log_p = held.log_probs(self.tree.contexts(self.tree.deepest, start, count))
            for t, part, rows in self.begun(start, count):
                found[t][part] = log_p[rows, t]
        for t, table in enumerate(found):
            wrong = table.isnan().any(-1)
            if wrong.any():
                at = int(wrong.nonzero()[0])
                prefix = self.tree.contexts(t, at, 1)[0, :t].tolist()
                raise PolicyError(
                    f"after the prefix {prefix} the {held.what} has no probabilities: its logits "
                    "contain NaN or +inf, or all are -inf"
                )
        return found

    def call_blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the deepest contexts of each call of a policy, as (start, count)."""
        rows = max(1, _CALL // (self.task.horizon * max(self.task.vocabulary, 8)))
        return self.tree.blocks(rows)

    def begun(self, start: int, count: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield (depth, contexts, rows): where a block of deepest contexts shows others first.

        Args:
            start: The first deepest context.
            count: How many.
        """
        for t, (first, many) in enumerate(self.tree.begun(start, count)):
            if many:
                below = self.tree.width(self.tree.deepest - t)
                row = first * below - start
                yield t, slice(first, first + many), slice(row, row + (many - 1) * below + 1, below)

    def blocks(self) -> Iterator[Leaves]:
        """Yield all sequences, in blocks of bounded size."""
        return self.tree.leaves(max(1, BLOCK // self.task.horizon))

    def _of_sequences(self, log_p: list[Tensor]) -> Tensor:
        return torch.cat([self.tree.along(log_p, part).sum(-1) for part in self.blocks()])

    @cached_property
    def log_probabilities(self) -> Float[Tensor, " S"]:
        """The logarithm of pi of each sequence."""
        return self._of_sequences(self.log_pi)

    @cached_property
    def probabilities(self) -> Float[Tensor, " S"]:
        """The probability of each sequence under the policy."""
        return self.log_probabilities.exp()

    @cached_property
    def sampled(self) -> Float[Tensor, " S"]:
        """The probability of each sequence under the policy that samples."""
        if self.rollout is None:
            return self.probabilities
        return self._of_sequences(self.log_mu).exp()

    @cached_property
    def penalties(self) -> Float[Tensor, " S"]:
        """L = log pi - log ref of each sequence; 0 where it has no probability under pi."""
        if self.log_ref is None:
            raise ValueError("a KL penalty needs a reference policy: give reference=")
        found = self.log_probabilities - self._of_sequences(self.log_ref)
        if (found[self.probabilities > 0] == torch.inf).any():
            raise SupportError(
                "the reference policy has probability 0 where the policy has some: the KL "
                "divergence is infinite"
            )
        return torch.where(self.probabilities > 0, found, 0.0)

    @property
    def divergence(self) -> Float[Tensor, ""]:
        """KL(pi || ref) of whole sequences."""
        return self.probabilities @ self.penalties

    def divergence_weights(self) -> list[Float[Tensor, "_ V"]]:
        """Return what the gradient of the divergence weighs scores with."""
        # The mean is taken off: the scores sum to 0, and an offset would cost digits.
        return self.totals(self.probabilities * (self.penalties - self.divergence))

    @cached_property
    def surrogate(self) -> tuple[Tensor, list[Tensor]]:
        """The surrogate under the rollout policy, and what its gradient weighs scores with."""
        earned, reached = self.totals(self.sampled * self.rewards), self.totals(self.sampled)
        value, weights = torch.zeros((), dtype=torch.float64), []
        for log_pi, r, n in zip(self.log_pi, earned, reached, strict=True):
            visits = n.sum(-1, keepdim=True)
            mean = r.sum(-1, keepdim=True) / visits.clamp_min(1e-300)
            ratio = torch.where(n > 0, log_pi.exp() / (n / visits), 0.0)
            value = value + (ratio * (r - mean * n)).sum()
            weights.append(ratio * r)
        return value, weights

    @cached_property
    def rewards(self) -> Float[Tensor, " S"]:
        """What each sequence earns."""
        found = []
        for number, part in enumerate(self.blocks()):
            tokens, lengths = self.tree.sequences(part)
            if number == 0:
                self._check_reward()
            found.append(rewarded(self.task, tokens, lengths)[0])
        return torch.cat(found)

    def _check_reward(self) -> None:
        """Ask the reward with sequences of every length at once."""
        parts = []
        for depth in range(self.task.horizon):
            if len(self.tree.tokens_from(depth)):
                count = self.tree._power(8, self.tree.width(depth))
                parts.append(self.tree.sequences(self.tree.leaves_of(depth, 0, count)))
        tokens, lengths = (torch.cat(each) for each in zip(*parts, strict=True))
        spread = torch.linspace(0, len(tokens) - 1, min(len(tokens), 64)).long()
        rewarded(self.task, tokens[spread], lengths[spread], check=True)

    def check_support(self) -> None:
        """Raise SupportError unless the rollout policy samples all that the policy does."""
        unseen = (self.sampled == 0) & (self.probabilities > 0)
        if unseen.any():
            raise SupportError(
                f"the rollout policy never samples {int(unseen.sum()):,} of {len(unseen):,} "
                f"sequences, on which the policy has probability "
                f"{float(self.probabilities[unseen].sum()):.2g}: the sequence ratio pi/mu is "
                "undefined there, and no weight of what is sampled makes up for them"
            )

    def totals(self, weights: Float[Tensor, " S"]) -> list[Float[Tensor, "_ V"]]:
        """Return, for each token after each context, the sum of weights of the sequences below it.

        Args:
            weights: Of each sequence.
        """
        found = self.tree.zeros()
        for part in self.blocks():
            inside = torch.arange(self.task.horizon) <= part.depth
            self.tree.add_up(found, part, weights[part.part, None] * inside)
        return found

    def gradient_of(self, weights: list[Float[Tensor, "_ V"]]) -> Float[Tensor, " P"]:
        """Return the sum of weights times the scores of the tokens after each context.

        Args:
            weights: One number per context and token, one tensor per depth.
        """
        found = torch.zeros(self.held.size, dtype=torch.float64)
        for start, count in self.call_blocks():
            tokens = self.tree.contexts(self.tree.deepest, start, count)
            here = torch.zeros(*tokens.shape, self.task.vocabulary, dtype=torch.float64)
            for t, part, rows in self.begun(start, count):
                here[rows, t] = weights[t][part]
            found += self.held.backward(tokens, here)
        return found

    @property
    def name(self) -> str:
        """The task and the policy, as rows name them."""
        return f"{self.task.name}, {name_of_policy(self.policy)}"

    @cached_property
    def greedy_reward(self) -> Float[Tensor, ""]:
        """The reward of the sequence of likeliest tokens."""
        index = 0
        for t, log_pi in enumerate(self.log_pi):
            token = int(log_pi[index].argmax())
            ends = self.tree.tokens_from(t).tolist()
            if token in ends:
                first = self.tree.first_of(t) + index * len(ends)
                return self.rewards[first + ends.index(token)]
            index = index * self.tree.branches + self.tree.going.tolist().index(token)
        raise AssertionError("the last token ends every sequence")
