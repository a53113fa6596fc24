"""ZGR for two classes, in the one number that a binary variable has: its log-odds."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators.pathwise import SampleOnlyEstimator

__all__ = ["BinaryZGR"]


@dataclass(frozen=True, repr=False)
class BinaryZGR(SampleOnlyEstimator):
    r"""ZGR-BIN, ZGR for variables of two classes: one derivative times the other probability.

    .. math:: \hat g_1 = -\hat g_0 = \tfrac12 f'\,[b\,(1 - p) + (1 - b)\,p], \quad f' = v_1 - v_0

    with b = x_1 and p = p_1: draw by draw the same as `ZGR`, hence exact for f of degree 2 in each
    variable, jointly. One evaluation. Shekhovtsov 2023 (ICML, PMLR 202).
    """

    name: ClassVar[str] = "ZGR-BIN"
    order: ClassVar[float] = 2
    reference: ClassVar[str] = "Shekhovtsov 2023, ICML, PMLR 202:30931-30955"

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why it cannot be used: more than two classes, or None."""
        classes = logits.shape[-1]
        if classes <= 2:
            return None
        return f"{self.name} is for variables of 2 classes, not {classes}; use ZGR"

    def pullback(
        self,
        p: Float[Tensor, "*#batch C"],
        x: Float[Tensor, "*#batch C"],
        v: Float[Tensor, "*#batch C"],
    ) -> Float[Tensor, "*batch C"]:
        """Return the displayed product; 0 for a single class."""
        if p.shape[-1] == 1:
            return torch.zeros_like(p * x * v)
        other = x[..., 1] * p[..., 0] + x[..., 0] * p[..., 1]
        g = 0.5 * (v[..., 1] - v[..., 0]) * other
        return torch.stack([-g, g], -1)
