"""Bias and variance of gradient estimators layer by layer in deep stochastic networks.

Layers of 5 binary variables classify points on a circle, at random weights and after some training
with the exact gradient. All is relative to the exact gradient of the layer; moments are exact too,
by dynamic programming over layer states, but for ARSM, which is measured by draws.

Does variance grow with depth? In 8 networks of 8 random layers (`rows(networks=8, depths=(8,),
steps=(0,))`) the gradient shrinks 22 times from the last layer to the first. The standard deviation
of RF, REINFORCE and ARSM stays as it is, so that it grows from 1.9 to 35 times the gradient for
RF(4); that of ZGR also (1.5 to 30), that of ST and GR shrinks too, but less (1.0 to 3.9 and 1.2 to
7.9), that of GS-ST and DARN grows itself (1.9 to 95 and 2.5 to 521). ZGR's bias is 1 % of the
gradient in the last layer, but 80 % in the first, like that of ST and GR. After training neither
grows evenly: gradients of lower layers are then the larger ones.

In 5-5-5 (5 networks, medians for layer 1, `rows()`) training makes all relatively worse, but for
the standard deviation of ST: after 0, 100 and 300 steps ZGR's bias is 60, 84 and 97 % of the
gradient, that of ST 67, 98 and 99 %; the standard deviation of RF(4) is 2.7, 5.7 and 18 times the
gradient, that of ZGR 3.0, 10 and 38 times.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gradlab.estimators import Estimator, parse
from gradlab.figures.depth.draws import deep_moments, passes
from gradlab.figures.depth.exact import exact_deep_moments
from gradlab.figures.depth.network import DeepNetwork, exact_gradients, expected_loss
from gradlab.figures.depth.task import classification, training
from gradlab.plots.curves import FEW_DRAWS, series_handle
from gradlab.plots.style import color, marker, styled
from gradlab.reproducible import single_thread
from gradlab.version import __version__

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
ACROSS = {
    "distance": "layers between it and the loss",
    "depth": "layers of the network",
    "steps": "training steps",
}
AVERAGED = np.geomspace(1, 1e4, 25)
BAND = (0.15, 0.5, 0.85)
# Small networks, 5-5-5, of which there are more, and are seen while they train.
SMALL = 3


@single_thread()
def rows(
    seed: int = 0,
    *,
    depths: Sequence[int] = (1, 2, SMALL, 5, 8),
    steps: Sequence[int] = (0, 100),
    networks: int = 2,
    small_steps: Sequence[int] = (0, 100, 300),
    small_networks: int = 5,
    draws: int = 512,
    estimators: Sequence[str] = ESTIMATORS,
) -> pd.DataFrame:
    """Return a row for each network, depth, number of training steps, layer and estimator.

    Only the deepest networks and those of 3 layers are trained; of the latter there are
    `small_networks`, after `small_steps`. Layer 1 is next to the input, `distance` counts layers
    from the loss, `passes` forward passes a draw. `method` says whether moments are exact or from
    `draws`; the bias of estimators that are unbiased for every f is 0. The seed chooses the
    networks and the draws.
    """
    found: list[dict[str, object]] = []
    for depth in depths:
        wanted, count = (small_steps, small_networks) if depth == SMALL else (steps, networks)
        if depth not in (SMALL, max(depths)):
            wanted = wanted[:1]
        for number in range(count):
            start = classification(depth, seed=count * seed + number)
            for step, network in training(start, wanted):
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
    """Return the figure: layers of the deepest, layer 1 against depth, small ones in training."""
    deepest, least = int(rows["depth"].max()), int(rows["steps"].min())
    deep, small = rows[rows["depth"] == deepest], rows[rows["depth"] == SMALL]
    most = int(deep["steps"].max())
    first = rows[rows["layer"] == 1]
    counts = rows.groupby("depth")["network"].nunique()
    with styled():
        figure = Figure(figsize=(11, 10.5))
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
            for ax, (quantity, label) in zip(axes[line], PANELS.items(), strict=False):
                _panel(ax, chosen, across, quantity)
                ax.set_ylabel(label)
            axes[line, 0].set_title(what, loc="left")
        found = [
            (f"layer 1 of {name}, {_state(int(step))}", of_step)
            for name, part in (("5-5-5", small), (f"{deepest}", deep))
            for step, of_step in part[part["layer"] == 1].groupby("steps")
        ]
        for ax, (title, part) in zip(axes[:, 3], found, strict=False):
            _errors(ax, part)
            ax.set_title(title, loc="right")
        costs = deep.drop_duplicates("estimator")
        handles = [
            series_handle(r.series, label=r.estimator + _cost(r.passes, deepest))
            for r in costs.itertuples()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        figure.suptitle(
            f"layers of 5 binary variables: {counts[deepest]} networks, {counts.get(SMALL, 0)} of "
            "5-5-5, of which right: median and 15-85 % band, else geometric means (cosines: mean)\n"
            f"exact, but ARSM from {rows['draws'].max():.0f} draws ± 1 s.e. (hollow: < {FEW_DRAWS} "
            "effective ones); RF, REINFORCE, ARSM are unbiased, GS-ST and GR have one mean",
            fontsize=9,
        )
    return figure


def _state(steps: int) -> str:
    return "random weights" if steps == 0 else f"after {steps} steps"


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
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, high / 20))  # a decade to be read off
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
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("averaged draws")
    ax.set_ylabel("RMSE / |g|")
