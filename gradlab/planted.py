"""Errors that stand in published code, each as code with a known answer: does a verdict find them?

The sentence of a wrong function tells the error and where it arises; beside it stands an estimator
without it, which must not be rejected.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
from gradlab.draws import Code
from gradlab.estimators import ZGR, straight_through, zgr
from gradlab.loss import Loss, evaluate, gradient
from gradlab.problems import Problem, problem, regime
from gradlab.verdict import Verdict
from gradlab.verification import verify

__all__ = ["PLANTED", "Planted", "planted_rows"]

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

    `kind` of loss (2 variables, 3 classes), at moderate logits plus `shift`; `against`: whose mean
    it should have, None for the gradient.
    """

    name: str
    wrong: Callable[..., Tensor]
    right: str
    kind: str = "quadratic"
    shift: float = 0.0
    against: str | None = None

    @property
    def error(self) -> str:
        """What is wrong, in a sentence."""
        return inspect.getdoc(self.wrong) or ""

    @property
    def f(self) -> Problem:
        """The loss."""
        return problem(self.kind, 2, 3, seed=11)

    @property
    def logits(self) -> Float[Tensor, "2 3"]:
        """The logits."""
        return regime("moderate", 2, 3, seed=11) + self.shift

    def verdict(self, code: Code, *, seed: int = 0, draws: int | None = None) -> Verdict:
        """Return the verdict on `wrong` or `right` by draws, at a false-alarm rate of 1e-6."""
        return verify(
            code,
            self.f,
            self.logits,
            against=self.against,
            method="draws",
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
)
"""Each error as it stands in code that was published; the last is wrong at shifted logits only."""


def planted_rows(seed: int = 0) -> pd.DataFrame:
    """Return one row for each of `PLANTED`: verdicts on the wrong and right code, draws they took.

    `bias` in units of the target's length; `factor` from 2^17 draws, empty where no simple factor
    explains the bias; `right_limit`: the bias that the right code stays below, with confidence.
    """
    return pd.DataFrame([_row(planted, seed) for planted in PLANTED])


def _row(planted: Planted, seed: int) -> dict[str, Any]:
    wrong, right = (planted.verdict(code, seed=seed) for code in (planted.wrong, planted.right))
    long = planted.verdict(planted.wrong, seed=seed, draws=_FOR_FACTOR)
    return {
        "planted": planted.name,
        "error": planted.error,
        "outcome": wrong.outcome,
        "draws": wrong.draws,
        "log_e_value": wrong.log_e_value,
        "bias": long.relative_bias.value,
        "bias_se": long.relative_bias.se,
        "factor": None if long.factor is None else str(long.factor),
        "right": right.estimator,
        "right_outcome": right.outcome,
        "right_limit": right.limit / right.unit[0],
        "right_draws": right.draws,
        "alpha": ALPHA,
        "seed": seed,
    }
