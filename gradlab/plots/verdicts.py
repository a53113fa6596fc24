"""Verdicts as pictures: estimators against losses as a table of colours, errors by their draws."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.names import label
from gradlab.plots.panels import Legends, Width, in_callers_look, panels
from gradlab.plots.quantities import check

__all__ = ["draw_planted", "draw_verdicts", "fit_cells", "verdict_key", "verdicts"]

# Biases outside this range get its end colours.
_SMALL, _LARGE = 0.01, 2.0
_PROVED, _SHOWN, _UNDECIDED, _OUT = "#D9F0D9", "#EEF7E4", "#FFF3C4", "#EDEDED"
_NEEDS = "verdicts draws rows of verify_order(...).rows(), or of verify(...).row()"


def verdicts(
    rows: pd.DataFrame, *, ax: Axes | None = None, width: Width = "column", legend: bool = True
) -> Figure:
    """Draw a table of verdicts: one cell for each estimator and loss.

    A cell holds the bias relative to the gradient, or 0 where it is proved that there is none. Of
    several rows of one cell the least favourable is drawn.

    Args:
        rows: Rows of `verify_order(...).rows()`, or a table of `verify(...).row()`.
        ax: An axis to draw on. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above a given axis.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> on = problem("quadratic", 2, 3), regime("moderate", 2, 3)
        >>> rows = pd.DataFrame([gradlab.verify(name, *on).row() for name in ("ST", "ZGR")])
        >>> figure = gradlab.plot.verdicts(rows)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['34%', '0']
    """
    check(rows, ["estimator", "outcome", "method", "bias", "delta"], _NEEDS)
    if not {"loss", "kind", "problem"} & {*rows}:
        raise ValueError(f"rows have no column 'problem': {_NEEDS}")
    with in_callers_look(ax):
        many = rows["estimator"].nunique()
        figure, (panel,) = panels(ax, width, ["verdicts"], height=0.4 + 0.17 * many)
        draw_verdicts(panel, rows)
        Legends(figure, ax, [panel], shown=legend).write(verdict_key(rows))
        fit_cells(panel)
    return figure


def draw_verdicts(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one cell for each estimator and loss: its outcome, and the bias where it is biased.

    Of several rows of one cell the least favourable is drawn.

    Args:
        ax: The panel.
        rows: Rows of `Ladder.rows` or of `Verdict.row`. They name the loss in `loss`, `kind` or
            `problem`; `degree` and `declared` are shown where they are known.
    """
    rows = _one_each(rows)
    rows = rows.assign(
        text=[_text(row) for row in rows.itertuples()],
        shade=[_shade(row) for row in rows.itertuples()],
    )
    order = {"index": list(rows["estimator"].unique()), "columns": list(rows["loss"].unique())}
    table = {
        column: rows.pivot(index="estimator", columns="loss", values=column).reindex(**order)
        for column in ("text", "shade", "degree")
    }
    shades = table["shade"].fillna("#FFFFFF").to_numpy()
    ax.imshow([[to_rgb(shade) for shade in line] for line in shades], aspect="auto")
    for number in range(1, shades.shape[0]):
        ax.axhline(number - 0.5, color="w", lw=1)
    for number in range(1, shades.shape[1]):
        ax.axvline(number - 0.5, color="w", lw=1)
    for (i, j), text in np.ndenumerate(table["text"].fillna("").to_numpy()):
        dark = sum(to_rgb(shades[i, j])) < 1.4
        ink = "w" if dark else "k"
        ax.text(j, i, text, ha="center", va="center", color=ink, size="small", clip_on=True)
    degrees = table["degree"].max()
    below = [f"{label(str(loss))}{_degree(degrees[loss])}" for loss in order["columns"]]
    ax.set_xticks(range(len(below)), below)
    declared = rows.drop_duplicates("estimator").set_index("estimator")["declared"]
    names = [f"{label(name)}{_order(declared[name])}" for name in order["index"]]
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def fit_cells(ax: Axes) -> None:
    """Make the texts of cells small enough for the cells, and turn the names of losses upright.

    Args:
        ax: A panel of `draw_verdicts`.

    Example:
        >>> ax = Figure(figsize=(1, 1)).subplots()
        >>> _ = ax.text(0, 0, "a long text")
        >>> fit_cells(ax)
        >>> ax.texts[0].get_fontsize() < 10
        True
    """
    figure = ax.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    columns = ax.get_xlim()[1] - ax.get_xlim()[0]
    room = 0.92 * ax.get_window_extent().width / columns
    names = ax.get_xticklabels()
    if any(name.get_window_extent().width > room for name in names):
        flat = [name.get_text().replace("\n", ", ") for name in names]
        ax.set_xticks(ax.get_xticks(), flat, rotation=90)
    widest = max((text.get_window_extent().width for text in ax.texts), default=room)
    for text in ax.texts if widest > room else ():
        text.set_fontsize(float(text.get_fontsize()) * room / widest)


def verdict_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of what stands in the cells.

    Args:
        rows: Rows as of `draw_verdicts`.

    Returns:
        One entry for each kind of cell that there is.

    Example:
        >>> rows = {"problem": ["f"], "estimator": ["ST"], "outcome": "BIASED", "method": "exact"}
        >>> [entry.get_label() for entry in verdict_key(pd.DataFrame(rows | {"bias": 0.2}))]
        ['%: bias / |g|']
    """
    rows = _one_each(rows)
    exact, outcome = rows["method"] == "exact", rows["outcome"]
    red = mpl.colormaps["OrRd"](0.4)
    found: list[tuple[Any, Any, str]] = [
        (outcome == "BIASED", red, "%: bias / |g|"),
        ((outcome == "UNBIASED") & exact, _PROVED, "0: none, proved"),
        ((outcome == "UNBIASED") & ~exact, _SHOWN, f"{_less(rows)}: shown by draws"),
        (outcome == "INCONCLUSIVE", _UNDECIDED, "?: not decided"),
        (outcome == "NOT APPLICABLE", _OUT, "–: not applicable"),
        (rows["declared"].notna(), "none", "[d]: degree declared"),
    ]
    square: dict[str, Any] = {"ls": "", "marker": "s", "markersize": 7}
    return [
        Line2D([], [], color=shade, label=text, **square)
        for which, shade, text in found
        if which.any()
    ]


def _less(rows: pd.DataFrame) -> str:
    """Return the bound of the bias that draws have shown, if it is one."""
    bounds = rows["delta"].dropna().unique() if "delta" in rows else []
    return f"< {bounds[0]:.0%}" if len(bounds) == 1 else "<"


def _shade(row: object) -> str:
    """Return the colour of a cell, as #RRGGBB."""
    outcome = row.outcome  # type: ignore[attr-defined]
    if outcome == "BIASED":
        place = LogNorm(_SMALL, _LARGE, clip=True)(row.bias)  # type: ignore[attr-defined]
        return str(mpl.colors.to_hex(mpl.colormaps["OrRd"](float(place))))
    if outcome == "UNBIASED":
        return _PROVED if row.method == "exact" else _SHOWN  # type: ignore[attr-defined]
    return _UNDECIDED if outcome == "INCONCLUSIVE" else _OUT


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
    return "\nno degree" if np.isinf(degree) else f"\ndegree {degree:g}"


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
