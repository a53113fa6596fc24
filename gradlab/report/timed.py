"""The section of times: how long a pass of each estimator takes, beside F.gumbel_softmax."""

import pandas as pd

from gradlab.plots.names import series_of
from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["timed_section"]

REFERENCE = "F.gumbel_softmax(hard=True)"
_SHOWN = ["estimator", "size", "mode", "timed", "ms", "ms_q25", "ms_q75", "ratio", "ratio_q25"]
_SHOWN += ["ratio_q75", "peak_bytes", "passes", "reason"]
_SETTINGS = (
    ("machine", "machine"),
    ("device", "device"),
    ("dtype", "floating type"),
    ("torch", "torch"),
    ("threads", "threads"),
    ("batch", "rows B of the logits [B, N, C]"),
    ("mode", "mode"),
)


def timed_section(source: Source) -> Section:
    """Return the section of rows of `gradlab time`.

    Args:
        source: The rows.

    Returns:
        The section: the fastest at the largest size, all at each size, and how times grow.

    Example:
        >>> row = {"timed": "layer", "N": 4, "C": 8, "ms": 2.0, "ratio": 1.0, "reason": None}
        >>> rows = pd.DataFrame([row | {"estimator": "ST"}, row | {"estimator": "ZGR", "ms": 3.0}])
        >>> timed_section(Source("timing.csv", rows, "time")).lead
        'At 4 variables of 8 classes ST is the fastest: 2 ms per pass.'
    """
    rows = source.rows.reset_index(drop=True).copy()
    if not len(rows):
        return Section("Times", "There are no rows.", [], [], rows, list(rows.columns))
    rows = rows.assign(**{name: None for name in ("reason", "mode") if name not in rows})
    rows["estimator"] = rows["estimator"].astype(str)
    rows["series"] = rows["estimator"].map(_series)
    rows["size"] = rows["N"].astype(int).astype(str) + "x" + rows["C"].astype(int).astype(str)
    measured = rows[rows["ms"].notna()]
    if not len(measured):
        lead = "Nothing could be timed; the reasons stand below."
        return Section(
            "Times", lead, [], [], rows, _there(rows, _SHOWN), notes=_notes(rows), told=source.told
        )
    lead, answer, small = _answer(measured)
    fixed = {}
    for one, other, name in (("C", "N", "classes"), ("N", "C", "variables")):
        # A sweep over one size stands at the value of the other that has most sizes.
        at = measured.groupby(other)[one].nunique().idxmax()
        if measured.loc[measured[other] == at, one].nunique() > 1:
            rows[name] = rows[one].where(rows[other] == at)
            fixed[name] = f"{other} = {at}"
    asked = [f"{counted(len(rows), 'row')} of gradlab time"]
    asked += [
        f"{title}: {listed([_plain(v) for v in rows[name].dropna().unique()])}"
        for name, title in _SETTINGS
        if name in rows and rows[name].notna().any()
    ]
    kinds = list(measured["timed"].astype(str).unique())
    asked.append(f"what was timed, forward and backward: the {listed(kinds)}")
    asked.append(f"sizes, variables x classes: {listed(list(rows['size'].unique()))}")
    return Section(
        "Times",
        lead,
        answer,
        asked,
        rows,
        _there(rows, _SHOWN),
        charts=_charts(rows, measured, fixed),
        selects=[c for c in ("size", "mode") if rows[c].nunique() > 1],
        small=small,
        notes=_notes(rows),
        told=source.told,
    )


def _series(estimator: str) -> str:
    return estimator if estimator.startswith("F.") else series_of(estimator)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else number_text(float(value))  # type: ignore[arg-type]


def _there(rows: pd.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if name in rows and rows[name].notna().any()]


def _notes(rows: pd.DataFrame) -> list[str]:
    """Return why estimators were left out, each reason once."""
    out = rows[rows["reason"].notna()]
    return [
        f"Left out: {listed(list(part['estimator'].unique()), 8)}: {reason}"
        for reason, part in out.groupby("reason", sort=False)
    ]


def _answer(measured: pd.DataFrame) -> tuple[str, list[str], list[SmallTable]]:
    """Return who is fastest at the largest size, and all estimators there."""
    largest = measured.loc[(measured["N"] * measured["C"]).idxmax(), ["N", "C"]]
    at = measured[(measured["N"] == largest["N"]) & (measured["C"] == largest["C"])]
    own = at[at["estimator"] != REFERENCE]
    own = (own if len(own) else at).sort_values("ms", kind="stable")
    first = own.iloc[0]
    size = f"{largest['N']:.0f} variables of {largest['C']:.0f} classes"
    lead = f"At {size} {first['estimator']} is the fastest: {number_text(first['ms'])} ms per pass"
    ratio = "ratio" in first and pd.notna(first["ratio"]) and (at["estimator"] == REFERENCE).any()
    lead += f", {first['ratio']:.2f} times the time of {REFERENCE}." if ratio else "."
    answer = []
    close = []
    if {"ms_q25", "ms_q75"} <= set(own):
        close = list(own.loc[own["ms_q25"] <= first["ms_q75"], "estimator"].iloc[1:].unique())
        answer.append("Times are medians; the lines in the picture and ( ) are quartiles.")
    if close:
        answer.append(f"The quartiles of {listed(close, 8)} overlap with its quartiles.")
    if measured["machine"].nunique() == 1 if "machine" in measured else False:
        answer.append("Times are those of one machine; the ratios carry over better.")
    lines = []
    for row in at.sort_values("ms", kind="stable").to_dict("records"):
        cells = [str(row["estimator"]), str(row["mode"] or ""), number_text(row["ms"])]
        if close or "ms_q25" in row:
            cells[2] += f" ({number_text(row['ms_q25'])} to {number_text(row['ms_q75'])})"
        cells.append(f"{row['ratio']:.2f}" if pd.notna(row.get("ratio")) else "")
        peak = row.get("peak_bytes")
        cells.append(f"{peak / 1e6:.3g}" if peak is not None and pd.notna(peak) else "")
        lines.append(cells)
    header = ["estimator", "mode", "ms per pass", "ratio to gumbel_softmax", "peak MB"]
    return lead, answer, [SmallTable(f"Times at {size}, the fastest first", header, lines)]


def _charts(rows: pd.DataFrame, measured: pd.DataFrame, fixed: dict[str, str]) -> list[Chart]:
    def axis(name: str, title: str) -> Axis:
        ends = (f"{name}_q25", f"{name}_q75")
        return Axis(name, title, ends=ends if set(ends) <= set(rows) else None)

    quantities = [
        axis(name, title)
        for name, title in (
            ("ms", "milliseconds per pass"),
            ("ratio", f"time / {REFERENCE}"),
            ("peak_bytes", "peak memory (bytes)"),
        )
        if name in rows and measured[name].notna().any()
    ]
    told = _there(rows, _SHOWN)
    charts = [
        Chart(
            "times",
            "Times at one size",
            "Medians; lines are quartiles. Left is faster.",
            quantities[0],
            quantities,
            ["estimator"],
            "ms",
            tooltip=told,
            by="estimator",
            sort=True,
        )
    ]
    for name, title in (("classes", "classes C"), ("variables", "variables N")):
        if name in fixed:
            charts.append(
                Chart(
                    f"by-{name}",
                    f"Times by {name}",
                    f"Medians and quartiles at {fixed[name]}.",
                    Axis(name, title),
                    quantities,
                    ["estimator", "mode"],
                    name,
                    tooltip=told,
                    free=["size"],
                )
            )
    return charts
