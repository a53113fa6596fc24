"""What a loss allows: whether an estimator can be used on it, is unbiased for it, what it costs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import Estimator
from gradlab.loss import Loss
from gradlab.reproducible import block_generator
from gradlab.user_code.under_test import (
    CodeEstimator,
    EstimatorDtypeError,
    EstimatorError,
    draws_of,
)

__all__ = [
    "GRADIENT_COST",
    "check_gradient_cost",
    "cost",
    "cost_of",
    "is_declared_exact",
    "spent",
    "why_not",
    "why_not_unbiased",
]

GRADIENT_COST = 3.0
"""Evaluations of f that f with its gradient counts as.

The backward pass of a network multiplies matrices twice as often as the forward pass, for its
inputs and for its weights.
"""


def cost(
    estimator: Estimator,
    classes: int,
    gradient_cost: float = GRADIENT_COST,
    *,
    variables: int = 1,
) -> float:
    """Return the evaluations of f that one draw counts as, f with its gradient `gradient_cost`."""
    calls = estimator.calls(classes, variables)
    return calls * (gradient_cost if estimator.needs_gradient else 1)


def cost_of(
    estimator: Estimator,
    f: Loss | None,
    logits: Float[Tensor, "N C"],
    gradient_cost: float = GRADIENT_COST,
) -> float:
    """Return the evaluations of f that one draw counts as: declared, or seen of your own code.

    Only your own code needs f.
    """
    if isinstance(estimator, CodeEstimator):
        assert f is not None
        return spent(estimator, f, logits, gradient_cost)
    variables, classes = logits.shape
    return cost(estimator, classes, gradient_cost, variables=variables)


def check_gradient_cost(gradient_cost: float) -> None:
    """Raise ValueError unless `gradient_cost` is a finite number of at least 1."""
    if not isinstance(gradient_cost, int | float) or not 1 <= gradient_cost < math.inf:
        raise ValueError(
            f"gradient_cost must be a number of evaluations of at least 1, not {gradient_cost!r}"
        )


def spent(
    estimator: Estimator,
    f: Loss,
    logits: Float[Tensor, "N C"],
    gradient_cost: float = GRADIENT_COST,
) -> float:
    """Return the evaluations of f that one draw counts as, seen in a call of a few draws.

    For code that does not declare them: an evaluation whose gradient is recorded counts as f with
    its gradient. At least 1.
    """
    counted = 0.0

    def watched(x: Tensor) -> Tensor:
        nonlocal counted
        points = x[..., 0, 0].numel()
        counted += points * (gradient_cost if torch.is_grad_enabled() and x.requires_grad else 1)
        return f(x)

    try:
        estimator.draw(watched, logits, _WATCHED, block_generator(0, f"{estimator.series}|watched"))
    except Exception:  # `why_not` reports it
        return 1.0
    return max(1.0, counted / _WATCHED)


# Draws by which the cost of code is seen.
_WATCHED = 8


def is_declared_exact(estimator: Estimator, f: Loss) -> bool:
    """Return whether the estimator declares to be unbiased for every f, or for the degree of f.

    The degree is an attribute that gradlab's problems have; of other f it is not known.
    """
    return estimator.order == math.inf or estimator.order >= getattr(f, "degree", math.inf)


def why_not(
    estimator: Estimator, f: Loss, logits: Float[Tensor, "N C"], *, must_be_unbiased: bool = False
) -> str | None:
    """Return why the estimator cannot be used on f, or None if it can.

    It is tried: f may have no gradient, or work on one-hot x only where a relaxed one is drawn.
    """
    if must_be_unbiased and not is_declared_exact(estimator, f):
        return why_not_unbiased(estimator, f)
    reason = estimator.supports(f, logits)
    if reason is not None:
        return reason
    drawn = draws_of(estimator)
    try:
        if drawn.is_shipped:
            estimator.draw(f, logits, 2, block_generator(0, f"{estimator}|tried"))
        else:
            drawn.check_randomness(f, logits)
    except EstimatorDtypeError:
        raise  # it works at other logits
    except EstimatorError as error:
        return " ".join(str(error).split())
    except Exception as error:
        told = " ".join(str(error).split())
        return f"f fails where it draws: {type(error).__name__}: {told}"
    return None


def why_not_unbiased(estimator: Estimator, f: Loss) -> str:
    """Return that an estimator is not declared exact for f, in words."""
    degree = getattr(f, "degree", None)
    told = "whose degree is not known" if degree is None else f"of degree {degree:g}"
    told = told.replace("of degree inf", "that is no polynomial")
    upto = f"up to degree {estimator.order:g}" if estimator.order > 0 else "for constants only"
    return f"not unbiased for an f {told}: it is exact {upto}"
