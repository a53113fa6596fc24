"""The trial of an estimator by draws: more are added until its bias is shown, or shown to be small.

Draws come in blocks whose generators depend on seed and block alone, so a verdict is repeated by
its seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.deviations import DeviationSums
from gradlab.draws import Draws
from gradlab.mean_test import MeanTest
from gradlab.moments import Measured
from gradlab.progress import Progress
from gradlab.question import FEWEST, Question
from gradlab.reproducible import block_generator
from gradlab.verdict import BIASED, INCONCLUSIVE, UNBIASED, Verdict

__all__ = ["trial"]

# Each block of draws, and so each look, adds a quarter; no block has more elements than this.
_MORE = 4
_BLOCK_ELEMENTS = 2**18
# Rounding errors are below this many units in the last place of what is summed.
_ULPS = 2**10


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
    the last set.
    """
    last = draws or max_draws
    sets = [question.visits <= last] if draws else question.stages(last // 4)
    if not any(keep.any() for keep in sets):
        last = FEWEST  # more would decide nothing
    with Progress("trial", last, "draws", shown=progress) as bar:
        for evidence in _accumulated(question, target, last, last if draws else FEWEST):
            bar.add(evidence.sums.n - bar.done)
            look = _Look(question, evidence, sets, draws is not None)
            if evidence.sums.n == last or (draws is None and look.outcome != INCONCLUSIVE):
                return look.verdict()
    raise AssertionError("the last look decides")


@dataclass(frozen=True)
class _Evidence:
    """What is known after some draws: their sums, the gradient (or its estimate), rounding."""

    sums: DeviationSums
    target: Tensor
    rounding: float


def _accumulated(
    question: Question, target: Tensor | Draws, last: int, look: int
) -> Iterator[_Evidence]:
    """Yield the evidence after `look` draws, and after each quarter more."""
    logits = question.logits
    elements = logits.numel() * question.drawn.calls(logits.shape[-1], logits.shape[-2])
    largest = max(32, _BLOCK_ELEMENTS // elements)
    row = f"{question.problem}|{question.drawn.name}|trial"
    sums: DeviationSums | None = None
    centre = target if isinstance(target, Tensor) else torch.zeros_like(logits)
    rounding, start, block = 0.0, 0, 0
    while start < last:
        # A block that `last` cuts is drawn whole: a longer trial goes on with the same draws.
        whole = min(max(look - start, 1), largest)
        n = min(whole, last - start)
        g = question.drawn(
            question.f, question.at, whole, block_generator(question.seed, row, block)
        )
        d = g[:n].to(torch.float64)
        if block == 0:
            spread = float(d.square().mean().sqrt()) + float(centre.abs().max())
            eps = max(torch.finfo(g.dtype).eps, question.f.eps)
            rounding = _ULPS * eps * (spread + question.scale)
        if isinstance(target, Tensor):
            d = d - target
        else:
            generator = block_generator(question.seed, f"{row}|against", block)
            other = target(question.f, target.at(question.at), whole, generator)[:n].to(
                torch.float64
            )
            d = d - other
            centre = centre + (other.mean(0) - centre) * (n / (start + n))
        added = DeviationSums.from_draws(d.flatten(1))
        sums = added if sums is None else sums.merge(added)
        start, block = start + n, block + 1
        if start >= min(look, last):
            yield _Evidence(sums, centre, rounding)
            look = start + math.ceil(start / _MORE)


@dataclass(frozen=True)
class _Look:
    """The evidence looked at: tests of the sets of coordinates that can be tested by now."""

    question: Question
    evidence: _Evidence
    sets: list[Bool[Tensor, " D"]]
    fixed: bool

    @cached_property
    def tests(self) -> list[MeanTest]:
        sums, alpha, rounding = self.evidence.sums, self.question.alpha, self.evidence.rounding
        begun = [keep for keep in self.sets if keep.any() and self.question.begins(keep) <= sums.n]
        return [
            MeanTest(sums.restricted(keep, partial(self.question.tested, keep)), alpha, rounding)
            for keep in begun
        ]

    @property
    def test(self) -> MeanTest | None:
        """The test of the largest set begun."""
        return self.tests[-1] if self.tests else None

    @property
    def tested(self) -> Bool[Tensor, " D"]:
        nothing = torch.zeros_like(self.evidence.sums.mean, dtype=torch.bool)
        return self.sets[len(self.tests) - 1] if self.tests else nothing

    @cached_property
    def log_e_value(self) -> float:
        # Weights that sum to 1 over however many sets there are, so that none depends on the end.
        weights = [1 / ((k + 1) * (k + 2)) for k in range(len(self.tests))]
        waiting = math.log1p(-sum(weights)) if weights else 0.0
        begun = (math.log(w) + t.log_e_value for w, t in zip(weights, self.tests, strict=True))
        return float(np.logaddexp.reduce([waiting, *begun]))

    @property
    def length(self) -> float:
        """|g|, or the root of the variance of a draw where g is 0."""
        norm = float(torch.linalg.vector_norm(self.evidence.target))
        return norm if norm > 0 else float(self.evidence.sums.variances.sum().sqrt())

    @property
    def aside(self) -> float:
        """What is not tested: the gradient, or the deviation found, in the other coordinates."""
        parts = (self.evidence.target.flatten(), self.evidence.sums.mean)
        if not self.tests:
            return max(float(torch.linalg.vector_norm(part)) for part in parts)
        return max(
            float(torch.linalg.vector_norm(part - self.question.tested(self.tested, part)))
            for part in parts
        )

    @property
    def limit(self) -> float:
        """What the length of the bias is below, with confidence."""
        return math.hypot(self.test.bound if self.test else 0.0, self.aside)

    @cached_property
    def outcome(self) -> str:
        if self.test is None:
            return INCONCLUSIVE
        if self.fixed:
            biased = self.test.p_value <= self.question.alpha
        else:
            biased = self.log_e_value >= -math.log(self.question.alpha)
        if biased:
            return BIASED
        margin = max(self.question.delta * self.length, self.test.exact_limit)
        decided = len(self.tests) == len(self.sets) and self.limit <= margin
        return UNBIASED if decided else INCONCLUSIVE

    @property
    def needed(self) -> int | None:
        """About how many draws decide, were bias and variance as they are estimated now."""
        sums, margin = self.evidence.sums, self.question.delta * self.length
        test = MeanTest(sums, self.question.alpha, self.evidence.rounding)
        size = math.sqrt(max(sums.bias2.value, 0.0))
        if margin == 0 or not math.isfinite(test.bound):
            return None
        least = sums.n
        if self.aside > margin / 2:
            large = _largest(self.evidence.target.flatten(), margin / 2)
            least = max(least, 4 * self.question.begins(large))
        for power in range(1, 100):
            more = test.at(least / sums.n * (1 + 1 / _MORE) ** power)
            noise = float(more.sums.variances.sum() / more.sums.n) ** 0.5
            if size + noise + more.radius <= margin or size > more.radius:
                return more.sums.n
        return None

    def verdict(self) -> Verdict:
        """Return the verdict on the evidence as it is."""
        sums, target, test = self.evidence.sums, self.evidence.target, self.test
        bias = sums.mean.reshape(target.shape)
        ratio = _slope_of(sums, bias, target)
        across = bias - (ratio.value - 1) * target if math.isfinite(ratio.value) else bias
        noise = float(sums.variances.sum()) / sums.n - ratio.se**2 * float(target.square().sum())
        return Verdict(
            estimator=self.question.drawn.name,
            problem=self.question.problem,
            outcome=self.outcome,
            method="draws",
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
            p_value=test.p_value if self.fixed and test else None,
            log_e_value=self.log_e_value,
            kurtosis=test.kurtosis if test else None,
            degrees=test.degrees if test else None,
            set_aside=int((~self.tested).sum()),
        )


def _slope_of(sums: DeviationSums, bias: Tensor, target: Tensor) -> Measured:
    """Return <mean, g> / |g|^2 and its standard error."""
    g, length2 = target.flatten(), float(target.square().sum())
    if length2 == 0:
        return Measured(math.nan, 0.0)
    along = sums.scatter @ g if sums.scatter.ndim == 2 else sums.scatter * g
    variance = max(float(g @ along), 0.0) / (sums.n - 1) / sums.n
    return Measured(1 + float((bias * target).sum()) / length2, math.sqrt(variance) / length2)


def _largest(target: Tensor, left: float) -> Tensor:
    """Return the fewest coordinates, largest first, without which at most `left` is left."""
    square, order = target.square().sort(descending=True)
    rest = square.sum() - square.cumsum(0)
    keep = torch.zeros_like(square, dtype=torch.bool)
    keep[order[: int((rest > left**2).sum()) + 1]] = True
    return keep
