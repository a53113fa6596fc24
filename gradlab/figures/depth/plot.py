"""Bias, variance and direction of estimators in deep networks, layer by layer, as panels."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plots.axes import logarithmic
from gradlab.plots.curves import FEW_DRAWS, series_handle
from gradlab.plots.names import label
from gradlab.plots.style import color, marker, styled

__all__ = ["plot"]

PANELS = {"bias2": "bias / |g|", "variance": "standard deviation / |g|", "cosine": "cosine"}
ACROSS = {
    "distance": "layers between it and the loss",
    "depth": "layers of the network",
    "steps": "training steps",
}
AVERAGED = np.geomspace(1, 1e4, 25)
BAND = (0.15, 0.5, 0.85)
# What is drawn wider, as another line may lie on it.
_UNDER = "GS-ST"
# Layers of the small networks, 5-5-5.
SMALL = 3


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: layers of the deepest, layer 1 against depth, small ones in training."""
    deepest, least = int(rows["depth"].max()), int(rows["steps"].min())
    deep, small = rows[rows["depth"] == deepest], rows[rows["depth"] == SMALL]
    most = int(deep["steps"].max())
    first = rows[rows["layer"] == 1]
    counts = rows.groupby("depth")["network"].nunique()
    with styled():
        figure = Figure(figsize=(8.2, 9.6))
        axes = figure.subplots(4, 4)
        for line, (chosen, across, what) in enumerate(
            [
                (deep[deep["steps"] == least], "distance", f"layers of {deepest}, {_state(least)}"),
                (
                    deep[deep["steps"] == most],
                    "distance",
                    f"layers of {deepest}, {_state(most)}",
                ),
                (first[first["steps"] == least], "depth", f"layer 1, {_state(least)}"),
                (first[first["depth"] == SMALL], "steps", "layer 1 of 5-5-5"),
            ]
        ):
            for ax, (quantity, text) in zip(axes[line], PANELS.items(), strict=False):
                _panel(ax, chosen, across, quantity)
                ax.set_ylabel(text)
                ax.set_title(what, loc="left")
        found = [
            (f"layer 1 of {name}, {_state(int(step))}", of_step)
            for name, part in (("5-5-5", small), (f"{deepest}", deep))
            for step, of_step in part[part["layer"] == 1].groupby("steps")
        ]
        for ax, (title, part) in zip(axes[:, 3], found, strict=False):
            _errors(ax, part)
            ax.set_title(title.replace(", ", "\n"), loc="left")
        costs = deep.drop_duplicates("estimator")
        handles = [
            series_handle(r.series, label=label(r.estimator) + _cost(r.passes, deepest))
            for r in costs.itertuples()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        figure.suptitle(
            f"layers of 5 binary variables: {counts[deepest]} networks, {counts.get(SMALL, 0)} of "
            "5-5-5\nright: median and 15-85 % band, else geometric means (cosines: mean); exact, "
            f"but ARSM from {rows['draws'].max():.0f} draws ± 1 s.e. (hollow: < {FEW_DRAWS} "
            "effective ones)\nRF, REINFORCE, ARSM are unbiased; GS-ST and GR have one mean",
            fontsize=8,
        )
    return figure


def _state(steps: int) -> str:
    return "random weights" if steps == 0 else f"after {steps} steps"


def _cost(passes: float, depth: int) -> str:
    return "" if passes == 1 else f": {passes:.3g} passes a draw at {depth} layers"


def _panel(ax: Axes, rows: pd.DataFrame, across: str, quantity: str) -> None:
    """Draw one quantity of all estimators, with standard errors where it comes from draws."""
    for _, part in rows.groupby("estimator", sort=False):
        biased = bool(part["bias2"].any())
        if quantity == "variance" or biased:
            look: dict[str, Any] = {"color": color(part["series"].iloc[0]), "ms": 4, "lw": 1}
            if biased and _UNDER in part["series"].iloc[0]:  # GR has the same mean, and is on it
                look |= {"ms": 7, "lw": 3.0, "alpha": 0.6}
            mean = _mean(part, across, quantity)
            shape = marker(part["series"].iloc[0])
            ax.errorbar(mean.index, mean["value"], mean["se"], marker=shape, elinewidth=0.8, **look)
            few = mean["value"][part.groupby(across)["effective_draws"].min() < FEW_DRAWS]
            ax.plot(few.index, few, ls="", marker=shape, mfc="white", zorder=4, **look)
    if quantity != "cosine":
        low, high = ax.dataLim.intervaly
        logarithmic(ax, "y", (min(low / 1.4, high / 14), high * 1.4))  # a decade to be read off
    ticks = sorted(rows[across].unique())
    if across == "steps":
        ax.set_xscale("symlog", linthresh=max(ticks[1:2], default=1))
        ax.xaxis.minorticks_off()
    ax.set_xlabel(ACROSS[across])
    ax.set_xticks(ticks, [str(tick) for tick in ticks])


def _mean(rows: pd.DataFrame, across: str, quantity: str) -> pd.DataFrame:
    """Return the mean over networks and its Monte Carlo error, geometric for roots of squares."""
    table = pd.DataFrame({"value": rows[quantity], "se2": 0.0, "at": rows[across]})
    if quantity != "cosine":
        table["value"] = np.log(rows[quantity] / rows["truth2"]) / 2
    if quantity == "variance":
        table["se2"] = (rows["variance_se"] / (2 * rows["variance"])) ** 2
    groups = table.groupby("at")
    mean, error = groups["value"].mean(), groups["se2"].sum() ** 0.5 / groups.size()
    if quantity != "cosine":
        mean = np.exp(mean)
        error = mean * error
    return pd.DataFrame({"value": mean, "se": error})


def _errors(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the relative root mean squared error of the mean of so many draws, over networks."""
    for _, part in rows.groupby("estimator", sort=False):
        bias2, variance, truth2 = (
            part[name].to_numpy()[:, None] for name in ("bias2", "variance", "truth2")
        )
        error = np.sqrt((bias2 + variance / AVERAGED) / truth2)
        low, middle, high = np.quantile(error, BAND, axis=0)
        shade = color(part["series"].iloc[0])
        ax.plot(AVERAGED, middle, color=shade)
        ax.fill_between(AVERAGED, low, high, color=shade, alpha=0.15, lw=0)
    ax.axhline(1, color="0.5", lw=0.8, ls=":")
    logarithmic(ax)
    ax.set_xlabel("averaged draws")
    ax.set_ylabel("RMSE / |g|")
