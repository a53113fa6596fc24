r"""Perturb-and-MAP: the sample is the best structure under noisy weights.

.. math:: z = MAP(\theta + \epsilon) = \arg\max_x (\theta + \epsilon) \cdot \phi(x), \qquad
          \epsilon \sim Gumbel

At one categorical z follows softmax(theta). At subsets it is sampling without replacement. At other
structures it is a law of its own, and not the exponential family with the same theta.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    check_one_hot,
    draw_one_hot,
    noise_ratio,
    one_hot,
    probabilities,
)
from gradlab.estimators.pathwise import PathwiseEstimator, with_product
from gradlab.estimators.structured import Maximized, NoisyEstimator
from gradlab.loss import Loss, gradient
from gradlab.samples import draw_exponentials

__all__ = ["IMLE"]


@dataclass(frozen=True, repr=False)
class IMLE(NoisyEstimator, PathwiseEstimator):
    r"""I-MLE(lam), implicit maximum likelihood: what changes if the weights move against grad f.

    .. math:: \hat g = \frac{\phi(z) - \phi(z')}{\lambda}, \quad z = MAP(\theta + \epsilon),
              \quad z' = MAP(\theta + \epsilon - \lambda \nabla f(z))

    The law of z is perturb-and-MAP with Gumbel noise on every parameter. At one categorical that is
    softmax(theta), at `WithoutReplacement` it is that law. At all other structures, `KSubset` too,
    it is another law than that of the distribution, and rows say so in their column `note`.

    Biased even for linear f, and not linear in grad f: a weight of the loss counts as another lam.
    As lam falls the bias on linear f vanishes in proportion, and the variance grows like 1/lam;
    `gradlab.exact.perturbed` has the mean at one categorical for every lam, and its limit. One
    evaluation and two maximizations. Niepert, Minervini & Franceschi 2021 (2106.01798).

    Args:
        lam: The step against the gradient, positive.

    Example:
        >>> IMLE(lam=0.5)
        I-MLE(lam=0.5)
    """

    lam: float = 1.0

    name: ClassVar[str] = "I-MLE"
    aliases: ClassVar[tuple[str, ...]] = ("Implicit-MLE", "Perturb-and-MAP")
    family: ClassVar[str] = "Gumbel noise"
    order: ClassVar[float] = 0
    reference: ClassVar[str] = "Niepert et al. 2021, arXiv 2106.01798"

    # Laws of x that z follows. At others its law is its own.
    own_laws: ClassVar[tuple[str, ...]] = ("categorical", "sampling without replacement")

    def __post_init__(self) -> None:
        if not (isinstance(self.lam, int | float) and 0 < self.lam < torch.inf):
            raise ValueError(f"lam must be a positive finite number, not {self.lam!r}")

    def structure_refusal(self, distribution: Any) -> str | None:
        """Return why samples of this distribution cannot carry the estimator, or None."""
        if hasattr(distribution, "maximizer"):
            return None
        return (
            f"{self} needs the best structure under given weights, which is not known for "
            f"{type(distribution).__name__}; use ST, ZGR or a score function such as RF(m=4)"
        )

    def sample_structure(
        self, structure: Maximized, natural: Sequence[Tensor], generator: Generator | None = None
    ) -> Tensor:
        """Return z = MAP(theta + eps), whose backward is the displayed product."""
        with torch.no_grad():
            moved = [t - draw_exponentials(t, generator).log() for t in natural]
            z = structure.maximizer(*moved)
        return _Moved.apply(z, structure, self.lam, len(natural), *natural, *moved)

    def table_seconds(self, variables: int, classes: int) -> float:
        """Return about how long exact moments take: the chance to move at every state."""
        return 6e-8 * float(classes) ** (variables + 3) * variables

    def sample(
        self,
        logits: Float[Tensor, "*batch C"],
        generator: Generator | None = None,
        x: Float[Tensor, "*batch C"] | None = None,
    ) -> Float[Tensor, "*batch C"]:
        """Return one-hot x whose backward is the displayed product; see `PathwiseEstimator`."""
        p = probabilities(check_logits(logits))
        x = draw_one_hot(p, generator) if x is None else check_one_hot(x, logits).to(p.dtype)
        weights = _weights_given(p, x, generator)
        return with_product(x, logits, lambda v, w, x: self._difference(w, x, v), weights, x)

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        p = probabilities(check_logits(logits, ndim=2).detach())
        x = draw_one_hot(p, generator, n)
        weights = _weights_given(p, x, generator)
        v = gradient(f, x.to(logits.dtype)).to(p.dtype)
        return self._difference(weights, x, v).to(logits.dtype)

    def _difference(self, weights: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """Return (x - MAP(weights - lam v)) / lam."""
        return (x - one_hot((weights - self.lam * v).argmax(-1), x)) / self.lam


def _weights_given(p: Tensor, x: Tensor, generator: Generator | None) -> Tensor:
    """Draw theta + eps given that its largest entry is x, which stands at 0."""
    return noise_ratio(p, x, generator).log1p().neg()


class _Moved(torch.autograd.Function):
    """z forward; backward the difference to the best structure after a step of lam."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, structure: Maximized, lam: float, count: int, *tensors: Tensor
    ) -> Tensor:
        ctx.structure, ctx.lam, ctx.count = structure, lam, count
        ctx.save_for_backward(z, *tensors[count:])
        return z.clone()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        z, first, *rest = ctx.saved_tensors
        other = ctx.structure.maximizer(first - ctx.lam * v, *rest)
        both = zip(ctx.structure.statistics(z), ctx.structure.statistics(other), strict=True)
        found = [(here - there) / ctx.lam for here, there in both]
        return (None, None, None, None, *found, *(None for _ in found))
