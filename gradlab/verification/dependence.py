r"""Do draws of one call depend on each other? Seen in the draws of a trial themselves.

The sum over a group of L independent draws z has the variance L V, whatever L is. So

.. math:: Q = \sum_g |S_g - L_g \bar z|^2, \quad
          E Q = \operatorname{tr} V\,(\textstyle\sum_g L_g - \sum_g L_g^2 / N)

for the sums S_g over groups of the N draws; what is shared within groups makes it larger, what is
opposite makes it smaller.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import gammainc, gammaincc
from torch import Tensor

__all__ = ["CallSums", "Spread"]

# Draws that are added up: neighbours, some more, all of one call.
_LENGTHS = (2, 16, None)
# Directions that are looked at, and calls from which on their means say something.
_DIRECTIONS, _CALLS = 8, 4
# Groups from which on sums that vary too little say something.
_MANY = 64


@dataclass(frozen=True)
class Spread:
    """How much sums over groups of draws vary, relative to independent draws, and its p-value."""

    groups: str
    ratio: float
    p_value: float


@dataclass(frozen=True)
class _Groups:
    """Sums S_g over groups of L_g draws: sums over groups of 1, L, L^2, L S and |S|^2."""

    count: int
    draws: int
    draws2: int
    total: Float[Tensor, " k"]
    square: float

    @classmethod
    def of(cls, z: Float[Tensor, "n k"], length: int | None) -> "_Groups":
        length = len(z) if length is None else length
        count = len(z) // length
        s = z[: count * length].unflatten(0, (count, length)).sum(1)
        total = length * s.sum(0)
        return cls(count, count * length, count * length**2, total, float(s.square().sum()))

    def merge(self, other: "_Groups") -> "_Groups":
        return _Groups(
            self.count + other.count,
            self.draws + other.draws,
            self.draws2 + other.draws2,
            self.total + other.total,
            self.square + other.square,
        )


@dataclass(frozen=True)
class CallSums:
    """Sums over calls of draws z [n, k]: a few directions of the deviations, mixed at random.

    `n`, `mean`; `scatter` and the fourth power of the radius, relative to the mean of each call, so
    that what a call shares is not in them; `groups` for each of the lengths.
    """

    n: int
    mean: Float[Tensor, " k"]
    scatter: Float[Tensor, "k k"]
    radius4: float
    groups: tuple[_Groups, ...]
    calls: int = 1

    @classmethod
    def from_call(cls, d: Float[Tensor, "n D"], weights: Float[Tensor, "D k"]) -> "CallSums":
        """Return the sums of the draws of one call, in the directions of `weights`."""
        z = d @ weights
        mean = z.mean(0)
        centred = z - mean
        return cls(
            len(z),
            mean,
            centred.T @ centred,
            float(centred.square().sum(-1).square().sum()),
            tuple(_Groups.of(z, length) for length in _LENGTHS),
        )

    @staticmethod
    def weights(d: Float[Tensor, "n D"], rounding: float) -> Float[Tensor, "D k"]:
        """Return directions for draws like these: random signs over their standard deviations.

        What varies by rounding alone is left out: that may depend on the place in a call.
        """
        deviation = d.std(0)
        source = torch.Generator().manual_seed(0)
        shape = (d.shape[1], min(_DIRECTIONS, d.shape[1]))
        signs = torch.randint(2, shape, generator=source).to(d.dtype) * 2 - 1
        return torch.where(deviation > rounding, 1 / deviation, 0.0)[:, None] * signs

    def merge(self, other: "CallSums") -> "CallSums":
        """Return the sums over the calls of both."""
        n = self.n + other.n
        delta = other.mean - self.mean
        return CallSums(
            n,
            self.mean + delta * (other.n / n),
            self.scatter + other.scatter,
            self.radius4 + other.radius4,
            tuple(a.merge(b) for a, b in zip(self.groups, other.groups, strict=True)),
            self.calls + other.calls,
        )

    def spreads(self) -> Iterator[Spread]:
        """Yield how much sums vary at each length, by a gamma distribution of the same variance."""
        covariance = self.scatter / max(self.n - self.calls, 1)
        trace, trace2 = float(covariance.trace()), float(covariance.square().sum())
        excess = max(self.radius4 / self.n - trace**2 - 2 * trace2, 0.0)
        for length, group in zip(_LENGTHS, self.groups, strict=True):
            named = "all draws of a call" if length is None else f"{length} draws in a row"
            if group.count < (_CALLS if length is None else 2 * _CALLS) or trace == 0:
                yield Spread(named, 1.0, 1.0)
                continue
            mean2 = float(self.mean.square().sum())
            square = group.square - 2 * float(self.mean @ group.total) + group.draws2 * mean2
            expected = trace * (group.draws - group.draws2 / self.n)
            shape = expected**2 / (2 * group.draws2 * trace2 + excess * group.draws)
            ratio = square / expected
            p = 2 * float(gammaincc(shape, shape * ratio))
            # Of few groups with a rare event each all may have the same sum by chance.
            if group.count >= _MANY:
                p = min(p, 2 * float(gammainc(shape, shape * ratio)))
            yield Spread(named, ratio, min(p, 1.0))
