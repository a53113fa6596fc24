"""Estimators x temperatures on one problem, as rows of a tidy table.

A row holds what was measured, how, and with which standard error; what cannot be measured is a row
with the reason.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_choice, check_int
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost
from gradlab.comparison.measuring import PATIENCE, measured_rows
from gradlab.comparison.of_structures import reference_on, structured_rows
from gradlab.comparison.rows import AVERAGED, COMPARED, METHODS, as_table
from gradlab.comparison.unmet import Rare, rare_draws, rare_states
from gradlab.estimators import Estimator
from gradlab.exact.for_draws import for_draws
from gradlab.exact.moments import Enumerated, Enumeration, enumerated
from gradlab.exact.sampled_structures import structured_or_sampled
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.exact.truth import NEEDS_DISTRIBUTION
from gradlab.loss import Loss
from gradlab.loss.gate import name_of
from gradlab.moments import GROUPS, Moments, Truth, check_averaged
from gradlab.montecarlo import monte_carlo
from gradlab.progress import tracked
from gradlab.reproducible import check_seed, single_thread
from gradlab.user_code.under_test import Code, CodeEstimator, estimator_of
from gradlab.version import __version__

__all__ = [
    "DEFAULT_DRAWS",
    "REFERENCE_DRAWS",
    "checked_reference",
    "compare",
    "reproducible_columns",
    "with_temperatures",
]

DEFAULT_DRAWS = 10_000
REFERENCE_DRAWS = 1_000_000


@single_thread()
def compare(
    f: Loss | Enumerated | Structured,
    logits: Float[Tensor, "*shape"] | tuple[Tensor, ...] | None = None,
    estimators: Iterable[Code] = (),
    temperatures: Sequence[float] | None = None,
    draws: int | None = None,
    seed: int = 0,
    *,
    method: str = "auto",
    problem: str | None = None,
    logits_seed: int | None = None,
    workers: int = 1,
    progress: bool = False,
    enumeration: Enumerated | None = None,
    reference: Estimator | str | None = None,
    reference_draws: int = REFERENCE_DRAWS,
    gradient_cost: float = GRADIENT_COST,
    averaged: float = AVERAGED,
    distribution: DistributionOf | None = None,
    patience: float = PATIENCE,
) -> pd.DataFrame:
    """Measure each estimator, at each temperature if it has one, against the exact gradient of E f.

    Moments are exact where they are known, and measured from draws where not. Sums and tables are
    float64; f is given x in the dtype of the logits.

    Args:
        f: A loss, x [..., N, C] -> values [...], or f(x, logits) marked by
            `gradlab.with_parameters`. For logits [B, N, C] it maps x [..., B, N, C] to
            [..., B], and all numbers are of the B elements together. An `Enumeration` or an
            `EnumeratedBatch` stands in place of f and logits: `compare(on, estimators=[...])`.
        logits: Of the categorical variables, [N, C] or [B, N, C], floating.
        estimators: Estimators, their texts, or your own code, as
            `gradlab.user_code.draws_of` accepts it.
        temperatures: Every estimator that has a temperature is measured at each of them; by
            default at its own.
        draws: Of each estimator that is measured, 10,000 by default.
        seed: Of the draws.
        method: "exact", "monte-carlo", "both" as separate rows, or "auto": exact where known.
        problem: What the column of this name holds; by default the name of f.
        logits_seed: What the column of this name holds.
        workers: Processes that make the draws; the rows do not depend on it.
        progress: Whether progress is printed on stderr.
        enumeration: Deprecated; give the enumeration in place of f and logits.
        reference: An estimator that is unbiased for every f, which measures the true gradient where
            f cannot be enumerated. Standard errors then contain its noise.
        reference_draws: Draws of the reference.
        gradient_cost: Evaluations of f that f with its gradient counts as.
        averaged: Draws whose mean the column `progress` is of.
        distribution: What x is drawn from instead of independent categorical variables, a function
            of the parameters (in place of logits, of any shape); see
            `gradlab.exact.structures.Structured`. N and C are then empty.
        patience: Seconds that exact moments of one estimator may take, by a count of what they
            need; with the method "auto" what takes longer is drawn.

    Returns:
        One row per estimator and temperature, with the columns of `gradlab.comparison.row_schema`.
        What cannot be measured is a row with its `reason`. Where f is enumerated, standard errors
        contain what states may carry that are met less than 3 times.

    Raises:
        ValueError: An argument is not allowed.
        TooLargeError: f cannot be enumerated and there is no reference.
        LossError: f breaks its contract.

    Example:
        >>> import gradlab, torch
        >>> f = gradlab.problems.problem("quadratic", 2, 3)
        >>> rows = gradlab.compare(f, torch.zeros(2, 3), ["ST", "ZGR"])
        >>> rows["cost"].tolist(), (rows["bias2"] < 1e-10).tolist()
        ([3.0, 3.0], [False, True])
    """
    check_choice("method", method, (*METHODS, "both"))
    check_gradient_cost(gradient_cost)
    check_averaged(averaged)
    check_seed(seed)
    settings: dict[str, Any]
    draws = DEFAULT_DRAWS if draws is None else draws
    if distribution is not None or isinstance(f, Structured):
        on = structured_or_sampled(f, logits, distribution)[0]
        settings = {"draws": draws, "seed": seed, "method": method, "averaged": averaged}
        if reference is not None:
            settings["reference"] = reference_on(on, reference)
            settings["reference_draws"] = reference_draws
        settings |= {"gradient_cost": gradient_cost, "problem": problem or name_of(on.f)}
        return structured_rows(on, with_temperatures(estimators, temperatures), **settings)
    if isinstance(logits, tuple):
        raise TypeError(NEEDS_DISTRIBUTION)
    exact = enumerated(f, logits, enumeration)
    logits = exact.logits
    name = problem or name_of(exact.objective)
    truth: Truth
    made = {"truth": "enumeration", "version": __version__}
    if reference is None:
        truth = exact.gradient
    else:
        reference = checked_reference(reference, reference_draws, exact)
        apart = f"{name}|reference"  # other random numbers than its row has
        # Measured once for an enumeration that serves several calls.
        known = vars(exact).setdefault("_measured_truths", {})
        key = str(reference), reference_draws, seed, apart
        if key not in known:
            spent = reference_draws * reference.calls(logits.shape[-1], logits.shape[-2])
            given = for_draws(exact, spent), logits, reference_draws, seed
            known[key] = monte_carlo(
                reference, *given, row=apart, workers=workers, progress=progress
            )
        truth = known[key]
        made["truth"] = f"{reference}, {reference_draws:,} draws"
    shared = {
        "problem": name,
        "batch": len(logits) if logits.ndim == 3 else None,
        "N": logits.shape[-2],
        "C": logits.shape[-1],
        "logits_seed": logits_seed,
    }

    @cache
    def rare() -> Rare | None:
        known = rare_states(exact, states=reference_draws if reference is not None else None)
        if known is not None or not isinstance(truth, Moments):
            return known
        assert isinstance(reference, Estimator)
        return rare_draws(truth, reference, (logits.shape[-1], logits.shape[-2]))

    settings = {"draws": draws, "seed": seed, "method": method, "row": name}
    settings |= {"rare": rare, "gradient_cost": gradient_cost, "averaged": averaged}
    settings["patience"] = patience
    running: dict[str, Any] = {"workers": workers, "progress": progress}
    rows: list[dict[str, Any]] = []
    cells = with_temperatures(estimators, temperatures)
    for estimator in tracked(cells, name, "estimators", shown=progress):
        found = measured_rows(estimator, exact, truth, **settings, **running)
        rows += [shared | row for row in found]
    made["dtype"] = str(exact.objective.dtype).removeprefix("torch.")
    return as_table([row | made for row in rows], COMPARED)


def checked_reference(reference: Estimator | str, draws: int, exact: Enumerated) -> Estimator:
    """Return the estimator that is to measure the true gradient, or raise ValueError."""
    (estimator,) = with_temperatures([reference], None)
    check_int("reference_draws", draws, 2 * GROUPS)
    if estimator.order < math.inf:
        raise ValueError(
            f"reference must be unbiased for every f, such as RF(m=4); {estimator} is exact up to "
            f"degree {estimator.order} only"
        )
    one = exact if isinstance(exact, Enumeration) else exact.elements[0]
    reason = estimator.supports(one.objective, one.logits)
    if reason is not None:
        raise ValueError(f"reference {estimator} cannot be used: {reason}")
    return estimator


def with_temperatures(
    estimators: Iterable[Code], temperatures: Sequence[float] | None
) -> list[Estimator]:
    """Return the estimators, those with a temperature repeated at each of `temperatures`.

    Code of the user's becomes an Estimator too. Raises TypeError for what is nothing to draw from,
    ValueError for an unknown name, an empty list, or two that have one name.
    """
    for name, values in (("estimators", estimators), ("temperatures", temperatures)):
        if isinstance(values, str | Estimator | int | float) or callable(values):
            raise TypeError(f"{name} must be a list, such as [{values}], not {values!r} alone")
    cells: list[Estimator] = []
    for given in estimators:
        estimator = estimator_of(given)
        if temperatures is None or estimator.temperature_field is None:
            cells.append(estimator)
        else:
            cells += [estimator.at_temperature(float(tau)) for tau in temperatures]
    if not cells or (temperatures is not None and len(temperatures) == 0):
        raise ValueError("estimators (and temperatures, where given) must not be empty")
    named: dict[str, object] = {}
    for cell in cells:
        code = cell.drawn.code if isinstance(cell, CodeEstimator) else cell
        if named.setdefault(str(cell), code) != code:
            raise ValueError(f"two estimators are called {cell}: rows could not tell them apart")
    return cells


def reproducible_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without the time they took: what a CSV keeps, the same on every run."""
    return rows.drop(columns="seconds", errors="ignore")
