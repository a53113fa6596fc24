"""Time and memory of a layer against the number of classes and of variables.

One column for each sweep; CUDA Graphs are dashed.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label
from gradlab.plots.style import color, marker, say_nothing_measured, styled

__all__ = ["plot"]

_REFERENCE = "F.gumbel_softmax(hard=True)"
_SIZES = {"C": "classes C", "N": "variables N"}
_QUANTITIES = {
    "ms": "milliseconds a batch",
    "ratio": f"time / {_REFERENCE}",
    "peak_ratio": f"memory / {_REFERENCE}",
}
_DASHES = {"eager": "-", "cuda graph": "--"}


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of times: medians, with quartiles.

    Args:
        rows: Rows of `gradlab time`, or of `gradlab.nn.timing.time_layers`.

    Returns:
        The figure.

    Example:
        >>> from gradlab.nn.timing import sweeps, time_layers
        >>> rows = time_layers(["ZGR"], sizes=sweeps([2, 4], [2, 3]), batch=2, seconds=0.01)
        >>> len(plot(rows).axes)
        6
    """
    if rows["ms"].isna().all():
        with styled():
            return say_nothing_measured(Figure(figsize=(7.6, 2.6)))
    with styled():
        figure = Figure(figsize=(9, 9.5))
        axes = figure.subplots(3, 2, sharey="row", sharex="col")
        for column, size in enumerate(_SIZES):
            other = "N" if size == "C" else "C"
            # The middle of the other sweep is the size that stands in most rows.
            fixed = rows.groupby(other)[size].nunique().idxmax()
            part = rows[rows[other] == fixed]
            axes[0, column].set_title(f"{other} = {fixed}")
            for ax, quantity in zip(axes[:, column], _QUANTITIES, strict=True):
                _panel(ax, part, size, quantity)
            axes[-1, column].set_xlabel(_SIZES[size])
        for ax, text in zip(axes[:, 0], _QUANTITIES.values(), strict=True):
            ax.set_ylabel(text)
        figure.legend(handles=_entries(rows), loc="outside lower center", ncols=5)
        first = rows.iloc[0]
        batch = f"forward and backward of logits [{first['batch']}, N, C] in {first['dtype']}"
        where = f"{first['machine']}, torch {first['torch']}, {first['device']}"
        text = f"{batch}\n{where}, {first['threads']} thread: medians, quartiles shaded"
        figure.suptitle(text, fontsize=9)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, size: str, quantity: str) -> None:
    for (series, mode), part in rows.groupby(["series", "mode"], sort=False):
        part = part.sort_values(size)
        look = _look(series, mode)
        if series != _REFERENCE or quantity == "ms":
            ax.plot(part[size], part[quantity], **look)
        if f"{quantity}_q25" in part and series != _REFERENCE:
            low, high = part[f"{quantity}_q25"], part[f"{quantity}_q75"]
            ax.fill_between(part[size], low, high, color=look["color"], alpha=0.15, lw=0)
    if quantity != "ms":
        ax.axhline(1, color="0.35", lw=0.8)
    ax.set_xscale("log", base=2)
    ax.xaxis.minorticks_off()
    logarithmic(ax, "y")
    ticks = sorted(rows[size].unique())
    ax.set_xticks(ticks, [str(tick) for tick in ticks])


def _look(series: str, mode: str) -> dict[str, Any]:
    if series == _REFERENCE:
        return {"color": "0.35", "marker": "", "ls": ":" if mode == "eager" else "-."}
    return {"color": color(series), "marker": marker(series), "ls": _DASHES[mode]}


def _entries(rows: pd.DataFrame) -> list[Line2D]:
    entries = []
    for (series, mode), part in rows.groupby(["series", "mode"], sort=False):
        star = "" if part["timed"].iloc[0] == "layer" else "*"
        dashed = "" if mode == "eager" else f", {mode}"
        text = f"{label(str(series))}{star}{dashed}"
        entries.append(Line2D([], [], label=text, **_look(str(series), str(mode))))
    if any("*" in str(entry.get_label()) for entry in entries):
        entries.append(Line2D([], [], ls="", label="*: surrogate of a linear f"))
    return entries
