r"""What estimators with inner Gumbel noise share: y given the sample x, and products with J(y).

.. math:: J_\tau(y)\,v = y \circ (v - y \cdot v) / \tau
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
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
from gradlab.estimators._gumbel_jacobian import (
    conditional_jacobians,
    seconds_of_tables,
    tables_too_large,
)
from gradlab.estimators.pathwise import PathwiseEstimator, with_product
from gradlab.loss import Loss, gradient

__all__ = ["GumbelEstimator", "TiltedGumbel", "check_inner", "mean_jacobian", "table_product"]

_CHUNK = 2**17  # elements of one chunk of inner Gumbel samples: fits the cache


class GumbelEstimator(PathwiseEstimator):
    """What the family shares: a sample x, and y given x: the joint law of Gumbel-argmax."""

    tau: float
    order: ClassVar[float] = 0

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @property
    def inner(self) -> int | None:
        """How many samples of y, given x, are averaged over; None for their exact mean."""
        return 1

    def footprint(self, variables: int, classes: int) -> int:
        """Return N C times the inner samples; a table [C, C, C] for each variable if k = None."""
        return variables * classes * (classes**2 if self.inner is None else self.inner)

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why the tables of the exact mean, k = None, are too large, or None."""
        if self.inner is not None:
            return None
        # One draw for each row of logits needs the slice of the sampled class only.
        rows, classes = logits.shape[:-1].numel(), logits.shape[-1]
        return tables_too_large(rows, classes, slices=logits.ndim > 2)

    def table_seconds(self, variables: int, classes: int) -> float:
        """Return about how long the quadrature of the tables takes."""
        return seconds_of_tables(variables, classes, tau=self.tau)

    def given(
        self, logits: Tensor, generator: Generator | None, n: int | None, x: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return p and x, drawn where it is not given."""
        p = probabilities(logits.detach())
        check_tau(self.tau, p.dtype)
        given = draw_one_hot(p, generator, n) if x is None else check_one_hot(x, logits)
        return p, given.to(p.dtype)

    def relaxed(
        self, p: Tensor, x: Tensor, k: int, generator: Generator | None
    ) -> Iterator[Tensor]:
        """Yield k samples of y given x, in chunks [size, *x.shape] that fit the cache."""
        # Turned before it is repeated, p is copied row by row.
        p, x = class_first(class_first(p).expand_as(x)), class_first(x)
        chunk = max(1, min(k, _CHUNK // max(1, x.numel())))
        for start in range(0, k, chunk):
            several = x.expand(min(chunk, k - start), *x.shape)
            yield relaxed_given(p, several, self.tau, generator)

    def product(self, v: Tensor, chunks: Iterable[Tensor]) -> Tensor:
        """Return the mean of J_tau(y) v over all y of all chunks [size, *v.shape]."""
        v = class_first(v)
        total, count = v.new_zeros(()), 0
        for y in chunks:
            centred = v - (y * v).sum(-1, keepdim=True)
            one = len(y) == 1  # by far the most frequent case, and worth a pass less
            total = torch.addcmul(total, y[0], centred[0]) if one else total + (y * centred).sum(0)
            count += len(y)
        return total.div_(count * self.tau).contiguous()

    def attach(self, out: Tensor, logits: Tensor, chunks: Iterable[Tensor]) -> Tensor:
        """Return `out` with the product by all y of the chunks as its backward."""
        return with_product(out, logits, lambda v, *ys: self.product(v, ys), *chunks)


def check_inner(k: int | None) -> None:
    """Raise ValueError unless k is a number of inner samples, or None for their exact mean."""
    if k is not None and (not isinstance(k, int) or k < 1):
        raise ValueError(f"k must be a positive int, or None (exact mean), not {k!r}")


def table_product(v: Tensor, jacobian: Tensor) -> Tensor:
    """Return the matrices [*batch, C, C] times the vectors v [*batch, C]."""
    return (jacobian @ v.unsqueeze(-1)).squeeze(-1)


def mean_jacobian(
    name: str, p: Tensor, x: Tensor, tau: float, lean: float = 0.0
) -> Float[Tensor, "*batch C C"]:
    """Return E[J(y) | x] at the probabilities p, or at (1 - lean) p + lean x."""
    if not is_readable(p):
        raise ValueError(f"k = None ({name}) is not for torch.func; give k a number")
    if x.shape == p.shape:
        table = conditional_jacobians(p, tau, lean=lean, given=x.argmax(-1))[0]
        return table.to(device=x.device, dtype=x.dtype)
    table = conditional_jacobians(p, tau, lean=lean)[0].to(device=x.device, dtype=x.dtype)
    return torch.einsum("...k,...kij->...ij", x, table)


class TiltedGumbel(GumbelEstimator):
    """What ReinMax with inner noise shares: k samples of y given x, at q = (p + x) / 2.

    k = None stands for their exact mean.
    """

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
