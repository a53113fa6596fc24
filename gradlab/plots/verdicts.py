"""Verdicts as pictures: estimators against losses as a table of colours, errors by their draws."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm

from gradlab.plots.names import label

__all__ = ["draw_planted", "draw_verdicts"]

# Biases outside this range get its end colours.
_SMALL, _LARGE = 0.01, 2.0
_PROVED, _SHOWN, _UNDECIDED, _OUT = "#D9F0D9", "#EEF7E4", "#FFF3C4", "#EDEDED"


def draw_verdicts(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one cell for each estimator and loss: its outcome, and the bias where it is biased.

    Of several rows of one cell the least favourable is drawn.

    Args:
        ax: The panel.
        rows: Rows of `Ladder.rows` or of `Verdict.row`. They name the loss in `loss`, `kind` or
            `problem`; `degree` and `declared` are shown where they are known.
    """
    rows = _one_each(rows)
    rows = rows.assign(text=[_text(row) for row in rows.itertuples()])
    order = {"index": list(rows["estimator"].unique()), "columns": list(rows["loss"].unique())}
    table = {
        column: rows.pivot(index="estimator", columns="loss", values=column).reindex(**order)
        for column in ("bias", "text", "outcome", "method", "degree")
    }
    for colour, which in (
        (_PROVED, (table["outcome"] == "UNBIASED") & (table["method"] == "exact")),
        (_SHOWN, (table["outcome"] == "UNBIASED") & (table["method"] != "exact")),
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
    if biased.any(axis=None):
        bar = {"label": "bias / |g|", "ticks": [0.01, 0.1, 1], "format": "{x:g}", "pad": 0.01}
        seaborn.heatmap(
            table["bias"].astype(float).clip(_SMALL, _LARGE),
            mask=~biased,
            norm=LogNorm(_SMALL, _LARGE),
            cmap="OrRd",
            linewidths=1,
            cbar_kws=bar,
            ax=ax,
        )
    for (i, j), text in np.ndenumerate(table["text"].to_numpy()):
        dark = biased.iloc[i, j] and table["bias"].iloc[i, j] > 0.6
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color="w" if dark else "k")
    degrees = table["degree"].max()
    at = np.arange(len(order["columns"])) + 0.5
    below = [f"{loss}\n{_degree(degrees[loss])}".rstrip() for loss in order["columns"]]
    ax.set_xticks(at, below, size=7)
    declared = rows.drop_duplicates("estimator").set_index("estimator")["declared"]
    names = [f"{label(name)}{_order(declared[name])}" for name in order["index"]]
    ax.set_yticks(np.arange(len(names)) + 0.5)
    ax.set_yticklabels(names, rotation=0)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set(
        xlabel="", ylabel="", title=_TITLE if declared.notna().any() else _TITLE.split("   ", 1)[1]
    )


def _one_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the least favourable row of each estimator and loss, with all columns drawn."""
    named = next(name for name in ("loss", "kind", "problem") if name in rows)
    rows = rows.assign(loss=rows[named]).reset_index(drop=True)
    rows = rows.reindex(columns=[*rows, *{"degree", "declared"}.difference(rows)])
    order = ("NOT APPLICABLE", "UNBIASED", "INCONCLUSIVE", "BIASED")
    rank = rows["outcome"].map(order.index)
    by_badness = rows.assign(rank=rank).sort_values(
        ["rank", "bias"], ascending=False, kind="stable"
    )
    return by_badness.drop_duplicates(["estimator", "loss"]).sort_index()


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
    if pd.isna(degree):
        return ""
    return "no degree" if np.isinf(degree) else f"degree {degree:g}"


def _order(order: float) -> str:
    if pd.isna(order):
        return ""
    return "  [any]" if np.isinf(order) else f"  [{order:g}]"


def draw_planted(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the draws to the verdict on each planted error, and on the code without it.

    Code that is refused has the reason beside it. Code that is wrong in training only is named so.

    Args:
        ax: The panel.
        rows: One row per planted error.
    """
    if "how" not in rows:  # as in rows of earlier versions
        rows = rows.assign(how=rows["outcome"])
    rows = rows.iloc[::-1]
    at = np.arange(len(rows))
    refused = rows["how"].str.startswith("refused").to_numpy()
    ax.hlines(at, rows["draws"], rows["right_draws"], color="0.85", lw=1, zorder=1)
    for which, marker, colour, text in (
        (~refused, "X", "#CC3311", "with the error: BIASED"),
        (refused, "s", "#EE7733", "with the error: refused"),
    ):
        if which.any():
            ax.plot(rows["draws"][which], at[which], marker, color=colour, ms=6, label=text)
    ax.plot(rows["right_draws"], at, "o", color="#009E73", label="without: UNBIASED within 5 %")
    for place, row in zip(at, rows.itertuples(), strict=True):
        beside = ax.get_yaxis_transform()
        ax.text(0.99, float(place), _how(row), ha="right", va="center", transform=beside, size=7)
    ax.set_yticks(at, list(rows["planted"]), size=7)
    ax.set(xscale="log", xlim=(30, 3e6), ylim=(-0.7, len(rows) - 0.3))
    ax.set_xlabel("draws until the verdict (false alarms: 10⁻⁶)")
    ax.set_title("Planted errors, judged by draws alone")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -2.7 / max(len(rows), 4)), ncols=3)
    ax.minorticks_off()


def _how(row: object) -> str:
    """Return how an error is found: by what bias of what, or for what fault it is refused."""
    how, bias, factor = row.how, row.bias, row.factor  # type: ignore[attr-defined]
    if how.startswith("refused"):
        return str(how)
    part = how.partition(": ")[2]
    named = "" if pd.isna(factor) else f"; mean = {factor} g"
    return f"{part}{': ' if part else ''}bias {bias:.0%}{named}"
