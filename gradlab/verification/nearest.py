"""What does code estimate that is not unbiased? Its mean against those of known estimators.

Draws are added until each known mean agrees with that of the code or is excluded, and until it is
known whether the gradient times a factor is all of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.estimators import (
    DARN,
    ZGR,
    Estimator,
    GumbelSoftmaxST,
    QuadratureError,
    StraightThrough,
)
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumerated, NotExactError
from gradlab.exact.structures import Structured
from gradlab.loss import LossError
from gradlab.reproducible import block_generator
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.evidence import ULPS
from gradlab.verification.mean_test import MeanTest
from gradlab.verification.resemblance import Resemblance, Scaled
from gradlab.verification.testable_coordinates import Question

__all__ = ["nearest", "unbiased_too"]

_TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0)
# A mean that may be so far off, relative to its length, is not called the same; draws are added
# until it is closer than half of that.
_SAME = 0.1
# What may be left beside a factor that is said to explain the bias, relative to that; and what is
# little enough to stop, relative to the mean or the bias.
_LEFT, _LITTLE = 0.3, 0.05
# Numbers of the tables of one temperature that are worth making for a sentence.
_LARGEST = 2**15
_FIRST, _LAST = 2**11, 2**17


def nearest(
    question: Question,
    g: Tensor,
    on: Enumerated | Structured,
    last: int,
    *,
    constant: bool = False,
) -> Resemblance:
    """Return what the mean of the code in question resembles, by at most `last` draws.

    Known are straight-through rules and straight-through Gumbel-softmax at some temperatures, as
    far as f allows them; `g` is the gradient; `constant`: nothing in the code is random. All
    statements together are wrong at the rate alpha of the question.
    """
    known = _means(on)
    last = min(last, _LAST)
    keep = question.visits <= last
    each = question.alpha / (len(known) + 1)
    for sums, rounding in _sums(question, last):
        look = _Look(question, sums, rounding, keep, each, constant)
        found = look.resemblance(known, g)
        factored = found.scaled is None or found.scaled.is_sharp(_LITTLE) or look.is_turned(g)
        close = all(distance <= _SAME / 2 for distance in found.agrees.values())
        if factored and close and not found.undecided:
            break
    return found


def unbiased_too(on: Enumerated | Structured, g: Tensor) -> list[str]:
    """Return the known estimators whose exact mean is the gradient `g` on this f."""
    length = float(torch.linalg.vector_norm(g))
    apart = {n: float(torch.linalg.vector_norm(mean - g)) for n, mean in _means(on).items()}
    return [name for name, size in apart.items() if size <= 1e-9 * length]


def _means(on: Enumerated | Structured) -> dict[str, Tensor]:
    """Return the exact mean of each known estimator that can be used on f."""
    known: list[Estimator] = [StraightThrough(), DARN(), ZGR()]
    if isinstance(on, Structured):
        pass  # no others are known
    elif on.logits.numel() * on.logits.shape[-1] ** 2 <= _LARGEST:
        known += [GumbelSoftmaxST(tau) for tau in _TEMPERATURES]
    found = {}
    for estimator in known:
        try:
            found[str(estimator)] = on.moments(estimator).mean
        except (NotExactError, QuadratureError, TooLargeError, LossError):
            continue
    return found


def _sums(question: Question, last: int) -> Iterator[tuple[DeviationSums, float]]:
    """Yield the sums over more and more draws, and what rounding may be in them."""
    row = f"{question.problem}|{question.drawn.name}|nearest"
    sums: DeviationSums | None = None
    rounding, block, n = 0.0, 0, min(_FIRST, last)
    largest = max(32, 2**18 // question.logits.numel())
    while True:
        while sums is None or sums.n < n:
            more = min(largest, n - (0 if sums is None else sums.n))
            generator = block_generator(question.seed, row, block)
            g = question.drawn(question.f, question.at, more, generator)
            d = g.to(torch.float64).flatten(1)
            if sums is None:
                eps = max(torch.finfo(g.dtype).eps, question.f.eps)
                rounding = ULPS * eps * (float(d.square().mean().sqrt()) + question.scale)
            added = DeviationSums.from_draws(d, float(torch.linalg.vector_norm(d, dim=1).max()))
            sums = added if sums is None else sums.merge(added)
            block += 1
        yield sums, rounding
        if n >= last:
            return
        n = min(2 * n, last)


@dataclass(frozen=True)
class _Look:
    """What some draws say of their mean, in the coordinates that they can answer for."""

    question: Question
    sums: DeviationSums
    rounding: float
    keep: Bool[Tensor, " D"]
    alpha: float
    constant: bool

    @cached_property
    def begun(self) -> bool:
        """Whether the rarest of the classes is met often enough by now."""
        return bool(self.keep.any()) and self.question.begins(self.keep) <= self.sums.n

    def test(self, mean: Float[Tensor, "*batch N C"]) -> MeanTest:
        """Return the test of this mean."""
        shifted = replace(self.sums, mean=self.sums.mean - mean.flatten())
        part = partial(self.question.tested, self.keep)
        return MeanTest(shifted.restricted(self.keep, part), self.alpha, self.rounding)

    def differs(self, mean: Tensor) -> bool:
        """Return whether the code has another mean."""
        if self.constant:
            apart = float(torch.linalg.vector_norm(self.sums.mean - mean.flatten()))
            return apart > self.rounding * math.sqrt(mean.numel())
        return self.begun and self.test(mean).log_evidence >= -math.log(self.alpha)

    def distance(self, mean: Tensor) -> float:
        """Return how far from this mean that of the code is at most."""
        if not self.begun:
            return math.inf
        apart = self.sums.mean - mean.flatten()
        aside = max(
            float(torch.linalg.vector_norm(v - self.question.tested(self.keep, v)))
            for v in (mean.flatten(), apart)
        )
        return math.hypot(self.test(mean).bound, aside)

    def resemblance(self, known: dict[str, Tensor], g: Tensor) -> Resemblance:
        agrees, excluded, undecided = {}, [], []
        for name, mean in known.items():
            length = float(torch.linalg.vector_norm(mean))
            if self.differs(mean):
                excluded.append(name)
            elif length > 0 and (distance := self.distance(mean)) <= _SAME * length:
                agrees[name] = distance / length
            else:
                undecided.append(name)
        return Resemblance(
            self.sums.n,
            1 - self.question.alpha,
            agrees,
            tuple(excluded),
            tuple(undecided),
            self.scaled(g),
        )

    def scaled(self, g: Tensor) -> Scaled | None:
        """Return the mean as a multiple of the gradient, None where that is 0."""
        length = float(torch.linalg.vector_norm(g))
        if length == 0:
            return None
        factor = self._along(g)
        rest = self.distance(factor * g) / length
        # The same confidence as that of the rest: the factor is off by no more than the mean is.
        error = min(rest, self.test(factor * g).radius / length if self.begun else math.inf)
        alone = rest <= _LEFT * abs(1 - factor) and not self.is_turned(g)
        if float(self.sums.variances.max()) <= self.rounding**2:
            error = 0.0
        return Scaled(factor, factor - error, factor + error, rest, alone)

    def _along(self, g: Tensor) -> float:
        return float(self.sums.mean @ g.flatten()) / float(g.square().sum())

    def is_turned(self, g: Tensor) -> bool:
        """Return whether the mean is shown to be no multiple of the gradient."""
        if not self.begun:
            return False
        factor = self._along(g)
        # W is a parabola in the factor: the multiple that fits best decides, whichever that is.
        at = [factor - 1, factor, factor + 1]
        w = [float(self.test(c * g).statistics.sum()) for c in at]
        bend = w[0] - 2 * w[1] + w[2]
        best = factor + (w[0] - w[2]) / (2 * bend) if bend > 0 else factor
        return all(self.differs(c * g) for c in (factor, best))
