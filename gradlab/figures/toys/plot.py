"""Where optimization runs of estimators ended, beside where theory said, and their curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from gradlab.plots.names import short
from gradlab.plots.style import (
    FAMILIES,
    color,
    family_color,
    family_entries,
    family_marker,
    styled,
)

__all__ = ["VIEWS", "curves_key", "draw_curves", "draw_ends", "ends_key", "plot", "plot_all"]

# Estimators whose curves are drawn, and whose ends the figure shows.
SHOWN = ("ST", "DARN", "ZGR", "GS-ST", "REINFORCE", "RF")
ENDS = ("REINFORCE", "RF", "LE", "ARSM", "MuProp", "ST", "DARN", "ZGR", "GS-ST", "GR", "ReinMax")

# The ends of the axis: probabilities beyond are drawn there.
_LEAST, _MOST = 5e-4, 1 - 5e-4
_TICKS = {_LEAST: "0", 0.01: ".01", 0.1: ".1", 0.5: ".5", 0.9: ".9", 0.99: ".99", _MOST: "1"}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: where a few estimators end, one column per toy, and curves below."""
    few = rows[~rows["fitted"] & _named(rows, ENDS)]
    return _drawn(few if len(few) else rows, size=(8.6, 3.1), line=0.2)


def plot_all(rows: pd.DataFrame) -> Figure:
    """Return the figure of all estimators."""
    return _drawn(rows, size=(13, 2.7), line=0.185)


VIEWS = {"all": plot_all}
"""Further pictures of the same rows, by what is added to the name of the figure."""


def _named(rows: pd.DataFrame, names: Sequence[str]) -> "pd.Series[bool]":
    return rows["estimator"].map(lambda text: text.partition("(")[0]).isin(names)


def _drawn(rows: pd.DataFrame, size: tuple[float, float], line: float) -> Figure:
    """Return the figure of these rows; `size`: its width and the height of its curves."""
    toys = list(rows["toy"].unique())
    series = rows[["estimator", "fitted"]].drop_duplicates()
    height = 1.5 + line * len(series)
    few = rows[_named(rows, SHOWN) & ~rows["fitted"] & rows["reason"].isna()]
    spent = rows["batch"] * rows["cost"]
    budget = spent[rows["batch"] > 1].max()  # one draw may cost more than the budget
    with styled():
        figure = Figure(figsize=(size[0], height + size[1]))
        above, below = figure.subfigures(2, 1, height_ratios=(height, size[1]), squeeze=False)[:, 0]
        axes = above.subplots(1, len(toys), sharey=True, squeeze=False)[0]
        for ax, toy in zip(axes, toys, strict=True):
            draw_ends(ax, rows[rows["toy"] == toy], series)
            ax.set_title(toy)
        axes = below.subplots(1, len(toys), squeeze=False)[0]
        for ax, toy in zip(axes, toys, strict=True):
            draw_curves(ax, few[few["toy"] == toy])
        axes[0].set_ylabel("exact loss")
        above.legend(handles=ends_key(rows), loc="outside lower center", ncols=4)
        below.legend(handles=curves_key(few), loc="outside lower center", ncols=8)
        figure.suptitle(
            f"{rows['step'].max():.0f} steps of Adam ({rows['lr'].max():g}), each of {budget:.0f} "
            "evaluations of f, from P(b = 1) = .5; the least loss is at P(b = 1) = 0",
            fontsize=9,
        )
    return figure


