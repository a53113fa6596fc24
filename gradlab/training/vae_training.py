"""Training a discrete VAE with any estimator: settings, steps and evaluations.

Two objectives. ELBO: the reconstruction term goes through the estimator, the divergence through its
exact gradient. IWAE: the bound of K samples, through an estimator of `gradlab.bounds`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds import BoundEstimator
from gradlab.bounds import parse as parse_bound
from gradlab.checks import check_choice, check_int
from gradlab.data.datasets import Images
from gradlab.estimators import Estimator, parse
from gradlab.loss.gate import checked
from gradlab.nn.probe import GradientProbe
from gradlab.reproducible import block_generator, check_seed
from gradlab.training.base import Training
from gradlab.training.vae import DiscreteVAE, read_latent

__all__ = ["OBJECTIVES", "PROBED", "VAESettings", "VAETraining"]

OBJECTIVES = ("elbo", "iwae")
"""What a VAE may be trained to raise."""

PROBED = 10
"""Images of a batch on which a probe measures."""


@dataclass(frozen=True)
class VAESettings:
    """What decides the curve of a VAE; the defaults are those of Shekhovtsov 2023 (ICML).

    Grey images are binarized anew at every use; binary ones stay as they are.

    Args:
        estimator: The text of an estimator; for the objective iwae, of one of `gradlab.bounds`.
        latent: Variables x classes, such as "30x10".
        data: The name of a data set.
        seed: The seed of weights, order of images and samples.
        epochs: Passes over the training images.
        batch: Images per step.
        lr: The learning rate of Adam.
        hidden: Units of each hidden layer (200 as in Dong et al. 2021, 2106.10477).
        bound_samples: K of the importance-weighted bound after the last epoch.
        objective: "elbo", or "iwae": the importance-weighted bound of k samples.
        k: The number of samples in the objective iwae; 1 for elbo.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> VAESettings("GR(tau=0.5,k=10)").estimator
        'GR(tau=0.5, k=10)'
        >>> VAESettings("vimco", objective="iwae", k=5).estimator
        'VIMCO'
    """

    estimator: str = "ZGR"
    latent: str = "30x10"
    data: str = "digits"
    seed: int = 0
    epochs: int = 500
    batch: int = 50
    lr: float = 1e-4
    hidden: int = 200
    bound_samples: int = 100
    objective: str = "elbo"
    k: int = 1

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_int("k", self.k, 1)
        if self.objective == "elbo" and self.k != 1:
            raise ValueError(f"k = {self.k} samples are of the objective iwae, not of elbo")
        # One text for an estimator, however it was written.
        object.__setattr__(self, "estimator", str(_parsed(self.estimator, self.objective)))
        read_latent(self.latent)
        check_seed(self.seed)
        for name in ("epochs", "batch", "hidden", "bound_samples"):
            check_int(name, getattr(self, name), 1)
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must be positive and finite, not {self.lr!r}")


def _parsed(text: str, objective: str) -> Estimator | BoundEstimator:
    """Return the estimator that a text names among those of an objective."""
    own, other = (parse, parse_bound) if objective == "elbo" else (parse_bound, parse)
    try:
        return own(text)
    except ValueError:
        try:
            other(text)
        except ValueError:
            pass
        else:
            name = "iwae" if objective == "elbo" else "elbo"
            raise ValueError(
                f"{text} is an estimator of the objective {name}, not of {objective}"
            ) from None
        raise


class VAETraining(Training):
    """A discrete VAE on images, whose encoder the estimator of the settings trains.

    A step decodes every image as often as the estimator evaluates f. A moving average follows the
    loss from step to step. LEARNED and RELAX are fitted once, to the model before the first step;
    they stay unbiased at every later one.

    Args:
        settings: What decides the curve.
        images: The data set.
        device: The device that computes.
        probe: Measures estimators of the gradient of the reconstruction term, on the first `PROBED`
            images of a batch; None for no probe.

    Raises:
        ValueError: If the estimator does not work on this latent, or a probe is given with the
            objective iwae.
    """

    kind: ClassVar[str] = "vae"
    settings: VAESettings
    _passed: bool = False

    def __init__(
        self,
        settings: VAESettings,
        images: Images,
        *,
        device: str | torch.device = "cpu",
        probe: GradientProbe | None = None,
    ) -> None:
        self.settings = settings
        self.data = images
        self.images = len(images.train)
        self.device = torch.device(device)
        self.probe = probe
        self.bound: BoundEstimator | None = None
        variables, classes = read_latent(settings.latent)
        # The weights depend on the seed alone: estimators start from the same ones.
        source = block_generator(settings.seed, f"{self.kind} weights")
        mean = self._pixels.mean(0)
        model = DiscreteVAE(variables, classes, mean, settings.hidden, source)
        self.model: DiscreteVAE = model.to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)
        if settings.objective == "iwae":
            self._bounded(probe)
            return
        self.estimator: Estimator = parse(settings.estimator)
        logits = torch.zeros(variables, classes, device=self.device)
        refused = self.estimator.supports(lambda x: x.square().sum((-2, -1)), logits)
        if refused:
            raise ValueError(f"estimator {self.estimator}, latent {settings.latent}: {refused}")
        if self.estimator.running_field is not None:
            self.baseline = getattr(self.estimator, self.estimator.running_field)
        if self.estimator.learned_fields:
            self.estimator = self._fitted()

    def _bounded(self, probe: GradientProbe | None) -> None:
        """Take the estimator of the bound, if it works with the settings."""
        self.bound = parse_bound(self.settings.estimator)
        refused = self.bound.refusal(self.settings.k, *read_latent(self.settings.latent))
        if refused:
            raise ValueError(f"estimator {self.bound}, latent {self.settings.latent}: {refused}")
        if probe is not None:
            raise ValueError("a probe measures the reconstruction term of elbo, not iwae")

    def loss(self, step: int) -> Tensor:
        """Return the mean of the surrogate of minus the objective over the batch, in nats.

        Args:
            step: The number of the optimizer step, from 0.

        Returns:
            The loss, with its graph.
        """
        generator = self.generator("step", step)
        batch = self._pixels[self.batch(step)].to(self.device)
        images = self.data.binarized(batch, generator)
        logits = self.model.encode(images)
        f = self.model.reconstruction(images)
        if not self._passed:
            # Checked once: without the contract there is no gradient to estimate.
            checked(f, logits)
            self._passed = True
        if self.bound is not None:
            log_joint = self.model.log_joint(images)
            return -self.bound.surrogate(log_joint, logits, self.settings.k, generator).mean()
        if self.probe is not None and self.probe.is_due(step):
            few = self.model.reconstruction(images[:PROBED])
            self.probe(step, few, logits[:PROBED])
        estimator = self.estimator
        running = estimator.running_field
        if running is not None and self.baseline is not None:
            estimator = estimator.with_(**{running: self.baseline})
        surrogate = estimator.surrogate(f, logits, generator)
        if running is not None:
            self._next_baseline = getattr(estimator.updated(surrogate), running)
        return (surrogate + self.model.divergence(logits)).mean()

    def advance(self) -> None:
        """Let the moving average see the values of this step, once it is done."""
        if self.bound is None and self.estimator.running_field is not None:
            self.baseline = self._next_baseline

    def evaluate(self, epoch: int, last: bool) -> dict[str, float]:
        """Return the mean -ELBO of each split from one sample per image, and at last the bound.

        All numbers are nats per image. Samples are one-hot for every estimator. Pixels of grey
        images are drawn once for all evaluations. As many training images are measured as there are
        validation images.

        Args:
            epoch: The number of epochs done.
            last: Whether it is the last epoch, after which the bound is measured on the test
                images.

        Returns:
            The numbers, with standard errors over images, by the names of their columns.
        """
        row = {}
        for split, images in self._evaluated.items():
            values = self._each(images, lambda part, g: self.model.negative_elbo(part, g), epoch)
            row[f"{split}_nelbo"] = float(values.mean())
            row[f"{split}_nelbo_se"] = float(values.std() / len(values) ** 0.5)
        if last:
            samples = self.settings.bound_samples
            values = self._each(
                self._evaluated["test"], lambda part, g: self.model.bound(part, samples, g), epoch
            )
            row["test_bound"] = float(values.mean())
            row["test_bound_se"] = float(values.std() / len(values) ** 0.5)
        return row

    def _fitted(self) -> Any:
        """Return the estimator fitted to the mean over some images, in the model as it begins."""
        generator = self.generator("fit", 0)
        some = self._pixels[self.batch(0)[:PROBED]].to(self.device)
        images = self.data.binarized(some, generator)
        of_each = self.model.reconstruction(images)

        def f(x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
            each = x.unsqueeze(-3).expand(*x.shape[:-2], len(images), *x.shape[-2:])
            return of_each(each.to(images.dtype)).mean(-1)

        with torch.no_grad():
            logits = self.model.encode(images).mean(0)
        return self.estimator.fit(f, logits, 1024, generator)

    def _each(self, images: Tensor, values: Any, epoch: int) -> Tensor:
        """Return the values of all images, a thousand at a time, in float64."""
        generator = self.generator("evaluation", epoch)
        parts = [values(part.to(self.device), generator) for part in images.split(1000)]
        return torch.cat(parts).to("cpu", torch.float64)

    @cached_property
    def _evaluated(self) -> dict[str, Float[Tensor, "n 784"]]:
        """The images that are evaluated, binary: the same for all seeds and estimators."""
        found = {}
        for split in ("train", "valid", "test"):
            source = block_generator(0, f"evaluated pixels {split}")
            images = self.data.as_floats(split)
            images = images[: len(self.data.valid)] if split == "train" else images
            found[split] = self.data.binarized(images, source)
        return found

    @cached_property
    def _pixels(self) -> Float[Tensor, "n 784"]:
        """The training images, as grey values."""
        return self.data.as_floats("train")
