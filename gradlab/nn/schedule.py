r"""Temperature schedules: a temperature for each optimizer step, from `start` to `end`.

Each is a frozen dataclass, called with the number of steps done; after `steps` it stays at `end`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from gradlab.categorical import check_tau
from gradlab.checks import check_int

__all__ = ["Constant", "Cosine", "Exponential", "Schedule"]


class Schedule(ABC):
    """A temperature tau(step) for step = 0, 1, ...; subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the temperature after `step` optimizer steps.

        Args:
            step: The number of optimizer steps done, from 0.

        Returns:
            The temperature.
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """The same temperature at every step.

    Args:
        tau: The temperature.

    Raises:
        ValueError: If it is not a positive finite number.

    Example:
        >>> Constant(0.5)(step=100)
        0.5
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        check_tau(self.tau)

    def __call__(self, step: int) -> float:
        """Return tau."""
        return self.tau


@dataclass(frozen=True)
class _Ramp(Schedule):
    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        check_tau(self.start)
        check_tau(self.end)
        check_int("steps", self.steps, 1)

    def _share(self, step: int) -> float:
        """Return how much of the way is done, from 0 to 1."""
        return min(max(step, 0), self.steps) / self.steps


@dataclass(frozen=True)
class Exponential(_Ramp):
    r"""Geometric decay (or growth), by the same factor at every step.

    .. math:: \tau(s) = \tau_0 (\tau_1 / \tau_0)^{s/S}, \quad s \le S

    Args:
        start: The temperature tau_0 at step 0.
        end: The temperature tau_1 from step S on.
        steps: S, the number of steps between them, at least 1.

    Raises:
        ValueError: If a temperature is not a positive finite number, or `steps` is below 1.

    Example:
        >>> anneal = Exponential(1.0, 0.01, steps=2)
        >>> [round(anneal(step), 4) for step in range(4)]
        [1.0, 0.1, 0.01, 0.01]
    """

    def __call__(self, step: int) -> float:
        """Return the temperature after `step` steps."""
        share = self._share(step)
        return self.start ** (1 - share) * self.end**share


@dataclass(frozen=True)
class Cosine(_Ramp):
    r"""Half a cosine wave: flat at both ends.

    .. math:: \tau(s) = \tau_1 + (\tau_0 - \tau_1) (1 + \cos(\pi s/S)) / 2, \quad s \le S

    Loshchilov & Hutter 2017 (1608.03983), without restarts.

    Args:
        start: The temperature tau_0 at step 0.
        end: The temperature tau_1 from step S on.
        steps: S, the number of steps between them, at least 1.

    Raises:
        ValueError: If a temperature is not a positive finite number, or `steps` is below 1.

    Example:
        >>> anneal = Cosine(1.0, 0.5, steps=4)
        >>> [round(anneal(step), 4) for step in range(5)]
        [1.0, 0.9268, 0.75, 0.5732, 0.5]
    """

    def __call__(self, step: int) -> float:
        """Return the temperature after `step` steps."""
        weight = (1 + math.cos(math.pi * self._share(step))) / 2
        return weight * self.start + (1 - weight) * self.end
