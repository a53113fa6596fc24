"""Losses that look at x only through projections a . v: polynomials of any degree, and softplus.

A sum of ridge terms is the cheapest generic polynomial of a chosen degree: all mixed terms are
there, with unequal coefficients, for one matrix product a batch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.problems.base import Problem, check_size, normal
from gradlab.reproducible import seeded

__all__ = ["Polynomial", "Softplus"]


@dataclass(frozen=True, eq=False, repr=False)
class Polynomial(Problem):
    r"""A generic polynomial of degree d in each variable and as a whole.

    .. math:: f(x) = w_0 + \sum_{r=1}^d \sum_k \frac{(a_{rk} \cdot v)^r}{r!},
              \quad v = \mathrm{flatten}(x)

    Directions a are [d, terms, N, C]; d = 0 is a constant. On one-hot points powers of an entry
    equal the entry, so a lower-degree f has the same values there; its gradient, which
    straight-through estimators use, is another one.

    Args:
        a: Directions [d, terms, N, C].
        w_0: The constant term.

    Raises:
        ValueError: If the directions do not have these four axes and at least one term.
    """

    a: Float[Tensor, "d terms N C"]
    w_0: int | float = 0.0
    kind: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        if self.a.ndim != 4 or self.a.shape[1] == 0:
            raise ValueError(
                "a must have shape [d, terms, N, C] with at least one term, "
                f"not {list(self.a.shape)}"
            )
        self._declare(self.a.shape[2], self.a.shape[3], degree=len(self.a))

    @classmethod
    def random(
        cls, N: int, C: int, seed: int = 0, *, degree: int = 3, terms: int = 4
    ) -> "Polynomial":
        """Draw a ~ N(0, 1/N) and w_0 ~ N(0, 1), so that a . v has unit scale.

        With one seed each degree adds its terms to the polynomial of the degree below. Raises
        ValueError if `degree` is not a whole number from 0 to 20 or `terms` is not positive.
        """
        check_size(N, C)
        if not isinstance(degree, int) or not 0 <= degree <= 20:
            raise ValueError(f"degree must be a whole number from 0 to 20, not {degree!r}")
        if terms < 1:
            raise ValueError(f"terms must be at least 1, not {terms}")
        w_0 = normal(seeded(cls.kind, seed), 1).item()
        a = torch.zeros(degree, terms, N, C, dtype=torch.float64)
        for r in range(degree):
            a[r] = normal(seeded(f"{cls.kind} {r + 1}", seed), terms, N, C) / math.sqrt(N)
        return cls(a, w_0, name=f"{cls.kind}(degree={degree}, N={N}, C={C}, seed={seed})")

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        v = x.flatten(-2)
        values = self.w_0 + 0.0 * v.sum(-1)
        for r, directions in enumerate(self.a.to(x).flatten(-2), start=1):
            values = values + (torch.matmul(v, directions.mT) ** r).sum(-1) / math.factorial(r)
        return values


@dataclass(frozen=True, eq=False, repr=False)
class Softplus(Problem):
    r"""A smooth loss that is not a polynomial: convex, linear far out, curved in between.

    .. math:: f(x) = \log(1 + e^{b \cdot v}), \quad v = \mathrm{flatten}(x)

    Args:
        b: Coefficients [N, C].
    """

    b: Float[Tensor, "N C"]
    kind: ClassVar[str] = "softplus"

    def __post_init__(self) -> None:
        if self.b.ndim != 2:
            raise ValueError(f"b must have shape [N, C], not {list(self.b.shape)}")
        N, C = self.b.shape
        self._declare(N, C, degree=math.inf)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Softplus":
        """Draw b ~ N(0, 9/N), so that b . v spans the curved part."""
        check_size(N, C)
        b = 3 * normal(seeded(cls.kind, seed), N, C) / math.sqrt(N)
        return cls(b, name=f"{cls.kind}(N={N}, C={C}, seed={seed})")

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        # softplus of torch turns linear above 20, an error of 2e-9.
        return -torch.nn.functional.logsigmoid(-(x.flatten(-2) @ self.b.to(x).flatten()))
