"""Exact mean and variance of an estimator, from one enumeration of f.

What a call takes in place of f and logits, an `Enumeration`, is here too, and how a call takes it.
"""

import time
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import (
    check_floating,
    check_logits,
    draw_one_hot,
    one_hot,
    probabilities,
)
from gradlab.estimators import (
    IMLE,
    Estimator,
    LeaveOneOut,
    PathwiseEstimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
    ValueEstimator,
)
from gradlab.exact.direct import (
    DirectPart,
    centred_scores,
    direct_part,
    direct_variance,
    products,
)
from gradlab.exact.enumeration import (
    GradientMoments,
    Space,
    ValueMoments,
    check_states,
    check_tables,
    gradient_moments,
    value_moments,
)
from gradlab.exact.mechanism import (
    check_estimate,
    check_mechanism,
    check_product,
    check_pullback,
    is_shipped,
)
from gradlab.exact.perturbed import imle_moments
from gradlab.exact.product_moments import moments_of_product, moments_over_states
from gradlab.exact.routes import SecondRoute, second_route
from gradlab.exact.tabulated import Tabulated, count_states
from gradlab.exact.tuples import NotExactError, some_tuples, tuple_moments, tuple_seconds
from gradlab.loss import Loss, evaluate, gradient
from gradlab.loss.gate import Objective, checked, name_of
from gradlab.moments import Moments
from gradlab.reproducible import block_generator, single_thread
from gradlab.version import REMOVAL

__all__ = [
    "Enumerated",
    "EnumeratedBatch",
    "Enumeration",
    "NotExactError",
    "enumerated",
]


