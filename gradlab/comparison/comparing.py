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
from gradlab.comparison.rows import COLUMNS, NOTED, measured_rows
from gradlab.comparison.unmet import Rare, rare_draws, rare_states
from gradlab.estimators import Estimator
from gradlab.exact.moments import Enumerated, Enumeration, enumerated
from gradlab.loss import Loss
from gradlab.loss.gate import name_of
from gradlab.moments import GROUPS, Moments, Truth
from gradlab.montecarlo import monte_carlo
from gradlab.progress import tracked
from gradlab.reproducible import check_seed, single_thread
from gradlab.user_code.under_test import Code, CodeEstimator, estimator_of
from gradlab.version import __version__

__all__ = [
    "DEFAULT_DRAWS",
    "METHODS",
    "REFERENCE_DRAWS",
    "compare",
    "reproducible_columns",
    "with_temperatures",
]

METHODS = ("auto", "exact", "monte-carlo", "both")
DEFAULT_DRAWS = 10_000
REFERENCE_DRAWS = 1_000_000


@single_thread()
def compare(
    f: Loss | Enumerated,
    logits: Float[Tensor, "*batch N C"] | None = None,
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
) -> pd.DataFrame:
    """Measure each estimator, at each temperature if it has one, against the exact gradient of E f.

    `method`: "exact" moments only, "monte-carlo" only (`draws`, by default 10,000, each), "both" as
    separate rows, or "auto": exact where known, Monte Carlo where not. An estimator may be its
    text, or code that `gradlab.user_code.draws_of` accepts. For logits [B, N, C] f maps
    x [..., B, N, C] to [..., B], and all numbers are of the B elements together (one more column,
    `batch`). f is given x in the dtype of the logits (column `dtype`); sums and tables are float64.

    A row: bias2, variance (of one draw), mse (of one draw), cosine, scale-free bias2 and variance,
    each with its `_se`; truth2 = |exact gradient|^2; `effective_draws` tells how many draws carry
    the variance; `reason` why a pair could not be measured. Where there is something to say: a
    column `note`, why draws stand for exact moments of the method "auto", and what draws may have
    missed; a column `draws_needed`, if the draws of a row are too few to meet what carries the
    variance (15 visits to the states that carry half of it). Where f is enumerated the standard
    errors contain what states may carry that are met less than 3 times. Units: those of f, squared.
    An `Enumeration`, or an `EnumeratedBatch`, stands in place of f and logits:
    `compare(on, estimators=[...])`. Beside them, as `enumeration`, it is deprecated.

    Where f cannot be enumerated, `reference`, an estimator that is unbiased for every f, measures
    the true gradient by `reference_draws` draws of its own. Standard errors then contain its noise,
    and two more columns say what the `truth` is and the standard error of truth2.

    Raises ValueError for bad arguments, TooLargeError if f cannot be enumerated and there is no
    reference, LossError for an f that breaks its contract.
    """
    check_choice("method", method, METHODS)
    check_seed(seed)
    draws = DEFAULT_DRAWS if draws is None else draws
    exact = enumerated(f, logits, enumeration)
    logits = exact.logits
    name = problem or name_of(exact.objective)
    truth: Truth
    of_truth: dict[str, Any] = {}
    if reference is None:
        truth = exact.gradient
    else:
        reference = _checked_reference(reference, reference_draws, exact)
        given = exact.objective, logits, reference_draws, seed
        apart = f"{name}|reference"  # other random numbers than its row has
        truth = monte_carlo(reference, *given, row=apart, workers=workers, progress=progress)
        source = f"{reference}, {reference_draws:,} draws"
        of_truth = {"truth": source, "truth2_se": truth.length2.se}
    shared = {
        "problem": name,
        "N": logits.shape[-2],
        "C": logits.shape[-1],
        "logits_seed": logits_seed,
    }
    if logits.ndim == 3:
        of_truth["batch"] = len(logits)

    @cache
    def rare() -> Rare | None:
        known = rare_states(exact, states=reference_draws if reference is not None else None)
        if known is not None or not isinstance(truth, Moments):
            return known
        assert isinstance(reference, Estimator)
        return rare_draws(truth, reference, (logits.shape[-1], logits.shape[-2]))

    settings: dict[str, Any] = {"draws": draws, "seed": seed, "method": method, "row": name}
    settings["rare"] = rare
    running: dict[str, Any] = {"workers": workers, "progress": progress}
    rows: list[dict[str, Any]] = []
    cells = with_temperatures(estimators, temperatures)
    for estimator in tracked(cells, name, "estimators", shown=progress):
        found = measured_rows(estimator, exact, truth, **settings, **running)
        rows += [shared | row for row in found]
    table = pd.DataFrame(rows)
    noted = [name for name in NOTED if name in table and table[name].notna().any()]
    if "draws_needed" in noted:
        # Written the same whether or not other rows have a number here.
        table["draws_needed"] = table["draws_needed"].astype(float)
    table = table.reindex(columns=[*COLUMNS, *noted])
    table["tau"] = table["tau"].astype("float64")
    dtype = str(exact.objective.dtype).removeprefix("torch.")
    return table.assign(version=__version__, dtype=dtype, **of_truth)


def _checked_reference(reference: Estimator | str, draws: int, exact: Enumerated) -> Estimator:
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
