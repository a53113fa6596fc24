"""Errors that stand in published code, each as code with a known answer: does a verdict find them?

The sentence of a wrong function tells the error and where it arises; beside it stands an estimator
without it, which must not be rejected.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    draw_classes,
    draw_exponentials,
    draw_one_hot,
    one_hot,
    probabilities,
    relaxed_given,
)
from gradlab.draws import Code, CodeEstimator, EstimatorError, draws_of
from gradlab.estimators import ZGR, StraightThrough, straight_through, zgr
from gradlab.estimators.pathwise import with_product
from gradlab.loss import Loss, evaluate, gradient
from gradlab.problems import Problem, problem, regime
from gradlab.replicates import BatchStatisticsError, DependentDrawsError
from gradlab.seeded_calls import NotSeededError, StatefulError
from gradlab.verdict import Verdict
from gradlab.verification import JUDGED, verify

__all__ = ["PLANTED", "REFUSED", "Planted", "planted_rows"]

REFUSED = "REFUSED"
"""The outcome where code is refused by the name of its fault, before any verdict."""

ALPHA = 1e-6
# Enough to tell the factor by which an estimate is wrong from its neighbours, as 4/5 from 5/6.
_FOR_FACTOR = 2**17


def zgr_without_half(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """ZGR is written without the 1/2 in front, as from a formula copied in part."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, n)
    v = gradient(f, x)
    at_x = _dot(x, v)
    return p * (v - at_x) + x * (at_x - _dot(p, v))


