"""Moments of policy gradients from sampled groups: for any horizon, with standard errors.

A block of draws is the unit of computation and of randomness. Its generator depends on seed, row
and block alone, so the same seed gives the same bits whatever else is computed.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.checks import check_int
from gradlab.exact.tuples import NotExactError
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.progress import Progress
from gradlab.reproducible import block_generator, check_seed, single_thread
from gradlab.sequences.class_sums import couples_prompts
from gradlab.sequences.faults import PolicyError
from gradlab.sequences.group import Group
from gradlab.sequences.held import HeldPolicy
from gradlab.sequences.moments import estimator_of
from gradlab.sequences.own_moments import LossEstimator
from gradlab.sequences.policy_contract import Policy, name_of_policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.task import Task, rewarded, tasks_of

__all__ = ["Drawn", "monte_carlo", "sample_sequences"]

# Numbers of one block of draws, and rounds in which groups of equal rewards are drawn again.
_BLOCK, _ROUNDS = 2**20, 1000


@torch.no_grad()
def sample_sequences(
    policy: HeldPolicy, n: int, generator: Generator
) -> tuple[Int[Tensor, "n T"], Int[Tensor, " n"]]:
    """Return sampled sequences, padded behind their end, and their lengths.

    Args:
        policy: The policy that samples.
        n: How many.
        generator: The source of the randomness.

    Returns:
        Tokens [n, T] and lengths [n].

    Raises:
        PolicyError: If the policy has no probabilities after a sampled prefix.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> held = HeldPolicy(Tabular(3, 3), tasks.parity())
        >>> tokens, lengths = sample_sequences(held, 4, torch.Generator().manual_seed(0))
        >>> tokens.shape, lengths.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """
    task = policy.task
    tokens = torch.full((n, task.horizon), task.tree.padding)
    lengths = torch.full((n,), task.horizon)
    for t in range(task.horizon):
        going = lengths > t
        p = policy.log_probs(tokens)[:, t].exp()
        if p[going].isnan().any():
            at = int((p.isnan().any(-1) & going).nonzero()[0])
            raise PolicyError(
                f"after the prefix {tokens[at, :t].tolist()} the {policy.what} has no "
                "probabilities: its logits contain NaN or +inf, or all are -inf"
            )
        # What stands behind the end is not drawn, whatever the policy says of it.
        p = torch.where(going[:, None], p, 1.0)
        drawn = torch.multinomial(p, 1, generator=generator).squeeze(1)
        tokens[going, t] = drawn[going]
        if task.end is not None:
            lengths[going & (drawn == task.end)] = t + 1
    return tokens, lengths


class Drawn:
    """Draws of estimates of one policy on one task, or on the tasks of several prompts.

    Args:
        policy: The policy.
        tasks: The tasks.
        rollout: The policy that samples, or None.
        reference: The reference policy, or None.

    Example:
        >>> from gradlab.sequences import Tabular, parse, tasks
        >>> drawn = Drawn(Tabular(3, 3), [tasks.parity()])
        >>> drawn.draws(parse("RLOO"), 5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 39])
    """

    def __init__(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        rollout: Policy | None = None,
        reference: Policy | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.held = [HeldPolicy(policy, task) for task in tasks]
        self.rollout = self.held
        self.on_policy = rollout is None
        if rollout is not None:
            self.rollout = [HeldPolicy(rollout, task, "rollout policy") for task in tasks]
        self.reference: list[HeldPolicy] | None = None
        if reference is not None:
            self.reference = [HeldPolicy(reference, task, "reference policy") for task in tasks]
        # The greedy sequence of each prompt, for ReMax.
        self._greedy = [self._greedy_reward(held) for held in self.held]
        self._checked = False

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self.held[0].size

    def block_size(self, g: int) -> int:
        """Return the number of draws of one block, by the sizes of the problem alone."""
        task = self.tasks[0]
        of_draw = g * len(self.tasks) * task.horizon * (4 * task.vocabulary + 32) + 8 * self.size
        return max(GROUPS, min(_BLOCK // of_draw // GROUPS * GROUPS, 2**13))

    @torch.no_grad()
    def _greedy_reward(self, held: HeldPolicy) -> Tensor:
        task = held.task
        tokens, length = torch.full((1, task.horizon), task.tree.padding), task.horizon
        for t in range(task.horizon):
            token = int(held.log_probs(tokens)[0, t].argmax())
            tokens[0, t] = token
            if token == task.end:
                length = t + 1
                break
        return rewarded(task, tokens, torch.tensor([length]))[0][0]

    def draws(
        self, estimator: PolicyGradient | LossEstimator, n: int, generator: Generator
    ) -> Float[Tensor, "n P"]:
        """Return n independent estimates.

        Args:
            estimator: The estimator, with its g.
            n: How many.
            generator: The source of the randomness.
        """
        parts = [self._group(q, n, estimator, generator) for q in range(len(self.tasks))]
        # A loss is given all prompts at once: it may couple them.
        coupled = isinstance(estimator, LossEstimator) or couples_prompts(estimator)
        if coupled and len(parts) > 1:
            joint = _joined([group for _, group in parts])
            weights = self._weights(estimator, joint, [tokens for tokens, _ in parts])
        else:
            weights = [self._weights(estimator, group, [tokens])[0] for tokens, group in parts]
            weights = [weight / len(parts) for weight in weights]
        found = torch.zeros(n, self.size, dtype=torch.float64)
        for held, (tokens, _), weight in zip(self.held, parts, weights, strict=True):
            found += held.weighted(tokens, weight)
        return found

    def _group(
        self, q: int, n: int, estimator: PolicyGradient | LossEstimator, generator: Generator
    ) -> tuple[Tensor, Group]:
        """Return n groups of one prompt; those that are not kept are drawn again."""
        g, task = estimator.g, self.tasks[q]
        tokens, lengths = sample_sequences(self.rollout[q], n * g, generator)
        for _ in range(_ROUNDS):
            rewards, _ = rewarded(task, tokens, lengths, check=not self._checked)
            self._checked = True
            again = ~estimator.kept(rewards.view(n, g))
            if not again.any():
                break
            rows = again.repeat_interleave(g)
            tokens[rows], lengths[rows] = sample_sequences(
                self.rollout[q], int(rows.sum()), generator
            )
        else:
            raise NotExactError(
                f"{estimator} draws groups with equal rewards again, and after {_ROUNDS} rounds "
                f"some groups of {task.name} still have equal rewards"
            )
        return tokens.view(n, g, -1), self._known(q, tokens, lengths, estimator)

    @torch.no_grad()
    def _known(
        self, q: int, tokens: Tensor, lengths: Tensor, estimator: PolicyGradient | LossEstimator
    ) -> Group:
        task, g = self.tasks[q], estimator.g

        def grouped(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.unflatten(0, (-1, g))

        def sampled(table: Tensor) -> Tensor:
            inside = torch.arange(task.horizon) < lengths[:, None]
            return torch.where(inside, table.gather(2, tokens[..., None]).squeeze(2), 0.0)

        own = self.held[q].log_probs(tokens)
        mu = own if self.on_policy else self.rollout[q].log_probs(tokens)
        ref = None if self.reference is None else self.reference[q].log_probs(tokens)
        rewards, dense = rewarded(task, tokens, lengths)
        return Group(
            rewards.view(-1, g),
            lengths.view(-1, g),
            sampled(own).unflatten(0, (-1, g)),
            sampled(mu).unflatten(0, (-1, g)),
            grouped(None if ref is None else sampled(ref)),
            grouped(own),
            grouped(ref),
            grouped(dense),
            self._greedy[q].expand(len(rewards) // g),
        )

    def _weights(
        self, estimator: PolicyGradient | LossEstimator, group: Group, tokens: list[Tensor]
    ) -> list[Tensor]:
        """Return what log pi of all tokens is weighed with, [n, G, T, V] of each prompt."""
        coefficients = estimator.coefficients(group)
        logits = estimator.logit_coefficients(group)
        found = []
        for q, of_prompt in enumerate(tokens):
            own = coefficients[:, q] if group.prompts else coefficients
            vocabulary = self.tasks[0].vocabulary
            table = torch.zeros(*own.shape, vocabulary, dtype=torch.float64)
            table.scatter_(-1, of_prompt[..., None], own[..., None].to(torch.float64))
            if logits is not None:
                # Coefficients of logits that sum to 0 are those of log pi too.
                table += logits[:, q] if group.prompts else logits
            found.append(table)
        return found


def _joined(groups: list[Group]) -> Group:
    """Return groups of several prompts as training batches, [n, B, G]."""
    fields = {}
    for name in Group.__dataclass_fields__:
        values = [getattr(group, name) for group in groups]
        if isinstance(values[0], Tensor):
            fields[name] = torch.stack(values, 1)
    return Group(**fields, prompts=True)


@single_thread()
def monte_carlo(
    estimator: PolicyGradient | str,
    policy: Policy,
    task: Task | Iterable[Task],
    draws: int = 10_000,
    seed: int = 0,
    *,
    rollout: Policy | None = None,
    reference: Policy | None = None,
    group: int | None = None,
    row: str = "",
    progress: bool = False,
) -> Moments:
    """Return mean and variance of one estimate from independent groups, with standard errors.

    Args:
        estimator: A `PolicyGradient` or its text, such as "GRPO(g=8)".
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts: one estimate is then the mean of theirs.
        draws: The number of estimates, at least 32.
        seed: The seed of all draws, an int in [0, 2^63).
        rollout: The policy that samples; by default the policy itself.
        reference: The reference policy of a KL term.
        group: G, if it is not the estimator's own.
        row: What the random numbers are for, beside the task and the estimator.
        progress: Whether progress is printed on stderr.

    Returns:
        The moments, with the sums over the draws from which errors follow.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        ValueError: If the estimator cannot be used with this group or without a reference.

    Example:
        >>> from gradlab.sequences import Tabular, exact_gradient, tasks
        >>> policy, task = Tabular(3, 3), tasks.parity()
        >>> found = monte_carlo("RLOO", policy, task, draws=2_000)
        >>> bias2 = found.bias2(exact_gradient(policy, task))
        >>> abs(bias2.value) < 4 * bias2.se
        True
    """
    check_int("draws", draws, 2 * GROUPS)
    check_seed(seed)
    found, tasks = estimator_of(estimator, group), tasks_of(task)
    if found.kl.name != "none" and reference is None:
        raise ValueError(f"{found.kl} needs a reference policy: give reference=")
    drawn = Drawn(policy, tasks, rollout, reference)
    named = "+".join(one.name for one in tasks)
    name = f"{row}|{named}|{name_of_policy(policy)}|{found}"
    size = drawn.block_size(found.g)
    blocks = []
    with Progress("Monte Carlo", draws, "draws", shown=progress) as bar:
        for block, start in enumerate(range(0, draws, size)):
            n = min(size, draws - start)
            g = drawn.draws(found, n, block_generator(seed, name, block))
            blocks.append(Groups.from_draws(g))
            if len(blocks) > 1:
                blocks = [reduce(Groups.merge, blocks)]
            bar.add(n)
    return Moments.from_groups(blocks[0])
