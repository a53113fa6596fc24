r"""Is the mean of independent draws a given vector? A test, and how far off the mean can be.

With d the deviations of n draws from the target, Hotelling's T^2 = n \bar d^T S^{-1} \bar d tests
E d = 0 at one n; mixing Gaussian likelihood ratios over effect sizes gives an e-value that stays
valid however long one goes on, and turned around a region for E d that holds at all n at once.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, chdtri, fdtrc
from torch import Tensor

from gradlab.deviations import DeviationSums

__all__ = ["MeanTest"]

# A standardized direction of less variance than this does not vary: its mean must be that wanted.
_NO_VARIANCE = 1e-12
# Hotelling's T^2 is used from so many draws a direction on.
_DRAWS_A_DIMENSION = 10
# Squared effect sizes, in standard deviations, over which the e-value is mixed.
_EFFECTS = 0.25 ** np.arange(2, 13)


@dataclass(frozen=True)
class MeanTest:
    r"""Tests of E d = 0, and a bound of |E d|, at false-alarm rate `alpha`.

    Directions without variance are taken out; in them the mean must be 0 to rounding (`rounding`,
    in units of d). In the m directions left, W = n \bar d^T S^{-1} \bar d,

    .. math:: p = P(T^2_{m, \nu} > W), \quad e = \frac1R \sum_r (1 + n \rho_r^2)^{-m/2}
              \exp \frac{W}{2 (1 + 1/(n \rho_r^2))}

    with effect sizes rho from 1/4 to 2^-12. p holds at one n fixed before. For Gaussian d of known
    covariance e is a martingale: it ever exceeds 1/alpha with probability at most alpha; with an
    estimated covariance this holds asymptotically. Heavy tails widen both: nu = 2n/(kurtosis -
    1), at most n - 1, degrees of freedom stand behind S, with the largest kurtosis of a coordinate.
    With fewer than 10 draws a direction the coordinates are tested one by one: p by the first step
    of Holm, which is Bonferroni's, e by their average. Hotelling 1931 (Ann. Math. Statist. 2);
    Holm 1979 (Scand. J. Statist. 6); Robbins 1970 (Ann. Math. Statist. 41); Waudby-Smith, Arbour,
    Sinha, Kennedy & Ramdas 2021 (2103.06476).
    """

    sums: DeviationSums
    alpha: float
    rounding: float

    @cached_property
    def deviation(self) -> Float[Tensor, " D"]:
        """Standard deviation of each coordinate."""
        return self.sums.variances.sqrt()

    @cached_property
    def varies(self) -> Bool[Tensor, " D"]:
        """Which coordinates vary by more than rounding."""
        return self.deviation > self.rounding

    @cached_property
    def kurtosis(self) -> float:
        """The largest kurtosis of a coordinate: 3 for normal draws, 1/p for events of rate p."""
        if not self.varies.any():
            return 1.0
        variance2 = (self.deviation[self.varies] ** 4) * self.sums.n
        return float((self.sums.fourth[self.varies] / variance2).max())

    @cached_property
    def degrees(self) -> float:
        """Degrees of freedom nu behind the estimated variances."""
        return min(2 * self.sums.n / max(self.kurtosis - 1, 1e-9), self.sums.n - 1.0)

    @cached_property
    def joint(self) -> bool:
        """Whether all directions are tested jointly (else coordinate by coordinate)."""
        many = self.sums.scatter.ndim == 2 and self.sums.n >= _DRAWS_A_DIMENSION * self.directions
        return many and self.degrees >= 2 * self.directions + 4

    @cached_property
    def directions(self) -> int:
        """Dimension m of what varies."""
        return len(self._spectrum[0]) if self.sums.scatter.ndim == 2 else int(self.varies.sum())

    @cached_property
    def constant_offset(self) -> float:
        """Norm of the mean in directions that do not vary, beyond rounding: any is a bias."""
        fixed = self.sums.mean[~self.varies]
        norm = float(torch.linalg.vector_norm(fixed))
        offset = norm if norm > self.rounding * math.sqrt(len(self.sums.mean)) else 0.0
        if self.sums.scatter.ndim == 1:
            return offset
        # In standard deviations a direction without variance has at most sqrt(_NO_VARIANCE).
        standard = self.deviation[self.varies]
        along = self._spectrum[2].T @ (self.sums.mean[self.varies] / standard)
        scale = float(standard.max()) if len(standard) else 0.0
        allowed = math.sqrt(_NO_VARIANCE) + self.rounding / float(standard.min()) if scale else 0.0
        length = float(torch.linalg.vector_norm(along))
        return math.hypot(offset, length * scale if length > allowed else 0.0)

    @cached_property
    def statistics(self) -> Float[Tensor, " M"]:
        """W of all directions jointly, or of each coordinate that varies."""
        mean, standard = self.sums.mean[self.varies], self.deviation[self.varies]
        if not self.joint:
            return self.sums.n * (mean / standard).square()
        values, vectors, _ = self._spectrum
        along = vectors.T @ (mean / standard)
        return self.sums.n * (along.square() / values).sum().reshape(1)

    @cached_property
    def p_value(self) -> float:
        """Probability of so large a deviation at this n, were there no bias."""
        if self.constant_offset > 0:
            return 0.0
        m, nu = (self.directions, self.degrees) if self.joint else (1, self.degrees)
        if self.directions == 0:
            return 1.0
        largest = float(self.statistics.max())
        p = float(fdtrc(m, nu - m + 1, largest * (nu - m + 1) / (nu * m)))
        return min(1.0, p * len(self.statistics))

    @cached_property
    def log_e_value(self) -> float:
        """Logarithm of the e-value."""
        if self.constant_offset > 0:
            return math.inf
        if self.directions == 0:
            return 0.0
        m = self.directions if self.joint else 1
        each = _log_mixture(self.statistics.numpy() / self.widening, self.sums.n, m)
        return float(np.logaddexp.reduce(each)) - math.log(len(each))

    @cached_property
    def widening(self) -> float:
        """Factor on the variances for being estimated, at this alpha: 1 for many normal draws."""
        m, nu = (self.directions, self.degrees) if self.joint else (1, self.degrees)
        if nu - m + 1 <= 0:
            return math.inf
        # A ratio of quantiles so far out that they underflow would be 0/0.
        alpha = max(self.alpha / (1 if self.joint else max(self.directions, 1)), 1e-280)
        # The upper quantile of T^2 by that of the beta distribution, accurate for small alpha.
        below = betaincinv((nu - m + 1) / 2, m / 2, alpha)
        return float(nu * (1 / below - 1) / chdtri(m, alpha))

    @property
    def exact_limit(self) -> float:
        """The bound where nothing varies: rounding alone."""
        return self.rounding * math.sqrt(len(self.sums.mean))

    @cached_property
    def bound(self) -> float:
        """What |E d| is below, at all n at once, with confidence 1 - alpha."""
        return float(torch.linalg.vector_norm(self.sums.mean)) + self.radius

    @cached_property
    def radius(self) -> float:
        """How far from its estimate E d can be, at all n at once, with confidence 1 - alpha."""
        if self.directions == 0:
            return self.exact_limit
        if not math.isfinite(self.widening):
            return math.inf
        wanted = -math.log(self.alpha) + math.log(1 if self.joint else self.directions)
        m = self.directions if self.joint else 1
        reach2 = self.widening * _reach(wanted, self.sums.n, m)
        if self.joint:
            inside = self.sums.scatter[self.varies][:, self.varies]
            extent2 = float(torch.linalg.eigvalsh(inside)[-1]) / (self.sums.n - 1)
        else:
            extent2 = float(self.deviation.square().sum())
        return math.sqrt(reach2 * extent2 / self.sums.n)

    def at(self, times: float) -> "MeanTest":
        """Return the test as it would be after so many times the draws, with the same moments."""
        s = self.sums
        n = math.ceil(s.n * times)
        more = DeviationSums(n, s.mean, s.scatter * (n / s.n), s.fourth * (n / s.n))
        return MeanTest(more, self.alpha, self.rounding)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return eigenvalues and vectors of the correlations, and the vectors without variance."""
        standard = self.deviation[self.varies]
        inside = self.sums.scatter[self.varies][:, self.varies] / max(self.sums.n - 1, 1)
        values, vectors = torch.linalg.eigh(inside / torch.outer(standard, standard))
        kept = values > _NO_VARIANCE * max(len(values), 1)
        return values[kept], vectors[:, kept], vectors[:, ~kept]


def _log_mixture(w: ArrayLike, n: int, m: int) -> NDArray[np.float64]:
    """Return log e of each statistic of m directions after n draws."""
    size = n * _EFFECTS
    log_ratio = np.multiply.outer(w, size / (1 + size) / 2) - m / 2 * np.log1p(size)
    return np.asarray(np.logaddexp.reduce(log_ratio, axis=-1) - math.log(len(size)))


@lru_cache(maxsize=2**12)
def _reach(wanted: float, n: int, m: int) -> float:
    """Return the statistic whose log e is as wanted."""
    high = 4 * wanted + 4
    while _log_mixture(high, n, m) < wanted:
        high *= 2
    return float(brentq(lambda w: float(_log_mixture(w, n, m)) - wanted, 0, high))
