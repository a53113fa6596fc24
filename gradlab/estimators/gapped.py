r"""Gapped straight-through: logits shifted until the sample is the largest class by a gap.

With k the sampled class and m the largest logit:

.. math:: \tilde\ell_k = m, \quad \tilde\ell_c = \min(\ell_c,\ m - gap)\ (c \ne k), \quad
          \hat g = V(q)\,v / \tau, \quad q = softmax(\tilde\ell / \tau)

where the shift counts as constant and V(q) v = q (v - q.v).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_tau, softmax_vjp
from gradlab.estimators.pathwise import Rows, SampleOnlyEstimator

__all__ = ["AdaptiveGappedStraightThrough", "GappedStraightThrough"]


class _Gapped(SampleOnlyEstimator):
    """What both share: all but the gap."""

    tau: float
    order: ClassVar[float] = 0
    reference: ClassVar[str] = "Fan et al. 2022, arXiv 2206.07235"

    def __post_init__(self) -> None:
        check_tau(self.tau)

    @abstractmethod
    def _gap(self, p: Tensor, x: Tensor) -> Tensor | float:
        """Return the gap of each variable, [*batch, 1] or a number."""

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return V(q) v / tau."""
        logits = p.log()
        top = logits.amax(-1, keepdim=True)
        shifted = torch.where(x > 0, top, torch.minimum(logits, top - self._gap(p, x)))
        q = torch.softmax(shifted / self.tau, -1)
        return softmax_vjp(q, v, short_rows=True) / self.tau


@dataclass(frozen=True, repr=False)
class GappedStraightThrough(_Gapped):
    r"""GST(gap, tau), gapped straight-through with a given gap.

    .. math:: \hat g = V(q)\,v / \tau, \quad q = softmax(\tilde\ell / \tau)

    Deterministic given x. Exact for constants only: biased even for linear f, with less variance
    than ST. One evaluation. Fan, Chi, Rudnicky & Ramadge 2022 (2206.07235).

    Args:
        gap: Least distance of the sample's logit from the others, at least 0.
        tau: Temperature, positive.

    Example:
        >>> GappedStraightThrough(gap=1.0, tau=1.0)
        GST(gap=1, tau=1)
    """

    gap: float = 1.0
    tau: float = 1.0

    name: ClassVar[str] = "GST"
    aliases: ClassVar[tuple[str, ...]] = ("Gapped-Straight-Through",)
    family: ClassVar[str] = "straight-through"
    temperature_field: ClassVar[str | None] = "tau"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.gap, int | float) or not 0 <= self.gap < math.inf:
            raise ValueError(f"gap must be a finite number of at least 0, not {self.gap!r}")

    def _gap(self, p: Tensor, x: Tensor) -> float:
        return self.gap


@dataclass(frozen=True, repr=False)
class AdaptiveGappedStraightThrough(_Gapped):
    r"""GST-p(tau), gapped straight-through with the mean gap of Gumbel noise given the sample.

    .. math:: gap = -\log(1 - p_k) / p_k

    Else as `GappedStraightThrough`: biased even for linear f. The gap is 1 for a rare class and
    grows without bound for one that is nearly certain. One evaluation. Fan, Chi, Rudnicky & Ramadge
    2022 (2206.07235).

    Args:
        tau: Temperature, positive.

    Example:
        >>> AdaptiveGappedStraightThrough(tau=1.0)
        GST-p(tau=1)
    """

    tau: float = 1.0

    name: ClassVar[str] = "GST-p"
    family: ClassVar[str] = "straight-through"
    temperature_field: ClassVar[str | None] = "tau"

    def _gap(self, p: Tensor, x: Tensor) -> Tensor:
        # The gap tends to 1 as p_k tends to 0. Near p_k = 1, 1 - p_k would round to 0.
        own = (p * x).sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        rest = (p * (1 - x)).sum(-1, keepdim=True)
        return -torch.where(own < 0.5, torch.log1p(-own), rest.log()) / own
