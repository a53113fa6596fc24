"""Which of two families of estimators has the better trade-off between bias and variance.

A family is a curve of moments along its parameter. A point of one curve is dominated when a point
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

    Args:
        parameter: Values of the parameter [T], increasing.
        mean: The expectation at each value [T, D], with the D = N C coordinates in a row.
        variance: The trace of the covariance of one draw at each value, [T].

    Example:
        >>> family = MomentCurve(np.arange(3.0), np.array([[0.0], [1.0], [4.0]]), np.ones(3))
        >>> family.at([1.5]).mean.tolist()
        [[2.25]]
    """

    parameter: Array
    mean: Array
    variance: Array

    def at(self, parameter: ArrayLike) -> "MomentCurve":
        """Return the curve at other values of the parameter, by a cubic spline.

        It is exact for polynomials: of degree 2 from three points on, of degree 3 from four.

        Args:
            parameter: The other values [S].

        Returns:
            The curve at these values.
        """
        x = np.asarray(parameter, dtype=float)
        mean, variance = (
            scipy.interpolate.CubicSpline(self.parameter, y)(x) for y in (self.mean, self.variance)
        )
        return MomentCurve(x, mean, variance)

    def scaled(self, factor: ArrayLike) -> "MomentCurve":
        """Return the curve of draws that are multiplied by a factor.

        Args:
            factor: The factor at each value of the parameter, [T].

        Returns:
            The curve of the multiplied draws.
        """
        factor = np.asarray(factor, dtype=float)
        return MomentCurve(self.parameter, self.mean * factor[:, None], self.variance * factor**2)

    def plane(self, truth: ArrayLike, *, scale_free: bool = False) -> Array:
        """Return squared bias and variance against the true gradient.

        Args:
            truth: The true gradient [D], or [N, C].
            scale_free: Whether draws are first rescaled so that their mean has the length of the
                truth. Then the result is (2 |g|^2 (1 - cosine), variance |g|^2 / |mean|^2), and NaN
                where the mean is 0.

        Returns:
            Pairs (bias^2, variance) [T, 2].
        """
        g = np.asarray(truth, dtype=float).ravel()
        if scale_free:
            with np.errstate(divide="ignore", invalid="ignore"):
                return self.scaled(np.linalg.norm(g) / np.linalg.norm(self.mean, axis=-1)).plane(g)
        return np.stack([((self.mean - g) ** 2).sum(-1), self.variance], -1)


def dominated(points: ArrayLike, curve: ArrayLike, *, margin: float = 0.0) -> NDArray[np.bool_]:
    """Return which points have a better one somewhere on a polyline.

    Both coordinates are costs, >= 0. A point b is better than a if b <= (1 - margin) a in both
    coordinates and b < a in one.

    Args:
        points: Points [P, 2].
        curve: The vertices of the polyline [Q, 2].
        margin: A number above the error of the coordinates keeps a curve from dominating itself.

    Returns:
        One bool per point, [P].

    Example:
        >>> dominated([[1.0, 1.0], [0.1, 0.1]], [[0.0, 1.0], [1.0, 0.0]]).tolist()
        [True, False]
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
    """Return the share of points that a polyline dominates.

    Args:
        points: Points [P, 2].
        curve: The vertices of the polyline [Q, 2].
        margin: As in `dominated`.

    Returns:
        The share, from 0 to 1.

    Example:
        >>> dominated_share([[1.0, 1.0], [0.1, 0.1]], [[0.0, 1.0], [1.0, 0.0]])
        0.5
    """
    return float(dominated(points, curve, margin=margin).mean())
