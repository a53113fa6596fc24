"""What the pictures for papers share: panels of a width, in the caller's look, and their legend.

Every picture of `gradlab.plot` draws on axes that it is given, or makes panels of a column's or a
page's width. Settings of matplotlib that the caller has made stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from gradlab.plots.axes import logarithmic

__all__ = [
    "WIDTHS",
    "Legends",
    "PaperFigure",
    "Width",
    "in_callers_look",
    "panels",
    "series_entries",
    "with_zero",
    "write_apart",
]

Width = Literal["column", "page"]

WIDTHS = {"column": 3.25, "page": 6.75}
"""Inches of a column and of a page of a paper."""

_LOOK: dict[str, Any] = {
    "font.size": 8.0,
    "axes.titlesize": "medium",
    "legend.fontsize": "small",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "legend.frameon": False,
}
_ON_GIVEN_AXES = ("legend.fontsize", "legend.frameon", "lines.linewidth", "lines.markersize")
_SAVED = {"savefig.dpi": 200, "pdf.fonttype": 42, "ps.fonttype": 42}


@contextmanager
def in_callers_look(ax: object = None) -> Iterator[None]:
    """Apply small defaults inside a with block, where the caller has set nothing.

    Args:
        ax: Axes that the caller gives: then only legends and marks get a default.

    Yields:
        None.

    Example:
        >>> with mpl.rc_context({"font.size": 11}), in_callers_look():
        ...     mpl.rcParams["font.size"], mpl.rcParams["axes.grid"]
        (11.0, True)
    """
    with _unset(_LOOK if ax is None else {key: _LOOK[key] for key in _ON_GIVEN_AXES}):
        yield


@contextmanager
def _unset(look: dict[str, Any]) -> Iterator[None]:
    now, unset = dict(mpl.rcParams.items()), dict(mpl.rcParamsDefault.items())
    changed = {key: value for key, value in look.items() if now[key] == unset[key]}
    with mpl.rc_context(changed):  # type: ignore[arg-type]
        yield


class PaperFigure(Figure):
    """A figure whose PDFs hold their fonts as text, unless the caller has chosen otherwise.

    Example:
        >>> PaperFigure(figsize=(3.25, 2.0)).get_size_inches().tolist()
        [3.25, 2.0]
    """

    def savefig(self, *args: Any, **options: Any) -> None:
        """Save the figure, as matplotlib does."""
        with _unset(_SAVED):
            super().savefig(*args, **options)


def panels(
    ax: Axes | Sequence[Axes] | None, width: Width, shown: Sequence[str], height: float = 1.9
) -> tuple[Figure, list[Axes]]:
    """Return the figure and one panel for each of what is shown.

    Args:
        ax: The caller's axes, one or several, or None for a new figure.
        width: Of a new figure: "column", with panels below each other, or "page".
        shown: The names of what is shown.
        height: Inches of a panel.

    Returns:
        The figure and the panels.

    Raises:
        ValueError: If there are not as many axes as things to show, or the width is unknown.

    Example:
        >>> figure, axes = panels(None, "page", ["bias", "sd"])
        >>> figure.get_size_inches().tolist(), len(axes)
        ([6.75, 2.8], 2)
    """
    if ax is not None:
        given = [ax] if isinstance(ax, Axes) else [*np.ravel(np.array(ax, dtype=object))]
        if len(given) != len(shown):
            raise ValueError(
                f"ax must be one axis for each of what is shown ({', '.join(shown)}), "
                f"not {len(given)}; show= takes fewer"
            )
        return _root(given[0]), given
    if width not in WIDTHS:
        raise ValueError(f'width must be "column" or "page", not {width!r}')
    count = len(shown)
    across = 1 if width == "column" else {1: 1, 4: 2}.get(count, min(count, 3))
    down = -(-count // across)
    figure = PaperFigure(figsize=(WIDTHS[width], down * height + 0.9), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _root(ax: Axes) -> Figure:
    figure = ax.figure
    while isinstance(figure, SubFigure):
        figure = figure.figure
    assert isinstance(figure, Figure)
    return figure


class Legends:
    """Writes one legend outside of the data: below a figure of its own, above a given axis.

    Args:
        figure: The figure.
        ax: The axes that the caller gave, or None.
        axes: The panels.
        shown: Whether there is to be a legend.
    """

    def __init__(self, figure: Figure, ax: object, axes: Sequence[Axes], *, shown: bool) -> None:
        self._figure, self._given, self._axes, self._shown = figure, ax is not None, axes, shown

    def write(self, entries: Sequence[Line2D]) -> None:
        """Write the legend in as many columns as fit.

        Args:
            entries: The legend entries.
        """
        if not self._shown or not entries:
            return
        room = self._figure.bbox.width
        if self._given:
            of_axis = self._axes[0].get_window_extent()
            alone = len(self._figure.axes) == 1
            room = room - of_axis.x0 if alone else of_axis.width
        look: dict[str, Any] = {
            "handlelength": 1.8,
            "columnspacing": 1.0,
            "handletextpad": 0.5,
            "labelspacing": 0.3,
        }
        # The columns of a legend differ in width: a try tells whether they fit.
        for columns in range(min(len(entries), 6), 0, -1):
            legend = self._at(list(entries), columns, look)
            if columns == 1 or _width(legend) <= room:
                return
            legend.remove()

    def _at(self, entries: list[Line2D], columns: int, look: dict[str, Any]) -> Legend:
        if not self._given:
            options = look | {"handles": entries, "ncols": columns}
            return self._figure.legend(loc="outside lower center", **options)
        first = self._axes[0]
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
        options = look | place | {"handles": entries, "ncols": columns}
        return first.legend(borderaxespad=0.2, **options)


def _width(legend: Legend) -> float:
    return float(legend.get_window_extent().width)


def series_entries(looks: dict[str, dict[str, Any]], names: dict[str, str]) -> list[Line2D]:
    """Return the legend entries of series.

    Args:
        looks: The look of each series, from `gradlab.plots.style.looks`.
        names: What the legend says, by series.

    Returns:
        One entry per series.

    Example:
        >>> series_entries({"ZGR": {"color": "k"}}, {"ZGR": "ZGR"})[0].get_label()
        'ZGR'
    """
    return [Line2D([], [], label=names[series], **look) for series, look in looks.items()]


def with_zero(ax: Axes, axis: str, values: pd.Series, zero: "pd.Series[bool]") -> float:
    """Make an axis logarithmic, with a grey strip at its start for what is exactly 0.

    Args:
        ax: The panel.
        axis: "x" or "y".
        values: What is to be seen, at least 0.
        zero: Which of the values are 0.

    Returns:
        The place of 0 on the axis, which has a strip only if there are zeros.

    Example:
        >>> ax = Figure().subplots()
        >>> values = pd.Series([0.0, 1.0, 10.0])
        >>> round(with_zero(ax, "y", values, values == 0), 2)
        0.59
    """
    seen = values[~zero & (values > 0)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.1, 1.0)
    low, high = low / 1.4, high * 1.4
    if not zero.any():
        logarithmic(ax, axis, (low, high))
        return low
    foot = low * (low / high) ** 0.13
    place = (foot * low) ** 0.5
    logarithmic(ax, axis, (foot, high))
    (ax.axhspan if axis == "y" else ax.axvspan)(foot, low, color="0.94", lw=0, zorder=0)
    ticks = getattr(ax, f"{axis}axis")
    # The name of the first decade must not touch the 0.
    start = place * (high / foot) ** (0.16 if axis == "x" else 0.1)
    found = [t for t in ticks.get_major_locator().tick_values(low, high) if start <= t <= high]
    names = [*map(ticks.get_major_formatter(), found)]
    ticks.set_ticks([place, *found], ["0", *names])
    return place


def write_apart(ax: Axes, texts: Sequence[tuple[str, float, float, str]]) -> None:
    """Write short texts beside points, each where it covers no other text; leave out the rest.

    Args:
        ax: The panel, whose limits are set.
        texts: The text, the two coordinates of its point, and its colour.
    """
    _root(ax).draw_without_rendering()  # settles the layout
    inside = ax.get_window_extent()
    data = [ax.transData.transform(line.get_xydata()) for line in ax.lines if line.get_marker()]
    points = np.concatenate([*data, np.empty((0, 2))])
    places: list[Bbox] = []
    for text, x, y, shade in texts:
        for right, above in _AROUND:
            side = "left" if right > 0 else "right" if right < 0 else "center"
            found = ax.annotate(
                text,
                (x, y),
                xytext=(right, above),
                textcoords="offset points",
                ha=side,
                va="bottom" if above > 0 else "top" if above < 0 else "center",
                fontsize="x-small",
                color=shade,
            )
            box = found.get_window_extent()
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1
            within &= inside.y0 <= box.y0 and box.y1 <= inside.y1
            covers = box.count_contains(points) or any(map(box.overlaps, places))
            if within and not covers:
                places.append(box)
                break
            found.remove()


# Points right of and above a point, where its name may stand.
_AROUND = (
    *((5, 0), (4, 4), (4, -4), (-5, 0), (-4, 4), (-4, -4), (0, 6), (0, -6)),
    *((9, 6), (9, -6), (-9, 6), (-9, -6), (14, 0), (-14, 0)),
)
