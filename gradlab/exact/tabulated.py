"""A batch of losses at all states of its elements: f is evaluated for all elements together, once.

Every element is then a problem of its own on the same states, read from the table.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.categorical import configurations_at, one_hot, probabilities
from gradlab.exact.all_cores import over_all
from gradlab.loss import evaluate, gradient
from gradlab.loss.gate import Objective

__all__ = ["LookUp", "Tabulated", "count_states", "state_classes"]

# Numbers of x that f is shown at once, and that a table may hold.
_BLOCK = 2**20
_TABLE = 2**25


def count_states(logits: Float[Tensor, "*batch N C"]) -> int:
    """Return how many configurations have positive probability, in any element of a batch.

    Args:
        logits: The parameters [N, C] or [B, N, C].

    Returns:
        The number of configurations, a Python int that may be huge.
    """
    return math.prod(len(allowed) for allowed in _allowed(logits))


def _allowed(logits: Tensor) -> list[Tensor]:
    """Return the classes of each variable that are possible in some element of the batch."""
    p = probabilities(logits.detach().to("cpu", torch.float64)).reshape(-1, *logits.shape[-2:])
    return [(row > 0).nonzero()[:, 0] for row in p.amax(0)]


class Tabulated:
    """f: x [..., B, N, C] -> [..., B] at all states of each element, for logits [B, N, C].

    Values, and gradients where they are asked for, come from f in the dtype of the caller's logits
    and are kept in float64. Where a table would hold more than 2^25 numbers an element is evaluated
    anew, which repeats it over the batch and costs B times as much.

    Args:
        f: The loss, which has passed the gate.
        logits: The parameters [B, N, C].
    """

    def __init__(self, f: Objective, logits: Float[Tensor, "B N C"]) -> None:
        self.f = f
        self.logits = logits.detach().to("cpu", torch.float64)
        classes = _allowed(logits)
        sizes = [len(allowed) for allowed in classes]
        self.states = math.prod(sizes)
        # What a class of each variable counts in the number of a state.
        self._place = torch.zeros(logits.shape[1:], dtype=torch.float64)
        if self.states * len(self.logits) > _TABLE:
            return  # no table is made, and the places may be too large for a float
        for i, (row, allowed) in enumerate(zip(self._place, classes, strict=True)):
            row[allowed] = math.prod(sizes[i + 1 :]) * torch.arange(
                len(allowed), dtype=torch.float64
            )

    def element(self, b: int) -> Objective:
        """Return f of element b alone: x [..., N, C] -> [...]."""
        alone = self.f.element(b)
        if self.states * len(self.logits) > _TABLE:
            return alone
        with_slopes = self.states * self.logits.numel() <= _TABLE

        def f(x: Tensor) -> Tensor:
            if (x.requires_grad and not with_slopes) or not bool(((x == 0) | (x == 1)).all()):
                return alone(x)
            state = (x.detach() * self._place).sum((-2, -1)).long()
            return LookUp.apply(x, state, self.values[:, b], lambda s: self.gradients[s, b])

        def both(x: Tensor, parameters: Tensor) -> Tensor:
            return alone.at(parameters)(x)

        given = torch.float64, torch.device("cpu"), None, self.f.eps
        second = None if alone.second is None else both
        return Objective(f, *given, caller=self.f.dtype, second=second)

    @cached_property
    def values(self) -> Float[Tensor, "S B"]:
        """f at every state of every element."""
        with torch.no_grad():
            return self._at_all(lambda x: evaluate(self.f, x).to(torch.float64))

    @cached_property
    def gradients(self) -> Float[Tensor, "S B N C"]:
        """grad f at every state of every element."""
        return self._at_all(lambda x: gradient(self.f, x).to(torch.float64))

    def _at_all(self, work: Callable[[Tensor], Tensor]) -> Tensor:
        """Return work(x) for the x of all states, on all threads that torch may use."""
        size = max(1, _BLOCK // self.logits.numel())
        starts = range(0, self.states, size)
        parts = [slice(start, min(start + size, self.states)) for start in starts]
        allowed = _allowed(self.logits)

        def found(part: slice) -> Tensor:
            return work(one_hot(_classes(self.logits, allowed, part)[1], self.logits))

        return torch.cat(over_all(parts, found))


def state_classes(
    logits: Float[Tensor, "*batch N C"], block: int
) -> Iterator[tuple[Int[Tensor, "s *batch N"], Int[Tensor, "s *batch N"]]]:
    """Yield the classes of all states, for all elements of a batch together, in blocks.

    Args:
        logits: The parameters [N, C] or [B, N, C].
        block: About how many numbers x of one block may have.

    Yields:
        The classes, and those that x is made of: a class that is masked in one element, where its
        probability is 0, stands aside there for one that is not.

    Example:
        >>> [shown.tolist() for _, shown in state_classes(torch.zeros(1, 2), 2**10)]
        [[[0], [1]]]
    """
    allowed = _allowed(logits)
    size, count = max(1, block // logits.numel()), math.prod(map(len, allowed))
    for start in range(0, count, size):
        yield _classes(logits, allowed, slice(start, min(start + size, count)))


def _classes(logits: Tensor, allowed: list[Tensor], part: slice) -> tuple[Tensor, Tensor]:
    """Return the classes of the states with these numbers, and those that x is made of."""
    batch, variables = logits.shape[:-2], logits.shape[-2]
    possible = probabilities(logits.detach().to("cpu", torch.float64)) > 0
    instead = possible.to(torch.uint8).argmax(-1)
    classes = configurations_at(torch.arange(part.start, part.stop), allowed)
    each = classes.view(len(classes), *[1] * len(batch), -1).expand(-1, *batch, variables)
    met = possible.expand(len(classes), *possible.shape).gather(-1, each.unsqueeze(-1)).squeeze(-1)
    return each, torch.where(met, each, instead)


class LookUp(torch.autograd.Function):
    """Tabulated values at one-hot x, by the number of its state, with tabulated gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, values: Tensor, slopes: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the values at these states."""
        ctx.save_for_backward(state)
        ctx.slopes = slopes
        return values[state]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients at the states, weighted."""
        (state,) = ctx.saved_tensors
        return grad[..., None, None] * ctx.slopes(state), None, None, None
