r"""ReinMax with Gumbel noise inside: Rao-Blackwellized, and with a control variate.

With q = (p + x) / 2 and y a Gumbel-softmax sample of probabilities q whose largest entry is x, both
build on the Jacobians J(y) = (diag(y) - y y^T) / tau.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import check_finite, noise_ratio, softmax_vjp
from gradlab.estimators._gumbel_jacobian import conditional_jacobians
from gradlab.estimators._gumbel_product import TiltedGumbel
from gradlab.estimators.straight_through import ZGR, StraightThrough

__all__ = ["PublishedReinMaxCV", "ReinMaxCV", "ReinMaxRao"]


@dataclass(frozen=True, repr=False)
class ReinMaxRao(TiltedGumbel):
    r"""ReinMax-Rao(tau, k): ReinMax with Gumbel-Rao's Jacobian in the place of the softmax one.

    .. math:: \hat g = \frac2k \sum_r J(y_r)\,v - \tfrac12 V(p)\,v

    Exact for constants only: as tau -> 0 it tends to one half of DARN, so compare it by a measure
    that does not depend on the scale, such as the cosine. k = None is the exact mean over y, from
    tables [N, C, C, C]. One evaluation. Wang & Bui 2026 (2603.08257).

    Args:
        tau: Temperature, positive.
        k: Inner Gumbel samples; None for their exact mean.

    Example:
        >>> ReinMaxRao(tau=0.5, k=10)
        ReinMax-Rao(tau=0.5, k=10)
    """

    tau: float = 0.5
    k: int | None = 10

    name: ClassVar[str] = "ReinMax-Rao"
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Wang & Bui 2026, arXiv 2603.08257"

    def _pullback(self, v: Tensor, p: Tensor, x: Tensor, noise: Iterable[Tensor]) -> Tensor:
        return 2 * self._mean_product(v, noise) - softmax_vjp(p, v, short_rows=True) / 2

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        rao, square = conditional_jacobians(p, self.tau, lean=0.5)
        st = StraightThrough().conditional_jacobians(p)[0] / 2
        first = 2 * rao - st
        noise = 0 if self.inner is None else 4 * (square - rao @ rao) / self.inner
        return first, first.mT @ first + noise


@dataclass(frozen=True, repr=False)
class ReinMaxCV(TiltedGumbel):
    r"""ReinMax-CV(tau, c, k), corrected: ReinMax plus c times a control variate of mean zero.

    .. math:: \hat g = ZGR + c\,[\frac1k \sum_r J(y_r) - J(y_0)]\,v

    with y_0, ..., y_k independent given x. The bracket has mean zero *given x*, so the mean is that
    of ZGR, and so nothing is gained: its variance adds to that of ZGR, least at c = 0. What the
    published form gains it gains by a bias; see `PublishedReinMaxCV`. k = None is the exact mean.
    One evaluation. After Wang & Bui 2026 (2603.08257).

    Args:
        tau: Temperature, positive.
        c: Weight of the control variate.
        k: Inner Gumbel samples; None for their exact mean.

    Example:
        >>> ReinMaxCV(tau=0.5, c=0.5, k=10)
        ReinMax-CV(tau=0.5, c=0.5, k=10)
    """

    tau: float = 0.5
    c: float = 0.5
    k: int | None = 10

    name: ClassVar[str] = "ReinMax-CV"
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    order: ClassVar[float] = 2
    reference: ClassVar[str] = "Wang & Bui 2026, arXiv 2603.08257"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("c", self.c)

    def _noise(self, p: Tensor, x: Tensor, generator: Generator | None) -> Iterator[Tensor]:
        yield from self.relaxed((p + x) / 2, x, 1, generator)
        yield from super()._noise(p, x, generator)

    def _pullback(self, v: Tensor, p: Tensor, x: Tensor, noise: Iterable[Tensor]) -> Tensor:
        noise = iter(noise)
        single = self.product(v, [next(noise)])
        control = self._mean_product(v, noise) - single
        return ZGR().pullback(p, x, v) + self.c * control

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]] | None:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        rao, square = conditional_jacobians(p, self.tau, lean=0.5)
        first, second = ZGR().conditional_jacobians(p)
        factor = self.c**2 * (1 + (0 if self.inner is None else 1 / self.inner))
        return first, second + factor * (square - rao @ rao)


@dataclass(frozen=True, repr=False)
class PublishedReinMaxCV(ReinMaxCV):
    r"""ReinMax-CV(tau, c, k) as published, whose control variate does not have mean zero.

    .. math:: \hat g = ZGR + c\,[\frac1k \sum_r J(y_r) - J(y_0)]\,v, \quad
              y_0 = softmax((\log q + G) / \tau)

    with the noise G of the forward pass, x = argmax (logits + G): given x, y_0 does not follow the
    law of y_1, ..., y_k. Exact for constants only: for linear f the relative bias
    tends to c/2 as tau -> 0. For reference, not for use. Wang & Bui 2026 (2603.08257), from their
    code.

    Args:
        tau: Temperature, positive.
        c: Weight of the control variate.
        k: Inner Gumbel samples; None for their exact mean.

    Example:
        >>> PublishedReinMaxCV(tau=0.5, c=0.5, k=10)
        ReinMax-CV-pub(tau=0.5, c=0.5, k=10)
    """

    name: ClassVar[str] = "ReinMax-CV-pub"
    family: ClassVar[str] = "Gumbel noise"
    order: ClassVar[float] = 0

    def _noise(self, p: Tensor, x: Tensor, generator: Generator | None) -> Iterator[Tensor]:
        # log q - log p is log 1/2 but for x, where it is log (1 + p_x) / (2 p_x).
        ratio = noise_ratio(p, x, generator)
        at_x = (p * x).sum(-1, keepdim=True)
        weight = (at_x / (1 + at_x) / (1 + ratio)).pow(1 / self.tau)
        weight = torch.where(x > 0, 1.0, torch.where(p > 0, weight, 0.0))
        single = weight / weight.sum(-1, keepdim=True)
        yield single.unsqueeze(0)
        yield from TiltedGumbel._noise(self, p, x, generator)

    def conditional_jacobians(self, p: Float[Tensor, "N C"]) -> None:
        """Return None: the mean of J(y_0) is not tabled."""
        return