@dataclass(frozen=True)
class Enumeration:
    """A loss at some logits, enumerated at most once for its values and once for its gradients.

    Give it in place of f and logits to `compare`, `verify`, `recommend` and `exact_moments`: it
    then serves all calls, estimators and temperatures. f is kept as an `Objective`. The logits are
    copied, in float64: what happens to the tensor later does not change the enumeration.

    Args:
        f: The loss, x [..., N, C] -> [...], or f(x, logits) marked by `gradlab.with_parameters`.
        logits: The parameters [N, C]. Their dtype and device are those in which f is given x.

    Raises:
        LossError: If f breaks its contract; the subclass names the fault.
        TypeError, ValueError: If logits are not a floating-point tensor [N, C], or hold NaN.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> on = Enumeration(problem("quadratic", 2, 3), regime("moderate", 2, 3))
        >>> gradlab.compare(on, estimators=["ZGR", "RF"])["bias2"].lt(1e-20).tolist()
        [True, True]
    """

    f: Loss
    logits: Float[Tensor, "N C"]
    _given: tuple[torch.device, torch.dtype] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_logits(self.logits, ndim=2)
        object.__setattr__(self, "f", checked(self.f, self.logits))
        object.__setattr__(self, "_given", (self.logits.device, self.logits.dtype))
        object.__setattr__(self, "logits", _kept(self.logits))

    @property
    def caller_logits(self) -> Float[Tensor, "N C"]:
        """The logits in the dtype and on the device in which they were given."""
        return self.logits.to(*self._given, copy=True)

    @property
    def objective(self) -> Objective:
        """f as the engine calls it."""
        assert isinstance(self.f, Objective)
        return self.f

    @cached_property
    def values(self) -> ValueMoments:
        """Moments of f."""
        return value_moments(self.f, self.logits)

    @cached_property
    def second_route(self) -> SecondRoute:
        """How far the gradient is from its second route, by another sweep of f."""
        return second_route(self.values, self.f, self.logits)

    @cached_property
    def gradients(self) -> GradientMoments:
        """Moments of grad f."""
        return gradient_moments(self.f, self.logits)

    @cached_property
    def direct(self) -> DirectPart | None:
        """E df/dlogits, where f sees the logits; else None."""
        objective = self.objective
        return None if objective.second is None else direct_part(objective, self.logits)

    @property
    def gradient(self) -> Float[Tensor, "N C"]:
        """The true gradient, float64: E[f s], and E df/dlogits where f sees the logits."""
        first = self.values.gradient
        return first if self.direct is None else first + self.direct.mean

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of `estimator`; see `gradlab.exact_moments`."""
        check_mechanism(estimator)
        given = self.logits.clone()
        refused = estimator.refusal(given)
        if refused is not None:
            raise NotExactError(refused)
        if not torch.equal(given, self.logits):
            raise NotExactError(f"{estimator} writes into the logits that it is asked about")
        # Before any table is made: it would be of no use.
        check_states(self.logits)
        if isinstance(estimator, IMLE):
            return imle_moments(self.f, self.logits, estimator.lam)
        if isinstance(estimator, PathwiseEstimator):
            if isinstance(estimator, SampleOnlyEstimator) and self._is_wide:
                whole = moments_over_states(estimator, self.f, self.logits)
                some = self._some_states
                check_pullback(estimator, self.values.p, some, self.objective.trained)
                return self._with_direct(whole, estimator, None)
            jacobians = self.jacobians(estimator)
            if jacobians is not None:
                found = moments_of_product(self.gradients, *jacobians)
                return self._with_direct(found, estimator, jacobians[0])
        elif isinstance(estimator, ValueEstimator):
            # A variance that is a formula belongs to a mean that is known, so to gradlab's own.
            known = self.direct is None or isinstance(estimator, LeaveOneOut)
            if is_shipped(estimator) and known:
                v = self.values
                variance = estimator.variance_given_moments(
                    v.p, v.mean, v.excess, v.conditional_square
                )
                if variance is not None:
                    return self._with_direct(Moments(v.gradient, variance), estimator, None)
            if isinstance(estimator, SampledValueEstimator):
                mean, square = tuple_moments(estimator, self.f, self.logits)
                self.check_estimate(estimator)
                return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))
        raise NotExactError(
            f"no exact moments are known for {estimator}; use monte_carlo(...) instead"
        )

    def _with_direct(self, first: Moments, estimator: Estimator, table: Tensor | None) -> Moments:
        """Return the moments of the whole estimate, given those of its part without df/dlogits."""
        if self.direct is None:
            return first
        f, D = self.objective, self.direct.mean
        if isinstance(estimator, PathwiseEstimator):
            samples, given = 1, products(estimator, f, self.values.p, table)
        else:
            assert isinstance(estimator, LeaveOneOut)
            samples, given = estimator.m, centred_scores(self.values, f)
        more = direct_variance(given, first.mean, f, self.logits, D) / samples
        return Moments(first.mean + D, (first.variance_per_variable + more).clamp_min(0.0))

    @property
    def _is_wide(self) -> bool:
        """Whether all states are fewer than the entries of tables of C^3 by far."""
        wide = self.logits.numel() * self.logits.shape[1] ** 2 > _WIDE
        return wide and count_states(self.logits) * self.logits.numel() <= _STATES_ELEMENTS

    def seconds(self, estimator: Estimator) -> float:
        """Return about how long exact moments of `estimator` take, without sweeps of f."""
        return _table_seconds(estimator, self.logits)

    def sweep_seconds(self) -> float:
        """Return about how long one sweep of f takes; measured, by a part of it."""
        states = count_states(self.logits)
        x = one_hot(self.logits.argmax(-1), self.logits).expand(min(states, _TIMED), -1, -1)
        with single_thread(), torch.no_grad():
            start = time.perf_counter()
            evaluate(self.f, x.contiguous())
            return (time.perf_counter() - start) * states / len(x)

    def jacobians(self, estimator: PathwiseEstimator) -> tuple[Tensor, Tensor] | None:
        """Return E[M | x = k] and E[M^T M | x = k] of an estimator, or None if not known.

        Raises NotExactError where its product is not a fixed matrix for each class, TooLargeError
        where the tables would fill the memory.
        """
        check_tables(self.logits)
        p = probabilities(self.logits)
        jacobians = estimator.conditional_jacobians(p)
        if isinstance(estimator, SampleOnlyEstimator) and not is_shipped(estimator):
            assert jacobians is not None
            x = self._some_states
            v = gradient(self.f, x).to(p.dtype)
            check_product(estimator, p, jacobians[0], x, v, self.objective.trained)
        return jacobians

    @property
    def _some_states(self) -> Float[Tensor, "n N C"]:
        """All states where they are few, else some that are drawn."""
        if count_states(self.logits) <= _TRIED:
            return Space(self.logits).block
        source = block_generator(0, "states")
        return draw_one_hot(probabilities(self.logits), source, _TRIED)

    def check_estimate(self, estimator: SampledValueEstimator) -> None:
        """Raise NotExactError unless a written estimate is a function of its samples alone."""
        if is_shipped(estimator):
            return
        classes = some_tuples(estimator, self.logits, _TRIED)
        check_estimate(estimator, self.f, self.logits, classes, self.objective.trained)


# Entries of tables from which on the states themselves are used, and numbers of x at all states.
_WIDE, _STATES_ELEMENTS = 2**22, 2**25
# States by which a sweep is timed.
_TIMED = 1024
# States, or tuples of samples, at which what a class writes is tried.
_TRIED = 2**8


class EnumeratedBatch:
    """A loss at a batch of logits, each element of which is enumerated.

    It is given in place of f and logits as an `Enumeration` is. All elements are read from one
    table of f, which is evaluated for the whole batch together.

    Args:
        f: The loss, x [..., B, N, C] -> [..., B]: one objective for each element.
        logits: The parameters [B, N, C]; they are copied.

    Raises:
        LossError: If f breaks its contract; the subclass names the fault.
        TypeError, ValueError: If logits are not a floating-point tensor [B, N, C], or hold NaN.

    Example:
        >>> from gradlab.problems import problem, regime
        >>> f = problem("quadratic", 2, 3)
        >>> logits = torch.stack([regime("moderate", 2, 3), regime("peaked", 2, 3)])
        >>> EnumeratedBatch(f, logits).gradient.shape
        torch.Size([2, 2, 3])
    """

    def __init__(self, f: Loss, logits: Float[Tensor, "B N C"]) -> None:
        check_logits(logits, ndim=3)
        self.objective = checked(f, logits)
        self._given = logits.device, logits.dtype
        self.logits = _kept(logits)

    @property
    def caller_logits(self) -> Float[Tensor, "B N C"]:
        """The logits in the dtype and on the device in which they were given."""
        return self.logits.to(*self._given, copy=True)

    @cached_property
    def elements(self) -> list[Enumeration]:
        """An enumeration of each element, on one table of f."""
        return [Enumeration(self.tabulated.element(b), row) for b, row in enumerate(self.logits)]

    @cached_property
    def tabulated(self) -> Tabulated:
        """The table of f that all elements are read from."""
        return Tabulated(self.objective, self.logits)

    @cached_property
    def gradient(self) -> Float[Tensor, "B N C"]:
        """The true gradient of each element, float64."""
        return torch.stack([element.gradient for element in self.elements])

    def seconds(self, estimator: Estimator) -> float:
        """Return about how long exact moments of `estimator` take, without sweeps of f."""
        return len(self.logits) * _table_seconds(estimator, self.logits[0])

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of one draw for each element; see `gradlab.exact_moments`."""
        found = [element.moments(estimator) for element in self.elements]
        return Moments(
            torch.stack([moments.mean for moments in found]),
            torch.stack([moments.variance_per_variable for moments in found]),
        )


