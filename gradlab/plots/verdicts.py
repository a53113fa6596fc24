"""Verdicts as pictures: estimators against losses as a table of colours, errors by their draws."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm

from gradlab.plots.ladder import label

__all__ = ["draw_planted", "draw_verdicts"]

# Biases outside this range get its end colours.
_SMALL, _LARGE = 0.01, 2.0
_PROVED, _SHOWN, _UNDECIDED, _OUT = "#D9F0D9", "#EEF7E4", "#FFF3C4", "#EDEDED"


def draw_verdicts(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one cell for each `estimator` and `loss`: its `outcome`, and the `bias` where biased."""
    rows = rows.assign(text=[_text(row) for row in rows.itertuples()])
    order = {"index": list(rows["estimator"].unique()), "columns": list(rows["loss"].unique())}
    table = {
        column: rows.pivot(index="estimator", columns="loss", values=column).reindex(**order)
        for column in ("bias", "text", "outcome", "method", "degree")
    }
    plain = pd.DataFrame(0.0, **order)
    for colour, which in (
        (_PROVED, (table["outcome"] == "UNBIASED") & (table["method"] == "exact")),
        (_SHOWN, (table["outcome"] == "UNBIASED") & (table["method"] == "draws")),
        (_UNDECIDED, table["outcome"] == "INCONCLUSIVE"),
        (_OUT, table["outcome"] == "NOT APPLICABLE"),
    ):
        plain = pd.DataFrame(0.0, **order)
        look = {
            "cmap": ListedColormap([colour]),
            "cbar": False,
            "linewidths": 1,
            "vmin": 0,
            "vmax": 1,
        }
        seaborn.heatmap(plain, mask=~which, ax=ax, **look)
    biased = table["outcome"] == "BIASED"
    seaborn.heatmap(
        table["bias"].astype(float).clip(_SMALL, _LARGE),
        mask=~biased,
        norm=LogNorm(_SMALL, _LARGE),
        cmap="OrRd",
        linewidths=1,
        cbar_kws={"label": "bias / |g|", "ticks": [0.01, 0.1, 1], "format": "{x:g}", "pad": 0.01},
        ax=ax,
    )
    for (i, j), text in np.ndenumerate(table["text"].to_numpy()):
        dark = biased.iloc[i, j] and table["bias"].iloc[i, j] > 0.6
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color="w" if dark else "k")
    degrees = table["degree"].max()
    ax.set_xticklabels([f"{loss}\n{_degree(degrees[loss])}" for loss in order["columns"]])
    declared = rows.drop_duplicates("estimator").set_index("estimator")["declared"]
    names = [f"{label(name)}  [{_order(declared[name])}]" for name in order["index"]]
    ax.set_yticklabels(names, rotation=0)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set(xlabel="", ylabel="", title=_TITLE)


_TITLE = (
    "[declared: exact up to this degree]   0: no bias, proved by enumeration   "
    "< 5%: shown by draws   –: not applicable"
)


def _text(row: object) -> str:
    outcome, bias = row.outcome, row.bias  # type: ignore[attr-defined]
    if outcome == "BIASED":
        return f"{bias:.0%}" if bias >= 0.0095 else f"{bias:.1%}"
    if outcome == "UNBIASED":
        exact = row.method == "exact" or row.deviation == 0  # type: ignore[attr-defined]
        return "0" if exact else f"< {row.delta:.0%}"  # type: ignore[attr-defined]
    return "?" if outcome == "INCONCLUSIVE" else "–"


def _degree(degree: float) -> str:
    return "no degree" if np.isinf(degree) else f"degree {degree:g}"


def _order(order: float) -> str:
    return "any" if np.isinf(order) else f"{order:g}"


def draw_planted(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the `draws` to detection of each planted `error`, with its `bias`."""
    rows = rows[~rows["right"].astype(bool)].sort_values("draws", ascending=False)
    at = np.arange(len(rows))
    ax.barh(at, rows["draws"], color="#CC3311", height=0.55, alpha=0.85)
    for place, row in zip(at, rows.itertuples(), strict=True):
        named = "" if pd.isna(row.factor) else f", mean = {row.factor} g"
        shown = f" {row.draws:,.0f}: bias {row.bias:.0%}{named}"
        ax.text(row.draws, float(place), shown, va="center", fontsize=7)
    ax.set_yticks(at, list(rows["estimator"]))
    ax.set(xscale="log", xlim=(100, 1e7), xlabel="draws until called BIASED (false alarms: 10⁻⁶)")
    ax.set_title("Planted errors, caught by draws alone")
    ax.grid(axis="y", visible=False)
    ax.minorticks_off()
