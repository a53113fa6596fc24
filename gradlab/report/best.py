"""The answer of measured rows: who makes the most progress at equal cost, on how many problems."""

import numpy as np
import pandas as pd

from gradlab.comparison.ranking import is_no_better_than_0, is_unmet, progress_at, ranking
from gradlab.comparison.rows import RUNS
from gradlab.report.sections import SmallTable, counted, listed

__all__ = ["CASE", "best_of", "wins"]

CASE = ("problem", "batch", "N", "C", "regime", "logits_seed", "K")
"""Columns that name what was measured on: loss, size, logits, and samples in the bound."""


def best_of(
    measured: pd.DataFrame, budget: float, averaged: float
) -> tuple[str, list[str], list[SmallTable]]:
    """Return which estimator is best on one problem, at one budget and at others.

    Args:
        measured: Rows of `gradlab.compare` that hold numbers.
        budget: Evaluations of f for one gradient.
        averaged: Gradients whose mean counts.

    Returns:
        The answer in one sentence, further sentences, and a table of budgets.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 3, 3), regime("moderate", 3, 3)
        >>> best_of(compare(f, logits, ["ZGR", "REINFORCE"]), 12, 10)[0].partition(":")[0]
        'At equal cost ZGR makes the most progress'
    """
    rows = measured if "draws_needed" in measured else measured.assign(draws_needed=np.nan)
    try:
        table = ranking(rows, [int(budget)], [averaged])
    except (ValueError, KeyError) as error:
        return f"The rows are not ranked: {error}.", [], []
    first = table.iloc[0]
    best = table[table["rank"] == 1]
    best = best[~is_no_better_than_0(best)]
    known = bool(pd.notna(first["progress"]))
    what = "makes the most progress" if known else "has the smallest error"
    reached = (
        f"{_pm(first['progress'], first['progress_se'])} of what a step along the true gradient "
        "gains"
        if known
        else f"{_pm(first['rmse'], first['rmse_se'])} {first['unit']}"
    )
    lead = f"At equal cost {first['estimator']} {what}: {reached}."
    if known and not len(best):
        lead = "At equal cost no estimator is shown to make progress."
    answer = [
        f"One gradient may cost {budget:g} evaluations of f, and {averaged:g} gradients are "
        "averaged. Each estimator counts at its best temperature, and the column cost says what "
        "one of its draws costs."
    ]
    if len(best) > 1:
        others = [name for name in best["estimator"] if name != first["estimator"]]
        answer.append(f"Not told apart from it (2 standard errors): {listed(others)}.")
    behind = table[table["rank"] > 1]
    if known and len(behind):
        second = behind.iloc[0]
        answer.append(
            f"Next is {second['estimator']} with {_pm(second['progress'], second['progress_se'])}."
        )
    if first["at_edge"]:
        answer.append(
            f"{first['estimator']} has its best temperature at the end of the grid; a better one "
            "may lie outside."
        )
    unmet = rows[is_unmet(rows)]
    if len(unmet):
        answer.append(
            f"Not ranked, because too few draws met what carries the variance: "
            f"{listed(sorted(set(unmet['estimator'])))}."
        )
    return lead, answer, _budgets(rows, averaged, budget) if known else []


def _pm(value: float, error: float) -> str:
    return f"{value:.3f}" + (f" ± {error:.1g}" if error > 0 else "")


def _budgets(rows: pd.DataFrame, averaged: float, asked: float) -> list[SmallTable]:
    """Return who is best at several budgets."""
    least = float(rows["cost"].min())
    budgets = sorted({int(asked), *(b for b in (1, 3, 6, 12, 25, 50, 100, 1000) if b >= least)})
    table = ranking(rows, budgets, [averaged])
    cells = []
    for budget, part in table.groupby("evaluations", sort=True):
        first, second = part.iloc[0], part.iloc[1] if len(part) > 1 else None
        cells.append(
            [
                f"{budget:,}" + (" (above)" if budget == int(asked) else ""),
                str(first["estimator"]),
                f"{first['draws_each']:g}",
                _pm(first["progress"], first["progress_se"]),
                "" if second is None else str(second["estimator"]),
                "" if second is None else _pm(second["progress"], second["progress_se"]),
            ]
        )
    header = ["evaluations of f", "best", "draws each", "progress", "second", "progress"]
    return [SmallTable("Best by progress at other budgets of one gradient", header, cells)]


