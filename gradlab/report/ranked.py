"""The section of a recommendation: the ranking, and what happens at other budgets."""

import numpy as np
import pandas as pd

from gradlab.comparison.ranking import is_no_better_than_0
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.report.charts import Chart
from gradlab.report.measured import prepared
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["ranked_section"]

_SHOWN = ["rank", "estimator", "progress", "progress_se", "cost", "draws_each", "rmse", "rmse_se"]
_SHOWN += ["bias2", "variance", "cosine", "tau_low", "tau_high", "at_edge", "method", "draws"]


def ranked_section(source: Source) -> Section:
    """Return the section of a ranking.

    Args:
        source: Rows of a ranking, whose `curves` are those for other budgets; or such curves alone,
            in which `asked` marks the ranking.

    Returns:
        The section.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("linear", 4, 3), regime("moderate", 4, 3)
        >>> table = recommend(f, logits, evaluations=8, estimators=["ST", "REINFORCE"]).table
        >>> ranked_section(Source("mine", table, "recommend")).lead[:40]
        'ST makes the most progress: 1.000 of wha'
    """
    curves = source.curves if source.curves is not None else source.rows
    rows = _asked_rows(source.rows)
    # In a ranking bias2 and variance are relative already.
    rows = rows.assign(truth2=np.nan, reason=rows.get("reason"))
    rows = prepared(rows).drop(columns=["truth2", "rel_bias2", "rel_variance"], errors="ignore")
    rows = rows.drop(columns=[c for c in rows if c.startswith("rel_")])
    there = rows[rows["rank"].notna()]
    lead, answer = _answer(there)
    shown = [c for c in [*_SHOWN, *(["reason"] if rows["reason"].notna().any() else [])]]
    return Section(
        title="Recommendation",
        lead=lead,
        answer=answer,
        asked=_asked(there),
        rows=rows,
        shown=[c for c in shown if c in rows],
        charts=_plane(there) if len(there) else [],
        small=_other_budgets(curves, there),
        notes=_unused(rows),
        told=source.told,
    )


def _asked_rows(rows: pd.DataFrame) -> pd.DataFrame:
    if "asked" not in rows:
        return rows
    return rows[rows["asked"].map({True: True, "True": True}).fillna(False).astype(bool)]


def _answer(there: pd.DataFrame) -> tuple[str, list[str]]:
    if not len(there):
        return "Nothing is ranked; the reasons stand below.", []
    first = there.iloc[0]
    best = there[there["rank"] == 1]
    best = best[~is_no_better_than_0(best)]
    if pd.isna(first["progress"]):
        lead = (
            f"{first['estimator']} has the smallest error: {first['rmse']:.3g} {first['unit']}. "
            "The gradient is 0 or lost in noise, so that there is no progress to rank by."
        )
    elif not len(best):
        lead = "No estimator is shown to be better than an answer of 0."
    else:
        lead = (
            f"{first['estimator']} makes the most progress: {_pm(first, 'progress')} of what a "
            "step along the true gradient gains."
        )
    answer = []
    if len(best) > 1:
        others = [name for name in best["estimator"] if name != first["estimator"]]
        answer.append(f"Not told apart from it (2 standard errors): {listed(others)}.")
    behind = there[there["rank"] > 1]
    if len(behind) and pd.notna(first["progress"]):
        second = behind.iloc[0]
        answer.append(f"Next is {second['estimator']} with {_pm(second, 'progress')}.")
    low, high = first["tau_low"], first["tau_high"]
    if pd.notna(low):
        same = f"τ = {low:g}" if low == high else f"τ from {low:g} to {high:g}"
        answer.append(f"Temperatures as good as its best one: {same}.")
    last = there[is_no_better_than_0(there)]
    if len(last) and len(best):
        answer.append(f"Not shown to be better than 0: {listed(list(last['estimator']))}.")
    return lead, answer


def _pm(row: "pd.Series[float]", column: str) -> str:
    error = row[f"{column}_se"]
    return f"{row[column]:.3f}" + (f" ± {error:.1g}" if error > 0 else "")


def _asked(there: pd.DataFrame) -> list[str]:
    if not len(there):
        return []
    first = there.iloc[0]
    told = [f"problem: {first['problem']}"]
    if "regime" in there:
        told.append(f"logits: {first['regime']}")
    told.append(f"{first['evaluations']:,g} evaluations of f for one gradient")
    told.append(f"{first['averaged']:g} gradients are averaged")
    told.append(f"{counted(len(there), 'estimator')} ranked, each at its best temperature")
    return told


def _unused(rows: pd.DataFrame) -> list[str]:
    left = rows[rows["rank"].isna() & rows["reason"].notna()]
    return [
        f"{listed(list(part['series']), 8)}: {reason}"
        for reason, part in left.groupby("reason", sort=False)
    ]


def _other_budgets(curves: pd.DataFrame, there: pd.DataFrame) -> list[SmallTable]:
    """Return who is first at other budgets, and for other numbers of averaged gradients."""
    if not len(there) or "evaluations" not in curves:
        return []
    asked = there.iloc[0]
    found = []
    for column, fixed, what in (
        ("evaluations", "averaged", "budgets of one gradient"),
        ("averaged", "evaluations", "numbers of averaged gradients"),
    ):
        part = curves[curves[fixed] == asked[fixed]]
        if part[column].nunique() < 2:
            continue
        ordered = part.sort_values([column, "rank"], kind="stable")
        first = ordered.groupby(column)[["estimator", "series", "progress"]].first().reset_index()
        runs = (first["series"] != first["series"].shift()).cumsum()
        cells = []
        for _, run in first.groupby(runs):
            low, high = run[column].iloc[0], run[column].iloc[-1]
            span = f"{low:,g}" if low == high else f"{low:,g} to {high:,g}"
            here = " (asked)" if low <= asked[column] <= high else ""
            reached = f"{run['progress'].iloc[0]:.3f}"
            if len(run) > 1:
                reached += f" to {run['progress'].iloc[-1]:.3f}"
            cells.append([span + here, str(run["series"].iloc[0]), reached])
        header = [column, "first", "progress"]
        found.append(SmallTable(f"Who is first at other {what}", header, cells))
    return found


def _plane(there: pd.DataFrame) -> list[Chart]:
    unit = there["unit"].iloc[0]
    told = [c for c in _SHOWN if c in there]
    square = "|g|²" if unit == "|g|" else "f²"
    floor = SQUARE_ROUNDING if unit == "|g|" else 0.0
    bias = Axis("bias2", f"bias² of one gradient, in {square}", "bias2_se", True, floor)
    variance = Axis(
        "variance", f"variance of one gradient, in {square}", "variance_se", True, floor
    )
    text = (
        "Each estimator at its best temperature; a gradient is the mean of as many draws as the "
        "budget pays. Down is less noise, left is less bias."
    )
    lines = ["series"]
    progress = Axis("progress", "progress", "progress_se", False)
    rmse = Axis("rmse", f"error (RMSE) of one gradient, in {unit}", "rmse_se")
    beside = Chart(
        "progress",
        "Progress and error",
        "Progress against the error of one gradient: a small error alone does not move a model.",
        rmse,
        [progress],
        lines,
        "rank",
        x_switches=False,
        tooltip=told,
    )
    plane = Chart(
        "plane",
        "Bias² and variance",
        text,
        bias,
        [variance],
        lines,
        "rank",
        x_switches=True,
        tooltip=told,
    )
    return [plane, beside] if there["progress"].notna().any() else [plane]
