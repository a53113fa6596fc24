r"""ReinMax with Gumbel noise inside: Rao-Blackwellized, and with a control variate.

With q = (p + x) / 2 and y a Gumbel-softmax sample of probabilities q whose largest entry is x, both
build on the Jacobians J(y) = (diag(y) - y y^T) / tau.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import check_finite, check_logits, draw_exponentials, softmax_vjp
from gradlab.estimators._gumbel_jacobian import conditional_jacobians
from gradlab.estimators._gumbel_product import (
    GumbelEstimator,
    check_inner,
    mean_jacobian,
    table_product,
)
from gradlab.estimators.pathwise import with_product
from gradlab.estimators.straight_through import ZGR, StraightThrough
from gradlab.loss import Loss, gradient

__all__ = ["PublishedReinMaxCV", "ReinMaxCV", "ReinMaxRao"]


class _TiltedGumbel(GumbelEstimator):
    """What they share: k samples of y given x at the probabilities q (None: their exact mean)."""

    k: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner(self.k)

    @property
    def inner(self) -> int | None:
        """How many samples of y, given x, are averaged over: k."""
        return self.k

    @abstractmethod
    def _pullback(self, v: Tensor, p: Tensor, x: Tensor, noise: Iterable[Tensor]) -> Tensor:
        """Return the estimate for the gradient v of f, given what `_noise` drew."""

    def _noise(self, p: Tensor, x: Tensor, generator: Generator | None) -> Iterator[Tensor]:
        """Yield all noise beside x: samples of y [size, *x.shape] in chunks, or their table."""
        if self.inner is not None:
            yield from self.relaxed((p + x) / 2, x, self.inner, generator)
            return
        yield mean_jacobian(self.name, p, x, self.tau, lean=0.5)

    def _mean_product(self, v: Tensor, noise: Iterable[Tensor]) -> Tensor:
        """Return the mean of J(y) v over the samples of y."""
        return table_product(v, *noise) if self.inner is None else self.product(v, noise)

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p, x = self.given(check_logits(logits, ndim=2), generator, n, None)
        v = gradient(f, x.to(logits.dtype)).to(x.dtype)
        return self._pullback(v, p, x, self._noise(p, x, generator)).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward is the estimate; see `PathwiseEstimator.sample`."""
        p, x = self.given(check_logits(logits), generator, None, x)
        noise = self._noise(p, x, generator)
        return with_product(
            x, logits, lambda v, p, x, *noise: self._pullback(v, p, x, noise), p, x, *noise
        )


@dataclass(frozen=True, repr=False)
class ReinMaxRao(_TiltedGumbel):
    r"""ReinMax-Rao(tau, k): ReinMax with Gumbel-Rao's Jacobian in the place of the softmax one.

    .. math:: \hat g = \frac2k \sum_r J(y_r)\,v - \tfrac12 V(p)\,v

    Exact for constants only: as tau -> 0 it tends to one half of DARN, so compare it by a measure
    that does not depend on the scale, such as the cosine. k = None is the exact mean over y, from
    tables [N, C, C, C]. One evaluation. Wang & Bui 2026 (2603.08257).
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
class ReinMaxCV(_TiltedGumbel):
    r"""ReinMax-CV(tau, c, k), corrected: ReinMax plus c times a control variate of mean zero.

    .. math:: \hat g = ZGR + c\,[\frac1k \sum_r J(y_r) - J(y_0)]\,v

    with y_0, ..., y_k independent given x. The bracket has mean zero *given x*, so the mean is that
    of ZGR, and so nothing is gained: its variance adds to that of ZGR, least at c = 0. What the
    published form gains it gains by a bias; see `PublishedReinMaxCV`. k = None is the exact mean.
    One evaluation. After Wang & Bui 2026 (2603.08257).
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
    law of y_1, ..., y_k. Exact for constants only: for linear f of 2 variables of 3 classes the
    relative bias at c = 0.5 is 11, 24 and 27 % at tau = 1, 0.5 and 0.1, and tends to c/2. For
    reference, not for use. Wang & Bui 2026 (2603.08257), from their code.
    """

    name: ClassVar[str] = "ReinMax-CV-pub"
    family: ClassVar[str] = "Gumbel noise"
    order: ClassVar[float] = 0

    def _noise(self, p: Tensor, x: Tensor, generator: Generator | None) -> Iterator[Tensor]:
        # log q - log p is log 1/2 but for x, where it is log (1 + p_x) / (2 p_x).
        e = draw_exponentials(x, generator)
        at_x, e_x = ((p * x).sum(-1, keepdim=True), (e * x).sum(-1, keepdim=True))
        ratio = e * (1 - x) / torch.maximum(p, x) / e_x
        weight = (at_x / (1 + at_x) / (1 + ratio)).pow(1 / self.tau)
        weight = torch.where(x > 0, 1.0, torch.where(p > 0, weight, 0.0))
        single = weight / weight.sum(-1, keepdim=True)
        yield single.unsqueeze(0)
        yield from _TiltedGumbel._noise(self, p, x, generator)

    def conditional_jacobians(self, p: Float[Tensor, "N C"]) -> None:
        """Return None: the mean of J(y_0) is not tabled."""
        return
