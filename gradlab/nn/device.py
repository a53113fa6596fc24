"""The device that computes: checked by name, named for rows of times."""

import platform
from pathlib import Path

import torch

__all__ = ["check_device", "machine_name"]


def check_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: "cpu", "cuda" or "cuda:1".

    Returns:
        The device.

    Raises:
        ValueError: If the name is unknown, or torch does not find the device.

    Example:
        >>> check_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count() or "no"
        raise ValueError(f"device {name!r} is not there: torch finds {count} CUDA devices")
    return device


def machine_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor.

    Args:
        device: The device that computes.

    Returns:
        The name, for rows of times.

    Example:
        >>> isinstance(machine_name(torch.device("cpu")), str)
        True
    """
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
