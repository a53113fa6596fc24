"""On what the ladder tries an estimator: its rungs, and sites elsewhere for what is only drawn.

Code is often wrong at one size or in one regime only. The sites cover each size, each regime and
each dtype, and each pair of regime and dtype, by few trials instead of by their product.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import configurations
from gradlab.exact.moments import Enumeration
from gradlab.loss.gate import name_of
from gradlab.problems import Problem, problem, regime
from gradlab.problems.base import normal
from gradlab.reproducible import seeded

__all__ = ["DRAWN_SIZE", "RUNGS", "SITES", "SIZES", "Rung", "Site", "binary", "rungs"]

RUNGS = {
    "constant": 0,
    "linear": 1,
    "multilinear": 1,
    "quadratic": 2,
    "multiquadratic": 2,
    "cubic": 3,
    "polynomial:4": 4,
    "mlp": math.inf,
    "table": math.inf,
}
"""The losses by their degree in each variable; a table has no gradient."""

SIZES = ((1, 4), (2, 3), (3, 2))
DRAWN_SIZE = (2, 3)
_PROVED = ("moderate", "peaked", "masked")

_TOLD = {
    "moderate": "moderate logits",
    "uniform": "logits that are all 0",
    "peaked": "peaked logits",
    "masked": "masked logits (-inf)",
    "masked -1e8": "masked logits (-1e8)",
    "shifted +25": "logits shifted by +25",
    "shifted -25": "logits shifted by -25",
}
"""The logits of a site, in words."""

# What peaks leave to the other classes of a variable: rarer ones need more draws than are made.
_PEAK, _SURE = 0.07, 0.008
_SHIFT = 25.0
_LOW, _HIGH = 1000.0, 2500.0


@dataclass(frozen=True, eq=False)
class Rung:
    """One loss at one size and one regime of logits, enumerated once for all estimators.

    `site`: where it is, of a rung that is tried because code is known by its draws alone.
    """

    kind: str
    regime: str
    enumeration: Enumeration
    site: "Site | None" = None

    @property
    def degree(self) -> float:
        """Degree of the loss in each variable."""
        return RUNGS[self.kind]

    @property
    def name(self) -> str:
        """What the loss is called in verdicts; at a site with what is special there."""
        return name_of(self.enumeration.f) + (f", {self.site.told}" if self.site else "")

    @property
    def dtype(self) -> str:
        """The dtype of the logits."""
        return str(self.enumeration.objective.dtype).removeprefix("torch.")

    @property
    def drawn(self) -> bool:
        """Whether draws are made here too: at moderate logits of one size."""
        return self.is_moderate(DRAWN_SIZE)

    def is_moderate(self, size: tuple[int, int]) -> bool:
        """Whether the logits are moderate and of this size, and it is not of a site."""
        moderate = self.site is None and self.regime == "moderate"
        return moderate and tuple(self.enumeration.logits.shape) == size


def rungs(
    kinds: Iterable[str] = RUNGS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    regimes: Sequence[str] = _PROVED,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> list[Rung]:
    """Return the rungs of these losses, each at every size and regime, the logits in `dtype`."""

    def enumeration(kind: str, name: str, size: tuple[int, int]) -> Enumeration:
        return Enumeration(problem(kind, *size, seed), regime(name, *size, seed).to(dtype))

    return [
        Rung(kind, name, enumeration(kind, name, size))
        for kind in kinds
        for size in sizes
        for name in regimes
    ]


@dataclass(frozen=True)
class Site:
    """One size, regime and dtype of logits; `large`: 1 or -1 where the values of f are large."""

    N: int
    C: int
    regime: str
    dtype: torch.dtype
    large: int = 0

    @property
    def masks(self) -> bool:
        """Whether classes are masked by -inf, which code may refuse."""
        return self.regime == "masked"

    def __str__(self) -> str:
        """Return where it is, in words."""
        dtype = str(self.dtype).removeprefix("torch.")
        told = f"N = {self.N}, C = {self.C}, {_TOLD[self.regime]}, {dtype}"
        low, high = sorted((self.large * _LOW, self.large * _HIGH))
        return told + (f", values of f from {low:,.0f} to {high:,.0f}" if self.large else "")

    @property
    def told(self) -> str:
        """Return what differs beside the size, which the name of a problem says."""
        return str(self).partition(f"C = {self.C}, ")[2]

    def rung(self, kind: str, seed: int) -> "Rung":
        """Return the rung of a loss of this kind here."""
        f: Any = problem(kind, self.N, self.C, seed)
        if self.large:
            f = _Large.of(f, self.large)
        on = Enumeration(f, self.logits(seed).to(self.dtype))
        return Rung(kind, self.regime, on, self)

    def logits(self, seed: int) -> Float[Tensor, "N C"]:
        """Return the logits, float64, whose classes are not too rare to be met by draws.

        `peaked` has one class of probability .93 in each variable, and .992 in the first. The masks
        leave one class at least in each variable, two in the first.
        """
        if self.regime == "uniform":
            return torch.zeros(self.N, self.C, dtype=torch.float64)
        generator = seeded(f"site {self}", seed)
        logits = normal(generator, self.N, self.C).tanh()
        if self.regime.startswith("shifted"):
            return logits + math.copysign(_SHIFT, float(self.regime.split()[1]))
        order = torch.rand(self.N, self.C, generator=generator, dtype=torch.float64).argsort(-1)
        if self.regime == "peaked":
            rest = torch.full((self.N, 1), _PEAK, dtype=torch.float64)
            rest[0] = _SURE
            others = (logits / 2).masked_fill(order == 0, -math.inf).softmax(-1) * rest
            return torch.where(order == 0, 1 - rest, others).log()
        if self.regime.startswith("masked"):
            lost = 1 + torch.arange(self.N) % max(self.C - 1, 1)
            if self.C == 2:
                lost[1:] = 0
            mask = -1e8 if self.regime.endswith("1e8") else -math.inf
            return logits.masked_fill(order < lost[:, None], mask)
        return logits


SITES = (
    Site(1, 2, "moderate", torch.float64),
    Site(4, 3, "moderate", torch.float64),
    Site(3, 5, "moderate", torch.float32),
    Site(3, 2, "uniform", torch.float64),
    Site(1, 5, "uniform", torch.float32),
    Site(2, 3, "peaked", torch.float64),
    Site(2, 2, "peaked", torch.float32),
    Site(3, 4, "masked", torch.float64),
    Site(2, 3, "masked", torch.float32),
    Site(2, 4, "masked -1e8", torch.float64),
    Site(3, 3, "masked -1e8", torch.float32),
    Site(3, 3, "shifted +25", torch.float64),
    Site(1, 4, "shifted +25", torch.float32, large=1),
    Site(2, 5, "shifted -25", torch.float64, large=-1),
    Site(4, 2, "shifted -25", torch.float32),
)
"""The sites: N from 1 to 4, C from 2 to 5, every regime in both dtypes, large f of both signs."""


def binary(site: Site) -> Site:
    """Return the site with two classes, for estimators that refuse more."""
    return replace(site, C=2)


@dataclass(frozen=True, eq=False, repr=False)
class _Large:
    """A problem whose values are moved to between 1,000 and 2,500, or to minus that."""

    f: Problem
    factor: float
    offset: float
    name: str
    degree: float

    @classmethod
    def of(cls, f: Problem, sign: int) -> "_Large":
        one_hot = torch.eye(f.C, dtype=torch.float64)
        classes = configurations(f.N, f.C)
        values = f(one_hot[classes]).detach()
        low, high = float(values.min()), float(values.max())
        factor = (_HIGH - _LOW) / (high - low) if high > low else 1.0
        return cls(f, sign * factor, sign * (_LOW - factor * low), f.name, f.degree)

    def __call__(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        return self.factor * self.f(x) + self.offset
