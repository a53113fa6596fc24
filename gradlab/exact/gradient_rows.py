"""Gradients of many numbers in the parameters, all at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    values: Callable[[Tensor], Tensor], parameters: Tensor, n: int
) -> Float[Tensor, "n P"]:
    """Return the gradient of each of n values in the parameters.

    Args:
        values: From the parameters to n values, float64.
        parameters: Where, float64.
        n: How many values there are.

    Returns:
        One row for each.

    Example:
        >>> gradients(lambda theta: theta.square(), torch.ones(2, dtype=torch.float64), 2)
        tensor([[2., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    size = parameters.numel()
    with torch.enable_grad():
        theta = parameters.detach().requires_grad_()
        found = values(theta)
        if not found.requires_grad:
            return torch.zeros(n, size, dtype=torch.float64)
        if n <= size:
            unit = torch.eye(n, dtype=torch.float64)
            (rows,) = torch.autograd.grad(found, theta, unit, is_grads_batched=True)
            return rows.flatten(1)
        # The gradient of a weighted sum is linear in the weights.
        weight = torch.zeros(n, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(found, theta, weight, create_graph=True)
        unit = torch.eye(size, dtype=torch.float64)
        (columns,) = torch.autograd.grad(
            g.flatten(), weight, unit, is_grads_batched=True, materialize_grads=True
        )
    return columns.T
