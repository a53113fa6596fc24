"""Rows of a sweep as small panels: any number against any column, one line per value of another.

Rows that differ in other columns (seeds, sizes, regimes) are summed up by their median and their
15 to 85 % range.
"""

import math
from textwrap import fill, shorten
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlab.plots.hues import Look, hue_looks
from gradlab.plots.names import label
from gradlab.plots.style import styled
from gradlab.plots.sweep_points import SQUARES, SYMBOLS, Points, points

__all__ = ["plot"]

_LABELS = {
    "tau": "temperature τ",
    "bias2": "bias²",
    "variance": "variance of one draw",
    "mse": "MSE of one draw",
    "relative_bias2": "bias² / |g|²",
    "relative_variance": "variance of one draw / |g|²",
    "relative_mse": "MSE of one draw / |g|²",
    "calls": "evaluations of f",
    "size": "size N x C",
    "series": "estimator",
    "logits_seed": "seed of problem and logits",
}
# Medians smaller by this factor than the largest are not shown: often noise around zero.
_DECADES = 1e-10


def plot(
    rows: pd.DataFrame, x: str = "tau", y: str = "mse", hue: str = "estimator", col: str = "problem"
) -> Figure:
    """Return the figure of a sweep.

    Rows of equal x are one point: their median, with a band from 15 to 85 %. Where there is only
    one row at every x, points have +-1 standard error. Rows without x are dashed lines across. Axes
    are logarithmic where values span more than a factor of 20. What is not drawn is counted: points
    <= 0 above their panel, rows without a number at the foot of the figure.

    Args:
        rows: Rows of `gradlab.sweep_rows`.
        x: The column along the axis, or "size", which is NxC.
        y: A column of numbers, or relative_bias2, relative_variance or relative_mse, which are
            divided by truth2.
        hue: The column whose values are lines. Along tau, "estimator" means "series".
        col: The column whose values are panels.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is unknown, there are more panels than `MOST_PANELS` or hues than
            `MOST_HUES` of `sweep_points`, or the rows are empty or hold no y.

    Example:
        >>> import tempfile
        >>> from gradlab import Grid, run_sweep, sweep_rows
        >>> grid = Grid(["linear", "quadratic"], ["2x3"], estimators=["GS"], temperatures=[0.5, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run_sweep(grid, f"{folder}/rows.db", workers=1)
        ...     rows = sweep_rows(f"{folder}/rows.db")
        >>> len(plot(rows).axes)
        2
    """
    if x == "tau":
        hue, col = ("series" if name == "estimator" else name for name in (hue, col))
    found = points(rows, x, y, hue, col)
    table, looks = found.table, hue_looks(found.hues, _kind(rows, hue))
    # In units of f² the panels of different problems have nothing in common.
    shared = col != "problem" or y not in (*SQUARES, "truth2")
    is_log = _spans(table["middle"], zeros=y.removeprefix("relative_") in SQUARES)
    with styled():
        figure, axes = _frame(len(found.panels), len(looks), shared)
        for ax, panel in zip(axes, found.panels, strict=True):
            part = table[table["panel"] == panel]
            _set_x(ax, table["x"].dropna(), found.x_names)
            _set_y(ax, table if shared else part, is_log, bounded=y == "cosine")
            # A gap in the line, where the band goes on.
            shown = part["middle"].where(part["middle"].between(*ax.get_ylim()))
            _draw_panel(ax, part.assign(middle=shown), looks, joined=not found.x_names)
            ax.set_title(label(panel), loc="left", pad=13)
            _note(ax, part, absent=part[shown.isna()])
        _name_axes(axes, _LABELS.get(x, x), _LABELS.get(y, y))
        _legend(figure, found, looks, _LABELS.get(hue, hue), x)
        if found.lost:
            figure.supxlabel(found.lost, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def _kind(rows: pd.DataFrame, hue: str) -> str:
    if hue == "series":
        return hue
    is_ordered = hue not in rows or pd.api.types.is_numeric_dtype(rows[hue])
    return "ordered" if is_ordered else "named"


def _spans(values: pd.Series, *, zeros: bool) -> bool:
    """Return whether an axis is logarithmic: values positive, the largest 20 times the least.

    `zeros`: values <= 0 do not forbid it, since they are zeros or estimates of small squares.
    """
    positive = values[values > 0]
    return (zeros or len(positive) == len(values)) and positive.max() > 20 * positive.min()


def _frame(panels: int, hues: int, shared: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many panels, room for the legend at its right."""
    columns = panels if panels <= 3 else 2 if panels == 4 else 3 if panels <= 9 else 4
    columns = 6 if panels > 16 else columns
    lines = math.ceil(panels / columns)
    width, height = (4.6, 3.6) if panels == 1 else (2.6, 2.3)
    height = max(lines * height + 0.5, min(max(3.2, 1.2 + 0.16 * hues), 5))
    figure = Figure(figsize=(columns * width + 2 * math.ceil(hues / (6 * height)), height))
    axes = figure.subplots(lines, columns, sharex=True, sharey=shared, squeeze=False)
    flat = list(axes.flat)
    for ax in flat[panels:]:
        ax.remove()
    for ax in flat[max(panels - columns, 0) : panels]:
        ax.tick_params(labelbottom=True)
    return figure, flat[:panels]


def _set_x(ax: Axes, places: pd.Series, names: list[str]) -> None:
    """Set the axis of x: names, the few numbers that there are, or a scale."""
    few = np.sort(places.unique())
    if names:
        turned = 90 if len("  ".join(names)) > 30 else 0
        ax.set_xticks(range(len(names)), [label(name) for name in names], rotation=turned)
        ax.set_xlim(-0.6, len(names) - 0.4)
        return
    if not len(few):
        ax.set_xticks([])
        return
    is_log = _spans(places, zeros=False)
    room = (few[-1] / few[0]) ** 0.04 if is_log else 0.05 * (few[-1] - few[0]) or 0.5
    if is_log:
        ax.set(xscale="log", xlim=(few[0] / room, few[-1] * room))
    else:
        ax.set_xlim(few[0] - room, few[-1] + room)
    if is_log and few[-1] > 100 * few[0]:
        ax.xaxis.minorticks_off()
    if len(few) <= 6:
        ax.set_xticks(few, [f"{value:g}" for value in few])
        ax.xaxis.minorticks_off()


def _set_y(ax: Axes, table: pd.DataFrame, is_log: bool, *, bounded: bool) -> None:
    """Set the axis of y around all medians, on a logarithmic one those of ten decades.

    `bounded`: bands are not followed beyond -1 and 1.
    """
    if table.empty:
        ax.set_yticks([])
        return
    low, middle, high = (table[name] for name in ("low", "middle", "high"))
    if not is_log:
        bottom = min(max(low.min(), -1.0), middle.min()) if bounded else low.min()
        top = max(min(high.max(), 1.0), middle.max()) if bounded else high.max()
        room = 0.05 * (top - bottom) or 0.5
        ax.set_ylim(bottom - room, top + room)
        return
    above = next((v[v > 0] for v in (middle, high) if (v > 0).any()), pd.Series([0.1, 1.0]))
    most = above.max()
    least = above[above > _DECADES * most].min()
    # A band or an error bar that reaches zero has no end on this axis.
    ends = low[(low > 0) & (middle >= least)]
    bottom = max(ends.min(), least / 100) if len(ends) else least
    bottom, top = min(bottom, least) / 1.6, min(high.max(), 100 * most) * 1.6
    ax.set(yscale="log", ylim=(bottom, max(top, 1.6 * most)))
    if top > 100 * bottom:
        ax.yaxis.minorticks_off()


def _draw_panel(ax: Axes, part: pd.DataFrame, looks: dict[str, Look], *, joined: bool) -> None:
    """Draw lines and bands, or single points and bars, and what has no x across the panel."""
    across = [hue for hue in looks if part.loc[part["hue"] == hue, "x"].isna().any()]
    # Many bands together must still let the lines be seen.
    alpha = min(0.15, 1.2 / len(looks))
    for number, (hue, look) in enumerate(looks.items()):
        own = part[part["hue"] == hue].dropna(subset="x")
        shade = look["color"]
        x = own["x"] + (0 if joined else 0.7 * ((number + 0.5) / len(looks) - 0.5))
        if len(own):
            line: Look = {"ls": "-" if joined else "", "lw": 1.1, "ms": 3, "zorder": 3}
            ax.plot(x, own["middle"], label=hue, **line, **look)
        if joined and len(own) > 1 and not own["single"].any():
            ax.fill_between(x, own["low"], own["high"], color=shade, alpha=alpha, lw=0, zorder=1)
        elif (own["high"] > own["low"]).any():
            ax.vlines(x, own["low"], own["high"], color=shade, lw=0.9, zorder=2)
        for _, level in part[(part["hue"] == hue) & part["x"].isna()].iterrows():
            # Markers stand side by side, so that lines at the same height can be distinguished.
            x = np.array([0, (across.index(hue) + 0.5) / len(across), 1])
            line = {"ls": "--", "lw": 0.9, "ms": 4, "markevery": [1], "label": hue, "zorder": 3}
            ax.plot(x, [level["middle"]] * 3, transform=ax.get_yaxis_transform(), **line, **look)
            if level["high"] > level["low"]:
                bottom = max(level["low"], ax.get_ylim()[0])
                ax.axhspan(bottom, level["high"], color=shade, alpha=alpha / 2, lw=0, zorder=0.5)


def _note(ax: Axes, part: pd.DataFrame, absent: pd.DataFrame) -> None:
    """Write below the title how many points have no place on the axis, and whose."""
    is_below = absent["middle"] > 0
    kinds = {"≤ 0": ~is_below, "below the axis": is_below}
    kinds_found = [words for words, which in kinds.items() if which.any()]
    if kinds_found:
        # First those of which nothing is seen.
        seen = set(part["hue"].drop(absent.index))
        whose = sorted(absent["hue"].unique(), key=lambda hue: hue in seen)
        count = f"{len(absent)} of {len(part)} points {' or '.join(kinds_found)}"
        text = f"{count}: {', '.join(map(label, whose))}"
    else:
        text = "" if len(part) else "nothing could be measured"
    text = shorten(text, 50, placeholder=" …")
    place: Look = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (0, 4), fontsize=6.5, color="0.35", **place)


def _name_axes(axes: list[Axes], x: str, y: str) -> None:
    """Name the axes at the left and at the foot of the grid of panels."""
    for number, ax in enumerate(axes):
        place = ax.get_subplotspec()
        assert place is not None
        if place.is_first_col():
            ax.set_ylabel(y)
        columns = place.get_gridspec().ncols
        if number + columns >= len(axes):
            ax.set_xlabel(x)


def _legend(figure: Figure, found: Points, looks: dict[str, Look], title: str, x: str) -> None:
    """Write right of the panels which hue is which, and what lines, bands and bars are."""
    entries: list[tuple[Any, str]] = [
        (Line2D([], [], lw=1.1, ms=4, ls="" if found.x_names else "-", **look), label(hue))
        for hue, look in looks.items()
    ]
    grey: Look = {"color": "0.35"}
    table = found.table
    several, single = table[~table["single"]], table[table["single"]]
    if len(several):
        counts = sorted({several["count"].min(), several["count"].max()})
        over = " to ".join(f"{count:,}" for count in counts)
        text = ": ".join(filter(None, [f"median and 15-85 % over {over} rows", found.left_open]))
        bar, band = Line2D([], [], marker="|", ms=9, ls="", **grey), Patch(alpha=0.15, **grey)
        entries.append((bar if found.x_names else (band, Line2D([], [], **grey)), text))
    if (single["high"] > single["low"]).any():
        text = "one row a point, ± 1 standard error; exact where there is none"
        entries.append((Line2D([], [], marker="|", ms=7, **grey), text))
    elif len(single):
        entries.append((Line2D([], [], marker="o", ms=3, **grey), "one row a point"))
    if table["x"].isna().any():
        entries.append((Line2D([], [], ls="--", lw=0.9, **grey), f"no {SYMBOLS.get(x, x)}"))
    handles, texts = zip(*entries, strict=True)
    lines = [fill(text, 30) for text in texts]
    rows = (figure.get_figheight() - 0.5) / 0.16
    columns = math.ceil(sum(1 + text.count("\n") for text in lines) / rows)
    look: Look = {"title": title, "alignment": "left", "title_fontsize": 8, "ncols": columns}
    figure.legend(handles, lines, loc="outside right upper", **look)
