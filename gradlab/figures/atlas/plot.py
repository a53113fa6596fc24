"""The atlas as a map: which of two families has the better trade-off, on which problems.

A row is a problem at one size, a column a kind of logits. The rows hold more: the shares of every
seed, and which series wins by three criteria.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from gradlab.plots.names import label
from gradlab.plots.quantities import share_leads
from gradlab.plots.style import color, styled

__all__ = ["leads", "plot"]

_LINE = "ST-ZGR"
_SHADES = LinearSegmentedColormap.from_list(
    "better", [color("GR(k=inf)"), "#F4A68C", "#FFFFFF", "#7FC4EA", color("ZGR")]
)
_PLACE = ["problem", "N", "C"]


def plot(summary: pd.DataFrame) -> Figure:
    """Return the figure of the atlas's `summary`: the median lead of ST-ZGR over Gumbel-Rao.

    Raises ValueError if there is nothing to draw.
    """
    shares = summary[summary["kind"] == "domination"]
    if shares.empty:
        raise ValueError("summary must have rows of the kind domination")
    shares = shares.astype({"N": int, "C": int})
    regimes = list(shares["regime"].unique())
    of_rival = shares[shares["dominated_by"] == _LINE]
    panels = list(of_rival.groupby(["series", "scale"], sort=False).groups)
    middle = leads(shares)
    places = _places(shares, middle)
    with styled():
        figure = Figure(figsize=(8.4, 1.7 + 0.21 * len(places)))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (rival, scale) in zip(axes, panels, strict=True):
            here = middle.index.isin([rival], "rival") & middle.index.isin([scale], "scale")
            part = middle[here].droplevel(["rival", "scale"]).to_dict()
            image = _draw_leads(ax, part, places, regimes)
            ax.set_title(f"{label(rival)}, {scale}", size=8.5)
        axes[0].set_yticks(range(len(places)), [f"{p}  {n}×{c}" for p, n, c in places])
        axes[0].set_ylabel("problem, N variables × C classes")
        bar = figure.colorbar(image, ax=list(axes), location="bottom", aspect=50, pad=0.02)
        bar.set_ticks([-100, -50, 0, 50, 100])
        bar.set_label(
            f"points by which the share of Gumbel-Rao that {_LINE} dominates is larger (blue) or "
            f"smaller (red) than the reverse"
        )
        figure.suptitle(_title(shares), size=8.5)
    return figure


def leads(shares: pd.DataFrame) -> pd.Series:
    """Return the medians over seeds of the leads of ST-ZGR, in points.

    The index is `rival`, `scale`, `problem`, `N`, `C` and `regime`.
    """
    lead = share_leads(shares, _LINE)
    return lead.groupby(["rival", "scale", *_PLACE, "regime"], sort=False).median()


def _places(shares: pd.DataFrame, middle: pd.Series) -> list[tuple[str, int, int]]:
    """Return problems and sizes: problems by their mean lead, the largest on top."""
    means = middle.groupby("problem").mean().to_dict()
    places = list(shares[_PLACE].drop_duplicates().itertuples(index=False, name=None))
    rank = {name: place for place, name in enumerate(sorted(means, key=means.get, reverse=True))}
    return sorted(places, key=lambda place: (rank.get(place[0], len(rank)), *_size(*place[1:])))


def _size(variables: int, classes: int) -> tuple[int, int]:
    return variables * classes, classes


def _draw_leads(
    ax: Axes,
    middle: dict[tuple[str, int, int, str], float],
    places: list[tuple[str, int, int]],
    regimes: list[str],
) -> Any:
    """Draw a cell for each place and kind of logits, with its number; return the image."""
    cells = np.array([[middle.get((*place, kind), np.nan) for kind in regimes] for place in places])
    image = ax.imshow(cells, aspect="auto", cmap=_SHADES, vmin=-100, vmax=100)
    for (i, j), value in np.ndenumerate(cells):
        text = "–" if np.isnan(value) else f"{value:+.0f}".replace("+0", "0").replace("-0", "0")
        shade = "w" if abs(value) > 75 else "k"
        written = ax.text(j, i, text, ha="center", va="center", size=7, color=shade)
        written.set_in_layout(False)  # it stands inside the panel
    ax.set_xticks(range(len(regimes)), regimes, size=7)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    for x in range(1, len(regimes)):
        ax.axvline(x - 0.5, color="w", lw=1.5)
    for y in range(1, len(places)):
        ax.axhline(y - 0.5, color="w", lw=0.6 if places[y][0] == places[y - 1][0] else 4)
    return image


def _title(shares: pd.DataFrame) -> str:
    """Return how many problems there are, and what is not shown."""
    case = [*_PLACE, "regime", "logits_seed"]
    number, seeds = len(shares[case].drop_duplicates()), shares["logits_seed"].nunique()
    text = (
        f"{_LINE} against Gumbel-Rao on {number:,} problems: medians over up to {seeds} seeds.  "
        "Scale-free: estimates rescaled to the length of g"
    )
    missing = shares["share"].isna().sum()
    if missing:
        reasons = "; ".join(shares["reason"].dropna().unique())
        text += f"\n{missing} shares that do not exist are not shown: {reasons}"
    return text
