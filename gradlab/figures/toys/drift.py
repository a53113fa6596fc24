r"""Where descent along the mean of an estimator leads, on losses of independent bits.

With theta the log-odds of a bit, q = P(b = 1) and Delta = |1 - t|^p - |t|^p the true slope is

.. math:: \frac{d}{d\theta} E f = q (1 - q)\,\Delta > 0 \quad (t < 1/2),

so that descent leads to q = 0. An estimator whose mean has the wrong sign somewhere stops where the
sign changes, or goes to q = 1; the mean of ZGR is the true slope times a positive constant, 1 for p
= 2. How far Adam gets in some steps depends on the variance too: `descent`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Generator, Tensor

from gradlab.categorical import probabilities
from gradlab.estimators import Estimator, PathwiseEstimator
from gradlab.loss import gradient
from gradlab.montecarlo import monte_carlo
from gradlab.problems import NormPower
from gradlab.reproducible import block_generator

__all__ = ["Drift", "descent", "loss_at"]

Array = NDArray[np.float64]

_LOG_ODDS = np.linspace(-8.0, 8.0, 65)
# Where the variance is measured; further out a bit is 1, or 0, too seldom.
_VARIANCE_AT = np.linspace(-6.0, 6.0, 7)
_DRAWS = 2**15
_SAMPLES = 2**13
# Means closer to zero than so many standard errors have no sign.
_RESOLVED = 4.0


@dataclass(frozen=True)
class Drift:
    """The mean of an estimator for one bit of f, a sum over equal bits, as a function of its q.

    Exact where the Jacobians given x are known, the true slope where the estimator is unbiased for
    every f; else measured (`exact` is False), with standard errors.
    """

    estimator: Estimator
    f: NormPower
    seed: int = 0

    @property
    def exact(self) -> bool:
        """Whether the mean is known without draws."""
        return self.estimator.order == math.inf or self._jacobians is not None

    @cached_property
    def _jacobians(self) -> Tensor | None:
        """Return E[M | x = k] at all log-odds, or None if not known."""
        if not isinstance(self.estimator, PathwiseEstimator):
            return None
        known = self.estimator.conditional_jacobians(probabilities(_two_classes(_LOG_ODDS)))
        return None if known is None else known[0]

    @cached_property
    def share(self) -> tuple[Array, Array]:
        """The mean over q (1 - q), at each of the log-odds, and its standard error.

        It is that of the bit alone, N times what it is as one of N.
        """
        q, p = _sigmoid(_LOG_ODDS), _two_classes(_LOG_ODDS)
        alone = NormPower(1, 2, self.f.p, self.f.target)
        if self.estimator.order == math.inf:
            return np.full_like(q, loss_at(alone, 1.0) - loss_at(alone, 0.0)), np.zeros_like(q)
        if self._jacobians is not None:
            v = gradient(alone, torch.eye(2, dtype=torch.float64).unsqueeze(1)).squeeze(1)
            weight = probabilities(p)
            mean = torch.einsum("gk,gkij,kj->gi", weight, self._jacobians, v)[:, 1].numpy()
            return mean / (q * (1 - q)), np.zeros_like(q)
        # A mean for a bit does not depend on the others: all log-odds at once, as bits of one f.
        wide = NormPower(len(q), 2, self.f.p, self.f.target)
        moments = monte_carlo(self.estimator, wide, p, _DRAWS, self.seed, row="drift")
        error = (moments.variance_per_variable / 2 / _DRAWS).sqrt().numpy()
        unit = len(q) / (q * (1 - q))
        return unit * moments.mean[:, 1].numpy(), unit * error

    @cached_property
    def _clear(self) -> NDArray[np.bool_]:
        """At which of the log-odds the mean is more than noise or rounding."""
        share, error = self.share
        # Of a class that is met a few times only the error is not known either.
        met = _DRAWS * _sigmoid(-np.abs(_LOG_ODDS)) > 100
        floor = np.maximum(_RESOLVED * error, 1e-12 * np.abs(share).max())
        return (np.abs(share) > floor) & (met | (error == 0))

    @cached_property
    def fixed_points(self) -> list[tuple[float, bool]]:
        """The q in (0, 1) at which the mean changes its sign, and whether descent stays there."""
        q, share = _sigmoid(_LOG_ODDS)[self._clear], self.share[0][self._clear]
        found = []
        for i in np.flatnonzero(share[:-1] * share[1:] < 0):
            part = share[i] / (share[i] - share[i + 1])
            found.append((float(q[i] + part * (q[i + 1] - q[i])), bool(share[i] < 0)))
        return found

    def limit(self, q: float = 0.5) -> float:
        """Return where descent along the mean ends that starts at q: a fixed point, 0 or 1.

        NaN where the mean was measured, and is nowhere clear of its noise.
        """
        below = [point for point in self.fixed_points if point[0] <= q]
        above = [point for point in self.fixed_points if point[0] > q]
        if below:
            down = below[-1][1]
        elif above:
            down = not above[0][1]
        elif self._clear.any():
            down = bool(self.share[0][self._clear][0] > 0)
        else:
            return math.nan
        if down:
            return below[-1][0] if below else 0.0
        return above[0][0] if above else 1.0

    @cached_property
    def variance(self) -> Array:
        """Variance of one estimate for one bit of f over q (1 - q), where all have equal q.

        From some thousand samples of a bit, at each of a few log-odds; the moving average is the
        one that has settled there.
        """
        found = []
        for log_odds in _VARIANCE_AT:
            generator = block_generator(self.seed, f"{self.estimator}|variance|{log_odds}")
            p = _two_classes(np.full(self.f.N, log_odds))
            estimator = self.estimator
            if estimator.running_field is not None:
                estimator = estimator.fit(self.f, p, 256, generator)
            g = estimator.draw(self.f, p, max(64, _SAMPLES // self.f.N), generator)[..., 1]
            q = _sigmoid(log_odds)
            found.append(float(g.var(0).mean()) / float(q * (1 - q)))
        return np.array(found)

    def snr(self, batch: int, q: float = 0.5) -> float:
        """Return |mean| / standard deviation of the mean of `batch` estimates for one bit at q."""
        log_odds = math.log(q / (1 - q))
        g = q * (1 - q) * np.interp(log_odds, _LOG_ODDS, self.share[0]) / self.f.N
        noise = q * (1 - q) * np.interp(log_odds, _VARIANCE_AT, self.variance) / batch
        return float(abs(g) / math.sqrt(noise)) if noise > 0 else math.inf


def descent(
    drift: Drift,
    log_odds: Array,
    steps: int,
    lr: float,
    batch: int,
    generator: Generator | None = None,
) -> Array:
    r"""Return the q [steps + 1, bits] of bits that Adam moves from `log_odds` by normal gradients.

    In place of the estimator stands what theory knows of it, its mean and variance at q:

    .. math:: g \sim \mathcal N\big(E \hat g(q),\ Var \hat g(q) / batch\big)

    for each bit independently. A moving average lags behind the loss by some delta, which adds
    delta^2 q (1 - q) to its variance. Source: derived.
    """
    f, estimator = drift.f, drift.estimator
    least, worst = loss_at(f, 0.0), loss_at(f, 1.0)
    mean = square = np.zeros_like(log_odds)
    lag = 0.0
    running = estimator.running_field
    found = [_sigmoid(log_odds)]
    for step in range(1, steps + 1):
        q = found[-1]
        if running is not None:
            value = float(least + (worst - least) * q.mean())
            lag = getattr(estimator, running) - value
            estimator = estimator.updated(torch.tensor(value, dtype=torch.float64))
        noise = np.interp(log_odds, _VARIANCE_AT, drift.variance) + lag**2
        normal = torch.randn(len(q), generator=generator, dtype=torch.float64).numpy()
        unit = q * (1 - q)
        g = unit * np.interp(log_odds, _LOG_ODDS, drift.share[0]) / f.N
        g = g + np.sqrt(unit * noise / batch) * normal
        mean = mean + 0.1 * (g - mean)
        square = square + 0.001 * (g**2 - square)
        root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        # Both logits move, in opposite directions.
        log_odds = log_odds - 2 * lr * mean / (1 - 0.9**step) / root
        found.append(_sigmoid(log_odds))
    return np.stack(found)


def loss_at(f: NormPower, q: float) -> float:
    """Return E f where all bits are 1 with probability q."""
    each = torch.eye(2, dtype=torch.float64).unsqueeze(1).expand(2, f.N, 2)
    zero, one = f(each).tolist()
    return float((1 - q) * zero + q * one)


def _sigmoid(log_odds: Array | float) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.asarray(log_odds))))


def _two_classes(log_odds: Array) -> Float[Tensor, "N 2"]:
    """Return logits of these log-odds."""
    half = torch.from_numpy(log_odds) / 2
    return torch.stack([-half, half], -1)
