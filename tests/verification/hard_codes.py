"""Estimators as users write them, with means known by enumeration: what the hard cases are made of.

Each code draws, and returns its own exact mean by another route: a sum over all states or pairs of
states of what it computes from them, and the analytic mean of the noise that it adds.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from cases import all_states
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import parse
from hard_laws import Law

__all__ = [
    "Code",
    "Jumps",
    "Lottery",
    "Noise",
    "OwnBaseline",
    "Pairs",
    "Rows",
    "Score",
    "Shipped",
    "Through",
    "Times",
    "chances",
    "states",
    "true_gradient",
]

Loss = Any


def states(logits: Tensor) -> Tensor:
    """Return all states [C^N, N, C] in the dtype of the logits."""
    return all_states(*logits.shape).to(logits.dtype)


def chances(p: Tensor, x: Tensor) -> Tensor:
    """Return the probability of each state x [S, N, C] in float64."""
    return (p.double() * x.double()).sum(-1).prod(-1)


def true_gradient(f: Loss, logits: Tensor) -> Tensor:
    """Return d/dlogits E f(x) in float64 by the sum over all states of p(x) f(x) (x - p).

    Where they are too many f must be linear, and say what its gradient is.
    """
    if logits.shape[1] ** logits.shape[0] > 2**16:
        return f.gradient(logits.double())
    p, x = probabilities(logits.double()), states(logits)
    value = f(x).double()
    value = value - value.mean()  # a constant has no gradient, but is rounded
    return torch.einsum("s,s,snc->nc", chances(p, x), value, x.double() - p)


class Code:
    """What a user passes to `verify`: called for n draws; `mean` is what they average to.

    `order` claims that the code is unbiased: rightly, or wrongly.
    """

    order: ClassVar[float] = math.inf

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n draws [n, N, C]."""
        raise NotImplementedError

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the exact mean [N, C] of a draw in float64."""
        raise NotImplementedError


@dataclass(frozen=True)
class Shipped(Code):
    """An unbiased estimator of gradlab's inside a function, for codes that build on it."""

    text: str

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return draws of the estimator."""
        return parse(self.text).draw(f, logits, n, generator)

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the gradient: a test proves that the estimator has it as its mean."""
        return true_gradient(f, logits)


# ---- functions of one state, or of several ----------------------------------------------------


