"""Training curves of several estimators: by epoch, by time, and what is reached in the end.

Lines are means over seeds, bands their range; in the last panel every seed is a point.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradlab.plots.axes import logarithmic
from gradlab.plots.names import label, trained_labels
from gradlab.plots.panels import Legends, Width, in_callers_look, panels, series_entries
from gradlab.plots.quantities import check
from gradlab.plots.style import looks, styled

__all__ = [
    "draw_curves",
    "draw_reached",
    "estimator_handles",
    "plot",
    "reached_handles",
    "training",
]

_NEEDS = "training draws curves of gradlab train"
_ACROSS = ("epoch", "step", "seconds")
# By the kind of training: the curve that is shown, and what is reached, each with its label.
_CURVES = {
    "vae": ("train_nelbo", "training -ELBO (nats)"),
    "network": ("loss", "training loss (nats)"),
}
_REACHED = {
    "vae": [
        ("test_nelbo", "test -ELBO"),
        ("test_bound", "test bound of -log p"),
    ],
    "network": [
        ("test_sample_error", "one sample"),
        ("test_mode_error", "most probable levels"),
        ("test_ensemble_error", "ensemble"),
    ],
}
# What the numbers at the end are; curves of fewer epochs are not drawn by `plot`.
_UNIT = {"vae": "nats", "network": "test error (fraction of images)"}
_FEW = 3


def training(
    rows: pd.DataFrame,
    show: str | Sequence[str] | None = None,
    *,
    across: str = "epoch",
    ax: Axes | Sequence[Axes] | None = None,
    width: Width = "column",
    legend: bool = True,
) -> Figure:
    """Draw training curves, and what is reached at the end.

    A line is the mean over seeds, a band their range. At the end every seed is a point with its
    standard error over test images.

    Args:
        rows: Curves of `gradlab train`, or of `gradlab.training.loop.train`. Where there is a
            column `chosen`, only runs that are chosen are drawn.
        show: Columns of the rows, or "reached", each in a panel. By default the training loss and
            what is reached; on one given axis the training loss.
        across: What curves are drawn against: "epoch", "step" or "seconds".
        ax: Axes to draw on, one for each of what is shown. By default a new figure is made.
        width: Of a new figure: "column" (3.25 inches) or "page" (6.75 inches).
        legend: Whether to write a legend: below a new figure, above the first of given axes.

    Returns:
        The figure.

    Raises:
        ValueError: If a column is missing, there are no rows, or the axes are not as many as what
            is shown.

    Example:
        >>> import gradlab
        >>> curve = {"kind": "vae", "estimator": "ZGR", "seed": 0, "epoch": [1, 2, 3]}
        >>> rows = pd.DataFrame(curve | {"train_nelbo": [50.0, 41.0, 40.0]})
        >>> gradlab.plot.training(rows, "train_nelbo").axes[0].get_ylabel()
        'training -ELBO (nats)'
    """
    check(rows, ["kind", "estimator", "seed", "epoch"], _NEEDS)
    if across not in _ACROSS:
        raise ValueError(f"across must be of {', '.join(_ACROSS)}, not {across!r}")
    rows = rows[rows["chosen"].astype(bool)] if "chosen" in rows else rows
    rows = rows.assign(estimator=trained_labels(rows))
    kind = rows["kind"].iloc[0]
    default = [_CURVES[kind][0]] + ([] if isinstance(ax, Axes) else ["reached"])
    shown = [show] if isinstance(show, str) else [*(show or default)]
    ends = [*_REACHED[kind]] if "reached" in shown else []
    own_columns = [name for name in shown if name != "reached"]
    check(rows, [across, *own_columns, *(column for column, _ in ends)], _NEEDS)
    with in_callers_look(ax):
        figure, axes = panels(ax, width, shown, height=2.0)
        for panel, name in zip(axes, shown, strict=True):
            if name == "reached":
                draw_reached(panel, rows, ends)
                panel.set_xlabel(f"{_UNIT[kind]} at the end, ± 1 s.e.")
            else:
                draw_curves(panel, rows, across, name)
                panel.set_ylabel(dict(_CURVES.values()).get(name, name.replace("_", " ")))
        Legends(figure, ax, axes, shown=legend).write(
            [*estimator_handles(rows), *reached_handles(ends)]
        )
    return figure


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure of training curves.

    Args:
        rows: Curves of `gradlab.training.runs`. Where there is a column `chosen`, only runs that
            are chosen are drawn. Of one or two epochs only what is reached is drawn.

    Returns:
        The figure.

    Example:
        >>> from gradlab.data import load_images
        >>> from gradlab.training.loop import train
        >>> from gradlab.training.runs import begin
        >>> from gradlab.training.vae_training import VAESettings
        >>> settings = VAESettings("ZGR", latent="2x3", epochs=3, hidden=8, bound_samples=2)
        >>> len(plot(train(begin(settings, load_images("digits")))).axes)
        3
    """
    rows = rows[rows["chosen"]] if "chosen" in rows else rows
    rows = rows.assign(estimator=trained_labels(rows))
    kind = rows["kind"].iloc[0]
    column, name = _CURVES[kind]
    few = rows["epoch"].max() < _FEW
    with styled():
        figure = Figure(figsize=(6.75, 3.2) if few else (8.2, 3.7))
        if few:
            draw_reached(figure.subplots(), rows, _REACHED[kind])
        else:
            axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
            draw_curves(axes[0], rows, "epoch", column)
            draw_curves(axes[1], rows, "seconds", column)
            axes[1].set_xlabel("seconds of training (one process)")
            axes[0].set_ylabel(name)
            draw_reached(axes[2], rows, _REACHED[kind])
        named = [] if few else estimator_handles(rows)
        handles = [*named, *reached_handles(_REACHED[kind])]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
        figure.suptitle(_title(rows), fontsize=9)
    return figure


