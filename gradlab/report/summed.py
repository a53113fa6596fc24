"""Sections of the rows that sum up a sweep: who dominates whom, and who is best where."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.plots.quantities import share_leads
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["best_section", "domination_section"]

# Lines of the small table of who is best.
_FEW = 8


def domination_section(source: Source) -> Section:
    """Return the section of shares of one family that another dominates.

    Args:
        source: Rows of the kind "domination", of an atlas or of the figure trade-off.

    Returns:
        The section: medians over all cases, and the lead on each problem as a dot plot.

    Example:
        >>> case = {"scale": "raw", "problem": "mlp", "N": 4, "C": 4, "regime": "moderate"}
        >>> case |= {"logits_seed": 0, "series": "GR", "dominated_by": "ST-ZGR", "share": 0.75}
        >>> back = {"series": "ST-ZGR", "dominated_by": "GR", "share": 0.25}
        >>> rows = pd.DataFrame([case, case | back])
        >>> domination_section(Source("atlas.csv", rows, "domination")).lead
        'ST-ZGR dominates 75 % of GR, which dominates 25 % of it: raw, the median of 1 case.'
    """
    rows = source.rows.reset_index(drop=True)
    of_rival = rows[rows["dominated_by"] == _line(rows)]
    if not len(of_rival):
        return Section("Domination", "There are no rows.", [], [], rows, list(rows.columns))
    line = _line(rows)
    found = []
    for (rival, scale), part in of_rival.groupby(["series", "scale"], sort=False):
        back = rows[(rows["series"] == line) & (rows["dominated_by"] == rival)]
        shares = part["share"], back.loc[back["scale"] == scale, "share"]
        found.append((rival, scale, *(float(100 * s.median()) for s in shares), len(part)))
    rival, scale, share, other, number = found[0]
    table = [[r, s, f"{a:.0f} %", f"{b:.0f} %", f"{n:,}"] for r, s, a, b, n in found]
    header = ["rival", "scale", f"of the rival, by {line}", f"of {line}, by the rival", "cases"]
    leads = _leads(rows, line)
    unknown = rows[rows["share"].isna()]
    notes = [f"The rows below sum up {counted(len(rows), 'share')}, over their seeds."]
    if len(unknown):
        reasons = list(unknown["reason"].dropna().unique()) if "reason" in rows else []
        why = f": {listed(reasons)}" if reasons else ""
        notes.append(f"{counted(len(unknown), 'share')} could not be computed{why}.")
    return Section(
        "Domination",
        f"{line} dominates {share:.0f} % of {rival}, which dominates {other:.0f} % of it: {scale}, "
        f"the median of {counted(number, 'case')}.",
        [
            "A point is dominated where the other curve has less bias and less variance.",
            "Scale-free: estimates are rescaled so that their mean has the length of the gradient.",
        ],
        _asked(rows),
        leads,
        [c for c in _LEAD if c in leads],
        charts=[
            Chart(
                "leads",
                f"Lead of {line}",
                f"Right of 0 {line} dominates more of the rival than the rival dominates of it. "
                "Points are medians over seeds, lines are quartiles.",
                Axis("lead", _LEAD_TITLE, None, False),
                [Axis("lead", _LEAD_TITLE, None, False, ends=("lead_q25", "lead_q75"))],
                ["series"],
                "lead",
                starts_log=False,
                tooltip=[c for c in _LEAD if c in leads],
                by="place",
            )
        ],
        selects=[c for c in ("scale", "regime") if leads[c].nunique() > 1],
        small=[SmallTable("Shares that are dominated, medians over the cases", header, table)],
        notes=notes,
        told=source.told,
    )


_LEAD_TITLE = "lead in points"
_LEAD = ["place", "regime", "scale", "series", "lead", "lead_q25", "lead_q75", "seeds"]


def _line(rows: pd.DataFrame) -> str:
    """Return the family that all others are compared with: the one in every row."""
    counts = pd.concat([rows["dominated_by"], rows["series"]]).value_counts(sort=False)
    return str(counts.idxmax()) if len(counts) else ""


def _leads(rows: pd.DataFrame, line: str) -> pd.DataFrame:
    """Return the leads on each problem, size and kind of logits: median and quartiles."""
    groups = share_leads(rows, line).groupby(
        ["rival", "scale", "problem", "N", "C", "regime"], sort=False
    )
    table = groups.median().rename("lead").to_frame()
    table["lead_q25"], table["lead_q75"] = groups.quantile(0.25), groups.quantile(0.75)
    table["seeds"] = groups.size()
    table = table.reset_index().rename(columns={"rival": "series"})
    sizes = table[["N", "C"]].astype(int).astype(str)
    table["place"] = table["problem"] + " " + sizes["N"] + "x" + sizes["C"]
    order = list(dict.fromkeys(table["problem"]))
    return table.sort_values("problem", key=lambda p: p.map(order.index), kind="stable")


def best_section(source: Source) -> Section:
    """Return the section of who is best where, each at its best temperature.

    Args:
        source: Rows of the kind "best" of an atlas, and those that say what was left out.

    Returns:
        The section: who wins most, and the error of each relative to the best.

    Example:
        >>> case = {"problem": "mlp", "N": 4, "C": 4, "regime": "moderate", "criterion": "one draw"}
        >>> case |= {"seeds": 10, "series": "ST", "error": 0.1, "wins": 7, "method": "exact"}
        >>> rows = pd.DataFrame([case, case | {"series": "ZGR", "error": 0.2, "wins": 3}])
        >>> best_section(Source("atlas.csv", rows, "best")).lead
        'By the error of one draw, ST is best most often: in 70 % of 10 cases.'
    """
    rows = source.rows.reset_index(drop=True)
    rows = rows[rows["error"].notna()] if "error" in rows else rows[:0]
    if not len(rows):
        return Section("Who is best", "There are no rows.", [], [], source.rows, list(rows.columns))
    table = _relative(rows)
    lead: list[str] = []
    small: list[SmallTable] = []
    for criterion, part in table.groupby("criterion", sort=False):
        summed = part.groupby("series")[["wins", "seeds"]].sum()
        # Ties are won by all, and what was left out of some cases has fewer of its own.
        cases = int(summed["seeds"].max())
        summed["share"] = 100 * summed["wins"] / cases
        summed["ratio"] = part.groupby("series")["ratio"].median()
        summed = summed.sort_values(["share", "ratio"], ascending=[False, True], kind="stable")
        first = summed.iloc[0]
        lead.append(
            f"By {_words(str(criterion))}, {first.name} is best most often: in "
            f"{first['share']:.0f} % of {counted(cases, 'case')}."
        )
        lines = [
            [str(name), f"{row['share']:.0f} %", number_text(row["ratio"])]
            for name, row in summed.head(_FEW).iterrows()
        ]
        header = ["estimator", "best in", "error / smallest, median"]
        small.append(SmallTable(f"Best by {_words(str(criterion))}", header, lines))
    answer = [*lead[1:], "Each estimator stands at its own best temperature in each case."]
    left = source.rows[source.rows["count"].notna()] if "count" in source.rows else rows[:0]
    return Section(
        "Who is best",
        lead[0],
        answer,
        _asked(rows),
        table,
        [c for c in _BEST if c in table],
        charts=[
            Chart(
                "best",
                "Error relative to the smallest",
                "1 is the best there is. Points are medians over problems and sizes, lines are "
                "quartiles.",
                Axis("ratio", _RATIO_TITLE),
                [Axis("ratio", _RATIO_TITLE, ends=("ratio_q25", "ratio_q75"))],
                ["series"],
                "ratio",
                tooltip=[c for c in _BEST if c in table],
                by="series",
                sort=True,
            )
        ],
        selects=[c for c in ("criterion", "regime") if table[c].nunique() > 1],
        small=small,
        notes=[
            f"The rows below sum up {counted(len(rows), 'row')}, over problems and sizes.",
            *(
                f"Left out: {row['series']} ({counted(int(row['count']), 'row')}): {row['reason']}"
                for row in left.to_dict("records")
            ),
        ],
        told=source.told,
    )


_RATIO_TITLE = "error / smallest error"
_BEST = ["series", "criterion", "regime", "ratio", "ratio_q25", "ratio_q75", "wins", "seeds", "tau"]


def _words(criterion: str) -> str:
    if criterion == "progress":
        return criterion
    return f"the error {'of' if criterion == 'one draw' else 'at'} {criterion}"


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the errors relative to the smallest of their case: medians and quartiles."""
    case = ["problem", "N", "C", "regime", "criterion"]
    least = rows.groupby(case)["error"].transform("min")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (rows["error"] / least.where(least > 0)).replace([np.inf], np.nan)
    groups = rows.assign(ratio=ratio).groupby(["criterion", "regime", "series"], sort=False)
    table = groups["ratio"].median().to_frame()
    table["ratio_q25"], table["ratio_q75"] = (groups["ratio"].quantile(q) for q in (0.25, 0.75))
    table["wins"], table["seeds"] = groups["wins"].sum(), groups["seeds"].sum()
    if "tau" in rows:
        table["tau"] = groups["tau"].median()
    return table.reset_index()


def _asked(rows: pd.DataFrame) -> list[str]:
    told = [f"{counted(len(rows), 'row')} that sum up a sweep"]
    for name, thing in (("problem", "problems"), ("regime", "kinds of logits")):
        told.append(f"{thing}: {listed([_text(v) for v in rows[name].dropna().unique()])}")
    sizes = rows[["N", "C"]].dropna().astype(int).drop_duplicates()
    texts = [f"{n}x{c}" for n, c in sizes.itertuples(index=False)]
    told.append(f"sizes, variables x classes: {listed(texts)}")
    names = pd.unique(pd.concat([rows[c].dropna() for c in ("series",) if c in rows]))
    told.append(f"{len(names):,} estimators or families: {listed(list(names))}")
    return told


def _text(value: Any) -> str:
    return str(value)
