"""The sections of what theory predicts: cold temperatures, ends of descent, factors of prompts."""

import numpy as np
import pandas as pd

from gradlab.plots.names import series_of
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["ends_section", "factors_section", "laws_section"]

# Of P(b = 1): an end this near to what is predicted counts as met.
_NEAR = 0.05


def laws_section(source: Source) -> Section:
    """Return the section of differences that vanish with the temperature, beside their laws.

    Args:
        source: Rows of the figure cold-limit.

    Returns:
        The section.

    Example:
        >>> row = {"problem": "mlp", "quantity": "mean", "estimator": "GS-ST(tau=0.1)"}
        >>> row |= {"tau": 0.1, "difference": 0.21, "law": 0.2, "power": 1, "slope": 1.02}
        >>> import pandas as pd
        >>> laws_section(Source("cold-limit.csv", pd.DataFrame([row]), "laws")).lead
        'The fitted slopes are within 0.02 of those that theory predicts.'
    """
    rows = source.rows.reset_index(drop=True).copy()
    if not len(rows):
        return Section("Laws", "There are no rows.", [], [], rows, list(rows.columns))
    rows["series"] = rows["estimator"].map(lambda name: series_of(str(name)))
    rows["size of the difference"] = rows["difference"].abs()
    rows["size of the law"] = rows["law"].abs()
    keys = [c for c in ("problem", "quantity", "series") if c in rows]
    lead, small = "Differences to the limit, beside what theory predicts.", []
    if "slope" in rows and rows["slope"].notna().any():
        fits = rows.dropna(subset=["slope"]).groupby(keys, sort=False)[["power", "slope"]].first()
        worst = float((fits["slope"] - fits["power"]).abs().max())
        lead = f"The fitted slopes are within {worst:.2g} of those that theory predicts."
        cells = [
            [
                *map(str, key if isinstance(key, tuple) else (key,)),
                f"{fit.power:g}",
                f"{fit.slope:.3f}",
            ]
            for key, fit in zip(fits.index, fits.itertuples(), strict=True)
        ]
        header = [*keys, "power of tau, predicted", "fitted"]
        small = [SmallTable("Powers of the temperature", header, cells)]
    selects = [c for c in ("problem", "quantity") if c in rows and rows[c].nunique() > 1]
    both = [
        Axis("size of the difference", "size of the difference to the limit"),
        Axis("size of the law", "size of what theory predicts"),
    ]
    told = [c for c in ("estimator", "tau", *keys, "difference", "law", "power") if c in rows]
    return Section(
        title="Laws",
        lead=lead,
        answer=["A law is the leading term: it holds the better, the colder it is."],
        asked=[
            f"{counted(len(rows), 'row')} of {listed(list(rows['series'].unique()))}",
            f"temperatures from {rows['tau'].min():g} to {rows['tau'].max():g}",
        ],
        rows=rows,
        shown=list(dict.fromkeys([*told, *(["slope"] if "slope" in rows else [])])),
        charts=[
            Chart(
                "laws",
                "Differences and laws",
                "The menu shows what was measured, or what theory predicts.",
                Axis("tau", "temperature τ"),
                both,
                [*keys],
                "tau",
                tooltip=list(dict.fromkeys(told)),
            )
        ],
        selects=selects,
        small=small,
        told=source.told,
    )


def ends_section(source: Source) -> Section:
    """Return the section of where descent ends, beside where theory says that it does.

    Args:
        source: Rows of the figure toys.

    Returns:
        The section.

    Example:
        >>> row = {"toy": "t", "estimator": "ST", "step": 9, "q": 0.01, "loss": 0.3, "least": 0.2}
        >>> import pandas as pd
        >>> rows = pd.DataFrame([row | {"predicted": 0.02, "limit": 0.0}])
        >>> ends_section(Source("toys.csv", rows, "ends")).lead
        'In 1 of 1 run descent ends within 0.05 in P(b = 1) of what theory predicts.'
    """
    rows = source.rows.reset_index(drop=True).copy()
    if not len(rows):
        return Section("Ends of descent", "There are no rows.", [], [], rows, list(rows.columns))
    rows["estimator"] = rows["estimator"].astype(str)
    # In verdicts `limit` is another thing.
    rows = rows.rename(columns={"limit": "limit_q"})
    rows["series"] = rows["estimator"].map(series_of)
    rows["reason"] = rows.get("reason", None)
    rows["run"] = rows["estimator"]
    if "fitted" in rows:
        rows["run"] += np.where(rows["fitted"].astype(str) == "True", ", fitted", "")
    ends = rows.dropna(subset=["least"])
    predicted = ends.dropna(subset=["predicted"]) if "predicted" in ends else ends.iloc[:0]
    near = int(((predicted["q"] - predicted["predicted"]).abs() <= _NEAR).sum())
    lead = (
        f"In {near} of {counted(len(predicted), 'run')} descent ends within {_NEAR:g} in P(b = 1) "
        "of what theory predicts."
    )
    # The curves are many rows, and the ends are the answer.
    rows = rows[rows["least"].notna() | rows["reason"].notna()].reset_index(drop=True)
    best = ends.loc[ends.groupby("toy", sort=False)["loss"].idxmin()]
    answer = [
        f"{row['toy']}: {row['run']} reaches the smallest loss, {number_text(row['loss'])}; the "
        f"least is {number_text(row['least'])}."
        for row in best.to_dict("records")
    ]
    rows["end"] = rows["q"]
    rows["foreseen"] = rows.get("predicted", None)
    reasons = rows[rows["reason"].notna()]
    names = [
        c for c in ("run", "toy", "step", "q", "predicted", "loss", "limit_q", "least") if c in rows
    ]
    return Section(
        title="Ends of descent",
        lead=lead,
        answer=answer,
        asked=[
            f"{counted(rows['toy'].nunique(), 'toy')}: {listed(list(rows['toy'].unique()))}",
            f"{rows['series'].nunique():,} estimators: {listed(list(rows['series'].unique()))}",
        ],
        rows=rows,
        shown=names,
        charts=[
            Chart(
                "ends",
                "Where descent ends",
                "Points are P(b = 1) at the end: 0 is best. Black strokes are by theory.",
                Axis("end", "P(b = 1) at the end", None, False),
                [Axis("end", "P(b = 1) at the end", None, False)],
                ["run"],
                "end",
                starts_log=False,
                tooltip=names,
                by="run",
                marks="foreseen",
            ),
        ],
        selects=["toy"] if rows["toy"].nunique() > 1 else [],
        notes=[
            f"Not run: {listed(list(part['series'].unique()), 8)}: {reason}"
            for reason, part in reasons.groupby("reason", sort=False)
        ],
        told=source.told,
    )


