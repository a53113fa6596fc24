"""The section of policy gradients: who has the gradient of the target, and who gets furthest."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.comparison.ranking import progress_at
from gradlab.comparison.rows import AVERAGED
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.measured import is_measured, prepared
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["policies_section"]

# What names a case: the task, the policies, the target, and what figures vary.
_CASE = ("problem", "policy", "rollout", "target", "sampled", "horizon", "drift")
_SHOWN = ["estimator", "group", "method", "cost", "progress", "cosine", "rel_bias2", "rel_variance"]
# So many tables, and so many estimators in a sentence.
_MOST, _FEW = 6, 8


def policies_section(source: Source) -> Section:
    """Return the section of rows of `gradlab.sequences.compare`.

    Args:
        source: The rows, of one task and target or of several.

    Returns:
        The section: who is exact, who makes the most progress at equal sampled sequences, a plane
        and a table. What is unknown is said in a sentence.

    Example:
        >>> from gradlab.sequences import Tabular, compare, tasks
        >>> rows = compare(["RLOO", "GRPO"], Tabular(3, 3), tasks.lengthy())
        >>> policies_section(Source("mine", rows, "policy")).lead
        'RLOO has no bias for J; the bias of GRPO is 23 % of the gradient.'
    """
    rows = prepared(source.rows)
    if not len(rows):
        return Section("Policy gradients", "There are no rows.", [], [], rows, list(rows.columns))
    for name in ("problem", "target"):
        rows[name] = rows[name].fillna("not said").astype(str)
    measured = rows[is_measured(rows)]
    case = [c for c in _CASE if c in rows and rows[c].nunique(dropna=False) > 1]
    parts = list(measured.groupby(case, dropna=False, sort=False)) if case else [((), measured)]
    if not len(measured):
        lead, answer = "Nothing could be measured; the reasons stand below.", []
    elif len(parts) == 1:
        lead, answer = _bias_of(measured), _furthest(measured)
    else:
        lead, answer = _over_cases(measured, parts), []
    shown = [
        *case,
        *_SHOWN,
        *(c for c in ("draws", "reason") if c in rows and rows[c].notna().any()),
    ]
    return Section(
        "Policy gradients",
        lead,
        answer,
        _asked(rows),
        rows,
        [c for c in dict.fromkeys(shown) if c in rows],
        charts=[_plane(rows, [c for c in shown if c in rows])] if len(measured) else [],
        selects=case,
        small=[_table(part, case, key) for key, part in parts[:_MOST]] if len(measured) else [],
        notes=_unknown(rows, len(parts)),
        told=source.told,
    )


def _is_exact(rows: pd.DataFrame) -> "pd.Series[bool]":
    return (rows["method"] == "exact") & (rows["rel_bias2"] < SQUARE_ROUNDING)


def _is_resolved(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return where a bias is known: exact rows, and draws that tell it from 0."""
    error = rows.get("bias2_se", 0.0)
    return (rows["method"] == "exact") | (rows["bias2"] > 2 * error)


def _bias_of(rows: pd.DataFrame) -> str:
    """Return who has no bias and who has how much, in one sentence."""
    targets = listed(list(rows["target"].unique()))
    if rows["rel_bias2"].isna().all():
        return f"The gradient of {targets} is 0 or unknown, so that no bias is relative to it."
    exact = list(rows.loc[_is_exact(rows), "estimator"].unique())
    others = rows[~_is_exact(rows) & _is_resolved(rows)].sort_values("rel_bias2")
    has = "has" if len(exact) == 1 else "have"
    first = f"{listed(exact, _FEW)} {has} no bias for {targets}" if exact else ""
    if not len(others):
        return f"{first}." if first else f"No bias for {targets} is told from 0 by the draws."
    share = np.sqrt(others["rel_bias2"].to_numpy(float))
    names = list(others["estimator"])
    if len(names) == 1:
        said = f"the bias of {names[0]} is {_percent(share[0])} of the gradient"
    else:
        said = (
            f"others are biased, from {_percent(share[0])} of the gradient ({names[0]}) to "
            f"{_percent(share[-1])} ({names[-1]})"
        )
    return f"{first}; {said}." if first else f"None is exact for {targets}: {said}."


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else f"{100 * share:.1g} %"


def _furthest(rows: pd.DataFrame) -> list[str]:
    """Return who makes the most progress at equal sampled sequences."""
    table, budget, number = _at_equal_cost(rows)
    if table is None:
        return ["The rows do not say what an estimate costs, so that none is ranked at equal cost."]
    known = table[table["value"].notna()].sort_values("value", ascending=False, kind="stable")
    if not len(known):
        return [f"No estimator has a progress at {budget:g} sampled sequences."]
    best = known["value"].iloc[0]
    # Estimators that differ by a factor make the same progress.
    is_best = known["value"] > best - 1e-9
    names = list(known.loc[is_best, "estimator"])
    makes = "makes" if len(names) == 1 else "make"
    said = [
        f"At {budget:g} sampled sequences per gradient and {number:g} gradients averaged, "
        f"{listed(names, _FEW)} {makes} the most progress: {best:.3f} of what a step along the "
        "gradient of the target gains."
    ]
    if not is_best.all():
        second = known[~is_best].iloc[0]
        said.append(f"Next is {second['estimator']} with {second['value']:.3f}.")
    return said


