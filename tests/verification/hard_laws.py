"""Noise whose mean is known in closed form, from light tails to infinite variance."""

import math
from dataclasses import dataclass

import scipy
import torch
from torch import Generator, Tensor

__all__ = ["Chi2", "Exponential", "Law", "Lognormal", "Pareto", "TwoSided"]


class Law:
    """Noise by the inverse of its distribution function, `quantile`; `mean` is its exact mean."""

    mean: float

    def quantile(self, u: Tensor) -> Tensor:
        """Return the values below which the noise lies with probability u, in (0, 1)."""
        raise NotImplementedError

    def __call__(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return independent draws of a shape, float64."""
        u = torch.rand(shape, generator=generator, dtype=torch.float64)
        return self.quantile(u.clamp(2.0**-54, 1 - 2.0**-53))


@dataclass(frozen=True)
class Pareto(Law):
    """s u^(-1/shape): of mean 1, unless larger values are cut to `cap`; `centred` takes 1 away.

    The variance is infinite for a shape of at most 2.
    """

    shape: float
    cap: float = math.inf
    centred: bool = False

    @property
    def mean(self) -> float:
        """The mean is 1 less what lies beyond the cap."""
        a = self.shape
        scale = (a - 1) / a
        beyond = 0.0 if self.cap == math.inf else scale**a * self.cap ** (1 - a) / (a - 1)
        return 1 - beyond - float(self.centred)

    def quantile(self, u: Tensor) -> Tensor:
        """Return the quantiles."""
        a = self.shape
        return ((a - 1) / a * (1 - u) ** (-1 / a)).clamp_max(self.cap) - float(self.centred)


@dataclass(frozen=True)
class Lognormal(Law):
    """exp(sigma z - sigma^2 / 2): of mean 1, unless cut to `cap`; `centred` takes 1 away."""

    sigma: float
    cap: float = math.inf
    centred: bool = False

    @property
    def mean(self) -> float:
        """The mean of the smaller of the noise and the cap, as in the price of a call option."""
        if self.cap == math.inf:
            return 1.0 - float(self.centred)
        log = math.log(self.cap) / self.sigma
        inside = scipy.stats.norm.cdf(log - self.sigma / 2)
        return float(inside + self.cap * scipy.stats.norm.sf(log + self.sigma / 2)) - float(
            self.centred
        )

    def quantile(self, u: Tensor) -> Tensor:
        """Return the quantiles."""
        z = torch.special.ndtri(u)
        return (self.sigma * z - self.sigma**2 / 2).exp().clamp_max(self.cap) - float(self.centred)


@dataclass(frozen=True)
class Exponential(Law):
    """-log u, of mean 1."""

    mean = 1.0

    def quantile(self, u: Tensor) -> Tensor:
        """Return the quantiles."""
        return -torch.log1p(-u)


@dataclass(frozen=True)
class Chi2(Law):
    """The square of a normal number, of mean 1."""

    mean = 1.0

    def quantile(self, u: Tensor) -> Tensor:
        """Return the quantiles: the normal number is beyond this on either side."""
        return torch.special.ndtri((1 + u) / 2).square()


@dataclass(frozen=True)
class TwoSided(Law):
    """A Pareto law on both sides of 0, with a tail index as Student's t has it: of mean 0.

    The variance is infinite for an index of at most 2.
    """

    index: float
    mean = 0.0

    def quantile(self, u: Tensor) -> Tensor:
        """Return sign(2u - 1) ((1 - |2u - 1|)^(-1/index) - 1)."""
        side = 2 * u - 1
        return side.sign() * ((1 - side.abs()) ** (-1 / self.index) - 1)
