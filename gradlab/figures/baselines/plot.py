"""Variance against a parameter on a logarithmic axis, one family of estimators before the others.

Lines are named at their ends; what has no variance at all is named at the foot of the panel.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic, spread
from gradlab.plots.names import fitted_text, short
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.plots.style import FAMILIES, styled

__all__ = ["draw_family", "plot", "variance_key"]

# Okabe & Ito's colours, and two more: no two series of a panel share one.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#7B3FA0", "#B07800", "#CC79A7", "#333333", "#56B4E9")

# What is smaller by this factor than the largest is not shown.
_DECADES = 3e-8
# The height of a name, as a share of that of the panel.
_LINE = 0.034


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: a row of panels a problem, in each a family before all others in grey."""
    measured = rows[rows["reason"].isna()]
    families = [kind for kind in (*FAMILIES, "other") if (measured["family"] == kind).any()]
    names = list(measured["problem"].unique())
    with styled():
        figure = Figure(figsize=(3 * len(families), 3.8 * len(names)))
        axes = figure.subplots(len(names), len(families), sharex=True, sharey="row", squeeze=False)
        for line, name in zip(axes, names, strict=True):
            part = measured[measured["problem"] == name]
            for ax, kind in zip(line, families, strict=True):
                draw_family(ax, part, kind)
                ax.set_title(f"{name}: {kind}")
            line[0].set_ylabel("variance of the derivative × evaluations of f")
        for ax in axes[-1]:
            ax.set_xlabel("logit")
        figure.legend(handles=variance_key(measured), loc="outside lower center", ncols=5)
    return figure


def draw_family(ax: Axes, rows: pd.DataFrame, kind: str) -> None:
    """Draw `cost_variance` against `logit` for one family, and all others in grey.

    Fitted ones are dotted, those that are not unbiased for every f dashed; Monte Carlo rows have
    bands of +-2 standard errors.
    """
    rows = rows.assign(y=rows["cost_variance"].where(rows["cost_variance"] > SQUARE_ROUNDING))
    logarithmic(ax, "y", (rows["y"].max() * _DECADES, rows["y"].max() * 1.5))
    left, right = rows["logit"].min(), rows["logit"].max()
    ax.set_xlim(left, right + 0.7 * (right - left))
    ax.set_xticks(np.arange(np.ceil(left), right + 0.1))
    ends, zeros = [], []
    shades: dict[str, str] = {}
    for (text, fits), part in rows.groupby([_name(rows), "fits"], sort=False):
        part = part.sort_values("logit")
        own = str(text).removesuffix(" fitted")
        if part["family"].iloc[0] != kind:
            ax.plot(part["logit"], part["y"], color="0.87", lw=0.6, zorder=1)
        elif part["y"].isna().all():
            zeros.append(str(text))
        else:
            shade = shades.setdefault(own, _PALETTE[len(shades) % len(_PALETTE)])
            style = ":" if fits else "-" if part["unbiased"].iloc[0] else "--"
            _draw_line(ax, part, shade, style)
            last = part.dropna(subset="y").iloc[-1]
            ends.append((float(last["y"]), float(last["logit"]), str(text), shade))
    _name_ends(ax, ends, right)
    if zeros:
        text = "variance 0: " + ",\n".join(zeros)
        box = {"fc": "white", "ec": "none", "pad": 1}
        ax.text(0.02, 0.02, text, transform=ax.transAxes, fontsize=6.8, color="0.25", bbox=box)


def variance_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of what lines and bands are."""
    return [
        Line2D([], [], color="0.3", ls="-", label="unbiased for every f"),
        Line2D([], [], color="0.3", ls=":", label=fitted_text(rows)),
        Line2D([], [], color="0.3", ls="--", label="unbiased on quadratics"),
        Line2D([], [], color="0.3", lw=5, alpha=0.25, label="Monte Carlo ± 2 s.e.; others exact"),
        Line2D([], [], color="0.8", lw=0.8, label="the other families"),
    ]


def _name(rows: pd.DataFrame) -> pd.Series:
    given = zip(rows["estimator"], rows["fits"] > 0, strict=True)
    return pd.Series([short(text, fitted=fit) for text, fit in given], index=rows.index)


def _draw_line(ax: Axes, part: pd.DataFrame, shade: str, style: str) -> None:
    ax.plot(part["logit"], part["y"], style, color=shade, lw=1.1, zorder=3)
    error = 2 * part["cost_variance_se"]
    if (error > 0).any():
        band: dict[str, Any] = {"color": shade, "alpha": 0.25, "lw": 0, "zorder": 2}
        ax.fill_between(part["logit"], part["y"] - error, part["y"] + error, **band)


def _name_ends(ax: Axes, ends: list[tuple[float, float, str, str]], right: float) -> None:
    """Write the names right of the lines, with = where one ends in the same point as the last."""
    if not ends:
        return
    ends = sorted(ends)
    bottom, top = np.log10(ax.get_ylim())
    y = np.clip(np.log10([value for value, *_ in ends]), bottom, top)
    gap = _LINE * (top - bottom)
    places = 10 ** spread(y, gap, bottom + gap / 2, top)
    at = right + 0.08 * (ax.get_xlim()[1] - right)
    last = 0.0
    for (value, logit, name, shade), place in zip(ends, places, strict=True):
        ax.plot([logit, at], [value, place], color=shade, lw=0.4, zorder=1)
        look: dict[str, Any] = {"va": "center", "fontsize": 6.8, "color": shade}
        ax.text(at, place, f" = {name}" if value <= last * (1 + 1e-6) else f" {name}", **look)
        last = value
