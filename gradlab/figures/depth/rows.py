"""Bias and variance of gradient estimators layer by layer in deep stochastic networks.

Layers of 5 binary variables classify points on a circle, at random weights and after some training
with the exact gradient. All is relative to the exact gradient of the layer; moments are exact too,
by dynamic programming over layer states, but for ARSM, which is measured by draws.

Networks of 8 layers show how bias and variance change with the distance from the loss, networks of
5-5-5 how they change in training.
"""

import math
from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from gradlab.estimators import Estimator, parse
from gradlab.figures.depth.draws import deep_moments, passes
from gradlab.figures.depth.exact import exact_deep_moments
from gradlab.figures.depth.network import DeepNetwork, exact_gradients, expected_loss
from gradlab.figures.depth.task import classification, training
from gradlab.reproducible import single_thread
from gradlab.version import __version__

__all__ = ["rows"]

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
    """Return the rows of one estimator, one row per layer."""
    moments = exact_deep_moments(network, estimator)
    method, n = "exact", math.nan
    if moments is None:
        name = f"depth {where['depth']} network {where['network']} steps {where['steps']}"
        moments = deep_moments(network, estimator, draws, seed, row=name)
        method, n = "monte carlo", draws
    found = []
    for layer, (truth, m) in enumerate(zip(truths, moments, strict=True), 1):
        row: dict[str, object] = where | {"layer": layer, "distance": len(truths) - layer}
        row |= {"estimator": str(estimator), "series": estimator.series}
        row |= {"passes": passes(network, estimator), "seed": seed, "method": method, "draws": n}
        row |= {"effective_draws": m.effective_sample_size, "truth2": float(truth.square().sum())}
        unbiased = estimator.order == math.inf
        bias2, cosine = (0.0, 1.0) if unbiased else (m.bias2(truth), m.cosine(truth))
        row |= {"bias2": float(bias2), "cosine": float(cosine)}
        row |= {"variance": m.variance.value, "variance_se": m.variance.se}
        found.append(row | {"version": __version__, "dtype": "float64"})
    return found
