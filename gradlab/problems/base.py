"""The contract of a problem: a loss f(x) on N categorical variables of C classes.

A problem is a frozen, callable dataclass that holds its coefficients and declares its polynomial
degree; estimators and the exact engine see it only as a function of x.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

__all__ = ["Problem", "check_size", "normal"]


@dataclass(frozen=True, eq=False, repr=False)
class Problem(ABC):
    """A loss f: x [..., N, C], one-hot or relaxed, to values [...].

    Coefficients are float64 and are cast to the dtype and device of x on use. A call raises
    ValueError if x is not [..., N, C], and TypeError if x is not a floating-point tensor.

    Attributes:
        N: the number of variables.
        C: the number of classes.
        degree: the largest degree of f in any single variable, as a polynomial in the entries of x;
            infinite if f is not a polynomial.
        name: what the problem is called in rows and legends.

    Example:
        >>> import torch
        >>> from gradlab.problems import problem
        >>> f = problem("quadratic", N=2, C=3)
        >>> f(torch.zeros(5, 2, 3)).shape
        torch.Size([5])
    """

    N: int = field(init=False)
    C: int = field(init=False)
    degree: int | float = field(init=False)
    name: str = field(default="", kw_only=True)

    kind: ClassVar[str]
    differentiable: ClassVar[bool] = True

    def __call__(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        """Return the values of f at x."""
        if x.shape[-2:] != (self.N, self.C):
            raise ValueError(
                f"x must have shape [..., {self.N}, {self.C}] for {self.name}, not {list(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating-point tensor, not {x.dtype}")
        return self._values(x)

    def __repr__(self) -> str:
        return self.name

    @abstractmethod
    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        """Return f(x) for a checked x."""

    def _declare(self, N: int, C: int, degree: int | float) -> None:
        check_size(N, C)
        for attribute, value in (("N", N), ("C", C), ("degree", degree)):
            object.__setattr__(self, attribute, value)
        if not self.name:
            object.__setattr__(self, "name", f"{self.kind}(N={N}, C={C})")


def check_size(N: int, C: int) -> None:
    """Raise ValueError unless there is at least one variable and one class."""
    for name, value in (("N", N), ("C", C)):
        if not hasattr(value, "__index__") or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def normal(generator: Generator, *shape: int) -> Float[Tensor, "..."]:
    """Return independent standard normal numbers, float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