def _title(rows: pd.DataFrame) -> str:
    first, seeds = rows.iloc[0], rows["seed"].nunique()
    what = f"VAE, latent {first['latent']}" if first["kind"] == "vae" else f"{first['model']} net"
    over = "one seed" if seeds == 1 else f"{seeds} seeds"
    if seeds > 1 and rows["epoch"].max() >= _FEW:
        over = f"mean and range of {over}"
    machine = f"; {first['machine']}" if "machine" in rows else ""
    how = f"{first['data']}, {rows['epoch'].max()} epochs, batch {first['batch']}"
    return f"{what}, {how}: {over}{machine}"


def draw_curves(ax: Axes, rows: pd.DataFrame, across: str, column: str) -> None:
    """Draw one line per estimator, its mean over seeds, and the range of the seeds.

    Args:
        ax: The panel.
        rows: Curves of `gradlab.training.runs`.
        across: The column along the axis, "epoch" or "seconds".
        column: The column to draw.
    """
    own = looks(rows["estimator"])
    for estimator, part in rows.groupby("estimator", sort=False):
        groups = part.groupby("epoch")
        x, y = groups[across].mean(), groups[column]
        look = own[str(estimator)]
        ax.plot(x, y.mean(), label=estimator, markevery=max(1, len(x) // 5), **look)
        ax.fill_between(x, y.min(), y.max(), color=look["color"], alpha=0.12, lw=0)
    # The first epochs fall so far that nothing else would be seen.
    settled = rows.loc[rows["epoch"] > rows["epoch"].max() / 10, column]
    spare = 0.05 * (settled.max() - settled.min()) or 0.05 * abs(settled.max()) or 0.5
    ax.set_ylim(settled.min() - spare, settled.max() + spare)
    if across == "seconds" and rows[across].max() > 20 * rows[across].min():
        logarithmic(ax, "x")
    elif across == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(across)


def draw_reached(ax: Axes, rows: pd.DataFrame, columns: Sequence[tuple[str, str]]) -> None:
    """Draw each column at the last epoch: one line of points per estimator, one point per seed.

    Args:
        ax: The panel.
        rows: Curves of `gradlab.training.runs`.
        columns: Pairs of a column and its label.
    """
    last = rows.sort_values("step").groupby(["estimator", "seed"], sort=False).tail(1)
    own = looks(rows["estimator"])
    estimators = list(own)
    for place, estimator in enumerate(estimators):
        part = last[last["estimator"] == estimator]
        for number, (column, _) in enumerate(columns):
            y = np.full(len(part), place + 0.22 * (number - (len(columns) - 1) / 2))
            shade = own[estimator]["color"]
            # Bars are the standard error of the mean over images, within one trained model.
            ax.errorbar(
                part[column],
                y,
                xerr=part[f"{column}_se"],
                fmt=_SHAPES[number],
                color=shade,
                mfc="white" if number else shade,
                elinewidth=0.6,
            )
    ax.set_yticks(range(len(estimators)), [label(estimator) for estimator in estimators])
    ax.set_ylim(len(estimators) - 0.5, -0.5)
    ax.set_xlabel(f"{_UNIT[rows['kind'].iloc[0]]} at the end, a point per seed ± 1 s.e.")


_SHAPES = ("o", "s", "^")


def reached_handles(columns: Sequence[tuple[str, str]]) -> list[Line2D]:
    """Return the legend entries of the columns of `draw_reached`.

    Args:
        columns: Pairs of a column and its label.

    Returns:
        One entry per column.

    Example:
        >>> reached_handles([("test_nelbo", "test -ELBO")])[0].get_label()
        'test -ELBO'
    """
    grey: dict[str, Any] = {"color": "0.35", "ls": ""}
    return [
        Line2D([], [], marker=_SHAPES[i], mfc="white" if i else "0.35", label=label, **grey)
        for i, (_, label) in enumerate(columns)
    ]


def estimator_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Return the legend entries of the estimators, in the order of the rows.

    Args:
        rows: Rows with a column `estimator`.

    Returns:
        One entry per estimator.

    Example:
        >>> len(estimator_handles(pd.DataFrame({"estimator": ["ST", "ST", "ZGR"]})))
        2
    """
    own = looks(rows["estimator"])
    return series_entries(own, {text: label(text) for text in own})
