r"""Score-function estimators with control variates made from grad f, unbiased for every f.

With p = softmax(logits), s = x - p and V(p) a = p (a - p.a), per variable; the gradients at the
samples of x are taken where f is evaluated anyway, and only correct: no bias comes from them.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from gradlab.categorical import check_finite, one_hot, probabilities, softmax_vjp
from gradlab.estimators._affine import AffineEstimator
from gradlab.estimators.score_function import check_samples
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples
from gradlab.loss import Loss, evaluate, value_and_gradient

__all__ = ["DoubleCV", "MuProp", "RODEO"]


@dataclass(frozen=True, repr=False)
class MuProp(SampledValueEstimator):
    r"""MuProp: the first-order Taylor expansion of f at the mean, p, as baseline.

    .. math:: \hat g_i = [f(x) - f(p) - \nabla f(p) \cdot (x - p)]\,(x_i - p_i)
              + p_i \circ (\nabla_i f(p) - p_i \cdot \nabla_i f(p))

    Unbiased for every f, without variance for linear f; two evaluations, one of them at x = p,
    which f must allow. It can be worse than REINFORCE where f is far from linear. Gu, Levine,
    Sutskever & Mnih 2016 (1511.05176).

    Example:
        >>> MuProp()
        MuProp
    """

    name: ClassVar[str] = "MuProp"
    family: ClassVar[str] = "control variates"
    needs_gradient: ClassVar[bool] = True
    reference: ClassVar[str] = "Gu et al. 2016, arXiv 1511.05176"

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends: 2."""
        return 2

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of f(x) and of the estimate."""
        p = probabilities(logits.detach())
        s = one_hot(classes[0], p) - p
        # One point a draw, as in training, where each row of a batch has its own mean.
        at_mean, slope = value_and_gradient(f, p.to(logits.dtype).expand(s.shape))
        value = evaluate(f, one_hot(classes[0], p).to(logits.dtype))
        slope = slope.to(p.dtype)
        taylor = at_mean.detach().to(p.dtype) + (slope * s).sum((-2, -1))
        weight = value.detach().to(p.dtype) - taylor
        estimate = weight[..., None, None] * s + softmax_vjp(p, slope)
        return value, estimate.to(logits.dtype)


@dataclass(frozen=True, repr=False)
class DoubleCV(AffineEstimator, SampledValueEstimator):
    r"""Double control variate: RF(m) with two corrections by the gradients at the other samples.

    With a_j = grad f(x_j), abar_{-j} their mean without sample j, and h_j = f(x_j) + alpha
    abar_{-j} . (x_j - p), a sum over all variables:

    .. math:: \hat g_i = \frac1m \sum_j \Big(h_j - \frac1{m-1} \sum_{l \ne j} h_l\Big)(x_{ji} - p_i)
              - \frac{\alpha}m \sum_j p_i \circ (a_{ji} - p_i \cdot a_{ji})

    Unbiased for every f and every alpha; 0 is RF(m), -1 has no variance for linear f; m >= 2
    evaluations. `fit` finds the best alpha. Titsias & Shi 2022 (2111.05300), here for
    any number of classes.

    Args:
        m: Number of samples of one draw, at least 2.
        alpha: Weight of the control variates.

    Example:
        >>> DoubleCV(m=2, alpha=-1.0)
        DoubleCV(m=2, alpha=-1)
    """

    m: int = 2
    alpha: float = -1.0

    name: ClassVar[str] = "DoubleCV"
    aliases: ClassVar[tuple[str, ...]] = ("Double-CV",)
    family: ClassVar[str] = "control variates"
    fitted_fields: ClassVar[tuple[str, ...]] = ("alpha",)
    needs_gradient: ClassVar[bool] = True
    reference: ClassVar[str] = "Titsias & Shi 2022, arXiv 2111.05300"

    def __post_init__(self) -> None:
        check_samples(self.m)
        check_finite("alpha", self.alpha)

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: m."""
        return self.m

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f(x_j) and of the estimate."""
        p, s, value, a = _at_samples(f, logits, classes)
        along = (_mean_of_others(a) * s).sum((-2, -1))
        h = value.detach().to(p.dtype) + self.alpha * along
        weight = (h - _mean_of_others(h))[..., None, None]
        estimate = (weight * s).mean(0) - self.alpha * softmax_vjp(p, a.mean(0))
        return value.mean(0), estimate.to(logits.dtype)


@dataclass(frozen=True, repr=False)
class RODEO(AffineEstimator, SampledValueEstimator):
    r"""RODEO with linear functions: RF(m) with control variates from a Gibbs-Stein operator.

    (A h)(x) = mean over i of E[h | x_{-i}] - h(x) has mean zero for every h. With abar_{-j} as in
    DoubleCV, s_j = x_j - p and w_j = abar_{-j} . s_j (a sum over all variables), h_j(y) = abar_{-j}
    . y and H_j(y) = abar_{-j} . (y - p) (y - p) give

    .. math:: (A h_j)(x_j) = -w_j / N, \quad (A H_j)_i(x_j) = \tfrac1N [p_i \circ (\bar a_{-j,i} -
              p_i \cdot \bar a_{-j,i}) - 2 w_j s_{ji} + (\bar a_{-j,i} \cdot s_{ji})\,s_{ji}]

    .. math:: \hat g = \frac1m \sum_j \Big[\Big(f_j - \frac1{m-1} \sum_{l \ne j} (f_l + \alpha\,(A
              h_l)(x_l))\Big) s_j + \beta\,(A H_j)(x_j)\Big]

    Unbiased for every f and all alpha, beta; m >= 2 evaluations. `fit` finds the best ones. The
    published method makes h and H by a network, which is trained. Shi, Zhou, Hwang, Titsias &
    Mackey 2022 (2202.09497).

    Args:
        m: Number of samples of one draw, at least 2.
        alpha: Weight of the scalar control variates.
        beta: Weight of the vector control variates.

    Example:
        >>> RODEO(m=2, alpha=2.0, beta=1.0)
        RODEO(m=2, alpha=2, beta=1)
    """

    m: int = 2
    alpha: float = 2.0
    beta: float = 1.0

    name: ClassVar[str] = "RODEO"
    family: ClassVar[str] = "control variates"
    fitted_fields: ClassVar[tuple[str, ...]] = ("alpha", "beta")
    needs_gradient: ClassVar[bool] = True
    reference: ClassVar[str] = "Shi et al. 2022, arXiv 2202.09497"

    def __post_init__(self) -> None:
        check_samples(self.m)
        check_finite("alpha", self.alpha)
        check_finite("beta", self.beta)

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: m."""
        return self.m

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f(x_j) and of the estimate."""
        p, s, value, a = _at_samples(f, logits, classes)
        variables = s.shape[-2]
        others = _mean_of_others(a)
        each = (others * s).sum(-1, keepdim=True)
        w = each.sum(-2, keepdim=True)
        level = value.detach().to(p.dtype)
        corrected = level - self.alpha / variables * w[..., 0, 0]
        weight = (level - _mean_of_others(corrected))[..., None, None]
        direct = (softmax_vjp(p, others) - 2 * w * s + each * s) / variables
        estimate = (weight * s + self.beta * direct).mean(0)
        return value.mean(0), estimate.to(logits.dtype)


def _at_samples(
    f: Loss, logits: Tensor, classes: Int[Tensor, "m n *batch N"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return p, and s, f and grad f at each sample [m, n, ...]."""
    p = probabilities(logits.detach())
    x = one_hot(classes.flatten(0, 1), p)
    value, a = value_and_gradient(f, x.to(logits.dtype))
    several = classes.shape[:2]
    s = (x - p).unflatten(0, several)
    return p, s, value.unflatten(0, several), a.to(p.dtype).unflatten(0, several)


def _mean_of_others(values: Tensor) -> Tensor:
    """Return for each of m values [m, ...] the mean of the others."""
    return (values.sum(0) - values) / (len(values) - 1)
