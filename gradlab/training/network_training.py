"""Training a stochastic quantized network: settings, steps, evaluations, choice of learning rate.

The loss is the cross-entropy of one sample of all units; its gradient goes through the estimator.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.checks import check_choice, check_int, too_large
from gradlab.data.datasets import Images
from gradlab.estimators import parse
from gradlab.nn.layer import CategoricalLayer
from gradlab.reproducible import block_generator, check_seed
from gradlab.training.base import Training
from gradlab.training.networks import MODELS, QuantizedNetwork

__all__ = ["LEARNING_RATES", "NetworkSettings", "NetworkTraining", "best_learning_rate"]

LEARNING_RATES = (1e-3, 3.3e-4, 1e-4)
"""The initial learning rates that Shekhovtsov 2023 (ICML) chooses from."""


@dataclass(frozen=True)
class NetworkSettings:
    """What decides the curve of a quantized network; epochs and rates of Shekhovtsov 2023 (ICML).

    Args:
        estimator: The text of an estimator with a sample.
        model: "mlp" or "conv".
        levels: L >= 2, the levels of each quantized activation and/or weight.
        activations: Whether the hidden units are quantized.
        weights: Whether the weights are quantized.
        data: The name of a data set with labels.
        seed: The seed of weights, order of images and samples.
        epochs: Passes over the training images.
        batch: Images per step.
        lr: The initial learning rate of Adam.
        first_drop: The epochs after which the rate is divided by 10. The number is absolute, so
            that a training may continue with more epochs.
        second_drop: The epochs after which the rate is divided by 10 again.
        samples: The samples of the ensemble after the last epoch.
        checked: The validation images that are measured after the other epochs.

    Raises:
        ValueError: If a value is out of range, or a layer would hold too many numbers at once.

    Example:
        >>> NetworkSettings("GR(tau=0.5,k=10)", levels=4).estimator
        'GR(tau=0.5, k=10)'
    """

    estimator: str = "ZGR"
    model: str = "mlp"
    levels: int = 2
    activations: bool = True
    weights: bool = False
    data: str = "digits"
    seed: int = 0
    epochs: int = 200
    batch: int = 50
    lr: float = 1e-3
    first_drop: int = 100
    second_drop: int = 150
    samples: int = 10
    checked: int = 2000

    def __post_init__(self) -> None:
        # One text for an estimator, however it was written.
        object.__setattr__(self, "estimator", str(CategoricalLayer(self.estimator).estimator))
        check_choice("model", self.model, MODELS)
        check_seed(self.seed)
        for name, least in _LEAST.items():
            check_int(name, getattr(self, name), least)
        if self.second_drop < self.first_drop:
            raise ValueError(
                f"second_drop must not come before first_drop = {self.first_drop}, "
                f"not at {self.second_drop}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, not {self.lr!r}")
        if not (self.activations or self.weights):
            raise ValueError("activations and weights must not both be False: nothing is random")
        self._check_size()

    def _check_size(self) -> None:
        """Raise ValueError where the quantizer of a layer would not fit the memory."""
        estimator = parse(self.estimator)
        variables = QuantizedNetwork.variables(
            self.model, self.activations, self.weights, self.batch
        )
        numbers = estimator.footprint(variables, self.levels)
        if numbers > _LARGEST:
            layer = (
                f"a layer of model {self.model} with batch = {self.batch}, levels = {self.levels} "
                f"and {estimator}"
            )
            advice = "take fewer levels, a smaller batch or a smaller k"
            raise ValueError(too_large(layer, numbers, _LARGEST, advice))


_LEAST = {"levels": 2, "epochs": 1, "batch": 2, "first_drop": 1, "second_drop": 1}
_LEAST |= {"samples": 1, "checked": 1}

_LABELLED = "digits, mnist, fashion-mnist, silhouettes"

# Numbers of a layer in training (several such tensors live at once), and in an evaluation.
_LARGEST = 2**26
_EVALUATED = 2**22


class NetworkTraining(Training):
    """A stochastic quantized network on labelled images, trained by Adam.

    Args:
        settings: What decides the curve.
        images: A data set with labels.
        device: The device that computes.

    Raises:
        ValueError: If the images have no labels.
    """

    kind: ClassVar[str] = "network"
    settings: NetworkSettings

    def __init__(
        self, settings: NetworkSettings, images: Images, device: str | torch.device = "cpu"
    ) -> None:
        if images.labels is None:
            raise ValueError(
                f"data {images.name!r} has no labels to learn; sets with labels are {_LABELLED}"
            )
        self.settings = settings
        self.data = images
        self.images = len(images.train)
        self.device = torch.device(device)
        self.labels = images.labels
        # The weights depend on the seed alone: estimators start from the same ones.
        source = block_generator(settings.seed, f"{self.kind} weights")
        self.model: QuantizedNetwork = QuantizedNetwork(
            settings.model,
            settings.estimator,
            levels=settings.levels,
            activations=settings.activations,
            weights=settings.weights,
            classes=1 + max(int(labels.max()) for labels in self.labels.values()),
            generator=source,
        ).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)

    def batch(self, step: int) -> Tensor:
        """Return the indices of the images of this step; each image comes once per epoch.

        A last batch of one image would have no variance to normalize by. In its place the batch
        before it comes again.

        Args:
            step: The number of the optimizer step, from 0.

        Returns:
            Indices of training images, int64.
        """
        found = super().batch(step)
        return found if len(found) > 1 else super().batch(step - 1)

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of this epoch.

        Args:
            epoch: The number of the epoch, from 0.

        Returns:
            The rate.
        """
        drops = (epoch >= self.settings.first_drop) + (epoch >= self.settings.second_drop)
        return self.settings.lr / 10**drops

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy of the batch of this step, in nats.

        Args:
            step: The number of the optimizer step, from 0.

        Returns:
            The loss, with its graph.
        """
        self.model.draw_from(self.generator("step", step))
        chosen = self.batch(step)
        logits = self.model(self._pixels["train"][chosen].to(self.device))
        return F.cross_entropy(logits, self.labels["train"][chosen].to(self.device))

    def evaluate(self, epoch: int, last: bool) -> dict[str, float]:
        """Return error rates, in [0, 1], with their standard errors over images.

        `mode` takes the most probable level of each unit and weight. `sample` takes one sample of
        all of them, drawn anew for every part of the images. `ensemble`, after the last epoch only,
        is the mean of the class probabilities of `samples` such samples.

        Args:
            epoch: The number of epochs done.
            last: Whether it is the last epoch. Then all validation and test images are measured,
                before only the first `checked` validation images.

        Returns:
            The error rates by the names of their columns; `valid_images` counts the validation
            images.
        """
        generator = self.generator("evaluation", epoch)
        count = len(self.data.valid) if last else min(self.settings.checked, len(self.data.valid))
        row: dict[str, float] = {"valid_images": count}
        row |= self._errors("valid", count, generator, last)
        if last:
            row |= self._errors("test", len(self.data.test), generator, last)
        return row

    def _errors(self, split: str, count: int, generator: Generator, last: bool) -> dict[str, float]:
        """Return the error rates of the first `count` images of a split."""
        images, labels = self._pixels[split][:count], self.labels[split][:count]
        found = {"mode": self._class_probabilities(images, generator, "mode")}
        found["sample"] = self._class_probabilities(images, generator, "sample")
        if last:
            total = found["sample"].clone()
            for _ in range(self.settings.samples - 1):
                total += self._class_probabilities(images, generator, "sample")
            found["ensemble"] = total
        row = {}
        for name, predicted in found.items():
            error = float((predicted.argmax(-1) != labels).to(torch.float64).mean())
            row[f"{split}_{name}_error"] = error
            row[f"{split}_{name}_error_se"] = math.sqrt(error * (1 - error) / count)
        return row

    def _class_probabilities(
        self, images: Tensor, generator: Generator, evaluation: str
    ) -> Float[Tensor, "n classes"]:
        self.model.draw_from(generator, evaluation)
        # Activations only: weights are drawn once for a part, of whatever size.
        units = QuantizedNetwork.variables(self.settings.model, True, False, 1)
        size = max(1, _EVALUATED // (units * self.settings.levels))
        parts = [self.model(part.to(self.device)).softmax(-1).cpu() for part in images.split(size)]
        return torch.cat(parts)

    @cached_property
    def _pixels(self) -> dict[str, Float[Tensor, "n 784"]]:
        return {split: self.data.as_floats(split) for split in ("train", "valid", "test")}


def best_learning_rate(curves: pd.DataFrame, error: str = "valid_mode_error") -> float:
    """Return the `lr` with the smallest mean of `error` over seeds, at the last epoch.

    Args:
        curves: Rows of `train`, which differ in nothing but learning rate, seed and epoch.
        error: The column of the error.

    Returns:
        The learning rate; of equal ones the largest.

    Raises:
        ValueError: If a column is missing, there are no rows, or the runs end at different epochs.

    Example:
        >>> curves = pd.DataFrame({"lr": [1e-3, 1e-4], "seed": 0, "epoch": 5})
        >>> best_learning_rate(curves.assign(valid_mode_error=[0.2, 0.1]))
        0.0001
    """
    missing = [name for name in ("lr", "seed", "epoch", error) if name not in curves]
    if missing or curves.empty:
        raise ValueError(f"curves must hold rows of lr, seed, epoch and {error}; {missing=}")
    ends = curves.loc[curves.groupby(["lr", "seed"])["epoch"].idxmax()]
    if ends["epoch"].nunique() > 1:
        raise ValueError(f"runs end at epochs {sorted(ends['epoch'].unique())}; compare equal ones")
    means = ends.groupby("lr")[error].mean()
    return float(means.index[means == means.min()].max())
