r"""Long sequences, exactly: a policy of finitely many states and an automaton as the reward.

The state of the policy and of the automaton together is a Markov chain. With d the probability of a
state, e the sum of scores so far on it and q its squared length,

.. math:: d' = \sum \pi d, \quad e' = \sum \pi (e + d s), \quad
          q' = \sum \pi (q + 2 e \cdot s + d |s|^2)

step by step, over the states and tokens that lead to the next one. At the ends of sequences these
are the sums over classes (reward, length), for horizons of hundreds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradlab.checks import too_large
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments
from gradlab.sequences.aggregation import SequenceMean
from gradlab.sequences.automaton import Automaton
from gradlab.sequences.class_sums import PAIRS, group_moments, reads_lengths
from gradlab.sequences.enumerated import MOST_SEQUENCES, EnumeratedPolicy
from gradlab.sequences.faults import PolicyError
from gradlab.sequences.policy_contract import Policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.tables import Tables
from gradlab.sequences.task import Task

__all__ = ["FiniteStates", "enumerated_policy", "finite_moments", "has_finite_states"]

# Numbers of one step, and of the sums over classes.
_NUMBERS = 2**25


def has_finite_states(policy: Policy, task: Task) -> bool:
    """Return whether sequences of any length can be summed: n-gram and automaton.

    Args:
        policy: A policy; one with `state_logits` [Z, V] and `transitions` [Z, V] has states.
        task: A task.
    """
    stated = isinstance(policy, nn.Module) and hasattr(policy, "transitions")
    return stated and hasattr(policy, "state_logits") and isinstance(task.reward, Automaton)


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

    What `EnumeratedPolicy` has per sequence this has per class (reward, length).

    Args:
        policy: A module with `state_logits` [Z, V] and `transitions` [Z, V], such as `NGram`.
        task: The task.
        rollout: Must be None: only what is on policy is known.
        reference: Must be None.

    Raises:
        NotExactError: If there is a rollout or reference policy.
        TooLargeError: If there are too many states.
        PolicyError: If the policy breaks its contract.

    Example:
        >>> from gradlab.sequences import NGram, tasks
        >>> on = FiniteStates(NGram(3, 2), tasks.parity(horizon=100))
        >>> on.tables.means.shape
        torch.Size([1, 200, 12])
    """

    def __post_init__(self) -> None:
        for what, given in (("rollout", self.rollout), ("reference", self.reference)):
            if given is not None:
                raise NotExactError(
                    f"sequences of up to {self.task.horizon} tokens are summed without a {what} "
                    "policy only; use monte_carlo"
                )
        _ = self.held
        states, entries = self.logits.shape[0], len(self.automaton.rewards)
        classes = self.task.horizon * entries
        needed = max(states * self.task.vocabulary * entries, classes) * self.held.size
        if needed > _NUMBERS:
            raise TooLargeError(too_large("sums over states", needed, _NUMBERS, "use monte_carlo"))
        self._check_states()

    def _check_states(self) -> None:
        """Raise PolicyError unless states and transitions give the logits of the policy."""
        source = torch.Generator().manual_seed(0)
        size = (8, min(self.task.horizon, 32))
        tokens = torch.randint(self.task.vocabulary, size, generator=source)
        rows = torch.nn.functional.pad(tokens, (0, self.task.horizon - size[1]))
        with torch.no_grad():
            found = self.held.log_probs(rows)[:, : size[1]]
        state = torch.full((len(tokens),), self.start)
        for t in range(size[1]):
            if not torch.allclose(found[:, t], self.logits.log_softmax(-1)[state], atol=1e-9):
                raise PolicyError(
                    f"state_logits and transitions of the policy do not give its logits at token "
                    f"{t}: state 0 must be that of the start"
                )
            state = self.moves[state, tokens[:, t]]

    @property
    def automaton(self) -> Automaton:
        """The reward."""
        assert isinstance(self.task.reward, Automaton)
        return self.task.reward

    @property
    def _module(self) -> Any:
        return self.held.call

    @property
    def moves(self) -> Int[Tensor, "Z V"]:
        """The state after each token in each state."""
        return self._module.transitions

    @cached_property
    def logits(self) -> Float[Tensor, "Z V"]:
        """The logits of each state."""
        return self._module.state_logits.detach().to(torch.float64)

    @property
    def start(self) -> int:
        """The state after the prompt."""
        state = 0
        for token in self.task.prompt:
            state = int(self.moves[state, token])
        return state

    @cached_property
    def scores(self) -> Float[Tensor, "Z V P"]:
        """The score of each token in each state."""
        held, rows = self.held, []
        with torch.enable_grad():
            log_p = self._module.state_logits.to(torch.float64).log_softmax(-1)
            for one in log_p.flatten():
                found = torch.autograd.grad(
                    one, held.parameters, retain_graph=True, allow_unused=True
                )
                parts = zip(found, held.parameters, strict=True)
                each = [torch.zeros_like(p) if g is None else g for g, p in parts]
                rows.append(torch.cat([g.flatten() for g in each]))
        return torch.stack(rows).to(torch.float64).unflatten(0, log_p.shape)

    @cached_property
    def _sums(self) -> tuple[Tables, Tensor, Tensor]:
        """Return the sums over classes, the reward and the length of each."""
        task, rewards = self.task, self.automaton.rewards
        moves = self.moves
        levels, level = rewards.unique(return_inverse=True)
        shape = (task.horizon, len(levels))
        mass = torch.zeros(*shape, dtype=torch.float64)
        means = torch.zeros(*shape, self.held.size, dtype=torch.float64)
        squares = torch.zeros_like(mass)
        p = self.logits.softmax(-1)
        # s and |s|^2 by state and token; d, e and q by state and state of the automaton.
        s, s2 = self.scores, self.scores.square().sum(-1)
        d = torch.zeros(len(p), len(rewards), dtype=torch.float64)
        d[self.start, 0] = 1.0
        e, q = torch.zeros(*d.shape, self.held.size, dtype=torch.float64), torch.zeros_like(d)
        for t in range(task.horizon):
            last = t == task.horizon - 1
            next_d, next_e, next_q = (torch.zeros_like(x) for x in (d, e, q))
            for v in range(task.vocabulary):
                chance = p[:, v, None]
                of_d = chance * d
                of_e = chance[..., None] * e + of_d[..., None] * s[:, None, v]
                product = (e @ s[:, v, :, None]).squeeze(-1)
                of_q = chance * (q + 2 * product + d * s2[:, v, None])
                entered = self.automaton.transitions[:, v]
                if last or v == task.end:
                    at = level[entered]
                    mass[t].index_add_(0, at, of_d.sum(0))
                    means[t].index_add_(0, at, of_e.sum(0))
                    squares[t].index_add_(0, at, of_q.sum(0))
                    continue
                place = (moves[:, v, None] * len(rewards) + entered).flatten()
                next_d.view(-1).index_add_(0, place, of_d.flatten())
                next_e.view(-1, e.shape[-1]).index_add_(0, place, of_e.flatten(0, 1))
                next_q.view(-1).index_add_(0, place, of_q.flatten())
            d, e, q = next_d, next_e, next_q
        lengths = torch.arange(1, task.horizon + 1)[:, None].expand(shape)
        found = Tables(mass.flatten(), means.flatten(0, 1)[None], squares.flatten()[None])
        return found, levels.expand(shape).flatten(), lengths.flatten()

    @property
    def tables(self) -> Tables:
        """Probability, mean score and mean squared score of each class, times its probability."""
        return self._sums[0]

    @property
    def lengths(self) -> Tensor:
        """The length of each class."""
        return self._sums[2]

    @property
    def rewards(self) -> Float[Tensor, " S"]:
        """The reward of each class."""
        return self._sums[1]

    @property
    def probabilities(self) -> Float[Tensor, " S"]:
        """The probability of each class."""
        return self.tables.mass

    @property
    def sampled(self) -> Float[Tensor, " S"]:
        """The same."""
        return self.tables.mass

    @property
    def greedy_reward(self) -> Float[Tensor, ""]:
        """The reward of the sequence of likeliest tokens."""
        state, entered, verifier = self.start, 0, self.automaton.transitions
        moves = self.moves
        for _ in range(self.task.horizon):
            token = int(self.logits[state].argmax())
            state, entered = int(moves[state, token]), int(verifier[entered, token])
            if token == self.task.end:
                break
        return self.automaton.rewards[entered]

    def totals(self, weights: Float[Tensor, " S"]) -> list[Float[Tensor, "_ V"]]:
        """Return weights of the scores of each class.

        Args:
            weights: Of each class.
        """
        return [weights[:, None]]

    def gradient_of(self, weights: list[Float[Tensor, "_ V"]]) -> Float[Tensor, " P"]:
        """Return the sum of weights times the mean scores of classes.

        Args:
            weights: As `totals` returns them.
        """
        share = weights[0][:, 0] / self.tables.mass.clamp_min(1e-300)
        return share @ self.tables.means[0]