def _at_equal_cost(rows: pd.DataFrame) -> "tuple[pd.DataFrame | None, float, float]":
    """Return rows with the progress `value` at the cost of the dearest one, that cost, and n."""
    needed = ("cost", "cosine", "scale_free_variance", "truth2")
    if any(name not in rows or rows[name].isna().all() for name in needed):
        return None, np.nan, np.nan
    said = rows["averaged"].dropna() if "averaged" in rows else pd.Series(dtype=float)
    budget, number = float(rows["cost"].max()), float(said.iloc[0] if len(said) else AVERAGED)
    each = np.floor(budget / rows["cost"].to_numpy(float))
    filled = rows.assign(**{c: 0.0 for c in _ERRORS if c not in rows})
    with np.errstate(divide="ignore", invalid="ignore"):
        value, _ = progress_at(filled, each * number)
    return rows.assign(value=value), budget, number


_ERRORS = ("cosine_se", "scale_free_variance_se")


def _over_cases(rows: pd.DataFrame, parts: list[Any]) -> str:
    """Return who is exact in all cases, in one sentence."""
    asked = rows.groupby("estimator").size()
    free = rows[_is_exact(rows)].groupby("estimator").size().reindex(asked.index, fill_value=0)
    always = list(free.index[(free == asked) & (asked == asked.max())])
    if always:
        has = "has" if len(always) == 1 else "have"
        return f"{listed(always, _FEW)} {has} no bias in any of {len(parts)} cases."
    return f"None is exact in all of {len(parts)} cases."


def _asked(rows: pd.DataFrame) -> list[str]:
    said = [f"{counted(len(rows), 'row')} of gradlab.sequences.compare"]
    for name, thing in (("problem", "task"), ("policy", "policy"), ("target", "target")):
        if name in rows:
            values = [str(v) for v in rows[name].dropna().unique()]
            said.append(f"{thing}: {listed(values, _FEW)}")
    rollouts = rows["rollout"].dropna().unique() if "rollout" in rows else []
    if len(rollouts):
        said.append(f"sequences are sampled by a rollout policy: {listed(list(rollouts), _FEW)}")
    elif "rollout" in rows:
        said.append("sequences are sampled by the policy itself")
    else:
        said.append("the rows do not say which policy sampled")
    return said


def _table(rows: pd.DataFrame, case: list[str], key: Any) -> SmallTable:
    """Return bias, direction, noise and progress of each estimator of one case."""
    table, budget, _ = _at_equal_cost(rows)
    value = [np.nan] * len(rows) if table is None else table["value"]
    resolved = _is_resolved(rows)
    cells = []
    for (_, row), sure, progress in zip(rows.iterrows(), resolved, value, strict=True):
        bias = np.sqrt(max(row["rel_bias2"], 0.0)) if pd.notna(row["rel_bias2"]) else np.nan
        if not sure:
            error = row["bias2_se"] * row["rel_bias2"] / row["bias2"] if row["bias2"] else 0.0
            bias = np.sqrt(max(row["rel_bias2"], 0.0) + 2 * abs(error))
        cells.append(
            [
                str(row["estimator"]),
                _number(row.get("group")),
                ("below " if not sure else "")
                + ("0" if sure and bias < SQUARE_ROUNDING**0.5 else _number(bias)),
                _number(row.get("cosine")),
                _number(np.sqrt(row["rel_variance"])),
                _number(progress),
                str(row["method"]),
            ]
        )
    names = key if isinstance(key, tuple) else (key,)
    where = ", ".join(f"{c} {v}" for c, v in zip(case, names, strict=False))
    title = "Bias, direction and noise of each estimator"
    header = ["estimator", "G", "bias / |g|", "cosine", "s.d. / |g|", "progress", "method"]
    if np.isfinite(budget):
        header[5] = f"progress, {budget:g} sequences"
    return SmallTable(f"{title}: {where}" if where else title, header, cells)


def _number(value: Any) -> str:
    return "unknown" if value is None or pd.isna(value) else number_text(float(value))


def _unknown(rows: pd.DataFrame, cases: int) -> list[str]:
    """Return what is not known of which estimators and why, one sentence for each reason."""
    notes = []
    for column, what in (("reason", "is unknown"), ("error", "is unknown"), ("note", "has a note")):
        if column in rows:
            for reason, part in rows[rows[column].notna()].groupby(column, sort=False):
                notes.append(f"{listed(list(part['estimator'].unique()), _FEW)} {what}: {reason}")
    measured = rows[is_measured(rows)]
    loose = measured[~_is_resolved(measured)]
    if len(loose):
        names = listed(list(loose["estimator"].unique()), _FEW)
        notes.append(f"The draws do not tell the bias of {names} from 0; it is unknown below that.")
    if len(measured) and measured["rel_bias2"].isna().any():
        notes.append("Where the gradient of the target is 0, what is relative to it is unknown.")
    if cases > 1 and _at_equal_cost(measured)[0] is None:
        notes.append("The progress at equal sequences is unknown: the rows do not say the costs.")
    if cases > _MOST:
        notes.append(
            f"Tables of {cases - _MOST} more cases are not written out; the rows have all."
        )
    return notes


def _plane(rows: pd.DataFrame, told: list[str]) -> Chart:
    def axis(name: str, title: str) -> Axis:
        error = f"rel_{name}_se"
        there = error if error in rows else None
        return Axis(f"rel_{name}", f"{title} / |g|²", there, True, SQUARE_ROUNDING)

    return Chart(
        "plane",
        "Bias² and variance",
        "Down is less noise, left is less bias for the target. Pale points are exact, full ones by "
        "draws, with bars of ± one standard error. A point is one estimate, made from one group.",
        axis("bias2", "bias²"),
        [axis("variance", "variance of one estimate")],
        [c for c in (*_CASE, "series", "method") if c in rows],
        "group",
        x_switches=True,
        tooltip=told,
    )
