"""Sections of measured rows: a comparison, a sweep, a probe. The answer is the best at equal cost."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.comparison.ranking import (
    is_no_better_than_0,
    is_unmet,
    progress_at,
    ranking,
)
from gradlab.comparison.rows import AVERAGED
from gradlab.plots.names import series_of
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["best_of", "measured_section", "prepared", "wins"]

CASE = ("problem", "batch", "N", "C", "regime", "logits_seed")
"""Columns that name what was measured on: loss, size and logits."""

_RANKED = ("cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se", "truth2", "cost")
_TOLD = ("estimator", "tau", "method", "cost", "equal_progress", "progress", "cosine")
_TOLD += ("rel_bias2", "rel_bias2_se", "rel_variance", "rel_variance_se", "draws")


def prepared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns that every section needs, and those relative to |g|².

    Args:
        rows: Rows of compare, sweep or probe; other columns stay as they are.

    Returns:
        A copy with `series`, `tau`, `method`, `reason`, `size` and `rel_bias2`, `rel_variance`,
        `rel_mse` with their errors. Where the gradient is 0 these are empty.

    Example:
        >>> rows = pd.DataFrame({"estimator": ["ST"], "bias2": 1.0, "variance": 2.0, "truth2": 4.0})
        >>> prepared(rows)["rel_bias2"].tolist()
        [0.25]
    """
    rows = rows.reset_index(drop=True).copy()
    rows["estimator"] = rows["estimator"].astype(str)
    if "series" not in rows:
        rows["series"] = rows["estimator"].map(series_of)
    rows["series"] = rows["series"].fillna(rows["estimator"]).astype(str)
    for name, value in (("tau", np.nan), ("method", "not said"), ("reason", None)):
        if name not in rows:
            rows[name] = value
    if {"N", "C"} <= set(rows):
        whole = rows[["N", "C"]].apply(pd.to_numeric, errors="coerce").astype("Int64").astype(str)
        rows["size"] = whole["N"] + "x" + whole["C"]
    names = [n for n in dict.fromkeys(_NUMBERS) if n in rows]
    rows[names] = rows[names].apply(pd.to_numeric, errors="coerce")
    length = rows["truth2"].where(rows["truth2"] > 0) if "truth2" in rows else np.nan
    for name in ("bias2", "variance", "mse"):
        for column in (name, f"{name}_se"):
            if column in rows:
                rows[f"rel_{column}"] = rows[column] / length
    return rows


_NUMBERS = ("bias2", "bias2_se", "variance", "variance_se", "mse", "mse_se", "truth2", "tau")
_NUMBERS += ("progress", "progress_se", "draws", *_RANKED)


