"""A batch of losses at all states of its elements: f is evaluated for all elements together, once.

Every element is then a problem of its own on the same states, read from the table.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.categorical import configurations_at, one_hot, probabilities
from gradlab.exact.all_cores import over_all
from gradlab.exact.state_table import StateTable, places
from gradlab.loss import evaluate, gradient
from gradlab.loss.gate import Objective

__all__ = ["Tabulated", "allowed_classes", "batch_blocks", "count_states", "state_classes"]

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
    return math.prod(len(allowed) for allowed in allowed_classes(logits))


def allowed_classes(logits: Float[Tensor, "*batch N C"]) -> list[Tensor]:
    """Return the classes of each variable that are possible in some element of the batch.

    Args:
        logits: The parameters [N, C] or [B, N, C].

    Returns:
        For each of the N variables its classes, int64.

    Example:
        >>> [a.tolist() for a in allowed_classes(torch.tensor([[0.0, -torch.inf], [0.0, 1.0]]))]
        [[0], [0, 1]]
    """
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
        allowed = allowed_classes(logits)
        self.states = math.prod(map(len, allowed))
        self.table: StateTable | None = None
        if self.states * len(logits) > _TABLE:
            return  # no table is made, and the places may be too large for an int
        self.table = StateTable(
            f,
            places(allowed, logits.shape[-1]),
            partial(batch_blocks, self.logits),
            batch=len(logits),
            with_gradients=self.states * logits.numel() <= _TABLE,
            made=(lambda: self.values.flatten(0, 1), lambda: self.gradients.flatten(0, 1)),
        )

    def element(self, b: int) -> Objective:
        """Return f of element b alone: x [..., N, C] -> [...]."""
        alone = self.f.element(b)
        if self.table is None:
            return alone

        def both(x: Tensor, parameters: Tensor) -> Tensor:
            return alone.at(parameters)(x)

        second = None if alone.second is None else both
        given = torch.float64, torch.device("cpu"), None, self.f.eps
        return Objective(self.table.element(b, alone), *given, caller=self.f.dtype, second=second)

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
        allowed = allowed_classes(self.logits)

        def found(part: slice) -> Tensor:
            return work(one_hot(_classes(self.logits, allowed, part)[1], self.logits))

        return torch.cat(over_all(parts, found))


def batch_blocks(logits: Float[Tensor, "B N C"]) -> Iterator[Float[Tensor, "s B N C"]]:
    """Yield x at all states, for all elements of a batch together, in blocks.

    Args:
        logits: The parameters [B, N, C], float64.

    Yields:
        One-hot x; what is masked in an element is replaced there, see `state_classes`.

    Example:
        >>> [x.shape for x in batch_blocks(torch.zeros(2, 1, 3).double())]
        [torch.Size([3, 2, 1, 3])]
    """
    for _, shown in state_classes(logits, _BLOCK):
        yield one_hot(shown, logits)


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
    allowed = allowed_classes(logits)
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
