"""Estimators from values of f alone: one formula, `estimate`, serves analysis and training.

Where the estimate is a function of some samples of x, that function is what a family writes, with
the law of the samples where they are not independent, and the exact engine can put every tuple of
samples to it.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    draw_classes,
    one_hot,
    probabilities,
    probabilities_of,
)
from gradlab.estimators.base import Estimator
from gradlab.loss import Loss, TabledLoss, evaluate

__all__ = [
    "SampledValueEstimator",
    "ValueEstimator",
    "joint_probabilities",
    "values_of",
]

Batch = Float[Tensor, "*batch N C"]
"""Logits of N variables of C classes, with any batch axes in front."""

Tuples = Int[Tensor, "m n *batch N"]
"""The classes of n tuples of m samples of x."""

Estimates = tuple[Float[Tensor, " n *batch"], Float[Tensor, "n *batch N C"]]
"""n values whose mean is E f, with the graph of f, and n estimates."""


class ValueEstimator(Estimator):
    """An estimator that needs values of f only; a family writes `estimate` once for all uses."""

    needs_gradient: ClassVar[bool] = False
    order: ClassVar[float] = math.inf

    @abstractmethod
    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return n replicates of (a value whose mean is E f, with f's graph; the estimate)."""

    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent replicates of the estimate; see `Estimator.draw`.

        Raises ValueError with the `refusal`, if there is one.
        """
        with torch.no_grad():
            return self.estimate(f, self.accepted(check_logits(logits, ndim=2)), n, generator)[1]

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the value with the estimate as its gradient; see `draw`, `Estimator.surrogate`."""
        return _attached(
            logits, *self.estimate(f, self.accepted(check_logits(logits)), 1, generator)
        )

    def variance_given_moments(
        self,
        p: Float[Tensor, "N C"],
        mean: Float[Tensor, ""],
        excess: Float[Tensor, "N C"],
        conditional_square: Float[Tensor, "N C"],
    ) -> Float[Tensor, " N"] | None:
        """Return the exact variance of one draw for each variable, or None if not known.

        From mu = E f (`mean`), E[f | x_i = k] - mu (`excess`) and E[(f - mu)^2 | x_i = k]; the
        variance is the trace of the covariance over the C coordinates of a variable.
        """
        return None


class SampledValueEstimator(ValueEstimator):
    """A value estimator whose draw is a function of `samples` samples of x, independent by default.

    Other laws override both `draw_tuples` and `tuple_probabilities`.
    """

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of."""
        return 1

    @property
    def enumerable(self) -> bool:
        """Whether a draw is `estimate_at` its samples alone, and the law of these is at hand."""
        return True

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: one a sample."""
        return self.samples

    @abstractmethod
    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n values of mean E f, with f's graph, and n estimates, from m samples each."""

    def surrogate_at(
        self,
        f: Loss,
        logits: Float[Tensor, "*batch N C"],
        classes: Int[Tensor, "m *batch N"],
    ) -> Float[Tensor, "*batch"]:
        """Return the surrogate at given samples: what `surrogate` is, with x fed to it."""
        return _attached(logits, *self.estimate_at(f, logits, classes.unsqueeze(1)))

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return the classes of n independent tuples of `samples` samples of x."""
        classes = draw_classes(probabilities(logits), generator, self.samples * n)
        return classes.unflatten(0, (self.samples, n))

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability of each tuple under the law of `draw_tuples`."""
        return joint_probabilities(logits, classes).prod(0)

    def estimate(self, f: Loss, logits: Batch, n: int, generator: Generator | None) -> Estimates:
        """Return `estimate_at` n fresh tuples of samples of x."""
        return self.estimate_at(f, logits, self.draw_tuples(logits.detach(), n, generator))


def values_of(
    f: Loss, classes: Int[Tensor, "*batch N"], logits: Float[Tensor, "... N C"]
) -> Float[Tensor, "*batch"]:
    """Return f at the configurations of these classes, in the dtype of the logits."""
    return f.at(classes) if isinstance(f, TabledLoss) else evaluate(f, one_hot(classes, logits))


def joint_probabilities(
    logits: Float[Tensor, "N C"], classes: Int[Tensor, "*shape N"]
) -> Float[Tensor, "*shape"]:
    """Return p(x) of each configuration, a product over variables."""
    return probabilities_of(probabilities(logits), classes)


def _attached(logits: Tensor, value: Tensor, estimate: Tensor) -> Tensor:
    """Return the value, with its graph, whose backward also sends the estimate to the logits."""
    return _Attach.apply(value[0], logits, estimate[0].detach())


class _Attach(torch.autograd.Function):
    """Identity on `value` whose backward also sends grad * estimate to the logits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, logits: Tensor, estimate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (estimate,) = ctx.saved_tensors
        return grad, grad[..., None, None] * estimate, None
