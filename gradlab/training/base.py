"""The contract of a training run: its settings, its model, what a step and an evaluation are.

All random numbers are a function of the seed and of the number of the step, epoch or evaluation.
So neither an interruption nor a measurement in between can change what follows.
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
    """What decides the curve of a training: a frozen dataclass of plain values.

    `VAESettings` and `NetworkSettings` are such classes.
    """

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
        """Images per step."""

    @property
    def seed(self) -> int:
        """The seed of weights, order of images and samples."""


class Training(ABC):
    """A model with its optimizer, and what one step and one evaluation of it are.

    A subclass sets the attributes and writes `loss`, `evaluate` and, for a schedule,
    `learning_rate`. `gradlab.training.loop.train` runs it.

    Attributes:
        kind: The name of this kind of training, such as "vae".
        settings: What decides the curve.
        model: What is trained.
        optimizer: The optimizer of its parameters.
        images: The number of training images.
        device: The device that computes.
        probe: The probe that measures estimators during the training, or None.
        baseline: The present value of a moving average, the only thing that an estimator carries
            from step to step; None where there is no such average.
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
        """Optimizer steps per epoch; the last batch may be smaller."""
        return math.ceil(self.images / self.settings.batch)

    def generator(self, what: str, number: int) -> Generator:
        """Return the generator of one step, epoch or evaluation.

        Args:
            what: What draws from it: "step", "epoch" or "evaluation".
            number: The number of the step, epoch or evaluation.

        Returns:
            A new generator on the device of the training.
        """
        source = block_generator(self.settings.seed, f"{self.kind} {what}", number)
        return generator_on(self.device, source)

    def batch(self, step: int) -> Tensor:
        """Return the indices of the images of this step; each image comes once per epoch.

        Args:
            step: The number of the optimizer step, from 0.

        Returns:
            Indices of training images, int64.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        if getattr(self, "_order", (None,))[0] != epoch:
            # On the CPU, so that every device sees the same order.
            source = block_generator(self.settings.seed, f"{self.kind} epoch", epoch)
            self._order = epoch, torch.randperm(self.images, generator=source)
        size = self.settings.batch
        return self._order[1][number * size : (number + 1) * size]

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the mean loss of the batch of this step, with its graph.

        Args:
            step: The number of the optimizer step, from 0.

        Returns:
            A scalar whose backward is the estimate of the gradient.
        """

    def advance(self) -> None:  # noqa: B027 (nothing is left, as a rule)
        """Take over what the `loss` of this step leaves for the next one, once the step is done."""

    @abstractmethod
    def evaluate(self, epoch: int, last: bool) -> dict[str, float]:
        """Return what the row of an epoch holds beside the training loss.

        Args:
            epoch: The number of epochs done.
            last: Whether it is the last epoch, at which an evaluation may cost more.

        Returns:
            The numbers by the names of their columns.
        """

    def learning_rate(self, epoch: int) -> float | None:
        """Return the learning rate of this epoch.

        Args:
            epoch: The number of the epoch, from 0.

        Returns:
            The rate, or None to leave it as it is.
        """
        return None