def factors_section(source: Source) -> Section:
    """Return the section of how the success probability of a prompt scales its gradient.

    Args:
        source: Rows of the figure difficulty.

    Returns:
        The section.

    Example:
        >>> row = {"kind": "closed", "name": "RLOO", "p": 0.1, "factor": 1.0, "claimed": None}
        >>> rows = pd.DataFrame([row, row | {"p": 0.9}])
        >>> factors_section(Source("difficulty.csv", rows, "factors")).lead
        'RLOO has the same factor at every success probability: no difficulty bias.'
    """
    rows = source.rows.reset_index(drop=True)
    if not len(rows):
        return Section("Factors", "There are no rows.", [], [], rows, list(rows.columns))
    rows["series"] = rows["name"].fillna(rows.get("estimator", "")).astype(str)
    objectives = rows[rows["p"].isna() & rows["claimed"].notna()]
    rows = rows[rows["p"].notna()].reset_index(drop=True)
    curves = rows[rows["p"].notna() & rows["factor"].notna() & rows["claimed"].isna()]
    table, flat = [], []
    for name, of in curves.groupby("series", sort=False):
        part = of.sort_values("p")
        factor, p = part["factor"].to_numpy(float), part["p"].to_numpy(float)
        middle = factor[np.abs(p - 0.5).argmin()]
        table.append([str(name), *(number_text(v) for v in (factor[0], middle, factor[-1]))])
        if np.ptp(factor) <= 1e-9 * np.abs(factor).max():
            flat.append(str(name))
    ends = [f"{v:.3g}" for v in (curves["p"].min(), curves["p"].max())]
    header = ["estimator", f"at p = {ends[0]}", "at p near 0.5", f"at p = {ends[1]}"]
    has = "has" if len(flat) == 1 else "have"
    lead = "No estimator has the same factor at every success probability."
    if flat:
        lead = f"{listed(flat)} {has} the same factor at every success probability: no difficulty "
        lead += "bias."
    met = rows[rows["claimed"].notna() & rows["factor"].notna()]
    answer = []
    if len(met):
        away = float((met["factor"] / met["claimed"] - 1).abs().max())
        answer.append(
            f"{counted(len(met), 'enumerated factor')} of small policies differ from the closed "
            f"forms by at most {away:.1g} of their value."
        )
    told = [c for c in ("name", "p", "factor", "claimed", "kind", "problem", "group") if c in rows]
    return Section(
        "Difficulty of prompts",
        lead,
        answer,
        [
            f"{counted(len(rows), 'row')} on {listed(list(curves['series'].unique()))}",
            f"success probabilities p from {ends[0]} to {ends[1]}, rewards 0 or 1",
        ],
        rows,
        [*told, *(c for c in ("estimator", "target", "bias2") if c in rows)],
        charts=[
            Chart(
                "factors",
                "Factor of the gradient",
                "An estimate is factor(p) times the gradient of p on average. Lines are closed "
                "forms; single points are enumerated policies.",
                Axis("p", "success probability p", None, False),
                [Axis("factor", "factor of grad p")],
                [c for c in ("series", "kind", "problem", "policy_seed") if c in rows],
                "p",
                tooltip=told,
            )
        ],
        small=[
            *([SmallTable("Factors of the gradient", header, table)] if table else []),
            *([_objectives(objectives)] if len(objectives) else []),
        ],
        told=source.told,
    )


def _objectives(rows: pd.DataFrame) -> SmallTable:
    """Return how well estimators of objectives of several samples have their factor."""
    rows = rows.assign(**{c: "" for c in ("target", "problem") if c not in rows})
    lines = [
        [row["series"], row["target"], row["problem"], *map(number_text, (row["claimed"], away))]
        for row, away in zip(
            rows.to_dict("records"), (rows["factor"] / rows["claimed"] - 1).abs(), strict=True
        )
    ]
    header = ["estimator", "objective", "task", "factor by theory", "relative difference"]
    return SmallTable("Objectives of several samples", header, lines)
