r"""The minimum-variance rules of the sample alone, MVE(tau), which move from ST to order 2.

A rule gives S(x) grad f(x) with a matrix S(k) for each class k. Of all rules that are exact for
degree 1 these have the least noise, tau weighing what violates exactness for degree 2.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import softmax_vjp
from gradlab.estimators.pathwise import Rows, SampleOnlyEstimator

__all__ = ["MVE", "check_penalty"]

_MOST_CLASSES = 64
# Entries of the matrices that are held at a time.
_ELEMENTS = 2**22
# Stands for a probability of 0, so that a masked class is a limit and no division by 0.
_LEAST = 1e-150


@dataclass(frozen=True, repr=False)
class MVE(SampleOnlyEstimator):
    r"""The rule of least variance, MVE(tau), with a penalty tau on its bias for degree 2.

    .. math:: \hat g = S(x)^T v, \quad S = \arg\min \sum_k p_k |S(k)|^2 + \tfrac\tau2 \sum_{ij}
              |p_j S_i(j) + p_i S_j(i) - \delta_{ij} J_i|^2 \text{ with } \sum_k p_k S(k) = J

    with J = diag(p) - p p^T and S_i, J_i rows. Exact for f of degree 1 in each variable; tau = None
    is the limit tau -> infinity, exact for degree 2, jointly. MVE(0) is ST, and for two classes
    MVE(None) is ZGR. One evaluation. Each row of p costs a system of C equations: O(C^3), C^2
    numbers, in float64; at most 64 classes. Hooper & Shekhovtsov 2026 (AISTATS, PMLR 300).

    Args:
        tau: Weight of the penalty, at least 0; None for its limit. It is not a temperature.

    Raises:
        ValueError: tau is neither a finite number >= 0 nor None.

    Example:
        >>> MVE(tau=1.0)
        MVE(tau=1)
    """

    tau: float | None = 1.0

    name: ClassVar[str] = "MVE"
    aliases: ClassVar[tuple[str, ...]] = ("Minimum-Variance",)
    family: ClassVar[str] = "straight-through"
    reference: ClassVar[str] = "Hooper & Shekhovtsov 2026, AISTATS, PMLR 300:3187-3195"

    def __post_init__(self) -> None:
        check_penalty(self.tau)

    @property
    def order(self) -> float:  # type: ignore[override]
        """Degree up to which the estimator is exact: 1, and 2 in the limit tau = None."""
        return 2 if self.tau is None else 1

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why there are too many classes, or None."""
        classes = logits.shape[-1]
        if classes <= _MOST_CLASSES:
            return None
        return (
            f"{self.name} solves C equations for each row of C probabilities: C = {classes} is "
            f"more than {_MOST_CLASSES}; use ZGR, which is exact for degree 2 in O(C)"
        )

    def table_seconds(self, variables: int, classes: int) -> float:
        """Return about how long a system of C equations for each pair of classes takes."""
        return 1e-9 * variables * classes**5

    def pullback(self, p: Rows, x: Rows, v: Rows) -> Float[Tensor, "*batch C"]:
        """Return S(x)^T v from one matrix for each row of p, float64 inside."""
        if not p.shape == x.shape == v.shape or p.numel() * p.shape[-1] <= _ELEMENTS:
            return self._product(p, x, v)
        rows = [part.reshape(-1, x.shape[-1]) for part in (p, x, v)]
        chunks = zip(*(part.split(_ELEMENTS // x.shape[-1] ** 2) for part in rows), strict=True)
        return torch.cat([self._product(*chunk) for chunk in chunks]).view_as(x)

    def _product(self, p: Tensor, x: Tensor, v: Tensor) -> Tensor:
        # The optimality conditions are the voltages of a network: classes i and j are joined by
        # alpha p_i p_j / D_ij, D_ij = beta + alpha (p_i + p_j), and each is joined to a node of
        # voltage 0. alpha : beta = tau : 1, so that nothing is special at tau = 0 and infinity.
        alpha, beta = (1.0, 0.0) if self.tau is None else (self.tau, 1.0)
        alpha, beta = alpha / (alpha + beta), beta / (alpha + beta)
        exact, x, v = (part.to(torch.float64) for part in (p, x, v))
        q = exact.clamp_min(_LEAST)
        share = v / (beta + alpha * (q + _dot(q, x)))
        current = share * (beta + alpha * q) - x * _dot(share, alpha * q)
        resistance, top = _resistance(q, alpha, beta)
        total = share.sum(-1, keepdim=True)
        current = torch.where(top, -math.sqrt(beta) * total, current)
        voltage = torch.einsum("...ij,...j->...i", resistance, current)
        # Voltages are relative to the likeliest class, whose place the other node takes.
        ground = math.sqrt(beta) * _dot(voltage, top.to(q.dtype))
        voltage = voltage.masked_fill(top, 0.0)
        h = 0.5 * (voltage + (beta * voltage - ground) / (beta + 2 * alpha * q))
        jump = alpha * _dot(share, x * q) * (x - exact)
        return (softmax_vjp(exact, h) + jump).to(p.dtype)


def check_penalty(tau: float | None) -> None:
    """Raise ValueError unless `tau` is a finite number >= 0, or None."""
    if tau is not None and not (isinstance(tau, int | float) and 0 <= tau < math.inf):
        raise ValueError(
            f"tau must be a finite number >= 0, or None (the limit of infinite tau), not {tau!r}"
        )


def _resistance(
    q: Float[Tensor, "*batch C"], alpha: float, beta: float
) -> tuple[Float[Tensor, "*batch C C"], Tensor]:
    """Return the inverse of the network's matrix, and where the likeliest class is.

    Grounding that class keeps the matrix well-conditioned, up to the scale of its rows, whatever p
    and tau: every class is joined to it at least half as well as to any other.
    """
    row, column = q.unsqueeze(-1), q.unsqueeze(-2)
    d = beta + alpha * (row + column)
    joined = alpha * row * column / d
    leak = (column / d).sum(-1)
    matrix = torch.diag_embed(joined.sum(-1) + beta * leak) - joined
    top = torch.zeros_like(q).scatter(-1, q.argmax(-1, keepdim=True), 1.0) > 0
    # sqrt(beta) is the unit of this node's voltage: it is cut off, not lost, at beta = 0.
    to_node = -math.sqrt(beta) * leak
    matrix = torch.where(top.unsqueeze(-1), to_node.unsqueeze(-2), matrix)
    matrix = torch.where(top.unsqueeze(-2), to_node.unsqueeze(-1), matrix)
    corner = top.unsqueeze(-1) & top.unsqueeze(-2)
    matrix = torch.where(corner, leak.sum(-1)[..., None, None], matrix)
    # Positive definite by construction: a check would make an accelerator wait.
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L), top


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)
