r"""The Gumbel-softmax family: GS, GS-ST and Gumbel-Rao, all through one product.

With y a Gumbel-softmax sample at temperature tau and v the gradient of f, per variable:

.. math:: J_\tau(y)\,v = y \circ (v - y \cdot v) / \tau

GS takes v at y itself; the others at the one-hot x = argmax y, GR averaging J over y given x.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    check_one_hot,
    check_tau,
    class_first,
    draw_one_hot,
    is_readable,
    probabilities,
    relaxed_given,
)
from gradlab.estimators.pathwise import PathwiseEstimator, with_product
from gradlab.gumbel_jacobian import conditional_jacobians
from gradlab.loss import Loss, gradient

__all__ = ["GumbelSoftmax", "GumbelSoftmaxST", "GumbelRao"]

_CHUNK = 2**17  # elements of one chunk of inner Gumbel samples: fits the cache


class _GumbelEstimator(PathwiseEstimator):
    """What the family shares: a sample x, and y given x: the joint law of Gumbel-argmax."""

    tau: float
    order: ClassVar[float] = 0

    def __post_init__(self) -> None:
        check_tau(self.tau)

    def _given(
        self, logits: Tensor, generator: Generator | None, n: int | None, x: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return p and x, drawn where it is not given."""
        p = probabilities(logits.detach())
        check_tau(self.tau, p.dtype)
        given = draw_one_hot(p, generator, n) if x is None else check_one_hot(x, logits)
        return p, given.to(p.dtype)

    def _relaxed(
        self, p: Tensor, x: Tensor, k: int, generator: Generator | None
    ) -> Iterator[Tensor]:
        """Yield k samples of y given x, in chunks [size, *x.shape] that fit the cache."""
        p, x = class_first(p.expand_as(x)), class_first(x)
        chunk = max(1, min(k, _CHUNK // max(1, x.numel())))
        for start in range(0, k, chunk):
            several = x.expand(min(chunk, k - start), *x.shape)
            yield relaxed_given(p, several, self.tau, generator)

    def _product(self, v: Tensor, chunks: Iterable[Tensor]) -> Tensor:
        """Return the mean of J_tau(y) v over all y of all chunks [size, *v.shape]."""
        v = class_first(v)
        total, count = torch.zeros_like(v), 0
        for y in chunks:
            centred = v - (y * v).sum(-1, keepdim=True)
            one = len(y) == 1  # by far the most frequent case, and worth a pass less
            total = torch.addcmul(total, y[0], centred[0]) if one else total + (y * centred).sum(0)
            count += len(y)
        return (total / (count * self.tau)).contiguous()

    def _attach(self, out: Tensor, logits: Tensor, chunks: Iterable[Tensor]) -> Tensor:
        return with_product(out, logits, lambda v, *ys: self._product(v, ys), *chunks)


@dataclass(frozen=True, repr=False)
class GumbelSoftmax(_GumbelEstimator):
    r"""GS(tau), the relaxed Gumbel-softmax (Concrete) estimator: f is evaluated at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(y), \quad y = softmax((logits + Gumbel) / \tau)

    Its mean is the gradient of a relaxed loss: exact for constants only; biased at every tau > 0,
    with variance of order 1/tau. One evaluation, at a relaxed point. Jang, Gu & Poole 2017
    (1611.01144); Maddison, Mnih & Teh 2017 (1611.00712).
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p, x = self._given(check_logits(logits, ndim=2), generator, n, None)
        (y,) = self._relaxed(p, x, 1, generator)
        v = gradient(f, y[0].contiguous().to(logits.dtype))
        return self._product(v.to(y.dtype), [y]).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a relaxed y (not one-hot); a given one-hot `x` fixes its argmax."""
        p, x = self._given(check_logits(logits), generator, None, x)
        y = next(self._relaxed(p, x, 1, generator))
        return self._attach(y[0].contiguous(), logits, [y])


class _OneHotForward(_GumbelEstimator):
    """f at the one-hot x, J averaged over `_inner` samples of y given x (None: exact mean)."""

    @property
    def _inner(self) -> int | None:
        return getattr(self, "k", 1)  # GS-ST has no k: it is the case of one sample

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p, x = self._given(check_logits(logits, ndim=2), generator, n, None)
        v = gradient(f, x.to(logits.dtype)).to(x.dtype)
        if self._inner is None:
            return _table_product(v, _mean_jacobian(p, x, self.tau)).to(logits.dtype)
        return self._product(v, self._relaxed(p, x, self._inner, generator)).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward averages J over y given x; see `PathwiseEstimator`."""
        p, x = self._given(check_logits(logits), generator, None, x)
        if self._inner is None:
            return with_product(x, logits, _table_product, _mean_jacobian(p, x, self.tau))
        return self._attach(x, logits, self._relaxed(p, x, self._inner, generator))

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return E[M | x = k] and E[M^T M | x = k] from the quadrature tables."""
        first, second = conditional_jacobians(p, self.tau)
        k, square = self._inner, first @ first
        return first, square if k is None else second / k + (1 - 1 / k) * square


@dataclass(frozen=True, repr=False)
class GumbelSoftmaxST(_OneHotForward):
    r"""GS-ST(tau), straight-through Gumbel-softmax: f at the one-hot x, Jacobian at the relaxed y.

    .. math:: \hat g = J_\tau(y)\,\nabla f(x), \quad y = softmax((logits + G)/\tau),\ x = \arg\max y

    The same law as GR(tau, k=1). Exact for constants only; the variance grows like 1/tau as tau ->
    0. One evaluation. Jang, Gu & Poole 2017 (1611.01144).
    """

    tau: float = 1.0

    name: ClassVar[str] = "GS-ST"
    reference: ClassVar[str] = "Jang et al. 2017, arXiv 1611.01144"


@dataclass(frozen=True, repr=False)
class GumbelRao(_OneHotForward):
    r"""GR(tau, k), Gumbel-Rao: GS-ST averaged over k Gumbel samples given x (None: exactly).

    .. math:: \hat g = \frac1k \sum_r J_\tau(y_r)\,\nabla f(x), \quad y_r \sim p(y | \arg\max y = x)

    Same mean as GS-ST(tau), less variance; no derivative flows through the conditional noise. As
    tau -> 0, k = None tends to ZGR, while for fixed k the variance grows like 1/(k tau). One
    evaluation. k = None works from tables [N, C, C, C]: for analysis, not for large C. Raises
    QuadratureError where those miss their accuracy. Paulus, Maddison & Krause 2021 (2010.04838).
    """

    tau: float = 1.0
    k: int | None = 10

    name: ClassVar[str] = "GR"
    reference: ClassVar[str] = "Paulus et al. 2021, arXiv 2010.04838"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and (not isinstance(self.k, int) or self.k < 1):
            raise ValueError(f"k must be a positive int, or None (exact mean), not {self.k!r}")


def _mean_jacobian(p: Tensor, x: Tensor, tau: float) -> Tensor:
    if not is_readable(p):
        raise ValueError("k = None (exact Gumbel-Rao) is not for torch.func; give k a number")
    table = conditional_jacobians(p, tau)[0].to(device=x.device, dtype=x.dtype)
    return torch.einsum("...k,...kij->...ij", x, table)


def _table_product(v: Tensor, jacobian: Tensor) -> Tensor:
    return (jacobian @ v.unsqueeze(-1)).squeeze(-1)
