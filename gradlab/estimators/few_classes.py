"""Rules of the sample alone that are for few classes: what they share is the refusal of more."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.estimators.pathwise import SampleOnlyEstimator
from gradlab.loss import Loss

__all__ = ["FewClassesEstimator"]


class FewClassesEstimator(SampleOnlyEstimator):
    """A rule of x alone that refuses logits of too many classes, with the reason."""

    @abstractmethod
    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why there are too many classes, or None."""

    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return why this estimator cannot be used on f or on so many classes, or None."""
        return self.refusal(logits) or super().supports(f, logits)

    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates, or raise ValueError with the `refusal`."""
        return super().draw(f, self._accepted(logits), n, generator)

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward is `pullback`, or raise ValueError: the `refusal`."""
        return super().sample(self._accepted(logits), generator, x)

    def _accepted(self, logits: Tensor) -> Tensor:
        reason = self.refusal(logits) if isinstance(logits, Tensor) and logits.ndim else None
        if reason is not None:
            raise ValueError(reason)
        return logits
