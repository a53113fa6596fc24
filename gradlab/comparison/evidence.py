"""What a recommendation rests on: what can be used for f at some logits, and its measured rows.

Nothing is ranked here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.categorical import probabilities
from gradlab.checks import check_int
from gradlab.comparison.comparing import checked_reference, with_temperatures
from gradlab.comparison.draws_enough import measured_cells, with_more_draws
from gradlab.comparison.eligibility import cost_of, is_declared_exact, why_not
from gradlab.comparison.forecast import forecast, patience_of
from gradlab.comparison.ranking import is_unmet
from gradlab.comparison.recommendation import UNMEASURED
from gradlab.estimators import ESTIMATORS, Estimator, LeaveOneOut
from gradlab.exact.enumeration import TooLargeError, check_states
from gradlab.exact.mechanism import is_shipped, overrides
from gradlab.exact.moments import Enumerated, Enumeration
from gradlab.moments import GROUPS
from gradlab.progress import say
from gradlab.user_code.under_test import Code

__all__ = [
    "REACH",
    "Evidence",
    "Settings",
    "all_estimators",
    "as_declared",
    "gathered",
    "left_out",
    "unaffordable",
]

REACH = 16
"""What costs more than so many budgets is not measured."""

# A wider RF is not proposed.
_WIDEST = 64
# Numbers that the draws of the reference may make by default.
_REFERENCE = 2**28
# Seconds that a sweep of f may take.
_PATIENCE = 60.0
# A declared exactness is doubted when the measured squared bias is so many standard errors, and
# more than rounding of the squared gradient.
_DOUBT, _ROUNDING = 5, 1e-18
_CONSTANT = (
    "No draw of the reference, {}, differed from another, as if f were constant: nothing is known "
    "of states that these draws have not met, and the order means little."
)
_BLIND = (
    "No estimator has met what carries the variance, by what the draws of the reference show ({}): "
    "errors and ranks are those of what was met."
)


@dataclass(frozen=True)
class Settings:
    """How the rows of a recommendation are measured; see `gradlab.recommend`."""

    evaluations: int
    averaged: float
    must_be_unbiased: bool
    gradient_cost: float
    draws: int
    seed: int
    reference: Estimator | str | None
    reference_draws: int | None
    problem: str | None
    workers: int
    progress: bool


@dataclass(frozen=True)
class Evidence:
    """Rows on one f at its logits, and why what has none cannot be used.

    Args:
        rows: What was measured.
        trusted: The same with no bias where it is declared and not refuted: what is ranked.
        costs: What one draw of each series counts as.
        reasons: Why a series is not ranked, by the series.
        notes: Sentences on the rows.
    """

    rows: pd.DataFrame
    trusted: pd.DataFrame
    costs: dict[str, float]
    reasons: dict[str, str]
    notes: tuple[str, ...]


def gathered(
    on: Enumerated,
    estimators: Iterable[Code] | None,
    temperatures: Sequence[float],
    settings: Settings,
) -> Evidence:
    """Return what was measured of f, and why what was not cannot be used.

    Raises ValueError if nothing can be used or measured.
    """
    evaluations, unbiased = settings.evaluations, settings.must_be_unbiased
    # Whether it can be used, and what it costs, is asked at the first element of a batch.
    f = on.objective if isinstance(on, Enumeration) else on.objective.element(0)
    logits = on.logits.reshape(-1, *on.logits.shape[-2:])[0]
    # Code of the user's is run in the precision that it trains in.
    caller = on.caller_logits.reshape(-1, *on.logits.shape[-2:])[0]
    chosen = all_estimators(evaluations) if estimators is None else estimators
    cells = list(dict.fromkeys(with_temperatures(chosen, temperatures)))
    # A family is judged by the temperature at which it is exact to the highest degree.
    by_order = sorted(cells, key=lambda cell: cell.order)
    last = {cell.series: cell for cell in by_order}
    families = {series: last[series] for series in (cell.series for cell in cells)}
    gradient_cost = settings.gradient_cost
    costs = {s: cost_of(family, f, caller, gradient_cost) for s, family in families.items()}
    known = {
        series: why_not(
            family, f, logits if is_shipped(family) else caller, must_be_unbiased=unbiased
        )
        for series, family in families.items()
    }
    reasons, dear = left_out(known, costs, evaluations)
    left = _left_to_draws(on)
    given = _measuring(on, settings, left)
    usable = [
        cell
        for cell in cells
        if cell.series not in reasons and (is_declared_exact(cell, f) or not unbiased)
    ]
    given["patience"] = patience_of(on, usable)
    if given["reference"] is not None:
        checked_reference(given["reference"], given["reference_draws"], on)
    check_int("draws", settings.draws, 2 * GROUPS)
    if settings.progress:
        say(forecast(on, usable, settings.draws, given))
    rows, narrowed = measured_cells(on, usable, settings.draws, given, evaluations, costs)
    if left is None:
        rows = with_more_draws(rows, on, usable, given)
    rows["declared"] = rows["estimator"].map({str(c): is_declared_exact(c, f) for c in cells})
    # Of a series one cost, in the precision in which your own code trains.
    rows["cost"] = rows["series"].map(costs)
    # A class that overrides what runs is not taken at its word: its draws count as they are.
    trusted, notes = as_declared(rows, {str(cell) for cell in cells if overrides(cell)})
    notes += tuple(note for note in (left, narrowed, *_notes(rows)) if note is not None)
    usable_rows = rows["reason"].isna() & (rows["cost"] <= evaluations)
    blind = not (usable_rows & ~is_unmet(rows)).any()
    unseen = {} if blind and left is not None else _unseen(rows)
    if blind and left is not None and usable_rows.any():
        # All saw too little: the order among them is still one of what they saw.
        trusted["draws_needed"] = math.nan
        notes = (_BLIND.format(rows[is_unmet(rows)]["note"].iloc[0]), *notes)
    elif blind:
        raise ValueError(_nothing_seen(rows, unseen))
    first = rows.iloc[0]
    if left is not None and first["truth2"] == first["truth2_se"] == 0:
        notes = (_CONSTANT.format(first["truth"]), *notes)
    failed = dict(rows.loc[rows["reason"].notna(), ["series", "reason"]].itertuples(index=False))
    return Evidence(rows, trusted, costs, failed | unseen | dear | reasons, notes)


def _measuring(on: Enumerated, settings: Settings, left: str | None) -> dict[str, Any]:
    """Return the arguments of `compare`; without enumeration RF(m=4) measures the truth."""
    reference = settings.reference
    if reference is None and left is not None:
        reference = LeaveOneOut(4)
    many = settings.reference_draws
    return {
        "seed": settings.seed,
        "problem": settings.problem,
        "workers": settings.workers,
        "progress": settings.progress,
        "gradient_cost": settings.gradient_cost,
        "averaged": settings.averaged,
        "reference": reference,
        "reference_draws": _reference_draws(on, settings.draws) if many is None else many,
        "method": "auto" if left is None else "monte-carlo",
    }


def _reference_draws(on: Enumerated, draws: int) -> int:
    """Return 20 times the draws, but no more than so many numbers make."""
    return max(2 * GROUPS, min(20 * draws, _REFERENCE // on.logits.numel()))


def all_estimators(evaluations: int) -> list[Estimator]:
    """Return every estimator with its default arguments, and RF with other numbers of samples."""
    wide = {m for m in (4, min(evaluations, _WIDEST)) if m > 2}
    return [*(cls() for cls in ESTIMATORS.values()), *(LeaveOneOut(m) for m in sorted(wide))]


def left_out(
    known: Mapping[str, str | None], costs: Mapping[str, float], evaluations: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Return why series are not measured, and which cost more than the budget.

    Args:
        known: Why each series cannot be used, or None.
        costs: Evaluations of f that one draw of each counts as.
        evaluations: The budget.

    Returns:
        The reasons by series: what is known, or a cost far above the budget. Beside them what to
        say of every series that costs more than the budget.

    Raises:
        ValueError: If no series can be used with this budget.

    Example:
        >>> left_out({"ST": None, "GS": "f is not smooth"}, {"ST": 3, "GS": 3}, 12)
        ({'GS': 'f is not smooth'}, {})
    """
    reasons = {series: why for series, why in known.items() if why is not None}
    dear = {s: unaffordable(cost, evaluations) for s, cost in costs.items() if cost > evaluations}
    if all(series in reasons or series in dear for series in known):
        told = (f"{s}: {(dear | reasons)[s]}" for s in known)
        raise ValueError(
            f"no estimator can be used with {evaluations} evaluations of f: {'; '.join(told)}"
        )
    far = {series: why for series, why in dear.items() if costs[series] > REACH * evaluations}
    return {series: (far | reasons)[series] for series in known if series in far | reasons}, dear


