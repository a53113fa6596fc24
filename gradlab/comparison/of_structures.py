"""Rows of estimators where x is drawn from any distribution with finitely many states."""

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from gradlab.comparison.measuring import about, measure
from gradlab.comparison.rows import COMPARED, as_table
from gradlab.estimators import Estimator
from gradlab.estimators.structured import NoisyEstimator
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import NotExactError
from gradlab.loss import NotDifferentiableError
from gradlab.montecarlo import monte_carlo
from gradlab.version import __version__

__all__ = ["structured_rows"]


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

    Returns:
        The rows, with the columns of `compare`; N and C are empty.
    """
    truth = on.gradient
    ways = {"both": ["exact", "monte carlo"], "monte-carlo": ["monte carlo"]}.get(method, ["exact"])
    dtype = str(on.objective.dtype).removeprefix("torch.")
    made = {"truth": "enumeration", "version": __version__, "dtype": dtype, "problem": problem}
    rows: list[dict[str, Any]] = []
    for estimator in estimators:
        # What these estimators cost does not depend on the number of classes.
        shared = made | about(estimator, None, torch.zeros(1, 2), gradient_cost) | {"seed": seed}
        noisy = isinstance(estimator, NoisyEstimator) and on.refusal(estimator) is None
        note = on.another_law(estimator)
        for way in ["monte carlo"] if method == "auto" and noisy else ways:
            start = time.perf_counter()
            row = shared | {"method": way, "draws": draws if way == "monte carlo" else None}
            row |= {"note": note}
            try:
                if way == "exact":
                    moments = on.moments(estimator)
                else:
                    given = (on.f, on.given_parameters, draws, seed)
                    moments = monte_carlo(estimator, *given, distribution=on.distribution)
                row |= measure(moments, truth, averaged)
            except (NotExactError, NotDifferentiableError) as error:
                row |= {"reason": str(error)}
            rows.append(row | {"seconds": time.perf_counter() - start})
    return as_table(rows, COMPARED)
