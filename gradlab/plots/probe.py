"""Bias, standard deviation, direction and progress of estimators through a training.

Each training is a row of panels, and each estimator a line. Where moments were measured by draws,
points have their standard errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.names import label
from gradlab.plots.panels import (
    WIDTHS,
    Legends,
    Width,
    in_callers_look,
    panels,
    series_entries,
    with_zero,
)
from gradlab.plots.quantities import QUANTITIES, check, label_of, named, quantity
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import Look, looks, say_nothing_measured, styled

__all__ = ["draw_probed", "plot", "probe", "probe_key"]

_NEEDS = "probe draws rows of a GradientProbe"
_PANELS = ("bias", "sd", "cosine", "progress")
_SQUARES = ("bias", "sd", "rmse")


def probe(
    rows: pd.DataFrame,
    show: str | Sequence[str] | None = None,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    width: Width = "column",
    legend: bool = True,
) -> Figure:
    """Draw bias, standard deviation, cosine and progress of estimators through a training.

    Args:
        rows: Rows of a `gradlab.GradientProbe`, of one training.
        show: What to show against the step, each in a panel: "bias", "sd", "rmse", "cosine",
            "progress", one or several. By default all but rmse; on one given axis progress.
        ax: Axes to draw on, one for each of what is shown. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above the first of given axes.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, there are no rows, the rows are of several trainings, or
            the axes are not as many as what is shown.

    Example:
        >>> import torch
        >>> import gradlab
        >>> measure = gradlab.GradientProbe(["ST", "ZGR"])
        >>> measure(0, lambda x: x[..., 0].sum(-1) ** 2, torch.zeros(2, 2, 3))
        >>> figure = gradlab.plot.probe(measure.rows, ["bias", "progress"])
        >>> [panel.get_ylabel() for panel in figure.axes]
        ['bias / |g|', 'progress, mean of 10']
    """
    shown = named(show, ["progress"] if isinstance(ax, Axes) else _PANELS)
    columns = [QUANTITIES[name][0] for name in shown]
    errors = [f"{QUANTITIES[name][0]}_se" for name in shown if name in _SQUARES]
    check(rows, ["step", "estimator", "method", "truth2", *columns, *errors], _NEEDS)
    for column in ("trained", "seed", "lr"):
        if column in rows and rows[column].nunique() > 1:
            raise ValueError(
                f"rows must be of one {column}, not {rows[column].nunique()}: take one, as "
                f'rows[rows["{column}"] == {rows[column].iloc[0]!r}]'
            )
    measured = rows[rows["reason"].isna()] if "reason" in rows else rows
    with in_callers_look(ax):
        figure, axes = panels(ax, width, shown, height=1.6)
        if measured.empty:
            return say_nothing_measured(figure)
        own = looks(measured["estimator"])
        for panel, name in zip(axes, shown, strict=True):
            draw_probed(panel, measured, name, own)
            panel.set_xlabel("" if panel is not axes[-1] and width == "column" else "step")
        entries = series_entries(own, {text: label(text) for text in own})
        Legends(figure, ax, axes, shown=legend).write([*entries, *probe_key(measured)])
    return figure


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of the rows of a probe.

    Args:
        rows: Rows of `GradientProbe`. Columns `trained` and `seed`, if there, name the training.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows.

    Example:
        >>> import torch
        >>> from gradlab import GradientProbe
        >>> probe = GradientProbe(["ST", "ZGR"])
        >>> probe(0, lambda x: x[..., 0].sum(-1) ** 2, torch.zeros(2, 2, 3))
        >>> len(plot(probe.rows).axes)
        4
    """
    if not len(rows):
        raise ValueError("rows must not be empty: the probe was never due")
    measured = rows[rows["reason"].isna()]
    if measured.empty:
        with styled():
            return say_nothing_measured(Figure(figsize=(7.6, 2.6)))
    measured = measured.assign(trained=measured.get("trained", "")).fillna({"trained": ""})
    trained = list(dict.fromkeys(measured["trained"]))
    shown = [name for name in _PANELS if QUANTITIES[name][0] in rows]
    own = looks(measured["estimator"])
    with styled():
        # One training fits a page in two rows; several stand below each other, a row for each.
        alone = len(trained) == 1
        figure = Figure(figsize=(WIDTHS["page"], 5.2) if alone else (12, 0.9 + 2.6 * len(trained)))
        places = (2, (len(shown) + 1) // 2) if alone else (len(trained), len(shown))
        axes = figure.subplots(*places, squeeze=False, sharex=True)
        for ax in axes.flat[len(shown) :] if alone else ():
            ax.remove()
        lines = axes.reshape(1, -1)[:, : len(shown)] if alone else axes
        for line, name in zip(lines, trained, strict=True):
            part = measured[measured["trained"] == name]
            # One training per row of panels: the first seed and the first learning rate.
            for column in ("seed", "lr"):
                part = part[part[column] == part[column].iloc[0]] if column in part else part
            for ax, quantity_shown in zip(line, shown, strict=True):
                draw_probed(ax, part, quantity_shown, own)
            if name:
                line[0].set_title(f"trained with {name}", loc="left")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        entries = series_entries(own, {text: label(text) for text in own})
        columns = 4 if alone else 6
        keys = [*entries, *probe_key(measured)]
        figure.legend(handles=keys, loc="outside lower center", ncols=columns)
        first = measured.iloc[0]
        of = f"{first['data']}: " if "data" in measured else ""
        figure.suptitle(
            f"{of}one draw on {first['batch']:.0f} elements of the batch, "
            f"latent {first['N']:.0f}x{first['C']:.0f}, {first['dtype']}; "
            f"truth g: {first['truth']}",
            fontsize=8 if alone else 9,
        )
    return figure


def draw_probed(
    ax: Axes, rows: pd.DataFrame, show: str, own: Mapping[str, Look] | None = None
) -> None:
    """Draw one quantity of all estimators against the step.

    Args:
        ax: The panel.
        rows: Rows of `GradientProbe` of one training.
        show: "bias", "sd", "rmse", "cosine" or "progress".
        own: The look of each estimator.
    """
    rows = rows[rows["reason"].isna()] if "reason" in rows else rows
    own = looks(rows["estimator"]) if own is None else own
    rows = rows.join(quantity(rows, show)).dropna(subset="value")
    if show in _SQUARES:
        zero = rows["value"] < ROUNDING
        rows["resolved"] |= zero
        place = with_zero(ax, "y", rows["value"], zero)
        rows["value"] = rows["value"].where(~zero, place)
    for estimator, part in rows.groupby("estimator", sort=False):
        look = own[str(estimator)]
        seen = part["resolved"].astype(bool)
        every: dict[str, Any] = {"markevery": max(1, len(part) // 8)}
        ax.plot(part["step"], part["value"].where(seen), zorder=2, **look, **every)
        bars: dict[str, Any] = {"color": look["color"], "elinewidth": 0.8, "zorder": 3}
        noisy = part[seen & (part["se"] > 0)]
        ax.errorbar(noisy["step"], noisy["value"], noisy["se"], ls="", **bars)
        limits = part[~seen]
        arrow: dict[str, Any] = {"uplims": True, "fmt": "_", "alpha": 0.75}
        ax.errorbar(limits["step"], limits["value"], 0.35 * limits["value"], **bars, **arrow)
    ax.set_ylabel(label_of(rows, show))


def probe_key(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of what stands beside lines.

    Args:
        rows: Measured rows of a probe.

    Returns:
        No entry where all rows are exact.

    Example:
        >>> probe_key(pd.DataFrame({"method": ["monte carlo"]}))[0].get_label()
        'bar: draws ± 1 s.e.'
    """
    if (rows["method"] == "exact").all():
        return []
    grey: dict[str, Any] = {"color": "0.35", "ls": ""}
    return [
        Line2D([], [], marker="|", markersize=8, label="bar: draws ± 1 s.e.", **grey),
        Line2D([], [], marker=r"$\downarrow$", label="upper limit, + 2 s.e.", **grey),
    ]
