"""What a recommendation rests on where x is drawn from a distribution: rows, and refusals."""

from collections.abc import Iterable, Sequence

from gradlab.checks import check_int
from gradlab.comparison.comparing import with_temperatures
from gradlab.comparison.eligibility import is_declared_exact, why_not_unbiased
from gradlab.comparison.evidence import (
    Evidence,
    Settings,
    all_estimators,
    as_declared,
    left_out,
)
from gradlab.comparison.of_structures import cost_on, reference_on, structured_rows
from gradlab.estimators import Estimator, LeaveOneOut
from gradlab.exact.sampled_structures import SampledStructure
from gradlab.exact.structures import Structured
from gradlab.loss.gate import name_of
from gradlab.moments import GROUPS
from gradlab.user_code.on_structures import draws_on, why_not_on
from gradlab.user_code.under_test import Code, CodeEstimator, EstimatorError

__all__ = ["gathered_on"]

# Numbers that the draws of the reference may make by default.
_REFERENCE = 2**26


def gathered_on(
    on: Structured,
    too_large: str,
    estimators: Iterable[Code] | None,
    temperatures: Sequence[float] | None,
    settings: Settings,
) -> Evidence:
    """Return what was measured of f on a distribution, and why what was not cannot be used.

    Args:
        on: The loss, the parameters and the distribution.
        too_large: Why its states are not enumerated, or "".
        estimators: Estimators, their texts or code; by default all.
        temperatures: Of those that have one.
        settings: What is asked.

    Returns:
        The rows and the reasons.

    Raises:
        ValueError: If nothing can be used, or the reference is not unbiased.
    """
    evaluations = settings.evaluations
    chosen = all_estimators(evaluations) if estimators is None else list(estimators)
    cells = list(dict.fromkeys(with_temperatures(chosen, temperatures)))
    families = {cell.series: cell for cell in cells}
    costs = {s: cost_on(cell, on, settings.gradient_cost) for s, cell in families.items()}
    known = {s: _why_not(cell, on, settings.must_be_unbiased) for s, cell in families.items()}
    reasons, dear = left_out(known, costs, evaluations)
    check_int("draws", settings.draws, 2 * GROUPS)
    usable = [cell for cell in cells if cell.series not in reasons]
    reference = settings.reference
    if reference is not None:
        reference = reference_on(on, reference)
    elif isinstance(on, SampledStructure):
        reference = LeaveOneOut(4)
    many = settings.reference_draws
    if many is None:
        numbers = on.parameters.numel() + on.shape.numel()
        many = max(2 * GROUPS, min(20 * settings.draws, _REFERENCE // numbers))
    rows = structured_rows(
        on,
        usable,
        problem=settings.problem or name_of(on.f),
        draws=settings.draws,
        seed=settings.seed,
        method="auto",
        gradient_cost=settings.gradient_cost,
        averaged=settings.averaged,
        reference=reference,
        reference_draws=many,
    )
    rows["declared"] = rows["estimator"].map({str(c): is_declared_exact(c, on.f) for c in cells})
    rows["cost"] = rows["series"].map(costs)
    trusted, notes = as_declared(rows, set())
    failed = dict(rows.loc[rows["reason"].notna(), ["series", "reason"]].itertuples(index=False))
    if not (rows["reason"].isna() & (rows["cost"] <= evaluations)).any():
        told = (f"{s}: {(dear | reasons | failed)[s]}" for s in families)
        raise ValueError(f"no estimator could be measured: {'; '.join(told)}")
    if too_large:
        notes = (f"Left to draws: {too_large}. All errors are measured by draws.", *notes)
    return Evidence(rows, trusted, costs, failed | dear | reasons, notes)


def _why_not(cell: Estimator, on: Structured, must_be_unbiased: bool) -> str | None:
    """Return why an estimator cannot be used here, or None."""
    if must_be_unbiased and not is_declared_exact(cell, on.f):
        return why_not_unbiased(cell, on.f)
    if isinstance(cell, CodeEstimator):
        drawn = draws_on(cell, on)
        try:
            drawn.check_randomness(on.f, drawn.at(on.given_parameters))
        except EstimatorError as error:
            return " ".join(str(error).split())
        return None
    why = why_not_on(cell, on)
    # One reason for all that have it, each of which is named before it.
    return None if why is None else why.removeprefix(f"{cell} is ")
