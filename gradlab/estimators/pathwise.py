"""Pathwise estimators: back-propagate grad f(x) through the sample by a product of their own.

The mechanism is written once here; a family writes its product, and its own sample where the
product needs more than x.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_floating,
    check_logits,
    check_one_hot,
    draw_one_hot,
    is_readable,
    probabilities,
)
from gradlab.estimators._with_product import with_product
from gradlab.estimators.base import Estimator
from gradlab.loss import (
    Loss,
    NotDifferentiableError,
    evaluate,
    gradient,
    sees_parameters,
)

__all__ = ["PathwiseEstimator", "SampleOnlyEstimator", "with_product"]

Rows = Float[Tensor, "*#batch C"]
"""Probabilities, samples or cotangents of variables; axes in front of the classes broadcast."""


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
            raise ValueError(f"dim = {dim} is not an axis of logits of shape {list(logits.shape)}")
        x = None if x is None else x.movedim(dim, -1)
        return self.sample(logits.movedim(dim, -1), generator, x).movedim(-1, dim)

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return f(sample(logits)); see `Estimator.surrogate`."""
        x = self.sample(logits, generator)
        values = evaluate(f, x)
        if is_readable(values) and x.requires_grad:
            # Values that see the logits have a graph, even where it does not lead to x.
            whole = sees_parameters(f)
            if not (_depends(values, x) if whole else values.requires_grad):
                raise NotDifferentiableError
        return values

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]] | None:
        """Return E[M | x = k] and E[M^T M | x = k], indexed [variable, k], or None if not known."""
        return None

    def table_seconds(self, variables: int, classes: int) -> float:
        """Return about how long `conditional_jacobians` takes, counted, not measured."""
        return 1e-8 * variables * classes**3


class SampleOnlyEstimator(PathwiseEstimator):
    """A pathwise estimator whose matrix M is a function of p and x; subclasses write `pullback`."""

    @abstractmethod
    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return M(p, x) v in O(C)."""

    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`.

        Raises ValueError with the `refusal`, if there is one.
        """
        p = probabilities(self.accepted(check_logits(logits, ndim=2)).detach())
        x = draw_one_hot(p, generator, n)
        return self.pullback(p, x, gradient(f, x.to(logits.dtype)).to(p.dtype)).to(logits.dtype)

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x whose backward is `pullback`; see `draw`, `PathwiseEstimator`."""
        p = probabilities(self.accepted(check_logits(logits)).detach())
        x = draw_one_hot(p, generator) if x is None else check_one_hot(x, logits).to(p.dtype)

        def product(v: Tensor, p: Tensor, x: Tensor, logits: Tensor) -> Tensor:
            # A backward that is itself differentiated wants p as a function of the logits.
            return self.pullback(probabilities(logits) if torch.is_grad_enabled() else p, x, v)

        return with_product(x, logits, product, p, x, logits)

    def conditional_jacobians(
        self, p: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N C C C"], Float[Tensor, "N C C C"]]:
        """Return M and M^T M for each class, read off `pullback` at unit cotangents."""
        unit = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        # Spelled out for each class k, as ST does not look at x.
        each_class = p[:, None, None].expand(-1, p.shape[-1], 1, -1)
        columns = self.pullback(each_class, unit[None, :, None], unit[None, None])
        first = columns.transpose(-1, -2)
        return first, columns @ first


def _depends(values: Tensor, x: Tensor) -> bool:
    """Return whether the graph of the values leads to x."""
    seen, nodes = set(), [values.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is x.grad_fn:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return False
