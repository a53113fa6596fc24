"""The settings of the hard cases, small enough for the sum over all states, and what a case is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from gradlab.categorical import probabilities
from hard_codes import Code, Rows, Shipped, true_gradient

__all__ = [
    "KINDS",
    "Hard",
    "Linear",
    "Setting",
    "Spots",
    "Table",
    "logits_of",
    "only",
    "right",
    "table",
    "times",
    "uniform",
    "wide",
    "wrong",
]


@dataclass(frozen=True)
class Spots:
    """values[k] where every variable is in class k, 0 elsewhere, plus a smooth part."""

    values: tuple[float, ...]
    slope: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        spots = sum(v * x[..., k].prod(-1) for k, v in enumerate(self.values))
        ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        return spots + self.slope * (x * ramp).sum((-1, -2))


@dataclass(frozen=True, eq=False)
class Table:
    """A value for each state, in the dtype of x."""

    values: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return self.values.to(x.dtype)[tuple(x.argmax(-1).movedim(-1, 0))]


@dataclass(frozen=True, eq=False)
class Linear:
    """The sum of weights of the classes, in the dtype of x, plus a constant."""

    weights: Tensor
    offset: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return (x * self.weights.to(x.dtype)).sum((-1, -2)) + self.offset

    def gradient(self, logits: Tensor) -> Tensor:
        """Return the gradient of E f at logits of float64."""
        p, w = probabilities(logits), self.weights.double()
        return p * (w - (p * w).sum(-1, keepdim=True))


@dataclass(frozen=True, eq=False)
class Setting:
    """A loss at logits, with the gradient there, float64."""

    f: Any
    logits: Tensor

    @property
    def states(self) -> int:
        """The number of states."""
        N, C = self.logits.shape
        return int(C**N)

    @cached_property
    def g(self) -> Tensor:
        """The gradient, by the sum over states where there are not too many."""
        return true_gradient(self.f, self.logits)


def uniform(f: Any, N: int, C: int = 4) -> Setting:
    """Return the setting in which all states are as likely."""
    return Setting(f, torch.zeros(N, C, dtype=torch.float64))


def logits_of(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the logits of variables of these probabilities."""
    return torch.tensor([[math.log(p) for p in row] for row in rows], dtype=dtype)


def table(
    N: int, C: int, *, seed: int = 0, spread: float = 1.0, offset: float = 0.0, scale: float = 1.0
) -> Setting:
    """Return a random table of normal values around an offset, at normal logits."""
    source = Generator().manual_seed(seed)
    values = torch.randn([C] * N, generator=source, dtype=torch.float64)
    logits = torch.randn(N, C, generator=source, dtype=torch.float64)
    return Setting(Table(offset + spread * values), scale * logits)


def wide(N: int, C: int) -> Setting:
    """Return a linear loss at uniform logits, of any size."""
    source = torch.Generator().manual_seed(0)
    weights = torch.randn(N, C, generator=source, dtype=torch.float64)
    return Setting(Linear(weights), torch.zeros(N, C, dtype=torch.float64))


KINDS = ("rare", "skew", "cold", "rounding", "dependence")


@dataclass(frozen=True, eq=False)
class Hard:
    """A case: a code in a setting, right or wrong.

    `target`: the mean that it is compared with, if that is not the gradient, or a function that
    computes this mean when it is asked for. `hidden_rate`: how
    often the events are met that carry the bias, or make up for one; a verdict that excludes no
    events as rare as that is no error. `dependent`: the draws of a call are not independent
    replicates, so that to be refused is right. `rounding`: how far a right code is off, relative to
    the target. `runs`: how many are worth their time.
    """

    name: str
    kind: str
    code: Code | str
    setting: Setting
    right: bool
    max_draws: int = 2**12
    target: Tensor | Callable[[], Tensor] | None = None
    hidden_rate: float | None = None
    dependent: bool = False
    rounding: float = 1e-12
    runs: int = 1000

    @property
    def truth(self) -> Tensor:
        """What the mean should be."""
        return self.setting.g if self.against is None else self.against

    @cached_property
    def against(self) -> Tensor | None:
        """The target as a tensor."""
        return self.target() if callable(self.target) else self.target

    @cached_property
    def bias(self) -> float | None:
        """The length of the bias relative to the target; None where nothing here computes it."""
        if isinstance(self.code, str):
            return None
        off = self.code.mean(self.setting.f, self.setting.logits) - self.truth
        return float(torch.linalg.vector_norm(off) / torch.linalg.vector_norm(self.truth))


def right(name: str, kind: str, code: Code | str, setting: Setting, **more: Any) -> Hard:
    """Return a case of a code whose mean is the target."""
    return Hard(name, kind, code, setting, True, **more)


def wrong(name: str, kind: str, code: Code | str, setting: Setting, **more: Any) -> Hard:
    """Return a case of a code whose mean is off by more than a twentieth of the target."""
    return Hard(name, kind, code, setting, False, **more)


def only(name: str, N: int, row: int, factor: float) -> Code:
    """Return an estimator of gradlab's in which one variable is multiplied by a factor."""
    return Rows(Shipped(name), tuple(factor if i == row else 1.0 for i in range(N)))


def times(code: Code, factor: float) -> Code:
    """Return the code multiplied by a factor."""
    return Rows(code, (factor,))
