"""Mean and variance of an estimator, exact or from draws: one type for both.

Against the true gradient they give squared bias, mean squared error, cosine and progress, each with
a standard error that is 0 when the moments are exact. Ratios of measured numbers are corrected for
the bias of a ratio, and their errors for its skewness.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["GROUPS", "Groups", "Measured", "Moments", "Truth"]

# Draws are dealt to this many groups; leaving one out at a time gives standard errors. With 64
# groups the errors of variances cover about 1 % more, those of squared lengths no more: what they
# miss is due to skewness.
GROUPS = 16

# The errors of ratios are this much larger than the jackknife's: half of the .975 quantile of
# Student's t with GROUPS - 1 degrees of freedom, so that 2 errors are a 95 % interval.
_STUDENT = 1.065724772779888


class Measured(float):
    """A number that carries its standard error `se`, 0 when exact; otherwise a float like any."""

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
class Groups:
    """Sums over Monte Carlo draws g, kept apart for `GROUPS` groups so that they can be jackknifed.

    `count` [G], `mean` and `square` (sum of squared deviations from the group's mean) [G, N, C], or
    [G, B, N, C] for a batch;
    `radius2`, `radius4`: sums of r = |g - mean near it|^2 and of r^2 over all draws. float64.
    """

    count: Float[Tensor, " G"]
    mean: Float[Tensor, "G *batch N C"]
    square: Float[Tensor, "G *batch N C"]
    radius2: float
    radius4: float

    @classmethod
    def from_draws(cls, g: Float[Tensor, "n *batch N C"]) -> "Groups":
        """Return the sums of one block of draws, in two passes over it."""
        g = g.detach()
        rounds, left = divmod(len(g), GROUPS)
        dealt = g[: len(g) - left].reshape(rounds, GROUPS, *g.shape[1:])
        centre = dealt.sum(0) / max(1, rounds)
        deviation = dealt - centre
        flat = deviation.flatten(0, 1).flatten(1)
        radius = torch.linalg.vecdot(flat, flat).to(torch.float64)
        sums = cls(
            torch.full([GROUPS], rounds, dtype=torch.float64),
            centre.to(torch.float64),
            deviation.square_().sum(0).to(torch.float64),
            float(radius.sum()),
            float(radius.square().sum()),
        )
        return sums if left == 0 else sums.merge(cls._one_each(g[len(g) - left :], centre.mean(0)))

    @classmethod
    def _one_each(cls, g: Tensor, centre: Tensor) -> "Groups":
        """Return the sums of fewer than `GROUPS` draws, one to a group."""
        count = (torch.arange(GROUPS) < len(g)).to(torch.float64)
        mean = torch.zeros(GROUPS, *g.shape[1:], dtype=torch.float64)
        mean[: len(g)] = g.to(torch.float64)
        radius = (g - centre).to(torch.float64).square().flatten(1).sum(-1)
        total, total2 = float(radius.sum()), float(radius.square().sum())
        return cls(count, mean, torch.zeros_like(mean), total, total2)

    def merge(self, other: "Groups") -> "Groups":
        """Return the sums over both sets of draws (Chan, Golub & LeVeque 1983)."""
        count = self.count + other.count
        share = _each(other.count / count.clamp_min(1), self.mean)
        delta = other.mean - self.mean
        return Groups(
            count,
            self.mean + share * delta,
            self.square + other.square + _each(self.count, delta) * share * delta.square(),
            self.radius2 + other.radius2,
            self.radius4 + other.radius4,
        )

    def weighted(self, weights: Float[Tensor, " G"]) -> "Groups":
        """Return the sums as if each draw of group i had been made weights[i] times."""
        square = _each(weights, self.square) * self.square
        return replace(self, count=weights * self.count, square=square)

    def pooled(self, keep: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor, float]:
        """Return mean [N, C], sum of squared deviations [N, C] and count of the groups kept."""
        count, mean, square = self.count[keep], self.mean[keep], self.square[keep]
        n = count.sum()
        weight = _each(count / n, mean)
        centre = (weight * mean).sum(0)
        between = (_each(count, mean) * (mean - centre).square()).sum(0)
        return centre, square.sum(0) + between, float(n)


def _each(of_groups: Float[Tensor, " G"], like: Tensor) -> Tensor:
    """Return a number a group with as many axes as what it multiplies."""
    return of_groups.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Moments:
    """Moments of one draw of an estimator; for a batch all have its axis in front.

    `mean` [N, C] and `variance_per_variable` [N] (trace of the covariance over the C coordinates),
    float64, in units of f (squared); `n` draws behind them, inf when exact; `groups` only when not.
    """

    mean: Float[Tensor, "*batch N C"]
    variance_per_variable: Float[Tensor, "*batch N"]
    n: float = math.inf
    groups: Groups | None = None

    @classmethod
    def from_groups(cls, groups: Groups) -> "Moments":
        """Return the moments of all draws summed up in `groups`."""
        mean, square, n = groups.pooled()
        return cls(mean, (square / max(n - 1, 1)).sum(-1), n, groups)

    @property
    def variance(self) -> Measured:
        """Total variance of one draw: the trace of its covariance over all N C coordinates."""
        return self._measure(lambda m: float(m.variance_per_variable.sum()))

    @property
    def mean_se(self) -> Float[Tensor, "*batch N C"]:
        """Standard error of each coordinate of `mean`; 0 when exact."""
        if self.groups is None:
            return torch.zeros_like(self.mean)
        _, square, n = self.groups.pooled()
        return (square / (n - 1) / n).sqrt()

    @property
    def effective_sample_size(self) -> float:
        """(sum r)^2 / sum r^2 for r = |draw - mean|^2: how many draws carry the variance."""
        if self.groups is None:
            return math.inf
        if self.groups.radius4 == 0:
            return self.n
        return self.groups.radius2**2 / self.groups.radius4

    @property
    def length2(self) -> Measured:
        """Squared length |E g|^2 of the mean, the unbiased estimate: may be negative."""
        return self._measure(lambda m: m._length2())

    def bias2(self, truth: "Truth") -> Measured:
        """Squared bias |E g - truth|^2, the unbiased estimate: may be negative when not exact.

        Here and below a truth that is itself measured, by unbiased draws independent of these,
        corrects the estimate for its noise and adds to the standard error.
        """
        return self._against(truth, lambda m, t: m._bias2(t))

    def mse(self, truth: "Truth", averaged: float = 1) -> Measured:
        """Mean squared error of the mean of `averaged` draws: bias2 + variance / averaged."""
        _check_averaged(averaged)
        return self._against(
            truth, lambda m, t: m._bias2(t) + float(m.variance_per_variable.sum()) / averaged
        )

    def cosine(self, truth: "Truth") -> Measured:
        r"""Cosine of the angle between the mean and the truth; NaN where either is 0.

        .. math:: \hat c = \frac{\hat m \cdot g}{|g| \sqrt{|\hat m|^2 - v / n}},

        with the mean m and the variance v of n draws. It is not truncated: where the true cosine is
        near 1 a measured one may exceed 1, just as an unbiased squared bias may be negative. So the
        average of many measured cosines does not lean.

        This and the other two ratios are corrected for their bias by the jackknife. Two of their
        standard errors cover the truth about as often as 95 %. They cover less often, down to 86 %,
        where the noise lies in one or two directions and the angle is a few times its error. They
        cover more often, up to 99 %, where there is no angle and the noise lies in many directions.
        tests/verification/test_coverage.py has the calculation. If leaving out one group makes the
        squared length of the mean, or of a measured truth, negative, the length is lost in noise:
        the value is then not corrected, and its error is NaN.
        """
        return self._ratio(truth, lambda m, t: m._inner(t) / _root(m._length2() * _length2_of(t)))

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
        _check_averaged(averaged)

        def root(m: Moments, t: Truth) -> float:
            second_moment = m._length2() + float(m.variance_per_variable.sum()) / averaged
            return m._inner(t) / (_root(second_moment) * _root(_length2_of(t)))

        r = self._ratio(truth, root)
        value = self._ratio(truth, lambda m, t: root(m, t) * abs(root(m, t))).value
        return Measured(value, math.hypot(2 * r.value * r.se, math.sqrt(2) * r.se**2))

    def scale_free_bias2(self, truth: "Truth") -> Measured:
        """Squared bias after every draw is rescaled so that its mean has the length of the truth.

        It is 2 |truth|^2 (1 - cosine), corrected and with errors as the cosine's; may be negative
        when not exact. NaN where the mean is 0.
        """
        return self._ratio(truth, lambda m, t: m._rescaled(_length2_of(t))._bias2(t))

    def scale_free_variance(self, truth: "Truth") -> Measured:
        """Variance after the same rescaling: variance |truth|^2 / |E g|^2.

        Corrected for bias in its logarithm, so that it stays positive; see `cosine`.
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


def _check_averaged(averaged: float) -> None:
    if not averaged >= 1:
        raise ValueError(f"averaged must be at least 1 draw, not {averaged!r}")


def _root(square: float) -> float:
    return math.sqrt(square) if square > 0 else math.nan


Truth = Float[Tensor, "*batch N C"] | Moments
"""What an estimator is held against: a gradient, or moments of unbiased draws of it."""


def _length2_of(truth: Truth) -> float:
    """Return |truth|^2, NaN where its estimate is negative."""
    length2 = truth._length2() if isinstance(truth, Moments) else float(truth.square().sum())
    return length2 if length2 >= 0 else math.nan
