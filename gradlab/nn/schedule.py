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
        """Return the temperature after `step` optimizer steps."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The temperature `tau` at every step."""

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
    r"""Geometric decay (or growth), the same factor at every step.

    .. math:: \tau(s) = \tau_0 (\tau_1 / \tau_0)^{s/S}, \quad s \le S
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
    """

    def __call__(self, step: int) -> float:
        """Return the temperature after `step` steps."""
        weight = (1 + math.cos(math.pi * self._share(step))) / 2
        return weight * self.start + (1 - weight) * self.end
