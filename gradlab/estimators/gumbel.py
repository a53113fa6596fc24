r"""The Gumbel-softmax family: GS, GS-ST and Gumbel-Rao, all through one product.

With y a Gumbel-softmax sample at temperature tau and v the gradient of f, per variable:

.. math:: J_\tau(y)\,v = y \circ (v - y \cdot v) / \tau

GS takes v at y itself; the others at the one-hot x = argmax y, GR averaging J over y given x.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    check_one_hot,
    check_tau,
    draw_one_hot,
    log_probabilities,
    relaxed_given,
)
from gradlab.estimators.base import PathwiseEstimator
from gradlab.gumbel_jacobian import conditional_jacobians
from gradlab.loss import Loss, gradient

__all__ = [
    "GumbelRao",
    "GumbelSoftmax",
    "GumbelSoftmaxST",
    "gumbel_rao",
    "gumbel_softmax",
    "gumbel_softmax_st",
]

# Elements of one chunk of inner Gumbel samples: fits the cache.
_CHUNK = 2**17


def relaxed_product(
    y: Float[Tensor, "k *batch C"], v: Float[Tensor, "*#batch C"], tau: float
) -> Float[Tensor, "*batch C"]:
    """Return the mean over k of J_tau(y) v = y (v - y.v) / tau."""
    return (y * (v - (y * v).sum(-1, keepdim=True))).mean(0) / tau


class _GumbelEstimator(PathwiseEstimator):
    """What the family shares: a sample x, and y given x (which has the joint law of Gumbel-argmax)."""

    tau: float
    order: ClassVar[float] = 0

    def __post_init__(self) -> None:
        check_tau(self.tau)

    def _given(
        self,
        logits: Tensor,
        generator: Generator | None,
        n: int | None = None,
        x: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return log p and x, drawn where it is not given."""
        log_p = log_probabilities(logits.detach())
        check_tau(self.tau, log_p.dtype)
        if x is None:
            return log_p, draw_one_hot(log_p.exp(), generator, n)
        return log_p, check_one_hot(x, logits).to(log_p.dtype)


@dataclass(frozen=True, repr=False)
class GumbelSoftmax(_GumbelEstimator):
    r"""GS(tau), the relaxed Gumbel-softmax (Concrete) estimator: f is evaluated at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(y), \quad y = softmax((logits + Gumbel) / \tau)

    Its mean is the gradient of a relaxed loss: exact for constants only; biased at every tau > 0,
    with variance of order 1/tau. One evaluation, at a point that is not one-hot. Jang, Gu & Poole 2017
    (1611.01144); Maddison, Mnih & Teh 2017 (1611.00712).
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        log_p, x = self._given(check_logits(logits, ndim=2), generator, n)
        y = relaxed_given(log_p, x, self.tau, 1, generator)
        v = gradient(f, y[0].to(logits.dtype)).to(y.dtype)
        return relaxed_product(y, v, self.tau).to(logits.dtype)

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return a relaxed y (not one-hot); a given one-hot `x` fixes its argmax."""
        log_p, x = self._given(check_logits(logits), generator, x=x)
        y = relaxed_given(log_p, x, self.tau, 1, generator)
        return _Relaxed.apply(logits, y[0].to(logits.dtype), y, self.tau)


