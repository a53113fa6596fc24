r"""How Gumbel-Rao and straight-through Gumbel-softmax approach ZGR as the temperature goes to 0.

Both have the same mean, which differs from that of ZGR by order tau, and by tau^2 only where f is
linear in each variable. The variance of GR tends to that of ZGR by order tau, while the variance of
GS-ST diverges like c / tau, c = E <grad f, g_ZGR> / 3. Everything is exact; the coefficients of the
leading terms are computed, not fitted, but for the one of tau^2.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import ZGR, GumbelRao, GumbelSoftmaxST
from gradlab.exact.enumeration import GradientMoments
from gradlab.exact.moments import Enumeration
from gradlab.problems import problem, regime

__all__ = ["first_order_jacobian", "rows"]

PROBLEMS = ("quadratic", "mlp", "multilinear")
TEMPERATURES = tuple(np.geomspace(0.003, 1, 16).tolist())
# Slopes are fitted up to this temperature.
COLD = 0.03


def rows(
    seed: int = 0,
    *,
    problems: Sequence[str] = PROBLEMS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> pd.DataFrame:
    """Return exact differences to ZGR, of 4 variables of 4 classes, at each temperature.

    `difference` is |E g - E ZGR| / |g| for the quantity "mean" and (Var g - Var ZGR) / |g|^2 for
    "variance", `scale` the corresponding |E ZGR| / |g| or Var ZGR / |g|^2. `law` is the leading
    term at this temperature, of exponent `power`; `slope` the exponent fitted up to `COLD`. Where
    the term of order tau of the mean is 0 the law goes through the coldest value with exponent 2.
    """
    found: list[dict[str, object]] = []
    for name in problems:
        f, logits = problem(name, 4, 4, seed), regime("moderate", 4, 4, seed)
        enumeration = Enumeration(f, logits)
        zgr, truth2 = enumeration.moments(ZGR()), float(enumeration.values.gradient.square().sum())
        length, laws = truth2**0.5, _laws(enumeration.gradients)
        units = {
            "mean": (length, float(zgr.mean.norm()) / length),
            "variance": (truth2, zgr.variance.value / truth2),
        }
        for tau in temperatures:
            for estimator in (GumbelSoftmaxST(tau), GumbelRao(tau, None)):
                moments = enumeration.moments(estimator)
                series = estimator.series
                shared = {"problem": f.name, "N": 4, "C": 4, "logits_seed": seed, "seed": seed}
                shared |= {"estimator": str(estimator), "series": series, "tau": tau}
                distance = float((moments.mean - zgr.mean).norm()) / length
                excess = (moments.variance.value - zgr.variance.value) / truth2
                for quantity, difference in (("mean", distance), ("variance", excess)):
                    size, power = laws[quantity, series]
                    unit, scale = units[quantity]
                    row = {"quantity": quantity, "method": "exact", "difference": difference}
                    row |= {"law": size * tau**power / unit, "power": power, "scale": scale}
                    found.append(shared | row)
    groups = pd.DataFrame(found).groupby(["problem", "quantity", "series"], sort=False)
    return pd.concat([_fitted(part) for _, part in groups], ignore_index=True)


def _laws(a: GradientMoments) -> Mapping[tuple[str, str], tuple[float, int]]:
    """Return coefficient and power of tau of each difference, in units of f (squared)."""
    cold = ZGR().conditional_jacobians(a.p)[0]
    slope = first_order_jacobian(a.p)
    mean = torch.einsum("nk,nkij,nkj->ni", a.p, cold, a.mean)
    drift = torch.einsum("nk,nkij,nkj->ni", a.p, slope, a.mean)
    second = a.covariance + a.mean[..., :, None] * a.mean[..., None, :]
    product = torch.einsum("nk,nkil,nklj,nkij->", a.p, cold, slope, second)
    cooling = 2 * float(product) - 2 * float((mean * drift).sum())
    noise = float(torch.einsum("nk,nkij,nkij->", a.p, cold, second)) / 3
    size = float(drift.norm())
    vanishes = size < 1e-12 * float(mean.norm())
    law = (math.nan, 2) if vanishes else (size, 1)
    return {
        ("mean", "GS-ST"): law,
        ("mean", "GR(k=inf)"): law,
        ("variance", "GS-ST"): (noise, -1),
        ("variance", "GR(k=inf)"): (cooling, 1),
    }


def first_order_jacobian(p: Float[Tensor, "N C"]) -> Float[Tensor, "N C C C"]:
    r"""Return A in E[J_tau | x = k] = Z(k) + tau A(k) + O(tau^2), Z the matrix of ZGR.

    .. math:: A_{ij} = -2 \ln\tfrac43\, p_i p_j, \quad
              A_{kj} = -\ln 2\, p_j (1 - 2 p_j) + \ln\tfrac83\, p_j (1 - p_k - p_j)

    for i, j, k distinct; A is symmetric and its rows sum to 0.
    """
    variables, classes = p.shape
    table = torch.zeros(variables, classes, classes, classes, dtype=p.dtype)
    table[:] = -2 * math.log(4 / 3) * (p[:, :, None] * p[:, None, :])[:, None]
    k = torch.arange(classes)
    other = p[:, None, :]
    row = -math.log(2) * other * (1 - 2 * other)
    row = row + math.log(8 / 3) * other * (1 - p[:, :, None] - other)
    table[:, k, k, :] = row
    table[:, k, :, k] = row.movedim(1, 0)
    table.diagonal(dim1=-2, dim2=-1).zero_()
    table.diagonal(dim1=-2, dim2=-1).copy_(-table.sum(-1))
    return table


def _fitted(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one curve with the slope of |difference| in double logarithmic scale."""
    part = part.sort_values("tau")
    cold = part[part["tau"] <= COLD]
    slope = np.polyfit(np.log(cold["tau"]), np.log(cold["difference"].abs()), 1)[0]
    coldest = part.iloc[0]
    through = coldest["difference"] * (part["tau"] / coldest["tau"]) ** part["power"]
    return part.assign(law=part["law"].fillna(through), slope=slope)
