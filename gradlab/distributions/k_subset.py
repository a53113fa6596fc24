r"""Exactly k of n: the conditional Bernoulli distribution.

.. math:: p(x) = \exp(\theta \cdot x) / e_k(\exp\theta), \qquad x \in \{0, 1\}^n,\ \sum x = k

e_k is an elementary symmetric polynomial. It is the coefficient of z^k in the product of the
polynomials 1 + z exp(theta_i), which are multiplied in pairs, and the pairs in pairs.
"""

import itertools
import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import ExponentialFamily
from gradlab.distributions.natural import check_natural, lowest
from gradlab.samples import draw_exponentials

__all__ = ["KHot", "KSubset", "all_subsets", "check_subset", "largest"]

_MAX_STATES = 2**20


class KHot(constraints.Constraint):
    """Vectors of 0 and 1 with k ones.

    Args:
        k: The number of ones.
    """

    is_discrete = True
    event_dim = 1

    def __init__(self, k: int) -> None:
        self.k = k

    def check(self, value: Tensor) -> Tensor:
        """Return where the value is in the set."""
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == self.k)


class KSubset(ExponentialFamily):
    r"""A subset of exactly k of n elements, x in {0, 1}^n with k ones.

    .. math:: p(x) \propto \exp(\theta \cdot x)

    This is the conditional Bernoulli law. Sampling without replacement (Gumbel top-k) is another
    law, `WithoutReplacement`. Log-partition and marginals cost O(n k log k); sampling descends the
    same tree. With `estimator="SIMPLE"`, which is ST, `rsample` is that of Ahmed et al. 2022 (arXiv
    2210.01941).

    Args:
        logits: theta [*batch, n]; -inf forces an element out.
        k: The number of elements that are chosen, 1 to n.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: logits are not a floating-point tensor, or k is not an int.
        ValueError: k is not in 1 to n, or more elements are forced out than may be left out.

    Example:
        >>> KSubset(torch.zeros(4), k=2).mean
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    law: ClassVar[str] = "conditional Bernoulli"
    parameters: ClassVar[dict[str, int]] = {"logits": 1}

    def __init__(
        self,
        logits: Float[Tensor, "*batch n"],
        k: int,
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        check_subset(logits, k)
        self.logits, self.k = logits, k
        super().__init__(logits.shape[:-1], logits.shape[-1:], estimator, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of 0 and 1 with k ones."""
        return KHot(self.k)

    def _score(self, x: Tensor) -> Tensor:
        return torch.where(x != 0, self.logits, 0.0).mul(x).sum(-1)

    def _log_partition(self, *parameters: Tensor) -> Tensor:
        return self._tree(parameters[0])[-1].squeeze(-1).squeeze(-1)

    def _tree(self, theta: Tensor) -> list[Tensor]:
        """Return the log coefficients [*batch, nodes, degree + 1] of each level, leaves first.

        The last level has the coefficient of z^k alone.
        """
        if theta.shape[-1] == 1:
            return [theta.unsqueeze(-1)]
        level = torch.stack([torch.zeros_like(theta), theta], -1)
        levels = [level]
        while level.shape[-2] > 1:
            left, right = _halves(level)
            degree = left.shape[-1] - 1
            first = self.k if left.shape[-2] == 1 else 0
            terms = left.flip(-1).unsqueeze(-2) + _taken(right, first, min(2 * degree, self.k))
            level = terms.logsumexp(-1)
            levels.append(level)
        return levels

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        if self.k == self.event_shape[0]:
            return self.logits.new_ones(n, *self.logits.shape)
        levels = self._tree(self.natural[0])
        counts = torch.full((n, *self.batch_shape, 1), self.k, device=self.logits.device)
        for level in reversed(levels[:-1]):
            left, right = _halves(level)
            degree = left.shape[-1] - 1
            split = torch.arange(degree + 1, device=level.device)
            rest = counts.unsqueeze(-1) - split
            usable = (rest >= 0) & (rest <= degree)
            right = right.expand(n, *right.shape).gather(-1, rest.clamp(0, degree))
            weight = torch.where(usable, left + right, -torch.inf)
            chosen = (weight - draw_exponentials(weight, generator).log()).argmax(-1)
            counts = torch.stack([chosen, counts - chosen], -1).flatten(-2)
            counts = counts[..., : level.shape[-2]]
        return counts.to(self.logits.dtype)

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the k elements with the largest weights, as x [..., n]."""
        return largest(weights[0], self.k)

    def _numbers_per_draw(self) -> int:
        return 4 * self.logits.numel()

    def _states(self) -> Tensor:
        return all_subsets(self.event_shape[0], self.k).to(self.logits)

    def _arguments(self) -> list[str]:
        return [f"k={self.k}", *super()._arguments()]


def check_subset(logits: Tensor, k: int) -> None:
    """Raise an error unless k of the elements can be chosen.

    Args:
        logits: One weight for each element, [*batch, n]; -inf forces an element out.
        k: The number of elements that are chosen.

    Raises:
        TypeError: logits are not a floating-point tensor, or k is not an int.
        ValueError: k is not in 1 to n, or more elements are forced out than may be left out.
    """
    check_natural("logits", logits, 1)
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an int, not {type(k).__name__}")
    n = logits.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the {n} elements, not {k}")
    left = int((logits > -torch.inf).sum(-1).min()) if logits.numel() else n
    if left < k:
        raise ValueError(
            f"only {left} elements have logits above -inf, so {k} of them cannot be chosen"
        )


def all_subsets(n: int, k: int) -> Tensor:
    """Return all subsets of k of n elements as rows of 0 and 1, [S, n].

    Args:
        n: The number of elements.
        k: The number of elements of each subset.

    Raises:
        ValueError: There are more than 2^20.

    Example:
        >>> all_subsets(3, 2)
        tensor([[1., 1., 0.],
                [1., 0., 1.],
                [0., 1., 1.]])
    """
    if math.comb(n, k) > _MAX_STATES:
        raise ValueError(
            f"{k} of {n} elements have {math.comb(n, k)} subsets, more than the "
            f"{_MAX_STATES} that are enumerated; draw samples instead"
        )
    chosen = torch.tensor(list(itertools.combinations(range(n), k)))
    return torch.zeros(len(chosen), n).scatter(1, chosen, 1.0)


def largest(weights: Tensor, k: int) -> Tensor:
    """Return the k largest entries of each row, as 1 among 0.

    Args:
        weights: Weights [..., n].
        k: How many are chosen.

    Example:
        >>> largest(torch.tensor([0.3, -1.0, 2.0]), 2)
        tensor([1., 0., 1.])
    """
    return torch.zeros_like(weights).scatter(-1, weights.topk(k, -1).indices, 1.0)


def _halves(level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the left and the right nodes of each pair; an odd node is paired with the number 1."""
    if level.shape[-2] % 2:
        one = level.new_full((*level.shape[:-2], 1, level.shape[-1]), lowest(level.dtype))
        one[..., 0] = 0.0
        level = torch.cat([level, one], -2)
    return level[..., 0::2, :], level[..., 1::2, :]


def _taken(right: Tensor, first: int, last: int) -> Tensor:
    """Return the coefficient of z^(j + a - degree) of the right factor at [..., j - first, a].

    j goes from `first` to `last`; the coefficient is 0 where there is none.
    """
    degree = right.shape[-1] - 1
    padded = torch.nn.functional.pad(
        right, (degree, max(0, last - degree)), value=lowest(right.dtype)
    )
    return padded[..., first : last + degree + 1].unfold(-1, degree + 1, 1)
