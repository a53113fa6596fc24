"""Powers of the distance between relaxed levels and targets: the usual toy problems.

With two classes the level of a variable is the ordinary bit b, which gives the single-bit toy
E (b - t)^2 and polynomial programming.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.problems.base import Problem, normal
from gradlab.reproducible import seeded

__all__ = ["NormPower"]


@dataclass(frozen=True, eq=False, repr=False)
class NormPower(Problem):
    r"""The p-th power of the p-norm between the levels of the variables and their targets.

    .. math:: f(x) = \frac1N \sum_i |u_i - t_i|^p, \quad u_i = \sum_c \frac{c}{C - 1} x_{ic}

    The level u runs from 0 (first class) to 1 (last class); for C = 2 it is the bit x_{i1}. (The
    norm over all entries of x would be constant on one-hot points for equal targets.) `target` is
    one number, or one for each variable. `degree` is p if p is even; other powers are not
    polynomials.

    Source: Tucker et al. 2017 (1703.07370) with N = 1, p = 2, t = 0.45; Grathwohl et al. 2018
    (1711.00123) with t = 0.499; Liu et al. 2023 (2304.08612) with N = 128 and p = 1.5, 2, 3.

    Args:
        N: The number of variables.
        C: The number of classes.
        p: The power, at least 1.
        target: The target of all variables, or one target for each.

    Raises:
        ValueError: If p < 1 or the number of targets is not N.
    """

    N: int
    C: int
    p: int | float = 2
    target: int | float | tuple[int | float, ...] = 0.45
    kind: ClassVar[str] = "norm"

    def __post_init__(self) -> None:
        if not 1 <= self.p < math.inf:
            raise ValueError(f"p must be a finite number of at least 1, not {self.p!r}")
        if isinstance(self.target, tuple) and len(self.target) != self.N:
            raise ValueError(
                f"target must be one number or N = {self.N} numbers, not {len(self.target)}"
            )
        if not self.name:
            shown = self.target if isinstance(self.target, int | float) else list(self.target)
            name = f"{self.kind}(p={self.p:g}, target={shown}, N={self.N}, C={self.C})"
            object.__setattr__(self, "name", name)
        self._declare(self.N, self.C, degree=int(self.p) if self.p % 2 == 0 else math.inf)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0, *, p: int | float = 2) -> "NormPower":
        """Draw targets around 0.5 with standard deviation 0.1, one a variable."""
        targets = 0.5 + 0.1 * normal(seeded(cls.kind, seed), N)
        name = f"{cls.kind}(p={p:g}, N={N}, C={C}, seed={seed})"
        return cls(N, C, p, tuple(targets.tolist()), name=name)

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        levels = torch.linspace(0.0, 1.0, self.C, dtype=torch.float64).to(x)
        target = torch.as_tensor(self.target, dtype=torch.float64).to(x)
        distance = (torch.matmul(x, levels) - target).abs()
        return (distance**self.p).sum(-1) / self.N
