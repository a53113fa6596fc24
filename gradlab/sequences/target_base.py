"""What a target is: an objective of a policy, with its value and its gradient."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.faults import RewardError

__all__ = ["OfSequences", "Target", "check_binary"]


class Target(ABC):
    """An objective of a policy: its value and its gradient, over all sequences.

    Subclasses are frozen dataclasses; their text form is read back by `target_of`.
    """

    form: ClassVar[str]

    @abstractmethod
    def value(self, on: EnumeratedPolicy) -> Float[Tensor, ""]:
        """Return the value of the objective.

        Args:
            on: The policy on a task.
        """

    @abstractmethod
    def weights(self, on: EnumeratedPolicy) -> list[Float[Tensor, "_ V"]]:
        """Return what the gradient weighs the score of each token of each context with.

        Args:
            on: The policy on a task.
        """

    def gradient(self, on: EnumeratedPolicy) -> Float[Tensor, " P"]:
        """Return the gradient of the objective, an ascent direction.

        Args:
            on: The policy on a task.
        """
        return on.gradient_of(self.weights(on))


class OfSequences(Target):
    """An objective whose gradient is a sum over sequences of probability, worth and score."""

    @abstractmethod
    def worth(self, on: EnumeratedPolicy) -> Float[Tensor, " S"]:
        """Return what the gradient weighs the score of each sequence with.

        Args:
            on: The policy on a task.
        """

    def weights(self, on: EnumeratedPolicy) -> list[Float[Tensor, "_ V"]]:
        """Return what the gradient weighs the score of each token of each context with.

        Args:
            on: The policy on a task.
        """
        worth = self.worth(on)
        # The mean is taken off: the scores sum to 0, and an offset would cost digits.
        return on.totals(on.probabilities * (worth - on.probabilities @ worth))


def check_binary(on: EnumeratedPolicy, target: str = "pass@k") -> None:
    """Raise RewardError unless all rewards are 0 or 1.

    Args:
        on: The policy on a task.
        target: What an error calls the target.

    Raises:
        RewardError: Some are not.
    """
    if not ((on.rewards == 0) | (on.rewards == 1)).all():
        hint = ": use max@k" if target == "pass@k" else ""
        raise RewardError(
            f"{target} needs rewards 0 and 1; those of {on.task.name} are others{hint}"
        )