def is_measured(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows hold numbers."""
    there = rows["reason"].isna() & rows["bias2"].notna()
    return there & rows["error"].isna() if "error" in rows else there


def measured_section(source: Source, evaluations: int | None, averaged: float | None) -> Section:
    """Return the section of rows of compare, sweep or probe.

    Args:
        source: The rows.
        evaluations: Budget of one gradient; None for the cost of the dearest estimator.
        averaged: Gradients whose mean counts; None for what the rows say.

    Returns:
        The section.

    Example:
        >>> rows = pd.DataFrame({"estimator": ["ST"], "bias2": 1.0, "variance": 2.0, "truth2": 4.0})
        >>> section = measured_section(Source("mine", rows, "compare"), None, None)
        >>> section.lead
        'The rows have no column cosine: they are shown, but not ranked at equal cost.'
    """
    rows = prepared(source.rows)
    measured = rows[is_measured(rows)]
    lead, answer, small = _answer(rows, measured, evaluations, averaged, source.kind)
    if lead.startswith("At equal cost") or small:
        budget, number = _question(measured, evaluations, averaged)
        each = np.floor(budget / measured["cost"].to_numpy(float))
        with np.errstate(divide="ignore", invalid="ignore"):
            value, _ = progress_at(measured, np.where(each >= 1, each * number, np.nan))
        rows.loc[measured.index, "equal_progress"] = value
    varying = [c for c in (*CASE, "size", "trained") if c in rows and _several(rows[c])]
    selects = [c for c in varying if c not in ("N", "C", "logits_seed")]
    if source.kind != "probe":
        selects += [c for c in ("logits_seed",) if c in varying]
    if _several(rows["method"]):
        selects.append("method")
    told = [c for c in [*selects, *_TOLD] if c in rows]
    told = list(dict.fromkeys(["step", *told] if source.kind == "probe" else told))
    return Section(
        title=_TITLES[source.kind],
        lead=lead,
        answer=answer,
        asked=_asked(rows, source.kind),
        rows=rows,
        shown=list(dict.fromkeys([*told, *(["reason"] if rows["reason"].notna().any() else [])])),
        charts=_charts(rows, measured, told, source.kind),
        selects=selects,
        small=small,
        notes=_unmeasured(rows),
        told=source.told,
    )


_TITLES = {"compare": "Comparison", "sweep": "Sweep", "probe": "Probe of a training"}


def _several(values: "pd.Series[Any]") -> bool:
    return values.nunique(dropna=False) > 1


def _question(
    measured: pd.DataFrame, evaluations: int | None, averaged: float | None
) -> tuple[float, float]:
    """Return the budget and the number of averaged gradients."""
    budget = float(evaluations or measured["cost"].max())
    said = measured["averaged"].dropna() if "averaged" in measured else pd.Series(dtype=float)
    return budget, float(averaged or (said.iloc[0] if len(said) else AVERAGED))


def _answer(
    rows: pd.DataFrame,
    measured: pd.DataFrame,
    evaluations: int | None,
    averaged: float | None,
    kind: str,
) -> tuple[str, list[str], list[SmallTable]]:
    if not len(rows):
        return "There are no rows.", [], []
    if not len(measured):
        return "Nothing could be measured; the reasons stand below.", [], []
    missing = [name for name in _RANKED if name not in measured]
    if missing:
        told = f"{'column' if len(missing) == 1 else 'columns'} {listed(missing)}"
        return f"The rows have no {told}: they are shown, but not ranked at equal cost.", [], []
    budget, number = _question(measured, evaluations, averaged)
    if kind == "probe" or len(_cases(measured)) > 1:
        return wins(measured, budget, number, kind)
    return best_of(measured, budget, number)


def _cases(rows: pd.DataFrame) -> list[Any]:
    there = [name for name in CASE if name in rows]
    if not there:
        return [()]
    return list(rows.groupby(there, dropna=False, sort=False).groups)


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
        "averaged. f with its gradient counts as the rows say in cost. Each estimator counts at "
        "its best temperature."
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
                f"{budget:,}" + (" (asked)" if budget == int(asked) else ""),
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
        'At equal cost ZGR makes the most progress most often: in 2 of 2 problems.'
    """
    unmet = is_unmet(measured)
    rows = measured[~unmet & (measured["cost"] <= budget)]
    each = np.floor(budget / rows["cost"].to_numpy(float))
    value, error = progress_at(rows, each * averaged)
    rows = rows.assign(value=value, sure=value - 2 * np.nan_to_num(error))
    case = [name for name in (*CASE, "trained", "step") if name in rows]
    rows = rows[rows["value"].notna()]
    if not len(rows):
        return "No estimator has a progress at this budget.", [], []
    of = rows.groupby([*case, "series"], dropna=False, sort=False)
    best = rows.loc[of["sure"].idxmax()]
    top = best.groupby(case, dropna=False, sort=False)["sure"].transform("max") if case else None
    first = best[best["sure"] >= top * (1 - 1e-9)] if top is not None else best
    number = best.groupby(case, dropna=False, sort=False).ngroups
    thing = "step" if kind == "probe" else "problem"
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
    if unmet.any():
        answer.append(
            f"{counted(int(unmet.sum()), 'row')} of too few draws are not counted: they have not "
            "met what carries the variance."
        )
    return lead, answer, [SmallTable(f"How often each is first, over {number:,} {thing}s", header, cells)]


def _asked(rows: pd.DataFrame, kind: str) -> list[str]:
    if not len(rows):
        return []
    told = [f"{counted(len(rows), 'row')} of gradlab {'GradientProbe' if kind == 'probe' else kind}"]
    for name, thing in (
        ("problem", "problem"),
        ("size", "size"),
        ("regime", "kind of logits"),
        ("logits_seed", "seed"),
        ("step", "step"),
        ("trained", "trained estimator"),
    ):
        if name in rows and len(values := rows[name].dropna().unique()):
            many = "kinds of logits" if thing.startswith("kind") else f"{thing}s"
            if name in ("logits_seed", "step") and len(values) > 1:
                told.append(f"{len(values):,} {many}")
            elif len(values) == 1:
                told.append(f"{thing}: {_text(values[0])}")
            else:
                told.append(f"{len(values):,} {many}: {listed([_text(v) for v in values], 6)}")
    told.append(f"{rows['series'].nunique():,} estimators: {listed(list(rows['series'].unique()))}")
    taus = np.sort(rows["tau"].dropna().unique())
    if len(taus):
        told.append(
            f"{counted(len(taus), 'temperature')} from {taus[0]:g} to {taus[-1]:g}"
            if len(taus) > 1
            else f"temperature {taus[0]:g}"
        )
    return told


def _text(value: object) -> str:
    if isinstance(value, (int, float, np.integer, np.floating)):
        return number_text(float(value))
    return str(value)


def _unmeasured(rows: pd.DataFrame) -> list[str]:
    """Return why rows have no numbers, each reason once."""
    notes = []
    for column, what in (("reason", "Not measured"), ("error", "Failed"), ("note", "Note")):
        if column not in rows:
            continue
        for reason, part in rows[rows[column].notna()].groupby(column, sort=False):
            names = list(part["series"].unique())
            notes.append(f"{what}: {listed(names, 8)} ({counted(len(part), 'row')}): {reason}")
    if len(notes) > 20:
        notes = [*notes[:20], f"{len(notes) - 20:,} more reasons stand in the rows."]
    return notes


def _charts(
    rows: pd.DataFrame, measured: pd.DataFrame, told: list[str], kind: str
) -> list[Chart]:
    if not len(measured):
        return []
    relative = bool(measured["rel_bias2"].notna().any())
    before, unit = ("rel_", " / |g|²") if relative else ("", "")
    floor = SQUARE_ROUNDING if relative else 0.0

    def axis(name: str, title: str, least: float = floor) -> Axis:
        error = f"{before}{name}_se"
        return Axis(f"{before}{name}", title + unit, error if error in rows else None, True, least)

    bias, variance = axis("bias2", "bias²"), axis("variance", "variance of one draw")
    lines = [c for c in (*CASE, "trained", "series", "method") if c in rows]
    progress = [
        Axis(name, title, None, False)
        for name, title in (
            ("equal_progress", "progress at equal cost"),
            ("progress", "progress, cost aside"),
            ("cosine", "cosine with the gradient"),
        )
        if name in rows and rows[name].notna().any()
    ]
    squares = [bias, variance, *([axis("mse", "MSE of one draw")] if "mse" in rows else [])]
    plane = Chart(
        "plane",
        "Bias² and variance",
        "Down is less noise, left is less bias. Pale points are exact, full ones by draws, with "
        "bars of ± one standard error. Temperatures of an estimator are joined.",
        bias,
        [variance],
        lines,
        "step" if kind == "probe" else "tau",
        x_switches=True,
        tooltip=told,
    )
    if kind == "probe" and measured["step"].nunique() > 1:
        steps = Axis("step", "training step", None, False)
        text = "How the gradient estimates change while the model trains."
        return [Chart("steps", "During the training", text, steps, [*progress, *squares], lines, "step", tooltip=told), plane]
    if measured["tau"].nunique() < 2:
        return [plane]
    tau = Axis("tau", "temperature τ")
    text = "Dashed lines are estimators that have no temperature."
    curves = Chart("curves", "Temperature", text, tau, [*progress, *squares], lines, "tau", tooltip=told)
    return [plane, curves]
