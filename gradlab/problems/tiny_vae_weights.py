"""Trained weights of the tiny VAE at several moments of its training, made once and then cached.

Training takes some seconds and never uses an estimator: its gradient is exact. The cache lies
outside the package; whatever happens to it, the weights are trained again.
"""

import functools
import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.data.cache import cache_folder
from gradlab.data.digits import DIGITS_SHA256, digits
from gradlab.files import writing
from gradlab.problems.tiny_vae_model import Weights, elbo, initial_weights

__all__ = ["SNAPSHOTS", "Training", "trained"]

SNAPSHOTS = {"initial": 0, "little": 8, "some": 40, "long": 200}

VERSION = 1  # to be raised when the same settings come to mean other weights


@dataclass(frozen=True)
class Training:
    """What determines the trained weights: architecture, optimizer, and the steps of snapshots."""

    seed: int = 0
    hidden: int = 32
    batch: int = 50
    learning_rate: float = 1e-2
    snapshots: tuple[tuple[str, int], ...] = field(default_factory=lambda: tuple(SNAPSHOTS.items()))

    @property
    def key(self) -> str:
        """A name for these settings and the data, equal in every process."""
        content = json.dumps([VERSION, DIGITS_SHA256, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def trained(training: Training = Training()) -> dict[str, Weights]:
    """Return the weights at each snapshot: from memory, else from the cache, else by training.

    A damaged cache file is replaced and a folder that cannot be written is done without, both with
    a RuntimeWarning. Processes may do this at the same time: a file appears at once and whole.
    """
    path = cache_folder() / f"tiny-vae-{training.key}.npz"
    snapshots = _read(path, training)
    if snapshots is None:
        snapshots = _train(training)
        _write(path, snapshots)
    return snapshots


def _read(path: Path, training: Training) -> dict[str, Weights] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if str(arrays.pop("checksum")) != _checksum(arrays):
            raise ValueError("wrong checksum")
        return {
            name: Weights(*(torch.tensor(arrays[f"{name}.{part}"]) for part in Weights._fields))
            for name, _ in training.snapshots
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged archive can raise nearly anything
        warnings.warn(
            f"the cached weights {path} cannot be used ({error!r}); training again",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _write(path: Path, snapshots: dict[str, Weights]) -> None:
    arrays = {
        f"{name}.{part}": tensor.numpy()
        for name, weights in snapshots.items()
        for part, tensor in weights._asdict().items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path.parent) as new:
            np.savez(new / path.name, checksum=np.array(_checksum(arrays)), **arrays)
    except OSError as error:
        warnings.warn(
            f"the trained weights cannot be kept in {path.parent} ({error}); they will be trained "
            "again by the next process; set GRADLAB_CACHE to a folder that can be written",
            RuntimeWarning,
            stacklevel=3,
        )


def _train(training: Training) -> dict[str, Weights]:
    """Maximize the exact ELBO by Adam on shuffled batches; one thread, so that it is repeatable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _snapshots(training)
    finally:
        torch.set_num_threads(threads)


def _snapshots(training: Training) -> dict[str, Weights]:
    images = digits()[0].to(torch.float64)
    weights = initial_weights(training.hidden, images, training.seed)
    for tensor in weights:
        tensor.requires_grad_()
    adam = torch.optim.Adam(weights, lr=training.learning_rate)
    generator = torch.Generator().manual_seed(training.seed)
    wanted = dict(training.snapshots)
    taken: dict[str, Weights] = {}
    rows: list[Tensor] = []
    steps = max(wanted.values())
    progress = tqdm(range(steps + 1), "training the tiny VAE", delay=1, leave=False, disable=None)
    for step in progress:
        for name in (name for name, at in wanted.items() if at == step):
            taken[name] = Weights(*(tensor.detach().clone() for tensor in weights))
        if step == steps:
            break
        if not rows:
            rows = list(torch.randperm(len(images), generator=generator).split(training.batch))
        adam.zero_grad()
        (-elbo(weights, images[rows.pop()]).mean()).backward()
        adam.step()
    return taken
