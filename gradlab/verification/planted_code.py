"""The code of the planted errors: each errs once, as published code does, and is short.

The sentence of a wrong function or class names the error and where it arises; the line that is
wrong says what would be right. See `gradlab.verification.planted_errors` for the verdicts on them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradlab.categorical import (
    draw_classes,
    draw_exponentials,
    draw_one_hot,
    one_hot,
    probabilities,
    relaxed_given,
)
from gradlab.estimators import ZGR, StraightThrough, straight_through, zgr
from gradlab.estimators.pathwise import with_product
from gradlab.loss import Loss, evaluate, gradient

__all__ = [
    "AxisOfBatch",
    "CachedNoise",
    "ClampedLogits",
    "CoarseKernel",
    "IgnoredClass",
    "LastSample",
    "OtherBackward",
    "RunningBaseline",
    "ThreeClasses",
    "batch_deviation",
    "batch_mean_subtracted",
    "differentiated_noise",
    "epsilon_in_logarithm",
    "mean_instead_of_rest",
    "next_class",
    "off_centre_control",
    "own_sample_in_baseline",
    "shared_noise",
    "softmax_over_variables",
    "softmax_twice",
    "weight_with_gradient",
    "zgr_without_half",
]


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
