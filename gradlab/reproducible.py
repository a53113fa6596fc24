"""One seed, one result: generators that depend on what a row is, and sums on one thread."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Generator

__all__ = [
    "allowed_threads",
    "block_generator",
    "check_seed",
    "generator_on",
    "global_states",
    "seed_of",
    "seeded",
    "single_thread",
]

_MAX_SEED = 2**63 - 1


def check_seed(seed: int) -> None:
    """Raise ValueError unless `seed` is an int in [0, 2^63).

    Args:
        seed: The number to check.

    Raises:
        ValueError: If it is not such an int.

    Example:
        >>> check_seed(-1)
        Traceback (most recent call last):
        ValueError: seed must be an int in [0, 2^63), not -1
    """
    if not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be an int in [0, 2^63), not {seed!r}")


def seed_of(name: str, bits: int = 63) -> int:
    """Return the seed that a name stands for, the same on every machine.

    Args:
        name: What is to be drawn, such as the id of a cell. Other names give other seeds.
        bits: The seed is below 2^bits.

    Returns:
        An int in [0, 2^bits): the first bits of the SHA-256 of the name.

    Example:
        >>> seed_of("quadratic/4x3/moderate/0/ST")
        7595797147882743445
    """
    return int.from_bytes(_digest(name), "big") >> (256 - bits)


def seeded(purpose: str, seed: int) -> Generator:
    """Return a generator whose stream depends on the purpose as well as on the seed.

    With the plain seed, a problem, its logits and the draws of an estimator would all start from
    the same normal numbers: a linear loss would equal its own logits.

    Args:
        purpose: What is drawn, such as "logits".
        seed: The seed that the user gave.

    Returns:
        A generator on the CPU.

    Example:
        >>> seeded("logits", 0).initial_seed() == seeded("cubic", 0).initial_seed()
        False
    """
    return Generator().manual_seed(seed_of(f"{purpose}:{seed}", bits=56))


def block_generator(seed: int, row: str, block: int = 0) -> Generator:
    """Return the generator of block number `block` of the row named `row`.

    The generator is seeded from a hash of the name. So the random numbers of a row do not depend on
    which other rows are computed.

    Args:
        seed: The seed of the whole computation, an int in [0, 2^63).
        row: The name of the row that the draws are for.
        block: The number of the block of draws, from 0.

    Returns:
        A new generator on the CPU.

    Example:
        >>> import torch
        >>> torch.rand(2, generator=block_generator(0, "ST"))
        tensor([0.0976, 0.5452])
        >>> torch.rand(2, generator=block_generator(0, "ST", block=1))
        tensor([0.9142, 0.0573])
    """
    words = np.frombuffer(_digest(row), dtype=np.uint32)
    state = np.random.SeedSequence([seed, block, *words.tolist()]).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]) & _MAX_SEED)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def generator_on(device: torch.device, source: Generator) -> Generator:
    """Return `source` on the CPU; elsewhere a generator of that device with its seed.

    Args:
        device: The device that will draw.
        source: A generator on the CPU.

    Returns:
        The generator to draw from on that device.

    Example:
        >>> import torch
        >>> source = torch.Generator().manual_seed(0)
        >>> generator_on(torch.device("cpu"), source) is source
        True
    """
    if device.type == "cpu":
        return source
    return Generator(device).manual_seed(source.initial_seed())


def global_states() -> tuple[bytes, object, int]:
    """Return the states of the global generators of torch, Python and numpy.

    Returns:
        The three states, to be compared for equality.

    Example:
        >>> before = global_states()
        >>> _ = random.random()
        >>> global_states() == before
        False
    """
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 users draw from it
    key = numpy_state["key"].tobytes()
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        hash((key, numpy_state["pos"])),
    )


_ALLOWED: ContextVar[int] = ContextVar("threads")


def allowed_threads() -> int:
    """Return how many threads torch had before `single_thread`: as many may share the blocks.

    Returns:
        `torch.get_num_threads()` as the caller of gradlab has it.

    Example:
        >>> with single_thread():
        ...     inside = allowed_threads()
        >>> inside == allowed_threads()
        True
    """
    return _ALLOWED.get(torch.get_num_threads())


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread: sums split over threads would depend on their number.

    Yields:
        None; the number of threads is put back at the end of the block.

    Example:
        >>> with single_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    token = _ALLOWED.set(allowed_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _ALLOWED.reset(token)
