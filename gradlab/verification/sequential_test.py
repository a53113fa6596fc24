"""The trial of an estimator by draws: more are added until its bias is shown, or shown to be small.

A test by draws holds where the draws have shown what they are made of. What they cannot have shown,
and what rounding hides, keeps the verdict back.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.moments import Measured
from gradlab.progress import Progress
from gradlab.user_code.under_test import Draws
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.evidence import MORE, ULPS, Evidence, accumulated
from gradlab.verification.mean_test import BEYOND, SHARE, MeanTest, tolerated_share
from gradlab.verification.testable_coordinates import FEWEST, MET, Question
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, UNBIASED, Verdict

__all__ = ["trial"]

# The share of the level that sums over classes may use.
_ROWS = 0.1
# Looks and draws after which no decision is foretold.
_FARTHEST, _MANY = 100, 1e15


def trial(
    question: Question,
    target: Float[Tensor, "N C"] | Draws,
    *,
    draws: int | None = None,
    max_draws: int = 2**20,
    progress: bool = False,
) -> Verdict:
    """Return the verdict from draws, against a mean [N, C] or the mean of other draws.

    With `draws` all are made and Hotelling's test decides; else they are added until the e-value
    exceeds 1/alpha, the bound of the bias is below delta, or `max_draws` are made; with a larger
    `max_draws` the same trial goes on. The e-value is a weighted mean of those of the sets of
    coordinates (see `Question.stages`), 1 for a set that cannot be tested yet; the bound is that of
    the last set. What keeps a decision back, and until when, is in the `reason` of the verdict.

    Raises DependentDrawsError where sums over the draws of a call vary otherwise than those of
    independent draws, at a rate of alpha / 10.
    """
    last = draws or max_draws
    sets = [question.visits <= last] if draws else question.stages(last // 4)
    if not any(keep.any() for keep in sets):
        last = FEWEST  # more would decide nothing
    looks = 0
    tails: dict[int, tuple[int, int, float]] = {}
    with Progress("trial", last, "draws", shown=progress) as bar:
        for evidence in accumulated(question, target, last, last if draws else FEWEST):
            bar.add(evidence.sums.n - bar.done)
            look = _Look(question, evidence, sets, draws is not None, tails)
            looks += 1
            evidence.check_independence(question, looks)
            if evidence.sums.n == last or (draws is None and look.outcome != INCONCLUSIVE):
                return look.verdict()
    raise AssertionError("the last look decides")


@dataclass(frozen=True)
class _Look:
    """The evidence looked at: tests of the sets of coordinates that can be tested by now.

    `tails`: for each set its dimension, the number of draws and their sum of |z|^4 (see
    `MeanTest.inside_of`). Each look adds to it.
    """

    question: Question
    evidence: Evidence
    sets: list[Bool[Tensor, " D"]]
    fixed: bool
    tails: dict[int, tuple[int, int, float]]

    @cached_property
    def tests(self) -> list[MeanTest]:
        sums, alpha, rounding = self.evidence.sums, self.question.alpha, self.evidence.rounding
        begun = [keep for keep in self.sets if keep.any() and self.question.begins(keep) <= sums.n]
        found = []
        for number, keep in enumerate(begun):
            part = partial(self.question.tested, keep)
            test = MeanTest(sums.restricted(keep, part), alpha, rounding)
            found.append(replace(test, inside=self._inside(number, test, keep)))
        return found

    def _inside(self, number: int, test: MeanTest, keep: Bool[Tensor, " D"]) -> float:
        """Return the mean kurtosis of the directions of a test, by the draws it has looked at."""
        recent = self.evidence.recent
        if recent is None or not test.joint:
            return 0.0
        fourth, m = test.inside_of(self.question.tested(keep, recent)[:, keep])
        before, n, total = self.tails.get(number, (m, 0, 0.0))
        n, total = (n + len(recent), total + fourth) if before == m else (len(recent), fourth)
        self.tails[number] = (m, n, total)
        return (total / n - m * (m - 1)) / m

    @property
    def test(self) -> MeanTest | None:
        """The test of the largest set begun."""
        return self.tests[-1] if self.tests else None

    @property
    def tested(self) -> Bool[Tensor, " D"]:
        nothing = torch.zeros_like(self.evidence.sums.mean, dtype=torch.bool)
        return self.sets[len(self.tests) - 1] if self.tests else nothing

    @cached_property
    def rows(self) -> MeanTest:
        """The test of sums over classes, which a gradient has not; it waits for no rare class."""
        evidence, length = self.evidence, self.question.row_length
        return MeanTest(evidence.rows, self.question.alpha, length * evidence.rounding)

    @cached_property
    def log_e_value(self) -> float:
        # Weights that sum to 1 over however many sets there are, so that none depends on the end.
        weights = [1 / ((k + 1) * (k + 2)) for k in range(len(self.tests))]
        waiting = math.log1p(-sum(weights)) if weights else 0.0
        begun = (math.log(w) + t.log_evidence for w, t in zip(weights, self.tests, strict=True))
        of_sets = math.log1p(-_ROWS) + float(np.logaddexp.reduce([waiting, *begun]))
        return float(np.logaddexp(of_sets, math.log(_ROWS) + self.rows.log_evidence))

    @cached_property
    def p_value(self) -> float:
        """Of the last set of coordinates and of the sums over classes."""
        of_set = 1.0 if self.test is None else self.test.p_of_evidence
        return min(1.0, of_set / (1 - _ROWS), self.rows.p_of_evidence / _ROWS)

    @cached_property
    def length(self) -> float:
        """|g|, or the root of the variance of a draw where g is 0 to the accuracy of its sums."""
        norm = float(torch.linalg.vector_norm(self.evidence.target))
        return norm if norm > self._accuracy else float(self.evidence.sums.variances.sum().sqrt())

    @property
    def margin(self) -> float:
        """What the bias must be below."""
        return self.question.delta * self.length

    @property
    def aside(self) -> float:
        """What is not tested: the gradient, or the deviation found, in the other coordinates."""
        parts = (self.evidence.target.flatten(), self.evidence.sums.mean)
        return max(float(torch.linalg.vector_norm(self._untested(part))) for part in parts)

    def _untested(self, v: Tensor) -> Tensor:
        return v - self.question.tested(self.tested, v) if self.tests else v

    @property
    def limit(self) -> float:
        """What the length of the bias is below, with confidence; inf before all classes are met."""
        sums, question = self.evidence.sums, self.question
        if self.evidence.constant:
            return float(torch.linalg.vector_norm(sums.mean)) + self.rounding
        if sums.n < question.meets_classes:
            return math.inf
        aside = self.aside
        if aside > 0:
            # Few events carry what is set aside: their number is off by 2 log(1/alpha) at most.
            square = sums.scatter if sums.scatter.ndim == 1 else self._untested(sums.scatter)
            square = square if square.ndim == 1 else self._untested(square.mT).diagonal()
            variance = float(square.clamp_min(0).sum()) / max(sums.n - 1, 1) / sums.n
            aside += 2 * math.sqrt(question.unseen * variance)
        return math.hypot(self.test.bound if self.test else 0.0, aside)

    @property
    def rounding(self) -> float:
        """What rounding may add to the length of a mean."""
        return self.evidence.rounding * math.sqrt(self.evidence.sums.mean.numel())

    @cached_property
    def outcome(self) -> str:
        offset = float(torch.linalg.vector_norm(self.evidence.sums.mean))
        if self.evidence.constant and offset > self.rounding:
            return BIASED
        if self._is_biased and not self.withheld:
            return BIASED
        if self.test is None:
            return INCONCLUSIVE
        if self.length <= self.rounding and offset <= self.rounding and self._is_zero:
            return UNBIASED
        decided = len(self.tests) == len(self.sets) and self.limit + self.rounding <= self.margin
        return UNBIASED if decided and not self.unmet else INCONCLUSIVE

    @property
    def _is_zero(self) -> bool:
        """Whether the gradient and all draws are 0, to the accuracy of float64."""
        norm = float(torch.linalg.vector_norm(self.evidence.target))
        return max(norm, self.evidence.sums.size) <= self._accuracy

    @property
    def _accuracy(self) -> float:
        """What is 0 to the accuracy of float64 sums of values of f."""
        return max(ULPS * torch.finfo(torch.float64).eps * self.question.scale, math.ulp(0.0))

    @property
    def _is_biased(self) -> bool:
        """Whether the test shows a bias, were its conditions met."""
        if self.fixed:
            return self.p_value <= self.question.alpha
        return self.log_e_value >= -math.log(self.question.alpha)

    @cached_property
    def withheld(self) -> str:
        """Why a bias is not declared though the test shows one, or nothing."""
        n, needed = self.evidence.sums.n, self.question.meets_gradient
        if n < needed and self._may_be_unmet:
            return (
                f"the states that carry the gradient are rare: about {needed:,} draws would meet "
                "them often enough"
            )
        if float(torch.linalg.vector_norm(self.evidence.sums.mean)) <= self.rounding:
            return self._of_rounding
        return ""

    @property
    def _may_be_unmet(self) -> bool:
        """Whether states that are hardly met could carry what the mean is off, or nearly so."""
        rarity = self.question.rarity
        assert rarity is not None
        offset = float(torch.linalg.vector_norm(self.evidence.sums.mean))
        hardly = min(1.0, 2 * MET / self.evidence.sums.n)
        return offset <= 1.5 * rarity().missed(hardly)[0]

    @property
    def _of_rounding(self) -> str:
        fine = self.question.f.eps <= torch.finfo(torch.float64).eps
        way = "centre f" if fine else "use float64, or centre f"
        return (
            f"rounding may change a mean by {self.rounding / self.length:.2g} times the gradient's "
            f"length: {way}"
        )

    @cached_property
    def unmet(self) -> str:
        """Why the bias is not declared small though its bound is, or nothing."""
        sums, question = self.evidence.sums, self.question
        if sums.n < question.meets_classes:
            return (
                f"the rarest {question.part} may not have been met: about "
                f"{question.meets_classes:,} draws would meet it"
            )
        varied = float(sums.squares.sum()) > 0 and float(sums.extremes.abs().max()) > self.margin
        return _heavy(sums) if varied else ""

    @property
    def reason(self) -> str:
        """What keeps the verdict back, where it is not only the number of draws."""
        if self.outcome != INCONCLUSIVE:
            return ""
        question = self.question
        if self.test is None:
            least = int(question.visits.min()) if len(question.visits) else 0
            part = question.part
            return f"no {part} is met often enough: the least rare needs about {least:,} draws"
        if self.evidence.is_lost:
            return "the target is lost in the noise of its own draws: its length may be 0"
        if self.withheld and (self._is_biased or self.evidence.sums.n < question.meets_gradient):
            return self.withheld
        if self.rounding > self.margin:
            return self._of_rounding
        sums, test = self.evidence.sums, self.test
        if sums.size == 0:
            return (
                f"every draw is 0: the code returns nothing, or what it returns is rarer than "
                f"{self.question.unseen / sums.n:.1g}"
            )
        if test.unseen_offset > self.margin:
            wanted = test.unseen_offset * sums.n / self.question.unseen
            return (
                "the draws have not varied in directions in which they are not the gradient; draws "
                f"that are not met so far would have to be about {wanted / sums.size:.2g} times as "
                "long as the longest one to make up for it"
            )
        return _heavy(sums) or self.unmet

    @property
    def needed(self) -> int | None:
        """About how many draws decide, were bias and variance as they are estimated now."""
        sums, margin, question = self.evidence.sums, self.margin, self.question
        test = MeanTest(sums, question.alpha, self.evidence.rounding)
        least = max(question.meets_classes, question.meets_gradient)
        least = least if least > sums.n else 0
        if margin == 0 or sums.size == 0 or self.evidence.is_lost:
            return least or None
        if self.rounding > margin or (self.withheld and self._is_biased):
            return least or None
        if self.aside > margin / 2:
            large = _largest(self.evidence.target.flatten(), margin / 2)
            least = max(least, 4 * question.begins(large))
        if least > _MANY:
            return least
        if test.unseen_offset > margin:
            rate = test.unseen_offset / (BEYOND * sums.size)
            return max(least, math.ceil((question.unseen + 3) / rate))
        if not math.isfinite(test.bound):
            return least or None
        least = max(least, sums.n, math.ceil(sums.n * sums.largest_share / SHARE))
        size = math.sqrt(max(sums.bias2.value, 0.0))

        def decide(power: int) -> bool:
            if least * (1 + 1 / MORE) ** power > _MANY:
                return True
            more = test.at(least / sums.n * (1 + 1 / MORE) ** power)
            noise = float(more.sums.variances.sum() / more.sums.n) ** 0.5
            return size + noise + more.radius <= margin or size > more.radius

        power = bisect_left(range(_FARTHEST), True, lo=int(least == sums.n), key=decide)
        needed = math.ceil(least * (1 + 1 / MORE) ** power)
        return None if power == _FARTHEST or needed > _MANY else needed

    def verdict(self) -> Verdict:
        """Return the verdict on the evidence as it is."""
        sums, target, test = self.evidence.sums, self.evidence.target, self.test
        bias = sums.mean.reshape(target.shape)
        ratio = _slope_of(sums, bias, target, self.evidence.noise)
        across = bias - (ratio.value - 1) * target if math.isfinite(ratio.value) else bias
        noise = float(sums.variances.sum()) / sums.n - ratio.se**2 * float(target.square().sum())
        return Verdict(
            estimator=self.question.drawn.name,
            problem=self.question.problem,
            outcome=self.outcome,
            method="monte carlo",
            claimed=self.question.claimed,
            target=target,
            bias=bias,
            bias2=sums.bias2,
            limit=self.limit,
            slope=ratio,
            residual2=Measured(float(across.square().sum()) - noise, sums.noise_se),
            deviation=float(sums.variances.sum().sqrt()),
            delta=self.question.delta,
            alpha=self.question.alpha,
            seed=self.question.seed,
            judged=self.question.drawn.of,
            draws=sums.n,
            needed=self.needed if self.outcome == INCONCLUSIVE else None,
            p_value=self.p_value if self.fixed else None,
            log_e_value=self.log_e_value,
            kurtosis=test.kurtosis if test else None,
            degrees=test.degrees if test else None,
            set_aside=int((~self.tested).sum()),
            reason=self.reason,
            unseen_rate=min(1.0, self.question.unseen / sums.n),
            unseen_bias=self._unseen_bias,
            constant=self.evidence.constant,
            distribution=self.question.distribution,
        )

    @property
    def _unseen_bias(self) -> float | None:
        """What score-function draws of the rarest events may carry, where f is enumerated."""
        rarity = self.question.rarity
        if rarity is None:
            return None
        return rarity().carried(min(1.0, self.question.unseen / self.evidence.sums.n))


def _heavy(sums: DeviationSums) -> str:
    """Return that a single draw makes up too much, or nothing."""
    share = sums.largest_share
    if share <= tolerated_share(sums.n):
        return ""
    return (
        f"a single draw makes up {share:.0%} of the squared deviations: the tails have not been "
        "shown, and the variance may be infinite"
    )


def _slope_of(sums: DeviationSums, bias: Tensor, target: Tensor, noise: float) -> Measured:
    """Return <mean, g> / |g|^2 and its standard error.

    `noise` is what a g that is itself drawn adds to |g|^2 on average, and takes from <bias, g>.
    """
    g, length2 = target.flatten(), float(target.square().sum()) - noise
    if length2 <= 0:
        return Measured(math.nan, 0.0)
    along = sums.scatter @ g if sums.scatter.ndim == 2 else sums.scatter * g
    variance = max(float(g @ along), 0.0) / (sums.n - 1) / sums.n
    ratio = 1 + (float((bias * target).sum()) + noise) / length2
    return Measured(ratio, math.sqrt(variance) / length2)


def _largest(target: Tensor, left: float) -> Tensor:
    """Return the fewest coordinates, largest first, without which at most `left` is left."""
    square, order = target.square().sort(descending=True)
    rest = square.sum() - square.cumsum(0)
    keep = torch.zeros_like(square, dtype=torch.bool)
    keep[order[: int((rest > left**2).sum()) + 1]] = True
    return keep
