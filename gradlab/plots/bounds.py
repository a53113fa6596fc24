"""Estimators of bounds against the number K of samples: bias, variance and signal-to-noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label
from gradlab.plots.panels import Legends, Width, in_callers_look, panels, series_entries
from gradlab.plots.quantities import check
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import Look, looks, say_nothing_measured

__all__ = ["bound_entries", "bounds", "draw_bounds", "median_over_problems", "plot"]

_NEEDS = "bounds draws rows of gradlab.bounds.compare"
_COLUMNS = ("K", "series", "method", "truth2", "bias2", "variance", "scale_free_variance")
_LABELS = {
    "bias": "bias / |g|",
    "variance": "variance of one draw (nats²)",
    "snr": "signal-to-noise |E ĝ| / sd",
}


def bounds(
    rows: pd.DataFrame,
    show: str | Sequence[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    width: Width = "column",
    legend: bool = True,
) -> Figure:
    """Draw estimators of a bound of K samples against K.

    A line is the median over problems, where rows are of several. Exact rows stand for an estimator
    where there are some, else points of draws.

    Args:
        rows: Rows of `gradlab.bounds.compare`.
        show: "bias", "variance" or "snr" (signal-to-noise: length of the mean over the standard
            deviation of one draw), one or several, each in a panel. By default variance and snr.
        ax: Axes to draw on, one for each of what is shown. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above the first of given axes.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, or `show` is unknown.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("mlp", 2, 2), regime("moderate", 2, 2)
        >>> rows = gradlab.bounds.compare(f, logits, ["VIMCO", "LE"], k=(2, 4))
        >>> [panel.get_xlabel() for panel in gradlab.plot.bounds(rows, "snr").axes]
        ['samples K']
    """
    check(rows, _COLUMNS, _NEEDS)
    default = ["snr"] if isinstance(ax, Axes) else ["variance", "snr"]
    shown = [show] if isinstance(show, str) else [*(show or default)]
    for name in shown:
        if name not in _LABELS:
            raise ValueError(f"show must be of {', '.join(_LABELS)}, not {name!r}")
    with in_callers_look(ax):
        figure, axes = panels(ax, width, shown, height=2.0)
        measured = rows[rows["bias2"].notna()]
        if measured.empty:
            return say_nothing_measured(figure)
        own = {
            name: look
            for name, look in looks(rows["series"]).items()
            if name in {*measured["series"]}
        }
        for panel, name in zip(axes, shown, strict=True):
            draw_bounds(panel, measured, name, own)
            panel.set(xlabel="samples K", ylabel=_LABELS[name])
        Legends(figure, ax, axes, shown=legend).write(bound_entries(own, measured))
    return figure


def plot(rows: pd.DataFrame) -> Figure:
    """Return the picture that the command bounds writes: bias, variance and signal-to-noise.

    Args:
        rows: Rows of `gradlab.bounds.compare`.

    Returns:
        The figure, in the width of a page.

    Example:
        >>> from gradlab.bounds import compare
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("mlp", 2, 2), regime("moderate", 2, 2)
        >>> len(plot(compare(f, logits, ["VIMCO", "LE"], k=(2, 4))).axes)
        3
    """
    return bounds(rows, ["bias", "variance", "snr"], width="page")


def bound_entries(own: dict[str, Look], rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of series, and what a point by draws is.

    Args:
        own: The look of each series.
        rows: Measured rows of `gradlab.bounds.compare`.

    Returns:
        The entries.

    Example:
        >>> rows = pd.DataFrame({"method": ["exact", "monte carlo"]})
        >>> [entry.get_label() for entry in bound_entries({"LE": {"color": "k"}}, rows)]
        ['LE', 'by draws']
    """
    entries = series_entries(own, {series: label(series) for series in own})
    if (rows["method"] != "exact").any() and (rows["method"] == "exact").any():
        open_point = Line2D([], [], color="0.35", ls="", marker="o", mfc="white", label="by draws")
        entries.append(open_point)
    return entries


def median_over_problems(rows: pd.DataFrame, show: str) -> pd.DataFrame:
    """Return the median over problems of a quantity, for each series, K and method.

    Args:
        rows: Measured rows of `gradlab.bounds.compare`.
        show: "bias", "variance" or "snr".

    Returns:
        Rows with `series`, `K`, `method` and `value`. Where a bias is measured by draws and not
        told from zero, it counts as 0.

    Example:
        >>> row = {"series": "LE", "K": 2, "method": "exact", "truth2": 4.0, "bias2": 0.0}
        >>> rows = pd.DataFrame([row | {"variance": 1.0, "scale_free_variance": 1.0}])
        >>> median_over_problems(rows, "snr")["value"].tolist()
        [2.0]
    """
    if show == "snr":
        # The length of the mean over the standard deviation, both after rescaling.
        value = (rows["truth2"] / rows["scale_free_variance"].where(lambda v: v > 0)) ** 0.5
    elif show == "bias":
        value = (rows["bias2"].clip(lower=0.0) / rows["truth2"].where(rows["truth2"] > 0)) ** 0.5
        value = value.where(value > ROUNDING, 0.0)
    else:
        value = rows["variance"]
    keys = ["series", "K", "method"]
    return rows[keys].assign(value=value).groupby(keys, sort=False)["value"].median().reset_index()


def draw_bounds(ax: Axes, rows: pd.DataFrame, show: str, own: dict[str, Look]) -> None:
    """Draw a quantity of each series against K.

    Args:
        ax: The panel.
        rows: Measured rows of `gradlab.bounds.compare`.
        show: "bias", "variance" or "snr".
        own: The look of each series.
    """
    table = median_over_problems(rows, show)
    seen = table.loc[table["value"] > 0, "value"]
    low, high = (seen.min() / 1.5, seen.max() * 1.5) if len(seen) else (0.1, 1.0)
    logarithmic(ax, "y", (float(low), float(high)))
    zeros = []
    for series, look in own.items():
        part = table[table["series"] == series]
        exact = part[part["method"] == "exact"].sort_values("K")
        drawn = part[part["method"] != "exact"].sort_values("K")
        if (part["value"] == 0).all() and show == "bias":
            zeros.append(label(series))
            continue
        ax.plot(exact["K"], exact["value"].where(exact["value"] > 0), **look)
        joined = "" if len(exact) else look["linestyle"]
        ax.plot(drawn["K"], drawn["value"], **(look | {"linestyle": joined}), mfc="w")
    if zeros:
        # Biases grow with K: below them, on the right, is room.
        place: dict[str, Any] = {"ha": "right", "va": "bottom", "transform": ax.transAxes}
        text = "\n".join(["no bias:", *zeros])
        ax.text(0.98, 0.03, text, fontsize="small", color="0.25", **place)
    ax.set_xscale("log", base=2)
    ax.xaxis.minorticks_off()
    ticks = np.sort(rows["K"].unique())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
