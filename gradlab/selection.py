"""Which estimator, at which temperature, for a loss and a budget of evaluations.

`recommend` measures what can be used and ranks it at equal cost.
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from gradlab.comparison import DEFAULT_DRAWS, compare, with_temperatures
from gradlab.eligibility import GRADIENT_COST, cost, is_declared_exact, why_not
from gradlab.estimators import ESTIMATORS, Estimator, LeaveOneOut
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumeration
from gradlab.loss import Loss
from gradlab.moments import Measured
from gradlab.ranking import ranking
from gradlab.recommendation import Recommendation
from gradlab.reproducible import check_seed, single_thread

__all__ = ["TEMPERATURES", "recommend"]

TEMPERATURES = (0.032, 0.056, 0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0)
"""Four to a decade."""

# What costs more than so many budgets is not measured, nor a wider RF proposed.
_REACH, _WIDEST = 16, 64
# Rankings are made up to this budget, or the one asked for.
_LARGEST_BUDGET = 2**14
# A declared exactness is doubted when the measured squared bias is so many standard errors.
_DOUBT = 5


@single_thread()
def recommend(
    f: Loss,
    logits: Float[Tensor, "N C"],
    *,
    evaluations: int,
    must_be_unbiased: bool = False,
    estimators: Iterable[Estimator | str] | None = None,
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
    """Return estimators in the order of their error at equal cost, for f at these logits.

    With a budget of `evaluations` of f for a gradient an estimator averages as many draws as it can
    pay; one that needs grad f pays `gradient_cost` for each evaluation. Each is taken at its best
    temperature of `temperatures` (by default four to a decade, 0.03 to 10). `estimators`: by
    default all, RF with m = 2, 4 and all the budget. What cannot be used is listed with its reason:
    f without a gradient, too few evaluations, C > 2, with `must_be_unbiased` what is not declared
    exact for every f, or for the degree that a gradlab problem declares.

    The truth is enumerated, or else measured by `reference` (RF(m=4) where f cannot be enumerated)
    with `reference_draws`, by default 20 `draws`. What is declared exact counts as unbiased unless
    its draws say otherwise. float64. Raises ValueError for bad arguments or if nothing can be used,
    LossError for a bad f.
    """
    _check(evaluations, gradient_cost, seed)
    enumeration = Enumeration(f, logits)
    f, logits = enumeration.objective, enumeration.logits
    grid = TEMPERATURES if temperatures is None else temperatures
    chosen = _all_estimators(evaluations) if estimators is None else estimators
    cells = list(dict.fromkeys(with_temperatures(chosen, grid)))
    # A family is judged by the temperature at which it is exact to the highest degree.
    by_order = sorted(cells, key=lambda cell: cell.order)
    last = {cell.text(without="tau"): cell for cell in by_order}
    families = {series: last[series] for series in (c.text(without="tau") for c in cells)}
    variables, classes = logits.shape
    costs = {
        s: cost(family, classes, gradient_cost, variables=variables)
        for s, family in families.items()
    }
    reasons: dict[str, str] = {}
    for series, family in families.items():
        why = why_not(family, f, logits, must_be_unbiased=must_be_unbiased)
        if why is None and costs[series] > _REACH * evaluations:
            why = _unaffordable(costs[series], evaluations)
        if why is not None:
            reasons[series] = why
    if all(series in reasons or costs[series] > evaluations for series in families):
        told = (f"{s}: {reasons.get(s) or _unaffordable(costs[s], evaluations)}" for s in families)
        raise ValueError(
            f"no estimator can be used with {evaluations} evaluations of f: {'; '.join(told)}"
        )
    if reference is None and not _enumerates(enumeration):
        reference = LeaveOneOut(4)
    rows = compare(
        f,
        logits,
        [
            cell
            for cell in cells
            if cell.text(without="tau") not in reasons
            and (is_declared_exact(cell, f) or not must_be_unbiased)
        ],
        draws=draws,
        seed=seed,
        problem=problem,
        workers=workers,
        progress=progress,
        enumeration=enumeration,
        reference=reference,
        reference_draws=20 * draws if reference_draws is None else reference_draws,
    )
    declared = {str(cell): is_declared_exact(cell, f) for cell in cells}
    rows["declared"], rows["cost"] = rows["estimator"].map(declared), rows["series"].map(costs)
    trusted, notes = _as_declared(rows)
    curves = ranking(trusted, _budgets(evaluations))
    curves["asked"] = curves["evaluations"] == evaluations
    ranked = curves[curves["asked"]].drop(columns="asked")
    unused = [
        {
            "series": series,
            "estimator": series,
            "cost": costs[series],
            "reason": reasons.get(series) or _unaffordable(costs[series], evaluations),
        }
        for series in families
        if series not in set(ranked["series"])
    ]
    first = rows.iloc[0]
    return Recommendation(
        problem=first["problem"],
        size=(logits.shape[0], logits.shape[1]),
        evaluations=evaluations,
        gradient_cost=gradient_cost,
        must_be_unbiased=must_be_unbiased,
        truth=first.get("truth", "enumeration"),
        length2=Measured(first["truth2"], first.get("truth2_se", 0.0)),
        rows=rows,
        table=pd.DataFrame([*ranked.to_dict("records"), *unused], columns=[*ranked, "reason"]),
        curves=curves,
        notes=notes,
    )


def _check(evaluations: int, gradient_cost: float, seed: int) -> None:
    if not isinstance(evaluations, int) or evaluations < 1:
        raise ValueError(f"evaluations must be an int of at least 1, not {evaluations!r}")
    if not isinstance(gradient_cost, int | float) or not 1 <= gradient_cost < math.inf:
        raise ValueError(
            f"gradient_cost must be a number of evaluations of at least 1, not {gradient_cost!r}"
        )
    check_seed(seed)


def _all_estimators(evaluations: int) -> list[Estimator]:
    """Return every estimator with its default arguments, and RF with other numbers of samples."""
    wide = {m for m in (4, min(evaluations, _WIDEST)) if m > 2}
    return [*(cls() for cls in ESTIMATORS.values()), *(LeaveOneOut(m) for m in sorted(wide))]


def _unaffordable(cost: float, evaluations: int) -> str:
    return f"one draw counts as {cost:g} evaluations of f, more than {evaluations}"


def _enumerates(enumeration: Enumeration) -> bool:
    try:
        return bool(enumeration.values.mean.isfinite())
    except TooLargeError:
        return False


def _as_declared(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows with bias 0 where it is declared and not refuted, and what is refuted."""
    drawn = rows["declared"] & (rows["method"] != "exact") & rows["reason"].isna()
    refuted = drawn & (rows["bias2"] > _DOUBT * rows["bias2_se"])
    told = tuple(
        f"{row.estimator} declares to be exact here, but its squared bias is "
        f"{row.bias2 / row.bias2_se:.0f} standard errors above 0: see gradlab.verify."
        for row in rows[refuted].itertuples()
    )
    trusted = rows.copy()
    trusted.loc[drawn & ~refuted, ["bias2", "bias2_se"]] = 0.0
    for column in ("", "_se"):
        trusted.loc[drawn & ~refuted, f"mse{column}"] = trusted[f"variance{column}"]
    return trusted, told


def _budgets(evaluations: int) -> list[int]:
    """Return budgets, two to each doubling, and the one asked for."""
    steps = range(max(_LARGEST_BUDGET, evaluations).bit_length())
    return sorted({evaluations, *(2**k for k in steps), *(3 * 2**k // 2 for k in steps[1:-1])})
