"""The sections of verdicts: what holds, what fails, and the evidence of each in plain words."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.plots.names import series_of
from gradlab.report.charts import Chart
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["judged_section", "planted_section", "relations_section"]

_SHOWN = ["estimator", "problem", "K", "degree", "regime", "dtype", "outcome", "holds", "bias"]
_SHOWN += ["bias_se", "limit", "unit", "method", "judged", "draws", "reason"]
# More verdicts than this are evidence for a table, not for reading one by one.
_MOST = 40
# What rows call draws; those before 0.5 say "draws".
_BY_DRAWS = ("monte carlo", "draws")
# So many are named in the answer.
_FEW = 12


def judged_section(source: Source) -> Section:
    """Return the section of verdicts, of one loss or of a ladder of losses.

    Args:
        source: Rows of `Verdict.row` or `Ladder.rows`, as `gradlab verify --out` writes them.

    Returns:
        The section.

    Example:
        >>> row = {"estimator": "ZGR", "problem": "linear", "outcome": "UNBIASED", "holds": True}
        >>> rows = pd.DataFrame([row | {"bias": 0.0, "method": "exact"}])
        >>> judged_section(Source("verify.csv", rows, "verify")).lead
        'ZGR: UNBIASED. As declared, or as asked.'
    """
    rows = source.rows.reset_index(drop=True).copy()
    if not len(rows):
        return Section("Verdicts", "There are no verdicts.", [], [], rows, list(rows.columns))
    rows["holds"] = [_flag(value) for value in rows["holds"]] if "holds" in rows else None
    rows["evidence"] = [_evidence(row) for row in rows.to_dict("records")]
    lead, answer = _answer(rows)
    told = [*dict.fromkeys(str(e) for e in rows["estimator"])]
    asked = [f"{counted(len(rows), 'verdict')} on {listed(told)}"]
    problems = list(dict.fromkeys(rows["problem"].astype(str))) if "problem" in rows else []
    if problems:
        asked.append(
            f"{counted(len(problems), 'loss').replace('losss', 'losses')}: {listed(problems, 4)}"
        )
    for name, what in (
        ("delta", "a bias below this share counts as none, by draws"),
        ("alpha", "rate of false alarms"),
        ("seed", "seed of the draws"),
    ):
        if name in rows and len(values := rows[name].dropna().unique()):
            asked.append(f"{what}: {listed([f'{value:.3g}' for value in values])}")
    failing = rows[rows["holds"] == "no"]
    of = failing if len(rows) > _MOST else rows
    evidence = [
        (
            f"{row['estimator']} on {row.get('problem', 'its loss')}: {row['outcome']}",
            row["evidence"],
        )
        for row in of.head(_MOST).to_dict("records")
    ]
    if source.kind == "ladder":
        evidence = [pair for pair in evidence if len(failing)]
    return Section(
        title="Verdicts on losses of rising degree" if source.kind == "ladder" else "Verdicts",
        lead=lead,
        answer=answer,
        asked=asked,
        rows=rows,
        shown=[c for c in _SHOWN if c in rows],
        small=[_matrix(rows)] if source.kind == "ladder" else [],
        told=source.told,
        evidence=evidence,
        kept=[c for c in ("estimator", "outcome", "holds") if c in rows],
        charts=_pictures(rows, source.kind),
        selects=[c for c in ("regime", "dtype") if c in rows and rows[c].nunique() > 1],
    )


_TOLD = ["estimator", "problem", "outcome", "bias", "bias_se", "limit", "delta", "draws", "reason"]
# A bias below this is rounding, in lengths of the gradient.
_ROUNDING = 1e-12


def _pictures(rows: pd.DataFrame, kind: str) -> list[Chart]:
    """Return the picture of biases against what would count as none; it adds columns to rows.

    `line` names the line of a verdict, `allowed` is the bias that counts as none, and `from` and
    `to` are the ends of what the bias may be.
    """
    if "bias" not in rows or not rows["bias"].notna().any():
        return []
    rows["series"] = rows["estimator"].map(lambda name: series_of(str(name)))
    drawn = rows["bias"].notna() & (rows["outcome"] != "NOT APPLICABLE")
    left_out = int((~drawn).sum())
    several = "problem" in rows and rows["problem"].nunique() > 1
    ladder = kind == "ladder"
    if ladder:
        rows["line"] = rows["kind"].astype(str)
    else:
        rows["line"] = rows["estimator"].astype(str)
        if several:
            rows["line"] += " on " + rows["problem"].astype(str)
        worst = rows[drawn].assign(fails=rows["holds"] == "no")
        worst = worst.sort_values(["fails", "bias"], ascending=False, kind="stable")
        drawn &= rows.index.isin(worst.index[:_MOST])
        left_out = int((~drawn).sum())
    rows["line"] = rows["line"].where(drawn)
    exact = rows["method"] == "exact" if "method" in rows else pd.Series(False, rows.index)
    bar = "bias_se" in rows and not ladder
    span = {"limit", "bias_se"} <= set(rows) and not ladder
    if span:
        ends = rows["limit"].where(drawn & ~exact & np.isfinite(rows["limit"].astype(float)))
        rows["to"] = ends.astype(float)
        rows["from"] = rows["bias"].where(ends.notna())
    if "delta" in rows and not ladder:
        rows["allowed"] = rows["delta"].where(drawn & ~exact).astype(float)
    units = [str(u) for u in rows.loc[drawn, "unit"].unique()] if "unit" in rows else ["|g|"]
    said = units[0] if len(units) == 1 else "unit as in the table"
    told = ["Each point is the bias of one verdict: left is better, 0 is no bias."]
    if (exact & drawn).any():
        told.append("Pale points are proved by enumeration.")
    if span and (drawn & ~exact).any():
        told.append(
            "Full points are from draws. Thick bars are ± one standard error. The thin line ends "
            "at the bound that holds with the confidence asked for. The black stroke is the bias "
            "that counts as none: a verdict UNBIASED needs the thin line to end left of it."
        )
    if left_out:
        told.append(f"Not drawn: {counted(left_out, 'verdict')} {_why(rows, drawn)}.")
    axis = Axis(
        "bias",
        f"length of the bias ({said})",
        "bias_se" if bar and (rows["bias_se"] > 0).any() else None,
        True,
        _ROUNDING,
        ("from", "to") if span and rows["to"].notna().any() else None,
    )
    return [
        Chart(
            "evidence",
            "Biases on each kind of loss" if ladder else "Biases and what counts as none",
            " ".join(told),
            axis,
            [axis],
            ["line"],
            "bias",
            starts_log=False,
            tooltip=[name for name in [*_TOLD, *(["degree"] if ladder else [])] if name in rows],
            by="line",
            marks="allowed" if "allowed" in rows and rows["allowed"].notna().any() else "",
        )
    ]


def _why(rows: pd.DataFrame, drawn: "pd.Series[bool]") -> str:
    """Return why verdicts are not drawn."""
    rest = rows[~drawn]
    without = rest["bias"].isna() | (rest["outcome"] == "NOT APPLICABLE")
    return "without a bias" if without.all() else f"beside the {_MOST} that matter most"


def _flag(value: Any) -> str:
    """Return whether something holds as a word; it is empty where nothing is declared."""
    text = str(value).lower()
    return {"true": "yes", "false": "no", "1.0": "yes", "0.0": "no"}.get(text, "")


def _answer(rows: pd.DataFrame) -> tuple[str, list[str]]:
    failing = rows[rows["holds"] == "no"]
    counts = rows["outcome"].value_counts()
    told = listed([f"{number:,} {outcome}" for outcome, number in counts.items()])
    answer = []
    if len(failing):
        lead = _of_whom(failing, "not as declared, or as asked")
        if len(failing) < len(rows):
            answer.append(f"Outcomes of {counted(len(rows), 'verdict')}: {told}.")
    elif len(rows) <= _FEW:
        how = "as declared, or as asked" if (rows["holds"] == "yes").all() else ""
        lead = _of_whom(rows, how)
    else:
        lead = f"No verdict is against what is declared or asked: {told}."
    if "method" in rows:
        exact = int((rows["method"] == "exact").sum())
        answer.append(
            f"By enumeration, which is a proof up to rounding: {exact:,}. By draws: "
            f"{int(rows['method'].isin(_BY_DRAWS).sum()):,}."
        )
    return lead, answer


def _of_whom(rows: pd.DataFrame, how: str) -> str:
    """Return the outcomes and who has them, as one sentence."""
    parts = [
        f"{listed(list(dict.fromkeys(part['estimator'].astype(str))), 6)}: {outcome}"
        for outcome, part in rows.groupby("outcome", sort=False)
    ]
    return "; ".join(parts) + (f". {how[0].upper()}{how[1:]}." if how else ".")


def _evidence(row: dict[Any, Any]) -> str:
    """Return what a verdict rests on, from its row."""

    def there(name: str) -> bool:
        return name in row and not pd.isna(row[name]) and row[name] != ""

    unit = row.get("unit", "|g|") if there("unit") else "|g|"
    told = []
    exact = row.get("method") == "exact"
    if there("bias") and row["outcome"] != "NOT APPLICABLE":
        error = f" ± {row['bias_se']:.2g}" if there("bias_se") and row["bias_se"] > 0 else ""
        told.append(f"Bias {row['bias']:.3g}{error} {unit}.")
    if exact:
        told.append("Every x was enumerated.")
    elif there("draws"):
        told.append(f"{row['draws']:,.0f} draws.")
    if there("limit"):
        kind = "up to rounding of" if exact else "with confidence below"
        told.append(f"The bias is known {kind} {row['limit']:.2g} {unit}.")
    if there("slope") and row["outcome"] == "BIASED":
        told.append(f"Along the gradient the mean is {row['slope']:.3g} times it.")
    if there("factor"):
        told.append(f"The factor {row['factor']} explains it.")
    if there("needed"):
        told.append(f"About {row['needed']:,.0f} draws would decide.")
    if there("unseen_rate"):
        told.append(f"Events rarer than {row['unseen_rate']:.1g} may not have been seen.")
    if there("judged"):
        told.append(f"Judged: {row['judged']}.")
    if there("claimed"):
        told.append(
            "It declares to be exact here."
            if _flag(row["claimed"]) == "yes"
            else "It does not declare to be exact here."
        )
    if there("reason"):
        told.append(f"{row['reason']}.")
    return " ".join(told)


def _matrix(rows: pd.DataFrame) -> SmallTable:
    """Return estimators against kinds of losses; a cell is the largest bias at any size."""
    kinds = list(dict.fromkeys(rows["kind"].astype(str)))
    cells = []
    for estimator, part in rows.groupby("estimator", sort=False):
        line = [str(estimator)]
        for kind in kinds:
            line.append(_cell(part[part["kind"].astype(str) == kind]))
        holds = "no" if (part["holds"] == "no").any() else "yes"
        cells.append([*line, holds if (part["holds"] != "").any() else ""])
    return SmallTable(
        "The largest bias on each kind of loss, at all sizes and logits, in lengths of the "
        "gradient. 0: none, proved. <: by draws, a larger one is excluded. ?: not decided. "
        "-: cannot be used",
        ["estimator", *kinds, "holds"],
        cells,
    )


def _cell(rows: pd.DataFrame) -> str:
    biased = rows[rows["outcome"] == "BIASED"]
    if len(biased):
        largest = biased["bias"].max()
        return (
            "biased"
            if pd.isna(largest)
            else f"{largest:.0%}"
            if largest >= 0.0095
            else f"{largest:.1g}"
        )
    if (rows["outcome"] == "INCONCLUSIVE").any():
        return "?"
    known = rows[rows["outcome"] == "UNBIASED"]
    if not len(known):
        return "-" if len(rows) else ""
    if (known["method"] == "exact").all() if "method" in known else False:
        return "0"
    return f"<{known['delta'].max():.3g}" if "delta" in known else "<"


def relations_section(source: Source) -> Section:
    """Return the section of relations between means, from verify-relations.csv.

    Args:
        source: The rows.

    Returns:
        The section.

    Example:
        >>> rows = pd.DataFrame({"relation": ["A = B"], "holds": [True]})
        >>> relations_section(Source("r", rows, "relations")).lead
        'All 1 relation between means holds.'
    """
    rows = source.rows
    wrong = [
        str(r)
        for r, holds in zip(rows["relation"], rows["holds"], strict=True)
        if _flag(holds) != "yes"
    ]
    number = counted(len(rows), "relation")
    lead = f"All {number} between means hold{'s' if len(rows) == 1 else ''}."
    if wrong:
        lead = f"{counted(len(wrong), 'relation')} between means fail: {listed(wrong)}."
    return Section(
        "Relations between means", lead, [], [], rows, list(rows.columns), told=source.told
    )


def planted_section(source: Source) -> Section:
    """Return the section of planted errors, from verify-planted.csv.

    Args:
        source: The rows.

    Returns:
        The section.

    Example:
        >>> rows = pd.DataFrame({"planted": ["1/2 dropped"], "outcome": ["BIASED"]})
        >>> planted_section(Source("p", rows, "planted")).lead
        'All 1 planted error is found.'
    """
    rows = source.rows
    found = rows["outcome"].isin(["BIASED", "REFUSED"])
    lead = f"All {counted(len(rows), 'planted error')} {'is' if len(rows) == 1 else 'are'} found."
    if not found.all():
        lead = f"Not found: {listed([str(name) for name in rows.loc[~found, 'planted']])}."
    return Section("Planted errors", lead, [], [], rows, list(rows.columns), told=source.told)
