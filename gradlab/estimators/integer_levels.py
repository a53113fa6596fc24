"""The minimum-variance rule for variables that act through a number: their class, 0 to C - 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators.minimum_variance import check_penalty
from gradlab.estimators.pathwise import Rows, SampleOnlyEstimator
from gradlab.loss import Loss, gradient

__all__ = ["IntegerMVE"]

# Samples at which the gradient of f is looked at, to see whether f acts through the levels.
_LOOKS = 16
# Numbers of all these samples, unless one has more.
_LARGEST_LOOK = 2**18


@dataclass(frozen=True, repr=False)
class IntegerMVE(SampleOnlyEstimator):
    r"""The minimum-variance rule MVE-INT(tau) where f acts through the levels y = 0, ..., C - 1.

    .. math:: \hat g_c = f'(y)\,p_c\,(h_c - p \cdot h), \quad
              h_c = (c - m) + \frac{\tau}{1 + 2 \tau \nu} (y - m)(c - m)^2

    with m and nu the mean and variance of y under p, y the level of x. Exact for f of degree 1 in
    each level; tau = None, the limit tau -> infinity, for degree 2; tau = 0 is ST. The slope f' is
    that of the line through v over the classes: where v is none, f does not act through the levels,
    `supports` says so, and the rule is exact for constants only. One evaluation, O(C).
    Hooper & Shekhovtsov 2026 (AISTATS, PMLR 300).

    Args:
        tau: Weight of the penalty, at least 0; None for its limit. It is not a temperature.

    Raises:
        ValueError: tau is neither a finite number >= 0 nor None.

    Example:
        >>> IntegerMVE(tau=1.0)
        MVE-INT(tau=1)
    """

    tau: float | None = 1.0

    name: ClassVar[str] = "MVE-INT"
    family: ClassVar[str] = "straight-through"
    reference: ClassVar[str] = "Hooper & Shekhovtsov 2026, AISTATS, PMLR 300:3187-3195"

    def __post_init__(self) -> None:
        check_penalty(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree in the levels up to which it is exact: 1, and 2 in the limit tau = None."""
        return 2 if self.tau is None else 1

    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return why it cannot be used on f: no gradient, or one that is not a line; or None."""
        reason = super().supports(f, logits)
        if reason is not None:
            return reason
        looks = max(1, min(_LOOKS, _LARGEST_LOOK // logits.numel()))
        x = draw_one_hot(probabilities(logits), torch.Generator(), looks)
        v = gradient(f, x)
        v = v - v.mean(-1, keepdim=True)
        off_line = (v - _slope(v) * _levels(v)).abs().max()
        if off_line <= v.abs().max() * torch.finfo(v.dtype).eps ** 0.5:
            return None
        return (
            f"{self.name} is for f of the class index as a number: here grad f(x) is not linear in "
            "it; use MVE"
        )

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return the displayed product."""
        levels = _levels(p)
        c = levels - (p * levels).sum(-1, keepdim=True)
        square = p * c.square()
        nu = square.sum(-1, keepdim=True)
        tau = self.tau
        # The square is never above nu: at nu = 0 the limit is 0.
        tiny = torch.finfo(p.dtype).tiny
        weight = 0.5 / nu.clamp_min(tiny) if tau is None else tau / (1 + 2 * tau * nu)
        product = p * c + weight * (x * c).sum(-1, keepdim=True) * (square - nu * p)
        return _slope(v) * (product - p * product.sum(-1, keepdim=True))


def _levels(like: Float[Tensor, "*batch C"]) -> Float[Tensor, " C"]:
    """Return the levels, centred."""
    classes = like.shape[-1]
    return torch.arange(classes, dtype=like.dtype, device=like.device) - (classes - 1) / 2


def _slope(v: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch 1"]:
    """Return the slope of the line of least squares through v over the class index."""
    levels = _levels(v)
    # The sum of squares is 1/2 for two classes, and 0 for one, where the slope is 0 too.
    return (v * levels).sum(-1, keepdim=True) / levels.square().sum().clamp_min(0.5)
