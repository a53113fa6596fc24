r"""Straight-through estimators: functions of the sample x alone, one gradient of f at x.

With p = softmax(logits), x one-hot, s = x - p and v = grad f(x), per variable:

.. math:: ST = p \circ (v - p \cdot v), \quad DARN = s\,(s \cdot v), \quad
          STZGR(\alpha) = (1 - \alpha/2)\,ST + (\alpha/2)\,DARN

alpha = 0, 1, 2 are ST, ZGR and DARN.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_tau, row_dot, softmax_vjp, tempered
from gradlab.estimators.pathwise import Rows, SampleOnlyEstimator

__all__ = ["StraightThrough", "DARN", "ZGR", "STZGR", "TemperedStraightThrough"]


@dataclass(frozen=True, repr=False)
class StraightThrough(SampleOnlyEstimator):
    r"""ST, the straight-through estimator: the sample's gradient passed through softmax.

    .. math:: \hat g = p \circ (v - p \cdot v)

    Exact for f of degree 1 in each variable; one evaluation. Bengio, Leonard & Courville 2013
    (1308.3432).

    Example:
        >>> StraightThrough()
        ST
    """

    name: ClassVar[str] = "ST"
    aliases: ClassVar[tuple[str, ...]] = ("Straight-Through", "STE")
    family: ClassVar[str] = "straight-through"
    order: ClassVar[float] = 1
    line_alpha: ClassVar[float | None] = 0.0
    reference: ClassVar[str] = "Bengio et al. 2013, arXiv 1308.3432"

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return p (v - p.v), whatever x."""
        return softmax_vjp(p, v, short_rows=True)


@dataclass(frozen=True, repr=False)
class DARN(SampleOnlyEstimator):
    r"""DARN: the score times a first-order Taylor baseline around the mean.

    .. math:: \hat g = (x - p)\,((x - p) \cdot v)

    Exact for f of degree 1 in each variable; one evaluation. On quadratics its bias is minus that
    of ST. Gregor et al. 2014 (1310.8499).

    Example:
        >>> DARN()
        DARN
    """

    name: ClassVar[str] = "DARN"
    family: ClassVar[str] = "straight-through"
    order: ClassVar[float] = 1
    line_alpha: ClassVar[float | None] = 2.0
    reference: ClassVar[str] = "Gregor et al. 2014, arXiv 1310.8499"

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return s (s.v) with s = x - p."""
        s = x - p
        return s * row_dot(s, v)


@dataclass(frozen=True, repr=False)
class ZGR(SampleOnlyEstimator):
    r"""ZGR, the zero-temperature limit of Gumbel-Rao: the mean of ST and DARN.

    .. math:: \hat g = \tfrac12 [p \circ (v - v_x) + x\,(v_x - p \cdot v)], \quad v_x = x \cdot v

    Exact for f of degree 2 in each variable, jointly; no temperature; one evaluation. The same as
    ReinMax (Liu et al. 2023, 2304.08612) at temperature 1. Shekhovtsov 2023 (ICML, PMLR 202).

    Example:
        >>> ZGR()
        ZGR
    """

    name: ClassVar[str] = "ZGR"
    family: ClassVar[str] = "straight-through"
    order: ClassVar[float] = 2
    line_alpha: ClassVar[float | None] = 1.0
    reference: ClassVar[str] = "Shekhovtsov 2023, ICML, PMLR 202:30931-30955"

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed product."""
        at_x = row_dot(x, v)
        of_x = x * (0.5 * (at_x - row_dot(p, v)))
        return torch.addcmul(of_x, p, v - at_x, value=0.5)


@dataclass(frozen=True, repr=False)
class STZGR(SampleOnlyEstimator):
    r"""ST-ZGR(alpha), the line through ST (alpha = 0), ZGR (1) and DARN (2).

    .. math:: \hat g = (1 - \alpha/2)\,ST + (\alpha/2)\,DARN

    Exact for f of degree 1 in each variable (2 at alpha = 1); on quadratics its bias is
    (1 - alpha) times that of ST. Shekhovtsov 2023 (ICML, PMLR 202).

    Args:
        alpha: Place on the line: 0 is ST, 1 ZGR, 2 DARN.

    Example:
        >>> STZGR(alpha=0.5)
        ST-ZGR(alpha=0.5)
    """

    alpha: float = 0.5

    name: ClassVar[str] = "ST-ZGR"
    family: ClassVar[str] = "straight-through"
    reference: ClassVar[str] = "Shekhovtsov 2023, ICML, PMLR 202:30931-30955"

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, int | float) and -1e6 < self.alpha < 1e6):
            raise ValueError(
                f"alpha must be a finite number (0: ST, 1: ZGR, 2: DARN), not {self.alpha!r}"
            )

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 2 at alpha = 1, else 1."""
        return 2 if self.alpha == 1 else 1

    @property
    def line_alpha(self) -> float:  # type: ignore[override]
        """The place on the line."""
        return float(self.alpha)

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed combination."""
        weight = self.alpha / 2
        return (1 - weight) * StraightThrough().pullback(p, x, v) + weight * DARN().pullback(
            p, x, v
        )


@dataclass(frozen=True, repr=False)
class TemperedStraightThrough(SampleOnlyEstimator):
    r"""ST-T(tau), straight-through with a temperature: x follows softmax(logits) all the same.

    .. math:: \hat g = V(q)\,v / \tau, \quad q = softmax(logits / \tau), \quad
              V(q)\,v = q \circ (v - q \cdot v)

    tau = 1 is ST. At every other tau it is biased even for linear f, whose gradient is V(p) v; the
    factor 1 / tau is what automatic differentiation yields. One evaluation. Bengio, Leonard &
    Courville 2013 (1308.3432), at tau = 1.

    Args:
        tau: Temperature, positive.

    Example:
        >>> TemperedStraightThrough(tau=0.5)
        ST-T(tau=0.5)
    """

    tau: float = 0.5

    name: ClassVar[str] = "ST-T"
    aliases: ClassVar[tuple[str, ...]] = ("Tempered-Straight-Through",)
    family: ClassVar[str] = "straight-through"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Bengio et al. 2013, arXiv 1308.3432"

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 1 at tau = 1, else 0."""
        return 1 if self.tau == 1 else 0

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return V(q) v / tau, whatever x."""
        return softmax_vjp(tempered(p, self.tau), v, short_rows=True) / self.tau
