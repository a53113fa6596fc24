"""Bias and variance of gradient estimators layer by layer in deep stochastic networks.

Layers of 5 binary variables classify points on a circle, at random weights and after some training
with the exact gradient. All is relative to the exact gradient of the layer; moments are exact too,
by dynamic programming over layer states, but for ARSM, which is measured by draws.

Does variance grow with depth? In 8 networks of 8 random layers the gradient shrinks 22 times from
the last layer to the first. The standard deviation of RF, REINFORCE and ARSM stays as it is, so
that it grows from 1.9 to 35 times the gradient for RF(4); that of ZGR also (1.5 to 30), that of ST
and GR shrinks too, but less (1.0 to 3.9 and 1.2 to 7.9), that of GS-ST and DARN grows itself (1.9
to 95 and 2.5 to 521). ZGR's bias is 1 % of the gradient in the last layer, but 80 % in the first,
like that of ST and GR. After training neither grows evenly: gradients of lower layers are then the
larger ones.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gradlab import __version__
from gradlab.estimators import Estimator, parse
from gradlab.plots.curves import FEW_DRAWS, series_handle
from gradlab.plots.style import color, marker, styled
from gradlab.reproducible import single_thread
from gradlab.training.depth import deep_moments, passes
from gradlab.training.depth_exact import exact_deep_moments
from gradlab.training.depth_model import DeepNetwork, exact_gradients, expected_loss
from gradlab.training.depth_problem import classification, training

__all__ = ["plot", "rows"]

ESTIMATORS = (
    "ST",
    "DARN",
    "ZGR",
    "GS-ST(tau=0.5)",
    "GR(tau=0.5, k=10)",
    "RF(m=4)",
    "REINFORCE(baseline=0.7)",
    "ARSM",
)
PANELS = {"bias2": "bias / |g|", "variance": "standard deviation / |g|", "cosine": "cosine"}
AVERAGED = np.geomspace(1, 1e4, 25)
# Depth whose layers are shown one by one, and depths of the curves against averaged draws.
DEEPEST, SHALLOW = 8, 3


@single_thread()
def rows(
    seed: int = 0,
    *,
    depths: Sequence[int] = (1, 2, SHALLOW, 5, DEEPEST),
    steps: Sequence[int] = (0, 100),
    networks: int = 2,
    draws: int = 512,
    estimators: Sequence[str] = ESTIMATORS,
) -> pd.DataFrame:
    """Return a row for each network, depth, number of training steps, layer and estimator.

    Layer 1 is next to the input, `distance` counts layers from the loss, `passes` forward passes a
    draw. `method` says whether moments are exact or from `draws`; the bias of estimators that are
    unbiased for every f is 0. The seed chooses the networks and the draws.
    """
    found: list[dict[str, object]] = []
    for depth in depths:
        for number in range(networks):
            start = classification(depth, seed=networks * seed + number)
            for step, network in training(start, steps):
                where: dict[str, object] = {"depth": depth, "network": number, "steps": step}
                where["loss"] = float(expected_loss(network).mean())
                truths = [g.bias.flatten(0, 1) for g in exact_gradients(network)]
                for text in estimators:
                    found += _measured(network, parse(text), truths, draws, seed, where)
    return pd.DataFrame(found)


def _measured(
    network: DeepNetwork,
    estimator: Estimator,
    truths: Sequence[Tensor],
    draws: int,
    seed: int,
    where: dict[str, object],
) -> list[dict[str, object]]:
    """Return the rows of one estimator, a row a layer."""
    moments = exact_deep_moments(network, estimator)
    method, n = "exact", math.nan
    if moments is None:
        name = f"depth {where['depth']} network {where['network']} steps {where['steps']}"
        moments = deep_moments(network, estimator, draws, seed, row=name)
        method, n = "monte carlo", draws
    found = []
    for layer, (truth, m) in enumerate(zip(truths, moments, strict=True), 1):
        row: dict[str, object] = where | {"layer": layer, "distance": len(truths) - layer}
        row |= {"estimator": str(estimator), "series": estimator.text(without="tau")}
        row |= {"passes": passes(network, estimator), "seed": seed, "method": method, "draws": n}
        row |= {"effective_draws": m.effective_sample_size, "truth2": float(truth.square().sum())}
        unbiased = estimator.order == math.inf
        bias2, cosine = (0.0, 1.0) if unbiased else (m.bias2(truth), m.cosine(truth))
        row |= {"bias2": float(bias2), "cosine": float(cosine)}
        row |= {"variance": m.variance.value, "variance_se": m.variance.se}
        found.append(row | {"version": __version__, "dtype": "float64"})
    return found


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: rows of panels by distance from the loss, then by depth of the network."""
    deepest, steps = int(rows["depth"].max()), sorted(rows["steps"].unique())
    shown = [steps[0], steps[-1]]
    shallow = SHALLOW if SHALLOW in set(rows["depth"]) else rows["depth"].min()
    with styled():
        figure = Figure(figsize=(11, 10))
        axes = figure.subplots(4, 4)
        for line, (across, step) in enumerate((a, s) for a in ("distance", "depth") for s in shown):
            chosen = rows[rows["steps"] == step]
            state = "random weights" if step == 0 else f"after {step} steps"
            within = chosen["depth"] == deepest if across == "distance" else chosen["layer"] == 1
            for ax, (quantity, label) in zip(axes[line], PANELS.items(), strict=False):
                _panel(ax, chosen[within], across, quantity)
                ax.set_ylabel(label)
            depth = deepest if across == "distance" else shallow
            _errors(axes[line, 3], chosen[(chosen["depth"] == depth) & (chosen["layer"] == 1)])
            axes[line, 3].set_title(f"layer 1 of {depth}, {state}", loc="right")
            what = f"layers of {deepest}" if across == "distance" else "layer 1"
            axes[line, 0].set_title(f"{what}, {state}", loc="left")
        costs = rows[rows["depth"] == deepest].drop_duplicates("estimator")
        handles = [
            series_handle(r.series, label=r.estimator + _cost(r.passes, deepest))
            for r in costs.itertuples()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        figure.suptitle(
            f"layers of 5 binary variables, geometric means over {rows['network'].nunique()} "
            f"networks (cosines: mean); exact, but ARSM from {rows['draws'].max():.0f} draws "
            f"± 1 s.e. (hollow: < {FEW_DRAWS} effective ones)\n"
            "RF, REINFORCE and ARSM are unbiased, GS-ST and GR have one mean; one draw of each; "
            "g: exact gradient of the layer",
            fontsize=9,
        )
    return figure


def _cost(passes: float, depth: int) -> str:
    return "" if passes == 1 else f": {passes:.3g} passes a draw at {depth} layers"


def _panel(ax: Axes, rows: pd.DataFrame, across: str, quantity: str) -> None:
    """Draw one quantity of all estimators, with standard errors where it comes from draws."""
    for estimator, part in rows.groupby("estimator", sort=False):
        biased = parse(str(estimator)).order < math.inf
        if quantity == "variance" or biased:
            look: dict[str, Any] = {"color": color(part["series"].iloc[0]), "ms": 4, "lw": 1}
            mean = _mean(part, across, quantity)
            shape = marker(part["series"].iloc[0])
            ax.errorbar(mean.index, mean["value"], mean["se"], marker=shape, elinewidth=0.8, **look)
            few = mean["value"][part.groupby(across)["effective_draws"].min() < FEW_DRAWS]
            ax.plot(few.index, few, ls="", marker=shape, mfc="white", zorder=4, **look)
    if quantity != "cosine":
        ax.set_yscale("log")
    text = "layers between it and the loss" if across == "distance" else "layers of the network"
    ax.set_xlabel(text)
    ax.set_xticks(sorted(rows[across].unique()))


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
    """Draw the relative root mean squared error of the mean of so many draws."""
    for _, part in rows.groupby("estimator", sort=False):
        ratio = part["bias2"].to_numpy()[:, None], part["variance"].to_numpy()[:, None]
        square = (ratio[0] + ratio[1] / AVERAGED) / part["truth2"].to_numpy()[:, None]
        noise = (
            part["variance_se"].to_numpy()[:, None] / AVERAGED / part["truth2"].to_numpy()[:, None]
        )
        middle = np.exp(np.log(square).mean(0) / 2)
        error = np.sqrt(((noise / square / 2) ** 2).sum(0)) / len(part)
        shade = color(part["series"].iloc[0])
        ax.plot(AVERAGED, middle, color=shade)
        ax.fill_between(
            AVERAGED, middle * (1 - error), middle * (1 + error), color=shade, alpha=0.2, lw=0
        )
    ax.axhline(1, color="0.5", lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("averaged draws")
    ax.set_ylabel("RMSE / |g|")
