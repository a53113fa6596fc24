"""Estimators from values of f alone: one formula, `estimate`, serves analysis and training.

Where the estimate is a function of independent samples of x, that function is what a family writes,
and the exact engine can put every sample to it.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import check_logits, draw_classes, probabilities
from gradlab.estimators.base import Estimator
from gradlab.loss import Loss

__all__ = ["SampledValueEstimator", "ValueEstimator"]


class ValueEstimator(Estimator):
    """An estimator that needs values of f only; a family writes `estimate` once for all uses."""

    needs_gradient: ClassVar[bool] = False
    order: ClassVar[float] = math.inf

    @abstractmethod
    def estimate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], n: int, generator: Generator | None
    ) -> tuple[Float[Tensor, " n *batch"], Float[Tensor, "n *batch N C"]]:
        """Return n replicates of (a value whose mean is E f, with f's graph; the estimate)."""

    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent replicates of the estimate; see `Estimator.draw`."""
        with torch.no_grad():
            return self.estimate(f, check_logits(logits, ndim=2), n, generator)[1]

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the value with the estimate as its gradient; see `Estimator.surrogate`."""
        value, estimate = self.estimate(f, check_logits(logits), 1, generator)
        return _Attach.apply(value[0], logits, estimate[0].detach())

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
    """A value estimator whose draw is a function of `samples` independent samples of x."""

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of."""
        return 1

    def calls(self, classes: int) -> int:
        """Evaluations of f that one draw spends: one a sample."""
        return self.samples

    @abstractmethod
    def estimate_at(
        self,
        f: Loss,
        logits: Float[Tensor, "*batch N C"],
        classes: Int[Tensor, "m n *batch N"],
    ) -> tuple[Float[Tensor, " n *batch"], Float[Tensor, "n *batch N C"]]:
        """Return n values of mean E f, with f's graph, and n estimates, from m samples each."""

    def estimate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], n: int, generator: Generator | None
    ) -> tuple[Float[Tensor, " n *batch"], Float[Tensor, "n *batch N C"]]:
        """Return `estimate_at` n times `samples` fresh draws of x."""
        classes = draw_classes(probabilities(logits.detach()), generator, self.samples * n)
        return self.estimate_at(f, logits, classes.unflatten(0, (self.samples, n)))


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
