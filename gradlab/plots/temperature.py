"""Bias, standard deviation, error or progress of estimators against the temperature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.curves import FEW_DRAWS
from gradlab.plots.names import label
from gradlab.plots.panels import Legends, Width, in_callers_look, panels, series_entries, with_zero
from gradlab.plots.quantities import QUANTITIES, check, label_of, named, one_problem, quantity
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import Look, looks, say_nothing_measured

__all__ = ["draw_temperature", "temperature", "temperature_key"]

_NEEDS = "temperature draws rows of compare, recommend (its rows) or a sweep"
_SQUARES = ("bias", "sd", "rmse")


def temperature(
    rows: pd.DataFrame,
    show: str | Sequence[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    width: Width = "column",
    legend: bool = True,
) -> Figure:
    """Draw bias, standard deviation and RMSE of one draw against the temperature.

    Exact values are lines, Monte Carlo estimates are points with their standard errors, and upper
    limits are arrows. Estimators without a temperature stand in the grey strip at the right, with a
    dashed line across. What is exactly 0 stands in the grey strip at the foot.

    Args:
        rows: Rows of `gradlab.compare`, of `recommend(...).rows` or of a sweep, of one problem.
        show: What to show, each in a panel: "bias", "sd", "rmse", "cosine", "progress", one or
            several. By default bias, sd and rmse; on one given axis rmse.
        ax: Axes to draw on, one for each of what is shown. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above the first of given axes.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, the rows are of several problems or hold no temperature,
            or the axes are not as many as what is shown.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("mlp", 4, 3), regime("moderate", 4, 3)
        >>> rows = gradlab.compare(f, logits, ["GS-ST", "ZGR"], [0.1, 0.3, 1.0], method="exact")
        >>> figure = gradlab.plot.temperature(rows, width="page")
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['bias / |g|', 'standard deviation / |g|', 'RMSE / |g|']
    """
    shown = named(show, ["rmse"] if isinstance(ax, Axes) else _SQUARES)
    columns = [QUANTITIES[name][0] for name in shown]
    errors = [f"{QUANTITIES[name][0]}_se" for name in shown if name in _SQUARES]
    check(rows, ["series", "tau", "method", "truth2", *columns, *errors], _NEEDS)
    measured = one_problem(rows)
    with in_callers_look(ax):
        figure, axes = panels(ax, width, shown)
        if measured.empty:
            return say_nothing_measured(figure)
        if not measured["tau"].notna().any():
            raise ValueError(f"rows have no temperature in their column 'tau': {_NEEDS}")
        own = looks(measured["series"])
        for panel, name in zip(axes, shown, strict=True):
            draw_temperature(panel, measured, name, own, unit=_unit(rows))
        for panel in axes[:-1] if ax is None and width == "column" else ():
            panel.set_xlabel("")
        names = {series: label(series) for series in own}
        entries = [*series_entries(own, names), *temperature_key(measured, shown)]
        Legends(figure, ax, axes, shown=legend).write(entries)
    return figure


def _unit(rows: pd.DataFrame) -> str:
    return " / |g|" if (rows["truth2"].dropna() > 0).all() else ""


def draw_temperature(
    ax: Axes, rows: pd.DataFrame, show: str, own: dict[str, Look], unit: str = " / |g|"
) -> None:
    """Draw one quantity of measured rows of one problem.

    Args:
        ax: The panel.
        rows: Rows of `gradlab.compare` without those that hold no numbers.
        show: One of `gradlab.plots.quantities.QUANTITIES`.
        own: The look of each series.
        unit: What the label ends with.
    """
    rows = rows.join(quantity(rows, show)).dropna(subset="value")
    is_square = show in _SQUARES
    rows["zero"] = is_square & (rows["value"] < ROUNDING)
    taus = rows["tau"].dropna()
    right = _set_x(ax, taus, int(rows.loc[rows["tau"].isna(), "series"].nunique()))
    bottom = _set_y(ax, rows, show)
    free = [*rows.loc[rows["tau"].isna(), "series"].unique()]
    for place, (series, look) in enumerate(own.items()):
        part = rows[rows["series"] == series].sort_values("tau")
        part = part.assign(at=part["value"].where(~part["zero"], bottom))
        if series in free:
            x = pd.Series(right[free.index(series)], index=part.index)
        else:
            x = part["tau"]
        exact = part["method"] == "exact"
        both = exact.any() and not exact.all()
        _draw_exact(ax, x[exact], part[exact], look, both=both, free=series in free)
        # Biases are often equal: points of one temperature stand side by side.
        beside = show == "bias" and series not in free
        dodge = 1.04 ** (place - (len(own) - 1) / 2) if beside else 1.0
        _draw_measured(ax, x[~exact] * dodge, part[~exact], look, joined=not both)
    ax.set(xlabel="temperature τ", ylabel=label_of(rows, show, unit))


def _set_x(ax: Axes, taus: pd.Series, free: int) -> list[float]:
    """Set the axis of temperatures; return the places of estimators without one, at its right."""
    low, high = (float(taus.min()), float(taus.max())) if len(taus) else (0.1, 1.0)
    if low == high:
        low, high = low / 2, high * 2
    span = high / low
    edge = span**0.04
    strip = span ** (min(0.06 * free, 0.4) + 0.04) if free else 1.0
    start, stop = high * edge, high * edge * strip
    logarithmic(ax, "x", (low / edge, stop))
    places = [start * strip ** ((i + 0.5) / free) for i in range(free)]
    if free:
        ax.axvspan(start, stop, color="0.94", lw=0, zorder=0)
        locator = ax.xaxis.get_major_locator()
        ticks = [t for t in locator.tick_values(low / edge, start) if low / edge <= t <= high]
        form = ax.xaxis.get_major_formatter()
        ax.set_xticks([*ticks, (start * stop) ** 0.5], [*map(form, ticks), "no τ"])
    return places


def _set_y(ax: Axes, rows: pd.DataFrame, show: str) -> float:
    """Set the axis of values; return the place of those that are 0, at its foot."""
    if show not in _SQUARES:
        low, high = rows["value"].min(), rows["value"].max()
        room = 0.08 * (high - low) or 0.1
        ax.set_ylim(low - room, high + room)
        return 0.0
    return with_zero(ax, "y", rows["value"], rows["zero"])


def _draw_exact(
    ax: Axes, x: pd.Series, part: pd.DataFrame, look: Look, *, both: bool, free: bool
) -> None:
    """Draw exact values: a line over temperatures, or a point in the strip and a line across."""
    if not len(part):
        return
    if free:
        shade = look["color"]
        if not part["zero"].iloc[0]:
            ax.axhline(part["at"].iloc[0], color=shade, ls="--", lw=0.8, zorder=1.5)
        ax.plot(x, part["at"], marker=look["marker"], color=shade, ls="", zorder=4)
        return
    # Where estimates stand beside them, markers are theirs.
    every = max(1, len(part) // 8)
    marks: Look = {"marker": ""} if both else {"markevery": every}
    ax.plot(x, part["at"], zorder=2, **(look | marks))


def _draw_measured(ax: Axes, x: pd.Series, part: pd.DataFrame, look: Look, *, joined: bool) -> None:
    """Draw Monte Carlo estimates with +-1 standard error, and arrows from upper limits."""
    shade: dict[str, Any] = {"color": look["color"], "elinewidth": 0.8}
    resolved = part["resolved"].astype(bool) | part["zero"]
    few = part["effective_draws"] < FEW_DRAWS if "effective_draws" in part else ~resolved
    for chosen, face in ((resolved & ~few, look["color"]), (resolved & few, "white")):
        of = part[chosen]
        error = of["se"].where(~of["zero"], 0.0)
        points: Look = {"fmt": look["marker"], "mfc": face, "mew": 0.7, "zorder": 4}
        ax.errorbar(x[chosen], of["at"], error, **points, **shade)
    limits = part[~resolved]
    arrow: Look = {"uplims": True, "fmt": "_", "alpha": 0.75, "zorder": 3}
    ax.errorbar(x[~resolved], limits["at"], 0.35 * limits["at"], **arrow, **shade)
    if joined:
        thin: Look = {"color": look["color"], "ls": look["linestyle"], "lw": 0.7, "zorder": 2}
        ax.plot(x[resolved], part.loc[resolved, "at"], **thin)


def temperature_key(rows: pd.DataFrame, shown: Sequence[str]) -> list[Line2D]:
    """Return the legend entries of lines, points and arrows.

    Args:
        rows: Measured rows.
        shown: The names of what is shown.

    Returns:
        Entries for what there is in the rows.

    Example:
        >>> rows = pd.DataFrame({"method": ["monte carlo"], "progress": [0.5], "tau": 1.0})
        >>> [entry.get_label() for entry in temperature_key(rows, ["progress"])]
        ['point: draws ± 1 s.e.']
    """
    grey: Look = {"color": "0.35", "ls": "", "marker": "o"}
    exact = rows["method"] == "exact"
    found: list[Line2D] = []
    if not exact.all() and exact.any():
        found.append(Line2D([], [], color="0.35", label="line: exact"))
    if not exact.all():
        found.append(Line2D([], [], label="point: draws ± 1 s.e.", **grey))
        seen = [quantity(rows[~exact], name)["resolved"] for name in shown if name in _SQUARES]
        if not all(each.all() for each in seen):
            arrow = grey | {"marker": r"$\downarrow$"}
            found.append(Line2D([], [], label="upper limit, + 2 s.e.", **arrow))
        if "effective_draws" in rows and (rows.loc[~exact, "effective_draws"] < FEW_DRAWS).any():
            text = f"hollow: < {FEW_DRAWS} effective draws"
            found.append(Line2D([], [], mfc="white", label=text, **grey))
    one = _one_line(rows[exact]) if "bias" in shown else []
    if one:
        found.append(Line2D([], [], ls="", label=f"one bias: {', '.join(one)}"))
    return found


def _one_line(rows: pd.DataFrame) -> list[str]:
    """Return the names of estimators whose exact biases are one curve over temperatures."""
    table = rows.dropna(subset="tau").pivot_table(index="tau", columns="series", values="bias2")
    for first in table:
        same = np.isclose(table.T, table[first], rtol=1e-6, atol=0.0).all(axis=1)
        if sum(same) > 1:
            names = {str(series): str(series).partition("(")[0] for series in table}
            apart = {names[str(series)] for series in table.columns[~same]}
            # Of a name whose series are all among them the arguments are left out.
            shown = (str(series) for series in table.columns[same])
            return [*dict.fromkeys(label(s) if names[s] in apart else names[s] for s in shown)]
    return []
