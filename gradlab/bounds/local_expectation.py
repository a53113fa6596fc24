"""The local expectation of the bound: the class of one variable of one sample is summed over."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.log_sums import log_sum_of_others
from gradlab.bounds.samples import Samples
from gradlab.categorical import softmax_vjp

__all__ = ["BoundLocalExpectation"]

# Numbers of the one-hot z of one draw.
_LARGEST_DRAW = 2**22


@dataclass(frozen=True, repr=False)
class BoundLocalExpectation(BoundEstimator):
    r"""LE, the local expectation: each term averaged over the class of its own variable.

    With phi_kic = (Z - v_k) where variable i of sample k is moved to class c:

    .. math:: \hat g_i = \sum_k p_i \circ (\phi_{ki} - p_i \cdot \phi_{ki})

    Unbiased at every K. For one variable it is PLAIN averaged over z_k, given the other samples: no
    baseline has less variance in any term. K (N (C - 1) + 1) evaluations. Titsias & Lazaro-Gredilla
    2015 (1503.01494), for the bound.

    Example:
        >>> BoundLocalExpectation()
        LE
    """

    name: ClassVar[str] = "LE"
    aliases: ClassVar[tuple[str, ...]] = ("IndeCateR",)
    family: ClassVar[str] = "sums over classes or states"
    reference: ClassVar[str] = "Titsias & Lazaro-Gredilla 2015, arXiv 1503.01494"

    def calls(self, k: int, variables: int, classes: int) -> int:
        """Return K (N (C - 1) + 1)."""
        return k * (variables * (classes - 1) + 1)

    def refusal(self, k: int, variables: int, classes: int) -> str | None:
        """Return why one draw would not fit the memory, or None if it does."""
        points = self.calls(k, variables, classes)
        if points * variables * classes <= _LARGEST_DRAW:
            return super().refusal(k, variables, classes)
        return (
            f"one draw of LE evaluates log p(x, z) at {points} points of {variables} x {classes} "
            f"numbers, more than {_LARGEST_DRAW} in all; use OVIS(gamma=0) instead"
        )

    def estimate(self, on: Samples) -> Float[Tensor, "n *batch N C"]:
        """Return sum_k p (phi_k - p.phi_k)."""
        moved = on.neighbours()
        total = torch.logaddexp(log_sum_of_others(on.log_w)[..., None, None], moved)
        phi = total - math.log(len(on.log_w)) - (moved - total).exp()
        return softmax_vjp(on.p, phi.sum(0))
