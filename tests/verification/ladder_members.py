"""Code that is wrong at some sizes, logits, dtypes or values of f only, and the right code beside.

Each member is right where the ladder alone makes draws: N = 2, C = 3, moderate logits, float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

import gradlab
from gradlab.categorical import draw_one_hot

Condition = Callable[[Tensor, Tensor], bool]
"""Whether code is wrong, by its logits [..., N, C] and values of f; both may be of a batch."""


def never(logits: Tensor, values: Tensor) -> bool:
    return False


def _two(logits: Tensor, generator: Generator, n: int) -> tuple[Tensor, Tensor]:
    p = logits.detach().softmax(-1)
    return draw_one_hot(p, generator, n), draw_one_hot(p, generator, n)


def doubled(g: Tensor) -> Tensor:
    return 2 * g


def turned(g: Tensor) -> Tensor:
    """Return estimates with the order of the classes turned round."""
    return g.flip(-1)


def without_last(g: Tensor) -> Tensor:
    """Return estimates without that of the last variable."""
    keep = torch.ones(g.shape[-2], 1, dtype=g.dtype)
    keep[-1] = 0
    return g * keep


def drawing(wrong: Condition, spoil: Callable[[Tensor], Tensor] = doubled) -> Any:
    def draw(f, logits, n, generator):
        a, b = _two(logits, generator, n)
        values = f(a)
        g = (values - f(b))[:, None, None] * (a - b) / 2
        return spoil(g) if wrong(logits, values) else g

    return draw


def of_surrogate(wrong: Condition, spoil: Callable[[Tensor], Tensor] = doubled) -> Any:
    def surrogate(f, logits, generator):
        p = logits.detach().softmax(-1)
        a, b = draw_one_hot(p, generator), draw_one_hot(p, generator)
        values = f(a)
        # Not x log p: a mask makes that 0 times infinity.
        g = (values - f(b)).detach()[..., None, None] * (a - b) / 2
        g = spoil(g) if wrong(logits, values) else g
        alive = torch.where(logits > -math.inf, logits, 0.0)
        return values + (g * (alive - alive.detach())).sum((-2, -1))

    return surrogate


def of_sample(wrong: Condition, spoil: Callable[[Tensor], Tensor] = doubled) -> Any:
    def sample(logits, generator):
        p = logits.softmax(-1)
        x = draw_one_hot(p.detach(), generator)
        through = p - p.detach()
        return x + (spoil(through) if wrong(logits, x) else through)

    return sample


def of_estimator(wrong: Condition, spoil: Callable[[Tensor], Tensor] = doubled) -> Any:
    @dataclass(frozen=True, repr=False)
    class Mine(gradlab.LeaveOneOut):
        name = "MINE"

        def draw(self, f, logits, n, generator=None):
            g = super().draw(f, logits, n, generator)
            x = draw_one_hot(logits.softmax(-1), Generator().manual_seed(0), 1)
            return spoil(g) if wrong(logits, f(x)) else g

    return Mine(2)


def of_binary(wrong: Condition, spoil: Callable[[Tensor], Tensor] = doubled) -> Any:
    @dataclass(frozen=True, repr=False)
    class Binary(gradlab.DisARM):
        name = "BINARY"

        def draw(self, f, logits, n, generator=None):
            g = super().draw(f, logits, n, generator)
            return spoil(g) if wrong(logits, g) else g

    return Binary()


FORMS: dict[str, tuple[Any, float]] = {
    "draw": (drawing, math.inf),
    "surrogate": (of_surrogate, math.inf),
    "sample": (of_sample, 1),
    "estimator": (of_estimator, math.inf),
    "binary": (of_binary, math.inf),
}
"""How code is written, and the degree that the right code is exact to."""


@dataclass(frozen=True)
class Member:
    """A code that is wrong where `wrong` says; `told` is in the report of its counterexample."""

    form: str
    wrong: Condition
    told: str
    spoil: Callable[[Tensor], Tensor] = doubled

    @property
    def degree(self) -> float:
        return FORMS[self.form][1]

    def make(self) -> Any:
        return FORMS[self.form][0](self.wrong, self.spoil)


def size(logits: Tensor) -> tuple[int, int]:
    return logits.shape[-2], logits.shape[-1]


def masks(low: float, high: float) -> Condition:
    """Return whether a logit is in this range."""
    return lambda logits, _: bool(((logits >= low) & (logits <= high)).any())


def is_peaked(logits: Tensor, values: Tensor) -> bool:
    return bool(logits.min() > -1e3) and bool((logits.softmax(-1).amax(-1) > 0.9).all())


MEMBERS = {
    "N > 2": Member("draw", lambda a, _: size(a)[0] > 2, "N=4, C=3"),
    "N > 3": Member("sample", lambda a, _: size(a)[0] > 3, "N=4, C=3"),
    "N = 1": Member("surrogate", lambda a, _: size(a)[0] == 1, "N=1, C=2"),
    "N = 3": Member("estimator", lambda a, _: size(a)[0] == 3, "N=3, C=5"),
    "C > 3": Member("estimator", lambda a, _: size(a)[1] > 3, "N=3, C=5"),
    "C = 2": Member("draw", lambda a, _: size(a)[1] == 2, "N=1, C=2"),
    "C = 4": Member("sample", lambda a, _: size(a)[1] == 4, "C=4"),
    "class order, C = 5": Member("surrogate", lambda a, _: size(a)[1] == 5, "C=5", turned),
    "last of three": Member("draw", lambda a, _: size(a)[0] > 2, "N=4, C=3", without_last),
    "mask -inf": Member("draw", masks(-math.inf, -math.inf), "masked logits (-inf), float64"),
    "mask -inf, sample": Member("sample", masks(-math.inf, -math.inf), "masked logits (-inf)"),
    "mask -1e8": Member("surrogate", masks(-1e9, -1e5), "masked logits (-1e8), float64"),
    "mask -1e8, estimator": Member("estimator", masks(-1e9, -1e5), "masked logits (-1e8)"),
    "peaked": Member("draw", is_peaked, "peaked logits, float64"),
    "one sure": Member(
        "estimator",
        lambda a, _: bool(a.min() > -1e3) and float(a.softmax(-1).max()) > 0.99,
        "peaked logits",
    ),
    "equal logits": Member("sample", lambda a, _: bool((a == a.mean()).all()), "logits that are"),
    "shifted up": Member("surrogate", lambda a, _: float(a.detach().max()) > 10, "shifted by +25"),
    "shifted down": Member("sample", lambda a, _: float(a.detach().max()) < -10, "shifted by -25"),
    "float32": Member("draw", lambda a, _: a.dtype == torch.float32, "float32"),
    "float32, surrogate": Member("surrogate", lambda a, _: a.dtype == torch.float32, "float32"),
    "large f": Member("draw", lambda _, v: float(v.detach().min()) > 500, "1,000 to 2,500"),
    "large -f": Member("estimator", lambda _, v: float(v.max()) < -500, "-2,500 to -1,000"),
    "binary, N = 1": Member("binary", lambda a, _: size(a)[0] == 1, "N=1, C=2"),
    "binary, shifted": Member(
        "binary", lambda a, _: float(a.detach().max()) > 10, "shifted by +25"
    ),
}
