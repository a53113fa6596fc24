"""Which estimators fit a distribution: what is refused, and what follows another law."""

from typing import Any

from gradlab.estimators import IMLE, Estimator, LearnedBaseline, LeaveOneOut, Reinforce
from gradlab.estimators.structured import NoisyEstimator

__all__ = ["another_law", "refused", "samples_of"]


def refused(estimator: Estimator, structure: Any) -> str | None:
    """Return why an estimator is not known where x is drawn from a distribution, or None.

    Args:
        estimator: Any estimator.
        structure: What is drawn from, as `gradlab.exact.slopes.Slopes` has it.

    Example:
        >>> refused(Reinforce(), None) is None
        True
    """
    # A fitted LEARNED sees other parts of x, which depend on its own here: it would be biased.
    unfitted = isinstance(estimator, LearnedBaseline) and not estimator.weights
    if isinstance(estimator, Reinforce | LeaveOneOut) or unfitted:
        return None
    if estimator.line_alpha is None and not isinstance(estimator, NoisyEstimator):
        return (
            f"{estimator} is not known where x is drawn from a distribution; use ST, ZGR, "
            "DARN, ST-ZGR(alpha=...), REINFORCE or RF(m=...)"
        )
    return estimator.structure_refusal(structure)


def another_law(estimator: Estimator, structure: Any) -> str | None:
    """Return what to know where samples of an estimator do not follow the law of x, or None.

    Args:
        estimator: Any estimator.
        structure: What is drawn from, as `gradlab.exact.slopes.Slopes` has it.

    Example:
        >>> another_law(Reinforce(), None) is None
        True
    """
    law = getattr(structure, "law", "another law")
    if (
        not isinstance(estimator, IMLE)
        or law in estimator.own_laws
        or refused(estimator, structure)
    ):
        return None
    if law == "conditional Bernoulli" and structure.k == 1:
        return None
    return (
        f"samples follow perturb-and-MAP, not the {law} law of the truth: "
        "bias holds the difference of the two"
    )


def samples_of(estimator: Estimator) -> int:
    """Return how many samples of x one draw on a distribution is made of.

    Args:
        estimator: The estimator.

    Returns:
        m of RF(m), else 1.

    Example:
        >>> samples_of(LeaveOneOut(m=4))
        4
    """
    return estimator.m if isinstance(estimator, LeaveOneOut) else 1
