"""Estimators x temperatures on one problem, as rows of a tidy table.

A row holds what was measured, how, and with which standard error; what cannot be measured is a row
with the reason.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from gradlab import __version__
from gradlab.categorical import check_logits
from gradlab.estimators import Estimator, parse
from gradlab.exact.moments import Enumeration
from gradlab.loss import Loss
from gradlab.measurement import COLUMNS, measured_rows
from gradlab.moments import GROUPS, Truth
from gradlab.montecarlo import monte_carlo
from gradlab.reproducible import check_seed, single_thread

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
    f: Loss,
    logits: Float[Tensor, "N C"],
    estimators: Iterable[Estimator | str],
    temperatures: Sequence[float] | None = None,
    draws: int | None = None,
    seed: int = 0,
    *,
    method: str = "auto",
    problem: str | None = None,
    logits_seed: int | None = None,
    workers: int = 1,
    progress: bool = False,
    enumeration: Enumeration | None = None,
    reference: Estimator | str | None = None,
    reference_draws: int = REFERENCE_DRAWS,
) -> pd.DataFrame:
    """Measure each estimator, at each temperature if it has one, against the exact gradient of E f.

    `method`: "exact" moments only, "monte-carlo" only (`draws`, by default 10,000, each), "both" as
    separate rows, or "auto": exact where known, Monte Carlo where not. An estimator may be its
    text. A row: bias2, variance (of one draw), mse (of one draw), cosine, scale-free bias2 and
    variance, each with its `_se`; truth2 = |exact gradient|^2; `effective_draws` tells how many
    draws carry the variance; `reason` why a pair could not be measured. Units: those of f, squared.
    float64.

    Where f cannot be enumerated, `reference`, an estimator that is unbiased for every f, measures
    the true gradient by `reference_draws` draws of its own. Standard errors then contain its noise,
    and two more columns say what the `truth` is and the standard error of truth2.

    Raises ValueError for bad arguments, TooLargeError if f cannot be enumerated and there is no
    reference, LossError for a bad f.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    logits = check_logits(logits, ndim=2).detach().to(torch.float64)
    check_seed(seed)
    draws = DEFAULT_DRAWS if draws is None else draws
    exact = Enumeration(f, logits) if enumeration is None else enumeration
    name = problem or str(getattr(f, "name", None) or getattr(f, "__name__", type(f).__name__))
    truth: Truth
    of_truth: dict[str, Any] = {}
    if reference is None:
        truth = exact.values.gradient
    else:
        reference = _checked_reference(reference, reference_draws, f, logits)
        given = f, logits, reference_draws, seed
        apart = f"{name}|reference"  # other random numbers than its row has
        truth = monte_carlo(reference, *given, row=apart, workers=workers, progress=progress)
        source = f"{reference}, {reference_draws:,} draws"
        of_truth = {"truth": source, "truth2_se": truth.length2.se}
    shared = {
        "problem": name,
        "N": logits.shape[0],
        "C": logits.shape[1],
        "logits_seed": logits_seed,
    }
    settings: dict[str, Any] = {"draws": draws, "seed": seed, "method": method, "row": name}
    running: dict[str, Any] = {"workers": workers, "progress": progress}
    rows: list[dict[str, Any]] = []
    cells = with_temperatures(estimators, temperatures)
    for estimator in tqdm(cells, desc=name, unit="estimator", leave=False, disable=not progress):
        found = measured_rows(estimator, exact, truth, **settings, **running)
        rows += [shared | row for row in found]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return table.assign(version=__version__, dtype="float64", **of_truth)


def _checked_reference(
    reference: Estimator | str, draws: int, f: Loss, logits: Float[Tensor, "N C"]
) -> Estimator:
    """Return the estimator that is to measure the true gradient, or raise ValueError."""
    (estimator,) = with_temperatures([reference], None)
    if not isinstance(draws, int) or draws < 2 * GROUPS:
        raise ValueError(f"reference_draws must be an int of at least {2 * GROUPS}, not {draws!r}")
    if estimator.order < math.inf:
        raise ValueError(
            f"reference must be unbiased for every f, such as RF(m=4); {estimator} is exact up to "
            f"degree {estimator.order} only"
        )
    reason = estimator.supports(f, logits)
    if reason is not None:
        raise ValueError(f"reference {estimator} cannot be used: {reason}")
    return estimator


def with_temperatures(
    estimators: Iterable[Estimator | str], temperatures: Sequence[float] | None
) -> list[Estimator]:
    """Return the estimators, those with a temperature repeated at each of `temperatures`."""
    for name, values in (("estimators", estimators), ("temperatures", temperatures)):
        if isinstance(values, str | Estimator | int | float):
            raise TypeError(f"{name} must be a list, such as [{values}], not {values!r} alone")
    cells: list[Estimator] = []
    for given in estimators:
        estimator = parse(given) if isinstance(given, str) else given
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimators must be Estimator objects or their text, not {given!r}")
        has_tau = any(field.name == "tau" for field in fields(estimator))  # type: ignore[arg-type]
        if temperatures is None or not has_tau:
            cells.append(estimator)
        else:
            cells += [replace(estimator, tau=float(tau)) for tau in temperatures]  # type: ignore[type-var]
    if not cells or (temperatures is not None and len(temperatures) == 0):
        raise ValueError("estimators (and temperatures, where given) must not be empty")
    return cells


def reproducible_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without the time they took: what a CSV keeps, the same on every run."""
    return rows.drop(columns="seconds", errors="ignore")
