"""The evidence of a recommendation: what progress is lost, against the budget and the averaging.

The best five are in colour and named at their ends; the rest is grey.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import logarithmic, spread
from gradlab.plots.names import short
from gradlab.plots.panels import WIDTHS, Legends, Width, series_entries
from gradlab.plots.style import color, styled

__all__ = ["plot"]

_NAMED = 5
# Okabe & Ito's colours, for series that have none of their own or whose own is taken.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7B3FA0", "#E69F00", "#56B4E9", "#000000")
# Losses below this are drawn at it: rounding, or noise of what is measured.
_LEAST = 1e-5
# Inches of the height of the picture, and of a line of names.
_HEIGHTS = {"page": 3.4, "column": 5.6}
_LINE = 0.14

_PANELS = {
    "evaluations": "evaluations of f for one gradient",
    "averaged": "gradients that are averaged",
}


def plot(rows: pd.DataFrame, width: Width = "page") -> Figure:
    """Return the figure of rankings at several budgets and several numbers of averaged gradients.

    Each series is at its best temperature. Where progress is known, the axis is what is lost of it,
    1 - progress, with bands of +-2 standard errors; where not, it is the error of one gradient.

    Args:
        rows: Rows of `gradlab.comparison.ranking`, such as `Recommendation.curves`. A column
            `asked`, if there, marks the question.
        width: "page" (6.75 inches), with names at the lines, or "column" (3.25 inches), with a
            legend.

    Returns:
        The figure.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 4, 3), regime("moderate", 4, 3)
        >>> answer = recommend(f, logits, evaluations=16, estimators=["ST", "ZGR"])
        >>> len(plot(answer.curves).axes)
        2
    """
    rows = _with_loss(rows[rows["rank"].notna()])
    asked = rows[rows["asked"].astype(bool)] if "asked" in rows else rows[:0]
    shades = _shades(rows, asked)
    parts = {name: _along(rows, asked, name) for name in _PANELS}
    shown = {name: part for name, part in parts.items() if part[name].nunique() > 1}
    shown = shown or {"evaluations": rows}
    with styled():
        figure = Figure(figsize=(WIDTHS[width], _HEIGHTS[width]))
        down = len(shown) if width == "column" else 1
        axes = figure.subplots(down, -(-len(shown) // down), sharey=True, squeeze=False).ravel()
        for ax, (name, part) in zip(axes, shown.items(), strict=True):
            _draw(ax, part, name, shades)
            logarithmic(ax, "x", _range(part[name]))
            ax.set_xlabel(_PANELS[name])
            for value in asked[name].unique():
                ax.axvline(value, color="0.3", lw=0.8, ls=(0, (2, 2)), zorder=0)
        logarithmic(axes[0], "y", _limits(rows))
        for place, ax in enumerate(axes):
            if place % len(axes) == 0 or width == "column":
                ax.set_ylabel(_what(rows))
        if width == "column":  # beside the lines there is no room
            names = {series: {"color": shade} for series, shade in shades.items()}
            entries = series_entries(names, {series: short(series) for series in names})
            Legends(figure, None, list(axes), shown=True).write(entries)
        else:
            _name(axes[-1], list(shown.values())[-1], list(shown)[-1], shades)
        title = _title(rows, asked)
        figure.suptitle(title.replace("; ", "\n") if width == "column" else title, fontsize=8.5)
    return figure


def _with_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with what is drawn, `loss`, and its standard error."""
    if rows["progress"].notna().any():
        return rows.assign(loss=1 - rows["progress"], loss_se=rows["progress_se"])
    return rows.assign(loss=rows["rmse"], loss_se=rows["rmse_se"])


def _what(rows: pd.DataFrame) -> str:
    if rows["progress"].notna().any():
        return "1 - progress (lower is better)"
    return f"error of one gradient ({rows['unit'].iloc[0]})"


def _along(rows: pd.DataFrame, asked: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows that differ from the question in one column only."""
    (other,) = [column for column in _PANELS if column != name]
    value = asked[other].iloc[0] if len(asked) else rows[other].iloc[0]
    return rows[rows[other] == value].sort_values(name)


def _shades(rows: pd.DataFrame, asked: pd.DataFrame) -> dict[str, str]:
    """Return the colours of the best five, no two alike, in their order."""
    of_question = asked if len(asked) else rows
    found: dict[str, str] = {}
    for series in list(dict.fromkeys(of_question["series"]))[:_NAMED]:
        own = color(series)
        free = [shade for shade in _PALETTE if shade not in found.values()]
        found[series] = own if own in _PALETTE and own in free else free[0]
    return found


def _draw(ax: Axes, part: pd.DataFrame, name: str, shades: dict[str, str]) -> None:
    for series, line in part.groupby("series", sort=False):
        best = series in shades
        shade, loss = shades.get(str(series), "0.82"), line["loss"].clip(lower=_LEAST)
        look: dict[str, Any] = {"color": shade, "lw": 1.6 if best else 0.7}
        marker = "." if len(line) == 1 else None
        ax.plot(line[name], loss, zorder=3 if best else 1, marker=marker, **look)
        if best and (line["loss_se"] > 0).any():
            low, high = (
                (line["loss"] + side * line["loss_se"]).clip(lower=_LEAST) for side in (-2, 2)
            )
            ax.fill_between(line[name], low, high, color=shade, alpha=0.2, lw=0, zorder=2)


def _range(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low / 1.3, high * 1.3)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    loss = rows["loss"].clip(lower=_LEAST)
    return float(loss.min()) / 1.5, float(loss.max()) * 1.3


def _name(ax: Axes, part: pd.DataFrame, name: str, shades: dict[str, str]) -> None:
    """Name the best ones right of their ends, apart from each other."""
    ends = part[part["series"].isin(shades)].groupby("series")["loss"].last()
    order = ends.clip(lower=_LEAST).sort_values()
    low, high = np.log10(ax.get_ylim())
    height = float(ax.get_window_extent().height) / float(ax.figure.dpi)
    gap = (high - low) * _LINE / height
    places = 10 ** spread(np.log10(order.to_numpy()), gap, low + gap / 2, high)
    for (series, value), place in zip(order.items(), places, strict=True):
        ax.annotate(
            short(str(series)),
            (part[name].max(), value),
            xytext=(1.06, place),
            textcoords=ax.get_yaxis_transform(),
            va="center",
            fontsize=7.5,
            color=shades[str(series)],
            arrowprops={"arrowstyle": "-", "color": shades[str(series)], "lw": 0.6},
            annotation_clip=False,
        )


def _title(rows: pd.DataFrame, asked: pd.DataFrame) -> str:
    regime = f", logits: {rows['regime'].iloc[0]}" if "regime" in rows else ""
    text = f"{rows['problem'].iloc[0]}{regime}"
    if len(asked):
        first = asked.iloc[0]
        budget, number = first["evaluations"], first["averaged"]
        text += f"\ndashed, as asked: {budget:,} evaluations, {number:g} gradients"
    if (rows["loss_se"] > 0).any():
        text += "; bands: ± 2 s.e."
    return text