def own_sample_in_baseline(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """A training loop updates its moving average with f(x), then subtracts it from f(x)."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, 16 * n).unflatten(0, (16, n))
    values = evaluate(f, x)
    baseline = values[0]
    for value in values[1:]:  # values[1:-1] is right
        baseline = 0.8 * baseline + 0.2 * value
    return (values[-1] - baseline)[:, None, None] * (x[-1] - p)


def mean_instead_of_rest(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """A leave-one-out loss subtracts the mean of all M = 4 values and forgets M/(M - 1)."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, 4 * n).unflatten(0, (4, n))
    values = evaluate(f, x)
    return ((values - values.mean(0))[..., None, None] * (x - p)).mean(0)


def next_class(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """Classes count from 1, as where 0 is padding: the gradient is read at class k + 1."""
    p = probabilities(logits)
    k = draw_classes(p, generator, n)
    x = one_hot(k, p)
    v = gradient(f, x)
    at_x = v.gather(-1, (k.unsqueeze(-1) + 1) % v.shape[-1])  # without + 1 it is right
    return 0.5 * (p * (v - at_x) + x * (at_x - _dot(p, v)))


def softmax_twice(logits: Tensor, generator: Generator) -> Tensor:
    """A network that ends in softmax passes its probabilities as logits."""
    return zgr(probabilities(logits), generator=generator)


def shared_noise(logits: Tensor, generator: Generator) -> Tensor:
    """Gumbel noise of shape [n, 1, C], made for one variable, broadcasts over all N."""
    gumbel = -draw_exponentials(logits[:, :1], generator).log()  # logits, not logits[:, :1]
    return zgr(logits, x=one_hot((logits + gumbel).argmax(-1), logits))


def softmax_over_variables(logits: Tensor, generator: Generator) -> Tensor:
    """Softmax over axis 1, the classes of [N, C], meets the variables of a batch [n, N, C]."""
    x = draw_one_hot(probabilities(logits), generator)
    p = torch.softmax(logits, 1)
    return x + p - p.detach()


def differentiated_noise(logits: Tensor, generator: Generator) -> Tensor:
    """Gumbel-Rao lets autograd through its noise given x, as REBAR must and it must not."""
    x = draw_one_hot(probabilities(logits), generator)
    y = torch.softmax(_gumbels_given(x, logits, generator) / 0.5, -1)
    return x + y - y.detach()


def weight_with_gradient(f: Loss, logits: Tensor, generator: Generator) -> Tensor:
    """REINFORCE by f(x) log p(x) does not detach f(x), to which x passes gradients."""
    x = straight_through(logits, generator=generator)
    log_p = (x.detach() * torch.log_softmax(logits, -1)).sum((-2, -1))
    return evaluate(f, x) * log_p  # evaluate(f, x).detach() is right


def off_centre_control(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """ReinMax-CV as published reuses the noise that chose x: its two terms differ in mean."""
    p = probabilities(logits).expand(n, *logits.shape)
    e = draw_exponentials(p, generator)
    x = one_hot((e / p).argmin(-1), p)
    q = (p + x) / 2
    y = torch.softmax((q / e).log() / 0.5, -1)  # relaxed_given(q, x, 0.5, generator) is right
    v = gradient(f, x)
    given = relaxed_given(q, x, 0.5, generator)
    control = given * (v - _dot(given, v)) - y * (v - _dot(y, v))
    return ZGR().pullback(p, x, v) + 0.5 * control / 0.5


def epsilon_in_logarithm(logits: Tensor, generator: Generator) -> Tensor:
    """Gumbel-Rao at unnormalized logits adds 1e-10, in a logarithm, to exp(-logits)."""
    x = draw_one_hot(probabilities(logits), generator)
    noise = (_gumbels_given(x, logits, generator, 1e-10) - logits).detach()
    y = torch.softmax((logits + noise) / 0.5, -1)
    return x + y - y.detach()


def batch_mean_subtracted(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """A policy-gradient loss subtracts the mean of f over its batch, the own sample included."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, n)
    values = evaluate(f, x)
    return (values - values.mean())[:, None, None] * (x - p)  # without the mean it is right


def batch_deviation(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
    """Advantages are divided by their standard deviation in the batch, as in PPO."""
    p = probabilities(logits)
    x = draw_one_hot(p, generator, n)
    values = evaluate(f, x)
    deviation = values.std() + 1e-8 if n > 1 else 1.0
    return (values / deviation)[:, None, None] * (x - p)  # values alone is right


class RunningBaseline:
    """A module keeps its moving average of f and updates it whenever it is called."""

    def __init__(self) -> None:
        self.average = 0.0

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n draws; the next ones have another baseline."""
        p = probabilities(logits)
        x = draw_one_hot(p, generator, n)
        values = evaluate(f, x)
        g = (values - self.average)[:, None, None] * (x - p)
        self.average = 0.9 * self.average + 0.1 * float(values.mean())  # EMA.updated returns it
        return g


class CachedNoise:
    """Noise is made once for a shape and kept, to save time or for torch.compile."""

    def __init__(self) -> None:
        self.noise: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, logits: Tensor, generator: Generator) -> Tensor:
        """Return samples by noise that is drawn at the first call only."""
        if logits.shape not in self.noise:
            self.noise[logits.shape] = draw_exponentials(logits.detach(), generator)
        e = self.noise[logits.shape]  # drawn at each call it is right
        return zgr(logits, x=one_hot((e / probabilities(logits.detach())).argmin(-1), logits))


class LastSample:
    """A replay buffer of one: the gradient is taken at the sample of the call before."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n draws at samples that are kept."""
        p = probabilities(logits)
        x = draw_one_hot(p, generator, n)
        kept = self.last if self.last is not None and self.last.shape == x.shape else x
        self.last = x
        return ZGR().pullback(p, kept, gradient(f, kept))


@dataclass(frozen=True, repr=False)
class OtherBackward(ZGR):
    """The estimator of the paper is analysed, but its layer trains with x + p - p.detach()."""

    name: ClassVar[str] = "ZGR that trains as ST"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample with the backward of ST."""
        return StraightThrough().sample(logits, generator, x)


@dataclass(frozen=True, repr=False)
class AxisOfBatch(ZGR):
    """A backward sums over axis 1, the classes of [N, C], which are the variables of a batch."""

    name: ClassVar[str] = "ZGR that sums over axis 1"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample with a backward for logits [N, C] alone."""
        p = probabilities(logits)
        x = draw_one_hot(p, generator) if x is None else x

        def product(v: Tensor, p: Tensor, x: Tensor) -> Tensor:
            at_x, mean = ((a * v).sum(1, keepdim=True) for a in (x, p))  # sum(-1) is right
            return 0.5 * (p * (v - at_x) + x * (at_x - mean))

        return with_product(x, logits, product, p, x)


@dataclass(frozen=True, repr=False)
class CoarseKernel(ZGR):
    """gradcheck tries float64 alone: the fast kernel for float32 forgets a factor 1/2."""

    name: ClassVar[str] = "ZGR with a kernel for float32"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample whose backward is by another kernel in float32."""
        p = probabilities(logits)
        x = draw_one_hot(p, generator) if x is None else x
        factor = 2.0 if logits.dtype == torch.float32 else 1.0
        return with_product(x, logits, lambda v, p, x: factor * self.pullback(p, x, v), p, x)


@dataclass(frozen=True, repr=False)
class ClampedLogits(ZGR):
    """A layer clamps logits at 20 against overflow, though softmax does not mind a shift."""

    name: ClassVar[str] = "ZGR of clamped logits"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample for the clamped logits."""
        return super().sample(logits.clamp(max=25.5), generator, x)


@dataclass(frozen=True, repr=False)
class ThreeClasses(ZGR):
    """The number of classes of the first data set, 3, is written into a loop of the layer."""

    name: ClassVar[str] = "ZGR for three classes"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample whose backward adds up three classes."""
        p = probabilities(logits)
        x = draw_one_hot(p, generator) if x is None else x

        def product(v: Tensor, p: Tensor, x: Tensor) -> Tensor:
            at_x = _dot(x, v)
            mean = _dot(p[..., :3], v[..., :3])  # _dot(p, v) is right
            return 0.5 * (p * (v - at_x) + x * (at_x - mean))

        return with_product(x, logits, product, p, x)


@dataclass(frozen=True, repr=False)
class IgnoredClass(ZGR):
    """ignore_index=0 means padding elsewhere: a sample of class 0 gets no gradient."""

    name: ClassVar[str] = "ZGR that ignores class 0"

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return a sample without backward where it is class 0."""
        x = super().sample(logits, generator, x)
        return torch.where(x[..., :1] > 0, x.detach(), x)  # x is right


def _gumbels_given(x: Tensor, logits: Tensor, generator: Generator, epsilon: float = 0.0) -> Tensor:
    """Return logits + Gumbel noise given that x is the largest, from unnormalized logits."""
    e = draw_exponentials(logits, generator)
    winner, total = _dot(x, e), logits.exp().sum(-1, keepdim=True)
    others = -torch.log(e / logits.exp() + winner / total + epsilon)
    return torch.where(x > 0, total.log() - winner.log(), others)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Planted:
    """One error: the `wrong` code, an estimator without the error, and where both are tested.

    `kind` of loss (2 variables of so many `classes`), at moderate logits plus `shift`, in `dtype`,
    class 0 of probability `rare` if that is given; `against`: whose mean it should have, None for
    the gradient. A class that keeps something is made anew for each verdict.
    """

    name: str
    wrong: Callable[..., Tensor] | type
    right: str
    kind: str = "quadratic"
    shift: float = 0.0
    against: str | None = None
    classes: int = 3
    dtype: torch.dtype = torch.float64
    rare: float | None = None

    @property
    def error(self) -> str:
        """What is wrong, in a sentence."""
        return inspect.getdoc(self.wrong) or ""

    @property
    def f(self) -> Problem:
        """The loss."""
        return problem(self.kind, 2, self.classes, seed=11)

    @property
    def logits(self) -> Float[Tensor, "2 C"]:
        """The logits."""
        logits = regime("moderate", 2, self.classes, seed=11)
        if self.rare is not None:
            odds = math.log(self.rare / (1 - self.rare))
            logits[:, 0] = logits[:, 1:].logsumexp(-1) + odds
        return (logits + self.shift).to(self.dtype)

    @property
    def code(self) -> Code:
        """The wrong code, as it is before its first call."""
        return self.wrong() if isinstance(self.wrong, type) else self.wrong

    def verdict(
        self, code: Code, *, seed: int = 0, draws: int | None = None, judge: str = "both"
    ) -> Verdict:
        """Return the verdict on `code` or `right` by draws, at a false-alarm rate of 1e-6."""
        return verify(
            code,
            self.f,
            self.logits,
            against=self.against,
            method="draws",
            judge=judge,
            draws=draws,
            alpha=ALPHA,
            seed=seed,
            problem=self.name,
        )


_GR, _GR_MEAN = "GR(tau=0.5, k=1)", "GR(tau=0.5, k=inf)"

PLANTED = (
    Planted("1/2 dropped", zgr_without_half, "ZGR"),
    Planted("own sample in the baseline", own_sample_in_baseline, "REINFORCE"),
    Planted("M/(M - 1) forgotten", mean_instead_of_rest, "RF(m=4)"),
    Planted("shifted index", next_class, "ZGR"),
    Planted("probabilities as logits", softmax_twice, "ZGR"),
    Planted("shared noise", shared_noise, "ZGR"),
    Planted("wrong axis", softmax_over_variables, "ST", kind="multilinear"),
    Planted("gradient through the noise", differentiated_noise, _GR, against=_GR_MEAN),
    Planted("weight not detached", weight_with_gradient, "REINFORCE"),
    Planted("control variate off centre", off_centre_control, "ZGR"),
    Planted("epsilon in a logarithm", epsilon_in_logarithm, _GR, shift=25.0, against=_GR_MEAN),
    # What is no estimator of one sample is refused.
    Planted("batch mean subtracted", batch_mean_subtracted, "REINFORCE"),
    Planted("batch standard deviation", batch_deviation, "REINFORCE"),
    Planted("running baseline", RunningBaseline, "EMA"),
    Planted("noise cached", CachedNoise, "ZGR"),
    Planted("state kept between calls", LastSample, "ZGR"),
    # What trains is wrong, what is analysed is right.
    Planted("right draw, wrong backward", OtherBackward, "ZGR"),
    Planted("right at batch 1 only", AxisOfBatch, "ZGR"),
    Planted("wrong in float32 only", CoarseKernel, "ZGR", dtype=torch.float32),
    Planted("wrong for shifted logits only", ClampedLogits, "ZGR", shift=25.0),
    Planted("wrong for C > 3 only", ThreeClasses, "ZGR", classes=4),
    Planted("wrong for a rare class only", IgnoredClass, "ZGR", rare=0.04),
)
"""Errors as they stand in published code; then code that is refused by name; then errors of what
trains alone, most of them at some inputs only."""


def planted_rows(seed: int = 0, *, errors: Sequence[Planted] | None = None) -> pd.DataFrame:
    """Return one row for each of `PLANTED`: verdicts on the wrong and right code, draws they took.

    `errors`: some of them only. `how` says how each is found: what is BIASED, its draw or training,
    or the name of the fault for which the code is refused; `draws` until then. `bias` in units of
    the target's length; `factor` from 2^17 draws, empty where no simple factor explains the bias;
    both are empty for what is refused. `right_limit`: the bias that the right code stays below,
    with confidence.
    """
    return pd.DataFrame(
        [_row(planted, seed) for planted in PLANTED if errors is None or planted in errors]
    )


def _row(planted: Planted, seed: int) -> dict[str, Any]:
    right = planted.verdict(planted.right, seed=seed)
    return {
        "planted": planted.name,
        "error": planted.error,
        **_found(planted, seed),
        "right": right.estimator,
        "right_outcome": right.outcome,
        "right_limit": right.limit / right.unit[0],
        "right_draws": right.draws,
        "alpha": ALPHA,
        "seed": seed,
    }


def _found(planted: Planted, seed: int) -> dict[str, Any]:
    """Return how the wrong code is found, and after how many draws."""
    code, made = _counted(planted.code)
    try:
        wrong = planted.verdict(code, seed=seed)
    except EstimatorError as fault:
        how = f"refused: {_FAULTS.get(type(fault), 'faulty')}"
        nothing = dict.fromkeys(("log_e_value", "bias", "bias_se"), math.nan)
        return {"outcome": REFUSED, "how": how, "draws": sum(made), **nothing, "factor": None}
    part = wrong.judged if wrong.judged in JUDGED else "both"
    long = planted.verdict(planted.code, seed=seed, draws=_FOR_FACTOR, judge=part)
    return {
        "outcome": wrong.outcome,
        "how": f"{wrong.outcome}: {wrong.judged}",
        "draws": wrong.draws,
        "log_e_value": wrong.log_e_value,
        "bias": long.relative_bias.value,
        "bias_se": long.relative_bias.se,
        "factor": None if long.factor is None else str(long.factor),
    }


_FAULTS: dict[type[EstimatorError], str] = {
    BatchStatisticsError: "statistics of the batch",
    DependentDrawsError: "draws depend on each other",
    NotSeededError: "ignores its generator",
    StatefulError: "remembers earlier calls",
}


def _counted(code: Code) -> tuple[Code, list[int]]:
    """Return the code and a list that grows by the draws of each call; an Estimator is not one."""
    made: list[int] = []
    drawn = draws_of(code)
    if drawn.estimator is not None:
        return code, made

    def counting(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        made.append(n)
        return drawn.source(f, logits, n, generator)

    return CodeEstimator(replace(drawn, source=counting)), made
