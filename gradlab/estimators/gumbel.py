r"""The Gumbel-softmax family: GS, GS-ST and Gumbel-Rao, all through one product.

With y a Gumbel-softmax sample at temperature tau and v the gradient of f, per variable:

.. math:: J_\tau(y)\,v = y \circ (v - y \cdot v) / \tau

GS takes v at y itself; the others at the one-hot x = argmax y, GR averaging J over y given x.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import check_logits
from gradlab.estimators._gumbel_jacobian import conditional_jacobians
from gradlab.estimators._gumbel_product import (
    GumbelEstimator,
    check_inner,
    mean_jacobian,
    table_product,
)
from gradlab.estimators.pathwise import with_product
from gradlab.loss import Loss, gradient

__all__ = ["GumbelSoftmax", "GumbelSoftmaxST", "GumbelRao"]


@dataclass(frozen=True, repr=False)
class GumbelSoftmax(GumbelEstimator):
    r"""GS(tau), the relaxed Gumbel-softmax (Concrete) estimator: f is evaluated at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(y), \quad y = softmax((logits + Gumbel) / \tau)

    Its mean is the gradient of a relaxed loss: exact for constants only; biased at every tau > 0,
    with variance of order 1/tau. One evaluation, at a relaxed point. Jang, Gu & Poole 2017
    (1611.01144); Maddison, Mnih & Teh 2017 (1611.00712).

    Args:
        tau: Temperature, positive.

    Example:
        >>> GumbelSoftmax(tau=1.0)
        GS(tau=1)
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS"
    aliases: ClassVar[tuple[str, ...]] = ("Gumbel-Softmax", "Concrete")
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p, x = self.given(check_logits(logits, ndim=2), generator, n, None)
        (y,) = self.relaxed(p, x, 1, generator)
        v = gradient(f, y[0].contiguous().to(logits.dtype))
        return self.product(v.to(y.dtype), [y]).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a relaxed y (not one-hot); a given one-hot `x` fixes its argmax."""
        p, x = self.given(check_logits(logits), generator, None, x)
        y = next(self.relaxed(p, x, 1, generator))
        return self.attach(y[0].contiguous(), logits, [y])


class _OneHotForward(GumbelEstimator):
    """f at the one-hot x, J averaged over `inner` samples of y given x (None: exact mean)."""

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p, x = self.given(check_logits(logits, ndim=2), generator, n, None)
        v = gradient(f, x.to(logits.dtype)).to(x.dtype)
        if self.inner is None:
            return table_product(v, mean_jacobian(self.name, p, x, self.tau)).to(logits.dtype)
        return self.product(v, self.relaxed(p, x, self.inner, generator)).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward averages J over y given x; see `PathwiseEstimator`."""
        p, x = self.given(check_logits(logits), generator, None, x)
        if self.inner is None:
            return with_product(x, logits, table_product, mean_jacobian(self.name, p, x, self.tau))
        return self.attach(x, logits, self.relaxed(p, x, self.inner, generator))

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        first, second = conditional_jacobians(p, self.tau)
        k, square = self.inner, first @ first
        return first, square if k is None else second / k + (1 - 1 / k) * square


@dataclass(frozen=True, repr=False)
class GumbelSoftmaxST(_OneHotForward):
    r"""GS-ST(tau), straight-through Gumbel-softmax: f at the one-hot x, Jacobian at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(x), \quad y = softmax((logits + G)/\tau),\ x = \arg\max y

    The same law as GR(tau, k=1). Exact for constants only; the variance grows like 1/tau as tau ->
    0. One evaluation. Jang, Gu & Poole 2017 (1611.01144).

    Args:
        tau: Temperature, positive.

    Example:
        >>> GumbelSoftmaxST(tau=1.0)
        GS-ST(tau=1)
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS-ST"
    aliases: ClassVar[tuple[str, ...]] = (
        "Gumbel-Softmax-ST",
        "Straight-Through Gumbel-Softmax",
        "STGS",
    )
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"


@dataclass(frozen=True, repr=False)
class GumbelRao(_OneHotForward):
    r"""GR(tau, k), Gumbel-Rao: GS-ST averaged over k Gumbel samples given x (None: exactly).

    .. math:: \hat g = \frac1k \sum_r J_\tau(y_r)\,\nabla f(x), \quad y_r \sim p(y | \arg\max y = x)

    Same mean as GS-ST(tau), less variance; no derivative flows through the conditional noise. As
    tau -> 0, k = None tends to ZGR, while for fixed k the variance grows like 1/(k tau). One
    evaluation. k = None works from tables [N, C, C, C], in training from one slice [C, C] of each:
    for analysis, not for large C. Raises QuadratureError where those miss their accuracy. Paulus,
    Maddison & Krause 2021 (2010.04838).

    Args:
        tau: Temperature, positive.
        k: Inner Gumbel samples; None for their exact mean.

    Example:
        >>> GumbelRao(tau=1.0, k=10)
        GR(tau=1, k=10)
    """

    tau: float = 1.0
    k: int | None = 10

    name: ClassVar[str] = "GR"
    aliases: ClassVar[tuple[str, ...]] = ("Gumbel-Rao",)
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Paulus et al. 2021, arXiv 2010.04838"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner(self.k)

    @property
    def inner(self) -> int | None:
        """How many samples of y, given x, are averaged over: k."""
        return self.k
