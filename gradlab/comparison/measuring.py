"""What is measured of one estimator on one problem: the numbers of a row, or why there are none.

Exact moments where they are known, moments of draws where not, both against the true gradient.
"""

import time
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradlab.comparison.eligibility import GRADIENT_COST, cost_of
from gradlab.comparison.rows import AVERAGED
from gradlab.comparison.unmet import Rare, seen, widened
from gradlab.estimators import Estimator, QuadratureError
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.for_draws import for_draws
from gradlab.exact.moments import EnumeratedBatch, Enumeration, NotExactError
from gradlab.loss import Loss
from gradlab.moments import Measured, Moments, Truth
from gradlab.montecarlo import monte_carlo
from gradlab.user_code.replicates import NO_REPLICATES
from gradlab.user_code.under_test import CodeEstimator

__all__ = ["PATIENCE", "about", "measure", "measured_rows"]

PATIENCE = 10.0
"""Seconds that exact moments of one estimator may take before draws are used instead."""


def measured_rows(
    estimator: Estimator,
    exact: Enumeration | EnumeratedBatch,
    truth: Truth,
    *,
    row: str,
    draws: int,
    seed: int,
    method: str,
    workers: int = 1,
    progress: bool = False,
    rare: Callable[[], Rare | None] | None = None,
    gradient_cost: float = GRADIENT_COST,
    averaged: float = AVERAGED,
    patience: float = PATIENCE,
) -> list[dict[str, Any]]:
    """Return the rows of one estimator: two for the method "both", else one.

    `exact` holds f, which has passed the gate, and its logits; `row` names the random numbers of
    the draws; `rare` returns what they may miss, and is called only if some are made.
    """
    f, logits = exact.objective, exact.logits
    for_one = f if f.batch is None else f.element(0)
    one = logits.reshape(-1, *logits.shape[-2:])[0]
    shared = about(estimator, for_one, one, gradient_cost) | {"seed": seed}
    reason = estimator.supports(for_one, one)
    if reason is not None:
        both = ("exact", "monte carlo")
        ways = {"both": both, "monte-carlo": both[1:]}.get(method, both[:1])
        return [shared | {"method": way, "draws": None, "reason": reason} for way in ways]
    rows = []
    notes: list[str] = []
    seconds = exact.seconds(estimator)
    if method == "auto" and seconds > patience:
        method = "monte-carlo"
        notes = [f"by draws: exact moments would take about {seconds:.0f} s (method='exact')"]
    if method != "monte-carlo":
        found = _timed(exact.moments, estimator, truth=truth, averaged=averaged)
        if method != "auto" or not found["fallback"]:
            rows.append(shared | {"method": "exact", "draws": None} | found)
            if method != "both":
                return rows
        elif found["too_large"]:
            notes = [f"by draws: {found['reason']}"]
    given: dict[str, Any] = {"row": row, "workers": workers, "progress": progress}
    given |= {"truth": truth, "averaged": averaged}
    missed = None if rare is None else rare()
    table = for_draws(exact, draws * estimator.calls(logits.shape[-1], logits.shape[-2]))
    found = _timed(monte_carlo, estimator, table, logits, draws, seed, **given, rare=missed)
    if found.get("note") is not None:
        notes.append(found["note"])
    found["note"] = "; ".join(notes) or None
    rows.append(shared | {"method": "monte carlo", "draws": draws} | found)
    return rows


def about(
    estimator: Estimator,
    f: Loss | None,
    logits: Float[Tensor, "N C"],
    gradient_cost: float = GRADIENT_COST,
) -> dict[str, Any]:
    """Return the columns of a row that name the estimator and say what one draw of it costs.

    Without f your own code is not called, and its cost is empty.
    """
    is_unseen = f is None and isinstance(estimator, CodeEstimator)
    return {
        "estimator": str(estimator),
        "series": estimator.series,
        "tau": estimator.temperature_value,
        "calls": estimator.calls(logits.shape[-1], logits.shape[-2]),
        "cost": None if is_unseen else cost_of(estimator, f, logits, gradient_cost),
    }


def _timed(
    moments: Callable[..., Moments],
    estimator: Estimator,
    *args: Any,
    truth: Truth,
    averaged: float,
    rare: Rare | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the measured columns, or the reason why there are none and if Monte Carlo may do."""
    start = time.perf_counter()
    row: dict[str, Any] = {"reason": None, "fallback": False, "too_large": False}
    try:
        measured = moments(estimator, *args, **options)
        row |= measure(measured, truth, averaged)
        if measured.groups is not None:
            row = widened(row | seen(estimator, measured, truth, rare))
    except (NotExactError, QuadratureError, TooLargeError) as error:
        too_large = isinstance(error, TooLargeError)
        row |= {"reason": str(error), "fallback": True, "too_large": too_large}
    except NO_REPLICATES as error:
        row |= {"reason": str(error)}
    return row | {"seconds": time.perf_counter() - start}


def measure(moments: Moments, truth: Truth, averaged: float = AVERAGED) -> dict[str, float]:
    """Return the numbers of a row: what `moments` say against the true gradient."""
    if isinstance(truth, Moments):
        length2 = truth.length2
    else:
        length2 = Measured(float(truth.square().sum()), 0.0)
    row = {"truth2": length2.value, "truth2_se": length2.se}
    for column, measured in {
        "bias2": moments.bias2(truth),
        "variance": moments.variance,
        "mse": moments.mse(truth),
        "cosine": moments.cosine(truth),
        "scale_free_bias2": moments.scale_free_bias2(truth),
        "scale_free_variance": moments.scale_free_variance(truth),
        "progress": moments.progress(truth, averaged),
    }.items():
        row |= {column: measured.value, f"{column}_se": measured.se}
    return row | {"averaged": averaged, "effective_draws": moments.effective_sample_size}
