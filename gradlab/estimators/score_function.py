r"""Score-function estimators: values of f times the score s = x - p, no gradient of f.

.. math:: E[f(x)\,s] = \nabla_{logits} E f(x)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_finite, is_readable, one_hot, probabilities
from gradlab.estimators._affine import AffineEstimator
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples
from gradlab.loss import Loss, evaluate

__all__ = ["LeaveOneOut", "Reinforce", "check_samples", "leave_one_out"]


@dataclass(frozen=True, repr=False)
class Reinforce(AffineEstimator, SampledValueEstimator):
    r"""REINFORCE, the score-function estimator with a constant baseline.

    .. math:: \hat g = (f(x) - b)\,(x - p)

    Unbiased for every f and every constant b; one evaluation. `fit` finds the best b, which is not
    E f but E f |s|^2 / E |s|^2, s = x - p. Williams 1992 (Machine Learning 8).

    Args:
        baseline: What f is reduced by; `fit` finds the best one.

    Example:
        >>> Reinforce(baseline=0.0)
        REINFORCE(baseline=0)
    """

    baseline: float = 0.0

    name: ClassVar[str] = "REINFORCE"
    aliases: ClassVar[tuple[str, ...]] = ("Score-Function", "SFE")
    family: ClassVar[str] = "score function"
    fitted_fields: ClassVar[tuple[str, ...]] = ("baseline",)
    reference: ClassVar[str] = "Williams 1992, Machine Learning 8:229-256"

    def __post_init__(self) -> None:
        check_finite("baseline", self.baseline)

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of f(x) and (f(x) - b)(x - p)."""
        p = probabilities(logits.detach())
        x = one_hot(classes[0], p)
        value = evaluate(f, x.to(logits.dtype))
        weight = self.score_weights(value.detach())[..., None, None]
        return value, (weight * (x - p)).to(logits.dtype)

    def score_weights(self, values: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."]:
        """Return f - b; see `Estimator.score_weights`."""
        return values - self.baseline

    def variance_given_moments(
        self,
        p: Float[Tensor, "N C"],
        mean: Float[Tensor, ""],
        excess: Float[Tensor, "N C"],
        conditional_square: Float[Tensor, "N C"],
    ) -> Float[Tensor, " N"]:
        """Return E (f - b)^2 |s|^2 - |g|^2 for each variable."""
        shift = mean - self.baseline
        square = conditional_square + 2 * shift * excess + shift**2
        return (p * square * _score_norm2(p)).sum(-1) - (p * excess).pow(2).sum(-1)


@dataclass(frozen=True, repr=False)
class LeaveOneOut(SampledValueEstimator):
    r"""RF(m), REINFORCE with the leave-one-out baseline of m samples (RLOO, LOORF).

    .. math:: \hat g = \frac1{m-1} \sum_j (f(x_j) - \bar f)\,x_j

    Unbiased for every f; m >= 2 evaluations a draw. Salimans & Knowles 2014 (1401.1022); Mnih &
    Rezende 2016 (1602.06725); Kool, van Hoof & Welling 2019 (ICLR workshop).

    Args:
        m: Number of samples of one draw, at least 2.

    Example:
        >>> LeaveOneOut(m=2)
        RF(m=2)
    """

    m: int = 2

    name: ClassVar[str] = "RF"
    aliases: ClassVar[tuple[str, ...]] = ("RLOO", "LOORF", "Leave-One-Out")
    family: ClassVar[str] = "score function"
    reference: ClassVar[str] = "Kool et al. 2019, ICLR workshop DeepRLStructPred"

    def __post_init__(self) -> None:
        check_samples(self.m)

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: m."""
        return self.m

    def score_weights(self, values: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."]:
        """Return f less the mean of the others, over m; see `Estimator.score_weights`."""
        return leave_one_out(values, values.dtype)

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f(x_j) and of the estimate."""
        p = probabilities(logits.detach())
        x = one_hot(classes.flatten(0, 1), p).to(logits.dtype)
        value = evaluate(f, x).unflatten(0, classes.shape[:2])
        weight = leave_one_out(value.detach(), p.dtype)
        # Adding weights at the drawn classes is the sum of weight * x without forming it.
        at = classes.movedim(0, -1)
        weight = weight.movedim(0, -1).unsqueeze(-2).expand(at.shape)
        zeros = p.new_zeros(classes.shape[1], *p.shape)
        add = zeros.scatter_add_ if is_readable(weight) else zeros.scatter_add
        return value.mean(0), add(-1, at, weight).to(logits.dtype)

    def variance_given_moments(
        self,
        p: Float[Tensor, "N C"],
        mean: Float[Tensor, ""],
        excess: Float[Tensor, "N C"],
        conditional_square: Float[Tensor, "N C"],
    ) -> Float[Tensor, " N"]:
        """Return the trace of A/m + (Var f Sigma - (m - 2) g g^T) / (m (m - 1)) for each variable.

        A = E (f - mu)^2 s s^T and Sigma = E s s^T.
        """
        weight = p * _score_norm2(p)
        centred = (weight * conditional_square).sum(-1)
        variance_f = (p[0] * conditional_square[0]).sum()
        gradient2 = (p * excess).pow(2).sum(-1)
        pairs = self.m * (self.m - 1)
        return centred / self.m + (variance_f * weight.sum(-1) - (self.m - 2) * gradient2) / pairs


def _score_norm2(p: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Return |e_k - p|^2 for each class k."""
    return 1 - 2 * p + p.pow(2).sum(-1, keepdim=True)


def leave_one_out(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weights of m samples: f less the mean of the others, over m; [m, *batch].

    Args:
        values: f at the samples, [m, ...].
        dtype: That of the weights; differences are taken in the dtype of the values.
    """
    return (values - values.mean(0)).to(dtype) / (len(values) - 1)


def check_samples(m: int) -> None:
    """Raise ValueError unless m is a number of samples that have a baseline in the others."""
    if not isinstance(m, int) or m < 2:
        raise ValueError(f"m must be an int >= 2 (a baseline needs another sample), not {m!r}")
