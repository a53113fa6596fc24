r"""The exact value with its graph, so that torch differentiates it, also twice.

.. math:: E f = \sum_x p(x; logits)\,f(x, logits)

This is also the second route to the gradient of a loss that sees the parameters: nothing of the
first one is used but the states. Blocks of states are computed again where they are differentiated,
so that memory is one block.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab.categorical import one_hot, probabilities
from gradlab.exact.tabulated import state_classes
from gradlab.loss import Objective, evaluate

__all__ = ["sum_of_blocks", "value_with_graph", "wants_graph"]

# Numbers of x of one block.
_BLOCK = 2**20

Block = Callable[[Tensor], Tensor]
"""From the parameters to a part of the sum over states."""


def wants_graph(parameters: Tensor) -> bool:
    """Return whether what is made of these parameters is to have a graph.

    Args:
        parameters: The caller's.

    Example:
        >>> wants_graph(torch.zeros(2)), wants_graph(torch.zeros(2, requires_grad=True))
        (False, True)
    """
    return torch.is_grad_enabled() and parameters.requires_grad


def value_with_graph(
    value: Float[Tensor, "*B"], f: Objective, logits: Float[Tensor, "*B N C"]
) -> Float[Tensor, "*B"]:
    """Return the exact value, whose graph leads to the logits and to parameters of f.

    Args:
        value: What it is, from another sweep.
        f: The loss, which has passed the gate.
        logits: The caller's, [N, C] or [B, N, C].

    Returns:
        The same number, with a graph.
    """
    return sum_of_blocks(value, _blocks(f, logits.detach(), value.detach()), logits)


def sum_of_blocks(value: Tensor, blocks: Iterable[Block], parameters: Tensor) -> Tensor:
    """Return a value whose graph is that of a sum of blocks.

    Args:
        value: What it is.
        blocks: The parts, as functions of the parameters in float64 on the CPU.
        parameters: The caller's.

    Returns:
        The same number, with a graph.
    """
    at = parameters.to("cpu", torch.float64)
    total = torch.zeros_like(value)
    for block in blocks:
        total = total + checkpoint(block, at, use_reentrant=False, preserve_rng_state=False)
    # The number keeps its bits: what is added is 0.
    return value.detach() + (total - total.detach())


def _blocks(f: Objective, logits: Tensor, centre: Tensor) -> Iterator[Block]:
    for classes, shown in state_classes(logits, _BLOCK):
        yield _Block(f, classes, shown, centre)


class _Block:
    """The sum of p(x) (f(x) - E f) over some states; an offset of f would cost digits."""

    def __init__(self, f: Objective, classes: Tensor, shown: Tensor, centre: Tensor) -> None:
        self.f, self.classes, self.shown, self.centre = f, classes, shown, centre

    def __call__(self, logits: Tensor) -> Tensor:
        x = one_hot(self.shown, logits.detach())
        p = probabilities(logits).expand(len(x), *logits.shape)
        of_state = p.gather(-1, self.classes.unsqueeze(-1)).squeeze(-1).prod(-1)
        values = evaluate(self.f.at(logits), x)
        return (of_state * (values.to(torch.float64) - self.centre)).sum(0)
