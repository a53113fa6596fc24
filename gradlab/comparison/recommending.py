"""Which estimator, at which temperature, for a loss and a budget of evaluations.

`recommend` measures what can be used and ranks it by progress at equal cost.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.checks import check_int
from gradlab.comparison.comparing import DEFAULT_DRAWS, with_temperatures
from gradlab.comparison.draws_enough import measured_cells, with_more_draws
from gradlab.comparison.eligibility import (
    GRADIENT_COST,
    check_gradient_cost,
    cost_of,
    is_declared_exact,
    why_not,
)
from gradlab.comparison.ranking import is_no_better_than_0, is_unmet, ranking
from gradlab.comparison.recommendation import UNMEASURED, Recommendation
from gradlab.comparison.rows import AVERAGED
from gradlab.estimators import ESTIMATORS, Estimator, LeaveOneOut
from gradlab.exact.enumeration import TooLargeError, check_states
from gradlab.exact.mechanism import is_shipped, overrides
from gradlab.exact.moments import Enumerated, Enumeration, enumerated
from gradlab.loss import Loss
from gradlab.moments import Measured, check_averaged
from gradlab.reproducible import check_seed, single_thread
from gradlab.user_code.under_test import Code

__all__ = ["TEMPERATURES", "recommend"]

TEMPERATURES = (0.032, 0.056, 0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0)
"""The default grid of temperatures, four to a decade."""

# What costs more than so many budgets is not measured, nor a wider RF proposed.
_REACH, _WIDEST = 16, 64
# Rankings are made up to this budget, or the given one.
_LARGEST_BUDGET = 2**14
# Numbers of gradients for which rankings are made besides.
_NUMBERS = tuple(float(round(10 ** (k / 4))) for k in range(0, 21))
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


@single_thread()
def recommend(
    f: Loss | Enumerated,
    logits: Float[Tensor, "*batch N C"] | None = None,
    *,
    evaluations: int,
    averaged: float = AVERAGED,
    must_be_unbiased: bool = False,
    estimators: Iterable[Code] | None = None,
    temperatures: Sequence[float] | None = None,
    gradient_cost: float = GRADIENT_COST,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    reference: Estimator | str | None = None,
    reference_draws: int | None = None,
    problem: str | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Recommendation:
    """Return estimators in the order of their progress at equal cost, for f at these logits.

    A gradient is the mean of as many draws as the budget pays; your own code that declares no cost
    pays for what it is seen to evaluate. Progress, in [-1, 1], is what a step along the mean of
    `averaged` gradients gains, relative to a step along the true one (`Moments.progress`). What
    cannot be used is listed with its reason. What is declared exact counts as unbiased unless its
    draws contradict this. What is not shown to make progress is ranked below a line, never first.

    Args:
        f: The loss, x [..., N, C] -> values [...]. For logits [B, N, C] it maps x [..., B, N, C] to
            [..., B], and all numbers are of the B elements together. An `Enumeration` or an
            `EnumeratedBatch` stands in place of f and logits.
        logits: Logits [N, C] or [B, N, C].
        evaluations: The budget: evaluations of f for one gradient.
        averaged: How many gradients are averaged, at least 1: those of a batch, and of the memory
            of an optimizer.
        must_be_unbiased: Whether to rank only what is declared exact, for every f or this problem.
        estimators: Estimators, texts or your own code; by default all, and RF of several sizes.
        temperatures: The grid of temperatures; by default `TEMPERATURES`.
        gradient_cost: What one evaluation of f with its gradient counts as.
        draws: Draws of what is not measured exactly; more, within half a minute, where they miss
            states that carry the variance. What would still miss them is not ranked.
        seed: The seed of all draws, an int in [0, 2^63).
        reference: Measures the truth; by default only where f cannot be enumerated, by RF(m=4).
        reference_draws: The draws of the reference; by default 20 times `draws`.
        problem: The name of f in the answer.
        workers: The number of threads; does not change the result.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The ranking and its evidence; its `explain()` says in words what follows.

    Raises:
        ValueError: If an argument is out of range, or nothing can be used or measured.
        LossError: If f breaks its contract.

    Example:
        >>> f, logits = lambda x: x[..., 1].sum(-1) ** 2, Tensor([[0.0, 0.5, 1.0]] * 4)
        >>> recommend(f, logits, evaluations=16, estimators=["ST", "RF(m=4)"]).best
        ['ST']
    """
    _check(evaluations, averaged, gradient_cost, seed)
    on = enumerated(f, logits)
    # Whether it can be used, and what it costs, is asked at the first element of a batch.
    f = on.objective if isinstance(on, Enumeration) else on.objective.element(0)
    logits = on.logits.reshape(-1, *on.logits.shape[-2:])[0]
    # Code of the user's is run in the precision that it trains in.
    caller = on.caller_logits.reshape(-1, *on.logits.shape[-2:])[0]
    grid = TEMPERATURES if temperatures is None else temperatures
    chosen = _all_estimators(evaluations) if estimators is None else estimators
    cells = list(dict.fromkeys(with_temperatures(chosen, grid)))
    # A family is judged by the temperature at which it is exact to the highest degree.
    by_order = sorted(cells, key=lambda cell: cell.order)
    last = {cell.series: cell for cell in by_order}
    families = {series: last[series] for series in (cell.series for cell in cells)}
    costs = {s: cost_of(family, f, caller, gradient_cost) for s, family in families.items()}
    reasons: dict[str, str] = {}
    for series, family in families.items():
        at = logits if is_shipped(family) else caller
        why = why_not(family, f, at, must_be_unbiased=must_be_unbiased)
        if why is None and costs[series] > _REACH * evaluations:
            why = _unaffordable(costs[series], evaluations)
        if why is not None:
            reasons[series] = why
    if all(series in reasons or costs[series] > evaluations for series in families):
        told = (f"{s}: {reasons.get(s) or _unaffordable(costs[s], evaluations)}" for s in families)
        raise ValueError(
            f"no estimator can be used with {evaluations} evaluations of f: {'; '.join(told)}"
        )
    left = _left_to_draws(on)
    if reference is None and left is not None:
        reference = LeaveOneOut(4)
    settings: dict[str, Any] = {
        "seed": seed,
        "problem": problem,
        "workers": workers,
        "progress": progress,
        "gradient_cost": gradient_cost,
        "averaged": averaged,
        "reference": reference,
        "reference_draws": 20 * draws if reference_draws is None else reference_draws,
        "method": "auto" if left is None else "monte-carlo",
    }
    usable = [
        cell
        for cell in cells
        if cell.series not in reasons and (is_declared_exact(cell, f) or not must_be_unbiased)
    ]
    rows, narrowed = measured_cells(on, usable, draws, settings, evaluations, costs)
    if left is None:
        rows = with_more_draws(rows, on, usable, settings)
    declared = {str(cell): is_declared_exact(cell, f) for cell in cells}
    # A class that overrides what runs is not taken at its word: its draws count as they are.
    replaced = {str(cell) for cell in cells if overrides(cell)}
    rows["declared"] = rows["estimator"].map(declared)
    # Of a series one cost, in the precision in which your own code trains.
    rows["cost"] = rows["series"].map(costs)
    trusted, notes = _as_declared(rows, replaced)
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
    curves = pd.concat(
        [
            ranking(trusted, _budgets(evaluations), [averaged]),
            ranking(trusted, [evaluations], [n for n in _NUMBERS if n != averaged]),
        ],
        ignore_index=True,
    )
    curves["asked"] = (curves["evaluations"] == evaluations) & (curves["averaged"] == averaged)
    ranked = curves[curves["asked"]].drop(columns="asked")
    if (hopeless := _hopeless(ranked)) is not None:
        raise ValueError(hopeless)
    failed = dict(rows.loc[rows["reason"].notna(), ["series", "reason"]].itertuples(index=False))
    unused = [
        {
            "series": series,
            "estimator": series,
            "cost": costs[series],
            "reason": reasons.get(series)
            or (_unaffordable(costs[series], evaluations) if costs[series] > evaluations else None)
            or (failed | unseen)[series],
        }
        for series in families
        if series not in set(ranked["series"])
    ]
    first = rows.iloc[0]
    if left is not None and first["truth2"] == first["truth2_se"] == 0:
        notes = (_CONSTANT.format(first["truth"]), *notes)
    return Recommendation(
        problem=first["problem"],
        size=(logits.shape[0], logits.shape[1]),
        batch=len(on.logits) if on.logits.ndim == 3 else None,
        evaluations=evaluations,
        averaged=float(averaged),
        gradient_cost=gradient_cost,
        must_be_unbiased=must_be_unbiased,
        truth=first["truth"],
        length2=Measured(first["truth2"], first["truth2_se"]),
        rows=rows,
        table=pd.DataFrame([*ranked.to_dict("records"), *unused], columns=[*ranked, "reason"]),
        curves=curves,
        notes=notes,
    )


def _check(evaluations: int, averaged: float, gradient_cost: float, seed: int) -> None:
    check_int("evaluations", evaluations, 1)
    check_averaged(averaged)
    check_gradient_cost(gradient_cost)
    check_seed(seed)


def _all_estimators(evaluations: int) -> list[Estimator]:
    """Return every estimator with its default arguments, and RF with other numbers of samples."""
    wide = {m for m in (4, min(evaluations, _WIDEST)) if m > 2}
    return [*(cls() for cls in ESTIMATORS.values()), *(LeaveOneOut(m) for m in sorted(wide))]


def _unaffordable(cost: float, evaluations: int) -> str:
    return f"one draw counts as {cost:g} evaluations of f, more than {evaluations}"


def _hopeless(ranked: pd.DataFrame) -> str | None:
    """Return why nothing is recommended, where no estimator is shown to make progress."""
    if not ranked["progress"].notna().any() or not is_no_better_than_0(ranked).all():
        return None
    first = ranked.iloc[0]
    error = f" ± {first['progress_se']:.1g}" if first["progress_se"] > 0 else ""
    return (
        "no estimator is shown to make progress: the most has "
        f"{first['estimator']}, {first['progress']:.2g}{error}, where an answer of 0 has 0; allow "
        "more evaluations, average more gradients (averaged), or measure with more draws"
    )


def _left_to_draws(on: Enumerated) -> str | None:
    """Return why all is left to draws, in words, or None if f is enumerated."""
    elements = [on] if isinstance(on, Enumeration) else on.elements
    try:
        for element in elements:
            check_states(element.logits)
    except TooLargeError:
        states = sum(math.log10(int(n)) for n in (probabilities(element.logits) > 0).sum(-1))
        why = f"f has about 10^{states:.1f} configurations"
    else:
        seconds = len(elements) * elements[0].sweep_seconds()
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


def _as_declared(rows: pd.DataFrame, replaced: set[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows with bias 0 where it is declared and not refuted, and what is refuted."""
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


def _budgets(evaluations: int) -> list[int]:
    """Return budgets, two to each doubling, and the given one."""
    steps = range(max(_LARGEST_BUDGET, evaluations).bit_length())
    return sorted({evaluations, *(2**k for k in steps), *(3 * 2**k // 2 for k in steps[1:-1])})
