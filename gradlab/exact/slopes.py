r"""What is differentiated of a distribution: once for all states, or for draws of their own noise.

The product of ST, ZGR and DARN is linear in v = grad f(x). So with the derivative of the mean and
the scores as matrices, products of all states are products of matrices:

.. math:: M(x)\,v = (1 - \alpha/2)\,(\partial\mu/\partial\theta)^T v
          + (\alpha/2)\,\bigl((x - \mu) \cdot v\bigr)\,s(x)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from gradlab.distributions.base import ExponentialFamily
from gradlab.distributions.gradient import base_of, mean_of
from gradlab.distributions.natural import maximized
from gradlab.estimators.structured import NoisyEstimator
from gradlab.exact.gradient_rows import gradients
from gradlab.loss.contract import weighted_sum

__all__ = ["Slopes"]


@dataclass(frozen=True)
class Slopes:
    """A distribution as a function of its parameters, with what is differentiated of it.

    Args:
        at: From parameters to the distribution.
        parameters: Where, float64.
        shape: The shape of one x: batch and event axes together.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> found = Slopes(lambda p: KSubset(p, 1), torch.zeros(2).double(), torch.Size([2]))
        >>> found.products(torch.eye(2).double(), torch.eye(2).double(), alpha=0.0)
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]], dtype=torch.float64)
    """

    at: Callable[[Tensor], Distribution]
    parameters: Float[Tensor, "*parameters"]
    shape: torch.Size

    @cached_property
    def _base(self) -> Distribution:
        return base_of(self.at(self.parameters))

    @cached_property
    def structure(self) -> Any:
        """What estimators with noise of their own maximize over; see `maximized`."""
        return maximized(self._base)

    @cached_property
    def _family(self) -> ExponentialFamily | None:
        return self._base if isinstance(self._base, ExponentialFamily) else None

    @property
    def _elements(self) -> int:
        return self._base.batch_shape.numel()

    @property
    def numbers_per_state(self) -> int:
        """About how many numbers the score or product of one state passes through."""
        entries, size = self.shape.numel(), self.parameters.numel()
        # A gradient for each state and parameter passes through numbers of the size of x.
        return entries * size if self._family is None else max(entries, size)

    @cached_property
    def _mean(self) -> tuple[Tensor, Tensor]:
        """The mean [D], and its derivative in the parameters [D, P]."""

        def mean(theta: Tensor) -> Tensor:
            return mean_of(self.at(theta)).flatten()

        with torch.no_grad():
            found = mean(self.parameters).to(torch.float64)
        return found, gradients(mean, self.parameters, len(found))

    @cached_property
    def _mean_statistics(self) -> list[Tensor]:
        assert self._family is not None
        return [part.detach().reshape(self._elements, -1) for part in self._family.means()]

    @cached_property
    def _of_natural(self) -> Tensor:
        """The derivative of the natural parameters in the given ones, [K, P]."""

        def natural(theta: Tensor) -> Tensor:
            return torch.cat([part.flatten() for part in maximized(self.at(theta)).natural])

        return gradients(natural, self.parameters, len(natural(self.parameters)))

    @cached_property
    def _is_natural(self) -> bool:
        slope = self._of_natural
        return slope.shape[0] == slope.shape[1] and bool((slope == torch.eye(len(slope))).all())

    def products(
        self,
        x: Tensor,
        v: Tensor,
        alpha: float,
    ) -> Float[Tensor, "n P"]:
        """Return M(x) v at each x; see `gradlab.distributions.gradient.with_gradient`.

        Args:
            x: States [n, *shape of x].
            v: Gradients of f there, of the same shape.
            alpha: Place on the line: 0 is ST, 1 ZGR, 2 DARN.
        """
        mean, slope = self._mean
        found = v.flatten(1) @ ((1 - alpha / 2) * slope)
        if alpha != 0:
            # Elements of the batch are independent, each with its own product.
            elements = (len(x), self._elements, -1)
            away = (x.flatten(1) - mean).reshape(elements)
            found += self.scores(x, torch.linalg.vecdot(away, v.reshape(elements)) * (alpha / 2))
        return found

    def scores(self, x: Tensor, weight: Float[Tensor, "n B"] | None = None) -> Float[Tensor, "n P"]:
        """Return the gradient of log p at each x.

        Args:
            x: States [n, *shape of x].
            weight: Of the score of each independent element; 1 by default.
        """
        if self._family is None:

            def log_prob(theta: Tensor) -> Tensor:
                found = base_of(self.at(theta)).log_prob(x).reshape(len(x), -1)
                return (found if weight is None else found * weight).sum(-1)

            return gradients(log_prob, self.parameters, len(x))
        away = []
        for part, mean in zip(self._family.statistics(x), self._mean_statistics, strict=True):
            found = part.reshape(len(x), self._elements, -1) - mean
            away.append((found if weight is None else found.mul_(weight.unsqueeze(-1))).flatten(1))
        flat = torch.cat(away, 1) if len(away) > 1 else away[0]
        return flat if self._is_natural else flat @ self._of_natural

    def noisy_draws(
        self,
        estimator: NoisyEstimator,
        gradient: Callable[[Tensor], Tensor],
        n: int,
        generator: Generator,
    ) -> Float[Tensor, "n P"]:
        """Return n estimates of an estimator that draws x from its own noise.

        Args:
            estimator: The estimator.
            gradient: From x [n, 1, D] to grad f(x).
            n: The number of draws.
            generator: The source of the noise.
        """
        structure = self.structure
        with torch.enable_grad():
            natural = [
                t.detach().expand(n, *t.shape).clone().requires_grad_() for t in structure.natural
            ]
            x = estimator.sample_structure(structure, natural, generator).reshape(n, 1, -1)
            v = gradient(x.detach()).to(x.dtype)
            found = torch.autograd.grad(weighted_sum(x, v), natural)
        return torch.cat([part.flatten(1) for part in found], 1) @ self._of_natural
