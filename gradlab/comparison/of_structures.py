"""Rows of estimators where x is drawn from any distribution with finitely many states."""

import math
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gradlab.comparison.eligibility import cost
from gradlab.comparison.measuring import about, measure
from gradlab.comparison.rows import COMPARED, as_table
from gradlab.estimators import Estimator, parse
from gradlab.estimators.structured import NoisyEstimator
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.sampled_structures import SampledStructure
from gradlab.exact.structures import Structured
from gradlab.moments import Truth
from gradlab.montecarlo import drawn_moments
from gradlab.reproducible import block_generator
from gradlab.user_code.on_structures import draws_on, why_not_on
from gradlab.user_code.under_test import CodeEstimator
from gradlab.version import __version__

__all__ = ["cost_on", "reference_on", "structured_rows"]

# Draws by which the cost of code is seen.
_WATCHED = 8


def structured_rows(
    on: Structured,
    estimators: Sequence[Estimator],
    *,
    problem: str,
    draws: int,
    seed: int,
    method: str,
    gradient_cost: float,
    averaged: float,
    reference: Estimator | None = None,
    reference_draws: int = 0,
) -> pd.DataFrame:
    """Return one row per estimator (two for the method "both"); see `gradlab.compare`.

    Args:
        on: The loss, the parameters and the distribution.
        estimators: What is measured.
        problem: What the column of this name holds.
        draws: Draws of each estimator that is measured by draws.
        seed: Of the draws.
        method: "exact", "monte-carlo", "both" or "auto".
        gradient_cost: Evaluations of f that f with its gradient counts as.
        averaged: Draws whose mean the column `progress` is of.
        reference: Measures the truth where it is given, by so many draws.
        reference_draws: Draws of the reference.

    Returns:
        The rows, with the columns of `compare`; N and C are empty.

    Raises:
        TooLargeError: If the states are too many and there is no reference.
    """
    truth: Truth
    source = "enumeration"
    sampled = isinstance(on, SampledStructure)
    if reference is not None:
        source = f"{reference}, {reference_draws:,} draws"
        truth = drawn_moments(reference, on, reference_draws, seed, f"{problem}|reference")
    elif sampled:
        raise TooLargeError(
            "the states are too many to be enumerated; name a reference that measures the "
            "gradient by draws, such as reference='RF(m=4)'"
        )
    else:
        truth = on.gradient
    ways = {"both": ["exact", "monte carlo"], "monte-carlo": ["monte carlo"]}.get(method, ["exact"])
    dtype = str(on.objective.dtype).removeprefix("torch.")
    made = {"truth": source, "version": __version__, "dtype": dtype, "problem": problem}
    rows: list[dict[str, Any]] = []
    for estimator in estimators:
        shared = made | _about(estimator, on, gradient_cost) | {"seed": seed}
        reason = why_not_on(estimator, on)
        own = isinstance(estimator, CodeEstimator)
        noisy = isinstance(estimator, NoisyEstimator) and reason is None
        note = None if own else on.another_law(estimator)
        by_draws = ["monte carlo"] if method != "exact" else ["exact"]
        for way in by_draws if (own or noisy or sampled) and method != "both" else ways:
            start = time.perf_counter()
            row = shared | {"method": way, "draws": draws if way == "monte carlo" else None}
            row |= {"note": note}
            try:
                if reason is not None:
                    raise ValueError(reason)
                if way == "exact":
                    moments = on.moments(estimator)
                else:
                    moments = drawn_moments(estimator, on, draws, seed)
                row |= measure(moments, truth, averaged)
            except (ValueError, NotImplementedError) as error:
                row |= {"reason": str(error), "draws": None}
            rows.append(row | {"seconds": time.perf_counter() - start})
    return as_table(rows, COMPARED)


def _about(estimator: Estimator, on: Structured, gradient_cost: float) -> dict[str, Any]:
    """Return the columns that name an estimator and say what it costs here."""
    # What these estimators cost does not depend on the number of classes.
    known = about(estimator, None, torch.zeros(1, 2), gradient_cost)
    return known | {"cost": cost_on(estimator, on, gradient_cost)}


def cost_on(estimator: Estimator, on: Structured, gradient_cost: float) -> float:
    """Return the evaluations of f that one draw counts as; seen, for code of the user's.

    Args:
        estimator: The estimator.
        on: The loss, the parameters and the distribution.
        gradient_cost: Evaluations of f that f with its gradient counts as.

    Returns:
        The number, at least 1.
    """
    if not isinstance(estimator, CodeEstimator):
        return cost(estimator, 2, gradient_cost)
    counted = 0.0

    def watched(x: Tensor) -> Tensor:
        nonlocal counted
        points = x.numel() // max(1, on.shape.numel())
        counted += points * (gradient_cost if torch.is_grad_enabled() and x.requires_grad else 1)
        return on.f(x)

    drawn = draws_on(estimator, on)
    try:
        drawn(watched, drawn.at(on.given_parameters), _WATCHED, block_generator(0, "watched"))
    except Exception:  # its row says why
        return 1.0
    return max(1.0, counted / _WATCHED)


def reference_on(on: Structured, given: Estimator | str) -> Estimator:
    """Return the estimator that is to measure the truth, or raise ValueError.

    Args:
        on: The loss, the parameters and the distribution.
        given: The estimator, or its text.

    Returns:
        The estimator, unbiased for every f.

    Raises:
        ValueError: If it is not, or cannot be used here.
    """
    estimator = parse(given) if isinstance(given, str) else given
    if estimator.order < math.inf:
        raise ValueError(f"reference must be unbiased for every f, such as RF(m=4), not {given}")
    reason = why_not_on(estimator, on)
    if reason is not None:
        raise ValueError(f"reference {estimator} cannot be used: {reason}")
    return estimator
