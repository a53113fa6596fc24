"""The trial of an estimator by draws: more are added until its bias is shown, or shown to be small.

Draws come in blocks whose generators depend on seed and block alone, so a verdict is repeated by
its seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from gradlab.categorical import probabilities
from gradlab.deviations import DeviationSums
from gradlab.draws import Draws
from gradlab.loss import Loss
from gradlab.mean_test import MeanTest
from gradlab.moments import Measured
from gradlab.reproducible import block_generator
from gradlab.verdict import BIASED, INCONCLUSIVE, UNBIASED, Verdict

__all__ = ["FEWEST", "Question", "trial"]

FEWEST = 256
"""Draws before the first look; a look follows at every quarter more."""

_LOOK = 1.25
_BLOCK_ELEMENTS = 2**18
# A class is tested if it, and any other, is expected this many times log(1/alpha): an event met
# less often has a mean too skewed for the test.
_VISITS = 20
# Rounding errors are below this many units in the last place of what is summed.
_ULPS = 2**10


@dataclass(frozen=True)
class Question:
    """What is asked: the draws in question, f and logits [N, C], and the errors allowed.

    A bias below `delta` times the length of the gradient is small; `alpha` is the rate at which an
    unbiased estimator may be called biased, or one of a larger bias unbiased. `scale`: a size of
    values of f, whose rounding is no bias.
    """

    drawn: Draws
    f: Loss
    logits: Float[Tensor, "N C"]
    problem: str
    claimed: bool | None
    delta: float
    alpha: float
    seed: int
    scale: float = 0.0

    def testable(self, n: int) -> Bool[Tensor, "N C"]:
        """Return the coordinates whose class is met, and not met, often enough in n draws."""
        p = probabilities(self.logits)
        rarer = torch.minimum(p, 1 - p)
        return (rarer * n >= _VISITS * -math.log(self.alpha)) | (rarer == 0)

    def first_look(self, keep: Bool[Tensor, "N C"]) -> int:
        """Return the draws from which on all these coordinates can be tested."""
        p = probabilities(self.logits)
        rarer = torch.minimum(p, 1 - p)[keep]
        least = float(rarer[rarer > 0].min()) if (rarer > 0).any() else 1.0
        return max(FEWEST, math.ceil(_VISITS * -math.log(self.alpha) / least))


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
    exceeds 1/alpha, the bound of the bias is below delta, or `max_draws` are made.
    """
    last = draws or max_draws
    keep = question.testable(last if draws else last // 4).flatten()
    first = question.first_look(keep.reshape(question.logits.shape))
    if not keep.any():
        last = FEWEST  # more would decide nothing
    look = last if draws else min(first, last)
    evidence = None
    with tqdm(total=last, unit="draw", leave=False, disable=not progress) as bar:
        for evidence in _accumulated(question, target, last):
            bar.update(evidence.sums.n - bar.n)
            if evidence.sums.n < look:
                continue
            test = MeanTest(evidence.sums.restricted(keep), question.alpha, evidence.rounding)
            aside = evidence.aside(~keep)
            outcome = _outcome(question, evidence, test, aside, fixed=draws is not None)
            if outcome != INCONCLUSIVE or evidence.sums.n == last:
                return _verdict(question, evidence, test, aside, outcome, keep, draws is not None)
            look = min(last, math.ceil(_LOOK * evidence.sums.n))
    raise AssertionError("the last look decides")


@dataclass(frozen=True)
class _Evidence:
    """What is known after some draws: their sums, the gradient (or its estimate), rounding."""

    sums: DeviationSums
    target: Tensor
    rounding: float

    @property
    def length(self) -> float:
        """|g|, or the root of the variance of a draw where g is 0."""
        norm = float(torch.linalg.vector_norm(self.target))
        return norm if norm > 0 else float(self.sums.variances.sum().sqrt())

    def aside(self, untested: Bool[Tensor, " D"]) -> float:
        """Return what is not tested: the gradient, or the deviation found, in these coordinates."""
        parts = (self.target.flatten()[untested], self.sums.mean[untested])
        return max(float(torch.linalg.vector_norm(part)) for part in parts)


def _accumulated(question: Question, target: Tensor | Draws, last: int) -> Iterator[_Evidence]:
    """Yield the evidence after each block of draws."""
    logits = question.logits
    size = max(
        32, min(1024, _BLOCK_ELEMENTS // (logits.numel() * question.drawn.calls(logits.shape[1])))
    )
    row = f"{question.problem}|{question.drawn.name}|trial"
    total: DeviationSums | None = None
    centre = target if isinstance(target, Tensor) else torch.zeros_like(logits)
    rounding = 0.0
    for block, start in enumerate(range(0, last, size)):
        n = min(size, last - start)
        g = question.drawn(question.f, logits, n, block_generator(question.seed, row, block))
        if block == 0:
            spread = float(g.to(torch.float64).square().mean().sqrt()) + float(centre.abs().max())
            rounding = _ULPS * torch.finfo(g.dtype).eps * (spread + question.scale)
        d = g.to(torch.float64)
        if isinstance(target, Tensor):
            d = d - target
        else:
            other = target(
                question.f, logits, n, block_generator(question.seed, f"{row}|against", block)
            ).to(torch.float64)
            d = d - other
            centre = centre + (other.mean(0) - centre) * (n / (start + n))
        sums = DeviationSums.from_draws(d.flatten(1))
        total = sums if total is None else total.merge(sums)
        yield _Evidence(total, centre, rounding)


def _outcome(
    question: Question, evidence: _Evidence, test: MeanTest, aside: float, *, fixed: bool
) -> str:
    biased = (
        test.p_value <= question.alpha if fixed else test.log_e_value >= -math.log(question.alpha)
    )
    if biased:
        return BIASED
    limit, margin = math.hypot(test.bound, aside), question.delta * evidence.length
    return UNBIASED if limit <= max(margin, test.exact_limit) else INCONCLUSIVE


def _verdict(
    question: Question,
    evidence: _Evidence,
    test: MeanTest,
    aside: float,
    outcome: str,
    keep: Tensor,
    fixed: bool,
) -> Verdict:
    sums, target = evidence.sums, evidence.target
    bias, bias2 = sums.mean.reshape(target.shape), sums.bias2
    ratio = _slope_of(sums, bias, target)
    across = bias - (ratio.value - 1) * target if math.isfinite(ratio.value) else bias
    noise = float(sums.variances.sum()) / sums.n - ratio.se**2 * float(target.square().sum())
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=outcome,
        method="draws",
        claimed=question.claimed,
        target=target,
        bias=bias,
        bias2=bias2,
        limit=math.hypot(test.bound, aside),
        slope=ratio,
        residual2=float(across.square().sum()) - noise,
        deviation=float(sums.variances.sum().sqrt()),
        delta=question.delta,
        alpha=question.alpha,
        seed=question.seed,
        draws=sums.n,
        needed=_needed(question, evidence, test, aside) if outcome == INCONCLUSIVE else None,
        p_value=test.p_value if fixed else None,
        log_e_value=test.log_e_value,
        kurtosis=test.kurtosis,
        degrees=test.degrees,
        set_aside=int((~keep).sum()),
    )


def _slope_of(sums: DeviationSums, bias: Tensor, target: Tensor) -> Measured:
    """Return <mean, g> / |g|^2 and its standard error."""
    g, length2 = target.flatten(), float(target.square().sum())
    if length2 == 0:
        return Measured(math.nan, 0.0)
    along = sums.scatter @ g if sums.scatter.ndim == 2 else sums.scatter * g
    variance = max(float(g @ along), 0.0) / (sums.n - 1) / sums.n
    return Measured(1 + float((bias * target).sum()) / length2, math.sqrt(variance) / length2)


def _needed(question: Question, evidence: _Evidence, test: MeanTest, aside: float) -> int | None:
    """Return about how many draws decide, were bias and variance as they are estimated now."""
    n, margin = evidence.sums.n, question.delta * evidence.length
    size = math.sqrt(max(evidence.sums.bias2.value, 0.0))
    if margin == 0 or not math.isfinite(test.bound):
        return None
    least = n
    if aside > margin / 2:
        least = 4 * question.first_look(_largest(evidence.target, margin / 2))
    for power in range(1, 100):
        more = test.at(max(least / n, 1) * _LOOK**power)
        noise = float(more.sums.variances.sum() / more.sums.n) ** 0.5
        if size + noise + more.radius <= margin or size > more.radius:
            return more.sums.n
    return None


def _largest(target: Tensor, left: float) -> Tensor:
    """Return the fewest coordinates, largest first, without which at most `left` is left."""
    square, order = target.flatten().square().sort(descending=True)
    rest = square.sum() - square.cumsum(0)
    keep = torch.zeros_like(square, dtype=torch.bool)
    keep[order[: int((rest > left**2).sum()) + 1]] = True
    return keep.reshape(target.shape)
