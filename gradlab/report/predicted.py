"""The section of how well criteria predict the loss that training reached."""

import numpy as np
import pandas as pd

from gradlab.report.charts import Chart
from gradlab.report.markup import number_text
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["prediction_section"]

# What is shown first: the loss after equal steps, the criterion along the run.
_FIRST = {"moment": "mean", "outcome": "steps", "gradient": "estimated", "per": "draw"}
_SHOWN = ["task", "name", "moment", "outcome", "per", "gradient", "rho", "low", "high"]


def prediction_section(source: Source) -> Section:
    """Return the section of rank correlations between criteria and losses.

    Args:
        source: Rows of the figure prediction.

    Returns:
        The section: which criterion predicts best, each criterion, each task, and who reached the
        smallest loss.

    Example:
        >>> row = {"task": "VAE", "criterion": "progress", "averaged": 10.0, "moment": "mean"}
        >>> row |= {"outcome": "steps", "rho": 0.9, "low": 0.8, "high": 1.0, "estimators": 16}
        >>> rows = pd.DataFrame([row, row | {"criterion": "error", "averaged": 1.0, "rho": 0.1}])
        >>> prediction_section(Source("prediction.csv", rows, "prediction")).lead
        'The progress of 10 predicts the loss best: its rank correlation is .90 in 1 task.'
    """
    rows = source.rows[source.rows["rho"].notna()].dropna(axis="columns", how="all")
    rows = rows.reset_index(drop=True)
    if not len(rows):
        return Section("Prediction", "There are no rows.", [], [], rows, list(source.rows.columns))
    rows["name"] = [
        name if pd.isna(averaged) else f"{name} of {averaged:g}"
        for name, averaged in zip(
            rows["criterion"], rows.get("averaged", [None] * len(rows)), strict=True
        )
    ]
    over = _over_tasks(rows)
    rows = pd.concat([over, rows], ignore_index=True)
    first = _first(over)
    order = list(first.sort_values("rho", ascending=False, kind="stable")["name"])
    keys = [~rows[c].eq(v) for c, v in _FIRST.items() if c in rows]
    rows = rows.assign(
        _late=np.sum(keys, axis=0), _place=rows["name"].map(order.index), series=rows["name"]
    )
    rows = rows.sort_values(["_late", "_place"], kind="stable").drop(columns=["_late", "_place"])
    best, rho = first.set_index("name")["rho"].loc[order].to_dict(), first["rho"].max()
    tasks = list(dict.fromkeys(source.rows.loc[source.rows["rho"].notna(), "task"]))
    median = "the median of " if len(tasks) > 1 else ""
    lead = f"The {order[0]} predicts the loss best: its rank correlation is {_rank(rho)}"
    lead += f", {median}{len(tasks)} tasks." if median else f" in {counted(len(tasks), 'task')}."
    others = [f"{name} {_rank(best[name])}" for name in order[1:]]
    shown = [c for c in _SHOWN if c in rows]
    axis = Axis("rho", "rank correlation with the loss", None, False, ends=("low", "high"))
    plain = Axis("rho", axis.title, None, False)
    lines = "Lines are 95 % over seeds of a task, and quartiles over the tasks."
    return Section(
        "Prediction of training",
        lead,
        [
            *([f"The others: {listed(others)}."] if others else []),
            "1 means that the better criterion always goes with the smaller loss, 0 that it says "
            "nothing.",
        ],
        _asked(source.rows, tasks),
        rows.reset_index(drop=True),
        shown,
        charts=[
            _dots("criteria", "Criteria", f"One task, or the median. {lines}", plain, axis, "name"),
            _dots("tasks", "Tasks", f"One criterion on each task. {lines}", plain, axis, "task"),
        ],
        selects=[
            c
            for c in ("task", "name", "moment", "outcome", "gradient", "per")
            if c in rows and rows[c].nunique() > 1
        ],
        small=_reached(source.rows),
        notes=_notes(source.rows, rows),
        told=source.told,
    )


def _rank(rho: float) -> str:
    return f"{rho:.2f}".replace("0.", ".")


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first choice of every menu."""
    for name, value in _FIRST.items():
        if name in rows and (rows[name] == value).any():
            rows = rows[rows[name] == value]
    return rows


def _over_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return medians and quartiles over the tasks, as rows of a task of their own."""
    keys = [c for c in ("name", "moment", "outcome", "gradient", "per") if c in rows]
    groups = rows.groupby(keys, sort=False)["rho"]
    table = groups.median().to_frame()
    table["low"], table["high"] = groups.quantile(0.25), groups.quantile(0.75)
    return table.reset_index().assign(task=f"median of {counted(rows['task'].nunique(), 'task')}")


def _dots(name: str, title: str, caption: str, x: Axis, y: Axis, by: str) -> Chart:
    return Chart(
        name,
        title,
        caption,
        x,
        [y],
        ["series"],
        "rho",
        starts_log=False,
        tooltip=_SHOWN,
        by=by,
        free=[by],
    )


def _asked(rows: pd.DataFrame, tasks: list[str]) -> list[str]:
    told = [f"{counted(len(tasks), 'task')}: {listed(tasks)}"]
    if "estimator" in rows:
        names = list(rows["estimator"].dropna().unique())
        told.append(f"{counted(len(names), 'estimator')} trained: {listed(names)}")
    told.append("Spearman's rank correlation over the estimators of a task")
    return told


def _reached(rows: pd.DataFrame) -> list[SmallTable]:
    """Return who reached the smallest loss on each task, at the best of its learning rates."""
    if not {"loss_steps", "loss_cost", "lr"} <= set(rows):
        return []
    lines = []
    for task, part in rows[rows["loss_steps"].notna()].groupby("task", sort=False):
        cells = [str(task)]
        for name in ("loss_steps", "loss_cost"):
            of = part.groupby(["estimator", "lr"])[name].mean().groupby("estimator").min().dropna()
            cells.append(f"{of.idxmin()}: {number_text(of.min())}" if len(of) else "")
        lines.append(cells)
    header = ["task", "after equal steps", "at equal cost"]
    return [SmallTable("Who reached the smallest training loss", header, lines)]


def _notes(source: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    rest = source[source["rho"].isna()]
    told = []
    if len(rest):
        what = "losses that were reached and criteria that were measured"
        told.append(
            f"{counted(len(rest), 'more row')} of the source hold {what}; they are not shown."
        )
    if "reason" not in source:
        return told
    for reason, part in source[source["reason"].notna()].groupby("reason", sort=False):
        names = list(part["estimator"].dropna().unique())
        told.append(f"Not measured: {listed(names, 8)}: {reason}")
    return told
