"""The contract of a training run: its settings, its model, what a step and an evaluation are.

All random numbers are a function of the seed and of the number of the step, epoch or evaluation, so
that neither an interruption nor a measurement in between can change what follows.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn

from gradlab.nn.probe import GradientProbe
from gradlab.reproducible import block_generator, generator_on

__all__ = ["Settings", "Training"]


class Settings(Protocol):
    """What decides the curve of a training: a frozen dataclass of plain values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def estimator(self) -> str:
        """The text form of the estimator."""

    @property
    def data(self) -> str:
        """The name of the data set."""

    @property
    def epochs(self) -> int:
        """Passes over the training images."""

    @property
    def batch(self) -> int:
        """Images a step."""

    @property
    def seed(self) -> int:
        """Chooses weights, order of images and samples."""


class Training(ABC):
    """A model with its optimizer, and what one step and one evaluation of it are.

    A subclass sets the attributes and writes `loss`, `evaluate` and, for a schedule,
    `learning_rate`.
    """

    kind: ClassVar[str]
    settings: Settings
    model: nn.Module
    optimizer: torch.optim.Optimizer
    images: int
    device: torch.device
    probe: GradientProbe | None = None
    baseline: float | None = None
    """What a moving average has come to: the one thing that estimators carry from step to step."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch: the last batch may be smaller."""
        return math.ceil(self.images / self.settings.batch)

    def generator(self, what: str, number: int) -> Generator:
        """Return the generator for `what` (step, epoch, evaluation) of this number."""
        source = block_generator(self.settings.seed, f"{self.kind} {what}", number)
        return generator_on(self.device, source)

    def batch(self, step: int) -> Tensor:
        """Return the indices of the images of this step; each image once an epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if getattr(self, "_order", (None,))[0] != epoch:
            # On the CPU, so that every device sees the same order.
            source = block_generator(self.settings.seed, f"{self.kind} epoch", epoch)
            self._order = epoch, torch.randperm(self.images, generator=source)
        size = self.settings.batch
        return self._order[1][number * size : (number + 1) * size]

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the mean loss of the batch of this step, with its graph."""

    def advance(self) -> None:  # noqa: B027 (nothing is left, as a rule)
        """Take over what the `loss` of a step that was done leaves for the next one."""

    @abstractmethod
    def evaluate(self, epoch: int, last: bool) -> dict[str, float]:
        """Return what the row of an epoch holds beside the training loss; `last` may cost more."""

    def learning_rate(self, epoch: int) -> float | None:
        """Return the learning rate of this epoch, counted from 0, or None to leave it."""
        return None
