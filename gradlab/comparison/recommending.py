"""Which estimator, at which temperature, for a loss and a budget of evaluations.

`recommend` measures what can be used and ranks it by progress at equal cost.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_int
from gradlab.comparison.averaging import number_of_averaged
from gradlab.comparison.comparing import DEFAULT_DRAWS
from gradlab.comparison.cost_measured import MEASURED, measured_gradient_cost
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost
from gradlab.comparison.evidence import Evidence, Settings, gathered
from gradlab.comparison.over_steps import OverSteps, over_steps
from gradlab.comparison.ranking import (
    ProgressOf,
    is_no_better_than_0,
    progress_at,
    ranking,
)
from gradlab.comparison.recommend_structures import gathered_on
from gradlab.comparison.recommendation import Recommendation, Run
from gradlab.estimators import Estimator
from gradlab.exact.moments import Enumerated, enumerated
from gradlab.exact.sampled_structures import structured_or_sampled
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.loss import Loss
from gradlab.moments import Measured
from gradlab.progress import tracked
from gradlab.reproducible import check_seed, single_thread
from gradlab.user_code.under_test import Code

__all__ = ["TEMPERATURES", "derived", "ranked_curves", "recommend", "run_of", "table_of"]

TEMPERATURES = (0.032, 0.056, 0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0)
"""The default grid of temperatures, four to a decade."""

# Rankings are made up to this budget, or the given one.
_LARGEST_BUDGET = 2**14
# Numbers of gradients for which rankings are made besides.
_NUMBERS = tuple(float(round(10 ** (k / 4))) for k in range(0, 21))

Snapshots = Sequence[tuple[Loss, Float[Tensor, "*batch N C"]]]
"""Pairs of a loss and its logits, such as those of one training at several steps."""


@single_thread()
def recommend(
    f: Loss | Enumerated | Structured | Snapshots,
    logits: Float[Tensor, "*shape"] | None = None,
    *,
    evaluations: int,
    averaged: float | None = None,
    batch: int | None = None,
    momentum: float | None = None,
    must_be_unbiased: bool = False,
    estimators: Iterable[Code] | None = None,
    temperatures: Sequence[float] | None = None,
    gradient_cost: float | str = GRADIENT_COST,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    reference: Estimator | str | None = None,
    reference_draws: int | None = None,
    problem: str | None = None,
    workers: int = 1,
    progress: bool = False,
    distribution: DistributionOf | None = None,
) -> Recommendation:
    """Return estimators in the order of their progress at equal cost, for f at these logits.

    A gradient is the mean of as many draws as the budget pays; your own code that declares no cost
    pays for what it is seen to evaluate. Progress, in [-1, 1], is what a step along the mean of
    `averaged` gradients gains, relative to a step along the true one (`Moments.progress`). What
    cannot be used is listed with its reason. What is declared exact counts as unbiased unless its
    draws contradict this. What is not shown to make progress is ranked below a line, never first.

    Args:
        f: The loss, x [..., N, C] -> values [...], or f(x, logits) marked by
            `gradlab.with_parameters`. For logits [B, N, C] it maps x [..., B, N, C] to
            [..., B], and all numbers are of the B elements together. An `Enumeration` or an
            `EnumeratedBatch` stands in place of f and logits. So does a list of pairs (f, logits),
            snapshots of a training: progress is then the mean over them.
        logits: Logits [N, C] or [B, N, C].
        evaluations: The budget: evaluations of f for one gradient.
        averaged: How many gradients are averaged, at least 1. By default 10, with which progress
            predicts training best (the figure "prediction").
        batch: In place of `averaged`: how many draws at these logits one step averages; see
            `gradlab.comparison.averaging.averaged_gradients`.
        momentum: In place of `averaged`: the momentum m of the optimizer. `averaged` is then
            batch (1 + m) / (1 - m).
        must_be_unbiased: Whether to rank only what is declared exact, for every f or this problem.
        estimators: Estimators, texts or your own code; by default all, and RF of several sizes.
        temperatures: The grid of temperatures; by default `TEMPERATURES`.
        gradient_cost: What one evaluation of f with its gradient counts as. "measured" times both
            on this machine, so that the ranking depends on it.
        draws: Draws of what is not measured exactly; more, within half a minute, where they miss
            states that carry the variance. What would still miss them is not ranked.
        seed: The seed of all draws, an int in [0, 2^63).
        reference: Measures the truth; by default only where f cannot be enumerated, by RF(m=4).
        reference_draws: The draws of the reference; by default 20 times `draws`.
        problem: The name of f in the answer.
        workers: The number of threads; does not change the result.
        progress: Whether to print the plan and show a progress bar on stderr.
        distribution: What x is drawn from instead of independent categorical variables, a function
            from parameters of any shape, given as `logits`; see `gradlab.compare`.

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
    check_int("evaluations", evaluations, 1)
    check_seed(seed)
    structure, too_large = None, ""
    if distribution is not None or isinstance(f, Structured):
        structure, too_large = structured_or_sampled(f, logits, distribution)
    snapshots = [] if structure is not None else _snapshots(f, logits)  # type: ignore[arg-type]
    first = snapshots[0] if snapshots else None
    elements = first is not None and first.logits.ndim == 3
    averaged = number_of_averaged(averaged, batch, momentum, elements=elements)
    asked = first or structure
    assert asked is not None
    counted = _gradient_cost(gradient_cost, asked, evaluations)
    settings = Settings(
        evaluations=evaluations,
        averaged=averaged,
        must_be_unbiased=must_be_unbiased,
        gradient_cost=counted.value,
        draws=draws,
        seed=seed,
        reference=reference,
        reference_draws=reference_draws,
        problem=problem,
        workers=workers,
        progress=progress,
    )
    grid = TEMPERATURES if temperatures is None else temperatures
    chosen = None if estimators is None else list(estimators)
    shown = progress and len(snapshots) > 1
    if structure is not None:
        found = [gathered_on(structure, too_large, chosen, grid, settings)]
    else:
        found = [
            gathered(on, chosen, grid, settings)
            for on in tracked(snapshots, "recommend", "snapshots", shown=shown)
        ]
    one = structure is not None or isinstance(f, Enumerated) or callable(f)
    over = None if one else _together(found)
    rows = pd.concat([e.rows for e in found], ignore_index=True) if over else found[0].rows
    notes = found[0].notes if over is None else _once(n for e in found for n in e.notes)
    reasons = {k: v for evidence in found for k, v in evidence.reasons.items()}
    if over is None:
        curves = ranked_curves(found[0].trusted, evaluations, averaged)
    else:
        curves = ranked_curves(over.rows, evaluations, averaged, over.progress)
        notes, reasons = over.notes + notes, over.reasons | reasons
    table = table_of(curves, found[0].costs, reasons)
    head = rows.iloc[0]
    return Recommendation(
        problem=head["problem"],
        size=None if first is None else (first.logits.shape[-2], first.logits.shape[-1]),
        batch=len(first.logits) if first is not None and elements else None,
        evaluations=evaluations,
        averaged=averaged,
        averaged_from=derived(batch, momentum),
        gradient_cost=counted.value,
        gradient_cost_se=counted.se if gradient_cost == MEASURED else None,
        must_be_unbiased=must_be_unbiased,
        truth=head["truth"],
        length2=over.length2 if over else Measured(head["truth2"], head["truth2_se"]),
        rows=rows,
        table=table,
        curves=curves,
        notes=notes,
        run=None if over is None else run_of(over, table, averaged),
        distribution="" if structure is None else structure.text,
    )


