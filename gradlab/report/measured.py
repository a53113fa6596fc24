"""Sections of measured rows, of a comparison, a sweep or a probe: who is best at equal cost."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.comparison.ranking import progress_at
from gradlab.comparison.rows import AVERAGED, RUNS
from gradlab.plots.names import series_of
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.report.best import CASE, best_of, wins
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["is_measured", "measured_section", "prepared"]

_RANKED = ("cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se", "truth2", "cost")
_TOLD: tuple[str, ...] = (
    "estimator",
    "tau",
    "method",
    "cost",
    "equal_progress",
    "progress",
    "cosine",
)
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
    numbers = rows[names].apply(pd.to_numeric, errors="coerce")
    rows[names] = numbers.replace([np.inf, -np.inf], np.nan)
    length = rows["truth2"].where(rows["truth2"] > 0) if "truth2" in rows else np.nan
    for name in ("bias2", "variance", "mse"):
        for column in (name, f"{name}_se"):
            if column in rows:
                rows[f"rel_{column}"] = rows[column] / length
    return rows


_NUMBERS: tuple[str, ...] = (
    "bias2",
    "bias2_se",
    "variance",
    "variance_se",
    "mse",
    "mse_se",
    "truth2",
    "tau",
)
_NUMBERS += ("progress", "progress_se", "draws", *_RANKED)


def is_measured(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows hold numbers.

    Args:
        rows: Rows that `prepared` returned.

    Returns:
        One bool per row.

    Example:
        >>> rows = pd.DataFrame({"reason": [None, "too large"], "bias2": [1.0, np.nan]})
        >>> is_measured(rows).tolist()
        [True, False]
    """
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
        >>> section.lead.partition(": ")[2]
        'they are shown, but not ranked at equal cost.'
    """
    rows = _drawable_first(prepared(source.rows))
    measured = rows[is_measured(rows)]
    lead, answer, small = _answer(rows, measured, evaluations, averaged, source.kind)
    if lead.startswith("At equal cost") or small:
        budget, number = _question(measured, evaluations, averaged)
        each = np.floor(budget / measured["cost"].to_numpy(float))
        with np.errstate(divide="ignore", invalid="ignore"):
            value, _ = progress_at(measured, np.where(each >= 1, each * number, np.nan))
        rows.loc[measured.index, "equal_progress"] = value
    run = RUNS if source.kind == "probe" else ()
    varying = [c for c in (*CASE, "size", *run) if c in rows and _several(rows[c])]
    selects = [c for c in varying if c not in ("N", "C", "logits_seed", "K")]
    if source.kind != "probe":
        selects += [c for c in ("logits_seed",) if c in varying]
    exact = {c for c in _TOLD if c.endswith("_se") and c in rows and not (rows[c] > 0).any()}
    by_k = ["K"] if "K" in varying else []
    told = [c for c in [*selects, *by_k, *_TOLD] if c in rows and c not in exact]
    selects = _independent(rows, selects)
    if _several(rows["method"]):
        selects.append("method")
    told = list(dict.fromkeys(["step", *told] if source.kind == "probe" else told))
    return Section(
        title="Bounds of K samples" if "bound" in rows else _TITLES[source.kind],
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


def _drawable_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with problems at the end whose gradient is 0: a menu shows its first one."""
    if "problem" not in rows:
        return rows
    empty = rows.groupby("problem", dropna=False)["rel_bias2"].transform("count") == 0
    return rows.iloc[np.argsort(empty.to_numpy(), kind="stable")].reset_index(drop=True)


def _independent(rows: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the columns that those before them do not decide, as a problem may decide its size."""
    kept: list[str] = []
    for name in columns:
        if not kept or (rows.groupby(kept, dropna=False)[name].nunique(dropna=False) > 1).any():
            kept.append(name)
    return kept


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
    by = there if len(there) > 1 else there[0]
    return list(rows.groupby(by, dropna=False, sort=False).groups)


def _asked(rows: pd.DataFrame, kind: str) -> list[str]:
    if not len(rows):
        return []
    verb = "GradientProbe" if kind == "probe" else "bounds" if "bound" in rows else kind
    told = [f"{counted(len(rows), 'row')} of gradlab {verb}"]
    for name, thing in (
        ("problem", "problem"),
        ("size", "size"),
        ("regime", "kind of logits"),
        ("logits_seed", "seed"),
        ("K", "number of samples K"),
        ("step", "step"),
        ("trained", "trained estimator"),
        *([("seed", "seed"), ("lr", "learning rate")] if kind == "probe" else []),
    ):
        if name in rows and len(values := rows[name].dropna().unique()):
            many = _PLURALS.get(name, f"{thing}s")
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


_PLURALS = {"regime": "kinds of logits", "K": "numbers of samples K"}


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


def _charts(rows: pd.DataFrame, measured: pd.DataFrame, told: list[str], kind: str) -> list[Chart]:
    if not len(measured):
        return []
    relative = bool(measured["rel_bias2"].notna().any())
    before, unit = ("rel_", " / |g|²") if relative else ("", "")
    floor = SQUARE_ROUNDING if relative else 0.0

    def axis(name: str, title: str, least: float = floor) -> Axis:
        error = f"{before}{name}_se"
        return Axis(f"{before}{name}", title + unit, error if error in rows else None, True, least)

    bias, variance = axis("bias2", "bias²"), axis("variance", "variance of one draw")
    run = RUNS if kind == "probe" else ()
    lines = [c for c in (*CASE, *run, "series", "method") if c in rows and c != "K"]
    across_k = "K" in measured and measured["K"].nunique() > 1
    order = "step" if kind == "probe" else "K" if across_k else "tau"
    joined = {"step": "Steps", "K": "Numbers of samples K", "tau": "Temperatures"}[order]
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
        "bars of ± one standard error. "
        f"{joined} of an estimator are joined.",
        bias,
        [variance],
        lines,
        order,
        x_switches=True,
        tooltip=told,
    )
    if kind == "probe" and measured["step"].nunique() > 1:
        steps = Axis("step", "training step", None, False)
        text = "How the gradient estimates change while the model trains."
        return [
            Chart(
                "steps",
                "During the training",
                text,
                steps,
                [*progress, *squares],
                lines,
                "step",
                tooltip=told,
            ),
            plane,
        ]
    if across_k:
        samples = Axis("K", "samples K in the bound")
        text = "What one more sample in the bound brings the gradient."
        quantities = [*progress, *squares]
        chart = Chart("samples", "Samples", text, samples, quantities, lines, "K", tooltip=told)
        return [chart, plane]
    if measured["tau"].nunique() < 2:
        return [plane]
    tau = Axis("tau", "temperature τ")
    text = "Dashed lines are estimators that have no temperature."
    curves = Chart(
        "curves", "Temperature", text, tau, [*progress, *squares], lines, "tau", tooltip=told
    )
    return [plane, curves]
