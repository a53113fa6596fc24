"""Sums over draws of how far they are from a target: mean, covariance, fourth moments, extremes.

They are merged block by block, so that memory does not grow with the number of draws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.moments import Measured

__all__ = ["DeviationSums"]

# Covariances are kept in at most so many dimensions, beyond that variances.
_LARGEST = 512
# Calls from which on their sums say something.
_FEWEST = 8
# Draws that are kept as they are: those farthest out. Calls whose sums are kept apart.
_EXTREMES, _CALLS = 32, 256


@dataclass(frozen=True)
class DeviationSums:
    """Sums over draws of deviations d [n, D] from the target: what a test of their mean needs.

    `mean` [D], `scatter` = sum of (d - mean)(d - mean)^T [D, D], or its diagonal [D] where D is
    large, `fourth` = sum of (d - mean)^4 [D] and `peak` = max of (d - mean)^2 [D], the mean in
    both being that of each block. `extremes` [K, D] are the deviations of the K draws that are
    farthest out, coordinates counted in standard deviations; `size` is the length of the longest
    draw. `called` [G] and `totals` [G, D]: draws and sum of d of each call, or of some calls in a
    row, where draws of a call may depend on each other; else G is 0.
    """

    n: int
    mean: Float[Tensor, " D"]
    scatter: Float[Tensor, "..."]
    fourth: Float[Tensor, " D"]
    peak: Float[Tensor, " D"]
    extremes: Float[Tensor, "K D"]
    size: float
    called: Float[Tensor, " G"]
    totals: Float[Tensor, "G D"]

    @classmethod
    def from_draws(
        cls, d: Float[Tensor, "n D"], size: float = 0.0, *, apart: bool = False
    ) -> "DeviationSums":
        """Return the sums of the draws of one call, the longest of which has this size.

        `apart`: keep the sum of this call.
        """
        mean = d.mean(0)
        centred = d - mean
        square = centred.square()
        diagonal = square.sum(0)
        scatter = centred.T @ centred if d.shape[1] <= _LARGEST else diagonal
        extremes = d[_farthest(square, diagonal)]
        calls = int(apart)
        return cls(
            len(d),
            mean,
            scatter,
            square.square().sum(0),
            square.amax(0),
            extremes,
            size,
            d.new_full((calls,), len(d)),
            (len(d) * mean).expand(calls, -1),
        )

    def merge(self, other: "DeviationSums") -> "DeviationSums":
        """Return the sums over both sets of draws (Chan, Golub & LeVeque 1983)."""
        n = self.n + other.n
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) if self.scatter.ndim == 2 else delta.square()
        mean = self.mean + delta * (other.n / n)
        scatter = self.scatter + other.scatter + between * (self.n * other.n / n)
        diagonal = scatter.diagonal() if scatter.ndim == 2 else scatter
        both = torch.cat([self.extremes, other.extremes])
        return DeviationSums(
            n,
            mean,
            scatter,
            self.fourth + other.fourth,
            torch.maximum(self.peak, other.peak),
            both[_farthest((both - mean).square(), diagonal)],
            max(self.size, other.size),
            *_paired(
                torch.cat([self.called, other.called]), torch.cat([self.totals, other.totals])
            ),
        )

    @property
    def squares(self) -> Float[Tensor, " D"]:
        """Sum of squared deviations of each coordinate from its mean."""
        square = self.scatter.diagonal() if self.scatter.ndim == 2 else self.scatter
        return square.clamp_min(0)

    @property
    def variances(self) -> Float[Tensor, " D"]:
        """Variance of each coordinate of one draw."""
        return self.squares / max(self.n - 1, 1)

    @property
    def largest_share(self) -> float:
        """Share of the sum of all squared deviations that a single draw makes up."""
        total = float(self.squares.sum())
        longest = float((self.extremes - self.mean).square().sum(-1).max())
        return longest / total if total > 0 else 0.0

    @property
    def bias2(self) -> Measured:
        """|E d|^2, the unbiased estimate, which may be negative, and its standard error.

        Its square is 2 tr(V^2) + 4 E d V E d, as for normal means, with V the covariance of the
        mean; coordinates count as independent where D is large.
        """
        noise = float(self.variances.sum()) / self.n
        value = float(self.mean.square().sum()) - noise
        covariance = self.scatter / max(self.n - 1, 1) / self.n
        along = covariance @ self.mean if covariance.ndim == 2 else covariance * self.mean
        # The noise of the mean is in the second term too, tr(V^2) on average.
        signal = max(float(self.mean @ along) - self.noise_se**2 / 2, 0.0)
        return Measured(value, math.hypot(self.noise_se, 2 * math.sqrt(signal)))

    @property
    def noise_se(self) -> float:
        """Standard error of |E d|^2 where E d is 0."""
        return float((2 * self.scatter.square().sum()).sqrt()) / max(self.n - 1, 1) / self.n

    def restricted(
        self, keep: Bool[Tensor, " D"], part: Callable[[Tensor], Tensor]
    ) -> "DeviationSums":
        """Return the sums over the coordinates kept, of that `part` of d which is to be tested.

        `part` is a symmetric projection of vectors [..., D]; each coordinate keeps its kurtosis and
        the share of its peak. Where D is large coordinates are tested one by one, and no directions
        are taken out.
        """
        if self.scatter.ndim == 1:
            return replace(
                self,
                mean=self.mean[keep],
                scatter=self.scatter[keep],
                fourth=self.fourth[keep],
                peak=self.peak[keep],
                extremes=self.extremes[:, keep],
                totals=self.totals[:, keep],
            )
        scatter = part(part(self.scatter).mT)
        share = scatter.diagonal() / self.scatter.diagonal().clamp_min(math.ulp(0.0))
        return DeviationSums(
            self.n,
            part(self.mean)[keep],
            scatter[keep][:, keep],
            (self.fourth * share.square())[keep],
            (self.peak * share)[keep],
            part(self.extremes)[:, keep],
            self.size,
            self.called,
            part(self.totals)[:, keep],
        )

    def scaled(self, times: float) -> "DeviationSums":
        """Return the sums as they would be after so many times the draws of the same moments."""
        n = math.ceil(self.n * times)
        more = n / self.n
        return replace(
            self,
            n=n,
            scatter=self.scatter * more,
            fourth=self.fourth * more,
            called=self.called[:0],
            totals=self.totals[:0],
        )

    def call_ratio(self, weights: Float[Tensor, "D k"]) -> Float[Tensor, " k"]:
        r"""Return how much sums over calls vary in some directions, relative to independent draws.

        .. math:: \sum_g (w^T S_g - n_g w^T \bar d)^2 / (w^T V w\,(n - \sum_g n_g^2 / n))

        That is what the variance of the mean of all draws is to that of independent ones; 1 where
        calls are not kept apart.
        """
        if len(self.called) < _FEWEST:
            return weights.new_ones(weights.shape[1])
        centred = self.totals - self.called[:, None] * self.mean
        apart = (centred @ weights).square().sum(0)
        scatter = (
            self.scatter @ weights if self.scatter.ndim == 2 else self.scatter[:, None] * weights
        )
        variance = (weights * scatter).sum(0) / max(self.n - 1, 1)
        expected = variance * (self.n - float(self.called.square().sum()) / self.n)
        return torch.where(expected > 0, apart / expected, 1.0)


def _farthest(square: Float[Tensor, "n D"], total: Float[Tensor, " D"]) -> Tensor:
    """Return the indices of the draws farthest out, each coordinate relative to its total."""
    if len(square) <= _EXTREMES:
        return torch.arange(len(square))
    out = square @ torch.where(total > 0, 1 / total, 0.0)
    return out.topk(_EXTREMES).indices


def _paired(called: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of calls; of two in a row where there are many."""
    if len(called) <= _CALLS:
        return called, totals
    half = len(called) // 2
    pairs = called[: 2 * half].view(half, 2).sum(1), totals[: 2 * half].view(half, 2, -1).sum(1)
    return torch.cat([pairs[0], called[2 * half :]]), torch.cat([pairs[1], totals[2 * half :]])
