"""Natural parameters: their checks, what stands for -inf, and rows as the simplest structure."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical

from gradlab.distributions.gradient import base_of

__all__ = ["Rows", "check_natural", "finite_log", "lowest", "maximized"]


def check_natural(name: str, values: Tensor, ndim: int) -> Tensor:
    """Return natural parameters, after a check of what they are.

    Args:
        name: How the argument is called.
        values: Natural parameters; -inf forces a part out.
        ndim: The number of axes of one element of the batch.

    Returns:
        The same tensor.

    Raises:
        TypeError: `values` is not a floating-point tensor.
        ValueError: It has too few axes, or holds NaN or +inf.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating-point tensor, not {kind}")
    if values.ndim < ndim:
        raise ValueError(f"{name} must have at least {ndim} axes, not shape {list(values.shape)}")
    if bool(values.isnan().any()):
        raise ValueError(f"{name} holds NaN")
    if bool((values == torch.inf).any()):
        raise ValueError(
            f"{name} holds +inf; force a part in by setting what competes with it to -inf"
        )
    return values


def finite_log(values: Tensor) -> Tensor:
    """Return log weights with `lowest` in place of -inf.

    Args:
        values: Log weights, floating-point.
    """
    return torch.where(values == -torch.inf, lowest(values.dtype), values)


def lowest(dtype: torch.dtype) -> float:
    """Return what stands for -inf in sums: finite, so that gradients are 0 and not NaN.

    Args:
        dtype: A floating-point dtype.

    Returns:
        A number of which hundreds can be added.

    Example:
        >>> lowest(torch.float64) < -1e200
        True
    """
    return -(torch.finfo(dtype).max ** 0.8)


class Rows:
    """One-hot rows as a structure that is maximized: torch's own `OneHotCategorical`.

    Args:
        logits: The natural parameters [*batch, C].
    """

    law: ClassVar[str] = "categorical"
    called: ClassVar[str] = "OneHotCategorical"

    def __init__(self, logits: Tensor) -> None:
        self.natural = (finite_log(logits),)

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the class with the largest weight, as x [..., C]."""
        return torch.zeros_like(weights[0]).scatter(-1, weights[0].argmax(-1, keepdim=True), 1.0)

    def statistics(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return x alone."""
        return (x,)


def maximized(distribution: Distribution) -> Any:
    """Return the structure behind a distribution, of which estimators with own noise know most.

    Args:
        distribution: Any distribution.

    Returns:
        An object with `natural`, `statistics` and `maximizer` where these are known; else the
        distribution.

    Example:
        >>> maximized(torch.distributions.OneHotCategorical(logits=torch.zeros(3))).law
        'categorical'
    """
    found = base_of(distribution)
    return Rows(found.logits) if isinstance(found, OneHotCategorical) else found
