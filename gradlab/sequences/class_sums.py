r"""Exact moments of estimators whose coefficients factorize, by sums over multisets of classes.

With u_i = a_i m^{sign}_{c_i} + b_i m^{own}_{c_i} and v_i = E |a_i h^{sign}_i + b_i h^{own}_i|^2,

.. math:: E \hat g = E \sum_i u_i, \quad
          E |\hat g|^2 = E \big[ |\sum_i u_i|^2 + \sum_i (v_i - |u_i|^2) \big],

the expectations on the right over multisets of G classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments
from gradlab.sequences.advantages import Greedy, LengthWeighted, Raw
from gradlab.sequences.aggregation import Constant, LocalTokenMean, SequenceMean, Sum, TokenMean
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.known import Known
from gradlab.sequences.multisets import groups_of
from gradlab.sequences.normalized_advantages import TokenWhitened
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.tables import Asked, Tables, Weighting

__all__ = [
    "PAIRS",
    "Classes",
    "KnownClasses",
    "couples_prompts",
    "group_moments",
    "is_independent",
    "reads_lengths",
    "weightings",
]

PLUS, MINUS, OWN = 0, 1, 2
PAIRS = ((PLUS, PLUS), (MINUS, MINUS), (OWN, OWN), (PLUS, OWN), (MINUS, OWN))
"""The pairs of weightings whose products are needed: positive and negative advantage, own."""

# Digits in which rewards of one class may differ by rounding.
_ROUNDED = 11


def is_independent(estimator: PolicyGradient) -> bool:
    """Return whether the estimate is a mean over its sequences, none of which knows the others."""
    kinds = (Sum, Constant, SequenceMean)
    known = isinstance(estimator.advantage, Raw | Greedy)
    alone = isinstance(estimator.aggregation, kinds) and not estimator.loss.couples
    return known and alone and not estimator.resample


def couples_prompts(estimator: PolicyGradient) -> bool:
    """Return whether prompts of one training batch share a statistic."""
    shared = estimator.advantage.couples or estimator.loss.couples
    return shared or isinstance(estimator.aggregation, TokenMean | LocalTokenMean)


def reads_lengths(estimator: PolicyGradient) -> bool:
    """Return whether the factors of a group depend on more of its lengths than the own one."""
    of_advantage = isinstance(estimator.advantage, LengthWeighted | TokenWhitened)
    return of_advantage or isinstance(estimator.aggregation, TokenMean | LocalTokenMean)


class KnownClasses(Protocol):
    """What sums over groups ask of classes: their rewards and lengths."""

    @property
    def rewards(self) -> Tensor:
        """R of each class, [C]."""

    @property
    def lengths(self) -> Tensor:
        """The length of each class, [C]."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of sequences that an estimator tells apart.

    Args:
        on: The policy on a task.
        estimator: The estimator.
        finest: Whether lengths are told apart though the estimator does not.
    """

    on: EnumeratedPolicy
    estimator: PolicyGradient
    finest: bool = False

    @cached_property
    def seen(self) -> Float[Tensor, " S"]:
        """The rewards that the advantage sees, a KL penalty included."""
        if self.estimator.kl.place != "reward" or self.estimator.kl.per != "sequence":
            return self.on.rewards
        found = []
        for part in self.on.blocks():
            group = Known(self.on, part).group()
            found.append(self.estimator.seen_rewards(group).squeeze(1))
        seen = torch.cat(found)
        return torch.where(self.on.sampled > 0, seen, 0.0)

    @cached_property
    def _found(self) -> tuple[Tensor, Tensor, Tensor]:
        scale = float(self.seen.abs().max()) or 1.0
        rounded = (self.seen / scale).round(decimals=_ROUNDED)
        levels, level = rounded.unique(return_inverse=True)
        lengths = torch.cat([Known(self.on, part).lengths for part in self.on.blocks()])
        kept = lengths if self.finest or reads_lengths(self.estimator) else torch.ones_like(lengths)
        width = self.on.task.horizon + 1
        known, place = (level * width + kept).unique(return_inverse=True)
        reward = self.seen.new_zeros(len(levels)).scatter_(0, level, self.seen)
        return place, reward[known // width], known % width

    @property
    def place(self) -> Int[Tensor, " S"]:
        """The class of each sequence."""
        return self._found[0]

    @property
    def rewards(self) -> Float[Tensor, " C"]:
        """R of each class."""
        return self._found[1]

    @property
    def lengths(self) -> Int[Tensor, " C"]:
        """The length of each class; 1 where lengths are not told apart."""
        return self._found[2]

    def asked(self) -> Asked:
        """Return what the estimator asks of all sequences."""
        return Asked(weightings(self.estimator), PAIRS, self.place, len(self.rewards))


@dataclass(frozen=True)
class _TokenWeights:
    """What a loss and a KL term weigh the tokens of a sequence with; equal ones compare equal.

    `averaged`: whether a mean over the tokens of the sequence is taken; `kind`: PLUS, MINUS or OWN.
    """

    estimator: PolicyGradient
    averaged: bool
    kind: int

    def __call__(self, known: Known) -> Tensor:
        tokens = (known.log_prob, known.rollout_log_prob, known.lengths, known.reference_log_prob)
        if self.kind == OWN:
            found = self.estimator.own_weights(*tokens)
        else:
            found = self.estimator.token_weights(*tokens, sign=1 if self.kind == PLUS else -1)
        return found / known.lengths[:, None] if self.averaged else found


def weightings(estimator: PolicyGradient) -> list[Weighting]:
    """Return the weights of tokens for a positive advantage, a negative one, and without one.

    Args:
        estimator: An estimator that factorizes.

    Returns:
        Three weightings; a mean over the tokens of each sequence is in them.
    """
    averaged = isinstance(estimator.aggregation, SequenceMean)
    loss = PolicyGradient(loss=estimator.loss)
    minus = PLUS if estimator.loss.signless else MINUS
    return [
        _TokenWeights(loss, averaged, PLUS),
        _TokenWeights(loss, averaged, minus),
        _TokenWeights(loss.with_(kl=estimator.kl), averaged, OWN),
    ]


def group_moments(
    estimator: PolicyGradient,
    ons: Sequence[EnumeratedPolicy],
    classes: Sequence["KnownClasses"],
    found: Sequence[Tables],
) -> Moments:
    """Return the moments of the estimate from one group per prompt.

    Args:
        estimator: An estimator that factorizes.
        ons: The policy on the task of each prompt.
        classes: Of each prompt.
        found: The sums over the classes of each prompt.

    Returns:
        Mean and variance.

    Raises:
        TooLargeError: If there are too many groups.
        NotExactError: If no group is kept.
    """
    used = [table.mass > 0 for table in found]
    sizes = [int(keep.sum()) for keep in used]
    masses = [table.mass[keep] for table, keep in zip(found, used, strict=True)]
    # [3, C, P] of each prompt, then one row per prompt, kind and class.
    means = [t.means[:, k] / m[:, None] for t, k, m in zip(found, used, masses, strict=True)]
    rows = torch.cat([mean.flatten(0, 1) for mean in means])
    gram = rows @ rows.T
    first = torch.tensor([0, *sizes]).cumsum(0)[:-1]
    summed = _group_sums(estimator, ons, classes, used, masses, 3 * first, sizes)
    mean = summed.mean @ rows
    square = float((summed.square * gram).sum())
    for q, (table, keep, mass) in enumerate(zip(found, used, masses, strict=True)):
        product = table.products[:, keep] / mass
        own = torch.stack([(means[q][i] * means[q][j]).sum(-1) for i, j in PAIRS])
        square += float((summed.spread[q] * (product - own)).sum())
    variance = max(square - float(mean.square().sum()), 0.0)
    return Moments(mean, torch.tensor(variance, dtype=torch.float64))


@dataclass(frozen=True)
class _GroupSums:
    """Expectations over groups: of z, of z z^T, and of a^2 and a b by prompt, pair and class.

    z holds the sums of factors by prompt, kind (plus, minus, own) and class.
    """

    mean: Tensor
    square: Tensor
    spread: list[Tensor]


def _group_sums(
    estimator: PolicyGradient,
    ons: Sequence[EnumeratedPolicy],
    classes: Sequence["KnownClasses"],
    used: list[Tensor],
    masses: list[Tensor],
    first: Tensor,
    sizes: list[int],
) -> _GroupSums:
    rewards = [one.rewards[keep] for one, keep in zip(classes, used, strict=True)]
    lengths = [one.lengths[keep] for one, keep in zip(classes, used, strict=True)]
    greedy = torch.stack([on.greedy_reward for on in ons])
    horizon = ons[0].task.horizon
    width = 3 * sum(sizes)
    mean = torch.zeros(width, dtype=torch.float64)
    square = torch.zeros(width, width, dtype=torch.float64)
    spread = [torch.zeros(len(PAIRS), size, dtype=torch.float64) for size in sizes]
    kept, prompts = 0.0, range(len(sizes))
    size = torch.tensor(sizes)
    # Means over tokens are in the weightings, with the own length.
    factors = estimator
    if isinstance(estimator.aggregation, SequenceMean):
        factors = estimator.with_(aggregation=Sum())
    for members, p in groups_of(masses, estimator.g):
        r = torch.stack([rewards[q][members[:, q]] for q in prompts], 1)
        n = torch.stack([lengths[q][members[:, q]] for q in prompts], 1)
        p = p * estimator.kept(r).all(-1)
        kept += float(p.sum())
        given = {"horizon": horizon, "prompts": True}
        a = factors.advantages(r, n, greedy_rewards=greedy.expand(len(r), -1), **given)  # type: ignore[arg-type]
        b = factors.scales(n, **given).to(torch.float64).expand_as(a)  # type: ignore[arg-type]
        sign = torch.where(a >= 0, PLUS, MINUS)
        z = torch.zeros(len(r), width, dtype=torch.float64)
        at = first[:, None] + sign * size[:, None] + members
        z.scatter_add_(1, at.flatten(1), a.flatten(1))
        own = first[:, None] + OWN * size[:, None] + members
        z.scatter_add_(1, own.flatten(1), b.flatten(1))
        mean += p @ z
        square += z.T @ (p[:, None] * z)
        for q in prompts:
            of_class = members[:, q].flatten()
            for number, (i, j) in enumerate(PAIRS):
                product = (a if i != OWN else b)[:, q] * (a if j != OWN else b)[:, q]
                if j == OWN and i != OWN:
                    product = 2 * product
                if i != OWN:
                    product = torch.where(sign[:, q] == i, product, 0.0)
                spread[q][number].index_add_(0, of_class, (p[:, None] * product).flatten())
    if kept <= 0:
        raise NotExactError(
            f"{estimator} draws groups with equal rewards again, and all groups of "
            f"{ons[0].task.name} have equal rewards"
        )
    return _GroupSums(mean / kept, square / kept, [one / kept for one in spread])
