r"""Is the mean of independent draws a given vector? A test, and how far off the mean can be.

With d the deviations of n draws from the target, Hotelling's T^2 = n \bar d^T S^{-1} \bar d tests
E d = 0 at one n; mixing Gaussian likelihood ratios over effect sizes gives an e-value that stays
valid however long the draws continue. Turned around, it gives a region for E d that holds at all n
at once.
Both rest on the draws having shown their tails, which is checked.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import scipy
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, chdtri, fdtrc
from torch import Tensor

from gradlab.verification.deviation_sums import DeviationSums

__all__ = ["BEYOND", "SHARE", "MeanTest", "tolerated_share"]

SHARE = 0.02
"""Where one draw makes up more of the squared deviations than this, the tails have not been shown:
a test by the variance of the draws would be wrong at any level."""

# Of few draws one makes up more: so many times its expectation among n, normal ones too.
_NORMAL_SQUARE = 16

BEYOND = 1000
"""What has not varied shows a bias, unless some draws are so many times as long as the longest one
that is seen."""

# The same for what varies by few draws alone, which have shown how long they are.
_BEYOND_HEAVY = 50

# The share of one draw up to which the longest draws show how long draws are.
_SHOWN = 0.2
# A standardized direction of less variance than this does not vary.
_NO_VARIANCE = 1e-12
# The share of the level for a bias in directions that are not seen to vary.
_UNSEEN = 0.1
# Hotelling's T^2 is used from so many draws a direction on.
_DRAWS_A_DIMENSION = 10
# Squared effect sizes, in standard deviations, over which the e-value is mixed.
_EFFECTS = 0.25 ** np.arange(2, 13)


def tolerated_share(n: int) -> float:
    """Return what one of n draws may make up of the squared deviations at most."""
    return max(SHARE, _NORMAL_SQUARE / n)


@dataclass(frozen=True)
class MeanTest:
    r"""Tests of E d = 0, and a bound of |E d|, at false-alarm rate `alpha`.

    In the m directions that vary by more than `rounding` (in units of d), W = n \bar d^T S^{-1}
    \bar d,

    .. math:: p = P(T^2_{m, \nu} > W), \quad e = \frac1R \sum_r (1 + n \rho_r^2)^{-m/2}
              \exp \frac{W}{2 (1 + 1/(n \rho_r^2))}

    with effect sizes rho from 1/4 to 2^-12. p holds at one n fixed before. For Gaussian d of known
    covariance e is a martingale: it ever exceeds 1/alpha with probability at most alpha; with an
    estimated covariance this holds asymptotically, and the false alarms measured in
    tests/verification/test_hard.py say how well. Heavy tails widen both: nu = 2n/(kurtosis - 1), at
    most n - 1, degrees of freedom stand behind S, with the largest kurtosis of a coordinate. A
    coordinate, or the direction in which W is taken, of whose squared deviations one draw makes up
    more than 2 % is not tested: its tail has not been shown. With fewer than 10 draws a direction,
    or where that share is too large, the coordinates are tested one by one: p by the first step of
    Holm, which is Bonferroni's, e by their average. Where sums over calls vary more than those of
    independent draws (`DeviationSums.call_ratio`), W is divided by that.

    Directions that have not varied may do so yet. Were E d = 0 there, draws of a rate r >= |mean| /
    (1000 size) would have to make up for what is seen, unless some are more than 1000 times as long
    as the longest one, of this `size`; not to have met one in n draws has the e-value (1 - r)^-n.
    Where few draws alone vary, 50 stands for 1000.
    Hotelling 1931 (Ann. Math. Statist. 2); Holm 1979 (Scand. J. Statist. 6); Robbins 1970 (Ann.
    Math. Statist. 41); Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021 (2103.06476).
    """

    sums: DeviationSums
    alpha: float
    rounding: float
    inside: float = 0.0

    @cached_property
    def deviation(self) -> Float[Tensor, " D"]:
        """Standard deviation of each coordinate."""
        return self.sums.variances.sqrt()

    @cached_property
    def varies(self) -> Bool[Tensor, " D"]:
        """Which coordinates vary by more than rounding."""
        return self.deviation > self.rounding

    @cached_property
    def seen(self) -> Bool[Tensor, " D"]:
        """Which coordinates vary, and not by a few draws alone."""
        return self.varies & (self.sums.peak <= tolerated_share(self.sums.n) * self.sums.squares)

    @cached_property
    def kurtosis(self) -> float:
        """The largest kurtosis of a coordinate: 3 for normal draws, 1/p for events of rate p."""
        if not self.varies.any():
            return 1.0
        return self._kurtosis(self.varies)

    def _kurtosis(self, of: Bool[Tensor, " D"]) -> float:
        return float((self.sums.fourth[of] / (self.deviation[of] ** 4 * self.sums.n)).max())

    @cached_property
    def degrees(self) -> float:
        """Degrees of freedom nu behind the estimated variances of what is tested."""
        return self._behind(self.inside if self.joint else 0.0)

    def _behind(self, inside: float) -> float:
        kurtosis = self._kurtosis(self.seen) if self.seen.any() else self.kurtosis
        return self._of_kurtosis(max(kurtosis, inside))

    def _of_kurtosis(self, kurtosis: float) -> float:
        return min(2 * self.sums.n / max(kurtosis - 1, 1e-9), self.sums.n - 1.0)

    def inside_of(self, d: Float[Tensor, "n D"]) -> tuple[float, int]:
        """Return sum of |z|^4 over draws, z their deviations where S is 1, and the dimension m.

        Noise shared by all coordinates can hide tails in each of them that show here.
        """
        values, vectors, _ = self._spectrum
        axes = vectors / values.sqrt() / self.deviation[self.seen][:, None]
        z = (d - self.sums.mean)[:, self.seen] @ axes
        return float(z.square().sum(-1).square().sum()), len(values)

    @cached_property
    def joint(self) -> bool:
        """Whether all directions are tested jointly (else coordinate by coordinate)."""
        return self._enough and self._leverage <= tolerated_share(self.sums.n)

    @cached_property
    def _enough(self) -> bool:
        """Whether there are draws enough for the covariance of what is seen."""
        if self.sums.scatter.ndim == 1 or not self.seen.any():
            return False
        m = len(self._spectrum[0])
        return self.sums.n >= _DRAWS_A_DIMENSION * m and self._behind(self.inside) >= 2 * m + 4

    @cached_property
    def _weights(self) -> Float[Tensor, " D"]:
        """The direction in which W is taken: W = n (weights . mean)."""
        values, vectors, _ = self._spectrum
        standard = self.deviation[self.seen]
        weights = torch.zeros_like(self.sums.mean)
        along = vectors.T @ (self.sums.mean[self.seen] / standard)
        weights[self.seen] = vectors @ (along / values) / standard
        return weights

    @cached_property
    def _leverage(self) -> float:
        """The largest share of a draw in the squared deviations along which W is taken."""
        out = (self.sums.extremes - self.sums.mean) @ self._weights
        total = float(self._weights @ self.sums.mean) * max(self.sums.n - 1, 1)
        return float(out.square().max()) / total if total > 0 else 0.0

    @cached_property
    def directions(self) -> int:
        """Dimension m of what is tested."""
        return len(self._spectrum[0]) if self.sums.scatter.ndim == 2 else int(self.seen.sum())

    @cached_property
    def unseen_offset(self) -> float:
        """Norm of the mean in directions that have not varied, beyond rounding."""
        beyond = self.sums.mean.abs() - self.rounding
        offset = float(torch.linalg.vector_norm(beyond[~self.varies].clamp_min(0.0)))
        if not self.joint:
            return offset
        # In standard deviations a direction without variance has at most sqrt(_NO_VARIANCE).
        standard, none = self.deviation[self.seen], self._spectrum[2]
        length = float(torch.linalg.vector_norm(none.T @ (self.sums.mean[self.seen] / standard)))
        allowed = math.sqrt(_NO_VARIANCE) + self.rounding / float(standard.min())
        return math.hypot(offset, length * float(standard.max()) if length > allowed else 0.0)

    @cached_property
    def heavy_offset(self) -> float:
        """Norm of the mean in coordinates that vary by few draws alone, beyond noise.

        Where a single draw makes up more than a fifth, draws have not even shown how long they are.

        Noise is that of draws no longer than the longest one (Hoeffding 1963).
        """
        heavy = self.varies & ~self.seen & (self.sums.peak <= _SHOWN * self.sums.squares)
        count = max(int(heavy.sum()), 1)
        noise = self.sums.size * math.sqrt(2 * math.log(20 * count / self.alpha) / self.sums.n)
        beyond = self.sums.mean[heavy].abs() - noise - self.rounding
        return float(torch.linalg.vector_norm(beyond.clamp_min(0.0)))

    @cached_property
    def log_unseen(self) -> float:
        """Logarithm of the e-value of directions that are not seen to vary; p is e^-that.

        0 where no draw is nearly as long as what it would have to make up for: draws that matter
        have not been met at all.
        """
        offset, size = max(self.unseen_offset, self.heavy_offset), self.sums.size
        if offset == 0 or size < offset / 4:
            return 0.0
        rate = max(self.unseen_offset / BEYOND, self.heavy_offset / _BEYOND_HEAVY) / size
        return -self.sums.n * math.log1p(-rate)

    @cached_property
    def statistics(self) -> Float[Tensor, " M"]:
        """W of all directions jointly, or of each coordinate that is tested."""
        if self.joint:
            w = self.sums.n * (self._weights @ self.sums.mean).reshape(1)
            ratio = self.sums.call_ratio(self._weights[:, None])
        else:
            w = self.sums.n * (self.sums.mean[self.seen] / self.deviation[self.seen]).square()
            ratio = self._of_coordinates[self.seen]
        return w / ratio.clamp_min(1.0)

    @cached_property
    def _of_coordinates(self) -> Float[Tensor, " D"]:
        """How much sums over calls vary in each coordinate, relative to independent draws."""
        return self.sums.call_ratio(torch.eye(len(self.sums.mean), dtype=self.sums.mean.dtype))

    @cached_property
    def p_value(self) -> float:
        """Probability of so large a deviation at this n, were there no bias."""
        if self.directions == 0:
            return 1.0
        m, nu = (self.directions, self.degrees) if self.joint else (1, self.degrees)
        largest = float(self.statistics.max())
        p = float(fdtrc(m, nu - m + 1, largest * (nu - m + 1) / (nu * m)))
        return min(1.0, p * len(self.statistics))

    @cached_property
    def log_e_value(self) -> float:
        """Logarithm of the e-value."""
        if self.directions == 0:
            return 0.0
        m = self.directions if self.joint else 1
        each = _log_mixture(self.statistics.numpy() / self.widening, self.sums.n, m)
        return float(np.logaddexp.reduce(each)) - math.log(len(each))

    @property
    def log_evidence(self) -> float:
        """Logarithm of the mean of both e-values, mostly of what varies."""
        both = [math.log1p(-_UNSEEN) + self.log_e_value, math.log(_UNSEEN) + self.log_unseen]
        return float(np.logaddexp.reduce(both))

    @property
    def p_of_evidence(self) -> float:
        """The p-value of both, of which mostly what varies uses the level."""
        of_unseen = math.exp(-self.log_unseen) / _UNSEEN
        return min(1.0, self.p_value / (1 - _UNSEEN), of_unseen)

    @cached_property
    def widening(self) -> float:
        """Factor on the variances for being estimated, at this alpha: 1 for many normal draws."""
        return self._widening(self.directions, self.degrees)

    def _widening(self, directions: int, nu: float) -> float:
        m = directions if self.joint else 1
        if nu - m + 1 <= 0:
            return math.inf
        # A ratio of quantiles so far out that they underflow would be 0/0.
        alpha = max(self.alpha / (1 if self.joint else max(directions, 1)), 1e-280)
        # The upper quantile of T^2 by that of the beta distribution, accurate for small alpha.
        below = betaincinv((nu - m + 1) / 2, m / 2, alpha)
        # Far too few degrees of freedom: no widening is enough.
        with np.errstate(over="ignore", divide="ignore"):
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
        """How far from its estimate E d can be, at all n at once, with confidence 1 - alpha.

        As far as the draws have shown their tails, see `DeviationSums.largest_share`.
        """
        rest = int((self.varies & ~self.seen).sum())
        directions = self.directions + rest
        if directions == 0:
            return self.exact_limit
        widening = self._widening(directions, self._of_kurtosis(self.kurtosis))
        if not math.isfinite(widening):
            return math.inf
        wanted = -math.log(self.alpha) + math.log(1 if self.joint else directions)
        m = directions if self.joint else 1
        reach2 = widening * _reach(wanted, self.sums.n, m)
        if self.joint:
            inside = self.sums.scatter[self.varies][:, self.varies]
            extent2 = float(torch.linalg.eigvalsh(inside)[-1]) / (self.sums.n - 1)
        else:
            extent2 = float(self.deviation.square().sum())
        return math.sqrt(self._inflation * reach2 * extent2 / self.sums.n)

    @property
    def _inflation(self) -> float:
        """How much more sums over calls vary than those of independent draws, at least 1."""
        variances = self.sums.variances
        if not float(variances.sum()) > 0:
            return 1.0
        return max(1.0, float((self._of_coordinates * variances).sum() / variances.sum()))

    def at(self, times: float) -> "MeanTest":
        """Return the test as it would be after so many times the draws, with the same moments."""
        return replace(self, sums=self.sums.scaled(times))

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return eigenvalues and vectors of the correlations, and the vectors without variance."""
        standard = self.deviation[self.seen]
        inside = self.sums.scatter[self.seen][:, self.seen] / max(self.sums.n - 1, 1)
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
    return float(scipy.optimize.brentq(lambda w: float(_log_mixture(w, n, m)) - wanted, 0, high))
