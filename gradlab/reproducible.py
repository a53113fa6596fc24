"""One seed, one result: generators that depend on what a row is, and sums on one thread."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator

__all__ = ["block_generator", "check_seed", "generator_on", "global_states", "single_thread"]

_MAX_SEED = 2**63 - 1


def check_seed(seed: int) -> None:
    """Raise ValueError unless `seed` is an int in [0, 2^63)."""
    if not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be an int in [0, 2^63), not {seed!r}")


def block_generator(seed: int, row: str, block: int = 0) -> Generator:
    """Return the generator of block number `block` of the row named `row`.

    Hashing the name keeps a row's random numbers apart from those of any other row, whatever rows
    are asked for.
    """
    words = np.frombuffer(hashlib.sha256(row.encode()).digest(), dtype=np.uint32)
    state = np.random.SeedSequence([seed, block, *words.tolist()]).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]) & _MAX_SEED)


def generator_on(device: torch.device, source: Generator) -> Generator:
    """Return `source` on the CPU; elsewhere a generator of that device with its seed."""
    if device.type == "cpu":
        return source
    return Generator(device).manual_seed(source.initial_seed())


def global_states() -> tuple[bytes, object, int]:
    """Return where the global generators of torch, Python and numpy are."""
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 users draw from it
    key = numpy_state["key"].tobytes()
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        hash((key, numpy_state["pos"])),
    )


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread: sums split over threads would depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
