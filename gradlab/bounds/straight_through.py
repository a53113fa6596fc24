r"""Pathwise estimators of bounds: the bound as a function of K N one-hot rows, back-propagated.

.. math:: \hat g = \sum_k \bigl[M(z_k)\,\partial Z / \partial z_k - v_k\,h_k\bigr]

The second term is the gradient of Z in the logits where they enter the weights beside the sample.
M is the product of the estimator of the same name in `gradlab.estimators`.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.log_sums import shares
from gradlab.bounds.samples import Samples
from gradlab.estimators import DARN, ZGR, StraightThrough
from gradlab.estimators.pathwise import SampleOnlyEstimator

__all__ = ["BoundDARN", "BoundStraightThrough", "BoundZGR"]


class _Pathwise(BoundEstimator):
    """The displayed sum; a subclass names the product M."""

    family: ClassVar[str] = "straight-through"
    needs_gradient: ClassVar[bool] = True
    product: ClassVar[SampleOnlyEstimator]

    @property
    def unbiased(self) -> bool:
        """No: the bound is not a polynomial of the K samples."""
        return False

    def estimate(self, on: Samples) -> Float[Tensor, "n *batch N C"]:
        """Return the displayed sum."""
        v = shares(on.log_w)
        towards = v[..., None, None] * on.slopes()
        return self.product.pullback(on.p, on.one_hot(), towards).sum(0) - on.scored(v)


@dataclass(frozen=True, repr=False)
class BoundStraightThrough(_Pathwise):
    r"""ST, straight-through applied to the bound of K samples.

    .. math:: M(z)\,v = p \circ (v - p \cdot v)

    Biased, at every K; exact for K = 1 and log p(x, z) linear in z. It needs the gradient of
    log p(x, z) in z; K evaluations. Bengio, Leonard & Courville 2013 (1308.3432), for the bound.

    Example:
        >>> BoundStraightThrough().unbiased
        False
    """

    name: ClassVar[str] = "ST"
    aliases: ClassVar[tuple[str, ...]] = ("Straight-Through", "STE")
    reference: ClassVar[str] = "Bengio et al. 2013, arXiv 1308.3432"
    product: ClassVar[SampleOnlyEstimator] = StraightThrough()


@dataclass(frozen=True, repr=False)
class BoundDARN(_Pathwise):
    r"""DARN applied to the bound of K samples.

    .. math:: M(z)\,v = (z - p)\,((z - p) \cdot v)

    Biased, at every K; exact for K = 1 and log p(x, z) linear in z. It needs the gradient of
    log p(x, z) in z; K evaluations. Gregor et al. 2014 (1310.8499), for the bound.

    Example:
        >>> BoundDARN()
        DARN
    """

    name: ClassVar[str] = "DARN"
    reference: ClassVar[str] = "Gregor et al. 2014, arXiv 1310.8499"
    product: ClassVar[SampleOnlyEstimator] = DARN()


@dataclass(frozen=True, repr=False)
class BoundZGR(_Pathwise):
    r"""ZGR applied to the bound of K samples.

    .. math:: M(z)\,v = \tfrac12 [p \circ (v - v_z) + z\,(v_z - p \cdot v)], \quad v_z = z \cdot v

    Exact for K = 1 and log p(x, z) quadratic in z. Biased at K >= 2: the logarithm of a mean is not
    quadratic in the samples. It needs the gradient of log p(x, z) in z; K evaluations. Shekhovtsov
    2023 (ICML, PMLR 202), for the bound.

    Example:
        >>> BoundZGR()
        ZGR
    """

    name: ClassVar[str] = "ZGR"
    reference: ClassVar[str] = "Shekhovtsov 2023, ICML, PMLR 202:30931-30955"
    product: ClassVar[SampleOnlyEstimator] = ZGR()
