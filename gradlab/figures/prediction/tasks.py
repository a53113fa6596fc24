"""What is trained: small models whose expected loss and true gradient are known exactly.

Each task trains with any estimator and learning rate, and gives the moments of a reference run at
which estimators are measured: a loss f of the latent variables and their logits.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gradlab.categorical import configurations
from gradlab.comparison.eligibility import GRADIENT_COST, cost
from gradlab.data.datasets import Images, load_images
from gradlab.estimators import Estimator, parse
from gradlab.figures.depth.network import state_probabilities
from gradlab.figures.toys.descent import TOYS, expected_loss, optimize
from gradlab.loss import Loss
from gradlab.loss.gate import checked
from gradlab.nn.quantization import level_logits, level_values
from gradlab.reproducible import block_generator
from gradlab.training.base import Training
from gradlab.training.loop import train
from gradlab.training.vae import read_latent
from gradlab.training.vae_training import PROBED, VAESettings, VAETraining

__all__ = ["COST", "REFERENCE", "TASKS", "Snapshot", "Task"]

REFERENCE = "ZGR"
"""The estimator of the run on which all are measured."""

COST = GRADIENT_COST
"""Evaluations of f that one gradient of a pathwise estimator counts as."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of a reference run: f with logits [B, N, C], and the training loss there.

    `known` [B, N, C] is the part of the gradient in the logits that needs no estimator, as that of
    a divergence, and `truth` the gradient of E f where it is known in closed form.
    """

    step: int
    loss: float
    f: Loss
    logits: Float[Tensor, "B N C"]
    known: Float[Tensor, "B N C"] | None = None
    truth: Float[Tensor, "B N C"] | None = None


class Task(ABC):
    """A training problem; `steps` optimizer steps, each from `averaged` gradients."""

    name: str
    N: int
    C: int
    averaged: int
    steps: int
    rates: Sequence[float]

    @abstractmethod
    def curve(self, estimator: str, lr: float, seed: int) -> list[tuple[int, float]]:
        """Return the exact training loss at some steps, from the first to that of `length`."""

    def length(self, estimator: str) -> int:
        """Return the steps of a run: more than `steps` where a gradient costs less than `COST`.

        So that every run spends as much as `steps` gradients of a pathwise estimator.
        """
        spent = cost(parse(estimator), self.C, variables=self.N)
        return math.ceil(self.steps * max(1.0, COST / spent))

    @abstractmethod
    def snapshots(self, shares: Sequence[float], lr: float, seed: int) -> list[Snapshot]:
        """Return the moments at these shares of the reference run."""

    def at(self, share: float) -> int:
        """Return the step at this share of a run."""
        return round(share * self.steps)


# ---- networks ----------------------------------------------------------------------------------


class _Recorded(Training):
    """A training whose exact loss over all training images is a column of its curve.

    Epochs at which it is computed lie closer together at first.
    """

    @abstractmethod
    def exact_loss(self) -> float:
        """Return the mean loss over the training images, summed over all states."""

    @abstractmethod
    def frozen(self) -> tuple[Loss, Tensor, Tensor | None]:
        """Return f, logits and the known part of the gradient on the first `PROBED` images."""

    def evaluate(self, epoch: int, last: bool) -> dict[str, float]:
        """Return the exact loss at some epochs."""
        due = last or epoch in _recorded(self.settings.epochs) or epoch % 20 == 0
        return {"train_loss": self.exact_loss()} if due else {}


def _recorded(epochs: int) -> set[int]:
    """Return epochs from 1 on, each about a sixth later than the one before."""
    found, epoch = set(), 1
    while epoch < epochs:
        found.add(epoch)
        epoch = max(epoch + 1, round(epoch * 7 / 6))
    return found


def _all_states(variables: int, classes: int) -> Float[Tensor, "S N C"]:
    return F.one_hot(configurations(variables, classes), classes).to(torch.float32)


class _VAE(_Recorded, VAETraining):
    """The discrete VAE of `gradlab.training`, with its exact loss."""

    @torch.no_grad()
    def exact_loss(self) -> float:
        """Return the mean -ELBO of the training images in nats."""
        images = self._pixels
        pixels = self.model.decoder(_all_states(*self.model.shape).flatten(-2))
        logits = self.model.encode(images)
        each = F.softplus(pixels).sum(-1) - images @ pixels.T
        expected = (state_probabilities(logits) * each).sum(-1)
        return float((expected + self.model.divergence(logits)).to(torch.float64).mean())

    def frozen(self) -> tuple[Loss, Tensor, Tensor | None]:
        """Return the reconstruction term; the divergence is known."""
        images = self._pixels[:PROBED]
        logits = self.model.encode(images).detach().requires_grad_()
        with torch.enable_grad():
            (known,) = torch.autograd.grad(self.model.divergence(logits).sum(), logits)
        return self.model.reconstruction(images), logits.detach(), known


@dataclass(frozen=True)
class QuantizedSettings:
    """What decides the curve of a small quantized classifier."""

    estimator: str
    latent: str
    seed: int
    epochs: int
    lr: float
    data: str = "digits"
    batch: int = 50
    hidden: int = 64


class _Bottleneck(nn.Module):
    """Images to class logits through a layer of N quantized units."""

    values: Tensor

    def __init__(self, units: int, levels: int, hidden: int, source: torch.Generator) -> None:
        super().__init__()
        self.levels = levels
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.Tanh(), nn.Linear(hidden, units))
        self.decoder = nn.Sequential(nn.Linear(units, 32), nn.Tanh(), nn.Linear(32, 10))
        self.register_buffer("values", level_values(levels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                limit = 1 / math.sqrt(module.in_features)
                for parameter in (module.weight, module.bias):
                    nn.init.uniform_(parameter, -limit, limit, generator=source)

    def encode(self, images: Float[Tensor, "B 784"]) -> Float[Tensor, "B N L"]:
        """Return the logits of the levels of each unit."""
        return level_logits(self.encoder(2 * images - 1), self.levels)

    def cross_entropy(self, labels: Tensor) -> Loss:
        """Return f(x): x [..., B, N, L] -> [..., B], in nats."""

        def f(x: Float[Tensor, "*batch N L"]) -> Float[Tensor, "*batch"]:
            found = self.decoder(x @ self.values.to(x.dtype)).log_softmax(-1)
            chosen = labels.expand(found.shape[:-1]).unsqueeze(-1)
            return -found.gather(-1, chosen).squeeze(-1)

        return f


class _Quantized(_Recorded):
    """A classifier of digits whose one hidden layer is quantized at random."""

    kind: ClassVar[str] = "quantized"
    settings: QuantizedSettings
    _passed = False

    def __init__(self, settings: QuantizedSettings, images: Images) -> None:
        self.settings, self.device = settings, torch.device("cpu")
        self.pixels = images.as_floats("train")
        assert images.labels is not None
        self.labels = images.labels["train"]
        self.images = len(self.pixels)
        self.estimator = parse(settings.estimator)
        units, levels = read_latent(settings.latent)
        source = block_generator(settings.seed, f"{self.kind} weights")
        self.model: _Bottleneck = _Bottleneck(units, levels, settings.hidden, source)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)

    def loss(self, step: int) -> Tensor:
        """Return the mean of the surrogate over the batch of this step."""
        chosen = self.batch(step)
        f, logits = (
            self.model.cross_entropy(self.labels[chosen]),
            self.model.encode(self.pixels[chosen]),
        )
        if not self._passed:
            checked(f, logits)
            self._passed = True
        surrogate = self.estimator.surrogate(f, logits, self.generator("step", step))
        self._next = self.estimator.updated(surrogate)
        return surrogate.mean()

    def advance(self) -> None:
        """Let a moving average see the values of this step."""
        self.estimator = self._next

    @torch.no_grad()
    def exact_loss(self) -> float:
        """Return the mean cross-entropy of the training images in nats."""
        states = _all_states(*read_latent(self.settings.latent))
        of_class = -self.model.decoder(states @ self.model.values).log_softmax(-1)
        q = state_probabilities(self.model.encode(self.pixels))
        return float((q @ of_class).gather(-1, self.labels[:, None]).to(torch.float64).mean())

    def frozen(self) -> tuple[Loss, Tensor, Tensor | None]:
        """Return the cross-entropy; no part of the gradient is known."""
        logits = self.model.encode(self.pixels[:PROBED]).detach()
        return self.model.cross_entropy(self.labels[:PROBED]), logits, None


@dataclass(frozen=True)
class NetworkTask(Task):
    """A network trained on the package's digits, 200 images in batches of 50."""

    name: str
    latent: str
    quantized: bool = False
    epochs: int = 60
    rates: Sequence[float] = (2e-3, 5e-3, 1.2e-2)
    averaged: int = 50

    @property
    def N(self) -> int:  # type: ignore[override]
        return read_latent(self.latent)[0]

    @property
    def C(self) -> int:  # type: ignore[override]
        return read_latent(self.latent)[1]

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.epochs * 4

    @cached_property
    def images(self) -> Images:
        return load_images("digits")

    def training(self, estimator: str, lr: float, seed: int) -> _Recorded:
        """Return the training at its first step."""
        if self.quantized:
            settings = QuantizedSettings(estimator, self.latent, seed, self.epochs, lr)
            return _Quantized(settings, self.images)
        of_vae = VAESettings(
            estimator, self.latent, seed=seed, epochs=self.epochs, lr=lr, hidden=64
        )
        return _VAE(of_vae, self.images)

    def curve(self, estimator: str, lr: float, seed: int) -> list[tuple[int, float]]:
        """Return the exact training loss at some steps, from the first to that of `length`."""
        epochs = math.ceil(self.epochs * self.length(estimator) / self.steps)
        training = replace(self, epochs=epochs).training(estimator, lr, seed)
        start = (0, training.exact_loss())
        rows = train(training).dropna(subset="train_loss")
        return [start, *zip(rows["step"].astype(int), rows["train_loss"], strict=True)]

    def snapshots(self, shares: Sequence[float], lr: float, seed: int) -> list[Snapshot]:
        """Return the moments at these shares of the reference run."""
        training = self.training(REFERENCE, lr, seed)
        at = [self.at(share) for share in shares]
        found: list[Snapshot] = []

        def keep(step: int) -> None:
            if step in at:
                still = copy.copy(training)
                still.model = copy.deepcopy(training.model)
                f, logits, known = still.frozen()
                found.append(Snapshot(step, still.exact_loss(), f, logits, known))

        keep(0)
        train(training, after_step=keep)
        return found


