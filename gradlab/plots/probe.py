"""Bias, standard deviation, error and direction of estimators through a training.

Each training is a row of panels, and each estimator a line. Where moments were measured by draws,
points have their standard errors.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.curves import draw_measured, key, name_zeros, roots
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import color, marker, say_nothing_measured, styled
from gradlab.plots.training import estimator_handles

__all__ = ["draw_probed", "plot"]

_PANELS = {
    "bias2": "bias / |g|",
    "variance": "standard deviation / |g|",
    "mse": "RMSE / |g|",
    "cosine": "cosine of mean and g",
}


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
    rows = rows.assign(trained=rows.get("trained", "")).fillna({"trained": ""})
    trained = list(dict.fromkeys(rows["trained"]))
    with styled():
        figure = Figure(figsize=(12, 0.9 + 2.6 * len(trained)))
        axes = figure.subplots(len(trained), len(_PANELS), squeeze=False, sharex=True)
        for line, name in zip(axes, trained, strict=True):
            part = rows[rows["trained"] == name]
            # One training a row of panels: the first seed.
            part = part[part["seed"] == part["seed"].iloc[0]]
            for ax, (quantity, label) in zip(line, _PANELS.items(), strict=True):
                draw_probed(ax, part, quantity)
                ax.set_ylabel(label)
            if name:
                line[0].set_title(f"trained with {name}", loc="left")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        entries = key() if (measured["method"] != "exact").any() else []
        if (measured["truth"] != "enumeration").any():
            # The title says what g is.
            entries = [entry for entry in entries if "exact gradient" not in str(entry.get_label())]
        figure.legend(
            handles=[*estimator_handles(rows), *entries], loc="outside lower center", ncols=6
        )
        first = measured.iloc[0]
        of = f"{first['data']}: " if "data" in measured else ""
        figure.suptitle(
            f"{of}one draw on {first['batch']} elements of the batch, "
            f"latent {first['N']}x{first['C']}, {first['dtype']}; truth g: {first['truth']}",
            fontsize=9,
        )
    return figure


def draw_probed(ax: Axes, rows: pd.DataFrame, quantity: str) -> None:
    """Draw one quantity of all estimators against the step.

    Args:
        ax: The panel.
        rows: Rows of `GradientProbe` of one training.
        quantity: "bias2", "variance", "mse" or "cosine".
    """
    zeros = []
    for estimator, part in rows[rows["reason"].isna()].groupby("estimator", sort=False):
        series = part["series"].iloc[0]
        look: dict[str, Any] = {"color": color(series), "marker": marker(series), "ms": 4, "lw": 1}
        exact = part[part["method"] == "exact"]
        drawn = part[part["method"] != "exact"]
        if quantity == "cosine":
            ax.plot(exact["step"], exact["cosine"], **look)
            ax.errorbar(drawn["step"], drawn["cosine"], drawn["cosine_se"], elinewidth=0.8, **look)
            continue
        value = roots(exact, quantity)["value"]
        if len(exact) and value.max() < ROUNDING:
            zeros.append(str(estimator))
        else:
            ax.plot(exact["step"], value, **look)
        if len(drawn):
            draw_measured(ax, drawn["step"], drawn, quantity, series, joined=True)
    if quantity != "cosine":
        ax.set_yscale("log")
        name_zeros(ax, zeros)