@dataclass(frozen=True)
class _Known:
    """Classes whose rewards and lengths are given."""

    rewards: Tensor
    lengths: Tensor


def finite_moments(estimator: PolicyGradient, ons: Sequence[FiniteStates]) -> Moments:
    """Return the exact moments of an estimate on policy, one group per prompt.

    Args:
        estimator: An estimator that factorizes, and on policy weighs all tokens of a sequence
            alike.
        ons: The policy on the task of each prompt.

    Raises:
        NotExactError: If it does not.
        TooLargeError: If there are too many groups.
    """
    if not estimator.factorizes or estimator.kl.name != "none":
        raise NotExactError(
            f"{estimator} does not factorize over classes of (reward, length), or has a KL term: "
            f"for sequences of up to {ons[0].task.horizon} tokens use monte_carlo"
        )
    merged = [_merged(estimator, on) for on in ons]
    classes = [known for known, _ in merged]
    return group_moments(estimator, ons, classes, [tables for _, tables in merged])


def _merged(estimator: PolicyGradient, on: FiniteStates) -> tuple[_Known, Tables]:
    """Return the sums over the classes that the estimator tells apart."""
    horizon = on.task.horizon
    plus, minus = (_weights(estimator, horizon, sign)[on.lengths] for sign in (1, -1))
    weights = torch.stack([plus, minus, torch.zeros_like(plus)])
    means = weights[..., None] * on.tables.means
    pairs = torch.stack([weights[i] * weights[j] for i, j in PAIRS])
    products = pairs * on.tables.products
    if reads_lengths(estimator):
        return _Known(on.rewards, on.lengths), Tables(on.tables.mass, means, products)
    levels, place = on.rewards.unique(return_inverse=True)

    def summed(values: Tensor, axis: int) -> Tensor:
        shape = [*values.shape]
        shape[axis] = len(levels)
        return values.new_zeros(shape).index_add_(axis, place, values)

    found = Tables(summed(on.tables.mass, 0), summed(means, 1), summed(products, 1))
    return _Known(levels, torch.ones(len(levels), dtype=torch.int64)), found


def _weights(estimator: PolicyGradient, horizon: int, sign: int) -> Tensor:
    """Return the weight of all tokens of a sequence of each length, on policy, from length 0."""
    source = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, horizon + 1).repeat(2)
    log_prob = -torch.rand(len(lengths), horizon, generator=source, dtype=torch.float64)
    inside = torch.arange(horizon) < lengths[:, None]
    log_prob = torch.where(inside, log_prob, 0.0)
    found = estimator.token_weights(log_prob, log_prob, lengths, sign=sign)
    first = found[:, :1]
    alike = torch.isclose(found, first, rtol=1e-12).logical_or(~inside).all()
    if not alike or not torch.allclose(first[:horizon], first[horizon:], rtol=1e-12):
        raise NotExactError(
            f"{estimator} weighs tokens of one sequence differently, also on policy: use "
            "monte_carlo"
        )
    weights = first[:horizon, 0]
    if isinstance(estimator.aggregation, SequenceMean):
        weights = weights / torch.arange(1, horizon + 1)
    return torch.cat([weights.new_zeros(1), weights])