# ---- toys --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyTask(Task):
    """Independent bits whose expected loss is known; a step averages the draws of a batch."""

    name: str
    toy: str
    runs: int = 1
    steps: int = 150
    rates: Sequence[float] = (0.03, 0.1, 0.3)
    averaged: int = 64
    C: int = 2

    @property
    def N(self) -> int:  # type: ignore[override]
        return TOYS[self.toy].N

    def _records(self, estimator: Estimator, lr: float, seed: int, steps: int) -> Tensor:
        f = TOYS[self.toy]
        source = block_generator(seed, f"prediction|{f.name}")
        start = (torch.rand(self.runs, f.N, 2, generator=source) - 0.5) / 50
        return optimize(estimator, f, start, steps, lr, self.averaged, seed)

    def curve(self, estimator: str, lr: float, seed: int) -> list[tuple[int, float]]:
        """Return the exact loss, a mean over runs, at all steps from the first to `length`."""
        records = self._records(parse(estimator), lr, seed, self.length(estimator))
        losses = expected_loss(TOYS[self.toy], records).mean(-1).tolist()
        return list(enumerate(losses))

    def snapshots(self, shares: Sequence[float], lr: float, seed: int) -> list[Snapshot]:
        """Return the moments at these shares of the reference run."""
        f, found = TOYS[self.toy], []
        records = self._records(parse(REFERENCE), lr, seed, self.steps)
        for share in shares:
            logits = records[self.at(share)].to(torch.float64).requires_grad_()
            loss = _expected(f, logits)
            (truth,) = torch.autograd.grad(loss.sum(), logits)
            found.append(
                Snapshot(
                    self.at(share), float(loss.detach().mean()), f, logits.detach(), truth=truth
                )
            )
        return found


def _expected(f: Any, logits: Float[Tensor, "B N C"]) -> Float[Tensor, " B"]:
    """Return E f(x) with its graph."""
    levels = torch.linspace(0.0, 1.0, f.C, dtype=torch.float64)
    return (logits.softmax(-1) * (levels - f.target).abs() ** f.p).sum((-2, -1)) / f.N


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        NetworkTask("VAE 4x4", "4x4"),
        ToyTask("Tucker, t = 0.45", "Tucker, t = 0.45", 16, 300),
        ToyTask("Tucker, t = 0.499", "Tucker, t = 0.499", 16, 300),
        ToyTask("polynomial, p = 1.5", "polynomial, p = 1.5"),
        ToyTask("polynomial, p = 2", "polynomial, p = 2"),
        ToyTask("polynomial, p = 3", "polynomial, p = 3"),
        NetworkTask("quantized 5x4", "5x4", quantized=True, rates=(3e-4, 1e-3, 2e-3)),
        NetworkTask("VAE 6x2", "6x2"),
    )
}
"""By name, in the order in which they are done."""
