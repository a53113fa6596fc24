"""The exact bias of an estimator: its mean by enumeration, the truth on two independent routes.

Nothing is taken from what an estimator declares: pathwise rules are put to each class, functions of
m samples to each m-tuple of configurations. What remains is rounding, which is bounded.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import one_hot
from gradlab.estimators import (
    Estimator,
    PathwiseEstimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
)
from gradlab.exact.mechanism import check_mechanism
from gradlab.exact.moments import Enumerated, Enumeration, enumerated
from gradlab.exact.rounding import (
    DOUBLE,
    INNER_ULPS,
    SINGLE,
    STEP_ULPS,
    VALUE_ULPS,
    gradient_scale,
    law_rounding,
    sum_ulps,
)
from gradlab.exact.routes import TruthError
from gradlab.exact.tuples import NotExactError, tuple_sums
from gradlab.loss import Loss, evaluate, value_and_gradient
from gradlab.reproducible import single_thread

__all__ = ["ExactBias", "TruthError", "exact_bias"]

# Of each entry of E[M | x] from quadrature.
_TABLE_ACCURACY = 1e-10


@dataclass(frozen=True)
class ExactBias:
    """Expectation of one draw against the true gradient, both [N, C], float64, in units of f.

    `bound`: what |mean - truth| may be by arithmetic alone. It adds up what
    `gradlab.exact.rounding` derives, each so many units in the last place of a measured mean:

    - float64 sums: `sum_ulps` of float64, of E |draw| (or root E |M|^2 |grad f|^2 for a product
      M grad f, as M may cancel most of grad f), and of E |f - E f| |s| for the truth;
    - x - p and M at nearly sure classes: 16 of float64, of E |f| (or root E |grad f|^2);
    - last bits of f: 2 of its own unit, of E |f| |s|, and twice what two sweeps saw it change;
    - for f(x, logits): 32 of its unit, or of the dtype that trains, of E |df/dlogits|;
    - for a product M grad f, inside of f: 32 of its unit, of root E |M|^2 |grad f|^2 and of E |f -
      E f| |s|; for the Gumbel family also the error of its tables of E[M | x], 1e-10 an entry.

    A bias below the bound, as at nearly sure classes, is not seen. `sums`: what rounding may change
    in the sums of the truth; a shorter gradient may be 0. `deviation`: root of the
    variance of one draw. `route`: how the mean was found. `eps`: the unit of f; `size_of_f` and
    `spread_of_f`: E |f| and E |f - E f|.
    """

    truth: Float[Tensor, "N C"]
    mean: Float[Tensor, "N C"]
    deviation: float
    bound: float
    route: str
    sums: float = 0.0
    eps: float = DOUBLE
    size_of_f: float = 0.0
    spread_of_f: float = 0.0

    @property
    def bias(self) -> Float[Tensor, "N C"]:
        """The mean minus the truth."""
        return self.mean - self.truth

    @property
    def size(self) -> float:
        """Length of the bias."""
        return float(torch.linalg.vector_norm(self.bias))

    @property
    def is_zero(self) -> bool:
        """Whether rounding explains the bias."""
        return self.size <= self.bound

    @property
    def has_gradient(self) -> bool:
        """Whether the truth is more than the rounding of the sums that it is made of."""
        return float(torch.linalg.vector_norm(self.truth)) > self.sums

    @property
    def unit(self) -> float:
        """What rounding is compared with: the gradient, or, where that is 0, what a draw varies.

        Infinite where nothing varies: f is one number, at every x, and so is its mean.
        """
        if self.has_gradient:
            return float(torch.linalg.vector_norm(self.truth))
        return max(self.deviation, self.spread_of_f) or math.inf


@single_thread()
def exact_bias(
    estimator: Estimator,
    f: Loss | Enumeration,
    logits: Float[Tensor, "N C"] | None = None,
    enumeration: Enumerated | None = None,
) -> ExactBias:
    """Return the exact bias of one draw of `estimator`.

    The truth is p (E[f | x_i = c] - E f), which must equal sum_x p(x) f(x) differentiated through
    log softmax.

    Args:
        estimator: The estimator.
        f: The loss, or an `Enumeration` in place of f and logits, which serves several calls.
        logits: The parameters [N, C].
        enumeration: Deprecated: an enumeration of f at these logits, beside them.

    Returns:
        The bias, and how much of it rounding may be.

    Raises:
        NotExactError: If the mean is not known exactly (as of GS, ARSM; more than 2^20 tuples of
            samples; a class that overrides what is enumerated).
        TruthError: If the two routes disagree.
        LossError: If f breaks its contract; and what `exact_moments` raises.

    Example:
        >>> from gradlab.estimators import DARN, ZGR
        >>> from gradlab.problems import problem, regime
        >>> on = Enumeration(problem("quadratic", 2, 3), regime("moderate", 2, 3))
        >>> [exact_bias(estimator, on).is_zero for estimator in (ZGR(), DARN())]
        [True, False]
    """
    on = enumerated(f, logits, enumeration, batches=False)
    assert isinstance(on, Enumeration)
    check_mechanism(estimator)
    if isinstance(estimator, PathwiseEstimator):
        found = _over_states(estimator, on)
    elif isinstance(estimator, SampledValueEstimator):
        found = _over_tuples(estimator, on)
    else:
        raise NotExactError(f"no exact mean is known for {estimator}; use draws instead")
    try:
        in_its_dtype = _compared(found, on, on.objective.eps)
    except TruthError:
        if not _hides_single(on):
            raise
        return _compared(found, on, SINGLE)
    if in_its_dtype.is_zero or not _hides_single(on):
        return in_its_dtype
    return _compared(found, on, SINGLE)


@dataclass(frozen=True)
class _Mean:
    """A mean with what its rounding depends on.

    `size`: the mean of absolute values that were summed, over so many `terms`; `more`: what else is
    off in float64; `inner`: root E |M|^2 |grad f|^2 where f was differentiated.
    """

    mean: Tensor
    variance: float
    route: str
    terms: int
    size: float
    more: float
    inner: float | None = None


def _over_states(estimator: PathwiseEstimator, on: Enumeration) -> _Mean:
    """Return the mean of M grad f by the moments of grad f at every x."""
    moments, a = on.moments(estimator), on.gradients
    route, more = "every x enumerated", 0.0
    if isinstance(estimator, SampleOnlyEstimator):
        factor = estimator.conditional_jacobians(a.p)[0]
        scale = gradient_scale(a.p, a.mean, a.covariance, factor)
    else:
        route += ", quadrature given x"
        scale = gradient_scale(a.p, a.mean, a.covariance, torch.ones_like(a.covariance))
        more = _TABLE_ACCURACY * scale
    more += STEP_ULPS * DOUBLE * gradient_scale(a.p, a.mean, a.covariance)
    terms = on.values.table.numel()
    return _Mean(moments.mean, moments.variance.value, route, terms, scale, more, inner=scale)


def _over_tuples(estimator: SampledValueEstimator, on: Enumeration) -> _Mean:
    """Return the mean of the code itself, at every tuple of its samples."""
    # Before any sweep: it may be of no use.
    sums = tuple_sums(estimator, on.f, on.logits)
    on.check_estimate(estimator)
    each = "every x" if estimator.samples == 1 else f"every {estimator.samples}-tuple of x"
    variance = float(sums.square.sum()) - float(sums.mean.square().sum())
    N = len(on.logits)
    more = STEP_ULPS * math.sqrt(N) * DOUBLE * on.values.sizes.f
    more += law_rounding(estimator, sums.plain, N)
    terms = on.values.table.numel() ** estimator.samples
    return _Mean(sums.mean, max(variance, 0.0), f"{each} enumerated", terms, sums.size, more)


def _compared(found: _Mean, on: Enumeration, unit: float) -> ExactBias:
    """Return the bias if f computes in this unit; raise TruthError if the two routes disagree."""
    second, sizes, shape = on.second_route, on.values.sizes, on.logits.shape
    second.check(unit)
    bound = sum_ulps(found.terms, shape) * DOUBLE * found.size + found.more
    bound += sizes.sums(found.terms, shape)
    bound += VALUE_ULPS * unit * sizes.f_score + 2 * second.values
    if found.inner is not None:
        bound += INNER_ULPS * unit * (found.inner + sizes.centred_score)
    if on.direct is not None:
        # The truth and the mean each have E df/dlogits, made in the arithmetic that trains.
        coarse = max(unit, torch.finfo(on.objective.trained).eps)
        bound += INNER_ULPS * coarse * on.direct.size
    return ExactBias(
        on.gradient,
        found.mean,
        math.sqrt(found.variance),
        bound,
        found.route,
        sums=second.sums,
        eps=unit,
        size_of_f=sizes.f,
        spread_of_f=sizes.centred,
    )


def _hides_single(on: Enumeration) -> bool:
    """Return whether f computes in float32 inside, though its values look like float64.

    In float64 a step of 2^-30 changes f by its slope; in float32 such a step is lost.
    """
    if on.objective.eps >= SINGLE:
        return False
    x = one_hot(on.logits.argmax(-1), on.logits).unsqueeze(0)
    source = torch.Generator().manual_seed(0)
    step = 2.0**-30 * torch.rand(x.shape, generator=source, dtype=x.dtype)
    try:
        value, slope = value_and_gradient(on.objective, x, keep_graph=False)
        value = value.detach()
        change = evaluate(on.objective, x + step).detach() - value
    except Exception:  # no gradient, or no relaxed x
        return False
    expected = float((slope * step).sum())
    noise = 8 * torch.finfo(x.dtype).eps * float(value.abs().max())
    return abs(expected) > noise and abs(float(change) - expected) > 0.5 * abs(expected)
