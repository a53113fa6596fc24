"""Calls of a code that its generator alone must determine.

Each call is made with the global generators in one state. What differs when it is repeated comes
from memory; what differs when a global generator is seeded otherwise comes from that one.
"""

import math
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from gradlab.loss import Loss
from gradlab.loss.memory import changed, remembered
from gradlab.reproducible import block_generator

__all__ = ["Calls", "EstimatorError", "NotSeededError", "StatefulError"]

# Calls that are repeated, where all of them would take longer than so many seconds.
_REPEATED, _SECONDS = 4, 0.4
_SEED = 2_718_281_828


class EstimatorError(ValueError):
    """The code of an estimator broke its contract."""


class NotSeededError(EstimatorError):
    """Draws are made with other random numbers than those of the generator."""


class StatefulError(EstimatorError):
    """Draws depend on earlier calls."""


class Calls:
    """Numbered calls of `draw(f, logits, n, generator)`; `seconds` is what one of them takes.

    A context: at its end the global generators are as they were. `code` is searched for what it
    remembers.
    """

    def __init__(
        self,
        draw: Callable[[Loss, Tensor, int, Generator], Tensor],
        f: Loss,
        logits: Tensor,
        seed: int,
        name: str,
        code: object = None,
    ) -> None:
        self.draw, self.f, self.logits, self.seed, self.name = draw, f, logits, seed, name
        self.code, self.seconds = code, math.inf

    def __enter__(self) -> "Calls":
        """Keep the states of the global generators and what the code remembers."""
        self._states = [get() for get, _, _ in _GLOBAL.values()]
        self._remembered = remembered(self.code)
        return self

    def __exit__(self, *error: object) -> None:
        """Set the global generators back."""
        self._restore()

    def _restore(self) -> None:
        for state, (_, restore, _) in zip(self._states, _GLOBAL.values(), strict=True):
            restore(state)

    def __call__(self, k: int, n: int) -> Tensor:
        """Return n draws of call number k."""
        generator = block_generator(self.seed, f"{self.name}|randomness|{n}", k)
        return self.draw(self.f, self.logits, n, generator)

    def repeat(self, k: int, g: Tensor) -> None:
        """Raise StatefulError unless call k returns g again."""
        self._restore()
        if torch.equal(g, self(k, len(g))):
            return
        names = changed(self._remembered, remembered(self.code))
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise StatefulError(
            f"{self.name} remembers earlier calls, or has a generator of its own: two calls with "
            "the same generator differ, with all global generators in the same state too"
            + (f"; what changed: {shown}" if shown else "")
            + "; draw all noise with generator=generator, and freeze what it remembers: pass it as "
            "an argument, or compare with EMA, of which MovingAverage.updated returns the next step"
        )

    def reproduced(self, count: int, n: int) -> list[Tensor]:
        """Return n draws of each of `count` calls, if their generators determine them.

        Raises StatefulError or NotSeededError.
        """
        calls: list[Tensor] = []
        for k in range(count):
            self._restore()
            start = time.perf_counter()
            calls.append(self(k, n))
            self.seconds = min(self.seconds, time.perf_counter() - start)
            if k < _REPEATED or self.seconds * count < _SECONDS:
                self.repeat(k, calls[k])
        for source, (_, _, seed) in _GLOBAL.items():
            self._restore()
            seed(_SEED)
            if not torch.equal(calls[0], self(0, n)):
                raise NotSeededError(
                    f"{self.name} does not follow its generator: two calls with the same one "
                    f"differ where the global generator of {source} is in another state; draw all "
                    "noise with generator=generator, or by torch where it takes no generator"
                )
        return calls


# How the state of each global generator is read, set and seeded.
_GLOBAL: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[int], Any]]] = {
    "torch": (torch.get_rng_state, torch.set_rng_state, torch.default_generator.manual_seed),
    "numpy": (np.random.get_state, np.random.set_state, np.random.seed),
    "Python (module random)": (random.getstate, random.setstate, random.seed),
}
