"""Errors that stand in published code, each as code with a known answer: does a verdict find them?

The sentence of a wrong function names the error and where it arises; beside it stands an estimator
without it, which must not be rejected.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.loss import Loss
from gradlab.problems import Problem, problem, regime
from gradlab.user_code.replicates import BatchStatisticsError, DependentDrawsError
from gradlab.user_code.seeded_calls import NotSeededError, StatefulError
from gradlab.user_code.under_test import Code, CodeEstimator, EstimatorError, draws_of
from gradlab.verification.planted_code import (
    AxisOfBatch,
    CachedNoise,
    ClampedLogits,
    CoarseKernel,
    IgnoredClass,
    LastSample,
    OtherBackward,
    RunningBaseline,
    ThreeClasses,
    batch_deviation,
    batch_mean_subtracted,
    differentiated_noise,
    epsilon_in_logarithm,
    mean_instead_of_rest,
    next_class,
    off_centre_control,
    own_sample_in_baseline,
    shared_noise,
    softmax_over_variables,
    softmax_twice,
    weight_with_gradient,
    zgr_without_half,
)
from gradlab.verification.verdict import Verdict
from gradlab.verification.verifying import JUDGED, verify

__all__ = ["PLANTED", "REFUSED", "Planted", "planted_rows"]

REFUSED = "REFUSED"
"""The outcome where code is refused by the name of its fault, before any verdict."""

ALPHA = 1e-6
# Enough to distinguish the factor of a wrong estimate from its neighbours, such as 4/5 from 5/6.
_FOR_FACTOR = 2**17


@dataclass(frozen=True, eq=False)
class Planted:
    """One error: the `wrong` code, an estimator without the error, and where both are tested.

    `kind` of loss (2 variables of so many `classes`), at moderate logits plus `shift`, in `dtype`,
    class 0 of probability `rare` if that is given; `against`: whose mean it should have, None for
    the gradient. Each verdict gets a new instance of a class that keeps state.
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
            method="monte-carlo",
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
    # What is not an estimator of one sample is refused.
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

    Args:
        seed: of all draws.
        errors: some of `PLANTED` only.

    Returns:
        A table. `how` says how each error is found: what is BIASED, its draw or training, or the
        name of the fault for which the code is refused; `draws` until then. `bias` is in units of
        the target's length; `factor` comes from 2^17 draws and is empty where no simple factor
        explains the bias. Both are empty for what is refused. `right_limit`: the bias that the
        right code stays below, with confidence.
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
