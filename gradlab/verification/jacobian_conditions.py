r"""The check of a rule from its Jacobians alone, whatever f is.

A rule multiplies a = grad_i f(x) by a matrix whose mean given the class k of x_i is M(k). For f of
degree 1 in each variable a does not depend on x_i, so the rule is exact for every such f if and
only if

.. math:: \sum_k p_k M(k) = J, \quad J = diag(p) - p p^T.

For f of degree 2, x_i^T Q x_i / 2 + b x_i with Q = Q^T and b of the other variables, the mean is
sum_k p_k M(k) (Q e_k + b) and the truth J (diag(Q)/2 + b). The coefficients of Q_ab agree, and the
rule is exact for every such f, if and only if in addition

.. math:: p_a M(a)\,e_b + p_b M(b)\,e_a = \delta_{ab}\,J e_a \quad \text{for all } a, b.

For f = x_a^d, d >= 2, grad f is d e_a at x = e_a and else 0, so that exactness is p_a M(a) e_a =
J e_a / d: no rule of x alone is exact both for degree 2 and for degree 3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits, draw_one_hot, probabilities
from gradlab.estimators import Estimator, PathwiseEstimator, SampleOnlyEstimator
from gradlab.exact.enumeration import check_tables
from gradlab.exact.mechanism import check_mechanism, check_product
from gradlab.exact.moments import NotExactError

__all__ = ["StaticCheck", "static_check"]

_ULPS = 64
# Samples at which a product that is not gradlab's own is tried.
_TRIED = 64


@dataclass(frozen=True)
class StaticCheck:
    """How far the Jacobians of a rule are from the two conditions of exactness, relative to |J|.

    `linear` and `quadratic` are the largest violations over all variables; up to `tolerance` they
    are rounding (or the error of quadrature).
    """

    linear: float
    quadratic: float
    tolerance: float

    @property
    def degree(self) -> int:
        """Degree in each variable up to which the rule is exact for every f: 0, 1 or 2."""
        if self.linear > self.tolerance:
            return 0
        return 1 if self.quadratic > self.tolerance else 2

    def __str__(self) -> str:
        return (
            f"By its Jacobians alone exact for every f of degree {self.degree} in each variable "
            f"(violations: linear {self.linear:.1e}, quadratic {self.quadratic:.1e})."
        )


def static_check(estimator: Estimator, logits: Float[Tensor, "N C"]) -> StaticCheck:
    """Return the check of the mean Jacobians E[M | x] of `estimator` at these logits.

    Raises NotExactError unless it is pathwise and these are known: ST, DARN, ZGR and other rules of
    x alone, GS-ST and Gumbel-Rao; TooLargeError if they would fill the memory. Source: derived;
    Shekhovtsov 2023 (ICML) for ZGR.
    """
    p = probabilities(check_logits(logits, ndim=2).detach().to("cpu", torch.float64))
    tables = None
    if isinstance(estimator, PathwiseEstimator):
        check_mechanism(estimator)
        check_tables(p)
        tables = estimator.conditional_jacobians(p)
        if tables is not None and isinstance(estimator, SampleOnlyEstimator):
            x = draw_one_hot(p, torch.Generator().manual_seed(0), _TRIED)
            check_product(estimator, p, tables[0], x, x)
    if tables is None:
        raise NotExactError(
            f"{estimator} has no Jacobians given x to check; pathwise rules at one-hot x have"
        )
    unit = torch.eye(p.shape[1], dtype=p.dtype)
    jacobian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    weighted = p[..., None, None] * tables[0]  # [N, k, i, j] = p_k M(k)_ij
    linear = weighted.sum(1) - jacobian
    # [N, a, b, i] = p_a M(a) e_b, and the same with a and b exchanged.
    column = weighted.transpose(-1, -2)
    wanted = unit[None, :, :, None] * jacobian.unsqueeze(2)
    quadratic = column + column.transpose(1, 2) - wanted
    size = torch.linalg.matrix_norm(jacobian)
    # The error of the probabilities is absolute: it is not small against a small J.
    rounding = _ULPS * torch.finfo(p.dtype).eps * (1 + _norm(tables[0]))
    return StaticCheck(
        _relative(_norm(linear), size, rounding),
        _relative(_norm(quadratic), size, rounding),
        1e-12 if isinstance(estimator, SampleOnlyEstimator) else 1e-9,
    )


def _norm(of_variable: Float[Tensor, "N ..."]) -> Float[Tensor, " N"]:
    return torch.linalg.vector_norm(of_variable.flatten(1), dim=1)


def _relative(
    violation: Float[Tensor, " N"], size: Float[Tensor, " N"], rounding: Float[Tensor, " N"]
) -> float:
    """Return the largest violation by the size of J, where it is more than rounding."""
    return float(torch.where(violation > rounding, violation / size, 0.0).max())