def unaffordable(cost: float, evaluations: int) -> str:
    """Return why an estimator of this cost is not used."""
    return f"one draw counts as {cost:g} evaluations of f, more than {evaluations}"


def _left_to_draws(on: Enumerated) -> str | None:
    """Return why all is left to draws, in words, or None if f is enumerated."""
    each = on.logits.reshape(-1, *on.logits.shape[-2:])
    try:
        for logits in each:
            check_states(logits)
    except TooLargeError:
        states = sum(math.log10(int(n)) for n in (probabilities(logits) > 0).sum(-1))
        why = f"f has about 10^{states:.1f} configurations"
    else:
        seconds = (
            len(each) * (on if isinstance(on, Enumeration) else on.elements[0]).sweep_seconds()
        )
        if seconds <= _PATIENCE:
            return None
        why = f"one evaluation of f at all configurations would take about {seconds:.0f} s"
    return f"Left to draws: {why}, so that the gradient and all errors are measured by draws."


def _notes(rows: pd.DataFrame) -> Iterator[str]:
    """Yield who was drawn though exact moments are known, and why."""
    told = rows[rows["note"].notna() & ~is_unmet(rows)]
    for note, part in told.groupby("note", sort=False):
        who = ", ".join(dict.fromkeys(part["series"]))
        yield f"{who}{' ' if note.startswith('by draws') else ': '}{note}."


