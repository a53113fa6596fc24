r"""Score-function estimators of bounds: each sample's score times what it adds, minus a baseline.

.. math:: \hat g = \sum_k (Z - v_k - c_k)\,h_k

Any c_k that does not depend on z_k leaves the mean as it is. The estimators differ in c_k alone.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.log_sums import log_mean, log_sum_of_others, mean_of_others, shares
from gradlab.bounds.samples import ALL_STATES, Samples
from gradlab.categorical import check_finite
from gradlab.checks import check_int

__all__ = ["OVIS", "OVISMonteCarlo", "Plain", "VIMCO", "VIMCOArithmetic"]


class _WithBaseline(BoundEstimator):
    """The displayed sum; a subclass writes the baselines c_k."""

    def estimate(self, on: Samples) -> Float[Tensor, "n *batch N C"]:
        """Return sum_k (Z - v_k - c_k) h_k."""
        return on.scored(log_mean(on.log_w) - shares(on.log_w) - self.baselines(on))

    @abstractmethod
    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return c_k, [K, n, *batch] or of a shape that broadcasts with it."""


@dataclass(frozen=True, repr=False)
class Plain(_WithBaseline):
    r"""PLAIN, the score function without a baseline.

    .. math:: \hat g = \sum_k (Z - v_k)\,h_k

    Unbiased. Its variance grows with K, and with the offset of log p(x, z). K evaluations. Burda et
    al. 2016 (1509.00519) state the bound.

    Example:
        >>> Plain()
        PLAIN
    """

    name: ClassVar[str] = "PLAIN"
    aliases: ClassVar[tuple[str, ...]] = ("REINFORCE", "IWAE")
    reference: ClassVar[str] = "Burda et al. 2016, arXiv 1509.00519"

    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return zeros."""
        return torch.zeros_like(on.log_w)


@dataclass(frozen=True, repr=False)
class VIMCO(_WithBaseline):
    r"""VIMCO: the bound with w_k replaced by the geometric mean of the other weights.

    .. math:: c_k = \log \tfrac1K \Bigl(\sum_{l \ne k} w_l +
              \exp \tfrac{1}{K - 1} \sum_{l \ne k} \log w_l\Bigr)

    Unbiased; K evaluations, K >= 2. Mnih & Rezende 2016 (1602.06725).

    Example:
        >>> VIMCO()
        VIMCO
    """

    name: ClassVar[str] = "VIMCO"
    reference: ClassVar[str] = "Mnih & Rezende 2016, arXiv 1602.06725"
    least: ClassVar[int] = 2

    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return the displayed c_k."""
        others = log_sum_of_others(on.log_w)
        return torch.logaddexp(others, mean_of_others(on.log_w)) - math.log(len(on.log_w))


@dataclass(frozen=True, repr=False)
class VIMCOArithmetic(_WithBaseline):
    r"""VIMCO-A: the bound with w_k replaced by the arithmetic mean of the other weights.

    .. math:: c_k = \log \tfrac{1}{K - 1} \sum_{l \ne k} w_l

    Unbiased; K evaluations, K >= 2. Mnih & Rezende 2016 (1602.06725). For K = 2 it is VIMCO.

    Example:
        >>> VIMCOArithmetic()
        VIMCO-A
    """

    name: ClassVar[str] = "VIMCO-A"
    reference: ClassVar[str] = "Mnih & Rezende 2016, arXiv 1602.06725"
    least: ClassVar[int] = 2

    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return the displayed c_k: the sum and the mean of the others add up to it."""
        return log_sum_of_others(on.log_w) - math.log(len(on.log_w) - 1)


@dataclass(frozen=True, repr=False)
class OVIS(_WithBaseline):
    r"""OVIS, the asymptotic optimal baseline.

    .. math:: c_k = \log \tfrac{1}{K - 1} \sum_{l \ne k} w_l - \gamma\,v_k +
              (1 - \gamma) \log (1 - \tfrac1K)

    Unbiased at gamma = 0 only: v_k depends on z_k. At gamma = 1 the bias tends to K - 1 gradients
    as the weights become even. K evaluations, K >= 2. Lievin et al. 2020 (2008.01998); the
    published code takes gamma = 1 by default.

    Args:
        gamma: From 0, for few effective samples, to 1, for many.

    Example:
        >>> OVIS(gamma=1)
        OVIS(gamma=1)
    """

    name: ClassVar[str] = "OVIS"
    aliases: ClassVar[tuple[str, ...]] = ("OVIS~",)
    reference: ClassVar[str] = "Lievin et al. 2020, arXiv 2008.01998"
    least: ClassVar[int] = 2

    gamma: float = 0.0

    def __post_init__(self) -> None:
        check_finite("gamma", self.gamma)

    @property
    def unbiased(self) -> bool:
        """Whether gamma is 0."""
        return self.gamma == 0

    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return the displayed c_k."""
        count = len(on.log_w)
        found = log_sum_of_others(on.log_w) - math.log(count - 1)
        return found - self.gamma * shares(on.log_w) + (1 - self.gamma) * math.log1p(-1 / count)


@dataclass(frozen=True, repr=False)
class OVISMonteCarlo(_WithBaseline):
    r"""OVIS-MC(s): the mean of Z - v_k over s fresh samples in the place of z_k.

    .. math:: c_k = \tfrac1s \sum_{j=1}^{s} (Z - v_k)(z'_j, z_{-k})

    The same fresh samples serve every k. s = inf is the mean over all states of one sample, by
    enumeration. Unbiased; K + s evaluations. Lievin et al. 2020 (2008.01998).

    Args:
        s: The number of fresh samples; None, written inf, for all states.

    Example:
        >>> OVISMonteCarlo(s=10), OVISMonteCarlo(s=None)
        (OVIS-MC(s=10), OVIS-MC(s=inf))
    """

    name: ClassVar[str] = "OVIS-MC"
    aliases: ClassVar[tuple[str, ...]] = ("OVIS-Monte-Carlo",)
    reference: ClassVar[str] = "Lievin et al. 2020, arXiv 2008.01998"

    s: int | None = 1

    def __post_init__(self) -> None:
        if self.s is not None:
            check_int("s", self.s, 1)

    @property
    def fresh(self) -> int | None:
        """The number s of fresh samples."""
        return self.s

    def calls(self, k: int, variables: int, classes: int) -> int:
        """Return K + s, or K + C^N where s is inf."""
        return k + (classes**variables if self.s is None else self.s)

    def refusal(self, k: int, variables: int, classes: int) -> str | None:
        """Return why there are too many states to sum over, or None."""
        if self.s is None and classes**variables > ALL_STATES:
            return (
                f"{self} sums over all {classes}^{variables} states, more than {ALL_STATES}; use "
                "OVIS-MC(s=10)"
            )
        return super().refusal(k, variables, classes)

    def baselines(self, on: Samples) -> Float[Tensor, "K n *batch"]:
        """Return the displayed c_k."""
        others = log_sum_of_others(on.log_w)
        new = on.fresh_log_w.unsqueeze(1)
        total = torch.logaddexp(others, new)  # [A, K, n, *batch]
        values = total - math.log(len(on.log_w)) - (new - total).exp()
        return (on.fresh_share.unsqueeze(1) * values).sum(0)