def _snapshots(f: Loss | Enumerated | Snapshots, logits: Tensor | None) -> list[Enumerated]:
    """Return the enumerations that f stands for, one for each snapshot."""
    if isinstance(f, Enumerated) or callable(f):
        return [enumerated(f, logits)]
    if logits is not None:
        raise ValueError("logits must be left out where f is a list of pairs (f, logits)")
    pairs = list(f)
    if not pairs or any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
        raise ValueError("f must be a loss, an enumeration or a list of pairs (f, logits)")
    found = [enumerated(loss, at) for loss, at in pairs]
    shapes = {tuple(on.logits.shape) for on in found}
    if len(shapes) > 1:
        raise ValueError(f"all snapshots must have logits of one shape, not {sorted(shapes)}")
    return found


def _gradient_cost(given: float | str, on: Enumerated | Structured, evaluations: int) -> Measured:
    """Return what f with its gradient counts as: the number, or measured."""
    if given == MEASURED:
        return measured_gradient_cost(on, evaluations)
    if isinstance(given, str):
        raise ValueError(f'gradient_cost must be a number or "{MEASURED}", not {given!r}')
    check_gradient_cost(given)
    return Measured(given, 0.0)


def derived(batch: int | None, momentum: float | None) -> str:
    """Return what the number of averaged gradients was derived from, in words."""
    parts = [] if batch is None else [f"batch {batch:,}"]
    return ", ".join(parts if momentum is None else [*parts, f"momentum {momentum:g}"])


