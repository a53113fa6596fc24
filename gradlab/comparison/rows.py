"""What is measured of one estimator on one problem: the numbers of a row, or why there are none.

Exact moments where they are known, moments of draws where not, both against the true gradient.
"""

import time
from collections.abc import Callable
from typing import Any

from gradlab.comparison.unmet import Rare, seen, widened
from gradlab.estimators import Estimator, QuadratureError
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import EnumeratedBatch, Enumeration, NotExactError
from gradlab.moments import Moments, Truth
from gradlab.montecarlo import monte_carlo
from gradlab.user_code.replicates import NO_REPLICATES

__all__ = ["COLUMNS", "NOTED", "PATIENCE", "measure", "measured_rows"]

COLUMNS = [
    "problem",
    "N",
    "C",
    "logits_seed",
    "estimator",
    "series",
    "tau",
    "calls",
    "seed",
    "method",
    "draws",
    "reason",
    "truth2",
    "bias2",
    "bias2_se",
    "variance",
    "variance_se",
    "mse",
    "mse_se",
    "cosine",
    "cosine_se",
    "scale_free_bias2",
    "scale_free_bias2_se",
    "scale_free_variance",
    "scale_free_variance_se",
    "effective_draws",
    "seconds",
]
"""What `compare` tells of an estimator at a temperature; `NOTED` may stand beside them."""

NOTED = ["note", "draws_needed"]
"""Columns that there are only where one of the rows has something to say there."""

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
) -> list[dict[str, Any]]:
    """Return what `compare` tells of one estimator: two rows for the method "both", else one.

    `exact` holds f, which has passed the gate, and its logits; `row` names the random numbers of
    the draws; `rare` returns what they may miss, and is called only if some are made.
    """
    f, logits = exact.objective, exact.logits
    for_one = f if f.batch is None else f.element(0)
    shared: dict[str, Any] = {
        "estimator": str(estimator),
        "series": estimator.text(without="tau"),
        "tau": getattr(estimator, "tau", None),
        "calls": estimator.calls(logits.shape[-1], logits.shape[-2]),
        "seed": seed,
    }
    reason = estimator.supports(for_one, logits.reshape(-1, *logits.shape[-2:])[0])
    if reason is not None:
        both = ("exact", "monte carlo")
        ways = {"both": both, "monte-carlo": both[1:]}.get(method, both[:1])
        return [shared | {"method": way, "draws": None, "reason": reason} for way in ways]
    rows = []
    notes: list[str] = []
    seconds = exact.seconds(estimator)
    if method == "auto" and seconds > PATIENCE:
        method = "monte-carlo"
        notes = [f"by draws: exact moments would take about {seconds:.0f} s (method='exact')"]
    if method != "monte-carlo":
        found = _timed(exact.moments, estimator, truth=truth)
        if method != "auto" or not found["fallback"]:
            rows.append(shared | {"method": "exact", "draws": None} | found)
            if method != "both":
                return rows
        elif found["too_large"]:
            notes = [f"by draws: {found['reason']}"]
    given: dict[str, Any] = {"row": row, "workers": workers, "progress": progress, "truth": truth}
    missed = None if rare is None else rare()
    found = _timed(monte_carlo, estimator, f, logits, draws, seed, **given, rare=missed)
    if found.get("note") is not None:
        notes.append(found["note"])
    found["note"] = "; ".join(notes) or None
    rows.append(shared | {"method": "monte carlo", "draws": draws} | found)
    return rows


def _timed(
    moments: Callable[..., Moments],
    estimator: Estimator,
    *args: Any,
    truth: Truth,
    rare: Rare | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the measured columns, or the reason why there are none and if Monte Carlo may do."""
    start = time.perf_counter()
    row: dict[str, Any] = {"reason": None, "fallback": False, "too_large": False}
    try:
        measured = moments(estimator, *args, **options)
        row |= measure(measured, truth)
        if measured.groups is not None:
            row = widened(row | seen(estimator, measured, truth, rare))
    except (NotExactError, QuadratureError, TooLargeError) as error:
        too_large = isinstance(error, TooLargeError)
        row |= {"reason": str(error), "fallback": True, "too_large": too_large}
    except NO_REPLICATES as error:
        row |= {"reason": str(error)}
    return row | {"seconds": time.perf_counter() - start}


def measure(moments: Moments, truth: Truth) -> dict[str, float]:
    """Return the numbers of a row: what `moments` say against the true gradient."""
    row = {"truth2": float(truth.length2 if isinstance(truth, Moments) else truth.square().sum())}
    for column, measured in {
        "bias2": moments.bias2(truth),
        "variance": moments.variance,
        "mse": moments.mse(truth),
        "cosine": moments.cosine(truth),
        "scale_free_bias2": moments.scale_free_bias2(truth),
        "scale_free_variance": moments.scale_free_variance(truth),
    }.items():
        row |= {column: measured.value, f"{column}_se": measured.se}
    return row | {"effective_draws": moments.effective_sample_size}
