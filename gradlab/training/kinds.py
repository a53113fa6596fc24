"""The kinds of training by their settings, and how one is begun."""

from typing import Any

import torch

from gradlab.training.base import Training
from gradlab.training.datasets import Images
from gradlab.training.network_training import NetworkSettings, NetworkTraining
from gradlab.training.vae_training import VAESettings, VAETraining

__all__ = ["begin", "check_device"]

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
    return training


def check_device(name: str) -> torch.device:
    """Return the device named cpu, cuda or cuda:1; ValueError if it is unknown or not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: torch finds {torch.cuda.device_count()}")
    return device
