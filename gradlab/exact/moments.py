r"""Exact mean and variance of an estimator, from one enumeration of f.

A pathwise estimate is M_i a_i for each variable, with a = grad f(x) and M_i depending on the class
k of x_i alone, so with E[M|k], E[M^T M|k] and the moments of a_i given k nothing is left to sample:

.. math:: E \hat g_i = \sum_k p_{ik}\,\bar M_{ik}\,\bar a_{ik}, \quad
          E |\hat g_i|^2 = \sum_k p_{ik} \langle E[M^T M | k],\ Cov(a_i|k) + \bar a_{ik} \bar
          a_{ik}^T \rangle
"""

import time
from dataclasses import dataclass
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
    Estimator,
    PathwiseEstimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
    ValueEstimator,
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
from gradlab.exact.routes import SecondRoute, second_route
from gradlab.exact.tabulated import Tabulated, count_states
from gradlab.exact.tuples import NotExactError, some_tuples, tuple_moments
from gradlab.loss import Loss, evaluate, gradient
from gradlab.loss.gate import Objective, checked, name_of
from gradlab.moments import Moments
from gradlab.reproducible import block_generator, single_thread

__all__ = ["EnumeratedBatch", "Enumeration", "NotExactError", "exact_moments"]


@dataclass(frozen=True)
class Enumeration:
    """One problem, enumerated at most once for values and once for gradients of f.

    Passed to `compare` or `verify` it serves all estimators and temperatures. f passes the gate
    here and is kept as an `Objective`; the logits are kept in float64. Raises LossError for an f
    that breaks its contract, by the subclass that names the fault.
    """

    f: Loss
    logits: Float[Tensor, "N C"]

    def __post_init__(self) -> None:
        check_logits(self.logits, ndim=2)
        object.__setattr__(self, "f", checked(self.f, self.logits))
        object.__setattr__(self, "logits", self.logits.detach().to("cpu", torch.float64))

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

    @property
    def gradient(self) -> Float[Tensor, "N C"]:
        """The true gradient, float64."""
        return self.values.gradient

    def check_is_of(self, f: Loss, logits: Float[Tensor, "N C"]) -> None:
        """Raise ValueError unless this is an enumeration of f at these logits."""
        if f is not self.f and f is not self.objective.f:
            raise ValueError(
                f"enumeration is of {name_of(self.f)}, not of the f that is given, {name_of(f)}; "
                "give the f that it was made with"
            )
        if not torch.equal(logits.detach().to("cpu", torch.float64), self.logits):
            raise ValueError("enumeration was made at other logits than those that are given")

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of `estimator`; see `exact_moments`."""
        check_mechanism(estimator)
        given = self.logits.clone()
        refused = estimator.refusal(given)
        if refused is not None:
            raise NotExactError(refused)
        if not torch.equal(given, self.logits):
            raise NotExactError(f"{estimator} writes into the logits that it is asked about")
        # Before any table is made: it would be of no use.
        check_states(self.logits)
        if isinstance(estimator, PathwiseEstimator):
            if isinstance(estimator, SampleOnlyEstimator) and self._is_wide:
                return self._over_states(estimator)
            jacobians = self.jacobians(estimator)
            if jacobians is not None:
                return _pathwise(self.gradients, *jacobians)
        elif isinstance(estimator, ValueEstimator):
            # A variance that is a formula belongs to a mean that is known, so to gradlab's own.
            if is_shipped(estimator):
                v = self.values
                found = estimator.variance_given_moments(
                    v.p, v.mean, v.excess, v.conditional_square
                )
                if found is not None:
                    return Moments(v.gradient, found)
            if isinstance(estimator, SampledValueEstimator):
                mean, square = tuple_moments(estimator, self.f, self.logits)
                self.check_estimate(estimator)
                return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))
        raise NotExactError(
            f"no exact moments are known for {estimator}; use monte_carlo(...) instead"
        )

    @property
    def _is_wide(self) -> bool:
        """Whether all states are fewer than the entries of tables of C^3 by far."""
        wide = self.logits.numel() * self.logits.shape[1] ** 2 > _WIDE
        return wide and count_states(self.logits) * self.logits.numel() <= _STATES_ELEMENTS

    def _over_states(self, estimator: SampleOnlyEstimator) -> Moments:
        """Return the moments by the product at every state: no table of C x C matrices."""
        p = self.values.p
        mean = torch.zeros_like(p)
        square = p.new_zeros(len(p))
        space = Space(self.logits)
        for prefix_p, _ in space.prefixes():
            for x, weight in zip(space.block.split(_PART), space.block_p.split(_PART), strict=True):
                g = estimator.pullback(p, x, gradient(self.f, x).to(p.dtype))
                mean += prefix_p * torch.einsum("n,nic->ic", weight, g)
                square += prefix_p * (weight @ g.square().sum(-1))
        check_pullback(estimator, p, self._some_states, self.objective.trained)
        return Moments(mean, (square - mean.square().sum(-1)).clamp_min(0.0))

    def seconds(self, estimator: Estimator) -> float:
        """Return about how long exact moments of `estimator` take, without sweeps of f."""
        return _table_seconds(estimator, *self.logits.shape)

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


# Entries of tables from which on the states themselves are used, numbers of x at all states, and
# states at a time.
_WIDE, _STATES_ELEMENTS, _PART = 2**22, 2**25, 2**10
# States by which a sweep is timed.
_TIMED = 1024
# States, or tuples of samples, at which what a class writes is tried.
_TRIED = 2**8


class EnumeratedBatch:
    """f: x [..., B, N, C] -> [..., B] with logits [B, N, C], each element enumerated.

    Raises LossError for an f that breaks its contract.
    """

    def __init__(self, f: Loss, logits: Float[Tensor, "B N C"]) -> None:
        check_logits(logits, ndim=3)
        self.objective = checked(f, logits)
        self.logits = logits.detach().to("cpu", torch.float64)

    @cached_property
    def elements(self) -> list[Enumeration]:
        """An enumeration of each element, on one table of f."""
        table = Tabulated(self.objective, self.logits)
        return [Enumeration(table.element(b), row) for b, row in enumerate(self.logits)]

    @cached_property
    def gradient(self) -> Float[Tensor, "B N C"]:
        """The true gradient of each element, float64."""
        return torch.stack([element.values.gradient for element in self.elements])

    def seconds(self, estimator: Estimator) -> float:
        """Return about how long exact moments of `estimator` take, without sweeps of f."""
        return len(self.logits) * _table_seconds(estimator, *self.logits.shape[1:])

    def moments(self, estimator: Estimator) -> Moments:
        """Return the exact moments of one draw for each element; see `exact_moments`."""
        found = [element.moments(estimator) for element in self.elements]
        return Moments(
            torch.stack([moments.mean for moments in found]),
            torch.stack([moments.variance_per_variable for moments in found]),
        )


def exact_moments(estimator: Estimator, f: Loss, logits: Float[Tensor, "*batch N C"]) -> Moments:
    """Return mean and variance of one draw of `estimator` without sampling, float64.

    A value estimator for which no formula is known is put to every tuple of its samples. For logits
    [B, N, C] f maps x [..., B, N, C] to [..., B], and the moments have the axis B in front.

    Raises LossError for an f that breaks its contract, NotExactError where moments are not known
    (as of GS, ARSM, REBAR, or of a class that overrides what is enumerated) or the estimator
    refuses the logits, NotDifferentiableError, TooLargeError, QuadratureError (Gumbel family at
    extreme temperatures).
    """
    check_floating(logits)
    on = EnumeratedBatch(f, logits) if logits.ndim == 3 else Enumeration(f, logits)
    return on.moments(estimator)


def _table_seconds(estimator: Estimator, variables: int, classes: int) -> float:
    if not isinstance(estimator, PathwiseEstimator):
        return 0.0
    return estimator.table_seconds(variables, classes)


def _pathwise(a: GradientMoments, first: Tensor, second: Tensor) -> Moments:
    p = a.p
    given = torch.einsum("nkij,nkj->nki", first, a.mean)
    mean = torch.einsum("nk,nki->ni", p, given)
    # Three terms that are each >= 0, instead of a difference of two large numbers.
    of_gradient = torch.einsum("nk,nkij,nkij->n", p, second, a.covariance)
    inner = second - first.transpose(-1, -2) @ first
    of_noise = torch.einsum("nk,nki,nkij,nkj->n", p, a.mean, inner, a.mean)
    of_class = torch.einsum("nk,nki->n", p, (given - mean[:, None]).square())
    return Moments(mean, (of_gradient + of_noise + of_class).clamp_min(0.0))
