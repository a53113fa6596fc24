"""Long sequences, exactly: policies of finitely many states and an automaton as the reward.

The states of the policies and of the automaton together are a Markov chain. Sums over sequences are
carried along it step by step, for horizons of hundreds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradlab.checks import too_large
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.sequences.automaton import Automaton
from gradlab.sequences.chain_sums import Chain
from gradlab.sequences.enumerated import MOST_SEQUENCES, EnumeratedPolicy
from gradlab.sequences.faults import PolicyError, SupportError
from gradlab.sequences.held import HeldPolicy
from gradlab.sequences.joint_states import JointStates, joint_states
from gradlab.sequences.policy_contract import Policy
from gradlab.sequences.tables import Tables
from gradlab.sequences.task import Task

__all__ = ["FiniteStates", "enumerated_policy", "has_finite_states"]

# Numbers of one step, and of the sums over classes.
_NUMBERS = 2**25


def has_finite_states(policy: Policy, task: Task) -> bool:
    """Return whether sequences of any length can be summed: n-gram and automaton.

    Args:
        policy: A policy; one with `state_logits` [Z, V] and `transitions` [Z, V] has states.
        task: A task.
    """
    return _has_states(policy) and isinstance(task.reward, Automaton)


def _has_states(policy: Policy) -> bool:
    stated = isinstance(policy, nn.Module) and hasattr(policy, "transitions")
    return stated and hasattr(policy, "state_logits")


def enumerated_policy(
    policy: Policy, task: Task, rollout: Policy | None = None, reference: Policy | None = None
) -> EnumeratedPolicy:
    """Return the policy on the task: every sequence, or where these are too many its states.

    Args:
        policy: The policy.
        task: The task.
        rollout: The policy that samples, or None.
        reference: The reference policy, or None.

    Raises:
        TooLargeError: If there are too many sequences and no states.

    Example:
        >>> from gradlab.sequences import NGram, tasks
        >>> on = enumerated_policy(NGram(3, 2), tasks.parity(horizon=200))
        >>> type(on).__name__, round(float(on.probabilities.sum()), 12)
        ('FiniteStates', 1.0)
    """
    if task.tree.size <= MOST_SEQUENCES or not has_finite_states(policy, task):
        return EnumeratedPolicy(policy, task, rollout, reference)
    return FiniteStates(policy, task, rollout, reference)


@dataclass(frozen=True, eq=False)
class FiniteStates(EnumeratedPolicy):
    """A policy of finitely many states on a task whose reward is an `Automaton`.

    What `EnumeratedPolicy` has per sequence this has per class (reward, length). Rollout and
    reference policy have states too: those of all policies are carried together.

    Args:
        policy: A module with `state_logits` [Z, V] and `transitions` [Z, V], such as `NGram`.
        task: The task.
        rollout: The policy that samples, such a module too; by default the policy itself.
        reference: The reference policy, such a module too, or None.

    Raises:
        NotExactError: If the rollout or reference policy has no states.
        TooLargeError: If there are too many states.
        PolicyError: If a policy breaks its contract.

    Example:
        >>> from gradlab.sequences import NGram, tasks
        >>> on = FiniteStates(NGram(3, 2), tasks.parity(horizon=100))
        >>> on.tables.means.shape
        torch.Size([1, 200, 12])
    """

    def __post_init__(self) -> None:
        for what, given in (("rollout", self.rollout), ("reference", self.reference)):
            if given is not None and not _has_states(given):
                raise NotExactError(
                    f"sequences of up to {self.task.horizon} tokens are summed by states, and the "
                    f"{what} policy has none (state_logits and transitions): use monte_carlo"
                )
        _ = self.held, self.held_rollout, self.held_reference
        states, entries = len(self.states.moves), len(self.automaton.rewards)
        classes = self.task.horizon * entries
        of_step = states * self.task.vocabulary * entries
        needed = max(of_step, classes) * self.held.size + of_step * self.task.horizon
        if needed > _NUMBERS:
            raise TooLargeError(too_large("sums over states", needed, _NUMBERS, "use monte_carlo"))
        for held in self._helds:
            self._check_states(held)

    def _check_states(self, held: HeldPolicy) -> None:
        """Raise PolicyError unless states and transitions give the logits of a policy."""
        source = torch.Generator().manual_seed(0)
        size = (8, min(self.task.horizon, 32))
        tokens = torch.randint(self.task.vocabulary, size, generator=source)
        rows = torch.nn.functional.pad(tokens, (0, self.task.horizon - size[1]))
        with torch.no_grad():
            found = held.log_probs(rows)[:, : size[1]]
        module, own = _module(held), _log_probs(held)
        state = torch.full((len(tokens),), _start(held))
        for t in range(size[1]):
            if not torch.allclose(found[:, t], own[state], atol=1e-9):
                raise PolicyError(
                    f"state_logits and transitions of the {held.what} do not give its logits at "
                    f"token {t}: state 0 must be that of the start"
                )
            state = module.transitions[state, tokens[:, t]]

    @property
    def automaton(self) -> Automaton:
        """The reward."""
        assert isinstance(self.task.reward, Automaton)
        return self.task.reward

    @property
    def _helds(self) -> list[HeldPolicy]:
        """The different policies: the policy, then the rollout and reference policies."""
        every = (self.held, self.held_rollout, self.held_reference)
        return [held for held in every if held is not None]

    @cached_property
    def states(self) -> JointStates:
        """The states of all policies together."""
        return joint_states([_module(held) for held in self._helds], [*map(_start, self._helds)])

    @property
    def moves(self) -> Int[Tensor, "Z V"]:
        """The state after each token in each state."""
        return self.states.moves

    def _log_probs_of(self, held: HeldPolicy) -> Float[Tensor, "Z V"]:
        number = next(n for n, one in enumerate(self._helds) if one is held)
        return _log_probs(held)[self.states.each[number]]

    @cached_property
    def log_p(self) -> Float[Tensor, "Z V"]:
        """The logarithm of pi of each token in each state."""
        return self._log_probs_of(self.held)

    @cached_property
    def log_m(self) -> Float[Tensor, "Z V"]:
        """The same of the policy that samples."""
        return self.log_p if self.held_rollout is None else self._log_probs_of(self.held_rollout)

    @cached_property
    def log_r(self) -> Float[Tensor, "Z V"] | None:
        """The same of the reference policy."""
        return None if self.held_reference is None else self._log_probs_of(self.held_reference)

    @cached_property
    def scores(self) -> Float[Tensor, "Z V P"]:
        """The score of each token in each state."""
        held, rows = self.held, []
        with torch.enable_grad():
            log_p = _module(held).state_logits.to(torch.float64).log_softmax(-1)
            for one in log_p.flatten():
                found = torch.autograd.grad(
                    one, held.parameters, retain_graph=True, allow_unused=True
                )
                parts = zip(found, held.parameters, strict=True)
                each = [torch.zeros_like(p) if g is None else g for g, p in parts]
                rows.append(torch.cat([g.flatten() for g in each]))
        found = torch.stack(rows).to(torch.float64).unflatten(0, log_p.shape)
        return found[self.states.each[0]]

    @cached_property
    def chain(self) -> Chain:
        """The states with those of the automaton."""
        task = self.task
        return Chain(self.moves, self.scores, self.automaton, task.horizon, task.end)

    @cached_property
    def tables(self) -> Tables:
        """Probability, mean score and mean squared score of each class, times its probability."""
        return self.chain.sums(self.log_p.exp(), torch.ones_like(self.log_p)[None], [(0, 0)])

    @property
    def lengths(self) -> Tensor:
        """The length of each class."""
        levels, _ = self.chain.levels
        return torch.arange(1, self.task.horizon + 1).repeat_interleave(len(levels))

    @property
    def rewards(self) -> Float[Tensor, " S"]:
        """The reward of each class."""
        return self.chain.levels[0].repeat(self.task.horizon)

    @property
    def probabilities(self) -> Float[Tensor, " S"]:
        """The probability of each class under the policy."""
        return self.tables.mass

    @cached_property
    def sampled(self) -> Float[Tensor, " S"]:
        """The probability of each class under the policy that samples."""
        if self.rollout is None:
            return self.tables.mass
        nothing = self.log_m.new_zeros(0, *self.moves.shape)
        return self.chain.sums(self.log_m.exp(), nothing, []).mass

    @property
    def greedy_reward(self) -> Float[Tensor, ""]:
        """The reward of the sequence of likeliest tokens."""
        state, entered, verifier = 0, 0, self.automaton.transitions
        for _ in range(self.task.horizon):
            token = int(self.log_p[state].argmax())
            state, entered = int(self.moves[state, token]), int(verifier[entered, token])
            if token == self.task.end:
                break
        return self.automaton.rewards[entered]

    def check_support(self) -> None:
        """Raise SupportError unless the rollout policy samples all that the policy does."""
        p, m = self.log_p.exp(), self.log_m.exp()
        visited = sum(self._visits(p), torch.zeros(len(p), dtype=torch.float64))
        if ((m == 0) & (p > 0) & (visited > 0)[:, None]).any():
            raise SupportError(
                "the rollout policy never samples some sequences on which the policy has "
                "probability: the sequence ratio pi/mu is undefined there, and no weight of what "
                "is sampled makes up for them"
            )

    def _visits(self, chance: Tensor) -> Iterator[Tensor]:
        """Yield the probability of each state at each step."""
        d = torch.zeros(len(chance), dtype=torch.float64)
        d[0] = 1.0
        goes_on = self.chain.goes_on
        for _ in range(self.task.horizon):
            yield d
            d = torch.zeros_like(d).index_add_(
                0, self.moves.flatten(), (d[:, None] * chance * goes_on).flatten()
            )

    @cached_property
    def _penalty(self) -> tuple[Tensor, Tensor]:
        """Return KL(pi || ref), and what its gradient weighs the score of each token with."""
        p, log_ratio = self.log_p.exp(), self._log_reference_ratio
        horizon, goes_on = self.task.horizon, self.chain.goes_on
        # The divergence of what follows a state with so many tokens left.
        to_go = [torch.zeros(len(p), dtype=torch.float64)]
        q = []
        for _ in range(horizon):
            after = torch.where(p > 0, log_ratio + goes_on * to_go[-1][self.moves], 0.0)
            to_go.append((p * after).sum(-1))
            # The mean is taken off: the scores sum to 0, and an offset would cost digits.
            q.append(p * (after - to_go[-1][:, None]))
        weights = sum(
            (d[:, None] * one for d, one in zip(self._visits(p), reversed(q), strict=True)),
            torch.zeros_like(p),
        )
        return to_go[-1][0], weights

    @property
    def _log_reference_ratio(self) -> Tensor:
        if self.log_r is None:
            raise ValueError("a KL penalty needs a reference policy: give reference=")
        p = self.log_p.exp()
        visited = sum(self._visits(p), torch.zeros(len(p), dtype=torch.float64))
        found = torch.where(p > 0, self.log_p - self.log_r, 0.0)
        if (found[visited > 0] == torch.inf).any():
            raise SupportError(
                "the reference policy has probability 0 where the policy has some: the KL "
                "divergence is infinite"
            )
        return torch.where(found == torch.inf, 0.0, found)

    @property
    def divergence(self) -> Float[Tensor, ""]:
        """KL(pi || ref) of whole sequences."""
        return self._penalty[0]

    def divergence_weights(self) -> list[Float[Tensor, "_ V"]]:
        """Return what the gradient of the divergence weighs scores with."""
        return [self.totals(torch.zeros_like(self.rewards))[0], self._penalty[1]]

    @cached_property
    def surrogate(self) -> tuple[Tensor, list[Tensor]]:
        """The surrogate under the rollout policy, and what its gradient weighs scores with."""
        p, m, task = self.log_p.exp(), self.log_m.exp(), self.task
        after, rewards = self.automaton.transitions, self.automaton.rewards
        # V of a state of policy and automaton, with so many tokens left; [Z, U].
        values, q = [rewards.expand(len(p), -1)], []
        last = rewards[after].T  # [V, U]
        going = self.chain.goes_on
        for left in range(task.horizon):
            follows = values[-1][self.moves[:, :, None], after.T] if left else last
            of_token = torch.where(going[:, None] > 0, follows, last.expand(len(p), -1, -1))
            values.append((m[..., None] * of_token).sum(1))
            q.append(of_token - values[-1][:, None])
        value = torch.zeros((), dtype=torch.float64)
        weights = torch.zeros_like(p)
        d = torch.zeros(len(p), len(rewards), dtype=torch.float64)
        d[0, 0] = 1.0
        place = (self.moves[:, :, None] * len(rewards) + after.T).flatten()
        for one in reversed(q):
            gained = torch.where(m > 0, p * (one * d[:, None]).sum(-1), 0.0)
            value, weights = value + gained.sum(), weights + gained
            moved = d[:, None] * (m * going)[..., None]
            d = torch.zeros_like(d).view(-1).index_add_(0, place, moved.flatten()).view_as(d)
        return value, [self.totals(torch.zeros_like(self.rewards))[0], weights]

    def totals(self, weights: Float[Tensor, " S"]) -> list[Float[Tensor, "_ V"]]:
        """Return weights of the scores of each class, then of each token in each state.

        Args:
            weights: Of each class.
        """
        return [weights[:, None].expand(-1, self.task.vocabulary), torch.zeros_like(self.log_p)]

    def gradient_of(self, weights: list[Float[Tensor, "_ V"]]) -> Float[Tensor, " P"]:
        """Return the sum of weights times the mean scores of classes, and of weighted scores.

        Args:
            weights: As `totals` returns them.
        """
        share = weights[0][:, 0] / self.tables.mass.clamp_min(1e-300)
        return share @ self.tables.means[0] + weights[1].flatten() @ self.scores.flatten(0, 1)


def _module(held: HeldPolicy) -> Any:
    return held.call


def _log_probs(held: HeldPolicy) -> Float[Tensor, "Z V"]:
    return _module(held).state_logits.detach().to(torch.float64).log_softmax(-1)


def _start(held: HeldPolicy) -> int:
    """Return the state after the prompt."""
    state = 0
    for token in held.task.prompt:
        state = int(_module(held).transitions[state, token])
    return state