class OfState(Code):
    """An estimate that is a function of one state, drawn from a proposal."""

    def proposal(self, logits: Tensor) -> Tensor:
        """Return the probabilities [N, C] that x is drawn from."""
        return probabilities(logits)

    def estimate(self, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
        """Return the estimates [S, N, C] from states x [S, N, C]."""
        raise NotImplementedError

    def sample(self, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n states."""
        return draw_one_hot(self.proposal(logits), generator, n)

    def drawn(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return how likely each state is to be drawn."""
        return chances(self.proposal(logits), x)

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the estimates from n states."""
        return self.estimate(f, logits, self.sample(logits, n, generator))

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the sum over states."""
        x = states(logits)
        estimate = self.estimate(f, logits, x).double()
        return torch.einsum("s,snc->nc", self.drawn(logits, x), estimate)


@dataclass(frozen=True)
class Score(OfState):
    """(f(x) - baseline) (x - p), x drawn from softmax(power * logits) and weighted by p(x)/q(x).

    `cap` clips the weights, and `weighted` False forgets them. With a `share` of the draws from p
    itself the proposal is a defensive mixture.
    """

    power: float = 1.0
    baseline: float = 0.0
    cap: float = math.inf
    weighted: bool = True
    share: float = 0.0

    def proposal(self, logits: Tensor) -> Tensor:
        """Return the tempered probabilities."""
        return probabilities(self.power * logits)

    def sample(self, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return states from q, a share of them from p."""
        x = super().sample(logits, n, generator)
        if not self.share:
            return x
        mixed = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) < self.share
        return torch.where(mixed, draw_one_hot(probabilities(logits), generator, n), x)

    def drawn(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return the density of the mixture."""
        of_p = chances(probabilities(logits), x)
        return (1 - self.share) * super().drawn(logits, x) + self.share * of_p

    def weights(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return p(x)/q(x), clipped."""
        ratio = chances(probabilities(logits), x) / self.drawn(logits, x)
        return ratio.clamp_max(self.cap)

    def estimate(self, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
        """Return the weighted score times f."""
        value = f(x) - self.baseline
        if self.weighted and (self.power != 1 or self.share):
            value = value * self.weights(logits, x).to(value.dtype)
        return value[:, None, None] * (x - probabilities(logits))


@dataclass(frozen=True)
class Through(OfState):
    """Straight-through, p (v - <p, v>) with v = grad f(x): exact where f is linear.

    Where variable 0 is in its last class the estimate is multiplied by `factor`.
    """

    factor: float = 1.0

    def estimate(self, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of f through the softmax."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (v,) = torch.autograd.grad(f(leaf).sum(), leaf)
        p = probabilities(logits)
        v = v.to(p.dtype)
        g = p * (v - (p * v).sum(-1, keepdim=True))
        return torch.where(x[:, :1, -1:] == 1, self.factor * g, g)


@dataclass(frozen=True)
class Pairs(Code):
    """(f(a) - f(b)) (a - b) / 2 of two samples: leave-one-out at M = 2.

    `count` such estimates are averaged; in the dtype of the logits all through.
    """

    count: int = 1

    def estimate(self, f: Loss, a: Tensor, b: Tensor) -> Tensor:
        """Return the estimates from pairs of states."""
        return (f(a) - f(b)).to(a.dtype)[:, None, None] * (a - b) / 2

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return n means of independent pairs."""
        p, size = probabilities(logits), n * self.count
        a, b = draw_one_hot(p, generator, size), draw_one_hot(p, generator, size)
        return self.estimate(f, a, b).unflatten(0, (n, self.count)).mean(1)

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the sum over pairs of states."""
        p, x = probabilities(logits.double()), states(logits)
        chance = chances(p, x)
        first, second = torch.cartesian_prod(*[torch.arange(len(x))] * 2).T
        estimate = self.estimate(f, x[first], x[second]).double()
        return torch.einsum("s,snc->nc", chance[first] * chance[second], estimate)


@dataclass(frozen=True)
class OwnBaseline(Code):
    """The mean over m samples of (f(x) - mean of f over all m) (x - p): shrunk by 1 - 1/m."""

    m: int

    def estimate(self, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
        """Return the estimates from m states each, x [S, m, N, C]."""
        value = f(x)
        value = value - value.mean(1, keepdim=True)
        return (value[..., None, None] * (x - probabilities(logits))).mean(1)

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the estimates from n sets of states."""
        x = draw_one_hot(probabilities(logits), generator, n * self.m)
        return self.estimate(f, logits, x.unflatten(0, (n, self.m)))

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the shrunk gradient: only f of the own sample depends on the score."""
        return (1 - 1 / self.m) * true_gradient(f, logits)


# ---- what is made of other codes --------------------------------------------------------------


@dataclass(frozen=True)
class Rows(Code):
    """Another code whose estimates are multiplied, by one factor or by one a variable."""

    inner: Code
    factors: tuple[float, ...]

    def _scaled(self, g: Tensor) -> Tensor:
        return g * torch.tensor(self.factors, dtype=g.dtype)[:, None]

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws, multiplied."""
        return self._scaled(self.inner(f, logits, n, generator))

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean, multiplied."""
        return self._scaled(self.inner.mean(f, logits))


@dataclass(frozen=True, eq=False)
class Lottery(Code):
    """factor * g / rate with probability `rate`, else 0; g is known to the code."""

    g: Tensor
    rate: float
    factor: float = 1.0

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the prizes."""
        won = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) < self.rate
        return won * (self.factor / self.rate) * self.g

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the factor times g."""
        return self.factor * self.g


@dataclass(frozen=True, eq=False)
class Jumps(Code):
    """Another code, to which at some `rate` a multiple of g is added that is `size` g on average.

    `even`: what jumps add on average is taken out of every draw.
    """

    inner: Code
    g: Tensor
    rate: float
    size: float
    even: bool

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws of the code, some of them with a jump."""
        jump = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) < self.rate
        added = jump * (self.size / self.rate) - (self.size if self.even else 0.0)
        return self.inner(f, logits, n, generator) + added * self.g

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean, with the jumps unless they are taken out."""
        mean = self.inner.mean(f, logits)
        return mean if self.even else mean + self.size * self.g


@dataclass(frozen=True, eq=False)
class Noise(Code):
    """Another code with noise of mean 0 along a fixed direction, `size` |g| times the law's draw.

    With `each` every coordinate has noise of its own, from which the mean over classes is taken.
    """

    inner: Code
    g: Tensor
    law: Law
    size: float
    each: bool = False

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws with noise."""
        shape = (n, *logits.shape) if self.each else (n, 1, 1)
        noise = self.size * self.law(shape, generator)
        if self.each:
            noise = (noise - noise.mean(-1, keepdim=True)) * torch.linalg.vector_norm(self.g)
        else:
            noise = noise * self.g.roll(1, 0)
        return self.inner(f, logits, n, generator) + noise

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean of the code, and that of the law."""
        mean = self.inner.mean(f, logits)
        return mean if self.each else mean + self.size * self.law.mean * self.g.roll(1, 0)


@dataclass(frozen=True)
class Times(Code):
    """Another code multiplied by noise: of mean 1, where nothing is truncated."""

    inner: Code
    law: Law

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws, multiplied."""
        return self.inner(f, logits, n, generator) * self.law((n, 1, 1), generator)

    def mean(self, f: Loss, logits: Tensor) -> Tensor:
        """Return the mean of the code times that of the law."""
        return self.law.mean * self.inner.mean(f, logits)
