"""Drop-in functions beside `torch.nn.functional.gumbel_softmax`, one for each pathwise estimator.

Each returns a sample whose backward is the estimator's product, and takes logits with the classes
along any axis `dim`, a torch.Generator, and optionally the one-hot sample `x` to use.
"""

from torch import Generator, Tensor

from gradlab.estimators.gumbel import GumbelRao, GumbelSoftmax, GumbelSoftmaxST
from gradlab.estimators.straight_through import DARN, STZGR, ZGR, StraightThrough

__all__ = [
    "straight_through",
    "darn",
    "zgr",
    "st_zgr",
    "gumbel_softmax",
    "gumbel_softmax_st",
    "gumbel_rao",
]


def straight_through(
    logits: Tensor, *, dim: int = -1, generator: Generator | None = None, x: Tensor | None = None
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `StraightThrough`."""
    return StraightThrough().sample_along(dim, logits, generator, x)


def darn(
    logits: Tensor, *, dim: int = -1, generator: Generator | None = None, x: Tensor | None = None
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `DARN`."""
    return DARN().sample_along(dim, logits, generator, x)


def zgr(
    logits: Tensor, *, dim: int = -1, generator: Generator | None = None, x: Tensor | None = None
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `ZGR`."""
    return ZGR().sample_along(dim, logits, generator, x)


def st_zgr(
    logits: Tensor,
    alpha: float = 0.5,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `STZGR(alpha)`."""
    return STZGR(alpha).sample_along(dim, logits, generator, x)


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
