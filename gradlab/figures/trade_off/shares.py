"""Shares between 0 and 1 over many seeds: the median and the 15-85 % range of each case."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.plots.style import color

__all__ = ["draw_shares", "shares_key"]


def draw_shares(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw `share` by `regime`, a line for each `scale` and `series`; hollow means scale-free."""
    regimes = list(rows["regime"].unique())
    cases = list(rows.groupby(["scale", "series"], sort=False))
    for ((scale, series), part), offset in zip(
        cases, np.linspace(-0.27, 0.27, len(cases)), strict=True
    ):
        low, middle, high = (
            part.groupby("regime")["share"]
            .quantile([0.15, 0.5, 0.85])
            .unstack()
            .loc[regimes]
            .to_numpy()
            .T
        )
        y = np.arange(len(regimes)) + offset
        ax.hlines(y, low, high, color=color(series), lw=1.2)
        face = color(series) if scale == "raw" else "white"
        ax.plot(middle, y, marker="o", ls="", ms=4.5, color=color(series), mfc=face)
    ax.set_yticks(range(len(regimes)), regimes)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(regimes) - 0.5, -0.5))


def shares_key(pairs: dict[str, str]) -> list[Line2D]:
    """Return the legend entries, from series to the words for its share."""
    grey: dict[str, Any] = {"color": "0.35", "ls": "-", "marker": "o", "ms": 4.5, "lw": 1.2}
    return [
        *(Line2D([], [], **(grey | {"color": color(s)}), label=text) for s, text in pairs.items()),
        Line2D([], [], **grey, label="filled: raw; dot and bar: median, 15 to 85 %"),
        Line2D([], [], **grey, mfc="white", label="hollow: scale-free"),
    ]
