"""What estimators reach with a number of evaluations of f: their progress, or their error."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label
from gradlab.plots.panels import Legends, Width, in_callers_look, panels, series_entries
from gradlab.plots.quantities import check, one_problem
from gradlab.plots.style import looks, say_nothing_measured

__all__ = ["budget", "draw_budget", "reached"]

Array = NDArray[np.float64]

_NEEDS = "budget draws rows of compare, recommend (its rows or curves) or a sweep"
_PARTS = {
    "progress": ("cosine", "cosine_se", "scale_free_variance", "scale_free_variance_se"),
    "error": ("bias2", "bias2_se", "variance", "variance_se"),
}
_LABELS = {"progress": "progress", "error": "RMSE of the mean / |g|"}
_POINTS = 60


def budget(
    rows: pd.DataFrame,
    show: Literal["progress", "error"] = "progress",
    *,
    largest: float = 1e4,
    ax: Axes | None = None,
    width: Width = "column",
    legend: bool = True,
) -> Figure:
    """Draw progress or error against the evaluations of f that are spent on one gradient.

    A gradient is the mean of evaluations / cost draws; each series is at its best temperature for
    that many. Progress is that of a step along the mean: 1 is that of the true gradient. Rows of a
    ranking, such as `recommend(...).curves`, are drawn as they are, at the number of averaged
    gradients that was asked for.

    Args:
        rows: Rows of `gradlab.compare`, `recommend(...).rows`, `recommend(...).curves` or a sweep,
            of one problem.
        show: "progress", or "error" for the root mean squared error relative to |g|.
        largest: The largest number of evaluations to be drawn, where rows are not of a ranking.
        ax: An axis to draw on. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above a given axis.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, the rows are of several problems, or `show` is unknown.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("mlp", 4, 3), regime("moderate", 4, 3)
        >>> rows = gradlab.compare(f, logits, ["GS-ST", "ZGR", "RF(m=4)"], [0.1, 1.0])
        >>> gradlab.plot.budget(rows).axes[0].get_ylabel()
        'progress'
    """
    if show not in _PARTS:
        raise ValueError(f'show must be "progress" or "error", not {show!r}')
    ranked = "evaluations" in rows and "rank" in rows
    if ranked:
        check(rows, ["series", show if show == "progress" else "rmse"], _NEEDS)
    else:
        check(rows, ["series", "cost", "truth2", "method", *_PARTS[show]], _NEEDS)
    with in_callers_look(ax):
        figure, (panel,) = panels(ax, width, [show], height=2.3)
        table = _of_ranking(rows, show) if ranked else reached(one_problem(rows), show, largest)
        if table.empty:
            return say_nothing_measured(figure)
        draw_budget(panel, table, show)
        own = looks(table["series"])
        entries = series_entries(own, {series: label(series) for series in own})
        if (table["se"] > 0).any():
            text = "band: ± 2 s.e. of draws"
            entries.append(Line2D([], [], color="0.35", lw=4, alpha=0.3, label=text))
        Legends(figure, ax, [panel], shown=legend).write(entries)
    return figure


def reached(rows: pd.DataFrame, show: str, largest: float = 1e4) -> pd.DataFrame:
    """Return what each series reaches with numbers of evaluations, at its best temperature.

    Args:
        rows: Measured rows of one problem.
        show: "progress" or "error".
        largest: The largest number of evaluations.

    Returns:
        Rows with `series`, `evaluations`, `value` and `se`.

    Example:
        >>> row = {"series": "ZGR", "cost": 3.0, "truth2": 1.0, "method": "exact", "bias2": 0.0}
        >>> rows = pd.DataFrame([row | {"bias2_se": 0.0, "variance": 3.0, "variance_se": 0.0}])
        >>> reached(rows, "error", 300.0)["value"].iloc[[0, -1]].round(2).tolist()
        [1.73, 0.17]
    """
    exact = rows["method"] == "exact"
    rows = rows[exact | ~rows["series"].isin(rows.loc[exact, "series"])]
    tables = []
    for series, part in rows.groupby("series", sort=False):
        cost = float(part["cost"].iloc[0])
        spent = np.geomspace(cost, max(largest, cost), _POINTS)
        draws = spent[:, None] / part["cost"].to_numpy(float)
        value, se = (_progress if show == "progress" else _error)(part, draws)
        if np.isnan(value).all():
            continue
        best = np.nanargmax(value if show == "progress" else -value, axis=1)
        at = np.arange(_POINTS)
        found = {"evaluations": spent, "value": value[at, best], "se": se[at, best]}
        tables.append(pd.DataFrame({"series": series} | found))
    empty = pd.DataFrame(columns=["series", "evaluations", "value", "se"])
    return pd.concat(tables, ignore_index=True) if tables else empty


def _progress(rows: pd.DataFrame, draws: Array) -> tuple[Array, Array]:
    """Return the progress of the mean of so many draws, and its standard error.

    The same formula as that of the ranking.
    """
    cosine, cosine_se, v, v_se = (rows[name].to_numpy(float) for name in _PARTS["progress"])
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = rows["truth2"].to_numpy(float) * draws
        root = cosine / np.sqrt(1 + v / unit)
        slope = cosine * (v_se / unit) / (2 * (1 + v / unit))
        root_se = np.hypot(cosine_se, slope) / np.sqrt(1 + v / unit)
    still = (rows["method"] == "exact").to_numpy() & np.isnan(root)
    root, root_se = np.where(still, 0.0, root), np.where(still, 0.0, root_se)
    return root * abs(root), np.hypot(2 * root * root_se, np.sqrt(2) * root_se**2)


def _error(rows: pd.DataFrame, draws: Array) -> tuple[Array, Array]:
    """Return the root mean squared error of the mean of so many draws, and its standard error."""
    bias2, b_se, v, v_se = (
        (rows[name] / rows["truth2"]).to_numpy(float) for name in _PARTS["error"]
    )
    square = np.maximum(bias2, 0.0) + v / draws
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(square), np.hypot(b_se, v_se / draws) / (2 * np.sqrt(square))


def _of_ranking(rows: pd.DataFrame, show: str) -> pd.DataFrame:
    """Return what is drawn of a ranking, at the number of averaged gradients that was asked for."""
    rows = rows[rows["rank"].notna()]
    if rows["averaged"].nunique() > 1:
        asked = rows[rows["asked"].astype(bool)] if "asked" in rows else rows[:0]
        if asked.empty:
            raise ValueError("rows must be of one number of averaged gradients, or have 'asked'")
        rows = rows[rows["averaged"] == asked["averaged"].iloc[0]]
    column = "progress" if show == "progress" else "rmse"
    found = rows[["series", "evaluations"]].assign(value=rows[column], se=rows[f"{column}_se"])
    return found.dropna(subset="value").sort_values("evaluations", kind="stable")


def draw_budget(ax: Axes, table: pd.DataFrame, show: str) -> None:
    """Draw what each series reaches.

    Args:
        ax: The panel.
        table: Rows with `series`, `evaluations`, `value` and `se`, as of `reached`.
        show: "progress" or "error".
    """
    for series, look in looks(table["series"]).items():
        part = table[table["series"] == series]
        every = max(1, len(part) // 6)
        ax.plot(part["evaluations"], part["value"], markevery=(every // 2, every), **look)
        if (part["se"] > 0).any():
            low, high = (part["value"] + side * part["se"] for side in (-2, 2))
            ax.fill_between(part["evaluations"], low, high, color=look["color"], alpha=0.2, lw=0)
    low, high = table["evaluations"].min(), table["evaluations"].max()
    logarithmic(ax, "x", (low / 1.05, max(high, 2 * low)))
    if show == "progress":
        ax.set_ylim(min(0.0, table["value"].min()) - 0.02, 1.02)
    else:
        seen = table.loc[table["value"] > 0, "value"]
        logarithmic(ax, "y", (seen.min() / 1.3, seen.max() * 1.3) if len(seen) else (0.1, 1.0))
    ax.set(xlabel="evaluations of f", ylabel=_LABELS[show])
