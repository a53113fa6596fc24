"""Which of two families of estimators has the better trade-off between bias and variance.

A family is a curve of moments along its parameter; a point of one curve is dominated when a point
of the other has neither more squared bias nor more variance, and less of one of them.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

__all__ = ["MomentCurve", "dominated", "dominated_share"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MomentCurve:
    """Moments of a family of estimators along its parameter.

    `parameter` [T], increasing; `mean` [T, D], the expectation with N C coordinates in a row;
    `variance` [T], the trace of the covariance of one draw.
    """

    parameter: Array
    mean: Array
    variance: Array

    def at(self, parameter: ArrayLike) -> "MomentCurve":
        """Return the curve at other values of the parameter, by a cubic spline.

        Exact for polynomials: of degree 2 from three points on, of degree 3 from four.
        """
        x = np.asarray(parameter, dtype=float)
        mean, variance = (
            scipy.interpolate.CubicSpline(self.parameter, y)(x) for y in (self.mean, self.variance)
        )
        return MomentCurve(x, mean, variance)

    def scaled(self, factor: ArrayLike) -> "MomentCurve":
        """Return the curve of draws multiplied by `factor` [T]."""
        factor = np.asarray(factor, dtype=float)
        return MomentCurve(self.parameter, self.mean * factor[:, None], self.variance * factor**2)

    def plane(self, truth: ArrayLike, *, scale_free: bool = False) -> Array:
        """Return (bias^2, variance) [T, 2] against the true gradient [D].

        With `scale_free` those of draws rescaled so that their mean has the length of the truth:
        (2 |g|^2 (1 - cosine), variance |g|^2 / |mean|^2); NaN where the mean is 0.
        """
        g = np.asarray(truth, dtype=float).ravel()
        if scale_free:
            with np.errstate(divide="ignore", invalid="ignore"):
                return self.scaled(np.linalg.norm(g) / np.linalg.norm(self.mean, axis=-1)).plane(g)
        return np.stack([((self.mean - g) ** 2).sum(-1), self.variance], -1)


def dominated(points: ArrayLike, curve: ArrayLike, *, margin: float = 0.0) -> NDArray[np.bool_]:
    """Return which of `points` [P, 2] have a better one somewhere on the polyline `curve` [Q, 2].

    Both coordinates are costs, >= 0. Better is b <= (1 - margin) a in both and b < a in one; a
    margin above the error of the coordinates keeps a curve from dominating itself.
    """
    p, q = np.asarray(points, dtype=float), np.asarray(curve, dtype=float)
    start, step = (q[:-1], np.diff(q, axis=0)) if len(q) > 1 else (q, np.zeros_like(q))
    low, high = np.zeros([len(p), len(start)]), np.ones([len(p), len(start)])
    # start + t step is no worse than the point for t in [low, high], in both coordinates.
    for allowed, a, d in zip((p * (1 - margin)).T, start.T, step.T, strict=True):
        room = allowed[:, None] - a
        with np.errstate(divide="ignore", invalid="ignore"):
            t = room / d
        low = np.maximum(low, np.where(d < 0, t, np.where((d == 0) & (room < 0), np.inf, 0.0)))
        high = np.minimum(high, np.where(d > 0, t, 1.0))
    point, segment = np.nonzero(low <= high)
    # A linear function is least at an end of the interval.
    ends = np.stack([low[point, segment], high[point, segment]])[..., None] * step[segment]
    better = ((start[segment] + ends).min(0) < p[point]).any(-1)
    found = np.zeros(len(p), dtype=bool)
    found[point[better]] = True
    return found


def dominated_share(points: ArrayLike, curve: ArrayLike, *, margin: float = 0.0) -> float:
    """Return the share of `points` [P, 2] that the polyline `curve` [Q, 2] dominates."""
    return float(dominated(points, curve, margin=margin).mean())
