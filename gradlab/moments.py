"""Mean and variance of an estimator, exact or from draws: one type for both.

Against the true gradient they give squared bias, mean squared error, cosine and progress. Each has
a standard error, which is 0 when the moments are exact. Ratios of measured numbers are corrected
for the bias of a ratio, and their errors for its skewness.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_averaged
from gradlab.draw_sums import GROUPS, Groups

__all__ = ["GROUPS", "Groups", "Measured", "Moments", "Truth", "check_averaged"]

# The errors of ratios are this much larger than the jackknife's: half of the .975 quantile of
# Student's t with GROUPS - 1 degrees of freedom, so that 2 errors are a 95 % interval.
_STUDENT = 1.065724772779888

# Of the standard deviation of a draw, what may be left of a mean that is 0.
_ROUNDING = 1e-14


class Measured(float):
    """A number that carries its standard error `se`; otherwise a float like any other.

    Args:
        value: The number.
        se: Its standard error, in the same unit; 0 when it is exact.

    Example:
        >>> found = Measured(2.5, se=0.1)
        >>> found, found + 1
        (Measured(2.5, se=0.1), 3.5)
    """

    se: float

    def __new__(cls, value: float, se: float) -> "Measured":
        """Return the number `value` with its standard error."""
        number = super().__new__(cls, value)
        number.se = se
        return number

    def __getnewargs__(self) -> tuple[float, float]:  # type: ignore[override]
        return self.value, self.se

    def __repr__(self) -> str:
        return f"Measured({self.value!r}, se={self.se!r})"

    @property
    def value(self) -> float:
        """The number alone."""
        return float(self)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of one draw of an estimator, exact or from n draws.

    For a batch all tensors have its axis B in front, and the variance is summed over the elements.

    Args:
        mean: The expectation of a draw [N, C], float64, in units of f.
        variance_per_variable: The trace of the covariance over the C coordinates of each variable,
            [N], float64, in units of f squared.
        n: The number of draws that were averaged; inf when the moments are exact.
        groups: The sums over groups of draws, from which errors follow; None when exact.

    Example:
        >>> from gradlab import exact_gradient, exact_moments, parse
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 4, 3), regime("moderate", 4, 3)
        >>> moments, truth = exact_moments(parse("ST"), f, logits), exact_gradient(f, logits)
        >>> round(moments.bias2(truth), 4), round(moments.variance, 4)
        (0.0205, 0.1678)
        >>> moments.mse(truth, averaged=10) == moments.bias2(truth) + moments.variance / 10
        True
    """

    mean: Float[Tensor, "*shape"]
    variance_per_variable: Float[Tensor, "*rows"]
    n: float = math.inf
    groups: Groups | None = None

    @classmethod
    def from_groups(cls, groups: Groups) -> "Moments":
        """Return the moments of all draws in `groups`.

        Args:
            groups: Sums over the draws, such as `Groups.from_draws` returns.

        Returns:
            The moments of one draw.
        """
        mean, square, n = groups.pooled()
        return cls(mean, (square / max(n - 1, 1)).sum(-1), n, groups)

    @property
    def variance(self) -> Measured:
        """Total variance of one draw: the trace of its covariance over all N C coordinates."""
        return self._measure(lambda m: float(m.variance_per_variable.sum()))

    @property
    def mean_se(self) -> Float[Tensor, "*shape"]:
        """Standard error of each coordinate of `mean`; 0 when exact."""
        if self.groups is None:
            return torch.zeros_like(self.mean)
        _, square, n = self.groups.pooled()
        return (square / (n - 1) / n).sqrt()

    @property
    def effective_sample_size(self) -> float:
        """How many draws carry the variance: (sum r)^2 / sum r^2 for r = |draw - mean|^2."""
        if self.groups is None:
            return math.inf
        if self.groups.radius4 == 0:
            return self.n
        return self.groups.radius2**2 / self.groups.radius4

    @property
    def length2(self) -> Measured:
        """Squared length |E g|^2 of the mean: an unbiased estimate, which may be negative."""
        return self._measure(lambda m: m._length2())

    def bias2(self, truth: "Truth") -> Measured:
        """Squared bias |E g - truth|^2: an unbiased estimate, which may be negative when not exact.

        Here and below the truth may itself be measured, by unbiased draws independent of these. Its
        noise then corrects the estimate and adds to the standard error.

        Args:
            truth: The true gradient [N, C], or moments of unbiased draws of it.

        Returns:
            The squared bias with its standard error, in units of f squared.
        """
        return self._against(truth, lambda m, t: m._bias2(t))

    def mse(self, truth: "Truth", averaged: float = 1) -> Measured:
        """Mean squared error of the mean of `averaged` draws: bias2 + variance / averaged.

        Args:
            truth: The true gradient [N, C], or moments of unbiased draws of it.
            averaged: The number of draws that are averaged, at least 1.

        Returns:
            The mean squared error with its standard error, in units of f squared.

        Raises:
            ValueError: If `averaged` is below 1.
        """
        check_averaged(averaged)
        return self._against(
            truth, lambda m, t: m._bias2(t) + float(m.variance_per_variable.sum()) / averaged
        )

    def cosine(self, truth: "Truth") -> Measured:
        r"""Cosine of the angle between the mean and the truth; NaN where either is 0 or rounding.

        .. math:: \hat c = \frac{\hat m \cdot g}{|g| \sqrt{|\hat m|^2 - v / n}},

        with the mean m and the variance v of n draws. The value is not truncated. Where the true
        cosine is near 1 a measured one may exceed 1, just as an unbiased squared bias may be
        negative. So the average of many measured cosines does not lean.

        The jackknife corrects this ratio and the other two for their bias. If leaving out one group
        makes the squared length of the mean, or of a measured truth, negative, then the length is
        lost in noise: the value is not corrected, and its error is NaN. How often two standard
        errors cover the truth is measured in tests/verification/test_coverage.py.

        Args:
            truth: The true gradient [N, C], or moments of unbiased draws of it.

        Returns:
            The cosine with its standard error.
        """
        return self._ratio(
            truth, lambda m, t: m._inner(t) / _root(m._length2_beyond_rounding() * _length2_of(t))
        )

    def progress(self, truth: "Truth", averaged: float = 1) -> Measured:
        r"""Progress of a step along the mean of `averaged` draws, relative to the true gradient's.

        .. math:: P(B) = \operatorname{sign}(m \cdot g)
            \frac{(m \cdot g)^2}{|g|^2 (|m|^2 + V / B)},

        with the mean m and the total variance V of one draw, the truth g and B = `averaged`. A step
        of length s along the mean of B draws lowers a loss of curvature L by s m.g - L s^2 (|m|^2 +
        V / B) / 2 on average: P is what the best s brings, relative to a step along g. It lies in
        [-1, 1], does not depend on the scale of the estimates and is the squared cosine with its
        sign where B is infinite. A batch counts as one vector, all its elements together.

        From n draws, |m|^2 is replaced by its unbiased estimate, and the jackknife takes off what
        noise adds to (m.g)^2. The result is not truncated: it may exceed 1, and its sign may be
        wrong where m.g is smaller than its error. The standard error is sqrt(4 r^2 e^2 + 2 e^4),
        with e the error of the signed root r: so it does not vanish where r does. Two of them cover
        the truth in 90 to 97 %, and nearly always where m.g is 0.

        Args:
            truth: The gradient [N, C] ([B, N, C] for a batch) in the units of the moments, or the
                moments of unbiased draws of it that are independent of these.
            averaged: How many draws are averaged, at least 1. It need not be an integer, and
                `math.inf` asks for the mean itself.

        Returns:
            The progress with its standard error: 0 for exact moments and an exact truth. Value or
            error are NaN where the truth is 0 or lost in noise, or where mean and V / B both are.

        Raises:
            ValueError: If `averaged` is less than 1 or NaN.

        Example:
            A mean that points along the truth, with as much variance as squared length.

            >>> import torch
            >>> from gradlab.moments import Moments
            >>> truth = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
            >>> moments = Moments(2 * truth, torch.tensor([100.0], dtype=torch.float64))
            >>> [round(moments.progress(truth, B), 3) for B in (1, 10, float("inf"))]
            [0.5, 0.909, 1.0]
            >>> round(Moments(-truth, torch.tensor([25.0])).progress(truth), 3)
            -0.5
        """
        check_averaged(averaged)

        def root(m: Moments, t: Truth) -> float:
            second_moment = m._length2() + float(m.variance_per_variable.sum()) / averaged
            return m._inner(t) / (_root(second_moment) * _root(_length2_of(t)))

        r = self._ratio(truth, root)
        value = self._ratio(truth, lambda m, t: root(m, t) * abs(root(m, t))).value
        return Measured(value, math.hypot(2 * r.value * r.se, math.sqrt(2) * r.se**2))

    def scale_free_bias2(self, truth: "Truth") -> Measured:
        """Squared bias after every draw is rescaled so that its mean has the length of the truth.

        It is 2 |truth|^2 (1 - cosine), corrected as the cosine is, and may be negative when not
        exact.

        Args:
            truth: The true gradient [N, C], or moments of unbiased draws of it.

        Returns:
            The squared bias with its standard error, in units of f squared; NaN where the mean is
            0.
        """
        return self._ratio(truth, lambda m, t: m._rescaled(_length2_of(t))._bias2(t))

    def scale_free_variance(self, truth: "Truth") -> Measured:
        """Variance after every draw is rescaled so that its mean has the length of the truth.

        It is variance |truth|^2 / |E g|^2. Its logarithm is corrected for bias, so that the
        variance stays positive; see `cosine`.

        Args:
            truth: The true gradient [N, C], or moments of unbiased draws of it.

        Returns:
            The variance with its standard error, in units of f squared; NaN where the mean is 0.
        """
        return self._ratio(
            truth,
            lambda m, t: float(m._rescaled(_length2_of(t)).variance_per_variable.sum()),
            positive=True,
        )

    def _rescaled(self, length2: float) -> "Moments":
        """Return the moments of draws rescaled so that |E g|^2 = length2."""
        factor = math.sqrt(length2) / _root(self._length2())
        # The square of a factor that brings back a mean of 1e-160 would overflow.
        return Moments(factor * self.mean, factor * (factor * self.variance_per_variable), self.n)

    def _bias2(self, truth: "Truth") -> float:
        mean = truth.mean if isinstance(truth, Moments) else truth
        distance2 = float((self.mean - mean).square().sum())
        bias2 = distance2 - float(self.variance_per_variable.sum()) / self.n
        if isinstance(truth, Moments):
            bias2 -= float(truth.variance_per_variable.sum()) / truth.n
        return bias2

    def _length2(self) -> float:
        """Return |E g|^2, the unbiased estimate."""
        return float(self.mean.square().sum()) - float(self.variance_per_variable.sum()) / self.n

    def _length2_beyond_rounding(self) -> float:
        """Return |E g|^2, 0 where nothing but the rounding of an exact sum is left of it."""
        length2, variance = self._length2(), float(self.variance_per_variable.sum())
        return 0.0 if self.groups is None and length2 <= _ROUNDING**2 * variance else length2

    def _inner(self, truth: "Truth") -> float:
        mean = truth.mean if isinstance(truth, Moments) else truth
        return float((self.mean * mean).sum())

    def _against(
        self, truth: "Truth", statistic: Callable[["Moments", "Truth"], float]
    ) -> Measured:
        """Return the statistic; errors of these moments and of a measured truth are independent."""
        found = self._measure(lambda m: statistic(m, truth))
        if not isinstance(truth, Moments):
            return found
        of_truth = truth._measure(lambda t: statistic(self, t))
        return Measured(found.value, math.hypot(found.se, of_truth.se))

    def _measure(self, statistic: Callable[["Moments"], float]) -> Measured:
        """Return the statistic with its delete-one-group jackknife standard error."""
        value = statistic(self)
        if self.groups is None:
            return Measured(value, 0.0)
        if float(self.groups.count.min()) < 2:
            return Measured(value, math.nan)
        left = torch.tensor([statistic(m) for m in self._leave_one_out], dtype=torch.float64)
        return Measured(value, float(((GROUPS - 1) * left.var(correction=0)).sqrt()))

    def _ratio(
        self,
        truth: "Truth",
        statistic: Callable[["Moments", "Truth"], float],
        *,
        positive: bool = False,
    ) -> Measured:
        """Return a statistic that is not linear in what was measured, corrected for its bias."""
        value = statistic(self, truth)
        found = [self._lean(lambda m: statistic(m, truth), positive=positive)]
        if isinstance(truth, Moments):
            found.append(truth._lean(lambda t: statistic(self, t), positive=positive))
        se = math.hypot(*(error for _, error in found))
        lean = sum(part for part, _ in found)
        if math.isnan(lean):
            return Measured(value, math.nan)
        return Measured(value * math.exp(-lean) if positive else value - lean, se)

    def _lean(
        self, statistic: Callable[["Moments"], float], *, positive: bool
    ) -> tuple[float, float]:
        r"""Return the bias of a statistic, of its logarithm if `positive`, and its standard error.

        The bias is the jackknife's (Quenouille 1956), (G - 1)(\bar\theta_{(i)} - \theta). The
        logarithm's is given such that theta exp(-bias) is unbiased to the same order: where the
        length of the mean is known badly, subtracting would give variances below 0.

        The error is that of the jackknife, and half of the second difference of the statistic when
        the mean moves by one standard error along its worst direction (the least favourable family
        of Efron 1981, DiCiccio & Efron 1992). Without it errors are too small just where a squared
        length happens to be measured too small.
        """
        if self.groups is None:
            return 0.0, 0.0
        if float(self.groups.count.min()) < 2:
            return math.nan, math.nan
        value = statistic(self)
        left = torch.tensor([statistic(m) for m in self._leave_one_out], dtype=torch.float64)
        away = left - left.mean()
        se = float(((GROUPS - 1) * away.square().mean()).sqrt())
        if not se > 0:
            return (0.0 if se == 0 else math.nan), se
        ends = [
            statistic(Moments.from_groups(self.groups.weighted(1 + side * away / se)))
            for side in (-1, 1)
        ]
        error = _STUDENT * math.hypot(se, (ends[0] + ends[1]) / 2 - value)
        if not positive:
            return (GROUPS - 1) * (float(left.mean()) - value), error
        logs = (left / value).log()
        spread2 = (GROUPS - 1) * float(logs.var(correction=0))
        return (GROUPS - 1) * float(logs.mean()) + spread2 / 2, error

    @cached_property
    def _leave_one_out(self) -> list["Moments"]:
        assert self.groups is not None
        pooled = (self.groups.pooled(torch.arange(GROUPS) != g) for g in range(GROUPS))
        return [Moments(mean, (square / (n - 1)).sum(-1), n) for mean, square, n in pooled]


def _root(square: float) -> float:
    return math.sqrt(square) if square > 0 else math.nan


Truth = Float[Tensor, "*shape"] | Moments
"""What an estimator is held against: a gradient, or moments of unbiased draws of it."""


def _length2_of(truth: Truth) -> float:
    """Return |truth|^2, NaN where its estimate is negative."""
    length2 = truth._length2() if isinstance(truth, Moments) else float(truth.square().sum())
    return length2 if length2 >= 0 else math.nan
