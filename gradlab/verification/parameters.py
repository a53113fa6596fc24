"""Do the parameters of f get their gradient from what trains? Asked of code by draws.

A surrogate must carry the gradient for the logits, and the ordinary one for f's own parameters.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.loss.gate import Objective
from gradlab.moments import Measured
from gradlab.reproducible import block_generator, generator_on
from gradlab.user_code.under_test import Draws

__all__ = ["parameter_share"]

_CALLS, _ROWS = 16, 64


def parameter_share(
    drawn: Draws, f: Objective, logits: Float[Tensor, "*batch N C"], seed: int
) -> Measured | None:
    """Return what share of its gradient a parameter of f gets on average; 1 is right.

    f is given a parameter theta, f(x) + theta (1 + x . w), whose gradient is known to be 1 + p . w.
    None where the code evaluates f at relaxed x, at which that is not so.
    """
    assert drawn.surrogate is not None
    source = torch.Generator().manual_seed(0)
    w = torch.rand(logits.shape[-2:], generator=source, dtype=torch.float64).to(logits)
    wanted = 1 + float((probabilities(logits) * w).sum((-2, -1)).mean())
    relaxed = []
    shares = []
    for call in range(_CALLS):
        theta = torch.zeros((), dtype=logits.dtype, device=logits.device, requires_grad=True)

        def with_parameter(x: Tensor, theta: Tensor = theta) -> Tensor:
            relaxed.append(not bool(((x == 0) | (x == 1)).all()))
            return f(x) + theta * (1 + (x * w).sum((-2, -1)))

        leaf = logits.detach().expand(_ROWS, *logits.shape).clone().requires_grad_()
        generator = block_generator(seed, f"{drawn.name}|parameters", call)
        with torch.enable_grad():
            values = drawn.surrogate(with_parameter, leaf, generator_on(logits.device, generator))
            (of_theta,) = torch.autograd.grad(values.sum(), theta, allow_unused=True)
        got = 0.0 if of_theta is None else float(of_theta)
        shares.append(got / values.numel() / wanted)
    if any(relaxed):
        return None
    found = torch.tensor(shares, dtype=torch.float64)
    return Measured(float(found.mean()), float(found.std()) / math.sqrt(_CALLS))
