r"""Truth and exact moments where x is drawn from any distribution with finitely many states.

.. math:: \nabla_\theta E f = \sum_x p(x)\,f(x)\,s(x), \qquad s = \nabla_\theta \log p(x)

and E[df/dparameters] beside it where f sees the parameters. All states are enumerated; scores and
products of all of them are made at once, by differentiating their sum with weights in the weights.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent

from gradlab.categorical import check_floating
from gradlab.distributions.base import FiniteDistribution, with_gradient
from gradlab.estimators import Estimator, LeaveOneOut, Reinforce
from gradlab.exact.differentiable import sum_of_blocks
from gradlab.exact.direct import each_gradient
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.packed import flattened
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, evaluate, gradient
from gradlab.loss.gate import Objective, checked_at
from gradlab.loss.second_argument import direct_gradient
from gradlab.moments import Moments
from gradlab.reproducible import single_thread
from gradlab.samples import configurations_at

__all__ = ["DistributionOf", "Structured"]

DistributionOf = Callable[[Any], Distribution]
"""From the parameters to what x is drawn from."""


# Numbers of one block of states: x, products and scores.
_BLOCK_ELEMENTS = 2**21
_ELEMENTS = 2**27
_MAX_STATES = 2**20


@dataclass(frozen=True)
class Structured:
    """A loss of x drawn from a distribution with finitely many states, enumerated at most once.

    Args:
        f: The loss, x [..., *shape of x] -> [...]. The shape of x is that of one sample: batch and
            event axes of the distribution together. Elements of the batch are independent. Or
            f(x, parameters), marked by `gradlab.with_parameters`.
        parameters: What the distribution depends on, any shape, floating-point.
        distribution: From parameters like these to a `torch.distributions.Distribution` with
            `enumerate_support` and a differentiable `log_prob`, such as `gradlab.distributions`
            and torch's own `OneHotCategorical`, `Bernoulli`, `Categorical` and `Independent`.
        held: Tensors that the parameters were made of, which f must not depend on in another way.

    Raises:
        LossError: If f breaks its contract; the subclass names the fault.
        TooLargeError: If there are more than 2^20 states, or they do not fit in memory.
        TypeError: If the parameters are not floating-point, or no distribution comes back.
        ValueError: If the support is not finite, log_prob is not differentiable in the parameters,
            or the probabilities do not sum to 1.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))
        >>> on.value, on.gradient[0]
        (tensor(0.5000, dtype=torch.float64), tensor(0.2500, dtype=torch.float64))
    """

    f: Loss
    parameters: Float[Tensor, "*parameters"]
    distribution: DistributionOf
    held: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    objective: Objective = field(init=False, repr=False, compare=False)
    shape: torch.Size = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, Tensor):
            raise TypeError(f"parameters must be a tensor, not {type(self.parameters).__name__}")
        check_floating(self.parameters)
        kept = self.parameters.detach().to("cpu", torch.float64, copy=True)
        given = self.parameters
        object.__setattr__(self, "parameters", kept)
        drawn = _distribution(self.distribution, kept)
        object.__setattr__(self, "shape", drawn.batch_shape + drawn.event_shape)
        flat = flattened(self.f, self.shape)
        some = self.states[torch.linspace(0, len(self.states) - 1, 12).long()]
        found = checked_at(flat, some.to(given.device, given.dtype), given, held=self.held)
        object.__setattr__(self, "objective", found)
        _check_sums(self.p, self.parameters, self._log_prob)

    def _log_prob(self, parameters: Tensor, states: Tensor | None = None) -> Tensor:
        """Return log p of some states, by default of every one, [S]."""
        x = self.states if states is None else states
        return _log_prob(self._at(parameters), self._shaped(x))

    def _shaped(self, states: Tensor) -> Tensor:
        return states.reshape(len(states), *self.shape)

    @property
    def given_parameters(self) -> Tensor:
        """The parameters in the dtype and on the device in which they were given."""
        return self.parameters.to(self.objective.device, self.objective.dtype, copy=True)

    @cached_property
    def states(self) -> Float[Tensor, "S 1 D"]:
        """All states, each as one row of D numbers, float64."""
        drawn = _distribution(self.distribution, self.parameters)
        found = _states(drawn)
        return found.reshape(len(found), 1, -1).to(torch.float64)

    @cached_property
    def p(self) -> Float[Tensor, " S"]:
        """The probability of each state."""
        with torch.no_grad():
            return self._log_prob(self.parameters).exp()

    @cached_property
    def values(self) -> Float[Tensor, " S"]:
        """The loss at each state."""
        parts = [evaluate(self.objective, x).to(torch.float64) for _, x in self._blocks()]
        return torch.cat([part.detach() for part in parts])

    @cached_property
    def value(self) -> Float[Tensor, ""]:
        """The expected loss E f."""
        return self.p @ self.values

    @cached_property
    def gradient(self) -> Float[Tensor, "*parameters"]:
        """The true gradient of E f in the parameters, float64."""
        if self.objective.second is None:
            return self._first
        with torch.enable_grad():
            theta = self.parameters.detach().requires_grad_()
            values = ((part, evaluate(self.objective.at(theta), x)) for part, x in self._blocks())
            return self._first + sum(direct_gradient(v, theta, self.p[part]) for part, v in values)

    @cached_property
    def _first(self) -> Tensor:
        """E[f s], the gradient of a loss of x alone."""
        # The mean is taken off: sum p s = 0, and an offset of f would cost digits.
        weight = self.p * (self.values - self.value)
        with torch.enable_grad():
            theta = self.parameters.detach().requires_grad_()
            (found,) = torch.autograd.grad(self._log_prob(theta), theta, weight)
        return found

    def value_with_graph(self, parameters: Tensor) -> Float[Tensor, ""]:
        """Return the expected loss, whose graph leads to the parameters that were given.

        Args:
            parameters: The caller's, with their graph.
        """

        def block(x: Tensor, theta: Tensor) -> Tensor:
            values = evaluate(self.objective.at(theta), x).to(torch.float64)
            return self._log_prob(theta, x).exp() @ (values - self.value)

        blocks = (partial(block, x) for _, x in self._blocks())
        return sum_of_blocks(self.value, blocks, parameters)

    @single_thread()
    def moments(self, estimator: Estimator) -> Moments:
        """Return mean and variance of one estimate, over all states.

        Args:
            estimator: ST, ZGR, DARN, ST-ZGR, REINFORCE, EMA (as it is now) or RF(m).

        Returns:
            The moments; `mean` has the shape of the parameters.

        Raises:
            NotExactError: No formula is known for this estimator on a distribution.
            NotDifferentiableError: It needs a gradient that f does not have.
        """
        if isinstance(estimator, LeaveOneOut):
            return self._leave_one_out(estimator.m)
        mean = torch.zeros(self.parameters.numel(), dtype=torch.float64)
        square = torch.zeros_like(mean)
        for part, x in self._blocks(self.parameters.numel()):
            g = self._estimates(estimator, x, self.values[part]) + self._direct(x)
            mean += self.p[part] @ g
            square += self.p[part] @ g.square()
        return self._moments(mean, square - mean.square())

    def _moments(self, mean: Tensor, variance: Tensor) -> Moments:
        shape = self.parameters.shape
        return Moments(mean.reshape(shape), variance.clamp_min(0.0).reshape(shape).sum(-1))

    def _leave_one_out(self, m: int) -> Moments:
        r"""Return the moments of RF(m), a U-statistic of pairs (Hoeffding 1948).

        Its kernel is h = (a(x) - a(y)) (s(x) - s(y)) / 2 with a = f - E f.
        """
        size = self.parameters.numel()
        of_scores = torch.zeros(size, dtype=torch.float64)
        both = torch.zeros_like(of_scores)
        away = self.values - self.value
        for part, x in self._blocks(size):
            s = self._rows(partial(self._log_prob, states=x), len(x))
            of_scores += self.p[part] @ s.square()
            both += self.p[part] @ (away[part, None] * s).square()
        g = self._first.flatten()
        first = (both - g.square()) / 4
        pair = (both + (self.p @ away.square()) * of_scores) / 2
        variance = 2 / (m * (m - 1)) * (2 * (m - 2) * first + pair)
        if self.objective.second is not None:
            variance += self._variance_of_direct() / m
        return self._moments(self.gradient.flatten(), variance)

    def _variance_of_direct(self) -> Tensor:
        """Return 2 Cov((f - E f) s, d) + Var d of one x, d being the gradient in the parameters."""
        size, first = self.parameters.numel(), self._first.flatten()
        more, direct = torch.zeros_like(first), torch.zeros_like(first)
        for part, x in self._blocks(size):
            s = self._rows(partial(self._log_prob, states=x), len(x))
            d = self._direct(x)
            direct += self.p[part] @ d
            away = (self.values[part] - self.value)[:, None]
            more += self.p[part] @ ((2 * away * s + d) * d)
        return more - (2 * first + direct) * direct

    def _direct(self, x: Tensor) -> Tensor:
        """Return the gradient of f in the parameters at each x, [n, P], 0 if it sees none."""
        if self.objective.second is None:
            return torch.zeros((), dtype=torch.float64)
        return each_gradient(self.objective, x, self.parameters)

    def _estimates(self, estimator: Estimator, x: Tensor, values: Tensor) -> Tensor:
        """Return the estimate [n, P] at each x."""
        shaped = self._shaped(x)
        alpha = estimator.line_alpha
        if alpha is not None:
            v = self._shaped(gradient(self.objective, x).to(torch.float64))

            def along(theta: Tensor) -> Tensor:
                moved = with_gradient(self._at(theta), shaped, alpha)
                return (moved * v).flatten(1).sum(-1)

            return self._rows(along, len(x))
        if isinstance(estimator, Reinforce):
            weight = values - estimator.baseline
            return self._rows(lambda theta: weight * self._log_prob(theta, x), len(x))
        raise NotExactError(
            f"{estimator} is not known where x is drawn from a distribution; use ST, ZGR, DARN, "
            "ST-ZGR(alpha=...), REINFORCE or RF(m=...)"
        )

    def _at(self, theta: Tensor) -> Distribution:
        return _distribution(self.distribution, theta)

    def _rows(self, values: Callable[[Tensor], Tensor], n: int) -> Tensor:
        """Return the gradient of each of n values in the parameters, [n, P]."""
        size = self.parameters.numel()
        with torch.enable_grad():
            theta = self.parameters.detach().requires_grad_()
            found = values(theta)
            if not found.requires_grad:
                return torch.zeros(n, size, dtype=torch.float64)
            if n <= size:
                unit = torch.eye(n, dtype=torch.float64)
                (rows,) = torch.autograd.grad(found, theta, unit, is_grads_batched=True)
                return rows.flatten(1)
            # The gradient of a weighted sum is linear in the weights.
            weight = torch.zeros(n, dtype=torch.float64, requires_grad=True)
            (g,) = torch.autograd.grad(found, theta, weight, create_graph=True)
            unit = torch.eye(size, dtype=torch.float64)
            (columns,) = torch.autograd.grad(
                g.flatten(), weight, unit, is_grads_batched=True, materialize_grads=True
            )
        return columns.T

    def draws(self, estimator: Estimator, n: int, generator: Generator) -> Tensor:
        """Return n independent estimates [n, *parameters].

        Args:
            estimator: An estimator that `moments` knows.
            n: The number of draws.
            generator: The source of the randomness.

        Returns:
            The draws, float64.
        """
        m = estimator.m if isinstance(estimator, LeaveOneOut) else 1
        x = self._sample(n * m, generator)
        values = evaluate(self.objective, x).detach().to(torch.float64)
        if m == 1:
            found = self._estimates(estimator, x, values) + self._direct(x)
        else:
            of_draw = values.reshape(n, m)
            weight = (of_draw - of_draw.mean(1, keepdim=True)) / (m - 1)

            def scored(theta: Tensor) -> Tensor:
                return (weight * self._log_prob(theta, x).reshape(n, m)).sum(1)

            found = self._rows(scored, n)
            if self.objective.second is not None:
                found = found + self._direct(x).reshape(n, m, -1).mean(1)
        return found.reshape(n, *self.parameters.shape)

    def _sample(self, n: int, generator: Generator) -> Tensor:
        drawn = self._at(self.parameters)
        if isinstance(drawn, FiniteDistribution):
            x = drawn.sample((n,), generator)
        else:
            # torch's own distributions draw from the global generator.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                x = drawn.sample((n,))
        return x.reshape(n, 1, -1).to(torch.float64)

    def _blocks(self, columns: int = 1) -> Iterator[tuple[slice, Tensor]]:
        """Yield the states in blocks, with their places."""
        # A gradient for each state and parameter passes through numbers of the size of x.
        size = max(1, _BLOCK_ELEMENTS // (self.states.shape[-1] * columns))
        start = 0
        for x in self.states.split(size):
            yield slice(start, start + len(x)), x
            start += len(x)


def _distribution(of: DistributionOf, parameters: Tensor) -> Distribution:
    """Return the distribution at some parameters, after a check of its kind."""
    found = of(parameters)
    if not isinstance(found, Distribution):
        raise TypeError(
            "distribution must return a torch.distributions.Distribution, not "
            f"{type(found).__name__}"
        )
    if not _base(found).has_enumerate_support:
        raise ValueError(
            f"{type(_base(found)).__name__} has no finite support that can be enumerated; use a "
            "distribution with enumerate_support, or gradlab.distributions.Finite"
        )
    return found


def _base(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _log_prob(distribution: Distribution, x: Tensor) -> Tensor:
    """Return log p of each x [n], all elements of the batch together."""
    return _base(distribution).log_prob(x).reshape(len(x), -1).sum(-1)


def _states(distribution: Distribution) -> Tensor:
    """Return all states [S, *batch, *event], of which elements of the batch are independent."""
    base = _base(distribution)
    support = base.enumerate_support(expand=False)
    elements = base.batch_shape.numel()
    event = support.reshape(len(support), *base.event_shape)
    count = len(support) ** elements if elements * math.log(len(support)) < 100 else math.inf
    numbers = count * elements * max(1, base.event_shape.numel())
    if count > _MAX_STATES or numbers > _ELEMENTS:
        raise TooLargeError(
            f"{elements} independent elements of {len(support)} states have about {count:.2g} "
            f"states together, more than the {_MAX_STATES} that are enumerated; draw instead"
        )
    every = [torch.arange(len(support))] * elements
    index = configurations_at(torch.arange(int(count)), every)
    return event[index].reshape(int(count), *base.batch_shape, *base.event_shape)


def _check_sums(p: Tensor, parameters: Tensor, log_prob: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError unless probabilities sum to 1, also near these parameters."""
    off = abs(float(p.sum()) - 1)
    if not off < 1e-6:
        raise ValueError(
            f"the probabilities of all states sum to {float(p.sum()):.6g}, not 1: log_prob is not "
            "normalized over enumerate_support()"
        )
    with torch.enable_grad():
        theta = parameters.detach().requires_grad_()
        found = log_prob(theta)
        if not found.requires_grad:
            raise ValueError(
                "log_prob is not differentiable in the parameters: does the distribution detach "
                "them, or not use them?"
            )
        (mean_score,) = torch.autograd.grad(found, theta, p)
    if not float(mean_score.abs().max()) < 1e-6:
        raise ValueError(
            "the probabilities sum to 1 at these parameters only: the mean of the score is "
            f"{float(mean_score.abs().max()):.2g}, not 0. Normalize log_prob by torch operations "
            "on the parameters"
        )
