"""Verdicts by enumeration: the exact mean of an estimator against the gradient, or another mean."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradlab.estimators import Estimator, QuadratureError
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import EnumeratedBatch, Enumeration, NotExactError
from gradlab.exact.rounding import DOUBLE
from gradlab.moments import Measured
from gradlab.user_code.under_test import DRAW, TRAINING, Draws
from gradlab.verification.exact_bias import ExactBias, exact_bias
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import (
    BIASED,
    INCONCLUSIVE,
    NOT_APPLICABLE,
    UNBIASED,
    Verdict,
)

__all__ = [
    "NOT_KNOWN",
    "by_enumeration",
    "enumerated_bias",
    "exact_against",
    "not_applicable",
    "other_target",
    "target_rounding",
]

NOT_KNOWN = (NotExactError, QuadratureError, TooLargeError)
"""What is raised where no exact mean is known, or where it is too large to be found."""


def enumerated_bias(estimator: Estimator, on: Enumeration | EnumeratedBatch) -> ExactBias:
    """Return the exact bias; of a batch, of all its elements together."""
    if isinstance(on, Enumeration):
        return exact_bias(estimator, on)
    each = [exact_bias(estimator, element) for element in on.elements]
    return ExactBias(
        torch.stack([bias.truth for bias in each]),
        torch.stack([bias.mean for bias in each]),
        math.hypot(*(bias.deviation for bias in each)),
        math.hypot(*(bias.bound for bias in each)),
        each[0].route,
        math.hypot(*(bias.sums for bias in each)),
        max(bias.eps for bias in each),
        math.hypot(*(bias.size_of_f for bias in each)),
        math.hypot(*(bias.spread_of_f for bias in each)),
    )


def by_enumeration(question: Question, exact: ExactBias) -> Verdict:
    """Return the verdict that follows from an exact bias.

    UNBIASED needs both: a bias that rounding explains, and rounding below `delta` of the gradient.
    Where rounding alone may be more, the mean could be as wrong, and the verdict is INCONCLUSIVE.
    A gradient that is 0 to the accuracy of its sums, as of a constant or symmetric f, is taken for
    0: rounding is then compared with the deviation of a draw, or with the spread of f.
    """
    g = exact.truth if exact.has_gradient else torch.zeros_like(exact.truth)
    length2 = float(g.square().sum())
    ratio = float((exact.mean * g).sum()) / length2 if length2 > 0 else math.nan
    across = exact.bias - (ratio - 1) * g if length2 > 0 else exact.bias
    outcome, reason = BIASED, ""
    if not math.isfinite(exact.size + exact.bound):
        outcome, reason = INCONCLUSIVE, "what is summed overflows its dtype: scale f"
    elif exact.is_zero:
        resolved = exact.bound <= question.delta * exact.unit
        outcome = UNBIASED if resolved else INCONCLUSIVE
        reason = "" if resolved else _unresolved(question.delta, exact)
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=outcome,
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
        reason=reason,
        distribution=question.distribution,
    )


def _unresolved(delta: float, exact: ExactBias) -> str:
    """Return why rounding leaves the verdict open, and what would help."""
    unit = "the gradient" if exact.has_gradient else "what one draw varies"
    found = f"rounding alone may change the mean by {exact.bound / exact.unit:.2g} of {unit}"
    ways = []
    if exact.eps > DOUBLE:
        ways.append("use float64")
    # Without its offset f would be of the size of its spread.
    if exact.size_of_f > 2 * exact.spread_of_f:
        ways.append("centre f (subtract its mean)")
    way = f"; {', or '.join(ways)}" if ways else ""
    return f"{found}, which is more than the {delta:g} that is asked for{way}"


def target_rounding(against: Draws | Tensor, on: Enumeration | EnumeratedBatch) -> float:
    """Return what rounding may have changed of a target that `other_target` knows exactly.

    A given tensor is as accurate as its dtype; the mean of an estimator has its own bound.
    """
    if isinstance(against, Tensor):
        unit = torch.finfo(against.dtype).eps if against.is_floating_point() else 0.0
        return unit * float(torch.linalg.vector_norm(against.detach().to("cpu", torch.float64)))
    if against.estimator is None:
        return 0.0
    try:
        return enumerated_bias(against.estimator, on).bound
    except NOT_KNOWN:
        return 0.0


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
    rounding: float | None = None,
) -> Verdict | None:
    """Return the verdict on two means that are both known exactly, None if draws must decide.

    `rounding`: what the target may be off, see `target_rounding`; else as much as the mean is.
    """
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
    both = exact.bound + (exact.bound if rounding is None else rounding)
    found = replace(exact, truth=target, bound=both)
    verdict = by_enumeration(question, found)
    if judge == "both" and drawn.of == DRAW:
        # One formula serves both, and tests of gradlab's own hold them together.
        verdict = replace(verdict, judged=f"{DRAW} and {TRAINING}")
    return replace(verdict, judged=drawn.of if judge != "both" else verdict.judged, how=exact.route)


def not_applicable(question: Question, reason: str) -> Verdict:
    """Return the verdict on code that cannot be used on this f."""
    nothing = torch.zeros_like(question.logits)
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=NOT_APPLICABLE,
        method="exact",
        claimed=False,
        target=nothing,
        bias=nothing,
        bias2=Measured(math.nan, 0.0),
        limit=math.nan,
        slope=Measured(math.nan, 0.0),
        residual2=Measured(math.nan, 0.0),
        deviation=math.nan,
        delta=question.delta,
        alpha=question.alpha,
        seed=question.seed,
        reason=reason,
        distribution=question.distribution,
    )
