"""Exact moments of any estimator on few sequences: every group of whole sequences is put to it."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.group import Group
from gradlab.sequences.known import Known
from gradlab.sequences.multisets import count_multisets, groups_of
from gradlab.sequences.policy_gradient import PolicyGradient

__all__ = ["whole_group_moments"]

# Coefficients of all groups, and scores that are held, at most.
_MOST, _SCORES = 2**27, 2**23
# Numbers of one block of groups.
_BLOCK = 2**21


def whole_group_moments(estimator: PolicyGradient, ons: Sequence[EnumeratedPolicy]) -> Moments:
    """Return the moments over all groups of sequences, one group per prompt.

    Args:
        estimator: The estimator, with its g.
        ons: The policy on the task of each prompt.

    Returns:
        Mean and variance.

    Raises:
        NotExactError: If there are too many groups; the message says what to do.
    """
    g, sizes = estimator.g, [on.tree.size for on in ons]
    symmetric = estimator.aggregation.symmetric
    counts = [count_multisets(size, g) if symmetric else size**g for size in sizes]
    nodes = sum(_nodes(on) for on in ons)
    numbers = math.prod(counts) * max(nodes, g * len(ons) * ons[0].task.horizon)
    if numbers > _MOST or nodes * ons[0].held.size > _SCORES:
        raise NotExactError(
            f"the coefficients of {estimator} do not factorize over classes of sequences, so that "
            f"{math.prod(counts):.2g} groups of {g} out of {max(sizes):,} sequences would have to "
            "be summed; use monte_carlo, a smaller g, or fewer sequences"
        )
    every = [_Every(on) for on in ons]
    scores = torch.cat([one.scores for one in every])
    gram = scores @ scores.T
    mean, square, kept = torch.zeros(nodes, dtype=torch.float64), 0.0, 0.0
    sampled = [on.sampled for on in ons]
    groups = groups_of(sampled, g) if symmetric else _ordered(sampled, g)
    for members, p in groups:
        for part in torch.arange(len(p)).split(max(1, _BLOCK // nodes)):
            chosen = members[part]
            joint = _joined([one.group(chosen[:, q]) for q, one in enumerate(every)], ons)
            weight = p[part] * estimator.kept(joint.rewards).all(-1)
            weights = _of_nodes(estimator, joint, every, chosen, nodes)
            weights = torch.where(weight[:, None] > 0, weights, 0.0)
            kept += float(weight.sum())
            mean += weight @ weights
            square += float(weight @ ((weights @ gram) * weights).sum(-1))
    if kept <= 0:
        raise NotExactError(f"{estimator} keeps no group of {ons[0].task.name}")
    found = mean @ scores / kept
    variance = max(square / kept - float(found.square().sum()), 0.0)
    return Moments(found, torch.tensor(variance, dtype=torch.float64))


def _ordered(masses: list[Tensor], g: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all groups in every order."""
    shape = [len(mass) for mass in masses for _ in range(g)]
    for part in torch.arange(math.prod(shape)).split(2**14):
        index = torch.stack(torch.unravel_index(part, shape), 1)
        members = index.view(len(part), len(masses), g)
        p = torch.stack([mass[members[:, q]].prod(-1) for q, mass in enumerate(masses)]).prod(0)
        yield members, p


def _joined(groups: list[Group], ons: Sequence[EnumeratedPolicy]) -> Group:
    """Return the groups of all prompts as one batch, [m, B, G]."""

    def stacked(name: str) -> Tensor | None:
        parts = [getattr(group, name) for group in groups]
        return None if parts[0] is None else torch.stack(parts, 1)

    names = ("rewards", "lengths", "log_prob", "rollout_log_prob", "reference_log_prob", "logits")
    fields = {name: stacked(name) for name in (*names, "reference_logits", "token_rewards")}
    greedy = torch.stack([on.greedy_reward for on in ons]).expand(len(groups[0].rewards), -1)
    return Group(**fields, greedy_rewards=greedy, prompts=True)  # type: ignore[arg-type]


def _of_nodes(
    estimator: PolicyGradient, joint: Group, every: list["_Every"], members: Tensor, nodes: int
) -> Float[Tensor, "m N"]:
    """Return what each group weighs the scores of all tokens after all contexts with."""
    found = torch.zeros(len(members), nodes, dtype=torch.float64)
    tokens = estimator.coefficients(joint)
    logits = estimator.logit_coefficients(joint)
    first = 0
    for q, one in enumerate(every):
        at = first + one.nodes[members[:, q]]
        found.scatter_add_(1, at.flatten(1), tokens[:, q].flatten(1))
        if logits is not None:
            # With J the rows of the Jacobian of logits, s_v = J_v - sum_u pi_u J_u; coefficients
            # of a function of the softmax sum to 0, so that they are those of scores too.
            table = first + one.tables[members[:, q]]
            found.scatter_add_(1, table.flatten(1), logits[:, q].flatten(1))
        first += _nodes(one.on)
    return found


def _nodes(on: EnumeratedPolicy) -> int:
    return sum(map(on.tree.width, range(on.task.horizon))) * on.task.vocabulary


class _Every:
    """All sequences of a task at once, and the scores of all tokens after all contexts."""

    def __init__(self, on: EnumeratedPolicy) -> None:
        self.on, tree, vocabulary = on, on.tree, on.task.vocabulary
        parts = [Known(on, leaves) for leaves in tree.leaves(on.tree.size)]
        groups = [known.group(logits=True) for known in parts]
        self._held = {
            name: torch.cat([getattr(group, name).squeeze(1) for group in groups])
            for name in groups[0].__dataclass_fields__
            if isinstance(getattr(groups[0], name), Tensor) and name != "greedy_rewards"
        }
        rows = [tree.contexts(t, 0, tree.width(t)) for t in range(tree.horizon)]
        at = [torch.full((len(part),), t) for t, part in enumerate(rows)]
        self.scores = on.held.scores(torch.cat(rows), torch.cat(at)).by_token.flatten(0, 1)
        offsets = torch.tensor([0, *(len(part) for part in rows)]).cumsum(0) * vocabulary
        # Padding has coefficient 0, wherever it points.
        self.nodes = torch.zeros(tree.size, tree.horizon, dtype=torch.int64)
        for known in parts:
            for t, places in enumerate(tree.path(known.leaves)):
                self.nodes[known.leaves.part, t] = offsets[t] + places
        context = self.nodes // vocabulary * vocabulary
        self.tables = context[..., None] + torch.arange(vocabulary)

    def group(self, members: Tensor) -> Group:
        """Return groups of some sequences, [m, G]."""
        return Group(**{name: value[members] for name, value in self._held.items()})  # type: ignore[arg-type]
