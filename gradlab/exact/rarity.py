r"""How rare the states are that carry the gradient and the variance, from one enumeration of f.

The size of a score-function draw at x, and what its largest events carry:

.. math:: t(x) = |f(x) - E f|\,|x - p|, \qquad \sum_{x \in A} p(x)\,t(x)
          \quad\text{and}\quad \sum_{x \in A} p(x)\,t(x)^2, \quad A = \{t(x) \ge s\}

A sample that never met A shows neither: what it says of mean and variance is of the rest alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gradlab.exact.enumeration import Space
from gradlab.exact.moments import Enumerated, EnumeratedBatch, Enumeration
from gradlab.reproducible import single_thread

__all__ = ["Rarity", "rarity"]

# Bins of t to an octave: events of one bin count as equally large, to 2 %.
_BINS = 32
# All exponents of float64.
_LOWEST, _OCTAVES = -1075, 2100
# Deviations from E f of so many rounding units are none.
_ULPS = 8
_KEPT = "_rarity"


@dataclass(frozen=True, eq=False)
class Rarity:
    """What the largest events carry, by their total rate; an event is a state x of one element.

    `rate`, `first` and `second` begin with 0 and are cumulated from the largest t downwards: the
    expected events in one draw, and what they carry of E t and of E t^2. For a batch a draw has a
    state of each element, and the rates add up. Between the nodes they are linear.
    """

    rate: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    def carried(self, q: float) -> float:
        """Return the largest mean that events of total rate q carry, in units of f.

        No mean of score-function draws changes by more if such events are never met.
        """
        return float(np.interp(q, self.rate, self.first))

    def variance_share(self, q: float) -> float:
        """Return the largest share of E t^2 that events of total rate q carry; 0 if t is 0."""
        total = float(self.second[-1])
        return float(np.interp(q, self.rate, self.second)) / total if total > 0 else 0.0

    def missed(self, q: float) -> tuple[float, float]:
        """Return mean and share of E t^2 of the largest events that all together have rate <= q.

        Unlike above no event is divided: a state of rate above q is not missed in part.
        """
        last = int(np.searchsorted(self.rate, q, side="right")) - 1
        total = float(self.second[-1])
        share = float(self.second[last]) / total if total > 0 else 0.0
        return float(self.first[last]), share

    def rate_of(self, share: float) -> float:
        """Return the total rate of the largest events that carry this share of E t^2.

        n draws meet them n times as often. Infinite if t is 0 everywhere.
        """
        total = float(self.second[-1])
        return float(np.interp(share * total, self.second, self.rate)) if total > 0 else math.inf

    def draws_needed(self, visits: float = 30, share: float = 0.5) -> int:
        """Return the fewest n for which events of rate visits/n carry at most `share` of E t^2."""
        if share >= 1:
            return 1
        return max(1, math.ceil(visits / self.rate_of(share)))


def rarity(on: Enumerated) -> Rarity:
    """Return how rare the states are that carry the gradient, from its values.

    Memory is constant, and the answer is kept with the enumeration. Values of f that differ from
    E f by rounding alone count as E f.

    Args:
        on: The enumeration; of a batch all elements count together.

    Returns:
        What the largest events carry, by their rate.

    Raises:
        TooLargeError: Beyond `MAX_CONFIGURATIONS` configurations of positive probability.
        LossError: If f breaks its contract.

    Example:
        >>> from gradlab.problems import problem, regime
        >>> found = rarity(Enumeration(problem("linear", 2, 3), regime("moderate", 2, 3)))
        >>> found.draws_needed() > 1
        True
    """
    known = vars(on).get(_KEPT)
    if known is None:
        # As cached_property does it, which passes by the frozen dataclass.
        known = vars(on)[_KEPT] = _rarity(on)
    assert isinstance(known, Rarity)
    return known


def _rarity(on: Enumerated) -> Rarity:
    elements = on.elements if isinstance(on, EnumeratedBatch) else [on]
    sums = torch.zeros(3, _OCTAVES * _BINS, dtype=torch.float64)
    for element in elements:
        _add(element, sums)
    # An event of rate 0 (p underflows) would only repeat a node.
    sums = sums.flip(-1)[:, sums.flip(-1)[0] > 0]
    nodes = torch.cat([sums.new_zeros(3, 1), sums.cumsum(-1)], -1)
    return Rarity(*nodes.numpy())


@single_thread()
@torch.no_grad()
def _add(on: Enumeration, sums: torch.Tensor) -> None:
    """Add p, p t and p t^2 of all states with t > 0 to the bins of t."""
    f, mean = on.objective, on.values.mean
    space = Space(on.logits)
    # |x - p|^2 is a sum over the variables.
    distance = 1 - 2 * space.p + space.p.square().sum(-1, keepdim=True)
    low = (space.block[:, space.split :] * distance[space.split :]).sum((-2, -1))
    for value, (prefix_p, prefix) in zip(on.values.table, space.prefixes(), strict=True):
        deviation = (value - mean).abs()
        rounding = _ULPS * f.eps * (value.abs() + mean.abs())
        high = sum(float(distance[i, c]) for i, c in enumerate(prefix))
        t = deviation * (low + high).clamp_min(0.0).sqrt()
        met = (deviation > rounding) & (t > 0)
        t, p = t[met], prefix_p * space.block_p[met]
        bins = ((torch.log2(t) - _LOWEST) * _BINS).long()
        for k in range(3):
            sums[k].index_add_(0, bins, p)
            p = p * t
