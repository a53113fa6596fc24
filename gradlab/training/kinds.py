"""The kinds of training by their settings, and how one is begun."""

from typing import Any

from gradlab.data.datasets import Images
from gradlab.nn.device import check_device
from gradlab.nn.probe import GradientProbe
from gradlab.training.base import Training
from gradlab.training.network_training import NetworkSettings, NetworkTraining
from gradlab.training.vae_training import VAESettings, VAETraining

__all__ = ["begin"]

_KINDS: dict[type, Any] = {
    VAESettings: VAETraining,
    NetworkSettings: NetworkTraining,
}


def begin(
    settings: Any, images: Images, device: str = "cpu", probe: dict[str, Any] | None = None
) -> Training:
    """Return the training of these settings on these images, at its first step.

    `probe` holds the arguments of a GradientProbe. Raises ValueError for an absent device and for
    settings that do not fit the images.
    """
    training: Training = _KINDS[type(settings)](settings, images, device=check_device(device))
    if probe is not None:
        training.probe = GradientProbe(**probe, model=training.model, seed=settings.seed)
    return training
