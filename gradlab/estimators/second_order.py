r"""ReinMax and the second-order family that it is of: two products with softmax Jacobians.

With V(q) v = q (v - q.v) the product with the Jacobian of softmax at q, and x one-hot, they take V
at a point between p = softmax(logits) and x.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_tau, softmax_vjp, tempered
from gradlab.estimators.pathwise import Rows, SampleOnlyEstimator
from gradlab.estimators.straight_through import STZGR

__all__ = ["BinaryZGR", "ReinMax", "RK2"]


@dataclass(frozen=True, repr=False)
class BinaryZGR(SampleOnlyEstimator):
    r"""ZGR-BIN, ZGR for variables of two classes: one derivative times the other probability.

    .. math:: \hat g_1 = -\hat g_0 = \tfrac12 f'\,[b\,(1 - p) + (1 - b)\,p], \quad f' = v_1 - v_0

    with b = x_1 and p = p_1: draw by draw the same as `ZGR`, hence exact for f of degree 2 in each
    variable, jointly. One evaluation. Shekhovtsov 2023 (ICML, PMLR 202).

    Example:
        >>> BinaryZGR()
        ZGR-BIN
    """

    name: ClassVar[str] = "ZGR-BIN"
    aliases: ClassVar[tuple[str, ...]] = ("Binary-ZGR",)
    family: ClassVar[str] = "straight-through"
    order: ClassVar[float] = 2
    reference: ClassVar[str] = "Shekhovtsov 2023, ICML, PMLR 202:30931-30955"

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why it cannot be used: more than two classes, or None."""
        classes = logits.shape[-1]
        if classes <= 2:
            return None
        return f"{self.name} is for variables of 2 classes, not {classes}; use ZGR"

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed product; 0 for a single class."""
        if p.shape[-1] == 1:
            return torch.zeros_like(p * x * v)
        other = x[..., 1] * p[..., 0] + x[..., 0] * p[..., 1]
        g = 0.5 * (v[..., 1] - v[..., 0]) * other
        return torch.stack([-g, g], -1)


@dataclass(frozen=True, repr=False)
class ReinMax(SampleOnlyEstimator):
    r"""Heun's rule between p and x, with a temperature in its midpoint: ReinMax(tau).

    .. math:: \hat g = 2\,V(q)\,v - \tfrac12 V(p)\,v, \quad q = \tfrac12 [softmax(logits/\tau) + x]

    At tau = 1 it is ZGR, draw by draw, and exact for f of degree 2 in each variable. At every other
    tau, also those above 1 that are recommended, it is biased even for linear f: with r =
    softmax(logits / tau) its mean is then [V(r) + (r - p)(r - p)^T / 2] v. The published code
    refuses tau < 1, the formula does not. Liu, Dong, Liu, Yu & Gao 2023 (2304.08612).

    Args:
        tau: Temperature, positive.

    Example:
        >>> ReinMax(tau=1.0)
        ReinMax(tau=1)
    """

    tau: float = 1.0

    name: ClassVar[str] = "ReinMax"
    family: ClassVar[str] = "straight-through"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Liu et al. 2023, arXiv 2304.08612"

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 2 at tau = 1, else 0."""
        return 2 if self.tau == 1 else 0

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed product."""
        middle = (tempered(p, self.tau) + x) / 2
        at_middle = 2 * softmax_vjp(middle, v, short_rows=True)
        return at_middle - softmax_vjp(p, v, short_rows=True) / 2


@dataclass(frozen=True, repr=False)
class RK2(SampleOnlyEstimator):
    r"""The Runge-Kutta rules of second order, of which Heun's is one (ReinMax).

    With w = 1 / (2 alpha), for w < 1 the same as two products at p and between p and x:

    .. math:: \hat g = (1 - w)\,ST + w\,DARN
              = \tfrac1{1-w} V((1-w)\,p + w\,x)\,v - w\,V(p)\,v

    alpha = 1 is Heun's rule, ZGR; 1/2 the midpoint rule, DARN; 2/3 Ralston's. Exact for f of degree
    1 in each variable, 2 at alpha = 1: the same as ST-ZGR(1 / alpha). The published code keeps the
    factor 2 of Heun's rule and its centre (p + x) / 2 at every alpha; for linear f its mean is
    then (2 - 1/alpha) g, which is 0 for the midpoint rule. After Wang & Bui 2026 (2603.08257).

    Args:
        alpha: The rule: 1/2 is the midpoint rule, 2/3 Ralston's, 1 Heun's.

    Example:
        >>> RK2(alpha=0.75)
        RK2(alpha=0.75)
    """

    alpha: float = 0.75

    name: ClassVar[str] = "RK2"
    family: ClassVar[str] = "straight-through"
    reference: ClassVar[str] = "Wang & Bui 2026, arXiv 2603.08257"

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, int | float) and 1e-6 < self.alpha < 1e6):
            raise ValueError(
                "alpha must be a positive finite number (1/2: midpoint, 1: Heun), "
                f"not {self.alpha!r}"
            )

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 2 at alpha = 1, else 1."""
        return 2 if self.alpha == 1 else 1

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed combination."""
        return STZGR(1 / self.alpha).pullback(p, x, v)
