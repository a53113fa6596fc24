"""Checkpoints: the state of a training on disk, whole or not at all.

A file is written beside its place and moved there; reading it checks every byte.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gradlab.files import writing

__all__ = ["CheckpointError", "check_settings", "read_checkpoint", "write_checkpoint"]


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or belongs to another training."""


def write_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Write the state so that `path` is the old file or the whole new one, whatever happens.

    Args:
        state: Tensors, numbers, texts, lists and dicts, by name.
        path: The file to write.

    Raises:
        OSError: If the folder cannot be written, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_checkpoint({"step": 3}, Path(folder) / "checkpoint.pt")
        ...     read_checkpoint(Path(folder) / "checkpoint.pt")
        {'step': 3}
    """
    with writing(path.parent) as new, open(new / path.name, "wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as fault:  # of torch, where the disk is full
            raise OSError(f"{path} cannot be written: {fault}") from fault


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state written by `write_checkpoint`; nothing in the file is executed.

    Args:
        path: The file to read.

    Returns:
        The state, with all tensors on the CPU.

    Raises:
        CheckpointError: If the file is damaged or is not a checkpoint.
        OSError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     read_checkpoint(Path(file.name))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        gradlab.training.checkpoint.CheckpointError: ...is damaged or is not a checkpoint...
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as fault:
        message = f"{path} is damaged or is not a checkpoint ({fault}); remove it to begin anew"
        raise CheckpointError(message) from None
    return state


def check_settings(saved: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError unless a checkpoint has these settings, naming those that differ.

    Args:
        saved: The settings in the checkpoint.
        asked: The settings of this training.
        path: The file of the checkpoint, for the message.

    Raises:
        CheckpointError: If they differ.

    Example:
        >>> check_settings({"seed": 0}, {"seed": 0}, Path("checkpoint.pt"))
    """
    differing = [
        f"{name} = {saved.get(name)!r} there, {asked.get(name)!r} here"
        for name in dict.fromkeys([*asked, *saved])
        if saved.get(name) != asked.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{path} is of another configuration: {'; '.join(differing)}. "
            "Name another folder, or remove that one"
        )
