r"""What a trial by draws can answer where x is drawn from a distribution with finitely many states.

The score of a coordinate is carried by events as a class carries that of a one-hot variable: the
rate of the largest |s_j| that make up half of E s_j^2 is min(p, 1 - p) there.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.exact.sampled_structures import SampledStructure
from gradlab.exact.structures import Structured
from gradlab.reproducible import block_generator
from gradlab.verification.testable_coordinates import NEGLIGIBLE, Question

__all__ = ["StructureQuestion"]

# Numbers of all scores that are held; samples by which the rates of events are known otherwise.
_HELD, _SAMPLES = 2**24, 2**13


@dataclass(frozen=True)
class StructureQuestion(Question):
    """What is asked of code on a distribution; `logits` and `at` are its parameters.

    `on`: the loss, the parameters and the distribution.
    """

    on: Structured | None = None

    part: ClassVar[str] = "part of x"

    @property
    def where(self) -> Structured:
        """The loss, the parameters and the distribution."""
        assert self.on is not None
        return self.on

    @property
    def numbers(self) -> int:
        """How many numbers one draw makes."""
        each = self.logits.numel() + self.where.shape.numel()
        return each * self.drawn.calls(1, 1)

    def rows_of(self, d: Float[Tensor, "n *batch N C"]) -> Float[Tensor, "n R"]:
        """Return nothing to be tested: no sum of estimates is 0 whatever the distribution."""
        return d.new_zeros(len(d), 1)

    @property
    def row_length(self) -> int:
        """How many numbers such a sum has."""
        return 1

    @cached_property
    def rates(self) -> Float[Tensor, " P"]:
        """For each parameter the rate of the events that carry half of E s_j^2; 0 where s_j is."""
        on = self.where
        sampled = isinstance(on, SampledStructure)
        if not sampled and len(on.states) * on.parameters.numel() <= _HELD:
            x, p = on.states, on.p
        else:
            count = max(1, min(_SAMPLES, _HELD // on.parameters.numel()))
            x = on.sample(count, block_generator(0, "rates of events"))
            p = torch.full((count,), 1 / count, dtype=torch.float64)
        s2 = on.scores(x).square()
        order = s2.argsort(0, descending=True)
        carried = (p.unsqueeze(1) * s2).gather(0, order).cumsum(0)
        half = (carried < carried[-1:] * (0.5 - 1e-9)).sum(0, keepdim=True).clamp_max(len(p) - 1)
        # An event is not divided: all that are as large count.
        last = s2.gather(0, order).gather(0, half) * (1 - 1e-9)
        found = (p.unsqueeze(1) * (s2 >= last)).sum(0)
        return torch.where(carried[-1] > 0, found, 0.0)

    @cached_property
    def meets_classes(self) -> int:
        """Draws that meet the events of every parameter, but for negligible ones."""
        rates = self.rates[self.rates >= NEGLIGIBLE]
        return math.ceil(self.unseen / float(rates.min())) if len(rates) else 0

    @cached_property
    def visits(self) -> Float[Tensor, " P"]:
        """Draws from which on each of the P coordinates can be tested."""
        return self._visits(self.rates.clamp_max(0.5))

    def tested(
        self, keep: Bool[Tensor, " D"], v: Float[Tensor, "*batch D"]
    ) -> Float[Tensor, "*batch D"]:
        """Return the part of vectors v that a test of these coordinates is about."""
        return v * keep
