"""A recommendation from rows that a probe measured while a model trained; nothing is computed."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import check_int
from gradlab.comparison.averaging import number_of_averaged
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost, cost
from gradlab.comparison.evidence import as_declared, unaffordable
from gradlab.comparison.over_steps import over_steps
from gradlab.comparison.recommendation import Recommendation
from gradlab.comparison.recommending import derived, ranked_curves, run_of, table_of
from gradlab.comparison.rows import COLUMNS, RUNS
from gradlab.estimators import Estimator, parse

__all__ = ["read_rows", "recommend_from_rows"]

# What rows must have, besides what newer versions of the probe write too.
_NEEDED = (
    *("step", "N", "C", "estimator", "series", "tau", "reason", "method", "draws", "truth"),
    "truth2",
    *(
        f"{name}{end}"
        for name in ("bias2", "variance", "mse", "cosine", "scale_free_variance")
        for end in ("", "_se")
    ),
)
# Columns of which all rows must have one value.
_SAME = ("N", "C", "data", "latent")


def recommend_from_rows(
    rows: pd.DataFrame,
    *,
    evaluations: int,
    averaged: float | None = None,
    momentum: float | None = None,
    must_be_unbiased: bool = False,
    steps: Container[int] | None = None,
    gradient_cost: float = GRADIENT_COST,
    problem: str = "a training run",
) -> Recommendation:
    """Return estimators in the order of their mean progress over the steps of a training.

    Progress at equal cost is that of `gradlab.recommend`, at each step that was measured. Its mean
    over the run predicts which estimators train well (the figure "prediction"). An estimator is
    ranked if it was measured at every step that counts, each series at the temperature with the
    most progress. Standard errors are those of measurement, at these steps.

    Args:
        rows: Rows of a `GradientProbe`, or of the CSV that `gradlab train vae --probe` writes.
            Columns `trained`, `seed` and `lr`, if there, tell several runs apart.
        evaluations: The budget: evaluations of f for one gradient.
        averaged: How many gradients are averaged, by default 10.
        momentum: In place of `averaged`: the momentum m of the optimizer. `averaged` is then
            (1 + m) / (1 - m).
        must_be_unbiased: Whether to rank only what is unbiased for every f.
        steps: The steps that count, such as `range(100, 2001)`; by default all.
        gradient_cost: What one evaluation of f with its gradient counts as.
        problem: What was trained, in the answer.

    Returns:
        The ranking. Its errors are relative to |g| at each step, and its cosine is the root of the
        mean square.

    Raises:
        ValueError: If the rows are not those of a probe, hold nothing that can be ranked, or are of
            several models.

    Example:
        >>> import torch
        >>> from gradlab import GradientProbe
        >>> probe = GradientProbe(["ST", "ZGR", "RF(m=4)"], every=1)
        >>> for step in range(3):  # of a training
        ...     logits = step * torch.arange(3.0).expand(8, 2, 3)
        ...     probe(step, lambda x: (x * torch.arange(3.0)).sum((-2, -1)) ** 2, logits)
        >>> recommend_from_rows(probe.rows, evaluations=4).best
        ['ST']
    """
    check_int("evaluations", evaluations, 1)
    check_gradient_cost(gradient_cost)
    averaged = number_of_averaged(averaged, None, momentum, elements=True)
    rows = _checked(rows)
    if steps is not None:
        there = sorted(rows["step"].unique().tolist())
        named = steps if isinstance(steps, list | tuple | set | frozenset) else []
        missing = [step for step in named if step not in there]
        rows = rows[[int(step) in steps for step in rows["step"]]]
        if missing or not len(rows):
            which = f"step {_listed(missing)}" if missing else "the steps that were asked for"
            raise ValueError(f"rows hold nothing of {which}; they have the steps {_listed(there)}")
    N, C = int(rows["N"].iloc[0]), int(rows["C"].iloc[0])
    known = {text: _parsed(text) for text in rows["estimator"].unique()}
    rows = rows.assign(
        cost=[_cost(known[row.estimator], row, N, C, gradient_cost) for row in rows.itertuples()],
        declared=[_is_exact(known[text]) for text in rows["estimator"]],
        problem=problem,
    )
    costs = rows.groupby("series", sort=False)["cost"].max().to_dict()
    reasons = {s: unaffordable(c, evaluations) for s, c in costs.items() if c > evaluations}
    if must_be_unbiased:
        biased = rows.loc[~rows["declared"], "series"].unique()
        reasons |= dict.fromkeys(biased, "not known to be unbiased for every f")
    usable = rows[~rows["series"].isin(reasons)]
    if not len(usable):
        told = "; ".join(f"{series}: {why}" for series, why in reasons.items())
        raise ValueError(f"no estimator can be used with {evaluations} evaluations of f: {told}")
    trusted, notes = as_declared(usable, set())
    names = ["step", *(name for name in RUNS if name in usable)]
    over = over_steps(usable, names, trusted)
    curves = ranked_curves(over.rows, evaluations, averaged, over.progress)
    table = table_of(curves, costs, over.reasons | reasons)
    head = rows.iloc[0]
    truths = list(dict.fromkeys(usable["truth"].dropna()))
    return Recommendation(
        problem=problem,
        size=(N, C),
        batch=int(head["batch"]) if "batch" in rows and pd.notna(head["batch"]) else None,
        evaluations=evaluations,
        averaged=averaged,
        averaged_from=derived(None, momentum),
        gradient_cost=gradient_cost,
        must_be_unbiased=must_be_unbiased,
        truth=" or ".join(truths),
        length2=over.length2,
        rows=rows.reset_index(drop=True),
        table=table,
        curves=curves,
        notes=over.notes + notes,
        run=run_of(over, table, averaged),
    )


def read_rows(file: str | Path) -> pd.DataFrame:
    """Return the rows of a CSV file, or raise ValueError if it is none."""
    try:
        return pd.read_csv(file, low_memory=False)
    except (
        OSError,
        ValueError,
    ) as error:  # the errors of pandas and of an encoding are ValueErrors
        why = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as a CSV of rows: {why}") from None


def _checked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a probe made, or raise ValueError if they are others."""
    if not isinstance(rows, pd.DataFrame):
        raise ValueError(f"rows must be a table of a GradientProbe, not {type(rows).__name__}")
    if not len(rows):
        raise ValueError("rows must not be empty: the probe was never due")
    missing = [name for name in _NEEDED if name not in rows]
    if missing:
        what = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"rows are not those of a GradientProbe: {', '.join(missing)} {what} missing"
        )
    # A CSV of a training has its curve beside what was probed.
    rows = rows[rows["truth2"].notna() | rows["reason"].notna()].reset_index(drop=True)
    if not rows["truth2"].notna().any():
        why = rows["reason"].dropna()
        told = f": {why.iloc[0]}" if len(why) else ": the column truth2 is empty"
        raise ValueError(f"rows hold no measured gradient{told}")
    for name in _SAME:
        if name in rows and rows[name].nunique() > 1:
            raise ValueError(
                f"rows are of several models: {name} is {_listed(rows[name].unique())}; give those "
                "of one"
            )
    newer = {"truth2_se": 0.0, "draws_needed": None, "note": None}
    rows = rows.assign(**{name: value for name, value in newer.items() if name not in rows})
    numbers = [name for name in (*_NEEDED, *newer) if COLUMNS[name].type.endswith("number")]
    try:
        numeric = rows[numbers].astype(float)
    except ValueError as error:
        raise ValueError(f"rows hold what is not a number: {error}") from None
    rows = rows.assign(**{name: numeric[name] for name in numbers})
    if (rows["truth2"].notna() & rows["reason"].isna() & rows["variance"].isna()).any():
        raise ValueError("rows are not those of a GradientProbe: variance is empty")
    return rows.assign(step=rows["step"].astype(int), truth2_se=rows["truth2_se"].fillna(0.0))


def _listed(values: Any) -> str:
    """Return values in a line, a few of many."""
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:5], "...", texts[-1]])


def _parsed(text: str) -> Estimator | None:
    """Return the estimator of this text; None for your own code."""
    try:
        return parse(text)
    except ValueError:
        return None


def _is_exact(estimator: Estimator | None) -> bool:
    return estimator is not None and estimator.order == float("inf")


def _cost(estimator: Estimator | None, row: Any, N: int, C: int, gradient_cost: float) -> float:
    """Return what one draw counts as; of your own code what the probe saw."""
    if estimator is not None:
        return cost(estimator, C, gradient_cost, variables=N)
    seen = getattr(row, "cost", None)
    if seen is None or pd.isna(seen):
        raise ValueError(
            f"rows do not say what {row.estimator} costs: it is not one of gradlab's estimators, "
            "and its column cost is empty"
        )
    return float(seen)
