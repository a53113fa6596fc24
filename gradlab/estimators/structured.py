"""Estimators of structures: they ask what x is drawn from, and most bring their own noise.

They need `distribution=`. On N independent rows all but I-MLE are refused with a reason.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.estimators.base import Estimator
from gradlab.loss import Loss

__all__ = ["Maximized", "NoisyEstimator", "StructureEstimator"]


@runtime_checkable
class Maximized(Protocol):
    """A set of structures over which a linear function can be maximized."""

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the x [..., *event] that has the largest weights . statistics(x)."""
        ...

    def statistics(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what each of the natural parameters multiplies; x itself is the first."""
        ...


class StructureEstimator(Estimator):
    """An estimator that is defined by what x is drawn from.

    Declares:
        laws: The laws whose samples it can carry, as distributions declare them in `law`.
    """

    of_structures: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True
    laws: ClassVar[tuple[str, ...]]
    where: ClassVar[str]

    def structure_refusal(self, distribution: Any) -> str | None:
        """Return why samples of this distribution cannot carry the estimator, or None."""
        law = getattr(distribution, "law", "another law")
        if law in self.laws:
            return None
        kind = getattr(distribution, "called", type(distribution).__name__)
        return f"{self} is not known for {kind} ({law}): {self.where}"

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return why independent rows are refused."""
        return f"{self} is not known for independent rows: {self.where}"

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Raise ValueError with the reason: rows are not a structure that it knows."""
        raise ValueError(self.refusal(logits))

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Raise ValueError with the reason: rows are not a structure that it knows."""
        raise ValueError(self.refusal(logits))


class NoisyEstimator(Estimator):
    """An estimator that draws samples of a structure from its own continuous noise."""

    of_structures: ClassVar[bool] = True

    @abstractmethod
    def sample_structure(
        self, structure: Maximized, natural: Sequence[Tensor], generator: Generator | None = None
    ) -> Tensor:
        """Return samples x whose backward is the product of this estimator.

        Args:
            structure: What is maximized over.
            natural: Its natural parameters, with the shape of the samples in front.
            generator: The source of the noise.
        """
