"""The atlas as maps: which of two families has the better trade-off where, and who wins where.

A row of a map is a problem at one size, a column a kind of logits.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from gradlab.plots.style import FAMILIES, color, family, family_color, styled
from gradlab.plots.zoo import short

__all__ = ["plot"]

_LINE = "ST-ZGR"
_SHADES = LinearSegmentedColormap.from_list(
    "better", [color("GR(k=inf)"), "#F4A68C", "#FFFFFF", "#7FC4EA", color("ZGR")]
)
_PLACE = ["problem", "N", "C"]


def plot(summary: pd.DataFrame) -> Figure:
    """Return the figure of `gradlab.atlas.summary`: maps of domination, and of the winners."""
    shares, best = (summary[summary["kind"] == kind] for kind in ("domination", "best"))
    rivals = list(shares.loc[shares["dominated_by"] == _LINE, "series"].unique())
    scales = list(shares["scale"].unique())
    places = list(summary.loc[summary["N"].notna(), _PLACE].drop_duplicates().itertuples(False))
    regimes = list(shares["regime"].unique())
    paid = best[best["cost"] == best["cost"].iloc[-1]]
    with styled():
        figure = Figure(figsize=(15, 2.2 + 0.4 * len(places)))
        number = len(rivals) * len(scales)
        axes = figure.subplots(1, number + 1, sharey=True, width_ratios=[1] * number + [1.75])
        panels = [(rival, scale) for rival in rivals for scale in scales]
        for ax, (rival, scale) in zip(axes, panels, strict=False):
            part = shares[
                (shares["scale"] == scale)
                & shares[["series", "dominated_by"]].eq(rival).any(axis=1)
            ]
            _draw_shares(ax, part, places, regimes)
            ax.set_title(f"{_LINE} against {_infinite(rival)}, {scale}\n{_overall(part)}", size=7.5)
        _draw_winners(axes[-1], paid, places, regimes)
        axes[-1].set_title(
            f"Least bias² + variance at {paid['cost'].iloc[0]} of f, best τ\n"
            "wins of seeds, median error / |g|²",
            size=7.5,
        )
        names = [f"{p.problem}  {p.N}×{p.C}" for p in places]
        axes[0].set_yticks(range(len(places)), names)
        figure.legend(handles=_key(paid), loc="outside lower center", ncols=4)
        figure.suptitle(_title(shares, rivals), size=9.5)
    return figure


def _draw_shares(ax: Axes, rows: pd.DataFrame, places: list[Any], regimes: list[str]) -> None:
    """Draw a cell for each place and kind of logits: its seeds as stripes, the medians as text."""
    image = np.full([len(places), len(regimes), _STRIPES], np.nan)
    for i, place in enumerate(places):
        for j, regime in enumerate(regimes):
            pairs = _pairs(rows[_at(rows, place) & (rows["regime"] == regime)]).dropna()
            text = "–"
            if len(pairs):
                better = np.sort(pairs["rival"] - pairs["line"])[::-1]
                image[i, j] = better[np.arange(_STRIPES) * len(better) // _STRIPES]
                text = f"{pairs['rival'].median():.0%}|{pairs['line'].median():.0%}"
                text = text.replace("%", "")
            label = ax.text(j, i, text, ha="center", va="center", size=7)
            label.set_path_effects([withStroke(linewidth=1.6, foreground="white")])
    extent = (-0.5, len(regimes) - 0.5, len(places) - 0.5, -0.5)
    shades: dict[str, Any] = {"cmap": _SHADES, "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(image.reshape(len(places), -1), extent=extent, aspect="auto", **shades)
    _frame(ax, places, regimes)


_STRIPES = 60


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each problem the share of the `rival` and that of the `line` ST-ZGR."""
    which = np.where(rows["series"] == _LINE, "line", "rival")
    case = [*_PLACE, "regime", "logits_seed"]
    pairs = rows.assign(which=which).pivot(index=case, columns="which", values="share")
    return pairs.reindex(columns=["rival", "line"]).astype(float)


