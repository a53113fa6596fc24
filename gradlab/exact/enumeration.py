r"""Expectations over all configurations of a small categorical model.

.. math:: E f = \sum_x p(x) f(x), \qquad \partial_{ic} E f = p_{ic}\,(E[f \mid x_i = c] - E f)

Configurations are a high prefix times a block of low variables kept in one buffer, so that memory
is a block and one number for each configuration, and the cost is one sweep of f. Classes of
probability 0 are not visited.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import (
    check_logits,
    configurations_at,
    one_hot,
    probabilities,
    probabilities_of,
)
from gradlab.exact.all_cores import in_groups, on_all_cores, swept
from gradlab.exact.rounding import Sizes
from gradlab.loss import BatchDependentError, Loss, NotFiniteError, evaluate, gradient
from gradlab.loss.diagnosis import agree
from gradlab.loss.gate import Objective, checked
from gradlab.progress import Progress
from gradlab.reproducible import single_thread

__all__ = [
    "MAX_CONFIGURATIONS",
    "Space",
    "GradientMoments",
    "TooLargeError",
    "ValueMoments",
    "check_states",
    "check_tables",
    "gradient_moments",
    "value_moments",
]

MAX_CONFIGURATIONS = 2**24
# Elements of the buffer [block, N, C], and of the gradient's second moments [N, C, C, C].
_BUFFER_ELEMENTS = 2**23
_MOMENT_ELEMENTS = 2**25
# Elements of gradients at all states that are kept.
_KEPT_ELEMENTS = 2**22
_BLOCK = 4096
# Blocks whose progress is worth a look at the clock.
_LONG = 16
# States of the last block that f is asked again, alone.
_FEW = 8


class TooLargeError(ValueError):
    """The state space is too large to enumerate."""


@dataclass(frozen=True)
class ValueMoments:
    """Moments of f under x ~ Categorical(p), all float64.

    Args:
        p: Probabilities [N, C].
        mean: E f.
        excess: E[f | x_i = k] - E f, [N, C], 0 for masked classes. It keeps its digits when f has
            a large offset.
        conditional_square: E[(f - E f)^2 | x_i = k], [N, C], 0 for masked classes.
        table: f at every state, in the order of `Space`: a row for each prefix.
        sizes: Sizes of what is summed, for its rounding.
    """

    p: Float[Tensor, "N C"]
    mean: Float[Tensor, ""]
    excess: Float[Tensor, "N C"]
    conditional_square: Float[Tensor, "N C"]
    table: Float[Tensor, "prefixes block"]
    sizes: Sizes

    @property
    def gradient(self) -> Float[Tensor, "N C"]:
        """d/dlogits E f = p (E[f | x_i = c] - E f)."""
        return self.p * self.excess


@dataclass(frozen=True)
class GradientMoments:
    """Moments of a_i = grad_i f(x) given the class of variable i, all float64.

    Args:
        p: Probabilities [N, C].
        mean: E[a_i | x_i = k], indexed [i, k, ...], 0 where masked.
        covariance: Cov[a_i | x_i = k], indexed [i, k, ...], 0 where masked.
        table: grad f at every state, in the order of `Space`, or None where it would be large.
    """

    p: Float[Tensor, "N C"]
    mean: Float[Tensor, "N C C"]
    covariance: Float[Tensor, "N C C C"]
    table: Float[Tensor, "S N C"] | None = None


@single_thread()
@torch.no_grad()
def value_moments(f: Loss, logits: Float[Tensor, "N C"], *, squares: bool = True) -> ValueMoments:
    """Return the moments of f by one sweep over all configurations.

    Args:
        f: The loss.
        logits: The parameters [N, C].
        squares: Whether second moments are needed; they are NaN else.

    Returns:
        The moments, float64.

    Raises:
        BatchDependentError: If the value at one x changes during the sweep.
        NotFiniteError: If sums of values of f overflow.
        TooLargeError: Beyond `MAX_CONFIGURATIONS` configurations of positive probability.
        LossError: If f breaks its contract.
    """
    objective = checked(f, logits)
    return on_all_cores(lambda threads: _value_moments(objective, logits, squares, threads))


def _value_moments(
    objective: Objective, logits: Float[Tensor, "N C"], squares: bool, threads: int
) -> ValueMoments:
    space = Space(logits)
    alone = evaluate(objective, space.block[:1])
    table = torch.zeros(space.prefix_count, len(space.block), dtype=torch.float64)
    weight = torch.zeros(space.prefix_count, dtype=torch.float64)
    # Kept apart: f may hand out the same memory at each call.
    alone = alone.clone()
    one = alone[0].to(torch.float64)
    above = torch.zeros((), dtype=torch.float64)
    sweep = swept(space, objective, lambda block: evaluate(objective, block), threads)
    for index, (prefix_p, _, raw) in enumerate(sweep):
        if index == 0:
            _check_steady(objective, alone, raw)
        table[index], weight[index] = raw, prefix_p
        above += prefix_p * ((table[index] - one) @ space.block_p)
    *_, prefix = space.ends()
    last = space.write(prefix, space.block[:_FEW].clone())
    _check_steady(objective, evaluate(objective, last), raw)
    # f is centred at its mean: an offset would cost digits of the gradient, and any one of its
    # values may be far from all the others. A constant f is 0 then, exactly.
    centre = one + above
    powers = 2 if squares else 1
    low = torch.zeros(powers, len(space.block), dtype=torch.float64)
    high = torch.zeros(powers, space.prefix_count, dtype=torch.float64)
    sizes = torch.zeros(2, 2, dtype=torch.float64)
    prefixes, length = list(space.prefix_classes()), len(space.block)

    def sums(some: range) -> Tensor:
        """Return for each prefix its weighted powers of f [powers, block], and sizes [2, 2]."""
        rows = torch.empty(len(some), powers * length + 4, dtype=torch.float64)
        for row, index in zip(rows, some, strict=True):
            power = value = table[index] - centre
            of = torch.stack([space.block_p, space.block_p * space.score_norms(prefixes[index])])
            size = weight[index] * (of @ torch.stack([table[index], value], 1).abs())
            row[powers * length :] = size.flatten()
            for k in range(powers):
                power = value if k == 0 else power * value
                torch.mul(power, weight[index], out=row[k * length : (k + 1) * length])
                high[k, index] = weight[index] * torch.dot(space.block_p, power)
        return rows

    for row in in_groups(len(prefixes), sums, threads):
        low += row[: powers * length].view(powers, length)
        sizes += row[powers * length :].view(2, 2)
    mean = low[0] @ space.block_p
    given, *given_square = (
        torch.where(space.p > 0, space.joint(high[k], low[k]) / space.p, mean if k == 0 else 0.0)
        for k in range(powers)
    )
    square = torch.full_like(given, math.nan)
    if squares:
        square = (given_square[0] - 2 * mean * given + mean**2).clamp_min(0.0)
        square = torch.where(space.p > 0, square, 0.0)
    found = Sizes(*sizes.flatten().tolist())
    if not bool(
        torch.isfinite(given - mean).all() and (torch.isfinite(square).all() or not squares)
    ):
        raise NotFiniteError(
            "values of f are so large that their squares, or their sums, overflow float64: scale f"
        )
    return ValueMoments(space.p, mean + centre, given - mean, square, table, found)


def _check_steady(f: Objective, few: Tensor, block: Tensor) -> None:
    """Raise BatchDependentError unless f gave the same values at the first states of a block.

    What rounding may do is measured by the whole block: one value may be near 0 by cancelling.
    """
    one, other = block.clone(), block.clone()
    one[: len(few)] = few
    if not agree(one, other, f.eps):
        raise BatchDependentError(
            f"f gave values {float((one - other).abs().max()):.2g} apart at the same x during the "
            "enumeration: in a batch of another size, or later. Its values depend on the batch, or "
            "on something that it keeps between calls"
        )


@single_thread()
def gradient_moments(f: Loss, logits: Float[Tensor, "N C"]) -> GradientMoments:
    """Return the moments of grad f by one sweep over all configurations.

    Args:
        f: The loss.
        logits: The parameters [N, C].

    Returns:
        The moments given each class, float64.

    Raises:
        NotDifferentiableError: If f has no gradient.
        TooLargeError: If there are too many configurations, or numbers in [N, C, C, C].
        LossError: If f breaks its contract.
    """
    objective = checked(f, logits)
    return on_all_cores(lambda threads: _gradient_moments(objective, logits, threads))


def _gradient_moments(f: Objective, logits: Float[Tensor, "N C"], threads: int) -> GradientMoments:
    space = Space(logits)
    check_tables(space.p)
    variables, classes = space.p.shape
    # grad f is centred at one of its values: then linear f has variance exactly 0. At the likeliest
    # x, of p >= 1/n, it is at most sqrt(n) times root E |grad f|^2, however far from the others.
    offset = gradient(f, one_hot(space.p.argmax(-1), space.p).unsqueeze(0))[0].clone()
    mean = torch.zeros(variables, classes, classes, dtype=torch.float64)
    square = torch.zeros(variables, classes, classes, classes, dtype=torch.float64)
    root = space.block_p.sqrt()
    low = range(space.split, variables)
    roots = [space.by_class(root, i).unsqueeze(1) for i in low]
    low_mean = [mean.new_zeros(len(space.allowed[i]), 1, classes) for i in low]
    low_square = [mean.new_zeros(len(space.allowed[i]), classes, classes) for i in low]

    count = space.prefix_count * len(space.block)
    table = None
    if count * logits.numel() <= _KEPT_ELEMENTS:
        table = torch.empty(count, variables, classes, dtype=torch.float64)

    def slopes(block: Tensor) -> Tensor:
        return gradient(f, block).to(torch.float64)

    sweep = swept(space, f, slopes, threads)
    for index, (prefix_p, prefix, found) in enumerate(sweep):
        if table is not None:
            table[index * len(found) : (index + 1) * len(found)] = found
        # q q^T sums to the weighted second moment.
        q = (found - offset).mul_(root[:, None, None])
        for i, k in enumerate(prefix):
            mean[i, k].add_(root @ q[:, i], alpha=prefix_p)
            square[i, k].addmm_(q[:, i].T, q[:, i], alpha=prefix_p)
        for i, weight, first, second in zip(low, roots, low_mean, low_square, strict=True):
            part = space.by_class(q[:, i], i)
            first.baddbmm_(weight, part, alpha=prefix_p)
            second.baddbmm_(part.transpose(1, 2), part, alpha=prefix_p)
    for i, first, second in zip(low, low_mean, low_square, strict=True):
        mean[i, space.allowed[i]] = first.squeeze(1)
        square[i, space.allowed[i]] = second
    p = space.p[..., None]
    given = torch.where(p > 0, mean / p, 0.0)
    covariance = torch.where(p[..., None] > 0, square / p[..., None], 0.0)
    covariance = covariance - given[..., :, None] * given[..., None, :]
    mean = given + torch.where(p > 0, offset[:, None], 0.0)
    return GradientMoments(space.p, mean, covariance, table)


def check_tables(logits: Float[Tensor, "N C"]) -> None:
    """Raise TooLargeError if a [C, C] matrix for each class and variable would fill the memory."""
    variables, classes = logits.shape
    if variables * classes**3 > _MOMENT_ELEMENTS:
        raise TooLargeError(
            f"exact moments of {variables} variables of {classes} classes need N C^3 = "
            f"{variables * classes**3} numbers, more than {_MOMENT_ELEMENTS}; use monte_carlo(...) "
            "instead"
        )


def check_states(logits: Float[Tensor, "N C"]) -> None:
    """Raise TooLargeError if there are more than `MAX_CONFIGURATIONS` possible configurations."""
    p = probabilities(logits.detach().to("cpu", torch.float64))
    _check_sizes(logits, [int(count) for count in (p > 0).sum(-1)])


def _check_sizes(logits: Tensor, sizes: list[int]) -> None:
    variables, classes = logits.shape
    if math.prod(sizes) > MAX_CONFIGURATIONS:
        raise TooLargeError(
            f"{variables} variables of {classes} classes have about "
            f"10^{sum(map(math.log10, sizes)):.1f} configurations of positive probability, more "
            f"than the {MAX_CONFIGURATIONS} that are enumerated; use monte_carlo(...) instead"
        )


class Space:
    """All possible configurations: a block of variables from `split` on, prefixes before it."""

    def __init__(self, logits: Tensor) -> None:
        logits = check_logits(logits, ndim=2).detach().to("cpu", torch.float64)
        self.p = probabilities(logits)
        variables, classes = logits.shape
        # A class may be masked by -inf or by -1e8: what has probability 0 is not visited.
        self.allowed = [(row > 0).nonzero()[:, 0] for row in self.p]
        sizes = [len(a) for a in self.allowed]
        _check_sizes(logits, sizes)
        limit = max(1, min(_BLOCK, _BUFFER_ELEMENTS // logits.numel()))
        self.split = variables
        while self.split > 0 and math.prod(sizes[self.split - 1 :]) <= limit:
            self.split -= 1
        low = self.allowed[self.split :]
        digits = configurations_at(torch.arange(math.prod(sizes[self.split :])), low)
        self.block = torch.zeros(len(digits), variables, classes, dtype=torch.float64)
        self.block[:, self.split :].scatter_(-1, digits.unsqueeze(-1), 1.0)
        self.first = tuple(int(a[0]) for a in self.allowed[: self.split])
        self.block[:, torch.arange(self.split), self.first] = 1.0
        self.block_p = probabilities_of(self.p[self.split :], digits)
        self.prefix_count = math.prod(sizes[: self.split])
        # |e_k - p_i|^2 for each class, and its sum over the variables of the block.
        self._score2 = 1 - 2 * self.p + self.p.square().sum(-1, keepdim=True)
        self._high_score2 = self._score2[: self.split].tolist()
        self._low_score2 = torch.einsum(
            "bnc,nc->b", self.block[:, self.split :], self._score2[self.split :]
        )

    def prefix_classes(self) -> Iterator[tuple[int, ...]]:
        """Yield the classes of each prefix."""
        return itertools.product(*(a.tolist() for a in self.allowed[: self.split]))

    def score_norms(self, prefix: tuple[int, ...]) -> Float[Tensor, " block"]:
        """Return the length of the score x - p at each state of the block with this prefix."""
        high = sum(row[c] for row, c in zip(self._high_score2, prefix, strict=True))
        return (self._low_score2 + high).clamp_min(0.0).sqrt()

    def ends(self) -> Iterator[tuple[int, ...]]:
        """Yield the first prefix and the last."""
        high = self.allowed[: self.split]
        yield tuple(int(allowed[0]) for allowed in high)
        yield tuple(int(allowed[-1]) for allowed in high)

    def write(self, prefix: tuple[int, ...], block: Tensor) -> Tensor:
        """Return the block, or a copy of it, after writing a prefix into it."""
        block[:, : self.split] = 0.0
        block[:, torch.arange(self.split), prefix] = 1.0
        return block

    def move(self, block: Tensor, before: tuple[int, ...], prefix: tuple[int, ...]) -> Tensor:
        """Return the block, or a copy of it, after writing a prefix in the place of another."""
        for i, (old, new) in enumerate(zip(before, prefix, strict=True)):
            if old != new:
                block[:, i, old] = 0.0
                block[:, i, new] = 1.0
        return block

    def prefixes(self, written: bool = True) -> Iterator[tuple[float, tuple[int, ...]]]:
        """Yield probability and classes of each prefix, after writing it into the block."""
        p = self.p.tolist()
        before = self.first
        long = self.prefix_count > _LONG
        with Progress("enumerating", self.prefix_count, "blocks", shown=long) as progress:
            for prefix in self.prefix_classes():
                if written:
                    self.move(self.block, before, prefix)
                    before = prefix
                yield math.prod(p[i][c] for i, c in enumerate(prefix)), prefix
                progress.add()

    def by_class(self, of_block: Tensor, i: int) -> Tensor:
        """Return the block's entries [block, ...] as [classes, rest, ...] by the class of x_i."""
        inner = math.prod(len(a) for a in self.allowed[i + 1 :])
        strided = of_block.reshape(-1, len(self.allowed[i]), inner, *of_block.shape[1:])
        return strided.movedim(1, 0).flatten(1, 2)

    def joint(
        self, high: Float[Tensor, " prefixes"], low: Float[Tensor, " block"]
    ) -> Float[Tensor, "N C"]:
        """Return E[h 1{x_i = c}] from the sums of p h over prefixes and over block entries."""
        joint = torch.zeros_like(self.p)
        weighted = low * self.block_p
        for i, allowed in enumerate(self.allowed):
            part = high if i < self.split else weighted
            same_part = (
                self.allowed[i + 1 : self.split] if i < self.split else self.allowed[i + 1 :]
            )
            inner = math.prod(len(a) for a in same_part)
            joint[i, allowed] = part.reshape(-1, len(allowed), inner).sum((0, 2))
        return joint
