"""Sums over draws of how far they are from a target: mean, covariance and fourth moments.

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


@dataclass(frozen=True)
class DeviationSums:
    """Sums over draws of deviations d [n, D] from the target: what a test of their mean needs.

    `mean` [D], `scatter` = sum of (d - mean)(d - mean)^T [D, D], or its diagonal [D] where D is
    large, and `fourth` = sum of (d - mean)^4 [D], the mean in it being that of each block.
    """

    n: int
    mean: Float[Tensor, " D"]
    scatter: Float[Tensor, "..."]
    fourth: Float[Tensor, " D"]

    @classmethod
    def from_draws(cls, d: Float[Tensor, "n D"]) -> "DeviationSums":
        """Return the sums of one block of draws."""
        mean = d.mean(0)
        centred = d - mean
        square = centred.square()
        scatter = centred.T @ centred if d.shape[1] <= _LARGEST else square.sum(0)
        return cls(len(d), mean, scatter, square.square().sum(0))

    def merge(self, other: "DeviationSums") -> "DeviationSums":
        """Return the sums over both sets of draws (Chan, Golub & LeVeque 1983)."""
        n = self.n + other.n
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) if self.scatter.ndim == 2 else delta.square()
        return DeviationSums(
            n,
            self.mean + delta * (other.n / n),
            self.scatter + other.scatter + between * (self.n * other.n / n),
            self.fourth + other.fourth,
        )

    @property
    def variances(self) -> Float[Tensor, " D"]:
        """Variance of each coordinate of one draw."""
        square = self.scatter.diagonal() if self.scatter.ndim == 2 else self.scatter
        return square.clamp_min(0) / max(self.n - 1, 1)

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

        `part` is a symmetric projection of vectors [..., D]; each coordinate keeps its kurtosis.
        Where D is large coordinates are tested one by one, and no directions are taken out.
        """
        if self.scatter.ndim == 1:
            return replace(
                self, mean=self.mean[keep], scatter=self.scatter[keep], fourth=self.fourth[keep]
            )
        scatter = part(part(self.scatter).mT)
        share = scatter.diagonal() / self.scatter.diagonal().clamp_min(math.ulp(0.0))
        return DeviationSums(
            self.n,
            part(self.mean)[keep],
            scatter[keep][:, keep],
            (self.fourth * share.square())[keep],
        )
