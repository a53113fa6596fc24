r"""ReinMax and the second-order family that it is of: two products with softmax Jacobians.

With V(q) v = q (v - q.v) the product with the Jacobian of softmax at q, and x one-hot, they take V
at a point between p = softmax(logits) and x.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_tau, tempered
from gradlab.estimators.pathwise import SampleOnlyEstimator
from gradlab.estimators.straight_through import STZGR, StraightThrough

__all__ = ["RK2", "ReinMax"]


@dataclass(frozen=True, repr=False)
class ReinMax(SampleOnlyEstimator):
    r"""Heun's rule between p and x, with a temperature in its midpoint: ReinMax(tau).

    .. math:: \hat g = 2\,V(q)\,v - \tfrac12 V(p)\,v, \quad q = \tfrac12 [softmax(logits/\tau) + x]

    At tau = 1 it is ZGR, draw by draw, and exact for f of degree 2 in each variable. At every other
    tau, also those above 1 that are recommended, it is biased even for linear f: with r =
    softmax(logits / tau) its mean is then [V(r) + (r - p)(r - p)^T / 2] v. The published code
    refuses tau < 1, the formula does not. Liu, Dong, Liu, Yu & Gao 2023 (2304.08612).
    """

    tau: float = 1.0

    name: ClassVar[str] = "ReinMax"
    reference: ClassVar[str] = "Liu et al. 2023, arXiv 2304.08612"

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 2 at tau = 1, else 0."""
        return 2 if self.tau == 1 else 0

    def pullback(
        self,
        p: Float[Tensor, "*#batch C"],
        x: Float[Tensor, "*#batch C"],
        v: Float[Tensor, "*#batch C"],
    ) -> Float[Tensor, "*batch C"]:
        """Return the displayed product."""
        middle = (tempered(p, self.tau) + x) / 2
        product = StraightThrough().pullback  # V(q) v, whatever x
        return 2 * product(middle, x, v) - product(p, x, v) / 2


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
    """

    alpha: float = 0.75

    name: ClassVar[str] = "RK2"
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

    def pullback(
        self,
        p: Float[Tensor, "*#batch C"],
        x: Float[Tensor, "*#batch C"],
        v: Float[Tensor, "*#batch C"],
    ) -> Float[Tensor, "*batch C"]:
        """Return the displayed combination."""
        return STZGR(1 / self.alpha).pullback(p, x, v)
