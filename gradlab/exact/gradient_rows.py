"""Gradients of many numbers in the parameters, all at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    values: Callable[[Tensor], Tensor], parameters: Float[Tensor, "*parameters"], n: int
) -> Float[Tensor, "n P"]:
    """Return the gradient of each of n values in the P parameters, float64.

    Args:
        values: From parameters to n values.
        parameters: Where.
        n: The number of values.

    Example:
        >>> gradients(lambda t: t.square(), torch.tensor([1.0, 2.0]), 2)
        tensor([[2., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    size = parameters.numel()
    with torch.enable_grad():
        theta = parameters.detach().requires_grad_()
        found = values(theta)
        if not found.requires_grad:
            return torch.zeros(n, size, dtype=torch.float64)
        if n <= size:
            unit = torch.eye(n, dtype=found.dtype)
            (rows,) = torch.autograd.grad(found, theta, unit, is_grads_batched=True)
            return rows.flatten(1).to(torch.float64)
        # The gradient of a weighted sum is linear in the weights.
        weight = torch.zeros(n, dtype=found.dtype, requires_grad=True)
        (g,) = torch.autograd.grad(found, theta, weight, create_graph=True)
        unit = torch.eye(size, dtype=g.dtype)
        (columns,) = torch.autograd.grad(
            g.flatten(), weight, unit, is_grads_batched=True, materialize_grads=True
        )
    return columns.T.to(torch.float64)