def _draw_winners(ax: Axes, rows: pd.DataFrame, places: list[Any], regimes: list[str]) -> None:
    """Draw a cell for each place and kind of logits: the series that wins most seeds."""
    image = np.ones([len(places), len(regimes), 3])
    for i, place in enumerate(places):
        for j, regime in enumerate(regimes):
            part = rows[_at(rows, place) & (rows["regime"] == regime)]
            if part.empty:
                ax.text(j, i, "–", ha="center", va="center")
                continue
            first = part.sort_values(["wins", "error"], ascending=[False, True]).iloc[0]
            share = first["wins"] / part["seeds"].max()
            shade = np.array(to_rgb(family_color(family(first["series"]))))
            image[i, j] = 1 - (1 - shade) * (0.12 + 0.5 * share)
            error = first["error"] if first["error"] > _ROUNDING else 0
            text = (
                f"{short(first['series'])}\n{first['wins']} of {part['seeds'].max()},  {error:.2g}"
            )
            ax.text(j, i, text, ha="center", va="center", size=6.5, linespacing=1.05)
    extent = (-0.5, len(regimes) - 0.5, len(places) - 0.5, -0.5)
    ax.imshow(image, extent=extent, aspect="auto", interpolation="nearest")
    _frame(ax, places, regimes)


_ROUNDING = 1e-12


def _at(rows: pd.DataFrame, place: Any) -> pd.Series:
    return (rows[_PLACE] == list(place)).all(axis=1)


def _frame(ax: Axes, places: list[Any], regimes: list[str]) -> None:
    """Name the columns and part the cells, problems by wider gaps."""
    ax.set_xticks(range(len(regimes)), regimes)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    for x in range(1, len(regimes)):
        ax.axvline(x - 0.5, color="w", lw=3)
    for y in range(1, len(places)):
        new = places[y].problem != places[y - 1].problem
        ax.axhline(y - 0.5, color="w", lw=5 if new else 1.2)


def _infinite(series: str) -> str:
    return series.replace("inf", "∞").replace("k=", "")


def _overall(rows: pd.DataFrame) -> str:
    """Return the medians over all problems, and in how many one curve wholly dominates."""
    pairs = _pairs(rows).dropna()
    middle, whole = pairs.median(), (pairs == 1).mean()
    return (
        f"median {middle['rival']:.0%} | {middle['line']:.0%},  "
        f"wholly in {whole['rival']:.0%} | {whole['line']:.0%}"
    )


def _title(shares: pd.DataFrame, rivals: list[str]) -> str:
    cases = shares.drop_duplicates([*_PLACE, "regime", "logits_seed"])
    missing = shares["share"].isna().sum()
    text = (
        f"{len(cases):,} problems, {cases['logits_seed'].nunique()} seeds a cell, of which each is a stripe, sorted.  "
        f"Numbers: a | b: a % of the Gumbel-Rao curve is dominated by {_LINE}, b % of {_LINE} by it (medians)"
    )
    if missing:
        reasons = "; ".join(shares["reason"].dropna().unique())
        text += f"\nnot shown: {missing} shares that do not exist ({reasons})"
    return text


def _key(paid: pd.DataFrame) -> list[Patch]:
    """Return the legend: the shades of the shares, then the families of the winners."""
    shown = {family(series) for series in paid.loc[paid["wins"] > 0, "series"]}
    return [
        Patch(color=_SHADES(1.0), label=f"{_LINE} better: only the other curve is dominated"),
        Patch(color=_SHADES(0.5), ec="0.7", label="neither, or both equally"),
        Patch(color=_SHADES(0.0), label=f"Gumbel-Rao better: only {_LINE} is dominated"),
        *(
            Patch(color=family_color(k), alpha=0.62, label=f"winner: {k}")
            for k in FAMILIES
            if k in shown
        ),
    ]
