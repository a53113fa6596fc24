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
    """Return a one-hot sample along `dim` with the backward of `StraightThrough`.

    Args:
        logits: Logits of any shape.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> straight_through(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return StraightThrough().sample_along(dim, logits, generator, x)


def darn(
    logits: Tensor, *, dim: int = -1, generator: Generator | None = None, x: Tensor | None = None
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `DARN`.

    Args:
        logits: Logits of any shape.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> darn(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return DARN().sample_along(dim, logits, generator, x)


def zgr(
    logits: Tensor, *, dim: int = -1, generator: Generator | None = None, x: Tensor | None = None
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `ZGR`.

    Args:
        logits: Logits of any shape.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> zgr(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return ZGR().sample_along(dim, logits, generator, x)


def st_zgr(
    logits: Tensor,
    alpha: float = 0.5,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `STZGR(alpha)`.

    Args:
        logits: Logits of any shape.
        alpha: The place on the line through ST (0), ZGR (1) and DARN (2).
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> st_zgr(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return STZGR(alpha).sample_along(dim, logits, generator, x)


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1.0,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a relaxed sample along `dim` with the backward of `GumbelSoftmax(tau)`.

    Args:
        logits: Logits of any shape.
        tau: The temperature.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> gumbel_softmax(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return GumbelSoftmax(tau).sample_along(dim, logits, generator, x)


def gumbel_softmax_st(
    logits: Tensor,
    tau: float = 1.0,
    *,
    dim: int = -1,
    generator: Generator | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return a one-hot sample along `dim` with the backward of `GumbelSoftmaxST(tau)`.

    Args:
        logits: Logits of any shape.
        tau: The temperature.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> gumbel_softmax_st(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
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
    """Return a one-hot sample along `dim` with the backward of `GumbelRao(tau, k)`.

    Args:
        logits: Logits of any shape.
        tau: The temperature.
        k: The number of inner Gumbel samples; None for the limit of infinitely many.
        dim: The axis of the classes.
        generator: The source of the sample; torch's global generator by default.
        x: A one-hot sample to use instead of a new one.

    Returns:
        The sample, in the shape of the logits.

    Example:
        >>> gumbel_rao(Tensor([[0.0, 1.0]])).sum().item()
        1.0
    """
    return GumbelRao(tau, k).sample_along(dim, logits, generator, x)
