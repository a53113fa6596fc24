"""A loss whose values are known: what asks for them at classes need not make a one-hot x."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["TabledLoss"]


class TabledLoss(ABC):
    """A loss whose values at all configurations are known, so that no one-hot x need be made.

    `evaluate` and `gradient` take it as they take every loss.
    """

    @abstractmethod
    def __call__(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""

    @abstractmethod
    def at(self, classes: Int[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """Return f at the configurations of these classes."""

    @abstractmethod
    def gradient_at(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"] | None:
        """Return grad f(x) where it is known at all of these x, else None."""
