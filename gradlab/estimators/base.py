"""The contract of an estimator of d/dlogits E f(x), x ~ Categorical(softmax(logits)).

An estimator is a frozen dataclass whose fields are its hyperparameters. A family overrides few
methods: `sample` and a product (pathwise estimators), or `estimate` (those that need values of f
only).
"""

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    draw_one_hot,
    probabilities,
)
from gradlab.loss import Loss, why_no_gradient

__all__ = ["Estimator"]


class Estimator(ABC):
    """An estimator of g = d/dlogits E f(x); subclasses are frozen dataclasses.

    Declares `order` (exact when f is polynomial of at most this degree in each variable; inf means
    unbiased, 0 constants only), `calls` (evaluations of f a draw), `needs_gradient` and
    `reference`.
    """

    name: ClassVar[str]
    order: ClassVar[float]
    needs_gradient: ClassVar[bool]
    reference: ClassVar[str]

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends on so many variables of so many classes."""
        return 1

    @abstractmethod
    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent replicates of the estimate of d/dlogits E f(x), dtype of logits."""

    @abstractmethod
    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return values whose backward is one estimate for the logits and f's own gradient."""

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why logits of this shape cannot be used, or None if they can."""
        return None

    def accepted(self, logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """Return the logits, or raise ValueError with the `refusal`, if there is one."""
        reason = self.refusal(logits)
        if reason is not None:
            raise ValueError(reason)
        return logits

    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return why this estimator cannot be used on f or on logits of this shape, or None."""
        # Whoever asks keeps his logits, whatever a refusal does to them.
        refused = self.refusal(logits.clone())
        if refused or not self.needs_gradient:
            return refused
        return why_no_gradient(f, draw_one_hot(probabilities(logits), torch.Generator(), 1))

    def text(self, *, without: str | None = None) -> str:
        """Return the text form, such as `GR(tau=0.1, k=10)`, leaving out the field named `without`.

        `gradlab.parse` reads the full form back. What was fitted (a field with repr=False) is not
        shown.
        """
        shown = [
            f"{field.name}={_text(getattr(self, field.name))}"
            for field in fields(self)  # type: ignore[arg-type]
            if field.name != without and field.repr
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def _text(value: object) -> str:
    if value is None:
        return "inf"
    if not isinstance(value, int | float):
        return repr(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))