def draw_ends(ax: Axes, rows: pd.DataFrame, series: pd.DataFrame) -> None:
    """Draw q = P(b = 1) at the last step of the rows of one toy, a line of the panel a `series`.

    Beside it stand what was predicted for this step, and the limit of descent along the mean.
    `series` lists `estimator` and `fitted`; families go together.
    """
    order = _by_family(rows, series)
    for place, (estimator, fitted) in enumerate(order):
        last = rows[(rows["estimator"] == estimator) & (rows["fitted"] == fitted)].iloc[-1]
        shade = family_color(last["family"])
        if isinstance(last["reason"], str):
            ax.text(0.5, place, "refused", ha="center", va="center", fontsize=6.5, color="0.4")
            continue
        at = {name: float(np.clip(last[name], _LEAST, _MOST)) for name in _DRAWN}
        look: dict[str, Any] = {"color": shade, "zorder": 3}
        ax.plot([at["q_low"], at["q_high"]], [place, place], lw=1.6, alpha=0.45, **look)
        ax.plot(at["limit"], place, marker="|", ms=11, mew=1.6, color="k", zorder=2)
        ax.plot(at["predicted"], place, marker="o", ms=7, mfc="none", mec="0.25", mew=0.8)
        ax.plot(at["q"], place, marker=family_marker(last["family"]), ms=3.5, **look)
    ax.axvline(0.5, color="0.6", lw=0.8, ls=":", zorder=1)
    ax.set_xscale("logit")
    ax.set_xlim(_LEAST / 1.5, 1 - _LEAST / 1.5)
    ax.xaxis.set_major_locator(FixedLocator(list(_TICKS)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(_TICKS), list(_TICKS.values()))
    ax.set_xlabel("P(b = 1) at the end")
    ax.tick_params(axis="x", labelsize=7)
    names = [short(estimator, fitted=fitted) for estimator, fitted in order]
    ax.set_yticks(range(len(order)), names, fontsize=6.8)
    kinds = dict(zip(rows["estimator"], rows["family"], strict=True))
    # Panels that share their lines have no names but at the left.
    for label, (estimator, _) in zip(ax.get_yticklabels(), order, strict=False):
        label.set_color(family_color(kinds[estimator]))
    ax.set_ylim(len(order) - 0.5, -0.5)


_DRAWN = ("q", "q_low", "q_high", "limit", "predicted")


def draw_curves(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the exact loss of the rows of one toy against the step, and what was predicted."""
    for _, part in rows.groupby("estimator", sort=False):
        shade = color(part["series"].iloc[0])
        ax.plot(part["step"], part["loss"], color=shade)
        ax.plot(part["step"], part["predicted_loss"], color=shade, lw=0.8, ls="--")
    ax.axhline(rows["least"].min(), color="0.6", lw=0.8, ls=":", zorder=1)
    ax.set_xlabel("step")


def curves_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of `draw_curves`."""
    names = dict(zip(rows["estimator"], rows["series"], strict=True))
    return [
        *(Line2D([], [], color=color(s), label=short(str(name))) for name, s in names.items()),
        Line2D([], [], color="0.4", lw=0.8, ls="--", label="predicted"),
        Line2D([], [], color="0.6", lw=0.8, ls=":", label="least possible"),
    ]


def ends_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of `draw_ends`: families, then what the signs mean."""
    ring: dict[str, Any] = {"mfc": "none", "mec": "0.25", "mew": 0.8}
    measured: dict[str, Any] = {"marker": "o", "ms": 3.5, "color": "0.4", "alpha": 0.7}
    return [
        *family_entries(rows["family"]),
        Line2D([], [], ls="", marker="o", ms=7, label="predicted end", **ring),
        Line2D(
            [],
            [],
            ls="",
            marker="|",
            ms=11,
            mew=1.6,
            color="k",
            label="end without noise, after any number of steps",
        ),
        Line2D([], [], lw=1.6, label="end: mean over bits, and their middle 68 %", **measured),
    ]


def _by_family(rows: pd.DataFrame, series: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return the series with those of one family together, in the order of `FAMILIES`."""
    kinds = [*FAMILIES, "other"]
    family = dict(zip(rows["estimator"], rows["family"], strict=True))
    pairs = [(str(r.estimator), bool(r.fitted)) for r in series.itertuples()]
    return sorted(pairs, key=lambda pair: kinds.index(family[pair[0]]))
