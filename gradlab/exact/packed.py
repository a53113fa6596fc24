"""What is given in other shapes than the engine has: x of any shape, and tuples of parameters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradlab.loss import Loss, LossShapeError, ParameterLoss

__all__ = ["Packed", "flattened", "in_a_row", "packed", "unpacked"]


class Packed(NamedTuple):
    """A loss, its parameters as one tensor, and the distribution as a function of that tensor.

    Args:
        f: The loss; one that sees the parameters is given the tuple.
        parameters: All of them in one row, [P].
        distribution: From the row to the distribution at the tuple.
    """

    f: Loss
    parameters: Tensor
    distribution: Callable[[Tensor], Any]


def packed(
    f: Loss, parameters: Sequence[Tensor], distribution: Callable[[tuple[Tensor, ...]], Any]
) -> Packed:
    """Return a loss and a distribution of a tuple of parameters as those of one tensor.

    Args:
        f: The loss.
        parameters: Floating tensors of one dtype on one device.
        distribution: From the tuple to what x is drawn from.

    Returns:
        The three of them.

    Raises:
        TypeError: If the parameters are not floating tensors of one dtype and device, or none.

    Example:
        >>> from gradlab.distributions import Chain
        >>> both = torch.zeros(3, 2), torch.zeros(2, 2, 2)
        >>> found = packed(lambda x: x[..., 0, 0], both, lambda pair: Chain(*pair))
        >>> found.parameters.shape, found.distribution(found.parameters)
        (torch.Size([14]), Chain(unary: [3, 2], pairwise: [2, 2, 2]))
    """
    given = tuple(parameters)
    tensors = [t for t in given if isinstance(t, Tensor) and t.is_floating_point()]
    kinds = {(t.dtype, t.device) for t in tensors}
    if len(tensors) != len(given) or len(kinds) != 1:
        told = [f"{t.dtype} on {t.device}" if isinstance(t, Tensor) else repr(t) for t in given]
        raise TypeError(
            "a tuple of parameters must hold floating tensors of one dtype on one device, not "
            f"({', '.join(told)})"
        )
    shapes = [t.shape for t in given]

    def of_tuple(row: Tensor) -> Any:
        return distribution(unpacked(row, shapes))

    def of_both(x: Tensor, row: Tensor) -> Tensor:
        assert isinstance(f, ParameterLoss)
        return f(x, unpacked(row, shapes))

    whole = ParameterLoss(of_both) if isinstance(f, ParameterLoss) else f
    return Packed(whole, in_a_row(given), of_tuple)


def in_a_row(parameters: Sequence[Tensor]) -> Tensor:
    """Return all numbers of some tensors in one row, [P], with their graph.

    Args:
        parameters: The tensors.

    Example:
        >>> in_a_row([torch.zeros(1), torch.ones(2, 1)])
        tensor([0., 1., 1.])
    """
    return torch.cat([t.flatten() for t in parameters])


def unpacked(row: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Return the tensors of these shapes that stand in a row one after the other.

    Args:
        row: All numbers, [P].
        shapes: The shapes.

    Returns:
        The tensors.

    Example:
        >>> unpacked(torch.arange(3.0), [torch.Size([1]), torch.Size([2])])
        (tensor([0.]), tensor([1., 2.]))
    """
    parts = row.split([math.prod(shape) for shape in shapes])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))


def flattened(f: Loss, shape: torch.Size) -> Loss:
    """Return f of x that comes as one row of numbers, [..., 1, D].

    Args:
        f: A loss of x of this shape, with any axes in front; of the parameters too if it is marked.
        shape: The shape of one x.

    Returns:
        The loss; it raises LossShapeError where f does not return one value for each x.

    Example:
        >>> flattened(lambda x: x[..., 0, 1], torch.Size([2, 2]))(torch.ones(3, 1, 4))
        tensor([1., 1., 1.])
    """
    if isinstance(f, ParameterLoss):
        return ParameterLoss(_FlatOfBoth(f.f, shape))
    return _Flat(f, shape)


@dataclass(frozen=True)
class _Flat:
    """f of x given as one row of numbers, [..., 1, D]."""

    f: Loss
    shape: torch.Size

    def __call__(self, x: Tensor) -> Tensor:
        shaped = x.reshape(*x.shape[:-2], *self.shape)
        values = self.f(shaped)
        if isinstance(values, Tensor) and values.shape != x.shape[:-2]:
            raise LossShapeError(
                f"f must return one value for each x: shape {list(x.shape[:-2])} for x of shape "
                f"{list(shaped.shape)}, of which the last {len(self.shape)} axes are one x; not "
                f"{list(values.shape)}"
            )
        return values


@dataclass(frozen=True)
class _FlatOfBoth:
    """f(x, parameters) of x given as one row of numbers, [..., 1, D]."""

    f: Callable[..., Tensor]
    shape: torch.Size

    def __call__(self, x: Tensor, parameters: Tensor) -> Tensor:
        return _Flat(ParameterLoss(self.f).at(parameters), self.shape)(x)