def wins(
    measured: pd.DataFrame, budget: float, averaged: float, kind: str = "sweep"
) -> tuple[str, list[str], list[SmallTable]]:
    """Return how often each estimator is best over several problems, or over steps of a training.

    Args:
        measured: Rows that hold numbers.
        budget: Evaluations of f for one gradient.
        averaged: Gradients whose mean counts.
        kind: "sweep", "compare" or "probe".

    Returns:
        As `best_of`; each estimator counts at its best temperature, and equal ones share.

    Example:
        >>> from gradlab import compare
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 3, 3), regime("moderate", 3, 3)
        >>> rows = compare(f, logits, ["ZGR", "REINFORCE"])
        >>> twice = pd.concat([rows, rows.assign(logits_seed=1)])
        >>> wins(twice, 12, 10)[0]
        'At equal cost ZGR makes the most progress most often: in 2 of 2 cases.'
    """
    measured = measured.reset_index(drop=True)  # rows of several files share their numbers
    unmet = is_unmet(measured)
    rows = measured[~unmet & (measured["cost"] <= budget)]
    each = np.floor(budget / rows["cost"].to_numpy(float))
    value, error = progress_at(rows, each * averaged)
    rows = rows.assign(value=value, sure=value - 2 * np.nan_to_num(error))
    # A probe of several runs has a row for each run: by its estimator, seed and learning rate.
    run = (*RUNS, "step") if kind == "probe" else ()
    case = [name for name in (*CASE, *run) if name in rows]
    asked = rows.groupby(case, dropna=False).ngroups
    rows = rows[rows["value"].notna()]
    if not len(rows):
        return "No estimator has a progress at this budget.", [], []
    of = rows.groupby([*case, "series"], dropna=False, sort=False)
    best = rows.loc[of["sure"].idxmax()]
    top = best.groupby(case, dropna=False, sort=False)["sure"].transform("max") if case else None
    first = best[best["sure"] >= top * (1 - 1e-9)] if top is not None else best
    number = best.groupby(case, dropna=False, sort=False).ngroups
    thing = "step" if kind == "probe" else "case"
    counts = first["series"].value_counts()
    lead = (
        f"At equal cost {counts.index[0]} makes the most progress most often: in "
        f"{counts.iloc[0]:,} of {counted(number, thing)}."
    )
    median = best.groupby("series")["value"].median()
    low, high = (best.groupby("series")["value"].quantile(q) for q in (0.1, 0.9))
    there = best.groupby("series").size()
    order = sorted(median.index, key=lambda s: (-counts.get(s, 0), -median[s]))
    cells = [
        [
            str(s),
            f"{counts.get(s, 0):,}",
            f"{there[s]:,}",
            f"{median[s]:.3f}",
            f"{low[s]:.3f} to {high[s]:.3f}",
        ]
        for s in order
    ]
    header = ["estimator", "first", f"{thing}s", "median progress", "10 % to 90 %"]
    answer = [
        f"One gradient may cost {budget:g} evaluations of f, and {averaged:g} gradients are "
        "averaged. Each estimator counts at its best temperature in each "
        f"{thing}, less two standard errors; equal ones share the first place."
    ]
    if asked > number:
        answer.append(
            f"{counted(asked - number, thing)} of {asked:,} not counted: the gradient is 0, or "
            "lost in noise, so that there is no progress."
        )
    if thing == "case":
        told = "A case is a problem of one size, with one kind of logits and one seed"
        answer.append(f"{told}, at one K." if "K" in measured else f"{told}.")
    if unmet.any():
        answer.append(
            f"{counted(int(unmet.sum()), 'row')} of too few draws are not counted: they have not "
            "met what carries the variance."
        )
    return (
        lead,
        answer,
        [SmallTable(f"How often each is first, over {number:,} {thing}s", header, cells)],
    )
