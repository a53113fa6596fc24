"""The evidence of a recommendation: error against the budget, and the temperature that it takes."""

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import color, styled

__all__ = ["plot"]

_LINES = ("-", "--", ":", "-.")


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of rankings at several budgets.

    The upper panel has the root mean squared error of the average that the budget pays for, each
    series at its best temperature, with a band of +-2 standard errors. The lower panel has that
    temperature.

    Args:
        rows: Rows of `gradlab.comparison.ranking`, such as `Recommendation.curves`. A column
            `asked`, if there, marks the budget.

    Returns:
        The figure.

    Example:
        >>> from gradlab import recommend
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 4, 3), regime("moderate", 4, 3)
        >>> answer = recommend(f, logits, evaluations=16, estimators=["ST", "ZGR"])
        >>> len(plot(answer.curves).axes)
        1
    """
    rows = rows[rows["rank"].notna()]
    with styled():
        figure = Figure(figsize=(7.6, 5.2))
        tempered = rows["tau"].notna().any()
        heights = [3, 1] if tempered else [1]
        grid: dict[str, Any] = {"sharex": True, "squeeze": False, "height_ratios": heights}
        upper, *lower = figure.subplots(len(heights), 1, **grid)[:, 0]
        styles = _styles(rows)
        for series in styles:
            part = rows[rows["series"] == series].sort_values("evaluations")
            _draw_error(upper, part, color(series), styles[series])
            if lower and part["tau"].notna().all():
                look = {"color": color(series), "ls": styles[series], "marker": ".", "ms": 3}
                lower[0].plot(part["evaluations"], part["tau"], lw=1, **look)
        _finish([upper, *lower], rows)
        figure.legend(loc="outside right upper")
    return figure


def _styles(rows: pd.DataFrame) -> dict[str, str]:
    """Return a line style for each series, in the order of the chosen budget; RFs differ."""
    asked = rows[_asked(rows)]["series"]
    order = list(dict.fromkeys([*asked, *rows["series"]]))
    lines = {shade: cycle(_LINES) for shade in map(color, order)}
    return {series: next(lines[color(series)]) for series in order}


def _asked(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are of the chosen budget: none where the rows do not say."""
    return rows["asked"].astype(bool) if "asked" in rows else pd.Series(False, index=rows.index)


def _draw_error(ax: Axes, part: pd.DataFrame, shade: str, line: str) -> None:
    spent = part["evaluations"]
    rmse, se = part["rmse"], part["rmse_se"]
    known = rmse.where(rmse > ROUNDING)
    name = label(str(part["series"].iloc[0]))
    ax.plot(spent, known, color=shade, ls=line, label=name if known.any() else f"{name}: 0")
    if (se > 0).any():
        low = np.maximum(rmse - 2 * se, ROUNDING)
        ax.fill_between(spent, low, rmse + 2 * se, color=shade, alpha=0.25, lw=0)


def _finish(axes: list[Axes], rows: pd.DataFrame) -> None:
    """Scale and name the axes, and mark the budget asked for."""
    upper, unit = axes[0], rows["unit"].iloc[0]
    shown = rows["rmse"][rows["rmse"] > ROUNDING]
    limits = (float(shown.min()) / 1.5, float(shown.max()) * 1.5) if len(shown) else (0.1, 1.0)
    logarithmic(upper, "x", (1.0, max(2.0, float(rows["evaluations"].max()))))
    logarithmic(upper, "y", limits)
    upper.set_ylabel(f"RMSE of the average ({unit})")
    for asked in rows.loc[_asked(rows), "evaluations"].astype(int).unique():
        for ax in axes:
            ax.axvline(asked, color="0.3", lw=0.8, ls=(0, (2, 2)), zorder=0)
        place: dict[str, Any] = {"xytext": (4, -4), "textcoords": "offset points", "va": "top"}
        upper.annotate(f"budget {asked:,}", (asked, 1), xycoords=("data", "axes fraction"), **place)
    if len(axes) > 1:
        logarithmic(axes[1], "y")
        axes[1].set_ylabel("best τ")
    axes[-1].set_xlabel("evaluations of f for one gradient")
    regime = f", logits: {rows['regime'].iloc[0]}" if "regime" in rows else ""
    bands = "; bands: ± 2 s.e." if (rows["rmse_se"] > 0).any() else ""
    what = f"each at its best temperature{bands}" if len(axes) > 1 else bands.lstrip("; ")
    upper.set_title(f"{rows['problem'].iloc[0]}{regime}\n{what}".rstrip(), loc="left")