def _once(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the notes; of several on one estimator, from several snapshots, the first."""
    alike: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        alike.setdefault(note.partition(":")[0], []).append(note)
    more = " So it is at other snapshots, in other numbers."
    return tuple(some[0] + (more if len(some) > 1 else "") for some in alike.values())


def _together(found: Sequence[Evidence]) -> OverSteps:
    """Return the rows of all snapshots as one."""
    rows, trusted = (
        pd.concat(
            [table.assign(snapshot=number) for number, table in enumerate(tables)],
            ignore_index=True,
        )
        for tables in ([e.rows for e in found], [e.trusted for e in found])
    )
    return over_steps(rows, ["snapshot"], trusted)


def ranked_curves(
    trusted: pd.DataFrame,
    evaluations: int,
    averaged: float,
    progress: ProgressOf = progress_at,
) -> pd.DataFrame:
    """Return the rankings for many budgets, and for many numbers of averaged gradients.

    The column `asked` marks the ranking of the question.

    Args:
        trusted: Rows with a `cost`.
        evaluations: The budget that is asked about.
        averaged: The number of gradients that is asked about.
        progress: How progress follows from rows.

    Returns:
        Rows of `ranking`.

    Raises:
        ValueError: If nothing can be ranked, or no estimator is shown to make progress.
    """
    others = [number for number in _NUMBERS if number != averaged]
    curves = pd.concat(
        [
            ranking(trusted, _budgets(evaluations), [averaged], progress),
            ranking(trusted, [evaluations], others, progress),
        ],
        ignore_index=True,
    )
    curves["asked"] = (curves["evaluations"] == evaluations) & (curves["averaged"] == averaged)
    if (hopeless := _hopeless(curves[curves["asked"]])) is not None:
        raise ValueError(hopeless)
    return curves


def table_of(
    curves: pd.DataFrame, costs: dict[str, float], reasons: dict[str, str]
) -> pd.DataFrame:
    """Return the ranking of the question, and below it what is not ranked, with its reason.

    Args:
        curves: From `ranked_curves`.
        costs: What one draw of each series counts as.
        reasons: Why a series is not ranked.

    Returns:
        The columns of a ranking, and `reason`.
    """
    ranked = curves[curves["asked"]].drop(columns="asked")
    there = set(ranked["series"])
    unused = [
        {"series": series, "estimator": series, "cost": cost, "reason": reasons[series]}
        for series, cost in costs.items()
        if series not in there
    ]
    return pd.DataFrame([*ranked.to_dict("records"), *unused], columns=[*ranked, "reason"])


def run_of(over: OverSteps, table: pd.DataFrame, averaged: float) -> Run:
    """Return which moments a ranking is a mean over, and what is first at each of them.

    Args:
        over: The rows of the moments.
        table: The ranking.
        averaged: How many gradients are averaged.

    Returns:
        What the words of a recommendation say of a run.
    """
    ranked = table[table["rank"].notna()]
    many = ranked["draws_each"].to_numpy(float) * averaged
    value, _ = over.at_moments(ranked["estimator"], many)
    first = ranked["series"].iloc[value.argmax(0)].value_counts(sort=False)
    named = over.moments
    return Run(
        moments=len(named),
        steps=tuple(int(step) for step in named["step"].unique()) if "step" in named else (),
        runs=len(named.drop(columns=["step", "snapshot"], errors="ignore").drop_duplicates()),
        lengths=over.lengths,
        firsts=tuple((str(s), int(n)) for s, n in first.sort_values(ascending=False).items()),
    )


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


def _budgets(evaluations: int) -> list[int]:
    """Return budgets, two to each doubling, and the given one."""
    steps = range(max(_LARGEST_BUDGET, evaluations).bit_length())
    return sorted({evaluations, *(2**k for k in steps), *(3 * 2**k // 2 for k in steps[1:-1])})
