"""Variance at equal cost relative to REINFORCE, of eight estimators without bias on the toys.

Lines are named at their ends. All estimators are in the rows.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic, spread
from gradlab.plots.names import fitted_text, short
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.plots.style import Look, looks, styled

__all__ = ["draw_ratios", "plot"]

# The estimators that are drawn, beside REINFORCE itself, which is 1.
SHOWN = (
    "ZGR",
    "REBAR(τ=0.5) fitted",
    "DoubleCV(4) fitted",
    "DisARM",
    "ARMS(4)",
    "RF(4)",
    "REINFORCE fitted",
    "RELAX fitted",
)
# Smaller ratios are named at the foot: rounding, or what a fit leaves.
_LEAST = 1e-4
# The height of a name, as a share of that of the panel.
_LINE = 0.052


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: a panel for each toy."""
    measured = _relative(rows[rows["reason"].isna()])
    chosen = measured[measured["name"].isin(SHOWN)]
    found = dict.fromkeys(chosen.sort_values("place")["name"])
    own = {name: looks([name.partition(" ")[0]])[name.partition(" ")[0]] for name in found}
    names = list(measured["problem"].unique())
    with styled():
        figure = Figure(figsize=(9.5, 3.6))
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        logarithmic(axes[0], "y", (_LEAST / 3, 60.0))
        for ax, name in zip(axes, names, strict=True):
            draw_ratios(ax, chosen[chosen["problem"] == name], own)
            ax.set_title(name)
            ax.set_xlabel("logit")
        axes[0].set_ylabel("variance × evaluations of f, REINFORCE = 1")
        entries = [
            Line2D([], [], color="0.35", ls=":", lw=0.8, label="REINFORCE, no baseline"),
            Line2D([], [], color="0.35", lw=5, alpha=0.25, label="draws ± 2 s.e.; others exact"),
            Line2D([], [], ls="", label=fitted_text(rows)),
        ]
        figure.legend(handles=entries, loc="outside lower center", ncols=3)
    return figure


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their `name`, its `place`, and the `ratio` to REINFORCE and its error.

    What has no variance has no ratio.
    """
    given = zip(rows["estimator"], rows["fits"] > 0, strict=True)
    rows = rows.assign(name=[short(text, fitted=fit) for text, fit in given])
    key = ["problem", "logit"]
    plain = rows[rows["name"] == "REINFORCE"].set_index(key)["cost_variance"]
    unit = rows.set_index(key).index.map(plain).to_numpy(float)
    value = rows["cost_variance"].where(rows["cost_variance"] > SQUARE_ROUNDING)
    place = rows["name"].map(lambda name: SHOWN.index(name) if name in SHOWN else -1)
    ratio = {"ratio": value / unit, "ratio_se": rows["cost_variance_se"] / unit}
    return rows.assign(place=place, **ratio)


def draw_ratios(ax: Axes, rows: pd.DataFrame, own: dict[str, Look]) -> None:
    """Draw `ratio` against `logit`, a line for each name, which is written at its end."""
    left, right = rows["logit"].min(), rows["logit"].max()
    ax.set_xlim(left, right + 0.42 * (right - left))
    ax.set_xticks(np.arange(np.ceil(left), right + 0.1))
    ax.hlines(1.0, left, right, color="0.35", ls=":", lw=0.8)
    ends: dict[str, float] = {}
    small = []
    for name, part in rows.groupby("name", sort=False):
        part = part.sort_values("logit").dropna(subset="ratio")
        if part["ratio"].median() < _LEAST:
            small.append(str(name))
            continue
        look = own[str(name)]
        ax.plot(part["logit"], part["ratio"], markevery=max(1, len(part) // 6), **look)
        if (part["ratio_se"] > 0).any():
            low, high = (part["ratio"] + side * part["ratio_se"] for side in (-2, 2))
            ax.fill_between(part["logit"], low, high, color=look["color"], alpha=0.25, lw=0)
        ends[str(name)] = float(part["ratio"].iloc[-1])
    if small:
        text = f"below {_LEAST:g}: {', '.join(small)}"
        ax.text(0.02, 0.03, text, transform=ax.transAxes, fontsize=7.5, color="0.25")
    order = sorted(ends, key=ends.__getitem__)
    low, high = np.log10(ax.get_ylim())
    gap = _LINE * (high - low)
    places = 10 ** spread(np.log10([ends[name] for name in order]), gap, low + gap / 2, high)
    at = right + 0.05 * (right - left)
    for name, place in zip(order, places, strict=True):
        shade = own[name]["color"]
        ax.plot([right, at], [ends[name], place], color=shade, lw=0.5)
        ax.text(at, place, f" {name}", va="center", fontsize=7.5, color=shade)
