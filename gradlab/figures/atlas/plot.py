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
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.text import Text
from numpy.typing import NDArray

from gradlab.plots.names import label, short
from gradlab.plots.rounding import SQUARE_ROUNDING
from gradlab.plots.style import FAMILIES, color, family, family_color, styled

__all__ = ["plot"]

_LINE = "ST-ZGR"
_SHADES = LinearSegmentedColormap.from_list(
    "better", [color("GR(k=inf)"), "#F4A68C", "#FFFFFF", "#7FC4EA", color("ZGR")]
)
_PLACE = ["problem", "N", "C"]


def plot(summary: pd.DataFrame) -> Figure:
    """Return the figure of the atlas's `summary`: maps of domination, and of the winners.

    Raises ValueError if there is nothing to draw.
    """
    kept = summary[summary["kind"].isin(["domination", "best"])]
    if kept.empty:
        raise ValueError("summary must have rows of the kind domination or best")
    kept = kept.astype({"N": int, "C": int})
    shares, best = (kept[kept["kind"] == kind] for kind in ("domination", "best"))
    places = list(kept[_PLACE].drop_duplicates().itertuples(index=False, name=None))
    regimes = list(kept["regime"].unique())
    of_rival = shares[shares["dominated_by"] == _LINE]
    # By what training needs; the errors of one draw and at equal cost stay in the rows.
    paid = best[best["criterion"] == "progress"]
    panels = list(of_rival.groupby(["series", "scale"], sort=False).groups)
    with styled():
        figure = Figure(figsize=(15, 2.2 + 0.4 * len(places)))
        widths = [1.0] * len(panels) + [2.1] * paid["criterion"].nunique()
        axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
        for ax, (rival, scale) in zip(axes, panels, strict=False):
            pairs = _pairs(shares[shares["scale"] == scale], rival)
            _draw_shares(ax, pairs, places, regimes)
            ax.set_title(f"{label(rival)}, {scale}\n{_overall(pairs)}", size=8.5)
        for ax, (_, part) in zip(axes[len(panels) :], paid.groupby("criterion"), strict=True):
            _draw_winners(ax, part, places, regimes)
            what = "most progress by 100 gradients of 12 evaluations of f, each at its best τ"
            how = "wins / seeds (ties: the least); median of 1 - progress ± s.e. if not exact"
            ax.set_title(f"{what}\n{how}", size=8.5)
        axes[0].set_yticks(range(len(places)), [f"{p}  {n}×{c}" for p, n, c in places])
        axes[0].set_ylabel("problem, N variables × C classes")
        figure.legend(handles=_key(paid), loc="outside lower center", ncols=3)
        figure.suptitle(_title(shares), size=9.5)
    return figure


def _pairs(rows: pd.DataFrame, rival: str) -> pd.DataFrame:
    """Return for each problem the share of the `rival` and that of the `line` ST-ZGR."""
    sides = {"rival": (rival, _LINE), "line": (_LINE, rival)}
    found = {}
    for side, (series, by) in sides.items():
        part = rows[(rows["series"] == series) & (rows["dominated_by"] == by)]
        found[side] = part.set_index([*_PLACE, "regime", "logits_seed"])["share"].astype(float)
    return pd.DataFrame(found).dropna()


def _overall(pairs: pd.DataFrame) -> str:
    """Return the medians over all problems, and in how many the whole curve is dominated."""
    middle, whole = pairs.median(), (pairs == 1).mean()
    return (
        f"all: {middle['rival']:.0%} | {middle['line']:.0%};  "
        f"whole: {whole['rival']:.0%} | {whole['line']:.0%}"
    )


