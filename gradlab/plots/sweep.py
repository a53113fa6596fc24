"""Rows of a sweep as small panels: any number against any column, a line for each value of another.

What is left open (seeds, sizes, regimes) is summed up by its median and its 15 to 85 % range.
"""

import math
from itertools import cycle
from textwrap import fill, shorten
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlab.plots.ladder import label
from gradlab.plots.style import color, family, family_color, family_marker, marker, styled
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
_SHAPES = "osvD^P<X>hdp*"
Look = dict[str, Any]


def plot(
    rows: pd.DataFrame, x: str = "tau", y: str = "mse", hue: str = "series", col: str = "problem"
) -> Figure:
    """Return the figure of a sweep: `y` against `x`, a line for each `hue`, a panel for each `col`.

    Rows of equal x are one point: their median, with a band from 15 to 85 %; where there is but one
    row at every x, points with +-1 standard error. Rows without x are dashed lines across the panel.
    `y` is a number of the rows, or relative_bias2, relative_variance, relative_mse (divided by
    truth2); the others may be any column, or "size": NxC. Along tau, "estimator" means "series".
    Axes are logarithmic where values span more than a factor of 20. What is not drawn is counted:
    points <= 0 above their panel, rows without a number at the foot of the figure.

    Raises ValueError for an unknown column, more panels than `MOST_PANELS` or hues than `MOST_HUES`
    of `sweep_points`, or rows that are empty or hold no y.
    """
    if x == "tau":
        hue, col = ("series" if name == "estimator" else name for name in (hue, col))
    found = points(rows, x, y, hue, col)
    table, looks = found.table, _looks(found.hues, rows, hue)
    # In units of f² the panels of different problems have nothing in common.
    shared = col != "problem" or y not in (*SQUARES, "truth2")
    is_square = y.removeprefix("relative_") in SQUARES
    is_log = _spans(table["middle"], zeros=is_square)
    with styled():
        figure, axes = _frame(len(found.panels), len(looks), shared)
        for ax, panel in zip(axes, found.panels, strict=True):
            part = table[table["panel"] == panel]
            _set_x(ax, table["x"].dropna(), found.x_names)
            _set_y(ax, table if shared else part, is_log)
            left_out = part[part["middle"] <= 0] if is_log else part[:0]
            _draw_panel(ax, part.drop(left_out.index), looks, is_text=bool(found.x_names))
            ax.set_title(label(panel), loc="left", pad=13)
            _note(ax, part, left_out)
        _label(axes, _LABELS.get(x, x), _LABELS.get(y, y))
        _legend(figure, found, looks, _LABELS.get(hue, hue), x)
        if found.lost:
            figure.supxlabel(found.lost, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def _looks(hues: list[str], rows: pd.DataFrame, column: str) -> dict[str, Look]:
    """Return a colour and a marker for each hue, no two alike; a series keeps its own if it can."""
    shapes = cycle(_SHAPES)
    if column != "series":
        numeric = pd.api.types.is_numeric_dtype(rows.get(column, pd.Series(dtype=object)))
        name = "flare" if numeric else "colorblind" if len(hues) <= 10 else "husl"
        shades = [to_hex(shade) for shade in seaborn.color_palette(name, len(hues))]
        return {
            h: {"color": shade, "marker": next(shapes)}
            for h, shade in zip(hues, shades, strict=True)
        }
    looks: dict[str, Look] = {}
    # A series with a look of its own goes before those with the look of their family.
    for series in sorted(hues, key=_is_of_family):
        if color(series) not in {look["color"] for look in looks.values()}:
            looks[series] = {"color": color(series), "marker": marker(series)}
    others = [series for series in hues if series not in looks]
    shades = [to_hex(shade) for shade in seaborn.husl_palette(len(others), s=0.85, l=0.55)]
    looks |= {
        h: {"color": shade, "marker": next(shapes)} for h, shade in zip(others, shades, strict=True)
    }
    return {series: looks[series] for series in hues}


def _is_of_family(series: str) -> bool:
    kind = family(series)
    return (color(series), marker(series)) == (family_color(kind), family_marker(kind))


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
    size = (columns * width + 2.2, max(lines * height + 0.5, 3.2))
    figure = Figure(figsize=size)
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
        ax.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
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
    if len(few) <= 6:
        ax.set_xticks(few, [f"{value:g}" for value in few])
        ax.xaxis.minorticks_off()


def _set_y(ax: Axes, table: pd.DataFrame, is_log: bool) -> None:
    """Set the axis of y around all medians, on a logarithmic one around the positive ones."""
    low, middle, high = (table[name] for name in ("low", "middle", "high"))
    if not is_log:
        room = 0.05 * (high.max() - low.min()) or 0.5
        ax.set_ylim(low.min() - room, high.max() + room)
        return
    middle = middle[middle > 0]
    least, most = (middle.min(), middle.max()) if len(middle) else (0.1, 1.0)
    # A band or an error bar that reaches zero has no end on this axis.
    bottom = max(low[low > 0].min(), least / 30) if (low > 0).any() else least
    ax.set(yscale="log", ylim=(min(bottom, least) / 1.6, min(high.max(), 30 * most) * 1.6))


def _draw_panel(ax: Axes, part: pd.DataFrame, looks: dict[str, Look], *, is_text: bool) -> None:
    """Draw the lines, bands and bars of one panel, a name of x as a group of points."""
    across = [hue for hue, own in part.groupby("hue", observed=True) if own["x"].isna().any()]
    for number, (hue, look) in enumerate(looks.items()):
        own = part[part["hue"] == hue]
        if is_text:
            dodge = 0.7 * ((number + 0.5) / len(looks) - 0.5)
            ax.plot(own["x"] + dodge, own["middle"], ls="", label=hue, zorder=3, **look)
            ax.vlines(own["x"] + dodge, own["low"], own["high"], color=look["color"], lw=1)
            continue
        line = own.dropna(subset="x")
        if len(line):
            ax.plot(line["x"], line["middle"], lw=1.1, ms=3, label=hue, zorder=3, **look)
            _draw_errors(ax, line, look)
        for _, level in own[own["x"].isna()].iterrows():
            # Markers stand side by side, so that lines at the same height are told apart.
            at = (across.index(hue) + 0.5) / len(across)
            _draw_level(ax, level, at, look | {"label": hue})


def _draw_errors(ax: Axes, line: pd.DataFrame, look: Look) -> None:
    """Draw the band of medians, or the standard errors of single rows where there are any."""
    if not line["single"].iloc[0]:
        band: Look = {"color": look["color"], "alpha": 0.15, "lw": 0, "zorder": 1}
        ax.fill_between(line["x"], line["low"], line["high"], **band)
        return
    noisy = line[line["high"] > line["low"]]
    error = noisy["high"] - noisy["middle"]
    bars: Look = {"fmt": "none", "ecolor": look["color"], "elinewidth": 0.8, "zorder": 2}
    if len(noisy):
        ax.errorbar(noisy["x"], noisy["middle"], error, **bars)


def _draw_level(ax: Axes, level: pd.Series, at: float, look: Look) -> None:
    """Draw what has no x: a dashed line across the panel, its range as a band."""
    middle = [level["middle"]] * 3
    ax.plot(
        [0, at, 1],
        middle,
        "--",
        lw=0.9,
        ms=4,
        markevery=[1],
        transform=ax.get_yaxis_transform(),
        **look,
    )
    if level["high"] > level["low"]:
        bottom = max(level["low"], ax.get_ylim()[0])
        ax.axhspan(bottom, level["high"], color=look["color"], alpha=0.08, lw=0, zorder=0.5)


def _note(ax: Axes, part: pd.DataFrame, left_out: pd.DataFrame) -> None:
    """Write below the title how many points have no place on a logarithmic axis, and whose."""
    text = "" if len(part) else "nothing could be measured"
    if len(left_out):
        whose = ", ".join(label(hue) for hue in left_out["hue"].unique())
        text = shorten(f"{len(left_out)} of {len(part)} points ≤ 0: {whose}", 46, placeholder=" …")
    place: Look = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (0, 4), fontsize=6.5, color="0.35", **place)


def _label(axes: list[Axes], x: str, y: str) -> None:
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
        counts = sorted({int(several["count"].min()), int(several["count"].max())})
        over = " to ".join(f"{count:,}" for count in counts)
        text = f"median and 15-85 % over {over} rows: {found.left_open}"
        entries.append(((Patch(alpha=0.15, lw=0, **grey), Line2D([], [], **grey)), text))
    if len(single):
        bars = (single["high"] > single["low"]).any()
        text = "one row a point" + (", ± 1 standard error; exact where there is none" * bars)
        entries.append(
            (Line2D([], [], marker="|" if bars else "o", ms=7 - 3 * (not bars), **grey), text)
        )
    if table["x"].isna().any():
        entries.append((Line2D([], [], ls="--", lw=0.9, **grey), f"no {SYMBOLS.get(x, x)}"))
    handles, texts = zip(*entries, strict=True)
    lines = [fill(text, 30) for text in texts]
    rows = (figure.get_figheight() - 0.5) / 0.16
    columns = math.ceil(sum(1 + text.count("\n") for text in lines) / rows)
    look: Look = {"title": title, "alignment": "left", "title_fontsize": 8, "ncols": columns}
    figure.legend(handles, lines, loc="outside right upper", **look)
