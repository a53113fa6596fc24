r"""Truth and exact moments where x is drawn from any distribution with finitely many states.

.. math:: \nabla_\theta E f = \sum_x p(x)\,f(x)\,s(x), \qquad s = \nabla_\theta \log p(x)

and E[df/dparameters] beside it where f sees the parameters. All states are enumerated. What is
differentiated for all of them at once is in `slopes`.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from gradlab.categorical import check_floating
from gradlab.distributions.gradient import base_of
from gradlab.estimators import Estimator, LeaveOneOut
from gradlab.estimators.structured import NoisyEstimator
from gradlab.exact.all_cores import over_all
from gradlab.exact.differentiable import sum_of_blocks
from gradlab.exact.direct import each_gradient
from gradlab.exact.finite_states import (
    DistributionOf,
    all_states,
    check_parameters,
    check_sums,
    distribution_at,
    log_prob_at,
    samples_at,
)
from gradlab.exact.fitting import another_law, refused, samples_of
from gradlab.exact.gradient_rows import gradients
from gradlab.exact.packed import flattened
from gradlab.exact.slopes import Slopes
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, evaluate, gradient
from gradlab.loss.contract import weighted_sum
from gradlab.loss.gate import Objective, checked_at
from gradlab.loss.second_argument import direct_gradient
from gradlab.moments import Moments
from gradlab.reproducible import single_thread

__all__ = ["DistributionOf", "Structured"]

# Numbers of one block of states: x, products and scores.
_BLOCK_ELEMENTS = 2**18


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
        check_parameters(self.parameters)
        kept = self.parameters.detach().to("cpu", torch.float64, copy=True)
        given = self.parameters
        object.__setattr__(self, "parameters", kept)
        drawn = distribution_at(self.distribution, kept)
        object.__setattr__(self, "shape", drawn.batch_shape + drawn.event_shape)
        flat = flattened(self.f, self.shape)
        some = self._some_states().to(given.device, given.dtype)
        found = checked_at(flat, some, given, held=self.held)
        object.__setattr__(self, "objective", found)
        self._check()

    def _some_states(self) -> Tensor:
        """Return states at which f is asked whether it keeps its contract."""
        return self.states[torch.linspace(0, len(self.states) - 1, 12).long()]

    def _check(self) -> None:
        """Raise ValueError unless this is a distribution."""
        x = self._shaped(self.states)
        dtype = base_of(self._at(self.parameters)).log_prob(x[:1]).dtype
        check_sums(self.p.to(dtype), self.parameters, self._log_prob)

    def log_prob(self, parameters: Tensor) -> Float[Tensor, " S"]:
        """Return log p of every state, differentiable in the parameters.

        Args:
            parameters: Where, in the shape of the parameters.

        Returns:
            The log-probabilities, float64.
        """
        return self._log_prob(parameters)

    def _log_prob(self, parameters: Tensor, states: Tensor | None = None) -> Tensor:
        """Return log p of some states, by default of every one, [S]."""
        x = self.states if states is None else states
        return log_prob_at(self._at(parameters), self._shaped(x))

    def _shaped(self, states: Tensor) -> Tensor:
        return states.reshape(len(states), *self.shape)

    @property
    def given_parameters(self) -> Tensor:
        """The parameters in the dtype and on the device in which they were given."""
        return self.parameters.to(self.objective.device, self.objective.dtype, copy=True)

    @property
    def text(self) -> str:
        """What x is drawn from, in words."""
        return repr(self._at(self.parameters))

    @cached_property
    def _support(self) -> tuple[Tensor, Tensor]:
        found = all_states(distribution_at(self.distribution, self.parameters))
        states = found.reshape(len(found), 1, -1).to(torch.float64)
        with torch.no_grad():
            p = self._log_prob(self.parameters, states).exp()
        # What is forced out is not visited: its score is infinite.
        met = p != 0
        return (states, p) if bool(met.all()) else (states[met], p[met])

    @property
    def states(self) -> Float[Tensor, "S 1 D"]:
        """All states of positive probability, each as one row of D numbers, float64."""
        return self._support[0]

    @property
    def p(self) -> Float[Tensor, " S"]:
        """The probability of each state."""
        return self._support[1]

    @cached_property
    @single_thread()
    def values(self) -> Float[Tensor, " S"]:
        """The loss at each state."""
        f, x = self.objective, self.states
        found = over_all(self._parts, lambda part: evaluate(f, x[part]).detach().clone())
        return torch.cat(found).to(torch.float64)

    @cached_property
    @single_thread()
    def value(self) -> Float[Tensor, ""]:
        """The expected loss E f."""
        return self.p @ self.values

    @cached_property
    @single_thread()
    def gradient(self) -> Float[Tensor, "*parameters"]:
        """The true gradient of E f in the parameters, float64."""
        if self.objective.second is None:
            return self._first
        with torch.enable_grad():
            theta = self.parameters.detach().requires_grad_()
            f = self.objective.at(theta)
            values = ((part, evaluate(f, self.states[part])) for part in self._parts)
            return self._first + sum(direct_gradient(v, theta, self.p[part]) for part, v in values)

    @cached_property
    @single_thread()
    def _first(self) -> Tensor:
        """E[f s], the gradient of a loss of x alone."""
        # The mean is taken off: sum p s = 0, and an offset of f would cost digits.
        weight = self.p * (self.values - self.value)
        with torch.enable_grad():
            theta = self.parameters.detach().requires_grad_()
            (found,) = torch.autograd.grad(weighted_sum(self._log_prob(theta), weight), theta)
        return found

    def value_with_graph(self, parameters: Tensor) -> Float[Tensor, ""]:
        """Return the expected loss, whose graph leads to the parameters that were given.

        Args:
            parameters: The caller's, with their graph.
        """

        def block(x: Tensor, theta: Tensor) -> Tensor:
            values = evaluate(self.objective.at(theta), x).to(torch.float64)
            return self._log_prob(theta, x).exp() @ (values - self.value)

        blocks = (partial(block, self.states[part]) for part in self._parts)
        return sum_of_blocks(self.value, blocks, parameters)

    @single_thread()
    def moments(self, estimator: Estimator) -> Moments:
        """Return mean and variance of one estimate, over all states.

        Args:
            estimator: ST, ZGR, DARN, ST-ZGR, SIMPLE, REINFORCE, EMA (as it is now) or RF(m).

        Returns:
            The moments; `mean` has the shape of the parameters.

        Raises:
            NotExactError: The estimator is not known on this distribution, or it has continuous
                noise of its own, as I-MLE, TopK and TopK-ST.
            NotDifferentiableError: It needs a gradient that f does not have.
        """
        if isinstance(estimator, LeaveOneOut):
            return self._leave_one_out(estimator.m)
        values = self.values

        def sums(part: slice) -> Tensor:
            x, p = self.states[part], self.p[part]
            g = self._estimates(estimator, x, values[part]) + self._direct(x)
            return torch.stack([p @ g, p @ g.square_()])

        mean, square = torch.stack(over_all(self._parts, sums)).sum(0)
        return self._moments(mean, square - mean.square())

    def _moments(self, mean: Tensor, variance: Tensor) -> Moments:
        shape = self.parameters.shape
        return Moments(mean.reshape(shape), variance.clamp_min(0.0).reshape(shape).sum(-1))

    def _leave_one_out(self, m: int) -> Moments:
        r"""Return the moments of RF(m), a U-statistic of pairs (Hoeffding 1948).

        Its kernel is h = (a(x) - a(y)) (s(x) - s(y)) / 2 with a = f - E f.
        """
        away = self.values - self.value

        def sums(part: slice) -> Tensor:
            s = self._slopes.scores(self._shaped(self.states[part]))
            p = self.p[part]
            return torch.stack([p @ s.square(), p @ (away[part, None] * s).square()])

        of_scores, both = torch.stack(over_all(self._parts, sums)).sum(0)
        g = self._first.flatten()
        first = (both - g.square()) / 4
        pair = (both + (self.p @ away.square()) * of_scores) / 2
        variance = 2 / (m * (m - 1)) * (2 * (m - 2) * first + pair)
        if self.objective.second is not None:
            variance += self._variance_of_direct() / m
        return self._moments(self.gradient.flatten(), variance)

    def _variance_of_direct(self) -> Tensor:
        """Return 2 Cov((f - E f) s, d) + Var d of one x, d being the gradient in the parameters."""
        first = self._first.flatten()
        away = (self.values - self.value)[:, None]

        def sums(part: slice) -> Tensor:
            x, p = self.states[part], self.p[part]
            s, d = self._slopes.scores(self._shaped(x)), self._direct(x)
            return torch.stack([p @ d, p @ ((2 * away[part] * s + d) * d)])

        direct, more = torch.stack(over_all(self._parts, sums)).sum(0)
        return more - (2 * first + direct) * direct

    def _direct(self, x: Tensor) -> Tensor:
        """Return the gradient of f in the parameters at each x, [n, P], 0 if it sees none."""
        if self.objective.second is None:
            return torch.zeros((), dtype=torch.float64)
        return each_gradient(self.objective, x, self.parameters)

    def _estimates(self, estimator: Estimator, x: Tensor, values: Tensor) -> Tensor:
        """Return the estimate [n, P] at each x."""
        reason = self.refusal(estimator)
        if reason is not None:
            raise NotExactError(reason)
        if isinstance(estimator, NoisyEstimator):
            raise NotExactError(f"{estimator} has continuous noise of its own; use draws")
        shaped = self._shaped(x)
        if estimator.line_alpha is not None:
            v = self._shaped(gradient(self.objective, x).to(torch.float64))
            return self._slopes.products(shaped, v, estimator.line_alpha)
        away = values - getattr(estimator, "baseline", 0.0)
        return away.unsqueeze(-1) * self._slopes.scores(shaped)

    def refusal(self, estimator: Estimator) -> str | None:
        """Return why an estimator is not known for this distribution, or None.

        Args:
            estimator: Any estimator.
        """
        return refused(estimator, self._slopes.structure)

    def another_law(self, estimator: Estimator) -> str | None:
        """Return what to know where samples of an estimator do not follow the law of x, or None.

        Args:
            estimator: Any estimator.
        """
        return another_law(estimator, self._slopes.structure)

    @cached_property
    def _slopes(self) -> Slopes:
        return Slopes(self._at, self.parameters, self.shape)

    def _at(self, theta: Tensor) -> Distribution:
        return distribution_at(self.distribution, theta)

    def draws(self, estimator: Estimator, n: int, generator: Generator) -> Tensor:
        """Return n independent estimates [n, *parameters].

        Args:
            estimator: An estimator that `moments` knows.
            n: The number of draws.
            generator: The source of the randomness.

        Returns:
            The draws, float64.
        """
        if isinstance(estimator, NoisyEstimator) and self.refusal(estimator) is None:
            direct = torch.zeros((), dtype=torch.float64)

            def of(x: Tensor) -> Tensor:
                nonlocal direct
                direct = self._direct(x)
                return gradient(self.objective, x)

            found = self._slopes.noisy_draws(estimator, of, n, generator) + direct
            return found.reshape(n, *self.parameters.shape)
        x = self.sample(n * samples_of(estimator), generator)
        return self.estimates(estimator, x)

    def estimates(self, estimator: Estimator, x: Tensor) -> Tensor:
        """Return one estimate for each m samples in a row, [n, *parameters].

        Args:
            estimator: An estimator that `moments` knows.
            x: Samples [n m, 1, D], where m is `samples_of(estimator)`.

        Returns:
            The estimates, float64.
        """
        m = samples_of(estimator)
        n = len(x) // m
        values = evaluate(self.objective, x).detach().to(torch.float64)
        if m == 1:
            found = self._estimates(estimator, x, values) + self._direct(x)
        else:
            of_draw = values.reshape(n, m)
            weight = (of_draw - of_draw.mean(1, keepdim=True)) / (m - 1)

            def scored(theta: Tensor) -> Tensor:
                return (weight * self._log_prob(theta, x).reshape(n, m)).sum(1)

            found = gradients(scored, self.parameters, n)
            if self.objective.second is not None:
                found = found + self._direct(x).reshape(n, m, -1).mean(1)
        return found.reshape(n, *self.parameters.shape)

    def scores(self, x: Float[Tensor, "n 1 D"]) -> Float[Tensor, "n P"]:
        """Return the scores at states x: the gradients of log p in the P parameters.

        Args:
            x: States or samples.

        Returns:
            One row of P numbers for each.
        """
        return self._slopes.scores(self._shaped(x))

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n 1 D"]:
        """Return n samples of x, each as one row of D numbers, float64.

        Args:
            n: The number of samples.
            generator: The source of the randomness.

        Returns:
            The samples.
        """
        x = samples_at(self._at(self.parameters), n, generator)
        return x.reshape(n, 1, -1).to(torch.float64)

    @property
    def _parts(self) -> list[slice]:
        """The places of the states that are held at a time."""
        size, count = max(1, _BLOCK_ELEMENTS // self._slopes.numbers_per_state), len(self.states)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