def _draw_shares(
    ax: Axes, pairs: pd.DataFrame, places: list[tuple[str, int, int]], regimes: list[str]
) -> None:
    """Draw a cell for each place and kind of logits: its seeds as stripes, the medians as text."""
    cells = dict(list(pairs.groupby([*_PLACE, "regime"])))
    image = np.full([len(places), len(regimes), _STRIPES], np.nan)
    for i, place in enumerate(places):
        for j, regime in enumerate(regimes):
            part = cells.get((*place, regime))
            text = "–"
            if part is not None:
                lead = np.sort(part["rival"] - part["line"])[::-1]
                image[i, j] = lead[np.arange(_STRIPES) * len(lead) // _STRIPES]
                text = "{rival:.0f}|{line:.0f}".format(**100 * part.median())
            _write(ax, j, i, text, size=7).set_path_effects(_HALO)
    shades: dict[str, Any] = {"cmap": _SHADES, "vmin": -1, "vmax": 1}
    _draw_cells(ax, image.reshape(len(places), -1), places, regimes, **shades)


_STRIPES = 60
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white")]


def _draw_winners(
    ax: Axes, rows: pd.DataFrame, places: list[tuple[str, int, int]], regimes: list[str]
) -> None:
    """Draw a cell for each place and kind of logits: the series that wins most seeds."""
    order = rows.sort_values(["wins", "error"], ascending=[False, True])
    cells = dict(list(order.groupby([*_PLACE, "regime"])))
    image = np.ones([len(places), len(regimes), 3])
    for i, place in enumerate(places):
        for j, regime in enumerate(regimes):
            part = cells.get((*place, regime))
            if part is None:
                _write(ax, j, i, "–", size=7)
                continue
            first, seeds = part.iloc[0], part["seeds"].max()
            shade = np.array(to_rgb(family_color(family(first["series"]))))
            image[i, j] = 1 - (1 - shade) * (0.1 + 0.5 * first["wins"] / seeds)
            error = f"{first['error']:.2g}" if first["error"] > SQUARE_ROUNDING else "0"
            if first["error_se"] > 0:
                error += f" ± {first['error_se']:.1g}"
            text = f"{short(first['series'])}\n{first['wins']:.0f}/{seeds:.0f};  {error}"
            _write(ax, j, i, text, size=6.5)
    _draw_cells(ax, image, places, regimes)


def _write(ax: Axes, x: float, y: float, text: str, size: float) -> Text:
    # The layout need not measure what stands inside a panel.
    look: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.05}
    written = ax.text(x, y, text, size=size, **look)
    written.set_in_layout(False)
    return written


def _draw_cells(
    ax: Axes,
    image: NDArray[np.float64],
    places: list[tuple[str, int, int]],
    regimes: list[str],
    **shades: Any,
) -> None:
    """Draw the image, name its columns and part its cells, problems by wider gaps."""
    extent = (-0.5, len(regimes) - 0.5, len(places) - 0.5, -0.5)
    ax.imshow(image, extent=extent, aspect="auto", interpolation="nearest", **shades)
    ax.set_xticks(range(len(regimes)), regimes)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    for x in range(1, len(regimes)):
        ax.axvline(x - 0.5, color="w", lw=3)
    for y in range(1, len(places)):
        ax.axhline(y - 0.5, color="w", lw=1.2 if places[y][0] == places[y - 1][0] else 5)


def _title(shares: pd.DataFrame) -> str:
    """Return what the numbers mean, how many problems there are and what is not shown."""
    case = [*_PLACE, "regime", "logits_seed"]
    number, seeds = len(shares[case].drop_duplicates()), shares["logits_seed"].nunique()
    text = (
        f"{number:,} problems.  a | b: {_LINE} dominates a % of the Gumbel-Rao curve, which "
        f"dominates b % of {_LINE}; medians over up to {seeds} seeds, each a stripe, sorted.  "
        "Better counts however little.\n"
        "Above each map: medians over all problems; in how many the whole curve is dominated.  "
        "Scale-free: estimates rescaled so that their mean is as long as the true gradient g"
    )
    missing = shares["share"].isna().sum()
    if missing:
        reasons = "; ".join(shares["reason"].dropna().unique())
        text += f"\n{missing} shares that do not exist are not shown: {reasons}"
    return text


def _key(paid: pd.DataFrame) -> list[Patch]:
    """Return the legend: the shades of the shares, then the families of the winners."""
    shown = {family(series) for series in paid.loc[paid["wins"] > 0, "series"]}
    shares = {
        f"{_LINE} better: a = 100, b = 0": _SHADES(1.0),
        "as good: a = b": _SHADES(0.5),
        "Gumbel-Rao better: a = 0, b = 100": _SHADES(0.0),
    }
    winners = {f"winner: {kind}": family_color(kind) for kind in FAMILIES if kind in shown}
    return [
        *(Patch(fc=shade, ec="0.7", lw=0.5, label=text) for text, shade in shares.items()),
        *(Patch(color=shade, alpha=0.6, label=text) for text, shade in winners.items()),
    ]
