"""Verdicts by enumeration: the exact mean of an estimator against the gradient, or another mean."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradlab.draws import DRAW, TRAINING, Draws
from gradlab.estimators import Estimator
from gradlab.exact.bias import ExactBias, exact_bias
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import EnumeratedBatch, Enumeration, NotExactError
from gradlab.gumbel_jacobian import QuadratureError
from gradlab.moments import Measured
from gradlab.question import Question
from gradlab.verdict import BIASED, UNBIASED, Verdict

__all__ = ["NOT_KNOWN", "by_enumeration", "enumerated_bias", "exact_against", "other_target"]

NOT_KNOWN = (NotExactError, QuadratureError, TooLargeError)
"""What is raised where no exact mean is known, or where it is too large to be found."""


def enumerated_bias(estimator: Estimator, on: Enumeration | EnumeratedBatch) -> ExactBias:
    """Return the exact bias; of a batch, of all its elements together."""
    if isinstance(on, Enumeration):
        return exact_bias(estimator, on.f, on.logits, on)
    each = [exact_bias(estimator, element.f, element.logits, element) for element in on.elements]
    return ExactBias(
        torch.stack([bias.truth for bias in each]),
        torch.stack([bias.mean for bias in each]),
        math.hypot(*(bias.deviation for bias in each)),
        math.hypot(*(bias.bound for bias in each)),
        each[0].route,
    )


def by_enumeration(question: Question, exact: ExactBias) -> Verdict:
    """Return the verdict that follows from an exact bias."""
    g, length2 = exact.truth, float(exact.truth.square().sum())
    ratio = float((exact.mean * g).sum()) / length2 if length2 > 0 else math.nan
    across = exact.bias - (ratio - 1) * g if length2 > 0 else exact.bias
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=UNBIASED if exact.is_zero else BIASED,
        method="exact",
        claimed=question.claimed,
        target=g,
        bias=exact.bias,
        bias2=Measured(exact.size**2, 0.0),
        limit=exact.bound,
        slope=Measured(ratio, 0.0),
        residual2=Measured(float(across.square().sum()), 0.0),
        deviation=exact.deviation,
        delta=question.delta,
        alpha=question.alpha,
        seed=question.seed,
        how=f"{exact.route}; the gradient by two routes that agree",
    )


def other_target(
    against: Draws | Tensor, on: Enumeration | EnumeratedBatch, method: str = "auto"
) -> tuple[Tensor | Draws, str]:
    """Return the target that is not the exact gradient, and what it is."""
    if isinstance(against, Tensor):
        if against.shape != on.logits.shape:
            raise ValueError(
                f"against must have the shape of logits {list(on.logits.shape)}, "
                f"not {list(against.shape)}"
            )
        return against.detach().to("cpu", torch.float64), "Target: the given tensor."
    other = against
    if other.estimator is not None:
        try:
            mean = enumerated_bias(other.estimator, on).mean
        except NOT_KNOWN:
            pass
        else:
            return mean, f"Target: the exact mean of {other.name}."
    if method == "exact":
        raise NotExactError(f"no exact mean is known for {other.name}: use draws")
    if isinstance(on, EnumeratedBatch):
        other = other.training
    if not other.is_shipped:
        other.check_randomness(on.objective, on.logits)
    return other, f"Target: the mean of {other.name}, by as many draws of it."


def exact_against(
    question: Question,
    target: Tensor | Draws,
    on: Enumeration | EnumeratedBatch,
    method: str,
    judge: str,
) -> Verdict | None:
    """Return the verdict on two means that are both known exactly, None if draws must decide."""
    drawn = question.drawn
    if method != "exact" and not (method == "auto" and drawn.is_shipped):
        return None
    try:
        if drawn.estimator is None or not drawn.is_shipped:
            raise NotExactError(f"no exact mean is known for {drawn.name}: use draws")
        if not isinstance(target, Tensor):
            raise NotExactError(f"no exact mean is known for {target.name}: use draws")
        exact = enumerated_bias(drawn.estimator, on)
    except NOT_KNOWN:
        if method == "exact":
            raise
        return None
    found = replace(exact, truth=target, bound=2 * exact.bound)
    verdict = by_enumeration(question, found)
    if judge == "both" and drawn.of == DRAW:
        # One formula serves both, and tests of gradlab's own hold them together.
        verdict = replace(verdict, judged=f"{DRAW} and {TRAINING}")
    return replace(verdict, judged=drawn.of if judge != "both" else verdict.judged, how=exact.route)
