"""A small fixed random network on x: smooth, no polynomial, with curvature along every variable.

It stands for the losses that estimators meet in training, at a size where truth is enumerable.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.problems.base import Problem, check_size, normal
from gradlab.reproducible import seeded

__all__ = ["MLP"]


@dataclass(frozen=True, eq=False, repr=False)
class MLP(Problem):
    r"""A random tanh network from v = flatten(x) to one number.

    .. math:: h_0 = v, \quad h_l = \tanh(W_l h_{l-1} + b_l), \quad f(x) = w \cdot h_L

    Weights are normal, scaled so that every unit sees an input of standard deviation `gain`: at 2
    the units are well bent between one-hot points. `hidden` are the widths of the layers; the
    output has unit scale.

    Args:
        N: The number of variables.
        C: The number of classes.
        seed: The seed of the weights.
        hidden: The widths of the layers.
        gain: The standard deviation of the input of a unit.

    Raises:
        ValueError: If a width or the gain is not positive.
    """

    N: int
    C: int
    seed: int = 0
    hidden: tuple[int, ...] = (16,)
    gain: int | float = 2.0
    weights: tuple[Float[Tensor, "..."], ...] = field(init=False)
    kind: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        check_size(self.N, self.C)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one or more positive widths, not {self.hidden!r}")
        if not 0 < self.gain < math.inf:
            raise ValueError(f"gain must be a positive finite number, not {self.gain!r}")
        if not self.name:
            shown = "" if self.hidden == (16,) else f", hidden={self.hidden}"
            shown += "" if self.gain == 2 else f", gain={self.gain:g}"
            name = f"{self.kind}(N={self.N}, C={self.C}, seed={self.seed}{shown})"
            object.__setattr__(self, "name", name)
        object.__setattr__(self, "weights", tuple(self._draw()))
        self._declare(self.N, self.C, degree=math.inf)

    def _draw(self) -> list[Tensor]:
        """Return W_1 [N C, H], b_1 [H], ..., and the output w [H]."""
        generator = seeded(self.kind, self.seed)
        drawn = []
        # One-hot rows: the input has N ones among N * C entries.
        width, active = self.N * self.C, self.N
        for units in self.hidden:
            drawn.append(self.gain * normal(generator, width, units) / math.sqrt(active))
            drawn.append(normal(generator, units) / 2)
            width = active = units
        drawn.append(normal(generator, width) / math.sqrt(width))
        return drawn

    def _values(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        h = x.flatten(-2)
        *layers, output = (weight.to(x) for weight in self.weights)
        for W, b in zip(layers[::2], layers[1::2], strict=True):
            h = torch.tanh(torch.matmul(h, W) + b)
        return torch.matmul(h, output)
