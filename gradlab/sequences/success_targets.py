"""Targets of binary rewards: functions of the probability of success that estimators climb.

Each is some h(p), p = P(R = 1), so its gradient is h'(p) grad p.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_int
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.target_base import OfSequences, check_binary

__all__ = ["OfSuccess", "PassSum", "Transformed"]


class OfSuccess(OfSequences):
    """A function of the probability of success."""

    @abstractmethod
    def of_success(self, p: float) -> float:
        """Return h(p).

        Args:
            p: The probability of success.
        """

    @abstractmethod
    def slope(self, p: float) -> float:
        """Return h'(p).

        Args:
            p: The probability of success.
        """

    def _success(self, on: EnumeratedPolicy) -> float:
        check_binary(on, str(self))
        return float(on.probabilities @ on.rewards)

    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return h(p).

        Args:
            on: The policy on a task.
        """
        return torch.tensor(self.of_success(self._success(on)), dtype=torch.float64)

    def worth(self, on: EnumeratedPolicy) -> Float[Tensor, " S"]:
        """Return h'(p) R.

        Args:
            on: The policy on a task.
        """
        return self.slope(self._success(on)) * on.rewards


@dataclass(frozen=True)
class PassSum(OfSuccess):
    r"""The objective of MaxRL: a truncated logarithm of the probability of success.

    .. math:: \sum_{k=1}^{G} \frac{pass@k}{k} \to \sum_{k \ge 1} \frac{1}{k} + \log p, \quad
        h'(p) = \frac{1 - (1 - p)^G}{p}

    Args:
        g: How many terms, at least 1: the size of a group.

    Raises:
        ValueError: If it is not such a number.

    Example:
        >>> str(PassSum(8)), PassSum(2).of_success(0.5)
        ('sum-pass@8', 0.875)
    """

    g: int
    form: ClassVar[str] = r"sum-pass@(\d+)"

    def __post_init__(self) -> None:
        check_int("g", self.g, 1)

    def of_success(self, p: float) -> float:
        """Return the sum.

        Args:
            p: The probability of success.
        """
        return math.fsum((1 - (1 - p) ** k) / k for k in range(1, self.g + 1))

    def slope(self, p: float) -> float:
        """Return the sum of (1 - p)^{k - 1}.

        Args:
            p: The probability of success.
        """
        return math.fsum((1 - p) ** k for k in range(self.g))

    def __str__(self) -> str:
        return f"sum-pass@{self.g}"


@dataclass(frozen=True)
class Transformed(OfSuccess):
    r"""The objective of GRPO where rewards are 0 and 1 and lengths do not count (SUM, CONST).

    .. math:: h(p) = \int_0^p c, \quad c(q) = \sum_{K=1}^{G-1} \binom{G}{K} q^{K-1} (1-q)^{G-K-1}
        \frac{K}{G} \Big(1 - \frac{K}{G}\Big) \frac{1}{sd_K + \epsilon}

    K of G samples are correct, and sd_K is their standard deviation with G - 1. For G = 2 it is
    p / sqrt 2; as G grows it tends to 2 asin(sqrt p).

    Args:
        g: G, at least 2.
        eps: What is added to the deviation.

    Raises:
        ValueError: If they are not such numbers.

    Example:
        >>> str(Transformed(8)), str(Transformed(8, 1e-4))
        ('h(g=8)', 'h(g=8, eps=0.0001)')
        >>> round(Transformed(2).slope(0.3), 6), round(Transformed(512).of_success(1.0), 2)
        (0.707107, 3.01)
    """

    g: int
    eps: float = 0.0
    form: ClassVar[str] = r"h\(g=(\d+)(?:, ?eps=(.+))?\)"

    def __post_init__(self) -> None:
        check_int("g", self.g, 2)
        if not isinstance(self.eps, int | float) or not 0 <= self.eps < math.inf:
            raise ValueError(f"eps must be a number of at least 0, not {self.eps!r}")

    def _slopes(self, q: np.ndarray) -> np.ndarray:
        g, k = self.g, np.arange(1, self.g)
        share = k / g * (1 - k / g)
        deviation = np.sqrt(share * g / (g - 1)) + self.eps
        ways = np.array([math.log(math.comb(g, int(i))) for i in k])  # no float holds C(2000, 9)
        right, wrong = (np.log(x.clip(1e-300))[:, None] for x in (q, 1 - q))
        found: np.ndarray = np.exp(ways + (k - 1) * right + (g - k - 1) * wrong) @ (
            share / deviation
        )
        return found

    def of_success(self, p: float) -> float:
        """Return the integral: the polynomial has degree G - 2, for which G nodes are exact.

        Args:
            p: The probability of success.
        """
        nodes, weights = np.polynomial.legendre.leggauss(self.g)
        return float(weights @ self._slopes(p * (nodes + 1) / 2)) * p / 2

    def slope(self, p: float) -> float:
        """Return c(p).

        Args:
            p: The probability of success.
        """
        return float(self._slopes(np.array([p]))[0])

    def __str__(self) -> str:
        eps = f", eps={self.eps:g}" if self.eps else ""
        return f"h(g={self.g}{eps})"
