"""A loss that is a bare table of values, one for each configuration, with no gradient in x.

It is the hardest case for an estimator: nothing but values, as from a simulator or a compiler.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.problems.base import Problem, check_size, normal
from gradlab.reproducible import seeded

__all__ = ["LookupTable"]

MAX_ENTRIES = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class LookupTable(Problem):
    r"""Values read from a table by the class of each variable; not differentiable.

    .. math:: f(x) = T_{k_1, \dots, k_N}, \quad k_i = \arg\max_c x_{ic}

    The table is flat, [C^N], the class of the last variable running fastest; it may be given as
    [C] * N. The result has no gradient, whether or not x requires one.

    Args:
        N: The number of variables.
        C: The number of classes.
        table: The values [C^N], or [C] * N.

    Raises:
        ValueError: If the table has not C^N entries or more than 2^22 of them.
    """

    N: int
    C: int
    table: Float[Tensor, "..."]
    kind: ClassVar[str] = "table"
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_entries(self.N, self.C)
        self._declare(self.N, self.C, degree=math.inf)
        if self.table.numel() != self.C**self.N:
            raise ValueError(
                f"table must have C^N = {self.C**self.N} entries, not {self.table.numel()}"
            )

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "LookupTable":
        """Draw every entry ~ N(0, 1)."""
        _check_entries(N, C)
        table = normal(seeded(cls.kind, seed), C**N)
        return cls(N, C, table, name=f"{cls.kind}(N={N}, C={C}, seed={seed})")

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        index = self._index(x.detach().argmax(-1))
        return self.table.detach().to(x.device).flatten()[index].to(x.dtype)

    def _index(self, classes: Int[Tensor, "*batch N"]) -> Int[Tensor, "*batch"]:
        place = self.C ** torch.arange(self.N - 1, -1, -1, device=classes.device)
        return (classes * place).sum(-1)


def _check_entries(N: int, C: int) -> None:
    check_size(N, C)
    if N * math.log2(C) > math.log2(MAX_ENTRIES):
        raise ValueError(
            f"a table needs C^N values: too many for N={N}, C={C} (at most {MAX_ENTRIES})"
        )
