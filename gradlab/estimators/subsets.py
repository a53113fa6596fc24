r"""Estimators of k-subsets. They belong to two laws, which differ for 1 < k < n.

Conditional Bernoulli (`KSubset`): p(x) is proportional to exp(theta . x). Sampling without
replacement (`WithoutReplacement`): the k largest of theta plus Gumbel noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from gradlab.categorical import check_tau
from gradlab.estimators.structured import Maximized, NoisyEstimator, StructureEstimator
from gradlab.samples import draw_exponentials

__all__ = ["SIMPLE", "RelaxedTopK", "TopKStraightThrough"]


@dataclass(frozen=True, repr=False)
class SIMPLE(StructureEstimator):
    r"""SIMPLE: straight-through with the exact marginals of exactly k of n elements.

    .. math:: \hat g = (\partial\mu/\partial\theta)^T\,v, \qquad \mu = E\,x

    This is ST of `KSubset`, and at k = 1 it is ST. The law is the conditional Bernoulli law, not
    sampling without replacement. Exact for linear f; one evaluation. Ahmed et al. 2022
    (2210.01941).

    Example:
        >>> SIMPLE()
        SIMPLE
    """

    name: ClassVar[str] = "SIMPLE"
    family: ClassVar[str] = "straight-through"
    order: ClassVar[float] = 1
    line_alpha: ClassVar[float | None] = 0.0
    reference: ClassVar[str] = "Ahmed et al. 2022, arXiv 2210.01941"
    laws: ClassVar[tuple[str, ...]] = ("conditional Bernoulli",)
    where: ClassVar[str] = (
        "it is of exactly k of n, distribution=lambda p: gradlab.distributions.KSubset(p, k); "
        "use ST, which has the same formula on every distribution"
    )


_WITHOUT_REPLACEMENT = (
    "it samples without replacement, which is another law; give distribution=lambda p: "
    "gradlab.distributions.WithoutReplacement(p, k)"
)


@dataclass(frozen=True, repr=False)
class RelaxedTopK(NoisyEstimator, StructureEstimator):
    r"""TopK(tau), relaxed subset sampling: f at a point between subsets, k softmaxes in turn.

    .. math:: y = \sum_{j=1}^k a_j, \quad a_j = softmax(\alpha_j / \tau), \quad
              \alpha_{j+1} = \alpha_j + \log(1 - a_j), \quad \alpha_1 = \theta + \epsilon

    With Gumbel noise eps. As tau falls, y becomes the k largest: a sample without replacement.
    That is the law of `WithoutReplacement`, against whose gradient it is measured, and not that of
    `KSubset`. At k = 1 it is GS. Biased even for linear f. One evaluation, at a relaxed point.
    Xie & Ermon 2019 (1901.10517).

    Args:
        tau: Temperature, positive.

    Example:
        >>> RelaxedTopK(tau=0.5)
        TopK(tau=0.5)
    """

    tau: float = 1.0

    name: ClassVar[str] = "TopK"
    aliases: ClassVar[tuple[str, ...]] = ("Gumbel-Top-k", "Relaxed-Subset-Sampling")
    family: ClassVar[str] = "Gumbel noise"
    order: ClassVar[float] = 0
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Xie & Ermon 2019, arXiv 1901.10517"
    laws: ClassVar[tuple[str, ...]] = ("sampling without replacement",)
    where: ClassVar[str] = _WITHOUT_REPLACEMENT

    def __post_init__(self) -> None:
        check_tau(self.tau)

    def sample_structure(
        self, structure: Maximized, natural: Sequence[Tensor], generator: Generator | None = None
    ) -> Tensor:
        """Return the relaxed sample y, differentiable in theta."""
        (theta,) = natural
        return self._relaxed(structure, theta - draw_exponentials(theta.detach(), generator).log())

    def _relaxed(self, structure: Maximized, weights: Tensor) -> Tensor:
        """Return the sum of the k softmaxes."""
        chosen = (weights / self.tau).softmax(-1)
        total = chosen
        for _ in range(structure.k - 1):  # type: ignore[attr-defined]
            rest = (1 - chosen).clamp_min(torch.finfo(chosen.dtype).tiny)
            weights = weights + rest.log()
            chosen = (weights / self.tau).softmax(-1)
            total = total + chosen
        return total


@dataclass(frozen=True, repr=False)
class TopKStraightThrough(RelaxedTopK):
    r"""TopK-ST(tau), straight-through top-k: the k largest forward, TopK backward.

    .. math:: \hat g = (\partial y/\partial\theta)^T\,\nabla f(x), \qquad
              x = top_k(\theta + \epsilon)

    With y of TopK and the same noise. x is a sample without replacement: the law of
    `WithoutReplacement`, not of `KSubset`. At k = 1 it is GS-ST. Biased even for linear f; one
    evaluation. Xie & Ermon 2019 (1901.10517).

    Args:
        tau: Temperature, positive.

    Example:
        >>> TopKStraightThrough(tau=0.5)
        TopK-ST(tau=0.5)
    """

    name: ClassVar[str] = "TopK-ST"
    aliases: ClassVar[tuple[str, ...]] = ("Gumbel-Top-k-ST", "Straight-Through-Top-k")
    family: ClassVar[str] = "Gumbel noise"

    def sample_structure(
        self, structure: Maximized, natural: Sequence[Tensor], generator: Generator | None = None
    ) -> Tensor:
        """Return the k largest, whose backward is that of the relaxed sample."""
        (theta,) = natural
        weights = theta - draw_exponentials(theta.detach(), generator).log()
        y = self._relaxed(structure, weights)
        return structure.maximizer(weights.detach()) + (y - y.detach())
