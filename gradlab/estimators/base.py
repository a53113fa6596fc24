"""The contract of an estimator of d/dlogits E f(x), x ~ Categorical(softmax(logits)).

An estimator is a frozen dataclass whose fields are its hyperparameters. A family overrides few
methods: `sample` and a product (pathwise estimators), or `estimate` (those that need values of f
only).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_floating,
    check_logits,
    draw_one_hot,
    is_readable,
    probabilities,
)
from gradlab.loss import Loss, NotDifferentiableError, evaluate, why_no_gradient

__all__ = ["Estimator", "PathwiseEstimator", "ValueEstimator", "with_product"]


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

    def calls(self, classes: int) -> int:
        """Evaluations of f that one draw spends on variables of so many classes."""
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

    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return the reason why this estimator cannot be used on f, or None if it can."""
        if not self.needs_gradient:
            return None
        return why_no_gradient(f, draw_one_hot(probabilities(logits), torch.Generator(), 1))

    def text(self, *, without: str | None = None) -> str:
        """Return the text form, such as `GR(tau=0.1, k=10)`, leaving out the field named `without`.

        `gradlab.parse` reads the full form back.
        """
        shown = [
            f"{field.name}={_text(getattr(self, field.name))}"
            for field in fields(self)  # type: ignore[arg-type]
            if field.name != without
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def _text(value: float | None) -> str:
    if value is None:
        return "inf"
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))


class PathwiseEstimator(Estimator):
    """An estimator that back-propagates v = grad f(x) through the sample x by a product of its own.

    Given x the estimate is M a with a = grad f and a random [C, C] matrix M for each variable,
    which depends on x only through the class of that variable.
    """

    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return x ~ Categorical(softmax(logits)), whose backward is this estimator's product.

        A given one-hot `x` is used instead of a fresh draw.
        """

    def sample_along(
        self, dim: int, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Return `sample` with the classes along axis `dim`, as the drop-in functions do."""
        check_floating(logits)
        if not -logits.ndim <= dim < logits.ndim:
            raise ValueError(f"dim = {dim} is no axis of logits of shape {list(logits.shape)}")
        x = None if x is None else x.movedim(dim, -1)
        return self.sample(logits.movedim(dim, -1), generator, x).movedim(-1, dim)

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return f(sample(logits)); see `Estimator.surrogate`."""
        x = self.sample(logits, generator)
        values = evaluate(f, x)
        if is_readable(values) and x.requires_grad and not values.requires_grad:
            raise NotDifferentiableError
        return values

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]] | None:
        """Return E[M | x = k] and E[M^T M | x = k], indexed [variable, k], or None if not known."""
        return None


def with_product(
    out: Float[Tensor, "*batch C"],
    logits: Float[Tensor, "*batch C"],
    product: Callable[..., Tensor],
    *saved: Tensor,
) -> Float[Tensor, "*batch C"]:
    """Return `out` with the backward logits.grad += product(grad, *saved), under torch.func too.

    The product works in the dtype of `saved`, which may be finer than that of the logits.
    """
    return _WithProduct.apply(out.to(logits.dtype), logits, product, *saved)


class _WithProduct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(out: Tensor, logits: Tensor, product: Callable[..., Tensor], *saved: Tensor) -> Any:
        return out.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.product = inputs[2]
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        to_logits = ctx.product(grad.to(saved[0].dtype), *saved).to(grad.dtype)
        return None, to_logits, None, *(None for _ in saved)


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