@dataclass(frozen=True, repr=False)
class GumbelRao(_GumbelEstimator):
    r"""GR(tau, k), Gumbel-Rao: GS-ST averaged over k Gumbel samples given x; k = None is the exact mean.

    .. math:: \hat g = \frac1k \sum_r J_\tau(y_r)\,\nabla f(x), \quad y_r \sim p(y \mid \arg\max y = x)

    Same mean as GS-ST(tau), less variance; no derivative flows through the conditional noise. As
    tau -> 0, k = None tends to ZGR, while for fixed k the variance grows like 1/(k tau). One evaluation.
    k = None works from tables [N, C, C, C]: for analysis, not for large C. Raises QuadratureError where
    those miss their accuracy. Paulus, Maddison & Krause 2021 (2010.04838).
    """

    tau: float = 1.0
    k: int | None = 10

    name: ClassVar[str] = "GR"
    reference: ClassVar[str] = "Paulus et al. 2021, arXiv 2010.04838"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and (not isinstance(self.k, int) or self.k < 1):
            raise ValueError(f"k must be a positive int, or None for the exact mean, not {self.k!r}")

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        log_p, x = self._given(check_logits(logits, ndim=2), generator, n)
        v = gradient(f, x.to(logits.dtype)).to(x.dtype)
        if self.k is None:
            return _table_product(_mean_jacobian(log_p, x, self.tau), v).to(logits.dtype)
        chunk = max(1, min(self.k, _CHUNK // max(1, x.numel())))
        total = torch.zeros_like(x)
        for start in range(0, self.k, chunk):
            size = min(chunk, self.k - start)
            y = relaxed_given(log_p, x, self.tau, size, generator)
            total += relaxed_product(y, v, self.tau) * size
        return (total / self.k).to(logits.dtype)

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward averages J over y given x; see `PathwiseEstimator.sample`."""
        log_p, x = self._given(check_logits(logits), generator, x=x)
        if self.k is None:
            return _Tabled.apply(logits, x.to(logits.dtype), _mean_jacobian(log_p, x, self.tau))
        y = relaxed_given(log_p, x, self.tau, self.k, generator)
        return _Relaxed.apply(logits, x.to(logits.dtype), y, self.tau)

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        first, second = conditional_jacobians(p, self.tau)
        if self.k is None:
            return first, first @ first
        return first, second / self.k + (1 - 1 / self.k) * (first @ first)


@dataclass(frozen=True, repr=False)
class GumbelSoftmaxST(_GumbelEstimator):
    r"""GS-ST(tau), straight-through Gumbel-softmax: f at the one-hot x, Jacobian at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(x), \quad y = softmax((logits + Gumbel)/\tau),\ x = \arg\max y

    The same law as GR(tau, k=1). Exact for constants only; the variance grows like 1/tau as tau -> 0.
    One evaluation. Jang, Gu & Poole 2017 (1611.01144).
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS-ST"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        return GumbelRao(self.tau, 1).draw(f, logits, n, generator)

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward is J_tau(y); see `PathwiseEstimator.sample`."""
        return GumbelRao(self.tau, 1).sample(logits, generator, x)

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        return GumbelRao(self.tau, 1).conditional_jacobians(p)


def _mean_jacobian(log_p: Tensor, x: Tensor, tau: float) -> Tensor:
    """Return E[J | x] for every row of x: [*x.shape, C]; log_p broadcasts to x."""
    table = conditional_jacobians(log_p.exp(), tau)[0].to(device=x.device, dtype=x.dtype)
    return torch.einsum("...k,...kij->...ij", x, table)


def _table_product(jacobian: Tensor, v: Tensor) -> Tensor:
    return (jacobian @ v.unsqueeze(-1)).squeeze(-1)


class _Relaxed(torch.autograd.Function):
    """Identity on `out`; backward sends the mean of J_tau(y) grad to the logits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, out: Tensor, y: Tensor, tau: float) -> Tensor:
        return out.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.tau = inputs[3]
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return relaxed_product(y, grad.to(y.dtype), ctx.tau).to(grad.dtype), None, None, None


class _Tabled(torch.autograd.Function):
    """Identity on x; backward sends E[J | x] grad to the logits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor, jacobian: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (jacobian,) = ctx.saved_tensors
        return _table_product(jacobian, grad.to(jacobian.dtype)).to(grad.dtype), None, None


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1.0,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a relaxed sample along `dim` with the backward of `GumbelSoftmax(tau)`."""
    return GumbelSoftmax(tau).sample_along(dim, logits, generator, x)


def gumbel_softmax_st(
    logits: Tensor,
    tau: float = 1.0,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `GumbelSoftmaxST(tau)`."""
    return GumbelSoftmaxST(tau).sample_along(dim, logits, generator, x)


def gumbel_rao(
    logits: Tensor,
    tau: float = 1.0,
    k: int | None = 10,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `GumbelRao(tau, k)`."""
    return GumbelRao(tau, k).sample_along(dim, logits, generator, x)
