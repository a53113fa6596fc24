r"""k of n drawn one after the other without replacement: the set of the Gumbel top-k.

.. math:: P(S) = \sum_{\text{orders of } S} \prod_{j=1}^k
          \frac{w_{i_j}}{W - w_{i_1} - \dots - w_{i_{j-1}}}, \qquad w = \exp\theta

The sum over orders (Plackett-Luce) is a recursion over the subsets of S: 2^k terms, none of which
subtracts.
"""

import math
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import FiniteDistribution
from gradlab.distributions.k_subset import KHot, all_subsets, check_subset, largest
from gradlab.distributions.natural import finite_log, lowest
from gradlab.samples import draw_exponentials

__all__ = ["WithoutReplacement"]

_MAX_K = 12
# Numbers of the recursion over all states, which entropy and mean sum up.
_MAX_TERMS = 2**24


class WithoutReplacement(FiniteDistribution):
    r"""The set of k of n elements drawn without replacement, x in {0, 1}^n with k ones.

    .. math:: x = top_k(\theta + \epsilon), \qquad \epsilon \sim Gumbel

    This is the law of Gumbel top-k (Xie & Ermon 2019; Kool et al. 2019), of I-MLE on subsets, and
    of `torch.multinomial` without replacement. It is not that of `KSubset`, which weighs sets by
    the product of the weights: only at k = 1 and k = n are the two the same. It is not an
    exponential family; the mean is summed over all subsets, so ST, ZGR and DARN need few of them.
    ZGR is exact on quadratics here too.

    Args:
        logits: theta [*batch, n]; -inf forces an element out.
        k: The number of elements that are drawn, 1 to n, at most 12.
        estimator: What `rsample` back-propagates: "ZGR", "TopK-ST(tau=1)", "I-MLE(lam=1)", ...
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: logits are not a floating-point tensor, or k is not an int.
        ValueError: k is not in 1 to n or above 12, or more elements are forced out than may be left
            out.

    Example:
        >>> from math import log
        >>> logits = torch.tensor([log(2.0), 0.0, 0.0])
        >>> one_and_two = torch.tensor([1.0, 1.0, 0.0])
        >>> WithoutReplacement(logits, k=2).log_prob(one_and_two).exp()  # 1/2 1/2 + 1/4 2/3
        tensor(0.4167)
    """

    law: ClassVar[str] = "sampling without replacement"
    parameters: ClassVar[dict[str, int]] = {"logits": 1}

    def __init__(
        self,
        logits: Float[Tensor, "*batch n"],
        k: int,
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        check_subset(logits, k)
        if k > _MAX_K:
            raise ValueError(
                f"a set of {k} elements has {k}! orders, whose sum is known up to k = {_MAX_K}; "
                "use KSubset, which is another law"
            )
        self.logits, self.k = logits, k
        super().__init__(logits.shape[:-1], logits.shape[-1:], estimator, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of 0 and 1 with k ones."""
        return KHot(self.k)

    @property
    def mean(self) -> Tensor:
        """The marginals E x [*batch, n], summed over all subsets."""
        states = self._few_states()
        p = self._log_prob(states).exp()
        return (p.unsqueeze(-1) * states).sum(0)

    @property
    def variance(self) -> Tensor:
        """The variance of each entry of x, [*batch, n]."""
        mean = self.mean
        return mean * (1 - mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log P(x) [*sample, *batch]; differentiable in the logits.

        Args:
            value: States [*sample, *batch, n].

        Raises:
            ValueError: The value carries a gradient, which has no way through a look-up.
        """
        self._check_detached(value)
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(value)

    def entropy(self) -> Tensor:
        """Return -E log P(x), [*batch], in nats."""
        return torch.special.entr(self._log_prob(self._few_states()).exp()).sum(0)

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the k elements with the largest weights, as x [..., n]."""
        return largest(weights[0], self.k)

    def _log_prob(self, x: Tensor) -> Tensor:
        theta = finite_log(self.logits)
        shape = torch.broadcast_shapes(x.shape, theta.shape)
        x, theta = x.expand(shape), theta.expand(shape)
        # Digits stay whatever the size of theta: probabilities depend on differences only.
        theta = theta - theta.detach().amax(-1, keepdim=True)
        chosen = theta.gather(-1, x.topk(self.k, -1).indices)
        outside = torch.where(x != 0, lowest(theta.dtype), theta).logsumexp(-1)
        low = torch.full_like(chosen[..., :1], lowest(theta.dtype))
        padded = torch.cat([chosen, low], -1)
        reached = [torch.zeros_like(outside).unsqueeze(-1)]
        for before, last, missing in _orders(self.k):
            before, last, missing = (t.to(x.device) for t in (before, last, missing))
            # What could still have been drawn: all outside the set, and what is left of it.
            left = torch.cat(
                [
                    padded[..., missing],
                    outside[..., None, None].expand(*outside.shape, len(missing), 1),
                ],
                -1,
            ).logsumexp(-1)
            step = (reached[-1] - left)[..., before] + chosen[..., last]
            reached.append(step.logsumexp(-1))
        return reached[-1].squeeze(-1)

    def _few_states(self) -> Tensor:
        n = self.event_shape[0]
        terms = math.comb(n, self.k) * 2**self.k * n * max(1, self.batch_shape.numel())
        if terms > _MAX_TERMS:
            raise ValueError(
                f"the mean of {self.k} of {n} elements without replacement sums {terms:.1e} terms, "
                f"more than {_MAX_TERMS}; use a score function such as RF(m=4), or KSubset, which "
                "is another law"
            )
        return self.enumerate_support(expand=False)

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        theta = self.logits.expand(Size([n]) + self.logits.shape)
        return self.maximizer(theta - draw_exponentials(theta, generator).log())

    def _states(self) -> Tensor:
        return all_subsets(self.event_shape[0], self.k).to(self.logits)

    def _arguments(self) -> list[str]:
        return [f"k={self.k}", *super()._arguments()]


@lru_cache(maxsize=_MAX_K)
def _orders(k: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each number of drawn elements: for each set of one more, the sets before, and the last.

    `missing` names, for each set before, the elements that are not in it; k stands for none.
    """
    from itertools import combinations

    found = []
    for size in range(k):
        smaller = list(combinations(range(k), size))
        place = {s: i for i, s in enumerate(smaller)}
        missing = [[i for i in range(k) if i not in s] for s in smaller]
        before, last = [], []
        for subset in combinations(range(k), size + 1):
            last.append(subset)
            before.append([place[subset[:j] + subset[j + 1 :]] for j in range(size + 1)])
        found.append((torch.tensor(before), torch.tensor(last), torch.tensor(missing)))
    return found
