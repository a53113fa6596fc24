"""Polynomials in the entries of x, from constant to cubic, each of a known per-variable degree.

They are the ladder on which exactness is measured: an estimator of order k has no bias on every
polynomial of degree at most k in each variable, whatever its degree across variables.
"""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.problems.base import Problem, check_size, normal
from gradlab.reproducible import seeded

__all__ = ["Constant", "Linear", "Multilinear", "Quadratic", "MultiQuadratic", "Cubic"]


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Problem):
    """A loss that does not depend on x; its gradient is zero, its score-function noise is not.

    .. math:: f(x) = a

    Args:
        N: The number of variables.
        C: The number of classes.
        a: The value.
    """

    N: int
    C: int
    a: int | float
    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        self._declare(self.N, self.C, degree=0)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Constant":
        """Draw a ~ N(0, 1)."""
        a = normal(seeded(cls.kind, seed)).item()
        return cls(N, C, a, name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        # The null term keeps the value in the graph: the gradient is zero, not missing.
        return self.a + 0.0 * x.sum((-2, -1))


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Problem):
    r"""A sum of one term per variable; the weakest loss with a gradient.

    .. math:: f(x) = b \cdot v, \quad v = \mathrm{flatten}(x)

    Args:
        b: Coefficients [N, C].
    """

    b: Float[Tensor, "N C"]
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        self._declare(*_size("b", self.b), degree=1)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Linear":
        """Draw b ~ N(0, 1)."""
        check_size(N, C)
        return cls(normal(seeded(cls.kind, seed), N, C), name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        return x.flatten(-2) @ self.b.to(x).flatten()


@dataclass(frozen=True, eq=False, repr=False)
class Multilinear(Problem):
    r"""A product over variables: of degree N as a whole, of degree 1 in each variable.

    .. math:: f(x) = \prod_i (1 + b_i \cdot x_i)

    Args:
        b: Coefficients [N, C].
    """

    b: Float[Tensor, "N C"]
    kind: ClassVar[str] = "multilinear"

    def __post_init__(self) -> None:
        self._declare(*_size("b", self.b), degree=1)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Multilinear":
        """Draw b ~ N(0, 1/N), so that the product stays of order 1."""
        check_size(N, C)
        b = normal(seeded(cls.kind, seed), N, C) / math.sqrt(N)
        return cls(b, name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        return (1.0 + (x * self.b.to(x)).sum(-1)).prod(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Quadratic(Problem):
    r"""A joint quadratic with couplings between all variables, Q symmetric.

    .. math:: f(x) = \tfrac12 v^\top Q v + b \cdot v, \quad v = \mathrm{flatten}(x)

    Args:
        Q: The matrix of the couplings, [N, C, N, C].
        b: Coefficients [N, C].

    Raises:
        ValueError: If Q does not fit b or is not symmetric.
    """

    Q: Float[Tensor, "N C N C"]
    b: Float[Tensor, "N C"]
    kind: ClassVar[str] = "quadratic"

    def __post_init__(self) -> None:
        N, C = _size("b", self.b)
        _check_fits(self.Q, self.b, (N, C, N, C))
        _check_symmetric("Q", self.Q.reshape(N * C, N * C), order=2)
        self._declare(N, C, degree=2)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Quadratic":
        """Draw b ~ N(0, 1) and Q ~ N(0, 1/N), so that each variable feels forces of order 1."""
        check_size(N, C)
        generator = seeded(cls.kind, seed)
        Q = _symmetric(normal(generator, N * C, N * C), order=2) / math.sqrt(N)
        b = normal(generator, N, C)
        return cls(Q.reshape(N, C, N, C), b, name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        v, D = x.flatten(-2), self.N * self.C
        force = torch.matmul(v, self.Q.to(x).reshape(D, D)) / 2 + self.b.to(x).flatten()
        return (force * v).sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class MultiQuadratic(Problem):
    r"""A product of one quadratic per variable: of degree 2N as a whole, of degree 2 in each.

    .. math:: f(x) = \prod_i (1 + b_i \cdot x_i + \tfrac12 x_i^\top Q_i x_i)

    Args:
        Q: One matrix for each variable, [N, C, C].
        b: Coefficients [N, C].

    Raises:
        ValueError: If Q does not fit b or its blocks are not symmetric.
    """

    Q: Float[Tensor, "N C C"]
    b: Float[Tensor, "N C"]
    kind: ClassVar[str] = "multiquadratic"

    def __post_init__(self) -> None:
        N, C = _size("b", self.b)
        _check_fits(self.Q, self.b, (N, C, C))
        _check_symmetric("Q", self.Q.movedim(0, -1), order=2)
        self._declare(N, C, degree=2)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "MultiQuadratic":
        """Draw b, Q ~ N(0, 1/N), so that the product stays of order 1."""
        check_size(N, C)
        generator = seeded(cls.kind, seed)
        Q = _symmetric(normal(generator, C, C, N), order=2).movedim(-1, 0) / math.sqrt(N)
        b = normal(generator, N, C) / math.sqrt(N)
        return cls(Q.contiguous(), b, name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        force = torch.einsum("...ic,icd->...id", x, self.Q.to(x)) / 2 + self.b.to(x)
        return (1.0 + (force * x).sum(-1)).prod(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Cubic(Problem):
    r"""A joint cubic form with a generic symmetric tensor: the first loss on which ZGR is biased.

    .. math:: f(x) = \tfrac16 \sum_{deh} T_{deh} v_d v_e v_h, \quad v = \mathrm{flatten}(x)

    Args:
        T: The coefficients, [N, C, N, C, N, C].

    Raises:
        ValueError: If T is not [N, C, N, C, N, C] or not symmetric, and `random` if N * C > 128.
    """

    T: Float[Tensor, "N C N C N C"]
    kind: ClassVar[str] = "cubic"

    def __post_init__(self) -> None:
        N, C = _size("T", self.T, order=3)
        _check_symmetric("T", self.T.reshape((N * C,) * 3), order=3)
        self._declare(N, C, degree=3)

    @classmethod
    def random(cls, N: int, C: int, seed: int = 0) -> "Cubic":
        """Draw T ~ N(0, 1/N^2), so that each variable feels forces of order 1."""
        check_size(N, C)
        D = N * C
        if D > 128:
            raise ValueError(
                f"N * C must be at most 128 for a cubic, not {D}: T has (N C)^3 entries"
            )
        T = _symmetric(normal(seeded(cls.kind, seed), D, D, D), order=3) / N
        return cls(T.reshape((N, C) * 3), name=_name(cls.kind, N, C, seed))

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        v, D = x.flatten(-2), self.N * self.C
        curvature = torch.matmul(v, self.T.to(x).reshape(D, D * D)).unflatten(-1, (D, D))
        force = torch.matmul(curvature, v.unsqueeze(-1)).squeeze(-1)
        return (force * v).sum(-1) / 6


def _name(kind: str, N: int, C: int, seed: int) -> str:
    return f"{kind}(N={N}, C={C}, seed={seed})"


def _size(name: str, coefficients: Tensor, order: int = 1) -> tuple[int, int]:
    """Return N, C of coefficients shaped [N, C] * order, or raise ValueError."""
    shape = tuple(coefficients.shape)
    if len(shape) != 2 * order or shape != shape[:2] * order:
        raise ValueError(
            f"{name} must have shape [{', '.join(['N, C'] * order)}], not {list(shape)}"
        )
    return shape[0], shape[1]


def _check_fits(Q: Tensor, b: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(Q.shape) != shape:
        raise ValueError(
            f"Q must have shape {list(shape)} for b of shape {list(b.shape)}, not {list(Q.shape)}"
        )


def _symmetric(G: Tensor, order: int) -> Tensor:
    """Return G summed over all orders of its first axes, of unit variance off the diagonal."""
    orders = list(itertools.permutations(range(order)))
    total = torch.stack([_reordered(G, axes) for axes in orders]).sum(0)
    return total / math.sqrt(len(orders))


def _check_symmetric(name: str, A: Tensor, order: int) -> None:
    for axes in itertools.permutations(range(order)):
        if not torch.allclose(A, _reordered(A, axes)):
            raise ValueError(f"{name} must be symmetric: use the mean over all orders of its axes")


def _reordered(A: Tensor, axes: tuple[int, ...]) -> Tensor:
    return A.permute(*axes, *range(len(axes), A.ndim))