def _unseen(rows: pd.DataFrame) -> dict[str, str]:
    """Return which series have draws that met too little, and why that is not an error."""
    drawn = rows[is_unmet(rows)].groupby("series", sort=False)
    return {series: f"{UNMEASURED}{part['note'].iloc[0]}" for series, part in drawn}


def _nothing_seen(rows: pd.DataFrame, unseen: dict[str, str]) -> str:
    """Return why nothing that can be paid was measured, and the way out."""
    failed = rows[rows["reason"].notna()].groupby("series", sort=False)["reason"].first()
    told = "; ".join(f"{series}: {why}" for series, why in (dict(failed) | unseen).items())
    out = "give estimators whose moments are exact, such as RF(m=4)"
    return (
        f"no estimator could be measured: {told}; {out}"
        + (", or draws=" if unseen else "")
        + (f"{rows['draws_needed'].min():.0f}" if unseen else "")
    )


def as_declared(rows: pd.DataFrame, replaced: set[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows with bias 0 where it is declared and not refuted, and what is refuted.

    `replaced` names the estimators that are not taken at their word.
    """
    drawn = rows["declared"] & (rows["method"] != "exact") & rows["reason"].isna()
    # Draws that have not met what carries the gradient refute nothing.
    large = rows["bias2"] > np.maximum(_DOUBT * rows["bias2_se"], _ROUNDING * rows["truth2"])
    refuted = drawn & large & ~is_unmet(rows)
    told = tuple(
        f"{row.estimator} declares to be exact here, but "
        + (
            f"its squared bias is {row.bias2 / row.bias2_se:.0f} standard errors above 0"
            if row.bias2_se > 0
            else f"all of its {row.draws:,.0f} draws are equal, and not the gradient"
        )
        + ": see gradlab.verify."
        for row in rows[refuted].itertuples()
    )
    trusted = rows.copy()
    believed = drawn & ~refuted & ~rows["estimator"].isin(replaced)
    trusted.loc[believed, ["bias2", "bias2_se"]] = 0.0
    trusted.loc[believed, ["cosine", "cosine_se"]] = 1.0, 0.0
    for column in ("", "_se"):
        trusted.loc[believed, f"mse{column}"] = trusted[f"variance{column}"]
        trusted.loc[believed, f"scale_free_variance{column}"] = trusted[f"variance{column}"]
    return trusted, told