Enumerated = Enumeration | EnumeratedBatch
"""What a call takes in place of f and logits."""


def enumerated(
    f: Loss | Enumerated,
    logits: Tensor | None = None,
    enumeration: Enumerated | None = None,
    *,
    batches: bool = True,
) -> Enumerated:
    """Return the enumeration that a call is about: that given in place of f, or of f at logits.

    Args:
        f: A loss, or an enumeration in its place.
        logits: [N, C] or [B, N, C], with a loss; nothing with an enumeration.
        enumeration: Deprecated: an enumeration of this f at these logits beside them.
        batches: Whether logits [B, N, C] are allowed.

    Returns:
        The enumeration, an `EnumeratedBatch` for logits [B, N, C].

    Raises:
        TypeError: If there are both an enumeration and logits, or neither.
        ValueError: If the shape is not allowed, or `enumeration` is of another f, of other logits
            or of another dtype.
        LossError: If f breaks its contract.
    """
    if isinstance(f, Enumerated):
        if logits is not None or enumeration is not None:
            beside = "logits were" if logits is not None else "enumeration= was"
            raise TypeError(
                f"{beside} given beside an Enumeration, which has f and logits of its own: leave "
                "them out, and name what follows, as in compare(on, estimators=[...])"
            )
        on = f
    elif logits is None:
        raise TypeError("logits are missing: give (f, logits), or an Enumeration in place of f")
    elif enumeration is not None:
        warnings.warn(
            f"enumeration= is deprecated and goes in {REMOVAL}: give the Enumeration in place of f "
            "and logits, as in compare(on, estimators=[...])",
            DeprecationWarning,
            stacklevel=4,
        )
        _check_is_of(enumeration, f, logits)
        on = enumeration
    else:
        check_floating(logits)
        whole = logits.ndim == 3 and batches
        return EnumeratedBatch(f, logits) if whole else Enumeration(f, logits)
    if not batches:
        check_logits(on.logits, ndim=2)
    return on


def _check_is_of(on: Enumerated, f: Loss, logits: Tensor) -> None:
    """Raise ValueError unless this is an enumeration of f at these logits, in their dtype."""
    check_floating(logits)
    made, given = (str(x.dtype).removeprefix("torch.") for x in (on.caller_logits, logits))
    if f is not on.objective and f is not on.objective.f:
        fault = f"is of {name_of(on.objective)}, not of the f that is given, {name_of(f)}"
    elif made != given:
        fault = f"was made at {made} logits, not at {given} ones as are given"
    elif not torch.equal(_kept(logits), on.logits):
        fault = "was made at other logits than those that are given"
    else:
        return
    raise ValueError(f"enumeration {fault}; give it alone, in place of f and logits")


def _kept(logits: Tensor) -> Tensor:
    """Return a copy of the logits as they are kept: float64, on the CPU."""
    return logits.detach().to("cpu", torch.float64, copy=True)


def _table_seconds(estimator: Estimator, logits: Float[Tensor, "N C"]) -> float:
    if isinstance(estimator, SampledValueEstimator):
        return tuple_seconds(estimator, logits)
    return estimator.table_seconds(*logits.shape) if isinstance(estimator, PathwiseEstimator) else 0
