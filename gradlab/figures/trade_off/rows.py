"""Squared bias against variance of one draw: one curve a family, and whose curve is the better.

The temperature runs along the curves of Gumbel-softmax and Gumbel-Rao, alpha along that from ST
over ZGR to DARN. Above raw, in the middle scale-free (each estimate rescaled so that its mean has
the length of the truth: an optimizer forgives scale). Below, over many problems, the share of
GR(k=inf), tau in [0.01, 10], that ST-ZGR, alpha in [0, 1], dominates, and the other way round.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.comparison.comparing import compare
from gradlab.comparison.dominance import MomentCurve, dominated_share
from gradlab.estimators import STZGR, Estimator, GumbelRao, parse
from gradlab.exact.moments import Enumeration
from gradlab.figures.temperature.rows import problems
from gradlab.problems import SNAPSHOTS, TinyVAE, problem, regime
from gradlab.reproducible import single_thread

__all__ = ["domination_rows", "gumbel_rao_curve", "rows"]

TEMPERATURES = tuple(np.geomspace(0.01, 10, 19).tolist())
ALPHAS = tuple(np.linspace(0, 2, 41).tolist())
FAMILIES = ("GS-ST", "GR(k=10)", "GR(k=100)", "GR(k=inf)")
DRAWS = 4096
SCALES = ("raw", "scale-free")

# At uniform logits both families are the same curve up to scale: nothing to compare there.
REGIMES = ("moderate", "peaked")
# Temperatures between which the moments of GR are interpolated, to 1 %: smooth in log tau.
NODES = np.linspace(np.log(0.01), np.log(10), 16)
GRID = np.linspace(NODES[0], NODES[-1], 151)
# As the dominating curve ST-ZGR is resolved most finely near ZGR, where cold GR ends.
FINE_ALPHA = 1 - np.linspace(1, 0, 201) ** 2
EVEN_ALPHA = np.linspace(0, 1, 101)
# Well above rounding, well below anything to be seen.
MARGIN = 1e-6

COLUMNS = [
    *("kind", "problem", "regime", "N", "C", "logits_seed", "estimator", "series", "tau", "alpha"),
    *("seed", "method", "draws", "truth2", "bias2", "bias2_se", "variance", "variance_se"),
    *("scale_free_bias2", "scale_free_bias2_se", "scale_free_variance", "scale_free_variance_se"),
    *("scale", "dominated_by", "share", "version", "dtype"),
]


@single_thread()
def rows(
    seed: int = 0,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    alphas: Sequence[float] = ALPHAS,
    draws: int = DRAWS,
    seeds: int = 20,
    images: int = 10,
) -> pd.DataFrame:
    """Return rows of kind "curve", as from `compare`, and of kind "domination", with the shares.

    Domination is asked for `seeds` problems of each class and `images` of the VAE.
    """
    found: list[dict[str, Any]] = []
    for f, logits in problems(seed):
        on = Enumeration(f, logits)
        given: dict[str, Any] = {"seed": seed, "logits_seed": seed}
        free: list[Estimator | str] = [*(STZGR(alpha) for alpha in alphas), "RF(m=4)"]
        for table in (
            # One temperature after the other: its table serves all families.
            *(compare(on, None, FAMILIES, [t], method="exact", **given) for t in temperatures),
            compare(on, None, free, method="exact", **given),
            compare(on, None, ["GS"], temperatures[::2], draws, method="monte-carlo", **given),
        ):
            alpha = [getattr(parse(text), "alpha", None) for text in table["estimator"]]
            found += table.assign(kind="curve", alpha=alpha).to_dict("records")
    shown = [(seed * images + i) % 300 for i in range(images)]
    found += domination_rows(range(seed * seeds, (seed + 1) * seeds), shown)
    return pd.DataFrame(found, columns=COLUMNS)


def domination_rows(seeds: Iterable[int], images: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield the shares of GR(k=inf) and ST-ZGR that the other dominates, raw and scale-free.

    For each seed: three problems with 4 variables of 4 classes at moderate and at peaked logits;
    for each image: the VAE at its snapshots.
    """
    for seed in seeds:
        for name in REGIMES:
            logits = regime(name, 4, 4, seed)
            for kind in ("quadratic", "cubic", "mlp"):
                row = {"problem": kind, "regime": name, "logits_seed": seed}
                yield from _shares(Enumeration(problem(kind, 4, 4, seed), logits), row)
    for image in images:
        for snapshot in SNAPSHOTS:
            f = TinyVAE(snapshot, image)
            row = {"problem": "vae", "regime": snapshot, "logits_seed": image}
            yield from _shares(Enumeration(f, f.logits), row)


def gumbel_rao_curve(exact: Enumeration, log_tau: np.ndarray) -> MomentCurve:
    """Return the moments of GR(k=inf) at any log tau, interpolated between exp(NODES)."""
    rao = [GumbelRao(tau, None) for tau in np.exp(NODES).tolist()]
    # Without this factor the moments fall off steeply beyond tau = 1.
    warmed = _curve(exact, rao, NODES).scaled(1 + np.exp(NODES))
    return warmed.at(log_tau).scaled(1 / (1 + np.exp(log_tau)))


def _shares(exact: Enumeration, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    truth = exact.values.gradient.numpy()
    gr = gumbel_rao_curve(exact, GRID)
    # The mean is linear in alpha and the variance quadratic: three points are all of it.
    st = _curve(exact, [STZGR(0.0), STZGR(1.0), STZGR(2.0)], np.array([0.0, 1.0, 2.0]))
    for scale in SCALES:
        of_gr, even, fine = (
            curve.plane(truth, scale_free=scale == "scale-free")
            for curve in (gr, st.at(EVEN_ALPHA), st.at(FINE_ALPHA))
        )
        row |= {"kind": "domination", "N": 4, "C": 4, "scale": scale}
        share = dominated_share(of_gr, fine, margin=MARGIN)
        yield row | {"series": "GR(k=inf)", "dominated_by": "ST-ZGR", "share": share}
        share = dominated_share(even, of_gr, margin=MARGIN)
        yield row | {"series": "ST-ZGR", "dominated_by": "GR(k=inf)", "share": share}


def _curve(exact: Enumeration, family: Sequence[Estimator], parameter: np.ndarray) -> MomentCurve:
    moments = [exact.moments(estimator) for estimator in family]
    return MomentCurve(
        parameter,
        np.stack([m.mean.numpy().ravel() for m in moments]),
        np.array([m.variance.value for m in moments]),
    )
